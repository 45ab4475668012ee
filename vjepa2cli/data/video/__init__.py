"""The only decoder: video and images in, upright RGB pixels with exact timestamps out, and the writer of H.264.

PyAV decodes, because it reads AV1 and gives every frame's own timestamp; OpenCV resizes and reads images. Rotation and
mirroring by metadata, and pixels that are not square, are applied here, so nobody downstream meets them.
"""

from vjepa2cli.data.video.decoding import (
    DAMAGED,
    Clip,
    VideoFile,
    VideoInfo,
    iterate_frames,
    open_video,
    probe_video,
    read_clip,
)
from vjepa2cli.data.video.images import decode_image, read_image, write_image
from vjepa2cli.data.video.pixels import Pixels, resize, use_one_thread
from vjepa2cli.data.video.writing import write_video

__all__ = [
    "DAMAGED",
    "Clip",
    "Pixels",
    "VideoFile",
    "VideoInfo",
    "decode_image",
    "iterate_frames",
    "open_video",
    "probe_video",
    "read_clip",
    "read_image",
    "resize",
    "use_one_thread",
    "write_image",
    "write_video",
]
