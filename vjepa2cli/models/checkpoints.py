"""Checkpoints as they are: from every kind of source to a state dict a network, under official names."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vjepa2cli import config as configs
from vjepa2cli import registry
from vjepa2cli.errors import WeightsError
from vjepa2cli.files import read_json
from vjepa2cli.models.checkpoint_files import PT_SUFFIXES, MappedFile, mapped, read_pt, read_safetensors
from vjepa2cli.models.fitting import StateDict
from vjepa2cli.models.key_mapping import MODEL_TYPE_V2_1, stated_numbers, to_official_names
from vjepa2cli.models.probe import ProbeSpec
from vjepa2cli.settings import PretrainConfig

ENCODER_KEYS = ("target_encoder", "ema_encoder", "encoder")
"""What an encoder lies under, in the order in which one of several is taken."""

_CLASSIFIERS = "classifiers"
_STEP_FILE = "module.pt"
"""The weights in `RUN_DIR/checkpoints/step_*`."""
_SIGNATURES = {
    "ac_predictor": ("action_encoder.", "state_encoder."),
    "predictor": ("predictor_", "mask_tokens."),
    "probe": ("pooler.",),
    "encoder": ("patch_embed.", "blocks.", "norms_block."),
}
"""How the names begin by which a state dict is known; the first that fits counts."""

_RELEASED_AC = {
    "kind": "ac_predictor",
    "preprocessing": {"crop": 256, "geometry": "wide"},
    "rate": 4.0,
    "robot": "franka",
    "trained_steps": 94_500,
}
"""What a model folder would say of the released V-JEPA 2-AC. Source: configs/train/vitg16/droid-256px-8f.yaml of the release."""


@dataclass(frozen=True)
class Checkpoint:
    """What a source holds: a state dict a network under official names, the numbers it states of each, and its `config.json`.

    Networks are "encoder", "target_encoder", "ema_encoder", "predictor", "ac_predictor" and "probe". The tensors lie in the
    mapped `files` until they are read.
    """

    where: str
    networks: dict[str, StateDict]
    stated: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[MappedFile, ...] = ()


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Read whatever `source` names, as it is; raises WeightsError where it is not found or is damaged."""
    path, released = _locate(str(source))
    if path.is_dir():
        checkpoint = _read_folder(path)
    elif path.name.startswith("model") and path.suffix == ".safetensors" and (path.parent / "config.json").is_file():
        checkpoint = _read_folder(path.parent)
    elif path.suffix == ".safetensors":
        tensors, file = mapped(read_safetensors, path)
        checkpoint = Checkpoint(str(path), _networks(tensors, str(path)), files=(file,))
    elif path.suffix in PT_SUFFIXES:
        tree, file = mapped(read_pt, path)
        checkpoint = Checkpoint(str(path), _networks(tree, str(path)), files=(file,))
    else:
        raise WeightsError(f"{path}: is no checkpoint; give a model folder, a .safetensors, or a {'/'.join(PT_SUFFIXES)} file")
    return _with_released_numbers(checkpoint, released) if released is not None else checkpoint


def _locate(source: str) -> tuple[Path, registry.ReleasedModel | None]:
    """The path of a source, and the released checkpoint that it is by its name."""
    path = Path(registry.in_place(source))
    if path.exists():
        return path, registry.released_file(path.name)
    if source not in registry.RELEASED:
        known = [*registry.SHIPPED, *registry.RELEASED]
        raise WeightsError(
            f"{source}: no such file or folder, nor a shipped or released checkpoint;{registry.suggestion(source, known)}"
        )
    released = registry.RELEASED[source]
    found = registry.local_copy(released)
    if found is None:
        path = registry.cache_folder() / released.file_name
        raise WeightsError(
            f"{source}: is not on this machine; run `vjepa2 weights pull {source}`, or put {released.url} at {path}"
        )
    return found, released


def _read_step(path: Path) -> Checkpoint:
    """A checkpoint of a pretraining that goes on or has ended; the config of its run states what the tensors do not tell."""
    tree, file = mapped(read_pt, path / _STEP_FILE)
    config = configs.load(path.parent.parent / "config.yaml", PretrainConfig)
    sizes, clip = config.encoder, config.clip
    heads = sizes.num_heads if sizes.size == "custom" else registry.SIZES[sizes.size].num_heads
    stated = {
        "encoder": {"num_heads": heads, "crop": clip.crop, "num_frames": clip.num_frames},
        "predictor": {"num_heads": config.predictor.num_heads},
    }
    return Checkpoint(str(path), _networks(tree, str(path)), stated, files=(file,))


def _read_folder(path: Path) -> Checkpoint:
    if (path / _STEP_FILE).is_file():
        return _read_step(path)
    folder = next((folder for folder in (path, path / "model") if (folder / "config.json").is_file()), None)
    if folder is None:
        raise WeightsError(
            f"{path}: no config.json in it nor in its model/; give a model folder, a run that has ended, or a checkpoint of one"
        )
    config = read_json(folder / "config.json")
    paths = sorted(folder.glob("model*.safetensors"))
    if not paths:
        raise WeightsError(
            f"{folder}: no model*.safetensors in it; download the folder whole, or run the step that writes it again"
        )
    parts = [mapped(read_safetensors, path) for path in paths]
    tensors = {name: tensor for part, _ in parts for name, tensor in part.items()}
    networks, stated = _networks_of_folder(folder, config, tensors)
    files = tuple(file for _, file in parts)
    for file in files:
        file.forget()  # fused weights were put together of their parts
    return Checkpoint(str(folder), networks, stated, config, files)


