"""Checkpoints between the official layout, the folders of transformers, and ours; every value stays as it is."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.errors import ArtifactError, WeightsError
from vjepa2cli.files import replaced_atomically
from vjepa2cli.models.ac_predictor import AcPredictor
from vjepa2cli.models.checkpoint_files import PT_SUFFIXES
from vjepa2cli.models.checkpoints import Checkpoint, read_checkpoint
from vjepa2cli.models.encoder import Encoder
from vjepa2cli.models.encoder_v21 import EncoderV21
from vjepa2cli.models.pixels import PixelEncoder
from vjepa2cli.models.predictor import Predictor
from vjepa2cli.models.predictor_v21 import PredictorV21
from vjepa2cli.models.probe import AnticipationProbe, AttentiveProbe
from vjepa2cli.models.weights import (
    encoder_digest,
    encoder_source,
    load_encoder,
    load_world_model_parts,
    state_digest,
    take_encoder,
    take_predictor,
    take_probe,
    to_folder,
    to_transformers,
)
from vjepa2cli.models.world_model import FrameEncoder

_LOG = logging.getLogger(__name__)

Layout = Literal["official", "transformers", "ours"]

_WRAPPERS = "module.backbone."
"""What the names in a released file begin with. Source: DistributedDataParallel around MultiSeqWrapper in the released code."""
_BASELINES = ("untrained", "pixels")
_AC_ENCODER = "frozen-encoder"
"""The folder below a world model's in which its encoder lies."""
_EPS = 1e-6
"""That of every norm in a model of transformers."""


@dataclass(frozen=True)
class Asked:
    """What a source does not say by itself: which encoder, the heads of the networks, the crop in pixels, and a probe to join."""

    checkpoint_key: str | None = None
    num_heads: int | None = None
    predictor_heads: int | None = None
    crop: int | None = None
    probe: str | None = None
    probe_heads: int | None = None


NOTHING_ASKED = Asked()


@dataclass(frozen=True)
class Converted:
    """What was written: the path, and the digest of each network as it loads from there."""

    path: Path
    digests: Mapping[str, str]


@dataclass(frozen=True)
class _Parts:
    """The networks of a source, in float32, what a folder of ours says of itself, and the names of the probe's classes.

    `encoder_about` is what the folder of a world model's encoder says of itself.
    """

    encoder: Encoder | EncoderV21 | None = None
    predictor: Predictor | PredictorV21 | None = None
    ac: AcPredictor | None = None
    probe: AttentiveProbe | AnticipationProbe | None = None
    about: Mapping[str, Any] | None = None
    classes: Sequence[str] = ()
    encoder_about: Mapping[str, Any] | None = None

    def networks(self) -> dict[str, nn.Module]:
        held = {"encoder": self.encoder, "predictor": self.predictor, "ac_predictor": self.ac, "probe": self.probe}
        return {name: network for name, network in held.items() if network is not None}


def convert(source: str, out: Path, *, to: Layout, slim: bool = False, asked: Asked = NOTHING_ASKED) -> Converted:
    """Write the networks of `source` (see `load_encoder`) in another layout to `out`, whole or not at all.

    "official" is one `.pt` file; "transformers" and "ours" are folders. Of several encoders one is taken, the moving average
    unless `asked.checkpoint_key` names another; `asked.probe` joins a probe to it, which makes a classifier. `slim` keeps that
    encoder alone, or a world model, in bfloat16, which rounds it; otherwise every value is kept, as float32. Heads, and for a
    folder the crop, are asked for where neither the file nor its released name says them: transformers counts positions by the
    crop. Raises ArtifactError where `out` exists, WeightsError where the source does not load, does not say enough, or the layout
    has no place for a network.
    """
    if out.exists():
        raise ArtifactError(f"{out}: exists; remove it, or write to another path")
    if to == "official" and out.suffix not in PT_SUFFIXES:
        raise ArtifactError(f"{out}: the official layout is one file; its name ends in {' or '.join(PT_SUFFIXES)}")
    if slim and asked.probe is not None:
        raise WeightsError(f"{source}: --slim keeps the encoder alone; leave --slim or --probe out")
    parts = _read(source, asked, slim=slim, with_crop=to != "official")
    if slim:
        for network in parts.networks().values():
            network.to(torch.bfloat16)
    digests = {name: state_digest(network) for name, network in parts.networks().items()}
    if to == "official":
        _write_official(out, parts)
    elif parts.encoder is None or parts.ac is not None:
        if to == "transformers":
            raise WeightsError(
                f"{source}: transformers has no layout for {' and '.join(digests)} alone; convert to official or ours, or join a "
                "probe to its encoder (--probe)"
            )
        _write_head(out, parts)
    else:
        _write_encoder(out, parts, plain=to == "transformers")
    return Converted(out, digests)


