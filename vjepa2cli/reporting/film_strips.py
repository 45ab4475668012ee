"""Film strips: recorded frames side by side, each under a label, as one picture."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.errors import ArtifactError, InputError
from vjepa2cli.files import replaced_atomically

Pixels = NDArray[np.uint8]
Tile = tuple[str, Pixels]

STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "text.color": "#1b1f24",
    "svg.fonttype": "none",
    "svg.hashsalt": "plan",
}
_DPI = 150
_TILES_A_ROW = 7
_NEAREST = "Imagined latents, each as the training frame whose latent is nearest (a recording, not predicted pixels)"


def draw_film_strip(plan: Path, store: Path, out: Path, *, observed: Pixels, goals: Sequence[Pixels]) -> Path:
    """Draw what a plan imagines as the training frames nearest to it, between the observation and the goals.

    The frames are read from `store`; they are recordings, not what the model sees, and the picture says so. Raises ArtifactError
    where `plan` holds no imagined frames or `store` not those that it names.
    """
    report = read_report(plan, "plan")
    if "imagined" not in report:
        raise ArtifactError(f"{plan}: holds no 'imagined'; run 'vjepa2 plan' with the picture that you want")
    found, towards = report["imagined"], report["towards"]
    videos = VideoStore.open(store)
    tiles = [("observation", observed)]
    for number, row in enumerate(found):
        moment = "nearest to it" if number == 0 else f"after action {number}"
        tiles.append((f"{moment}\n{row['distance']:.3f} away", _frame(videos, row)))
        if number and (number == len(towards) or towards[number] != towards[number - 1]):
            name = "goal" if len(goals) == 1 else f"goal {towards[number - 1] + 1}"
            tiles.append((name, goals[towards[number - 1]]))
    rows = -(-len(tiles) // _TILES_A_ROW)
    columns = -(-len(tiles) // rows)
    table = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    return save(strip(table, title=_NEAREST), out)


def draw_rollout_strip(validation: Path, store: Path, out: Path) -> Path:
    """Draw the imagined rollout of a validation; raises ArtifactError where it holds none, or `store` not its frames."""
    report = read_report(validation, "validation")
    if not report.get("film"):
        raise ArtifactError(f"{validation}: holds no imagined rollout; run 'vjepa2 validate' with --store")
    return save(rollout_strip(report["film"], store), out)


def rollout_strip(film: Mapping[str, Any], store: Path) -> Figure:
    """What was recorded, the training frames nearest to it, and those nearest to what the model imagines, moment by moment."""
    videos = VideoStore.open(store)
    recorded = film["recorded"] or [None] * len(film["known"])
    rows: list[list[Tile]] = [[], [], []]
    for step, (true, known) in enumerate(zip(recorded, film["known"], strict=True)):
        if true is not None:
            rows[0].append(("recorded" if step == 0 else f"recorded, step {step}", _frame(videos, true)))
        rows[1].append((f"nearest to it\n{known['distance']:.3f} away", _frame(videos, known)))
    if recorded[0] is not None:
        rows[2].append(("it begins here", _frame(videos, recorded[0])))
    else:
        rows[2].append(rows[1][0])
    for number, row in enumerate(film["imagined"], start=1):
        rows[2].append((f"imagined, step {number}\n{row['distance']:.3f} away", _frame(videos, row)))
    return strip([row for row in rows if row], title=_NEAREST)


def as_png(figure: Figure) -> bytes:
    """The picture as the bytes of a PNG file, the same for the same frames."""
    stream = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()


def strip(rows: Sequence[Sequence[Tile]], *, title: str) -> Figure:
    """Frames in rows, each under its label; a label of two lines is that of a look-alike, and is set fainter."""
    columns = max(map(len, rows))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.5 * columns, 1.8 * len(rows) + 0.3), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=9 if columns > 4 else 6.5)
        grid = np.atleast_2d(figure.subplots(len(rows), columns, squeeze=False))
        for axes in grid.flat:
            axes.set_axis_off()
        for line, tiles in zip(grid, rows, strict=True):
            for axes, (label, pixels) in zip(line, tiles, strict=False):
                likeness = "\n" in label
                axes.imshow(pixels, interpolation="antialiased")
                axes.set_title(
                    label, fontsize=8, color="#555555" if likeness else "#0a5fbf", fontweight="normal" if likeness else "bold"
                )
    return figure


def save(figure: Figure, out: Path) -> Path:
    """Write a figure as .png or .svg, by its name; the same figure gives the same bytes."""
    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise InputError(f"{out}: pictures are written as .png or .svg; choose one by the name")
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    with mpl.rc_context(STYLE), replaced_atomically(out) as partial:
        figure.savefig(partial, format=kind, dpi=_DPI, metadata=metadata)
    return out


def _frame(videos: VideoStore, row: Mapping[str, Any]) -> Pixels:
    frames: Pixels = videos.frames(row["key"], row["frame"], row["frame"] + 1)
    first: Pixels = frames[0]
    return first
