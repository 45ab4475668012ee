"""What a world model is good for, told from its measurements: one verdict a capability, and every threshold in one place."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vjepa2cli.settings import ValidateConfig

Level = Literal["yes", "partly", "no", "untold"]
Report = Mapping[str, Any]


@dataclass(frozen=True)
class Thresholds:
    """From where on a capability is there. `docs/own-robot.md` says the same, and `benchmarks/worlds.py` what they are set by.

    still_ratio: error after an action of 0 over that of "nothing moves"; error_ratio: error after the recorded action over it;
    both one step ahead. percentile: of the recorded action among others, its mean.
    sign: share of moves whose direction is found. recovery: error of an action found by planning over the size of the move.
    horizon_percentile: the percentile below which a number of steps is not trusted. horizon: steps that make it a yes.
    familiar: share of held-out latents that lie as near to training latents as those lie to each other.
    least_moves: with fewer, a capability is left untold. chance: of a percentile and of a sign.
    """

    still_ratio: float = 1.1
    error_ratio: float = 0.9
    percentile: float = 0.9
    sign: float = 0.8
    recovery: float = 0.67
    horizon_percentile: float = 0.8
    horizon: int = 3
    familiar: float = 0.8
    least_moves: int = 12
    chance: float = 0.5


THRESHOLDS = Thresholds()
_MOST_NAMES = 7


@dataclass(frozen=True)
class Capability:
    """One thing that a world model can or cannot do; `said` holds the numbers behind it."""

    name: str
    level: Level
    said: str


_GRADES: dict[Level, float] = {"yes": 1.0, "partly": 0.5, "no": 0.0}


def judge(body: Report, *, config: ValidateConfig) -> dict[str, Any]:
    """The verdict on what was measured: `capabilities`, the `trusted_horizon` in steps, a `grade` and sentences.

    `partly` is what is there beyond chance, below its threshold. The grade is the mean over the capabilities that can be told: 1
    for yes, a half for partly. `caveats` are what the verdict rests on and is not as it should be.
    """
    first = body["prediction"][0]
    trusted = trusted_horizon(body)
    capabilities = [
        _stands_still(first),
        _predicts(first),
        _uses_actions(body),
        *_numbers(body),
        _horizon(body, trusted, most=config.horizon),
    ]
    grades = [_GRADES[found.level] for found in capabilities if found.level != "untold"]
    return {
        "capabilities": [asdict(found) for found in capabilities],
        "thresholds": asdict(THRESHOLDS),
        "trusted_horizon": trusted,
        "grade": sum(grades) / len(grades),
        "beats_copy": beats_copy(first),
        "uses_actions": uses_actions(first),
        "caveats": list(_caveats(body)),
        "verdict": verdict(capabilities, trusted, rate=body["rate"]),
    }


def _stands_still(first: Report) -> Capability:
    ratio = _over_copy(first, "no_action")
    level: Level = "yes" if ratio <= THRESHOLDS.still_ratio else "no"
    said = f'after an action of 0 it errs {ratio:.2f} times what "nothing moves" does'
    return Capability("stands still without action", level, said)


def _over_copy(first: Report, guess: str) -> float:
    """The error of a guess over that of "nothing moves"."""
    return float(first["error"][guess] / first["error"]["copy"]) if first["error"]["copy"] else float("inf")


def _predicts(first: Report) -> Capability:
    ratio = _over_copy(first, "model")
    level: Level = "no"
    if beats_copy(first):
        level = "yes" if ratio <= THRESHOLDS.error_ratio else "partly"
    said = f'error {first["error"]["model"]:.4f} one step ahead, {ratio:.2f} of what "nothing moves" errs'
    return Capability("predicts the next frame", level, said)


def _uses_actions(body: Report) -> Capability:
    first = body["prediction"][0]
    wins = first["true_beats_shuffled"]
    said = f"true actions beat shuffled ones in {wins['successes']} of {wins['n']} windows"
    if body["ranking"]:
        ranked = body["ranking"][0]["percentile"]
        said = f"the recorded action is better than {ranked['mean']:.0%} of others; {said}"
        strong = ranked["mean"] >= THRESHOLDS.percentile and ranked["interval"][0] > THRESHOLDS.chance
    else:
        strong = False
    level: Level = "no" if not uses_actions(first) else "yes" if strong else "partly"
    return Capability("uses its actions", level, said)


def _numbers(body: Report) -> Iterator[Capability]:
    """What is known of each number: where the planner moves it, by planning, else, or if that fails, by a sweep over it alone."""
    planned = (body["inversion"] or {"numbers": {}})["numbers"]
    for number in body["numbers"]:
        if number["name"] in planned:
            yield _steers(number, planned[number["name"]])
        else:
            yield _sees(number)


def _steers(number: Report, found: Report) -> Capability:
    name = f"steers in {number['name']}"
    sign, error = found["sign"], found["error"]["mean"]
    if sign["n"] < THRESHOLDS.least_moves:
        return _untold(name, number, sign["n"])
    ratio = error / found["magnitude"] if found["magnitude"] else float("inf")
    said = (
        f"planning finds the direction of {_of(sign)} moves, off by {shown(error, number['unit'])} "
        f"where they are {shown(found['magnitude'], number['unit'])} long"
    )
    level: Level = "no"
    if sign["interval"][0] > THRESHOLDS.chance and found["below_nothing"]["interval"][0] > 0:
        level = "yes" if sign["rate"] >= THRESHOLDS.sign and ratio <= THRESHOLDS.recovery else "partly"
    elif _seen(number["sweep"]) == "yes":
        level, said = "partly", f"{said}; with all else as recorded, of {_of(number['sweep']['sign'])}"
    return Capability(name, level, said)


def _sees(number: Report) -> Capability:
    swept, name = number["sweep"], f"sees {number['name']}"
    if swept is None or swept["moves"] < THRESHOLDS.least_moves:
        return _untold(name, number, 0 if swept is None else swept["moves"])
    said = f"with all else as recorded, the direction of {_of(swept['sign'])} moves has the least energy"
    return Capability(name, _seen(swept), said)


def _seen(swept: Report | None) -> Level:
    """Whether a sweep finds directions, and leaving the number out costs energy, beyond chance."""
    if swept is None or swept["sign"]["interval"][0] <= THRESHOLDS.chance or swept["left_out"]["interval"][0] <= 0:
        return "no"
    return "yes" if swept["sign"]["rate"] >= THRESHOLDS.sign else "partly"


def _untold(name: str, number: Report, moves: int) -> Capability:
    said = f"it moves {moves} times, and {THRESHOLDS.least_moves} are needed" if number["far"] else "it hardly moves"
    return Capability(name, "untold", said)


def _horizon(body: Report, trusted: int, *, most: int) -> Capability:
    level: Level = "yes" if trusted >= min(most, THRESHOLDS.horizon) else "partly" if trusted else "no"
    seconds = f"{trusted / body['rate']:.2g} s"
    said = f"{trusted} steps, {seconds}, of {most} that were tried" if trusted else f"not even one step of {most} that were tried"
    return Capability("holds over its horizon", level, said)


def trusted_horizon(body: Report) -> int:
    """The number of steps up to which every prediction beats all of its rivals and tells recorded actions from others."""
    trusted = 0
    ranked = body["ranking"] or [None] * len(body["prediction"])
    for step, ranking in zip(body["prediction"], ranked, strict=True):
        beats = all(step[name]["interval"][0] > 0 for name in ("below_copy", "below_shuffled"))
        tells = ranking is None or ranking["percentile"]["mean"] >= THRESHOLDS.horizon_percentile
        if not (beats and tells):
            break
        trusted = step["steps"]
    return trusted


def beats_copy(step: Report) -> bool:
    """Whether the error is below that of copying, beyond chance."""
    return bool(step["below_copy"]["interval"][0] > 0)


def uses_actions(step: Report) -> bool:
    """Whether the true actions predict better than shuffled ones, beyond chance, on average and in most windows."""
    return bool(step["below_shuffled"]["interval"][0] > 0 and step["true_beats_shuffled"]["interval"][0] > THRESHOLDS.chance)


def _caveats(body: Report) -> Iterator[str]:
    """What stands between these numbers and the robot."""
    if body["model"]["trained_steps"] == 0:
        yield "nobody trained this model"
    if body["seen_in_training"]:
        yield f"the model was trained on {body['seen_in_training']} of the {body['num_episodes']} episodes that it is judged on"
    if body["num_episodes"] == 1:
        yield "all windows are of one episode, so the intervals say nothing about other ones"
    found = body["familiarity"]
    if found is None:
        yield "how far the recordings lie from those of the training is not known; it takes two of these (--train-latents)"
    elif found["within"] < THRESHOLDS.familiar:
        yield (
            f"only {found['within']:.0%} of the frames lie as near to training frames as those of other training episodes do, "
            "for which it is 95%: the verdict is on what the model has not been trained for"
        )


def verdict(capabilities: Sequence[Capability], trusted: int, *, rate: float) -> str:
    """One sentence: what is there, what is not, and how far to look ahead."""
    by_level: dict[Level, list[str]] = {}
    for found in capabilities[:-1]:
        by_level.setdefault(found.level, []).append(found.name)
    parts = []
    if "yes" in by_level:
        parts.append(f"The model {_listed(by_level['yes'])}")
    if "partly" in by_level:
        parts.append(f"{'partly' if parts else 'The model partly'} {_listed(by_level['partly'])}")
    missing = by_level.get("no", [])
    if missing:
        parts.append(f"{'does not show' if parts else 'The model does not show'} that it {_listed(missing)}")
    horizon = (
        f"trust it for {trusted} step{'s' if trusted > 1 else ''}, {trusted / rate:.2g} s" if trusted else "trust no step of it"
    )
    return f"{'; '.join(parts)}; {horizon}."


def shown(value: float, unit: str) -> str:
    """A length, angle or share as people say it: metres in centimetres."""
    if unit == "m":
        return f"{100 * value:.1f} cm"
    return f"{value:.2g}" if unit == "share" else f"{value:.2g} {unit}"


def _of(sign: Report) -> str:
    return f"{sign['successes']} of {sign['n']}"


def _listed(names: Sequence[str]) -> str:
    """Names of capabilities, those that begin with the same words together."""
    grouped: dict[str, list[str]] = {}
    for name in names:
        verb, _, last = name.rpartition(" ")
        grouped.setdefault(verb if verb in ("steers in", "sees") else name, []).append(last)
    return ", ".join(f"{verb} {_and(last)}" if verb in ("steers in", "sees") else verb for verb, last in grouped.items())


def _and(names: Sequence[str]) -> str:
    if len(names) > _MOST_NAMES:
        return f"{', '.join(names[:_MOST_NAMES])} and {len(names) - _MOST_NAMES} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
