"""Figures as inline SVG whose colours are the page's, so that they follow a light or a dark screen.

Matplotlib draws with stand-in colours that become CSS variables; the same numbers give the same bytes.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vjepa2cli.reporting.statistics import Share

COLOURS = ("ink", "muted", "line", "surface", "trained", "untrained", "pixels", "random", "expert", "bad", "good")
"""Names of the page's colours; each is a CSS variable in `page`."""

_STAND_IN = {name: f"#0102{index:02x}" for index, name in enumerate(COLOURS)}
_WIDTH = 360
_POINTS_PER_INCH = 72
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.labelcolor": _STAND_IN["muted"],
    "axes.edgecolor": _STAND_IN["line"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "xtick.color": _STAND_IN["line"],
    "ytick.color": _STAND_IN["line"],
    "xtick.labelcolor": _STAND_IN["muted"],
    "ytick.labelcolor": _STAND_IN["muted"],
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
    "path.simplify_threshold": 0.5,
}


@dataclass(frozen=True)
class Line:
    """One curve: its label stands at its right end; a faint one lies behind and has none."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = "trained"
    dash: str = "-"
    faint: bool = False


@dataclass(frozen=True)
class ShareRow:
    """One bar: a share with its interval."""

    label: str
    share: Share
    colour: str = "trained"


@dataclass(frozen=True)
class DotRow:
    """One row of dots, one a trial."""

    label: str
    values: Sequence[float]
    colour: str = "trained"


def curves(
    lines: Sequence[Line],
    name: str,
    *,
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[str, float]] = (),
    height: int = 220,
    floor: float | None = None,
) -> str:
    """Draw curves over a common x; `marks` are labelled horizontal lines, `floor` a value that the y axis reaches down to."""
    with mpl.rc_context(_style(name)):
        figure, axes = _canvas(height, left=44, right=96, top=26, bottom=38)
        for line in lines:
            width, opacity = (1.0, 0.35) if line.faint else (2.0, 1.0)
            single = len(line.x) == 1
            axes.plot(
                line.x,
                line.y,
                line.dash,
                color=_STAND_IN[line.colour],
                lw=width,
                alpha=opacity,
                marker="o" if single else None,
                ms=5,
            )
        for _, level in marks:
            axes.axhline(level, color=_STAND_IN["ink"], lw=1, ls=(0, (2, 3)))
        if floor is not None:
            axes.set_ylim(bottom=min(floor, axes.get_ylim()[0]))
        axes.set_xlabel(x_label)
        axes.set_title(y_label, loc="left", color=_STAND_IN["muted"], pad=6)
        axes.margins(x=0.01)
        axes.locator_params(axis="x", nbins=5, integer=True)
        axes.locator_params(axis="y", nbins=5)
        axes.grid(axis="y", color=_STAND_IN["line"], lw=0.6)
        axes.set_axisbelow(True)
        named = [(line.label, line.y[-1], line.colour) for line in lines if not line.faint]
        _label_ends(axes, [*named, *((label, level, "ink") for label, level in marks)])
        return _svg(figure, name)


def shares(rows: Sequence[ShareRow], name: str, *, mark: tuple[str, float] | None = None) -> str:
    """Draw one bar a share, 0 to 100 %, with its 95 % interval as a whisker and its counts in words."""
    with mpl.rc_context(_style(name)):
        figure, axes = _canvas(len(rows) * 42 + (56 if mark else 36), left=8, right=24, top=4, bottom=24)
        for place, row in enumerate(rows):
            share, colour = row.share, _STAND_IN[row.colour]
            axes.barh(place, share.rate, height=0.3, color=colour, alpha=0.3, lw=0)
            axes.plot([share.low, share.high], [place, place], color=colour, lw=2.4)
            axes.plot([share.rate], [place], "o", color=colour, ms=6, clip_on=False)
            axes.text(0, place - 0.27, row.label, color=_STAND_IN["ink"], va="bottom", ha="left")
            axes.text(
                1,
                place - 0.27,
                f"{share.successes}/{share.total} · {share.rate * 100:.0f} %",
                color=_STAND_IN["muted"],
                va="bottom",
                ha="right",
            )
        axes.set(xlim=(0, 1), ylim=(len(rows) - 0.6, -1.2 if mark else -0.75), yticks=[], xticks=[0, 0.25, 0.5, 0.75, 1])
        _mark_rows(axes, len(rows), mark)
        axes.set_xticklabels(["0", "25", "50", "75", "100 %"])
        axes.spines["left"].set_visible(False)
        return _svg(figure, name)


def dots(rows: Sequence[DotRow], name: str, *, x_label: str, mark: tuple[str, float] | None = None) -> str:
    """Draw one dot a trial, a row a policy, with the median as an upright line; dots are stacked so that none hides another."""
    with mpl.rc_context(_style(name)):
        figure, axes = _canvas(len(rows) * 50 + (70 if mark else 50), left=8, right=24, top=4, bottom=38)
        longest = max((max(row.values, default=0.0) for row in rows), default=0.0) or 1.0
        for place, row in enumerate(rows):
            column = longest / 60
            stacked = _stacked(row.values, column)
            step = min(0.1, 0.27 / max(1, *(abs(level) for _, level in stacked), 1))
            colour = _STAND_IN[row.colour]
            axes.plot(
                [value for value, _ in stacked], [place + step * level for _, level in stacked], "o", color=colour, ms=3.6, mew=0
            )
            axes.text(0, place - 0.36, row.label, color=_STAND_IN["ink"], va="bottom", ha="left")
            if row.values:
                middle = median(row.values)
                axes.plot([middle, middle], [place - 0.33, place + 0.33], color=_STAND_IN["ink"], lw=1.6)
                axes.text(longest, place - 0.36, f"median {middle:.1f}", color=_STAND_IN["muted"], va="bottom", ha="right")
        axes.set(xlim=(0, longest * 1.01), ylim=(len(rows) - 0.55, -1.15 if mark else -0.8), yticks=[])
        _mark_rows(axes, len(rows), mark)
        axes.set_xlabel(x_label)
        axes.spines["left"].set_visible(False)
        return _svg(figure, name)


def heat(cells: Sequence[Sequence[float]], name: str, *, aspect: float, kept: float) -> str:
    """Draw a grid over a picture of the aspect `aspect`, deeper where its numbers are larger, and the central part of width
    `kept` times its height as a frame."""
    most = max((max(row) for row in cells), default=0.0) or 1.0
    height = min(260, round((_WIDTH - 16) / aspect))
    with mpl.rc_context(_style(name)):
        side = (_WIDTH - height * aspect) / 2
        figure, axes = _canvas(height + 8, left=round(side), right=round(side), top=4, bottom=4)
        for row, values in enumerate(cells):
            for column, value in enumerate(values):
                if value > 0:
                    place = (column / len(values), row / len(cells))
                    size = (1 / len(values), 1 / len(cells))
                    axes.add_patch(Rectangle(place, *size, color=_STAND_IN["trained"], alpha=round(value / most, 3), lw=0))
        width = min(1.0, kept / aspect)
        part = Rectangle(((1 - width) / 2, 0), width, 1, fill=False, ec=_STAND_IN["ink"], lw=1, ls=(0, (2, 3)), clip_on=False)
        axes.add_patch(part)
        axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, ec=_STAND_IN["line"], lw=1, clip_on=False))
        axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return _svg(figure, name)


def landscape(
    values: Sequence[Sequence[float]],
    energies: Sequence[Sequence[float]],
    name: str,
    *,
    labels: tuple[str, str],
    marked: tuple[float, float],
) -> str:
    """Draw energies over two even axes, deeper where they are lower, with a cross at what is `marked` and a ring at the least."""
    x, y = values
    low, high = min(map(min, energies)), max(map(max, energies))
    width, height = x[1] - x[0], y[1] - y[0]
    with mpl.rc_context(_style(name)):
        figure, axes = _canvas(270, left=64, right=50, top=8, bottom=38)
        for line, level in zip(energies, y, strict=True):
            for energy, place in zip(line, x, strict=True):
                depth = round(0.9 * ((high - energy) / (high - low or 1.0)) ** 2, 3)
                cell = Rectangle(
                    (place - width / 2, level - height / 2), width, height, color=_STAND_IN["trained"], alpha=depth, lw=0
                )
                axes.add_patch(cell)
        least = min((energy, i, j) for j, line in enumerate(energies) for i, energy in enumerate(line))
        axes.plot(x[least[1]], y[least[2]], "o", mfc="none", mec=_STAND_IN["ink"], ms=9, mew=1.2, clip_on=False)
        axes.plot(*marked, "P", color=_STAND_IN["ink"], mec=_STAND_IN["surface"], ms=9, clip_on=False)
        axes.set(xlim=(x[0] - width / 2, x[-1] + width / 2), ylim=(y[0] - height / 2, y[-1] + height / 2))
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.locator_params(nbins=5)
        return _svg(figure, name)


def _mark_rows(axes: Axes, count: int, mark: tuple[str, float] | None) -> None:
    """A dotted line across every row, broken where the rows' labels stand, and its name on top."""
    if mark is None:
        return
    name, level = mark
    for place in range(count):
        axes.plot([level, level], [place - 0.26, place + 0.34], color=_STAND_IN["ink"], lw=1.2, ls=(0, (1.5, 2)))
    axes.text(
        level, -0.72, name, color=_STAND_IN["ink"], va="bottom", ha="left" if level < sum(axes.get_xlim()) * 0.6 else "right"
    )


