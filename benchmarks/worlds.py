"""Does `validate` tell good worlds from bad ones? Four worlds of the tabletop that are known to be so, over several seeds.

    python benchmarks/worlds.py [--seeds 3] [--episodes 120] [--steps 600] [--folder worlds]

For every seed: recordings, an encoder with fresh weights (which is enough for the tabletop), its latents, and on these four
predictors, all of one size: trained `long`, for `--steps` steps; trained `brief`ly, for a sixth of them; trained as long on
`shuffled` actions, each recorded but at another moment; and `untrained`. All are judged on the same held-out recordings with
their true actions. The grades must come out in that order for every seed, or the run ends with 1; what each world can do is
printed beside it. A folder that holds a part of it already is gone on with.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from vjepa2cli import config
from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.collection import collect
from vjepa2cli.ingestion import ingest
from vjepa2cli.models.weights import state_digest, to_folder
from vjepa2cli.planning.validation import validate
from vjepa2cli.precomputation import precompute
from vjepa2cli.settings import CollectConfig, IngestConfig, PosttrainConfig, PrecomputeConfig, PretrainConfig, ValidateConfig
from vjepa2cli.train.networks import build_encoder
from vjepa2cli.train.posttraining import posttrain

WORLDS = ("long", "brief", "shuffled", "untrained")
"""From the best to the worst."""
SMALL = ("predictor.embed_dim=96", "predictor.depth=2", "optimizer.lr=3e-3")
LEVELS = {"yes": "+", "partly": "~", "no": "-", "untold": "?"}


def main() -> None:
    """Build, judge, print; exit code 1 where the order is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=120)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--folder", type=Path, default=Path("worlds"))
    asked = parser.parse_args()
    in_order = []
    for seed in range(asked.seeds):
        reports = build(asked.folder / str(seed), seed=seed, episodes=asked.episodes, steps=asked.steps)
        print(f"\nseed {seed}\n{table(reports)}", flush=True)
        in_order.append(ordered([reports[name]["grade"] for name in WORLDS]))
    print(f"\nin the order {' > '.join(WORLDS)}: {sum(in_order)} of {len(in_order)} seeds")
    sys.exit(0 if all(in_order) else 1)


def build(folder: Path, *, seed: int, episodes: int, steps: int, overrides: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """The four worlds of one seed, and what `validate` says of each."""
    latents = make_latents(folder, seed=seed, episodes=episodes)
    shuffled = shuffle_actions(latents, folder / "shuffled.h5", seed=seed)
    stages = {"long": (latents, steps), "brief": (latents, steps // 6), "shuffled": (shuffled, steps), "untrained": (latents, 0)}
    reports = {}
    for name, (trained_on, count) in stages.items():
        run, verdict = folder / name, folder / f"{name}.json"
        if not verdict.is_file():
            posttrain(trained_on, run, config=recipe(count, seed), device="cpu")
            judged = config.load("tiny-validate", ValidateConfig, overrides=[f"seed={seed}", *overrides])
            validate(latents, verdict, model=run, config=judged)
        reports[name] = read_report(verdict, "validation")
    return reports


def recipe(steps: int, seed: int) -> PosttrainConfig:
    """The tabletop's recipe on a smaller predictor, its schedule shortened to `steps`."""
    shorter = (f"steps={steps}", f"schedule.warmup_steps={steps // 20}", f"schedule.decay_steps={steps // 2}", f"seed={seed}")
    return config.load("tiny-posttrain", PosttrainConfig, overrides=[*SMALL, *shorter])


def make_latents(folder: Path, *, seed: int, episodes: int) -> Path:
    """Recordings of one seed, a fifth of them held out, seen by an encoder with fresh weights."""
    latents = folder / "latents.h5"
    if latents.is_file():
        return latents
    recorded = config.load("tiny-collect", CollectConfig, overrides=[f"episodes={episodes}", f"seed={seed}"])
    collect(folder / "recordings", config=recorded)
    stored = config.load("tiny-ingest", IngestConfig, overrides=["val_fraction=0.2", f"split_seed={seed}"])
    ingest([folder / "recordings"], folder / "robot.zarr", config=stored, workers=1)
    encoder = initial_encoder(folder / "encoder", seed=seed)
    return precompute(folder / "robot.zarr", latents, model=str(encoder), config=config.load("tiny-precompute", PrecomputeConfig))


def initial_encoder(folder: Path, *, seed: int) -> Path:
    """The encoder that a pretraining would start from, in a model folder."""
    settings = config.load("tiny-pretrain", PretrainConfig, overrides=[f"seed={seed}"])
    encoder = build_encoder(settings, generator=torch.Generator().manual_seed(seed))
    tree, tensors = to_folder(encoder, None)
    tree["vjepa2cli"] |= {"trained_steps": 0, "digest": state_digest(encoder)}
    save_model(folder, tree, tensors)
    return folder


def shuffle_actions(latents: Path, out: Path, *, seed: int) -> Path:
    """A copy of the latents in which every training step has the action of another one; held-out episodes stay as they are."""
    shutil.copyfile(latents, out)
    store = LatentStore.open(out)
    places = np.array([(index, step) for index in store.of_split("train") for step in range(store.lengths[index] - 1)])
    store.close()
    order = np.random.default_rng(seed).permutation(len(places))
    with h5py.File(out, "r+") as file:
        actions = file["actions"][:]
        taken = actions.copy()
        actions[tuple(places.T)] = taken[tuple(places[order].T)]
        file["actions"][...] = actions
    return out


def ordered(grades: Sequence[float]) -> bool:
    """Whether each is above the next."""
    return all(better > worse for better, worse in pairwise(grades))


def table(reports: dict[str, dict[str, Any]]) -> str:
    """A row a world: its grade, what it can do, and the numbers that this is told from."""
    names = [found["name"] for found in reports["long"]["capabilities"]]
    lines = ["| world | grade | " + " | ".join(names) + " |", "|" + " --- |" * (2 + len(names))]
    for world, report in reports.items():
        cells = [
            f"{LEVELS[found['level']]} {number}" for found, number in zip(report["capabilities"], numbers(report), strict=True)
        ]
        lines.append(f"| {world} | {report['grade']:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def numbers(report: dict[str, Any]) -> list[str]:
    """What each capability is told from, in its order: error ratios, percentile, signs (and how near), steps."""
    first = report["prediction"][0]
    over_copy = [f"{first['error'][guess] / first['error']['copy']:.2f}" for guess in ("no_action", "model")]
    found = [*over_copy, f"{report['ranking'][0]['percentile']['mean']:.2f}"]
    planned = report["inversion"]["numbers"]
    for number in report["numbers"]:
        if number["name"] in planned:
            answer = planned[number["name"]]
            found.append(f"{answer['sign']['rate']:.2f}, {answer['error']['mean'] / answer['magnitude']:.2f}")
        else:
            found.append("" if number["sweep"] is None else f"{number['sweep']['sign']['rate']:.2f}")
    return [*found, str(report["trusted_horizon"])]


if __name__ == "__main__":
    main()
