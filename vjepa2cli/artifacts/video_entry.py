"""What a video store says about itself and each of its videos, in the metadata documents of its Zarr groups."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vjepa2cli.errors import ArtifactError
from vjepa2cli.files import read_json, write_json

SCHEMA = 1
METADATA = "zarr.json"


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


def root_attributes(path: Path) -> dict[str, Any] | None:
    """Attributes of the root group, or None where there is no store; raises ArtifactError for another kind or schema."""
    if not (path / METADATA).is_file():
        return None
    attributes: dict[str, Any] = read_json(path / METADATA).get("attributes", {})
    if attributes.get("kind") != "video_store":
        raise ArtifactError(f"{path}: a zarr hierarchy, but not a video store; give the path that 'vjepa2 ingest' wrote")
    if attributes.get("schema") != SCHEMA:
        raise ArtifactError(f"{path}: has schema {attributes.get('schema')}, this version reads {SCHEMA}; ingest again")
    return attributes


def write_group(path: Path, attributes: Mapping[str, Any]) -> None:
    """Write a group's metadata document whole or not at all. Source: Zarr v3 core specification, group metadata."""
    write_json(path / METADATA, {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)})
