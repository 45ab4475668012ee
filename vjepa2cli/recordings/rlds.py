"""RLDS sets as TensorFlow Datasets writes them: TFRecord shards of whole episodes beside `dataset_info.json`.

Source: https://github.com/google-research/rlds; https://www.tensorflow.org/datasets, "external_tfrecord".
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import RecordingError
from vjepa2cli.recordings.episode import Footage, Listing, Recording, refuse_missing_cameras
from vjepa2cli.recordings.tfrecord import Feature, parse_example, read_record, record_offsets
from vjepa2cli.settings.robot import RobotConfig

_INFO = "dataset_info.json"
_SHARD = re.compile(r"(?P<set>.+)-(?P<split>[^-]+)\.tfrecord-(?P<number>\d+)-of-(?P<count>\d+)")
_STEPS = "steps/"


class RldsReader:
    """Reads RLDS sets without TensorFlow. An episode is named by its split, its shard and its place there."""

    layout = "RLDS"
    usual_robot: str | None = None

    def recognises(self, path: Path) -> bool:
        """A folder with `dataset_info.json` and TFRecord shards."""
        return (path / _INFO).is_file() and bool(_shards(path))

    def list_episodes(self, path: Path, robot: RobotConfig | None) -> Listing:
        """Every record of every shard; says which splits or episodes the metadata names beyond them."""
        names, remarks = [], []
        counts: dict[str, int] = {}
        for shard in _shards(path):
            matched = _SHARD.fullmatch(shard.name)
            assert matched is not None
            offsets, whole = record_offsets(shard)
            if not whole:
                remarks.append(f"{shard.name} is cut short after {len(offsets)} episodes; download it again")
            counts[matched["split"]] = counts.get(matched["split"], 0) + len(offsets)
            names += [f"{matched['split']}-{int(matched['number']):05d}-{place:05d}" for place in range(len(offsets))]
        for split, count in _declared(path).items():
            if count != counts.get(split, 0):
                remarks.append(
                    f"its metadata names {count} episodes of the split {split}, of which {counts.get(split, 0)} are here"
                )
        if not names:
            raise RecordingError(f"{path}: its shards hold no episode; download the set again")
        return Listing(tuple(names), tuple(remarks))

    def list_numbers(self, path: Path, episode: str) -> Mapping[str, Sequence[str]]:
        """What a step holds as numbers."""
        features, steps = _features(path, episode)
        found = {name.removeprefix(_STEPS): value for name, value in sorted(features.items()) if name.startswith(_STEPS)}
        return {
            key: [f"number_{index}" for index in range(value.size // steps)]
            for key, value in found.items()
            if isinstance(value, np.ndarray)
        }

    def read(self, path: Path, episode: str, robot: RobotConfig) -> Recording:
        """The arrays that the robot's description names, by their names within a step, such as `observation/state`."""
        where, shard = f"{path}: {episode}", _place(path, episode)[0]
        features, steps = _features(path, episode)
        coded = [name.removeprefix(_STEPS) for name, value in sorted(features.items()) if _pictures(value)]
        refuse_missing_cameras(robot, coded, where=where)
        states = _rows(features, robot.state.keys, steps, where=where)
        actions = None if robot.action is None else _rows(features, robot.action.keys, steps, where=where)
        # Whether a picture is a blank one is not told from `episode_metadata/has_image_*`, which is known to be wrong.
        cameras = {
            name: Footage(shard, pictures=partial(iter, pictures))
            for name, camera in robot.cameras.items()
            if (pictures := _pictures(features.get(_STEPS + camera.key)))
        }
        return Recording(
            states=states,
            actions=actions,
            cameras=cameras,
            rate=None,
            robot=None,
            instruction=_text(features, robot.instruction or "language_instruction"),
            files=(shard,),
        )


def _features(path: Path, episode: str) -> tuple[dict[str, Feature], int]:
    """The features of an episode, and how many steps it has."""
    shard, place = _place(path, episode)
    where = f"{path}: {episode}"
    features = parse_example(read_record(shard, record_offsets(shard)[0][place]), where=where)
    return features, _num_steps(features, where=where)


def _shards(path: Path) -> list[Path]:
    return sorted(file for file in path.glob("*.tfrecord-*") if _SHARD.fullmatch(file.name))


def _place(path: Path, episode: str) -> tuple[Path, int]:
    split, number, place = episode.rsplit("-", 2)
    for shard in _shards(path):
        matched = _SHARD.fullmatch(shard.name)
        if matched is not None and matched["split"] == split and int(matched["number"]) == int(number):
            return shard, int(place)
    raise RecordingError(f"{path}: {episode}: its shard is gone; download the set again")


def _declared(path: Path) -> dict[str, int]:
    """Episodes by split, as far as the metadata can be read."""
    try:
        info = json.loads((path / _INFO).read_text(encoding="utf-8"))
        return {str(split["name"]): sum(map(int, split["shardLengths"])) for split in info.get("splits", ())}
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordingError(f"{path / _INFO}: not what TensorFlow Datasets writes ({error}); download it again") from None


def _num_steps(features: Mapping[str, Feature], *, where: str) -> int:
    for name in ("is_first", "is_last", "is_terminal"):
        if _STEPS + name in features:
            return len(features[_STEPS + name])
    raise RecordingError(f"{where}: has no {_STEPS}is_first; RLDS marks the first step of an episode by it")


def _pictures(value: Feature | None) -> list[bytes]:
    """The values where they are JPEG or PNG images, else nothing."""
    return value if isinstance(value, list) and value and value[0].startswith((b"\xff\xd8\xff", b"\x89PNG")) else []


def _rows(features: Mapping[str, Feature], keys: Sequence[str], steps: int, *, where: str) -> NDArray[Any]:
    parts = []
    for key in keys:
        value = features.get(_STEPS + key)
        if not isinstance(value, np.ndarray):
            there = [name.removeprefix(_STEPS) for name, item in features.items() if isinstance(item, np.ndarray)]
            raise RecordingError(f"{where}: no numbers {key} (there: {', '.join(sorted(there))}); mend the keys in robot.yaml")
        if value.size % steps:
            raise RecordingError(f"{where}: {key}: {value.size} numbers do not make {steps} equal rows; download it again")
        parts.append(value.reshape(steps, -1))
    return np.concatenate(parts, axis=1)


def _text(features: Mapping[str, Feature], key: str) -> str:
    """A text of the first step."""
    value = features.get(_STEPS + key)
    return value[0].decode("utf-8", errors="replace") if isinstance(value, list) and value else ""
