"""How fast are random clips read from more videos than a process can keep open?

    OMP_NUM_THREADS=1 python benchmarks/reading.py [--videos 2000] [--frames 80] [--height 256] [--width 455]

Clips a second of processor time on one core, the page cache warm: 16 frames, every fourth. The store compares a frame with its
checksum when a process first reads it; flat files have none. `kept` holds a file open and mapped for each video, as nobody can
with a hundred thousand of them, and `mapped for each clip` is what remains then. `crowded` is a store that may keep 128 of its
files open, as under the usual limit of 1024. All contenders take turns, clip by clip, each with clips of its own, so that what
else the machine does meets all of them. Videos beyond the first 32 are links to their files, and so need no room.
"""

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vjepa2cli.artifacts.video_store import Description, VideoStore, VideoStoreWriter

CLIP_FRAMES = 16
STRIDE = 4
SPAN = (CLIP_FRAMES - 1) * STRIDE + 1
DISTINCT = 32
Read = Callable[[int, int], np.ndarray]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("videos", 2000), ("frames", 80), ("height", 256), ("width", 455), ("clips", 300)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    assert asked.frames >= SPAN, f"a clip spans {SPAN} frames"
    with tempfile.TemporaryDirectory() as folder:
        path = make_store(Path(folder), asked)
        print(f"{asked.videos} videos of {asked.frames} frames {asked.width}x{asked.height}\n")
        print("| layout | clips/s/core | of the best |\n| --- | --- | --- |")
        rates = compared(contenders(path, Path(folder), asked.videos), asked)
    for name, rate in rates.items():
        print(f"| {name} | {rate:.0f} | {rate / max(rates.values()):.0%} |")


def make_store(folder: Path, asked: argparse.Namespace) -> Path:
    """A store whose videos have files of their own, of which few differ, and the frames of those in flat files."""
    rng = np.random.default_rng(0)
    writer = VideoStoreWriter.open(folder / "v.zarr", {"codec": "none", "shard_frames": 512})
    for number in range(min(DISTINCT, asked.videos)):
        frames = rng.integers(0, 255, (asked.frames, asked.height, asked.width, 3), np.uint8)
        np.save(folder / f"{number}.npy", frames)
        with writer.entry(f"{number}") as entry:
            for index, pixels in enumerate(frames):
                entry.append(index / 30, index, pixels)
            entry.finish(Description(f"{number}", "", f"{number}", 30.0))
    for number in range(DISTINCT, asked.videos):
        videos = writer.path / "videos"
        shutil.copytree(videos / f"{number % DISTINCT}", videos / f"{number}", copy_function=os.link)
        os.link(folder / f"{number % DISTINCT}.npy", folder / f"{number}.npy")
    listed = {f"{number}": {"split": "train", "weight": None} for number in range(asked.videos)}
    writer.finalise(listed, refused=[], provenance={})
    return writer.path


def contenders(path: Path, folder: Path, videos: int) -> dict[str, Read]:
    """By name, what gives the frames of a clip of a video that begins at a frame."""
    few = min(videos, DISTINCT)
    kept = {number: np.load(folder / f"{number}.npy", mmap_mode="r") for number in range(videos)}

    def of(store: VideoStore) -> Read:
        return lambda video, start: store.frames(f"{video}", start, start + SPAN, STRIDE)

    def map_again(video: int, start: int) -> np.ndarray:
        return np.array(np.load(folder / f"{video}.npy", mmap_mode="r")[start : start + SPAN : STRIDE])

    def copied(video: int, start: int) -> np.ndarray:
        return np.array(kept[video][start : start + SPAN : STRIDE])

    before, before_few, limits = VideoStore.open(path), VideoStore.open(path), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    crowded = VideoStore.open(path)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for store, count in ((before, videos), (crowded, videos), (before_few, few)):
        for video in range(count):
            for first in range(STRIDE):
                store.frames(f"{video}", first, store.entries[0].num_frames, STRIDE)
    return {
        f"the store, {few} videos, frames read before": lambda video, start: of(before_few)(video % few, start),
        f"the store, {videos} videos, frames read before": of(before),
        f"the store, {videos} videos, frames read before, crowded": of(crowded),
        f"the store, {videos} videos, read for the first time": of(VideoStore.open(path)),
        f".npy files, {few} videos kept mapped": lambda video, start: copied(video % few, start),
        f".npy files, {videos} videos kept mapped": copied,
        f".npy files, {videos} videos mapped for each clip": map_again,
    }


def compared(reads: dict[str, Read], asked: argparse.Namespace) -> dict[str, float]:
    """Clips a second of processor time of each; the median clip counts."""
    rng = np.random.default_rng(1)
    spent: dict[str, list[float]] = {name: [] for name in reads}
    for _ in range(asked.clips):
        for name, read in reads.items():
            video, start = int(rng.integers(asked.videos)), int(rng.integers(asked.frames - SPAN + 1))
            began = time.process_time()
            read(video, start)
            spent[name].append(time.process_time() - began)
    return {name: 1 / float(np.median(seconds)) for name, seconds in spent.items()}


if __name__ == "__main__":
    main()
