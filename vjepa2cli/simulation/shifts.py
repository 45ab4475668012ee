"""Named shifts: in which way a scene is unlike those that a model was trained on."""

from typing import Any

from vjepa2cli.settings import SceneConfig, ShiftName

SHIFTS: dict[ShiftName, dict[str, Any]] = {
    "none": {},
    "distractors": {"movers": 2},
    "light": {"light_shift": 0.6},
    "camera": {"camera_shift": 0.08},
    "objects": {"unseen_objects": True},
    "goal_light": {"goal_light_shift": 0.6},
}
"""What each changes: two more things that wander about, another lamp, a camera 8 cm off, shapes and colours that were never
seen, another lamp in the goal image alone."""


def shifted(scene: SceneConfig, name: ShiftName) -> SceneConfig:
    """The scene under a shift; `movers` are added to those that are there, at most four in all."""
    changes = dict(SHIFTS[name])
    if "movers" in changes:
        changes["movers"] = min(4, scene.movers + changes["movers"])
    return SceneConfig.model_validate(scene.model_dump() | changes)
