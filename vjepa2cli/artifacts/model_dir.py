"""A model folder: `config.json` and `model.safetensors`, whole or absent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from vjepa2cli.errors import ArtifactError
from vjepa2cli.files import digest_file, digest_json, read_json, replaced_atomically, write_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def save_model(path: Path, config: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a model folder under a temporary name and rename it over `path`; the same content gives the same bytes."""
    held = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    with replaced_atomically(path) as partial:
        partial.mkdir()
        write_json(partial / CONFIG, config)
        # Serialised here and written by Python, so that a full disk is the OSError that it is everywhere else.
        (partial / WEIGHTS).write_bytes(save(held, metadata={"format": "pt"}))


def save_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: dict[str, str]) -> None:
    """Write one `.safetensors` file, whole or not at all; the same content gives the same bytes."""
    held = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    with replaced_atomically(path) as partial:
        partial.write_bytes(save(held, metadata=metadata))


def find_model(path: Path) -> Path:
    """The model folder at `path`: itself, or `model/` in a run directory; raises ArtifactError where there is none."""
    for folder in (path, path / "model"):
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