def _stacked(values: Sequence[float], column: float) -> list[tuple[float, int]]:
    """Each value with a level 0, 1, -1, 2, -2 ... that no other value of its column has; `column` is a width."""
    seen: dict[int, int] = {}
    placed = []
    for value in sorted(values):
        index = int(value / column)
        crowd = seen.get(index, 0)
        seen[index] = crowd + 1
        placed.append((value, (crowd + 1) // 2 * (1 if crowd % 2 else -1)))
    return placed


def pairs(points: Mapping[str, Sequence[tuple[float, float]]], name: str, *, x_label: str, y_label: str) -> str:
    """Draw found against true values, a colour a group, with the line on which both are equal."""
    with mpl.rc_context(_style(name)):
        figure, axes = _canvas(250, left=44, right=50, top=26, bottom=38)
        ends = [value for group in points.values() for pair in group for value in pair]
        low, high = min(ends, default=0.0), max(ends, default=1.0)
        axes.plot([low, high], [low, high], color=_STAND_IN["ink"], lw=1, ls=(0, (2, 3)))
        for place, (group, colour) in enumerate(zip(points, ("trained", "untrained", "pixels"), strict=False)):
            found, true = [pair[1] for pair in points[group]], [pair[0] for pair in points[group]]
            axes.plot(true, found, "o", color=_STAND_IN[colour], ms=4, mew=0, alpha=0.8)
            axes.text(0.02, 0.95 - 0.09 * place, group, color=_STAND_IN[colour], transform=axes.transAxes, va="center")
        axes.set_xlabel(x_label)
        axes.set_title(y_label, loc="left", color=_STAND_IN["muted"], pad=6)
        axes.grid(color=_STAND_IN["line"], lw=0.6)
        axes.set_axisbelow(True)
        return _svg(figure, name)


def matrix(cells: Sequence[Sequence[float]], labels: Sequence[str], name: str, *, x_label: str, y_label: str) -> str:
    """Draw a square matrix of shares, 0 to 1, deeper where they are larger; rows and columns bear the same labels."""
    count = len(cells)
    side, room = 240, 100
    with mpl.rc_context(_style(name)):
        figure, axes = _canvas(side + room, left=room, right=_WIDTH - room - side, top=4, bottom=room - 4)
        for row, values in enumerate(cells):
            for column, value in enumerate(values):
                if value > 0:
                    colour = _STAND_IN["trained" if row == column else "bad"]
                    axes.add_patch(Rectangle((column, row), 1, 1, color=colour, alpha=round(value, 3), lw=0))
        axes.set(xlim=(0, count), ylim=(count, 0))
        size = max(4.0, min(9.0, 0.8 * side / count))
        places = [index + 0.5 for index in range(count)]
        axes.set_yticks(places, [_shortened(label) for label in labels], fontsize=size)
        axes.set_xticks(places, [_shortened(label) for label in labels], fontsize=size, rotation=90)
        axes.tick_params(length=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        for spine in axes.spines.values():
            spine.set_visible(True)
        return _svg(figure, name)


def _shortened(label: str) -> str:
    return label if len(label) <= 20 else f"{label[:19]}…"


def smoothed(values: Sequence[float], *, points: int = 60) -> tuple[list[float], list[float]]:
    """Means of at most `points` consecutive groups, and the middle index of each: what a noisy curve does on the whole."""
    size = max(1, math.ceil(len(values) / points))
    groups = [values[start : start + size] for start in range(0, len(values), size)]
    return [start * size + (len(group) - 1) / 2 for start, group in enumerate(groups)], [
        sum(group) / len(group) for group in groups
    ]


def _label_ends(axes: Axes, ends: Sequence[tuple[str, float, str]]) -> None:
    """Write each label beside the right end of its curve, pushed apart where they would touch."""
    low, high = axes.get_ylim()
    ordered = sorted(ends, key=lambda end: (end[1], end[0]))
    places = spread([level for _, level, _ in ordered], gap=(high - low) * 0.085)
    for (label, _, colour), place in zip(ordered, places, strict=True):
        axes.text(1.02, place, label, transform=axes.get_yaxis_transform(), color=_STAND_IN[colour], va="center", fontsize=10.5)


def spread(levels: Sequence[float], *, gap: float) -> list[float]:
    """The places nearest to the sorted `levels` (in least squares) that are at least `gap` apart."""
    groups: list[list[float]] = []
    for index, level in enumerate(levels):
        groups.append([level - index * gap])
        while len(groups) > 1 and fmean(groups[-2]) > fmean(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    middles = [fmean(group) for group in groups for _ in group]
    return [middle + index * gap for index, middle in enumerate(middles)]


def _style(name: str) -> dict[str, object]:
    return {**_STYLE, "svg.hashsalt": name}


def _canvas(height: int, *, left: int, right: int, top: int, bottom: int) -> tuple[Figure, Axes]:
    """A figure of a phone's width with margins in points, which are the page's pixels."""
    figure = Figure(figsize=(_WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
    FigureCanvasSVG(figure)
    box = (left / _WIDTH, bottom / height, 1 - (left + right) / _WIDTH, 1 - (top + bottom) / height)
    axes = figure.add_axes(box)
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    return figure, axes


def _svg(figure: Figure, name: str) -> str:
    """The figure's SVG element, without its date, with ids of its own and the page's colours and font."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', text, count=1, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text).replace('xlink:href="#', f'href="#{name}-')
    for colour, stand_in in _STAND_IN.items():
        text = text.replace(stand_in, f"var(--{colour})")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--font)", text)
    return re.sub(r"\n\s*", "\n", text).strip()
