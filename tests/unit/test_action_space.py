"""What a planner may do, by configuration."""

import pytest
import torch

from vjepa2cli import config as configs
from vjepa2cli.data.state_space import END_EFFECTOR, StateSpace
from vjepa2cli.errors import ConfigError, PlanningError
from vjepa2cli.planning.action_space import action_space
from vjepa2cli.settings import CemConfig, PlanConfig

OWN = StateSpace("own", ("lift", "tilt"), ("m", "rad"), (False, True), (None,) * 2, (0.02, 0.1))


def test_default_is_the_released_box():
    """A bound of .75 for the gripper whose spread begins at 1, a dead zone of .25, no rotation, smoothing .15."""
    box = action_space(CemConfig(horizon=2, max_translation=0.05), END_EFFECTOR)
    assert torch.equal(box.mean, torch.zeros(2, 7))
    assert torch.allclose(box.std, torch.tensor([0.05] * 3 + [0.0] * 3 + [1.0]).expand(2, 7))
    assert torch.allclose(box.high, torch.tensor([0.05] * 3 + [0.0] * 3 + [0.75]).expand(2, 7))
    assert torch.equal(box.low, -box.high)
    assert (box.settings.samples, box.settings.iterations, box.settings.elites) == (400, 10, 10)
    assert box.settings.dead_zone == (0, 0, 0, 0, 0, 0, 0.25)
    assert box.settings.mean_smoothing == box.settings.std_smoothing == (0.15,) * 7


def test_every_axis_can_be_bounded_pinned_or_planned():
    config = CemConfig(max_rotation=0.2, bounds={"z": (-0.01, 0.05), "yaw": (-0.1, 0.1)}, pinned={"roll": 0.0, "x": 0.02})
    box = action_space(config, END_EFFECTOR)
    assert box.low[0].tolist() == pytest.approx([0.02, -0.075, -0.01, 0.0, -0.2, -0.1, -0.75])
    assert box.high[0].tolist() == pytest.approx([0.02, 0.075, 0.05, 0.0, 0.2, 0.1, 0.75])
    assert box.std[0].tolist() == pytest.approx([0.0, 0.075, 0.03, 0.0, 0.2, 0.1, 1.0])
    assert box.mean[0].tolist() == pytest.approx([0.02, 0.0, 0.02, 0.0, 0.0, 0.0, 0.0])


def test_gripper_follows_its_schedule_and_ends_in_its_last_value():
    """1.0 lies beyond the box of the gripper, as in the released planner, and .1 within the dead zone."""
    box = action_space(CemConfig(horizon=4, gripper_schedule=(0.1, -0.2, 1.0)), END_EFFECTOR)
    for end in (box.mean, box.low, box.high):
        assert end[:, 6].tolist() == pytest.approx([0.1, -0.2, 1.0, 1.0])
    assert box.std[:, 6].tolist() == [0, 0, 0, 0]
    assert box.settings.dead_zone == (0.0,) * 7


def test_numbers_of_a_robot_s_own_are_named_as_it_names_them():
    box = action_space(CemConfig(max_change=2.0, bounds={"tilt": (0.0, 0.3)}), OWN)
    assert box.high[0].tolist() == pytest.approx([0.04, 0.3])
    assert box.low[0].tolist() == pytest.approx([-0.04, 0.0])
    for wrong in (CemConfig(pinned={"z": 0.0}), CemConfig(bounds={"z": (0.0, 1.0)}), CemConfig(gripper_schedule=(1.0,))):
        with pytest.raises(PlanningError, match=r"no axis '(z|gripper)'; its axes are lift, tilt"):
            action_space(wrong, OWN)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cem.bounds.z=[0.1, -0.1]", "cem: bounds.z: 0.1 is not below -0.1"),
        ("cem.bounds={z: [0, 1], y: [0, 1]}", None),
        ("cem={bounds: {z: [0, 1]}, pinned: {z: 0}}", "cem: bounds.z and pinned.z: an axis has bounds or one value, not both"),
        ("cem={gripper_schedule: [1.0], pinned: {gripper: 0}}", "cem: gripper_schedule: the gripper is also named"),
        ("cem={plan_gripper: false, bounds: {gripper: [0, 1]}}", "cem: bounds.gripper: plan_gripper is false"),
        ("cem={samples: 4, elites: 5}", "cem: elites: 5 is more than samples, 4"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(override: str, said: str | None):
    base = "tiny-plan"
    if said is None:
        assert configs.load(base, PlanConfig, overrides=[override]).cem.bounds == {"z": (0, 1), "y": (0, 1)}
        return
    with pytest.raises(ConfigError) as refused:
        configs.load(base, PlanConfig, overrides=[override])
    assert str(refused.value).startswith(f"tiny-plan: {said}")
    assert "\n" not in str(refused.value)
