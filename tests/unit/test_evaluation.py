"""The closed loop on a world that is known, the real one in the tabletop, and what a report says of it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.artifacts.latent_store import Shard
from vjepa2cli.artifacts.reports import read_report, write_report
from vjepa2cli.artifacts.statistics import share
from vjepa2cli.data.video import probe_video, read_image
from vjepa2cli.errors import DependencyError, PlanningError, StaleArtifactError
from vjepa2cli.models.ac_predictor import AcPredictorSpec, FrameCache
from vjepa2cli.planning.closed_loop import PlannerPolicy, play
from vjepa2cli.planning.controller import Controller
from vjepa2cli.planning.evaluation import _narrow_enough, _rounds, evaluate, verdict
from vjepa2cli.planning.players import Job, Outcome, Player
from vjepa2cli.settings import CemConfig, EvaluateConfig, GraspConfig, PickAndPlaceConfig, PushConfig, ReachConfig
from vjepa2cli.simulation.environment import Measure, Observation, View
from vjepa2cli.simulation.tabletop import ROBOT, Tabletop

CEM = CemConfig(samples=8, iterations=2, elites=3)
CONFIG = EvaluateConfig(episodes=2, reach=ReachConfig(actions=3), num_videos=1, cem=CEM)


class PointEnvironment:
    """A hand without a body: it goes where it is told, and its frame spells its position in tenths of millimetres."""

    rate = 4.0

    def __init__(self) -> None:
        self.state = np.zeros(7)

    def reset(self, *, seed: int) -> Observation:
        self.state = np.zeros(7)
        return self.observe()

    def observe(self) -> Observation:
        codes = np.round(self.state[:3] * 1e4 + 5e3).astype(np.int64)
        frame = np.stack([codes // 256, codes % 256, codes * 0], axis=-1)[None].astype(np.uint8)  # [1, 3, 3]
        return Observation(frame, self.state.astype(np.float32))

    def step(self, action: NDArray[np.floating]) -> Observation:
        self.state[:3] += action[:3]
        return self.observe()

    def close(self) -> None:
        pass


class PointEpisode:
    """From one place by way of others to a last one, each with its number of actions."""

    def __init__(self, environment: PointEnvironment, start: list[float], goals: list[tuple[list[float], int]]) -> None:
        self._environment, self._start = environment, np.array([*start, 0, 0, 0, 0])
        self._goal = np.array(goals[-1][0])
        self.goals = []
        for place, actions in goals:
            environment.state = np.array([*place, 0.0, 0, 0, 0])
            self.goals.append(View(environment.observe().frame, actions))

    def begin(self) -> Observation:
        self._environment.state = self._start.copy()
        return self._environment.observe()

    def measure(self) -> Measure:
        remaining = float(np.linalg.norm(self._environment.state[:3] - self._goal))
        return Measure(remaining < 0.01, remaining)

    def expert(self, max_translation: float) -> None:
        return None

    def describe(self) -> dict[str, object]:
        return {"start": self._start.tolist()}


class PointWorld:
    """Reads the frames of a PointEnvironment, and knows that actions add up."""

    ac = SimpleNamespace(spec=AcPredictorSpec(7, 8, 1, 1))

    def encode(self, frames: NDArray[np.uint8]) -> Tensor:
        digits = torch.from_numpy(frames[:, 0].astype(np.float32))  # [T, 3 axes, 3]
        return ((digits[..., 0] * 256 + digits[..., 1] - 5e3) * 1e-4).unsqueeze(1)  # [T, 1, 3]

    def rollout(self, latents: Tensor, states: Tensor, actions: Tensor, *, past: FrameCache | None = None) -> Tensor:
        return latents + actions.cumsum(1)[..., :3].unsqueeze(2)


SETTINGS = CemConfig(samples=64, iterations=10, elites=6, plan_gripper=False)
START, GOAL = [0.4, 0.0, 0.1], [0.5, 0.1, 0.2]


def planner(world: PointWorld, episode: PointEpisode, **changes: object) -> PlannerPolicy:
    controller = Controller(world, SETTINGS.model_copy(update=changes))  # type: ignore[arg-type]
    goals = [(world.encode(view.frame[None])[0], view.actions) for view in episode.goals]
    return PlannerPolicy(world, controller, goals, (0, 0))  # type: ignore[arg-type]


def test_planner_with_a_true_model_reaches_the_goal_and_expects_what_comes():
    environment, world = PointEnvironment(), PointWorld()
    episode = PointEpisode(environment, START, [(GOAL, 4)])
    policy = planner(world, episode)
    played = play(environment, episode, policy)
    policy.look(played.observations[-1])
    assert played.measures[0].remaining == pytest.approx(np.sqrt(0.03))
    assert played.measures[-1].remaining < 1e-3
    assert [measure.succeeded for measure in played.measures] == [False, False, *[True] * 3]
    # Frames are rounded to a tenth of a millimetre.
    assert np.allclose(policy.energies[1:], policy.expected_energies, atol=1e-4)
    rollout = policy.rollout(played.actions)
    assert max(rollout["error"]) < 1e-4
    assert np.allclose(rollout["expected_energy"], rollout["energy"], atol=1e-4)
    assert rollout["energy"] == policy.energies[1:]
    assert rollout["copy_error"][-1] == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("warm_start", [False, True])
def test_sub_goals_are_pursued_one_after_the_other_for_as_many_actions_as_each_has(warm_start: bool):
    environment, world = PointEnvironment(), PointWorld()
    way = [0.4, 0.1, 0.1]
    episode = PointEpisode(environment, START, [(way, 2), (GOAL, 3)])
    policy = planner(world, episode, warm_start=warm_start)
    played = play(environment, episode, policy)
    policy.look(played.observations[-1])
    assert len(played.actions) == 5
    assert np.allclose(played.observations[2].state[:3], way, atol=1e-3)
    assert played.measures[-1].remaining < 1e-3
    # Of the second observation on, the energy is that to the second goal.
    assert policy.energies[1] < 0.03 < policy.energies[2]
    assert policy.energies[-1] < 1e-3


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
    (result,) = report["results"]
    assert (result["task"], result["shift"], len(result["episodes"])) == ("reach", "none", 2)
    assert set(result["policies"]) == {"planner", "random", "expert"}
    for name, summary in result["policies"].items():
        finals = [row[name]["distances"][-1] for row in result["episodes"]]
        assert summary["final_distance"]["mean"] == pytest.approx(np.mean(finals))
        assert summary["success"]["successes"] == sum(final <= CONFIG.reach.tolerance for final in finals)
        assert all(0.1 <= row[name]["distances"][0] <= 0.21 for row in result["episodes"])
    assert result["policies"]["expert"]["success"]["rate"] == 1
    assert len(result["energies"]) == CONFIG.reach.actions + 1 == len(result["expected_energies"]) + 1
    pictures = result["episodes"][0]["pictures"]
    assert result["episodes"][1]["pictures"] is None
    video, strip = (path.parent / pictures[name] for name in ("video", "filmstrip"))
    assert (video.name, video.parent.name) == ("reach_none_000.mp4", "videos")
    assert (probe_video(video).height, probe_video(video).width) == (352, 288)
    assert read_image(strip).shape[0] == 32
    assert video.read_bytes() == (tmp_path / "two" / pictures["video"]).read_bytes()
    json.dumps(report, allow_nan=False)


@pytest.mark.usefixtures("renderer")
def test_every_task_is_played_under_every_shift_and_a_replay_by_two_processes_gives_the_same(tiny_world_model, tmp_path: Path):
    model = tiny_world_model(robot=ROBOT)
    changes = {"tasks": ("grasp", "pick_and_place"), "shifts": ("none", "camera"), "num_videos": 0, "episodes": 1}
    changes |= {"pick_and_place": PickAndPlaceConfig(actions=(1, 1, 1)), "grasp": GraspConfig(actions=2)}
    config = CONFIG.model_copy(update=changes)
    path = evaluate(model, tmp_path / "report.json", config=config)
    report = read_report(path)
    plain, _, moved, _ = report["results"]
    assert [(result["task"], result["shift"]) for result in report["results"]] == [
        ("grasp", "none"),
        ("pick_and_place", "none"),
        ("grasp", "camera"),
        ("pick_and_place", "camera"),
    ]
    # A shift changes what is seen, not what is to be done.
    assert [row["layout"] for row in plain["episodes"]] == [row["layout"] for row in moved["episodes"]]
    assert plain["energies"] != moved["energies"]
    again = read_report(evaluate(model, tmp_path / "again.json", config=config, replay=path, workers=2))
    assert again["results"] == report["results"]
    assert again["replay"] == {"of": report["digest"], "first_difference": None}
    assert "replay: the same episodes, number by number." in again["verdict"]
    assert again["fingerprint"] == report["fingerprint"]


@pytest.mark.usefixtures("renderer")
def test_jobs_that_share_an_evaluation_and_one_that_was_killed_come_to_the_same_report(
    tiny_world_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = tiny_world_model(robot=ROBOT)
    update = {"episodes": 3, "max_episodes": 4, "interval_width": 0.01, "num_videos": 1, "tasks": ("reach", "push")}
    config = CONFIG.model_copy(update=update | {"reach": ReachConfig(actions=1), "push": PushConfig(episodes=2, actions=1)})
    whole = read_report(evaluate(model, tmp_path / "whole" / "report.json", config=config))
    out = tmp_path / "shared" / "report.json"
    played: list[tuple[str, int]] = []
    play_one = Player.__call__

    def counting(player: Player, job: Job) -> Outcome:
        played.append((job.task, job.index))
        if len(played) == 2:
            raise KeyboardInterrupt
        return play_one(player, job)

    monkeypatch.setattr(Player, "__call__", counting)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, out, config=config, shard=Shard(0, 2))
    assert [path.name for path in out.parent.glob("report*")] == ["report-00000-of-00002.jsonl.partial"]
    with (out.parent / "report-00000-of-00002.jsonl.partial").open("ab") as file:
        file.write(b'{"place": ["reach", "none", 2], "ro')  # what a machine leaves that loses its power
    parts = [evaluate(model, out, config=config, shard=Shard(index, 2)) for index in range(2)]
    assert [path.name for path in parts] == ["report-00000-of-00002.jsonl", "report-00001-of-00002.jsonl"]
    assert played == [("reach", 0), ("reach", 2), ("reach", 2), ("push", 1), ("reach", 1), ("push", 0)]
    played.append(("no interruption", 0))
    assert read_report(evaluate(model, out, config=config))["digest"] == whole["digest"]
    assert played[7:] == [("reach", 3), ("push", 2), ("push", 3)], "only what is added until the interval is narrow"
    assert sorted(path.name for path in out.parent.glob("report*")) == [*(path.name for path in parts), "report.json"]
    other = config.model_copy(update={"seed": 1})
    evaluate(model, out, config=other)
    assert len(played) == 10 + 8, "parts of another evaluation are passed over"


@pytest.mark.usefixtures("renderer")
def test_a_replay_with_other_weights_is_refused_and_a_changed_episode_is_named(tiny_world_model, tmp_path: Path):
    model = tiny_world_model(robot=ROBOT)
    short = CONFIG.model_copy(update={"reach": ReachConfig(actions=1), "num_videos": 0})
    path = evaluate(model, tmp_path / "report.json", config=short)
    body = {key: value for key, value in read_report(path).items() if key not in ("digest", "timing", "schema", "kind")}
    body["results"][0]["episodes"][1]["actions"][0][0] += 1e-6
    edited = write_report(tmp_path / "edited.json", "evaluation", body, provenance=body.pop("provenance"))
    again = read_report(evaluate(model, tmp_path / "again.json", replay=edited))
    assert again["replay"]["first_difference"] == "reach, none, episode 1: actions"
    with pytest.raises(StaleArtifactError, match="was made with the model"):
        evaluate(tiny_world_model(robot=ROBOT, depth=2), tmp_path / "again.json", replay=path)


@pytest.mark.usefixtures("renderer")
def test_fingerprint_is_that_of_the_protocol(tiny_world_model, tmp_path: Path):
    model = tiny_world_model(robot=ROBOT)
    short = CONFIG.model_copy(update={"episodes": 1, "reach": ReachConfig(actions=1), "num_videos": 0})
    changed = [
        short,
        short.model_copy(update={"num_videos": 1}),
        short.model_copy(update={"tasks": ("reach", "push")}),
        short.model_copy(update={"reach": ReachConfig(actions=1, tolerance=0.05)}),
    ]
    reports = [read_report(evaluate(model, tmp_path / "report.json", config=config)) for config in changed]
    prints = [report["results"][0]["fingerprint"] for report in reports]
    assert prints[0] == prints[1] == prints[2] != prints[3]
    assert reports[0]["fingerprint"] == reports[1]["fingerprint"] != reports[2]["fingerprint"]


@pytest.mark.usefixtures("renderer")
def test_episodes_are_added_until_the_interval_is_narrow_enough(tiny_world_model, tmp_path: Path):
    model = tiny_world_model(robot=ROBOT)
    update = {"episodes": 4, "max_episodes": 16, "num_videos": 0, "reach": ReachConfig(actions=1, distance=(0.19, 0.2))}
    counts = {}
    # None of 4 and none of 14 successes have intervals 0.49 and 0.22 wide.
    for width in (0.5, 0.3, 0.01):
        config = CONFIG.model_copy(update=update | {"interval_width": width})
        (result,) = read_report(evaluate(model, tmp_path / "report.json", config=config))["results"]
        counts[width] = result["policies"]["planner"]["success"]["n"]
        assert [row["episode"] for row in result["episodes"]] == list(range(counts[width]))
    assert counts == {0.5: 4, 0.3: 14, 0.01: 16}


def test_an_interval_that_is_waited_for_still_covers_the_true_rate():
    config = EvaluateConfig(episodes=50, max_episodes=400, interval_width=0.15)
    rng = np.random.default_rng(0)
    covered, counts = 0, set()
    for _ in range(600):
        rate = rng.uniform(0.02, 0.98)
        done: list[Outcome] = []
        for first, last in _rounds(config, "push"):
            if done and _narrow_enough(done, config):
                break
            done += [Outcome({"planner": {"success": bool(rng.random() < rate)}}, []) for _ in range(first, last)]
        low, high = share(sum(outcome.row["planner"]["success"] for outcome in done), len(done))["interval"]  # type: ignore[misc]
        covered += low <= rate <= high
        counts.add(len(done))
    assert (min(counts), len(counts) > 5) == (50, True)
    # 95 %, less three standard errors of 600 trials.
    assert covered / 600 > 0.923


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
    policies = {name: {"success": share(count, 50)} for name, count in (("planner", planner), ("random", random), ("expert", 50))}
    sentence = verdict("pick_and_place", "goal_light", policies)
    assert sentence.startswith("pick and place, goal light shifted: ")
    assert claim in sentence
    assert f"{planner} of 50" in sentence
