"""What a post-training costs by its numbers, beside what a predictor of those numbers has and does."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from vjepa2cli.config import validate
from vjepa2cli.data.windows import Windows
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.settings import PosttrainConfig
from vjepa2cli.train.ac_costs import AcCosts, LatentShape
from vjepa2cli.train.ac_objective import PosttrainModule
from vjepa2cli.train.losses import weighted_loss

SHAPE = LatentShape(6, 6, 192, numbers=9)


def costs_of(**changes: Any) -> AcCosts:
    tree: dict[str, Any] = {"step": "posttrain", "batch_size": 4, "num_frames": 6, "precision": "fp32"}
    tree["predictor"] = {"embed_dim": 192, "depth": 4, "num_heads": 3} | changes.pop("predictor", {})
    config = validate(tree | changes, where="test")
    assert isinstance(config, PosttrainConfig)
    return AcCosts(config, SHAPE)


def module_of(costs: AcCosts) -> tuple[PosttrainModule, tuple[Windows, bool]]:
    config, chosen = costs.config, costs.config.predictor
    spec = AcPredictorSpec(
        SHAPE.width,
        chosen.embed_dim,
        chosen.depth,
        chosen.num_heads,
        action_dim=SHAPE.numbers,
        state_dim=SHAPE.numbers,
        use_extrinsics=chosen.extrinsics,
    )
    predictor = AcPredictor(spec)
    predictor.activation_checkpointing = chosen.activation_checkpointing
    batch, frames = config.batch_size, config.num_frames
    latents = torch.randn(batch, frames, SHAPE.tokens, SHAPE.width)
    rows = [torch.randn(batch, count, numbers) for count, numbers in ((frames, 9), (frames - 1, 9), (frames, 6))]
    windows = Windows(latents, rows[0], rows[1], rows[2] if chosen.extrinsics else None)
    return PosttrainModule(predictor, config), (windows, True)


@pytest.mark.parametrize("extrinsics", [False, True])
def test_parameters_are_those_of_the_network(extrinsics: bool) -> None:
    costs = costs_of(predictor={"extrinsics": extrinsics})
    predictor = module_of(costs)[0].predictor
    assert costs.parameters == sum(parameter.numel() for parameter in predictor.parameters())
    assert costs.conditioning_parameters == sum(p.numel() for part in predictor.conditioning for p in part.parameters())


def test_the_released_predictor_has_as_many_parameters_as_its_checkpoint() -> None:
    config = validate({"step": "posttrain", "predictor": {"embed_dim": 1024, "depth": 24, "num_heads": 16}}, where="test")
    assert isinstance(config, PosttrainConfig)
    assert AcCosts(config, LatentShape(16, 16, 1408)).parameters == 305_220_992


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("rollout_steps", [2, 4])
def test_operations_are_those_that_a_step_makes(checkpointing: bool, rollout_steps: int) -> None:
    costs = costs_of(rollout_steps=rollout_steps, predictor={"activation_checkpointing": checkpointing})
    module, inputs = module_of(costs)
    ops = torch.ops.aten  # which the counter does not know on a CPU
    attention = {
        ops._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        ops._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(
            g, q, k, v
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=attention) as counted:
        weighted_loss(module(inputs), module.counts(inputs), module.terms).backward()
    assert costs.flops_per_step == pytest.approx(counted.get_total_flops(), rel=0.1)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("rollout_steps", [2, 4])
def test_activations_are_what_a_forward_pass_keeps(checkpointing: bool, rollout_steps: int) -> None:
    costs = costs_of(rollout_steps=rollout_steps, predictor={"activation_checkpointing": checkpointing})
    module, inputs = module_of(costs)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        held.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(inputs)
    kept = sum(tensor.untyped_storage().nbytes() for place, tensor in held.items() if place not in parameters)
    assert costs.config.batch_size * costs._kept_bytes() == pytest.approx(kept, rel=0.15)


def test_memory_is_that_of_the_rows_held_at_once_and_zero_and_offload_share_or_move_the_state() -> None:
    whole, part = costs_of(batch_size=16), costs_of(batch_size=16, micro_batch_size=2)
    assert whole.activation_bytes(4) == pytest.approx(2 * part.activation_bytes(1))
    parameters = whole.parameters
    assert whole.state_bytes(4) == 16 * parameters
    assert costs_of(zero_stage=1).state_bytes(4) == (4 + 4 + 3) * parameters
    assert costs_of(zero_stage=2, offload_optimizer=True).state_bytes(4) == (4 + 1) * parameters
    assert costs_of(trainable="conditioning").state_bytes(1) == 4 * parameters + 12 * whole.conditioning_parameters
