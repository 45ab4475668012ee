"""One plan: sub-goals in order, videos that end in the goal, somebody else's proposals, a budget of time."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.data.poses import pose_compose
from vjepa2cli.data.video import iterate_frames, write_image, write_video
from vjepa2cli.errors import InputError, PlanningError, VideoError
from vjepa2cli.planning.controller import Controller, generator_for
from vjepa2cli.planning.goals import Goal, parse_goal, read_frame
from vjepa2cli.planning.model_card import load_world_model
from vjepa2cli.planning.proposals import read_proposals
from vjepa2cli.planning.single_plan import Extras, plan
from vjepa2cli.settings import CemConfig, PlanConfig

CONFIG = PlanConfig(cem=CemConfig(samples=8, iterations=2, elites=3, plan_gripper=False))
STATE = [0.5, 0.0, 0.2, 0.1, -0.1, 0.3, 0.5]
NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
RNG = np.random.default_rng(0)
OBS, FIRST, SECOND = (RNG.integers(0, 256, (40, 48, 3), dtype=np.uint8) for _ in range(3))


def test_sub_goals_are_pursued_in_order_for_as_many_actions_as_they_say(tiny_world_model):
    """Each action is that of a search, towards the goal of its turn, from what the model imagines so far."""
    model = tiny_world_model()
    made = plan(OBS, [Goal(FIRST, 2), Goal(SECOND, 1)], model=model, state=STATE, config=CONFIG)
    assert made.towards == (0, 0, 1)
    assert made.scored == 3 * 16
    world = load_world_model(model)
    controller = Controller(world, CONFIG.cem)
    latent, state = world.encode(OBS[None])[0], torch.tensor(STATE)
    for step, (goal, found) in enumerate(zip((FIRST, FIRST, SECOND), made.actions, strict=True)):
        target = world.encode(goal[None])[0]
        generator = generator_for(CONFIG.seed, step) if step else generator_for(CONFIG.seed)
        action = controller.plan_latent(latent, state, target, generator=generator).actions[0]
        assert np.allclose(action.numpy(), found, atol=1e-6)
        latent = controller.predict(latent, state, action[None, None])[0, 0]
        state = pose_compose(state, action)
        assert made.expected_energies[step] == pytest.approx(float((latent - target).abs().mean()), abs=1e-6)
    assert made.final_energy == made.expected_energies[-1]


def test_horizon_of_one_search_and_one_action_of_a_sub_goal_agree(tiny_world_model):
    model = tiny_world_model()
    once = plan(OBS, FIRST, model=model, state=STATE, config=CONFIG)
    stepped = plan(OBS, Goal(FIRST, 1), model=model, state=STATE, config=CONFIG)
    assert np.array_equal(once.actions, stepped.actions)
    assert once.final_energy == stepped.final_energy
    assert once.idle_energy == stepped.idle_energy


def test_several_goals_need_their_numbers_and_numbers_must_lead_somewhere(tiny_world_model):
    with pytest.raises(PlanningError, match="each of several needs its number of actions"):
        plan(OBS, [Goal(FIRST, 2), Goal(SECOND)], model="nowhere", state=STATE)
    with pytest.raises(PlanningError, match="none given"):
        plan(OBS, [], model="nowhere", state=STATE)
    assert parse_goal("a.png:12") == Goal(Path("a.png"), 12)
    assert parse_goal("folder/a.png") == Goal(Path("folder/a.png"))
    assert parse_goal("c:/a.png") == Goal(Path("c:/a.png"))
    with pytest.raises(InputError, match="-3 actions lead nowhere"):
        parse_goal("a.png:-3")


def test_file_whose_name_ends_in_a_number_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "odd.png", FIRST)
    (tmp_path / "odd.png").rename(tmp_path / "odd:4")
    assert parse_goal("odd:4") == Goal(Path("odd:4"))


def test_video_stands_for_its_last_frame(tmp_path: Path):
    frames = [np.full((32, 32, 3), 20 * number, np.uint8) for number in range(8)]
    write_video(tmp_path / "demo.mp4", frames, fps=4)
    shown = [rgb for _, _, rgb in iterate_frames(tmp_path / "demo.mp4")]
    assert np.array_equal(read_frame(tmp_path / "demo.mp4", "goal"), shown[-1])
    assert shown[-1].mean() > shown[0].mean() + 100
    with pytest.raises(VideoError, match="no such file"):
        read_frame(tmp_path / "absent.mp4", "goal")


def written(folder: Path, actions: np.ndarray) -> list[Path]:
    """The same proposals in every format; the rows of the CSV from the last to the first."""
    np.savez(folder / "a.npz", actions=actions)
    (folder / "a.json").write_text(json.dumps({"actions": actions.tolist()}))
    (folder / "bare.json").write_text(json.dumps(actions.tolist()))
    with (folder / "a.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["step", "proposal", *NAMES])
        table.writerows(
            [step, number, *row]
            for number, chunk in reversed(list(enumerate(actions.tolist())))
            for step, row in enumerate(chunk)
        )
    return [folder / name for name in ("a.npz", "a.json", "bare.json", "a.csv")]


def test_proposals_are_ranked_by_their_energy_in_every_format(tiny_world_model, tmp_path: Path):
    actions = np.round(RNG.normal(0, 0.03, (5, 3, 7)), 4).astype(np.float32)
    actions[2, 1, 0] = 0.5
    model = tiny_world_model()
    world = load_world_model(model)
    latent, target = world.encode(OBS[None])[0], world.encode(FIRST[None])[0]
    expected = Controller(world, CONFIG.cem).energy(latent, torch.tensor(STATE), target, torch.from_numpy(actions))
    for path in written(tmp_path, actions):
        made = plan(OBS, FIRST, model=model, state=STATE, config=CONFIG, extras=Extras(proposals=path), out=tmp_path / "p.json")
        ranked = made.extras["proposals"]
        assert [row["proposal"] for row in ranked] == expected.argsort().tolist()
        assert [row["energy"] for row in ranked] == pytest.approx(expected.sort().values.tolist())
        assert all(row["outside_box"] for row in ranked), "the planner would not turn the hand"
        assert np.allclose(made.actions, actions[ranked[0]["proposal"]])
        assert made.final_energy == pytest.approx(ranked[0]["energy"])
        assert read_report(tmp_path / "p.json", "plan")["proposals"] == ranked


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", "", r"come as \.npz, \.json, \.csv"),
        ("absent.json", None, "no such file"),
        ("a.json", "[[[1, 2]]]", r"holds numbers \[1, 1, 2\], needed are \[proposals, steps, 7\]: x, y"),
        ("b.json", json.dumps([[[0] * 7], [[0] * 7] * 2]), "is not readable as proposals"),
        ("c.json", json.dumps([[[0] * 7], [[0] * 6 + [float("nan")]]]), "proposal 1 holds a value that is not finite"),
        ("d.json", "{", "is not readable as proposals"),
        ("a.csv", "proposal,step,x\n", "lacks the columns y, z, roll"),
        ("b.csv", "proposal,step,x,y,z,roll,pitch,yaw,gripper\n0,1,0,0,0,0,0,0,0\n", "1 rows are not 1 proposals of 2 steps"),
        ("c.csv", "proposal,step,x,y,z,roll,pitch,yaw,gripper\n0,0,a,0,0,0,0,0,0\n", "could not convert"),
        ("a.npz", "no archive", "is not readable as proposals"),
    ],
)
def test_what_are_no_proposals_is_said(tmp_path: Path, name: str, content: str | None, reason: str):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=reason):
        read_proposals(tmp_path / name, NAMES)


def test_budget_of_time_is_kept_and_said(tiny_world_model, tmp_path: Path):
    endless = PlanConfig(cem=CemConfig(samples=64, iterations=100_000, elites=6, plan_gripper=False))
    made = plan(OBS, FIRST, model=tiny_world_model(), state=STATE, config=endless, budget_ms=300, out=tmp_path / "plan.json")
    assert made.planning_seconds < 0.3
    assert made.cut_short
    assert made.scored > 64
    report = read_report(tmp_path / "plan.json", "plan")
    assert (report["budget_ms"], report["cut_short"], report["scored"]) == (300, True, made.scored)
    assert report["timing"]["planning_seconds"] < 0.3
    several = plan(OBS, [Goal(FIRST, 2), Goal(SECOND, 1)], model=tiny_world_model(), state=STATE, config=endless, budget_ms=300)
    assert several.planning_seconds < 0.3
    assert len(several.actions) == 3


def test_what_does_not_go_together_is_refused(tmp_path: Path):
    (path,) = written(tmp_path, np.zeros((1, 1, 7), np.float32))[:1]
    for goal, more, reason in (
        (Goal(FIRST, 2), {"extras": Extras(proposals=path)}, "ranked by one goal image"),
        (FIRST, {"extras": Extras(proposals=path), "budget_ms": 5}, "ranked by one goal image"),
        (FIRST, {"budget_ms": 0}, "0 ms is no time"),
        (FIRST, {"extras": Extras(latents=tmp_path)}, "both the latents and the video store"),
    ):
        with pytest.raises(PlanningError, match=reason):
            plan(OBS, goal, model="nowhere", state=STATE, **more)  # type: ignore[arg-type]
