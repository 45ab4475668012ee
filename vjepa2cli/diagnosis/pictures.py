"""Video codecs that decode, an mp4 that we write and read back, and a simulator that draws."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.diagnosis.check import Check, one_line, run_contained
from vjepa2cli.diagnosis.libraries import OPENCV_REMEDY
from vjepa2cli.diagnosis.samples import CODECS, LEFT, RIGHT, SIDE, sample
from vjepa2cli.errors import Vjepa2Error

_CODEC_REMEDY = "reinstall PyAV from its wheel, which brings its own FFmpeg: pip install --force-reinstall --only-binary av av"
_GL_REMEDY = "apt-get install -y libegl1 (fastest) or libosmesa6, and set MUJOCO_GL to egl or osmesa, or not at all"
_NUM_FRAMES = 3
_WORST_SHADE = 12
_RENDER_SCRIPT = """
import os
from vjepa2cli.errors import Vjepa2Error
try:
    from vjepa2cli.simulation.tabletop import Tabletop
    table = Tabletop(image_size=64)
    frame = table.reset(seed=0).frame
    table.close()
    report("ok", os.environ.get("MUJOCO_GL", ""), float(frame.std()))
except Vjepa2Error as error:
    report("fault", error)
"""


def check_codecs(codecs: Sequence[str] = CODECS) -> list[Check]:
    """Decode a small video of each codec and look at its colours; write an mp4 and read that back too."""
    try:
        from vjepa2cli.data.video import read_clip, write_video
    except (ImportError, OSError) as error:
        return [Check("video", False, f"the decoder does not import ({one_line(error)})", OPENCV_REMEDY)]

    def written(path: Path) -> NDArray[Any]:
        write_video(path, np.repeat(_pattern()[None], _NUM_FRAMES, axis=0), fps=10)
        return read_clip(path).pixels

    def decoded(path: Path, codec: str) -> NDArray[Any]:
        path.write_bytes(sample(codec))
        return read_clip(path).pixels

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample"
        checks = [_compare(f"video: {codec}", partial(decoded, path.with_suffix(".mkv"), codec)) for codec in codecs]
        return [*checks, _compare("video: writing mp4", partial(written, path.with_suffix(".mp4")))]


def _pattern() -> NDArray[np.uint8]:
    """What every frame of a sample shows: [Y, X, 3]."""
    image = np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    image[:, : SIDE // 2], image[:, SIDE // 2 :] = LEFT, RIGHT
    return image


def _compare(name: str, read: Callable[[], NDArray[Any]]) -> Check:
    """Whether the frames read are the sample's, away from the border of its two colours, where chroma is shared."""
    try:
        pixels = read().astype(int)
    except (Vjepa2Error, OSError) as error:
        return Check(name, False, one_line(error), _CODEC_REMEDY)
    if pixels.shape != (_NUM_FRAMES, SIDE, SIDE, 3):
        return Check(name, False, f"gave frames of shape {pixels.shape} instead of {(_NUM_FRAMES, SIDE, SIDE, 3)}", _CODEC_REMEDY)
    plain = np.r_[: SIDE // 2 - 4, SIDE // 2 + 4 : SIDE]
    worst = int(np.abs(pixels - _pattern().astype(int))[:, :, plain].max())
    fit = worst <= _WORST_SHADE
    return Check(name, fit, f"{_NUM_FRAMES} frames, colours within {worst} of 255", "" if fit else _CODEC_REMEDY)


def check_simulator() -> Check:
    """Draw one frame of the tabletop in another process; a GL library may crash instead of complaining."""
    lines, ending = run_contained(_RENDER_SCRIPT)
    match lines:
        case [["ok", platform, contrast]]:
            if float(contrast) > 1:
                return Check("simulator", True, f"draws with {platform or 'the default GL'}")
            return Check("simulator", False, f"draws an empty picture with {platform}", _GL_REMEDY)
        case [["fault", reason]] if "vjepa2cli[sim]" in reason:
            return Check("simulator", None, reason, "pip install 'vjepa2cli[sim]' for collect and evaluate")
        case [["fault", reason]]:
            return Check("simulator", False, reason, _GL_REMEDY)
    return Check("simulator", False, f"does not draw: {ending}", _GL_REMEDY)
