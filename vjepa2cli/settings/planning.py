"""What planning sets: the search over actions, the space that they lie in, and what a single plan shows."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vjepa2cli.settings.sections import Count, Fraction, Positive, Range, Section, Seed, StepConfig

NotNegative = Annotated[float, Field(ge=0)]


class CemConfig(Section):
    """The search over actions. Source: notebooks/utils/mpc_utils.py of facebookresearch/vjepa2, arXiv:2506.09985 section 4.

    As long as nothing else is set, the released method. Lengths are in metres, angles in radians, a step each.

    `max_translation`, `max_rotation` (0: none is planned) and `gripper_bound` are the box of an end effector; a robot with
    numbers of its own is searched within `max_change` times the change that its recordings usually make in one step. `bounds`
    says otherwise for single axes by name, `pinned` holds an axis at a value, and `gripper_schedule` holds the gripper at one a
    step, the last one for all that follow. The first standard deviation is half the box, for the translation `initial_std` where
    it is set, for a gripper that is planned 1.

    What the released method does not do: `solver: mppi` weights all samples by exp(-cost / (`temperature` times the spread of the
    costs)) instead of keeping elites. `mean_among_samples` scores the mean as well. `std_floor` keeps that share of the first
    standard deviation. `uninformative_level` pins an axis unless the costs of the first samples depend on it at that level of
    significance. `returns: best` answers the best sample instead of the mean. `noise_colour` b makes the noise of successive
    steps alike, with a spectrum of 1 / frequency^b. `warm_start` begins at the plan before, moved on by one step. `agreement`
    ends the search once the elites' standard deviation is below that share of the first one. With `goal_weight` w a token of the
    energy counts 1 + w d, where d is how far it is from the goal's at present, in units of the mean. With `running_cost` w the
    mean energy of the steps before the last counts w times as well. Where `gripper_snaps`, a gripper that the plan moves beyond
    the dead zone moves as far as its bound lets it, as one that only opens and closes.

    `context_frames` are seen by the model, the current one included. `max_memory_gib` bounds what is predicted at once; null
    stands for 1 on a CPU and for half of a CUDA device.
    """

    solver: Literal["cem", "mppi"] = "cem"
    samples: Annotated[int, Field(ge=2)] = 400
    iterations: Count = 10
    elites: Annotated[int, Field(ge=2)] = 10
    horizon: Count = 1
    max_translation: Positive = 0.075
    max_rotation: NotNegative = 0.0
    max_change: Positive = 1.0
    gripper_bound: NotNegative = 0.75
    bounds: dict[str, Range] = Field(default={})
    pinned: dict[str, float] = Field(default={})
    plan_gripper: bool = True
    gripper_schedule: tuple[float, ...] = ()
    initial_std: Annotated[float, Field(gt=0)] | None = None
    mean_smoothing: Fraction = 0.15
    std_smoothing: Fraction = 0.15
    gripper_mean_smoothing: Fraction = 0.15
    gripper_std_smoothing: Fraction = 0.15
    gripper_dead_zone: NotNegative = 0.25
    gripper_snaps: bool = False
    temperature: Positive = 0.1
    mean_among_samples: bool = False
    std_floor: Fraction = 0.0
    uninformative_level: Fraction | None = None
    returns: Literal["mean", "best"] = "mean"
    noise_colour: NotNegative = 0.0
    warm_start: bool = False
    agreement: Fraction = 0.0
    goal_weight: NotNegative = 0.0
    running_cost: NotNegative = 0.0
    context_frames: Count = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    max_memory_gib: Positive | None = None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Refuse what each key allows alone and not together."""
        for axis, (low, high) in self.bounds.items():
            if low > high:
                raise ValueError(f"bounds.{axis}: {low} is not below {high}")
            if axis in self.pinned:
                raise ValueError(f"bounds.{axis} and pinned.{axis}: an axis has bounds or one value, not both")
        if not self.plan_gripper and "gripper" in self.bounds:
            raise ValueError("bounds.gripper: plan_gripper is false, which holds the gripper still; set it to true")
        if self.gripper_schedule and "gripper" in (*self.bounds, *self.pinned):
            raise ValueError("gripper_schedule: the gripper is also named in bounds or pinned; leave one of them")
        if not self.elites <= self.samples:
            raise ValueError(f"elites: {self.elites} is more than samples, {self.samples}")
        return self


class EnergyMapConfig(Section):
    """A slice through the energy around a plan: its first action changes along two axes, all else stays as planned.

    `points` values an axis lie between `span` times the ends of the box.
    """

    axes: tuple[str, str] = ("x", "z")
    points: Annotated[int, Field(ge=2)] = 21
    span: Positive = 1.0


class PlanConfig(StepConfig):
    """One plan from an observation to a goal image."""

    step: Literal["plan"] = "plan"
    seed: Seed = 0
    cem: CemConfig = CemConfig()
    energy_map: EnergyMapConfig = EnergyMapConfig()
