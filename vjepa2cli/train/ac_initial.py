"""The predictor that a post-training begins with: fresh, or one that was trained before, on this robot or another."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.errors import ArtifactError, ConfigError, InputError
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.checkpoints import read_checkpoint
from vjepa2cli.models.weights import load_ac_predictor, state_digest
from vjepa2cli.settings import PosttrainConfig

_FREE = {"grid_h", "grid_w", "use_extrinsics", "conditioning_init_std"}
"""What may differ between a trained predictor and the config that goes on with it."""


@dataclass(frozen=True)
class InitialPredictor:
    """A predictor, the digest of the weights that it came with and how many updates went into these; neither if it is fresh.

    `fresh` names those of its parts that do not come from there.
    """

    predictor: AcPredictor
    digest: str | None = None
    trained_steps: int = 0
    fresh: tuple[str, ...] = ()


def ac_predictor_spec(store: LatentStore, episodes: Sequence[int], config: PosttrainConfig) -> AcPredictorSpec:
    """The predictor for a latent store; where asked, its inputs are standardised by the training episodes' own statistics."""
    actions = np.concatenate([store.actions(index) for index in episodes]).astype(np.float64)
    states = np.concatenate([store.states(index) for index in episodes]).astype(np.float64)
    chosen, (_, height, width) = config.predictor, store.grid
    standardise = chosen.standardise_inputs
    return AcPredictorSpec(
        latent_dim=store.header.embed_dim,
        embed_dim=chosen.embed_dim,
        depth=chosen.depth,
        num_heads=chosen.num_heads,
        mlp_ratio=chosen.mlp_ratio,
        action_dim=actions.shape[-1],
        state_dim=states.shape[-1],
        grid_h=height,
        grid_w=width,
        use_extrinsics=chosen.extrinsics,
        absolute_positions=chosen.absolute_positions,
        condition_patches=chosen.condition_patches,
        residual=chosen.residual,
        layer_norm=store.layer_norm,
        action_mean=_numbers(actions.mean(axis=0)) if standardise else None,
        action_std=_spread(actions) if standardise else None,
        state_mean=_numbers(states.mean(axis=0)) if standardise else None,
        state_std=_spread(states) if standardise else None,
        conditioning_init_std=chosen.conditioning_init_std,
    )


def _numbers(values: np.ndarray[Any, Any]) -> tuple[float, ...]:
    return tuple(round(float(value), 8) for value in values)


def _spread(values: np.ndarray[Any, Any]) -> tuple[float, ...]:
    """Standard deviations, with at least 1e-3 (a millimetre, a milliradian) so that an idle axis is not blown up."""
    return _numbers(np.maximum(values.std(axis=0), 1e-3))


def begin(store: LatentStore, episodes: Sequence[int], config: PosttrainConfig, *, init_from: str | None) -> InitialPredictor:
    """The predictor of a config for a latent store, with the weights of `init_from` where one is given.

    Embeddings of actions or states that are as wide as the source's are taken from it, with the numbers that it standardises
    them by; others are fresh, as is that of extrinsics where the source never used it.

    Raises InputError where extrinsics are asked for and unknown, ArtifactError where the source was trained on the latents of
    another encoder, ConfigError where it is another network than the config describes.
    """
    if config.predictor.extrinsics and not store.has_extrinsics:
        raise InputError(
            f"{store.path}: predictor.extrinsics: true, but not every recording has its camera's extrinsics; set it to false"
        )
    spec = ac_predictor_spec(store, episodes, config)
    generator = torch.Generator().manual_seed(config.seed)
    if init_from is None:
        if config.trainable != "all":
            raise ConfigError(f"trainable: {config.trainable} goes on with a trained predictor; name it by --init-from")
        return _prepared(InitialPredictor(AcPredictor(spec, generator=generator)), config)
    about = read_checkpoint(init_from).config.get("vjepa2cli", {})
    _check_latents(init_from, about, store)
    source = load_ac_predictor(init_from, config.predictor.num_heads)
    spec = _kept(source.spec, spec)
    _check_same(init_from, source.spec, spec)
    predictor = AcPredictor(spec, generator=generator)
    fresh = _fresh_parts(source.spec, spec)
    state = {name: tensor for name, tensor in source.state_dict().items() if name.split(".")[0] not in fresh}
    predictor.load_state_dict(state, strict=False)
    initial = InitialPredictor(predictor, state_digest(source), int(about.get("trained_steps", 0)), fresh)
    return _prepared(initial, config)


def _prepared(initial: InitialPredictor, config: PosttrainConfig) -> InitialPredictor:
    """Say what is trained, and whether activations are kept."""
    predictor = initial.predictor
    predictor.activation_checkpointing = config.predictor.activation_checkpointing
    if config.trainable == "conditioning":
        predictor.requires_grad_(False)
        for embedding in predictor.conditioning:
            embedding.requires_grad_(True)
    return initial


def _kept(source: AcPredictorSpec, wanted: AcPredictorSpec) -> AcPredictorSpec:
    """`wanted`, with the numbers by which a source standardises inputs of the same width: its weights are used to them."""
    kept: dict[str, Any] = {"rotary": source.rotary}
    for name in ("action", "state"):
        if getattr(source, f"{name}_dim") == getattr(wanted, f"{name}_dim"):
            kept |= {f"{name}_{number}": getattr(source, f"{name}_{number}") for number in ("mean", "std")}
    return replace(wanted, **kept)


def _fresh_parts(source: AcPredictorSpec, wanted: AcPredictorSpec) -> tuple[str, ...]:
    fresh = [
        f"{name}_encoder" for name in ("action", "state") if getattr(source, f"{name}_dim") != getattr(wanted, f"{name}_dim")
    ]
    return (*fresh, "extrinsics_encoder") if wanted.use_extrinsics and not source.use_extrinsics else tuple(fresh)


def _check_latents(source: str, about: dict[str, Any], store: LatentStore) -> None:
    """A folder of ours says what latents it was trained on; a bare checkpoint does not, and only the width can tell."""
    encoder = about.get("encoder")
    if encoder is not None and encoder["digest"] != store.encoder_digest:
        raise ArtifactError(
            f"{store.path}: holds latents of the encoder {store.encoder_source} ({store.encoder_digest[:12]}), but {source} was "
            f"trained on those of {encoder['source']} ({encoder['digest'][:12]}); precompute with that encoder"
        )
    preprocessing = about.get("preprocessing")
    if preprocessing is not None and preprocessing != store.preprocessing:
        raise ArtifactError(
            f"{store.path}: its frames were prepared as {store.preprocessing}, those of {source} as {preprocessing}; precompute "
            "with the same crop and geometry"
        )


def _check_same(source: str, given: AcPredictorSpec, wanted: AcPredictorSpec) -> None:
    before, now = asdict(given), asdict(wanted)
    if before["latent_dim"] != now["latent_dim"]:
        raise ConfigError(
            f"{source}: its AC predictor reads latents of width {before['latent_dim']}, these are {now['latent_dim']} wide; "
            "precompute with its encoder"
        )
    widths = {f"{name}_{number}" for name in ("action", "state") for number in ("dim", "mean", "std")}
    for name in now:
        if name not in _FREE | widths and before[name] != now[name]:
            raise ConfigError(
                f"{source}: its AC predictor has {name} {before[name]}, the config and the latents say {now[name]}; set "
                f"predictor.{name}"
            )
