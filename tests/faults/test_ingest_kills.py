"""Ingest that is killed at every kind of moment: before each of many changes that it makes to the file system."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli.data.video import write_video

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

# One process, so that each kill costs a fork and not a start. All ingests are forked: the Zarr library's thread does not live on.
_SWEEP = """
import os, shutil, sys
from pathlib import Path
from vjepa2cli.errors import StaleArtifactError
from vjepa2cli.ingestion import ingest
from vjepa2cli.settings import IngestConfig

root, step = Path(sys.argv[1]), int(sys.argv[2])
now, config = root / "now", IngestConfig(short_side=16, shard_frames=4, val_fraction=0.25)


def run(out, die_at=None):
    if (pid := os.fork()) == 0:
        code = 1
        try:
            if die_at is not None:
                kill(die_at)
            ingest([now / "in", now / "t.csv"], out, config=config, workers=0)
            code = 0
        except StaleArtifactError as error:
            assert "holds c.mp4, which is gone" in str(error), error
            code = 3
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] >> 8


def kill(at):
    left = [at]
    changes = {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}

    def hook(event, what):
        if event in changes or (event == "open" and isinstance(what[2], int) and what[2] & (os.O_WRONLY | os.O_RDWR)):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)

    sys.addaudithook(hook)


def sources(name):
    shutil.rmtree(now, ignore_errors=True)
    shutil.copytree(root / name, now)


def contents(store):
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


for name in ("before", "during", "after"):
    sources(name)
    assert run(root / f"{name}.zarr") == 0
during, after = contents(root / "during.zarr"), contents(root / "after.zarr")
moments = 0
while True:
    out = root / "x.zarr"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(root / "before.zarr", out)
    sources("during")
    ended = run(out, moments * step)
    assert ended in (0, 9), ended
    wanted = after
    sources("after")
    if (again := run(out)) == 3:  # it got as far as c.mp4
        sources("during")
        again, wanted = run(out), during
    assert again == 0, (moments, again)
    assert contents(out) == wanted, (moments, contents(out).keys() ^ wanted.keys())
    if ended == 0:
        break
    moments += 1
print(moments)
"""


def video(path: Path, *, seed: int, num_frames: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scene = np.random.default_rng(seed).integers(0, 200, (1, 32, 48, 3), np.uint8)
    write_video(path, scene + np.arange(num_frames, dtype=np.uint8)[:, None, None, None] * 2, fps=4)


def test_killed_before_any_change_it_ends_in_the_store_of_what_is_there_then(tmp_path: Path) -> None:
    """A changed video, one that is new and then gone, a table with other rows: what a kill leaves may not outlive its source."""
    rows = {"before": "l.mp4,0,1\nl.mp4,2,3\n", "during": "l.mp4,0,1.5\nl.mp4,2,3\n", "after": "l.mp4,0,1\nl.mp4,2.5,3\n"}
    for name, text in rows.items():
        folder = tmp_path / name
        video(folder / "l.mp4", seed=0, num_frames=14)
        (folder / "t.csv").write_text(f"path,start,end\n{text}")
        video(folder / "in/b.mp4", seed=2 if name == "during" else 1)
        if name == "during":
            video(folder / "in/c.mp4", seed=3)
            (folder / "in/no.mp4").write_text("not a video")
    words = [sys.executable, "-c", _SWEEP, str(tmp_path), "9"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, cwd=REPOSITORY)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert int(ended.stdout) > 15
