"""The controller on worlds whose answer is known, and `plan` on tiny models with random weights."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.data.poses import pose_compose
from vjepa2cli.data.state_space import StateSpace
from vjepa2cli.data.video import write_image
from vjepa2cli.errors import InputError, PlanningError, VideoError
from vjepa2cli.models.ac_predictor import AcPredictorSpec, FrameCache
from vjepa2cli.planning.controller import Controller, generator_for
from vjepa2cli.planning.model_card import load_world_model
from vjepa2cli.planning.rollouts import goal_weights
from vjepa2cli.planning.single_plan import plan
from vjepa2cli.settings import CemConfig, PlanConfig

CEM = CemConfig(samples=200, iterations=12, elites=10, plan_gripper=False)
SMALL = PlanConfig(cem=CemConfig(samples=8, iterations=2, elites=3, plan_gripper=False))
STATE = [0.5, 0.0, 0.2, 0.1, -0.1, 0.3, 0.5]
RNG = np.random.default_rng(0)
OBS, GOAL = (RNG.integers(0, 256, (40, 48, 3), dtype=np.uint8) for _ in range(2))


class PoseWorld:
    """A world whose latent, [4 tokens, 7], is the pose itself."""

    ac = SimpleNamespace(spec=AcPredictorSpec(7, 8, 1, 1))

    def rollout(self, latents: Tensor, states: Tensor, actions: Tensor, *, past: FrameCache | None = None) -> Tensor:
        poses = [states[:, 0]]
        for action in actions.unbind(1):
            poses.append(pose_compose(poses[-1], action))
        return torch.stack(poses[1:], 1).unsqueeze(2).expand(-1, -1, latents.shape[2], -1)


def latent(pose: list[float]) -> Tensor:
    return torch.tensor(pose).expand(4, 7)


def moved(*change: float) -> list[float]:
    return [a + b for a, b in zip(STATE, change, strict=True)]


@pytest.mark.parametrize("horizon", [1, 2])
def test_controller_finds_the_action_that_makes_the_goal(horizon: int):
    goal = moved(0.03, -0.02, 0.05, 0, 0, 0, 0)
    controller = Controller(PoseWorld(), CEM.model_copy(update={"horizon": horizon, "iterations": 25}))  # type: ignore[arg-type]
    result = controller.plan_latent(latent(STATE), torch.tensor(STATE), latent(goal), generator=generator_for(0))
    assert result.actions.shape == (horizon, 7)
    assert torch.allclose(result.actions.sum(0), torch.tensor(goal) - torch.tensor(STATE), rtol=0, atol=1e-4)
    assert result.energies[-1].best < 1e-4


def test_a_running_cost_asks_to_be_there_early():
    change = torch.tensor([0.03, -0.02, 0.05, 0, 0, 0, 0])
    first = [
        Controller(PoseWorld(), CEM.model_copy(update={"horizon": 3, "iterations": 25, "running_cost": weight}))  # type: ignore[arg-type]
        .plan_latent(latent(STATE), torch.tensor(STATE), latent(moved(*change.tolist())), generator=generator_for(0))
        .actions[0]
        for weight in (0.0, 1.0)
    ]
    assert (first[0] - change).abs().max() > 0.01
    assert torch.allclose(first[1], change, rtol=0, atol=1e-3)


def test_a_running_cost_is_the_mean_of_the_steps_before_the_last():
    goal, actions = latent(moved(0, 0, 0, 0, 0, 0, 0)), torch.zeros(1, 3, 7)
    actions[0, :, 0] = torch.tensor([0.02, 0.03, 0.04])
    for weight in (0.0, 0.5):
        controller = Controller(PoseWorld(), CEM.model_copy(update={"running_cost": weight}))  # type: ignore[arg-type]
        energy = controller.energy(latent(STATE), torch.tensor(STATE), goal, actions)
        # 9 cm off in the end, and 2 and 5 cm on the way, on one axis of seven.
        assert energy[0].item() == pytest.approx((0.09 + weight * 0.035) / 7, abs=1e-6)


def test_gripper_is_planned_or_held():
    goal, state = latent(moved(0, 0, 0, 0, 0, 0, 0.4)), torch.tensor(STATE)
    for wanted, expected in ((True, 0.4), (False, 0.0)):
        controller = Controller(PoseWorld(), CEM.model_copy(update={"plan_gripper": wanted}))  # type: ignore[arg-type]
        result = controller.plan_latent(latent(STATE), state, goal, generator=generator_for(1))
        assert result.actions[0, 6] == pytest.approx(expected, abs=0.05)
        assert result.actions[0, 3:6].tolist() == [0, 0, 0]


class UnsureWorld(PoseWorld):
    """Of its four tokens only the first shows the gripper; on the others it errs as soon as anything is done."""

    def rollout(self, latents: Tensor, states: Tensor, actions: Tensor, *, past: FrameCache | None = None) -> Tensor:
        poses = super().rollout(latents, states, actions, past=past)
        predicted = latents[:, :1].expand(-1, actions.shape[1], -1, -1).clone()
        predicted[:, :, 0] = poses[:, :, 0]
        predicted[:, :, 1:] += 0.05 * actions[:, :, 6].abs().clamp(max=0.1)[..., None, None] / 0.1
        return predicted


def test_what_has_to_change_decides_where_tokens_are_weighted_by_the_goal():
    state, start = torch.tensor(STATE), latent(STATE)
    goal = start.clone()
    goal[0, 6] += 0.3
    found = [
        Controller(UnsureWorld(), CEM.model_copy(update={"plan_gripper": True, "goal_weight": weight}))  # type: ignore[arg-type]
        .plan_latent(start, state, goal, generator=generator_for(1))
        .actions[0, 6]
        for weight in (0.0, 20.0)
    ]
    assert found[0] == 0
    assert found[1] == pytest.approx(0.3, abs=0.05)


def test_weights_of_a_goal_sum_to_one_and_without_weight_are_even():
    goal = latent(moved(0.1, 0, 0, 0, 0, 0, 0)).clone()
    goal[2:] = torch.tensor(STATE)
    assert torch.allclose(goal_weights(latent(STATE), goal, 0.0), torch.full((4,), 0.25))
    # Twice the mean change, and none: 1 + 3 * 2 against 1.
    assert torch.allclose(goal_weights(latent(STATE), goal, 3.0), torch.tensor([7, 7, 1, 1]) / 16)


def test_energy_of_many_samples_equals_energy_of_each():
    """Samples go through the predictor in parts; the parts must not show."""
    controller = Controller(PoseWorld(), CEM)  # type: ignore[arg-type]
    actions = torch.randn(300, 2, 7, generator=generator_for(2)) * 0.05
    goal, state = latent(moved(0.1, 0, 0, 0, 0, 0, 0)), torch.tensor(STATE)
    together = controller.energy(latent(STATE), state, goal, actions)
    alone = torch.cat([controller.energy(latent(STATE), state, goal, actions[i : i + 1]) for i in (0, 127, 128, 299)])
    torch.testing.assert_close(together[[0, 127, 128, 299]], alone, rtol=0, atol=1e-7)


def test_generators_are_functions_of_their_key():
    draws = [torch.rand(3, generator=generator_for(*key)).tolist() for key in ((1, 2), (1, 2), (2, 1), (12,))]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2] != draws[3]


def test_world_model_energy_is_the_distance_of_its_own_rollout(tiny_world_model):
    """Through the real predictor: the energy equals the mean distance computed by hand from `rollout`."""
    world = load_world_model(tiny_world_model())
    latents = world.encode(np.stack([OBS, GOAL]))
    actions = torch.randn(3, 2, 7, generator=generator_for(0)) * 0.05
    energies = Controller(world, CEM).energy(latents[0], torch.tensor(STATE), latents[1], actions)
    by_hand = world.rollout(latents[:1].expand(3, 4, -1).unsqueeze(1), torch.tensor(STATE).expand(3, 1, 7), actions)
    assert torch.allclose(energies, (by_hand[:, -1] - latents[1]).abs().mean((1, 2)), atol=1e-6)
    assert energies.std() > 0


def test_plan_is_written_whole_and_is_the_same_again(tiny_world_model, tmp_path: Path):
    model = tiny_world_model()
    write_image(tmp_path / "obs.png", OBS)
    write_image(tmp_path / "goal.png", GOAL)
    made = plan(tmp_path / "obs.png", tmp_path / "goal.png", model=model, state=STATE, config=SMALL, out=tmp_path / "plan.json")
    again = plan(OBS, GOAL, model=model, state=np.array(STATE), config=SMALL, out=tmp_path / "again.json")
    report = read_report(tmp_path / "plan.json", "plan")
    assert report["digest"] == read_report(tmp_path / "again.json", "plan")["digest"]
    assert report["actions"] == made.actions.tolist() == again.actions.tolist()
    assert len(report["energies"]) == SMALL.cem.iterations
    assert report["timing"]["seconds"] > 0
    assert report["provenance"]["inputs"].keys() == {"obs", "goal", "model", "encoder"}
    assert json.dumps([list(action) for action in made.actions])


def test_plan_refuses_models_that_nobody_trained(tiny_world_model):
    for changes, reason in (
        ({"trained_steps": 0}, "trained_steps: 0"),
        ({"prefix": "untrained:"}, "baseline 'untrained'"),
        ({"encoder_steps": 0}, "baseline 'untrained'"),
        ({"prefix": "pixels:"}, "baseline 'pixels'"),
    ):
        model = tiny_world_model(**changes)
        with pytest.raises(PlanningError, match=reason):
            plan(OBS, GOAL, model=model, state=STATE, config=SMALL)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (None, "state: missing.*7 numbers: x, y, z"),
        (
            STATE[:6],
            r"state: 6 numbers given, 7 needed: x, y, z \(metres\), roll, pitch, yaw \(radians\), gripper 0 open..1 closed",
        ),
        ([*STATE[:6], float("nan")], "not finite"),
        ([*STATE[:6], 30.0], r"gripper 30 is not in \[0, 1\]"),
    ],
)
def test_plan_says_what_a_state_is(state, reason: str):
    with pytest.raises(PlanningError, match=reason):
        plan(OBS, GOAL, model="nowhere", state=state)


def test_plan_refuses_what_is_no_image(tmp_path: Path):
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(VideoError, match=r"text\.png"):
        plan(tmp_path / "text.png", GOAL, model="nowhere", state=STATE)
    with pytest.raises(VideoError, match="no such file"):
        plan(OBS, tmp_path / "absent.png", model="nowhere", state=STATE)
    with pytest.raises(InputError, match="goal: an array"):
        plan(OBS, GOAL.astype(np.float32), model="nowhere", state=STATE)  # type: ignore[arg-type]


OWN = StateSpace("own", ("lift", "tilt", "idle"), ("m", "rad", "m"), (False, True, False), (None,) * 3, (0.02, 0.1, 0.0))


class OwnWorld:
    """A world whose latent, [2 tokens, 3], is the state itself: a lift, a tilt and a number that never changes."""

    ac = SimpleNamespace(spec=AcPredictorSpec(3, 8, 1, 1, action_dim=3, state_dim=3))

    def rollout(self, latents: Tensor, states: Tensor, actions: Tensor, *, past: FrameCache | None = None) -> Tensor:
        reached = (states + actions.cumsum(1)).unsqueeze(2)
        return reached.expand(-1, -1, latents.shape[2], -1)


def test_robot_with_its_own_numbers_is_planned_within_its_usual_changes():
    state, goal = torch.tensor([0.1, -0.2, 0.7]), torch.tensor([0.11, -0.05, 0.9])
    controller = Controller(OwnWorld(), CEM.model_copy(update={"iterations": 25}), space=OWN)  # type: ignore[arg-type]
    found = controller.plan_latent(state.expand(2, 3), state, goal.expand(2, 3), generator=generator_for(0)).actions
    # The tilt is further away than one step goes, and the last number has never moved.
    assert torch.allclose(found, torch.tensor([[0.01, 0.1, 0.0]]), atol=1e-4)
    with pytest.raises(PlanningError, match="no usual_change"):
        Controller(OwnWorld(), CEM, space=replace(OWN, usual_change=None))  # type: ignore[arg-type]


def test_plan_names_the_robot_s_own_numbers(tiny_world_model):
    model = tiny_world_model(action_dim=3, state_dim=3, state_space=OWN.to_tree())
    made = plan(OBS, GOAL, model=model, state=[0.1, 0.2, 0.3], config=SMALL)
    assert made.actions.shape == (1, 3)
    assert (np.abs(made.actions).max(axis=0) <= OWN.usual_change).all()
    assert made.action_fields == "lift (m), tilt (rad), idle (m); differences to the state before"
    with pytest.raises(PlanningError, match=r"7 numbers given, 3 needed: lift \(m\), tilt \(rad\), idle \(m\)"):
        plan(OBS, GOAL, model=model, state=STATE, config=SMALL)


def test_model_without_seven_numbers_cannot_be_planned_with(tiny_world_model):
    world = load_world_model(tiny_world_model(action_dim=3))
    with pytest.raises(PlanningError, match="actions of 3"):
        Controller(world, CEM)
