"""The page on probing: its commands run as written; those of published sets up to where the set itself would be encoded."""

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vjepa2cli import config as configs
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.artifacts.video_store import Description, VideoStoreWriter, Window
from vjepa2cli.cli import app
from vjepa2cli.data.video import write_image
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.weights import to_transformers
from vjepa2cli.registry import RELEASED, published_scores
from vjepa2cli.settings import ProbeConfig
from vjepa2cli.train import probing

PAGE = (Path(__file__).parents[2] / "docs" / "probing.md").read_text(encoding="utf-8")
SMALL = {
    "collect": ["episodes=20", "image_size=32"],
    "ingest": ["short_side=32"],
    "pretrain": ["steps=2", "clip.crop=32", "encoder.embed_dim=24", "encoder.depth=1", "encoder.num_heads=2", "probe_windows=0"],
    "probe": [
        "steps=2",
        "batch_size=4",
        "crop=32",
        "evaluate_every=2",
        "checkpoint_every=2",
        "min_class_clips=1",
        "unseen=drop",
        "examples=1",
    ],
    "report": [],
}
"""What makes a command small without changing what it does; a later --set wins."""


def commands(section: str) -> list[list[str]]:
    """The arguments of every command in a section of the page."""
    text = PAGE[PAGE.index(f"# {section}\n") :].split("\n## ")[0]
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    words = [shlex.split(line) for line in lines]
    assert words
    assert all(command == "vjepa2" for command, *_ in words)
    return [arguments for _, *arguments in words]


def run(arguments: list[str]) -> None:
    """Run a command at its smallest."""
    small = [word for setting in SMALL[arguments[0]] for word in ("--set", setting)]
    app([*arguments, *small], standalone_mode=False)


