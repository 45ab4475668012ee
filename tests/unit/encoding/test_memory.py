"""What a run is said to take at most, and a run that is measured against it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.encoding.memory import Plan, Work, look_ahead, make_plan, parse_bytes
from vjepa2cli.encoding.recipes import make_recipe
from vjepa2cli.encoding.sources import find_sources
from vjepa2cli.errors import ConfigError, InputError
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.weights import to_transformers
from vjepa2cli.settings import EncodeConfig

SPEC = EncoderSpec(embed_dim=96, depth=2, num_heads=4, crop=96, num_frames=8)
MEBIBYTE = 1 << 20


with torch.device("meta"):
    ENCODER = Encoder(SPEC)


def plan(max_memory: int | None = None) -> Plan:
    """For thirty long videos and an encoder that would take them fourteen windows at a time."""
    recipe = make_recipe(EncodeConfig(num_frames=8), ENCODER, precision="fp32")
    work = Work(windows=900, rows=3600, largest_frame=1920 * 1080, tokens_a_window=144, flops_a_window=1e9, disk_bytes=1)
    cpu = torch.device("cpu")
    return make_plan(work, ENCODER, recipe, device=cpu, num_sources=30, suffix=".npz", workers=None, max_memory=max_memory)


def test_sizes_are_read_as_people_write_them() -> None:
    sizes = {"4GiB": 4 << 30, "4 GB": 4 * 10**9, "500M": 500 * 10**6, "1.5GiB": 3 << 29, "4e9": 4 * 10**9, "512": 512}
    assert {text: parse_bytes(text) for text in sizes} == sizes
    for text in ("", "0", "-1GiB", "4PB", "much", "1.2.3G"):
        with pytest.raises(ConfigError, match="4GiB"):
            parse_bytes(text)


def test_less_memory_is_fewer_clips_together_then_fewer_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    roomy = plan()
    assert (roomy.batch_size, roomy.crew.processes) == (2048 // 144, 8)
    before, refusal, bound = roomy, "", roomy.peak_bytes
    while not refusal:
        bound -= 16 * MEBIBYTE
        try:
            found = plan(bound)
        except InputError as error:
            refusal = str(error)
            continue
        assert found.peak_bytes <= bound
        assert (found.crew.processes, found.batch_size) <= (before.crew.processes, before.batch_size)
        before = found
    assert "one clip of 8 frames of 96x96 at a time" in refusal
    assert (before.batch_size, before.crew.processes) == (1, 1)


def test_clips_are_counted_from_the_headers(make_video: Callable[..., Path], tmp_path: Path) -> None:
    make_video(tmp_path / "in" / "a.mp4", 30)
    make_video(tmp_path / "in" / "b.mp4", 5)
    for config, windows in ((EncodeConfig(num_frames=8), 5), (EncodeConfig(num_frames=8, stride=4, mode="window"), 8)):
        recipe = make_recipe(config, ENCODER, precision="fp32")
        work = look_ahead(find_sources([tmp_path / "in"]), ENCODER, recipe)
        assert (work.windows, work.rows, work.tokens_a_window) == (windows, 15 + 3, 144)
        assert work.disk_bytes == 4 * 18 * 36 * 96


def held_bytes(process: int) -> int:
    """What a process and those that it has started hold, of shared pages their share."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if process in (int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])):
                line = next(line for line in (path.parent / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
                total += int(line.split()[1]) * 1024
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the kernel tells no shares of shared pages")
@pytest.mark.parametrize("options", [("--workers", "2", "--max-memory", "1GiB"), ("--workers", "0", "--mode", "window")])
def test_a_run_stays_below_what_it_says(
    make_video: Callable[..., Path], tmp_path: Path, options: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        make_video(tmp_path / "in" / f"{name}.mp4", 600)
    save_model(tmp_path / "model", *to_transformers(Encoder(SPEC), None))
    words = ["encode", "in", "--model", "model", "--out", "out", "--num-frames", "8", *options]
    peak = 0
    with subprocess.Popen([sys.executable, "-m", "vjepa2cli", *words], cwd=tmp_path) as running:
        while running.poll() is None:
            peak = max(peak, held_bytes(running.pid))
            time.sleep(0.05)
    said = capfd.readouterr().err
    assert running.returncode == 0, said
    match = re.search(r"at most ([\d.]+ \w+) of memory", said)
    assert match is not None, said
    # Of the size that is said, three digits.
    assert 200 * MEBIBYTE < peak < 1.005 * parse_bytes(match[1])
