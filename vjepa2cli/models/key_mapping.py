"""One table between the official parameter names and those of `transformers`, used in both directions.

Source: convert_vjepa2_to_hf.py and modeling_vjepa2.py of huggingface/transformers.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from vjepa2cli.errors import WeightsError
from vjepa2cli.models.encoder import Encoder
from vjepa2cli.models.encoder_v21 import EncoderV21
from vjepa2cli.models.fitting import Stated, StateDict, fit_encoder, fit_predictor
from vjepa2cli.models.predictor import Predictor, mask_index_of_file
from vjepa2cli.models.predictor_v21 import PredictorV21
from vjepa2cli.models.probe import AttentiveProbe, ProbeSpec

MODEL_TYPE_V2_1 = "vjepa2.1"
"""The `model_type` of a model folder that transformers has no class for."""

_MASK_TOKENS = "predictor.embeddings.mask_tokens"


@dataclass(frozen=True)
class _Row:
    """An official name and what it is called there; several names there stand for equal parts of one tensor, in order.

    `{i}` is a block's index; a name that ends in a dot goes on with weight or bias.
    """

    official: str
    theirs: tuple[str, ...]


def _block(official: str, theirs: str, attention: str, qkv: tuple[str, str, str], proj: str, norm: str) -> tuple[_Row, ...]:
    return (
        _Row(f"{official}.attn.qkv.", tuple(f"{theirs}.{attention}.{name}." for name in qkv)),
        _Row(f"{official}.attn.proj.", (f"{theirs}.{attention}.{proj}.",)),
        *(_Row(f"{official}.norm{k}.", (f"{theirs}.{norm}{k}.",)) for k in (1, 2)),
        *(_Row(f"{official}.mlp.fc{k}.", (f"{theirs}.mlp.fc{k}.",)) for k in (1, 2)),
    )


_FIXED: dict[str, Any] = {"layer_norm_eps": 1e-6, "qkv_bias": True, "hidden_act": "gelu"}
"""What a config of transformers may say and every V-JEPA 2 has; its classifiers compute with this eps in the probe too."""

_POOLER_MLP_RATIO = 4.0
"""The one of transformers' pooler, whatever the encoder's."""

_QKV = ("query", "key", "value")
_QKV_PROJ = ("q_proj", "k_proj", "v_proj")
_CROSS, _CROSS_THEIRS = "pooler.cross_attention_block", "pooler.cross_attention_layer"

_TABLE: dict[str, tuple[_Row, ...]] = {
    "encoder": (
        _Row("patch_embed.proj.", ("encoder.embeddings.patch_embeddings.proj.",)),
        *_block("blocks.{i}", "encoder.layer.{i}", "attention", _QKV, "proj", "norm"),
        _Row("norm.", ("encoder.layernorm.",)),
    ),
    "predictor": (
        _Row("predictor_embed.", ("predictor.embeddings.predictor_embeddings.",)),
        *_block("predictor_blocks.{i}", "predictor.layer.{i}", "attention", _QKV, "proj", "norm"),
        _Row("predictor_norm.", ("predictor.layernorm.",)),
        _Row("predictor_proj.", ("predictor.proj.",)),
    ),
    "probe": (
        _Row("pooler.query_tokens", ("pooler.query_tokens",)),
        *_block("pooler.blocks.{i}", "pooler.self_attention_layers.{i}", "self_attn", _QKV_PROJ, "out_proj", "layer_norm"),
        _Row(f"{_CROSS}.xattn.q.", (f"{_CROSS_THEIRS}.cross_attn.q_proj.",)),
        _Row(f"{_CROSS}.xattn.kv.", tuple(f"{_CROSS_THEIRS}.cross_attn.{name}." for name in ("k_proj", "v_proj"))),
        *(_Row(f"{_CROSS}.norm{k}.", (f"{_CROSS_THEIRS}.layer_norm{k}.",)) for k in (1, 2)),
        *(_Row(f"{_CROSS}.mlp.fc{k}.", (f"{_CROSS_THEIRS}.mlp.fc{k}.",)) for k in (1, 2)),
        _Row("linear.", ("classifier.",)),
    ),
}


def to_transformers_names(network: str, state: Mapping[str, Tensor]) -> StateDict:
    """A state dict of "encoder", "predictor" or "probe" under the names of `transformers`; official names are given."""
    renamed: StateDict = {}
    mask_tokens = {name: tensor for name, tensor in state.items() if name.startswith("mask_tokens.")}
    if mask_tokens:
        renamed[_MASK_TOKENS] = torch.stack([mask_tokens[f"mask_tokens.{k}"] for k in range(len(mask_tokens))])
    for name, tensor in state.items():
        if name in mask_tokens:
            continue
        found = _find(name, ((row, row.official) for row in _TABLE[network]))
        if found is None:
            raise WeightsError(f"{name}: is no parameter of a V-JEPA 2 {network}, so it has no name in transformers")
        row, filled = found
        for theirs, part in zip(row.theirs, tensor.chunk(len(row.theirs)), strict=True):
            renamed[filled(theirs)] = part.contiguous()
    return renamed


def to_official_names(tensors: Mapping[str, Tensor]) -> dict[str, StateDict]:
    """State dicts by network ("encoder", "predictor", "probe") under official names; names of `transformers` are given.

    A name that the table lacks, or a part whose other parts are missing, stays as it is: strict loading then lists it.
    """
    networks: dict[str, StateDict] = {}
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    wholes: dict[tuple[str, str], list[str]] = {}
    for name, tensor in tensors.items():
        theirs_name = name.removeprefix("vjepa2.")
        if theirs_name == _MASK_TOKENS:
            networks.setdefault("predictor", {}).update({f"mask_tokens.{k}": token for k, token in enumerate(tensor.unbind())})
            continue
        for network, rows in _TABLE.items():
            found = _find(theirs_name, ((row, theirs) for row in rows for theirs in row.theirs))
            if found is not None:
                row, filled = found
                whole = (network, filled(row.official))
                parts.setdefault(whole, {})[theirs_name] = tensor
                wholes[whole] = [filled(theirs) for theirs in row.theirs]
                break
        else:
            networks.setdefault("predictor" if theirs_name.startswith("predictor.") else "encoder", {})[name] = tensor
    for (network, official), held in parts.items():
        names = wholes[network, official]
        if len(held) < len(names):
            joined = held
        else:
            # What has one part stays where it lies: only fused weights are put together.
            joined = {official: torch.cat([held[part] for part in names]) if len(names) > 1 else held[names[0]]}
        networks.setdefault(network, {}).update(joined)
    return networks


def stated_numbers(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The fields of each network's spec that a `config.json` of transformers states.

    Raises WeightsError where it states what no released V-JEPA 2 computes with.
    """
    odd = {key: config[key] for key, value in _FIXED.items() if config.get(key, value) != value}
    if odd:
        raise WeightsError(f"config.json: {odd} is no V-JEPA 2, which has { ({key: _FIXED[key] for key in odd}) }")
    shared = {"num_heads": config.get("num_attention_heads"), "mlp_ratio": config.get("mlp_ratio")}
    patch_size = config.get("patch_size")
    encoder = shared | {
        "embed_dim": config.get("hidden_size"),
        "depth": config.get("num_hidden_layers"),
        "patch_size": patch_size[0] if isinstance(patch_size, list) else patch_size,
        "tubelet_size": config.get("tubelet_size"),
        "in_channels": config.get("in_chans"),
        "crop": config.get("crop_size"),
        "num_frames": config.get("frames_per_clip"),
    }
    predictor = {
        "encoder_dim": config.get("hidden_size"),
        "embed_dim": config.get("pred_hidden_size"),
        "depth": config.get("pred_num_hidden_layers"),
        "num_heads": config.get("pred_num_attention_heads"),
        "mlp_ratio": config.get("pred_mlp_ratio"),
        "num_mask_tokens": config.get("pred_num_mask_tokens"),
        "inference_mask_index": mask_index_of_file(config.get("pred_num_mask_tokens", 0)),
    }
    probe = {"num_heads": config.get("num_attention_heads"), "eps": _FIXED["layer_norm_eps"]}
    networks = {"encoder": encoder, "predictor": predictor, "probe": probe}
    return {network: {key: value for key, value in numbers.items() if value is not None} for network, numbers in networks.items()}


