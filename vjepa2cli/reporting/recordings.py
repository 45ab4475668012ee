"""What ingest found of a robot's recordings: whether commands explain motion, what moves how often, what the cameras see."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vjepa2cli.reporting import page
from vjepa2cli.reporting.figures import Line, curves, heat
from vjepa2cli.reporting.sources import Source, of_kind
from vjepa2cli.reporting.statistics import minus

_SHOWN = 7
# Their curves all end near nought, where there is room for few names.
_SHOWN_STEPS = 4
_COLOURS = ("trained", "untrained", "pixels", "random", "expert", "good", "bad")


def recordings(sources: Sequence[Source]) -> str:
    """One part a store that has recordings of a robot."""
    stores = [source for source in of_kind(sources, "store") if source.body.get("robot")]
    if not stores:
        return ""
    parts = [part for number, source in enumerate(stores) for part in _store(source, number)]
    return page.section("recordings", "Recordings of the robot", *parts)


def _store(source: Source, number: int) -> Iterator[str]:
    found = source.body["robot"]
    yield f"<h3><code>{page.text(source.name)}</code></h3>"
    yield page.paragraph(_summary(found), kind="lead")
    yield page.bullets(found["warnings"]) if found["warnings"] else page.paragraph("Nothing was found amiss.")
    yield page.figures([*_lead(found, number), *_steps(found, number), *_cameras(found, number)])
    yield page.folded("Every number", _table(found))


def _summary(found: Mapping[str, Any]) -> str:
    words = (
        f"{found['episodes']} episodes, {found['steps']} steps at {found['rate']:g} Hz, {found['minutes']:g} minutes; in "
        f"{found['coverage']['idle_share'] * 100:.0f} % of the steps nothing moves."
    )
    alignment = found["alignment"]
    if alignment is None:
        return f"{words} Commands were not recorded."
    if alignment["lead_s"] is None:
        return f"{words} The recorded commands do not explain the motion."
    return f"{words} Commands lead what moves by {alignment['lead_s']:.2f} s, {alignment['lead_rows']:.1f} rows."


def _lead(found: Mapping[str, Any], number: int) -> Iterator[str]:
    axes = sorted(
        (axis for axis in (found["alignment"] or {"axes": ()})["axes"] if axis["lead_s"] is not None),
        key=lambda axis: -axis["correlation"],
    )[:_SHOWN]
    if not axes:
        return
    lines = []
    for axis, colour in zip(axes, _COLOURS, strict=False):
        around = (len(axis["curve"]) - 1) // 2
        later = 0 if axis["meaning"] == "absolute" else 1
        seconds = [(place - around + later) / found["rate"] for place in range(len(axis["curve"]))]
        lines.append(Line(axis["name"], seconds, axis["curve"], colour))
    drawing = curves(lines, f"lead-{number}", x_label="seconds that motion comes after its command", y_label="correlation")
    yield page.figure(drawing, "Commands and the motion they ask for are most alike where a curve is highest.")


def _steps(found: Mapping[str, Any], number: int) -> Iterator[str]:
    axes = sorted(found["coverage"]["axes"], key=lambda axis: axis["idle_share"])[:_SHOWN_STEPS]
    lines = []
    for axis, colour in zip(axes, _COLOURS, strict=False):
        counts = axis["histogram"]["counts"]
        places = [(2 * place + 1) / len(counts) - 1 for place in range(len(counts))]
        lines.append(Line(axis["name"], [100 * x for x in places], [100 * count / sum(counts) for count in counts], colour))
    drawing = curves(lines, f"steps-{number}", x_label="% of its longest step", y_label="% of steps", floor=0)
    yield page.figure(drawing, "How far each number goes from a row to the next, back and forth; those that move most often.")


def _cameras(found: Mapping[str, Any], number: int) -> Iterator[str]:
    for place, camera in enumerate(found["cameras"]):
        drawing = heat(camera["heat"], f"camera-{number}-{place}", aspect=camera["aspect"], kept=1.0)
        words = (
            f"Where the picture of {camera['camera'] or 'the camera'} moves, in {camera['looked_at']} episodes; "
            f"{camera['in_centre'] * 100:.0f} % of it within the central square."
        )
        yield page.figure(drawing, words)


def _table(found: Mapping[str, Any]) -> str:
    leads = {axis["name"]: axis for axis in (found["alignment"] or {"axes": ()})["axes"]}
    rows = []
    for axis in found["coverage"]["axes"]:
        lead = leads.get(axis["name"], {})
        seconds = lead.get("lead_s")
        low, middle, high = axis["step_quantiles"]
        rows.append(
            (
                page.text(axis["name"]),
                page.text(axis["unit"]),
                f"{axis['idle_share'] * 100:.0f} %",
                "–" if axis["forward_share"] is None else f"{axis['forward_share'] * 100:.0f} %",
                f"{minus(low, 4)}, {minus(middle, 4)}, {minus(high, 4)}",
                " to ".join(minus(end, 3) for end in axis["range"]),
                "–" if seconds is None else f"{minus(seconds, 2)} s",
                f"{lead['correlation']:.2f}" if lead else "–",
            )
        )
    head = ("number", "unit", "at rest", "forward", "step: 5 %, half, 95 %", "range", "command leads by", "correlation")
    return page.table(head, rows, numbers=range(2, 8))
