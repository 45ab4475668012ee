"""The heads of a sweep as one training task: a head a learning rate and weight decay, all on the same tokens."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vjepa2cli.data.prefetch import Prefetcher, Tasks
from vjepa2cli.models.probe import AnticipationProbe, AnticipationProbeSpec, AttentiveProbe, ProbeSpec
from vjepa2cli.models.probe_sweep import Probe, ProbeSweep
from vjepa2cli.settings import ProbeConfig
from vjepa2cli.train.engine import autocast
from vjepa2cli.train.losses import Batch, LossModule, Term
from vjepa2cli.train.probing.features import Features
from vjepa2cli.train.probing.judging import judge
from vjepa2cli.train.probing.samples import Question, Sample

_PREFETCHED = "prefetched"
_FOCAL_ALPHA, _FOCAL_GAMMA = 0.25, 2.0


class SweepModule(LossModule):
    """Probes that share their tokens; each head is a term of the loss, so that none feels another.

    A head whose loss is not finite any more has diverged: it is left out from then on and costs the others nothing. Nor is one
    computed that was stopped; `stopped_at` holds the step at which that was, 0 for those that go on.
    """

    alive: Tensor
    stopped_at: Tensor

    def __init__(self, heads: Sequence[Probe], *, precision: str) -> None:
        """Heads of one shape."""
        super().__init__()
        self.sweep = ProbeSweep(heads)
        self.focal = not isinstance(heads[0], AttentiveProbe)
        self.register_buffer("alive", torch.ones(len(heads)))
        self.register_buffer("stopped_at", torch.zeros(len(heads)))
        self._precision = precision
        self.terms = tuple(Term(f"head_{index}", 1.0) for index in range(len(heads)))
        for parameter in self.sweep.parameters():
            parameter.register_hook(_finite)  # type: ignore[no-untyped-call]

    def counts(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Samples, once a head; one for the focal loss, which the released code sums over a batch."""
        return torch.full((len(self.terms),), 1.0 if self.focal else float(len(inputs[1])), dtype=torch.float64)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        """The loss of tokens [B, N, D] and targets [B, questions] under each head, summed over samples: [heads]."""
        tokens, targets = inputs
        with autocast(self._precision, tokens.device):
            going_on = self._going_on()
            answers = self.sweep(tokens, going_on)
        loss = focal_loss if self.focal else cross_entropy
        own = torch.stack([loss(logits.float(), targets[:, index]) for index, logits in enumerate(answers)]).sum(dim=0)
        sums = torch.zeros(len(self.terms), device=own.device).index_copy(0, torch.tensor(going_on, device=own.device), own)
        if self.training and torch.is_grad_enabled():
            self.alive *= sums.detach().isfinite().to(self.alive)
        return torch.where(self.alive > 0, sums, torch.zeros_like(sums))

    def _going_on(self) -> list[int]:
        """Numbers of the heads that are trained; of the others DeepSpeed would make gradients of zero, and AdamW decay them."""
        steps = self.stopped_at.tolist()
        for head, step in zip(self.sweep.heads, steps, strict=True):
            if step and next(head.parameters()).requires_grad:
                head.requires_grad_(False)
        return [index for index, step in enumerate(steps) if step == 0]


def _finite(gradient: Tensor) -> Tensor:
    return torch.nan_to_num(gradient, 0.0, 0.0, 0.0)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of logits [K, B, C] and targets [B], summed over samples: [K]."""
    losses = F.cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits)), reduction="none")
    return losses.reshape(len(logits), -1).sum(dim=1)


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid focal loss of logits [K, B, C] and targets [B], summed over samples and classes: [K].

    Source: Lin et al. 2017 (arXiv:1708.02002), equation 5; alpha 0.25 and gamma 2 as in the released evaluation.
    """
    wanted = F.one_hot(targets, logits.shape[-1]).to(logits).expand_as(logits)
    plain = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    chance = torch.exp(-plain)
    weight = wanted * _FOCAL_ALPHA + (1 - wanted) * (1 - _FOCAL_ALPHA)
    return (weight * (1 - chance) ** _FOCAL_GAMMA * plain).sum(dim=(1, 2))


