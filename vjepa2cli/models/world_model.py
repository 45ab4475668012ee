"""The world model: an encoder that turns frames into latents, and an AC predictor that rolls them forward under actions.

Source: Assran et al. 2025 (arXiv:2506.09985), section 3; notebooks/utils/world_model_wrapper.py of facebookresearch/vjepa2.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.errors import InputError
from vjepa2cli.models.ac_predictor import AcPredictor, FrameCache
from vjepa2cli.models.encoder import Encoder
from vjepa2cli.models.encoder_v21 import EncoderV21
from vjepa2cli.models.pixels import PixelEncoder

FrameEncoder = Encoder | EncoderV21 | PixelEncoder
Compose = Callable[[Tensor, Tensor], Tensor]
Transform = Callable[[NDArray[np.uint8]], Tensor]


def normalise_latents(latents: Tensor) -> Tensor:
    """Layer-norm tokens [..., D] without an affine map, in float32: what an AC predictor reads, predicts and is compared with."""
    return F.layer_norm(latents.float(), latents.shape[-1:])


def encode_frames(encoder: FrameEncoder, frames: Tensor, *, layer_norm: bool) -> Tensor:
    """Encode each frame alone, repeated to fill a tubelet, so that no latent has seen its future: [T, 3, Y, X] -> [T, HW, D]."""
    if frames.ndim != 4:
        raise InputError(f"frames: shape {list(frames.shape)} is not [T, 3, Y, X]")
    tubelets = frames.unsqueeze(2).expand(-1, -1, encoder.spec.tubelet_size, -1, -1)
    latents: Tensor = encoder(tubelets)
    return normalise_latents(latents) if layer_norm else latents


def rollout(
    ac: AcPredictor,
    latents: Tensor,
    states: Tensor,
    actions: Tensor,
    *,
    compose: Compose | None = None,
    extrinsics: Tensor | None = None,
    past: FrameCache | None = None,
) -> Tensor:
    """Predict the H frames that follow T0 context frames: [B, T0, HW, D] -> [B, H, HW, D], differentiable.

    actions [B, T0 - 1 + H, A]: those between the context frames, then the H to be tried; action t leads from frame t to t + 1.
    states [B, T, S] with T >= T0: of the context frames, and of later ones where they are known; those that lack are integrated
    by `compose(state, action)`. extrinsics [B, T0 - 1 + H, 6] where the AC predictor uses them.
    Each prediction is layer-normed, if the latents are, and fed back; keys and values of earlier frames are computed once, unless
    `ac` is trained with activation checkpointing, which has nothing kept: then every step reads all frames again.
    With a `past` (see `read_past`) the frames follow those that it holds, which all rows share; it is left as it is.
    """
    num_context = latents.shape[1]
    horizon = actions.shape[1] - num_context + 1
    if horizon < 1 or states.shape[1] < num_context:
        raise InputError(
            f"rollout: {num_context} context frames need at least {num_context} states and actions, "
            f"not {states.shape[1]} states and {actions.shape[1]} actions"
        )
    states = _integrated(states, actions, compose)
    if ac.activation_checkpointing and torch.is_grad_enabled():
        return _rollout_again(ac, latents, states, actions, extrinsics, horizon)
    cache = ac.new_cache() if past is None else past.branch()
    predictions: list[Tensor] = []
    frames, start = latents, 0
    while len(predictions) < horizon:
        stop = start + frames.shape[1]
        if len(predictions) == horizon - 1:
            cache = cache.branch(grows=False)
        view = None if extrinsics is None else extrinsics[:, start:stop]
        predicted = ac(frames, actions[:, start:stop], states[:, start:stop], view, cache=cache)[:, -1:]
        frames, start = normalise_latents(predicted) if ac.spec.layer_norm else predicted, stop
        predictions.append(frames)
    return torch.cat(predictions, dim=1)


def _rollout_again(
    ac: AcPredictor, latents: Tensor, states: Tensor, actions: Tensor, extrinsics: Tensor | None, horizon: int
) -> Tensor:
    """The same without a cache: [B, T0, HW, D] -> [B, H, HW, D]."""
    num_context = latents.shape[1]
    for stop in range(num_context, num_context + horizon):
        view = None if extrinsics is None else extrinsics[:, :stop]
        predicted = ac(latents, actions[:, :stop], states[:, :stop], view)[:, -1:]
        latents = torch.cat((latents, normalise_latents(predicted) if ac.spec.layer_norm else predicted), dim=1)
    return latents[:, num_context:]


def read_past(ac: AcPredictor, latents: Tensor, states: Tensor, actions: Tensor) -> FrameCache | None:
    """Let `ac` read the frames before the current one: [1, T, HW, D], [1, T, S], [1, T, A]; None for no frames.

    The cache is for `rollout`, whose every row goes on from these frames, which are computed once.
    """
    if not latents.shape[1]:
        return None
    cache = ac.new_cache()
    ac(latents, actions, states, cache=cache)
    return cache


def _integrated(states: Tensor, actions: Tensor, compose: Compose | None) -> Tensor:
    """One state for every action: those given, then what the actions make of the last."""
    known = [states]
    for step in range(states.shape[1], actions.shape[1]):
        if compose is None:
            raise InputError(
                f"rollout: {states.shape[1]} states for {actions.shape[1]} actions and no `compose` to integrate them"
            )
        known.append(compose(known[-1][:, -1], actions[:, step - 1]).unsqueeze(1))
    return torch.cat(known, dim=1)


class WorldModel:
    """A frozen encoder and the AC predictor trained on its latents.

    encoder: None where only latents are at hand. preprocessing: how frames were made for it, as the model folder says.
    compose: integrates a state by an action (`data.poses.pose_compose`). transform: uint8 frames [T, Y, X, 3] -> [T, 3, Y, X].
    """

    def __init__(
        self,
        encoder: FrameEncoder | None,
        ac: AcPredictor,
        *,
        preprocessing: dict[str, Any] | None = None,
        compose: Compose | None = None,
        transform: Transform | None = None,
    ) -> None:
        self.encoder = encoder
        self.ac = ac
        self.preprocessing = preprocessing
        self.compose = compose
        self.transform = transform

    @property
    def device(self) -> torch.device:
        """Where the AC predictor's weights are."""
        return self.ac.predictor_embed.weight.device

    @torch.no_grad()
    def encode(self, frames: NDArray[np.uint8] | Tensor) -> Tensor:
        """uint8 frames [T, Y, X, 3] or preprocessed float ones [T, 3, Y, X] -> [T, HW, D], as the AC predictor reads them."""
        if self.encoder is None:
            raise InputError("frames: this world model was loaded without its encoder; give it latents")
        if not isinstance(frames, Tensor):
            if self.transform is None:
                raise InputError("frames: this world model has no transform for pixels; give it preprocessed frames [T, 3, Y, X]")
            frames = self.transform(frames)
        return encode_frames(self.encoder, frames.to(self.device), layer_norm=self.ac.spec.layer_norm)

    def rollout(
        self,
        latents: Tensor,
        states: Tensor,
        actions: Tensor,
        *,
        extrinsics: Tensor | None = None,
        past: FrameCache | None = None,
    ) -> Tensor:
        """latents [B, T0, HW, D], states [B, >= T0, S], actions [B, T0 - 1 + H, A] -> [B, H, HW, D]; see `rollout`."""
        return rollout(self.ac, latents, states, actions, compose=self.compose, extrinsics=extrinsics, past=past)
