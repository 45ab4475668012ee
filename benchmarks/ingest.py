"""How fast is ingest beside decoding alone, and how should frames lie on disk?

    OMP_NUM_THREADS=1 python benchmarks/ingest.py [VIDEO...] [--short-side 256] [--processes 2] [--seconds 10]

Without VIDEO moving patterns are generated. The first table gives frames a second over all videos, each row by the same number
of processes from the same pool in the same run; the videos are taken again and again until a row has some seconds of work.
The second gives random clips of 16 frames, every fourth, from the longest video: bytes that are read and clips a second of
processor time on one core, with the page cache warm. The store compares a frame with its checksum when a process first reads
it, so it has two rates; no other layout is checked. Rerun this before changing how the store keeps frames.
"""

import argparse
import pickle
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from vjepa2cli.artifacts.video_store import Description, VideoStore, VideoStoreWriter
from vjepa2cli.data.video import iterate_frames, resize, use_one_thread, write_video
from vjepa2cli.ingestion import ingest
from vjepa2cli.ingestion.workers import Beat, run_in_processes
from vjepa2cli.settings import IngestConfig

CLIP_FRAMES = 16
STRIDE = 4
SPAN = (CLIP_FRAMES - 1) * STRIDE + 1
SHARD_FRAMES = 512
JPEG_QUALITY = 95
CODECS: dict[str, Any] = {
    "none": None,
    "zstd-1": ZstdCodec(level=1),
    "blosc-lz4-1": BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle"),
}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="*")
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="of decoding, a row of the first table")
    parser.add_argument("--rounds", type=int, default=2, help="of the first table; the best of each row counts")
    parser.add_argument("--clips", type=int, default=200)
    arguments = parser.parse_args()
    use_one_thread()
    with tempfile.TemporaryDirectory() as folder:
        videos = arguments.videos or [generated(Path(folder) / f"{seed}.mp4", seed=seed) for seed in range(4)]
        compare_ingest(videos, Path(folder), arguments)
        compare_layouts(max(videos, key=count_frames), Path(folder), arguments)


