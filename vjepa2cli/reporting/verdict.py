"""What the numbers allow to be said: each claim beside its baselines, and in plain words where it falls short of one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vjepa2cli.reporting.evaluations import Evaluation, by_task, read_evaluations
from vjepa2cli.reporting.sources import Source, of_kind
from vjepa2cli.reporting.statistics import Difference, Share, difference, signed

ENCODER_NAMES = {"trained": "trained encoder", "untrained": "untrained encoder", "pixels": "raw pixels"}
POLICY_NAMES = {"random": "random policy", "expert": "expert"}
_BESIDE = {
    "trained": "the same training on the trained encoder",
    "untrained": "the same training on an untrained encoder",
    "pixels": "on raw pixels",
    "random": "a random policy",
    "muted": "a clone of the recordings",
    "expert": "an expert",
}
COLLAPSED = 0.25
"""A feature rank below this share of the untrained encoder's is called a collapse."""

IDLE_ACTIONS = 0.02
"""Shuffled actions must raise the error by this share, or the world model is said to ignore them."""


@dataclass(frozen=True)
class Row:
    """One bar of a comparison; `against` is how far the claim's own share is above it, None for itself and for ceilings."""

    label: str
    share: Share
    colour: str
    against: Difference | None = None
    remark: str = ""


@dataclass(frozen=True)
class Claim:
    """One thing that was measured: what is said, on what ground, and every baseline that it does not beat."""

    topic: str
    said: str
    detail: str
    rows: tuple[Row, ...] = ()
    shortfalls: tuple[str, ...] = ()
    mark: tuple[str, float] | None = None
    failed: bool = False

    @property
    def status(self) -> str:
        """`bad` where it failed on its own terms, `weak` where it falls short of a baseline, else `good`."""
        return "bad" if self.failed else "weak" if self.shortfalls else "good"


def claims(sources: Sequence[Source]) -> list[Claim]:
    """What the evaluations, probes, world models and pretrainings among the sources allow to be said, in this order."""
    found = [*_planning(sources), *(_probing(source) for source in of_kind(sources, "probe") if source.ended)]
    found += [_world_model(source) for source in of_kind(sources, "posttrain") if source.ended and source.encoder == "trained"]
    return found + [_pretraining(source) for source in of_kind(sources, "pretrain") if source.ended]


# --- the closed loop -------------------------------------------------------------------------------------------------


def _planning(sources: Sequence[Source]) -> Iterator[Claim]:
    """A claim for each task as the model was trained for it; shifts are told beside it."""
    for every in by_task(read_evaluations(sources)).values():
        plain = [evaluation for evaluation in every if evaluation.shift == "none"] or every[:1]
        trained = [evaluation for evaluation in plain if evaluation.encoder == "trained"]
        for evaluation in trained or plain[:1]:
            others = [other for other in plain if other.encoder != evaluation.encoder]
            shifted = [other for other in every if other.source is evaluation.source and other.shift != evaluation.shift]
            topic = evaluation.title if len(trained) < 2 else f"{evaluation.title}, {evaluation.source.name}"
            yield _task(evaluation, others, shifted, topic)


