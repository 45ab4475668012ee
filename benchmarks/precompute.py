"""How much of the encoder's speed precompute keeps, and how fast training windows are read from what it wrote.

    python benchmarks/precompute.py throughput [--device cuda] [--size large]   frames a second, beside the encoder alone
    python benchmarks/precompute.py reads [--gigabytes 2]                       windows a second from a cold and a warm disk, and
                                                                                how long post-training waits for them

The encoder alone is given the same batches, ready on the device, and nothing is kept of what it makes. Rounds of both alternate,
and figures are medians over the rounds. On a CPU seconds are those of the processor, of all threads of the process, so that
nothing else that the machine does counts, and reading ahead saves nothing. Before a cold read the system is told to drop what it
holds of the file; reading the file from end to end in blocks of a window is the limit beside it.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from vjepa2cli import config as configs
from vjepa2cli.artifacts.latent_store import Episode, LatentHeader, LatentStore, Layout, open_writer
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.video_store import Description, VideoStoreWriter
from vjepa2cli.data.windows import WindowBatches
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.inference import prepare_for_inference
from vjepa2cli.models.weights import load_encoder, to_transformers
from vjepa2cli.models.world_model import encode_frames
from vjepa2cli.precomputation import Precompute
from vjepa2cli.registry import SIZES
from vjepa2cli.settings import PosttrainConfig, PrecomputeConfig
from vjepa2cli.train.posttraining import posttrain

EPISODE = 60
"""Steps of a recording: fifteen seconds at four a second."""


def make_model(folder: Path, size: str, crop: int) -> Path:
    """A model folder with an encoder of a size and fresh weights."""
    row = SIZES[size]
    spec = EncoderSpec(row.embed_dim, row.depth, row.num_heads, row.mlp_ratio, crop=crop)
    save_model(folder / "model", *to_transformers(Encoder(spec, generator=torch.Generator().manual_seed(0)), None))
    return folder / "model"


def make_recordings(folder: Path, episodes: int, side: int) -> Path:
    """A store of recordings whose pictures move, as tall as `side` and half as wide again."""
    store, rng = VideoStoreWriter.open(folder / "r.zarr", {"codec": "zstd", "shard_frames": 512}), np.random.default_rng(0)
    for number in range(episodes):
        scene = rng.integers(0, 255, (side // 8, side * 3 // 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        with store.entry(f"{number:05d}") as entry:
            for index in range(EPISODE):
                entry.append(index / 4, index, np.roll(scene, 2 * index, axis=1))
            about = Description(f"{number}", f"{number}", f"{number}", fps=4.0, robot="arm")
            entry.finish(about, rows={"states": rng.normal(size=(EPISODE, 7)).astype(np.float32)})
    store.finalise({f"{number:05d}": {"split": "train", "weight": None} for number in range(episodes)}, refused=[], provenance={})
    return folder / "r.zarr"


def throughput(asked: argparse.Namespace) -> None:
    """Print frames a second of precompute and of the encoder alone."""
    device = torch.device(asked.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, store = make_model(folder, asked.size, asked.crop), make_recordings(folder, asked.episodes, asked.crop)
        tree = {"step": "precompute", "crop": asked.crop, "batch_frames": asked.batch, "precision": asked.precision}
        config = configs.validate(tree, where="benchmark")
        assert isinstance(config, PrecomputeConfig)
        encoder = prepare_for_inference(load_encoder(str(model), device=device), device=device, precision=config.precision)
        frames, parts = asked.episodes * EPISODE, -(-EPISODE // asked.batch)
        batch = torch.randn(EPISODE // parts, 3, asked.crop, asked.crop, generator=torch.Generator().manual_seed(0)).to(device)
        seconds: dict[str, list[float]] = {"encoder alone": [], "precompute": []}
        for turn in range(asked.rounds + 1):  # the first warms up
            work = Precompute(store, folder / f"{turn}.h5", model=str(model), config=config, device=device)
            began = seconds_of(device)
            with torch.inference_mode():
                for _ in range(asked.episodes * parts):
                    encode_frames(encoder, batch, layer_norm=True)
            middle = seconds_of(device)
            work.run()
            ended = seconds_of(device)
            size = (folder / f"{turn}.h5").stat().st_size
            (folder / f"{turn}.h5").unlink()
            if turn:
                seconds["encoder alone"].append((middle - began) * frames / (asked.episodes * parts * len(batch)))
                seconds["precompute"].append(ended - middle)
    print(f"ViT {asked.size} at {asked.crop} px, {config.precision}, {device}, {torch.get_num_threads()} threads")
    print(f"{frames} frames in batches of {len(batch)}, {size / 1e6:.1f} MB of float16, {asked.rounds} rounds")
    for what, measured in seconds.items():
        print(f"{what:16}{frames / statistics.median(measured):10.1f} frames/s")
    shares = [alone / whole for alone, whole in zip(seconds["encoder alone"], seconds["precompute"], strict=True)]
    print(f"precompute keeps {statistics.median(shares):.1%} of the encoder's speed")


def seconds_of(device: torch.device) -> float:
    """A clock: of the wall once a GPU has done what was started, or of the processor that this process has used."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def make_latents(path: Path, gigabytes: float) -> Path:
    """Latents of noise, as large as those of ViT-g at 256 px, in so many gigabytes."""
    header = LatentHeader("noise", "noise", True, (1, 16, 16), 1408, 4.0, "arm", {"crop": 256, "geometry": "wide"}, {})
    rng = np.random.default_rng(0)
    count = max(2, round(gigabytes * 1e9 / (EPISODE * 256 * 1408 * 2)))
    states = rng.normal(size=(EPISODE, 7)).astype(np.float32)
    episodes = [Episode(f"{number}", "train", states, np.diff(states, axis=0)) for number in range(count)]
    noise = torch.randn(EPISODE + count, 256, 1408, generator=torch.Generator().manual_seed(0))
    with open_writer(path, Layout(header, episodes, "float16")) as writer:
        for index in writer.left:
            writer.write(index, noise[index : index + EPISODE])
            writer.finish(index)
    return path


