"""The frames of evaluation clips: those of the released code, but always the same."""

import numpy as np
import pytest

from vjepa2cli.data.evaluation_clips import check_tubelets, segment_indices, view_crops
from vjepa2cli.errors import ConfigError


@pytest.mark.parametrize(
    ("total", "segments", "firsts", "last"),
    [
        (300, 1, [118], 181),  # a clip of 16 frames, 4 apart, in the middle
        (300, 2, [43, 193], 256),
        (100, 2, [0, 36], 98),  # two segments of 50 are shorter than a clip: they overlap
    ],
)
def test_clips_lie_in_the_middle_of_their_segments(total: int, segments: int, firsts: list[int], last: int) -> None:
    found = segment_indices(total, num_frames=16, frame_step=4, segments=segments)
    assert found.shape == (segments, 16)
    assert found[:, 0].tolist() == firsts
    assert found[-1, -1] == last
    assert (np.diff(found[:, :-2], axis=1) >= 3).all()
    assert (found == segment_indices(total, num_frames=16, frame_step=4, segments=segments)).all()


def test_a_short_video_ends_with_its_last_frames_repeated() -> None:
    # As the released code: 39 // 4 steps over the video, then the last frame, which it clips to the one before it.
    (found,) = segment_indices(40, num_frames=16, frame_step=4, segments=1)
    moving = np.linspace(0, 39, 9).clip(0, 38).astype(int)
    assert found.tolist() == [*moving.tolist(), *[38] * 7]


@pytest.mark.parametrize("total", [1, 2, 5, 63, 64, 65, 129, 1000])
@pytest.mark.parametrize("segments", [1, 2, 8])
@pytest.mark.parametrize("step", [None, 1, 4])
def test_every_frame_exists(total: int, segments: int, step: int | None) -> None:
    for rng in (None, np.random.default_rng(0)):
        found = segment_indices(total, num_frames=16, frame_step=step, segments=segments, rng=rng)
        assert found.shape == (segments, 16)
        assert found.min() >= 0
        assert found.max() < total
        assert (np.diff(found, axis=1) >= 0).all()


def test_random_clips_stay_in_their_segments_and_differ() -> None:
    draws = [segment_indices(400, num_frames=16, frame_step=4, segments=2, rng=np.random.default_rng(seed)) for seed in range(9)]
    assert all(one[0].max() < 200 <= one[1].min() for one in draws)
    assert len({one[0, 0] for one in draws}) > 3


def test_three_views_cover_the_longer_side() -> None:
    columns = np.broadcast_to(np.arange(0, 240, dtype=np.uint8)[None, None, :, None], (2, 120, 240, 3))
    views = view_crops(columns, crop=120, views=3)
    assert views.shape == (3, 2, 120, 120, 3)
    assert [int(view[0, 0, 0, 0]) for view in views] == [0, 60, 120]
    upright = view_crops(np.ascontiguousarray(columns.transpose(0, 2, 1, 3)), crop=120, views=3)
    assert [int(view[0, 0, 0, 0]) for view in upright] == [0, 60, 120]


def test_half_tubelets_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_frames: 7 does not make whole tubelets of 2 frames"):
        check_tubelets(7, 2)
