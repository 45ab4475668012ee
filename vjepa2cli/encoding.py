"""Features for people: a video, an image, a folder or a video store becomes tokens with timestamps, and pictures of them."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vjepa2cli.artifacts.model_dir import save_tensors
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.artifacts.video_store import VideoEntry, VideoStore
from vjepa2cli.data.file_faults import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from vjepa2cli.data.transforms import IMAGE_MEAN, IMAGE_STD, preprocess
from vjepa2cli.data.video import (
    Clip,
    iterate_frames,
    probe_video,
    read_image,
    write_image,
    write_video,
)
from vjepa2cli.errors import ArtifactError, ConfigError, InputError, WeightsError
from vjepa2cli.files import digest_bytes, replaced_atomically
from vjepa2cli.models.encoder_v21 import EncoderV21
from vjepa2cli.models.weights import encoder_digest, load_encoder
from vjepa2cli.models.world_model import FrameEncoder
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.registry import RELEASED
from vjepa2cli.settings import EncodeConfig
from vjepa2cli.tokens import TokenGrid

Pixels = NDArray[np.uint8]
TimedFrame = tuple[float, Pixels]

_DEFAULT = EncodeConfig()
_STORE_FRAMES = 64


@dataclass(frozen=True)
class Features:
    """Tokens float32 [T, H, W, D] of a whole input, and for each time step the mean timestamp [T] of its frames, in seconds.

    `num_frames` were read; `padded_frames` copies of the last one filled the last tubelet.
    """

    tokens: NDArray[np.float32]
    timestamps: NDArray[np.float64]
    num_frames: int
    padded_frames: int


@dataclass(frozen=True)
class Window:
    """Frames that go through the encoder together, of whose time steps the first `skip` are known already."""

    frames: Sequence[TimedFrame]
    skip: int
    padding: int


@dataclass(frozen=True)
class _Source:
    """One input: `open` yields its frames, at their own rate `fps`, and notes what it mended; a `still` is an image."""

    name: str
    open: Callable[[], Iterator[TimedFrame]]
    fps: Callable[[], float]
    still: bool = False
    notes: list[str] = field(default_factory=list)


def encode(
    inputs: str | Path | Sequence[str | Path],
    *,
    model: str | Path | None,
    out: Path | None = None,
    config: EncodeConfig = _DEFAULT,
    pca: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Encode videos, images, folders of them and video stores; returns what was `written`, `drawn` and `refused`.

    One file becomes one `.npz` or `.safetensors` at `out`; anything else a folder of `.npz` with a report, `encoding.json`. The
    arrays are those of `Features`, with the `grid` and the `provenance`. A video is covered by windows of `config.num_frames`.
    `pca` draws the first three principal components beside the frames, as `.mp4` or `.png`, or a folder for several inputs.
    What cannot be read in a folder is refused and passed over; raises InputError where nothing could be encoded.
    """
    if not model:
        encoders = ", ".join(name for name, row in RELEASED.items() if row.family != "probe")
        raise WeightsError(
            "model: none given; name the run directory of a 'vjepa2 pretrain', a checkpoint file, a transformers folder, "
            f"or a released model: {encoders}"
        )
    given = [Path(inputs)] if isinstance(inputs, str | Path) else [Path(path) for path in inputs]
    sources = _sources(given)
    single = len(given) == 1 and given[0].is_file()
    out = out or Path(f"{given[0].stem}.npz" if single else "features")
    _check_targets(sources, out, pca, single=single)
    encoder = load_encoder(str(model), device=device)
    crop = _check_config(config, encoder)
    origin = provenance("encode", config, inputs={"model": encoder_digest(encoder)})
    summary: dict[str, Any] = {"written": [], "drawn": [], "encoded": [], "refused": []}
    progress.start("encode", total=len(sources))
    for source in sources:
        try:
            features = _features(source, encoder, config=config, crop=crop, progress=progress)
        except InputError as error:
            if single:
                raise
            summary["refused"].append({"source": source.name, "reason": str(error)})
            progress.advance()
            continue
        target = out if single else out / f"{source.name}.npz"
        _save(target, features, origin | {"source": source.name, "crop": crop})
        summary["written"].append(str(target))
        summary["encoded"].append(_describe(source, features))
        if pca is not None:
            picture = pca if single else pca / f"{source.name}{'.png' if source.still else '.mp4'}"
            _draw(picture, source, features, config=config, crop=crop)
            summary["drawn"].append(str(picture))
        progress.advance()
    progress.finish()
    if not summary["written"]:
        first = summary["refused"][0]
        raise InputError(f"{given[0]}: none of {len(sources)} inputs could be encoded; the first: {first['reason']}")
    if not single:
        write_report(out / "encoding.json", "encode", {key: summary[key] for key in ("encoded", "refused")}, provenance=origin)
    return summary