class ProbeTask:
    """The probing Task of the one training loop, for one encoder."""

    def __init__(
        self,
        train: Features,
        selection: Features,
        *,
        samples: tuple[Sequence[Sample], Sequence[Sample]],
        heads: Sequence[Probe],
        config: ProbeConfig,
        device: torch.device,
    ) -> None:
        """`selection` chooses the head; it is no part of what is reported. `samples` are those of both."""
        self._train, self._selection, self._config, self._device = train, selection, config, device
        self._targets, self._selection_targets = (targets_of(own) for own in samples)
        first = self._targets[:, 0].numpy()
        self._rows_of = {int(label): np.flatnonzero(first == label) for label in np.unique(first)}
        self.module = SweepModule(heads, precision=config.precision).to(device)
        self.module.sweep.activation_checkpointing = config.activation_checkpointing
        self._prefetcher = Prefetcher(self._plan, threads=1)

    def param_groups(self) -> list[dict[str, Any]]:
        """One group a head; the released probes decay every parameter."""
        pairs = zip(self.module.sweep.heads, self._config.head_settings, strict=True)
        return [
            {"name": f"head_{index}", "params": list(head.parameters()), "peak_lr": rate, "weight_decay": decay}
            for index, (head, (rate, decay)) in enumerate(pairs)
        ]

    def batch(self, step: int, *, rows: range) -> Batch:
        """The tokens of a step's samples."""
        made = self._prefetcher.get(step, rows)
        numbers, tokens = made["rows"], made[_PREFETCHED]
        targets = self._targets[[number % self._train.count for number in numbers]]
        inputs = tokens.to(self._device, torch.float32), targets.to(self._device)
        return Batch(inputs, tuple(f"clip {number}" for number in numbers))

    def _plan(self, step: int, rows: range) -> tuple[dict[str, Any], Tasks]:
        made: dict[str, Any] = {"rows": self._numbers(step)[rows.start : rows.stop]}
        return made, [partial(self._fetch, made)]

    def _fetch(self, made: dict[str, Any]) -> None:
        made[_PREFETCHED] = self._train.get(made["rows"])

    def _numbers(self, step: int) -> list[int]:
        """Rows of the batch of a step: classes evenly, so that a rare one is not ignored, or epoch by epoch in a new order."""
        config, count, copies = self._config, self._train.count, self._train.copies or 1
        if config.balanced:
            rng = np.random.default_rng([config.seed, step])
            wanted = rng.choice(list(self._rows_of), size=config.batch_size)
            samples = [int(rng.choice(self._rows_of[label])) for label in wanted.tolist()]
            return [sample + count * int(rng.integers(copies)) for sample in samples] if copies > 1 else samples
        places = range((step - 1) * config.batch_size, step * config.batch_size)
        orders = {epoch: np.random.default_rng([config.seed, epoch]).permutation(count) for epoch in {p // count for p in places}}
        return [int(orders[place // count][place % count]) + count * (place // count % copies) for place in places]

    def after_step(self, step: int) -> None:
        """Stop the heads that are worst on selection, where the config says so of this step."""
        for share, kept in self._config.keep_heads:
            if step == max(1, round(share * self._config.steps)):
                self._stop_all_but(kept, step)

    def _stop_all_but(self, kept: int, step: int) -> None:
        module = self.module
        scores = judge(module.sweep, self._selection, self._selection_targets, precision=self._config.precision)
        going_on = [
            index
            for index, (alive, stopped) in enumerate(zip(module.alive.tolist(), module.stopped_at.tolist(), strict=True))
            if alive and not stopped
        ]
        order = sorted(going_on, key=lambda index: (-scores.selection_scores()[index], index))
        for index in order[kept:]:
            module.stopped_at[index] = step

    def evaluate(self, step: int) -> dict[str, float]:
        """The score of each head on the selection samples; `step` plays no part."""
        scores = judge(self.module.sweep, self._selection, self._selection_targets, precision=self._config.precision)
        return {f"accuracy_{index}": value for index, value in enumerate(scores.selection_scores())}

    def close(self) -> None:
        """Wait for what is being read ahead."""
        self._prefetcher.close()


def targets_of(samples: Sequence[Sample]) -> Tensor:
    """Class numbers of samples, [M, questions]."""
    return torch.tensor([sample.targets for sample in samples])


def new_heads(questions: Sequence[Question], config: ProbeConfig, *, width: int) -> list[Probe]:
    """A head a learning rate and a weight decay, all of the same beginning."""
    counts = [len(question.classes) for question in questions]
    shape = {"depth": config.depth, "num_heads": heads_that_divide(width, config.num_heads)}
    made: list[Probe] = []
    for _ in config.head_settings:
        generator = torch.Generator().manual_seed(config.seed)
        if len(counts) == 1:
            made.append(AttentiveProbe(ProbeSpec(width, counts[0], **shape), generator=generator))
        else:
            made.append(AnticipationProbe(AnticipationProbeSpec(width, *counts, **shape), generator=generator))
    return made


def heads_that_divide(width: int, wanted: int) -> int:
    """The largest number of heads up to `wanted` that split a width evenly, for feature widths that are not the encoder's."""
    return next(heads for heads in range(wanted, 0, -1) if width % (2 * heads) == 0)
