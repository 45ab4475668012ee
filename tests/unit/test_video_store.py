"""The video store: lossless, whole or absent, and equal where its content is equal."""

import fcntl
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from vjepa2cli.artifacts.locks import lock
from vjepa2cli.artifacts.video_store import Description, VideoStore, VideoStoreWriter, Window, entry_writing, frames, writing
from vjepa2cli.artifacts.video_store.entry import mark_unfinished, write_group
from vjepa2cli.errors import ArtifactError, StaleArtifactError


def pixels(num_frames: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, 12, 16, 3), np.uint8)


def add(writer: VideoStoreWriter, key: str, frames: np.ndarray, **rows: np.ndarray) -> None:
    with writer.entry(key) as entry:
        for index, frame in enumerate(frames):
            entry.append(index / 4, 2 * index, frame)
        entry.finish(Description(key, "0", key, 4.0, windows=(Window(1, 4, "up"),)), rows=rows)


def decided(**splits: str) -> dict[str, dict[str, Any]]:
    return {key: {"split": split, "weight": None} for key, split in splits.items()}


def begin(path: Path, *, codec: str = "zstd", shard_frames: int = 4) -> VideoStoreWriter:
    return VideoStoreWriter.open(path, {"codec": codec, "shard_frames": shard_frames})


def write(path: Path, *, codec: str = "zstd", shard_frames: int = 4, split: str = "train") -> VideoStore:
    writer = begin(path, codec=codec, shard_frames=shard_frames)
    add(writer, "b", pixels(10), states=np.arange(70, dtype=np.float32).reshape(10, 7))
    add(writer, "a", np.zeros((3, 12, 16, 3), np.uint8))
    return writer.finalise(
        decided(a="train", b=split), refused=[{"source": "c", "reason": "empty"}], provenance={"step": "ingest"}
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
        digests.add(writer.finalise(decided(a="train"), refused=[], provenance={}).digest)
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


def test_the_list_of_entries_goes_while_the_store_is_unfinished(tmp_path: Path) -> None:
    """It is parsed under the lock at every change: 11 MB of it, for 20 000 entries, would cost each of them 0.2 s."""
    write(tmp_path / "x.zarr")
    writer = begin(tmp_path / "x.zarr")
    add(writer, "d", pixels(2))
    attributes = json.loads((tmp_path / "x.zarr/zarr.json").read_text())["attributes"]
    assert sorted(attributes) == ["complete", "config", "kind", "schema"]
    store = writer.finalise(decided(a="train", b="train", d="train"), refused=[], provenance={})
    assert len(store.entries) == len(VideoStore.open(tmp_path / "x.zarr").entries) == 3


def test_a_store_is_finished_for_its_writer_though_another_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_and_lose(path: Path, attributes: dict[str, Any]) -> None:
        write_group(path, attributes)
        if attributes.get("complete"):
            mark_unfinished(path)

    monkeypatch.setattr(writing, "write_group", write_and_lose)
    assert [entry.key for entry in write(tmp_path / "x.zarr").entries] == ["a", "b"]
    with pytest.raises(ArtifactError, match="did not finish"):
        VideoStore.open(tmp_path / "x.zarr")


def test_an_entry_begins_again_where_its_folder_is_taken_for_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = begin(tmp_path / "x.zarr")
    calls = []

    def removed_before(path: Path) -> int | None:
        calls.append(path)
        if len(calls) == 1:
            writer.remove_unfinished()
        return lock(path)

    monkeypatch.setattr(entry_writing, "lock", removed_before)
    add(writer, "a", pixels(4))
    assert len(calls) == 2
    assert sorted(writer.finished()) == ["a"]


def test_what_was_removed_or_replaced_before_it_is_held_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, flock = tmp_path / "claim", fcntl.flock

    def removed_before(descriptor: int, operation: int) -> None:
        folder.rmdir()
        flock(descriptor, operation)

    def replaced_before(descriptor: int, operation: int) -> None:
        folder.rename(tmp_path / "gone")
        folder.mkdir()
        flock(descriptor, operation)

    folder.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", replaced_before)
        assert lock(folder) is None
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", removed_before)
        with pytest.raises(FileNotFoundError):
            lock(folder)


def test_entries_without_a_record_are_removed_when_nobody_is_at_a_source(tmp_path: Path) -> None:
    writer = begin(tmp_path / "x.zarr")
    for key in ("a", "b"):
        add(writer, key, pixels(2))
    writer.record("a", {"entries": {"a": "0-"}})
    assert sorted(writer.recorded()) == ["a"]
    with writer.claimed("b"):
        writer.remove_unrecorded()
        assert sorted(writer.finished()) == ["a", "b"]
    # A claim that its holder did not live to end counts for nothing.
    (tmp_path / "x.zarr/sources/c.claim.partial").mkdir()
    writer.remove_unrecorded()
    assert sorted(writer.finished()) == ["a"]


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
        (kept,) = (path.name for path in videos.iterdir() if path.is_dir())
        assert kept.startswith("b.")
        assert f"-{os.getpid()}-" in kept
        assert writer.finished() == {}
    assert [path.name for path in videos.iterdir() if path.is_dir()] == []


def test_a_record_that_was_half_written_goes_with_its_claim(tmp_path: Path) -> None:
    writer, sources = begin(tmp_path / "x.zarr"), tmp_path / "x.zarr/sources"
    writer.record("a", {"entries": {}})
    for key in ("a", "b", "c"):
        (sources / f"{key}.claim.partial").mkdir()
        (sources / key).mkdir(exist_ok=True)
        (sources / key / f"zarr.json.{os.getpid()}.partial").write_text("{")
    with writer.claimed("c") as is_ours:
        assert is_ours
    writer.remove_unfinished()
    assert sorted(str(path.relative_to(sources)) for path in sources.rglob("*")) == ["a", "a/zarr.json", "zarr.json"]


def test_finalising_twice_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "x.zarr")
    root = tmp_path / "x.zarr" / "zarr.json"
    before = root.stat().st_mtime_ns
    writer = begin(tmp_path / "x.zarr")
    writer.finalise(decided(a="train", b="train"), refused=[{"source": "c", "reason": "empty"}], provenance={"step": "ingest"})
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
    write(tmp_path / "x.zarr")
    shard = tmp_path / "x.zarr/videos/b/frames/c/1/0/0/0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-20])
    with pytest.raises(ArtifactError, match=r"b/frames cannot be read \(the index of .* is damaged or cut short"):
        VideoStore.open(tmp_path / "x.zarr").frames("b", 4, 8)
    shard.unlink()
    store = VideoStore.open(tmp_path / "x.zarr")
    with pytest.raises(ArtifactError, match=r"frames/c/1/0/0/0 is missing"):
        store.frames("b", 2, 5)
    assert np.array_equal(store.frames("b", 0, 4), pixels(10)[:4])
    assert not store.frames("a", 0, 3).any()
    shutil.rmtree(tmp_path / "x.zarr/videos/a/frames")
    with pytest.raises(ArtifactError, match="a/frames cannot be read"):
        VideoStore.open(tmp_path / "x.zarr").frames("a", 0, 3)
    shutil.rmtree(tmp_path / "x.zarr/videos/b/states/c")
    with pytest.raises(ArtifactError, match="b/states cannot be read"):
        store.states("b")


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_every_flipped_byte_of_a_shard_is_noticed(tmp_path: Path, codec: str) -> None:
    store = write(tmp_path / "x.zarr", codec=codec)
    shard = tmp_path / "x.zarr/videos/b/frames/c/0/0/0/0"
    whole = shard.read_bytes()
    assert store.damage("b") is None
    for place in np.linspace(0, len(whole) - 1, 60).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        shard.write_bytes(damaged)
        assert VideoStore.open(tmp_path / "x.zarr").damage("b") is not None, place


