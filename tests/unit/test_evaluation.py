"""The closed loop on a world that is known, the real one in the tabletop, and what a report says of it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.artifacts.statistics import share
from vjepa2cli.data.video import probe_video, read_image
from vjepa2cli.errors import DependencyError, PlanningError
from vjepa2cli.models.ac_predictor import AcPredictorSpec, FrameCache
from vjepa2cli.planning.closed_loop import PlannerPolicy, play
from vjepa2cli.planning.controller import Controller
from vjepa2cli.planning.evaluation import ROBOT, evaluate, verdict
from vjepa2cli.settings import CemConfig, EvaluateConfig
from vjepa2cli.simulation.environment import Observation
from vjepa2cli.simulation.tabletop import Tabletop
from vjepa2cli.simulation.tasks import Reach, ReachEpisode

CEM = CemConfig(samples=8, iterations=2, elites=3, plan_gripper=False)
CONFIG = EvaluateConfig(episodes=2, max_actions=3, num_videos=1, cem=CEM)


class PointEnvironment:
    """A hand without a body: it goes where it is told, and its frame spells its position in tenths of millimetres."""

    rate = 4.0

    def __init__(self) -> None:
        self._state = np.zeros(7)

    def reset(self, *, seed: int, state: NDArray[np.floating] | None = None) -> Observation:
        assert state is not None
        self._state = np.array(state, np.float64)
        return self.observe()

    def observe(self) -> Observation:
        codes = np.round(self._state[:3] * 1e4 + 5e3).astype(np.int64)
        frame = np.stack([codes // 256, codes % 256, codes * 0], axis=-1)[None].astype(np.uint8)  # [1, 3, 3]
        return Observation(frame, self._state.astype(np.float32))

    def step(self, action: NDArray[np.floating]) -> Observation:
        self._state[:3] += action[:3]
        return self.observe()

    def close(self) -> None:
        pass


class PointWorld:
    """Reads the frames of a PointEnvironment, and knows that actions add up."""

    ac = SimpleNamespace(spec=AcPredictorSpec(7, 8, 1, 1))

    def encode(self, frames: NDArray[np.uint8]) -> Tensor:
        digits = torch.from_numpy(frames[:, 0].astype(np.float32))  # [T, 3 axes, 3]
        return ((digits[..., 0] * 256 + digits[..., 1] - 5e3) * 1e-4).unsqueeze(1)  # [T, 1, 3]

    def rollout(self, latents: Tensor, states: Tensor, actions: Tensor, *, past: FrameCache | None = None) -> Tensor:
        return latents + actions.cumsum(1)[..., :3].unsqueeze(2)


EPISODE = ReachEpisode(0, np.array([0.4, 0.0, 0.1, 0, 0, 0, 0]), np.array([0.5, 0.1, 0.2, 0, 0, 0, 0]))


def test_planner_with_a_true_model_reaches_the_goal_and_expects_what_comes():
    environment, task, world = PointEnvironment(), Reach(), PointWorld()
    goal = world.encode(task.begin(environment, EPISODE)[1].frame[None])[0]
    settings = CemConfig(samples=64, iterations=10, elites=6, plan_gripper=False)
    policy = PlannerPolicy(world, Controller(world, settings), goal, (0, 0))  # type: ignore[arg-type]
    played = play(environment, task, EPISODE, policy, num_actions=4)
    policy.look(played.observations[-1])
    assert played.distances[0] == pytest.approx(np.sqrt(0.03))
    assert played.distances[-1] < 1e-3
    # Frames are rounded to a tenth of a millimetre.
    assert np.allclose(policy.energies[1:], policy.expected_energies, atol=1e-4)
    rollout = policy.rollout(played.actions)
    assert max(rollout["error"]) < 1e-4
    assert np.allclose(rollout["expected_energy"], rollout["energy"], atol=1e-4)
    assert rollout["energy"] == policy.energies[1:]
    assert rollout["copy_error"][-1] == pytest.approx(0.1, abs=1e-3)


def test_perfect_policy_moves_straight_and_within_the_box():
    environment, task = PointEnvironment(), Reach()
    played = play(
        environment,
        task,
        EPISODE,
        lambda observation: task.perfect_action(observation.state, EPISODE, max_translation=0.04),
        num_actions=3,
    )
    assert played.distances == pytest.approx([np.sqrt(3) * gap for gap in (0.1, 0.06, 0.02, 0.0)], abs=1e-6)
    assert np.abs(played.actions).max() <= 0.04


@pytest.fixture(scope="module")
def renderer() -> None:
    """Skips where nothing can be drawn."""
    try:
        Tabletop(image_size=32).close()
    except DependencyError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("renderer")
@pytest.mark.parametrize(("prefix", "encoder"), [("", "trained"), ("pixels:", "pixels")])
def test_report_of_the_tabletop_is_a_function_of_model_and_config(tiny_world_model, tmp_path: Path, prefix: str, encoder: str):
    model = tiny_world_model(prefix, robot=ROBOT)
    path = evaluate(model, tmp_path / "one" / "report.json", config=CONFIG)
    report = read_report(path, "evaluation")
    again = read_report(evaluate(model, tmp_path / "two" / "report.json", config=CONFIG), "evaluation")
    assert report["digest"] == again["digest"]
    assert report["encoder"] == encoder
    assert report["timing"]["seconds_per_action"] > 0
    assert len(report["episodes"]) == 2
    for name, summary in report["policies"].items():
        finals = [row[name]["distances"][-1] for row in report["episodes"]]
        assert summary["final_distance"]["mean"] == pytest.approx(np.mean(finals))
        assert summary["success"]["successes"] == sum(final <= CONFIG.tolerance for final in finals)
        assert all(0.1 <= row[name]["distances"][0] <= 0.21 for row in report["episodes"])
    assert report["policies"]["perfect"]["success"]["rate"] == 1
    assert len(report["energies"]) == CONFIG.max_actions + 1 == len(report["expected_energies"]) + 1
    pictures = report["episodes"][0]["pictures"]
    assert report["episodes"][1]["pictures"] is None
    video, strip = (path.parent / pictures[name] for name in ("video", "filmstrip"))
    assert (video.name, video.parent.name) == ("episode_000.mp4", "videos")
    assert (probe_video(video).height, probe_video(video).width) == (192, 384)
    assert read_image(strip).shape[0] == 32
    assert video.read_bytes() == (tmp_path / "two" / pictures["video"]).read_bytes()
    json.dumps(report, allow_nan=False)


@pytest.mark.usefixtures("renderer")
def test_fingerprint_is_that_of_the_protocol(tiny_world_model, tmp_path: Path):
    model = tiny_world_model(robot=ROBOT)
    short = CONFIG.model_copy(update={"episodes": 1, "max_actions": 1, "num_videos": 0})
    prints = [
        read_report(evaluate(model, tmp_path / "report.json", config=config))["protocol"]["fingerprint"]
        for config in (short, short.model_copy(update={"num_videos": 1}), short.model_copy(update={"tolerance": 0.05}))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_models_that_do_not_belong_in_the_tabletop_are_refused(tiny_world_model, tmp_path: Path):
    for changes, reason in (
        ({"robot": "droid"}, "its robot is 'droid'"),
        ({"robot": ROBOT, "trained_steps": 0}, "nobody trained"),
        ({"robot": ROBOT, "rate": 0.0}, "names no rate"),
    ):
        model = tiny_world_model(**changes)
        with pytest.raises(PlanningError, match=reason):
            evaluate(model, tmp_path / "report.json", config=CONFIG)
        assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    ("planner", "random", "claim"),
    [(45, 0, "beats the random policy."), (3, 1, "does not show that it beats"), (0, 0, "does not show that it beats")],
)
def test_verdict_claims_no_more_than_the_intervals(planner: int, random: int, claim: str):
    policies = {
        name: {"success": share(count, 50)} for name, count in (("planner", planner), ("random", random), ("perfect", 50))
    }
    sentence = verdict(policies, tolerance=0.04)
    assert claim in sentence
    assert f"{planner} of 50" in sentence
