"""The chapters of the page: figures and tables of each kind of report, each made of what is there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vjepa2cli.reporting import page
from vjepa2cli.reporting.figures import Line, ShareRow, curves, shares, smoothed
from vjepa2cli.reporting.sources import Source, of_kind
from vjepa2cli.reporting.verdict import ENCODER_NAMES, Claim, against_words


def verdict(claims: Sequence[Claim]) -> str:
    """The claims in words and bars, those with bars first, and everything that falls short of its baselines."""
    short = [line for claim in claims for line in claim.shortfalls]
    if short:
        note = f'<div class="short"><h3>What falls short</h3>{page.bullets(short)}</div>\n'
    else:
        note = '<div class="short none"><h3>Nothing measured here falls short of its baselines</h3></div>\n' if claims else ""
    large = [_large_card(claim, index) for index, claim in enumerate(claims) if claim.rows]
    small = [_card(claim, _words(claim)) for claim in claims if not claim.rows]
    small_cards = f'<div class="claims">\n{"".join(small)}</div>\n' if small else ""
    return f'<section id="verdict">\n{"".join(large[:1])}{note}{"".join(large[1:])}{small_cards}</section>\n'


def _words(claim: Claim) -> str:
    return page.paragraph(claim.topic, kind="topic") + page.paragraph(claim.said, kind="said") + page.paragraph(claim.detail)


def _card(claim: Claim, content: str, *, size: str = "") -> str:
    return f'<div class="claim {claim.status}{size}">{content}</div>\n'


def _large_card(claim: Claim, index: int) -> str:
    """Words and a table beside bars."""
    rows = []
    for row in claim.rows:
        words, kind = against_words(row.against) if row.against else (row.remark, "muted")
        counts = f"{row.share.successes} of {row.share.total} ({row.share.interval()})"
        rows.append((page.text(row.label), counts, f'<span class="{kind}">{page.text(words)}</span>'))
    head = ("", "share (95 % interval)", f"the {page.text(claim.rows[0].label)} is")
    bars = shares([ShareRow(row.label, row.share, row.colour) for row in claim.rows], f"claim{index}", mark=claim.mark)
    drawing = page.figure(bars, "Bars are shares, whiskers their 95 % Wilson intervals.")
    content = f'<div class="two"><div>{_words(claim)}</div>{drawing}</div>{page.table(head, rows)}'
    return _card(claim, content, size=" hero" if index == 0 else "")


# --- one plan --------------------------------------------------------------------------------------------------------


def plans(sources: Sequence[Source]) -> str:
    """Single plans: how the search lowered the energy, and what the model expects of it."""
    drawings = []
    for index, source in enumerate(of_kind(sources, "plan")):
        if not source.body["energies"]:  # proposals were ranked
            continue
        body, iterations = source.body, range(1, len(source.body["energies"]) + 1)
        lines = [
            Line(label, iterations, [step[key] for step in body["energies"]], colour)
            for key, label, colour in (
                ("samples", "all samples", "random"),
                ("elites", "elites", "untrained"),
                ("best", "best", "trained"),
            )
        ]
        marks = [("doing nothing", body["idle_energy"])]
        drawing = curves(
            lines, f"plan{index}", x_label="iterations", y_label="energy: distance to the goal in features", marks=marks
        )
        caption = (
            f"{source.name}: {len(body['actions'])} actions. The observation lies {body['observed_energy']:.4f} from the goal; "
            f"the model expects {body['final_energy']:.4f} after the plan, {body['idle_energy']:.4f} after doing nothing."
        )
        drawings.append(page.figure(drawing, caption))
    return page.section("plans", "Plans", page.figures(drawings)) if drawings else ""


# --- training --------------------------------------------------------------------------------------------------------


def world_models(sources: Sequence[Source]) -> str:
    """Post-training: the error of teacher forcing and of the rollout beside copying, for each encoder."""
    drawings = []
    runs = of_kind(sources, "posttrain")
    for index, source in enumerate(runs):
        evaluations = source.body["evaluations"]
        lines = [
            Line(label, *_column(evaluations, key), colour, dash)
            for key, label, colour, dash in (
                ("teacher_forced", "one step", source.encoder, "-"),
                ("rollout", "rollout", source.encoder, "--"),
                ("copy", "copying", "random", "-"),
                ("shuffled_actions", "shuffled", "bad", ":"),
            )
            if any(key in row for row in evaluations)
        ]
        if lines:
            drawing = curves(
                lines, f"posttrain{index}", x_label="step", y_label=f"held-out error, {ENCODER_NAMES[source.encoder]}"
            )
            words = "While the predictor trained; below copying it knows more than that nothing moves."
            drawings.append(page.figure(drawing, " ".join(filter(None, [words, _unfinished(source)]))))
    if not drawings:
        return ""
    lead = (
        "Mean absolute error in feature space on held-out windows: of the next frame given the true one (one step), of the "
        "model's own rollout, of copying the present frame, and of one step with the actions of other windows (shuffled). "
        "Feature spaces differ, so only the lines within one figure can be compared."
    )
    return page.section("world-model", "World model", page.paragraph(lead, kind="lead"), page.figures(drawings))


def pretraining(sources: Sequence[Source]) -> str:
    """Pretraining: loss, feature rank, spread and what a linear probe reads off them over the steps."""
    parts = []
    for index, source in enumerate(of_kind(sources, "pretrain")):
        evaluations, drawings = source.body["evaluations"], []
        losses = [(row["step"], row["loss"]) for row in source.metrics if "loss" in row]
        lines = list(_loss_lines(losses))
        if any("loss" in row for row in evaluations):
            lines.append(Line("held out", *_column(evaluations, "loss"), "ink"))
        if lines:
            drawing = curves(lines, f"loss{index}", x_label="step", y_label="loss (L1 on layer-normed targets)")
            drawings.append(
                page.figure(drawing, "Faint: every batch; batches: their mean; held out: fixed clips under fixed masks.")
            )
        for key, label in _HEALTH_LABELS.items():
            if any(key in row for row in evaluations):
                drawing = curves(
                    [Line("held out", *_column(evaluations, key))], f"{key}{index}", x_label="step", y_label=label, floor=0
                )
                drawings.append(page.figure(drawing, _HEALTH[key]))
        told = [line for line in (_unfinished(source), *_rollbacks(source)) if line]
        parts.append("".join(page.paragraph(line, kind="lead") for line in told) + page.figures(drawings))
    return page.section("pretraining", "Pretraining", *parts) if parts else ""


_HEALTH_LABELS = {
    "rank": "rank of the features",
    "std": "spread of the features",
    "probe_accuracy": "accuracy of a linear probe",
}
_HEALTH = {
    "probe_accuracy": "A ridge regression onto the labels of the store, on windows held out: what the features hold of them.",
    "rank": "Effective rank of the target features' content. Near 1 it has collapsed: every clip looks the same.",
    "std": "Standard deviation over clips, mean over dimensions. It may hold while the rank collapses.",
}


def _loss_lines(losses: Sequence[tuple[int, float]]) -> Iterator[Line]:
    if not losses:
        return
    steps, values = zip(*losses, strict=True)
    places, means = smoothed(values)
    if len(values) > len(means):
        yield Line("", steps, values, faint=True)
    yield Line("batches", [steps[round(place)] for place in places], means)


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    found = [row for row in rows if row.get(key) is not None]
    return [row["step"] for row in found], [row[key] for row in found]


def _unfinished(source: Source) -> str:
    if source.ended:
        return ""
    done = max((row["step"] for row in source.metrics), default=0)
    state = "is running" if source.running else "has not ended and is not running"
    return f"{source.name} {state}: step {done} of {source.body['steps']}."


def _rollbacks(source: Source) -> list[str]:
    return [
        f"{source.name} went back from step {found['from']} to {found['to']}: {found['reason']}."
        for found in source.body.get("rollbacks", ())
    ]
