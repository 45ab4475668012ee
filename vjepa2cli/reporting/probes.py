"""The chapter on probes: accuracy beside its baselines, by class, what is taken for what, how sure answers are."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vjepa2cli.reporting import page
from vjepa2cli.reporting.figures import Line, ShareRow, curves, matrix, shares
from vjepa2cli.reporting.sources import ENCODERS, Source, of_kind
from vjepa2cli.reporting.statistics import Share
from vjepa2cli.reporting.verdict import ENCODER_NAMES

_MOST_BARS = 16
_MOST_IN_MATRIX = 48


def probing(sources: Sequence[Source]) -> str:
    """All probes among the sources."""
    parts = [part for index, source in enumerate(_ended(sources)) for part in _of_one(source.body, source, f"probe{index}")]
    return page.section("probing", "Probe, class by class", *parts) if parts else ""


def absent_examples(sources: Sequence[Source]) -> list[Path]:
    """Pictures that a report names and that are not there any more."""
    return [
        source.folder / example["picture"]
        for source in _ended(sources)
        for result in source.body["results"]
        for example in result.get("examples", ())
        if not (source.folder / example["picture"]).is_file()
    ]


def _ended(sources: Sequence[Source]) -> list[Source]:
    return [source for source in of_kind(sources, "probe") if source.ended]


def _of_one(body: Mapping[str, Any], source: Source, name: str) -> Iterator[str]:
    results = list(body["results"])
    meaning = body.get("chance_meaning", "guessing")
    yield page.paragraph(f"Chance, {body['chance'] * 100:.0f} %, is {meaning}.", kind="lead")
    yield page.paragraph(_protocol(body), kind="lead")
    yield _contestants(body, results)
    if "questions" in results[0]:
        yield _questions(results)
        return
    names = [_name(result) for result in results]
    yield page.figures(_figures(body, results, name))
    rows = [(page.text(label), *(_class_cell(result, label) for result in results)) for label in body["classes"]]
    yield page.folded("Every class", page.table(("class", *names), rows, numbers=range(1, len(names) + 1)))
    yield from _heads(results)
    yield from _examples(results, source)


def _protocol(body: Mapping[str, Any]) -> str:
    said = body.get("protocol")
    if not said:
        return ""
    dropped = f" Left out: {'; '.join(body['dropped'])}." if body.get("dropped") else ""
    anchor = f" Contexts end {said['anchor']}." if "anchor" in said else ""
    return f"Clips: {said['clips']}. Heads: {said['head']}, chosen on {said['chosen_on']}.{anchor}{dropped}"


def _name(result: Mapping[str, Any]) -> str:
    encoder = str(result["encoder"])
    return ENCODER_NAMES.get(encoder, encoder)


def _counted(result: Mapping[str, Any]) -> str:
    share = Share.of(int(result["correct"]), int(result["total"]))
    return f'{share.rate * 100:.1f} % <span class="muted">{share.interval()}</span>'


def _contestants(body: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """A row an encoder, and the published numbers below them."""
    rows = []
    for result in results:
        cells = [page.text(_name(result)), _counted(result), _lead(result)]
        cells.append(_counted(result["top5"]) if "top5" in result else "–")
        mean = result.get("class_mean_accuracy")
        cells.append("–" if mean is None else f"{mean * 100:.1f} %")
        cells += [_counted(result[name]) if name in result else "–" for name in ("linear", "neighbours")]
        rows.append(tuple(cells))
    for name, score in (body.get("published") or {}).items():
        told = f"{score:.1f} %" if isinstance(score, float) else " / ".join(map(str, score))
        rows.append((f'<span class="muted">published, ViT {page.text(name)}</span>', told, "", "", "", "", ""))
    first = f"{_name(results[0])} is ahead by" if len(results) > 1 else ""
    head = ("", "attentive probe (95 % interval)", first, "in the first five", "class mean", "linear probe", "nearest neighbours")
    return page.table(head, rows, numbers=range(1, len(head)))


def _lead(result: Mapping[str, Any]) -> str:
    """By how many points the first contestant is ahead of this one, on the same clips."""
    if "behind" not in result:
        return ""
    low, high = (end * 100 for end in result["behind"]["interval"])
    return f'{result["behind"]["mean"] * 100:.1f} <span class="muted">{low:.1f} to {high:.1f}</span>'


def _questions(results: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (page.text(_name(result)), page.text(name), f"{(told['recall_at_5'] or 0) * 100:.1f} %", _counted(told))
        for result in results
        for name, told in result["questions"].items()
    ]
    return page.table(("", "", "class-mean recall at 5", "accuracy"), rows, numbers=(2, 3))


def _figures(body: Mapping[str, Any], results: Sequence[Mapping[str, Any]], name: str) -> Iterator[str]:
    lines = [
        Line(str(result["encoder"]), *_selection_curve(result), str(result["encoder"]))
        for result in results
        if result.get("evaluations") and str(result["encoder"]) in ENCODERS
    ]
    if lines:
        drawing = curves(lines, name, x_label="step", y_label="accuracy on selection episodes (%)")
        yield page.figure(
            drawing,
            "The chosen head of each encoder while it trained, on episodes that choose heads and are not in the score above.",
        )
    first, classes = results[0], body["classes"]
    if first.get("per_class"):
        yield _bars(first, name)
    if "confusion" in first and len(classes) <= _MOST_IN_MATRIX:
        yield _confusion(first, classes, name)
    if first.get("calibration", {}).get("bins"):
        yield _calibration(results, name)


def _bars(result: Mapping[str, Any], name: str) -> str:
    """The classes that fare best and worst, with intervals."""
    counted = [(label, Share.of(one["correct"], one["total"])) for label, one in result["per_class"].items() if one["total"]]
    counted.sort(key=lambda item: (-item[1].rate, item[0]))
    shown = counted if len(counted) <= _MOST_BARS else [*counted[: _MOST_BARS // 2], *counted[-_MOST_BARS // 2 :]]
    drawing = shares([ShareRow(label, share) for label, share in shown], f"{name}bars")
    part = "" if shown is counted else f" The {_MOST_BARS // 2} best and worst of {len(counted)} classes."
    return page.figure(drawing, f"Share of each class that is named right, {_name(result)}.{part}")


def _confusion(result: Mapping[str, Any], classes: Sequence[str], name: str) -> str:
    totals: dict[int, int] = {}
    for true, _, count in result["confusion"]:
        totals[true] = totals.get(true, 0) + count
    cells = [[0.0] * len(classes) for _ in classes]
    for true, named, count in result["confusion"]:
        cells[true][named] = count / totals[true]
    drawing = matrix(cells, classes, f"{name}matrix", x_label="named", y_label="true")
    wrong = sorted((item for item in result["confusion"] if item[0] != item[1]), key=lambda item: (-item[2], item[0], item[1]))
    most = "; ".join(f"{classes[true]} for {classes[named]} ({count})" for true, named, count in wrong[:3])
    return page.figure(drawing, f"What is taken for what, {_name(result)}; a row sums to one. Most often: {most or 'nothing'}.")


def _calibration(results: Sequence[Mapping[str, Any]], name: str) -> str:
    lines = [
        Line(
            str(result["encoder"]),
            [100 * one["confidence"] for one in result["calibration"]["bins"]],
            [100 * one["right"] / one["total"] for one in result["calibration"]["bins"]],
            str(result["encoder"]) if str(result["encoder"]) in ENCODERS else "random",
        )
        for result in results
        if result.get("calibration", {}).get("bins")
    ]
    lines.append(Line("calibrated", [0, 100], [0, 100], "ink", ":"))
    drawing = curves(lines, f"{name}calibration", x_label="confidence (%)", y_label="named right (%)")
    errors = ", ".join(
        f"{_name(result)} {result['calibration']['expected_error'] * 100:.1f} %" for result in results if "calibration" in result
    )
    return page.figure(drawing, f"How often answers of a confidence are right. Expected calibration error: {errors}.")


def _heads(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Every head that was trained, also those that were not chosen."""
    for result in results:
        rows = [
            (
                f"{head['learning_rate']:g}",
                f"{head['weight_decay']:g}",
                "diverged" if head["diverged"] else f"{head['selection'] * 100:.1f} %",
                f"{head['validation'] * 100:.1f} %",
                "chosen" if index == result["head"] else f"stopped at step {step}" if (step := head.get("stopped_at")) else "",
            )
            for index, head in enumerate(result.get("heads", ()))
        ]
        if rows:
            head_row = ("learning rate", "weight decay", "on selection", "on validation", "")
            yield page.folded(f"All heads, {_name(result)}", page.table(head_row, rows, numbers=range(4)))


