"""Any Gymnasium environment that draws itself, as an environment that world models are evaluated in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.errors import InputError
from vjepa2cli.simulation.environment import Measure, Numbers, Observation, Pixels, Policy, View


class GymnasiumEnv(Protocol):
    """What is needed of a `gymnasium.Env`; the library itself is not."""

    metadata: dict[str, Any]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Go on by one action."""

    def render(self) -> Any:
        """Draw what is to be seen."""

    def close(self) -> None:
        """Give back what is held."""


ReadState: TypeAlias = Callable[[Any], Numbers]
WriteAction: TypeAlias = Callable[[NDArray[np.float64], NDArray[np.float32]], Any]


class GymnasiumEnvironment:
    """An Environment over a `gymnasium.Env` that was made with `render_mode="rgb_array"`.

    `info` is what the environment said with the last observation, `seen` that observation. An episode that has ended stays as it
    is: further actions change nothing.
    """

    def __init__(self, env: GymnasiumEnv, *, state: ReadState, action: WriteAction, rate: float | None = None) -> None:
        """`state` reads the state [S], the numbers that the world model is trained on, from an observation of `env`.

        `action` turns a change of the state, and the state that it starts from, into an action of `env`. `rate` is actions a
        second, where it is not the `render_fps` of the environment's metadata.

        Raises InputError where the rate is not known.
        """
        found = env.metadata.get("render_fps") if rate is None else rate
        if not found:
            raise InputError("rate: the environment's metadata name no render_fps; say how many actions it takes a second")
        self.env, self._read, self._write, self._rate = env, state, action, float(found)
        self.seen: Any = None
        self.info: dict[str, Any] = {}
        self._ended = False

    @property
    def rate(self) -> float:
        """Actions a second."""
        return self._rate

    def reset(self, *, seed: int, options: dict[str, Any] | None = None) -> Observation:
        """Begin the episode that `seed` names; `options` are the environment's own."""
        self.seen, self.info = self.env.reset(seed=seed, options=options)
        self._ended = False
        return self.observe()

    def observe(self) -> Observation:
        """Look once more without moving; raises InputError for pictures and states that are none."""
        frame = self.env.render()
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            shape = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise InputError(f"render: gave {shape}; it must be uint8 [Y, X, 3], as of an environment made with rgb_array")
        state = np.asarray(self._read(self.seen), np.float32)
        if state.ndim != 1 or not np.isfinite(state).all():
            raise InputError(f"state: {np.array2string(state, threshold=8)} is no list of finite numbers")
        return Observation(frame, state)

    def step(self, action: Numbers) -> Observation:
        """Move by the change `action` [S] of the state; raises InputError where the environment cut the episode short."""
        if not self._ended:
            state = np.asarray(self._read(self.seen), np.float32)
            self.seen, _, ended, cut, self.info = self.env.step(self._write(np.asarray(action, np.float64), state))
            if cut and not ended:
                raise InputError("step: the environment cut the episode short (truncated); raise its max_episode_steps")
            self._ended = bool(ended)
        return self.observe()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


@dataclass(frozen=True)
class GymnasiumTask:
    """A Task in a GymnasiumEnvironment, made of functions.

    `show_goal(environment, seed)` puts the environment where the goal of the episode `seed` is reached, and returns the picture;
    an episode begins by `reset(seed=seed)`. `measure(environment)` looks at how things stand, for which `environment.seen` and
    `.info` are there. `actions` are allowed; `expert(environment)` makes a policy that knows more, if there is one.
    """

    environment: GymnasiumEnvironment
    show_goal: Callable[[GymnasiumEnvironment, int], Pixels]
    measure: Callable[[GymnasiumEnvironment], Measure]
    actions: int
    expert: Callable[[GymnasiumEnvironment], Policy] | None = None
    plans_gripper: bool = False
    unit: str = "m"

    def prepare(self, seed: int) -> "GymnasiumEpisode":
        """The episode of `seed`."""
        return GymnasiumEpisode(self, seed, (View(self.show_goal(self.environment, seed), self.actions),))


@dataclass(frozen=True)
class GymnasiumEpisode:
    """One episode of a GymnasiumTask."""

    task: GymnasiumTask
    seed: int
    goals: tuple[View, ...]

    def begin(self) -> Observation:
        """Reset the environment to the seed."""
        return self.task.environment.reset(seed=self.seed)

    def measure(self) -> Measure:
        """What the task says."""
        return self.task.measure(self.task.environment)

    def expert(self, max_translation: float) -> Policy | None:
        """The task's expert, which has its own limits."""
        return None if self.task.expert is None else self.task.expert(self.task.environment)

    def describe(self) -> dict[str, Any]:
        """The seed."""
        return {"seed": self.seed}
