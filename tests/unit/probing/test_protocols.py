"""The recipes of published evaluations: as released, for the probes that were released, and their data read as published."""

import json
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli import config as configs
from vjepa2cli.cli.probing import _DATA, released_probe, require_probe_inputs
from vjepa2cli.data.video import write_image, write_video
from vjepa2cli.errors import InputError
from vjepa2cli.recordings.labelled import read_labelled
from vjepa2cli.registry import RELEASED, published_scores
from vjepa2cli.settings import ProbeConfig
from vjepa2cli.train.probing.samples import FileStretch, from_labelled_set

SETS = ("ssv2", "k400", "diving48", "jester", "coin", "in1k", "ek100")
RECIPES = [f"{name}-{size}" for name in SETS for size in ("vitl-256", "vitg-384")]


@pytest.mark.parametrize("name", RECIPES)
def test_every_set_has_recipes_and_published_numbers(name: str) -> None:
    config = configs.load(name, ProbeConfig)
    dataset, size, crop = name.split("-")
    assert (config.dataset, config.crop) == (dataset, int(crop))
    assert {"vitl": "large 256", "vitg": "giant 384"}[size] in published_scores(dataset)
    assert dataset in _DATA
    assert len(config.head_settings) == {"diving48": 3, "jester": 3}.get(dataset, 20)
    depth = {"vitl": 24, "vitg": 40}[size]
    assert all(0 <= layer < depth for layer in config.layers)


def test_a_released_probe_names_its_recipe_and_its_encoder() -> None:
    for row in RELEASED.values():
        if row.family == "probe":
            recipe, encoder = released_probe(row.file_name)
            assert (recipe, encoder) == released_probe(row.name)
            config = configs.load(str(recipe), ProbeConfig)
            assert (config.num_frames, config.crop) == (row.frames, row.crop)
            assert encoder in RELEASED
    assert released_probe("results/probe/trained") == (None, None)


@pytest.mark.parametrize(
    ("data", "weights", "eval_only", "message"),
    [
        (None, "p.pt", True, r"no data were named; .* vjepa2 probe train\.json validation\.json --classes labels\.json --root"),
        ([Path("v")], None, True, "name it with --weights"),
        ([Path("v")], "p.pt", False, "add --eval-only"),
    ],
)
def test_half_a_request_is_refused(data: list[Path] | None, weights: str | None, eval_only: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        require_probe_inputs(data, weights, "ssv2", eval_only=eval_only)


def video(path: Path, level: int) -> None:
    write_video(path, np.full((6, 32, 32, 3), level, np.uint8), fps=8)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The files of six sets as they are published, a clip or two of each."""
    for name in (
        "1.mp4",
        "2.mp4",
        "3.mp4",
        "dive_a.mp4",
        "dive_b.mp4",
        "abc_000001_000011.mp4",
        "5/coin_a.mp4",
        "coin_b.mp4",
    ):
        video(tmp_path / "videos" / name, len(name))
    video(tmp_path / "videos" / "riding a bike" / "xyz.mp4", 9)
    for clip in ("10", "11"):
        for number in range(1, 6):
            write_image(tmp_path / "videos" / clip / f"{number:05d}.jpg", np.full((20, 30, 3), 40 * number, np.uint8))
    for split in ("train", "val"):
        for wnid in ("n01440764", "n01443537"):
            write_image(tmp_path / "imagenet" / split / wnid / "a.png", np.full((20, 30, 3), 99, np.uint8))
    ssv2 = [{"id": "1", "template": "Pushing [something] off"}, {"id": "2", "template": "Lifting [something]"}]
    (tmp_path / "train.json").write_text(json.dumps(ssv2))
    (tmp_path / "validation.json").write_text(json.dumps([{"id": "3", "template": "Lifting [something]"}]))
    (tmp_path / "labels.json").write_text(json.dumps({"Pushing something off": "1", "Lifting something": "0"}))
    (tmp_path / "dive_train.json").write_text(json.dumps([{"vid_name": "dive_a", "label": 12, "start_frame": 0, "end_frame": 5}]))
    (tmp_path / "dive_test.json").write_text(json.dumps([{"vid_name": "dive_b", "label": 2, "start_frame": 0, "end_frame": 5}]))
    kinetics = "label,youtube_id,time_start,time_end,split\n"
    (tmp_path / "k_train.csv").write_text(kinetics + "abseiling,abc,1,11,train\n")
    (tmp_path / "k_val.csv").write_text(kinetics + "riding a bike,xyz,0,10,validate\n")
    (tmp_path / "j_train.csv").write_text("10;Swiping Left\n")
    (tmp_path / "j_val.csv").write_text("11;Swiping Right\n")
    (tmp_path / "j_labels.csv").write_text("Swiping Right\nSwiping Left\n")
    coin = {
        "coin_a": {"recipe_type": 5, "class": "MakeTea", "subset": "training", "annotation": []},
        "coin_b": {"recipe_type": 6, "class": "CutGrass", "subset": "testing", "annotation": []},
    }
    (tmp_path / "COIN.json").write_text(json.dumps({"database": coin}))
    return tmp_path


@pytest.mark.parametrize(
    ("tables", "root", "listed", "classes", "splits"),
    [
        (["train.json", "validation.json"], "videos", "labels.json", ("Lifting something", "Pushing something off"), (2, 1)),
        (["dive_train.json", "dive_test.json"], "videos", None, tuple(map(str, range(13))), (1, 1)),
        (["k_train.csv", "k_val.csv"], "videos", None, ("abseiling", "riding a bike"), (1, 1)),
        (["j_train.csv", "j_val.csv"], "videos", "j_labels.csv", ("Swiping Right", "Swiping Left"), (1, 1)),
        (["COIN.json"], "videos", None, ("CutGrass", "MakeTea"), (1, 1)),
        (["imagenet/train", "imagenet/val"], None, None, ("n01440764", "n01443537"), (2, 2)),
    ],
)
def test_published_formats_are_told_apart_and_read(
    published: Path, tables: list[str], root: str | None, listed: str | None, classes: tuple[str, ...], splits: tuple[int, int]
) -> None:
    paths = [published / table for table in tables]
    found = read_labelled(paths, root=root and published / root, classes=listed and published / listed)  # type: ignore[arg-type]
    assert (found.classes, (len(found.train), len(found.val))) == (classes, splits)
    config = ProbeConfig(unseen="drop", min_class_clips=1, num_frames=2, crop=16)
    data = from_labelled_set(found, paths, config, judged_only=True)
    for sample in data.val:
        frames = sample.footage.frames(lambda total: np.array([[0, total - 1]]))
        assert frames.shape[:2] == (1, 2)
        assert frames.shape[-1] == 3


def test_a_stretch_of_a_video_is_cut_by_frames_or_seconds(tmp_path: Path) -> None:
    from vjepa2cli.recordings.spans import Span

    frames = np.repeat(np.arange(0, 240, 24, dtype=np.uint8), 32 * 32 * 3).reshape(10, 32, 32, 3)
    write_video(tmp_path / "v.mp4", frames, fps=5)
    for span in (Span(3, 6), Span(0.6, 1.2, "seconds")):
        found = FileStretch(tmp_path / "v.mp4", span, None).frames(np.arange)
        assert np.abs(found[:, 16, 16, 0].astype(int) - [72, 96, 120]).max() < 6  # the codec's loss
