"""Worlds that are known to be good and bad come out in that order: in miniature what `benchmarks/worlds.py` does at length."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.planning.validation import validate
from vjepa2cli.settings import CemConfig, ValidateConfig
from vjepa2cli.train.posttraining import posttrain

JUDGED = ValidateConfig(
    horizon=3,
    num_ranked=12,
    num_rivals=16,
    num_sweeps=16,
    sweep_points=7,
    num_inversions=16,
    num_maps=0,
    num_compared=0,
    cem=CemConfig(samples=48, iterations=4, elites=6, plan_gripper=False),
)


@pytest.fixture(scope="module")
def worlds() -> ModuleType:
    spec = importlib.util.spec_from_file_location("worlds", Path(__file__).parents[3] / "benchmarks" / "worlds.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shuffled_actions_are_those_of_other_training_steps(worlds: ModuleType, write_latents, tmp_path: Path):
    true = LatentStore.open(write_latents())
    shuffled = LatentStore.open(worlds.shuffle_actions(true.path, tmp_path / "shuffled.h5", seed=3))
    before, after = (np.concatenate([store.actions(index) for index in (0, 1)]) for store in (true, shuffled))
    assert not np.array_equal(before, after)
    assert np.array_equal(np.sort(before, axis=0), np.sort(after, axis=0))
    for index in range(5):
        assert np.array_equal(true.tokens(index), shuffled.tokens(index))
        assert np.array_equal(true.states(index), shuffled.states(index))
        if index > 1:
            assert np.array_equal(true.actions(index), shuffled.actions(index))
    assert worlds.ordered([0.9, 0.5, 0.2, 0.0])
    assert not worlds.ordered([0.9, 0.5, 0.5, 0.0])


def test_worlds_known_to_be_good_and_bad_come_out_in_that_order(worlds: ModuleType, write_latents, tmp_path: Path):
    latents = write_latents(splits=["train"] * 24 + ["val"] * 8, steps=16, layer_norm=False)
    shuffled = worlds.shuffle_actions(latents, tmp_path / "shuffled.h5", seed=0)
    stages = {"long": (latents, 150), "brief": (latents, 15), "shuffled": (shuffled, 150), "untrained": (latents, 0)}
    assert tuple(stages) == worlds.WORLDS
    reports = {}
    for name, (trained_on, steps) in stages.items():
        recipe = worlds.recipe(steps, seed=0)
        small = recipe.predictor.model_copy(update={"embed_dim": 48, "depth": 1, "num_heads": 2})
        config = recipe.model_copy(update={"predictor": small, "precision": "fp32", "checkpoint_every": 200})
        posttrain(trained_on, tmp_path / name, config=config, device="cpu")
        reports[name] = read_report(validate(latents, tmp_path / f"{name}.json", model=tmp_path / name, config=JUDGED))
    assert worlds.ordered([reports[name]["grade"] for name in worlds.WORLDS]), worlds.table(reports)
    levels = {found["name"]: found["level"] for found in reports["long"]["capabilities"]}
    assert {levels[f"steers in {axis}"] for axis in "xyz"} == {"yes"}
    assert "yes" not in {
        found["level"] for found in reports["shuffled"]["capabilities"] if found["name"].startswith(("steers", "uses"))
    }
