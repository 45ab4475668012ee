"""Heads that are computed together are the same probes as heads computed alone."""

import pytest
import torch
from torch import Tensor, nn

from vjepa2cli.models.probe import AnticipationProbe, AnticipationProbeSpec, AttentiveProbe, ProbeSpec
from vjepa2cli.models.probe_sweep import Probe, ProbeSweep
from vjepa2cli.train.probing.heads import SweepModule, focal_loss

TOKENS = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0))


def heads(depth: int, *, anticipating: bool = False, count: int = 3) -> list[Probe]:
    """Probes in which every parameter matters."""
    generator = torch.Generator().manual_seed(depth)
    made: list[Probe] = []
    for _ in range(count):
        made.append(
            AnticipationProbe(AnticipationProbeSpec(24, 3, 4, 6, depth=depth, num_heads=2))
            if anticipating
            else AttentiveProbe(ProbeSpec(24, 5, depth=depth, num_heads=2))
        )
        for parameter in made[-1].parameters():
            nn.init.normal_(parameter, std=0.2, generator=generator)
    return made


def logits(probe: Probe, tokens: Tensor) -> tuple[Tensor, ...]:
    found = probe(tokens)
    return tuple(found) if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("anticipating", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_sweep_gives_the_logits_and_gradients_of_each_head_alone(depth: int, anticipating: bool) -> None:
    own = heads(depth, anticipating=anticipating)
    sweep = ProbeSweep(own)
    together = sweep(TOKENS)
    torch.stack([answers.square().sum() for answers in together]).sum().backward()
    for index, head in enumerate(own):
        gradients = [parameter.grad.clone() for parameter in head.parameters() if parameter.grad is not None]
        head.zero_grad()
        alone = logits(head, TOKENS)
        torch.stack([answers.square().sum() for answers in alone]).sum().backward()
        for answers, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(answers[index], expected, rtol=1e-5, atol=1e-5)
        for gradient, parameter in zip(gradients, head.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-4)  # sums in another order


def test_recomputed_activations_change_no_gradient() -> None:
    own = heads(3)
    sweep = ProbeSweep(own)
    sweep(TOKENS)[0].sum().backward()
    first = [parameter.grad.clone() for parameter in sweep.parameters() if parameter.grad is not None]
    sweep.zero_grad()
    sweep.activation_checkpointing = True
    sweep(TOKENS)[0].sum().backward()
    assert all(torch.equal(gradient, parameter.grad) for gradient, parameter in zip(first, sweep.parameters(), strict=True))


def test_a_head_that_diverges_costs_the_others_nothing() -> None:
    sound, broken = heads(2, count=2)
    alone = SweepModule([sound], precision="fp32")
    targets = torch.tensor([[1], [4]])
    alone((TOKENS, targets)).sum().backward()
    expected = [parameter.grad.clone() for parameter in sound.parameters() if parameter.grad is not None]
    sound.zero_grad()
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.mul_(1e30)
    module = SweepModule([sound, broken], precision="fp32")
    sums = module((TOKENS, targets))
    sums.sum().backward()
    assert module.alive.tolist() == [1, 0]
    assert sums.isfinite().all()
    for gradient, parameter in zip(expected, sound.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-5, atol=1e-6)
    assert all(parameter.grad.isfinite().all() for parameter in broken.parameters() if parameter.grad is not None)


def test_the_focal_loss_is_that_of_the_paper() -> None:
    answers = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = torch.tensor([0, 3, 1])
    for head in range(2):
        expected = 0.0
        for row, target in enumerate(targets.tolist()):
            for index in range(4):
                chance = torch.sigmoid(answers[head, row, index])
                p, alpha = (chance, 0.25) if index == target else (1 - chance, 0.75)
                expected += float(-alpha * (1 - p) ** 2 * p.log())
        assert float(focal_loss(answers, targets)[head]) == pytest.approx(expected, rel=1e-9)


def test_attention_of_the_query_is_what_pools_the_tokens() -> None:
    (probe,) = heads(2, count=1)
    weights = probe.pooler.attention(TOKENS)
    assert weights.shape == (2, 1, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1))
    # The token that is looked at most is the one whose change moves the pooled vector most, where it is pooled from one block.
    (flat,) = heads(1, count=1)
    block = flat.pooler.cross_attention_block
    values = block.xattn.kv(block.norm1(TOKENS)).chunk(2, -1)[1].unflatten(-1, (2, -1))
    per_head = block.xattn.weights(flat.pooler.query_tokens.expand(2, -1, -1), block.norm1(TOKENS))
    pooled = torch.einsum("bhqn,bnhe->bqhe", per_head, values).flatten(2)
    torch.testing.assert_close(pooled, block.xattn(flat.pooler.query_tokens.expand(2, -1, -1), block.norm1(TOKENS)))
