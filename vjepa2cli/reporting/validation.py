"""The verdict on a world model without a robot: its claim, and how its predictions hold over the steps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vjepa2cli.reporting import page
from vjepa2cli.reporting.figures import Line, curves, pairs
from vjepa2cli.reporting.sources import Source, of_kind
from vjepa2cli.reporting.statistics import Share, minus
from vjepa2cli.reporting.verdict import ENCODER_NAMES, Claim

_SPLITS = {"val": "held-out", "train": "training", "all": "all"}


def validation_claims(sources: Sequence[Source]) -> list[Claim]:
    """One claim a validation of a trained encoder; of whatever there is where none is trained."""
    validations = of_kind(sources, "validation")
    trained = [source for source in validations if source.encoder == "trained"]
    return [_claim(source) for source in trained or validations[:1]]


def _claim(source: Source) -> Claim:
    body, step = source.body, source.body["prediction"][0]
    error, mine = step["error"], ENCODER_NAMES[source.encoder]
    gain = 1 - error["model"] / error["copy"] if error["copy"] else 0.0
    wins = _wins(step)
    shortfalls = []
    if not body["beats_copy"]:
        shortfalls.append(
            f"On {_split(source)} recordings the world model is not shown to beat copying the present frame: its error is "
            f"{_gap_words(step['below_copy'])}."
        )
    if not body["uses_actions"]:
        shortfalls.append(
            f"On {_split(source)} recordings the world model is not shown to use its actions: the true ones beat those of "
            f"another window in {wins.successes} of {wins.total} windows ({wins.interval()})."
        )
    if body["split"] != "val":
        shortfalls.append(f"The world model was judged on {_split(source)} recordings, which it has seen.")
    said = f"On {_split(source)} recordings, {abs(gain) * 100:.0f} % {'better' if gain > 0 else 'worse'} than copying the frame"
    detail = (
        f"{body['num_windows']} windows of {body['num_episodes']} episodes, {mine}: error {error['model']:.4f} against "
        f"{error['copy']:.4f}, {_gap_words(step['below_copy'])}. The true actions predict better than another window's in "
        f"{wins.successes} of {wins.total} ({wins.rate * 100:.0f} %, 95 % interval {wins.interval()})."
    )
    return Claim("World model without a robot", said, detail, shortfalls=tuple(shortfalls), failed=bool(shortfalls))


def validation(sources: Sequence[Source]) -> str:
    """Errors over the steps for each encoder, in a table and as a share of copying; actions recovered from two frames."""
    validations = of_kind(sources, "validation")
    if not validations:
        return ""
    lead = (
        "Open-loop predictions of held-out recordings. Copying the first frame is the baseline to beat; with the actions of "
        "another window the error must rise. Intervals are 95 % bootstrap intervals over episodes."
    )
    lines = [_relative(source) for source in validations]
    drawing = curves(lines, "relative", x_label="steps ahead", y_label="error (% of copying)", marks=[("copying", 100)])
    drawings = [page.figure(drawing, "Below the dotted line the model knows more than that nothing moves.")]
    drawings += [drawn for source in validations[:1] for drawn in _recovered(source)]
    tables = [_prediction_table(validations), _inversion_table(validations)]
    return page.section(
        "validation", "World model without a robot", page.paragraph(lead, kind="lead"), page.figures(drawings), *tables
    )


def _split(source: Source) -> str:
    return _SPLITS[source.body["split"]]


def _wins(step: Mapping[str, Any]) -> Share:
    return Share.of(step["true_beats_shuffled"]["successes"], step["true_beats_shuffled"]["n"])


def _gap_words(below: Mapping[str, Any]) -> str:
    """By how much an error is lower, or higher, with the interval of that."""
    sign, word = (-1, "higher") if below["mean"] < 0 else (1, "lower")
    low, high = sorted(sign * end for end in below["interval"])
    return f"{word} by {sign * below['mean']:.4f} (95 % interval {minus(low, 4)} to {minus(high, 4)})"


def _relative(source: Source) -> Line:
    steps = source.body["prediction"]
    values = [100 * step["error"]["model"] / step["error"]["copy"] for step in steps]
    return Line(source.encoder, [step["steps"] for step in steps], values, source.encoder)


def _prediction_table(validations: Sequence[Source]) -> str:
    rows = [
        (
            page.text(ENCODER_NAMES[source.encoder]),
            str(step["steps"]),
            *(f"{step['error'][name]:.4f}" for name in ("model", "copy", "shuffled")),
            f"{minus(step['below_copy']['mean'], 4)} ({' to '.join(minus(end, 4) for end in step['below_copy']['interval'])})",
            f"{wins.successes}/{wins.total} ({wins.interval()})",
        )
        for source in validations
        for step in source.body["prediction"]
        if (wins := _wins(step))
    ]
    head = ("", "steps ahead", "model", "copying", "other actions", "lower than copying by", "true actions win")
    return page.table(head, rows, numbers=range(1, 5))


def _inversion_table(validations: Sequence[Source]) -> str:
    rows = []
    for source in validations:
        found = source.body.get("inversion")
        if found:
            directions = "–" if found["cosine"]["mean"] is None else minus(found["cosine"]["mean"], 2)
            axes = ", ".join(
                f"{axis} {'–' if value is None else minus(value, 2)}" for axis, value in found["correlation"].items()
            )
            ends = (f"{found['error_m'][name] * 100:.1f}" for name in ("mean", "median"))
            name = page.text(ENCODER_NAMES[source.encoder])
            rows.append((name, str(found["count"]), *ends, f"{found['magnitude_m'] * 100:.1f}", directions, axes))
    if not rows:
        return ""
    head = ("", "moves", "mean error (cm)", "median (cm)", "move itself (cm)", "cosine", "correlation by axis")
    return "<h3>The action between two frames, found by planning</h3>" + page.table(head, rows, numbers=range(1, 6))


def _recovered(source: Source) -> Iterator[str]:
    found = source.body.get("inversion")
    if found and found.get("pairs"):
        points = {
            axis: [(pair["true"][index] * 100, pair["found"][index] * 100) for pair in found["pairs"]]
            for index, axis in enumerate("xyz")
        }
        drawing = pairs(points, "inversion", x_label="true move (cm)", y_label=f"move found by planning (cm), {source.encoder}")
        yield page.figure(
            drawing, "The planner is shown two successive frames and asked for the move between them. On the line: exact."
        )