def _examples(results: Sequence[Mapping[str, Any]], source: Source) -> Iterator[str]:
    """Where the query of the first encoder's probe looks."""
    drawn = []
    for example in results[0].get("examples", ()):
        path = source.folder / example["picture"]
        if path.is_file():
            sure = f"{example['confidence'] * 100:.0f} % sure"
            said = f"named right, {sure}" if example["right"] else f"named {example['named']}, {sure}"
            drawn.append(
                page.figure(page.image(path, example["true"]), f"{example['true']}: {said}. {example['clip']}", wide=True)
            )
    if drawn:
        lead = (
            "Frames of a clip above, and below them where the query looks: its attention, mean over heads. The surest answers, "
            "right and wrong."
        )
        yield page.folded("Where the probe looks", page.paragraph(lead) + "".join(drawn))


def _class_cell(result: Mapping[str, Any], name: str) -> str:
    counted = (result.get("per_class") or {}).get(name)
    if not counted or not counted["total"]:
        return "–"
    share = Share.of(counted["correct"], counted["total"])
    return f'{share.successes}/{share.total} <span class="muted">{share.rate * 100:.0f} %</span>'


def _selection_curve(result: Mapping[str, Any]) -> tuple[list[int], list[float]]:
    key = f"accuracy_{result.get('head', 0)}"
    rows = [row for row in result["evaluations"] if key in row]
    return [row["step"] for row in rows], [row[key] * 100 for row in rows]