def _task(evaluation: Evaluation, others: Sequence[Evaluation], shifted: Sequence[Evaluation], topic: str) -> Claim:
    own, mine = evaluation.own.share, ENCODER_NAMES[evaluation.encoder]
    rows, shortfalls = [Row(mine, own, evaluation.encoder)], []
    rivals = [(ENCODER_NAMES[other.encoder], other.encoder, other.own.share) for other in others if evaluation.comparable(other)]
    if "cloning" in evaluation.policies:
        rivals.append(("clone of the recordings", "muted", evaluation.policies["cloning"].share))
    if "random" in evaluation.policies:
        rivals.append((POLICY_NAMES["random"], "random", evaluation.policies["random"].share))
    subject = f"in {evaluation.title[0].lower()}{evaluation.title[1:]}"
    for name, colour, share in rivals:
        rows.append(Row(name, share, colour, difference(own, share)))
        shortfalls += _shortfall(subject, mine, own, name, share)
    if "expert" in evaluation.policies:
        rows.append(Row(POLICY_NAMES["expert"], evaluation.policies["expert"].share, "expert", remark="what the task allows"))
    shortfalls += [
        f"{other.source.name} was measured under another protocol, so its {ENCODER_NAMES[other.encoder]} is not compared here."
        for other in others
        if not evaluation.comparable(other)
    ]
    if evaluation.encoder == "trained" and "untrained" not in {colour for _, colour, _ in rivals}:
        shortfalls.append(
            "No untrained encoder was evaluated beside it, so nothing can be said about what training the encoder gave."
        )
    detail = f"{own.rate * 100:.0f} %, 95 % interval {own.interval()}, by planning with {_the(mine)}{_task_words(evaluation)}. "
    beside = [f"{_BESIDE[row.colour]} {row.share.successes} of {row.share.total}" for row in rows[1:]]
    detail += f"Beside it: {'; '.join(beside)}." if beside else ""
    unlike = [f"{each.scene} {each.own.share.successes} of {each.own.share.total}" for each in shifted]
    detail += f" Unlike the recordings: {'; '.join(unlike)}." if unlike else ""
    failed = any(row.colour == "random" and row.against is not None and row.against.low <= 0 for row in rows)
    return Claim(topic, _said(evaluation), detail, tuple(rows), tuple(shortfalls), failed=failed)


def _said(evaluation: Evaluation) -> str:
    own, within = evaluation.own.share, ""
    if evaluation.tolerance is not None:
        within = f" within {evaluation.tolerance:.3g} {evaluation.unit}"
    if evaluation.task == "reach":
        return f"Reached {own.successes} of {own.total} goals{within}"
    return f"{evaluation.title}: {own.successes} of {own.total} done{within}"


def _task_words(evaluation: Evaluation) -> str:
    words, distance, actions = "", evaluation.settings.get("distance"), evaluation.settings.get("actions")
    if distance:
        words += f", from {distance[0] * 100:g}–{distance[1] * 100:g} cm away"
    if isinstance(actions, Sequence):
        return f"{words}, with {'–'.join(map(str, actions))} actions"
    return words + (f", with {actions} actions" if actions else "")


def _shortfall(subject: str, mine: str, own: Share, name: str, other: Share) -> list[str]:
    """What must be said where the share `own` is not clearly above that of the baseline `name`."""
    gap = difference(own, other)
    numbers = f"{own.successes} of {own.total} against {other.successes} of {other.total}, {gap.words()}"
    start = f"{subject[0].upper()}{subject[1:]}, {_the(mine)}"
    no_gain = ", so no gain from training the encoder is shown" if (mine, name) == tuple(ENCODER_NAMES.values())[:2] else ""
    match gap.verdict:
        case "above":
            return []
        case "suggestive":
            return [f"{start} is ahead of {_the(name)}, but not clearly, since the two intervals overlap: {numbers}."]
        case "none":
            return [f"{start} does not beat {_the(name)}: {numbers}{no_gain}."]
    return [f"{start} is worse than {_the(name)}: {numbers}."]


def _the(name: str) -> str:
    return name if name == "raw pixels" else f"the {name}"


def against_words(gap: Difference) -> tuple[str, str]:
    """How the claim's own share stands to a baseline, and the CSS class of that."""
    span = f"{signed(gap.low * 100)} to {signed(gap.high * 100)}"
    match gap.verdict:
        case "above":
            return f"ahead by {round(gap.gap * 100)} points ({span})", "good-t"
        case "suggestive":
            return f"ahead by {round(gap.gap * 100)} points ({span}), yet the intervals overlap", "weak-t"
        case "none":
            return f"no difference shown: {signed(gap.gap * 100)} points ({span})", "bad-t"
    return f"behind by {round(-gap.gap * 100)} points ({span})", "bad-t"


# --- probing ---------------------------------------------------------------------------------------------------------


