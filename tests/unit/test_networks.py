"""What the encoder, the predictor and the probe keep and refuse, beyond what the parity tests show."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vjepa2cli.errors import InputError
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.encoder_v21 import EncoderV21, EncoderV21Spec
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.predictor_v21 import PredictorV21, PredictorV21Spec
from vjepa2cli.models.probe import AnticipationProbe, AnticipationProbeSpec, AttentiveProbe, ProbeSpec
from vjepa2cli.tokens import TokenGrid

SPEC = EncoderSpec(48, 4, 2, patch_size=8)
GRID = TokenGrid(2, 4, 4)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clip() -> Tensor:
    return torch.randn(2, 3, 4, 32, 32, generator=generator(1))


def scrambled(module: torch.nn.Module) -> Any:
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(seed)))
    return module.eval()


def ids(num_context: int = 10) -> tuple[Tensor, Tensor]:
    shuffled = torch.stack([torch.randperm(GRID.num_tokens, generator=generator(seed)) for seed in (2, 3)])
    return shuffled[:, :num_context], shuffled[:, num_context:]


def test_masked_tokens_are_dropped_before_the_first_block() -> None:
    encoder, context_ids = scrambled(Encoder(SPEC)), ids()[0]
    pixels = clip()
    changed = pixels.clone()
    hidden = next(number for number in range(GRID.num_tokens) if number not in context_ids[0])
    t, row, column = GRID.positions(hidden)
    changed[0, :, 2 * t : 2 * t + 2, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 5
    with torch.no_grad():
        assert torch.equal(encoder(pixels, context_ids), encoder(changed, context_ids))
        assert not torch.equal(encoder(pixels), encoder(changed))
        gathered = encoder(pixels).gather(1, context_ids.unsqueeze(-1).expand(-1, -1, 48))
        assert (encoder(pixels, context_ids) - gathered).abs().max() > 1e-2


def test_all_ids_in_any_order_are_the_whole_clip_in_that_order() -> None:
    encoder, order = scrambled(Encoder(SPEC)), ids(num_context=GRID.num_tokens)[0]
    with torch.no_grad():
        whole = encoder(clip()).gather(1, order.unsqueeze(-1).expand(-1, -1, 48))
        torch.testing.assert_close(encoder(clip(), order), whole, rtol=0, atol=1e-5)


def test_permuting_targets_permutes_predictions() -> None:
    predictor, (context_ids, target_ids) = scrambled(Predictor(PredictorSpec(48, 24, 2, 2))), ids()
    context = torch.randn(2, 10, 48, generator=generator(4))
    order = torch.randperm(target_ids.shape[1], generator=generator(5))
    with torch.no_grad():
        straight, kept = predictor(context, context_ids, target_ids, grid=GRID, return_context=True)
        permuted = predictor(context, context_ids, target_ids[:, order], grid=GRID)
        shuffled = torch.randperm(10, generator=generator(6))
        _, kept_shuffled = predictor(context[:, shuffled], context_ids[:, shuffled], target_ids, grid=GRID, return_context=True)
    torch.testing.assert_close(permuted, straight[:, order], rtol=0, atol=1e-5)
    torch.testing.assert_close(kept_shuffled, kept[:, shuffled], rtol=0, atol=1e-5)
    assert kept.shape == (2, 10, 48)


def test_the_mask_token_makes_the_prediction() -> None:
    predictor, (context_ids, target_ids) = scrambled(Predictor(PredictorSpec(48, 24, 2, 2, num_mask_tokens=2))), ids()
    context = torch.randn(2, 10, 48, generator=generator(4))
    with torch.no_grad():
        first, second = (predictor(context, context_ids, target_ids, grid=GRID, mask_index=index) for index in (0, 1))
    assert (first - second).abs().max() > 1e-2
    with pytest.raises(InputError, match="mask_index: 2"):
        predictor(context, context_ids, target_ids, grid=GRID, mask_index=2)


def test_a_probe_does_not_know_the_order_of_tokens() -> None:
    probe = scrambled(AttentiveProbe(ProbeSpec(48, num_classes=5, depth=3, num_heads=4)))
    tokens = torch.randn(2, 20, 48, generator=generator(7))
    with torch.no_grad():
        shuffled = tokens[:, torch.randperm(20, generator=generator(8))]
        torch.testing.assert_close(probe(shuffled), probe(tokens), rtol=0, atol=1e-5)


def test_each_query_of_an_anticipation_probe_is_a_probe_of_its_own() -> None:
    """So the three never see each other, and each answers for its own classifier."""
    probe = scrambled(AnticipationProbe(AnticipationProbeSpec(48, num_verbs=3, num_nouns=4, num_actions=6, depth=3, num_heads=4)))
    tokens = torch.randn(2, 20, 48, generator=generator(7))
    state = probe.state_dict()
    with torch.no_grad():
        logits = probe(tokens)
        for index, (kind, count) in enumerate((("verb", 3), ("noun", 4), ("action", 6))):
            alone = AttentiveProbe(ProbeSpec(48, num_classes=count, depth=3, num_heads=4))
            own = {name: tensor for name, tensor in state.items() if name.startswith("pooler.")}
            own["pooler.query_tokens"] = state["pooler.query_tokens"][:, index : index + 1]
            own |= {f"linear.{part}": state[f"{kind}_classifier.{part}"] for part in ("weight", "bias")}
            alone.load_state_dict(own)
            torch.testing.assert_close(getattr(logits, kind), alone(tokens), rtol=0, atol=1e-5)


NETWORKS = [
    (Encoder, EncoderSpec(96, 4, 2)),
    (EncoderV21, EncoderV21Spec(96, 4, 2)),
    (Predictor, PredictorSpec(96, 96, 4, 2)),
    (PredictorV21, PredictorV21Spec(96, 96, 96, 4, 2)),
    (AcPredictor, AcPredictorSpec(96, 96, 4, 2)),
    (AttentiveProbe, ProbeSpec(96, num_classes=96, depth=5, num_heads=2)),
]


@pytest.mark.parametrize(("network", "spec"), NETWORKS)
def test_weights_start_as_in_the_released_code(network: Any, spec: Any) -> None:
    state = network(spec, generator=generator(0)).state_dict()
    for name, tensor in state.items():
        if tensor.ndim == 1:
            assert torch.equal(tensor, torch.full_like(tensor, float("norm" in name and name.endswith("weight")))), name
    (blocks,) = {name.partition("blocks.")[0] + "blocks." for name in state if "blocks." in name}
    for index in range(4):
        assert state[f"{blocks}{index}.attn.qkv.weight"].std().item() == pytest.approx(0.02, rel=0.05)
        for added in ("attn.proj", "mlp.fc2"):
            wanted = 0.02 / (2 * (index + 1)) ** 0.5
            assert state[f"{blocks}{index}.{added}.weight"].std().item() == pytest.approx(wanted, rel=0.05)
    if network is AttentiveProbe:
        last = state["pooler.cross_attention_block.mlp.fc2.weight"].std().item()
        assert last == pytest.approx(0.02 / 8**0.5, rel=0.05)
        assert state["pooler.query_tokens"].std().item() == pytest.approx(0.02, rel=0.3)
    for name in (name for name in state if name.endswith("_mod_embed")):
        assert state[name].std().item() == pytest.approx(1e-6, rel=0.3)


@pytest.mark.parametrize(("network", "spec"), NETWORKS)
def test_weights_are_a_function_of_the_generator(network: Any, spec: Any) -> None:
    torch.manual_seed(0)
    first = network(spec, generator=generator(1)).state_dict()
    torch.manual_seed(1)
    again, other, default = (network(spec, generator=given).state_dict() for given in (generator(1), generator(2), None))
    zero = network(spec, generator=generator(0)).state_dict()
    assert all(torch.equal(first[name], again[name]) and torch.equal(default[name], zero[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("shape", "word"),
    [
        ((2, 3, 4, 30, 32), "height: 30"),
        ((2, 3, 3, 32, 32), "frames: 3"),
        ((3, 4, 32, 32), "stack clips"),
        ((2, 1, 4, 32, 32), "clip"),
    ],
)
def test_clips_that_hold_no_whole_patches_are_refused(shape: tuple[int, ...], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Encoder(SPEC)(torch.zeros(shape))


def test_one_row_of_ids_for_two_clips_is_refused() -> None:
    with pytest.raises(InputError, match=r"context_ids: shape \[1, 10\] is not \[2, K\]"):
        Encoder(SPEC)(clip(), ids()[0][:1])


def test_levels_and_heads_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match=r"layers: \[4\]"):
        Encoder(SPEC).levels(clip(), [0, 4])
    with pytest.raises(InputError, match="48 channels do not split into 5 heads"):
        EncoderSpec(48, 4, 5)


def test_checkpointing_keeps_fewer_activations_and_the_same_gradients() -> None:
    gradients, kept = [], []
    for checkpointing in (False, True):
        encoder = scrambled(Encoder(SPEC))
        encoder.activation_checkpointing = checkpointing
        saved: list[int] = []

        def keep(tensor: Tensor, saved: list[int] = saved) -> Tensor:
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = encoder(clip()).square().mean()
        kept.append(sum(saved))
        loss.backward()
        gradients.append(encoder.blocks[0].attn.qkv.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-6)
    assert kept[1] < kept[0] / 4
