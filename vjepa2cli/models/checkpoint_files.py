"""The two kinds of checkpoint file, opened by memory map and without running what is in them."""

import ctypes
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vjepa2cli.errors import WeightsError

PT_SUFFIXES = (".pt", ".pth", ".tar", ".bin")

_MAPS = Path("/proc/self/maps")
_DONT_NEED = 4
"""`MADV_DONTNEED` of Linux."""


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


def forget_pages(files: Iterable[Path]) -> None:
    """Let go of what was read of mapped files: it comes from the file again when it is read again.

    Such pages count as this process's memory though the system may take them back at any time. Where it does not tell what it
    has mapped (`/proc`), they stay until it does.
    """
    names = {str(path.resolve()) for path in files}
    if not names or not _MAPS.is_file():
        return
    library = ctypes.CDLL(None)
    for line in _MAPS.read_text().splitlines():
        span, *_, name = line.split(maxsplit=5)
        if name in names:
            start, end = (int(word, 16) for word in span.split("-"))
            library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONT_NEED)
