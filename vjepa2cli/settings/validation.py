"""What `validate` sets: how much of the held-out recordings is looked at, and how hard it searches."""

from typing import Annotated, Literal

from pydantic import Field

from vjepa2cli.settings.planning import CemConfig
from vjepa2cli.settings.sections import Count, Positive, Seed, StepConfig

_Count0 = Annotated[int, Field(ge=0)]


class ValidateConfig(StepConfig):
    """A verdict on a world model from held-out recordings; a count of 0 leaves its part out.

    Predictions of 1 to `horizon` steps are made in at most `max_windows` windows. In `num_ranked` of them the recorded actions
    are ranked among `num_rivals` recorded elsewhere. Each number of an action is swept over `sweep_points` values in `num_sweeps`
    moves, out to `sweep_span` times as far as it goes, and CEM is asked for the action of `num_inversions` moves. `num_maps`
    moves get an energy map of `map_points` x `map_points` actions over each pair of `map_axes`, which are the first three numbers
    that the planner moves unless they are named. `num_compared` steps of held-out recordings are looked up among `num_known`
    training steps. A film strip follows one episode for `film_steps` imagined steps.
    """

    step: Literal["validate"] = "validate"
    seed: Seed = 0
    split: Literal["val", "train", "all"] = "val"
    max_windows: Count = 256
    horizon: Count = 4
    num_ranked: _Count0 = 32
    num_rivals: Annotated[int, Field(ge=2)] = 64
    num_sweeps: _Count0 = 48
    sweep_points: Annotated[int, Field(ge=5)] = 11
    sweep_span: Positive = 1.5
    num_inversions: _Count0 = 48
    num_maps: _Count0 = 2
    map_points: Annotated[int, Field(ge=3)] = 15
    map_axes: tuple[str, ...] = ()
    num_compared: _Count0 = 128
    num_known: Annotated[int, Field(ge=2)] = 1000
    film_steps: Count = 6
    cem: CemConfig = CemConfig(samples=64, iterations=4, elites=6, plan_gripper=False)
