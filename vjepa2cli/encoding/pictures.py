"""Pictures of features: their principal components beside the frames."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.data.transforms import IMAGE_MEAN, IMAGE_STD, preprocess
from vjepa2cli.data.video import Clip, write_image, write_video
from vjepa2cli.encoding.features import Features
from vjepa2cli.encoding.sources import Pixels, Source
from vjepa2cli.encoding.windows import sampled
from vjepa2cli.settings import EncodeConfig


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


def draw_components(path: Path, source: Source, features: Features, *, config: EncodeConfig, crop: int) -> None:
    """The input as the encoder sees it, and beside it the components of its tokens."""
    colours = principal_colours(features.tokens)
    patch = crop // colours.shape[1]
    tubelet = (features.num_frames + features.padded_frames) // len(colours)

    def pictures() -> Iterator[Pixels]:
        for index, (time, pixels) in enumerate(sampled(source, config)):
            seen = preprocess(Clip(pixels[None], 1.0, np.array([time]), source.name), crop=crop)[:, 0].permute(1, 2, 0).numpy()
            frame = np.clip(np.round(255 * (seen * IMAGE_STD + IMAGE_MEAN)), 0, 255).astype(np.uint8)
            yield np.concatenate([frame, colours[index // tubelet].repeat(patch, 0).repeat(patch, 1)], axis=1)

    if source.still:
        write_image(path, next(pictures()))
    else:
        write_video(path, pictures(), fps=config.fps or source.fps())
