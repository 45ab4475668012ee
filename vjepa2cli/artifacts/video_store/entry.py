"""What a video store says about itself and each of its entries, in the metadata documents of its Zarr groups."""

import json
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vjepa2cli.errors import ArtifactError, StaleArtifactError
from vjepa2cli.files import read_json, write_json

SCHEMA = 2
METADATA = "zarr.json"
VIDEOS = "videos"
SOURCES = "sources"
CHECKS = "checks"


@dataclass(frozen=True)
class Window:
    """A labelled stretch of a video: frames `start` to `start + num_frames` of the stored ones."""

    start: int
    num_frames: int
    label: str


@dataclass(frozen=True)
class Description:
    """What is known of an entry besides its frames; see `VideoEntry`.

    `black` and `frozen` are shares of its time; `signature` is what it looks like, to find near duplicates by; `camera` and
    `instruction` are a robot's.
    """

    source: str
    source_digest: str
    episode: str
    fps: float
    still: bool = False
    robot: str | None = None
    camera: str | None = None
    instruction: str = ""
    windows: tuple[Window, ...] = ()
    rotation: int = 0
    mirrored: bool = False
    pixel_aspect: float = 1.0
    black: float = 0.0
    frozen: float = 0.0
    signature: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class VideoEntry:
    """One stored video, image, or part of a video.

    `source` is relative to what was ingested; `episode` groups what must share a split. `still` is an image, of one frame.
    Where `variable_rate`, frames do not follow each other at `fps`, and their timestamps count. `weight` is the entry's share
    of the draws beside the others of its split, or None where the store has no weights. `seconds` is how long it is shown.
    `rotation` (degrees clockwise),
    `mirrored` (afterwards, left to right) and `pixel_aspect` (width over height) were applied, so that frames are upright
    with square pixels. `findings` says what a user may want to leave out.
    """

    key: str
    num_frames: int
    height: int
    width: int
    fps: float
    variable_rate: bool
    still: bool
    source: str
    source_digest: str
    split: str
    episode: str
    weight: float | None
    robot: str | None
    windows: tuple[Window, ...]
    has_states: bool
    rotation: int
    mirrored: bool
    pixel_aspect: float
    shard_frames: int
    digest: str
    seconds: float
    notes: tuple[str, ...]
    findings: tuple[str, ...] = ()
    camera: str | None = None

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> "VideoEntry":
        """Read an entry from the attributes that the store keeps of it."""
        known = {field.name: item[field.name] for field in fields(cls) if field.name in item}
        windows = tuple(Window(**window) for window in item["windows"])
        return cls(**known | {"windows": windows, "notes": tuple(item["notes"]), "findings": tuple(item.get("findings", ()))})


def plain(described: Description | Window) -> dict[str, Any]:
    """A description or a window as JSON types."""
    tree: dict[str, Any] = json.loads(json.dumps(asdict(described)))
    return tree


def root_attributes(path: Path) -> dict[str, Any] | None:
    """Attributes of the root group, or None where there is no store.

    Raises ArtifactError for another kind of hierarchy, StaleArtifactError for another schema.
    """
    if not (path / METADATA).is_file():
        return None
    attributes: dict[str, Any] = read_json(path / METADATA).get("attributes", {})
    if attributes.get("kind") != "video_store":
        raise ArtifactError(f"{path}: a zarr hierarchy, but not a video store; give the path that 'vjepa2 ingest' wrote")
    if attributes.get("schema") != SCHEMA:
        raise StaleArtifactError(
            f"{path}: was written by another version (schema {attributes.get('schema')}; this one reads {SCHEMA}); "
            "ingest its sources again, with --replace"
        )
    return attributes


def write_group(path: Path, attributes: Mapping[str, Any]) -> None:
    """Write a group's metadata document whole or not at all. Source: Zarr v3 core specification, group metadata."""
    write_json(path / METADATA, {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)})


def mark_unfinished(path: Path) -> None:
    """Take back that a store is complete, with its list of entries: what is read again at every change stays small."""
    attributes = root_attributes(path) or {}
    if "entries" in attributes:
        kept = {name: attributes[name] for name in ("schema", "kind", "config")}
        write_group(path, kept | {"complete": False})


def remove_group(folder: Path) -> None:
    """Remove a group at once and its content then, so that a kill leaves no group with part of its content."""
    gone = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    with suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def group_attributes(folder: Path) -> dict[str, Any] | None:
    """Attributes of a group, or None where there is none (any more)."""
    try:
        tree = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return dict(tree["attributes"])