def _networks_of_folder(
    folder: Path, config: Mapping[str, Any], tensors: StateDict
) -> tuple[dict[str, StateDict], dict[str, Mapping[str, Any]]]:
    """The networks of a model folder, and what its config states of each."""
    about = config.get("vjepa2cli", {})
    kind = about.get("kind")
    if kind in ("ac_predictor", "probe"):
        return {kind: tensors}, {kind: about.get("spec") or {"num_heads": about["num_heads"]}}
    specs = {"encoder": "spec", "predictor": "predictor_spec", "probe": "probe_spec"}
    recorded: dict[str, Mapping[str, Any]] = {network: about[key] for network, key in specs.items() if key in about}
    if config.get("model_type") == MODEL_TYPE_V2_1:
        return _networks(tensors, str(folder)), recorded
    if config.get("model_type") != "vjepa2":
        raise WeightsError(f"{folder}: holds a model of type {config.get('model_type')!r}, not 'vjepa2'")
    return to_official_names(tensors), {**stated_numbers(config), **recorded}


def _networks(tree: Any, where: str) -> dict[str, StateDict]:
    """The state dicts in a checkpoint: a training checkpoint, a probe file, or one network's tensors."""
    if not isinstance(tree, dict):
        raise WeightsError(f"{where}: holds a {type(tree).__name__}; a checkpoint is a dictionary of tensors or of state dicts")
    nested = {key: without_wrappers(tree[key]) for key in (*ENCODER_KEYS, "predictor") if isinstance(tree.get(key), dict)}
    heads = tree.get(_CLASSIFIERS)
    if isinstance(heads, list):
        if len(heads) != 1:
            raise WeightsError(f"{where}: holds {len(heads)} probes; save the one that is wanted to a file of its own")
        nested["probe"] = without_wrappers(heads[0])
    if not nested:
        return _split(without_wrappers(tree), where)
    if "predictor" in nested and kind_of(nested["predictor"]) == "ac_predictor":
        nested["ac_predictor"] = nested.pop("predictor")
    return nested


def without_wrappers(state: Mapping[str, Any]) -> StateDict:
    """Without the prefixes of the wrappers that the released code trains in."""
    return {
        name.replace("module.", "").replace("backbone.", ""): value for name, value in state.items() if isinstance(value, Tensor)
    }


def _split(state: StateDict, where: str) -> dict[str, StateDict]:
    """Tell what a flat dictionary of tensors is: one network, several under their keys, or a model of transformers."""
    if any(name.removeprefix("vjepa2.").startswith("encoder.embeddings.") for name in state):
        return to_official_names(state)
    groups: dict[str, StateDict] = {}
    for name, tensor in state.items():
        key, _, rest = name.partition(".")
        if key in (*ENCODER_KEYS, "predictor"):
            groups.setdefault(key, {})[rest] = tensor
    if groups and sum(map(len, groups.values())) == len(state):
        return groups
    kind = kind_of(state)
    if kind is None:
        raise WeightsError(f"{where}: holds no network of V-JEPA 2; its names begin {', '.join(sorted(state)[:3]) or 'nowhere'}")
    return {kind: state}


def kind_of(state: StateDict) -> str | None:
    """Which network a state dict is by its official names: "encoder", "predictor", "ac_predictor", "probe", or none of ours."""
    return next((kind for kind, starts in _SIGNATURES.items() if any(name.startswith(starts) for name in state)), None)


def _with_released_numbers(checkpoint: Checkpoint, released: registry.ReleasedModel) -> Checkpoint:
    """Add what is known of a released file and its tensors do not tell: heads, crop, frames, and how its world model sees."""
    size = registry.SIZES[released.size]
    known: dict[str, Mapping[str, Any]] = {}
    for network, state in checkpoint.networks.items():
        # A file of that name that holds another shape is somebody's own: nothing is known of it.
        norm = "norms_block.0.weight" if released.family == "2.1" else "norm.weight"
        if network in ENCODER_KEYS and _width(state, norm) == size.embed_dim:
            known["encoder"] = {"num_heads": size.num_heads, "crop": released.crop, "num_frames": released.frames}
        elif released.predictor and _width(state, "predictor_norm.weight") == released.predictor.embed_dim:
            known[network] = {"num_heads": released.predictor.num_heads}
        elif released.probe and _width(state, "pooler.query_tokens") == size.embed_dim:
            # Its copy on the hub says what transformers computes, which is not what it was trained with.
            known[network] = {"num_heads": released.probe.num_heads, "eps": ProbeSpec.eps}
    stated = {
        network: {**checkpoint.stated.get(network, {}), **known.get(network, {})} for network in {*checkpoint.stated, *known}
    }
    config = {"vjepa2cli": _RELEASED_AC} if released.family == "2-ac" and "ac_predictor" in known else checkpoint.config
    return replace(checkpoint, stated=stated, config=config)


def _width(state: StateDict, key: str) -> int:
    return state[key].shape[-1] if key in state else 0
