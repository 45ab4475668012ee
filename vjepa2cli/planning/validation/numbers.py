"""What the model knows of each number of an action: which way it went, by a sweep over it alone and by planning all of them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.artifacts.statistics import clustered_interval, correlation, share
from vjepa2cli.planning.controller import Controller, generator_for
from vjepa2cli.planning.validation.held_out import Moves, Numbers, Places, moving, spread
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import CemConfig, ValidateConfig

_INVERSION_STREAM, _SWEEP_STREAM, _ERROR_STREAM = 3, 6, 7


def planned_numbers(controller: Controller) -> list[int]:
    """The places of the numbers that the planner moves."""
    box = controller.actions
    return torch.nonzero(box.low[0] < box.high[0]).squeeze(1).tolist()


def sweep_numbers(
    controller: Controller, moves: Moves, far: Numbers, *, config: ValidateConfig, progress: Progress = SILENT
) -> list[dict[str, Any] | None]:
    """For each number: energies while it alone changes and all others are as recorded, over moves in which it moves.

    `forward` and `backward` are the mean energies above each move's least, of moves that went up and down: their minima belong on
    opposite sides. `sign` counts the moves whose least energy lies on the recorded side, `left_out` is how much the energy rises
    where the number is 0. None where it never moves.
    """
    moved = moving(moves.actions, far)
    chosen = [spread(np.flatnonzero(moved[:, place]), config.num_sweeps) for place in range(len(far))]
    progress.start("sweep", total=sum(map(len, chosen)))
    found = [
        _sweep(controller, moves, place, float(far[place]), chosen[place], config, progress) if len(chosen[place]) else None
        for place in range(len(far))
    ]
    progress.finish()
    return found


def _sweep(
    controller: Controller, moves: Moves, place: int, far: float, chosen: Places, config: ValidateConfig, progress: Progress
) -> dict[str, Any]:
    values = torch.linspace(-1, 1, config.sweep_points) * config.sweep_span * far
    rows = []
    for move in chosen.tolist():
        tried = moves.actions[move].repeat(len(values) + 2, 1)
        tried[:-2, place], tried[-2, place] = values, 0.0  # The last is as it was recorded.
        rows.append(_energies(controller, moves, move, tried))
        progress.advance()
    energies = torch.stack(rows).double()
    true = moves.actions[torch.as_tensor(chosen), place].double()
    found = minima(energies[:, :-2], values.double())
    excess = energies[:, :-2] - energies[:, :-2].min(1, keepdim=True).values
    rise = (energies[:, -2] - energies[:, -1]).numpy()
    forward = true > 0
    return {
        "moves": len(chosen),
        "values": values.tolist(),
        "forward": excess[forward].mean(0).tolist() if bool(forward.any()) else None,
        "backward": excess[~forward].mean(0).tolist() if bool((~forward).any()) else None,
        "sign": share(int((found * true > 0).sum()), len(chosen)),
        "correlation": correlation(true.tolist(), found.tolist()),
        "left_out": {
            "mean": float(rise.mean()),
            "interval": clustered_interval(rise, moves.episodes[chosen], key=[config.seed, _SWEEP_STREAM, place]),
        },
    }


def minima(energies: Tensor, values: Tensor) -> Tensor:
    """Where each row of energies [n, P] over even `values` [P] is least, [n]: the vertex of the parabola through three points."""
    lowest = energies.argmin(1)
    inner = lowest.clamp(1, len(values) - 2)
    rows = torch.arange(len(energies))
    left, middle, right = (energies[rows, inner + step] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = torch.where(bend > 0, (left - right) / (2 * bend.clamp_min(torch.finfo(bend.dtype).tiny)), torch.zeros_like(bend))
    width = values[1] - values[0]
    return torch.where(lowest == inner, values[inner] + offset.clamp(-0.5, 0.5) * width, values[lowest])


def _energies(controller: Controller, moves: Moves, move: int, actions: Tensor) -> Tensor:
    before, after = moves.latents(move, device=controller.device)
    return controller.energy(before, moves.states[move], after, actions.unsqueeze(1)).cpu()


def invert(
    controller: Controller, moves: Moves, far: Numbers, *, config: ValidateConfig, progress: Progress = SILENT
) -> dict[str, Any] | None:
    """Give CEM the latents before and after a move and ask for the action; None where the planner moves nothing that moves."""
    planned = planned_numbers(controller)
    candidates = np.flatnonzero(moving(moves.actions, far)[:, planned].any(1))
    chosen = spread(candidates, config.num_inversions)
    if not len(chosen):
        return None
    found = []
    progress.start("invert", total=len(chosen))
    for move in chosen.tolist():
        before, after = moves.latents(move, device=controller.device)
        generator = generator_for(config.seed, _INVERSION_STREAM, move)
        found.append(controller.plan_latent(before, moves.states[move], after, generator=generator).actions[0].cpu())
        progress.advance()
    progress.finish()
    true = moves.actions[torch.as_tensor(chosen)]
    box = controller.actions
    outside = ((true < box.low[0]) | (true > box.high[0]))[:, planned].any(1)
    counted = moving(true, far)
    answers = torch.stack(found).double().numpy()
    return {
        "count": len(chosen),
        "outside_box": int(outside.sum()),
        "numbers": {
            box.names[place]: recovered(
                true[:, place].double().numpy(), answers[:, place], counted=counted[:, place], episodes=moves.episodes[chosen],
                key=[config.seed, _ERROR_STREAM, place],
            )
            for place in planned
        },
    }  # fmt: skip


def inversion_config(cem: CemConfig) -> CemConfig:
    """The search for a single action; a gripper's small answers count as they are."""
    return cem.model_copy(update={"horizon": 1, "gripper_dead_zone": 0.0})


def recovered(true: Numbers, found: Numbers, *, counted: NDArray[np.bool_], episodes: Places, key: list[int]) -> dict[str, Any]:
    """How near the answers [M] for one number are to what was recorded, [M]; answering 0 would err by `magnitude`.

    `sign` is over the `counted` moves [M], in which the number moves.
    """
    errors, sizes = np.abs(found - true), np.abs(true)
    return {
        "error": {"mean": float(errors.mean()), "interval": clustered_interval(errors, episodes, key=key)},
        "magnitude": float(sizes.mean()),
        "below_nothing": {
            "mean": float((sizes - errors).mean()),
            "interval": clustered_interval(sizes - errors, episodes, key=key),
        },
        "sign": share(int((found * true > 0)[counted].sum()), int(counted.sum())),
        "correlation": correlation(true.tolist(), found.tolist()),
        "pairs": [[a, b] for a, b in zip(true.tolist(), found.tolist(), strict=True)],
    }
