"""From a state dict to a network: the spec is read from the shapes, and every key must fit."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vjepa2cli.errors import WeightsError
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.encoder_v21 import EncoderV21, EncoderV21Spec
from vjepa2cli.models.predictor import Predictor, PredictorSpec, mask_index_of_file
from vjepa2cli.models.predictor_v21 import PredictorV21, PredictorV21Spec
from vjepa2cli.models.probe import AttentiveProbe, ProbeSpec

_Spec = TypeVar("_Spec", EncoderSpec, EncoderV21Spec, PredictorSpec, PredictorV21Spec, AcPredictorSpec, ProbeSpec)
_Network = TypeVar("_Network", bound=nn.Module)

_LISTED = 8
"""Keys named in one line of an error; the rest are counted."""

_LEGACY_KEYS = ("pos_embed", "predictor_pos_embed")
"""Sine-cosine positions that released files still hold and that rotary networks never read."""

_V2_1_KEYS = ("norms_block.", "patch_embed_img.", "video_mod_embed", "predictor_embed.0.", "predictor_proj_context.")
"""How the names begin by which a network of V-JEPA 2.1 is known."""


@dataclasses.dataclass(frozen=True)
class Stated:
    """What is known of a network besides its tensors: fields of its spec, and where they come from for the error message."""

    where: str
    numbers: Mapping[str, Any]


def fit_any_encoder(state: Mapping[str, Tensor], stated: Stated) -> Encoder | EncoderV21:
    """An encoder of V-JEPA 2 or 2.1, as the names in `state` tell; see `fit_encoder`."""
    if any(name.startswith(_V2_1_KEYS) for name in state):
        return _fit(EncoderV21, _spec(EncoderV21Spec, stated, state, _encoder_numbers), state, stated.where)
    return fit_encoder(state, stated)


def fit_encoder(state: Mapping[str, Tensor], stated: Stated) -> Encoder:
    """An encoder that holds `state`; raises WeightsError where the spec stays open or a key does not fit."""
    return _fit(Encoder, _spec(EncoderSpec, stated, state, _encoder_numbers), state, stated.where)


def fit_any_predictor(state: Mapping[str, Tensor], stated: Stated) -> Predictor | PredictorV21:
    """A pretraining predictor of V-JEPA 2 or 2.1, as the names in `state` tell; see `fit_encoder`."""
    if any(name.startswith(_V2_1_KEYS) for name in state):
        return _fit(PredictorV21, _spec(PredictorV21Spec, stated, state, _predictor_v21_numbers), state, stated.where)
    return fit_predictor(state, stated)


def fit_predictor(state: Mapping[str, Tensor], stated: Stated) -> Predictor:
    """A pretraining predictor that holds `state`; see `fit_encoder`."""
    return _fit(Predictor, _spec(PredictorSpec, stated, state, _predictor_numbers), state, stated.where)


def fit_ac_predictor(state: Mapping[str, Tensor], stated: Stated) -> AcPredictor:
    """An AC predictor that holds `state`; see `fit_encoder`."""
    return _fit(AcPredictor, _spec(AcPredictorSpec, stated, state, _ac_predictor_numbers), state, stated.where)


def fit_probe(state: Mapping[str, Tensor], stated: Stated) -> AttentiveProbe:
    """An attentive probe that holds `state`; see `fit_encoder`."""
    return _fit(AttentiveProbe, _spec(ProbeSpec, stated, state, _probe_numbers), state, stated.where)


def mlp_ratio(hidden_dim: int, dim: int) -> float:
    """The ratio of which `int(dim * ratio)` is `hidden_dim`, rounding errors or not."""
    ratio = hidden_dim / dim
    while int(dim * ratio) < hidden_dim:
        ratio = math.nextafter(ratio, math.inf)
    return ratio


def _spec(
    spec_class: type[_Spec],
    stated: Stated,
    state: Mapping[str, Tensor],
    read_shapes: Callable[[Mapping[str, Tensor], str], dict[str, Any]],
) -> _Spec:
    """The spec: stated numbers first, then what the shapes say. A file that says it all is checked key by key instead."""
    fields = {field.name for field in dataclasses.fields(spec_class)}
    unknown = sorted(set(stated.numbers) - fields)
    if unknown:
        raise WeightsError(
            f"{stated.where}: the spec holds {', '.join(unknown)}, which this version does not know; update vjepa2cli"
        )
    required = {field.name for field in dataclasses.fields(spec_class) if field.default is dataclasses.MISSING}
    numbers = dict(stated.numbers)
    if not required <= set(numbers):
        numbers = read_shapes(state, stated.where) | numbers
    if "num_heads" not in numbers:
        raise WeightsError(f"{stated.where}: the file does not say into how many heads attention splits; pass num_heads=")
    # JSON has no tuples.
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in numbers.items()}
    return spec_class(**values)


def _fit(
    network_class: Callable[[Any], _Network],
    spec: EncoderSpec | PredictorSpec | PredictorV21Spec | AcPredictorSpec | ProbeSpec,
    state: Mapping[str, Tensor],
    where: str,
) -> _Network:
    """Build the network and give it the tensors, in float32; nothing is drawn that would be overwritten."""
    with torch.device("meta"):
        network = network_class(spec)
    wanted = network.state_dict()
    held = {name: tensor for name, tensor in state.items() if name not in _LEGACY_KEYS}
    faults = {
        "missing": sorted(wanted.keys() - held.keys()),
        "unexpected": sorted(held.keys() - wanted.keys()),
        "misshapen": [
            f"{name} {list(held[name].shape)} instead of {list(wanted[name].shape)}"
            for name in sorted(wanted.keys() & held.keys())
            if held[name].shape != wanted[name].shape
        ],
    }
    if any(faults.values()):
        raise WeightsError(f"{where}: {'; '.join(_listed(kind, keys) for kind, keys in faults.items() if keys)}")
    # A copy: what is loaded must neither change with the file nor depend on how its bytes are aligned.
    network.load_state_dict({name: tensor.to(torch.float32, copy=True) for name, tensor in held.items()}, assign=True)
    return network.eval()


def _listed(kind: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return f"{len(keys)} {kind} {'key' if len(keys) == 1 else 'keys'}: {', '.join(keys[:_LISTED])}{more}"


def _shape(state: Mapping[str, Tensor], key: str, where: str, *, ndim: int) -> list[int]:
    if key not in state:
        raise WeightsError(f"{where}: 1 missing key: {key}; without it the network's shape is unknown")
    shape = list(state[key].shape)
    if len(shape) != ndim:
        raise WeightsError(f"{where}: 1 misshapen key: {key} {shape}, which should have {ndim} dimensions")
    return shape


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    indices = [name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)]
    return max((int(index) + 1 for index in indices if index.isdecimal()), default=0)


def _mlp_ratio(state: Mapping[str, Tensor], key: str, where: str) -> float:
    return mlp_ratio(*_shape(state, key, where, ndim=2))


def _encoder_numbers(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    embed_dim, in_channels, tubelet_size, patch_size, _ = _shape(state, "patch_embed.proj.weight", where, ndim=5)
    return {
        "embed_dim": embed_dim,
        "depth": _depth(state, "blocks."),
        "mlp_ratio": _mlp_ratio(state, "blocks.0.mlp.fc1.weight", where),
        "patch_size": patch_size,
        "tubelet_size": tubelet_size,
        "in_channels": in_channels,
    }


def _predictor_numbers(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    embed_dim, encoder_dim = _shape(state, "predictor_embed.weight", where, ndim=2)
    return {
        "encoder_dim": encoder_dim,
        "embed_dim": embed_dim,
        "depth": _depth(state, "predictor_blocks."),
        "mlp_ratio": _mlp_ratio(state, "predictor_blocks.0.mlp.fc1.weight", where),
        **_mask_tokens(state),
    }


def _mask_tokens(state: Mapping[str, Tensor]) -> dict[str, Any]:
    count = _depth(state, "mask_tokens.")
    return {"num_mask_tokens": count, "inference_mask_index": mask_index_of_file(count)}


def _predictor_v21_numbers(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    # Several levels go through two linear maps, the first of which ends at the width of one level.
    mixed = "predictor_embed.0.weight" in state
    encoder_dim, num_channels = _shape(state, "predictor_embed.0.weight" if mixed else "predictor_embed.weight", where, ndim=2)
    embed_dim = _shape(state, "predictor_norm.weight", where, ndim=1)[0]
    num_levels = num_channels // encoder_dim if mixed else 1
    return {
        "encoder_dim": encoder_dim if mixed else num_channels,
        "target_dim": _shape(state, "predictor_proj.weight", where, ndim=2)[0] // num_levels,
        "embed_dim": embed_dim,
        "depth": _depth(state, "predictor_blocks."),
        "mlp_ratio": _mlp_ratio(state, "predictor_blocks.0.mlp.fc1.weight", where),
        **_mask_tokens(state),
        "num_levels": num_levels,
    }


def _ac_predictor_numbers(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    embed_dim, latent_dim = _shape(state, "predictor_embed.weight", where, ndim=2)
    return {
        "latent_dim": latent_dim,
        "embed_dim": embed_dim,
        "depth": _depth(state, "predictor_blocks."),
        "mlp_ratio": _mlp_ratio(state, "predictor_blocks.0.mlp.fc1.weight", where),
        "action_dim": _shape(state, "action_encoder.weight", where, ndim=2)[1],
        "state_dim": _shape(state, "state_encoder.weight", where, ndim=2)[1],
    }


def _probe_numbers(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    num_classes, embed_dim = _shape(state, "linear.weight", where, ndim=2)
    return {
        "embed_dim": embed_dim,
        "num_classes": num_classes,
        "depth": _depth(state, "pooler.blocks.") + 1,
        "mlp_ratio": _mlp_ratio(state, "pooler.cross_attention_block.mlp.fc1.weight", where),
    }
