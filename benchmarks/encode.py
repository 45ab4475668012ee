"""How fast is our encoder beside that of transformers with the same weights, and beside the bare products that it is made of?

    python benchmarks/encode.py [--size large] [--frames 16] [--crop 256] [--batch 1] [--rounds 5] [--device cuda]

Random weights, one random clip; transformers without its predictor (`get_vision_features`), which its users have to ask for. In
every round each contender runs once, so what else the machine does meets all of them; the figures are medians over the rounds.
The floor is what a forward cannot go below with torch's own calls: its linear maps and its attention alone, each in the dtype
in which it is faster. On CUDA the rate of one large matrix product in bfloat16 stands for the machine.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.inference import native_precision, prepare_for_inference
from vjepa2cli.models.weights import to_transformers
from vjepa2cli.registry import SIZES, ModelSize

with warnings.catch_warnings(action="ignore"):
    from transformers import VJEPA2Config, VJEPA2Model

PRODUCT = 8192
"""Rows of the square matrices by which a CUDA device is rated."""


def main() -> None:
    """Print the table, the ratios and what the forward is made of."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="large")
    for name, default in (("frames", 16), ("crop", 256), ("batch", 1), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    asked = parser.parse_args()
    size = SIZES[asked.size]
    clip = torch.randn(asked.batch, 3, asked.frames, asked.crop, asked.crop, generator=torch.Generator().manual_seed(0))
    print(f"ViT {asked.size}, batch {asked.batch}, {asked.frames} frames of {asked.crop} px, {asked.device}: ", end="")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, native precision {native_precision(asked.device)}")
    with torch.inference_mode():
        works = contenders(size, clip.to(asked.device), crop=asked.crop, frames=asked.frames)
        cosines = {name: agreement(work(), works["ours, float32"]()) for name, work in works.items()}
        works |= floor_works(size, clip.shape, asked.device)
        seconds, memory = measured(works, rounds=asked.rounds, device=asked.device)
    print_results(seconds, memory, cosines, size, clip)


def contenders(size: ModelSize, clip: Tensor, *, crop: int, frames: int) -> dict[str, Callable[[], Tensor]]:
    """The forwards that are compared, each a function of nothing that gives [B, N, D]."""
    device = clip.device
    spec = EncoderSpec(size.embed_dim, size.depth, size.num_heads, size.mlp_ratio, crop=crop, num_frames=frames)
    encoder = Encoder(spec)
    config, tensors = to_transformers(encoder, None)
    theirs = VJEPA2Model(VJEPA2Config(**config)).eval()
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
        "transformers, float32": lambda: features(theirs, frames_first),
        "transformers, bfloat16": lambda: features(theirs_half, frames_first_half),
        "ours, float32": lambda: ours(clip),
        "ours, bfloat16": lambda: ours_half(clip),
    }


def features(model: Any, clip: Tensor) -> Tensor:
    """[B, N, D] of a model of transformers."""
    encoded: Tensor = model.get_vision_features(clip)
    return encoded


def agreement(encoded: Tensor, reference: Tensor) -> float:
    """The least cosine of a token to the reference's."""
    return float(F.cosine_similarity(encoded.float(), reference.float(), dim=-1).min())


def floor_works(size: ModelSize, shape: torch.Size, device: str) -> dict[str, Callable[[], Tensor]]:
    """The linear maps and the attention of one block, bare and in both dtypes; on CUDA also the product that rates it."""
    batch, _, frames, height, width = shape
    num_tokens = frames // 2 * (height // 16) * (width // 16)
    dim, hidden, heads = size.embed_dim, int(size.embed_dim * size.mlp_ratio), size.num_heads
    works: dict[str, Callable[[], Tensor]] = {}
    for dtype in (torch.float32, torch.bfloat16):

        def random(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(*shape, device=device, dtype=dtype)

        for number, (wide_in, wide_out) in enumerate(((dim, 3 * dim), (dim, dim), (dim, hidden), (hidden, dim))):
            x, weight, bias = random(batch, num_tokens, wide_in), random(wide_out, wide_in), random(wide_out)
            works[f"linear {number} {dtype}"] = lambda x=x, weight=weight, bias=bias: F.linear(x, weight, bias)
        q, k, v = random(3, batch, heads, num_tokens, dim // heads)
        works[f"attention {dtype}"] = lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v)
    if device == "cuda":
        a, b = (torch.randn(PRODUCT, PRODUCT, device=device, dtype=torch.bfloat16) for _ in range(2))
        works["product"] = lambda: a @ b
    return works


def measured(works: dict[str, Callable[[], Tensor]], *, rounds: int, device: str) -> tuple[dict[str, float], dict[str, int]]:
    """The median seconds of each work, all of them in turn in every round, and on CUDA the peak bytes of each."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    memory: dict[str, int] = {}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            start = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
                memory[name] = torch.cuda.max_memory_allocated()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}, memory


def print_results(
    seconds: dict[str, float], memory: dict[str, int], cosines: dict[str, float], size: ModelSize, clip: Tensor
) -> None:
    """The table of contenders, the ratios that are aimed at, and the floor."""
    print("\n| encoder | s a batch | clips/s | least cosine to float32 |" + (" peak GiB |" if memory else ""))
    print("| --- | --- | --- | --- |" + (" --- |" if memory else ""))
    for name, cosine in cosines.items():
        peak = f" {memory[name] / 2**30:.2f} |" if memory else ""
        print(f"| {name} | {seconds[name]:.3f} | {len(clip) / seconds[name]:.3f} | {cosine:.6f} |{peak}")
    ours = min(seconds["ours, float32"], seconds["ours, bfloat16"])
    print()
    for theirs, aim in (("transformers, float32", "1.7 on a CPU"), ("transformers, bfloat16", "1.4 on a CPU, 1.2 on CUDA")):
        print(f"ours is {seconds[theirs] / ours:.2f} times as fast as {theirs} (aim: {aim})")
    parts = sorted({name.rpartition(" ")[0] for name in seconds if name.startswith(("linear", "attention"))})
    best = {part: min(time for name, time in seconds.items() if name.startswith(part)) for part in parts}
    floor = size.depth * sum(best.values())
    products = size.depth * sum(time for part, time in best.items() if part != "attention")
    print(
        f"the floor is {floor:.3f} s: {products:.3f} s of linear maps and {floor - products:.3f} s of attention by torch's call"
    )
    print(f"ours takes {ours / floor:.2f} of the floor (aim: 1.15)")
    if "product" in seconds:
        rate = 2 * PRODUCT**3 / seconds["product"]
        share = flops(size, clip) / ours / rate
        print(f"one product: {rate / 1e12:.0f} TFLOP/s in bfloat16; ours works at {share:.0%} of it (aim: 55 %)")


def flops(size: ModelSize, clip: Tensor) -> float:
    """Operations of the blocks in one forward: two for each weight and token, and two products of all pairs in attention."""
    batch, _, frames, height, width = clip.shape
    num_tokens = frames // 2 * (height // 16) * (width // 16)
    weights = size.embed_dim**2 * (4 + 2 * size.mlp_ratio)
    return size.depth * batch * (2 * num_tokens * weights + 4 * num_tokens**2 * size.embed_dim)


if __name__ == "__main__":
    main()
