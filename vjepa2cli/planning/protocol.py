"""What a success rate depends on besides the model, and which earlier report is to be played again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.errors import PlanningError, StaleArtifactError
from vjepa2cli.files import digest_json
from vjepa2cli.planning.model_card import ModelCard
from vjepa2cli.settings import EvaluateConfig, ShiftName
from vjepa2cli.settings.evaluation import BUILT_IN
from vjepa2cli.simulation.environment import Suite
from vjepa2cli.simulation.shifts import shifted
from vjepa2cli.simulation.suites import load_suite, tabletop_suite

_NO_PART = ("step", "num_videos", "tasks", "shifts", "cloning", "reach", "grasp", "reach_with_object", "pick_and_place", "push")


def open_suite(card: ModelCard, config: EvaluateConfig, shift: ShiftName) -> Suite:
    """The environment that a model is evaluated in, set to what the model was trained on, and under a shift.

    Raises PlanningError for a model that nobody trained, that moves another robot, or that does not say how it sees.
    """
    card.require_trained_predictor()
    if config.environment != BUILT_IN:
        suite = load_suite(config.environment)
        _check_robot(card, suite.robot)
        if card.rate and abs(suite.environment.rate - card.rate) > 1e-3 * card.rate:
            raise PlanningError(
                f"{config.environment}: takes {suite.environment.rate:g} actions a second, but {card.source} was trained at "
                f"{card.rate:g}; make them equal"
            )
        return suite
    _check_robot(card, "vjepa2cli-tabletop")
    missing = next((name for name, value in (("crop", card.preprocessing.get("crop")), ("rate", card.rate)) if not value), None)
    if missing is not None or card.rate is None:
        raise PlanningError(
            f"{card.source}: its config.json names no {missing}, so the tabletop cannot show it what it was trained on; "
            "post-train again with this version"
        )
    return tabletop_suite(image_size=card.preprocessing["crop"], rate=card.rate, scene=shifted(config.scene, shift), tasks=config)


def _check_robot(card: ModelCard, robot: str) -> None:
    if card.robot != robot:
        raise PlanningError(
            f"{card.source}: its robot is {card.robot or 'unknown'!r}, and this environment's is {robot!r}; give a model that "
            "was post-trained on recordings of this robot, or judge this one on recordings with 'vjepa2 validate'"
        )


def protocol_of(card: ModelCard, config: EvaluateConfig, suite: Suite) -> dict[str, Any]:
    """What all tasks have in common; what the model fixes, the environment is set to."""
    settings = config.model_dump(mode="json", exclude=set(_NO_PART))
    seen = {"image_size": card.preprocessing.get("crop"), "geometry": card.preprocessing.get("geometry"), "rate": card.rate}
    return settings | seen | {"version": suite.version}


def task_protocol(common: dict[str, Any], config: EvaluateConfig, task: str, shift: ShiftName) -> dict[str, Any]:
    """What the success rate of one task depends on; rates are comparable where `fingerprint` is the same."""
    settings = getattr(config, task).model_dump(mode="json") if config.environment == BUILT_IN else {}
    whole = common | {"task": task, "shift": shift, "settings": settings}
    whole["scene"] = shifted(config.scene, shift).model_dump(mode="json") if config.environment == BUILT_IN else None
    return {"task": task, "shift": shift, "settings": settings, "fingerprint": digest_json(whole)}


def fingerprint(protocols: list[dict[str, Any]], inputs: dict[str, str]) -> str:
    """One digest of all protocols and of the weights: the same one gives the same episodes."""
    return digest_json({"protocols": [each["fingerprint"] for each in protocols], "inputs": inputs})


@dataclass(frozen=True)
class Replay:
    """A report whose episodes are to be played again."""

    path: Path
    body: dict[str, Any]
    config: EvaluateConfig

    @classmethod
    def read(cls, path: Path) -> "Replay":
        """Raises ArtifactError for what is no report of an evaluation."""
        body = read_report(path, "evaluation")
        return cls(path, body, EvaluateConfig.model_validate(body["provenance"]["config"]))

    def check(self, inputs: dict[str, str], version: str) -> None:
        """Raise StaleArtifactError where the weights, the recordings or the environment are not those of the report."""
        before = self.body["provenance"]["inputs"]
        for name in sorted({*before, *inputs}):
            if before.get(name) != inputs.get(name):
                raise StaleArtifactError(
                    f"{self.path}: was made with the {name} {str(before.get(name))[:12]}, and this one's is "
                    f"{str(inputs.get(name))[:12]}; give what the report was made with"
                )
        if self.body["protocol"]["version"] != version:
            raise StaleArtifactError(
                f"{self.path}: was made in {self.body['protocol']['version']}, and this is {version}; install that version"
            )

    def compare(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """Whether all episodes are the same, number by number, and which is the first that is not."""
        return {"of": self.body["digest"], "first_difference": _first_difference(self.body["results"], results)}


def _first_difference(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> str | None:
    for old, new in zip(before, now, strict=True):
        for one, other in zip(old["episodes"], new["episodes"], strict=False):
            differing = [key for key in one if key != "pictures" and one[key] != other.get(key)]
            if differing:
                return f"{old['task']}, {old['shift']}, episode {one['episode']}: {', '.join(differing)}"
        if len(old["episodes"]) != len(new["episodes"]):
            return f"{old['task']}, {old['shift']}: {len(new['episodes'])} episodes instead of {len(old['episodes'])}"
    return None
