"""Weights: from every kind of source to a network that fits it strictly.

A source is a model folder (ours, or one of transformers), a run directory that has one, a checkpoint of a pretraining
(`RUN_DIR/checkpoints/step_*`), a `.safetensors` or `.pt` file, the name of a shipped network or of a released checkpoint whose
file lies in the cache folder, or one of these after `untrained:` (same spec, fresh weights) or `pixels:` (pixel averages over the
same patches).

Where a file holds several encoders, the moving average is taken (`target_encoder`, else `ema_encoder`) before `encoder`: every
released evaluation and the AC predictor were trained on it, and it is the default of the newest released hub code. The weights
that transformers offers were converted from `encoder`; pass `checkpoint_key="encoder"` for features equal to theirs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from vjepa2cli import registry
from vjepa2cli.errors import WeightsError
from vjepa2cli.models.ac_predictor import AcPredictor
from vjepa2cli.models.checkpoints import ENCODER_KEYS, Checkpoint, read_checkpoint
from vjepa2cli.models.digests import encoder_digest, state_digest
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.encoder_v21 import EncoderV21, EncoderV21Spec
from vjepa2cli.models.fitting import Stated, StateDict, fit_ac_predictor, fit_any_encoder, fit_any_predictor, fit_any_probe
from vjepa2cli.models.key_mapping import from_transformers, to_folder, to_transformers
from vjepa2cli.models.pixels import PixelEncoder, PixelSpec
from vjepa2cli.models.predictor import Predictor
from vjepa2cli.models.predictor_v21 import PredictorV21
from vjepa2cli.models.probe import AnticipationProbe, AttentiveProbe
from vjepa2cli.models.world_model import FrameEncoder

__all__ = [
    "encoder_digest",
    "encoder_source",
    "from_transformers",
    "load_ac_predictor",
    "load_encoder",
    "load_predictor",
    "load_probe",
    "load_world_model_parts",
    "state_digest",
    "to_folder",
    "to_transformers",
]

Source = str | Path
Device = torch.device | str
AnySpec = EncoderSpec | EncoderV21Spec | PixelSpec

_Network = TypeVar("_Network", bound=nn.Module)


def load_encoder(
    source: Source, num_heads: int | None = None, *, checkpoint_key: str | None = None, device: Device = "cpu"
) -> FrameEncoder:
    """Load an encoder of V-JEPA 2 or 2.1; `num_heads` is needed where the source (a bare `.pt` or `.safetensors`) lacks it.

    `checkpoint_key` picks one of several encoders in a file (see above). Raises WeightsError where the source is not found,
    cannot be read or does not fit.
    """
    variant, _, rest = str(source).partition(":")
    if variant in _VARIANTS:
        # The spec alone: the encoder that it is read from is gone before another is drawn.
        return _VARIANTS[variant](load_encoder(rest, num_heads, checkpoint_key=checkpoint_key).spec).to(device)
    return take_encoder(read_checkpoint(source), num_heads, checkpoint_key=checkpoint_key).to(device)


def load_predictor(source: Source, num_heads: int | None = None, *, device: Device = "cpu") -> Predictor | PredictorV21:
    """Load a pretraining predictor of V-JEPA 2 or 2.1; see `load_encoder`."""
    return take_predictor(read_checkpoint(source), num_heads).to(device)


def load_ac_predictor(source: Source, num_heads: int | None = None, *, device: Device = "cpu") -> AcPredictor:
    """Load an action-conditioned predictor; see `load_encoder`."""
    return _take(read_checkpoint(source), "ac_predictor", fit_ac_predictor, num_heads=num_heads).to(device)


def load_probe(source: Source, num_heads: int | None = None, *, device: Device = "cpu") -> AttentiveProbe | AnticipationProbe:
    """Load an attentive probe; see `load_encoder`.

    `probe(tokens)` gives logits [B, classes]; an Epic-Kitchens probe gives three, as `ActionLogits(verb, noun, action)`. From a
    classifier folder of transformers comes what transformers computes, with the heads and the eps of its encoder, except by the
    released name, which means the released probe.
    """
    return take_probe(read_checkpoint(source), num_heads).to(device)


def take_encoder(
    checkpoint: Checkpoint, num_heads: int | None = None, *, checkpoint_key: str | None = None
) -> Encoder | EncoderV21:
    """The encoder of a checkpoint, which holds it no more; see `load_encoder`."""
    key = checkpoint_key or next((key for key in ENCODER_KEYS if key in checkpoint.networks), "encoder")
    return _take(checkpoint, key, fit_any_encoder, num_heads=num_heads)


def take_predictor(checkpoint: Checkpoint, num_heads: int | None = None) -> Predictor | PredictorV21:
    """The pretraining predictor of a checkpoint, which holds it no more; see `load_predictor`."""
    return _take(checkpoint, "predictor", fit_any_predictor, num_heads=num_heads)


def take_probe(checkpoint: Checkpoint, num_heads: int | None = None) -> AttentiveProbe | AnticipationProbe:
    """The probe of a checkpoint, which holds it no more; see `load_probe`."""
    return _take(checkpoint, "probe", fit_any_probe, num_heads=num_heads)


def load_world_model_parts(
    source: Source, device: Device = "cpu", *, num_heads: int | None = None, predictor_heads: int | None = None
) -> tuple[FrameEncoder, AcPredictor, dict[str, Any]]:
    """The encoder and the AC predictor of a world model, and what its folder says of it (of a bare checkpoint: nothing).

    A bare checkpoint carries its own encoder, and asks for the heads of both networks. An AC model folder names its encoder and
    the encoder's digest: a relative source is looked for from the working directory, then from the model folder and the folders
    above it. Raises WeightsError where it is not found or is another encoder.
    """
    checkpoint = read_checkpoint(source)
    ac = _take(checkpoint, "ac_predictor", fit_ac_predictor, num_heads=predictor_heads, argument="predictor_heads").to(device)
    about = dict(checkpoint.config.get("vjepa2cli", {}))
    separate = encoder_source(checkpoint)
    if separate is None:
        return take_encoder(checkpoint, num_heads).to(device), ac, about
    encoder, named = load_encoder(separate, num_heads, device=device), about["encoder"]
    if encoder_digest(encoder) != named["digest"]:
        raise WeightsError(
            f"{checkpoint.where}: was trained on the latents of another encoder than {named['source']} is now "
            f"(digest {named['digest'][:12]}); restore that encoder, or precompute and post-train again"
        )
    return encoder, ac, about


def encoder_source(checkpoint: Checkpoint) -> str | None:
    """Where the encoder lies that a world model's folder names; None where the world model carries its own."""
    named = checkpoint.config.get("vjepa2cli", {}).get("encoder")
    return None if named is None else _find_beside(Path(checkpoint.where), named["source"])


