"""The chapter on the closed loop: for each task distances, energies and what the arm did, and how it fared under shifts."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vjepa2cli.reporting import page
from vjepa2cli.reporting.evaluations import Evaluation, Pictures, Policy, by_task, read_evaluations
from vjepa2cli.reporting.figures import DotRow, Line, ShareRow, curves, dots, shares
from vjepa2cli.reporting.sources import Source
from vjepa2cli.reporting.verdict import ENCODER_NAMES, POLICY_NAMES

_MEDIA_BYTES = 6 << 20


def closed_loop(sources: Sequence[Source]) -> str:
    """A part for each task: how near the arm came over the actions and at the end, what the model expected, film strips."""
    evaluations = read_evaluations(sources)
    if not evaluations:
        return ""
    tasks, parts, budget = by_task(evaluations), [], _Budget(_MEDIA_BYTES)
    for task, every in tasks.items():
        plain = [evaluation for evaluation in every if evaluation.shift == "none"] or every[:1]
        parts.append(f"<h3>{page.text(plain[0].title)}</h3>")
        drawings = [*_distances(plain, task), *_energies(plain, task)]
        parts += [page.figures(drawings), _table(plain), *_shifts(every, task), *_media(plain, budget)]
    return page.section("closed-loop", "Closed loop", *parts)


class _Budget:
    """Bytes of pictures and films that the page may still take."""

    def __init__(self, left: int) -> None:
        self._left = left

    def takes(self, file: Path) -> bool:
        """Whether a file is there and fits; if so, it is counted."""
        size = file.stat().st_size if file.is_file() else self._left + 1
        fits = size <= self._left
        self._left -= size if fits else 0
        return fits


def absent_media(evaluations: Sequence[Evaluation]) -> list[Path]:
    """Film strips and videos that a report names and that are not there."""
    files = [file for evaluation in evaluations for shown in evaluation.pictures for file in (shown.strip, shown.video)]
    return [file for file in files if not file.is_file()]


def _rows(evaluations: Sequence[Evaluation]) -> Iterator[tuple[str, str, Policy]]:
    """Name, colour and numbers of every policy: each planner with its clone, then the policies beside the first one."""
    for evaluation in evaluations:
        twins = [other for other in evaluations if other.encoder == evaluation.encoder]
        number = f" {twins.index(evaluation) + 1}" if len(twins) > 1 else ""
        name = ENCODER_NAMES[evaluation.encoder] + number
        yield name, evaluation.encoder, evaluation.own
        if "cloning" in evaluation.policies:
            yield f"cloning, {name}", "muted", evaluation.policies["cloning"]
    for name, label in POLICY_NAMES.items():
        if name in evaluations[0].policies:
            yield label, name, evaluations[0].policies[name]


def _short(label: str) -> str:
    return label.replace("raw ", "").replace(" encoder", "").replace(" policy", "")


def _distances(evaluations: Sequence[Evaluation], task: str) -> Iterator[str]:
    first, rows = evaluations[0], list(_rows(evaluations))
    tolerance, unit = first.tolerance, first.unit
    lines = [
        Line(_short(label), range(len(policy.curve)), policy.curve, colour) for label, colour, policy in rows if policy.curve
    ]
    if lines:
        drawing = curves(
            lines,
            f"distance-{task}",
            x_label="actions",
            y_label=f"distance to the goal ({unit})",
            marks=[] if tolerance is None else [(f"{tolerance:.3g} {unit}", tolerance)],
            floor=0,
        )
        below = "" if tolerance is None else " Below the dotted line is success."
        yield page.figure(drawing, f"Mean over all episodes after each action.{below}")
    spread = [DotRow(label, policy.finals, colour) for label, colour, policy in rows if policy.finals]
    if spread:
        mark = None if tolerance is None else (f"within {tolerance:.3g} {unit}", tolerance)
        drawing = dots(spread, f"final-{task}", x_label=f"distance to the goal after the last action ({unit})", mark=mark)
        yield page.figure(drawing, "Every episode is a dot; the upright line is the median.")


def _shifts(evaluations: Sequence[Evaluation], task: str) -> Iterator[str]:
    """Success of the first planner under every shift, beside the random policy there."""
    first = [evaluation for evaluation in evaluations if evaluation.source is evaluations[0].source]
    if len(first) < 2:
        return
    rows = [ShareRow(each.scene, each.own.share, each.encoder) for each in first]
    drawing = shares(rows, f"shifts-{task}")
    words = f"Planning with the {ENCODER_NAMES[first[0].encoder]}, on the same episodes in scenes unlike those of the recordings."
    table = [
        (page.text(each.scene), *(_success(each, name) for name in ("planner", "cloning", "random", "expert"))) for each in first
    ]
    head = ("scene", "planner", "cloning", "random", "expert")
    yield page.figures([page.figure(drawing, words)])
    yield page.table(head, table, numbers=range(1, len(head)))


def _success(evaluation: Evaluation, name: str) -> str:
    if name not in evaluation.policies:
        return "–"
    share = evaluation.policies[name].share
    return f'{share.successes}/{share.total} <span class="muted">{share.interval()}</span>'


def _energies(evaluations: Sequence[Evaluation], task: str) -> Iterator[str]:
    lines = [
        Line(_short(ENCODER_NAMES[evaluation.encoder]), range(len(evaluation.energies)), shares, evaluation.encoder)
        for evaluation in evaluations
        if (shares := _shares_of_first(evaluation.energies))
    ]
    if lines:
        drawing = curves(lines, f"energy-{task}", x_label="actions", y_label="energy (% of the first)", floor=0)
        caption = "Energy is the distance in feature space from what the camera sees to the goal image: what the planner lowers."
        yield page.figure(drawing, f"{caption} Mean over all episodes.")
    first = evaluations[0]
    mine = _short(ENCODER_NAMES[first.encoder])
    if first.energies and first.expected_energies:
        lines = [
            Line("came", range(1, len(first.energies)), first.energies[1:], first.encoder),
            Line("expected", range(1, len(first.expected_energies) + 1), first.expected_energies, "ink", "--"),
        ]
        drawing = curves(lines, f"expected-{task}", x_label="actions", y_label=f"energy after an action, {mine}", floor=0)
        yield page.figure(drawing, "What the world model expected of each action that was taken, and what came.")
    if first.rollout.get("error") and first.rollout.get("copy_error"):
        pairs = (("prediction", "error", first.encoder), ("no motion", "copy_error", "random"))
        lines = [Line(label, range(1, len(first.rollout[key]) + 1), first.rollout[key], colour) for label, key, colour in pairs]
        drawing = curves(lines, f"rollout-{task}", x_label="actions ahead", y_label=f"error of the rollout, {mine}", floor=0)
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
                *(_number(value) for value in (policy.curve[0] if policy.curve else None, middle)),
                *(_number(value) for value in (policy.curve[-1] if policy.curve else None, ends[-1] if ends else None)),
            )
        )
    head = ("", "done", "share", "95 % interval", f"start ({evaluations[0].unit})", "median end", "mean end", "worst end")
    return page.table(head, rows, numbers=range(1, len(head)))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _media(evaluations: Sequence[Evaluation], budget: _Budget) -> Iterator[str]:
    """Film strips, then the videos behind a fold, as long as the page stays small."""
    for evaluation in evaluations:
        strips = [_strip(evaluation, shown) for shown in evaluation.pictures if budget.takes(shown.strip)]
        videos = [_video(evaluation, shown) for shown in evaluation.pictures if budget.takes(shown.video)]
        if strips or videos:
            shown_at_once = evaluation is evaluations[0]
            yield f"<h4>{page.text(f'Episodes planned with {ENCODER_NAMES[evaluation.encoder]}')}</h4>"
            yield "".join(strips) if shown_at_once else page.folded(_counted(strips, "film strip"), "".join(strips))
            words = f"{_counted(videos, 'video')}: the camera, the goal in its corner, and the energy"
            yield page.folded(words, page.figures(videos)) if videos else ""


def _counted(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'s' if len(things) != 1 else ''}"


def _ending(evaluation: Evaluation, shown: Pictures) -> str:
    done = "done" if shown.reached else "missed"
    return f"Episode {shown.episode}: {done}, {shown.final:.1f} {evaluation.unit} from the goal at the end"


def _strip(evaluation: Evaluation, shown: Pictures) -> str:
    after = (
        f" The camera after {', '.join(str(frame) for frame in shown.frames)} actions; last, the goal." if shown.frames else ""
    )
    return page.figure(page.image(shown.strip, _ending(evaluation, shown)), f"{_ending(evaluation, shown)}.{after}", wide=True)


def _video(evaluation: Evaluation, shown: Pictures) -> str:
    return page.figure(page.video(shown.video), f"{_ending(evaluation, shown)}.")
