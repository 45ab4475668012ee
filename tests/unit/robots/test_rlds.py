"""TFRecord and RLDS without TensorFlow: what was framed reads back, every damaged byte is found, the real set reads."""

import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from vjepa2cli import config
from vjepa2cli.data.robot_numbers import to_states
from vjepa2cli.errors import RecordingError
from vjepa2cli.recordings.rlds import RldsReader
from vjepa2cli.recordings.tfrecord import parse_example, read_record, record_offsets

READER = RldsReader()


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def string(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(**features: bytes) -> bytes:
    """A message whose features are given as the content of their lists, the kind (1, 2, 3) in front."""
    entries = b"".join(
        string(1, string(1, name.replace("__", "/").encode()) + string(2, string(content[0], content[1:])))
        for name, content in features.items()
    )
    return string(1, entries)


def framed(*records: bytes) -> bytes:
    def masked(content: bytes) -> bytes:
        value = google_crc32c.value(content)
        return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    parts = []
    for record in records:
        length = struct.pack("<Q", len(record))
        parts += [length, masked(length), record, masked(record)]
    return b"".join(parts)


def test_records_of_the_published_format_read_back(tmp_path: Path) -> None:
    """The bytes of the empty record are those that TensorFlow writes: a checksum of the length 0, and of nothing."""
    assert framed(b"") == bytes.fromhex("0000000000000000 29039807 d8ea82a2".replace(" ", ""))
    records = [b"", b"one", bytes(range(256)) * 300]
    (tmp_path / "x").write_bytes(framed(*records))
    offsets, whole = record_offsets(tmp_path / "x")
    assert whole
    assert [read_record(tmp_path / "x", offset) for offset in offsets] == records


def test_every_damaged_byte_is_found(tmp_path: Path) -> None:
    data, path = framed(b"first", b"second"), tmp_path / "x"
    for place in range(len(data)):
        spoilt = bytearray(data)
        spoilt[place] ^= 0x10
        path.write_bytes(spoilt)
        with pytest.raises(RecordingError, match="checksum"):
            [read_record(path, offset) for offset in record_offsets(path)[0]]
    path.write_bytes(data[:-3])
    assert record_offsets(path) == ((0,), False)


def test_features_read_packed_and_one_by_one() -> None:
    message = example(
        packed=b"\2" + string(1, struct.pack("<3f", 1, -2, 0.5)),
        single=b"\2" + b"".join(varint(1 << 3 | 5) + struct.pack("<f", value) for value in (4, 5)),
        whole=b"\3" + string(1, varint(7) + varint(2**64 - 1)),
        ones=b"\3" + b"".join(varint(1 << 3) + varint(value) for value in (0, 300)),
        texts=b"\1" + string(1, b"pick") + string(1, b""),
    )
    found = parse_example(message, where="x")
    assert found["texts"] == [b"pick", b""]
    numbers = {"packed": [1, -2, 0.5], "single": [4, 5], "whole": [7, -1], "ones": [0, 300]}
    assert {name: np.asarray(found[name]).tolist() for name in numbers} == numbers
    for cut in (b"\xff" * 11, message[: len(message) // 2], string(1, b"\x0b")):
        with pytest.raises(RecordingError, match=r"x: is no tf\.train\.Example"):
            parse_example(cut, where="x")


def test_real_set_reads_and_says_what_is_missing(shared: Path) -> None:
    root, bridge = shared / "data/robot/rlds_bridge/bridge_dataset/1.0.0", config.load_robot("bridge")
    assert READER.recognises(root)
    listing = READER.list_episodes(root, bridge)
    assert len(listing.episodes) == 25
    assert listing.remarks == ("its metadata names 25 episodes of the split val, of which 0 are here",)
    episodes = [READER.read(root, name, bridge) for name in listing.episodes]
    assert episodes[0].instruction == "put cup from counter or drying rack into sink"
    pictures = [list(episode.cameras["image_0"].pictures()) for episode in episodes if episode.cameras["image_0"].pictures]
    assert [len(found) for found in pictures] == [10] * 25
    assert all(isinstance(picture, bytes) and picture.startswith(b"\xff\xd8\xff") for found in pictures for picture in found)
    # Actions are the changes of the pose: what the data say, where the set's own description does not.
    changes = np.concatenate([np.diff(episode.states[:, :6], axis=0) for episode in episodes])
    commands = np.concatenate([episode.actions[:-1, :6] for episode in episodes if episode.actions is not None])
    assert min(np.corrcoef(changes[:, axis], commands[:, axis])[0, 1] for axis in range(6)) > 0.7
    # An open gripper is 1 in the recordings and 0 in a state.
    states = to_states(bridge, episodes[0].states, where="e")
    assert np.abs(states[:, 6]).max() < 0.01


def test_shard_that_is_cut_short_gives_its_whole_episodes(shared: Path, tmp_path: Path) -> None:
    root, bridge = shared / "data/robot/rlds_bridge/bridge_dataset/1.0.0", config.load_robot("bridge")
    for path in root.iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content if path.suffix == ".json" else content[: len(content) // 2])
    listing = READER.list_episodes(tmp_path, bridge)
    assert 5 < len(listing.episodes) < 20
    assert f"is cut short after {len(listing.episodes)} episodes" in listing.remarks[0]
    assert READER.read(tmp_path, listing.episodes[-1], bridge).states.shape == (10, 7)


def test_wrong_keys_are_refused_with_those_that_are_there(shared: Path) -> None:
    root, bridge = shared / "data/robot/rlds_bridge/bridge_dataset/1.0.0", config.load_robot("bridge")
    other = bridge.model_copy(update={"state": bridge.state.model_copy(update={"keys": ("observation/pose",)})})
    with pytest.raises(RecordingError, match=r"no numbers observation/pose \(there: .*observation/state"):
        READER.read(root, "train-00000-00000", other)
