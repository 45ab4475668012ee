"""Training: resumed runs equal undisturbed ones, a run directory serves one job and one config, collapse and NaN are noticed."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.config import validate
from vjepa2cli.data.video import write_video
from vjepa2cli.errors import ConfigError, DependencyError, InputError, TrainingError
from vjepa2cli.ingestion import ingest
from vjepa2cli.models.encoder_v21 import EncoderV21
from vjepa2cli.models.predictor_v21 import PredictorV21
from vjepa2cli.models.weights import encoder_digest, load_encoder, load_predictor, state_digest
from vjepa2cli.settings import IngestConfig, PosttrainConfig, PretrainConfig
from vjepa2cli.train.health import at_most, content_rank, effective_rank
from vjepa2cli.train.losses import weighted_loss
from vjepa2cli.train.posttraining import PosttrainTask, posttrain
from vjepa2cli.train.pretraining import PretrainTask, pretrain
from vjepa2cli.train.process_group import choose_device
from vjepa2cli.train.run_directory import RunDirectory

PRETRAIN = {
    "step": "pretrain",
    "steps": 6,
    "batch_size": 2,
    "precision": "fp32",
    "checkpoint_every": 2,
    "evaluate_every": 3,
    "encoder": {"embed_dim": 24, "depth": 2, "num_heads": 2},
    "predictor": {"embed_dim": 24, "depth": 1, "num_heads": 2},
    "clip": {"num_frames": 4, "fps": None, "crop": 64, "static_fraction": 0.5},
    "ema": {"start": 0.9, "end": 0.9},
    "context_loss": {"weight": 0.5},
}
POSTTRAIN = {
    "step": "posttrain",
    "steps": 6,
    "batch_size": 4,
    "precision": "fp32",
    "checkpoint_every": 2,
    "evaluate_every": 3,
    "num_frames": 4,
    "rollout_fraction": 0.5,
    "change_weight": 1.0,
    "predictor": {
        "embed_dim": 24,
        "depth": 1,
        "num_heads": 2,
        "residual": True,
        "standardise_inputs": True,
        "absolute_positions": True,
    },
}


class KilledAfter:
    """A Progress that stops the run as a signal would, once so many steps are done."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def start(self, description: str, *, total: int, done: int = 0) -> None:
        pass

    def advance(self, count: int = 1, *, fields: dict[str, float] | None = None) -> None:
        self._left -= count
        if self._left == 0:
            raise KeyboardInterrupt

    def finish(self) -> None:
        pass


def _pretrain_config(**changes: object) -> PretrainConfig:
    config = validate(PRETRAIN | changes, where="test")
    assert isinstance(config, PretrainConfig)
    return config


def _posttrain_config(**changes: object) -> PosttrainConfig:
    config = validate(POSTTRAIN | changes, where="test")
    assert isinstance(config, PosttrainConfig)
    return config


