"""The two kinds of checkpoint file, opened by memory map and without running what is in them."""

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vjepa2cli.errors import WeightsError

PT_SUFFIXES = (".pt", ".pth", ".tar", ".bin")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name; raises WeightsError where it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: is no whole safetensors file ({error}); download or write it again") from None


def read_pt(path: Path) -> Any:
    """What `torch.save` wrote, if it is plain tensors and containers; raises WeightsError where it is anything else."""
    try:
        # torch warns of unusual pickles, which are refused below or load well.
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {name[1]}" if name else "it is damaged, or holds other things"
        raise WeightsError(
            f"{path}: is no checkpoint of plain tensors: {reason}; nothing that could run code is opened"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = re.split(r"[.\n]", str(error))[0] or type(error).__name__
        raise WeightsError(f"{path}: is no checkpoint, or a damaged one ({reason}); download it again") from None
