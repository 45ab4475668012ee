"""Image files: read upright, and written whole or not at all."""

from pathlib import Path

import cv2
import numpy as np

from vjepa2cli.data.file_faults import IMAGE_SUFFIXES, VIDEO_SUFFIXES, explain_unreadable, is_cut_short_image, refuse_absent
from vjepa2cli.data.video.decoding import iterate_frames
from vjepa2cli.data.video.pixels import Pixels, check_pixels
from vjepa2cli.errors import VideoError
from vjepa2cli.files import replaced_atomically


def read_image(path: str | Path) -> Pixels:
    """Read an image file as uint8 [Y, X, 3] RGB, upright by its EXIF; raises VideoError where it is no image or is cut short."""
    path = Path(path)
    refuse_absent(path)
    data = path.read_bytes()
    image = decode_image(data, where=str(path))
    if image is not None:
        return image
    if path.suffix.lower() in IMAGE_SUFFIXES and data[4:8] == b"ftyp":
        return next(iterate_frames(path))[2]
    if path.suffix.lower() in VIDEO_SUFFIXES and data:
        raise VideoError(f"{path}: a video where an image is needed; save one frame of it as .png")
    raise VideoError(f"{path}: not an image ({explain_unreadable(path).partition(';')[0]}); give a .png or .jpg")


def decode_image(data: bytes, *, where: str) -> Pixels | None:
    """Decode an image in memory as uint8 [Y, X, 3] RGB, None where it is none; raises VideoError where it is cut short."""
    if is_cut_short_image(data):
        raise VideoError(f"{where}: the image is cut short; copy or download it again")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        image = None
    if image is None:
        return None
    rgb: Pixels = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def write_image(path: str | Path, rgb: Pixels) -> None:
    """Write uint8 [Y, X, 3] RGB as .png or .jpg by the name's suffix, whole or not at all."""
    path = Path(path)
    check_pixels(rgb, ndim=3)
    if path.suffix.lower() not in {".png", ".jpg", ".jpeg"}:
        raise VideoError(f"{path}: images are written as .png or .jpg; choose one of these suffixes")
    _, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    with replaced_atomically(path) as partial:
        partial.write_bytes(data.tobytes())
