"""Validation tells a model that uses actions from one that does not, and reads only latents of its own encoder."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from vjepa2cli.artifacts import latent_store
from vjepa2cli.artifacts.latent_store import LatentHeader, LatentStore
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.errors import ArtifactError, InputError, PlanningError
from vjepa2cli.models.weights import encoder_digest, load_encoder
from vjepa2cli.planning.validation import (
    clustered_interval,
    describe_step,
    held_out_windows,
    inversion_summary,
    prediction_errors,
    uses_actions,
    validate,
    verdict,
)
from vjepa2cli.settings import CemConfig, ValidateConfig

CONFIG = ValidateConfig(
    horizon=3, max_windows=20, num_inversions=3, cem=CemConfig(samples=16, iterations=2, elites=4, plan_gripper=False)
)


def write_store(path: Path, *, digest: str, splits: tuple[str, ...] = ("train", "val", "val", "val"), steps: int = 10) -> Path:
    """Trajectories whose latents, [4 tokens, 24], are their positions seen through a fixed matrix."""
    header = LatentHeader(
        encoder_source="encoder",
        encoder_digest=digest,
        layer_norm=True,
        grid=(1, 2, 2),
        embed_dim=24,
        rate=4.0,
        robot="tabletop",
        preprocessing={"crop": 32, "geometry": "centre"},
        provenance={},
    )
    rng = np.random.default_rng(0)
    look = rng.normal(size=(3, 4 * 24))
    with latent_store.create(path, header, lengths=[steps] * len(splits), dtype="float32", dims=(7, 7)) as writer:
        for index in range(len(splits)):
            actions = np.zeros((steps - 1, 7), np.float32)
            actions[:, :3] = rng.uniform(-0.05, 0.05, (steps - 1, 3))
            states = np.concatenate([np.zeros((1, 7), np.float32), actions.cumsum(0)]) + 0.3
            writer.write(index, (states[:, :3] @ look).reshape(steps, 4, 24), states=states, actions=actions)
        writer.name_episodes([f"e{index}" for index in range(len(splits))], list(splits))
    return path


class LinearWorld:
    """Knows the fixed matrix; `use` is the share of an action that it believes in."""

    device = torch.device("cpu")
    ac = SimpleNamespace(spec=SimpleNamespace(action_dim=7, state_dim=7))

    def __init__(self, use: float) -> None:
        self._look = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 4 * 24))).float()
        self._use = use

    def rollout(self, latents: Tensor, states: Tensor, actions: Tensor) -> Tensor:
        change = self._use * actions[..., :3].cumsum(1) @ self._look
        return latents + change.unflatten(-1, (4, 24))


@pytest.mark.parametrize(
    ("use", "beats", "sentence"),
    [
        (1.0, True, "The model uses actions (true actions beat shuffled ones in 9 of 9 windows) and beats copying"),
        (0.0, False, "does not beat copying the last frame"),
        (-1.0, False, "and does not use actions"),
        (3.0, True, "The model uses actions (true actions beat shuffled ones in 9 of 9 windows), but does not beat copying"),
    ],
)
def test_verdict_tells_worlds_apart(tmp_path: Path, use: float, beats: bool, sentence: str):
    store = LatentStore.open(write_store(tmp_path / "latents.h5", digest="d"))
    windows = held_out_windows(store, CONFIG)
    errors = prediction_errors(LinearWorld(use), windows)  # type: ignore[arg-type]
    step = describe_step(errors, 0, episodes=windows.episodes, seed=0)
    assert step["error"]["model"] == pytest.approx(abs(use - 1) * step["error"]["copy"], abs=1e-6)
    assert sentence in verdict(step)
    assert uses_actions(step) == beats


def test_windows_lie_in_the_split_and_do_not_overlap(tmp_path: Path):
    store = LatentStore.open(write_store(tmp_path / "latents.h5", digest="d"))
    windows = held_out_windows(store, CONFIG)
    assert windows.episodes.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert torch.equal(windows.latents[1], torch.from_numpy(store.tokens(1, 3, 7)))
    assert torch.equal(windows.actions[1], torch.from_numpy(store.actions(1)[3:6]))
    assert torch.equal(windows.states[1], torch.from_numpy(store.states(1)[3]))
    few = held_out_windows(store, CONFIG.model_copy(update={"max_windows": 4}))
    assert len(few.episodes) == 4
    with pytest.raises(InputError, match="0 windows of 13 steps in 3 episodes"):
        held_out_windows(store, CONFIG.model_copy(update={"horizon": 12}))


def test_shuffled_actions_are_never_the_window_s_own(tmp_path: Path):
    """A world that knows everything errs with every shuffled window, also where there are only two."""
    store = LatentStore.open(write_store(tmp_path / "latents.h5", digest="d"))
    for count in (2, 3, 9):
        errors = prediction_errors(
            LinearWorld(1.0),  # type: ignore[arg-type]
            held_out_windows(store, CONFIG.model_copy(update={"max_windows": count})),
        )
        assert errors["model"].max() < 1e-6 < errors["shuffled"].min()


def test_interval_by_groups_is_wider_than_by_values():
    """Values that are the same within a group count once."""
    rng = np.random.default_rng(3)
    values = np.repeat(rng.normal(size=12), 20)
    wide = clustered_interval(values, np.repeat(np.arange(12), 20), key=[0])
    narrow = clustered_interval(values, np.arange(240), key=[0])
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]
    ratio = (wide[1] - wide[0]) / (narrow[1] - narrow[0])
    assert ratio == pytest.approx(np.sqrt(20), rel=0.25)
    assert clustered_interval(values, np.zeros(240, int), key=[0]) == narrow


def test_inversion_summary_of_known_answers():
    true = np.array([[0.03, 0.0, 0.0], [0.0, -0.04, 0.0], [0.0, 0.0, 0.1], [0.001, 0.0, 0.0]])
    found = np.array([[0.03, 0.0, 0.0], [0.0, 0.04, 0.0], [0.0, 0.0, 0.05], [0.0, 0.0, 0.0]])
    summary = inversion_summary(true, found, limit=0.075)
    assert summary["error_m"]["mean"] == pytest.approx((0 + 0.08 + 0.05 + 0.001) / 4)
    assert summary["magnitude_m"] == pytest.approx((0.03 + 0.04 + 0.1 + 0.001) / 4)
    assert summary["cosine"] == {"mean": pytest.approx(1 / 3), "count": 3}
    assert summary["outside_box"] == 1
    assert summary["correlation"]["y"] == pytest.approx(-1.0)


def test_report_is_a_function_of_latents_model_and_config(tiny_world_model, tiny_encoder: Path, tmp_path: Path):
    latents = write_store(tmp_path / "latents.h5", digest=encoder_digest(load_encoder(tiny_encoder)))
    model = tiny_world_model()
    report = read_report(validate(latents, tmp_path / "a.json", model=model, config=CONFIG), "validation")
    again = read_report(validate(latents, tmp_path / "b.json", model=model, config=CONFIG), "validation")
    assert report["digest"] == again["digest"]
    assert [step["steps"] for step in report["prediction"]] == [1, 2, 3]
    assert report["num_windows"] == 9
    assert len(report["inversion"]["pairs"]) == 3
    for pair in report["inversion"]["pairs"]:
        assert np.abs(pair["found"]).max() <= CONFIG.cem.max_translation
    # Random weights know nothing, and the report must not claim that they do.
    assert not report["beats_copy"]
    assert "does not beat copying" in report["verdict"]
    bare = CONFIG.model_copy(update={"num_inversions": 0})
    assert read_report(validate(latents, tmp_path / "c.json", model=model, config=bare))["inversion"] is None


def test_latents_of_another_encoder_and_untrained_models_are_refused(tiny_world_model, tiny_encoder: Path, tmp_path: Path):
    foreign = write_store(tmp_path / "foreign.h5", digest="0" * 64)
    with pytest.raises(ArtifactError, match="run 'vjepa2 precompute' with that encoder"):
        validate(foreign, tmp_path / "a.json", model=tiny_world_model(), config=CONFIG)
    with pytest.raises(PlanningError, match="nobody trained"):
        validate(foreign, tmp_path / "a.json", model=tiny_world_model(trained_steps=0), config=CONFIG)
    with pytest.raises(ArtifactError, match="no such latent store"):
        validate(tmp_path / "absent.h5", tmp_path / "a.json", model=tiny_world_model(), config=CONFIG)
    assert not (tmp_path / "a.json").exists()
