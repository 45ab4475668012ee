"""The pages on one's own robot: the chain runs as written on every real set, by the smallest presets, and the example is one."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from vjepa2cli import config, ingestion
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.cli import app
from vjepa2cli.data.state_space import StateSpace
from vjepa2cli.ingestion.workers import run_here
from vjepa2cli.settings import robot

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "own-robot.md").read_text(encoding="utf-8")
RECORDINGS = (DOCS / "recordings.md").read_text(encoding="utf-8")
SETS = {"droid": "droid", "bridge": "rlds_bridge", "g1": "lerobot_v21_g1", "gr1": "lerobot_v20_gr1_sim"}
SMALLEST = {
    "real-posttrain": "ci-posttrain",
    "few-posttrain": "ci-posttrain",
    "real-validate": "ci-validate",
    "tiny-pretrain": "ci-pretrain",
    "views.count=8": "views.count=2",
}
"""The presets of the page and the views of a recording, and what takes their place here: nothing else is changed."""

Run = Callable[[str], str]


def commands(name: str) -> list[list[str]]:
    """The arguments of the commands of every block that names the encoder or a set, in their order."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    lines = [shlex.split(line) for block in blocks if re.search(rf"\b({name}|weights)\b", block) for line in block.splitlines()]
    assert len(lines) >= 5
    assert all(line[0] == "vjepa2" for line in lines)
    return [[SMALLEST.get(word, word) for word in words] for _, *words in lines]


@pytest.fixture
def run(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`run(name)` runs the commands about a set in a folder where the real sets lie under the names of the page."""
    for name, folder in SETS.items():
        (tmp_path / name).symlink_to(shared / "data" / "robot" / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ingestion, "run_in_processes", lambda work, items, **_: run_here(work, items))

    def follow(name: str) -> str:
        for arguments in commands(name):
            app(arguments, standalone_mode=False)
        return capfd.readouterr().out

    return follow


@pytest.mark.parametrize("name", sorted(SETS))
def test_the_chain_runs_on_every_real_set(name: str, run: Run) -> None:
    said = run(name)
    report = read_report(Path(f"{name}.json"), "validation")
    space = StateSpace.parse(VideoStore.open(Path(f"{name}.zarr")).state_space)
    assert [number["name"] for number in report["numbers"]] == list(space.names)
    assert {found["name"] for found in report["capabilities"]} >= {f"{word} {axis}" for word, axis in known(report)}
    assert report["verdict"] in said
    assert f"grade {report['grade']:.2f} of 1" in said


def known(report: dict) -> list[tuple[str, str]]:  # type: ignore[type-arg]
    planned = (report["inversion"] or {"numbers": {}})["numbers"]
    return [("steers in" if number["name"] in planned else "sees", number["name"]) for number in report["numbers"]]


def test_the_robot_on_the_page_on_recordings_is_one(tmp_path: Path) -> None:
    (block,) = [block for block in re.findall(r"```yaml\n(.*?)```", RECORDINGS, re.DOTALL) if "own_numbers" in block]
    (tmp_path / "robot.yaml").write_text(block)
    assert config.load_robot(tmp_path / "robot.yaml").own_numbers == "all"
    table = RECORDINGS[RECORDINGS.index("| key | meaning |") :]
    named = set(re.findall(r"^\| `(\w+)` \|", table.split("\n\n")[0], re.MULTILINE))
    keys = {key for section in vars(robot).values() for key in getattr(section, "model_fields", ())}
    assert named <= keys
    assert {"unit", "frame", "convention", "wraps", "limits", "end_effector", "own_numbers", "cameras"} <= named
    for field in ("unit", "frame", "convention"):
        allowed = robot.NumbersConfig.model_fields[field].annotation.__args__  # type: ignore[union-attr]
        row = re.search(rf"^\| `{field}` \|(.*)\|$", table, re.MULTILINE)
        assert row is not None
        assert set(re.findall(r"[\w/]+", row[1])) >= set(allowed) - {"plain"}
