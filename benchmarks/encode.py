"""How fast is our encoder beside that of transformers with the same weights, and beside the bare products that it is made of?

    python benchmarks/encode.py [--size large] [--frames 16] [--crop 256] [--batch 1] [--rounds 5] [--threads N]
    python benchmarks/encode.py --device cuda --size large giant --frames 16 64 --batch 8

Random weights, one random clip; transformers without its predictor (`get_vision_features`), which its users have to ask for, and
with its fused attention. In every round each contender runs once, so what else the machine does meets all of them; the figures
are medians over the rounds. On a CPU with one thread the clock is the process's own, which does not run while others do.

The floor is what a forward cannot go below with torch's own calls: the linear maps and the attention of all blocks and nothing
else, each in the dtype in which it is faster. On CUDA the rate of one large matrix product in bfloat16 stands for the machine,
and the peak is of the weights and what a forward takes beside them.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.inference import native_precision, prepare_for_inference
from vjepa2cli.models.weights import to_transformers
from vjepa2cli.registry import SIZES, ModelSize

with warnings.catch_warnings(action="ignore"):
    from transformers import VJEPA2Config, VJEPA2Model

PRODUCT = 8192
"""Rows of the square matrices by which a CUDA device is rated."""
TRIALS = 3
"""Runs of each bare call by which the dtype of the floor is chosen."""


@dataclass(frozen=True)
class Work:
    """Something to time: `run` gives [B, N, D], or what it likes where no features are compared; bytes of its weights."""

    run: Callable[[], Tensor]
    weight_bytes: int = 0


def main() -> None:
    """Print the table, the ratios and what the forward is made of, for every size and number of frames."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), nargs="+", default=["large"])
    parser.add_argument("--frames", type=int, nargs="+", default=[16])
    for name, default in (("crop", 256), ("batch", 1), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, help="of a CPU; as many as torch takes by itself if left out")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads or torch.get_num_threads())
    print(f"torch {torch.__version__}, {machine(asked.device)}, native precision {native_precision(asked.device)}")
    for size, frames in product(asked.size, asked.frames):
        shape = (asked.batch, 3, frames, asked.crop, asked.crop)
        print(f"\nViT {size}, batch {asked.batch}, {frames} frames of {asked.crop} px\n")
        compare(SIZES[size], shape, device=asked.device, rounds=asked.rounds)


def machine(device: str) -> str:
    """What the figures are of."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU with {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


@torch.inference_mode()
def compare(size: ModelSize, shape: tuple[int, ...], *, device: str, rounds: int) -> None:
    """Measure and print one shape of clip."""
    clip = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    works = contenders(size, clip)
    reference = works["ours, float32"].run()
    cosines = {name: agreement(work.run(), reference) for name, work in works.items()}
    del reference
    parts = floor_parts(size, shape, device)
    works |= {name: Work(lambda part=part: repeated(part, size.depth)) for name, part in parts.items()}
    if device == "cuda":
        a, b = (torch.randn(PRODUCT, PRODUCT, device=device, dtype=torch.bfloat16) for _ in range(2))
        works["product"] = Work(lambda: a @ b)
    seconds, memory = measured(works, rounds=rounds, device=device)
    print_table(seconds, memory, cosines, batch=shape[0])
    print_ratios(seconds, size, shape)


def contenders(size: ModelSize, clip: Tensor) -> dict[str, Work]:
    """The forwards that are compared."""
    device, (frames, crop) = clip.device, clip.shape[2:4]
    spec = EncoderSpec(size.embed_dim, size.depth, size.num_heads, size.mlp_ratio, crop=crop, num_frames=frames)
    encoder = Encoder(spec)
    config, tensors = to_transformers(encoder, None)
    theirs = VJEPA2Model(VJEPA2Config(**config, attn_implementation="sdpa")).eval()
    lacking = theirs.load_state_dict(tensors, strict=False)
    assert not lacking.unexpected_keys, lacking
    assert all(name.startswith("predictor.") for name in lacking.missing_keys), lacking
    del theirs.predictor
    theirs_half = deepcopy(theirs).to(device, torch.bfloat16)
    ours_half = prepare_for_inference(deepcopy(encoder), device=device, precision="bf16")
    ours = prepare_for_inference(encoder, device=device, precision="fp32")
    theirs = theirs.to(device)
    frames_first = clip.transpose(1, 2)
    frames_first_half = frames_first.bfloat16()
    return {
        "transformers, float32": Work(lambda: features(theirs, frames_first), num_bytes(theirs)),
        "transformers, bfloat16": Work(lambda: features(theirs_half, frames_first_half), num_bytes(theirs_half)),
        "ours, float32": Work(lambda: ours(clip), num_bytes(ours)),
        "ours, bfloat16": Work(lambda: ours_half(clip), num_bytes(ours_half)),
    }


def num_bytes(network: nn.Module) -> int:
    """Of the weights."""
    return sum(weight.nbytes for weight in network.parameters())


def features(model: Any, clip: Tensor) -> Tensor:
    """[B, N, D] of a model of transformers."""
    encoded: Tensor = model.get_vision_features(clip)
    return encoded


def agreement(encoded: Tensor, reference: Tensor) -> float:
    """The least cosine of a token to the reference's."""
    return float(F.cosine_similarity(encoded.float(), reference.float(), dim=-1).min())


