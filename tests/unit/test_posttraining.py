"""Post-training: the rollout loss is the published one, trained weights are gone on with, and any robot's numbers will do."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from vjepa2cli.artifacts.latent_store import Episode, LatentHeader, LatentStore, Layout, open_writer
from vjepa2cli.config import validate
from vjepa2cli.data.windows import Windows
from vjepa2cli.errors import ArtifactError, ConfigError, InputError
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.weights import load_ac_predictor
from vjepa2cli.models.world_model import rollout
from vjepa2cli.settings import PosttrainConfig
from vjepa2cli.train.ac_objective import PosttrainModule
from vjepa2cli.train.posttraining import PosttrainTask, posttrain

HEADER = LatentHeader("model", "digest", True, (1, 2, 2), 8, 4.0, "arm", {"crop": 32, "geometry": "centre"}, {})
SPEC = AcPredictorSpec(latent_dim=8, embed_dim=24, depth=2, num_heads=2)


def config(**changes: Any) -> PosttrainConfig:
    tree = {"step": "posttrain", "steps": 3, "batch_size": 4, "precision": "fp32", "num_frames": 4, "evaluate_every": 3}
    tree["predictor"] = {"embed_dim": 24, "depth": 2, "num_heads": 2} | changes.pop("predictor", {})
    made = validate(tree | changes, where="test")
    assert isinstance(made, PosttrainConfig)
    return made


def write_latents(
    path: Path,
    *,
    width: int = 7,
    extrinsics: bool = False,
    splits: str = "ttv",
    dtype: str = "float16",
    views: int = 1,
    **header: Any,
) -> Path:
    """Episodes of nine steps of noise, of a robot with so many numbers."""
    rng = np.random.default_rng(2)
    episodes = []
    for number, split in enumerate(splits):
        states = (0.01 * rng.normal(size=(9, width)).cumsum(axis=0)).astype("f4")
        camera = rng.normal(size=(9, 6)).astype("f4") if extrinsics else None
        episodes.append(Episode(f"e{number}", {"t": "train", "v": "val"}[split], states, np.diff(states, axis=0), camera))
    layout = Layout(replace(HEADER, **header), episodes, dtype, views)
    with open_writer(path, layout) as writer:
        for index in writer.left:
            for view in range(layout.views_of(index)):
                writer.write(index, F.layer_norm(torch.from_numpy(rng.normal(size=(9, 4, 8))).float(), (8,)), view=view)
            writer.finish(index)
    return path


def predictor(**changes: Any) -> AcPredictor:
    return AcPredictor(replace(SPEC, **changes), generator=torch.Generator().manual_seed(3))


def windows(frames: int = 6, *, extrinsics: bool = False) -> Windows:
    generator = torch.Generator().manual_seed(5)
    latents = F.layer_norm(torch.randn(2, frames, 4, 8, generator=generator), (8,))
    states, actions = (torch.randn(2, count, 7, generator=generator) for count in (frames, frames - 1))
    return Windows(latents, states, actions, torch.randn(2, frames, 6, generator=generator) if extrinsics else None)


def published(ac: AcPredictor, given: Windows, *, steps: int, first_slot: int) -> tuple[Tensor, Tensor]:
    """The loss of section 3 by its formula: teacher forcing, then the rollout that begins with one of its predictions."""

    def step(frames: Tensor) -> Tensor:
        count = frames.shape[1]
        return F.layer_norm(ac(frames, given.actions[:, :count], given.states[:, :count]), (8,))

    forced = step(given.latents[:, :-1])
    rolled = torch.cat([given.latents[:, :1], forced[:, first_slot : first_slot + 1]], dim=1)
    for _ in range(1, steps):
        rolled = torch.cat([rolled, step(rolled)[:, -1:]], dim=1)
    return (
        (forced - given.latents[:, 1:]).abs().mean(),
        (rolled[:, 1:] - given.latents[:, 1 : steps + 1]).abs().mean(),
    )


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_loss_is_the_published_one_and_with_the_quirk_the_released_one(steps: int, shifted: bool) -> None:
    given, ac = windows(), predictor()
    settings = config(num_frames=6, rollout_steps=steps, released_quirks={"shifted_rollout": shifted})
    module = PosttrainModule(ac, settings)
    forced, rolled = published(ac, given, steps=steps, first_slot=1 if shifted else 0)
    sums, counts = module((given, True)), module.counts((given, True))
    torch.testing.assert_close(sums / counts.float(), torch.stack([forced, rolled]))
    (forced + rolled).backward()
    wanted = ac.predictor_embed.weight.grad.clone()  # type: ignore[union-attr]
    ac.zero_grad()
    (module((given, True)) / counts.float()).sum().backward()
    torch.testing.assert_close(ac.predictor_embed.weight.grad, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("use_extrinsics", [False, True])
def test_a_rollout_that_keeps_no_activations_is_the_same(use_extrinsics: bool) -> None:
    given, found = windows(extrinsics=use_extrinsics), []
    for checkpointing in (False, True):
        ac = predictor(use_extrinsics=use_extrinsics)
        ac.activation_checkpointing = checkpointing
        view = None if given.extrinsics is None else given.extrinsics[:, :4]
        predicted = rollout(ac, given.latents[:, :1], given.states[:, :4], given.actions[:, :4], extrinsics=view)
        predicted.abs().sum().backward()
        found.append((predicted.detach(), ac.predictor_blocks[0].attn.qkv.weight.grad))  # type: ignore[union-attr]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_any_width_any_format_views_and_long_rollouts_train_and_publish(tmp_path: Path, dtype: str) -> None:
    latents = write_latents(tmp_path / "l.h5", width=9, dtype=dtype, views=2)
    settings = config(rollout_steps=3, batch_size=4, micro_batch_size=2, predictor={"activation_checkpointing": True})
    report = json.loads(posttrain(latents, tmp_path / "run", config=settings, device="cpu", threads=2).read_text())
    trained = load_ac_predictor(tmp_path / "run")
    assert (trained.spec.action_dim, trained.spec.state_dim) == (9, 9)
    assert report["evaluated_split"] == "val"
    assert all(np.isfinite(list(report["final"].values())))
    assert report["final"]["copy"] == report["evaluations"][0]["copy"]


def test_figures_do_not_depend_on_how_many_rows_are_held_at_once(tmp_path: Path) -> None:
    store = LatentStore.open(write_latents(tmp_path / "l.h5"))
    one, many = (PosttrainTask(store, config(micro_batch_size=rows), device=torch.device("cpu")).evaluate(0) for rows in (1, 4))
    assert one == pytest.approx(many, rel=1e-5)


def test_without_a_long_enough_held_out_episode_the_training_ones_are_judged_and_it_is_said(tmp_path: Path) -> None:
    store = LatentStore.open(write_latents(tmp_path / "l.h5", splits="tt"))
    assert PosttrainTask(store, config(), device=torch.device("cpu")).evaluated_split == "train"


def test_extrinsics_are_a_token_where_they_are_recorded(tmp_path: Path) -> None:
    asked = config(predictor={"extrinsics": True})
    with pytest.raises(InputError, match=r"predictor\.extrinsics: true, but not every recording has"):
        posttrain(write_latents(tmp_path / "without.h5"), tmp_path / "a", config=asked, device="cpu")
    posttrain(write_latents(tmp_path / "with.h5", extrinsics=True), tmp_path / "b", config=asked, device="cpu")
    trained, given = load_ac_predictor(tmp_path / "b"), windows(extrinsics=True)
    assert trained.spec.use_extrinsics
    fresh = PosttrainTask(LatentStore.open(tmp_path / "with.h5"), asked, device=torch.device("cpu")).module.predictor
    assert not torch.equal(fresh.extrinsics_encoder.weight, trained.extrinsics_encoder.weight)
    with torch.no_grad():
        outputs = [trained(given.latents, given.states, given.states, view) for view in (given.extrinsics, -given.extrinsics)]  # type: ignore[operator]
    assert not torch.allclose(*outputs)


@pytest.fixture
def trained_run(tmp_path: Path) -> Path:
    posttrain(write_latents(tmp_path / "l.h5"), tmp_path / "first", config=config(), device="cpu")
    return tmp_path / "first"


def test_training_goes_on_from_trained_weights(trained_run: Path, tmp_path: Path) -> None:
    before = load_ac_predictor(trained_run).state_dict()
    task = PosttrainTask(
        LatentStore.open(tmp_path / "l.h5"), config(seed=9), device=torch.device("cpu"), init_from=str(trained_run)
    )
    begun = task.module.predictor.state_dict()
    assert all(torch.equal(before[name], begun[name]) for name in before)
    posttrain(tmp_path / "l.h5", tmp_path / "second", config=config(seed=9), init_from=str(trained_run), device="cpu")
    about = json.loads((tmp_path / "second" / "model" / "config.json").read_text())["vjepa2cli"]
    assert about["trained_steps"] == 6
    assert about["provenance"]["initial"] == {"trained_steps": 3, "fresh": []}
    with pytest.raises(ConfigError, match="initial"):
        posttrain(tmp_path / "l.h5", tmp_path / "second", config=config(seed=9), device="cpu")


def test_another_robot_takes_the_weights_and_begins_its_own_embeddings(trained_run: Path, tmp_path: Path) -> None:
    latents = write_latents(tmp_path / "wide.h5", width=5)
    settings = config(trainable="conditioning", optimizer={"lr": 1e-2})
    posttrain(latents, tmp_path / "second", config=settings, init_from=str(trained_run), device="cpu")
    before, after = (load_file(run / "model" / "model.safetensors") for run in (trained_run, tmp_path / "second"))
    changed = {name for name in after if before[name].shape != after[name].shape or not torch.equal(before[name], after[name])}
    assert changed == {f"{part}_encoder.{kind}" for part in ("action", "state") for kind in ("weight", "bias")}
    about = json.loads((tmp_path / "second" / "model" / "config.json").read_text())["vjepa2cli"]
    assert about["provenance"]["initial"]["fresh"] == ["action_encoder", "state_encoder"]


@pytest.mark.parametrize(
    ("latents", "changes", "says"),
    [
        ({"encoder_digest": "another"}, {}, r"holds latents of the encoder model \(another\)"),
        ({"preprocessing": {"crop": 64, "geometry": "wide"}}, {}, "precompute with the same crop and geometry"),
        ({}, {"predictor": {"depth": 1}}, r"has depth 2, the config and the latents say 1; set predictor\.depth"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_a_run_directory_is_made(
    trained_run: Path, tmp_path: Path, latents: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    source = write_latents(tmp_path / "other.h5", **latents)
    with pytest.raises((ArtifactError, ConfigError), match=says):
        posttrain(source, tmp_path / "second", config=config(**changes), init_from=str(trained_run), device="cpu")
    assert not (tmp_path / "second").exists()


def test_only_embeddings_of_a_trained_predictor_are_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name it by --init-from"):
        posttrain(write_latents(tmp_path / "l.h5"), tmp_path / "run", config=config(trainable="conditioning"), device="cpu")
