"""Rotary positions: measured vectors of the released code, and what each variant keeps or breaks."""

import pytest
import torch
from torch import Tensor

from vjepa2cli.models.layers import RotaryVariant, rotary_table, rotate, token_positions, turn
from vjepa2cli.tokens import TokenGrid

VECTORS = [
    ("tiled", 4, 1, [-1.142640, 2.009900, -1.744977, 4.029799]),
    ("interleaved", 4, 1, [-1.142640, 1.922076, 2.959851, 4.029799]),
    ("tiled", 6, 3, [-1.272233, 2.119439, 2.974085, -3.536610, 4.118815, 6.032191]),
    ("interleaved", 6, 3, [-1.272233, -1.838865, 2.415770, 4.377677, 4.961116, 6.032191]),
]


def turned(x: Tensor, positions: Tensor, variant: RotaryVariant) -> Tensor:
    """x [N, head_dim] at positions [N, 3]."""
    return rotate(x[None, None], rotary_table(positions[None], x.shape[-1], variant=variant))[0, 0]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("variant", "segment", "position", "expected"), VECTORS)
def test_a_segment_turns_as_in_the_released_code(
    variant: RotaryVariant, segment: int, position: int, expected: list[float], axis: int
) -> None:
    positions = torch.zeros(1, 3, dtype=torch.int64)
    positions[0, axis] = position
    x = torch.arange(1.0, segment + 1).repeat(3)[None]
    out = turned(x, positions, variant).reshape(3, segment)
    torch.testing.assert_close(out[axis], torch.tensor(expected), rtol=0, atol=2e-6)
    others = [other for other in range(3) if other != axis]
    assert torch.equal(out[others], x.reshape(3, segment)[others])


@pytest.mark.parametrize(("head_dim", "tail"), [(64, 4), (80, 2), (32, 2), (88, 4), (24, 0)])
def test_channels_left_over_are_never_turned(head_dim: int, tail: int) -> None:
    x = torch.randn(1, head_dim, generator=torch.Generator().manual_seed(0))
    out = turned(x, torch.full((1, 3), 7), "tiled")
    same = (out == x)[0]
    assert same[head_dim - tail :].all()
    assert not same[: head_dim - tail].any()


def scores(shift: int, variant: RotaryVariant) -> Tensor:
    q, k = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
    positions = token_positions(torch.tensor([0, 3, 7, 12, 20]), TokenGrid(3, 3, 3)) + shift
    return turned(q, positions, variant) @ turned(k, positions, variant).T


def test_interleaved_positions_are_relative_and_tiled_ones_are_not() -> None:
    torch.testing.assert_close(scores(0, "interleaved"), scores(9, "interleaved"), rtol=0, atol=1e-4)
    assert (scores(0, "tiled") - scores(9, "tiled")).abs().max() > 0.1


@pytest.mark.parametrize("variant", ["tiled", "interleaved"])
@pytest.mark.parametrize("head_dim", [32, 64, 80])
def test_bfloat16_on_a_cpu_turns_the_same_with_even_channels_first(variant: RotaryVariant, head_dim: int) -> None:
    # As the qkv map of a block lays them out, and more of them than are turned at a time.
    x = torch.randn(2, 100, 3, 4, head_dim, generator=torch.Generator().manual_seed(0)).bfloat16().permute(2, 0, 3, 1, 4)[:2]
    table = rotary_table(token_positions(torch.arange(100).repeat(2, 1), TokenGrid(4, 5, 5)), head_dim, variant=variant)
    expected = rotate(x, table)
    assert torch.equal(turn(x, table), torch.cat((expected[..., 0::2], expected[..., 1::2]), dim=-1))
    assert torch.equal(turn(x.float(), table), rotate(x.float(), table))
    assert torch.equal(turn(x.clone().requires_grad_(), table), expected)


def test_angles_are_float32_inside_autocast() -> None:
    positions = token_positions(torch.arange(64), TokenGrid(4, 4, 4))[None]
    outside = rotary_table(positions, 64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = rotary_table(positions, 64)
    assert torch.equal(inside.cos, outside.cos)
    assert torch.equal(inside.sin, outside.sin)
