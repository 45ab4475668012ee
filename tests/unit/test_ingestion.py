"""Ingest: the store depends on sources and config alone, and what cannot be used is said and left out."""

import csv
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vjepa2cli import ingestion
from vjepa2cli.artifacts.video_store import VideoStore, VideoStoreWriter, Window
from vjepa2cli.artifacts.video_store.frames import FrameWriter
from vjepa2cli.data.video import write_video
from vjepa2cli.errors import ArtifactError, ConfigError, InputError, StaleArtifactError
from vjepa2cli.ingestion import IngestSummary, ingest
from vjepa2cli.ingestion.taking import _Taking
from vjepa2cli.ingestion.workers import Done
from vjepa2cli.recordings.droid import write_episode
from vjepa2cli.settings import IngestConfig

CONFIG = IngestConfig(short_side=16, shard_frames=8, val_fraction=0.25)


def video(path: Path, *, num_frames: int = 12, fps: float = 4, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    base = np.random.default_rng(seed).integers(0, 200, (1, 32, 48, 3), np.uint8)
    write_video(path, base + np.arange(num_frames, dtype=np.uint8)[:, None, None, None] * 2, fps=fps)
    return path


def episode(folder: Path, *, num_states: int = 12, num_frames: int | None = None, rate: float = 5.0) -> Path:
    rows = np.arange(num_states * 7).reshape(num_states, 7) / 100
    # Grey 60 + 10t on the whole, with a pattern of the episode's own, or all would be copies of one.
    pattern = (
        np.random.default_rng(len(folder.name) + sum(folder.name.encode())).choice([-30, 30], (8, 4)).repeat(4, 0).repeat(4, 1)
    )
    pattern = np.concatenate([pattern, -pattern], axis=1)
    frames = np.clip(60 + np.arange(num_states)[:, None, None] * 10 + pattern, 0, 255).astype(np.uint8)[..., None].repeat(3, 3)
    cameras = {"exterior_1": frames, "wrist": frames}
    write_episode(
        folder, cameras, states=rows, actions=rows, rate=rate, robot="tabletop", instruction="", write_video=write_video
    )
    if num_frames is not None:
        levels = np.resize(frames, (num_frames, 32, 32, 3))
        write_video(folder / "recordings" / "MP4" / "10000001.mp4", levels, fps=rate)
    return folder


def videos(folder: Path, count: int) -> Path:
    for index in range(count):
        video(folder / f"{index % 2}" / f"{index}.mp4", seed=index, num_frames=9 + index)
    return folder


def run(
    sources: list[Path], out: Path, *, config: IngestConfig = CONFIG, labels: Path | None = None, workers: int = 0
) -> IngestSummary:
    return ingest(sources, out, config=config, labels=labels, workers=workers)


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["video,start_frame,num_frames,label,episode", *rows]) + "\n")
    return path


def test_store_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    videos(tmp_path / "in", 5)
    episode(tmp_path / "in" / "ep")
    (tmp_path / "in" / "notes.mp4").write_text("not a video")
    one = run([tmp_path / "in"], tmp_path / "1.zarr", workers=0)
    two = run([tmp_path / "in"], tmp_path / "2.zarr", workers=2)
    assert one == two
    assert (one["videos"], one["robots"]) == (6, ["tabletop"])
    assert one["refused"] == [
        {"source": "notes.mp4", "reason": "it holds text; give a video file such as .mp4, .webm, .mkv or .mov"}
    ]
    files = sorted(path.relative_to(tmp_path / "1.zarr") for path in (tmp_path / "1.zarr").rglob("*") if path.is_file())
    assert all((tmp_path / "1.zarr" / file).read_bytes() == (tmp_path / "2.zarr" / file).read_bytes() for file in files)


