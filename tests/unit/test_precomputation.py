"""Precompute: no latent has seen its future, nothing is done twice, and what belongs to something else is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vjepa2cli import config as configs
from vjepa2cli.artifacts.latent_store import LatentStore, Shard, member_path
from vjepa2cli.artifacts.video_store import Description, VideoStoreWriter
from vjepa2cli.cli import app
from vjepa2cli.data.transforms import frame_transform
from vjepa2cli.data.views import draw_view
from vjepa2cli.errors import ArtifactError, ConfigError, InputError, StaleArtifactError
from vjepa2cli.precomputation import Precompute, precompute
from vjepa2cli.settings import PrecomputeConfig

MakeStore = Callable[..., Path]
LENGTHS = {"a": 9, "b": 6, "c": 5, "d": 7}


@pytest.fixture
def robot_store(tmp_path: Path) -> MakeStore:
    """`make(name, changed=None, fps=4.0)` writes four recordings of noise; `changed` (key, frame) paints one frame white."""

    def make(name: str = "robot.zarr", *, changed: tuple[str, int] | None = None, fps: float = 4.0) -> Path:
        store = VideoStoreWriter.open(tmp_path / name, {"codec": "none", "shard_frames": 16})
        for number, (key, length) in enumerate(LENGTHS.items()):
            rng = np.random.default_rng(number)
            frames = rng.integers(0, 255, (length, 32, 40, 3), np.uint8)
            if changed is not None and changed[0] == key:
                frames[changed[1]] = 255
            with store.entry(key) as entry:
                for index, frame in enumerate(frames):
                    entry.append(index / fps, index, frame)
                states = rng.normal(size=(length, 7)).astype(np.float32) * 0.01
                about = Description(source=key, source_digest=str(changed), episode=key, fps=fps, robot="arm")
                entry.finish(about, rows={"states": states})
        listed = {key: {"split": "val" if key == "c" else "train", "weight": None} for key in LENGTHS}
        store.finalise(listed, refused=[], provenance={})
        return tmp_path / name

    return make


def config(**changes: Any) -> PrecomputeConfig:
    made = configs.validate({"step": "precompute", "crop": 32, "batch_frames": 4} | changes, where="test")
    assert isinstance(made, PrecomputeConfig)
    return made


class KilledAfter:
    """A Progress that ends the run after so many frames."""

    def __init__(self, frames: int) -> None:
        self._left = frames

    def start(self, description: str, *, total: int, done: int = 0) -> None:
        """Nothing is shown."""

    def advance(self, count: int = 1, *, fields: dict[str, float] | None = None) -> None:
        self._left -= count
        if self._left <= 0:
            raise KeyboardInterrupt

    def finish(self) -> None:
        """Nothing is shown."""


class Counting:
    """A Progress that remembers how much was to be done, and was done."""

    def __init__(self) -> None:
        self.total = self.done = self.advanced = 0

    def start(self, description: str, *, total: int, done: int = 0) -> None:
        self.total, self.done = total, done

    def advance(self, count: int = 1, *, fields: dict[str, float] | None = None) -> None:
        self.advanced += count

    def finish(self) -> None:
        """Nothing is shown."""


@pytest.mark.parametrize("frame", [4, 8])
def test_a_later_frame_leaves_every_earlier_latent_as_it_was_to_the_bit(
    robot_store: MakeStore, tiny_encoder: Path, tmp_path: Path, frame: int
) -> None:
    stores = []
    for name, changed in (("plain", None), ("changed", ("a", frame))):
        source = robot_store(f"{name}.zarr", changed=changed)
        settings = config(dtype="float32", views={"count": 2})
        stores.append(LatentStore.open(precompute(source, tmp_path / f"{name}.h5", model=str(tiny_encoder), config=settings)))
    for view in range(2):
        before, after = (store.tokens(0, view=view) for store in stores)
        others = [index for index in range(LENGTHS["a"]) if index != frame]
        assert np.array_equal(before[others], after[others])
        assert not np.array_equal(before[frame], after[frame])
    assert np.array_equal(stores[0].tokens(1), stores[1].tokens(1))


def test_a_killed_run_goes_on_with_the_episode_it_was_at(robot_store: MakeStore, tiny_encoder: Path, tmp_path: Path) -> None:
    source, places = robot_store(), {"model": str(tiny_encoder), "config": config(views={"count": 2})}
    precompute(source, tmp_path / "whole.h5", **places)
    with pytest.raises(KeyboardInterrupt):
        precompute(source, tmp_path / "killed.h5", **places, progress=KilledAfter(11))
    assert not (tmp_path / "killed.h5").exists()
    assert LatentStore.open(tmp_path / "killed.h5", growing=True).of_split("all") == [0]
    seen = Counting()
    precompute(source, tmp_path / "killed.h5", **places, progress=seen)
    assert (seen.total, seen.done, seen.advanced) == (27, 9, 18)
    assert (tmp_path / "killed.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    again = Counting()
    precompute(source, tmp_path / "killed.h5", **places, progress=again)
    assert again.advanced == 0


def test_parts_by_several_jobs_make_the_same_store_whichever_ends_last(
    robot_store: MakeStore, tiny_encoder: Path, tmp_path: Path
) -> None:
    source, places = robot_store(), {"model": str(tiny_encoder), "config": config()}
    one = LatentStore.open(precompute(source, tmp_path / "one.h5", **places))
    out = tmp_path / "many.h5"
    for index in (2, 0):
        work = Precompute(source, out, **places)
        assert not work.run(Shard(index, 3))
        assert not out.exists()
    with pytest.raises(StaleArtifactError, match="was begun in 3 parts, now 2"):
        precompute(source, out, shard=Shard(0, 2), **places)
    left = Precompute(source, out, **places).estimate()
    assert left["left_episodes"] < left["episodes"] == 4
    precompute(source, out, **places)  # without a part: all that is left
    many = LatentStore.open(out)
    assert many.digest == one.digest
    assert all(np.array_equal(many.tokens(index), one.tokens(index)) for index in range(4))
    member_path(out, Shard(1, 3)).unlink()
    with pytest.raises(ArtifactError, match=r"1 of its 3 members are not beside it: many-00001-of-00003\.h5"):
        LatentStore.open(out)


def test_more_parts_than_episodes_leave_some_with_nothing_to_do(
    robot_store: MakeStore, tiny_encoder: Path, tmp_path: Path
) -> None:
    source, places = robot_store(), {"model": str(tiny_encoder), "config": config()}
    ends = [Precompute(source, tmp_path / "l.h5", **places).run(Shard(index, 9)) for index in range(9)]
    assert ends[-1]
    assert LatentStore.open(tmp_path / "l.h5").lengths == list(LENGTHS.values())


def test_what_was_made_of_something_else_is_refused(robot_store: MakeStore, tiny_encoder: Path, tmp_path: Path) -> None:
    source, out = robot_store(), tmp_path / "l.h5"
    precompute(source, out, model=str(tiny_encoder), config=config())
    with pytest.raises(StaleArtifactError, match=r"another encoder: .*, now pixels:"):
        precompute(source, out, model=f"pixels:{tiny_encoder}", config=config())
    with pytest.raises(StaleArtifactError, match="geometry: centre, now wide; use --replace"):
        precompute(source, out, model=str(tiny_encoder), config=config(geometry="wide"))
    with pytest.raises(StaleArtifactError, match="other recordings"):
        precompute(robot_store("other.zarr", changed=("d", 0)), out, model=str(tiny_encoder), config=config())


def test_a_part_that_another_job_is_to_replace_is_waited_for(robot_store: MakeStore, tiny_encoder: Path, tmp_path: Path) -> None:
    source, out = robot_store(), tmp_path / "l.h5"
    for index in range(2):
        precompute(source, out, model=str(tiny_encoder), config=config(), shard=Shard(index, 2))
    out.unlink()
    member_path(out, Shard(0, 2)).unlink()
    assert not Precompute(source, out, model=f"pixels:{tiny_encoder}", config=config()).run(Shard(0, 2))
    assert not out.exists()


def test_the_size_is_told_before_it_begins_and_one_that_does_not_fit_is_refused(
    robot_store: MakeStore,
    tiny_encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source, out = robot_store(), tmp_path / "l.h5"
    command = ["precompute", str(source), "--out", str(out), "--model", str(tiny_encoder), "--set", "crop=32", "--json"]
    app([*command, "--set", "views.count=3", "--set", "dtype=int8", "--dry-run"], standalone_mode=False)
    told = json.loads(capfd.readouterr().out)
    rows = 3 * (9 + 6 + 7) + 5  # the held-out recording has the plain view alone
    assert told["bytes"] == told["left_bytes"] == rows * 4 * (24 + 4)
    assert not told["whole"]
    assert not list(tmp_path.glob("l.h5*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 5000, 5000))  # type: ignore[attr-defined]
    with pytest.raises(ArtifactError, match=r"l\.h5: the disk is full before it begins: the latents take 5\.18 kB and 5 kB are"):
        precompute(source, out, model=str(tiny_encoder), config=config())
    assert not list(tmp_path.glob("l.h5*"))


def test_views_are_the_same_in_every_run_and_leave_the_plain_one_alone(
    robot_store: MakeStore, tiny_encoder: Path, tmp_path: Path
) -> None:
    source, model = robot_store(), str(tiny_encoder)
    plain = LatentStore.open(precompute(source, tmp_path / "plain.h5", model=model, config=config()))
    both = [
        LatentStore.open(precompute(source, tmp_path / f"{name}.h5", model=model, config=config(views={"count": 3})))
        for name in "ab"
    ]
    assert [both[0].num_views(index) for index in range(4)] == [3, 3, 1, 3]
    for index in (0, 2):
        assert np.array_equal(plain.tokens(index), both[0].tokens(index))
    views = [both[0].tokens(0, view=view) for view in range(3)]
    assert all(np.abs(views[first] - views[second]).mean() > 0.1 for first, second in ((0, 1), (1, 2)))
    assert all(np.array_equal(both[1].tokens(0, view=view), views[view]) for view in range(3))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_view_shows_a_part_and_keeps_greys_grey_but_for_their_level() -> None:
    ranges = config(views={"scale": [0.5, 0.6], "hue": 0.3, "saturation": 0.5}).views
    frames = np.full((2, 48, 64, 3), 120, np.uint8)
    for seed in range(5):
        view = draw_view(np.random.default_rng(seed), ranges)
        top, left, rows, columns = view.part_of((0, 8, 48, 48))
        assert 0.48 <= rows * columns / 48**2 <= 0.62
        assert 0 <= top <= 48 - rows
        assert 8 <= left <= 56 - columns
        red, green, blue = np.array(view.colours) @ [120, 120, 120, 1]
        assert red == pytest.approx(green) == pytest.approx(blue)
        assert 127.5 + (0.8 * 0.8 * 120 - 127.5) * 1.3 < red < 127.5 + (1.2 * 1.2 * 120 - 127.5) * 1.3
        assert frame_transform(frames, crop=16, view=view).shape == (2, 3, 16, 16)


def test_recordings_without_states_at_two_rates_or_too_short_are_refused(
    robot_store: MakeStore, noise_store: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="holds no robot states"):
        precompute(noise_store, tmp_path / "l.h5", model=str(tiny_encoder), config=config())
    with pytest.raises(InputError, match="no recording lasts 2 steps"):
        precompute(robot_store(), tmp_path / "l.h5", model=str(tiny_encoder), config=config(rate=0.1))
    with pytest.raises(ConfigError, match="dtype"):
        config(dtype="float8")
