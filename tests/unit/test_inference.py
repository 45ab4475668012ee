"""What is done to run fast changes no feature by more than its precision explains."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vjepa2cli.models import attention
from vjepa2cli.models.attention import attend, attend_by_head
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.encoder_v21 import EncoderV21, EncoderV21Spec
from vjepa2cli.models.inference import native_precision, prepare_for_inference
from vjepa2cli.models.layers import Linear


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def queries_keys_values(num_tokens: int = 300, *, batch: int = 2, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Laid out in memory as the qkv map of a block leaves them."""
    qkv = scale * torch.randn(batch, num_tokens, 3, 4, 80, generator=generator(0))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return q, k, v


def error(attended: Tensor, expected: Tensor) -> float:
    return float((attended.float() - expected).norm() / expected.norm())


def scrambled(module: torch.nn.Module) -> Any:
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(seed)))
    return module.eval()


@pytest.mark.parametrize("scores", [1, 5_000, 100_000, 1 << 22])
def test_attention_by_head_is_attention_however_it_is_cut(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_SCORES", max(scores, 300 * 7))
    q, k, v = queries_keys_values()
    torch.testing.assert_close(attend_by_head(q, k, v), F.scaled_dot_product_attention(q, k, v), rtol=0, atol=2e-6)
    torch.testing.assert_close(
        attend_by_head(q[:, :, :70], k, v), F.scaled_dot_product_attention(q[:, :, :70], k, v), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_rounded_scores_cost_little_beside_rounded_inputs(scale: float) -> None:
    """The fused kernel keeps scores in float32; ours rounds them, and stays within twice the error of the fused kernel."""
    q, k, v = (part.bfloat16() for part in queries_keys_values(scale=scale))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double()).float()
    rounded_inputs = error(F.scaled_dot_product_attention(*queries_keys_values(scale=scale)), exact)
    assert error(attend_by_head(q, k, v), exact) < 2 * rounded_inputs


def test_what_all_keys_share_does_not_drown_the_scores() -> None:
    q, k, v = (part.bfloat16() for part in queries_keys_values())
    shared = 60 * torch.randn(80, generator=generator(1))
    shifted = (k + shared).bfloat16()
    exact = F.scaled_dot_product_attention(q.double(), shifted.double(), v.double()).float()
    drowned = error(((q @ shifted.transpose(-1, -2)) * 80**-0.5).softmax(-1) @ v, exact)
    assert error(attend_by_head(q, shifted, v), exact) < 0.01 < 0.1 < drowned


@pytest.mark.parametrize("shape", [(2, 40, 48), (1, 48), (0, 48)])
def test_a_fused_linear_map_is_the_map_of_torch(shape: tuple[int, ...]) -> None:
    linear = prepare_for_inference(Linear(48, 96), device="cpu", precision="bf16")
    x = torch.randn(shape, generator=generator(0))
    plain = F.linear(x.bfloat16(), linear.weight, linear.bias)
    with torch.inference_mode():
        torch.testing.assert_close(linear(x), plain)
        torch.testing.assert_close(linear.then_gelu(x), F.gelu(plain.float()).bfloat16(), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("num_tokens", [40, 300])
def test_attention_is_the_same_by_every_way_that_a_cpu_takes(
    tiles: bool, num_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_fused_is_fast", lambda: tiles)
    q, k, v = queries_keys_values(num_tokens)
    exact = F.scaled_dot_product_attention(q, k, v)
    assert error(attend(q.bfloat16(), k.bfloat16(), v.bfloat16()), exact) < 0.01


@pytest.mark.parametrize("num_tokens", [40, 300, 520])
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_in_bfloat16_are_those_of_the_fused_kernel(num_tokens: int, causal: bool) -> None:
    mask = torch.ones(num_tokens, num_tokens, dtype=torch.bool).tril() if causal else None
    inputs = [part.bfloat16().requires_grad_() for part in queries_keys_values(num_tokens)]
    exact = [part.detach().float().requires_grad_() for part in inputs]
    attend(*inputs, mask).float().square().sum().backward()
    F.scaled_dot_product_attention(*exact, attn_mask=mask).square().sum().backward()
    for part, reference in zip(inputs, exact, strict=True):
        assert part.grad is not None
        assert reference.grad is not None
        assert F.cosine_similarity(part.grad.float().flatten(), reference.grad.flatten(), dim=0) > 0.999


@pytest.mark.parametrize(
    "encoder",
    [Encoder(EncoderSpec(96, 8, 4, crop=96)), EncoderV21(EncoderV21Spec(96, 8, 4, crop=96))],
    ids=["V-JEPA 2", "V-JEPA 2.1"],
)
def test_bfloat16_keeps_every_feature_in_its_direction(encoder: Any) -> None:
    clip = torch.randn(1, 3, 16, 96, 96, generator=generator(0))  # 288 tokens: attention goes by heads
    encoder = scrambled(encoder)
    with torch.inference_mode():
        exact = encoder(clip)
        features = prepare_for_inference(encoder, device="cpu", precision="bf16")(clip)
    assert features.dtype == torch.float32
    assert not torch.equal(features, exact)
    assert F.cosine_similarity(features, exact, dim=-1).min() > 0.999


def test_float32_is_left_as_it_is() -> None:
    clip = torch.randn(1, 3, 4, 32, 32, generator=generator(0))
    encoder = scrambled(Encoder(EncoderSpec(48, 2, 2)))
    with torch.inference_mode():
        exact = encoder(clip)
        assert torch.equal(prepare_for_inference(encoder, device="cpu", precision="fp32")(clip), exact)


def test_the_native_precision_is_one_that_a_network_can_be_given() -> None:
    prepare_for_inference(Encoder(EncoderSpec(48, 1, 2)), device="cpu", precision=native_precision("cpu"))
