"""Weights: from every kind of source to a network that fits it strictly.

A source is a model folder (ours, or one of transformers), a run directory that has one, a `.safetensors` or `.pt` file, the name
of a released checkpoint whose file lies in the cache folder, or one of these after `untrained:` (same spec, fresh weights) or
`pixels:` (pixel averages over the same patches).

Where a file holds several encoders, the moving average is taken (`target_encoder`, else `ema_encoder`) before `encoder`: every
released evaluation and the AC predictor were trained on it, and it is the default of the newest released hub code. The weights
that transformers offers were converted from `encoder`; pass `checkpoint_key="encoder"` for features equal to theirs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vjepa2cli import registry
from vjepa2cli.errors import WeightsError
from vjepa2cli.files import read_json
from vjepa2cli.models.ac_predictor import AcPredictor
from vjepa2cli.models.checkpoint_files import PT_SUFFIXES, read_pt, read_safetensors
from vjepa2cli.models.digests import encoder_digest, state_digest
from vjepa2cli.models.encoder import Encoder
from vjepa2cli.models.encoder_v21 import EncoderV21
from vjepa2cli.models.fitting import Stated, fit_ac_predictor, fit_any_encoder, fit_any_predictor, fit_probe
from vjepa2cli.models.key_mapping import (
    MODEL_TYPE_V2_1,
    StateDict,
    from_transformers,
    stated_numbers,
    to_folder,
    to_official_names,
    to_transformers,
)
from vjepa2cli.models.pixels import PixelEncoder, PixelSpec
from vjepa2cli.models.predictor import Predictor
from vjepa2cli.models.predictor_v21 import PredictorV21
from vjepa2cli.models.probe import AttentiveProbe
from vjepa2cli.models.world_model import FrameEncoder

__all__ = [
    "encoder_digest",
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

_ENCODER_KEYS = ("target_encoder", "ema_encoder", "encoder")

_CLASSIFIERS = "classifiers"
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

_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """What a source holds: a state dict a network under official names, the numbers it states of each, and its `config.json`.

    Networks are "encoder", "target_encoder", "ema_encoder", "predictor", "ac_predictor" and "probe".
    """

    where: str
    networks: Mapping[str, StateDict]
    stated: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


def load_encoder(
    source: Source, num_heads: int | None = None, *, checkpoint_key: str | None = None, device: Device = "cpu"
) -> FrameEncoder:
    """Load an encoder of V-JEPA 2 or 2.1; `num_heads` is needed where the source (a bare `.pt` or `.safetensors`) lacks it.

    `checkpoint_key` picks one of several encoders in a file (see above). Raises WeightsError where the source is not found,
    cannot be read or does not fit.
    """
    variant, _, rest = str(source).partition(":")
    if variant in _VARIANTS:
        return _VARIANTS[variant](load_encoder(rest, num_heads, checkpoint_key=checkpoint_key)).to(device)
    checkpoint = read_checkpoint(source)
    key = checkpoint_key or next((key for key in _ENCODER_KEYS if key in checkpoint.networks), "encoder")
    return _load(checkpoint, key, fit_any_encoder, num_heads=num_heads).to(device)


def load_predictor(source: Source, num_heads: int | None = None, *, device: Device = "cpu") -> Predictor | PredictorV21:
    """Load a pretraining predictor of V-JEPA 2 or 2.1; see `load_encoder`."""
    return _load(read_checkpoint(source), "predictor", fit_any_predictor, num_heads=num_heads).to(device)


def load_ac_predictor(source: Source, num_heads: int | None = None, *, device: Device = "cpu") -> AcPredictor:
    """Load an action-conditioned predictor; see `load_encoder`."""
    return _load(read_checkpoint(source), "ac_predictor", fit_ac_predictor, num_heads=num_heads).to(device)


def load_probe(source: Source, num_heads: int | None = None, *, device: Device = "cpu") -> AttentiveProbe:
    """Load an attentive probe of one classifier; see `load_encoder`."""
    checkpoint = read_checkpoint(source)
    if "verb_classifier.weight" in checkpoint.networks.get("probe", {}):
        raise WeightsError(f"{source}: is an Epic-Kitchens probe (verb, noun and action); a probe here has one classifier")
    return _load(checkpoint, "probe", fit_probe, num_heads=num_heads).to(device)


def load_world_model_parts(source: Source, device: Device = "cpu") -> tuple[FrameEncoder, AcPredictor, dict[str, Any]]:
    """The encoder and the AC predictor of a world model, and what its folder says of it (of a bare checkpoint: nothing).

    An AC model folder names its encoder and the encoder's digest: a relative source is looked for from the working directory,
    then from the model folder and the folders above it. Raises WeightsError where it is not found or is another encoder.
    """
    checkpoint = read_checkpoint(source)
    ac = _load(checkpoint, "ac_predictor", fit_ac_predictor).to(device)
    about = dict(checkpoint.config.get("vjepa2cli", {}))
    named = about.get("encoder")
    if named is None:
        key = next((key for key in _ENCODER_KEYS if key in checkpoint.networks), "encoder")
        return _load(checkpoint, key, fit_any_encoder).to(device), ac, about
    encoder = load_encoder(_find_beside(Path(checkpoint.where), named["source"]), device=device)
    if encoder_digest(encoder) != named["digest"]:
        raise WeightsError(
            f"{checkpoint.where}: was trained on the latents of another encoder than {named['source']} is now "
            f"(digest {named['digest'][:12]}); restore that encoder, or precompute and post-train again"
        )
    return encoder, ac, about


def read_checkpoint(source: Source) -> Checkpoint:
    """Read whatever `source` names, as it is; raises WeightsError where it is not found or is damaged."""
    path, released = _locate(str(source))
    if path.is_dir():
        checkpoint = _read_folder(path)
    elif path.name.startswith("model") and path.suffix == ".safetensors" and (path.parent / "config.json").is_file():
        checkpoint = _read_folder(path.parent)
    elif path.suffix == ".safetensors":
        checkpoint = Checkpoint(str(path), _networks(read_safetensors(path), str(path)))
    elif path.suffix in PT_SUFFIXES:
        checkpoint = Checkpoint(str(path), _networks(read_pt(path), str(path)))
    else:
        raise WeightsError(f"{path}: is no checkpoint; give a model folder, a .safetensors, or a {'/'.join(PT_SUFFIXES)} file")
    return _with_released_numbers(checkpoint, released) if released is not None else checkpoint


def _load(
    checkpoint: Checkpoint, network: str, fit: Callable[[StateDict, Stated], _Network], *, num_heads: int | None = None
) -> _Network:
    """Fit one network of a checkpoint, its numbers being those that the checkpoint states and, if it states none, `num_heads`."""
    if network not in checkpoint.networks:
        raise WeightsError(
            f"{checkpoint.where}: holds no {network}; it holds {', '.join(sorted(checkpoint.networks)) or 'nothing'}"
        )
    numbers = dict(checkpoint.stated.get("encoder" if network in _ENCODER_KEYS else network, {}))
    if num_heads is not None and numbers.setdefault("num_heads", num_heads) != num_heads:
        raise WeightsError(f"{checkpoint.where}: num_heads: {num_heads} was asked for, the file says {numbers['num_heads']}")
    return fit(checkpoint.networks[network], Stated(f"{checkpoint.where}: {network}", numbers))


def _untrained(encoder: FrameEncoder) -> FrameEncoder:
    """The same architecture with fresh weights, drawn by the released rule from seed 0."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(encoder, EncoderV21):
        return EncoderV21(encoder.spec, generator=generator).eval()
    return Encoder(encoder.spec, generator=generator).eval() if isinstance(encoder, Encoder) else encoder