def test_frames_of_another_entry_are_noticed_though_each_is_whole(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    frames = tmp_path / "x.zarr/videos/b/frames/c"
    shutil.copy(frames / "0/0/0/0", frames / "1/0/0/0")
    assert np.array_equal(store.frames("b", 4, 8), pixels(10)[:4])
    assert store.damage("b") == "its content is not what was written: the digest differs"
    assert store.damage("a") is None


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_zarr_itself_reads_what_is_stored(tmp_path: Path, codec: str) -> None:
    store = write(tmp_path / "x.zarr", codec=codec)
    array = zarr.open_array(tmp_path / "x.zarr/videos/b/frames", mode="r")
    assert np.array_equal(array[:], pixels(10))
    assert (array.chunks, array.shards) == ((1, 12, 16, 3), (4, 12, 16, 3))
    tree = zarr.open_group(tmp_path / "x.zarr", mode="r")
    assert sorted(tree["videos/b"].array_keys()) == ["frames", "indices", "states", "timestamps"]
    assert np.array_equal(tree["videos/b/states"][:], store.states("b"))


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_frames_by_number_come_in_that_order_and_as_often_and_again_the_same(tmp_path: Path, codec: str) -> None:
    store = write(tmp_path / "x.zarr", codec=codec)
    for numbers in ([7, 0, 0, 9, 3, 3], [3, 7, 8, 0, 9, 7]):  # the second time some come from a map of the file
        assert np.array_equal(store.frames_at("b", numbers), pixels(10)[numbers])
    with pytest.raises(ArtifactError, match="not within 0:10"):
        store.frames_at("b", [0, 10])


@pytest.mark.parametrize("most_open", [1, 8])
def test_a_frame_is_compared_once_though_its_shard_is_closed_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_open: int
) -> None:
    monkeypatch.setattr(frames, "_OPEN_SHARDS", most_open)
    store, compared = write(tmp_path / "a.zarr", codec="none"), []
    real = frames.checksum
    monkeypatch.setattr(frames, "checksum", lambda content: compared.append(len(content)) or real(content))
    for _ in range(3):
        assert np.array_equal(store.frames("b", 0, 10), pixels(10))
        assert np.array_equal(store.frames("b", 9, 10), pixels(10)[9:])
    assert compared.count(12) == 10  # rows of a frame; what is of another length is an index


