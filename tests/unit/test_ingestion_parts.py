"""Ingest of what is not simply a video: stretches, shots, images, mixtures, variable rates; and what is left out on request."""

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vjepa2cli.artifacts.video_store import VideoStore, Window
from vjepa2cli.data.video import iterate_frames, read_clip, resize, write_image, write_video
from vjepa2cli.errors import InputError
from vjepa2cli.ingestion import IngestSummary, ingest
from vjepa2cli.settings import DropConfig, IngestConfig

CONFIG = IngestConfig(short_side=16, shard_frames=8, val_fraction=0.25)


def scene(seed: int, *, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (*size, 3), np.uint8)


def video(path: Path, *, num_frames: int = 12, fps: float = 4, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, scene(seed)[None] + np.arange(num_frames, dtype=np.uint8)[:, None, None, None] * 2, fps=fps)
    return path


def image(path: Path, *, seed: int = 0, size: tuple[int, int] = (32, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, scene(seed, size=size).repeat(4, 0).repeat(4, 1))
    return path


def run(sources: list[Path], out: Path, *, config: IngestConfig = CONFIG, workers: int = 0) -> IngestSummary:
    return ingest(sources, out, config=config, workers=workers)


def with_drop(**drop: object) -> IngestConfig:
    return CONFIG.model_copy(update={"drop": DropConfig(**drop)})  # type: ignore[arg-type]


def stored(out: Path) -> dict[str, list[int]]:
    """Numbers of the stored frames in their files, by entry."""
    store = VideoStore.open(out)
    return {entry.source: store.indices(entry.key).tolist() for entry in store.entries}


def test_a_table_stores_the_stretches_that_it_names_in_seconds_or_frames(tmp_path: Path) -> None:
    video(tmp_path / "a.mp4", num_frames=40, fps=10)
    video(tmp_path / "b.mp4", num_frames=20, fps=10, seed=1)
    (tmp_path / "t.jsonl").write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in (
                {"path": "a.mp4", "start": 0.5, "end": 1.5, "label": "up"},
                {"path": "a.mp4", "start": 1.2, "end": 2.0, "label": "down"},
                {"path": "a.mp4", "start": 3.0, "end": 9.5, "label": "up"},
                {"path": "a.mp4", "start": 9.7, "end": 10.0},
                {"path": "b.mp4", "start_frame": 3, "num_frames": 4},
                {"path": "b.mp4", "start_frame": 19, "num_frames": 5},
            )
        )
    )
    summary = run([tmp_path / "t.jsonl"], tmp_path / "x.zarr")
    assert stored(tmp_path / "x.zarr") == {
        "a.mp4@0.5s-2s": list(range(5, 20)),
        "a.mp4@3s-9.5s": list(range(30, 40)),
        "b.mp4@3-7": [3, 4, 5, 6],
    }
    assert summary["refused"] == [
        {"source": "a.mp4@3s-9.5s", "reason": "labelled 'up', but not all of it is stored"},
        {"source": "a.mp4@9.7s-10s", "reason": "the video ends before this stretch; mend the table"},
        {"source": "b.mp4@19-24", "reason": "holds 1 frame, fewer than min_frames 2; lower that"},
    ]
    store = VideoStore.open(tmp_path / "x.zarr")
    windows = {entry.source: entry.windows for entry in store.entries}
    assert windows["a.mp4@0.5s-2s"] == (Window(0, 10, "up"), Window(7, 8, "down"))
    assert windows["a.mp4@3s-9.5s"] == ()
    assert store.timestamps(store.entries[0].key)[0] == 0.5
    assert {entry.episode for entry in store.entries} == {"a.mp4", "b.mp4"}


def test_second_run_with_stretches_decodes_nothing_and_changed_rows_replace_their_entries(tmp_path: Path) -> None:
    video(tmp_path / "a.mp4", num_frames=40, fps=10)
    table = tmp_path / "t.csv"
    table.write_text("path,start,end\na.mp4,0,1\na.mp4,2,3\na.mp4,50,60\n")
    first = run([table], tmp_path / "x.zarr")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "x.zarr").rglob("*")}
    assert run([table], tmp_path / "x.zarr") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "x.zarr").rglob("*")} == before
    table.write_text("path,start,end\na.mp4,0,1\na.mp4,2,3.5\n")
    assert run([table], tmp_path / "x.zarr") == run([table], tmp_path / "y.zarr")
    assert sorted(stored(tmp_path / "x.zarr")) == ["a.mp4@0s-1s", "a.mp4@2s-3.5s"]


