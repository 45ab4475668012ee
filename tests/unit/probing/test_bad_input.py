"""What cannot be probed is refused in one line before anything is encoded: the encoder named here does not even exist."""

import csv
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli.artifacts.video_store import Description, VideoStoreWriter, Window
from vjepa2cli.errors import InputError
from vjepa2cli.settings import ProbeConfig
from vjepa2cli.train.probing import probe


def store(folder: Path, rows: list[tuple[str, str | None, str]]) -> Path:
    """A store of videos with an episode, a label if any, and a split each."""
    path = folder / "s.zarr"
    writer = VideoStoreWriter.open(path, {"codec": "zstd", "shard_frames": 16})
    listed = {}
    for index, (episode, label, split) in enumerate(rows):
        name = f"v{index}"
        with writer.entry(name) as entry:
            for number in range(4):
                entry.append(number / 4, number, np.full((16, 16, 3), index, np.uint8))
            windows = () if label is None else (Window(0, 4, label),)
            entry.finish(Description(source=name, source_digest=name, episode=episode, fps=4.0, windows=windows))
        listed[name] = {"split": split, "weight": None}
    writer.finalise(listed, refused=[], provenance={})
    return path


BOTH = [("a", "up", "train"), ("b", "down", "train"), ("c", "up", "train"), ("d", "down", "train"), ("e", "up", "val")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", None, "train"), ("b", None, "val")], "no window is labelled; ingest with --labels CSV"),
        ([("a", "up", "train"), ("b", "up", "val")], "every clip has the label 'up'; probing needs at least two classes"),
        ([*BOTH[:4]], "the validation split is empty; ingest with a val_fraction above 0 and below 1"),
        ([(*row[:2], "val") for row in BOTH], "the training split is empty; ingest with a val_fraction above 0 and below 1"),
        ([*BOTH, ("f", "in", "val")], "1 validation clips are of 1 classes that no training clip shows, such as 'in'; move some"),
        (
            BOTH[:3] + BOTH[4:],
            "1 classes have fewer than 2 training clips, such as 'down'; add clips, drop the class, or set",
        ),
        ([("a", *row[1:]) for row in BOTH[:4]] + BOTH[4:], "all training clips are of one video, a; a part of the videos must"),
    ],
)
def test_a_store_that_cannot_be_probed(tmp_path: Path, rows: list[tuple[str, str | None, str]], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        probe(store(tmp_path, rows), tmp_path / "run", model="absent", config=ProbeConfig(), device="cpu")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_tables_whose_videos_moved_are_offered_a_root(
    tmp_path: Path, labelled_videos: Path, encoder_folder: Path, smallest: ProbeConfig
) -> None:
    tables = [labelled_videos / "train.csv", labelled_videos / "val.csv"]
    with pytest.raises(InputError, match=r"train\.csv: 6 of its 6 files are not there, such as /old/place/videos/.*--root"):
        probe(tables, tmp_path / "run", model="absent", config=smallest, device="cpu")
    with pytest.raises(InputError, match="give another --root"):
        probe(tables, tmp_path / "run", model="absent", config=smallest, root=tmp_path, device="cpu")
    report = probe(tables, tmp_path / "run", model=str(encoder_folder), config=smallest, root=labelled_videos, device="cpu")
    assert report.is_file()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "path,label\na.mp4,\n", "line 2: video and label must not be empty"),
        ("t.csv", "path\na.mp4\n", "needs label"),
        ("t.json", '[{"id": "1"}]', "have no 'template'"),
        ("t.json", '{"a": 1}', "is in no format that is known here"),
        ("t.json", "{", "not JSON"),
        ("t.csv", "youtube_id,time_start,time_end,split\na,0,10,test\n", "has no column 'label'"),
    ],
)
def test_tables_without_labels(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        probe([tmp_path / name], tmp_path / "run", model="absent", config=ProbeConfig(), device="cpu")


def test_a_class_that_the_published_list_lacks(tmp_path: Path, labelled_videos: Path) -> None:
    (tmp_path / "classes.csv").write_text("0\n")
    tables = [labelled_videos / "train.csv", labelled_videos / "val.csv"]
    with pytest.raises(InputError, match="does not list the class '1'"):
        probe(
            tables,
            tmp_path / "run",
            model="absent",
            config=ProbeConfig(),
            root=labelled_videos,
            classes=tmp_path / "classes.csv",
            device="cpu",
        )


def test_missing_files_may_be_left_out_and_are_counted(
    tmp_path: Path, labelled_videos: Path, encoder_folder: Path, smallest: ProbeConfig
) -> None:
    table = tmp_path / "train.csv"
    lines = (labelled_videos / "train.csv").read_text().splitlines()
    with table.open("w", newline="") as file:
        csv.writer(file, delimiter=" ").writerows([line.split() for line in [*lines, "/old/place/gone.mp4 0"]])
    said: list[str] = []
    probe(
        [table, labelled_videos / "val.csv"],
        tmp_path / "run",
        model=str(encoder_folder),
        config=smallest.model_copy(update={"missing": "drop"}),
        root=labelled_videos,
        device="cpu",
        say=said.append,
    )
    assert said[0] == "left out: 1 files that are not there"
