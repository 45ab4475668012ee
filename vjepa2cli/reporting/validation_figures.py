"""The figures of a validation: errors and ranks over the steps, sweeps, recovered moves, energy landscapes, a film strip."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vjepa2cli.reporting import page
from vjepa2cli.reporting.figures import Line, curves, landscape, pairs
from vjepa2cli.reporting.film_strips import as_png, rollout_strip
from vjepa2cli.reporting.sources import Source
from vjepa2cli.reporting.statistics import minus

_MOST_SWEEPS = 4
_MOST_PAIRS = 3
_MOST_MAPS = 3


def over_steps(validations: Sequence[Source]) -> Iterator[str]:
    """Errors as a share of copying, and where the recorded action ranks, for every encoder over the steps."""
    lines = [_relative(source) for source in validations]
    drawing = curves(lines, "relative", x_label="steps ahead", y_label="error (% of copying)", marks=[("copying", 100)])
    yield page.figure(drawing, "Below the dotted line the model knows more than that nothing moves.")
    ranked = [
        Line(
            source.encoder,
            [row["steps"] for row in source.body["ranking"]],
            [100 * row["percentile"]["mean"] for row in source.body["ranking"]],
            source.encoder,
        )
        for source in validations
        if source.body["ranking"]
    ]
    if ranked:
        drawing = curves(
            ranked, "ranked", x_label="steps ahead", y_label="recorded action better than % of others", marks=[("chance", 50)]
        )
        yield page.figure(drawing, "Recorded actions among those recorded elsewhere, by the energy of what they lead to.")


def of_one(source: Source) -> Iterator[str]:
    """What is drawn of one world model alone."""
    yield from _beside_guesses(source)
    yield from _away_from_training(source)
    yield from _recovered(source)
    yield from _sweeps(source)
    yield from _landscapes(source)


def film(source: Source, stores: Mapping[str, Path]) -> Iterator[str]:
    """The imagined rollout in recorded frames, where the video store that it names is on the page."""
    found = source.body["film"]
    if not found or found["videos"] not in stores:
        return
    caption = (
        f"{found['episode']} from step {found['first_step']} on, imagined under its recorded actions. The model predicts "
        "features and no pixels: shown are the training frames whose features are nearest, and how far off these are."
    )
    picture = page.picture(as_png(rollout_strip(found, stores[found["videos"]])), f"imagined rollout of {found['episode']}")
    yield page.figure(picture, caption, wide=True)


def in_units(value: float, unit: str) -> str:
    """A number with its unit, lengths in centimetres."""
    if unit == "m":
        return f"{minus(100 * value, 1)} cm"
    return minus(value, 3) if unit == "share" else f"{minus(value, 3)} {unit}"


def _relative(source: Source) -> Line:
    steps = source.body["prediction"]
    values = [100 * step["error"]["model"] / step["error"]["copy"] for step in steps]
    return Line(source.encoder, [step["steps"] for step in steps], values, source.encoder)


def _beside_guesses(source: Source) -> Iterator[str]:
    steps = source.body["prediction"]
    lines = [
        Line(label, [step["steps"] for step in steps], [step["error"][key] for step in steps], colour, dash)
        for key, label, colour, dash in (
            ("model", "model", source.encoder, "-"),
            ("one_step", "true start", source.encoder, ":"),
            ("copy", "nothing moves", "random", "-"),
            ("no_action", "no action", "random", "--"),
            ("shuffled", "shuffled", "bad", ":"),
        )
    ]
    drawing = curves(lines, "guesses", x_label="steps ahead", y_label=f"error in features, {source.encoder}")
    caption = "The model beside guesses that know less. What it errs more than from a true start is what its rollout drifts."
    yield page.figure(drawing, caption)


def _away_from_training(source: Source) -> Iterator[str]:
    found = source.body["familiarity"]
    if found is None:
        return
    rows, usual = found["rollout"], found["training"]["median"]
    lines = [
        Line(label, [row["steps"] for row in rows], [100 * row[key] / usual for row in rows], colour)
        for key, label, colour in (("imagined", "imagined", source.encoder), ("recorded", "recorded", "random"))
    ]
    label = "distance to training features (% of usual)"
    drawing = curves(lines, "familiar", x_label="steps ahead", y_label=label, marks=[("usual", 100)])
    caption = (
        f"Median distance to the nearest training frame; usual is that of training frames to other training episodes. "
        f"{found['within'] * 100:.0f} % of the held-out frames lie within what 95 % of the training frames do."
    )
    yield page.figure(drawing, caption)


def _recovered(source: Source) -> Iterator[str]:
    found, units = source.body["inversion"], _units(source)
    if not found:
        return
    often = sorted(found["numbers"], key=lambda name: -found["numbers"][name]["sign"]["n"])[:_MOST_PAIRS]
    names = [name for name in found["numbers"] if name in often]
    if units[names[0]] == "m":
        scale, unit = dict.fromkeys(names, 100.0), "cm"
    else:
        scale, unit = {name: 100 / _far(source)[name] for name in names}, "% of its longest"
    points = {name: [(scale[name] * a, scale[name] * b) for a, b in found["numbers"][name]["pairs"]] for name in names}
    drawing = pairs(
        points, "inversion", x_label=f"true move ({unit})", y_label=f"move found by planning ({unit}), {source.encoder}"
    )
    yield page.figure(
        drawing, "The planner is shown two successive frames and asked for the move between them. On the line: exact."
    )


def _sweeps(source: Source) -> Iterator[str]:
    """Those that planning moves first, then the gripper; those that move most often of many."""
    planned = set((source.body["inversion"] or {"numbers": {}})["numbers"])
    swept = [number for number in source.body["numbers"] if number["sweep"]]
    often = sorted(swept, key=lambda number: -number["sweep"]["moves"])
    chosen = sorted(often, key=lambda number: (number["name"] not in planned, number["name"] != "gripper"))[:_MOST_SWEEPS]
    for place, number in enumerate(chosen):
        sweep, far = number["sweep"], number["far"]
        x = [100 * value / far for value in sweep["values"]]
        lines = [
            Line(label, x, [1000 * value for value in sweep[key]], colour)
            for key, label, colour in (("forward", "went up", "trained"), ("backward", "went down", "untrained"))
            if sweep[key] is not None
        ]
        drawing = curves(
            lines,
            f"sweep{place}",
            x_label=f"{number['name']} of the action (% of {in_units(far, number['unit'])})",
            y_label="energy above its least, × 1000",
            floor=0,
        )
        sign = sweep["sign"]
        yield page.figure(
            drawing,
            f"{number['name']} alone is changed. The least energy belongs on the right where it went up, on the left where it "
            f"went down: so it does in {sign['successes']} of {sign['n']} moves.",
        )


def _landscapes(source: Source) -> Iterator[str]:
    for place, found in enumerate(source.body["landscapes"][:_MOST_MAPS]):
        scales = [100.0 if unit == "m" else 1.0 for unit in found["units"]]
        labels = [f"{axis} ({'cm' if unit == 'm' else unit})" for axis, unit in zip(found["axes"], found["units"], strict=True)]
        drawing = landscape(
            [[scale * value for value in values] for scale, values in zip(scales, found["values"], strict=True)],
            found["energies"],
            f"landscape{place}",
            labels=(labels[0], labels[1]),
            marked=(scales[0] * found["planned"][0], scales[1] * found["planned"][1]),
        )
        yield page.figure(
            drawing, "The energy of every action over two numbers; the deeper, the lower. It belongs at the cross, what was done."
        )


def _units(source: Source) -> dict[str, str]:
    return {number["name"]: number["unit"] for number in source.body["numbers"]}


def _far(source: Source) -> dict[str, float]:
    return {number["name"]: number["far"] or 1.0 for number in source.body["numbers"]}
