"""Pictures of a single plan, drawn from its report: the energy around it, and the recorded frames nearest to what it imagines."""

from collections.abc import Sequence
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

_STYLE = {
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


def draw_energy_map(plan: Path, out: Path) -> Path:
    """Draw the energies that a plan holds over two axes of its first action, as .png or .svg by the name of `out`.

    Raises ArtifactError where `plan` is no plan or holds no such energies.
    """
    found = _part(plan, "energy_map")
    names = [f"{axis} ({unit})" for axis, unit in zip(found["axes"], found["units"], strict=True)]
    x, y = found["values"]
    energies = np.array(found["energies"])
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.4, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        shown = axes.pcolormesh(x, y, energies, cmap="viridis", shading="nearest", rasterized=True)
        axes.contour(x, y, energies, levels=8, colors="white", linewidths=0.5, alpha=0.6)
        axes.plot(*found["planned"], "P", color="#ffffff", mec="#000000", ms=11, label="the plan", clip_on=False)
        if x[0] <= 0 <= x[-1] and y[0] <= 0 <= y[-1]:
            axes.plot(0, 0, "o", color="#ffffff", mec="#000000", ms=7, label="standing still")
        axes.set(xlabel=names[0], ylabel=names[1], title="Energy when the first action changes, all else as planned")
        axes.locator_params(nbins=5)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), ncols=2, frameon=False, borderaxespad=0)
        figure.colorbar(shown, ax=axes, label="distance to the goal in features")
        return _save(figure, out)


def draw_film_strip(plan: Path, store: Path, out: Path, *, observed: Pixels, goals: Sequence[Pixels]) -> Path:
    """Draw what a plan imagines as the training frames nearest to it, between the observation and the goals.

    The frames are read from `store`; they are recordings, not what the model sees, and the picture says so. Raises ArtifactError
    where `plan` holds no imagined frames or `store` not those that it names.
    """
    found, towards = _part(plan, "imagined"), read_report(plan, "plan")["towards"]
    videos = VideoStore.open(store)
    tiles = [("observation", observed)]
    for number, row in enumerate(found):
        moment = "nearest to it" if number == 0 else f"after action {number}"
        tiles.append((f"{moment}\n{row['distance']:.3f} away", videos.frames(row["key"], row["frame"], row["frame"] + 1)[0]))
        if number and (number == len(towards) or towards[number] != towards[number - 1]):
            name = "goal" if len(goals) == 1 else f"goal {towards[number - 1] + 1}"
            tiles.append((name, goals[towards[number - 1]]))
    rows = -(-len(tiles) // _TILES_A_ROW)
    columns = -(-len(tiles) // rows)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(1.5 * columns, 1.8 * rows + 0.3), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(
            "Imagined latents, each as the training frame whose latent is nearest (a recording, not predicted pixels)",
            fontsize=9 if columns > 4 else 6.5,
        )
        for axes in np.atleast_1d(figure.subplots(rows, columns)).flat:
            axes.set_axis_off()
        for axes, (label, pixels) in zip(figure.axes, tiles, strict=False):
            recorded = "\n" in label
            axes.imshow(pixels, interpolation="antialiased")
            axes.set_title(
                label, fontsize=8, color="#555555" if recorded else "#0a5fbf", fontweight="normal" if recorded else "bold"
            )
        return _save(figure, out)


def _part(plan: Path, key: str) -> Any:
    report = read_report(plan, "plan")
    if key not in report:
        raise ArtifactError(f"{plan}: holds no {key!r}; run 'vjepa2 plan' with the picture that you want")
    return report[key]


def _save(figure: Figure, out: Path) -> Path:
    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise InputError(f"{out}: pictures are written as .png or .svg; choose one by the name")
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    with replaced_atomically(out) as partial:
        figure.savefig(partial, format=kind, dpi=_DPI, metadata=metadata)
    return out
