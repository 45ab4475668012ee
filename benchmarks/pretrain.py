"""What a pretraining step costs, beside what its config says, beside a plain loop over transformers, and on two processes.

    python benchmarks/pretrain.py cost                 tokens, operations and bytes: for every preset, and beside a small run
    python benchmarks/pretrain.py step [--device cuda] seconds and peak memory beside a plain loop with the same weights and masks
    python benchmarks/pretrain.py data                 how long a run waits for its batches
    python benchmarks/pretrain.py cores                clips that a core makes a second, and so how many cores a GPU needs
    python benchmarks/pretrain.py processes            one process and two: seconds a step, and bytes between them

The plain loop is what one writes with the modules of transformers: their embeddings, layers and predictor, with the context
gathered before the blocks, torch's AdamW and an average of the weights. In every round each contender makes one step, so what
else the machine does meets both; the figures are medians over the rounds, of the clock and of the processor's own time, which
does not count what else runs (on CUDA the clock counts). Memory is the peak of a process of its own.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pretrain_loops import Ours, Plain
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from vjepa2cli import config as configs
from vjepa2cli.artifacts.video_store import Description, VideoStore, VideoStoreWriter
from vjepa2cli.data.batches import ClipBatches
from vjepa2cli.data.mask_batches import MaskBatches
from vjepa2cli.data.masking import MaskIds
from vjepa2cli.data.video import use_one_thread, write_video
from vjepa2cli.ingestion import ingest
from vjepa2cli.settings import ClipConfig, IngestConfig, PretrainConfig
from vjepa2cli.train.clip_groups import ClipGroups, find_sources, reader
from vjepa2cli.train.costs import Costs, compute_costs
from vjepa2cli.train.losses import weighted_loss
from vjepa2cli.train.networks import clip_grid
from vjepa2cli.train.pretraining import PretrainTask
from vjepa2cli.train.process_group import choose_device

PREDICTORS = {"large": (384, 12, 12), "huge": (384, 12, 12), "giant": (384, 12, 12)}
SMALL: dict[str, Any] = {
    "step": "pretrain",
    "batch_size": 4,
    "steps": 12,
    "evaluate_every": 100,
    "checkpoint_every": 100,
    "encoder": {"embed_dim": 192, "depth": 4, "num_heads": 3},
    "predictor": {"embed_dim": 96, "depth": 2, "num_heads": 3},
    "clip": {"num_frames": 16, "crop": 128, "fps": 4.0},
    "masking": {"kept": "fixed"},
}
SMALL_V21: dict[str, Any] = SMALL | {
    "encoder": SMALL["encoder"] | {"architecture": "vjepa2.1"},
    "predictor": SMALL["predictor"] | {"levels": 4, "num_mask_tokens": 3},
    "clip": SMALL["clip"] | {"media": "video"},
    "context_loss": {"weight": 0.5, "by_distance": True},
    "beside": [{"batch_size": 8, "clip": {"media": "image", "num_frames": 1, "crop": 128}, "masks": [{"num_blocks": 10}]}],
}
FRAME = (144, 192)
"""Height and width of the frames in the small store."""


def checked(tree: dict[str, Any]) -> PretrainConfig:
    """A config of pretrain."""
    config = configs.validate(tree, where="benchmark")
    assert isinstance(config, PretrainConfig)
    return config


def make_store(folder: Path) -> Path:
    """A store of four videos of forty frames and four images, uncompressed."""
    rng = np.random.default_rng(0)
    for index in range(8):
        blocks = rng.integers(0, 255, (FRAME[0] // 8, FRAME[1] // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        frames = [np.roll(blocks, 3 * shift, axis=1) for shift in range(40 if index < 4 else 1)]
        write_video(folder / f"{index}.mp4", np.stack(frames), fps=8)
    config = IngestConfig(short_side=FRAME[0], min_frames=1, val_fraction=0.0, codec="none")
    ingest([folder], folder / "v.zarr", config=config, workers=0)
    return folder / "v.zarr"


def cost(asked: argparse.Namespace) -> None:
    """Print what each recipe costs by its numbers, then a small run's numbers beside what was counted while it ran."""
    headings = ("preset", "clips", "tokens", "context", "predictor", "PFLOP", "GB read")
    print(f"{headings[0]:30}", *(f"{heading:>10}" for heading in headings[1:]), "   a step; frames stored at the crop, 16:9")
    for name in (name for name in configs.preset_names("pretrain") if name.startswith("vjepa2")):
        costs = compute_costs(configs.load(name, PretrainConfig))
        crop = costs.config.clip.crop
        tokens = (costs.tokens_per_step, costs.context_tokens_per_step, costs.predictor_tokens_per_step)
        figures = [f"{sum(group.clips for group in costs.groups)}", *(f"{count / 1e6:.2f} M" for count in tokens)]
        read = costs.bytes_read_per_step(crop, round(crop * 16 / 9))
        print(
            f"{name:30}", *(f"{figure:>10}" for figure in (*figures, f"{costs.flops_per_step / 1e15:.2f}", f"{read / 1e9:.1f}"))
        )
    print(f"\n{'a small run':30}", *(f"{heading:>14}" for heading in ("computed", "measured", "off by")))
    with tempfile.TemporaryDirectory() as folder:
        store = VideoStore.open(make_store(Path(folder)))
        for title, tree in (("2", SMALL), ("2.1", SMALL_V21)):
            costs = compute_costs(checked(tree))
            for what, computed, measured in measured_costs(costs, store):
                off = f"{computed / measured - 1:+.1%}"
                print(f"{f'V-JEPA {title}: {what}':30}", f"{computed:14.4g}", f"{measured:14.4g}", f"{off:>14}")


