"""What a video looks like: copies share a signature, others do not, and still pictures that should move are told."""

from itertools import combinations
from pathlib import Path

import av
import numpy as np
import pytest

from vjepa2cli.data.looks import LooksMeter, Signature
from vjepa2cli.data.shots import mark_cuts
from vjepa2cli.data.video import iterate_frames, read_clip, resize, write_video


def looks_of(path: Path, *, short_side: int = 96) -> LooksMeter:
    meter = LooksMeter()
    for time, _, pixels in iterate_frames(path, short_side=short_side):
        meter.add(time, pixels)
    return meter


def signature_of(path: Path, *, short_side: int = 96) -> Signature:
    return Signature.parse(looks_of(path, short_side=short_side).looks().signature)


def bits_apart(one: Signature, other: Signature) -> float:
    """Mean of the eight frames."""
    return float(np.bitwise_count(one.bits ^ other.bits).sum()) / 8


def copy_groups(data: Path) -> list[list[Path]]:
    """Files that show the same in other codecs, containers, rates or sizes, by their manifest."""
    man = ["videos/androidx-media/sample.flv", "videos/androidx-media/sample_av1.mp4", "videos/androidx-media/bt601.mov"]
    man += ["videos/androidx-media/sample_fragmented.mp4", "hostile/androidx-media/sample_with_invalid_nalu.mp4"]
    earth = ["videos/gradio/video_sample.avi", "videos/gradio/video_sample.webm", "hostile/gradio/playable_but_bad_container.mp4"]
    return [[data / name for name in man], [data / name for name in earth]]


def test_copies_share_a_signature_and_other_recordings_do_not(shared: Path) -> None:
    groups = [[signature_of(path) for path in group] for group in copy_groups(shared / "data")]
    for group in groups:
        for one, other in combinations(group, 2):
            assert one.resembles(other)
            assert one.is_copy_of(other)
            assert bits_apart(one, other) <= 4.5
            assert set(one.bands()) & set(other.bands())
    others = [signature_of(path) for path in sorted((shared / "data/videos/LipNet-GRID").iterdir())]
    for one, other in combinations([*others, *(group[0] for group in groups)], 2):
        assert not one.resembles(other)
        assert not one.is_copy_of(other)


def test_recordings_by_one_fixed_camera_are_told_apart(shared: Path) -> None:
    episodes = sorted((shared / "data/robot/lerobot_v20_gr1_sim").rglob("*.mp4"))
    found = [signature_of(path) for path in episodes]
    assert len(found) >= 4
    assert min(bits_apart(one, other) for one, other in combinations(found, 2)) > 30
    assert not any(one.is_copy_of(other) for one, other in combinations(found, 2))


def takes_of_a_small_object() -> list[Signature]:
    """A box of 20 px before a wall of squares, 320x240, on six paths."""
    wall = np.random.default_rng(0).integers(40, 200, (12, 16, 3)).repeat(20, 0).repeat(20, 1).astype(np.uint8)
    takes = []
    for seed in range(6):
        rng, meter = np.random.default_rng(seed), LooksMeter()
        place, pace = rng.uniform(20, 200, 2), rng.uniform(-6, 6, 2)
        for index in range(40):
            x, y = (place + pace * index).clip(0, (300, 220)).astype(int)
            frame = wall.copy()
            frame[y : y + 20, x : x + 20] = (230, 30, 30)
            meter.add(index / 10, frame)
        takes.append(Signature.parse(meter.looks().signature))
    return takes


def test_a_small_object_on_another_path_is_no_copy() -> None:
    pairs = list(combinations(takes_of_a_small_object(), 2))
    assert all(one.resembles(other) for one, other in pairs)
    assert not any(one.is_copy_of(other) for one, other in pairs)


def test_of_signatures_without_what_moves_no_copy_is_told() -> None:
    one, other = takes_of_a_small_object()[:2]
    before = Signature(other.bits, other.colours)
    assert one.resembles(before)
    assert one.is_copy_of(before) is None
    assert before.is_copy_of(before) is None