def _pixels(encoder: FrameEncoder) -> FrameEncoder:
    """Pixel averages over the same patches and tubelets."""
    spec = encoder.spec
    return PixelEncoder(
        PixelSpec(
            patch_size=spec.patch_size,
            tubelet_size=spec.tubelet_size,
            in_channels=spec.in_channels,
            crop=spec.crop,
            num_frames=spec.num_frames,
        )
    ).eval()


_VARIANTS: dict[str, Callable[[FrameEncoder], FrameEncoder]] = {"untrained": _untrained, "pixels": _pixels}


def _locate(source: str) -> tuple[Path, registry.ReleasedModel | None]:
    """The path of a source, and the released checkpoint that it is by its name."""
    path = Path(source)
    if path.exists():
        return path, registry.released_file(path.name)
    if source not in registry.RELEASED:
        raise WeightsError(
            f"{source}: no such file or folder, nor a released checkpoint;{registry.suggestion(source, registry.RELEASED)}"
        )
    released = registry.RELEASED[source]
    found = registry.local_copy(released)
    if found is None:
        path = registry.cache_folder() / released.file_name
        raise WeightsError(
            f"{source}: is not on this machine; run `vjepa2 weights pull {source}`, or put {released.url} at {path}"
        )
    return found, released


def _find_beside(folder: Path, source: str) -> str:
    """`source` as it is, or, if it is a relative path that is not here, from `folder` and from those above it."""
    prefix, separator, rest = source.rpartition(":")
    if Path(rest).exists() or rest in registry.RELEASED:
        return source
    found = next((above / rest for above in (folder, *folder.absolute().parents) if (above / rest).exists()), None)
    if found is None:
        raise WeightsError(
            f"{folder}: its encoder {rest} is neither here nor beside it; restore it, or run from where it was trained"
        )
    return f"{prefix}{separator}{found}"