def measured_costs(costs: Costs, store: VideoStore) -> list[tuple[str, float, float]]:
    """What is computed, and what is counted in one step: tokens, operations, and bytes that the store reads."""
    config, device = costs.config, torch.device("cpu")
    task = PretrainTask(store, config, device=device)
    clips, rows = ClipGroups(Cold.open(store.path), config, device=device, threads=0), range(config.batch_size)
    clips.batch(1, rows, terms=task.module.terms)  # what is imported and opened once
    before = bytes_read()
    parts = clips.batch(2, rows, terms=task.module.terms).inputs
    read = bytes_read() - before
    ops = torch.ops.aten
    with FlopCounterMode(
        display=False,
        custom_mapping={
            ops._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
            ops._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(
                g, q, k, v
            ),
        },
    ) as counted:
        counts = task.module.counts(parts)
        weighted_loss(task.module(parts), counts, task.module.terms).backward()
    context = sum(ids.context_ids.numel() for part in parts for ids in part.families)
    return [
        ("context tokens", costs.context_tokens_per_step, context),
        ("operations", costs.flops_per_step, counted.get_total_flops()),
        ("bytes read", costs.bytes_read_per_step(*FRAME), read),
    ]


class Cold(VideoStore):
    """A store that has read nothing before, whenever it is asked; else frames that are read again come from maps of its files."""

    def frames_at(self, key: str, indices: Any) -> np.ndarray:
        """Frames by number."""
        return VideoStore.frames_at(copy.deepcopy(self), key, indices)