def write_model(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    encoder = Encoder(EncoderSpec(embed_dim=24, depth=1, num_heads=2, crop=32, num_frames=4), generator=generator)
    predictor = Predictor(PredictorSpec(encoder_dim=24, embed_dim=16, depth=1, num_heads=2), generator=generator)
    save_model(folder / "model", *to_transformers(encoder, predictor))


def write_store(path: Path) -> None:
    writer = VideoStoreWriter.open(path, {"codec": "zstd", "shard_frames": 16})
    listed = {}
    for index in range(12):
        with writer.entry(f"v{index}") as entry:
            for number in range(9):
                entry.append(number / 4, number, np.full((32, 40, 3), 20 * number if index % 2 else 180 - 20 * number, np.uint8))
            window = Window(0, 9, ("down", "up")[index % 2])
            entry.finish(
                Description(source=f"v{index}", source_digest=str(index), episode=f"v{index}", fps=4.0, windows=(window,))
            )
        listed[f"v{index}"] = {"split": "val" if index >= 8 else "train", "weight": None}
    writer.finalise(listed, refused=[], provenance={})


@pytest.mark.parametrize("section", ["Probing", "Clips", "Heads"])
def test_commands_run_as_written(section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_store(tmp_path / "robot.zarr")
    write_model(tmp_path / "results" / "pretrain")
    for arguments in commands(section):
        run([*arguments, "--replace"] if arguments[0] == "probe" else arguments)
    assert read_report(tmp_path / "results/probe/report.json", "probe")["results"]


def test_another_encoder_stands_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_store(tmp_path / "robot.zarr")
    write_model(tmp_path / "results" / "pretrain")
    write_model(tmp_path / "other")
    ((*arguments, source),) = commands("Baselines")
    assert source in RELEASED
    run([*arguments, "other", "--set", "baselines=[]"])
    results = read_report(tmp_path / "results/probe/report.json")["results"]
    assert [result["encoder"] for result in results] == ["trained", "other"]


def test_gestures_from_collect_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in commands("Seeing motion"):
        if "droid" not in " ".join(arguments):
            run(arguments)
    results = read_report(tmp_path / "motion-probe/report.json")["results"]
    assert [result["encoder"] for result in results] == ["trained", "untrained", "pixels", "single-frame"]
    assert 'id="probing"' in (tmp_path / "motion.html").read_text()


def test_real_windows_are_split_by_episode(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "robot").symlink_to(shared / "data" / "robot")
    write_model(tmp_path / "motion-pretrain")
    for arguments in commands("Seeing motion"):
        if "droid" in " ".join(arguments):
            run(arguments)
    report = read_report(tmp_path / "droid-probe/report.json")
    assert sum(report["clips"].values()) == 167
    assert report["classes"] == ["down", "still", "up"]


def published_files(folder: Path) -> None:
    """The files that the page names, four clips of two classes in both splits of each set; none of them is decoded."""
    numbers = range(4)
    for place in ("20bn-something-something-v2", "k400", "videos", "rgb", "EPIC-KITCHENS", "20bn-jester-v1"):
        (folder / place).mkdir()
        for number in range(8):
            (folder / place / f"{number}.mp4").touch()
    templates = ("Pushing [something] off", "Lifting [something]")
    rows = [{"id": str(number), "template": templates[number % 2]} for number in numbers]
    for name in ("train.json", "validation.json"):
        (folder / name).write_text(json.dumps(rows))
    (folder / "labels.json").write_text(json.dumps({"Pushing something off": "0", "Lifting something": "1"}))
    for name, split in (("train.csv", "train"), ("val.csv", "validate")):
        lines = [f"{'ab'[number % 2]},{number},0,10,{split}" for number in numbers]
        (folder / name).write_text("\n".join(["label,youtube_id,time_start,time_end,split", *lines]) + "\n")
    for name in ("Diving48_V2_train.json", "Diving48_V2_test.json"):
        (folder / name).write_text(json.dumps([{"vid_name": str(number), "label": number % 2} for number in numbers]))
    for name in ("jester-v1-train.csv", "jester-v1-validation.csv"):
        (folder / name).write_text("".join(f"{number};{('Left', 'Right')[number % 2]}\n" for number in numbers))
    (folder / "jester-v1-labels.csv").write_text("Left\nRight\n")
    subsets = ("training", "testing")
    coin = {str(n): {"recipe_type": n % 2, "class": f"c{n % 2}", "subset": subsets[n // 4]} for n in range(8)}
    (folder / "COIN.json").write_text(json.dumps({"database": coin}))
    for split in ("train", "val"):
        for number in numbers:
            write_image(folder / "imagenet" / split / f"n{number % 2}" / f"{number}.png", np.zeros((32, 32, 3), np.uint8))
    header = "narration_id,participant_id,video_id,start_frame,stop_frame,verb,verb_class,noun,noun_class"
    for name in ("EPIC_100_train.csv", "EPIC_100_validation.csv"):
        lines = [f"n{number},P01,{number},9,12,take,{number % 2},cup,0" for number in numbers]
        (folder / name).write_text("\n".join([header, *lines]) + "\n")


PUBLISHED = [*commands("Published evaluations"), *commands("Released probes")]


@pytest.mark.parametrize("arguments", PUBLISHED, ids=lambda arguments: " ".join(arguments[1:3] + arguments[-2:]))
def test_published_sets_are_read_and_judged_by_their_recipes(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Encoding a set takes its files and days of a GPU, so all but that runs."""
    monkeypatch.chdir(tmp_path)
    published_files(tmp_path)
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for row in RELEASED.values():
        torch.save({"classifiers": []}, tmp_path / "home" / row.file_name)
    torch.save({"classifiers": []}, tmp_path / "ssv2-vitl-16x2x3.pt")
    asked: list[Any] = []

    def judged(*given: Any) -> dict[str, Any]:
        asked.append(next(one for one in given if hasattr(one, "data")))
        return {"correct": 3, "total": 4, "accuracy": 0.75, "interval": [0.3, 0.95], "encoder_digest": "d"}

    monkeypatch.setattr(probing, "_contestant", lambda *_: None)
    monkeypatch.setattr(probing, "contest", lambda *given: (judged(*given), 1.0))
    monkeypatch.setattr(probing, "judge_only", judged)
    monkeypatch.setattr(probing, "load_probe", lambda _: None)
    monkeypatch.setattr(probing, "require_same_labels", lambda *_: None)
    app(arguments, standalone_mode=False)
    (setting,) = asked
    assert len(setting.data.val) == 4
    assert len(setting.data.questions[-1].classes) == 2
    out = capfd.readouterr().out
    assert "75.0 % (30.0-95.0)" in out
    first = next(iter(published_scores(setting.config.dataset).values()))
    assert str(first if isinstance(first, float) else first[0]) in out


def test_the_page_names_every_recipe_and_the_published_numbers() -> None:
    recipes = [name for name in configs.preset_names("probe") if configs.load(name, ProbeConfig).dataset]
    used = {arguments[arguments.index("--config") + 1] for arguments in PUBLISHED if "--config" in arguments}
    assert used == {*recipes}
    for size, title in (
        ("large 256", "ViT-L 256"),
        ("giant 384", "ViT-g 384"),
        ("huge 256", "ViT-H 256"),
        ("giant 256", "ViT-g 256"),
    ):
        (row,) = re.findall(rf"\| {title} \|([^\n]*)", PAGE)
        cells = [cell.strip() for cell in row.split("|")]
        wanted = [published_scores(name)[size] for name in ("ssv2", "diving48", "jester", "k400", "coin", "in1k")]
        assert cells[:6] == [str(score) for score in wanted]
        assert cells[6] == " / ".join(map(str, published_scores("ek100")[size]))  # type: ignore[arg-type]


def test_anticipation_on_recordings_of_ones_own(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recordings").symlink_to(shared / "data" / "robot" / "droid")
    write_model(tmp_path / "results" / "pretrain")
    header = "narration_id,participant_id,video_id,start_frame,stop_frame,verb,verb_class,noun,noun_class"
    lines: dict[str, list[str]] = {"train": [header], "val": [header]}
    with (shared / "data/robot/droid_motion_windows.csv").open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            verb, start = ("up", "down", "still").index(row["label"]), int(row["start_frame"])
            video = f"{row['episode']}/recordings/MP4/{Path(row['video']).stem}"
            split = "val" if row["episode"] == "6" else "train"
            lines[split].append(f"n{number},P01,{video},{start},{start + int(row['num_frames'])},{row['label']},{verb},arm,0")
    for split, rows in lines.items():
        (tmp_path / f"actions_{split}.csv").write_text("\n".join(rows) + "\n")
    (arguments,) = commands("Anticipation")
    run(
        [*arguments, "--set", "depth=1", "--set", "learning_rates=[1e-3]", "--set", "weight_decays=[0.1]", "--set", "epochs=0.01"]
    )
    report = read_report(tmp_path / "results/probe/report.json")
    assert {*report["results"][0]["questions"]} == {"verb", "noun", "action"}
    assert "before the action's start" in report["protocol"]["anchor"]
