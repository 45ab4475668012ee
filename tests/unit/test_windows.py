"""Windows of trajectories: every start once, drawn by (seed, step, row) alone, and the same whoever reads them."""

import numpy as np
import pytest
import torch

from vjepa2cli.data.windows import WindowBatches
from vjepa2cli.errors import InputError


class _Latents:
    """Episode i holds the numbers from 100 i on; its views are a thousand apart."""

    lengths = (5, 2, 8)

    def __init__(self, views: int = 1) -> None:
        self._views = views

    def num_views(self, index: int) -> int:
        return self._views

    def latents(self, index: int, start: int, stop: int, *, view: int) -> torch.Tensor:
        return torch.from_numpy(self._numbers(index)[start:stop, None, None] + 1000 * view)

    def _numbers(self, index: int) -> np.ndarray:
        return 100 * index + np.arange(self.lengths[index], dtype=np.float32)

    def states(self, index: int) -> np.ndarray:
        return self._numbers(index)[:, None]

    def actions(self, index: int) -> np.ndarray:
        return self._numbers(index)[:-1, None]

    def extrinsics(self, index: int) -> np.ndarray:
        return -self._numbers(index)[:, None]


def test_windows_cover_every_start_once_and_never_cross_episodes() -> None:
    batches = WindowBatches(_Latents(), [0, 1, 2], num_frames=4, seed=0, with_extrinsics=True)
    windows = batches.windows(range(batches.count))
    starts = windows.latents[:, 0, 0, 0].tolist()
    assert starts == [0, 1, 200, 201, 202, 203, 204]
    assert torch.equal(windows.latents[:, :, 0, 0], torch.tensor(starts)[:, None] + torch.arange(4))
    assert torch.equal(windows.latents[:, :3, 0], windows.actions)
    assert windows.extrinsics is not None
    assert torch.equal(windows.latents[..., 0], -windows.extrinsics)


def test_threads_and_parts_change_nothing_in_a_batch() -> None:
    plain, ahead = (WindowBatches(_Latents(3), [0, 2], num_frames=3, seed=4, threads=threads) for threads in (0, 2))
    for step in (1, 2, 3):
        whole = plain.batch(step, rows=range(6)).latents
        parts = [ahead.batch(step, rows=rows).latents for rows in (range(2), range(2, 6))]
        assert torch.equal(whole, torch.cat(parts))
    ahead.close()


def test_every_view_is_drawn_with_its_own_latents_and_named() -> None:
    batches = WindowBatches(_Latents(3), [0, 2], num_frames=3, seed=0)
    windows, ids = batches.batch(1, rows=range(64)), batches.ids(1, rows=range(64))
    views = (windows.latents[:, 0, 0, 0] // 1000).int().tolist()
    assert {view: views.count(view) > 10 for view in range(3)} == dict.fromkeys(range(3), True)
    assert all((f"view {view}" in name) == (view > 0) for view, name in zip(views, ids, strict=True))
    assert torch.equal(windows.latents[:, 0, 0] % 1000, windows.states[:, 0])


def test_episodes_that_are_all_too_short_are_refused() -> None:
    with pytest.raises(InputError, match="num_frames"):
        WindowBatches(_Latents(), [1], num_frames=4, seed=0)
