"""Decoding: every file either gives upright frames at their own times, or one line that says why not."""

import csv
import gc
import os
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np
import pytest

from vjepa2cli.data.video import (
    iterate_frames,
    probe_video,
    read_clip,
    read_image,
    resize,
    write_image,
    write_video,
)
from vjepa2cli.data.video.sampling import Standstill, sampled
from vjepa2cli.errors import VideoError


def moving_square(num_frames: int, *, size: int = 64) -> np.ndarray:
    frames = np.full((num_frames, size, size, 3), 40, np.uint8)
    for index in range(num_frames):
        frames[index, 20:36, index : index + 16] = (220, 60, 90)
    return frames


def grey_levels(num_frames: int, *, step: int = 6) -> np.ndarray:
    return np.stack([np.full((32, 48, 3), index * step, np.uint8) for index in range(num_frames)])


def test_written_video_reads_back_with_exact_times(tmp_path: Path) -> None:
    frames = moving_square(20)
    write_video(tmp_path / "a.mp4", frames, fps=4)
    clip = read_clip(tmp_path / "a.mp4")
    assert clip.pixels.shape == frames.shape
    assert np.array_equal(clip.timestamps, np.arange(20) / 4)
    assert clip.fps == pytest.approx(4.0)
    # crf 18 with halved colour resolution; a wrong colour matrix or a shifted frame gives 5 and more.
    assert np.abs(clip.pixels.astype(int) - frames).mean() < 1.5


def test_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_square(12), fps=5)
    write_video(tmp_path / "b.mp4", iter(moving_square(12)), fps=5)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((3, 31, 32, 3), np.uint8), "even"),
        ([], "at least one"),
        ([np.zeros((32, 32, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)], "frame 1"),
        (np.zeros((3, 32, 32, 3), np.float32), "uint8"),
    ],
)
def test_unwritable_frames_are_refused_and_leave_no_file(tmp_path: Path, frames: np.ndarray, message: str) -> None:
    with pytest.raises(VideoError, match=message):
        write_video(tmp_path / "a.mp4", frames, fps=4)
    assert list(tmp_path.iterdir()) == []


def test_sampling_takes_the_frame_that_is_shown_at_each_instant(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_levels(30), fps=10)
    clip = read_clip(tmp_path / "a.mp4", num_frames=6, fps=4, start=1.0)
    shown = [10, 12, 15, 17, 20, 22]
    assert clip.timestamps == pytest.approx(np.array(shown) / 10)
    assert np.abs(clip.pixels.mean(axis=(1, 2, 3)) - np.array(shown) * 6).max() < 2
    assert clip.fps == 4


def test_frames_repeat_where_the_video_is_slower_than_asked(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_levels(3), fps=2)
    assert read_clip(tmp_path / "a.mp4", fps=4).timestamps.tolist() == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]


def shown(times: list[float], *, fps: float, standstill: Standstill, start: float = 0.0) -> list[int]:
    decoded = ((time, index, None) for index, time in enumerate(times))
    return [index for _, index, _ in sampled(decoded, start=start, fps=fps, rate=10.0, standstill=standstill)]


def test_a_frame_that_stands_still_is_repeated_for_so_long_and_no_longer() -> None:
    times = [0.0, 0.1, 5.0, 5.1, 9.25, 9.5]
    assert shown(times, fps=2, standstill=Standstill()) == [0] + [1] * 9 + [2] + [3] * 8 + [5]
    notes = ["another"]
    assert shown(times, fps=2, standstill=Standstill(2.0, notes)) == [0] + [1] * 4 + [2] + [3] * 4 + [5]
    text = "one frame is shown for 4.9 s from 0.10 s on, of which 2 s are kept; 1 shorter standstill likewise"
    assert notes == ["another", text]


def test_nothing_is_said_of_a_standstill_that_loses_no_instant() -> None:
    notes: list[str] = []
    assert shown([0.0, 4.9, 5.0], fps=0.2, standstill=Standstill(2.0, notes)) == [0, 2]
    assert shown([0.0, 4.0, 4.1], fps=10, start=4.0, standstill=Standstill(2.0, notes)) == [1, 2]
    assert notes == []


