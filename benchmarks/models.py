"""Seconds of the networks at laptop size: `python benchmarks/models.py [--threads N]`. A table for people, no test."""

import argparse
import time
from collections.abc import Callable

import torch

from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.world_model import normalise_latents, rollout


def seconds(work: Callable[[], object], *, repeats: int = 5) -> float:
    """The shortest of several runs, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def uncached(ac: AcPredictor, latents: torch.Tensor, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """The rollout that feeds all frames anew for each one, as the released planner does."""
    for step in range(1, actions.shape[1] + 1):
        predicted = ac(latents, actions[:, :step], states[:, :step])[:, -1:]
        latents = torch.cat((latents, normalise_latents(predicted)), dim=1)
    return latents[:, 1:]


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    encoder = Encoder(EncoderSpec(192, 6, 3))
    clip, latents = torch.randn(8, 3, 8, 96, 96), torch.randn(64, 1, 36, 192)
    context_ids = torch.stack([torch.randperm(144)[:36] for _ in range(8)])
    ac = AcPredictor(AcPredictorSpec(192, 192, 4, 3))
    states, actions = torch.rand(64, 8, 7), 0.1 * torch.randn(64, 8, 7)
    works: dict[str, Callable[[], object]] = {
        "encoder, 8 clips of 144 tokens, forward": torch.inference_mode()(lambda: encoder(clip)),
        "the same, forward and backward": lambda: encoder(clip).mean().backward(),
        "a quarter of its tokens, forward and backward": lambda: encoder(clip, context_ids).mean().backward(),
        "rollout, 64 samples, 8 frames": torch.inference_mode()(lambda: rollout(ac, latents, states, actions)),
        "the same without a cache": torch.inference_mode()(lambda: uncached(ac, latents, states, actions)),
    }
    for name, work in works.items():
        print(f"{name:50} {seconds(work):8.3f} s")


if __name__ == "__main__":
    main()