def _take(
    checkpoint: Checkpoint,
    network: str,
    fit: Callable[[StateDict, Stated], _Network],
    *,
    num_heads: int | None = None,
    argument: str = "num_heads",
) -> _Network:
    """Fit one network, taken out of a checkpoint, by the numbers that this states and, if it states none, `num_heads`."""
    if network not in checkpoint.networks:
        raise WeightsError(
            f"{checkpoint.where}: holds no {network}; it holds {', '.join(sorted(checkpoint.networks)) or 'nothing'}"
        )
    numbers = dict(checkpoint.stated.get("encoder" if network in ENCODER_KEYS else network, {}))
    if num_heads is not None and numbers.setdefault("num_heads", num_heads) != num_heads:
        raise WeightsError(f"{checkpoint.where}: {argument}: {num_heads} was asked for, the file says {numbers['num_heads']}")
    stated = Stated(f"{checkpoint.where}: {network}", numbers, argument, checkpoint.files)
    return fit(checkpoint.networks.pop(network), stated)


def _untrained(spec: AnySpec) -> FrameEncoder:
    """The same architecture with fresh weights, drawn by the released rule from seed 0."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(spec, EncoderV21Spec):
        return EncoderV21(spec, generator=generator).eval()
    return Encoder(spec, generator=generator).eval() if isinstance(spec, EncoderSpec) else PixelEncoder(spec).eval()


def _pixels(spec: AnySpec) -> FrameEncoder:
    """Pixel averages over the same patches and tubelets."""
    return PixelEncoder(
        PixelSpec(
            patch_size=spec.patch_size,
            tubelet_size=spec.tubelet_size,
            in_channels=spec.in_channels,
            crop=spec.crop,
            num_frames=spec.num_frames,
        )
    ).eval()


_VARIANTS: dict[str, Callable[[AnySpec], FrameEncoder]] = {"untrained": _untrained, "pixels": _pixels}


def _find_beside(folder: Path, source: str) -> str:
    """`source` as it is, or, if it is a relative path that is not here, from `folder` and from those above it."""
    prefix, separator, rest = source.rpartition(":")
    if Path(rest).exists() or rest in registry.RELEASED or rest in registry.SHIPPED:
        return source
    found = next((above / rest for above in (folder, *folder.absolute().parents) if (above / rest).exists()), None)
    if found is None:
        raise WeightsError(
            f"{folder}: its encoder {rest} is neither here nor beside it; restore it, or run from where it was trained"
        )
    return f"{prefix}{separator}{found}"
