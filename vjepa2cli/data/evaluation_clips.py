"""Which frames and which parts of them a frozen evaluation looks at: the same at every run, unless it is told otherwise.

Source: src/datasets/video_dataset.py and evals/video_classification_frozen/utils.py of facebookresearch/vjepa2.
"""

import numpy as np
import numpy.typing as npt

from vjepa2cli.data.cropping import check_frames, evaluation_crop
from vjepa2cli.data.video import resize
from vjepa2cli.errors import ConfigError

Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


def segment_indices(
    total: int, *, num_frames: int, frame_step: int | None, segments: int, rng: np.random.Generator | None = None
) -> Indices:
    """Frames of one clip a segment, of a stretch of `total` frames: int64 [segments, num_frames].

    The stretch is cut into equal segments. A clip lies in the middle of its segment or, with `rng`, anywhere in it. Without
    `frame_step` it is spread over the whole segment. A segment that is shorter than a clip borrows from its neighbours; where
    all of the stretch is shorter, its last frame repeats, as in the released evaluations.
    """
    if frame_step is None:
        edges = np.linspace(0, total, segments + 1)
        ends = np.stack([edges[:-1], np.maximum(edges[1:] - 1, edges[:-1])], axis=1)
        clips = np.stack([np.linspace(first, last, num_frames) for first, last in ends])
        return np.asarray(clips.round().clip(0, total - 1).astype(np.int64))
    length, part = num_frames * frame_step, total // segments
    if part > length:
        # The released code never draws the last place that a clip fits, nor do we.
        starts = (part - length) // 2 if rng is None else rng.integers(part - length, size=segments)
        firsts = np.arange(segments) * part + starts
        steps = np.linspace(0, length, num_frames).clip(0, length - 1)
    else:
        spread = (total - length) // max(1, segments - 1) if total > length else 0
        firsts, last = np.arange(segments) * spread, min(length, total) - 1
        moving = np.linspace(0, last, last // frame_step)
        steps = np.concatenate((moving, np.full(num_frames - len(moving), last))).clip(0, max(0, last - 1))
    return np.asarray((firsts[:, None] + steps.astype(np.int64)[None]).clip(0, total - 1).astype(np.int64))


def view_crops(frames: Pixels, *, crop: int, views: int) -> Pixels:
    """Squares of frames uint8 [F, Y, X, 3]: uint8 [views, F, crop, crop, 3].

    One view is the released evaluation crop. Several lie side by side along the longer side, after the shorter one was resized
    to the crop itself.
    """
    check_frames(frames)
    if views == 1:
        return evaluation_crop(frames, crop=crop)[None]
    height, width = frames.shape[1:3]
    short = min(height, width)
    size = (height * crop // short, width * crop // short)
    resized = resize(frames, size, method="bilinear")
    room = max(size) - crop
    starts = [view * (room // (views - 1)) for view in range(views)]
    along = 1 if size[0] > size[1] else 2
    return np.stack([resized.take(range(start, start + crop), axis=along) for start in starts])


def check_tubelets(num_frames: int, tubelet_size: int) -> None:
    """Raise ConfigError unless a clip is made of whole tubelets."""
    if num_frames % tubelet_size and num_frames != 1:
        raise ConfigError(
            f"num_frames: {num_frames} does not make whole tubelets of {tubelet_size} frames; choose a multiple of {tubelet_size}"
        )