def test_videos_are_taken_in_without_torch(tmp_path: Path) -> None:
    """Each worker would take two seconds and 200 MB for it."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom vjepa2cli.ingestion import ingest\n"
        "from vjepa2cli.settings import IngestConfig\n"
        "ingest([Path(sys.argv[1])], Path(sys.argv[2]), config=IngestConfig(short_side=16), workers=0)\n"
    )
    words = [sys.executable, "-c", code + "sys.exit('torch' in sys.modules)", video(tmp_path / "a.mp4"), tmp_path / "x.zarr"]
    assert subprocess.run([*map(str, words)], check=False).returncode == 0


def test_second_run_has_nothing_to_do_and_a_third_adds_what_is_new(tmp_path: Path) -> None:
    videos(tmp_path / "in", 3)
    first = run([tmp_path / "in"], tmp_path / "x.zarr")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "x.zarr").rglob("*")}
    assert run([tmp_path / "in"], tmp_path / "x.zarr") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "x.zarr").rglob("*")} == before
    video(tmp_path / "in" / "new.mp4", seed=9)
    third = run([tmp_path / "in"], tmp_path / "x.zarr")
    assert third["videos"] == 4
    old = [path for path in before if path.is_file() and path != tmp_path / "x.zarr" / "zarr.json"]
    assert all(path.stat().st_mtime_ns == before[path] for path in old)
    assert run([tmp_path / "in"], tmp_path / "y.zarr") == third


def test_changed_source_is_taken_in_again(tmp_path: Path) -> None:
    videos(tmp_path / "in", 2)
    run([tmp_path / "in"], tmp_path / "x.zarr")
    video(tmp_path / "in" / "0" / "0.mp4", seed=77)
    again = run([tmp_path / "in"], tmp_path / "x.zarr")
    assert again == run([tmp_path / "in"], tmp_path / "y.zarr")
    assert again["videos"] == 2


def test_source_that_is_gone_asks_to_start_over(tmp_path: Path) -> None:
    videos(tmp_path / "in", 3)
    run([tmp_path / "in"], tmp_path / "x.zarr")
    (tmp_path / "in" / "0" / "0.mp4").unlink()
    with pytest.raises(StaleArtifactError, match=r"holds 0/0\.mp4, which is gone .* --replace"):
        run([tmp_path / "in"], tmp_path / "x.zarr")


def test_other_config_is_refused_with_the_first_differing_key(tmp_path: Path) -> None:
    videos(tmp_path / "in", 2)
    run([tmp_path / "in"], tmp_path / "x.zarr")
    with pytest.raises(ConfigError, match="short_side: 16 -> 24"):
        run([tmp_path / "in"], tmp_path / "x.zarr", config=CONFIG.model_copy(update={"short_side": 24}))


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_moments_it_ends_in_the_same_store(tmp_path: Path, workers: int) -> None:
    videos(tmp_path / "in", 6)
    whole = run([tmp_path / "in"], tmp_path / "whole.zarr")
    out = tmp_path / "x.zarr"
    script = tmp_path / "run.py"
    script.write_text(
        "from pathlib import Path\nfrom vjepa2cli.ingestion import ingest\nfrom vjepa2cli.settings import IngestConfig\n"
        "if __name__ == '__main__':\n"
        f"    config = IngestConfig.model_validate_json({CONFIG.model_dump_json()!r})\n"
        f"    ingest([Path({str(tmp_path / 'in')!r})], Path({str(out)!r}), config=config, workers={workers})\n"
    )
    generator = random.Random(workers)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(max(1, workers)):
        process = subprocess.Popen([sys.executable, str(script)], env=environment, start_new_session=True)
        wanted = generator.randrange(1, 5)
        deadline = time.monotonic() + 60
        while process.poll() is None and len(list(out.glob("videos/*/frames/c/*"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert out.exists()
    assert run([tmp_path / "in"], out, workers=workers) == whole
    assert not list(out.glob("videos/*.partial"))


def test_full_disk_ends_in_an_os_error_and_the_next_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos(tmp_path / "in", 4)
    whole = run([tmp_path / "in"], tmp_path / "whole.zarr")
    append, count = FrameWriter.append, [0]

    def full(self: FrameWriter, pixels: np.ndarray) -> None:
        count[0] += 1
        if count[0] == 25:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, pixels)

    with monkeypatch.context() as patched:
        patched.setattr(FrameWriter, "append", full)
        with pytest.raises(OSError, match=r"No space left on device: .*x\.zarr") as caught:
            run([tmp_path / "in"], tmp_path / "x.zarr")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(ArtifactError, match="did not finish"):
        VideoStore.open(tmp_path / "x.zarr")
    assert run([tmp_path / "in"], tmp_path / "x.zarr") == whole


def test_what_was_stored_of_a_lost_source_goes_and_what_an_earlier_run_stored_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video(tmp_path / "in/a.mp4", num_frames=40, fps=10)
    video(tmp_path / "in/b.mp4", seed=1)
    rows = tmp_path / "t.csv"
    rows.write_text("path,start,end\nin/a.mp4,0,1\nin/a.mp4,2,3\nin/b.mp4,,\n")
    record = VideoStoreWriter.record

    def losing(work: Callable[..., Any], items: Sequence[Any]) -> Iterator[Done[Any, Any]]:
        for item in items:
            try:
                yield Done(item, work(item, lambda: None))
            except InterruptedError:
                yield Done(item, None, lost="the decoder crashed (SIGSEGV)")

    def die(self: VideoStoreWriter, key: str, known: Mapping[str, Any]) -> None:
        if known["source"] == "in/a.mp4":
            raise InterruptedError
        record(self, key, known)

    def die_at_once(*_: object) -> bool:
        raise InterruptedError

    monkeypatch.setattr(ingestion, "run_here", losing)
    with monkeypatch.context() as patched:
        patched.setattr(VideoStoreWriter, "record", die)
        summary = run([rows], tmp_path / "x.zarr")
        assert [item["source"] for item in summary["accepted"]] == ["in/b.mp4"]
        assert summary["refused"] == [{"source": "in/a.mp4", "reason": "the decoder crashed (SIGSEGV)"}]
        assert len(list((tmp_path / "x.zarr/videos").glob("*/frames"))) == 1
    whole = run([rows], tmp_path / "x.zarr")
    assert whole == run([rows], tmp_path / "y.zarr")
    with monkeypatch.context() as patched:
        patched.setattr(_Taking, "_pass_over", die_at_once)
        again = run([rows], tmp_path / "x.zarr")
    assert (again["accepted"], again["refused"]) == (whole["accepted"], [])
    assert again["notes"][0] == {
        "source": "in/a.mp4",
        "note": "what was taken in before is kept: the decoder crashed (SIGSEGV)",
    }


def test_nothing_usable_is_an_error_and_leaves_no_store(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"^a\.mp4: the file is empty"):
        run([tmp_path / "a.mp4"], tmp_path / "x.zarr")
    assert not (tmp_path / "x.zarr").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no video"):
        run([tmp_path / "empty"], tmp_path / "x.zarr")
    with pytest.raises(InputError, match="no such file or folder"):
        run([tmp_path / "absent"], tmp_path / "x.zarr")


def test_equal_names_get_their_folders(tmp_path: Path) -> None:
    paths = [video(tmp_path / name / "clip.mp4", seed=index) for index, name in enumerate(("a", "b"))]
    run([*paths, paths[0]], tmp_path / "x.zarr")
    assert [entry.source for entry in VideoStore.open(tmp_path / "x.zarr").entries] == ["a/clip.mp4", "b/clip.mp4"]


def test_rate_picks_frames_by_time_and_keeps_their_numbers(tmp_path: Path) -> None:
    video(tmp_path / "a.mp4", num_frames=20, fps=10)
    run([tmp_path / "a.mp4"], tmp_path / "x.zarr", config=CONFIG.model_copy(update={"fps": 4.0}))
    store = VideoStore.open(tmp_path / "x.zarr")
    (entry,) = store.entries
    assert store.indices(entry.key).tolist() == [0, 2, 5, 7, 10, 12, 15, 17]
    assert (entry.fps, entry.height, entry.width) == (4.0, 16, 24)
    run([tmp_path / "a.mp4"], tmp_path / "y.zarr", config=CONFIG.model_copy(update={"max_frames": 3}))
    assert VideoStore.open(tmp_path / "y.zarr").entries[0].num_frames == 3


def test_states_stay_beside_their_frames(tmp_path: Path) -> None:
    episode(tmp_path / "in" / "ep", num_states=12, rate=6.0)
    config = CONFIG.model_copy(update={"fps": 2.0})
    run([tmp_path / "in"], tmp_path / "x.zarr", config=config)
    store = VideoStore.open(tmp_path / "x.zarr")
    (entry,) = store.entries
    states = store.states(entry.key)
    assert states is not None
    # Row t holds 7t/100 first, frame t is grey 60 + 10t.
    assert states[:, 0] == pytest.approx(np.array([0, 3, 6, 9]) * 0.07)
    assert np.abs(store.frames(entry.key, 0, 4).mean(axis=(1, 2, 3)) - 60 - np.array([0, 30, 60, 90])).max() < 3
    assert store.timestamps(entry.key) == pytest.approx(np.arange(4) / 2)
    assert (entry.robot, entry.fps) == ("tabletop", 2.0)


def test_rate_above_the_robots_is_refused(tmp_path: Path) -> None:
    episode(tmp_path / "ep", rate=5.0)
    with pytest.raises(InputError, match="runs at 5 Hz, below fps 10"):
        run([tmp_path / "ep"], tmp_path / "x.zarr", config=CONFIG.model_copy(update={"fps": 10.0}))


def test_one_frame_too_many_or_too_few_is_cut_and_said_and_more_is_refused(tmp_path: Path) -> None:
    for name, num_frames in (("less", 11), ("more", 13), ("wrong", 9)):
        episode(tmp_path / "in" / name, num_states=12, num_frames=num_frames)
    summary = run([tmp_path / "in"], tmp_path / "x.zarr")
    assert {item["source"]: item["note"][:23] for item in summary["notes"]} == {
        "less": "11 frames for 12 states",
        "more": "13 frames for 12 states",
    }
    assert [item["source"] for item in summary["refused"]] == ["wrong"]
    assert "9 frames for 12 states" in summary["refused"][0]["reason"]
    store = VideoStore.open(tmp_path / "x.zarr")
    assert {entry.source: entry.num_frames for entry in store.entries} == {"less": 11, "more": 12}
    assert all(len(store.states(entry.key)) == entry.num_frames for entry in store.entries)  # type: ignore[arg-type]


def test_recording_without_a_rate_is_taken_at_droids_and_said(tmp_path: Path) -> None:
    folder = episode(tmp_path / "ep")
    metadata = next(folder.glob("metadata*"))
    metadata.write_text(metadata.read_text().replace('"rate"', '"unrated"'))
    with h5py.File(folder / "trajectory.h5", "r+") as file:
        del file.attrs["fps"]
    summary = run([folder], tmp_path / "x.zarr")
    assert VideoStore.open(tmp_path / "x.zarr").entries[0].fps == 15.0
    assert "15 Hz of robot franka are assumed" in summary["notes"][0]["note"]


def test_cameras_of_an_episode_share_its_split_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    for index in range(4):
        episode(tmp_path / "in" / f"ep{index}")
    config = CONFIG.model_copy(update={"cameras": ("exterior_1", "wrist", "exterior_2")})
    summary = run([tmp_path / "in"], tmp_path / "x.zarr", config=config)
    assert len(summary["refused"]) == 4
    assert "no video of camera exterior_2" in summary["refused"][0]["reason"]
    entries = VideoStore.open(tmp_path / "x.zarr").entries
    assert sorted({entry.source for entry in entries if entry.episode == "ep0"}) == ["ep0#exterior_1", "ep0#wrist"]
    splits = {entry.episode: {other.split for other in entries if other.episode == entry.episode} for entry in entries}
    assert sorted(split for found in splits.values() for split in found) == ["train", "train", "train", "val"]


def test_small_share_still_holds_one_out_of_each_kind(tmp_path: Path) -> None:
    videos(tmp_path / "in", 3)
    for index in range(2):
        episode(tmp_path / "in" / f"ep{index}")
    run([tmp_path / "in"], tmp_path / "x.zarr", config=CONFIG.model_copy(update={"val_fraction": 0.01}))
    held_out = [entry for entry in VideoStore.open(tmp_path / "x.zarr").entries if entry.split == "val"]
    assert sorted(entry.robot or "" for entry in held_out) == ["", "tabletop"]
    run([tmp_path / "in"], tmp_path / "y.zarr", config=CONFIG.model_copy(update={"val_fraction": 0.0}))
    assert {entry.split for entry in VideoStore.open(tmp_path / "y.zarr").entries} == {"train"}


def test_labelled_windows_follow_their_frames(tmp_path: Path) -> None:
    video(tmp_path / "in" / "a.mp4", num_frames=20, fps=10)
    labels = table(tmp_path / "windows.csv", "in/a.mp4,0,10,up,", "in/a.mp4,10,10,down,", "in/a.mp4,15,8,beyond,")
    run([tmp_path / "in"], tmp_path / "x.zarr", labels=labels)
    assert VideoStore.open(tmp_path / "x.zarr").entries[0].windows == (Window(0, 10, "up"), Window(10, 10, "down"))
    run([labels], tmp_path / "y.zarr", config=CONFIG.model_copy(update={"fps": 5.0}))
    store = VideoStore.open(tmp_path / "y.zarr")
    assert store.entries[0].windows == (Window(0, 5, "up"), Window(5, 5, "down"))
    assert store.entries[0].source == "in/a.mp4@0-23"


def test_labels_may_change_without_decoding_again(tmp_path: Path) -> None:
    episode(tmp_path / "in" / "ep")
    path = "in/ep/recordings/MP4/10000001.mp4"
    run([tmp_path / "in"], tmp_path / "x.zarr", labels=table(tmp_path / "w.csv", f"{path},0,4,up,e"))
    shard = next((tmp_path / "x.zarr").glob("videos/*/frames/c/0/0/0/0"))
    before = shard.stat().st_mtime_ns
    labels = table(tmp_path / "w.csv", f"{path},2,4,down,e")
    after = run([tmp_path / "in"], tmp_path / "x.zarr", labels=labels)
    assert shard.stat().st_mtime_ns == before
    assert VideoStore.open(tmp_path / "x.zarr").entries[0].windows == (Window(2, 4, "down"),)
    assert run([tmp_path / "in"], tmp_path / "y.zarr", labels=labels) == after


def test_faulty_tables_name_the_line(tmp_path: Path) -> None:
    video(tmp_path / "a.mp4")
    cases = {
        "line 2: start_frame: '-1' is not a whole number": ("a.mp4,-1,4,up,",),
        "line 3: video and label must not be empty": ("a.mp4,0,4,up,", "a.mp4,0,4,,"),
        "belongs to episodes 1, 2": ("a.mp4,0,4,up,1", "a.mp4,4,4,up,2"),
        "holds no rows": (),
        "none of its 1 videos is among the sources": ("b.mp4,0,4,up,",),
    }
    for reason, rows in cases.items():
        with pytest.raises(InputError, match=reason):
            run([tmp_path / "a.mp4"], tmp_path / "x.zarr", labels=table(tmp_path / "w.csv", *rows))
    (tmp_path / "w.csv").write_text("file,class\na.mp4,up\n")
    with pytest.raises(InputError, match=r"columns class, file; needs video \(or path\) and label"):
        run([tmp_path / "a.mp4"], tmp_path / "x.zarr", labels=tmp_path / "w.csv")


def test_hostile_files_are_taken_or_refused_with_a_reason(shared: Path, tmp_path: Path) -> None:
    config = IngestConfig(short_side=32, max_frames=8, min_frames=1)
    summary = run([shared / "data" / "hostile"], tmp_path / "x.zarr", config=config, workers=2)
    with (shared / "data" / "MANIFEST.csv").open(encoding="utf-8") as handle:
        frames = {row["file"].removeprefix("hostile/"): int(row["frames_decoded"] or 0) for row in csv.DictReader(handle)}
    store = VideoStore.open(tmp_path / "x.zarr")
    cut_short = {"derived/truncated_60pct_04_coffee.mp4", "libwebm/block_ends_beyond_cluster.mkv"}
    # Pictures in a folder are not videos.
    tried = {name for name in frames if (shared / "data" / "hostile" / name).is_file() and not name.endswith(".heic")}
    assert {item["source"] for item in summary["refused"]} == {name for name in tried if not frames[name]} | cut_short
    assert {entry.source: entry.num_frames for entry in store.entries} == {
        name: min(8, frames[name]) for name in tried - cut_short if frames[name]
    }
    assert all(item["reason"] and "\n" not in item["reason"] and str(shared) not in item["reason"] for item in summary["refused"])


def test_real_recordings_keep_states_and_labels(shared: Path, tmp_path: Path) -> None:
    robot = shared / "data" / "robot"
    summary = run([robot / "droid"], tmp_path / "x.zarr", labels=robot / "droid_motion_windows.csv", workers=2)
    assert (summary["videos"], summary["frames"], summary["refused"]) == (8, 708, [])
    assert summary["labels"] == {"down": 74, "still": 43, "up": 50}
    assert summary["splits"] == {"train": 6, "val": 2}
    store = VideoStore.open(tmp_path / "x.zarr")
    rises = {"up": [], "down": []}
    for entry in store.entries:
        states = store.states(entry.key)
        assert states is not None
        for window in entry.windows:
            if window.label in rises:
                rises[window.label].append(states[window.start + window.num_frames - 1, 2] - states[window.start, 2])
    # The labels are of the arm's own height, by at least 3 cm.
    assert min(rises["up"]) > 0.029
    assert max(rises["down"]) < -0.029


def test_store_outlives_its_sources(tmp_path: Path) -> None:
    videos(tmp_path / "in", 2)
    run([tmp_path / "in"], tmp_path / "x.zarr")
    shutil.rmtree(tmp_path / "in")
    store = VideoStore.open(tmp_path / "x.zarr")
    assert all(store.frames(entry.key, 0, entry.num_frames).any() for entry in store.entries)
