"""Where a probe looks: its query's attention over clips that it named right and wrong, as film strips."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vjepa2cli.data.transforms import IMAGE_MEAN, IMAGE_STD
from vjepa2cli.data.video import resize, write_image
from vjepa2cli.models.probe_sweep import Probe
from vjepa2cli.models.world_model import FrameEncoder
from vjepa2cli.settings import ProbeConfig
from vjepa2cli.train.probing.features import Features
from vjepa2cli.train.probing.samples import ProbeData

_SHOWN = 8
_SIDE = 128
_SHARP = 4.0
_WARM = np.array([255, 120, 0], np.float32)
Pixels = NDArray[np.uint8]


@torch.inference_mode()
def draw_examples(
    probe: Probe,
    features: Features,
    predictions: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]],
    encoder: FrameEncoder,
    data: ProbeData,
    config: ProbeConfig,
    *,
    folder: Path,
) -> list[dict[str, Any]]:
    """Draw at most `config.examples` right and as many wrong answers to the last question; returns what each picture shows.

    The strips show the first segment and the middle view: its frames above, and below them the attention, mean over heads.
    """
    named, confidence = predictions[-1]
    labels = np.array([sample.targets[-1] for sample in data.val])
    told = []
    for kind, rows in (("right", np.flatnonzero(named == labels)), ("wrong", np.flatnonzero(named != labels))):
        # The surest of either kind: what the probe is good at, and what misleads it.
        for row in rows[np.argsort(-confidence[rows], kind="stable")][: config.examples].tolist():
            path = folder / f"{kind}_{row:05d}.png"
            write_image(path, _strip(probe, features, encoder, row, config))
            question = data.questions[-1]
            told.append(
                {
                    "picture": f"{folder.parent.name}/{folder.name}/{path.name}",
                    "clip": data.val[row].name,
                    "true": question.classes[labels[row]],
                    "named": question.classes[int(named[row])],
                    "confidence": float(confidence[row]),
                    "right": kind == "right",
                }
            )
    return told


def _strip(probe: Probe, features: Features, encoder: FrameEncoder, row: int, config: ProbeConfig) -> Pixels:
    (prepared,) = features.reader.read([row], None, threads=0, ahead=0)
    view = features.views // 2
    clip = prepared.clips[view * config.segments].cpu()  # [3, F, c, c]
    _, tokens = next(iter(features.encode([row])))
    weights = probe.pooler.attention(tokens[view : view + 1].float().to(next(probe.parameters()).device))[0, -1].cpu()
    grid = encoder.grid(clip)
    # Of all tokens, the first segment's, summed over levels.
    levels = max(1, len(config.layers))
    of_segment = weights[: config.segments * levels * grid.num_tokens].view(config.segments, levels, grid.num_tokens)[0].sum(0)
    maps = of_segment.view(grid.t, grid.h, grid.w).numpy()
    mean, std = (np.array(values, np.float32) for values in (IMAGE_MEAN, IMAGE_STD))
    frames = ((clip.permute(1, 2, 3, 0).numpy() * std + mean) * 255).clip(0, 255).astype(np.uint8)
    shown = np.linspace(0, len(frames) - 1, min(_SHOWN, len(frames))).round().astype(int)
    above = resize(frames[shown], (_SIDE, _SIDE))
    times = (shown * grid.t // len(frames)).clip(0, grid.t - 1)
    # As often as even attention: so that a probe that looks everywhere alike is not drawn as one that looks hard.
    focus = maps * maps.size
    levels_of_grey = (focus[times] / max(float(focus.max()), _SHARP) * 255).astype(np.uint8)
    heat = resize(np.repeat(levels_of_grey[..., None], 3, axis=-1), (_SIDE, _SIDE), method="bilinear")
    share = heat[..., :1].astype(np.float32) / 255
    grey = above.mean(axis=-1, keepdims=True) * 0.6 + 40
    below = (grey * (1 - share) + _WARM * share).clip(0, 255).astype(np.uint8)
    return np.concatenate([np.concatenate(list(above), axis=1), np.concatenate(list(below), axis=1)], axis=0)
