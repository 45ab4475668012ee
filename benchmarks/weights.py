"""How much memory do loading and converting take beside the model itself? A table, in processes of their own.

    python benchmarks/weights.py [--size large] [--rows "load .pt" ...] [--json]

Random weights of a released size, in the layouts that people have, in a temporary folder; every row is a process of its own. Each
figure is a share of the bytes of the float32 networks that are read: the peak of the resident set above what Python and torch
took before (VmHWM, what `/usr/bin/time -v` shows), which counts pages of mapped files too, and the most that was this process's
alone (RssAnon, sampled every few milliseconds). Linux only.
"""

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.conversion import Asked, convert
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.weights import load_encoder, to_transformers
from vjepa2cli.registry import SIZES

PREDICTOR_HEADS = 12


def status() -> dict[str, int]:
    """The kernel's account of this process, in bytes."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) << 10 for line in lines if line[-1] == "kB"}


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Peaks above what was there before, in bytes, and seconds."""
    own, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.003):
            own[0] = max(own[0], status()["RssAnon"])

    before = status()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    del kept
    return {"resident": status()["VmHWM"] - before["VmRSS"], "own": own[0] - before["RssAnon"], "seconds": seconds}


def alone(work: Callable[[], object]) -> dict[str, float]:
    """The same in a process of its own, which has Python and torch and nothing else."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(measured(work)))
    process.start()
    sender.close()
    result: dict[str, float] = receiver.recv()
    process.join()
    return result


def write(folder: Path, spec: EncoderSpec) -> dict[str, int]:
    """Random weights in every layout; returns the bytes of the networks."""
    encoder = Encoder(spec)
    predictor = Predictor(PredictorSpec(spec.embed_dim, 384, 12, PREDICTOR_HEADS, num_mask_tokens=10))
    state, head = encoder.state_dict(), predictor.state_dict()
    tree = {"encoder": state, "target_encoder": {name: tensor.clone() for name, tensor in state.items()}, "predictor": head}
    torch.save(tree, folder / "official.pt")
    save_file(state, folder / "encoder.safetensors")
    save_model(folder / "folder", *to_transformers(encoder, predictor))
    held = {"encoder": state, "predictor": head}
    return {name: sum(tensor.nbytes for tensor in tensors.values()) for name, tensors in held.items()}


def main() -> None:
    """Print one line a measurement, or all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--depth", type=int, help="blocks, where fewer than the size has will do")
    parser.add_argument("--rows", nargs="+", help="the rows that are wanted, else all")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = SIZES[arguments.size]
    spec = EncoderSpec(size.embed_dim, arguments.depth or size.depth, size.num_heads, size.mlp_ratio)
    asked = Asked(num_heads=spec.num_heads, predictor_heads=PREDICTOR_HEADS, crop=spec.crop)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = multiprocessing.get_context("fork").Pool(1)
        with process:
            num_bytes = process.apply(write, (folder, spec))
        encoder, both = num_bytes["encoder"], sum(num_bytes.values())
        official, model = str(folder / "official.pt"), str(folder / "folder")
        rows: dict[str, tuple[int, Callable[[], object]]] = {
            "load .pt": (encoder, lambda: load_encoder(official, spec.num_heads)),
            "load .safetensors": (encoder, lambda: load_encoder(folder / "encoder.safetensors", spec.num_heads)),
            "load folder": (encoder, lambda: load_encoder(model)),
            ".pt to transformers": (both, lambda: convert(official, folder / "a", to="transformers", asked=asked)),
            ".pt to ours, slim": (encoder, lambda: convert(official, folder / "b", to="ours", slim=True, asked=asked)),
            "folder to official": (both, lambda: convert(model, folder / "c.pt", to="official")),
            "folder to ours": (both, lambda: convert(model, folder / "d", to="ours")),
            "folder to official, slim": (
                encoder,
                lambda: convert(model, folder / "e.pt", to="official", slim=True, asked=replace(asked, crop=None)),
            ),
        }
        shares: dict[str, Any] = {}
        for row in arguments.rows or rows:
            whole, work = rows[row]
            found = alone(work)
            shares[row] = {key: found[key] / whole for key in ("resident", "own")} | {"seconds": found["seconds"]}
            if not arguments.json:
                print(f"{row:26} resident {shares[row]['resident']:.2f}  own {shares[row]['own']:.2f}  {found['seconds']:6.1f} s")
        if arguments.json:
            print(json.dumps({"encoder_bytes": encoder, "rows": shares}, indent=1))


if __name__ == "__main__":
    main()
