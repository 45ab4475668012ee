"""The simulated tabletop: what it looks like, and how the arm moves while it is recorded."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vjepa2cli.settings.sections import Count, Fraction, Positive, Range, Section, Seed, StepConfig

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


TaskName = Literal["reach", "grasp", "reach_with_object", "pick_and_place", "push"]


class TaskConfig(Section):
    """What all tasks have: `episodes` is how many are played, where that is not the number of the whole evaluation."""

    episodes: Count | None = None


class ReachConfig(TaskConfig):
    """Bring the hand to where it is in the goal image, within `tolerance`; it starts so far from there (`distance`)."""

    distance: Range = (0.10, 0.20)
    tolerance: Positive = 0.04
    actions: Count = 8


class GraspConfig(TaskConfig):
    """Take hold of an object with both fingers, and with a `lift` raise it by half of that at least.

    The hand starts open, its fingers along the object's sides, so far from it (`distance`). The goal image shows it held, and
    raised by the whole `lift`.
    """

    distance: Range = (0.08, 0.16)
    lift: NotNegative = 0.0
    actions: Count = 8


class ReachWithObjectConfig(TaskConfig):
    """Bring an object that is held to where it is in the goal image, within `tolerance`, and do not let it go."""

    distance: Range = (0.10, 0.20)
    tolerance: Positive = 0.04
    actions: Count = 8


class PickAndPlaceConfig(TaskConfig):
    """Pick an object up and put it down where the last goal image has it, within `tolerance`, and let it go.

    Three goal images: held where it stands, held over the place, put down. `actions` says how many are allowed for each. The
    place is so far from the object (`distance`), the hand starts as far from it as for a grasp.
    """

    distance: Range = (0.10, 0.20)
    tolerance: Positive = 0.04
    actions: tuple[Count, Count, Count] = (4, 10, 4)


class PushConfig(TaskConfig):
    """Push an object over the table to where the goal image has it, within `tolerance`; the hand starts closed behind it."""

    distance: Range = (0.06, 0.12)
    tolerance: Positive = 0.03
    actions: Count = 8


class TasksConfig(Section):
    """What each task asks for; lengths in metres."""

    reach: ReachConfig = ReachConfig()
    grasp: GraspConfig = GraspConfig()
    reach_with_object: ReachWithObjectConfig = ReachWithObjectConfig()
    pick_and_place: PickAndPlaceConfig = PickAndPlaceConfig()
    push: PushConfig = PushConfig()


class MotionMix(Section):
    """Shares of the motions that `collect` records; they need not sum to one.

    `grasp` picks an object up, carries it, puts it down and begins again; `push` pushes one about with the gripper closed.
    """

    waypoints: Fraction = 0.35
    autoregressive: Fraction = 0.3
    uniform: Fraction = 0.2
    grasp: Fraction = 0.15
    push: Fraction = 0.0


class CollectConfig(StepConfig):
    """Record the tabletop arm: how many episodes, how it moves, how it looks.

    With `gestures` every episode is one gesture of a class, such as lifting or pretending to drop, instead of one of `motions`;
    it is as long as it takes.

    `expert_noise` is the standard deviation, in metres, of every translation of a scripted motion (grasp, push); an episode
    draws its own between the two ends. `expert_slips` is the share of its actions that are random ones instead. `gripper_noise`
    is the standard deviation of the gripper's changes in the other motions, of which three in ten actions have one.
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
    expert_noise: Range = (0.002, 0.002)
    expert_slips: Fraction = 0.0
    gripper_noise: NotNegative = 0.25

    @model_validator(mode="after")
    def _check_noise(self) -> Self:
        low, high = self.expert_noise
        if not 0 <= low <= high:
            raise ValueError(f"expert_noise: {low:g} to {high:g} is no range of lengths; write the smaller one first")
        return self