def drop_from_memory(path: Path) -> None:
    """Let the system forget what it holds of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def reads(asked: argparse.Namespace) -> None:
    """Print how fast windows are read, and how long a post-training of a small predictor waits for them."""
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        path = make_latents(Path(name) / "l.h5", asked.gigabytes)
        window = 8 * 256 * 1408 * 2
        print(f"{path.stat().st_size / 1e9:.2f} GB of float16, windows of 8 steps of {window / 8e3:.0f} kB, one thread")
        drop_from_memory(path)
        began = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            buffer, taken = bytearray(window), 0
            while count := file.readinto(buffer):
                taken += count
        print(f"{'end to end, cold':22}{taken / 1e6 / (time.perf_counter() - began):8.0f} MB/s")
        store = LatentStore.open(path)
        batches = WindowBatches(store, store.of_split("train"), num_frames=8, seed=0)
        for state in ("cold", "warm"):
            if state == "cold":
                drop_from_memory(path)
            began = time.perf_counter()
            for step in range(asked.rounds):
                batches.batch(step, rows=range(8))
            rate = 8 * asked.rounds / (time.perf_counter() - began)
            print(f"{f'windows drawn, {state}':22}{rate * window / 1e6:8.0f} MB/s{rate:8.0f} windows/s")
        costs = 46.1e6 / (2.014e15 / 32 / 400e12)
        print(f"a GPU that does 400 TFLOP/s of the released recipe reads {costs / 1e6:.0f} MB/s")
        never = 10**6
        tree = {"step": "posttrain", "steps": asked.rounds, "batch_size": asked.batch, "evaluate_every": never}
        config = configs.validate(tree | {"checkpoint_every": never}, where="benchmark")
        assert isinstance(config, PosttrainConfig)
        for threads in (0, 1):
            drop_from_memory(path)
            run_dir = Path(name) / f"run{threads}"
            posttrain(path, run_dir, config=config, threads=threads, device=asked.device)
            lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
            rows = [line for line in lines if "seconds" in line and line["step"] > 1]
            waited, whole = (statistics.fmean(row[key] for row in rows) for key in ("waited", "seconds"))
            how = "a thread reads ahead" if threads else "read when needed"
            print(
                f"{how}, cold: {len(rows)} steps of {whole:.3f} s, of which {waited * 1e3:.1f} ms waiting: {waited / whole:.2%}"
            )


def main() -> None:
    """Run one of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"throughput": throughput, "reads": reads}
    parser.add_argument("part", choices=parts)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, help="where the latents are written; a disk, not memory")
    for name, default in (("crop", 256), ("batch", 8), ("episodes", 2), ("rounds", 5), ("threads", len(os.sched_getaffinity(0)))):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    parts[asked.part](asked)


if __name__ == "__main__":
    main()