def bytes_read() -> int:
    """Bytes that this process has read by system calls."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines())
    return int(fields["rchar"])


CONTENDERS: dict[str, Callable[..., Ours | Plain]] = {"ours": Ours, "transformers": Plain}


def step_config(asked: argparse.Namespace) -> PretrainConfig:
    """The config of the step that is compared; both mask tokens begin as zeros, so which one is taken plays no part."""
    width, depth, heads = PREDICTORS.get(asked.size, (96, 6, 3))
    return checked(
        {
            "step": "pretrain",
            "batch_size": asked.batch,
            "precision": asked.precision,
            "encoder": {"size": asked.size},
            "predictor": {"embed_dim": width, "depth": depth, "num_heads": heads},
            "clip": {"num_frames": asked.frames, "crop": asked.crop},
        }
    )


def built(name: str, config: PretrainConfig, device: torch.device) -> Ours | Plain:
    """A contender with its batch."""
    generator = torch.Generator().manual_seed(1)
    shape = (config.batch_size, 3, config.clip.num_frames, config.clip.crop, config.clip.crop)
    masks = MaskBatches(clip_grid(config), config.masks, batch_size=config.batch_size, seed=0)
    ((_, drawn),) = masks.draws(1, rows=range(config.batch_size))
    families = [MaskIds(ids.context_ids.to(device), ids.target_ids.to(device)) for ids in drawn]
    return CONTENDERS[name](config, torch.randn(shape, generator=generator).to(device), families, device=device)


def step(asked: argparse.Namespace) -> None:
    """Print seconds, peak memory and losses of both."""
    device, config = choose_device(asked.device), step_config(asked)
    if asked.only:
        print(json.dumps(peak_of(asked.only, config, device)))
        return
    contenders = {name: built(name, config, device) for name in CONTENDERS}
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    spent: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    losses = {name: contender.step() for name, contender in contenders.items()}  # the first step warms up
    for _ in range(asked.rounds):
        for name, contender in contenders.items():
            began, spent_before = time.perf_counter(), time.process_time()
            contender.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
            spent[name].append(time.process_time() - spent_before)
    grid, size = clip_grid(config), asked.size
    tokens = f"{grid.num_tokens} tokens"
    print(f"ViT {size}, {asked.batch} clips of {asked.frames} frames at {asked.crop} px ({tokens}), {asked.precision}")
    print(f"{device}, torch {torch.__version__}, {torch.get_num_threads()} threads, {asked.rounds} rounds")
    print(f"{'':14}{'seconds':>10}{'least':>10}{'processor':>11}{'peak memory':>14}{'first loss':>14}")
    for name, measured in seconds.items():
        again = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        peak = json.loads(subprocess.run(again, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        times = f"{statistics.median(measured):10.3f}{min(measured):10.3f}{statistics.median(spent[name]):11.3f}"
        print(f"{name:14}{times}{peak / 1e6:11.0f} MB{losses[name]:14.5f}")
    ours, plain = ((statistics.median(seconds[name]), min(seconds[name]), statistics.median(spent[name])) for name in CONTENDERS)
    of_all, of_least, of_spent = (mine / theirs for mine, theirs in zip(ours, plain, strict=True))
    print(f"ours takes {of_all:.2f} of the time of the plain loop, least to least {of_least:.2f}, of a processor {of_spent:.2f}")


def peak_of(name: str, config: PretrainConfig, device: torch.device) -> float:
    """Bytes at the peak of three steps beyond what the process held before; on CUDA those of the device."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = resident("VmRSS")
    contender = built(name, config, device)
    for _ in range(3):
        contender.step()
    return float(torch.cuda.max_memory_allocated()) if device.type == "cuda" else resident("VmHWM") - before


def resident(name: str) -> float:
    """Bytes of memory that this process holds, or held at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024.0 * int(next(line for line in lines if line.startswith(name)).split()[1])


def run_of(store: Path, run_dir: Path, asked: argparse.Namespace, *, threads: int, processes: int = 1) -> list[dict[str, float]]:
    """The metrics of each step of a run by the command line, after the first two."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    tree = SMALL | {"encoder": {"size": asked.size}, "precision": asked.precision, "steps": asked.rounds + 2}
    config = run_dir.with_suffix(".yaml")
    configs.save(checked(tree), config)
    command = [
        sys.executable,
        *launch,
        "-m",
        "vjepa2cli",
        "--threads",
        str(threads),
        "pretrain",
        store,
        "--run-dir",
        run_dir,
    ]
    subprocess.run([*map(str, command), "--config", config, "--device", asked.device], check=True, capture_output=True)
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["step"] > 2 and "seconds" in row]


def data(asked: argparse.Namespace) -> None:
    """Print how much of its steps a run waits for batches."""
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder))
        rows = run_of(store, Path(folder) / "run", asked, threads=asked.threads)
    waited, whole = (statistics.fmean(row[name] for row in rows) for name in ("waited", "seconds"))
    print(f"{len(rows)} steps of {whole:.3f} s, of which {waited * 1e3:.1f} ms waiting for the batch: {waited / whole:.2%}")


