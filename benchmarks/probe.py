"""What a sweep of heads costs beside one head: `python benchmarks/probe.py [step] [command] [wait]`. Tables for people, no test.

step: one update of a probe of one head, of a sweep of 20, and of 20 probes one after the other as the released code trains them.
command: all of `probe` (features, training, judging) with one head and with 20, on random videos.
wait: how long the encoder of an evaluation waits for clips, on video files that are decoded ahead.

On a CPU the seconds of the first two are those of the processor, of all threads of the process.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from precompute import seconds_of

from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.data.video import write_video
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.probe import AttentiveProbe, ProbeSpec
from vjepa2cli.models.probe_sweep import ProbeSweep
from vjepa2cli.models.weights import to_transformers
from vjepa2cli.recordings.labelled import read_labelled
from vjepa2cli.settings import ProbeConfig
from vjepa2cli.train.probing import probe
from vjepa2cli.train.probing.contest import Setting, make_features, recognition_contestant
from vjepa2cli.train.probing.samples import from_labelled_set
from vjepa2cli.train.process_group import ProcessGroup, choose_device

HEADS = 20
SHAPES = {
    "tiny, depth 1": (ProbeSpec(192, 10, depth=1, num_heads=3), 16, 144),
    "tiny, depth 4": (ProbeSpec(192, 10, depth=4, num_heads=3), 16, 144),
    "ViT-L, depth 1": (ProbeSpec(1024, 174, depth=1, num_heads=16), 16, 4096),
    "ViT-L, depth 4": (ProbeSpec(1024, 174, depth=4, num_heads=16), 2, 4096),
}


def seconds(work: Callable[[], object], device: torch.device, *, repeats: int) -> float:
    """The shortest of several runs, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        began = seconds_of(device)
        work()
        times.append(seconds_of(device) - began)
    return min(times[1:])


def bench_step(device: torch.device, shapes: list[str], repeats: int) -> None:
    """One update, by shape."""
    print(f"{'one update':>16} {'one head':>10} {'sweep of 20':>12} {'ratio':>6} {'20 alone':>10} {'ratio':>6}")
    for name in shapes:
        spec, batch, tokens = SHAPES[name]
        x = torch.randn(batch, tokens, spec.embed_dim, device=device)

        def update(count: int, together: bool, spec: ProbeSpec = spec, x: torch.Tensor = x) -> Callable[[], None]:
            heads = [AttentiveProbe(spec).to(device) for _ in range(count)]
            sweep = ProbeSweep(heads)
            optimizer = torch.optim.AdamW(sweep.parameters(), lr=1e-4)

            def work() -> None:
                optimizer.zero_grad()
                with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                    answers = [sweep(x)[0]] if together else [head(x)[None] for head in heads]
                torch.stack([one.float().square().sum() for one in answers]).sum().backward()
                optimizer.step()

            return work

        one = seconds(update(1, False), device, repeats=repeats)
        many = seconds(update(HEADS, True), device, repeats=repeats)
        alone = seconds(update(HEADS, False), device, repeats=repeats)
        print(f"{name:>16} {one:>9.3f}s {many:>11.3f}s {many / one:>6.1f} {alone:>9.3f}s {alone / one:>6.1f}")


def make_set(folder: Path, *, videos: int, side: int) -> tuple[Path, Path]:
    """Random videos in two classes, with the tables of training and validation."""
    rng = np.random.default_rng(0)
    for split, count in (("train", videos), ("val", videos // 2)):
        lines = []
        for index in range(count):
            frames = rng.integers(0, 255, (24, side // 8, side // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
            write_video(folder / f"{split}_{index}.mp4", frames, fps=8)
            lines.append(f"{split}_{index}.mp4 {index % 2}\n")
        (folder / f"{split}.csv").write_text("".join(lines))
    return folder / "train.csv", folder / "val.csv"


def make_encoder(folder: Path, *, width: int, depth: int, crop: int) -> str:
    """An encoder on disk."""
    spec = EncoderSpec(embed_dim=width, depth=depth, num_heads=width // 64, crop=crop, num_frames=16)
    save_model(folder / "encoder", *to_transformers(Encoder(spec, generator=torch.Generator().manual_seed(0)), None))
    return str(folder / "encoder")


def bench_command(device: torch.device, folder: Path, *, steps: int, depths: list[int]) -> None:
    """All of the command with one head, with 20, and with 20 of which few go on."""
    tables, model = make_set(folder, videos=48, side=96), make_encoder(folder, width=192, depth=12, crop=96)
    rates, decays = (5e-3, 3e-3, 1e-3, 3e-4, 1e-4), (0.01, 0.1, 0.4, 0.8)
    contests: dict[str, dict[str, Any]] = {
        "one head": {"learning_rates": (1e-3,), "weight_decays": (0.01,)},
        "20 heads": {"learning_rates": rates, "weight_decays": decays},
        "20, of which 5 go on, then 1": {
            "learning_rates": rates,
            "weight_decays": decays,
            "keep_heads": ((0.02, 5), (0.08, 1)),
        },
    }
    for depth in depths:
        first = None
        for name, chosen in contests.items():
            config = ProbeConfig(
                steps=steps,
                num_frames=16,
                crop=96,
                depth=depth,
                baselines=(),
                checkpoint_every=steps,
                evaluate_every=steps,
                examples=0,
                precision="fp32" if device.type == "cpu" else "bf16",
                **chosen,
            )
            began = seconds_of(device)
            probe(tables, folder / f"{depth}{name}", model=model, config=config, device=device.type)
            spent = seconds_of(device) - began
            first = first or spent
            print(f"the command, depth {depth}, {steps} updates, {name}: {spent:.1f} s, ratio {spent / first:.2f}", flush=True)


def bench_wait(device: torch.device, folder: Path) -> None:
    """An evaluation of files: the share of its time that the encoder waits."""
    tables, model = make_set(folder, videos=16, side=256), make_encoder(folder, width=384, depth=12, crop=224)
    config = ProbeConfig(num_frames=16, frame_step=1, crop=224, views=3, baselines=(), precision="fp32", feature_batch=3)
    data = from_labelled_set(read_labelled(list(tables)), tables, config, judged_only=True)
    setting = Setting(data, config, ProcessGroup(device), folder / "features")
    contestant = recognition_contestant("trained", model, setting)
    features = make_features(contestant, data.val, setting, copies=None, views=3)
    began = time.perf_counter()
    rows = list(features.encode(range(len(data.val))))
    spent = time.perf_counter() - began
    first = features.waited / spent
    print(f"evaluation of {len(rows)} videos in 3 views by a ViT-S: {spent:.1f} s, of which {first:.1%} waiting for clips")


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["step", "command", "wait"], default=["step", "command", "wait"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--shapes", nargs="*", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--depths", type=int, nargs="*", default=[1, 4], help="of command: blocks of a head")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    device = choose_device(given.device)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        if "step" in given.parts:
            bench_step(device, given.shapes, given.repeats)
        if "command" in given.parts:
            (Path(folder) / "command").mkdir()
            bench_command(device, Path(folder) / "command", steps=given.steps, depths=given.depths)
        if "wait" in given.parts:
            (Path(folder) / "wait").mkdir()
            bench_wait(device, Path(folder) / "wait")


if __name__ == "__main__":
    main()
