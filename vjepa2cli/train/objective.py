"""What pretraining minimises: the error of predicted features against those of an EMA target encoder, for every kind of clip.

    groups of clips             a batch holds clips of one or several kinds: of a length, or images
      | families of masks       each kind is seen through each of its families
    |z - h|                     the mean over target tokens, and with a context loss another over what the encoder saw
      | weights                 of kinds, of families within a kind, and of the context loss

Source: Assran et al. 2025 (arXiv:2506.09985), section 2; app/vjepa/train.py, app/vjepa_2_1/train.py of facebookresearch/vjepa2.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vjepa2cli.data.masking import MaskIds
from vjepa2cli.models.encoder import Encoder
from vjepa2cli.models.encoder_v21 import EncoderV21
from vjepa2cli.models.layers import token_positions
from vjepa2cli.models.predictor import Predictor
from vjepa2cli.models.predictor_v21 import PredictorV21
from vjepa2cli.settings import PretrainConfig
from vjepa2cli.tokens import TokenGrid
from vjepa2cli.train.engine import autocast
from vjepa2cli.train.losses import LossModule, Term


@dataclass(frozen=True)
class FamilyLoss:
    """How one family of masks of one kind of clip counts; `mask_token` is what the predictor is given for its targets."""

    weight: float
    context_weight: float
    mask_token: int


@dataclass(frozen=True)
class MaskedClips:
    """Clips of one kind, [B, 3, F, Y, X], and a draw of masks for them: ids for each family of the kind."""

    clips: Tensor
    families: Sequence[MaskIds]
    group: int = 0


def family_losses(config: PretrainConfig, *, context_share: float = 1.0) -> tuple[tuple[FamilyLoss, ...], ...]:
    """The losses of each family of each kind of clip; weights of targets sum to one, `context_share` scales those of context."""
    total = sum(group.weight for group in config.groups)
    losses = []
    for group, tokens in zip(config.groups, config.mask_token_indices, strict=True):
        own = group.context_loss_weight
        context = context_share * (config.context_loss.weight if own is None else own)
        share = group.weight / total / sum(shape.weight for shape in group.masks)
        shares = [share * shape.weight for shape in group.masks]
        losses.append(tuple(FamilyLoss(part, context * part, token) for part, token in zip(shares, tokens, strict=True)))
    return tuple(losses)


def loss_terms(losses: Sequence[Sequence[FamilyLoss]]) -> tuple[Term, ...]:
    """The terms of a loss, two for each family: its targets, then its context."""
    families = [family for group in losses for family in group]
    return tuple(
        term for family in families for term in (Term("target_loss", family.weight), Term("context_loss", family.context_weight))
    )


class PretrainModule(LossModule):
    """Context encoder, predictor and EMA target encoder; every family of masks has a term for targets and one for context."""

    def __init__(
        self,
        encoder: Encoder | EncoderV21,
        predictor: Predictor | PredictorV21,
        *,
        losses: Sequence[Sequence[FamilyLoss]],
        by_distance: bool,
        precision: str,
    ) -> None:
        """`losses` are those of the families of each kind of clip; the target encoder starts as a copy of the encoder."""
        super().__init__()
        self.encoder, self.predictor = encoder, predictor
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self._losses, self._by_distance, self._precision = losses, by_distance, precision
        self._num_levels = predictor.spec.num_levels if isinstance(predictor, PredictorV21) else 1
        self.terms = loss_terms(losses)

    def counts(self, inputs: Sequence[MaskedClips]) -> Tensor:
        """Target and context tokens of every family of every kind of clip."""
        counts = torch.zeros(len(self.terms), dtype=torch.float64)
        for part in inputs:
            for slot, ids in zip(self._slots(part.group), part.families, strict=True):
                counts[slot] += ids.target_ids.numel()
                counts[slot + 1] += ids.context_ids.numel()
        return counts

    def _slots(self, group: int) -> range:
        """Where the terms of each family of a group begin."""
        first = 2 * sum(map(len, self._losses[:group]))
        return range(first, first + 2 * len(self._losses[group]), 2)

    def forward(self, inputs: Sequence[MaskedClips]) -> Tensor:
        """Sums over tokens of the absolute error, [terms]."""
        sums = list(torch.zeros(len(self.terms), device=inputs[0].clips.device))
        for part in inputs:
            with autocast(self._precision, part.clips.device):
                target = self.target_features(part.clips)
                for slot, ids, family in zip(self._slots(part.group), part.families, self._losses[part.group], strict=True):
                    on_targets, on_context = self._errors(part.clips, target, ids, family)
                    sums[slot] = sums[slot] + on_targets
                    sums[slot + 1] = sums[slot + 1] + on_context
        return torch.stack(sums)

    @torch.no_grad()
    def target_features(self, clips: Tensor) -> Tensor:
        """What is predicted: each level of the target encoder's tokens, layer-normed once more, [B, N, levels D] float32."""
        return self._normed_levels(self.target_encoder, clips)

    @torch.no_grad()
    def student_features(self, clips: Tensor) -> Tensor:
        """The same of the context encoder when nothing is masked, to compare with."""
        return self._normed_levels(self.encoder, clips)

    def _normed_levels(self, encoder: Encoder | EncoderV21, clips: Tensor) -> Tensor:
        tokens = self._encode(encoder, clips).float()
        levels = tokens.view(*tokens.shape[:2], self._num_levels, -1)
        return F.layer_norm(levels, levels.shape[-1:]).flatten(-2)

    def _encode(self, encoder: Encoder | EncoderV21, clips: Tensor, ids: Tensor | None = None) -> Tensor:
        features: Tensor
        if isinstance(encoder, EncoderV21) and self._num_levels > 1:
            features = encoder.hierarchical(clips, ids)
        else:
            features = encoder(clips, ids)
        return features

    def _errors(self, clips: Tensor, target: Tensor, ids: MaskIds, family: FamilyLoss) -> tuple[Tensor, Tensor | float]:
        grid = self.encoder.grid(clips)
        context = self._encode(self.encoder, clips, ids.context_ids)
        wants_context = family.context_weight > 0
        where = (context, ids.context_ids, ids.target_ids)
        if isinstance(self.predictor, PredictorV21):
            modality = "image" if clips.shape[2] == 1 else "video"
            found = self.predictor(
                *where, grid=grid, mask_index=family.mask_token, modality=modality, return_context=wants_context
            )
        else:
            found = self.predictor(*where, grid=grid, mask_index=family.mask_token, return_context=wants_context)
        if not wants_context:
            return _error(found, _gather(target, ids.target_ids)).sum(), 0.0
        predicted, restored = found
        on_context = _error(restored, _gather(target, ids.context_ids))
        if self._by_distance:
            on_context = on_context * distance_weights(ids, grid)
        return _error(predicted, _gather(target, ids.target_ids)).sum(), on_context.sum()

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Move the target encoder toward the encoder: target = momentum * target + (1 - momentum) * encoder, in float32."""
        torch._foreach_lerp_(list(self.target_encoder.parameters()), list(self.encoder.parameters()), 1 - momentum)


@torch.no_grad()
def distance_weights(ids: MaskIds, grid: TokenGrid) -> Tensor:
    """One over the root of each context token's distance, in tubelets, rows and columns, to the nearest target: [B, K] float32.

    Source: app/vjepa_2_1/models/utils/masks_dist.py of facebookresearch/vjepa2.
    """
    context, target = (token_positions(chosen, grid).float() for chosen in (ids.context_ids, ids.target_ids))
    # A clip at a time: all distances of a batch of long clips are gigabytes. Differences, since products would round.
    nearest = [
        torch.cdist(kept, hidden, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
        for kept, hidden in zip(context, target, strict=True)
    ]
    return torch.stack(nearest).rsqrt()


def _error(predicted: Tensor, target: Tensor) -> Tensor:
    """Absolute error of each token, mean over dimensions."""
    return (predicted.float() - target).abs().mean(dim=-1)


def _gather(tokens: Tensor, ids: Tensor) -> Tensor:
    return tokens.gather(1, ids[..., None].expand(-1, -1, tokens.shape[-1]))
