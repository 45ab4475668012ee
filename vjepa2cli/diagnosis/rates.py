"""How fast this machine is at what the steps do: measured rates, from which `vjepa2 config cost` foretells a run."""

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
from torch import Tensor

from vjepa2cli.data.video import iterate_frames, resize, write_video
from vjepa2cli.errors import Vjepa2Error
from vjepa2cli.models.layers import Block

WIDTHS = (48, 96, 192, 384, 768, 1408)
"""Widths of the blocks that are timed; a network's rate is that of the nearest."""

_TOKENS = 256
_SECONDS = 0.5
_SHORT, _LONG, _FRAMES = 240, 320, 48
_FILE_BYTES = 64 * 2**20
_START = "import torch, deepspeed, vjepa2cli.train.pretraining"


def measure_rates(device: torch.device, folder: Path) -> dict[str, Any]:
    """Rates by name, as plain JSON types; `folder` is where results will be written. Takes about half a minute.

    Operations are counted as `vjepa2 config explain` counts them: two a multiplication and addition.
    """
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {
        "device": kind,
        "start_seconds": _start_seconds(),
        "training_flops": {str(width): _block_rate(width, device, training=True) for width in WIDTHS},
        "inference_flops": {str(width): _block_rate(width, device, training=False) for width in WIDTHS},
        "decoded_pixels": _decoding_rate(),
        "simulated_frames": _simulation_rate(),
        "written_bytes": _writing_rate(folder),
    }


def _per_second(act: Callable[[], object], amount: float) -> float:
    """The median rate of a few runs after one that does not count."""
    act()
    seconds: list[float] = []
    until = time.perf_counter() + _SECONDS
    while len(seconds) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - began)
    return amount / statistics.median(seconds)


def _start_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", _START], check=True, capture_output=True)
    return time.perf_counter() - began


def _block_rate(width: int, device: torch.device, *, training: bool) -> float:
    """Operations a second of a transformer block on a batch of clips, in bf16 on CUDA as presets train there."""
    block = Block(width, max(1, width // 64), 4.0).to(device).requires_grad_(training)
    rows = 32 if device.type == "cuda" else 4
    x = torch.randn(rows, _TOKENS, width, device=device, requires_grad=training)
    forward = rows * (2 * _TOKENS * 12 * width**2 + 4 * _TOKENS**2 * width)

    def act() -> None:
        with torch.set_grad_enabled(training), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            y: Tensor = block(x)
            if training:
                y.sum().backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return _per_second(act, 3 * forward if training else forward)


def _decoding_rate() -> float:
    """Pixels a second of an H.264 video, read and scaled down by one process."""
    rng = np.random.default_rng(0)
    still = rng.integers(0, 255, (_SHORT // 8, _LONG // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, np.stack([np.roll(still, shift, 1) for shift in range(_FRAMES)]), fps=8)

        def act() -> None:
            for frame in iterate_frames(path):
                resize(frame[-1], (_SHORT // 2, _LONG // 2), method="blocks")

        return _per_second(act, _FRAMES * _SHORT * _LONG)


def _simulation_rate() -> float | None:
    """Frames a second of the simulated arm at 96 px, by one process; None where it cannot draw here."""
    from vjepa2cli.simulation.tabletop import Tabletop

    try:
        table = Tabletop(image_size=96)
    except Vjepa2Error:
        return None
    table.reset(seed=0)
    action = np.zeros(7, np.float32)
    rate = _per_second(lambda: table.step(action), 1)
    table.close()
    return rate


def _writing_rate(folder: Path) -> float:
    """Bytes a second that reach the disk."""
    content = os.urandom(_FILE_BYTES)
    with tempfile.NamedTemporaryFile(dir=folder) as file:

        def act() -> None:
            file.seek(0)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

        return _per_second(act, _FILE_BYTES)
