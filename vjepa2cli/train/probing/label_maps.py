"""Whether the numbers that a probe answers with mean the classes of the data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vjepa2cli.artifacts.model_dir import find_model
from vjepa2cli.errors import ArtifactError, WeightsError
from vjepa2cli.files import read_json
from vjepa2cli.models.probe import AttentiveProbe
from vjepa2cli.models.probe_sweep import Probe
from vjepa2cli.train.probing.samples import ProbeData, Question


def stated_questions(weights: str) -> tuple[Question, ...] | None:
    """The classes that a probe folder of ours records; None where the file says nothing of them, as released ones."""
    if not Path(weights).is_dir():
        return None
    try:
        about: Mapping[str, Any] = read_json(find_model(Path(weights)) / "config.json").get("vjepa2cli", {})
    except ArtifactError:
        return None
    if "questions" not in about:
        return None
    return tuple(Question(name, tuple(classes)) for name, classes in about["questions"])


def require_same_labels(weights: str, probe: Probe, data: ProbeData) -> None:
    """Raise WeightsError where the probe's classes are not those of the data, in number, name or order."""
    heads = [probe.linear] if isinstance(probe, AttentiveProbe) else _action_classifiers(probe)
    if len(heads) != len(data.questions):
        raise WeightsError(
            f"{weights}: answers {len(heads)} questions, and the data ask {len(data.questions)}; give another probe"
        )
    for head, question in zip(heads, data.questions, strict=True):
        if head.out_features != len(question.classes):
            raise WeightsError(
                f"{weights}: knows {head.out_features} classes of {question.name}, and the data have {len(question.classes)}; "
                "give the published list of classes with --classes, or the probe of this set"
            )
    stated = stated_questions(weights)
    if stated is None:
        return
    for theirs, ours in zip(stated, data.questions, strict=True):
        for number, (there, here) in enumerate(zip(theirs.classes, ours.classes, strict=True)):
            if there != here:
                raise WeightsError(
                    f"{weights}: was trained under another label map: its {ours.name} {number} is {there!r}, here {here!r}; "
                    "probe the data that it was trained for, or train a probe on these"
                )


def _action_classifiers(probe: Any) -> list[Any]:
    return [probe.verb_classifier, probe.noun_classifier, probe.action_classifier]
