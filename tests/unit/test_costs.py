"""What a config costs by its numbers, beside what networks of those numbers have and do."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vjepa2cli.config import validate
from vjepa2cli.data.mask_batches import MaskBatches
from vjepa2cli.registry import RELEASED
from vjepa2cli.settings import PretrainConfig
from vjepa2cli.train.costs import Costs, compute_costs
from vjepa2cli.train.losses import weighted_loss
from vjepa2cli.train.networks import build_encoder, build_predictor, clip_grid
from vjepa2cli.train.objective import MaskedClips, PretrainModule, family_losses

SMALL: dict[str, Any] = {
    "step": "pretrain",
    "batch_size": 2,
    "encoder": {"embed_dim": 192, "depth": 4, "num_heads": 3},
    "predictor": {"embed_dim": 96, "depth": 2, "num_heads": 3},
    "clip": {"num_frames": 8, "crop": 96},
    "masking": {"kept": "fixed"},
}
SMALL_V21: dict[str, Any] = SMALL | {
    "encoder": SMALL["encoder"] | {"architecture": "vjepa2.1"},
    "predictor": SMALL["predictor"] | {"levels": 4, "num_mask_tokens": 3},
    "context_loss": {"weight": 0.5},
    "beside": [{"batch_size": 4, "clip": {"num_frames": 1, "crop": 96}, "masks": [{"num_blocks": 10}]}],
}


def _costs(tree: dict[str, Any], **changes: object) -> Costs:
    config = validate(tree | changes, where="test")
    assert isinstance(config, PretrainConfig)
    return compute_costs(config)


def _numbers(tree: dict[str, Any], **changes: object) -> Costs:
    """The costs that no mask plays a part in."""
    config = validate(tree | changes, where="test")
    assert isinstance(config, PretrainConfig)
    return Costs(config, ())


def _module(config: PretrainConfig) -> PretrainModule:
    generator = torch.Generator().manual_seed(0)
    networks = build_encoder(config, generator=generator), build_predictor(config, generator=generator)
    return PretrainModule(*networks, losses=family_losses(config), by_distance=False, precision=config.precision)


def _inputs(config: PretrainConfig) -> list[MaskedClips]:
    parts = []
    for index, group in enumerate(config.groups):
        masks = MaskBatches(
            clip_grid(config, index), group.masks, batch_size=group.batch_size, seed=0, group=index, kept=config.masking.kept
        )
        clips = torch.zeros(group.batch_size, 3, group.clip.num_frames, group.clip.crop, group.clip.crop)
        parts.append(MaskedClips(clips, masks.draws(1, rows=range(group.batch_size))[0][1], index))
    return parts


@pytest.mark.parametrize("name", [row.name for row in RELEASED.values() if row.family in ("2", "2.1") and row.size != "base"])
def test_parameters_are_those_of_the_released_models(name: str) -> None:
    row = RELEASED[name]
    assert row.predictor is not None
    v21 = row.family == "2.1"
    distilled = row.checkpoint_key == "ema_encoder"
    costs = _numbers(
        SMALL,
        encoder={"size": row.size, "architecture": "vjepa2.1" if v21 else "vjepa2"},
        predictor={
            "embed_dim": row.predictor.embed_dim,
            "depth": row.predictor.depth,
            "num_heads": row.predictor.num_heads,
            "num_mask_tokens": row.predictor.num_mask_tokens,
            "levels": 4 if v21 and not distilled else 1,
        },
    )
    assert costs.encoder_parameters == row.encoder_parameters
    if not distilled:  # whose predictor ends at the width of its teacher
        assert costs.predictor_parameters == row.predictor.parameters


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("tree", [SMALL, SMALL_V21], ids=["2", "2.1"])
def test_operations_are_those_that_a_step_makes(tree: dict[str, Any], checkpointing: bool) -> None:
    networks = {name: tree[name] | {"activation_checkpointing": checkpointing} for name in ("encoder", "predictor")}
    costs = _costs(tree, **networks)
    module, inputs = _module(costs.config), _inputs(costs.config)
    with FlopCounterMode(display=False) as counted:
        weighted_loss(module(inputs), module.counts(inputs), module.terms).backward()
    assert costs.flops_per_step == pytest.approx(counted.get_total_flops(), rel=0.1)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("tree", [SMALL, SMALL_V21], ids=["2", "2.1"])
def test_activations_are_the_clips_and_what_a_forward_pass_keeps(tree: dict[str, Any], checkpointing: bool) -> None:
    networks = {name: tree[name] | {"activation_checkpointing": checkpointing} for name in ("encoder", "predictor")}
    costs = _costs(tree, precision="fp32", **networks)
    module, inputs = _module(costs.config), _inputs(costs.config)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        held.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(inputs)
    kept = sum(tensor.untyped_storage().nbytes() for place, tensor in held.items() if place not in parameters)
    kept += sum(part.clips.nbytes for part in inputs)
    recomputed = max(group.clips * costs._recomputed_bytes(group) for group in costs.groups)
    assert costs.activation_bytes(1) - recomputed == pytest.approx(kept, rel=0.15)


def test_activations_are_those_of_the_rows_that_a_process_holds_at_once() -> None:
    whole = _costs(SMALL, batch_size=8)
    assert whole.activation_bytes(4) == pytest.approx(whole.activation_bytes(1) / 4)
    assert _costs(SMALL, batch_size=8, micro_batch_size=1).activation_bytes(4) == pytest.approx(whole.activation_bytes(8))


def test_tokens_are_those_of_every_kind_of_clip() -> None:
    costs = _costs(SMALL_V21)
    assert costs.tokens_per_step == 2 * 4 * 36 + 4 * 36
    inputs = _inputs(costs.config)
    drawn = sum(ids.context_ids.numel() for part in inputs for ids in part.families)
    assert costs.context_tokens_per_step == pytest.approx(drawn)


def test_seconds_of_video_are_known_where_the_rate_is() -> None:
    assert _costs(SMALL_V21, clip={"num_frames": 8, "crop": 96, "fps": 4.0}).seconds_of_video_per_step == 4.0
    assert _costs(SMALL, clip={"num_frames": 8, "crop": 96, "fps": None}).seconds_of_video_per_step is None


def test_zero_divides_what_it_says_it_divides() -> None:
    whole, moments, gradients = (_numbers(SMALL, zero_stage=stage, precision="fp32").state_bytes(4) for stage in (0, 1, 2))
    costs = _numbers(SMALL)
    trained = costs.encoder_parameters + costs.predictor_parameters
    assert whole == 16 * trained + 4 * costs.encoder_parameters
    assert whole - moments == pytest.approx(8 * trained * 3 / 4 - trained)
    assert moments - gradients == pytest.approx(3 * trained)
