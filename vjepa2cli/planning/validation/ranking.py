"""Whether the recorded actions explain what came of them better than actions that were recorded elsewhere."""

from typing import Any

import numpy as np
import torch

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.statistics import clustered_interval
from vjepa2cli.planning.controller import Controller
from vjepa2cli.planning.validation.held_out import HeldOut, rivals, spread
from vjepa2cli.progress import SILENT, Progress
from vjepa2cli.settings import ValidateConfig

_RANKING_STREAM = 5


def rank_recorded(
    controller: Controller, store: LatentStore, windows: HeldOut, *, config: ValidateConfig, progress: Progress = SILENT
) -> list[dict[str, Any]]:
    """Where the recorded actions stand among `num_rivals` others by their energy, for horizons 1..H, in `num_ranked` windows.

    `percentile` is the share of the others whose energy is higher (of ties one half): 0.5 where actions tell nothing, 1 where the
    recorded ones always come first. `rank` counts from 1, among the others and itself.
    """
    chosen = spread(np.arange(len(windows.episodes)), config.num_ranked)
    if not len(chosen):
        return []
    count, shares = config.num_rivals, []
    progress.start("rank", total=len(chosen))
    for window in chosen.tolist():
        latents, actions = windows.latents[window].to(controller.device), windows.actions[window]
        tried = torch.cat((actions.unsqueeze(0), rivals(store, windows, window, count=count, seed=config.seed)))
        predicted = controller.predict(latents[0], windows.states[window, 0], tried)
        energies = (predicted - latents[1:].float()).abs().mean((2, 3)).double().cpu()  # [S + 1, H]
        own, others = energies[0], energies[1:]
        shares.append(((others > own).double() + (others == own).double() / 2).mean(0).numpy())
        progress.advance()
    progress.finish()
    table = np.stack(shares)
    episodes = windows.episodes[chosen]
    return [
        {
            "steps": step + 1,
            "windows": len(chosen),
            "rivals": count,
            "percentile": {
                "mean": float(column.mean()),
                "median": float(np.median(column)),
                "interval": clustered_interval(column, episodes, key=[config.seed, _RANKING_STREAM, step]),
            },
            "rank": {"median": float(np.median(1 + (1 - column) * count)), "of": count + 1},
            "first": int((column == 1).sum()),
        }
        for step, column in enumerate(table.T)
    ]
