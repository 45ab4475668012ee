"""Batches are functions of (seed, step), whatever is cached and however many processes share them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from vjepa2cli.data.batches import ClipBatches, ClipSource, FrameCache, clip_indices, distant_rates, stride_of
from vjepa2cli.data.prefetch import Prefetcher
from vjepa2cli.data.released_cuts import released_indices
from vjepa2cli.errors import InputError
from vjepa2cli.settings import ClipConfig

SHAPE = ClipConfig(num_frames=4, fps=4.0, crop=32)
SOURCES = [ClipSource("a", 30, 8.0), ClipSource("b", 3, 4.0)]


def _frames(source: ClipSource, indices: np.ndarray) -> np.ndarray:
    return np.random.default_rng(ord(source.key)).integers(0, 255, (source.num_frames, 40, 48, 3), dtype=np.uint8)[indices]


def _batches(**changes: object) -> ClipBatches:
    shape = SHAPE.model_copy(update=changes)
    return ClipBatches(SOURCES, _frames, shape=shape, tubelet_size=2, batch_size=6, seed=1)


def test_two_processes_share_what_one_would_draw() -> None:
    whole = _batches().batch(7, rows=range(6))
    halves = torch.cat([_batches().batch(7, rows=range(3)), _batches().batch(7, rows=range(3, 6))])
    assert torch.equal(whole, halves)
    assert not torch.equal(whole, _batches().batch(8, rows=range(6)))


def test_a_static_clip_shows_each_frame_for_a_whole_tubelet() -> None:
    clips = _batches(static_fraction=0.5).batch(0, rows=range(6))
    assert torch.equal(clips[:3, :, 0::2], clips[:3, :, 1::2])
    assert not torch.equal(clips[3:, :, 0::2], clips[3:, :, 1::2])


def test_a_stride_follows_time_and_is_never_zero() -> None:
    assert [stride_of(30.0, 4.0), stride_of(3.0, 4.0), stride_of(25.0, None)] == [8, 1, 1]


def test_rates_that_a_whole_stride_misses_by_a_tenth_are_named() -> None:
    sources = [ClipSource(f"{fps}", 40, fps) for fps in (30.0, 25.0, 15.0, 10.0, 6.0, 5.0)]
    sources += [ClipSource("varying", 40, 6.0, timestamps=np.arange(40) / 6), ClipSource("still", 1, 1.0)]
    assert distant_rates(sources, 4.0) == [3.0, 5.0, 5.0]
    assert distant_rates(sources, None) == []


def test_frames_of_a_variable_rate_are_taken_by_time() -> None:
    times = np.array([0.0, 0.1, 0.2, 1.2, 1.3, 2.3])
    varying = ClipSource("a", 6, 2.6, timestamps=times)
    # What is shown at 0.1, 0.6, 1.1, 1.6 and 2.1 seconds.
    assert clip_indices(varying, 1, num_frames=5, fps=2.0).tolist() == [1, 2, 2, 4, 4]
    assert clip_indices(varying, 1, num_frames=3, fps=None).tolist() == [1, 2, 3]
    even, timed = ClipSource("a", 30, 8.0), ClipSource("a", 30, 8.0, timestamps=np.arange(30) / 8.0)
    for start in (0, 7, 25):
        assert np.array_equal(*(clip_indices(source, start, num_frames=6, fps=4.0) for source in (even, timed)))


def test_a_clip_by_time_starts_wherever_its_last_instant_is_still_shown() -> None:
    sources = [ClipSource("a", 30, 8.0), ClipSource("a", 30, 8.0, timestamps=np.arange(30) / 8.0)]
    shape = SHAPE.model_copy(update={"num_frames": 9})
    first, second = (
        ClipBatches([source], _frames, shape=shape, tubelet_size=2, batch_size=6, seed=1).ids(3, rows=range(6))
        for source in sources
    )
    assert first == second


def test_weights_are_shares_of_the_draws() -> None:
    sources = [ClipSource("a", 40, 4.0, weight=1), ClipSource("b", 9, 4.0, weight=3), ClipSource("c", 5, 4.0, weight=4)]
    batches = ClipBatches(sources, _frames, shape=SHAPE, tubelet_size=2, batch_size=4000, seed=0)
    drawn = [place.split()[0] for place in batches.ids(0, rows=range(4000))]
    shares = np.array([drawn.count(key) / 4000 for key in "abc"])
    # Four standard deviations of a share of one half in 4000 draws.
    assert np.abs(shares - np.array([1, 3, 4]) / 8).max() < 0.032


def test_a_cache_forgets_the_oldest_and_stays_within_its_bytes() -> None:
    cache, reads = FrameCache(capacity=200), []

    def get(key: int) -> np.ndarray:
        return cache.get(key, lambda: (reads.append(key), np.full(100, key, dtype=np.uint8))[1])

    for key in (1, 2, 1, 3, 1, 2):
        assert int(get(key)[0]) == key
    assert reads == [1, 2, 3, 2]


@pytest.mark.parametrize(("rate", "step"), [(30.0, 7), (29.97, 7), (25.0, 6), (24.0, 6)])
def test_released_clips_lie_one_interval_further_apart_than_they_count(rate: float, step: int) -> None:
    for seed in range(20):
        cut = released_indices(300, rate, np.random.default_rng(seed), num_frames=16, fps=4.0)
        start = cut[0]
        assert 0 <= start < 300 - 16 * step
        assert cut[-1] == start + 16 * step - 1
        assert cut[:-1].tolist() == [int(start + place * 16 * step / 15) for place in range(15)]


def test_released_clips_of_a_short_video_repeat_its_last_frame() -> None:
    cut = released_indices(30, 30.0, np.random.default_rng(0), num_frames=8, fps=4.0)
    assert cut.tolist() == [0, 10, 20, 29, 29, 29, 29, 29]


def test_the_released_cuts_are_taken_where_they_are_asked_for() -> None:
    def stride(released: bool) -> str:
        long = [ClipSource("a", 300, 30.0)]
        batches = ClipBatches(long, _frames, shape=SHAPE, tubelet_size=2, batch_size=1, seed=1, released_cuts=released)
        return batches.ids(1, rows=range(1))[0].split(":")[-1]

    assert (stride(released=False), stride(released=True)) == ("8", "9")


def test_what_is_made_ahead_is_what_would_be_made_when_asked_for_even_if_a_run_goes_back() -> None:
    def plan(step: int, rows: range) -> tuple[torch.Tensor, list[Callable[[], None]]]:
        batches = _batches()
        clips = batches.empty(len(rows))
        return clips, [partial(batches.fill, clip, step, row) for clip, row in zip(clips, rows, strict=True)]

    asked = [(1, range(3)), (1, range(3, 6)), (2, range(3)), (2, range(3, 6)), (3, range(3)), (2, range(3)), (9, range(3))]
    ahead, plain = Prefetcher(plan, threads=2), Prefetcher(plan, threads=0)
    for step, rows in asked:
        assert torch.equal(ahead.get(step, rows), plain.get(step, rows))
        assert torch.equal(plain.get(step, rows), _batches().batch(step, rows=rows))
    ahead.close()


def test_a_fault_of_a_thread_is_told_by_who_waits_for_it() -> None:
    def unreadable() -> None:
        raise InputError("this clip cannot be read")

    ahead = Prefetcher(lambda step, rows: (None, [unreadable] if step == 2 else []), threads=1)
    ahead.get(1, range(2))
    with pytest.raises(InputError, match="cannot be read"):
        ahead.get(2, range(2))
    ahead.close()


def test_the_rates_on_the_page_are_those_of_the_clips() -> None:
    page = (Path(__file__).parents[2] / "docs/pretraining.md").read_text(encoding="utf-8")
    rows = [
        line.strip("| \n").split(" | ") for line in page.splitlines() if line.startswith(("| stored fr", "| sampled", "| as rel"))
    ]
    stored, sampled, released = ([float(cell) for cell in row[1:]] for row in rows)
    for rate, ours, theirs in zip(stored, sampled, released, strict=True):
        assert rate / stride_of(rate, 4.0) == pytest.approx(ours, abs=0.006)
        cut = released_indices(2000, rate, np.random.default_rng(0), num_frames=16, fps=4.0)
        assert 15 * rate / (cut[-1] - cut[0]) == pytest.approx(theirs, abs=0.006)
