"""How should frames lie on disk? Clips a second and bytes a clip of several Zarr layouts, beside seeking in the source itself.

    OMP_NUM_THREADS=1 python benchmarks/video_store.py VIDEO [--short-side 256] [--clips 60]

Without VIDEO a moving pattern is generated. One process; a clip is 16 frames, every fourth, from a random start, with the page
cache warm. The store's default (zstd, chunks of one frame, shards of 512) is what measured best within reason; rerun this
before changing it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from vjepa2cli.data.video import iterate_frames, resize, write_video

CLIP_FRAMES = 16
STRIDE = 4
SPAN = (CLIP_FRAMES - 1) * STRIDE + 1
SHARD_FRAMES = 512

CODECS: dict[str, Any] = {
    "none": None,
    "zstd-1": ZstdCodec(level=1),
    "blosc-zstd-1": BloscCodec(cname="zstd", clevel=1, shuffle="noshuffle"),
    "blosc-lz4-1": BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle"),
}


def main() -> None:
    """Print the table for one video."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--clips", type=int, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = arguments.video or generated(Path(folder) / "pattern.mp4")
        frames = np.stack([pixels for _, _, pixels in iterate_frames(video, short_side=arguments.short_side)])
        assert len(frames) > SPAN, f"{video} has {len(frames)} frames; a clip spans {SPAN}"
        starts = np.random.default_rng(0).integers(0, len(frames) - SPAN + 1, arguments.clips)
        print(f"{video.name}: {len(frames)} frames {frames.shape[2]}x{frames.shape[1]}, {frames.nbytes / 1e6:.0f} MB raw\n")
        print("| layout | write frames/s | share of raw | KB read per clip | clips/s/core | files |")
        print("| --- | --- | --- | --- | --- | --- |")
        for codec in CODECS:
            for chunk, sharded in ((1, True), (8, True), (1, False), (8, False)):
                measure_zarr(Path(folder) / "array.zarr", frames, starts, codec=codec, chunk=chunk, sharded=sharded)
        measure_source(video, frames, starts)


def generated(path: Path) -> Path:
    """A textured picture that drifts, with noise, since a codec finds nothing in plain colour."""
    rng = np.random.default_rng(0)
    texture = resize(rng.integers(0, 256, (24, 40, 3), np.uint8), (360, 640))
    frames = (np.roll(texture, 2 * index, axis=1) // 2 + rng.integers(0, 40, texture.shape, np.uint8) for index in range(600))
    write_video(path, frames, fps=30)
    return path


def measure_zarr(path: Path, frames: np.ndarray, starts: np.ndarray, *, codec: str, chunk: int, sharded: bool) -> None:
    """Write the frames in one layout, check that a clip reads back, and print its row."""
    shape = frames.shape[1:]
    began = time.perf_counter()
    array = zarr.create_array(
        path,
        shape=frames.shape,
        dtype=np.uint8,
        chunks=(chunk, *shape),
        shards=(SHARD_FRAMES, *shape) if sharded else None,
        compressors=CODECS[codec],
        overwrite=True,
    )
    for start in range(0, len(frames), SHARD_FRAMES):
        array[start : start + SHARD_FRAMES] = frames[start : start + SHARD_FRAMES]
    written = len(frames) / (time.perf_counter() - began)
    files = [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    touched = statistics.mean([len({index // chunk for index in range(start, start + SPAN, STRIDE)}) * chunk for start in starts])
    array = zarr.open_array(path, mode="r")
    assert np.array_equal(array[int(starts[0]) : int(starts[0]) + SPAN : STRIDE], frames[starts[0] : starts[0] + SPAN : STRIDE])
    rate = clips_per_second(lambda start: array[start : start + SPAN : STRIDE], starts)
    share = size / frames.nbytes
    row(
        f"{codec}, chunk {chunk}, {'shard 512' if sharded else 'no shards'}",
        written,
        share,
        size / len(frames) * touched,
        rate,
        len(files),
    )


def measure_source(video: Path, frames: np.ndarray, starts: np.ndarray) -> None:
    """Seek to the key frame before a clip, decode up to its end, keep every fourth frame."""
    times = [time for time, _, _ in iterate_frames(video, short_side=16)]

    def read(start: int) -> np.ndarray:
        kept: list[np.ndarray] = []
        wanted = [times[index] for index in range(start, start + SPAN, STRIDE)]
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            begin = float((stream.start_time or 0) * stream.time_base)
            container.seek(int((wanted[0] + begin) / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time - begin >= wanted[len(kept)] - 1e-4:
                    kept.append(resize(frame.to_ndarray(format="rgb24"), frames.shape[1:3]))
                    if len(kept) == CLIP_FRAMES:
                        break
        return np.stack(kept)

    assert np.array_equal(read(int(starts[0])), frames[starts[0] : starts[0] + SPAN : STRIDE])
    share = video.stat().st_size / frames.nbytes
    row(
        f"the source, {video.suffix}, by PyAV",
        float("nan"),
        share,
        video.stat().st_size / len(frames) * SPAN,
        clips_per_second(read, starts),
        1,
    )


def clips_per_second(read: Callable[[int], np.ndarray], starts: np.ndarray) -> float:
    """Clips a second of processor time, so that other processes do not count; best of three passes."""
    best = 0.0
    for _ in range(3):
        began = time.process_time()
        for start in starts:
            read(int(start))
        best = max(best, len(starts) / (time.process_time() - began))
    return best


def row(name: str, written: float, share: float, clip_bytes: float, rate: float, files: int) -> None:
    """Print one row."""
    print(f"| {name} | {written:.0f} | {share:.1%} | {clip_bytes / 1e3:.0f} | {rate:.0f} | {files} |", flush=True)


if __name__ == "__main__":
    main()