def _read_folder(path: Path) -> Checkpoint:
    folder = next((folder for folder in (path, path / "model") if (folder / "config.json").is_file()), None)
    if folder is None:
        raise WeightsError(f"{path}: no config.json in it nor in its model/; give a model folder, or a run that has ended")
    config = read_json(folder / "config.json")
    tensors: StateDict = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors |= read_safetensors(file)
    if not tensors:
        raise WeightsError(
            f"{folder}: no model*.safetensors in it; download the folder whole, or run the step that writes it again"
        )
    about = config.get("vjepa2cli", {})
    kind = about.get("kind")
    if kind in ("ac_predictor", "probe"):
        numbers = about.get("spec") or {"num_heads": about["num_heads"]}
        return Checkpoint(str(folder), {kind: tensors}, {kind: numbers}, config)
    if config.get("model_type") == MODEL_TYPE_V2_1:
        specs = {"encoder": about["spec"]} | ({"predictor": about["predictor_spec"]} if "predictor_spec" in about else {})
        return Checkpoint(str(folder), _networks(tensors, str(folder)), specs, config)
    if config.get("model_type") != "vjepa2":
        raise WeightsError(f"{folder}: holds a model of type {config.get('model_type')!r}, not 'vjepa2'")
    stated = stated_numbers(config)
    for network, key in (("encoder", "spec"), ("predictor", "predictor_spec")):
        stated[network] = about.get(key, stated[network])
    return Checkpoint(str(folder), to_official_names(tensors), stated, config)


def _networks(tree: Any, where: str) -> dict[str, StateDict]:
    """The state dicts in a checkpoint: a training checkpoint, a probe file, or one network's tensors."""
    if not isinstance(tree, dict):
        raise WeightsError(f"{where}: holds a {type(tree).__name__}; a checkpoint is a dictionary of tensors or of state dicts")
    nested = {key: without_wrappers(tree[key]) for key in (*_ENCODER_KEYS, "predictor") if isinstance(tree.get(key), dict)}
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
        if key in (*_ENCODER_KEYS, "predictor"):
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
        if network in _ENCODER_KEYS and _width(state, norm) == size.embed_dim:
            known["encoder"] = {"num_heads": size.num_heads, "crop": released.crop, "num_frames": released.frames}
        elif released.predictor and _width(state, "predictor_norm.weight") == released.predictor.embed_dim:
            known[network] = {"num_heads": released.predictor.num_heads}
        elif released.probe and _width(state, "linear.weight") == size.embed_dim:
            known[network] = {"num_heads": released.probe.num_heads}
    stated = {
        network: {**checkpoint.stated.get(network, {}), **known.get(network, {})} for network in {*checkpoint.stated, *known}
    }
    config = {"vjepa2cli": _RELEASED_AC} if released.family == "2-ac" and "ac_predictor" in known else checkpoint.config
    return replace(checkpoint, stated=stated, config=config)


def _width(state: StateDict, key: str) -> int:
    return state[key].shape[-1] if key in state else 0
