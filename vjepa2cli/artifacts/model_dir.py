"""A model folder: `config.json` and `model.safetensors`, whole or absent."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vjepa2cli.errors import ArtifactError
from vjepa2cli.files import digest_file, digest_json, read_json, replaced_atomically, write_json
from vjepa2cli.registry import in_place

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.float64: "F64",
}


def save_model(path: Path, config: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a model folder under a temporary name and rename it over `path`; the same content gives the same bytes."""
    with replaced_atomically(path) as partial:
        partial.mkdir()
        write_json(partial / CONFIG, config)
        _write_tensors(partial / WEIGHTS, tensors, {"format": "pt"})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: dict[str, str]) -> None:
    """Write one `.safetensors` file, whole or not at all; the same content gives the same bytes."""
    with replaced_atomically(path) as partial:
        _write_tensors(partial, tensors, metadata)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a `.safetensors` file one tensor at a time, so that nothing is held twice; the library's own writer holds it all.

    Eight bytes of length, a JSON header, then the tensors without gaps, the widest type first and by name within.
    Source: the format section of the README of huggingface/safetensors.
    """
    order = sorted(tensors, key=lambda name: (-list(_DTYPES).index(tensors[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].nbytes
        entry = {"dtype": _DTYPES[tensors[name].dtype], "shape": list(tensors[name].shape), "data_offsets": [start, end]}
        header[name] = entry
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            handle.write(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def find_model(path: Path) -> Path:
    """The model folder at `path`: itself, or `model/` in a run directory, or a shipped one by its name.

    Raises ArtifactError where there is none.
    """
    place = Path(in_place(path))
    for folder in (place, place / "model"):
        if (folder / CONFIG).is_file():
            return folder
    raise ArtifactError(
        f"{path}: no {CONFIG} in it nor in its model/; give a model folder, or a run directory whose run has ended"
    )


def read_model_config(path: Path) -> dict[str, Any]:
    """The `config.json` of a model folder or of a run directory that has one; raises ArtifactError where it cannot be read."""
    return read_json(find_model(path) / CONFIG)


def model_digest(path: Path) -> str:
    """SHA-256 over the config and the weights of a model folder or of a run directory that has one."""
    folder = find_model(path)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ArtifactError(f"{folder}: holds no *.safetensors; run the step that writes the model again")
    return digest_json({file.name: digest_file(file) for file in (folder / CONFIG, *weights)})
