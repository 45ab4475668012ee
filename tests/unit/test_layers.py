"""The house keeps its floors: dependencies point down only, and each third-party library has one door."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "vjepa2cli"

LAYERS: dict[str, int] = {
    **dict.fromkeys(("errors", "registry", "tokens", "progress", "processes", "files", "ranks"), 0),
    **dict.fromkeys(("config", "settings"), 1),
    **dict.fromkeys(("models", "data", "recordings", "simulation", "artifacts"), 2),
    **dict.fromkeys(
        (
            "collection",
            "ingestion",
            "encoding",
            "precomputation",
            "reporting",
            "diagnosis",
            "downloading",
            "conversion",
            "launching",
            "train",
            "planning",
        ),
        3,
    ),
    **dict.fromkeys(("cli", "__init__", "__main__"), 4),
}
"""The floor of each room: a module or a package right under vjepa2cli."""

CLOSED_FLOORS = {2, 3}
"""Floors whose rooms never import each other."""

DOORS: dict[str, tuple[str, ...]] = {
    "av": ("data.video",),
    "cv2": ("data.video",),
    "deepspeed": ("train.engine",),
    "google_crc32c": ("artifacts.video_store", "recordings.tfrecord"),
    "h5py": ("artifacts.latent_store", "artifacts.feature_stores", "recordings"),
    "matplotlib": ("reporting",),
    "mujoco": ("simulation",),
    "numcodecs": ("artifacts.video_store",),
    "pyarrow": ("recordings.lerobot",),
    "pydantic": ("config", "settings"),
    "rich": ("cli",),
    "safetensors": ("models.checkpoint_files", "artifacts.model_dir"),
    "scenedetect": ("data.shots",),
    "snakemake": (),
    "transformers": (),
    "typer": ("cli",),
    "yaml": ("config",),
    "zarr": ("artifacts.video_store", "artifacts.feature_stores"),
}
"""The modules (with what lies below them) that may import a library; nothing of ours imports one that has no door."""

NO_TORCH_BELOW = 2


def imported(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that `source`, a module of the dotted `package`, imports at any depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)


def violations(source: str, path: str) -> list[str]:
    """What a module at `path` (relative to the package, such as `models/encoder.py`) imports against the rules."""
    *folders, file = path.removesuffix(".py").split("/")
    module = ".".join([*folders, *([] if file == "__init__" and folders else [file])])
    room = module.split(".")[0]
    if room not in LAYERS:
        return [f"{path}: {room!r} has no floor; name it in DESIGN.md and in LAYERS"]
    faults = []
    for line, name in imported(source, ".".join(["vjepa2cli", *folders])):
        top, _, below = name.partition(".")
        if top == "vjepa2cli":
            fault = _floor_fault(room, below.split(".")[0])
        elif top == "torch" and LAYERS[room] < NO_TORCH_BELOW:
            fault = f"{room} is on floor {LAYERS[room]}, which knows no torch"
        else:
            doors = DOORS.get(top)
            through_door = doors is None or any(module == door or module.startswith(f"{door}.") for door in doors)
            fault = None if through_door else f"{top} comes in only by {', '.join(doors or ()) or 'no door'}"
        if fault is not None:
            faults.append(f"{path}:{line}: imports {name}: {fault}")
    return faults


def _floor_fault(room: str, target: str) -> str | None:
    if target not in LAYERS:  # a name in vjepa2cli/__init__.py, such as __version__
        target = "__init__"
    if target == room:
        return None
    here, there = LAYERS[room], LAYERS[target]
    if there > here:
        return f"{target} is on floor {there}, above floor {here}"
    if here == there and here in CLOSED_FLOORS:
        return f"{room} and {target} are neighbours on floor {here}, which never import each other"
    return None


def modules() -> list[str]:
    return sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", modules())
def test_imports_point_down_and_pass_the_one_door(path: str) -> None:
    assert violations((PACKAGE / path).read_text(encoding="utf-8"), path) == []


def test_workflow_imports_nothing_of_ours() -> None:
    ours = re.compile(r"^\s*(?:from|import)\s+vjepa2cli\b", re.MULTILINE)
    files = [path for path in (REPOSITORY / "workflow").rglob("*") if path.suffix in {".py", ".smk"} or path.name == "Snakefile"]
    files += [path for path in (REPOSITORY / "Snakefile",) if path.is_file()]
    assert [str(path) for path in files if ours.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("models/encoder.py", "from vjepa2cli.data.poses import pose_delta", "neighbours on floor 2"),
        ("models/encoder.py", "from vjepa2cli.train import engine", "above floor 2"),
        ("models/encoder.py", "from ..planning.cem import cem", "above floor 2"),
        ("models/encoder.py", "from .. import config, reporting", "above floor 2"),
        ("models/__init__.py", "from ..artifacts import model_dir", "neighbours on floor 2"),
        ("encoding/features.py", "def late():\n    import vjepa2cli.reporting", "neighbours on floor 3"),
        (
            "train/loop.py",
            "from importlib import import_module\nimport_module('vjepa2cli.planning.cem')",
            "neighbours on floor 3",
        ),
        ("planning/cem.py", "from vjepa2cli import __version__", "above floor 3"),
        ("config.py", "import torch.nn", "no torch"),
        ("files.py", "from vjepa2cli.config import load", "above floor 0"),
        ("train/loop.py", "import deepspeed.comm as dist", "train.engine"),
        ("data/transforms.py", "import cv2", "data.video"),
        ("artifacts/latent_store.py", "import zarr", "artifacts.video_store"),
        ("encoding/features.py", "from h5py import File", "artifacts.latent_store, artifacts.feature_stores, recordings"),
        ("models/weights.py", "from transformers import VJEPA2Model", "no door"),
        ("planning/evaluation.py", "from matplotlib.figure import Figure", "reporting"),
        ("gizmos.py", "", "no floor"),
    ],
)
def test_a_planted_violation_is_caught(path: str, source: str, fault: str) -> None:
    (found,) = violations(source, path)
    assert fault in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("models/encoder.py", "from .layers import Attention\nfrom vjepa2cli.errors import WeightsError\nimport torch"),
        ("recordings/droid.py", "import h5py"),
        ("reporting/figures.py", "from matplotlib.figure import Figure\nfrom vjepa2cli.reporting import sources"),
        ("train/engine.py", "import deepspeed"),
        ("config.py", "from vjepa2cli.settings import StepConfig\nimport yaml, pydantic"),
        ("__init__.py", "from vjepa2cli.planning.cem import cem"),
    ],
)
def test_what_is_allowed_is_let_through(path: str, source: str) -> None:
    assert violations(source, path) == []
