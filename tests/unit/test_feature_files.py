"""Feature files: every format holds the same arrays, appears whole or not at all, and other libraries read it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from safetensors import safe_open

from vjepa2cli.artifacts.feature_files import SUFFIXES, create, read_blocks, read_header
from vjepa2cli.artifacts.feature_stores import join_h5, make_parents, mark_zarr_store, refuse_other
from vjepa2cli.errors import ArtifactError

Arrays = dict[str, NDArray[Any]]
HEADER = {"source": "a.mp4", "layers": [1, 2], "note": 'ü " \n'}


def read_npz(path: Path) -> tuple[Arrays, str]:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, str(arrays.pop("provenance"))


def read_safetensors(path: Path) -> tuple[Arrays, str]:
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()["provenance"]  # noqa: SIM118


def read_h5(path: Path) -> tuple[Arrays, str]:
    with h5py.File(path, "r") as file:
        arrays = {name: file[name][()] for name in file if name != "provenance"}
        return arrays, file["provenance"].asstr()[()]


def read_zarr(path: Path) -> tuple[Arrays, str]:
    group = zarr.open_group(path, mode="r")
    return {name: array[...] for name, array in group.arrays()}, json.dumps(group.attrs["provenance"])


READERS: dict[str, Callable[[Path], tuple[Arrays, str]]] = {
    ".npz": read_npz,
    ".safetensors": read_safetensors,
    ".h5": read_h5,
    ".zarr": read_zarr,
}


def made(count: int, width: int) -> Arrays:
    rng = np.random.default_rng(count)
    return {name: rng.normal(size=(count, 2, width)).astype(np.float32) for name in ("tokens_layer1", "tokens_layer2")}


def write(path: Path, growing: Arrays, step: int) -> Arrays:
    whole: Arrays = {
        "timestamps": np.arange(len(growing["tokens_layer1"])) / 3,
        "grid": np.array([4, 1, 2]),
        "num_frames": np.array(9),
    }
    writer = create(path)
    for start in range(0, len(growing["tokens_layer1"]), step):
        for name, rows in growing.items():
            writer.append(name, rows[start : start + step])
    writer.commit(whole, HEADER)
    return growing | whole


# A row of 1.5 MiB is larger than a chunk, and 40 of them larger than a shard; rows of 8 bytes are many a chunk.
@pytest.mark.parametrize(("count", "width", "step"), [(1, 3, 1), (7, 3, 2), (40, 200_000, 3)])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_that_grow_are_read_back_by_the_formats_own_library(
    tmp_path: Path, suffix: str, count: int, width: int, step: int
) -> None:
    path = tmp_path / "below" / f"a{suffix}"
    expected = write(path, made(count, width), step)
    arrays, header = READERS[suffix](path)
    assert sorted(arrays) == sorted(expected)
    for name, array in expected.items():
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array), name
    assert json.loads(header) == HEADER == read_header(path)
    assert np.array_equal(np.concatenate(list(read_blocks(path, "tokens_layer2"))), expected["tokens_layer2"])
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".zarr"])
def test_equal_content_gives_equal_bytes_however_it_came(tmp_path: Path, suffix: str) -> None:
    for place, step in (("one", 1), ("two", 5)):
        write(tmp_path / place / f"a{suffix}", made(9, 4), step)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert files
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_discarded_leaves_the_earlier_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, made(3, 4), 1)
    writer = create(path)
    writer.append("tokens_layer1", made(5, 300_000)["tokens_layer1"])
    writer.discard()
    assert len(READERS[suffix](path)[0]["tokens_layer1"]) == 3
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_feature_file_has_no_header(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    assert read_header(path) is None
    path.write_bytes(b"\xff" * 64)
    assert read_header(path) is None


def test_one_h5_file_takes_a_group_an_input_and_keeps_the_others(tmp_path: Path) -> None:
    expected = {
        name: write(tmp_path / f"{index}.h5", made(3 + index, 4), 2) for index, name in enumerate(("a.mp4", "b/c.mp4", "b/d"))
    }
    join_h5(tmp_path / "all.h5", {"a.mp4": tmp_path / "0.h5", "b/c.mp4": tmp_path / "0.h5"})
    join_h5(tmp_path / "all.h5", {"b/c.mp4": tmp_path / "1.h5", "b/d": tmp_path / "2.h5"})
    with h5py.File(tmp_path / "all.h5") as file:
        for name, arrays in expected.items():
            assert all(np.array_equal(file[name][key][()], array) for key, array in arrays.items())
            assert json.loads(file[name]["provenance"].asstr()[()]) == HEADER


def test_one_zarr_store_takes_a_group_an_input(tmp_path: Path) -> None:
    store = tmp_path / "all.zarr"
    mark_zarr_store(store, complete=False)
    for name in ("a.mp4", "b/c/d.mp4"):
        make_parents(store, name)
        writer = create(store / name, suffix=".zarr")
        writer.append("tokens", made(3, 4)["tokens_layer1"])
        writer.commit({}, HEADER)
    mark_zarr_store(store, complete=True)
    root = zarr.open_group(store, mode="r")
    assert root.attrs["complete"] is True
    assert sorted(name for name, _ in root.groups()) == ["a.mp4", "b"]
    assert np.array_equal(root["b/c/d.mp4/tokens"][...], made(3, 4)["tokens_layer1"])
    assert read_header(store / "b/c/d.mp4", suffix=".zarr") == HEADER


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_what_is_not_features_is_not_overwritten(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    refuse_other(path, store=True)
    path.mkdir()
    with pytest.raises(ArtifactError, match="other than features"):
        refuse_other(path, store=True)
    path.rmdir()
    write(path, made(1, 2), 1)
    refuse_other(path, store=False)
    with pytest.raises(ArtifactError, match="of one input"):
        refuse_other(path, store=True)