def test_a_copy_of_another_size_and_rate_is_one(tmp_path: Path, shared: Path) -> None:
    original = shared / "data/videos/LipNet-GRID/bbaf2n.mpg"
    frames = read_clip(original, fps=15).pixels
    write_video(tmp_path / "copy.mp4", (resize(frame, (160, 200)) for frame in frames), fps=15)
    assert signature_of(tmp_path / "copy.mp4", short_side=64).is_copy_of(signature_of(original))


@pytest.mark.parametrize(("crf", "height"), [("30", 288), ("34", 144)])
def test_a_copy_at_a_low_bit_rate_is_one(tmp_path: Path, shared: Path, crf: str, height: int) -> None:
    original = shared / "data/videos/LipNet-GRID/bbaf2n.mpg"
    with av.open(str(tmp_path / "copy.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": crf, "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = height, height * 5 // 4, "yuv420p"
        for _, _, pixels in iterate_frames(original):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(resize(pixels, (height, height * 5 // 4)))))
        container.mux(stream.encode(None))
    assert (tmp_path / "copy.mp4").stat().st_size < original.stat().st_size / 20
    copy, signature = signature_of(tmp_path / "copy.mp4"), signature_of(original)
    assert copy.is_copy_of(signature)
    assert set(copy.bands()) & set(signature.bands())


@pytest.mark.parametrize(
    ("name", "black", "frozen"),
    [
        ("hostile/degenerate/silent-black-10s.mp4", True, True),
        ("hostile/androidx-media/sample_with_av1c.mp4", False, True),
        ("videos/pims/bulk-water.mov", False, False),
        ("videos/metadata-extractor-images/FLIR Thermal.mp4", False, False),
        ("videos/LipNet-GRID/bbaf2n.mpg", False, False),
    ],
)
def test_black_and_frozen_videos_are_told_from_quiet_ones(shared: Path, name: str, black: bool, frozen: bool) -> None:
    looks = looks_of(shared / "data" / name).looks()
    assert (looks.black > 0.9, looks.frozen > 0.9) == (black, frozen)


def test_a_long_video_is_looked_at_less_often_and_keeps_its_signature() -> None:
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (8, 16, 17, 3), np.uint8).repeat(4, 1).repeat(4, 2)
    short, long = LooksMeter(), LooksMeter()
    for index in range(800):
        short.add(index / 8, scenes[index // 100])
    for index in range(16000):
        long.add(index / 8, scenes[index // 2000])
    assert len(long._times) <= 4096
    found = [Signature.parse(meter.looks().signature) for meter in (short, long)]
    assert np.array_equal(found[0].bits, found[1].bits)
    assert found[0].is_copy_of(found[1])
    assert long.looks().frozen == pytest.approx(1.0, abs=0.01)


def test_a_moving_speck_is_not_frozen() -> None:
    still, moving = LooksMeter(), LooksMeter()
    for index in range(40):
        frame = np.full((96, 128, 3), 90, np.uint8)
        still.add(index / 8, frame)
        moved = frame.copy()
        moved[40:46, 2 * index : 2 * index + 6] = 200
        moving.add(index / 8, moved)
    assert still.looks().frozen == 1.0
    assert moving.looks().frozen < 0.1


def test_cuts_are_found_where_recordings_are_joined(shared: Path) -> None:
    names = ["moviepy/chaplin.mp4", "mdn-learning-area/elf.webm", "LipNet-GRID/bbaf2n.mpg"]
    clips = [read_clip(shared / "data/videos" / name, num_frames=60, short_side=96).pixels for name in names]
    joined = [resize(frame, (96, 160)) for clip in clips for frame in clip]
    frames = [(index / 25, index, pixels) for index, pixels in enumerate(joined)]
    marked = list(mark_cuts(iter(frames), fps=25.0))
    assert [frame[1] for _, frame in marked] == list(range(180))
    assert [frame[1] for is_cut, frame in marked if is_cut] == [60, 120]


def test_one_take_has_no_cut(shared: Path) -> None:
    frames = iterate_frames(shared / "data/videos/mdn-learning-area/rabbit320.webm", short_side=96)
    assert not any(is_cut for is_cut, _ in mark_cuts(frames, fps=30.0))
