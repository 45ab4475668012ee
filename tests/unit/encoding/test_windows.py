"""Windows: every frame is in one, all are full, and they begin where they should."""

import numpy as np
import pytest

from vjepa2cli.encoding.windows import windows


def cut(total: int, num_frames: int, stride: int, tubelet_size: int = 2) -> list[tuple[int, list[int], int, int]]:
    """(start, frame numbers without padding, skip, padding) of every window."""
    frames = ((float(index), np.full((1, 1, 3), index, np.uint8)) for index in range(total))
    found = []
    for window in windows(frames, num_frames=num_frames, stride=stride, tubelet_size=tubelet_size):
        numbers = [int(time) for time, _ in window.frames]
        assert [int(pixels[0, 0, 0]) for _, pixels in window.frames] == numbers
        real = numbers[: len(numbers) - window.padding]
        assert numbers[len(real) :] == [total - 1] * window.padding
        assert len(numbers) == num_frames or total < num_frames
        assert len(numbers) % tubelet_size == 0
        assert real == list(range(window.start, window.start + len(real)))
        found.append((window.start, real, window.skip, window.padding))
    return found


@pytest.mark.parametrize("num_frames", [2, 4, 6])
@pytest.mark.parametrize("total", range(16))
def test_windows_without_overlap_give_every_frame_once(total: int, num_frames: int):
    covered = [number for _, real, skip, _ in cut(total, num_frames, num_frames) for number in real[2 * skip :]]
    assert covered == list(range(total))


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("total", range(1, 20))
def test_windows_begin_every_stride_and_the_last_ends_with_the_input(total: int, stride: int):
    found = cut(total, 6, stride)
    starts = [start for start, *_ in found]
    assert starts[:-1] == list(range(0, stride * (len(found) - 1), stride))
    assert found[-1][1][-1] == total - 1
    assert sorted(set().union(*(real for _, real, _, _ in found))) == list(range(total))
    # No window is more than needed: without the last one a frame would be left out.
    assert len(found) == 1 or found[-2][1][-1] < total - 1


def test_skip_counts_the_time_steps_of_earlier_windows():
    steps = 0
    for start, real, skip, padding in cut(23, 8, 2):
        assert start // 2 + skip == steps
        steps = (start + len(real) + padding) // 2
    assert steps == 12


def test_a_stride_beyond_the_window_leaves_frames_out_but_no_part_of_a_window():
    assert [start for start, *_ in cut(50, 4, 10)] == [0, 10, 20, 30, 40]
    assert [start for start, *_ in cut(42, 4, 10)] == [0, 10, 20, 30, 38]