def from_transformers(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Encoder, Predictor | None]:
    """The encoder and, where there is one, the predictor of a `transformers` V-JEPA 2; raises WeightsError as loading does."""
    networks, stated = to_official_names(tensors), stated_numbers(config)
    encoder = fit_encoder(networks.get("encoder", {}), Stated("transformers model: encoder", stated["encoder"]))
    if "predictor" not in networks:
        return encoder, None
    return encoder, fit_predictor(networks["predictor"], Stated("transformers model: predictor", stated["predictor"]))


def to_transformers(
    encoder: Encoder, predictor: Predictor | None, probe: AttentiveProbe | None = None, *, classes: Sequence[str] = ()
) -> tuple[dict[str, Any], StateDict]:
    """The config and the tensors that `VJEPA2Model` loads, or with a probe `VJEPA2ForVideoClassification`.

    Our own specs go along under "vjepa2cli"; `classes` are the names of the probe's. Without a predictor, transformers makes its
    own. Raises WeightsError for what transformers cannot compute: other rotary positions, or a probe of other heads or another
    MLP ratio than its own. It computes a probe's norms with an eps of 1e-6, whatever the spec says.
    """
    spec = encoder.spec
    if spec.rotary != "tiled":
        raise WeightsError(f"encoder: transformers' V-JEPA 2 knows tiled rotary positions only, not {spec.rotary!r}")
    about: dict[str, Any] = {"kind": "encoder", "spec": asdict(spec)}
    config: dict[str, Any] = {
        "architectures": ["VJEPA2Model"],
        "model_type": "vjepa2",
        "patch_size": spec.patch_size,
        "crop_size": spec.crop,
        "frames_per_clip": spec.num_frames,
        "tubelet_size": spec.tubelet_size,
        "hidden_size": spec.embed_dim,
        "in_chans": spec.in_channels,
        "num_attention_heads": spec.num_heads,
        "num_hidden_layers": spec.depth,
        "mlp_ratio": spec.mlp_ratio,
        **_FIXED,
    }
    tensors = to_transformers_names("encoder", encoder.state_dict())
    if predictor is not None:
        about["predictor_spec"] = asdict(predictor.spec)
        config |= {
            "pred_hidden_size": predictor.spec.embed_dim,
            "pred_num_attention_heads": predictor.spec.num_heads,
            "pred_num_hidden_layers": predictor.spec.depth,
            "pred_num_mask_tokens": predictor.spec.num_mask_tokens,
            "pred_zero_init_mask_tokens": True,
            "pred_mlp_ratio": predictor.spec.mlp_ratio,
        }
        tensors |= to_transformers_names("predictor", predictor.state_dict())
    if probe is not None:
        about["probe_spec"] = asdict(probe.spec)
        config |= _probe_config(spec.num_heads, probe.spec, classes)
        tensors = {f"vjepa2.{name}": tensor for name, tensor in tensors.items()}
        tensors |= to_transformers_names("probe", probe.state_dict())
    return config | {"vjepa2cli": about}, tensors