# --- inputs ----------------------------------------------------------------------------------------------------------


def _sources(given: Sequence[Path]) -> list[_Source]:
    sources: list[_Source] = []
    for path in given:
        if path.is_dir():
            sources += _of_store(path) if path.suffix == ".zarr" else _of_folder(path)
        elif path.exists():
            sources.append(_of_file(path, path.name))
        else:
            raise InputError(f"{path}: no such file or folder; check the path")
    names = [source.name for source in sources]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise InputError(f"{doubled}: two inputs have this name; encode them one at a time")
    return sources


def _of_folder(folder: Path) -> list[_Source]:
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES and path.is_file()
    )
    if not files:
        raise InputError(f"{folder}: no video or image in it; looked for {' '.join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))}")
    return [_of_file(path, path.relative_to(folder).as_posix()) for path in files]


def _of_file(path: Path, name: str) -> _Source:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _Source(name, lambda: iter([(0.0, read_image(path))]), lambda: 1.0, still=True)
    notes: list[str] = []

    def read() -> Iterator[TimedFrame]:
        notes.clear()
        return ((time, pixels) for time, _, pixels in iterate_frames(path, notes=notes))

    return _Source(name, read, lambda: probe_video(path).fps, notes=notes)


def _of_store(path: Path) -> list[_Source]:
    store = VideoStore.open(path)
    if not store.entries:
        raise ArtifactError(f"{path}: holds no videos; ingest some")
    return [_of_entry(store, entry) for entry in store.entries]


def _of_entry(store: VideoStore, entry: VideoEntry) -> _Source:
    def read() -> Iterator[TimedFrame]:
        times = store.timestamps(entry.key)
        for start in range(0, entry.num_frames, _STORE_FRAMES):
            stop = min(start + _STORE_FRAMES, entry.num_frames)
            yield from zip(times[start:stop].tolist(), store.frames(entry.key, start, stop), strict=True)

    return _Source(entry.key, read, lambda: entry.fps)


def _check_targets(sources: Sequence[_Source], out: Path, pca: Path | None, *, single: bool) -> None:
    if single and out.suffix not in (".npz", ".safetensors"):
        raise InputError(f"{out}: features of one file are written as .npz or .safetensors; choose one of these suffixes")
    if not single and out.suffix in (".npz", ".safetensors"):
        raise InputError(f"{out}: several inputs are written to a folder, one .npz each; name a folder")
    if single and pca is not None and pca.suffix != (".png" if sources[0].still else ".mp4"):
        raise InputError(f"{pca}: components are drawn as .mp4 for a video and as .png for an image; choose that suffix")


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


# --- features --------------------------------------------------------------------------------------------------------


