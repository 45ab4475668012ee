"""The chapter on closed-loop reaching: distances, energies, and what the arm did."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vjepa2cli.reporting import page
from vjepa2cli.reporting.evaluations import Evaluation, Pictures, Policy, read_evaluations
from vjepa2cli.reporting.figures import DotRow, Line, curves, dots
from vjepa2cli.reporting.sources import Source
from vjepa2cli.reporting.verdict import ENCODER_NAMES, POLICY_NAMES

_MEDIA_BYTES = 6 << 20


def reaching(sources: Sequence[Source]) -> str:
    """How near the arm came over the actions and at the end, what the model expected, and film strips of it."""
    evaluations = read_evaluations(sources)
    if not evaluations:
        return ""
    drawings = [*_distances(evaluations), *_energies(evaluations)]
    return page.section("reaching", "Reaching goals", page.figures(drawings), _table(evaluations), *_media(evaluations))


def absent_media(evaluations: Sequence[Evaluation]) -> list[Path]:
    """Film strips and videos that a report names and that are not there."""
    files = [file for evaluation in evaluations for shown in evaluation.pictures for file in (shown.strip, shown.video)]
    return [file for file in files if not file.is_file()]


def _rows(evaluations: Sequence[Evaluation]) -> Iterator[tuple[str, str, Policy]]:
    """Name, colour and numbers of every policy: each planner, then the policies beside the first one."""
    for evaluation in evaluations:
        twins = [other for other in evaluations if other.encoder == evaluation.encoder]
        number = f" {twins.index(evaluation) + 1}" if len(twins) > 1 else ""
        yield ENCODER_NAMES[evaluation.encoder] + number, evaluation.encoder, evaluation.own
    for name, label in POLICY_NAMES.items():
        if name in evaluations[0].policies:
            yield label, name, evaluations[0].policies[name]


def _short(label: str) -> str:
    return label.replace("raw ", "").replace(" encoder", "").replace(" policy", "")


def _distances(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    tolerance, rows = evaluations[0].tolerance, list(_rows(evaluations))
    name = f"{tolerance:.3g} cm"
    lines = [
        Line(_short(label), range(len(policy.curve)), policy.curve, colour) for label, colour, policy in rows if policy.curve
    ]
    if lines:
        drawing = curves(
            lines, "distance", x_label="actions", y_label="distance to the goal (cm)", marks=[(name, tolerance)], floor=0
        )
        yield page.figure(drawing, "Mean over all episodes after each action. Below the dotted line is success.")
    spread = [DotRow(label, policy.finals, colour) for label, colour, policy in rows if policy.finals]
    if spread:
        drawing = dots(
            spread, "final", x_label="distance to the goal after the last action (cm)", mark=(f"within {name}", tolerance)
        )
        yield page.figure(drawing, "Every episode is a dot; the upright line is the median.")


def _energies(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    lines = [
        Line(_short(ENCODER_NAMES[evaluation.encoder]), range(len(evaluation.energies)), shares, evaluation.encoder)
        for evaluation in evaluations
        if (shares := _shares_of_first(evaluation.energies))
    ]
    if lines:
        drawing = curves(lines, "energy", x_label="actions", y_label="energy (% of the first)", floor=0)
        caption = "Energy is the distance in feature space from what the camera sees to the goal image: what the planner lowers."
        yield page.figure(drawing, f"{caption} Mean over all episodes.")
    first = evaluations[0]
    mine = _short(ENCODER_NAMES[first.encoder])
    if first.energies and first.expected_energies:
        lines = [
            Line("came", range(1, len(first.energies)), first.energies[1:], first.encoder),
            Line("expected", range(1, len(first.expected_energies) + 1), first.expected_energies, "ink", "--"),
        ]
        drawing = curves(lines, "expected", x_label="actions", y_label=f"energy after an action, {mine}", floor=0)
        yield page.figure(drawing, "What the world model expected of each action that was taken, and what came.")
    if first.rollout.get("error") and first.rollout.get("copy_error"):
        pairs = (("prediction", "error", first.encoder), ("no motion", "copy_error", "random"))
        lines = [Line(label, range(1, len(first.rollout[key]) + 1), first.rollout[key], colour) for label, key, colour in pairs]
        drawing = curves(lines, "rollout", x_label="actions ahead", y_label=f"error of the rollout, {mine}", floor=0)
        caption = "All actions of an episode rolled out from its first frame alone, against what the camera then saw."
        yield page.figure(drawing, f"{caption} Expecting no motion is the baseline.")


def _shares_of_first(values: Sequence[float]) -> list[float]:
    return [100 * value / values[0] for value in values] if values and values[0] else []


def _table(evaluations: Sequence[Evaluation]) -> str:
    rows = []
    for label, _, policy in _rows(evaluations):
        ends = sorted(policy.finals)
        middle = (ends[(len(ends) - 1) // 2] + ends[len(ends) // 2]) / 2 if ends else None
        rows.append(
            (
                page.text(label),
                f"{policy.share.successes}/{policy.share.total}",
                f"{policy.share.rate * 100:.0f} %",
                policy.share.interval(),
                *(_centimetres(value) for value in (policy.curve[0] if policy.curve else None, middle)),
                *(_centimetres(value) for value in (policy.curve[-1] if policy.curve else None, ends[-1] if ends else None)),
            )
        )
    head = ("", "reached", "share", "95 % interval", "start (cm)", "median end", "mean end", "worst end")
    return page.table(head, rows, numbers=range(1, len(head)))


def _centimetres(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _media(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Film strips, then the videos behind a fold, as long as the page stays small."""
    budget = _MEDIA_BYTES
    for evaluation in evaluations:
        strips: list[str] = []
        videos: list[str] = []
        for shown in evaluation.pictures:
            for file, taken in ((shown.strip, strips), (shown.video, videos)):
                size = file.stat().st_size if file.is_file() else budget + 1
                if size <= budget:
                    budget -= size
                    taken.append(_strip(shown) if taken is strips else _video(shown))
        if strips or videos:
            shown_at_once = evaluation is evaluations[0]
            yield f"<h3>{page.text(f'Episodes planned with {ENCODER_NAMES[evaluation.encoder]}')}</h3>"
            yield "".join(strips) if shown_at_once else page.folded(_counted(strips, "film strip"), "".join(strips))
            yield (
                page.folded(f"{_counted(videos, 'video')}: the camera, and the goal beside it", page.figures(videos))
                if videos
                else ""
            )


def _counted(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'s' if len(things) != 1 else ''}"


def _ending(shown: Pictures) -> str:
    return f"Episode {shown.episode}: {'reached' if shown.reached else 'missed'}, {shown.final:.1f} cm from the goal at the end"


def _strip(shown: Pictures) -> str:
    after = (
        f" The camera after {', '.join(str(frame) for frame in shown.frames)} actions; last, the goal image."
        if shown.frames
        else ""
    )
    return page.figure(page.image(shown.strip, _ending(shown)), f"{_ending(shown)}.{after}", wide=True)


def _video(shown: Pictures) -> str:
    return page.figure(page.video(shown.video), f"{_ending(shown)}.")