def _model_bytes(run_dir: Path) -> bytes:
    return (run_dir / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("killed_after", [1, 3, 5])
def test_a_killed_pretraining_ends_as_the_undisturbed_one(noise_store: Path, tmp_path: Path, killed_after: int) -> None:
    config = _pretrain_config()
    pretrain(noise_store, tmp_path / "whole", config=config, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        pretrain(noise_store, tmp_path / "killed", config=config, device="cpu", progress=KilledAfter(killed_after))
    assert not (tmp_path / "killed" / "report.json").exists()
    pretrain(noise_store, tmp_path / "killed", config=config, device="cpu")
    assert _model_bytes(tmp_path / "whole") == _model_bytes(tmp_path / "killed")
    whole, killed = (read_report(tmp_path / name / "report.json", "pretrain") for name in ("whole", "killed"))
    assert whole["digest"] == killed["digest"]


def test_a_checkpoint_is_a_source_of_weights_as_the_model_is(noise_store: Path, tmp_path: Path) -> None:
    config = _pretrain_config(keep_checkpoints=9)
    pretrain(noise_store, tmp_path, config=config, device="cpu")
    first, *_, last = sorted((tmp_path / "checkpoints").glob("step_*"))
    assert encoder_digest(load_encoder(last)) == encoder_digest(load_encoder(tmp_path)) != encoder_digest(load_encoder(first))
    assert load_encoder(first).spec == load_encoder(tmp_path).spec
    assert state_digest(load_predictor(last)) == state_digest(load_predictor(tmp_path))


def test_a_killed_posttraining_ends_as_the_undisturbed_one(noise_latents: Path, tmp_path: Path) -> None:
    config = _posttrain_config()
    posttrain(noise_latents, tmp_path / "whole", config=config, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        posttrain(noise_latents, tmp_path / "killed", config=config, device="cpu", progress=KilledAfter(5))
    posttrain(noise_latents, tmp_path / "killed", config=config, device="cpu")
    assert _model_bytes(tmp_path / "whole") == _model_bytes(tmp_path / "killed")


V21: dict[str, Any] = {
    "steps": 30,
    "evaluate_every": 30,
    "checkpoint_every": 30,
    "encoder": {"architecture": "vjepa2.1", "embed_dim": 24, "depth": 4, "num_heads": 2},
    "predictor": {"embed_dim": 24, "depth": 2, "num_heads": 2, "levels": 4, "num_mask_tokens": 3},
    "beside": [{"batch_size": 4, "clip": {"media": "image", "num_frames": 1, "crop": 64}, "masks": [{"num_blocks": 4}]}],
    "context_loss": {"weight": 0.5, "by_distance": True, "rises_from": 5, "rises_to": 10},
    "optimizer": {"lr": 3e-3},
    "masking": {"rows_per_draw": 1},
}
"""The 2.1 recipe at its smallest: videos and twice as many images, four levels, a context loss that comes in."""


@pytest.fixture(scope="module")
def mixed_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos and four images, each a few blocks of colour."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(2)
    for name, num_frames in [*((f"video{i}", 10) for i in range(4)), *((f"image{i}", 1) for i in range(4))]:
        blocks = rng.integers(0, 255, (1, 2, 2, 3), dtype=np.uint8).repeat(num_frames, 0)
        write_video(folder / f"{name}.mp4", blocks.repeat(32, 1).repeat(40, 2), fps=4)
    ingest([folder], folder / "v.zarr", config=IngestConfig(short_side=64, min_frames=1, val_fraction=0.25), workers=0)
    return folder / "v.zarr"


def test_the_recipe_of_2_1_learns_and_leaves_a_model_of_its_kind(mixed_store: Path, tmp_path: Path) -> None:
    report = read_report(pretrain(mixed_store, tmp_path, config=_pretrain_config(**V21), device="cpu"), "pretrain")
    before, after = (evaluation["loss"] for evaluation in report["evaluations"])
    assert after < 0.9 * before
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ["context_loss" in row for row in rows if "lr" in row] == [False] * 6 + [True] * 24
    encoder = load_encoder(tmp_path)
    assert isinstance(encoder, EncoderV21)
    assert state_digest(encoder) == report["encoder"]["digest"]
    assert isinstance(load_predictor(tmp_path), PredictorV21)


@pytest.mark.parametrize("media", ["image", "video"])
def test_each_kind_of_clip_is_cut_from_its_media(mixed_store: Path, media: str) -> None:
    beside = [{"batch_size": 2, "clip": {"media": media, "num_frames": 2, "crop": 64, "fps": None}}]
    changes = V21 | {"beside": beside, "clip": {"media": media, "num_frames": 4, "crop": 64, "fps": None}}
    task = PretrainTask(VideoStore.open(mixed_store), _pretrain_config(**changes), device=choose_device("cpu"))
    batch = task.batch(3, rows=range(2))
    assert len(batch.ids) == 4
    assert all(name.startswith(media) for name in batch.ids)
    still = [torch.equal(part.clips[:, :, :1].expand_as(part.clips), part.clips) for part in batch.inputs]
    assert all(still) is (media == "image")


def test_a_store_without_what_is_asked_for_is_refused(noise_store: Path) -> None:
    with pytest.raises(InputError, match="image"):
        PretrainTask(VideoStore.open(noise_store), _pretrain_config(**V21), device=choose_device("cpu"))


def test_rows_of_every_kind_are_the_same_whoever_asks_for_them(mixed_store: Path) -> None:
    config = _pretrain_config(**V21, batch_size=4)
    task = PretrainTask(VideoStore.open(mixed_store), config, device=choose_device("cpu"))
    whole, halves = task.batch(2, rows=range(4)), [task.batch(2, rows=rows) for rows in (range(1), range(1, 4))]
    parts = [part for half in halves for part in half.inputs]
    for index in (0, 1):
        one, others = ([part for part in found if part.group == index] for found in (whole.inputs, parts))
        assert torch.equal(torch.cat([part.clips for part in one]), torch.cat([part.clips for part in others]))
        drawn = ([ids.target_ids.tolist() for part in found for ids in part.families] for found in (one, others))
        assert next(drawn) == next(drawn)
    assert sorted(whole.ids) == sorted(name for half in halves for name in half.ids)
    beside = V21["beside"][0] | {"batch_size": 3}
    uneven = _pretrain_config(**V21 | {"beside": [beside]}, batch_size=4)
    task = PretrainTask(VideoStore.open(mixed_store), uneven, device=choose_device("cpu"))
    with pytest.raises(ConfigError, match="cannot be shared out"):
        task.batch(1, rows=range(2))


COOLDOWN: dict[str, Any] = {"clip": {"num_frames": 8, "fps": None, "crop": 96}, "continues": True, "steps": 2, "seed": 1}


@pytest.mark.parametrize("tree", [{}, {key: V21[key] for key in ("encoder", "predictor")}], ids=["2", "2.1"])
def test_a_cooldown_takes_up_the_networks_of_a_model_at_another_resolution_and_length(
    noise_store: Path, tmp_path: Path, tree: dict[str, Any]
) -> None:
    pretrain(noise_store, tmp_path / "first", config=_pretrain_config(**tree), device="cpu")
    config = _pretrain_config(**tree | COOLDOWN)
    task = PretrainTask(VideoStore.open(noise_store), config, device=choose_device("cpu"))
    initial = task.begin_from(str(tmp_path / "first" / "model"))
    assert (initial.trained_steps, initial.checkpoint) == (6, None)
    assert state_digest(task.module.encoder) == state_digest(task.module.target_encoder) == _digest_of(tmp_path / "first")
    assert state_digest(task.module.predictor) == state_digest(load_predictor(tmp_path / "first"))
    pretrain(noise_store, tmp_path / "second", config=config, init_from=str(tmp_path / "first" / "model"), device="cpu")
    about = json.loads((tmp_path / "second" / "model" / "config.json").read_text())["vjepa2cli"]
    assert (about["trained_steps"], about["spec"]["crop"], about["spec"]["num_frames"]) == (8, 96, 8)


def test_a_run_that_goes_on_with_another_is_the_undisturbed_one(noise_store: Path, tmp_path: Path) -> None:
    pretrain(noise_store, tmp_path / "whole", config=_pretrain_config(), device="cpu")
    pretrain(noise_store, tmp_path / "first", config=_pretrain_config(steps=4), device="cpu")
    rest = _pretrain_config(steps=2, continues=True)
    pretrain(noise_store, tmp_path / "rest", config=rest, init_from=str(tmp_path / "first"), device="cpu")
    assert _model_bytes(tmp_path / "rest") == _model_bytes(tmp_path / "whole")
    replayed = _pretrain_config(steps=2, continues=True, released_quirks={"replayed_draws": True})
    pretrain(noise_store, tmp_path / "replayed", config=replayed, init_from=str(tmp_path / "first"), device="cpu")
    assert _model_bytes(tmp_path / "replayed") != _model_bytes(tmp_path / "whole")


def test_a_run_that_goes_on_with_another_takes_its_own_rate_and_decay(noise_store: Path, tmp_path: Path) -> None:
    pretrain(noise_store, tmp_path / "first", config=_pretrain_config(steps=2), device="cpu")
    before = load_predictor(tmp_path / "first").predictor_embed.bias
    config = _pretrain_config(steps=1, optimizer={"lr": 1e-9, "weight_decay": 0.0})
    pretrain(noise_store, tmp_path / "second", config=config, init_from=str(tmp_path / "first"), device="cpu")
    torch.testing.assert_close(load_predictor(tmp_path / "second").predictor_embed.bias, before, rtol=0, atol=1e-7)


def test_a_replayed_run_begins_again_at_the_first_clips_and_masks(noise_store: Path, tmp_path: Path) -> None:
    pretrain(noise_store, tmp_path / "first", config=_pretrain_config(), device="cpu")

    def first_draw(replayed: bool, *, continued: bool = True) -> tuple[tuple[str, ...], list[int]]:
        config = _pretrain_config(released_quirks={"replayed_draws": replayed})
        task = PretrainTask(VideoStore.open(noise_store), config, device=choose_device("cpu"))
        if continued:
            task.begin_from(str(tmp_path / "first"))
        batch = task.batch(1, rows=range(2))
        return batch.ids, batch.inputs[0].families[0].context_ids.flatten().tolist()

    assert first_draw(replayed=True) == first_draw(replayed=False, continued=False)
    assert first_draw(replayed=False) != first_draw(replayed=True)


def test_another_network_than_the_config_describes_is_refused(noise_store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--init-from"):
        pretrain(noise_store, tmp_path / "none", config=_pretrain_config(continues=True), device="cpu")
    pretrain(noise_store, tmp_path / "first", config=_pretrain_config(steps=0), device="cpu")
    for source in (tmp_path / "first", tmp_path / "first" / "model"):
        deeper = _pretrain_config(encoder={"embed_dim": 24, "depth": 4, "num_heads": 2})
        with pytest.raises(ConfigError, match="its encoder has depth 2, the config says 4"):
            pretrain(noise_store, tmp_path / "second", config=deeper, init_from=str(source), device="cpu")
        other = _pretrain_config(encoder=V21["encoder"])
        with pytest.raises(ConfigError, match=r"encoder\.architecture"):
            pretrain(noise_store, tmp_path / "second", config=other, init_from=str(source), device="cpu")
    assert not (tmp_path / "second").exists()


def test_threads_that_make_batches_change_no_byte(mixed_store: Path, tmp_path: Path) -> None:
    config = _pretrain_config(**V21 | {"steps": 4}, batch_size=4, micro_batch_size=2)
    for threads in (0, 3):
        pretrain(mixed_store, tmp_path / str(threads), config=config, device="cpu", threads=threads)
    assert _model_bytes(tmp_path / "0") == _model_bytes(tmp_path / "3")
    rows = [json.loads(line) for line in (tmp_path / "3" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["waited"] <= row["seconds"] for row in rows if "seconds" in row)


def test_a_long_clip_tells_of_collapse_by_some_of_its_positions() -> None:
    tokens = torch.arange(2 * 1100).view(2, 1100, 1)
    few = at_most(512, tokens)
    assert few.shape == (2, 367, 1)
    assert set(few[0].diff(dim=0).flatten().tolist()) == {3}
    assert torch.equal(few[1] - few[0], torch.full((367, 1), 1100))
    assert torch.equal(at_most(1100, tokens), tokens)


def test_zero_steps_publish_the_untrained_encoder(noise_store: Path, tmp_path: Path) -> None:
    pretrain(noise_store, tmp_path / "none", config=_pretrain_config(steps=0), device="cpu")
    about = json.loads((tmp_path / "none" / "model" / "config.json").read_text())["vjepa2cli"]
    assert about["trained_steps"] == 0
    task = PretrainTask(VideoStore.open(noise_store), _pretrain_config(), device=choose_device("cpu"))
    assert about["digest"] == _digest(task)


def test_a_rate_that_a_whole_stride_cannot_give_is_said(
    noise_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = _pretrain_config(steps=0, clip=PRETRAIN["clip"] | {"fps": 3.0})
    pretrain(noise_store, tmp_path / "run", config=config, device="cpu")
    (said,) = [record.message for record in caplog.records if "clip.fps" in record.message]
    assert said.startswith("clip.fps: 3: every nth stored frame is taken, which is 4 a second in 2 of 2 videos")


def _digest_of(source: Path) -> str:
    return state_digest(load_encoder(source))


def _digest(task: PretrainTask) -> str:
    return state_digest(task.module.encoder)


def test_metrics_tell_each_step_once_after_a_resume(noise_latents: Path, tmp_path: Path) -> None:
    config = _posttrain_config()
    with pytest.raises(KeyboardInterrupt):
        posttrain(noise_latents, tmp_path, config=config, device="cpu", progress=KilledAfter(3))
    posttrain(noise_latents, tmp_path, config=config, device="cpu")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "eval" in row] == [0, 2, 3, 4, 6]  # and before checkpoints


def test_another_config_or_other_data_is_refused_with_the_first_difference(
    noise_latents: Path, noise_store: Path, tmp_path: Path
) -> None:
    posttrain(noise_latents, tmp_path, config=_posttrain_config(), device="cpu")
    with pytest.raises(ConfigError, match=r"batch_size: 4 -> 2"):
        posttrain(noise_latents, tmp_path, config=_posttrain_config(batch_size=2), device="cpu")
    with pytest.raises(ConfigError, match="other data"):
        RunDirectory(tmp_path, config=_posttrain_config(), provenance={"inputs": {"latents": "changed"}}, leader=True)


def test_a_run_directory_serves_one_process_at_a_time(tmp_path: Path) -> None:
    first = RunDirectory(tmp_path, config=_posttrain_config(), provenance={"inputs": {}}, leader=True)
    with pytest.raises(TrainingError, match="another process"):
        RunDirectory(tmp_path, config=_posttrain_config(), provenance={"inputs": {}}, leader=True)
    first.close()
    RunDirectory(tmp_path, config=_posttrain_config(), provenance={"inputs": {}}, leader=True).close()


def test_a_loss_that_is_not_finite_stops_before_the_update(noise_latents: Path, tmp_path: Path) -> None:
    config = _posttrain_config(optimizer={"lr": 1e30}, steps=50)
    with pytest.raises(TrainingError, match=r"step \d: the loss is .*; there is no checkpoint to go back to"):
        posttrain(noise_latents, tmp_path, config=config, device="cpu")


@pytest.mark.parametrize("change_weight", [0.0, 3.0])
def test_the_gradient_of_parts_is_that_of_the_whole_batch(noise_latents: Path, change_weight: float) -> None:
    config = _posttrain_config(rollout_fraction=1.0, change_weight=change_weight)
    task = PosttrainTask(LatentStore.open(noise_latents), config, device=choose_device("cpu"))
    gradients = []
    for cuts in ([range(4)], [range(1), range(1, 4)]):
        parts = [task.batch(1, rows=rows).inputs for rows in cuts]
        counts = torch.stack([task.module.counts(part) for part in parts]).sum(dim=0)
        task.module.zero_grad()
        for part in parts:
            weighted_loss(task.module(part), counts, task.module.terms).backward()
        gradients.append(task.module.predictor.predictor_proj.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)


def test_tokens_weigh_one_plus_their_change_over_the_mean_change(noise_latents: Path) -> None:
    task = PosttrainTask(
        LatentStore.open(noise_latents), _posttrain_config(rollout_fraction=0.0, change_weight=3.0), device=torch.device("cpu")
    )
    inputs = task.batch(1, rows=range(4)).inputs
    windows = inputs[0].to(task.module.device)
    truth = windows.latents
    with torch.no_grad():
        error = (task.module.teacher_forced(windows) - truth[:, 1:]).abs().mean(dim=-1)
    change = (truth[:, 1:] - truth[:, :-1]).abs().mean(dim=-1)
    weight = 1 + 3.0 * change / change.mean()
    assert task.module.mean_loss(inputs) == pytest.approx(float((weight * error).sum() / weight.sum()), rel=1e-5)


def test_the_target_encoder_follows_by_the_stated_momentum(noise_store: Path) -> None:
    with warnings.catch_warnings():
        task = PretrainTask(VideoStore.open(noise_store), _pretrain_config(), device=choose_device("cpu"))
    before = task.module.target_encoder.norm.weight.clone()
    with torch.no_grad():
        task.module.encoder.norm.weight.add_(1.0)
    task.after_step(1)
    torch.testing.assert_close(task.module.target_encoder.norm.weight, before + 0.1)
    assert not any(parameter.requires_grad for parameter in task.module.target_encoder.parameters())


def test_rank_counts_directions_and_ignores_what_every_sample_shares() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0]
    assert effective_rank(basis[:, :5].repeat(1, 1) @ torch.eye(5)) == pytest.approx(5.0, abs=1e-6)
    collapsed = torch.randn(1, 9, 16, generator=generator).expand(40, -1, -1) + 1e-3 * torch.randn(40, 1, 1, generator=generator)
    assert effective_rank(collapsed.flatten(0, 1)) > 5
    assert content_rank(collapsed) == pytest.approx(1.0, abs=0.05)


def test_tensorboard_shows_what_the_metrics_hold_also_after_a_resume(noise_latents: Path, tmp_path: Path) -> None:
    config = _posttrain_config(tensorboard=True)
    with pytest.raises(KeyboardInterrupt):
        posttrain(noise_latents, tmp_path, config=config, device="cpu", progress=KilledAfter(3))
    posttrain(noise_latents, tmp_path, config=config, device="cpu")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert {event.step: event.value for event in events.Scalars("train/loss")} == pytest.approx(losses)
    assert [event.step for event in events.Scalars("eval/rollout")] == [0, 2, 3, 4, 6]


def test_tensorboard_that_is_not_installed_is_named_before_anything_is_made(
    noise_latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DependencyError, match=r"vjepa2cli\[tensorboard\]"):
        posttrain(noise_latents, tmp_path / "run", config=_posttrain_config(tensorboard=True), device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage", [0, 2])
def test_weights_moments_and_target_are_float32_under_bf16_and_the_target_moves_by_less_than_bf16_can_tell(
    noise_store: Path, tmp_path: Path, stage: int
) -> None:
    config = _pretrain_config(
        precision="bf16", zero_stage=stage, steps=1, ema={"start": 0.99925, "end": 0.99925}, optimizer={"lr": 1e-4}
    )
    untrained = PretrainTask(VideoStore.open(noise_store), config, device=choose_device("cpu")).module.target_encoder
    pretrain(noise_store, tmp_path, config=config, device="cpu")
    checkpoint = tmp_path / "checkpoints" / "step_00000001"
    weights = torch.load(checkpoint / "module.pt", weights_only=True)
    weights.pop("__run__")
    moments = torch.load(checkpoint / "optimizer_00000.pt", weights_only=True)["pieces"].values()
    assert {tensor.dtype for tensor in [*weights.values(), *(m for piece in moments for m in piece[1:])]} == {torch.float32}
    before = untrained.blocks[0].attn.qkv.weight.detach()
    moved = (weights["target_encoder.blocks.0.attn.qkv.weight"] - before).abs()
    assert 0 < moved.max() < before.abs().median() * torch.finfo(torch.bfloat16).eps / 2


@pytest.mark.parametrize(("changes", "says"), [({}, "zero_stage 1 or 2"), ({"zero_stage": 1}, "--device cpu has it anyway")])
def test_an_optimizer_state_that_is_on_the_cpu_is_not_moved_there(
    noise_latents: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        posttrain(noise_latents, tmp_path / "run", config=_posttrain_config(offload_optimizer=True, **changes), device="cpu")
    assert not (tmp_path / "run").exists()
