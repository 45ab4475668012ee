"""The simulated tabletop: what it looks like, and how the arm moves while it is recorded."""

from typing import Annotated, Literal

from pydantic import Field

from vjepa2cli.settings.sections import Count, Fraction, Positive, Section, Seed, StepConfig

NotNegative = Annotated[float, Field(ge=0)]
ShiftName = Literal["none", "distractors", "light", "camera", "objects", "goal_light"]


class SceneConfig(Section):
    """What stands on the table and how it is lit and filmed. Every episode draws its own from its seed; lengths in metres.

    num_objects: what can be grasped. camera_jitter, light_jitter: how far the camera is off its place, and the share by which
    brightness, tint and place of the lamp are. textures: `checker` is the same table always, `varied` draws a table and a wall
    behind the arm for each episode. gripper: the `small` one is grey and thin, about a third of the large one in the picture.
    movers: things beside the workspace that wander about, whatever the arm does.

    What is meant for evaluation: `unseen_objects` have shapes and colours that no other scene has, `camera_shift` moves the
    camera by just so far, `light_shift` changes the lamp by just that share, `goal_light_shift` does so in goal images alone.
    """

    num_objects: Annotated[int, Field(ge=0, le=6)] = 2
    camera_jitter: NotNegative = 0.0
    light_jitter: Fraction = 0.1
    textures: Literal["checker", "varied"] = "checker"
    gripper: Literal["large", "small"] = "large"
    movers: Annotated[int, Field(ge=0, le=4)] = 0
    unseen_objects: bool = False
    camera_shift: NotNegative = 0.0
    light_shift: Fraction = 0.0
    goal_light_shift: Fraction = 0.0


class MotionMix(Section):
    """Shares of the motions that `collect` records; they need not sum to one."""

    waypoints: Fraction = 0.35
    autoregressive: Fraction = 0.3
    uniform: Fraction = 0.2
    grasp: Fraction = 0.15


class CollectConfig(StepConfig):
    """Record the tabletop arm: how many episodes, how it moves, how it looks.

    With `gestures` every episode is one gesture of a class, such as lifting or pretending to drop, instead of one of `motions`;
    it is as long as it takes.
    """

    step: Literal["collect"] = "collect"
    seed: Seed = 0
    episodes: Count = 400
    frames_per_episode: Annotated[int, Field(ge=4)] = 32
    image_size: Annotated[int, Field(ge=32)] = 96
    rate: Positive = 4.0
    max_translation: Positive = 0.075
    scene: SceneConfig = SceneConfig()
    motions: MotionMix = MotionMix()
    gestures: bool = False