def _probing(source: Source) -> Claim:
    results = {str(result["encoder"]): result for result in source.body["results"]}
    shares = {kind: Share.of(int(result["correct"]), int(result["total"])) for kind, result in results.items()}
    first = next(iter(shares))
    own, chance = shares[first], float(source.body["chance"])
    rows, shortfalls = [], []
    for kind, share in shares.items():
        name = ENCODER_NAMES.get(kind, kind)
        rows.append(
            Row(name, share, kind if kind in ENCODER_NAMES else "random", None if kind == first else difference(own, share))
        )
        shortfalls += [] if kind == first else _shortfall("in the probe", ENCODER_NAMES.get(first, first), own, name, share)
    if own.low <= chance:
        shortfalls.insert(
            0, f"The probe is not above chance: {own.rate * 100:.0f} % ({own.interval()}), and chance is {chance * 100:.0f} %."
        )
    classes = len(source.body["classes"])
    said = f"Named the class of {own.successes} of {own.total} held-out windows right"
    detail = (
        f"{own.rate * 100:.0f} %, 95 % interval {own.interval()}, by an attentive probe on frozen features of "
        f"{_the(ENCODER_NAMES.get(first, first))}; {classes} classes, chance {chance * 100:.0f} %."
    )
    return Claim(
        "Probe", said, detail, tuple(rows), tuple(shortfalls), (f"chance {chance * 100:.0f} %", chance), own.low <= chance
    )


# --- training --------------------------------------------------------------------------------------------------------


def _pretraining(source: Source) -> Claim:
    final, evaluations = source.body["final"], source.body["evaluations"]
    kept = final["rank"] / final["rank_initial"] if final["rank_initial"] else 0.0
    shortfalls = []
    fell = bool(evaluations) and final["loss"] < evaluations[0]["loss"]
    if evaluations and not fell:
        shortfalls.append(
            f"The pretraining loss did not fall: {evaluations[0]['loss']:.3f} at first, {final['loss']:.3f} at the end."
        )
    if kept < COLLAPSED:
        shortfalls.append(
            f"The encoder's features have collapsed: their rank fell from {final['rank_initial']:.1f} to {final['rank']:.1f}, "
            f"below {COLLAPSED * 100:.0f} % of what it was."
        )
    first = f"from {evaluations[0]['loss']:.3f} " if evaluations else ""
    said = f"Pretraining loss {'fell' if fell else 'went'} {first}to {final['loss']:.3f} in {source.body['steps']} steps"
    state = "collapsed" if kept < COLLAPSED else "not collapsed"
    detail = (
        f"The rank of the features is {final['rank']:.1f}, {kept * 100:.0f} % of the {final['rank_initial']:.1f} before "
        f"training: {state}. Their spread is {final['std']:.2f}. The targets move with the encoder, so a falling loss alone "
        "proves little."
    )
    return Claim("Pretraining", said, detail, shortfalls=tuple(shortfalls), failed=bool(shortfalls))


def _world_model(source: Source) -> Claim:
    final = source.body["final"]
    gain = 1 - final["teacher_forced"] / final["copy"] if final["copy"] else 0.0
    shortfalls = []
    if gain <= 0:
        shortfalls.append(
            f"The world model is no better than copying the present frame (error {final['teacher_forced']:.4f} against "
            f"{final['copy']:.4f})."
        )
    detail = f"Mean error in feature space {final['teacher_forced']:.4f}; copying the present frame gives {final['copy']:.4f}."
    if "shuffled_actions" in final:
        rise = final["shuffled_actions"] / final["teacher_forced"] - 1 if final["teacher_forced"] else 0.0
        detail += f" With the actions of other episodes the error is {signed(rise * 100)} %"
        detail += ", so the actions matter." if rise > IDLE_ACTIONS else ", so the actions hardly matter."
        if rise <= IDLE_ACTIONS:
            shortfalls.append(
                f"The world model hardly uses its actions: shuffling them changes the error by {signed(rise * 100)} %."
            )
    said = f"Predicts the next frame {abs(gain) * 100:.0f} % {'better' if gain > 0 else 'worse'} than copying the present one"
    return Claim("World model", said, detail, shortfalls=tuple(shortfalls), failed=bool(shortfalls))