def test_shots_are_stored_each_by_itself_or_reported(tmp_path: Path) -> None:
    scenes = [np.kron(np.random.default_rng(seed).integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))) for seed in range(3)]
    frames = [np.clip(scenes[index // 30] + index % 30, 0, 255).astype(np.uint8) for index in range(90)]
    write_video(tmp_path / "a.mp4", frames, fps=10)
    summary = run([tmp_path / "a.mp4"], tmp_path / "x.zarr", config=CONFIG.model_copy(update={"shots": "split"}))
    assert stored(tmp_path / "x.zarr") == {
        f"a.mp4#shot{shot + 1:03d}": list(range(30 * shot, 30 * shot + 30)) for shot in range(3)
    }
    assert summary["splits"] == {"train": 3, "val": 0}  # one episode
    told = run([tmp_path / "a.mp4"], tmp_path / "y.zarr", config=CONFIG.model_copy(update={"shots": "report"}))
    assert told["notes"] == [{"source": "a.mp4", "note": "shots begin at 3.00, 6.00 s"}]
    assert len(stored(tmp_path / "y.zarr")["a.mp4"]) == 90


def test_shots_of_a_second_are_found_at_a_low_rate_too(tmp_path: Path) -> None:
    """Fifteen frames, the shortest shot of the library's default, are almost four seconds at four frames a second."""
    scenes = [np.kron(np.random.default_rng(seed).integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))) for seed in range(4)]
    frames = [np.clip(scenes[index // 18] + index % 18, 0, 255).astype(np.uint8) for index in range(72)]
    write_video(tmp_path / "a.mp4", frames, fps=12)
    config = CONFIG.model_copy(update={"shots": "split", "fps": 4.0})
    run([tmp_path / "a.mp4"], tmp_path / "x.zarr", config=config)
    assert stored(tmp_path / "x.zarr") == {
        f"a.mp4#shot{shot + 1:03d}": list(range(18 * shot, 18 * shot + 18, 3)) for shot in range(4)
    }


def test_a_jump_of_the_clock_does_not_fill_the_store_with_one_frame(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(scene(index, size=(48, 64)), format="rgb24")
            frame.pts, frame.time_base = index + (25 * 2000 if index >= 25 else 0), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    summary = run([tmp_path / "a.mkv"], tmp_path / "x.zarr", config=CONFIG.model_copy(update={"fps": 4.0}))
    # Ten seconds of the last frame before the jump, and the four instants of the second after it.
    assert stored(tmp_path / "x.zarr") == {"a.mkv": [0, 6, 12, 18, *[24] * 40, 25, 31, 37, 43]}
    note = "one frame is shown for 2000.04 s from 0.96 s on, of which 10 s are kept"
    assert summary["notes"] == [{"source": "a.mkv", "note": note}]


def test_images_become_still_entries_of_one_frame(tmp_path: Path) -> None:
    for index in range(3):
        image(tmp_path / f"pictures/{index}.png", seed=index, size=(32, 48) if index else (48, 32))
    video(tmp_path / "clips/a.mp4")
    summary = run([tmp_path / "pictures", tmp_path / "clips"], tmp_path / "x.zarr", config=CONFIG)
    assert (summary["videos"], summary["images"]) == (1, 3)
    store = VideoStore.open(tmp_path / "x.zarr")
    stills = [entry for entry in store.entries if entry.still]
    assert [(entry.source, entry.num_frames, entry.height, entry.width) for entry in stills] == [
        ("0.png", 1, 24, 16),
        ("1.png", 1, 16, 24),
        ("2.png", 1, 16, 24),
    ]
    expected = resize(scene(1), (16, 24), method="blocks")
    assert np.abs(store.frames(stills[1].key, 0, 1)[0].astype(int) - expected).max() <= 1
    assert {entry.split for entry in stills} == {"train", "val"}
    (tmp_path / "pictures/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    refused = run([tmp_path / "pictures", tmp_path / "clips"], tmp_path / "x.zarr")["refused"]
    assert [item["source"] for item in refused] == ["broken.jpg"]


def test_a_mixture_draws_by_the_weights_of_its_table_and_they_may_change(tmp_path: Path) -> None:
    for index in range(4):
        video(tmp_path / f"k/{index}.mp4", seed=index)
        image(tmp_path / f"i/{index}.png", seed=10 + index)
    mix = tmp_path / "mix.csv"
    mix.write_text("path,weight\nk,0.75\ni,0.25\n")
    config = CONFIG.model_copy(update={"val_fraction": 0.5})
    run([mix], tmp_path / "x.zarr", config=config)
    store = VideoStore.open(tmp_path / "x.zarr")
    assert {(entry.still, entry.weight) for entry in store.entries} == {(False, 0.375), (True, 0.125)}
    before = store.digest
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "x.zarr").rglob("c/0/0/0/0")}
    mix.write_text("path,weight\nk,1\ni,3\n")
    run([mix], tmp_path / "x.zarr", config=config)
    store = VideoStore.open(tmp_path / "x.zarr")
    assert {(entry.still, entry.weight) for entry in store.entries} == {(False, 0.5), (True, 1.5)}
    assert store.digest != before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "x.zarr").rglob("c/0/0/0/0")} == shards


def test_a_store_has_weights_for_all_or_for_none(tmp_path: Path) -> None:
    video(tmp_path / "k/a.mp4")
    video(tmp_path / "b.mp4", seed=1)
    (tmp_path / "mix.csv").write_text("path,weight\nk,1\n")
    run([tmp_path / "mix.csv"], tmp_path / "x.zarr")
    with pytest.raises(InputError, match=r"^b\.mp4: has no weight, and other sources of this store have one"):
        run([tmp_path / "b.mp4"], tmp_path / "x.zarr")


def test_drops_are_decided_anew_and_what_comes_back_is_decoded_again(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        video(tmp_path / f"in/{name}.mp4", seed=0 if name != "c" else 3)
    write_video(tmp_path / "in/black.mp4", np.zeros((12, 32, 48, 3), np.uint8), fps=4)
    write_video(tmp_path / "in/frozen.mp4", np.repeat(scene(7)[None], 12, 0), fps=4)
    video(tmp_path / "in/short.mp4", seed=5, num_frames=3)
    out = tmp_path / "x.zarr"
    everything = run([tmp_path / "in"], out)
    assert {item["source"]: item["finding"] for item in everything["findings"]} == {
        "b.mp4": "the same file as a.mp4",
        "black.mp4": "black for 100% of its time",
        "frozen.mp4": "frozen for 100% of its time",
    }
    config = with_drop(duplicates=True, black=True, frozen=True, shorter_than=1.0)
    dropped = run([tmp_path / "in"], out, config=config)
    assert sorted(stored(out)) == ["a.mp4", "c.mp4"]
    assert [item["source"] for item in dropped["refused"]] == ["b.mp4", "black.mp4", "frozen.mp4", "short.mp4"]
    assert dropped["refused"][0]["reason"] == "dropped: the same file as a.mp4"
    assert len(list(out.glob("videos/*/frames"))) == 2
    assert dropped == run([tmp_path / "in"], tmp_path / "y.zarr", config=config)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run([tmp_path / "in"], out, config=config) == dropped
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    # What b was a copy of changes, so b comes back.
    video(tmp_path / "in/a.mp4", seed=9)
    assert run([tmp_path / "in"], out, config=config) == run([tmp_path / "in"], tmp_path / "z.zarr", config=config)
    assert sorted(stored(out)) == ["a.mp4", "b.mp4", "c.mp4"]
    assert run([tmp_path / "in"], out) == run([tmp_path / "in"], tmp_path / "w.zarr")
    assert len(stored(out)) == 6


def test_a_second_folder_may_not_hold_another_video_of_the_same_name(tmp_path: Path) -> None:
    video(tmp_path / "one/a.mp4", seed=0)
    video(tmp_path / "two/a.mp4", seed=1)
    run([tmp_path / "one"], tmp_path / "x.zarr")
    with pytest.raises(InputError, match=r"holds another a\.mp4, of .*/one; ingest both in one command"):
        run([tmp_path / "two"], tmp_path / "x.zarr")
    (tmp_path / "one").rename(tmp_path / "moved")
    assert run([tmp_path / "moved"], tmp_path / "x.zarr")["videos"] == 1


def test_variable_rate_is_sampled_by_time(shared: Path, tmp_path: Path) -> None:
    thermal = shared / "data/videos/metadata-extractor-images/FLIR Thermal.mp4"
    run([thermal], tmp_path / "x.zarr", config=CONFIG.model_copy(update={"fps": 5.0}))
    store = VideoStore.open(tmp_path / "x.zarr")
    (entry,) = store.entries
    times = np.array([time for time, _, _ in iterate_frames(thermal, short_side=16)])
    # What is shown at each fifth of a second: the last frame that began by then.
    shown = np.searchsorted(times, np.arange(entry.num_frames) / 5 + 1e-3, side="right") - 1
    assert store.indices(entry.key).tolist() == shown.tolist()
    assert np.array_equal(store.timestamps(entry.key), times[shown])
    assert np.array_equal(store.frames(entry.key, 0, entry.num_frames), read_clip(thermal, fps=5.0, short_side=16).pixels)


def test_a_variable_rate_is_noted_where_every_frame_is_stored(shared: Path, tmp_path: Path) -> None:
    names = ["metadata-extractor-images/FLIR Thermal.mp4", "gradio/video_sample.avi", "LipNet-GRID/bbaf2n.mpg"]
    run([shared / "data/videos" / name for name in names], tmp_path / "x.zarr")
    store = VideoStore.open(tmp_path / "x.zarr")
    varies = {Path(entry.source).name: entry.variable_rate for entry in store.entries}
    assert varies == {"FLIR Thermal.mp4": True, "video_sample.avi": True, "bbaf2n.mpg": False}


@pytest.mark.parametrize(
    "name",
    [
        "videos/decord/video_90.mov",
        "videos/LipNet-GRID/bbaf2n.mpg",
        "videos/mdn-learning-area/rabbit320.webm",
        "videos/metadata-extractor-images/uuid540.mp4",
        "videos/gradio/video_sample.webm",
        "codecs/h265_video.mp4",
    ],
)
def test_what_is_stored_is_what_opencv_decodes(shared: Path, tmp_path: Path, name: str) -> None:
    """OpenCV is right for these: constant rate, a rotation that it applies, square pixels."""
    path = shared / "data" / name
    run([path], tmp_path / "x.zarr", config=IngestConfig(short_side=96))
    store = VideoStore.open(tmp_path / "x.zarr")
    (entry,) = store.entries
    capture = cv2.VideoCapture(str(path))
    theirs = []
    while (answer := capture.read())[0]:
        theirs.append(resize(np.ascontiguousarray(answer[1][:, :, ::-1]), (entry.height, entry.width), method="blocks"))
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    assert len(theirs) == entry.num_frames
    assert store.indices(entry.key).tolist() == list(range(len(theirs)))
    assert store.timestamps(entry.key) == pytest.approx(np.arange(len(theirs)) / rate, abs=2e-3)
    # Equal with the same swscale; builds may round differently by a level.
    difference = np.abs(store.frames(entry.key, 0, entry.num_frames).astype(int) - np.stack(theirs))
    assert difference.mean(axis=(1, 2, 3)).max() < 1.0


def test_rotation_and_pixel_shape_that_were_applied_are_stored(shared: Path, tmp_path: Path) -> None:
    data = shared / "data"
    rotated, wide = data / "videos/decord/video_90.mov", data / "hostile/one_frame/bbb_sunflower_QCIF_30fps_mp4v_noaudio_1f.mp4"
    run([rotated, wide], tmp_path / "x.zarr", config=CONFIG.model_copy(update={"min_frames": 1}))
    found = {Path(entry.source).name: entry for entry in VideoStore.open(tmp_path / "x.zarr").entries}
    turned, stretched = found[rotated.name], found[wide.name]
    assert (turned.rotation, turned.mirrored, turned.pixel_aspect, turned.width) == (90, False, 1.0, 16)
    assert (stretched.rotation, stretched.width) == (0, round(16 * 176 * 16 / 11 / 144))
    assert stretched.pixel_aspect == pytest.approx(16 / 11)
