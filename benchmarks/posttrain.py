"""What post-training on cached latents saves, and what it takes of memory.

    python benchmarks/posttrain.py loop [--device cuda] [--size large]   windows a second and peak memory, beside the same
                                                                         training with the encoder in the loop
    python benchmarks/posttrain.py memory [--config NAME] [--depth 4]    the memory that a preset states, beside what a step takes

Both contenders of `loop` have the same weights, draw the same windows of the same recordings and make the same update; one reads
latents, the other frames, which it encodes. Rounds alternate; figures are medians. On a CPU seconds are those of the processor,
of all threads of the process. Each peak is that of a process of its own, beyond what it held before it began.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from precompute import EPISODE, make_model, make_recordings, seconds_of

from vjepa2cli import config as configs
from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.data.transforms import frame_transform
from vjepa2cli.data.windows import Windows
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.inference import prepare_for_inference
from vjepa2cli.models.weights import load_encoder
from vjepa2cli.models.world_model import encode_frames
from vjepa2cli.precomputation import precompute
from vjepa2cli.registry import SIZES
from vjepa2cli.settings import PosttrainConfig, PrecomputeConfig
from vjepa2cli.train.ac_costs import AcCosts, LatentShape
from vjepa2cli.train.ac_objective import PosttrainModule
from vjepa2cli.train.losses import weighted_loss
from vjepa2cli.train.posttraining import PosttrainTask

Made = Callable[[int], float]
"""Makes the update of a step and returns its loss."""


def updates(module: PosttrainModule, batch: Callable[[int], tuple[Windows, bool]]) -> Made:
    """The update of a step on what `batch` gives for it."""
    adamw = torch.optim.AdamW(module.parameters(), lr=1e-4)

    def made(step: int) -> float:
        inputs = batch(step)
        loss = weighted_loss(module(inputs), module.counts(inputs).to(module.device), module.terms)
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        return float(loss.detach())

    return made


def cached(folder: Path, config: PosttrainConfig, device: torch.device) -> Made:
    """Post-training on latents."""
    task = PosttrainTask(LatentStore.open(folder / "l.h5"), config, device=device, threads=1)
    return updates(task.module, lambda step: task.batch(step, rows=range(config.batch_size)).inputs)


def in_the_loop(folder: Path, config: PosttrainConfig, device: torch.device) -> Made:
    """The same with frames that are encoded in every step; which windows and which weights is asked of the same task."""
    store = LatentStore.open(folder / "l.h5")
    task = PosttrainTask(store, config, device=device)
    videos, crop = VideoStore.open(folder / "r.zarr"), store.preprocessing["crop"]
    encoder = prepare_for_inference(load_encoder(store.encoder_source, device=device), device=device, precision=config.precision)

    def batch(step: int) -> tuple[Windows, bool]:
        drawn = task.batch(step, rows=range(config.batch_size))
        windows, with_rollout = drawn.inputs
        latents = []
        for name in drawn.ids:  # `episode 3 17:24`
            _, episode, steps = name.split()
            frames = videos.frames(f"{int(episode):05d}", int(steps.split(":")[0]), int(steps.split(":")[1]) + 1)
            with torch.inference_mode():
                latents.append(encode_frames(encoder, frame_transform(frames, crop=crop).to(device), layer_norm=True).clone())
        return replace(windows, latents=torch.stack(latents)), with_rollout

    return updates(task.module, batch)


CONTENDERS = {"cached latents": cached, "encoder in the loop": in_the_loop}


def loop(asked: argparse.Namespace) -> None:
    """Print windows a second and peak memory of both."""
    device = torch.device(asked.device)
    config = configs.load(
        "tiny-posttrain", PosttrainConfig, overrides=[f"batch_size={asked.batch}", f"num_frames={asked.frames}"]
    )
    if asked.only:
        print(json.dumps(peak_of(lambda: CONTENDERS[asked.only](asked.folder, config, device), asked.device)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, store = make_model(folder, asked.size, asked.crop), make_recordings(folder, asked.episodes, asked.crop)
        tree = {"step": "precompute", "crop": asked.crop, "batch_frames": 16, "precision": config.precision, "dtype": "float32"}
        made = configs.validate(tree, where="benchmark")
        assert isinstance(made, PrecomputeConfig)
        began = seconds_of(device)
        precompute(store, folder / "l.h5", model=str(model), config=made, device=device)
        once = seconds_of(device) - began
        contenders = {what: build(folder, config, device) for what, build in CONTENDERS.items()}
        losses = {what: step(1) for what, step in contenders.items()}  # the first step warms up
        seconds: dict[str, list[float]] = {what: [] for what in contenders}
        for turn in range(asked.rounds):
            for what, step in contenders.items():
                began = seconds_of(device)
                step(turn + 2)
                seconds[what].append(seconds_of(device) - began)
        print(f"ViT {asked.size} at {asked.crop} px, {asked.batch} windows of {asked.frames} steps, {config.precision}, {device}")
        print(
            f"{torch.get_num_threads()} threads, {asked.rounds} rounds; {asked.episodes * EPISODE} frames encoded in {once:.1f} s"
        )
        print(f"{'':22}{'windows/s':>12}{'peak memory':>14}{'first loss':>14}")
        for what, measured in seconds.items():
            again = [sys.executable, __file__, *sys.argv[1:], "--folder", str(folder), "--only", what]
            peak = json.loads(subprocess.run(again, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
            rate = asked.batch / statistics.median(measured)
            print(f"{what:22}{rate:12.2f}{peak / 1e6:11.0f} MB{losses[what]:14.5f}")
        ratios = [slow / fast for fast, slow in zip(*seconds.values(), strict=True)]
        print(f"cached latents are {statistics.median(ratios):.1f} times as fast")


def memory(asked: argparse.Namespace) -> None:
    """Print what a preset states, and what one update of the rows that a GPU holds at once takes."""
    device = torch.device(asked.device)
    config = configs.load(asked.config, PosttrainConfig, overrides=[f"predictor.depth={asked.depth}"] if asked.depth else [])
    rows, columns, width = configs.about(asked.config).get("latents", (6, 6, 192))
    gpus = configs.about(asked.config).get("gpus", 1)
    costs, chosen = AcCosts(config, LatentShape(rows, columns, width)), config.predictor
    count = round(costs.rows_at_once(gpus))

    def build() -> Made:
        spec = AcPredictorSpec(width, chosen.embed_dim, chosen.depth, chosen.num_heads, residual=chosen.residual)
        predictor = AcPredictor(spec, generator=torch.Generator().manual_seed(0))
        predictor.activation_checkpointing = chosen.activation_checkpointing
        module = PosttrainModule(predictor, config).to(device)
        latents = torch.randn(count, config.num_frames, rows * columns, width)
        numbers = torch.zeros(count, config.num_frames, 7)
        return updates(module, lambda step: (Windows(latents, numbers, numbers[:, 1:]), True))

    peak = peak_of(build, asked.device)
    state, activations = costs.state_bytes(gpus), costs.activation_bytes(gpus)
    print(f"{asked.config}, {chosen.depth} blocks, {count} windows at once, {config.precision}, {device}")
    print(f"stated: {state / 1e9:.2f} GB weights, gradients, moments, {activations / 1e9:.2f} GB activations")
    print(f"measured: {peak / 1e9:.2f} GB at the peak of two updates, {peak / (state + activations):.2f} of what is stated")


def peak_of(build: Callable[[], Made], device: str) -> float:
    """Bytes at the peak of building and of two updates beyond what the process held before; on CUDA those of the device."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = resident("VmRSS")
    step = build()
    for number in (1, 2):
        step(number)
    return float(torch.cuda.max_memory_allocated()) if device == "cuda" else resident("VmHWM") - before


def resident(name: str) -> float:
    """Bytes of memory that this process holds, or held at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024.0 * int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> None:
    """Run one of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"loop": loop, "memory": memory}
    parser.add_argument("part", choices=parts)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--config", default="tiny-posttrain", help="of memory: a preset of posttrain")
    parser.add_argument("--depth", type=int, help="of memory: so many blocks instead of the preset's")
    for name, default in (("crop", 128), ("batch", 4), ("frames", 8), ("episodes", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=tuple(CONTENDERS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    parts[asked.part](asked)


if __name__ == "__main__":
    main()