def test_video_too_short_for_the_clip_is_an_error_and_not_padded(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_levels(8), fps=4)
    with pytest.raises(VideoError, match="too short: it has 8 of 16 frames"):
        read_clip(tmp_path / "a.mp4", num_frames=16, fps=4)
    with pytest.raises(VideoError, match="too short"):
        read_clip(tmp_path / "a.mp4", start=9.0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"Permission is hereby granted, free of charge\n" * 30, "holds text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (bytes(range(256)) * 20, "format is unknown"),
    ],
)
def test_what_is_no_video_is_named_for_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=reason) as caught:
        read_clip(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cut_short_mp4_is_refused_before_any_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving_square(40), fps=4)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(data[: int(len(data) * 0.6)])
    with pytest.raises(VideoError, match="cut short"):
        next(iterate_frames(tmp_path / "b.mp4"))


def test_pipe_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="not a regular file"):
        read_clip(tmp_path / "pipe.mp4")


@pytest.mark.parametrize(
    ("name", "fraction"),
    [("mdn-learning-area/rabbit320.webm", 0.6), ("gradio/video_sample.avi", 0.6), ("androidx-media/sample.flv", 0.6)],
)
def test_cut_short_file_of_any_container_ends_in_an_error(shared: Path, tmp_path: Path, name: str, fraction: float) -> None:
    whole = shared / "data" / "videos" / name
    cut = tmp_path / whole.name
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * fraction)])
    assert sum(1 for _ in iterate_frames(whole, short_side=16)) > 0
    with pytest.raises(VideoError, match="cut short"):
        list(iterate_frames(cut, short_side=16))


@pytest.mark.parametrize(
    "name",
    ["decord/video_0.mov", "decord/video_90.mov", "decord/video_270.mov", "moviepy/chaplin.mp4", "LipNet-GRID/bbaf2n.mpg"],
)
def test_pyav_and_opencv_see_the_same_upright_frames(shared: Path, name: str) -> None:
    path = shared / "data" / "videos" / name
    capture = cv2.VideoCapture(str(path))
    for _, (_, _, ours) in zip(range(3), iterate_frames(path), strict=False):
        read, theirs = capture.read()
        assert read
        assert theirs.shape == ours.shape
        # Equal with the same swscale; builds may round differently by a level.
        assert np.abs(theirs[:, :, ::-1].astype(int) - ours).mean() < 1.0
    capture.release()


def test_mirroring_by_metadata_is_applied(shared: Path) -> None:
    path = shared / "data" / "videos" / "androidx-media" / "sample_rotate_and_reflect.mp4"
    ours = next(iterate_frames(path))[2].astype(int)
    capture = cv2.VideoCapture(str(path))
    rotated_only = capture.read()[1][:, :, ::-1].astype(int)
    capture.release()
    # The display matrix is a transposition; OpenCV turns by its angle and leaves the mirror image out.
    assert np.abs(rotated_only[:, ::-1] - ours).mean() < 1.0
    assert np.abs(rotated_only - ours).mean() > 20


def test_pixels_that_are_not_square_become_square(shared: Path) -> None:
    info = probe_video(shared / "data/hostile/one_frame/bbb_sunflower_QCIF_30fps_mp4v_noaudio_1f.mp4")
    assert (info.height, info.width) == (144, round(176 * 16 / 11))


