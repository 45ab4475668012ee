"""The figure of a surprise report: the prediction error over time, beside that of copying the last time step."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.errors import InputError
from vjepa2cli.files import replaced_atomically

_INK, _MUTED, _LINE, _TRAINED, _COPIED = "#1b1f24", "#5d6570", "#dcdad3", "#0a5fbf", "#a9570a"
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "svg.hashsalt": "surprise",
}
_METADATA: dict[str, dict[str, Any]] = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}


def check_plot(path: Path) -> None:
    """Raise InputError where a plot cannot be written under this suffix."""
    if path.suffix not in _METADATA:
        raise InputError(f"{path}: plots are written as {' or '.join(_METADATA)}; choose one of these suffixes")


def draw_surprise(report: Path, out: Path) -> Path:
    """Draw a report of `vjepa2 surprise` as .png or .svg and return `out`; the same report gives the same bytes."""
    check_plot(out)
    content = read_report(report, "surprise")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.6), dpi=150, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        _draw(figure.subplots(), content)
        with replaced_atomically(out) as partial:
            figure.savefig(partial, format=out.suffix[1:], metadata=_METADATA[out.suffix])
    return out


def _draw(axes: Axes, content: dict[str, Any]) -> None:
    rows = zip(content["timestamps"], content["surprise"], content["unchanged"], strict=True)
    times, predicted, copied = zip(*(row for row in rows if row[1] is not None), strict=True)
    mark = "o" if len(times) < 60 else ""
    axes.plot(times, copied, color=_COPIED, lw=1.5, ls=(0, (4, 2)), marker=mark, ms=3)
    axes.plot(times, predicted, color=_TRAINED, lw=2, marker=mark, ms=4)
    peak = content["peak"]
    axes.plot([peak["time"]], [peak["surprise"]], "o", ms=10, mfc="none", mec=_INK, mew=1.3)
    begin, end = content["windows"][0]["start"], content["windows"][-1]["end"]
    first = content["windows"][0]["targets_from"]
    axes.axvspan(begin, first, color=_LINE, alpha=0.45, lw=0)
    axes.text(
        (begin + first) / 2,
        0.02,
        "first context",
        color=_MUTED,
        ha="center",
        rotation=90,
        va="bottom",
        fontsize=8,
        transform=axes.get_xaxis_transform(),
    )
    top = max(*predicted, *copied) * 1.25
    axes.plot([peak["time"]] * 2, [peak["surprise"], top], color=_INK, lw=0.8, ls=(0, (2, 3)), zorder=0)
    axes.text(
        peak["time"],
        0.98,
        f"  most surprising: {peak['surprise']:.2f} at {peak['time']:.2f} s  ",
        color=_INK,
        ha="left" if peak["time"] < (begin + end) / 2 else "right",
        va="top",
        transform=axes.get_xaxis_transform(),
    )
    axes.set(xlim=(begin, end), ylim=(0, top))
    axes.set_xlabel("time in the video (s)")
    axes.set_ylabel("error of features (L1, in units\nof their standard deviation)")
    axes.set_title(content["source"], loc="left", color=_INK, fontsize=10.5)
    axes.grid(axis="y", color=_LINE, lw=0.6)
    axes.set_axisbelow(True)
    for place, (name, colour) in enumerate((("predicted", _TRAINED), ("last time step copied", _COPIED))):
        axes.text(1.01, 0.98 - 0.09 * place, name, color=colour, transform=axes.transAxes, va="top")
