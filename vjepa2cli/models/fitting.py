"""From a state dict to a network: the spec is read from the shapes, and every key must fit."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vjepa2cli.errors import KeyFault, WeightsError
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.checkpoint_files import MappedFile
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.encoder_v21 import EncoderV21, EncoderV21Spec
from vjepa2cli.models.predictor import Predictor, PredictorSpec, mask_index_of_file
from vjepa2cli.models.predictor_v21 import PredictorV21, PredictorV21Spec
from vjepa2cli.models.probe import AnticipationProbe, AnticipationProbeSpec, AttentiveProbe, ProbeSpec

_Spec = TypeVar(
    "_Spec",
    EncoderSpec,
    EncoderV21Spec,
    PredictorSpec,
    PredictorV21Spec,
    AcPredictorSpec,
    ProbeSpec,
    AnticipationProbeSpec,
)
_Network = TypeVar("_Network", bound=nn.Module)

StateDict = dict[str, Tensor]

_FORGET_EVERY = 1 << 24
"""Bytes that are read between two times of letting the pages of the files go."""

_LISTED = 8
"""Keys named in one line of an error; the rest are counted."""

_LEGACY_KEYS = ("pos_embed", "predictor_pos_embed")
"""Sine-cosine positions that released files still hold and that rotary networks never read."""

_V2_1_KEYS = ("norms_block.", "patch_embed_img.", "video_mod_embed", "predictor_embed.0.", "predictor_proj_context.")
"""How the names begin by which a network of V-JEPA 2.1 is known."""

_ANTICIPATION_KEYS = ("verb_classifier.", "noun_classifier.", "action_classifier.")
"""Those by which a probe of the next action is known."""


@dataclasses.dataclass(frozen=True)
class Stated:
    """What is known of a network besides its tensors: fields of its spec, and where they come from for the error message.

    heads_argument: what to pass where nothing says the heads; files: those in which the tensors lie, mapped.
    """

    where: str
    numbers: Mapping[str, Any]
    heads_argument: str = "num_heads"
    files: tuple[MappedFile, ...] = ()

    def forget(self) -> None:
        """Let go of what was read of the files."""
        for file in self.files:
            file.forget()


def fit_any_encoder(state: StateDict, stated: Stated) -> Encoder | EncoderV21:
    """An encoder of V-JEPA 2 or 2.1, as the names in `state` tell; see `fit_encoder`."""
    if any(name.startswith(_V2_1_KEYS) for name in state):
        return _fit(EncoderV21, _spec(EncoderV21Spec, stated, state, _encoder_numbers), state, stated)
    return fit_encoder(state, stated)


def fit_encoder(state: StateDict, stated: Stated) -> Encoder:
    """An encoder that holds `state`; raises WeightsError where the spec stays open or a key does not fit."""
    return _fit(Encoder, _spec(EncoderSpec, stated, state, _encoder_numbers), state, stated)


def fit_any_predictor(state: StateDict, stated: Stated) -> Predictor | PredictorV21:
    """A pretraining predictor of V-JEPA 2 or 2.1, as the names in `state` tell; see `fit_encoder`."""
    if any(name.startswith(_V2_1_KEYS) for name in state):
        return _fit(PredictorV21, _spec(PredictorV21Spec, stated, state, _predictor_v21_numbers), state, stated)
    return fit_predictor(state, stated)


def fit_predictor(state: StateDict, stated: Stated) -> Predictor:
    """A pretraining predictor that holds `state`; see `fit_encoder`."""
    return _fit(Predictor, _spec(PredictorSpec, stated, state, _predictor_numbers), state, stated)


def fit_ac_predictor(state: StateDict, stated: Stated) -> AcPredictor:
    """An AC predictor that holds `state`; see `fit_encoder`."""
    return _fit(AcPredictor, _spec(AcPredictorSpec, stated, state, _ac_predictor_numbers), state, stated)


def fit_any_probe(state: StateDict, stated: Stated) -> AttentiveProbe | AnticipationProbe:
    """A probe of one classifier, or of the three of an action, as the names in `state` tell; see `fit_encoder`."""
    if any(name.startswith(_ANTICIPATION_KEYS) for name in state):
        spec = _spec(AnticipationProbeSpec, stated, state, _anticipation_probe_numbers)
        return _fit(AnticipationProbe, spec, state, stated)
    return fit_probe(state, stated)


def fit_probe(state: StateDict, stated: Stated) -> AttentiveProbe:
    """An attentive probe of one classifier that holds `state`; see `fit_encoder`."""
    return _fit(AttentiveProbe, _spec(ProbeSpec, stated, state, _probe_numbers), state, stated)


def mlp_ratio(hidden_dim: int, dim: int) -> float:
    """The ratio of which `int(dim * ratio)` is `hidden_dim`, rounding errors or not."""
    ratio = hidden_dim / dim
    while int(dim * ratio) < hidden_dim:
        ratio = math.nextafter(ratio, math.inf)
    return ratio


def _spec(
    spec_class: type[_Spec],
    stated: Stated,
    state: StateDict,
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
        raise WeightsError(
            f"{stated.where}: the file does not say into how many heads attention splits; pass {stated.heads_argument}="
        )
    # JSON has no tuples.
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in numbers.items()}
    return spec_class(**values)


def _fit(network_class: Callable[[_Spec], _Network], spec: _Spec, state: StateDict, stated: Stated) -> _Network:
    """Build the network and give it the tensors, in float32; nothing is drawn that would be overwritten.

    `state` is used up, and what was read of mapped files is let go, so that no tensor lies in memory twice for long.
    """
    with torch.device("meta"):
        network = network_class(spec)
    for name in _LEGACY_KEYS:
        state.pop(name, None)
    _check_keys({name: list(tensor.shape) for name, tensor in state.items()}, network, stated.where)
    held: StateDict = {}
    num_read = 0
    for name in network.state_dict():
        # A copy: what is loaded must neither change with the file nor depend on how its bytes are aligned.
        held[name] = state.pop(name).to(torch.float32, copy=True)
        num_read += held[name].nbytes
        if num_read > _FORGET_EVERY:
            num_read = 0
            stated.forget()
    stated.forget()
    network.load_state_dict(held, assign=True)
    return network.eval()


def _check_keys(found: Mapping[str, list[int]], network: nn.Module, where: str) -> None:
    """Raise a WeightsError that has every key that does not fit, of which its line names the first."""
    wanted = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    faults = (
        *(KeyFault("missing", name, "-", str(wanted[name])) for name in sorted(wanted.keys() - found.keys())),
        *(KeyFault("unexpected", name, str(found[name]), "-") for name in sorted(found.keys() - wanted.keys())),
        *(
            KeyFault("misshapen", name, str(found[name]), str(wanted[name]))
            for name in sorted(wanted.keys() & found.keys())
            if found[name] != wanted[name]
        ),
    )
    if faults:
        kinds = {kind: [fault for fault in faults if fault.kind == kind] for kind in ("missing", "unexpected", "misshapen")}
        raise WeightsError(f"{where}: {'; '.join(_listed(kind, own) for kind, own in kinds.items() if own)}", faults=faults)


def _listed(kind: str, faults: list[KeyFault]) -> str:
    shapes = kind == "misshapen"
    named = [f"{fault.key} {fault.found} instead of {fault.wanted}" if shapes else fault.key for fault in faults[:_LISTED]]
    more = f" and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
    return f"{len(faults)} {kind} {'key' if len(faults) == 1 else 'keys'}: {', '.join(named)}{more}"


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
    return {"embed_dim": embed_dim, "num_classes": num_classes, **_pooler_numbers(state, where)}


def _anticipation_probe_numbers(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    counts = {f"num_{kind}s": _shape(state, f"{kind}_classifier.weight", where, ndim=2)[0] for kind in ("verb", "noun", "action")}
    embed_dim = _shape(state, "action_classifier.weight", where, ndim=2)[1]
    return {"embed_dim": embed_dim, **counts, **_pooler_numbers(state, where)}


def _pooler_numbers(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    return {
        "depth": _depth(state, "pooler.blocks.") + 1,
        "mlp_ratio": _mlp_ratio(state, "pooler.cross_attention_block.mlp.fc1.weight", where),
    }