def generated(path: Path, *, seed: int) -> Path:
    """A textured picture that drifts, with noise, since a codec finds nothing in plain colour."""
    rng = np.random.default_rng(seed)
    texture = resize(rng.integers(0, 256, (24, 40, 3), np.uint8), (360, 640))
    frames = (np.roll(texture, 2 * index, axis=1) // 2 + rng.integers(0, 12, texture.shape, np.uint8) for index in range(600))
    write_video(path, frames, fps=30)
    return path


def decoded(video: Path) -> Iterator[Any]:
    """Frames as PyAV gives them, by one thread."""
    with av.open(str(video)) as container:
        container.streams.video[0].thread_count = 1
        yield from container.decode(container.streams.video[0])


def count_frames(video: Path) -> int:
    """Frames that decode."""
    return sum(1 for _ in decoded(video))


# --- ingest beside decoding ------------------------------------------------------------------------------------------


NAMES = {
    "frames": "PyAV alone, to frames of the codec",
    "rgb": "PyAV alone, to RGB arrays",
    "stored": "our decoder alone, to RGB arrays of the stored size",
    "ingest none": "ingest, codec none",
    "ingest zstd": "ingest, codec zstd",
}


@dataclass(frozen=True)
class Decode:
    """Decode a file and throw its frames away: as they come, as RGB arrays, or as RGB arrays of the stored size."""

    how: str
    short_side: int

    def __call__(self, video: Path, beat: Beat) -> int:
        """Return the number of frames."""
        if self.how == "stored":
            return sum(1 for _ in iterate_frames(video, short_side=self.short_side))
        count = 0
        for frame in decoded(video):
            if self.how == "rgb":
                frame.to_ndarray(format="rgb24")
            count += 1
        return count


def compare_ingest(videos: Sequence[Path], folder: Path, arguments: argparse.Namespace) -> None:
    """Print frames a second of decoding alone, three ways, and of ingest."""
    began = time.process_time()
    frames = sum(count_frames(video) for video in videos)
    repeats = max(1, round(arguments.seconds * arguments.processes / (time.process_time() - began)))
    (folder / "many").mkdir()
    copies = [folder / "many" / f"{repeat}-{video.name}" for repeat in range(repeats) for video in videos]
    for copy, video in zip(copies, [*videos] * repeats, strict=True):
        shutil.copy(video, copy)
    total = frames * repeats
    print(f"{len(videos)} videos, {frames} frames, taken {repeats} times; short side {arguments.short_side}, ", end="")
    print(f"{arguments.processes} processes\n")
    print("| | frames/s | frames/s/core | ingest does so many of these |\n| --- | --- | --- | --- |")
    idle = measured(lambda: run_all(start_only, copies[: arguments.processes], arguments))
    rates: dict[str, Rates] = {}
    for _ in range(arguments.rounds):
        for how in NAMES:
            if how.startswith("ingest"):
                config = IngestConfig(short_side=arguments.short_side, codec=how.removeprefix("ingest "))  # type: ignore[arg-type]
                spent = measured(lambda config=config: take_in(folder, config, arguments))
            else:
                spent = measured(lambda how=how: run_all(Decode(how, arguments.short_side), copies, arguments))
            now = Rates(total / (spent.wall - idle.wall), total / (spent.cores - idle.cores))
            before = rates.get(how, now)
            rates[how] = Rates(max(now.wall, before.wall), max(now.cores, before.cores))
    ours = [rates["ingest none"], rates["ingest zstd"]]
    for how, rate in rates.items():
        shares = ", ".join(f"{codec} {mine.cores / rate.cores:.0%}" for codec, mine in zip(("none", "zstd"), ours, strict=True))
        print(f"| {NAMES[how]} | {rate.wall:.0f} | {rate.cores:.0f} | {'' if how.startswith('ingest') else shares} |", flush=True)
    print()


@dataclass(frozen=True)
class Rates:
    """Of a second by the clock, and of a second of one core: the latter does not see what else the machine does."""

    wall: float
    cores: float


def measured(work: Callable[[], object]) -> Rates:
    """Seconds that some work takes, by the clock and of all cores together, its child processes included."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    began = time.perf_counter()
    work()
    passed = time.perf_counter() - began
    now = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cores = sum(
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime for before, after in zip(used, now, strict=True)
    )
    return Rates(passed, cores)


def take_in(folder: Path, config: IngestConfig, arguments: argparse.Namespace) -> None:
    """Ingest the copies into a store that is thrown away."""
    ingest([folder / "many"], folder / "bench.zarr", config=config, workers=arguments.processes)
    shutil.rmtree(folder / "bench.zarr")


def run_all(work: Callable[[Path, Beat], int], copies: Sequence[Path], arguments: argparse.Namespace) -> int:
    """Do something with each file, by the pool that ingest uses."""
    return sum(item.result or 0 for item in run_in_processes(work, copies, workers=arguments.processes, patience=600.0))


def start_only(video: Path, beat: Beat) -> int:
    """Next to nothing, to see what starting the pool takes."""
    return len(video.name)


# --- layouts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """A layout's size beside raw pixels, bytes of a clip, clips a second of a core, frames written a second, and its files."""

    name: str
    share: float
    clip_bytes: float
    rate: float
    written: float | None
    files: int

    def __str__(self) -> str:
        wrote = "" if self.written is None else f"{self.written:.0f}"
        return f"| {self.name} | {self.share:.1%} | {self.clip_bytes / 1e3:.0f} | {self.rate:.0f} | {wrote} | {self.files} |"


def compare_layouts(video: Path, folder: Path, arguments: argparse.Namespace) -> None:
    """Print what a random clip costs in each layout, and from the source itself."""
    frames = np.stack([pixels for _, _, pixels in iterate_frames(video, short_side=arguments.short_side)])
    assert len(frames) > SPAN, f"{video} has {len(frames)} frames; a clip spans {SPAN}"
    starts = np.random.default_rng(0).integers(0, len(frames) - SPAN + 1, arguments.clips)
    print(f"{video.name}: {len(frames)} frames {frames.shape[2]}x{frames.shape[1]}, {frames.nbytes / 1e6:.0f} MB raw\n")
    print("| layout | share of raw | KB read per clip | clips/s/core | writes frames/s | files |")
    print("| --- | --- | --- | --- | --- | --- |")
    found: list[Layout] = []
    for layout in layouts(video, folder, frames, starts):
        print(layout, flush=True)
        found.append(layout)
    ours, others, source = found[:4], found[4:-1], found[-1]
    best = max(others, key=lambda layout: layout.rate)
    print()
    for layout in ours:
        times = f"{layout.rate / source.rate:.1f} times as many clips as seeking in the source"
        print(f"{layout.name}: {times}, {layout.rate / best.rate:.0%} of {best.name}")


def layouts(video: Path, folder: Path, frames: np.ndarray, starts: np.ndarray) -> Iterator[Layout]:
    """Every layout in turn, the source last."""
    for codec in ("none", "zstd"):
        yield from measure_store(folder / "x.zarr", frames, starts, codec=codec)
    yield measure_memmap(folder / "frames.npy", frames, starts)
    for codec in CODECS:
        for chunk, sharded in ((1, True), (16, True), (1, False)):
            yield measure_zarr(folder / "array.zarr", frames, starts, codec=codec, chunk=chunk, sharded=sharded)
    yield measure_jpeg(folder / "frames.jpegs", frames, starts)
    yield measure_source(video, frames, starts)


def measure_store(path: Path, frames: np.ndarray, starts: np.ndarray, *, codec: str) -> Iterator[Layout]:
    """The store as it is, written and read by its own code: frames that a process has read before, and by one just opened."""
    began = time.perf_counter()
    writer = VideoStoreWriter.open(path, {"codec": codec, "shard_frames": SHARD_FRAMES})
    with writer.entry("a") as entry:
        for index, pixels in enumerate(frames):
            entry.append(index / 30, index, pixels)
        entry.finish(Description("a", "", "a", 30.0))
    written = len(frames) / (time.perf_counter() - began)
    store: VideoStore = writer.finalise({"a": {"split": "train", "weight": None}}, refused=[], provenance={})
    packed = pickle.dumps(store)
    again = clips_per_second(lambda start: store.frames("a", start, start + SPAN, STRIDE), frames, starts)
    first = clips_per_second(lambda start: pickle.loads(packed).frames("a", start, start + SPAN, STRIDE), frames, starts)
    files = [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    for name, rate in (("", again), (", first reading", first)):
        name = f"**the store, codec {codec}{name}**"
        yield Layout(name, size / frames.nbytes, size / len(frames) * CLIP_FRAMES, rate, written, len(files))
    shutil.rmtree(path)


def measure_memmap(path: Path, frames: np.ndarray, starts: np.ndarray) -> Layout:
    """One flat file, mapped: the least that reading can cost."""
    began = time.perf_counter()
    np.save(path, frames)
    written = len(frames) / (time.perf_counter() - began)
    mapped = np.load(path, mmap_mode="r")
    rate = clips_per_second(lambda start: np.array(mapped[start : start + SPAN : STRIDE]), frames, starts)
    path.unlink()
    return Layout("one .npy, mapped", 1.0, frames[0].nbytes * CLIP_FRAMES, rate, written, 1)


def measure_zarr(path: Path, frames: np.ndarray, starts: np.ndarray, *, codec: str, chunk: int, sharded: bool) -> Layout:
    """A layout written and read by the Zarr library."""
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
    rate = clips_per_second(lambda start: array[start : start + SPAN : STRIDE], frames, starts)
    name = f"Zarr library, {codec}, chunk {chunk}, {'shard 512' if sharded else 'no shards'}"
    return Layout(name, size / frames.nbytes, size / len(frames) * touched, rate, written, len(files))


def measure_jpeg(path: Path, frames: np.ndarray, starts: np.ndarray) -> Layout:
    """JPEG bytes one after the other, with offsets: smallest, and lossy."""
    began = time.perf_counter()
    packed = [cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1] for frame in frames]
    path.write_bytes(b"".join(item.tobytes() for item in packed))
    written = len(frames) / (time.perf_counter() - began)
    ends = np.cumsum([len(item) for item in packed])

    def read(start: int) -> np.ndarray:
        with path.open("rb", buffering=0) as file:
            clip = np.empty((CLIP_FRAMES, *frames.shape[1:]), np.uint8)
            for place, index in enumerate(range(start, start + SPAN, STRIDE)):
                file.seek(ends[index] - len(packed[index]))
                cv2.cvtColor(
                    cv2.imdecode(np.frombuffer(file.read(len(packed[index])), np.uint8), cv2.IMREAD_COLOR),
                    cv2.COLOR_BGR2RGB,
                    dst=clip[place],
                )
            return clip

    rate = clips_per_second(read, frames, starts, lossy=True)
    size = path.stat().st_size
    path.unlink()
    name = f"JPEG {JPEG_QUALITY} with offsets (lossy)"
    return Layout(name, size / frames.nbytes, size / len(frames) * CLIP_FRAMES, rate, written, 1)


def measure_source(video: Path, frames: np.ndarray, starts: np.ndarray) -> Layout:
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
                    kept.append(resize(frame.to_ndarray(format="rgb24"), frames.shape[1:3], method="blocks"))
                    if len(kept) == CLIP_FRAMES:
                        break
        return np.stack(kept)

    size = video.stat().st_size
    rate = clips_per_second(read, frames, starts)
    name = f"the source, {video.suffix}, by seeking with PyAV"
    return Layout(name, size / frames.nbytes, size / len(frames) * SPAN, rate, None, 1)


def clips_per_second(read: Callable[[int], np.ndarray], frames: np.ndarray, starts: np.ndarray, *, lossy: bool = False) -> float:
    """Clips a second of processor time, so that other processes do not count; best of three passes. Checks one clip first."""
    first = int(starts[0])
    difference = np.abs(read(first).astype(int) - frames[first : first + SPAN : STRIDE])
    assert difference.mean() < 5.0 if lossy else not difference.any()
    best = 0.0
    for _ in range(3):
        began = time.process_time()
        count = 0
        for start in starts:
            read(int(start))
            count += 1
            if time.process_time() - began > 3.0:
                break
        best = max(best, count / (time.process_time() - began))
    return best


if __name__ == "__main__":
    main()
