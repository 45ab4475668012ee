"""The energy around a single plan, drawn from its report."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.errors import ArtifactError
from vjepa2cli.reporting.film_strips import STYLE, save


def draw_energy_map(plan: Path, out: Path) -> Path:
    """Draw the energies that a plan holds over two axes of its first action, as .png or .svg by the name of `out`.

    Raises ArtifactError where `plan` is no plan or holds no such energies.
    """
    found = _energy_map(plan)
    names = [f"{axis} ({unit})" for axis, unit in zip(found["axes"], found["units"], strict=True)]
    x, y = found["values"]
    energies = np.array(found["energies"])
    with mpl.rc_context(STYLE):
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
    return save(figure, out)


def _energy_map(plan: Path) -> Any:
    report = read_report(plan, "plan")
    if "energy_map" not in report:
        raise ArtifactError(f"{plan}: holds no 'energy_map'; run 'vjepa2 plan' with the picture that you want")
    return report["energy_map"]
