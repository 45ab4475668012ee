"""The energy around a plan and the frames nearest to what it imagines: the numbers, and pictures made of them alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vjepa2cli.data.video import read_image
from vjepa2cli.errors import ArtifactError, InputError, PlanningError
from vjepa2cli.planning.controller import Controller
from vjepa2cli.planning.imagination import nearest_frames
from vjepa2cli.planning.landscape import energy_map
from vjepa2cli.planning.model_card import open_world_model
from vjepa2cli.planning.single_plan import Extras, plan
from vjepa2cli.reporting.film_strips import draw_film_strip
from vjepa2cli.reporting.plan_pictures import draw_energy_map
from vjepa2cli.settings import CemConfig, EnergyMapConfig, PlanConfig

CONFIG = PlanConfig(
    cem=CemConfig(samples=8, iterations=2, elites=3, horizon=2, plan_gripper=False), energy_map=EnergyMapConfig(points=5)
)
STATE = [0.5, 0.0, 0.2, 0.1, -0.1, 0.3, 0.5]
RNG = np.random.default_rng(0)
OBS, GOAL = (RNG.integers(0, 256, (40, 48, 3), dtype=np.uint8) for _ in range(2))


def test_map_holds_the_energy_of_every_action_on_the_grid(tiny_world_model):
    world, card = open_world_model(tiny_world_model())
    controller = Controller(world, CONFIG.cem, space=card.space)
    latent, goal = world.encode(OBS[None])[0], world.encode(GOAL[None])[0]
    state, actions = torch.tensor(STATE), 0.05 * torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    config = EnergyMapConfig(axes=("y", "x"), points=4, span=2.0)
    found = energy_map(controller, latent, state, goal, actions, config=config)
    assert found["values"] == [pytest.approx([-0.15, -0.05, 0.05, 0.15])] * 2
    assert found["units"] == ["m", "m"]
    assert found["planned"] == pytest.approx([float(actions[0, 1]), float(actions[0, 0])])
    for i, y in enumerate(found["values"][0]):
        for j, x in enumerate(found["values"][1]):
            tried = actions.clone()
            tried[0, 0], tried[0, 1] = x, y
            expected = float(controller.energy(latent, state, goal, tried[None]))
            assert found["energies"][j][i] == pytest.approx(expected, abs=1e-6)
    for axes, reason in (
        (("x", "x"), "named twice"),
        (("x", "w"), "no axis 'w'"),
        (("x", "yaw"), "does not move yaw; it moves x, y, z"),
    ):
        with pytest.raises(PlanningError, match=reason):
            energy_map(controller, latent, state, goal, actions, config=EnergyMapConfig(axes=axes))


def test_nearest_frame_is_that_of_the_nearest_training_latent(training_stores, tiny_world_model):
    """Latents a little off steps 3 and 1 of the first two episodes, and one of the held-out episode, which is not looked at."""
    latents, videos = training_stores
    _, card = open_world_model(tiny_world_model())
    drawn = [torch.randn(n, 4, 24, generator=torch.Generator().manual_seed(seed)) for seed, n in enumerate((4, 6, 5))]
    imagined = torch.stack([drawn[0][3] + 0.01, drawn[1][1] - 0.01, drawn[2][2]])
    rows = nearest_frames(imagined, latents, videos, card=card)
    assert [(row["episode"], row["key"], row["frame"]) for row in rows[:2]] == [("a", "key-a", 6), ("b", "key-b", 2)]
    assert [row["distance"] for row in rows[:2]] == pytest.approx([0.01, 0.01], abs=1e-6)
    assert rows[2]["episode"] in ("a", "b")
    training = torch.cat(drawn[:2])
    assert rows[2]["distance"] == pytest.approx(float((training - drawn[2][2]).abs().mean((1, 2)).min()), abs=1e-5)
    with pytest.raises(ArtifactError, match="holds latents of the encoder"):
        nearest_frames(imagined, latents, videos, card=type(card)(**(card.__dict__ | {"encoder_digest": "0" * 64})))


def test_pictures_are_drawn_from_the_plan_and_are_the_same_again(training_stores, tiny_world_model, tmp_path: Path):
    latents, videos = training_stores
    _, card = open_world_model(tiny_world_model())
    extras = Extras(energy_map=True, latents=latents, videos=videos)
    made = plan(OBS, GOAL, model=card.source, state=STATE, config=CONFIG, extras=extras, out=tmp_path / "plan.json")
    assert len(made.extras["imagined"]) == 3
    assert np.array(made.extras["energy_map"]["energies"]).shape == (5, 5)

    def draw(name: str) -> list[bytes]:
        drawn = [
            draw_energy_map(tmp_path / "plan.json", tmp_path / f"{name}.png"),
            draw_energy_map(tmp_path / "plan.json", tmp_path / f"{name}.svg"),
            draw_film_strip(tmp_path / "plan.json", videos, tmp_path / f"{name}-strip.png", observed=OBS, goals=[GOAL]),
        ]
        return [path.read_bytes() for path in drawn]

    assert draw("one") == draw("two")
    assert "standing still" in (tmp_path / "one.svg").read_text()
    strip = read_image(tmp_path / "one-strip.png")
    for row in made.extras["imagined"]:
        shade = 10 * row["frame"]
        assert (strip == shade).all(-1).sum() > 5000, f"frame {row['frame']} is shown"


def test_picture_that_a_plan_holds_no_numbers_for_is_refused(tiny_world_model, tmp_path: Path):
    plan(OBS, GOAL, model=tiny_world_model(), state=STATE, config=CONFIG, out=tmp_path / "plan.json")
    with pytest.raises(ArtifactError, match="holds no 'energy_map'"):
        draw_energy_map(tmp_path / "plan.json", tmp_path / "map.png")
    extras: Any = Extras(energy_map=True)
    plan(OBS, GOAL, model=tiny_world_model(), state=STATE, config=CONFIG, out=tmp_path / "plan.json", extras=extras)
    with pytest.raises(InputError, match=r"map\.gif: pictures are written as"):
        draw_energy_map(tmp_path / "plan.json", tmp_path / "map.gif")
    assert not list(tmp_path.glob("map*"))