def windows(frames: Iterator[TimedFrame], *, num_frames: int, tubelet_size: int) -> Iterator[Window]:
    """Cover frames by windows of `num_frames` without overlap; the last one is moved back to be full, and says what to skip.

    Where frames lack to a whole tubelet the last frame is repeated; an input shorter than a window makes a shorter one.
    """
    before: list[TimedFrame] = []
    held: list[TimedFrame] = []
    for frame in frames:
        held.append(frame)
        if len(held) == num_frames:
            yield Window(held, 0, 0)
            before, held = held, []
    if held:
        padding = -len(held) % tubelet_size
        held += [held[-1]] * padding
        context = before[len(held) :]
        yield Window(context + held, len(context) // tubelet_size, padding)


def at_rate(frames: Iterator[TimedFrame], *, fps: float, rate: float) -> Iterator[TimedFrame]:
    """At each instant k / fps the frame that is shown then; `rate` is that of the frames and says how long the last one stays."""
    tolerance = 1e-3
    shown: TimedFrame | None = None
    step = 0
    for frame in frames:
        while shown is not None and step / fps < frame[0] - tolerance:
            yield shown
            step += 1
        shown = frame
    while shown is not None and step / fps < shown[0] + 1 / rate - tolerance:
        yield shown
        step += 1


def _sampled(source: _Source, config: EncodeConfig) -> Iterator[TimedFrame]:
    if config.fps is None or source.still:
        return source.open()
    return at_rate(source.open(), fps=config.fps, rate=source.fps())


@torch.inference_mode()
def _features(source: _Source, encoder: FrameEncoder, *, config: EncodeConfig, crop: int, progress: Progress) -> Features:
    device = next((weight.device for weight in encoder.parameters()), torch.device("cpu"))
    # V-JEPA 2.1 has a tokenizer for images; any other encoder sees a tubelet of copies.
    tubelet = 1 if source.still and isinstance(encoder, EncoderV21) else encoder.spec.tubelet_size
    tokens: list[NDArray[np.float32]] = []
    timestamps: list[NDArray[np.float64]] = []
    num_frames = padded = 0
    for window in windows(_sampled(source, config), num_frames=config.num_frames, tubelet_size=tubelet):
        times = np.array([time for time, _ in window.frames])
        clip = preprocess(Clip(np.stack([pixels for _, pixels in window.frames]), 1.0, times, source.name), crop=crop)[None]
        grid = encoder.grid(clip)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            encoded = encoder(clip.to(device))[0].float().cpu().numpy()
        tokens.append(encoded.reshape(grid.t, grid.h, grid.w, -1)[window.skip :])
        timestamps.append(times.reshape(grid.t, tubelet).mean(1)[window.skip :])
        num_frames += len(window.frames) - window.skip * tubelet - window.padding
        padded += window.padding
        progress.advance(0, fields={"frames": num_frames})
    return Features(np.concatenate(tokens), np.concatenate(timestamps), num_frames, padded)


def _describe(source: _Source, features: Features) -> dict[str, Any]:
    return {
        "source": source.name,
        "shape": list(features.tokens.shape),
        "num_frames": features.num_frames,
        "padded_frames": features.padded_frames,
        "notes": list(source.notes),
        "last_timestamp": float(features.timestamps[-1]),
        "digest": digest_bytes(features.tokens.tobytes(), features.timestamps.tobytes()),
    }


def _save(path: Path, features: Features, origin: dict[str, Any]) -> None:
    grid = TokenGrid(*features.tokens.shape[:3])
    arrays: dict[str, Any] = {
        "tokens": features.tokens,
        "timestamps": features.timestamps,
        "grid": np.array([grid.t, grid.h, grid.w]),
        "num_frames": np.array(features.num_frames),
    }
    text = json.dumps(origin, sort_keys=True)
    if path.suffix == ".safetensors":
        save_tensors(path, {name: torch.from_numpy(array) for name, array in arrays.items()}, metadata={"provenance": text})
        return
    with replaced_atomically(path) as partial, partial.open("wb") as handle:
        np.savez(handle, provenance=np.array(text), **arrays)


# --- pictures --------------------------------------------------------------------------------------------------------


def principal_colours(tokens: NDArray[np.float32]) -> Pixels:
    """The first three principal components of tokens [T, H, W, D] as uint8 [T, H, W, 3], one a colour.

    Each axis points to where its largest weight is positive, so equal tokens give equal colours, and runs from its 1st to its
    99th percentile.
    """
    flat = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
    flat = flat - flat.mean(0)
    axes = np.linalg.eigh(flat.T @ flat)[1][:, :-4:-1]  # [D, 3], the largest first
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(0)[None], 0))
    scores = flat @ axes
    low, high = np.percentile(scores, (1, 99), axis=0)
    shares = np.clip((scores - low) / np.maximum(high - low, 1e-12), 0, 1)
    colours: Pixels = np.round(255 * shares).astype(np.uint8).reshape(*tokens.shape[:-1], 3)
    return colours


def _draw(path: Path, source: _Source, features: Features, *, config: EncodeConfig, crop: int) -> None:
    """The input as the encoder sees it, and beside it the components of its tokens."""
    colours = principal_colours(features.tokens)
    patch = crop // colours.shape[1]
    tubelet = (features.num_frames + features.padded_frames) // len(colours)

    def pictures() -> Iterator[Pixels]:
        for index, (time, pixels) in enumerate(_sampled(source, config)):
            seen = preprocess(Clip(pixels[None], 1.0, np.array([time]), source.name), crop=crop)[:, 0].permute(1, 2, 0).numpy()
            frame = np.clip(np.round(255 * (seen * IMAGE_STD + IMAGE_MEAN)), 0, 255).astype(np.uint8)
            yield np.concatenate([frame, colours[index // tubelet].repeat(patch, 0).repeat(patch, 1)], axis=1)

    if source.still:
        write_image(path, next(pictures()))
    else:
        write_video(path, pictures(), fps=config.fps or source.fps())
