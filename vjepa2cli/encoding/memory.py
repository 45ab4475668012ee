"""What a run will take: how many windows go through the encoder together and how many processes decode, within a bound on memory.

The numbers are estimates from above, of what is held at the same time; a test measures a run against its bound.
"""

import os
import re
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vjepa2cli.data.video import probe_video
from vjepa2cli.encoding.decoding import BLOCK_FRAMES
from vjepa2cli.encoding.recipes import Recipe
from vjepa2cli.encoding.sources import Source
from vjepa2cli.encoding.workers import Crew
from vjepa2cli.errors import ConfigError, InputError, VideoError
from vjepa2cli.models.pixels import PixelEncoder
from vjepa2cli.models.world_model import FrameEncoder

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_PROBED = 32
_FRAMES_OF_UNKNOWN = 300
_MIB = 1 << 20

_TOKENS_TOGETHER = {"cpu": 2048, "cuda": 1 << 16}
"""Tokens of a batch beyond which a larger one is no faster."""
_PROCESS_BYTES = 120 * _MIB
"""A decoding process before it opens a file: Python, NumPy, OpenCV, FFmpeg."""
_DECODED_FRAMES = 24
"""Frames that a decoder holds: its references, and those that wait to be put in order."""
_WRITER_BYTES = {".npz": 8 * _MIB, ".safetensors": 8 * _MIB, ".h5": 4 * _MIB, ".zarr": 48 * _MIB}
"""Rows of one array that wait to be written."""
_MOST_PROCESSES = {"cpu": 8, "cuda": 32}
"""A GPU takes the frames of more of them than an encoder on the cores that they share."""
_LIBRARY_BYTES = 48 * _MIB
"""What the libraries of matrix products set up for themselves."""
_SLACK = 1.5
"""What an allocator holds beyond what is asked of it."""


@dataclass(frozen=True)
class Work:
    """What there is to do: videos say by their headers how long they are, and may be wrong."""

    windows: int
    rows: int
    largest_frame: int
    tokens_a_window: int
    flops_a_window: float
    disk_bytes: int


@dataclass(frozen=True)
class Plan:
    """How it is done, and the memory that it takes at most: of the GPU where the encoder is on one, else of all processes."""

    batch_size: int
    crew: Crew
    peak_bytes: int


def parse_bytes(text: str) -> int:
    """A size such as 4GiB, 4GB, 500M or 4e9, in bytes; raises ConfigError for anything else."""
    found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([KMGT]i?)?B?\s*", text)
    try:
        size = int(float(found[1]) * _UNITS[found[2] or ""]) if found else 0
    except ValueError:
        size = 0
    if size <= 0:
        raise ConfigError(f"--max-memory {text!r}: is no size in bytes; write it as 4GiB, 500MiB or 8GB")
    return size


