"""What a world model is judged on: windows of recordings that it has not seen, and the single moves in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.data.state_space import StateSpace
from vjepa2cli.errors import ArtifactError, InputError, PlanningError
from vjepa2cli.models.ac_predictor import AcPredictorSpec
from vjepa2cli.planning.imagination import check_encoder
from vjepa2cli.planning.model_card import ModelCard
from vjepa2cli.settings import ValidateConfig

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]

_CHOICE_STREAM, _RIVAL_STREAM = 1, 4
_FARTHEST = 0.05
_MOVES = 0.25
_TREMBLES = 0.05
_RATE_SLACK = 0.01


@dataclass(frozen=True)
class HeldOut:
    """Windows of recordings: latents [W, H + 1, H*W, D], states [W, H, S], actions [W, H, A], the episode [W] and start [W]."""

    latents: Tensor
    states: Tensor
    actions: Tensor
    episodes: Places
    starts: Places


@dataclass(frozen=True)
class Moves:
    """Single transitions of windows: states [M, S], actions [M, A], episodes [M]; their latents stay where they are."""

    windows: HeldOut
    states: Tensor
    actions: Tensor
    episodes: Places

    def latents(self, move: int, *, device: torch.device) -> tuple[Tensor, Tensor]:
        """What was seen before and after a move, [H*W, D] each."""
        window, step = divmod(move, self.windows.actions.shape[1])
        before, after = self.windows.latents[window, step : step + 2].to(device)
        return before, after


def check_plannable(spec: AcPredictorSpec, source: str) -> None:
    """Raise PlanningError for a model that reads what neither plans nor verdicts give it: where the camera stands."""
    if spec.use_extrinsics:
        raise PlanningError(
            f"{source}: reads the camera's extrinsics, and plans and verdicts are made without; "
            "post-train with predictor.extrinsics=false"
        )


def check_fit(store: LatentStore, card: ModelCard) -> None:
    """Raise ArtifactError where the latents are of another encoder, the numbers those of another robot, or the steps as long as
    the model's are not.
    """
    check_encoder(store, card)
    space = StateSpace.parse(store.state_space)
    if (space.kind, space.names, space.units) != (card.space.kind, card.space.names, card.space.units):
        raise ArtifactError(
            f"{store.path}: holds the numbers {space.describe()}, but {card.source} was trained on {card.space.describe()}; "
            "run 'vjepa2 ingest' with the description of the robot that it was trained on"
        )
    if card.rate is not None and abs(store.rate / card.rate - 1) > _RATE_SLACK:
        raise ArtifactError(
            f"{store.path}: holds {store.rate:g} steps a second, but {card.source} was trained on {card.rate:g}; "
            f"run 'vjepa2 precompute' with --set rate={card.rate:g}"
        )


def held_out_windows(store: LatentStore, config: ValidateConfig) -> HeldOut:
    """Windows of horizon + 1 steps without overlap from the episodes of the split; at most `max_windows`, drawn by the seed."""
    horizon = config.horizon
    indices = store.of_split(config.split)
    places = [(index, start) for index in indices for start in range(0, store.lengths[index] - horizon, horizon)]
    if len(places) < 2:
        raise InputError(
            f"{store.path}: split {config.split!r} has {len(places)} windows of {horizon + 1} steps in {len(indices)} episodes; "
            "two are needed; choose another split (train, val, all) or a shorter horizon, or hold out more episodes in 'ingest'"
        )
    rng = np.random.default_rng([config.seed, _CHOICE_STREAM])
    chosen = np.sort(rng.permutation(len(places))[: config.max_windows])
    places = [places[number] for number in chosen]
    return HeldOut(
        torch.stack([torch.from_numpy(store.tokens(index, start, start + horizon + 1)) for index, start in places]),
        torch.stack([torch.from_numpy(store.states(index)[start : start + horizon]) for index, start in places]),
        torch.stack([torch.from_numpy(store.actions(index)[start : start + horizon]) for index, start in places]),
        np.array([index for index, _ in places]),
        np.array([start for _, start in places]),
    )


def reach(store: LatentStore) -> Numbers:
    """How far each number of an action goes when it goes far, [A]: the mean of its largest twentieth, over all recordings.

    It is what "moves" and the width of a sweep are measured by, whatever the number's unit is and however seldom it moves. What
    is next to nothing beside the farthest number of the same unit counts as 0: such a number trembles, and does not move.
    """
    changes = np.abs(np.concatenate([store.actions(index) for index in range(len(store.lengths))]).astype(np.float64))
    count = max(1, round(_FARTHEST * len(changes)))
    farthest: Numbers = np.sort(changes, axis=0)[-count:].mean(axis=0)
    units = np.array(StateSpace.parse(store.state_space).units)
    most = np.array([farthest[units == unit].max() for unit in units])
    return np.where(farthest >= _TREMBLES * most, farthest, 0.0)


def moving(actions: Tensor, far: Numbers) -> NDArray[np.bool_]:
    """Which numbers [..., A] of actions move: by a quarter of what they do when they go far, or more."""
    return (actions.abs().double().numpy() >= _MOVES * far) & (far > 0)


def moves(windows: HeldOut) -> Moves:
    """Every transition of the windows, window by window."""
    horizon = windows.actions.shape[1]
    return Moves(
        windows,
        windows.states.flatten(0, 1),
        windows.actions.flatten(0, 1),
        np.repeat(windows.episodes, horizon),
    )


def spread(numbers: Places, count: int) -> Places:
    """At most `count` of `numbers`, evenly spread over them."""
    if len(numbers) <= count:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, count).round().astype(np.intp)]


def rivals(store: LatentStore, windows: HeldOut, window: int, *, count: int, seed: int) -> Tensor:
    """Action sequences [count, H, A] that were recorded elsewhere: in any episode, but not within a horizon of the window."""
    horizon = windows.actions.shape[1]
    places = _starts(store, horizon)
    own, start = int(windows.episodes[window]), int(windows.starts[window])
    free = places[(places[:, 0] != own) | (np.abs(places[:, 1] - start) >= horizon)]
    rng = np.random.default_rng([seed, _RIVAL_STREAM, window])
    drawn: Sequence[Sequence[int]] = free[rng.integers(len(free), size=count)].tolist()
    return torch.stack([torch.from_numpy(store.actions(index)[at : at + horizon]) for index, at in drawn])


def _starts(store: LatentStore, horizon: int) -> Places:
    return np.array([(i, start) for i, length in enumerate(store.lengths) for start in range(length - horizon)])