def test_a_shard_that_is_written_again_is_compared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_OPEN_SHARDS", 1)
    store = write(tmp_path / "a.zarr", codec="none")
    store.frames("b", 0, 10)
    shard = next((tmp_path / "a.zarr/videos/b/frames").rglob("c/0/0/0/0"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.with_suffix(".new").write_bytes(content)
    shard.with_suffix(".new").rename(shard)
    with pytest.raises(ArtifactError, match=r"frame 0 of .* does not have the checksum"):
        store.frames("b", 0, 1)


def test_store_of_another_version_is_told_to_readers_and_may_be_replaced(tmp_path: Path) -> None:
    write(tmp_path / "x.zarr")
    root = tmp_path / "x.zarr/zarr.json"
    root.write_text(root.read_text().replace('"schema": 2', '"schema": 1'))
    for error, act in ((ArtifactError, VideoStore.open), (StaleArtifactError, begin)):
        with pytest.raises(
            ArtifactError, match=r"schema 1; this one reads 2\); ingest its sources again, with --replace"
        ) as caught:
            act(tmp_path / "x.zarr")
        assert caught.type is error


def test_frames_outside_a_video_are_an_error(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    for start, stop in ((0, 11), (-1, 3), (4, 4)):
        with pytest.raises(ArtifactError, match="not within 0:10"):
            store.frames("b", start, stop)
    with pytest.raises(ArtifactError, match="no video 'z'"):
        store.frames("z", 0, 1)
