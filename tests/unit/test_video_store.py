"""The video store: lossless, whole or absent, and equal where its content is equal."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vjepa2cli.artifacts.video_store import VideoStore, VideoStoreWriter, Window
from vjepa2cli.errors import ArtifactError


def pixels(num_frames: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, 12, 16, 3), np.uint8)


def add(writer: VideoStoreWriter, key: str, frames: np.ndarray, **rows: np.ndarray) -> None:
    with writer.entry(key) as entry:
        for index, frame in enumerate(frames):
            entry.append(index / 4, 2 * index, frame)
        attributes: dict[str, Any] = {"source": key, "source_digest": "0", "episode": key, "fps": 4.0, "robot": None, "notes": []}
        entry.finish(attributes, windows=[Window(1, 4, "up")], rows=rows)


def begin(path: Path, *, codec: str = "zstd", shard_frames: int = 4) -> VideoStoreWriter:
    return VideoStoreWriter.open(path, {"codec": codec, "shard_frames": shard_frames})


def write(path: Path, *, codec: str = "zstd", shard_frames: int = 4, split: str = "train") -> VideoStore:
    writer = begin(path, codec=codec, shard_frames=shard_frames)
    add(writer, "b", pixels(10), states=np.arange(70, dtype=np.float32).reshape(10, 7))
    add(writer, "a", np.zeros((3, 12, 16, 3), np.uint8))
    return writer.finalise(
        {"a": "train", "b": split}, refused=[{"source": "c", "reason": "empty"}], provenance={"step": "ingest"}
    )


@pytest.mark.parametrize(("start", "stop", "step"), [(0, 10, 1), (3, 9, 1), (0, 10, 3), (7, 8, 1), (1, 10, 4)])
def test_any_slice_reads_back_exactly_across_shards(tmp_path: Path, start: int, stop: int, step: int) -> None:
    store = write(tmp_path / "x.zarr")
    assert np.array_equal(store.frames("b", start, stop, step), pixels(10)[start:stop:step])


def test_rows_and_descriptions_read_back(tmp_path: Path) -> None:
    write(tmp_path / "x.zarr")
    store = pickle.loads(pickle.dumps(VideoStore.open(tmp_path / "x.zarr")))
    assert [entry.key for entry in store.entries] == ["a", "b"]
    entry = store.entries[1]
    assert (entry.num_frames, entry.height, entry.width, entry.has_states) == (10, 12, 16, True)
    assert entry.windows == (Window(1, 4, "up"),)
    assert store.labels == ["up"]
    states = store.states("b")
    assert states is not None
    assert states.dtype == np.float32
    assert np.array_equal(states, np.arange(70).reshape(10, 7))
    assert store.states("a") is None
    assert store.actions("b") is None
    assert np.array_equal(store.timestamps("b"), np.arange(10) / 4)
    assert np.array_equal(store.indices("b"), 2 * np.arange(10))
    assert store.refused == [{"source": "c", "reason": "empty"}]


def test_digest_is_of_the_content_and_not_of_its_packing(tmp_path: Path) -> None:
    first = write(tmp_path / "1.zarr")
    assert write(tmp_path / "2.zarr", codec="none").digest == first.digest
    assert write(tmp_path / "3.zarr", shard_frames=512).digest == first.digest
    assert write(tmp_path / "4.zarr", split="val").digest != first.digest


def test_digest_follows_pixels_and_rows(tmp_path: Path) -> None:
    digests = set()
    for name, seed, value in (("1", 0, 0.0), ("2", 1, 0.0), ("3", 0, 1.0)):
        writer = begin(tmp_path / name)
        add(writer, "a", pixels(4, seed=seed), states=np.full((4, 7), value, np.float32))
        digests.add(writer.finalise({"a": "train"}, refused=[], provenance={}).digest)
    assert len(digests) == 3


def test_store_that_may_be_moved_names_no_place(tmp_path: Path) -> None:
    before = write(tmp_path / "x.zarr")
    shutil.move(tmp_path / "x.zarr", tmp_path / "y.zarr")
    after = VideoStore.open(tmp_path / "y.zarr")
    assert np.array_equal(after.frames("b", 0, 10), pixels(10))
    assert after.digest == before.digest


def test_unfinished_store_is_refused(tmp_path: Path) -> None:
    writer = begin(tmp_path / "x.zarr")
    add(writer, "a", pixels(4))
    with pytest.raises(ArtifactError, match="did not finish; run the same"):
        VideoStore.open(tmp_path / "x.zarr")


def test_store_is_unfinished_from_the_moment_that_it_changes(tmp_path: Path) -> None:
    write(tmp_path / "x.zarr")
    add(begin(tmp_path / "x.zarr"), "d", pixels(2))
    with pytest.raises(ArtifactError, match="did not finish"):
        VideoStore.open(tmp_path / "x.zarr")


def test_abandoned_entry_leaves_nothing(tmp_path: Path) -> None:
    writer = begin(tmp_path / "x.zarr")

    def abandon() -> None:
        with writer.entry("a") as entry:
            for index, frame in enumerate(pixels(6)):
                entry.append(index / 4, index, frame)
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        abandon()
    assert writer.finished() == {}
    assert [path.name for path in (tmp_path / "x.zarr" / "videos").iterdir()] == ["zarr.json"]


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_kept(tmp_path: Path) -> None:
    writer = begin(tmp_path / "x.zarr")
    videos = tmp_path / "x.zarr" / "videos"
    (videos / "a.1.partial" / "frames").mkdir(parents=True)
    with writer.entry("b") as living:
        living.append(0.0, 0, pixels(1)[0])
        writer.remove_unfinished()
        assert [path.name for path in videos.iterdir() if path.is_dir()] == [f"b.{os.getpid()}.partial"]
        assert writer.finished() == {}
    assert [path.name for path in videos.iterdir() if path.is_dir()] == []


def test_finalising_twice_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "x.zarr")
    root = tmp_path / "x.zarr" / "zarr.json"
    before = root.stat().st_mtime_ns
    writer = begin(tmp_path / "x.zarr")
    writer.finalise({"a": "train", "b": "train"}, refused=[{"source": "c", "reason": "empty"}], provenance={"step": "ingest"})
    assert root.stat().st_mtime_ns == before


def test_what_is_no_store_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no video store here; write it with 'vjepa2 ingest"):
        VideoStore.open(tmp_path / "absent.zarr")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("do not lose me")
    with pytest.raises(ArtifactError, match="not a video store"):
        begin(tmp_path / "full")
    assert (tmp_path / "full" / "thesis.txt").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}))
    with pytest.raises(ArtifactError, match="not a video store"):
        VideoStore.open(tmp_path / "other")


def test_damaged_shard_is_an_error_and_never_black_frames(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    shard = tmp_path / "x.zarr/videos/b/frames/c/1/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="b/frames cannot be read"):
        store.frames("b", 4, 8)
    shard.unlink()
    with pytest.raises(ArtifactError, match="shard 1 of its frames is missing"):
        VideoStore.open(tmp_path / "x.zarr").frames("b", 2, 5)
    assert np.array_equal(store.frames("b", 0, 4), pixels(10)[:4])
    assert not store.frames("a", 0, 3).any()
    shutil.rmtree(tmp_path / "x.zarr/videos/a/frames")
    with pytest.raises(ArtifactError, match="a/frames cannot be read"):
        VideoStore.open(tmp_path / "x.zarr").frames("a", 0, 3)


def test_frames_outside_a_video_are_an_error(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    for start, stop in ((0, 11), (-1, 3), (4, 4)):
        with pytest.raises(ArtifactError, match="not within 0:10"):
            store.frames("b", start, stop)
    with pytest.raises(ArtifactError, match="no video 'z'"):
        store.frames("z", 0, 1)
