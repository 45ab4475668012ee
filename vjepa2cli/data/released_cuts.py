"""Which frames of a video the released training takes for a clip, for comparison with it; `batches.clip_indices` is ours."""

import math

import numpy as np
import numpy.typing as npt


def released_indices(
    num_stored: int, rate: float, rng: np.random.Generator, *, num_frames: int, fps: float
) -> npt.NDArray[np.int64]:
    """Frames of a clip cut at random from a video of `num_stored` frames, `rate` a second.

    It counts `num_frames` steps where there are `num_frames` - 1 between frames, and rounds the step down: so 16 frames at 4 a
    second, of a video of 30, lie 7.47 frames apart. A video too short for that is spread out, and its last frame repeats.

    Source: src/datasets/video_dataset.py of facebookresearch/vjepa2.
    """
    step = max(1, math.ceil(rate) // max(1, int(fps)))
    length = num_frames * step
    if num_stored > length:
        end = int(rng.integers(length, num_stored))
        return np.linspace(end - length, end, num_frames).clip(end - length, end - 1).astype(np.int64)
    spread = np.linspace(0, num_stored, num_stored // step)
    repeated = np.full(num_frames - len(spread), num_stored)
    return np.concatenate((spread, repeated)).clip(0, num_stored - 1).astype(np.int64)
