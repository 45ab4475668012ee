"""A model folder is whole or absent, and the same content gives the same bytes."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from vjepa2cli.artifacts import model_dir
from vjepa2cli.artifacts.model_dir import model_digest, read_model_config, save_model
from vjepa2cli.errors import ArtifactError

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(2, 2).T}


def test_what_is_saved_is_read_back_also_from_the_run_directory(tmp_path: Path) -> None:
    save_model(tmp_path / "run" / "model", {"vjepa2cli": {"kind": "probe"}}, TENSORS)
    found = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) for name in found)
    assert (
        read_model_config(tmp_path / "run") == read_model_config(tmp_path / "run" / "model") == {"vjepa2cli": {"kind": "probe"}}
    )


def test_the_digest_follows_the_content_alone(tmp_path: Path) -> None:
    save_model(tmp_path / "one", {"x": 1}, TENSORS)
    save_model(tmp_path / "two", {"x": 1}, dict(reversed(TENSORS.items())))
    save_model(tmp_path / "other config", {"x": 2}, TENSORS)
    save_model(tmp_path / "other weights", {"x": 1}, TENSORS | {"a": torch.zeros(2, 2)})
    digests = {path.name: model_digest(path) for path in tmp_path.iterdir()}
    assert digests["one"] == digests["two"]
    assert len(set(digests.values())) == 3


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool]
)
def test_the_bytes_are_those_of_the_safetensors_library(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = TENSORS | {"é": torch.tensor(3).to(dtype), "none": torch.zeros(0, 4, dtype=dtype), "half": torch.ones(5).half()}
    save_model(tmp_path / "model", {"x": 1}, tensors)
    expected = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"})
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == expected


def test_a_full_disk_leaves_the_older_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "model", {"x": 1}, TENSORS)
    before = model_digest(tmp_path / "model")

    opened = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if mode == "wb":
            path.touch()
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, mode, *rest, **more)

    monkeypatch.setattr(model_dir.Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(tmp_path / "model", {"x": 2}, TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert model_digest(tmp_path / "model") == before


def test_a_folder_without_a_model_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run directory"):
        read_model_config(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="safetensors"):
        model_digest(tmp_path)
