"""A verdict on a world model without a robot: how well it predicts held-out recordings, and whether it uses their actions."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.artifacts.statistics import correlation, share, standard_error
from vjepa2cli.errors import ArtifactError, InputError
from vjepa2cli.models.world_model import WorldModel
from vjepa2cli.planning.controller import Controller, generator_for
from vjepa2cli.planning.model_card import ModelCard, open_predictor
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import CemConfig, ValidateConfig

Numbers = NDArray[np.float64]

_DEFAULT = ValidateConfig()
_BATCH = 16
_RESAMPLES = 1000
_CHOICE_STREAM, _BOOTSTRAP_STREAM, _INVERSION_STREAM = 1, 2, 3
_MOVING = 0.005
"""Metres; shorter moves have no direction to recover."""


@dataclass(frozen=True)
class HeldOut:
    """Windows of recordings: latents [W, H + 1, H*W, D], first states [W, S], actions [W, H, S], and the episode of each [W]."""

    latents: Tensor
    states: Tensor
    actions: Tensor
    episodes: NDArray[np.int64]


def validate(
    latents: Path,
    out: Path,
    *,
    model: str | Path,
    config: ValidateConfig = _DEFAULT,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> Path:
    """Judge an AC model on the latents of held-out recordings and write the report `out`.

    Open-loop predictions of 1 to `config.horizon` steps stand beside copying the first frame and beside the actions of other
    windows; CEM is asked for the action between two frames. Raises ArtifactError for latents of another encoder than the model's,
    InputError where the split holds too little, PlanningError for a predictor that nobody trained.
    """
    started = time.perf_counter()
    store = LatentStore.open(latents)
    world, card = open_predictor(model, device=device)
    card.require_trained_predictor()
    _check_encoder(store, card)
    windows = held_out_windows(store, config)
    num_windows = len(windows.episodes)
    # Without an end effector there is no translation to recover.
    num_inversions = min(config.num_inversions, num_windows) if card.space.kind == "end_effector" else 0
    progress.start("validate", total=num_windows + num_inversions)
    errors = prediction_errors(world, windows, progress=progress)
    steps = [describe_step(errors, step, episodes=windows.episodes, seed=config.seed) for step in range(config.horizon)]
    inversion = _inversion(world, windows, config.cem, count=num_inversions, seed=config.seed, progress=progress)
    progress.finish()
    body = {
        "encoder": card.encoder,
        "model": card.to_tree(),
        "split": config.split,
        "num_windows": num_windows,
        "num_episodes": len(np.unique(windows.episodes)),
        "rate": store.rate,
        "prediction": steps,
        "inversion": inversion,
        "beats_copy": beats_copy(steps[0]),
        "uses_actions": uses_actions(steps[0]),
        "verdict": verdict(steps[0]),
    }
    origin = provenance("validate", config, inputs={"latents": store.digest, "model": card.digest}, seed=config.seed)
    store.close()
    return write_report(out, "validation", body, provenance=origin, timing={"seconds": round(time.perf_counter() - started, 2)})


def _check_encoder(store: LatentStore, card: ModelCard) -> None:
    if store.encoder_digest != card.encoder_digest:
        raise ArtifactError(
            f"{store.path}: holds latents of the encoder {store.encoder_source} ({store.encoder_digest[:12]}), but {card.source} "
            f"reads those of {card.encoder_source} ({card.encoder_digest[:12]}); run 'vjepa2 precompute' with that encoder"
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
        torch.stack([torch.from_numpy(store.states(index)[start]) for index, start in places]),
        torch.stack([torch.from_numpy(store.actions(index)[start : start + horizon]) for index, start in places]),
        np.array([index for index, _ in places]),
    )


@torch.inference_mode()
def prediction_errors(world: WorldModel, windows: HeldOut, *, progress: Progress = SILENT) -> dict[str, Numbers]:
    """Mean |predicted - true| of each window after 1..H steps, [W, H], in latent space.

    `model` rolls out the true actions from the first frame and state, `shuffled` those of a window half the set away; `copy`
    stays where it is.
    """
    count, device = len(windows.episodes), world.device
    other = (torch.arange(count) + count // 2) % count
    parts: dict[str, list[Tensor]] = {"model": [], "copy": [], "shuffled": []}
    for rows in torch.split(torch.arange(count), _BATCH):
        latents, states = windows.latents[rows].to(device), windows.states[rows].to(device).unsqueeze(1)
        true = latents[:, 1:]
        guesses = {
            "model": world.rollout(latents[:, :1], states, windows.actions[rows].to(device)),
            "copy": latents[:, :1],
            "shuffled": world.rollout(latents[:, :1], states, windows.actions[other[rows]].to(device)),
        }
        for name, guess in guesses.items():
            parts[name].append((guess - true).abs().mean((2, 3)).double().cpu())
        progress.advance(len(rows))
    return {name: torch.cat(values).numpy() for name, values in parts.items()}


def describe_step(errors: dict[str, Numbers], step: int, *, episodes: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """What is said of predictions `step + 1` steps ahead: means, and differences with an interval over episodes."""
    own, copy, shuffled = (errors[name][:, step] for name in ("model", "copy", "shuffled"))
    key = [seed, _BOOTSTRAP_STREAM, step]
    return {
        "steps": step + 1,
        "error": {name: float(values[:, step].mean()) for name, values in errors.items()},
        "standard_error": {name: standard_error(values[:, step].tolist()) for name, values in errors.items()},
        "below_copy": {"mean": float((copy - own).mean()), "interval": clustered_interval(copy - own, episodes, key=key)},
        "below_shuffled": {
            "mean": float((shuffled - own).mean()),
            "interval": clustered_interval(shuffled - own, episodes, key=key),
        },
        "true_beats_shuffled": share(int((own < shuffled).sum()), len(own)),
    }


def clustered_interval(values: Numbers, groups: NDArray[np.int64], *, key: Sequence[int]) -> list[float]:
    """The 95 % bootstrap interval of the mean of `values`, drawn by whole groups, for windows of one episode are alike.

    Where there is one group alone, single values are drawn.
    """
    _, group = np.unique(groups, return_inverse=True)
    if group.max() == 0:
        group = np.arange(len(values))
    sums, counts = np.bincount(group, weights=values), np.bincount(group)
    drawn = np.random.default_rng(key).integers(len(sums), size=(_RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return [float(end) for end in np.percentile(means, (2.5, 97.5))]


def _inversion(
    world: WorldModel, windows: HeldOut, cem: CemConfig, *, count: int, seed: int, progress: Progress
) -> dict[str, Any] | None:
    """CEM is given two successive frames and asked for the translation between them; evenly spread over the windows."""
    if not count:
        return None
    controller = Controller(world, cem.model_copy(update={"horizon": 1}))
    found = []
    chosen = np.linspace(0, len(windows.episodes) - 1, count).round().astype(int)
    for number in chosen:
        before, after = windows.latents[number, :2].to(world.device)
        generator = generator_for(seed, _INVERSION_STREAM, int(number))
        found.append(controller.plan_latent(before, windows.states[number], after, generator=generator).actions[0, :3].cpu())
        progress.advance()
    true = windows.actions[chosen, 0, :3].double().numpy()
    return inversion_summary(true, torch.stack(found).double().numpy(), limit=cem.max_translation)


def inversion_summary(true: Numbers, found: Numbers, *, limit: float) -> dict[str, Any]:
    """How near the found translations [n, 3] are to the true ones, in metres; answering nothing would err by `magnitude`.

    `cosine` is that of the directions, over moves of at least 5 mm; `outside_box` moves are longer than CEM may answer.
    """
    distances, lengths = np.linalg.norm(found - true, axis=1), np.linalg.norm(true, axis=1)
    products = lengths * np.linalg.norm(found, axis=1)
    cosines = [
        float(a @ b / p) for a, b, p, length in zip(true, found, products, lengths, strict=True) if length >= _MOVING and p > 0
    ]
    return {
        "count": len(true),
        "error_m": {"mean": float(distances.mean()), "median": float(np.median(distances))},
        "standard_error_m": standard_error(distances.tolist()),
        "magnitude_m": float(lengths.mean()),
        "cosine": {"mean": float(np.mean(cosines)) if cosines else None, "count": len(cosines)},
        "correlation": {axis: correlation(true[:, k].tolist(), found[:, k].tolist()) for k, axis in enumerate("xyz")},
        "outside_box": int((np.abs(true) > limit).any(1).sum()),
        "pairs": [{"true": a, "found": b} for a, b in zip(true.tolist(), found.tolist(), strict=True)],
    }


def beats_copy(step: dict[str, Any]) -> bool:
    """Whether the error is below that of copying, beyond chance."""
    return bool(step["below_copy"]["interval"][0] > 0)


def uses_actions(step: dict[str, Any]) -> bool:
    """Whether the true actions predict better than shuffled ones, beyond chance, on average and in most windows."""
    return bool(step["below_shuffled"]["interval"][0] > 0 and step["true_beats_shuffled"]["interval"][0] > 0.5)


def verdict(step: dict[str, Any]) -> str:
    """One sentence on what the errors one step ahead show."""
    error, wins = step["error"], step["true_beats_shuffled"]
    against_copy = f"error {error['model']:.4f} against {error['copy']:.4f}"
    against_shuffled = f"true actions beat shuffled ones in {wins['successes']} of {wins['n']} windows"
    match beats_copy(step), uses_actions(step):
        case True, True:
            return f"The model uses actions ({against_shuffled}) and beats copying the last frame ({against_copy})."
        case False, True:
            return f"The model uses actions ({against_shuffled}), but does not beat copying the last frame ({against_copy})."
        case True, False:
            return f"The model beats copying the last frame ({against_copy}), but it does not use actions ({against_shuffled})."
    return f"The model does not beat copying the last frame ({against_copy}) and does not use actions ({against_shuffled})."
