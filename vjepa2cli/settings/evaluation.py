"""The closed loop: which tasks are played under which shifts, how often, and what plays beside the planner."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from vjepa2cli.settings.planning import CemConfig
from vjepa2cli.settings.sections import Count, Positive, Section, Seed, StepConfig
from vjepa2cli.settings.simulation import SceneConfig, ShiftName, TaskName, TasksConfig

BUILT_IN = "tabletop"


class CloningConfig(Section):
    """Behaviour cloning beside the planner: from the latents of now and of the goal to the action that was recorded.

    A goal is the frame up to `ahead` steps later in the same recording. `patch_width` numbers are read off every patch.
    """

    steps: Count = 1500
    batch_size: Count = 256
    lr: Positive = 1e-3
    ahead: Count = 8
    patch_width: Count = 32
    width: Count = 256
    seed: Seed = 0


class EvaluateConfig(StepConfig, TasksConfig):
    """Closed-loop tasks from image goals, in the tabletop or in an environment of one's own.

    environment: `tabletop`, or MODULE:FUNCTION (or FILE.py:FUNCTION) that returns a Suite; shifts, `scene` and the settings of
    the tasks belong to the tabletop.

    Each task is played under each shift, `episodes` times if it does not say otherwise. With `max_episodes` more follow, ten at
    a time, until the planner's 95 % interval is no wider than `interval_width`.
    """

    step: Literal["evaluate"] = "evaluate"
    seed: Seed = 1000
    environment: str = BUILT_IN
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] = ("reach",)
    shifts: Annotated[tuple[ShiftName, ...], Field(min_length=1)] = ("none",)
    episodes: Count = 50
    max_episodes: Count | None = None
    interval_width: Annotated[float, Field(gt=0, le=1)] = 0.2
    scene: SceneConfig = SceneConfig()
    num_videos: Annotated[int, Field(ge=0)] = 4
    cem: CemConfig = CemConfig()
    cloning: CloningConfig = CloningConfig()

    def episodes_of(self, task: str) -> int:
        """How many episodes of a task are played at least."""
        own = getattr(self, task).episodes if self.environment == BUILT_IN else None
        return own or self.episodes

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Refuse what each key allows alone and not together."""
        known = get_args(TaskName)
        if self.environment == BUILT_IN and (unknown := [name for name in self.tasks if name not in known]):
            raise ValueError(f"tasks: the tabletop has no task {unknown[0]!r}; it has {', '.join(known)}")
        if self.environment != BUILT_IN and self.shifts != ("none",):
            raise ValueError(
                f"shifts: belong to the tabletop; an environment of one's own has only 'none', not {self.shifts[0]!r}"
            )
        for key, names in (("tasks", self.tasks), ("shifts", self.shifts)):
            if len(set(names)) < len(names):
                raise ValueError(f"{key}: {', '.join(names)}: name each once")
        most = max((self.episodes_of(task) for task in self.tasks), default=0)
        if self.max_episodes is not None and self.max_episodes < most:
            raise ValueError(f"max_episodes: {self.max_episodes} is below episodes, {most}")
        return self