def show_bytes(size: float) -> str:
    """A size for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000 or unit == "GiB":
            return f"{size:.3g} {unit}" if size < 1000 else f"{size:,.0f} {unit}"
        size /= 1024
    raise AssertionError


def look_ahead(sources: Sequence[Source], encoder: FrameEncoder, recipe: Recipe) -> Work:
    """Estimate the work from the headers of some of the inputs."""
    spec = encoder.spec
    grid = recipe.grid(recipe.num_frames)
    movies = [source for source in sources if not source.still]
    chosen = movies[:: max(1, len(movies) // _PROBED)]
    counted = [declared_frames(source, fps=recipe.fps) for source in chosen]
    share = len(movies) / max(1, len(chosen))
    windows = len(sources) - len(movies) + round(share * sum(_num_windows(count, recipe) for count, _ in counted))
    steps = len(sources) - len(movies) + round(share * sum(-(-count // recipe.tubelet_size) for count, _ in counted))
    rows = windows if recipe.mode == "pooled" else steps
    patches = grid.h * grid.w if recipe.names[0].startswith("tokens") else 1
    return Work(
        windows=windows,
        rows=rows,
        largest_frame=max([size for _, size in counted], default=0),
        tokens_a_window=grid.num_tokens,
        flops_a_window=_flops(encoder, grid.num_tokens),
        disk_bytes=4 * rows * patches * spec.embed_dim * len(recipe.names),
    )


def declared_frames(source: Source, *, fps: float | None) -> tuple[int, int]:
    """(frames that will be read of a video, pixels of one), as its header says; of several claims the smallest."""
    if source.entry is not None:
        entry = source.entry
        seconds, count, size = entry.num_frames / entry.fps, entry.num_frames, entry.height * entry.width
    else:
        try:
            info = probe_video(source.path)
        except (VideoError, OSError):
            return 0, 0
        claims = [info.declared_frames, None if info.duration is None else info.duration * info.fps]
        count = round(min((claim for claim in claims if claim), default=_FRAMES_OF_UNKNOWN))
        seconds, size = count / info.fps, info.height * info.width
    return max(1, round(seconds * fps) if fps else count), size


def _num_windows(num_frames: int, recipe: Recipe) -> int:
    if num_frames <= recipe.num_frames:
        return min(num_frames, 1)
    return 1 + -(-(num_frames - recipe.num_frames) // recipe.stride)


def _flops(encoder: FrameEncoder, tokens: int) -> float:
    """Additions and multiplications of the matrix products of one window."""
    if isinstance(encoder, PixelEncoder):
        return 0.0
    spec = encoder.spec
    block = tokens * (8 + 4 * spec.mlp_ratio) * spec.embed_dim**2 + 4 * tokens**2 * spec.embed_dim
    return spec.depth * block + 2 * tokens * spec.embed_dim * spec.tubelet_size * spec.patch_size**2 * spec.in_channels


def make_plan(
    work: Work,
    encoder: FrameEncoder,
    recipe: Recipe,
    *,
    device: torch.device,
    num_sources: int,
    suffix: str,
    workers: int | None,
    max_memory: int | None,
) -> Plan:
    """The largest batch, with the most decoding processes, that `max_memory` bytes have room for.

    Raises InputError where one window at a time does not fit.
    """
    cores = len(os.sched_getaffinity(0))
    most = min(max(1, cores - 1), _MOST_PROCESSES[device.type], num_sources) if workers is None else min(workers, num_sources)
    together = max(1, min(_TOKENS_TOGETHER[device.type] // work.tokens_a_window, work.windows))
    smallest: Plan | None = None
    for processes in range(most, 0, -1) if workers is None else [most]:
        batch_size = together
        while batch_size:
            crew = _crew(processes, batch_size, recipe)
            peak = _held(device) + _peak(work, encoder, recipe, device=device, batch_size=batch_size, crew=crew, suffix=suffix)
            smallest = Plan(batch_size, crew, peak)
            if max_memory is None or peak <= max_memory:
                return smallest
            batch_size //= 2
    assert smallest is not None
    assert max_memory is not None
    height, width = recipe.crop
    raise InputError(
        f"--max-memory {show_bytes(max_memory)}: one clip of {recipe.num_frames} frames of {height}x{width} at a time takes "
        f"up to {show_bytes(smallest.peak_bytes)}, of which this process and its model take {show_bytes(_held(device))}; "
        "allow that much, or lower num_frames or crop"
    )


def _crew(processes: int, batch_size: int, recipe: Recipe) -> Crew:
    """Each process may be a window ahead of the one that is used, or its share of a batch."""
    share = -(-batch_size // max(1, processes))
    return Crew(processes, recipe.num_frames * max(2, share + 1), 1 + share)


def _held(device: torch.device) -> int:
    """What is taken already: on a GPU by the weights and the context, else the most that this process has held so far."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(total - free)
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss, which begins with that of the process that started this one.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _peak(
    work: Work, encoder: FrameEncoder, recipe: Recipe, *, device: torch.device, batch_size: int, crew: Crew, suffix: str
) -> int:
    """Bytes beyond those that are held already."""
    spec = encoder.spec
    frame = 3 * recipe.crop[0] * recipe.crop[1]
    window = recipe.num_frames * frame
    ratio = getattr(spec, "mlp_ratio", 0.0)
    activations = 4 * work.tokens_a_window * spec.embed_dim * (5 + 2 * ratio)
    outputs = 4 * work.tokens_a_window * spec.embed_dim * len(recipe.names)
    # Levels as floats, their normalised form, what it is made from, and what the first convolution makes of it.
    computed = batch_size * (16 * window + activations + outputs)
    if device.type == "cuda":
        return int(_SLACK * computed)
    waiting = batch_size * (4 * window + 2 * outputs)
    inputs = max(1, crew.processes) * (window + 3 * outputs + len(recipe.names) * _WRITER_BYTES[suffix])
    decoding = work.largest_frame * (2 * _DECODED_FRAMES + 12) + 2 * BLOCK_FRAMES * frame
    process = decoding + _PROCESS_BYTES + crew.ring_frames * frame
    here = _LIBRARY_BYTES + _SLACK * (computed + waiting + inputs)
    return int(here + (crew.processes * process if crew.processes else decoding))
