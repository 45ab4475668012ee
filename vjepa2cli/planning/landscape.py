"""The energy around a plan, as a slice over two axes."""

from typing import Any

import torch
from torch import Tensor

from vjepa2cli.errors import PlanningError
from vjepa2cli.planning.controller import Controller
from vjepa2cli.settings import EnergyMapConfig


def energy_map(
    controller: Controller, latent: Tensor, state: Tensor, goal: Tensor, actions: Tensor, *, config: EnergyMapConfig
) -> dict[str, Any]:
    """Energies where the first of the `actions` [H, A] changes along two axes and all else stays: plain JSON types.

    `energies[j][i]` belongs to value i of the first axis and value j of the second; `planned` is where the plan lies. Raises
    PlanningError for an axis that the robot does not have, that is named twice, or that the planner holds where it is.
    """
    box, places = controller.actions, []
    for name in config.axes:
        place = box.index(name, key="energy_map.axes")
        if not bool(box.low[0, place] < box.high[0, place]):
            free = [other for other, low, high in zip(box.names, box.low[0], box.high[0], strict=True) if low < high]
            raise PlanningError(f"energy_map.axes: the planner does not move {name}; it moves {', '.join(free)}")
        places.append(place)
    if places[0] == places[1]:
        raise PlanningError(f"energy_map.axes: {config.axes[0]} is named twice; a map needs two axes")
    middle, half = (box.low[0] + box.high[0]) / 2, config.span * (box.high[0] - box.low[0]) / 2
    values = [torch.linspace(-1, 1, config.points) * half[place] + middle[place] for place in places]
    tried = actions.repeat(config.points**2, 1, 1)
    for place, grid in zip(places, torch.meshgrid(values[1], values[0], indexing="ij")[::-1], strict=True):
        tried[:, 0, place] = grid.flatten().to(tried)
    energies = controller.energy(latent, state, goal, tried).reshape(config.points, config.points)
    return {
        "axes": list(config.axes),
        "units": [controller.space.units[place] for place in places],
        "values": [value.tolist() for value in values],
        "energies": energies.tolist(),
        "planned": [float(actions[0, place]) for place in places],
    }
