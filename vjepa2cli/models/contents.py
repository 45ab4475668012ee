"""What a checkpoint holds, told from names, shapes and dtypes alone: the files are mapped and no tensor is read."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vjepa2cli import registry
from vjepa2cli.errors import WeightsError
from vjepa2cli.files import read_json
from vjepa2cli.models.checkpoint_files import PT_SUFFIXES, read_pt, read_safetensors
from vjepa2cli.models.checkpoints import kind_of, without_wrappers
from vjepa2cli.models.key_mapping import to_official_names

_KEY = re.compile(r"(target_encoder|ema_encoder|encoder|predictor)\.")
_TRANSFORMERS = re.compile(r"(vjepa2\.)?encoder\.embeddings\.")
_LEGACY = ("pos_embed", "predictor_pos_embed")
_V2_1 = re.compile(r"norms_block\.|patch_embed_img\.|video_mod_embed|predictor_embed\.0\.|predictor_proj_context\.")
_CLASSIFIER = re.compile(r"(linear|(?:verb|noun|action)_classifier)\.weight")
_BLOCKS = {
    "encoder": "blocks.",
    "predictor": "predictor_blocks.",
    "ac_predictor": "predictor_blocks.",
    "probe": "pooler.blocks.",
}


@dataclass(frozen=True)
class Network:
    """One network of a checkpoint.

    key: the top-level key that it lies under, "" where the file is this network; network: "encoder", "target_encoder",
        "ema_encoder", "predictor", "ac_predictor", "probe", or "unknown".
    prefixes: what its names begin with beside the official name; parameters counts neither buffers of old files (their
        sine-cosine positions) nor repeats them; num_bytes is what the tensors take in the file.
    size: the released encoder size that is nearest by width and depth; exact says whether it is that size.
    outputs: the number of classes of each classifier of a probe, by its name.
    shapes: each tensor's shape by its name in the file, or, of a model of transformers, by its official name.
    """

    key: str
    network: str
    family: str
    prefixes: tuple[str, ...]
    num_tensors: int
    parameters: int
    num_bytes: int
    dtypes: Mapping[str, int]
    width: int | None
    depth: int
    mlp_ratio: float | None
    patch_size: int | None
    num_heads: int | None
    size: str | None
    exact: bool
    outputs: Mapping[str, int]
    shapes: Mapping[str, list[int]]


@dataclass(frozen=True)
class Contents:
    """What a source holds. layout: "official", "transformers" or "ours" (a model folder); top_level: each key and its kind."""

    path: Path
    layout: str
    top_level: Mapping[str, str]
    networks: tuple[Network, ...]


def read_contents(path: Path) -> Contents:
    """Outline a checkpoint file or a model folder; raises WeightsError where it cannot be read or would run code."""
    if not path.exists():
        raise WeightsError(f"{path}: no such file or folder; give a checkpoint file or a model folder")
    if path.is_dir():
        return _folder_contents(path)
    if path.suffix == ".safetensors":
        tree: Any = read_safetensors(path)
    elif path.suffix in PT_SUFFIXES:
        tree = read_pt(path)
    else:
        raise WeightsError(f"{path}: is no checkpoint; give a model folder, a .safetensors, or a {'/'.join(PT_SUFFIXES)} file")
    if not isinstance(tree, dict):
        raise WeightsError(f"{path}: holds a {type(tree).__name__}; a checkpoint is a dictionary of tensors or of state dicts")
    flat = _outlined(tree)
    if any(_TRANSFORMERS.match(name) for name in flat):
        return Contents(path, "transformers", _kinds(tree), _transformers_networks(flat, {}))
    networks = tuple(_network(key, state, {}) for key, state in _state_dicts(tree))
    return Contents(path, "official", _kinds(tree), networks)


def _folder_contents(path: Path) -> Contents:
    folder = next((folder for folder in (path, path / "model") if (folder / "config.json").is_file()), None)
    files = sorted(folder.glob("model*.safetensors")) if folder is not None else []
    if folder is None or not files:
        lacking = "config.json" if folder is None else "model*.safetensors"
        raise WeightsError(f"{path}: no {lacking} in it; give a model folder, or a run directory whose run has ended")
    config = read_json(folder / "config.json")
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _outlined(read_safetensors(file))
    about = config.get("vjepa2cli")
    layout = "transformers" if about is None else "ours"
    if any(_TRANSFORMERS.match(name) for name in tensors):
        return Contents(folder, layout, _kinds(config), _transformers_networks(tensors, config))
    recorded = about or {}
    # A folder of several networks records the predictor's spec apart; one of another network says it all at the top.
    specs = {"": recorded.get("spec", recorded), "encoder": recorded.get("spec"), "predictor": recorded.get("predictor_spec")}
    networks = (_network(key, state, specs.get(key) or {}) for key, state in _grouped(tensors))
    return Contents(folder, layout, _kinds(config), tuple(networks))


def _transformers_networks(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[Network, ...]:
    heads = {"predictor": config.get("pred_num_attention_heads")}
    return tuple(
        _network("", state, {"num_heads": heads.get(network, config.get("num_attention_heads"))})
        for network, state in to_official_names(tensors).items()
    )


def _outlined(tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a flat dictionary without their values, so that nothing after this can read or copy them."""
    return {str(name): value.to("meta") for name, value in tree.items() if isinstance(value, Tensor)}


