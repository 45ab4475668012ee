"""Features for people: a video, an image, a folder or a video store becomes tokens with timestamps, and pictures of them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.encoding.features import Features, compute_features, describe, save_features
from vjepa2cli.encoding.gallery import Gallery, Pictures
from vjepa2cli.encoding.pictures import Encoded
from vjepa2cli.encoding.similarity import Point
from vjepa2cli.encoding.sources import Source, find_sources
from vjepa2cli.encoding.windows import sampled
from vjepa2cli.errors import ConfigError, InputError, WeightsError
from vjepa2cli.models.weights import encoder_digest, load_encoder
from vjepa2cli.models.world_model import FrameEncoder
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.registry import RELEASED
from vjepa2cli.settings import EncodeConfig

__all__ = ["Pictures", "Point", "encode"]

_DEFAULT = EncodeConfig()
_NO_PICTURES = Pictures()


def encode(
    inputs: str | Path | Sequence[str | Path],
    *,
    model: str | Path | None,
    out: Path | None = None,
    config: EncodeConfig = _DEFAULT,
    pictures: Pictures = _NO_PICTURES,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Encode videos, images, folders of them and video stores; returns what was `written`, `drawn` and `refused`.

    One file becomes one `.npz` or `.safetensors` at `out`; anything else a folder of `.npz` with a report, `encoding.json`. The
    arrays are those of `Features`, with the `grid` and the `provenance`. A video is covered by windows of `config.num_frames`.
    `pictures` are drawn beside the frames, as `.mp4` or `.png`; those of several inputs go to a folder.
    What cannot be read in a folder is refused and passed over; raises InputError where nothing could be encoded.
    """
    if not model:
        encoders = ", ".join(name for name, row in RELEASED.items() if row.family != "probe")
        raise WeightsError(
            "model: none given; name the run directory of a 'vjepa2 pretrain', a checkpoint file, a transformers folder, "
            f"or a released model: {encoders}"
        )
    given = [Path(inputs)] if isinstance(inputs, str | Path) else [Path(path) for path in inputs]
    sources = find_sources(given)
    single = len(given) == 1 and given[0].is_file()
    out = out or Path(f"{given[0].stem}.npz" if single else "features")
    _check_target(out, single=single)
    encoder = load_encoder(str(model), device=device)
    crop = _check_config(config, encoder)
    origin = provenance("encode", config, inputs={"model": encoder_digest(encoder)})
    gallery = Gallery(pictures, sources, crop=crop, single=single, origin=origin)
    summary: dict[str, Any] = {"written": [], "drawn": gallery.drawn, "encoded": [], "refused": []}
    progress.start("encode", total=len(sources))
    for source in sources:
        try:
            features = compute_features(source, encoder, config=config, crop=crop, progress=progress)
        except InputError as error:
            if single:
                raise
            summary["refused"].append({"source": source.name, "reason": str(error)})
            progress.advance()
            continue
        target = out if single else out / f"{source.name}.npz"
        save_features(target, features, origin | {"source": source.name, "crop": crop})
        summary["written"].append(str(target))
        summary["encoded"].append(describe(source, features))
        gallery.show(_encoded(source, features, config=config, crop=crop))
        progress.advance()
    gallery.close()
    progress.finish()
    if not summary["written"]:
        first = summary["refused"][0]
        raise InputError(f"{given[0]}: none of {len(sources)} inputs could be encoded; the first: {first['reason']}")
    if not single:
        write_report(out / "encoding.json", "encode", {key: summary[key] for key in ("encoded", "refused")}, provenance=origin)
    return summary


def _encoded(source: Source, features: Features, *, config: EncodeConfig, crop: int) -> Encoded:
    """What the pictures need to know of one input."""
    fps = config.fps or source.fps()
    frames = partial(sampled, source, config)
    return Encoded(source.name, lambda: [features.tokens], features.timestamps, frames, fps, source.still, crop)


def _check_target(out: Path, *, single: bool) -> None:
    if single and out.suffix not in (".npz", ".safetensors"):
        raise InputError(f"{out}: features of one file are written as .npz or .safetensors; choose one of these suffixes")
    if not single and out.suffix in (".npz", ".safetensors"):
        raise InputError(f"{out}: several inputs are written to a folder, one .npz each; name a folder")


def _check_config(config: EncodeConfig, encoder: FrameEncoder) -> int:
    """The crop in pixels, checked with the window against the encoder's patches and tubelets."""
    spec = encoder.spec
    crop = config.crop or spec.crop
    for name, size, unit in (("crop", crop, spec.patch_size), ("num_frames", config.num_frames, spec.tubelet_size)):
        if size % unit:
            raise ConfigError(
                f"{name}: {size} is not a multiple of {unit}, the encoder's; set it to {max(1, size // unit) * unit}"
            )
    return crop
