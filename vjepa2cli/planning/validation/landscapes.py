"""Energy landscapes: what every action over two numbers would have led to, around moves that were recorded."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from vjepa2cli.errors import PlanningError
from vjepa2cli.planning.controller import Controller
from vjepa2cli.planning.landscape import energy_map
from vjepa2cli.planning.validation.held_out import Moves, Numbers, moving, spread
from vjepa2cli.planning.validation.numbers import planned_numbers
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import EnergyMapConfig, ValidateConfig

_MOST_AXES = 3
_FULLEST = 0.25


def landscapes(
    controller: Controller,
    moves: Moves,
    far: Numbers,
    *,
    axes: Sequence[str],
    config: ValidateConfig,
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """Energy maps over every pair of axes, for moves in which all of them move; `planned` is the recorded action."""
    places = [controller.actions.names.index(name) for name in axes]
    if len(places) < 2 or not config.num_maps:
        return []
    fullness = np.clip(moves.actions[:, places].abs().double().numpy() / far[places], 0, 1).prod(1)
    fullest = np.sort(np.argsort(-fullness, kind="stable")[: max(config.num_maps, round(_FULLEST * len(fullness)))])
    found = []
    chosen = spread(fullest, config.num_maps)
    progress.start("map", total=len(chosen) * len(places) * (len(places) - 1) // 2)
    for move in chosen.tolist():
        before, after = moves.latents(move, device=controller.device)
        for pair in combinations(axes, 2):
            over = EnergyMapConfig(axes=pair, points=config.map_points)
            drawn = energy_map(controller, before, moves.states[move], after, moves.actions[move : move + 1], config=over)
            found.append({"move": move, **drawn})
            progress.advance()
    progress.finish()
    return found


def map_axes(controller: Controller, moves: Moves, far: Numbers, config: ValidateConfig) -> tuple[str, ...]:
    """The axes that are named, or three of those that the planner moves: of a hand its position, else what moves most often.

    Raises PlanningError for an axis that the robot does not have, that the planner holds, or that is named twice.
    """
    box, planned = controller.actions, planned_numbers(controller)
    free = [box.names[place] for place in planned]
    for name in config.map_axes:
        if box.index(name, key="map_axes") not in planned:
            raise PlanningError(f"map_axes: the planner does not move {name}; it moves {', '.join(free)}")
    if len(set(config.map_axes)) < len(config.map_axes):
        raise PlanningError(f"map_axes: {', '.join(config.map_axes)} names an axis twice; a map needs two axes")
    often = moving(moves.actions, far).sum(0)
    if controller.space.kind == "own":
        planned = sorted(sorted(planned, key=lambda place: -int(often[place]))[:_MOST_AXES])
    return config.map_axes or tuple(box.names[place] for place in planned if often[place])[:_MOST_AXES]