def cores(asked: argparse.Namespace) -> None:
    """Print the seconds of a core that a step's clips take, as measured, and those of a GPU, computed at a stated rate."""
    torch.set_num_threads(1)
    use_one_thread()
    print(
        f"{'preset':30}{'core':>10}{'GPU':>10}{'clips/s/GPU':>14}{'cores a GPU':>14}   a GPU at {asked.tflops:g} TFLOP a second"
    )
    taken: dict[tuple[int, int], float] = {}
    for name in (name for name in configs.preset_names("pretrain") if name.startswith("vjepa2")):
        config = configs.load(name, PretrainConfig)
        assert isinstance(config, PretrainConfig)
        core, clips = 0.0, sum(group.batch_size for group in config.groups)
        for group in config.groups:
            shape = (group.clip.num_frames, group.clip.crop)
            if shape not in taken:
                taken[shape] = seconds_of_a_clip(group.clip, asked.rounds)
            core += group.batch_size * taken[shape]
        gpu = compute_costs(config).flops_per_step / (asked.tflops * 1e12)
        print(f"{name:30}{core:8.0f} s{gpu:8.0f} s{clips / gpu:14.1f}{core / gpu:14.1f}", flush=True)
    print()
    for (frames, crop), seconds in sorted(taken.items()):
        print(f"{frames} frames at {crop} px: {1 / seconds:.1f} clips a second and core, read and augmented")


def seconds_of_a_clip(shape: ClipConfig, rounds: int) -> float:
    """Of one core, to read a clip of a stored 16:9 video whose short side is the crop, and to augment it; the median."""
    fps = shape.fps or 4.0
    with tempfile.TemporaryDirectory() as folder:
        writer = VideoStoreWriter.open(Path(folder) / "v.zarr", {"codec": "none", "shard_frames": 512})
        rng = np.random.default_rng(0)
        with writer.entry("a") as entry:
            for index in range(shape.num_frames + 16):
                pixels = rng.integers(0, 255, (shape.crop, round(shape.crop * 16 / 9), 3), np.uint8)
                entry.append(index / fps, index, pixels)
            entry.finish(Description("a", "", "a", fps))
        store = writer.finalise({"a": {"split": "train", "weight": None}}, refused=[], provenance={})
        batches = ClipBatches(
            find_sources(store, "train", "any"), reader(store), shape=shape, tubelet_size=2, batch_size=rounds, seed=0
        )
        clip, spent = batches.empty(1)[0], []
        for row in range(-2, rounds):  # the first two warm up
            began = time.process_time()
            batches.fill(clip, 1, max(row, 0))
            spent.append(time.process_time() - began)
    return statistics.median(spent[2:])


def processes(asked: argparse.Namespace) -> None:
    """Print seconds a step of the same batch on one process and on two, a thread each, and what passes between them."""
    trained = compute_costs(checked(SMALL | {"encoder": {"size": asked.size}}))
    gradient = 4 * (trained.encoder_parameters + trained.predictor_parameters)
    with tempfile.TemporaryDirectory() as folder:
        store, medians = make_store(Path(folder)), []
        for count in (1, 2):
            before = bytes_on_loopback()
            rows = run_of(store, Path(folder) / f"run{count}", asked, threads=1, processes=count)
            passed = (bytes_on_loopback() - before) / (len(rows) + 2)
            medians.append(statistics.median(row["seconds"] for row in rows))
            print(f"{count} of one thread: {medians[-1]:.3f} s a step, {passed / 1e6:.1f} MB a step over the loopback")
    faster = medians[0] / medians[1]
    print(f"two are {faster:.2f} times as fast as one; gradients are {gradient / 1e6:.1f} MB, which each sends once")


def bytes_on_loopback() -> int:
    """Bytes that the loopback device has carried since the machine started."""
    line = next(line for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def main() -> None:
    """Run one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"cost": cost, "step": step, "data": data, "cores": cores, "processes": processes}
    parser.add_argument("part", choices=parts)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", default=None, help="of the encoder: tiny on a CPU, large on CUDA")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    for name, default in (("batch", 4), ("frames", 16), ("crop", 128), ("rounds", 10), ("threads", len(os.sched_getaffinity(0)))):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tflops", type=float, default=400.0, help="that a GPU really reaches, for `cores`")
    parser.add_argument("--only", choices=tuple(CONTENDERS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.size = asked.size or ("tiny" if asked.device == "cpu" else "large")
    torch.set_num_threads(asked.threads)
    parts[asked.part](asked)


if __name__ == "__main__":
    main()
