"""The networks that a pretraining config describes, of V-JEPA 2 or 2.1."""

import torch

from vjepa2cli.errors import ConfigError, InputError
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.encoder_v21 import EncoderV21, EncoderV21Spec
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.predictor_v21 import PredictorV21, PredictorV21Spec
from vjepa2cli.registry import SIZES
from vjepa2cli.settings import PretrainConfig
from vjepa2cli.tokens import TokenGrid


def encoder_spec(config: PretrainConfig) -> EncoderSpec:
    """The encoder that a config describes; a named size takes its numbers from the registry."""
    chosen = config.encoder
    size = chosen if chosen.size == "custom" else SIZES[chosen.size]
    spec_class = EncoderV21Spec if chosen.architecture == "vjepa2.1" else EncoderSpec
    return spec_class(
        embed_dim=size.embed_dim,
        depth=size.depth,
        num_heads=size.num_heads,
        mlp_ratio=size.mlp_ratio,
        patch_size=chosen.patch_size,
        tubelet_size=chosen.tubelet_size,
        crop=config.clip.crop,
        num_frames=config.clip.num_frames,
    )


def predictor_spec(config: PretrainConfig) -> PredictorSpec | PredictorV21Spec:
    """The predictor that a config describes."""
    chosen, width = config.predictor, encoder_spec(config).embed_dim
    if config.encoder.architecture == "vjepa2.1":
        return PredictorV21Spec(
            encoder_dim=width,
            target_dim=width,
            embed_dim=chosen.embed_dim,
            depth=chosen.depth,
            num_heads=chosen.num_heads,
            mlp_ratio=chosen.mlp_ratio,
            num_mask_tokens=chosen.num_mask_tokens,
            num_levels=chosen.levels,
        )
    return PredictorSpec(
        encoder_dim=width,
        embed_dim=chosen.embed_dim,
        depth=chosen.depth,
        num_heads=chosen.num_heads,
        mlp_ratio=chosen.mlp_ratio,
        num_mask_tokens=chosen.num_mask_tokens,
    )


def build_encoder(config: PretrainConfig, *, generator: torch.Generator) -> Encoder | EncoderV21:
    """A fresh encoder."""
    spec = encoder_spec(config)
    encoder = EncoderV21(spec, generator=generator) if isinstance(spec, EncoderV21Spec) else Encoder(spec, generator=generator)
    encoder.activation_checkpointing = config.encoder.activation_checkpointing
    return encoder


def build_predictor(config: PretrainConfig, *, generator: torch.Generator) -> Predictor | PredictorV21:
    """A fresh predictor."""
    spec = predictor_spec(config)
    built = (
        PredictorV21(spec, generator=generator) if isinstance(spec, PredictorV21Spec) else Predictor(spec, generator=generator)
    )
    built.activation_checkpointing = config.predictor.activation_checkpointing
    return built


def clip_grid(config: PretrainConfig, index: int = 0) -> TokenGrid:
    """The token grid of a kind of clip, by its number in `config.groups`; an image of V-JEPA 2.1 is one tubelet deep.

    Raises ConfigError where it is not whole.
    """
    clip, sizes = config.groups[index].clip, config.encoder
    tubelet = 1 if clip.num_frames == 1 else sizes.tubelet_size
    try:
        return TokenGrid.from_pixels(clip.num_frames, clip.crop, clip.crop, patch_size=sizes.patch_size, tubelet_size=tubelet)
    except InputError:
        key = "clip" if index == 0 else f"beside.{index - 1}.clip"
        raise ConfigError(
            f"{key}: {clip.num_frames} frames at crop {clip.crop} do not make whole tubelets of {tubelet} frames and "
            f"{sizes.patch_size} pixels; choose multiples"
        ) from None
