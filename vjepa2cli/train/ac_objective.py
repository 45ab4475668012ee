"""What post-training minimises: the error of predicted latents, one step ahead of true ones and along a rollout.

Source: Assran et al. 2025 (arXiv:2506.09985), section 3; app/vjepa_droid/train.py of facebookresearch/vjepa2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vjepa2cli.data.windows import Windows
from vjepa2cli.models.ac_predictor import AcPredictor
from vjepa2cli.models.world_model import rollout
from vjepa2cli.settings import PosttrainConfig
from vjepa2cli.train.engine import autocast
from vjepa2cli.train.losses import LossModule, Term


class PosttrainModule(LossModule):
    """The AC predictor; its loss is that of teacher forcing plus that of the rollout."""

    def __init__(self, predictor: AcPredictor, config: PosttrainConfig) -> None:
        """`change_weight` adds to each token's weight its own change over the step, in units of the mean change.

        With weights w = 1 + c · change / mean(change) the weighted mean of the error is (its plain mean + c times its mean
        weighted by the change) / (1 + c): two terms, neither of which needs the mean change of other processes.
        """
        super().__init__()
        self.predictor = predictor
        self._rollout_steps, self._precision = config.rollout_steps, config.precision
        self._change_weight, self._shifted_rollout = config.change_weight, config.released_quirks.shifted_rollout
        weights = [1.0, self._change_weight] if self._change_weight else [1.0]
        self.terms = tuple(Term(name, weight / sum(weights)) for name in ("teacher_forced", "rollout") for weight in weights)

    @property
    def device(self) -> torch.device:
        """Where the predictor's weights are."""
        return self.predictor.predictor_embed.weight.device

    def counts(self, inputs: tuple[Windows, bool]) -> Tensor:
        """Of teacher forcing, then of the rollout: tokens, and where change counts the sum of their changes."""
        windows, with_rollout = inputs
        batch, frames, tokens, _ = windows.latents.shape
        counts = []
        for steps, share in ((frames - 1, 1.0), (self._rollout_steps, float(with_rollout))):
            counts.append(share * batch * steps * tokens)
            if self._change_weight:
                counts.append(share * float(_change(windows.to(self.device).latents, steps).sum()))
        return torch.tensor(counts, dtype=torch.float64)

    def forward(self, inputs: tuple[Windows, bool]) -> Tensor:
        """Sums of the absolute error of windows; the flag says whether the rollout loss is taken as well."""
        windows, with_rollout = inputs[0].to(self.device), inputs[1]
        with autocast(self._precision, self.device):
            predicted = self.teacher_forced(windows)
            forced = self._errors(predicted, windows.latents)
            if not with_rollout:
                return torch.cat([forced, torch.zeros_like(forced)])
            rolled = self._errors(self.rolled_out(windows, predicted), windows.latents)
        return torch.cat([forced, rolled])

    def teacher_forced(self, windows: Windows) -> Tensor:
        """Predictions of steps 1..T-1, each from the true steps before it: [B, T-1, H*W, D] float32."""
        view = None if windows.extrinsics is None else windows.extrinsics[:, :-1]
        predicted: Tensor = self.predictor(windows.latents[:, :-1], windows.actions, windows.states[:, :-1], view)
        return self._normed(predicted.float())

    def rolled_out(self, windows: Windows, forced: Tensor) -> Tensor:
        """Predictions of steps 1..R, each from step 0 and the predictions before it; gradients flow through the fed-back ones.

        The released training took step 2 of the teacher-`forced` predictions for its step 1, which a quirk does as well.
        """
        steps, latents = self._rollout_steps, windows.latents[:, :1]
        if self._shifted_rollout:
            latents = torch.cat([latents, forced[:, 1:2]], dim=1)
            if steps == 1:
                return latents[:, 1:]
        view = None if windows.extrinsics is None else windows.extrinsics[:, :steps]
        states, actions = windows.states[:, :steps], windows.actions[:, :steps]
        predicted = rollout(self.predictor, latents, states, actions, extrinsics=view).float()
        return torch.cat([latents[:, 1:], predicted], dim=1)

    def _normed(self, latents: Tensor) -> Tensor:
        return F.layer_norm(latents, latents.shape[-1:]) if self.predictor.spec.layer_norm else latents

    def _errors(self, predicted: Tensor, latents: Tensor) -> Tensor:
        """Sums of the absolute error of predictions of steps 1..n, [B, n, H*W, D]: plain, and weighted by the tokens' change."""
        steps = predicted.shape[1]
        errors = (predicted - latents[:, 1 : steps + 1]).abs().mean(dim=-1)
        if not self._change_weight:
            return errors.sum().unsqueeze(0)
        return torch.stack([errors.sum(), (errors * _change(latents, steps)).sum()])


def _change(latents: Tensor, steps: int) -> Tensor:
    """How much each token changes over each of the first steps, [B, steps, H*W]."""
    return (latents[:, 1 : steps + 1] - latents[:, :steps]).abs().mean(dim=-1)