def _read(source: str, asked: Asked, *, slim: bool, with_crop: bool) -> _Parts:
    variant, _, rest = source.partition(":")
    checkpoint = read_checkpoint(rest if variant in _BASELINES else source)
    held = set(checkpoint.networks)
    if variant in _BASELINES or (slim and "ac_predictor" not in held):
        held = {"encoder"}
    about, classes = dict(checkpoint.config.get("vjepa2cli", {})), _classes(checkpoint)
    crop = checkpoint.stated.get("encoder", {}).get("crop")
    if held == {"probe"} and asked.probe is None:
        return _Parts(probe=take_probe(checkpoint, asked.probe_heads or asked.num_heads), about=about, classes=classes)
    encoder: FrameEncoder
    predictor, ac, probe, encoder_about = None, None, None, None
    if "ac_predictor" in held:
        if asked.checkpoint_key is not None or asked.probe is not None:
            raise WeightsError(f"{source}: is a world model, which has one encoder and no probe; leave those options out")
        encoder, ac, about = load_world_model_parts(source, num_heads=asked.num_heads, predictor_heads=asked.predictor_heads)
        encoder_about = _about_encoder(checkpoint)
    elif variant in _BASELINES:
        encoder = load_encoder(source, asked.num_heads, checkpoint_key=asked.checkpoint_key)
    else:
        # All of one reading: what is put together of its parts is in memory until it is taken.
        encoder = take_encoder(checkpoint, asked.num_heads, checkpoint_key=asked.checkpoint_key)
        predictor = take_predictor(checkpoint, asked.predictor_heads) if "predictor" in held else None
        probe = take_probe(checkpoint, asked.probe_heads) if "probe" in held else None
    if asked.probe is not None:
        given = read_checkpoint(asked.probe)
        classes, probe = _classes(given), take_probe(given, asked.probe_heads)
    whole = _trained(encoder, source)
    if with_crop and ac is None and crop is None and asked.crop is None:
        raise WeightsError(f"{source}: does not say the crop it was trained at, in pixels; pass crop= (--crop), such as 256")
    if asked.crop is not None and crop not in (None, asked.crop):
        raise WeightsError(f"{source}: crop: {asked.crop} was asked for, the source says {crop}")
    whole.spec = replace(whole.spec, crop=asked.crop or whole.spec.crop)
    return _Parts(whole, predictor, ac, probe, about, classes, encoder_about)


def _about_encoder(checkpoint: Checkpoint) -> dict[str, Any]:
    """What the folder of a world model's encoder says of itself; nothing where it carries it, or where that is a baseline."""
    source = encoder_source(checkpoint)
    if source is None or source.partition(":")[0] in _BASELINES:
        return {}
    return dict(read_checkpoint(source).config.get("vjepa2cli", {}))


def _classes(checkpoint: Checkpoint) -> Sequence[str]:
    """The names of a probe's classes, as a folder of ours or of transformers says them."""
    if "classes" in checkpoint.config.get("vjepa2cli", {}):
        return tuple(checkpoint.config["vjepa2cli"]["classes"])
    names = checkpoint.config.get("id2label") or {}
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _trained(encoder: FrameEncoder, source: str) -> Encoder | EncoderV21:
    if isinstance(encoder, PixelEncoder):
        raise WeightsError(f"{source}: averages pixels and has no weights to convert; give a source without pixels:")
    return encoder


def _write_official(out: Path, parts: _Parts) -> None:
    tree: dict[str, Any] = {}
    if parts.encoder is not None:
        # Under both names, as released code of either age reads one of them; the file holds the tensors once.
        tree["encoder"] = tree["target_encoder"] = _wrapped(parts.encoder)
    head = parts.predictor or parts.ac
    if head is not None:
        tree["predictor"] = _wrapped(head)
    if parts.probe is not None:
        tree["classifiers"] = [_wrapped(parts.probe, "module.")]
    with replaced_atomically(out) as partial, partial.open("wb") as handle:
        torch.save(tree, handle)


def _wrapped(network: nn.Module, prefix: str = _WRAPPERS) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in network.state_dict().items()}


def _write_encoder(out: Path, parts: _Parts, *, plain: bool) -> None:
    """A folder that transformers loads; unless `plain`, our specs, the digest and what the source said of itself go along."""
    encoder, predictor, probe = parts.encoder, parts.predictor, parts.probe
    assert encoder is not None
    if isinstance(probe, AnticipationProbe):
        raise WeightsError(
            f"{out}: a probe of verbs, nouns and actions has no place in a folder with an encoder; convert it alone"
        )
    if isinstance(encoder, EncoderV21) or isinstance(predictor, PredictorV21):
        if plain or probe is not None:
            raise WeightsError(
                f"{out}: transformers has no V-JEPA 2.1, and a probe has no place beside it; convert to official, or the network "
                "alone to ours"
            )
        config, tensors = to_folder(encoder, predictor)
    else:
        config, tensors = to_transformers(encoder, predictor, probe, classes=parts.classes)
    if plain and probe is not None and probe.spec.eps != _EPS:
        _LOG.warning(
            "%s: transformers computes the probe's norms with %g, not %g; its logits differ a little", out, _EPS, probe.spec.eps
        )
    about = config.pop("vjepa2cli")
    if not plain:
        config["vjepa2cli"] = {**(parts.about or {}), **about, "digest": state_digest(encoder)}
    dtype = str(next(encoder.parameters()).dtype).removeprefix("torch.")
    save_model(out, config | {"dtype": dtype}, tensors)


def _write_head(out: Path, parts: _Parts) -> None:
    """A folder of ours with an AC predictor and, in a folder below, its encoder; or with a probe."""
    about = dict(parts.about or {})
    if parts.probe is not None:
        about |= {"kind": "probe", "spec": asdict(parts.probe.spec)} | ({"classes": list(parts.classes)} if parts.classes else {})
        save_model(out, {"vjepa2cli": about}, parts.probe.state_dict())
        return
    assert parts.ac is not None
    assert parts.encoder is not None
    about |= {
        "kind": "ac_predictor",
        "spec": asdict(parts.ac.spec),
        "encoder": {"source": _AC_ENCODER, "digest": encoder_digest(parts.encoder)},
        "digest": state_digest(parts.ac),
    }
    with replaced_atomically(out) as partial:
        save_model(partial, {"vjepa2cli": about}, parts.ac.state_dict())
        _write_encoder(partial / _AC_ENCODER, _Parts(encoder=parts.encoder, about=parts.encoder_about), plain=False)
