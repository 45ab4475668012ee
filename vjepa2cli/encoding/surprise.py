"""Surprise: how far the pretraining predictor is off when it foretells the features of a video from those of its past.

    frames       | context ........ | targets ........ |      a window; the next one begins `stride` frames later
    encoder        context alone      whole window
    predictor      context        ->  predictions             mean |prediction - layer-normed features| is the surprise

Beside it stands what copying the last time step of the context would give: where nothing changes, that is hard to beat.

Source: Garrido et al. 2025 (arXiv:2502.11831); evals/intuitive_physics/eval.py of facebookresearch/jepa-intuitive-physics, where
the online encoder reads the context and its moving average the targets; here one encoder reads both, as in transformers.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.data.cropping import evaluation_crop
from vjepa2cli.data.file_faults import IMAGE_SUFFIXES, refuse_absent
from vjepa2cli.data.transforms import normalise
from vjepa2cli.data.video import iterate_frames, probe_video
from vjepa2cli.encoding.memory import declared_frames
from vjepa2cli.encoding.pictures import View, draw, heat
from vjepa2cli.encoding.sources import Pixels, Source, TimedFrame
from vjepa2cli.errors import ConfigError, InputError, WeightsError
from vjepa2cli.files import digest_file
from vjepa2cli.models.checkpoints import read_checkpoint
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.encoder_v21 import EncoderV21
from vjepa2cli.models.inference import native_precision, prepare_for_inference
from vjepa2cli.models.predictor import Predictor, inference_mask_index
from vjepa2cli.models.predictor_v21 import PredictorV21
from vjepa2cli.models.weights import encoder_digest, load_encoder, load_predictor, state_digest
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import SurpriseConfig

_DEFAULT = SurpriseConfig()
_LONGEST_WINDOW = 16


@dataclass(frozen=True)
class Windowing:
    """How a video is cut, in frames: the first `context_frames` of every window foretell the rest of its `num_frames`."""

    num_frames: int
    context_frames: int
    stride: int
    tubelet_size: int

    @property
    def context_steps(self) -> int:
        """Time steps in the context."""
        return self.context_frames // self.tubelet_size


@dataclass(frozen=True)
class Window:
    """One window: when it begins, when what it foretells begins, and when it ends, in seconds; and both mean errors."""

    start: float
    targets_from: float
    end: float
    surprise: float
    unchanged: float


@dataclass(frozen=True)
class Surprise:
    """Errors of a video, by time step and by window.

    `timestamps` [T] in seconds; `predicted` and `unchanged` [T', H, W] are means over the windows that foretell a step, of the
    last T' steps: nothing foretells the first context.
    """

    timestamps: NDArray[np.float64]
    predicted: NDArray[np.float64]
    unchanged: NDArray[np.float64]
    windows: tuple[Window, ...]


def forecast_errors(
    encoder: Encoder | EncoderV21, predictor: Predictor | PredictorV21, clips: Tensor, *, context_steps: int
) -> tuple[Tensor, Tensor]:
    """Foretell what follows the first time steps of clips [B, 3, F, Y, X]: L1 errors [B, T - context_steps, H, W].

    First those of the predictor, then those of the context's last time step copied. Both see the context alone.
    """
    levels = predictor.spec.num_levels if isinstance(predictor, PredictorV21) else 1
    read = encoder.hierarchical if isinstance(encoder, EncoderV21) and levels > 1 else encoder
    grid = encoder.grid(clips)
    ids = torch.arange(grid.num_tokens, device=clips.device).expand(len(clips), -1)
    num_context = context_steps * grid.tokens_per_frame
    context_ids, target_ids = ids[:, :num_context], ids[:, num_context:]
    context = read(clips, context_ids)
    predicted = predictor(context, context_ids, target_ids, grid=grid, mask_index=inference_mask_index(predictor))
    targets = _normalised(read(clips), levels)[:, num_context:]
    copied = _normalised(context, levels)[:, -grid.tokens_per_frame :].repeat(1, grid.t - context_steps, 1)
    shape = (len(clips), grid.t - context_steps, grid.h, grid.w)
    errors = [(guess.float() - targets).abs().mean(-1).reshape(shape) for guess in (predicted, copied)]
    return errors[0], errors[1]


def _normalised(features: Tensor, levels: int) -> Tensor:
    """Each level of features [B, N, levels x D] layer-normed without an affine map, as the targets of training are."""
    parts = features.float().reshape(*features.shape[:-1], levels, -1)
    return F.layer_norm(parts, parts.shape[-1:]).flatten(-2)


@torch.inference_mode()
def compute_surprise(
    frames: Iterable[TimedFrame],
    encoder: Encoder | EncoderV21,
    predictor: Predictor | PredictorV21,
    *,
    windowing: Windowing,
    crop: int | tuple[int, int],
    batch_windows: int = 8,
    name: str = "frames",
    progress: Progress = SILENT,
) -> Surprise:
    """Slide windows over frames; what does not fill a last window is left out. Raises InputError where not one is full."""
    device = next((weight.device for weight in encoder.parameters()), torch.device("cpu"))
    tally = _Tally(windowing)
    for batch in _batches(_windows(frames, windowing, crop=crop, name=name), batch_windows):
        pixels = torch.from_numpy(np.stack([np.stack([frame for _, frame in window]) for window in batch]))
        clips = normalise(pixels.to(device).movedim(-1, 1))
        errors = forecast_errors(encoder, predictor, clips, context_steps=windowing.context_steps)
        for window, predicted, unchanged in zip(batch, *(part.double().cpu().numpy() for part in errors), strict=True):
            tally.add([time for time, _ in window], predicted, unchanged)
        progress.advance(len(batch), fields={"seconds": tally.windows[-1].end, "surprise": tally.windows[-1].surprise})
    return tally.total()


class _Tally:
    """Means of the errors of each time step over the windows that foretell it."""

    def __init__(self, windowing: Windowing) -> None:
        self._windowing = windowing
        self._timestamps: dict[int, float] = {}
        self._sums: list[NDArray[np.float64]] = []
        self._counts: list[int] = []
        self.windows: list[Window] = []

    def add(self, times: Sequence[float], predicted: NDArray[np.float64], unchanged: NDArray[np.float64]) -> None:
        """Count one window: the seconds of its frames, and the errors [H', H, W] of the steps after its context."""
        shape = self._windowing
        first = len(self.windows) * shape.stride // shape.tubelet_size
        for step, seconds in enumerate(np.reshape(times, (-1, shape.tubelet_size)).mean(1), start=first):
            self._timestamps[step] = float(seconds)
        for step, errors in enumerate(zip(predicted, unchanged, strict=True), start=first):
            if step == len(self._sums):
                self._sums.append(np.zeros((2, *predicted.shape[1:])))
                self._counts.append(0)
            self._sums[step] += np.stack(errors)
            self._counts[step] += 1
        targets_from = times[shape.context_frames]
        self.windows.append(Window(times[0], targets_from, times[-1], float(predicted.mean()), float(unchanged.mean())))

    def total(self) -> Surprise:
        """The means."""
        means = np.stack(self._sums) / np.reshape(self._counts, (-1, 1, 1, 1))
        return Surprise(np.array(list(self._timestamps.values())), means[:, 0], means[:, 1], tuple(self.windows))


def _windows(
    frames: Iterable[TimedFrame], windowing: Windowing, *, crop: int | tuple[int, int], name: str
) -> Iterator[list[TimedFrame]]:
    """Windows of frames as the encoder sees them; raises InputError where there are too few for one."""
    held: deque[TimedFrame] = deque(maxlen=windowing.num_frames)
    count = 0
    for count, (time, pixels) in enumerate(frames, start=1):
        held.append((time, evaluation_crop(pixels[None], crop=crop)[0]))
        if count >= windowing.num_frames and (count - windowing.num_frames) % windowing.stride == 0:
            yield list(held)
    if count < windowing.num_frames:
        raise InputError(
            f"{name}: the video is too short: it has {count} frames, a window needs {windowing.num_frames}; set a higher fps or "
            "a lower num_frames"
        )


def _batches(windows: Iterator[list[TimedFrame]], size: int) -> Iterator[list[list[TimedFrame]]]:
    while batch := list(islice(windows, size)):
        yield batch


def measure_surprise(
    video: str | Path,
    *,
    model: str | Path,
    out: Path,
    map_out: Path | None = None,
    config: SurpriseConfig = _DEFAULT,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> Path:
    """Write how surprising a video is over time, as a report; returns its path.

    `map_out` (.mp4) draws every frame beside the errors of its patches. Raises WeightsError for a model without a predictor of
    its own features, ConfigError for windows that do not fit the encoder, and VideoError for what cannot be decoded.
    """
    video = Path(video)
    if video.suffix.lower() in IMAGE_SUFFIXES:
        raise InputError(f"{video}: an image has no time; give a video")
    for path, suffix, what in ((out, ".json", "numbers are"), (map_out, ".mp4", "the map of a video is")):
        if path is not None and path.suffix != suffix:
            raise InputError(f"{path}: {what} written as {suffix}; choose that suffix")
    refuse_absent(video)
    fps = config.fps or probe_video(video).fps
    encoder, predictor = _networks(model)
    windowing, crop = check_windowing(config, encoder.spec)
    networks = {"encoder": encoder_digest(encoder), "predictor": state_digest(predictor)}
    origin = provenance("surprise", config, inputs={"video": digest_file(video)} | networks)
    precision = native_precision(device) if config.precision == "auto" else config.precision
    for network in (encoder, predictor):
        prepare_for_inference(network, device=device, precision=precision)

    notes: list[str] = []

    def frames() -> Iterator[TimedFrame]:
        notes.clear()
        return ((time, pixels) for time, _, pixels in iterate_frames(video, fps=config.fps, notes=notes))

    expected, _ = declared_frames(Source(video.name, video), fps=config.fps)
    progress.start("surprise, windows", total=max(1, (expected - windowing.num_frames) // windowing.stride + 1))
    found = compute_surprise(
        frames(),
        encoder,
        predictor,
        windowing=windowing,
        crop=crop,
        batch_windows=config.batch_windows,
        name=str(video),
        progress=progress,
    )
    progress.finish()
    if map_out is not None:
        _draw_map(map_out, found, View(video.name, found.timestamps, frames, fps, still=False, crop=crop))
    body = {"source": video.name, "fps": fps, "crop": crop, "window": asdict(windowing), "notes": notes} | _body(found)
    return write_report(out, "surprise", body, provenance=origin)


def _networks(model: str | Path) -> tuple[Encoder | EncoderV21, Predictor | PredictorV21]:
    baseline, separator, _ = str(model).partition(":")
    if separator and baseline in ("untrained", "pixels"):
        raise WeightsError(f"{model}: a baseline has no predictor; give the model itself")
    held = sorted(read_checkpoint(model).networks)
    if "predictor" not in held:
        raise WeightsError(
            f"{model}: holds no pretraining predictor (it holds {', '.join(held)}), so it foretells nothing; give a run "
            "directory of 'vjepa2 pretrain', or a released model such as vjepa2-vitl-256"
        )
    encoder, predictor = load_encoder(model), load_predictor(model)
    assert isinstance(encoder, Encoder | EncoderV21)
    if isinstance(predictor, PredictorV21) and predictor.spec.target_dim != encoder.spec.embed_dim:
        raise WeightsError(
            f"{model}: its predictor foretells the features of its teacher, {predictor.spec.target_dim} wide, and its own are "
            f"{encoder.spec.embed_dim} wide; take a model that was its own teacher, such as vjepa2.1-vitg-384"
        )
    return encoder, predictor


def check_windowing(config: SurpriseConfig, spec: EncoderSpec) -> tuple[Windowing, int | tuple[int, int]]:
    """The windows and the crop in pixels that a config asks for; raises ConfigError for what does not fit the encoder."""
    tubelet = spec.tubelet_size
    num_frames = config.num_frames or min(_LONGEST_WINDOW, spec.num_frames)
    context_frames = config.context_frames or max(tubelet, num_frames // 2 // tubelet * tubelet)
    stride = config.stride or tubelet
    crop = config.crop or spec.crop
    in_tubelets = (("num_frames", num_frames), ("context_frames", context_frames), ("stride", stride))
    in_patches = (("crop", side) for side in ((crop,) if isinstance(crop, int) else crop))
    for name, size, unit in (
        *((name, size, tubelet) for name, size in in_tubelets),
        *((name, size, spec.patch_size) for name, size in in_patches),
    ):
        if size % unit:
            raise ConfigError(
                f"{name}: {size} is not a multiple of {unit}, the encoder's; set it to {max(1, size // unit) * unit}"
            )
    if num_frames < 2 * tubelet:
        raise ConfigError(
            f"num_frames: {num_frames} is one time step, of which nothing is foretold; set it to {2 * tubelet} or more"
        )
    if context_frames >= num_frames:
        raise ConfigError(
            f"context_frames: {context_frames} leaves nothing to foretell of {num_frames} frames; set it to "
            f"{num_frames - tubelet} or less, or num_frames higher"
        )
    if stride > num_frames - context_frames:
        raise ConfigError(
            f"stride: {stride} skips frames that no window foretells; set it to {num_frames - context_frames} or less"
        )
    return Windowing(num_frames, context_frames, stride, tubelet), crop


def _body(found: Surprise) -> dict[str, Any]:
    """The numbers of a report; L1 on features of unit spread."""
    steps, copied = found.predicted.mean((1, 2)), found.unchanged.mean((1, 2))
    over_windows = [window.surprise for window in found.windows]
    unforetold = len(found.timestamps) - len(steps)
    peak = int(steps.argmax())
    return {
        "timestamps": _rounded(found.timestamps),
        "surprise": [None] * unforetold + _rounded(steps),
        "unchanged": [None] * unforetold + _rounded(copied),
        "windows": [{key: round(value, 6) for key, value in asdict(window).items()} for window in found.windows],
        "mean": round(float(np.mean(over_windows)), 6),
        "max": round(max(over_windows), 6),
        "mean_unchanged": round(float(np.mean([window.unchanged for window in found.windows])), 6),
        "peak": {"time": round(float(found.timestamps[unforetold + peak]), 6), "surprise": round(float(steps[peak]), 6)},
    }


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 6) for value in values]


def _draw_map(path: Path, found: Surprise, view: View) -> None:
    """Every frame beside the errors of its patches, from none (nearly black) to their 99th percentile (pale yellow)."""
    high = float(np.percentile(found.predicted, 99))
    unforetold = np.zeros((len(found.timestamps) - len(found.predicted), *found.predicted.shape[1:]))
    errors = np.concatenate([unforetold, found.predicted])

    def maps(step: int, size: tuple[int, int]) -> Pixels:
        return heat(errors[step], size, low=0, high=high)

    draw(path, view, maps)
