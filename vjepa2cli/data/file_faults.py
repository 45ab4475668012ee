"""Why a file that should hold pictures cannot be read, told from its bytes alone: the reason and the remedy in one line."""

from collections.abc import Sequence
from pathlib import Path

from vjepa2cli.errors import VideoError

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".m2v", ".mts", ".m2ts", ".ts", ".flv", ".wmv", ".3gp",
    ".ogv", ".264", ".h264", ".265", ".hevc", ".ivf", ".obu",
})
# fmt: on
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif"})

_HEAD = 4096
_EBML_SEGMENT = b"\x18\x53\x80\x67"


def refuse_absent(path: Path) -> None:
    """Raise VideoError unless `path` is a regular file; a pipe or a device would block for ever."""
    if not path.exists():
        raise VideoError(f"{path}: no such file; check the path")
    if not path.is_file():
        raise VideoError(f"{path}: not a regular file; give a video or image file")


def explain_unreadable(path: Path) -> str:
    """The likeliest reason that no decoder opens `path`, with its remedy."""
    size = path.stat().st_size
    if size == 0:
        return "the file is empty (0 bytes); copy or download it again"
    with path.open("rb") as handle:
        head = handle.read(_HEAD)
    if head.startswith(b"version https://git-lfs"):
        return "a git-LFS pointer, not the file itself; fetch it with 'git lfs pull'"
    if _is_text(head):
        return "it holds text; give a video file such as .mp4, .webm, .mkv or .mov"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _explain_mp4(path, size)
    return "its format is unknown or its header is damaged; copy it again or re-encode it to H.264 mp4"


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head[: len(head) - 4 if len(head) == _HEAD else None].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _explain_mp4(path: Path, size: int) -> str:
    boxes, end = _top_level_boxes(path, size)
    if "moov" not in boxes and end >= size:
        return "an mp4 that is cut short: its index (moov box) is missing; copy or download it again"
    if end > size:
        return f"an mp4 that is cut short: it declares {end} bytes and holds {size}; copy or download it again"
    return "an mp4 whose index is damaged; copy it again or repair it with 'ffmpeg -i broken.mp4 -c copy repaired.mp4'"


def _top_level_boxes(path: Path, size: int) -> tuple[list[str], int]:
    """Names of the mp4 boxes at top level, and where the last one says that it ends."""
    names: list[str] = []
    position = 0
    with path.open("rb") as handle:
        while position + 8 <= size:
            handle.seek(position)
            header = handle.read(16)
            length = int.from_bytes(header[:4], "big")
            if length == 1 and len(header) == 16:
                length = int.from_bytes(header[8:], "big")
            names.append(header[4:8].decode("latin-1"))
            if length == 0:
                return names, size
            if length < 8:
                return names, position
            position += length
    return names, position


def refuse_frames_beyond_end(path: Path, frame_ends: Sequence[int]) -> None:
    """Raise VideoError where an mp4's index names frames whose last byte, `frame_ends`, lies beyond the end of the file."""
    size = path.stat().st_size
    missing = sum(end > size for end in frame_ends)
    if missing:
        raise VideoError(
            f"{path}: the file is cut short: {missing} of {len(frame_ends)} frames lie beyond its end; copy or download it again"
        )


def refuse_missing_matroska_bytes(path: Path) -> None:
    """Raise VideoError where a Matroska or WebM file declares more bytes than it holds; a streamed one declares nothing."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(_HEAD)
    at = head.find(_EBML_SEGMENT) + 4
    width = 9 - head[at].bit_length() if 4 <= at < len(head) - 8 else 9
    if not head.startswith(b"\x1a\x45\xdf\xa3") or width > 8:
        return
    unknown = (1 << (7 * width)) - 1
    length = int.from_bytes(head[at : at + width], "big") & unknown
    if length != unknown and (missing := at + width + length - size) > 0:
        raise VideoError(f"{path}: the file is cut short: {missing} bytes are missing; copy or download it again")


def is_cut_short_image(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker or a PNG its IEND chunk; decoders fill what is missing with grey and say nothing."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in data
    if not data.startswith(b"\xff\xd8"):
        return False
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:
            return data.find(b"\xff\xd9", position) < 0
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True
