"""Measure everything, then say what the model is good for, and write it down."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.provenance import provenance
from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.errors import InputError
from vjepa2cli.models.world_model import WorldModel
from vjepa2cli.planning.controller import Controller
from vjepa2cli.planning.model_card import ModelCard, open_predictor
from vjepa2cli.planning.validation.capabilities import judge
from vjepa2cli.planning.validation.familiarity import familiarity
from vjepa2cli.planning.validation.film import film
from vjepa2cli.planning.validation.held_out import HeldOut, Numbers, check_fit, check_plannable, held_out_windows, moves, reach
from vjepa2cli.planning.validation.landscapes import landscapes, map_axes
from vjepa2cli.planning.validation.numbers import inversion_config, invert, sweep_numbers
from vjepa2cli.planning.validation.prediction import describe_step, prediction_errors
from vjepa2cli.planning.validation.ranking import rank_recorded
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import ValidateConfig

_DEFAULT = ValidateConfig()


def validate(
    latents: Path,
    out: Path,
    *,
    model: str | Path,
    config: ValidateConfig = _DEFAULT,
    train_latents: Path | None = None,
    videos: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = SILENT,
) -> Path:
    """Judge an AC model on the latents of held-out recordings and write the report `out`.

    `train_latents`, of the recordings that it was trained on, tell how far the held-out ones lie from them; where `latents` holds
    training episodes of its own, those are taken. `videos`, the store that they were made of, gives frames for a film strip.
    A model that nobody trained is judged as well: it is what a verdict is measured by. Raises ArtifactError for latents of
    another encoder, robot or rate than the model's, InputError where the split holds too little.
    """
    started = time.perf_counter()
    with _opened(latents, train_latents) as (store, known):
        world, card = open_predictor(model, device=device)
        work = _Work(world, card, store, known, config, progress)
        work.check()
        body = work.film(videos) | work.measured()
        inputs = {"latents": store.digest, "model": card.digest}
        inputs |= {} if known is None else {"train_latents": known.digest}
    body |= judge(body, config=config)
    origin = provenance("validate", config, inputs=inputs, seed=config.seed)
    return write_report(out, "validation", body, provenance=origin, timing={"seconds": round(time.perf_counter() - started, 2)})


@contextmanager
def _opened(latents: Path, train_latents: Path | None) -> Iterator[tuple[LatentStore, LatentStore | None]]:
    """The held-out latents, and those of the training: the same, if they hold training episodes and no others are named."""
    with closing(LatentStore.open(latents)) as store:
        if train_latents is None:
            yield store, store if store.of_split("train") else None
            return
        with closing(LatentStore.open(train_latents)) as known:
            yield store, known


@dataclass(frozen=True)
class _Work:
    """A world model and the recordings that it is measured on."""

    world: WorldModel
    card: ModelCard
    store: LatentStore
    known: LatentStore | None
    config: ValidateConfig
    progress: Progress

    def check(self) -> None:
        """Refuse what does not go together before anything takes time."""
        check_plannable(self.world.ac.spec, self.card.source)
        for latents in (self.store, *([] if self.known is None else [self.known])):
            check_fit(latents, self.card)

    def measured(self) -> dict[str, Any]:
        """All numbers of the report."""
        store, config, progress = self.store, self.config, self.progress
        controller = Controller(self.world, inversion_config(config.cem), space=self.card.space)
        far = reach(store)
        windows = held_out_windows(store, config)
        single = moves(windows)
        axes = map_axes(controller, single, far, config)
        errors = prediction_errors(self.world, windows, progress=progress)
        steps = [describe_step(errors, step, episodes=windows.episodes, seed=config.seed) for step in range(config.horizon)]
        ranked = rank_recorded(controller, store, windows, config=config, progress=progress)
        sweeps = sweep_numbers(controller, single, far, config=config, progress=progress)
        inversion = invert(controller, single, far, config=config, progress=progress)
        maps = landscapes(controller, single, far, axes=axes, config=config, progress=progress)
        found = self._familiarity(windows)
        progress.finish()
        return {
            "encoder": self.card.encoder,
            "model": self.card.to_tree(),
            "robot": store.robot,
            "split": config.split,
            "num_windows": len(windows.episodes),
            "num_episodes": len(np.unique(windows.episodes)),
            "seen_in_training": self._seen(windows),
            "rate": store.rate,
            "numbers": self._numbers(far, sweeps),
            "prediction": steps,
            "ranking": ranked,
            "inversion": inversion,
            "landscapes": maps,
            "familiarity": found,
        }

    def film(self, videos: Path | None) -> dict[str, Any]:
        """The imagined rollout in recorded frames, where there are videos to take them from."""
        if videos is None:
            return {"film": None}
        if self.known is None:
            raise InputError(f"{videos}: a film strip shows training frames; name their latents with --train-latents")
        return {"film": film(self.world, self.store, self.known, videos, reach(self.store), config=self.config)}

    def _numbers(self, far: Numbers, sweeps: list[dict[str, Any] | None]) -> list[dict[str, Any]]:
        space = self.card.space
        named = zip(space.names, space.units, far.tolist(), sweeps, strict=True)
        return [{"name": name, "unit": unit, "far": reached, "sweep": sweep} for name, unit, reached, sweep in named]

    def _familiarity(self, windows: HeldOut) -> dict[str, Any] | None:
        if self.known is None or len(self.known.of_split("train")) < 2 or not self.config.num_compared:
            return None
        return familiarity(self.world, windows, self.known, config=self.config)

    def _seen(self, windows: HeldOut) -> int:
        """How many of the episodes that the model is judged on are among its training episodes, as far as these are known."""
        if self.known is None:
            return 0
        trained = {self.known.episodes[index] for index in self.known.of_split("train")}
        return sum(self.store.episodes[index] in trained for index in np.unique(windows.episodes))