def to_folder(encoder: Encoder | EncoderV21, predictor: Predictor | PredictorV21 | None) -> tuple[dict[str, Any], StateDict]:
    """The config and the tensors of a model folder of ours.

    Of V-JEPA 2 it is one that transformers loads; of V-JEPA 2.1, which transformers lacks, the official names follow `encoder.`
    and `predictor.`.
    """
    if isinstance(encoder, Encoder) and not isinstance(predictor, PredictorV21):
        return to_transformers(encoder, predictor)
    networks = {"encoder": encoder} | ({} if predictor is None else {"predictor": predictor})
    about: dict[str, Any] = {"kind": "encoder", "spec": asdict(encoder.spec)}
    if predictor is not None:
        about["predictor_spec"] = asdict(predictor.spec)
    tensors = {f"{name}.{key}": tensor for name, network in networks.items() for key, tensor in network.state_dict().items()}
    return {"model_type": MODEL_TYPE_V2_1, "vjepa2cli": about}, tensors


def _probe_config(encoder_heads: int, spec: ProbeSpec, classes: Sequence[str]) -> dict[str, Any]:
    """What a config says of the probe; raises WeightsError where transformers would compute another one."""
    if (spec.num_heads, spec.mlp_ratio) != (encoder_heads, _POOLER_MLP_RATIO):
        raise WeightsError(
            f"probe: has {spec.num_heads} heads and an MLP ratio of {spec.mlp_ratio:g}, where transformers computes with its "
            f"encoder's {encoder_heads} heads and {_POOLER_MLP_RATIO:g}; convert it to official"
        )
    names = list(classes) or [f"LABEL_{index}" for index in range(spec.num_classes)]
    return {
        "architectures": ["VJEPA2ForVideoClassification"],
        "num_pooler_layers": spec.depth - 1,
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
    }


def _find(name: str, options: Iterable[tuple[_Row, str]]) -> tuple[_Row, Callable[[str], str]] | None:
    """The row whose template matches `name`, and what puts the same block and the same ending into another template."""
    for row, template in options:
        match = _pattern(template).fullmatch(name)
        if match is not None:
            return row, partial(_fill, index=match.groupdict().get("i") or "", ending=match["ending"])
    return None


def _fill(template: str, *, index: str, ending: str) -> str:
    return template.replace("{i}", index) + ending


@cache
def _pattern(template: str) -> re.Pattern[str]:
    ending = "(?P<ending>weight|bias)" if template.endswith(".") else "(?P<ending>)"
    return re.compile(re.escape(template).replace(r"\{i\}", r"(?P<i>\d+)") + ending)
