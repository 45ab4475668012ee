"""Ingest under duress: real damaged files, kills at random moments, two at once, a worker that stands still."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.data.video import write_image, write_video

Command = Callable[..., subprocess.CompletedProcess[str]]
REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos, images and a file that is neither, and a table of stretches of one more video."""
    tmp_path = tmp_path_factory.mktemp("sources")
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(6):
        scene = np.random.default_rng(index).integers(0, 200, (96, 128, 3), np.uint8)
        write_video(folder / f"{index}.mp4", (scene + np.uint8(frame % 50) for frame in range(80)), fps=10)
        write_image(tmp_path / "pictures" / f"{index}.png", scene)
    shutil.copy(folder / "1.mp4", folder / "copy.mp4")
    (folder / "notes.mp4").write_text("not a video\n")
    (folder / "0.mp4").rename(tmp_path / "long.mp4")
    (tmp_path / "t.csv").write_text("path,start,end,label\nlong.mp4,0,2,up\nlong.mp4,3,5,down\nlong.mp4,6,99,late\n")
    return tmp_path


@pytest.fixture(scope="module")
def whole(sources: Path) -> Path:
    """The store of an undisturbed run."""
    subprocess.run(command(sources, sources / "whole.zarr"), check=True, capture_output=True)
    return sources / "whole.zarr"


def command(sources: Path, out: Path, *options: str) -> list[str]:
    places = [sources / "in", sources / "pictures", sources / "t.csv"]
    settings = ["--set", "short_side=64", "--set", "drop.duplicates=true", "--set", "val_fraction=0.25"]
    words = [sys.executable, "-m", "vjepa2cli", "ingest", *places, "--out", out, "--workers", "2", *settings, *options]
    return [str(word) for word in words]


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def test_real_files_of_every_kind_end_in_a_table_with_a_reason_each(vjepa2: Command, shared: Path, tmp_path: Path) -> None:
    folders = [shared / "data" / name for name in ("videos", "codecs", "hostile")]
    options = ["--workers", "2", "--set", "max_frames=64", "--set", "min_frames=1", "--summary", tmp_path / "summary.json"]
    ended = vjepa2("ingest", *folders, "--out", tmp_path / "x.zarr", *options)
    assert ended.returncode == 0, ended.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix not in {".heic", ".md"}]
    assert len(summary["accepted"]) + len(summary["refused"]) == len(files) == 87
    assert all(item["reason"] for item in summary["refused"])
    rows = [line.split()[0] for line in ended.stdout.splitlines()[1:-1]]
    assert (rows.count("accepted"), rows.count("refused")) == (len(summary["accepted"]), len(summary["refused"]))
    assert all(item["reason"] in ended.stdout for item in summary["refused"])
    assert "passed over 2 images" in ended.stderr
    peaks = [float(text) for text in re.findall(r"MiB a worker ([0-9.]+)", ended.stderr)]
    assert 50 < max(peaks) < 1024
    whole = vjepa2("ingest", "--verify", tmp_path / "x.zarr", "--workers", "2")
    assert whole.returncode == 0, whole.stderr
    assert "whole" in whole.stdout


def test_killed_at_random_moments_it_goes_on_without_loss_or_repetition(sources: Path, whole: Path, tmp_path: Path) -> None:
    # 5 of the folder, three stretches, of which the video holds one in part, 6 images; one is a copy.
    assert len(VideoStore.open(whole).entries) == 14
    out, quiet = tmp_path / "x.zarr", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    generator = random.Random(0)
    done: dict[str, int] = {}
    for attempt in range(4):
        process = subprocess.Popen(command(sources, out), start_new_session=True, **quiet)  # type: ignore[call-overload]
        deadline = time.monotonic() + 60
        wanted = generator.randrange(2 * attempt, 2 * attempt + 4)
        while process.poll() is None and len(list(out.glob("sources/*-*/zarr.json"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(generator.random() * 0.05)
        # The whole group, or the parent alone, whose workers must end by themselves.
        (os.killpg if attempt % 2 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        shards = {
            str(path): path.stat().st_ino for path in out.glob("videos/*-*/frames/c/*/*/*/*") if ".partial" not in str(path)
        }
        assert all(shards.get(path) == inode for path, inode in done.items() if Path(path).exists())
        done = shards
    subprocess.run(command(sources, out), check=True, capture_output=True)
    assert contents(out) == contents(whole)
    assert all(Path(path).stat().st_ino == inode for path, inode in done.items() if Path(path).exists())


def test_two_at_once_share_the_work_and_end_in_the_same_store(sources: Path, whole: Path, tmp_path: Path) -> None:
    running = [
        subprocess.Popen(command(sources, tmp_path / "x.zarr"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=600) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert contents(tmp_path / "x.zarr") == contents(whole)


def test_two_at_once_with_different_sources_both_get_in(sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.zarr"
    base = [sys.executable, "-m", "vjepa2cli", "ingest"]
    options = ["--out", str(out), "--workers", "1", "--set", "short_side=64"]
    running = [
        subprocess.Popen([*base, str(sources / name), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in ("in", "pictures")
    ]
    said = [process.communicate(timeout=600) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    store = VideoStore.open(out)
    assert len(store.entries) == 12
    assert [item["source"] for item in store.refused] == ["notes.mp4"]
    assert all(store.damage(entry.key) is None for entry in store.entries)


def test_a_worker_that_stands_still_costs_its_file_alone(sources: Path, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    places = f"[Path({str(sources / 'in')!r})], Path({str(tmp_path / 'x.zarr')!r})"
    script.write_text(
        "from pathlib import Path\nfrom vjepa2cli.ingestion import ingest\nfrom vjepa2cli.settings import IngestConfig\n"
        f"if __name__ == '__main__':\n    ingest({places}, config=IngestConfig(short_side=64), workers=1, patience=3.0)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, str(script)], env=environment)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("x.zarr/videos/*.partial/frames")) and time.monotonic() < deadline:
        time.sleep(0.002)
    (worker,) = (pid for pid in _children(process.pid) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text())
    os.kill(worker, signal.SIGSTOP)
    assert process.wait(timeout=60) == 0
    store = VideoStore.open(tmp_path / "x.zarr")
    reasons = [item["reason"] for item in store.refused]
    assert sorted(reason[:30] for reason in reasons) == ["it holds text; give a video fi", "the decoder made no progress f"]
    assert len(store.entries) == 5
    again = [sys.executable, str(script)]
    subprocess.run(again, env=environment, check=True)
    assert len(VideoStore.open(tmp_path / "x.zarr").entries) == 6


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_verify_names_what_is_damaged_and_a_second_ingest_mends_it(
    vjepa2: Command, sources: Path, whole: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole, tmp_path / "x.zarr")
    store = VideoStore.open(out)
    one, other = store.entries[2].key, store.entries[5].key
    shard = out / "videos" / one / "frames/c/0/0/0/0"
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    shard.write_bytes(damaged)
    (out / "videos" / other / "timestamps/c/0").unlink()
    ended = vjepa2("ingest", "--verify", out, "--json")
    assert ended.returncode == 1
    found = json.loads(ended.stdout)["damaged"]
    assert set(found) == {one, other}
    assert "does not have the checksum" in found[one]
    last = ended.stderr.splitlines()[-1]
    assert one in last
    assert f"remove {out}/videos/KEY" in last
    for key in found:
        shutil.rmtree(out / "videos" / key)
    subprocess.run(command(sources, out), check=True, capture_output=True)
    assert contents(out) == contents(whole)
    assert vjepa2("ingest", "--verify", out).returncode == 0