def floor_parts(size: ModelSize, shape: tuple[int, ...], device: str) -> dict[str, Callable[[], Tensor]]:
    """The linear maps of one block, and its attention, bare and each in the dtype that a few trials find faster."""
    batch, num_tokens = shape[0], count_tokens(shape)
    dim, hidden, heads = size.embed_dim, int(size.embed_dim * size.mlp_ratio), size.num_heads
    found: dict[str, dict[torch.dtype, Callable[[], Tensor]]] = {"linear maps": {}, "attention": {}}
    for dtype in (torch.float32, torch.bfloat16):

        def random(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(*shape, device=device, dtype=dtype)

        maps = [
            (random(batch, num_tokens, wide_in), random(wide_out, wide_in), random(wide_out))
            for wide_in, wide_out in ((dim, 3 * dim), (dim, dim), (dim, hidden), (hidden, dim))
        ]
        q, k, v = random(3, batch, heads, num_tokens, dim // heads)
        found["linear maps"][dtype] = lambda maps=maps: linear_maps(maps)
        found["attention"][dtype] = lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v)
    chosen = {}
    for part, calls in found.items():
        trials = {str(dtype): Work(call) for dtype, call in calls.items()}
        seconds, _ = measured(trials, rounds=TRIALS, device=device)
        best = min(calls, key=lambda dtype: seconds[str(dtype)])
        chosen[f"{part} in {str(best).removeprefix('torch.')}"] = calls[best]
    return chosen


def linear_maps(operands: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """One after the other, of which none is kept but the last."""
    for x, weight, bias in operands:
        out = F.linear(x, weight, bias)
    return out


def repeated(call: Callable[[], Tensor], count: int) -> Tensor:
    """Once for each block."""
    for _ in range(count):
        out = call()
    return out


def measured(works: dict[str, Work], *, rounds: int, device: str) -> tuple[dict[str, float], dict[str, int]]:
    """The median seconds of each work, all of them in turn in every round, and on CUDA the peak bytes of each."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in works}
    memory: dict[str, int] = {}
    for work in works.values():
        work.run()
    for _ in range(rounds):
        for name, work in works.items():
            if device == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                held = torch.cuda.memory_allocated()
            start = clock()
            work.run()
            if device == "cuda":
                torch.cuda.synchronize()
                memory[name] = work.weight_bytes + torch.cuda.max_memory_allocated() - held
            seconds[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}, memory


def print_table(seconds: dict[str, float], memory: dict[str, int], cosines: dict[str, float], *, batch: int) -> None:
    """The contenders."""
    print("| encoder | s a batch | clips/s | least cosine to float32 |" + (" peak GiB |" if memory else ""))
    print("| --- | --- | --- | --- |" + (" --- |" if memory else ""))
    for name, cosine in cosines.items():
        peak = f" {memory[name] / 2**30:.2f} |" if memory else ""
        print(f"| {name} | {seconds[name]:.3f} | {batch / seconds[name]:.3f} | {cosine:.6f} |{peak}")


def print_ratios(seconds: dict[str, float], size: ModelSize, shape: tuple[int, ...]) -> None:
    """The ratios that are aimed at, and the floor."""
    ours = min(seconds["ours, float32"], seconds["ours, bfloat16"])
    print()
    for theirs, aim in (("transformers, float32", "1.7 on a CPU"), ("transformers, bfloat16", "1.4 on a CPU, 1.2 on CUDA")):
        print(f"ours is {seconds[theirs] / ours:.2f} times as fast as {theirs} (aim: {aim})")
    parts = {name: time for name, time in seconds.items() if name.startswith(("linear maps", "attention"))}
    floor = sum(parts.values())
    print(f"the floor is {floor:.3f} s: " + " and ".join(f"{time:.3f} s of {name}" for name, time in parts.items()))
    print(f"ours takes {ours / floor:.2f} of the floor (aim: 1.15)")
    if "product" in seconds:
        rate = 2 * PRODUCT**3 / seconds["product"]
        share = flops(size, shape) / ours / rate
        print(f"one product: {rate / 1e12:.0f} TFLOP/s in bfloat16; ours works at {share:.0%} of it (aim: 55 %)")


def count_tokens(shape: tuple[int, ...]) -> int:
    """Tokens of a clip [B, 3, F, Y, X]."""
    _, _, frames, height, width = shape
    return frames // 2 * (height // 16) * (width // 16)


def flops(size: ModelSize, shape: tuple[int, ...]) -> float:
    """Operations of the blocks in one forward: two for each weight and token, and two products of all pairs in attention."""
    num_tokens = count_tokens(shape)
    weights = size.embed_dim**2 * (4 + 2 * size.mlp_ratio)
    return size.depth * shape[0] * (2 * num_tokens * weights + 4 * num_tokens**2 * size.embed_dim)


if __name__ == "__main__":
    main()
