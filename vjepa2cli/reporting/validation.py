"""The verdict on a world model without a robot: its claim, what it is good for, and the tables behind that."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vjepa2cli.reporting import page
from vjepa2cli.reporting.sources import Source, of_kind
from vjepa2cli.reporting.statistics import Share, minus
from vjepa2cli.reporting.validation_figures import film, in_units, of_one, over_steps
from vjepa2cli.reporting.verdict import ENCODER_NAMES, Claim

_SPLITS = {"val": "held-out", "train": "training", "all": "all"}
_TINTS = {"yes": "good-t", "partly": "weak-t", "no": "bad-t", "untold": "muted"}
_SHOWN = {"no": "not shown", "partly": "shown in part"}
_EXPECTED = ("steers in", "sees gripper")
"""What a robot is driven by; that a model does not see a number that planning leaves alone is no shortfall."""


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
    said = f"On {_split(source)} recordings, {abs(gain) * 100:.0f} % {'better' if gain > 0 else 'worse'} than copying the frame"
    detail = (
        f"{body['num_windows']} windows of {body['num_episodes']} episodes, {mine}: error {error['model']:.4f} against "
        f"{error['copy']:.4f}, {_gap_words(step['below_copy'])}. The true actions predict better than another window's in "
        f"{wins.successes} of {wins.total} ({wins.rate * 100:.0f} %, 95 % interval {wins.interval()}). {body['verdict']}"
    )
    failed = not (body["beats_copy"] and body["uses_actions"])
    return Claim("World model without a robot", said, detail, shortfalls=tuple(_shortfalls(source)), failed=failed)


def _shortfalls(source: Source) -> Iterator[str]:
    """What it is not shown to do, and what the verdict rests on that is not as it should be."""
    body, step, wins = source.body, source.body["prediction"][0], _wins(source.body["prediction"][0])
    if not body["beats_copy"]:
        yield (
            f"On {_split(source)} recordings the world model is not shown to beat copying the present frame: its error is "
            f"{_gap_words(step['below_copy'])}."
        )
    if not body["uses_actions"]:
        yield (
            f"On {_split(source)} recordings the world model is not shown to use its actions: the true ones beat those of "
            f"another window in {wins.successes} of {wins.total} windows ({wins.interval()})."
        )
    for found in body["capabilities"]:
        if found["name"].startswith(_EXPECTED) and found["level"] in ("no", "partly"):
            yield f"That the world model {found['name']} is {_SHOWN[found['level']]}: {found['said']}."
    if not body["trusted_horizon"]:
        yield "No step of the world model's predictions is to be trusted."
    yield from (f"Of the world model: {caveat}." for caveat in body["caveats"])
    if body["split"] != "val":
        yield f"The world model was judged on {_split(source)} recordings, of which it may have seen some."


def validation(sources: Sequence[Source]) -> str:
    """What each world model is good for, and the measurements that this is told from."""
    validations = of_kind(sources, "validation")
    if not validations:
        return ""
    lead = (
        "Open-loop predictions of held-out recordings. Copying the first frame is the baseline to beat; with the actions of "
        "another window the error must rise. Intervals are 95 % intervals, for means by the bootstrap over episodes."
    )
    stores = {source.body["digest"]: source.path for source in of_kind(sources, "store")}
    parts = [
        page.paragraph(lead, kind="lead"),
        *(part for source in validations for part in _capabilities(source)),
        page.figures([*over_steps(validations), *of_one(validations[0])]),
        *film(validations[0], stores),
        _prediction_table(validations),
        *(
            page.folded(f"Every number of an action, {ENCODER_NAMES[source.encoder]}", _number_table(source))
            for source in validations
        ),
    ]
    return page.section("validation", "World model without a robot", *parts)


def _capabilities(source: Source) -> Iterator[str]:
    body = source.body
    rows = [
        (f'<span class="{_TINTS[found["level"]]}">{found["level"]}</span>', page.text(found["name"]), page.text(found["said"]))
        for found in body["capabilities"]
    ]
    horizon = f"{body['trusted_horizon']} steps, {body['trusted_horizon'] / body['rate']:.2g} s"
    yield f"<h3>What it is good for: {page.text(ENCODER_NAMES[source.encoder])}, grade {body['grade']:.2f}</h3>"
    yield page.table(("", "the world model", "told from"), rows)
    yield page.paragraph(f"To be trusted for {horizon}." if body["trusted_horizon"] else "To be trusted for no step.")


def _split(source: Source) -> str:
    return _SPLITS[source.body["split"]]


def _wins(step: Mapping[str, Any]) -> Share:
    return Share.of(step["true_beats_shuffled"]["successes"], step["true_beats_shuffled"]["n"])


def _gap_words(below: Mapping[str, Any]) -> str:
    """By how much an error is lower, or higher, with the interval of that."""
    sign, word = (-1, "higher") if below["mean"] < 0 else (1, "lower")
    low, high = sorted(sign * end for end in below["interval"])
    return f"{word} by {sign * below['mean']:.4f} (95 % interval {minus(low, 4)} to {minus(high, 4)})"


def _prediction_table(validations: Sequence[Source]) -> str:
    rows = []
    for source in validations:
        for place, step in enumerate(source.body["prediction"]):
            wins, ranked = _wins(step), source.body["ranking"]
            rows.append(
                (
                    page.text(ENCODER_NAMES[source.encoder]),
                    str(step["steps"]),
                    *(f"{step['error'][name]:.4f}" for name in ("model", "copy", "no_action", "shuffled")),
                    f"{minus(step['below_copy']['mean'], 4)} "
                    f"({' to '.join(minus(end, 4) for end in step['below_copy']['interval'])})",
                    f"{wins.successes}/{wins.total} ({wins.interval()})",
                    _percentile(ranked[place]) if ranked else "–",
                    "–" if step["drift"] is None else f"{step['drift']:.2f}×",
                )
            )
    head = (
        "", "steps ahead", "model", "nothing moves", "no action", "other actions", "lower than copying by", "true actions win",
        "better than others", "drift",
    )  # fmt: skip
    told = (
        "Errors are mean absolute differences of features. Drift is the error of the model's own rollout over that of a step "
        "from the true frame."
    )
    return "<h3>Predictions</h3>" + page.table(head, rows, numbers=range(1, 6)) + page.paragraph(told, kind="small")


def _percentile(ranked: Mapping[str, Any]) -> str:
    found = ranked["percentile"]
    low, high = found["interval"]
    place = f"rank {ranked['rank']['median']:.0f} of {ranked['rank']['of']}"
    return f"{found['mean'] * 100:.0f} % ({low * 100:.0f}–{high * 100:.0f}), {place}"


def _number_table(source: Source) -> str:
    """For each number: what the sweep over it alone finds, and what planning finds."""
    planned = (source.body["inversion"] or {"numbers": {}})["numbers"]
    rows = []
    for number in source.body["numbers"]:
        swept, found = number["sweep"], planned.get(number["name"])
        unit = number["unit"]
        cells = [page.text(number["name"]), in_units(number["far"], unit)]
        cells += ["–"] * 2 if swept is None else [_signs(swept["sign"]), _correlation(swept["correlation"])]
        if found is None:
            cells += ["–"] * 4
        else:
            error = found["error"]
            cells += [
                _signs(found["sign"]),
                _correlation(found["correlation"]),
                f"{in_units(error['mean'], unit)} ({' to '.join(in_units(end, unit) for end in error['interval'])})",
                in_units(found["magnitude"], unit),
            ]
        rows.append(tuple(cells))
    head = (
        "number", "goes as far as", "sweep: direction found", "correlation", "planning: direction found", "correlation",
        "mean error", "move itself",
    )  # fmt: skip
    return page.table(head, rows, numbers=range(1, 8))


def _signs(sign: Mapping[str, Any]) -> str:
    share = Share.of(sign["successes"], sign["n"])
    return f"{share.successes}/{share.total} ({share.interval()})" if share.total else "–"


def _correlation(value: float | None) -> str:
    return "–" if value is None else minus(value, 2)
