"""Does anything starve the encoder? Clips a second of `encode` over a folder of real videos, beside those of the encoder alone.

    python benchmarks/encode_folder.py FOLDER [--size large] [--frames 16] [--crop 256] [--mode pooled] [--rounds 3]
    python benchmarks/encode_folder.py FOLDER --device cuda --workers 15

Random weights. A round is one run of `encode`, which decodes, crops, encodes and writes, and then the same batches through the
same encoder alone, whose pixels are made up and lie on its device; so what else the machine does meets both. Figures are medians
over the rounds. A run is counted from its first batch: the seconds before, in which the decoding processes start, do not grow
with the folder, and stand in a column of their own. So does what the run has waited for frames. On a CPU with one thread the
clock is the process's own, which does not run while others do, and what was waited is added.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.encoding import encode, pipeline
from vjepa2cli.encoding.features import encode_windows
from vjepa2cli.encoding.recipes import Recipe, make_recipe
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.inference import native_precision, prepare_for_inference
from vjepa2cli.models.weights import load_encoder, to_transformers
from vjepa2cli.registry import SIZES
from vjepa2cli.settings import EncodeConfig

AIM = 0.9
Clock = Callable[[], float]


@dataclass(frozen=True)
class Round:
    """One run and its batches alone, in seconds: the run from its first batch, what came before, and what it has waited."""

    clips: int
    run: float
    start: float
    waiting: float
    alone: float


def main() -> None:
    """Print every round, and the share of the encoder's own rate that the runs reach."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=sorted(SIZES), default="large")
    parser.add_argument("--mode", choices=("tokens", "window", "per-frame", "pooled"), default="pooled")
    for name, default in (("frames", 16), ("crop", 256), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--workers", type=int, help="processes that decode; as many as `encode` takes by itself if left out")
    parser.add_argument("--threads", type=int, help="of the encoder on a CPU; as many as torch takes by itself if left out")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads or torch.get_num_threads())
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        size = SIZES[asked.size]
        spec = EncoderSpec(size.embed_dim, size.depth, size.num_heads, size.mlp_ratio, crop=asked.crop, num_frames=asked.frames)
        save_model(place / "model", *to_transformers(Encoder(spec), None))
        rounds = [one_round(place / str(number), place / "model", asked) for number in range(asked.rounds)]
    print("\n| clips | clips/s of the run | of the encoder alone | share | s before the first frame | s waited for frames |")
    print("| --- | --- | --- | --- | --- | --- |")
    for one in rounds:
        figures = (one.clips / one.run, one.clips / one.alone, one.alone / one.run, one.start, one.waiting)
        print(f"| {one.clips} | " + " | ".join(f"{figure:.3g}" for figure in figures) + " |")
    share = statistics.median(one.alone / one.run for one in rounds)
    print(f"\nencode reaches {share:.2f} of the rate of its encoder (aim: {AIM})")


def one_round(out: Path, model: Path, asked: argparse.Namespace) -> Round:
    """A run over the folder, and its batches alone."""
    config = EncodeConfig(mode=asked.mode, num_frames=asked.frames, crop=asked.crop)
    own = asked.device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if own else time.perf_counter
    with noted_batches(clock) as noted:
        encode(asked.folder, model=model, out=out, config=config, device=asked.device, workers=asked.workers, say=print)
        ended = clock()
    timing: dict[str, float] = read_report(out / "encoding.json", "encode")["timing"]
    start = timing["seconds_to_first_frame"]
    waiting = timing["seconds_waiting_for_frames"] - start
    precision = native_precision(asked.device)
    encoder = prepare_for_inference(load_encoder(model), device=asked.device, precision=precision)
    recipe = make_recipe(config, encoder, precision=precision)
    alone = seconds_alone(encoder, noted.shapes, recipe=recipe, device=asked.device, clock=clock)
    run = ended - noted.began + (waiting if own else 0)
    return Round(sum(shape[0] for shape in noted.shapes), run, start, waiting, alone)


@dataclass
class Noted:
    """The shapes of the batches that went through the encoder, and when the first one did."""

    shapes: list[torch.Size] = field(default_factory=list)
    began: float = 0.0


@contextmanager
def noted_batches(clock: Clock) -> Iterator[Noted]:
    """Note what goes through the encoder meanwhile."""
    noted = Noted()

    def noting(encoder: Any, pixels: torch.Tensor, *, recipe: Recipe) -> list[torch.Tensor]:
        noted.began = noted.began or clock()
        noted.shapes.append(pixels.shape)
        return encode_windows(encoder, pixels, recipe=recipe)

    pipeline.encode_windows = noting
    try:
        yield noted
    finally:
        pipeline.encode_windows = encode_windows


def seconds_alone(encoder: Any, batches: list[torch.Size], *, recipe: Recipe, device: str, clock: Clock) -> float:
    """What these batches take where nothing else is to be done."""
    pixels = {shape: torch.randint(0, 256, shape, dtype=torch.uint8, device=device) for shape in dict.fromkeys(batches)}
    encode_windows(encoder, pixels[batches[0]], recipe=recipe)
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    for shape in batches:
        encode_windows(encoder, pixels[shape], recipe=recipe)
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


if __name__ == "__main__":
    main()
