"""What a video store says about each of its videos."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Window:
    """A labelled stretch of a video: frames `start` to `start + num_frames` of the stored ones."""

    start: int
    num_frames: int
    label: str


@dataclass(frozen=True)
class VideoEntry:
    """One stored video. `episode` groups what must share a split; `source` is relative to the folder that was ingested."""

    key: str
    num_frames: int
    height: int
    width: int
    fps: float
    source: str
    source_digest: str
    split: str
    episode: str
    robot: str | None
    windows: tuple[Window, ...]
    has_states: bool
    digest: str
    notes: tuple[str, ...]

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> "VideoEntry":
        """Read an entry from the attributes that the store keeps of it."""
        known = {field.name: item[field.name] for field in fields(cls)}
        return cls(**known | {"windows": tuple(Window(**window) for window in item["windows"]), "notes": tuple(item["notes"])})


def plain(windows: Sequence[Window]) -> list[dict[str, Any]]:
    """Windows as JSON types."""
    return [asdict(window) for window in windows]