def _kinds(tree: Mapping[str, Any]) -> dict[str, str]:
    """Each top-level key and what lies under it; the tensors of a flat file are counted together under their first word."""
    kinds: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for key, value in tree.items():
        if isinstance(value, Tensor):
            counts[str(key).partition(".")[0]] += 1
        elif isinstance(value, dict | list | tuple):
            kinds[str(key)] = f"{type(value).__name__} of {len(value)}"
        else:
            kinds[str(key)] = "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]}".rstrip()
    return kinds | {key: f"{count} tensor{'s' if count > 1 else ''}" for key, count in counts.items()}


def _state_dicts(tree: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each dictionary of tensors in the tree with its key: those below top-level keys, those in lists, and the flat ones."""
    for key, value in tree.items():
        members = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, member in members:
            state = _outlined(member) if isinstance(member, dict) else {}
            if state:
                yield (str(key) if index is None else f"{key}[{index}]"), state
    yield from _grouped(_outlined(tree))


def _grouped(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Flat tensors by the key that their names begin with, "" where they begin with none."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _KEY.match(name)
        groups.setdefault(match[1] if match else "", {})[name] = tensor
    yield from groups.items()


def _network(key: str, state: dict[str, Tensor], stated: Mapping[str, Any]) -> Network:
    official: dict[str, Tensor] = {}
    prefixes: set[str] = set()
    for name, tensor in state.items():
        (clean,) = without_wrappers({name.removeprefix(f"{key}.") if key else name: tensor})
        prefixes.add(name.removesuffix(clean))
        official[clean] = tensor
    kind = kind_of(official)
    held = [tensor for name, tensor in official.items() if name not in _LEGACY]
    shape = _shape(kind, official)
    size, exact = _nearest_size(shape["width"], shape["depth"]) if kind == "encoder" else (None, False)
    heads = stated.get("num_heads") or (registry.SIZES[size].num_heads if size is not None and exact else None)
    return Network(
        key=key,
        network=key if kind == "encoder" and key else kind or "unknown",
        family="2.1" if any(_V2_1.match(name) for name in official) else "2",
        prefixes=tuple(sorted(prefixes)),
        num_tensors=len(state),
        parameters=sum(tensor.numel() for tensor in held),
        num_bytes=sum(tensor.numel() * tensor.element_size() for tensor in official.values()),
        dtypes=dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in official.values())),
        num_heads=heads,
        size=size,
        exact=exact,
        outputs={match[1]: official[name].shape[0] for name in official if (match := _CLASSIFIER.fullmatch(name))},
        shapes={name: list(tensor.shape) for name, tensor in state.items()},
        **shape,
    )


def _shape(kind: str | None, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Width, depth, MLP ratio and patch size, as far as a network's blocks tell them."""
    blocks = _BLOCKS.get(kind or "", "blocks.")
    indices = {name.removeprefix(blocks).partition(".")[0] for name in state if name.startswith(blocks)}
    first = "pooler.cross_attention_block" if kind == "probe" else f"{blocks}0"
    hidden = state.get(f"{first}.mlp.fc1.weight")
    patch = state.get("patch_embed.proj.weight")
    whole = hidden is not None and hidden.ndim == 2
    return {
        "width": hidden.shape[1] if hidden is not None and whole else None,
        "depth": sum(index.isdecimal() for index in indices) + (kind == "probe"),
        "mlp_ratio": hidden.shape[0] / hidden.shape[1] if hidden is not None and whole else None,
        "patch_size": patch.shape[-1] if patch is not None and patch.ndim == 5 else None,
    }


def _nearest_size(width: int | None, depth: int) -> tuple[str | None, bool]:
    """The size of the registry whose width and depth are nearest by their ratios, and whether both are equal."""
    if not width or not depth:
        return None, False

    def distance(name: str) -> float:
        size = registry.SIZES[name]
        return abs(math.log(size.embed_dim / width)) + abs(math.log(size.depth / depth))

    nearest = min(registry.SIZES, key=distance)
    return nearest, distance(nearest) == 0
