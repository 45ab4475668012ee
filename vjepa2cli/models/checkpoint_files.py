"""The two kinds of checkpoint file, opened by memory map and without running what is in them."""

import ctypes
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vjepa2cli.errors import WeightsError

PT_SUFFIXES = (".pt", ".pth", ".tar", ".bin")

_MAPS = Path("/proc/self/maps")
_DONT_NEED = 4
"""`MADV_DONTNEED` of Linux."""

_Content = TypeVar("_Content")


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


@dataclass(frozen=True)
class MappedFile:
    """Where one reading of a file has mapped it: first and last address of each part."""

    path: Path
    spans: frozenset[tuple[int, int]]

    def forget(self) -> None:
        """Let go of the pages that were read: they come from the file again when they are read again.

        They count as this process's memory though the system may take them back at any time.
        """
        # Only what is mapped there still: other memory may have taken its place.
        for start, end in _spans(self.path) & self.spans:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONT_NEED)


def mapped(read: Callable[[Path], _Content], path: Path) -> tuple[_Content, MappedFile]:
    """What `read` finds in a file, and where it has mapped it; others may have mapped the same file, and changed their pages."""
    before = _spans(path)
    content = read(path)
    return content, MappedFile(path, _spans(path) - before)


def _spans(path: Path) -> frozenset[tuple[int, int]]:
    """Where a file is mapped in this process; nowhere, as far as is known, where the system does not tell."""
    if not _MAPS.is_file():
        return frozenset()
    name, lines = str(path.resolve()), (line.split(maxsplit=5) for line in _MAPS.read_text().splitlines())
    spans = (line[0].partition("-") for line in lines if line[-1] == name)
    return frozenset((int(start, 16), int(end, 16)) for start, _, end in spans)