@pytest.mark.parametrize(
    ("name", "rotation", "mirrored"),
    [
        ("decord/video_0.mov", 0, False),
        ("decord/video_90.mov", 90, False),
        ("decord/video_270.mov", 270, False),
        ("androidx-media/sample_rotate_and_reflect.mp4", 90, True),
    ],
)
def test_rotation_that_is_said_is_the_one_that_is_applied(shared: Path, name: str, rotation: int, mirrored: bool) -> None:
    path = shared / "data" / "videos" / name
    info = probe_video(path)
    assert (info.rotation, info.mirrored) == (rotation, mirrored)
    with av.open(str(path)) as container:
        coded = next(container.decode(video=0)).to_ndarray(format="rgb24")
    upright = np.rot90(coded, -rotation // 90)
    assert np.array_equal(upright[:, ::-1] if mirrored else upright, next(iterate_frames(path))[2])


def test_pixel_shape_that_is_said_is_the_one_that_is_applied(shared: Path) -> None:
    info = probe_video(shared / "data/hostile/one_frame/bbb_sunflower_QCIF_30fps_mp4v_noaudio_1f.mp4")
    assert info.pixel_aspect == pytest.approx(16 / 11)


def test_variable_frame_rate_keeps_every_frames_own_time(shared: Path) -> None:
    times = np.array(
        [time for time, _, _ in iterate_frames(shared / "data/videos/metadata-extractor-images/FLIR Thermal.mp4", short_side=16)]
    )
    gaps = np.diff(times)
    assert len(times) == 84
    assert gaps.min() == pytest.approx(0.038, abs=5e-4)
    assert gaps.max() == pytest.approx(1.997, abs=5e-4)


def test_decoded_frames_go_without_waiting_for_the_garbage_collector(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", (np.full((32, 32, 3), index, np.uint8) for index in range(60)), fps=4)
    gc.collect()
    gc.disable()
    try:
        for _ in iterate_frames(tmp_path / "a.mp4"):
            held = sum(type(item) is av.VideoFrame for item in gc.get_objects())
            assert held < 10
    finally:
        gc.enable()


def test_hostile_files_give_the_frames_of_a_full_decode_or_one_line(shared: Path) -> None:
    with (shared / "data" / "MANIFEST.csv").open(encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row["file"].startswith("hostile/") and "long_180p" not in row["file"]]
    decoded, refused = {}, {}
    for row in rows:
        times = []
        try:
            times = [time for time, _, _ in iterate_frames(shared / "data" / row["file"], short_side=16)]
            decoded[row["file"]] = (len(times), int(row["frames_decoded"]))
        except VideoError as error:
            refused[row["file"]] = str(error)
        assert times == sorted(set(times)), row["file"]
    assert {name for name, (ours, theirs) in decoded.items() if ours != theirs} == set()
    assert all("\n" not in reason and ";" in reason for reason in refused.values())
    no_frame = {row["file"] for row in rows if not int(row["frames_decoded"] or 0)}
    cut_short = {"hostile/derived/truncated_60pct_04_coffee.mp4", "hostile/libwebm/block_ends_beyond_cluster.mkv"}
    assert set(refused) == no_frame | cut_short


def test_image_reads_back_exactly(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_image(tmp_path / "a.png", pixels)
    assert np.array_equal(read_image(tmp_path / "a.png"), pixels)


def test_released_example_frame_reads_as_its_png(shared: Path) -> None:
    with np.load(shared / "data/robot/franka/franka_example_traj.npz") as arrays:
        frames = arrays["observations"][0]
    assert np.array_equal(read_image(shared / "data/robot/franka/frame.png"), frames[0])


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_cut_short_image_is_refused_and_not_filled_with_grey(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    write_image(tmp_path / f"a{suffix}", pixels)
    data = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match="cut short"):
        read_image(tmp_path / f"b{suffix}")


def test_video_is_no_image(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey_levels(4), fps=4)
    with pytest.raises(VideoError, match="a video where an image is needed"):
        read_image(tmp_path / "a.mp4")
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(VideoError, match="not an image"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("method", ["area", "blocks"])
def test_shrinking_by_a_whole_number_is_the_mean_of_blocks(method: Literal["area", "blocks"]) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (2, 8, 12, 3), np.uint8)
    blocks = frames.reshape(2, 4, 2, 6, 2, 3).mean(axis=(2, 4))
    # Half a level of rounding.
    assert np.abs(resize(frames, (4, 6), method=method) - blocks).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("size", [(256, 455), (112, 199), (96, 171)])
def test_shrinking_by_blocks_stays_closer_to_area_than_what_the_released_transforms_do(
    shared: Path, size: tuple[int, int]
) -> None:
    frame = next(iterate_frames(shared / "data/videos/segment-anything-2/04_coffee.mp4"))[2]
    area, blocks, bilinear = (resize(frame, size, method=method).astype(int) for method in ("area", "blocks", "bilinear"))
    assert np.square(blocks - area).mean() < 0.5 * np.square(bilinear - area).mean()
    # No shift: the mean position of what differs would show one of a pixel or more.
    assert np.abs(blocks - area).mean() < 2.5
