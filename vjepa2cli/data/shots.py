"""Where one shot ends and the next begins, by PySceneDetect; its only door."""

from collections import deque
from collections.abc import Iterator

import numpy as np

from vjepa2cli.data.video import Pixels, resize

# The detector judges a frame when it has seen this many behind it.
_WINDOW = 2
# As PySceneDetect's own command has it; the library counts 15 frames, whatever their rate.
_SHORTEST_SECONDS = 0.6
_SHORT_SIDE = 48

Frame = tuple[float, int, Pixels]


def mark_cuts(frames: Iterator[Frame], *, fps: float) -> Iterator[tuple[bool, Frame]]:
    """Yield each frame of `iterate_frames` with whether it begins a new shot, two frames late.

    `fps` is the rate of these frames. A cut is a change of content that stands out among those around it, at least 0.6 s after
    the one before. Source: AdaptiveDetector of PySceneDetect, with the defaults of its command.
    """
    from scenedetect.common import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    detector = AdaptiveDetector(window_width=_WINDOW, min_scene_len=max(1, round(_SHORTEST_SECONDS * fps)))
    waiting: deque[Frame] = deque()
    cuts: set[int] = set()
    given = 0
    for count, frame in enumerate(frames):
        found = detector.process_frame(FrameTimecode(count, fps=fps), _small_bgr(frame[2]))
        cuts.update(cut.frame_num for cut in found)
        waiting.append(frame)
        if len(waiting) > _WINDOW:
            yield given in cuts, waiting.popleft()
            given += 1
    while waiting:
        yield given in cuts, waiting.popleft()
        given += 1


def _small_bgr(pixels: Pixels) -> Pixels:
    height, width, _ = pixels.shape
    scale = min(1.0, _SHORT_SIDE / min(height, width))
    small = resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale))), method="blocks")
    return np.ascontiguousarray(small[..., ::-1])
