"""State spaces: actions are changes, of an end effector's pose or of a robot's own numbers, and lead back to the states."""

import math

import pytest
import torch

from vjepa2cli.data.poses import pose_compose, pose_delta
from vjepa2cli.data.state_space import END_EFFECTOR, StateSpace
from vjepa2cli.errors import InputError

OWN = StateSpace("own", ("shoulder", "wrist", "grip"), ("rad", "rad", "share"), (False, True, False), (None, None, (0.0, 1.0)))


def trajectory(space: StateSpace, steps: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    states = torch.rand(steps, space.width, generator=generator, dtype=torch.float64) * 2 - 1
    angles = torch.tensor(space.wraps)
    states[:, angles] *= math.pi
    if space.kind == "end_effector":
        states[:, 4] /= 2  # pitch has half the range
        states[:, 6] = states[:, 6].abs()
    return states


@pytest.mark.parametrize("space", [END_EFFECTOR, OWN], ids=["end effector", "own"])
def test_actions_lead_from_each_state_to_the_next(space: StateSpace) -> None:
    states = trajectory(space)
    reached = space.compose(states[:-1], space.delta(states))
    assert (reached - states[1:]).abs().max() < 1e-12


def test_end_effector_has_the_deltas_of_poses() -> None:
    states = trajectory(END_EFFECTOR)
    assert torch.equal(END_EFFECTOR.delta(states), pose_delta(states))
    assert torch.equal(END_EFFECTOR.compose(states[:-1], states[1:]), pose_compose(states[:-1], states[1:]))


def test_only_numbers_that_wrap_go_the_short_way_round() -> None:
    states = torch.tensor([[3.1, 3.1, 0.0], [-3.1, -3.1, 1.0]], dtype=torch.float64)
    delta = OWN.delta(states)[0]
    assert delta.tolist() == pytest.approx([-6.2, 2 * math.pi - 6.2, 1.0])
    assert OWN.compose(states[0], delta).tolist() == pytest.approx(states[1].tolist())


def test_space_outlives_json_and_absence_means_an_end_effector() -> None:
    space = OWN.with_usual_change(torch.tensor([[0.1, 0.0, 0.0]] * 19 + [[5.0, 0.0, 0.0]]))
    assert space.usual_change == (pytest.approx(0.1 + 0.05 * 4.9, abs=1e-5), 0.0, 0.0)
    assert StateSpace.parse(space.to_tree()) == space
    assert StateSpace.parse(None) == END_EFFECTOR


def test_other_widths_are_refused_with_the_names() -> None:
    with pytest.raises(InputError, match=r"does not end in 3: shoulder \(rad\), wrist \(rad\), grip \(share\)"):
        OWN.delta(torch.zeros(4, 7))
