"""The latent store: whole or absent, kept across a kill, readable while it grows, of one file or of many."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from vjepa2cli.artifacts.latent_store import (
    Episode,
    LatentHeader,
    LatentStore,
    Layout,
    Shard,
    create,
    find_shards,
    member_path,
    open_writer,
    remove,
    write_index,
)
from vjepa2cli.errors import ArtifactError, ConfigError, StaleArtifactError

HEADER = LatentHeader("model", "abc", True, (1, 2, 2), 3, 4.0, "arm", {"crop": 32, "geometry": "centre"}, {})
FORMATS = ["float32", "float16", "bfloat16", "int8"]


def _write(path: Path, lengths: list[int], *, fail: bool = False) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    episodes = [rng.normal(size=(length, 4, 3)).astype(np.float16) for length in lengths]
    with create(path, HEADER, dtype="float16") as writer:
        for index, tokens in enumerate(episodes):
            writer.write(index, tokens, states=rng.normal(size=(len(tokens), 7)), actions=np.full((len(tokens) - 1, 7), index))
            if fail:
                raise OSError(28, "No space left on device")
        writer.name_episodes([f"e{i}" for i in range(len(lengths))], ["train"] * (len(lengths) - 1) + ["val"])
    return episodes


def layout(lengths: list[int], *, dtype: str = "float16", num_views: int = 1, first: int = 0) -> Layout:
    episodes = [
        Episode(f"e{number}", "train" if number % 3 else "val", np.full((n, 7), number, "f4"), np.full((n - 1, 7), -number, "f4"))
        for number, n in enumerate(lengths, start=first)
    ]
    return Layout(HEADER, episodes, dtype, num_views)


def latents(number: int, length: int, view: int = 0) -> torch.Tensor:
    """What episode `number` holds."""
    return torch.randn(length, 4, 3, generator=torch.Generator().manual_seed(10 * number + view))


def fill(path: Path, plan: Layout, *, first: int = 0) -> None:
    with open_writer(path, plan) as writer:
        for index in writer.left:
            for view in range(plan.views_of(index)):
                writer.write(index, latents(first + index, plan.episodes[index].length, view), view=view)
            writer.finish(index)


def test_episodes_of_different_lengths_come_back_as_written(tmp_path: Path) -> None:
    written = _write(tmp_path / "l.h5", [5, 9, 2])
    store = LatentStore.open(tmp_path / "l.h5")
    for index, tokens in enumerate(written):
        assert np.array_equal(store.tokens(index), tokens.astype(np.float32))
        assert np.array_equal(store.actions(index), np.full((len(tokens) - 1, 7), index, dtype=np.float32))
    assert (store.of_split("train"), store.of_split("val"), store.of_split("all")) == ([0, 1], [2], [0, 1, 2])
    assert (store.encoder_digest, store.grid, store.rate) == ("abc", (1, 2, 2), 4.0)


def test_padding_is_refused_and_takes_no_room(tmp_path: Path) -> None:
    _write(tmp_path / "even.h5", [50, 50])
    _write(tmp_path / "ragged.h5", [50, 2])
    with pytest.raises(ArtifactError, match=r"not within 0:2"):
        LatentStore.open(tmp_path / "ragged.h5").tokens(1, 0, 3)
    saved = (tmp_path / "even.h5").stat().st_size - (tmp_path / "ragged.h5").stat().st_size
    assert saved >= 48 * 4 * 3 * 2  # the tokens of the 48 steps that are not there


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        _write(tmp_path / "l.h5", [4, 4], fail=True)
    assert list(tmp_path.iterdir()) == []


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    _write(tmp_path / "a.h5", [4, 6])
    _write(tmp_path / "b.h5", [4, 6])
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize("content", [b"", b"not hdf5 at all"])
def test_a_damaged_store_says_what_to_run(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "l.h5").write_bytes(content)
    with pytest.raises(ArtifactError, match="vjepa2 precompute"):
        LatentStore.open(tmp_path / "l.h5")


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "l.h5", layout([5, 9]))
    os.truncate(tmp_path / "l.h5", 4 * 4 * 3 * 2)
    with pytest.raises(ArtifactError, match="vjepa2 precompute"):
        LatentStore.open(tmp_path / "l.h5")


@pytest.mark.parametrize("dtype", FORMATS)
def test_each_format_keeps_what_it_can_and_says_its_name(tmp_path: Path, dtype: str) -> None:
    plan = layout([6, 3], dtype=dtype)
    fill(tmp_path / "l.h5", plan)
    store, wanted = LatentStore.open(tmp_path / "l.h5"), latents(0, 6)
    found = torch.from_numpy(store.tokens(0))
    if dtype == "int8":
        half_a_step = wanted.abs().amax(dim=-1, keepdim=True) / 127 / 2
        assert ((found - wanted).abs() <= half_a_step * (1 + 1e-5)).all()
    else:
        assert torch.equal(found, wanted.to(getattr(torch, dtype)).float())
    with h5py.File(tmp_path / "l.h5") as file:
        assert file["tokens"].attrs["torch_dtype"] == dtype
        assert file["steps"].id.get_storage_size() == plan.num_bytes - (9 * 4 * 4 if dtype == "int8" else 0)


@pytest.mark.parametrize("dtype", FORMATS)
def test_whoever_opens_the_file_with_hdf5_finds_tokens_by_episode_and_step(tmp_path: Path, dtype: str) -> None:
    fill(tmp_path / "l.h5", layout([6, 3], dtype=dtype))
    with h5py.File(tmp_path / "l.h5") as file:
        tokens, lengths = file["tokens"], file["lengths"][:]
        assert tokens.shape == (2, 6, 4, 3)
        stored = tokens[1, : lengths[1]]
        if dtype == "bfloat16":
            stored = torch.from_numpy(stored.view(np.int16)).view(torch.bfloat16).float().numpy()
        if dtype == "int8":
            stored = stored * file["scales"][file["first"][0, 1] :][:3, :, None]
        assert np.array_equal(stored.astype(np.float32), LatentStore.open(tmp_path / "l.h5").tokens(1))
        padding = {"bfloat16": 0x7FC0, "int8": -128}.get(dtype)
        assert np.array_equal(
            tokens[1, 3:], np.full((3, 4, 3), np.nan if padding is None else padding), equal_nan=padding is None
        )


def test_training_episodes_have_every_view_and_held_out_ones_the_plain_one(tmp_path: Path) -> None:
    fill(tmp_path / "l.h5", layout([5, 4, 6], dtype="float32", num_views=3))
    store = LatentStore.open(tmp_path / "l.h5")
    assert [store.num_views(index) for index in range(3)] == [1, 3, 3]
    for index, view in [(0, 0), (1, 0), (1, 2), (2, 1)]:
        wanted = latents(index, store.lengths[index], view)
        assert np.array_equal(store.tokens(index, 1, 3, view=view), wanted[1:3].numpy())
    with pytest.raises(ArtifactError, match="of 1 views"):
        store.tokens(0, view=1)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_latent_store import latents, layout, open_writer
with open_writer(Path(sys.argv[1]), layout([5, 7, 4, 6])) as writer:
    for index in (0, 1):
        writer.write(index, latents(index, [5, 7][index]))
        writer.finish(index)
    writer.write(2, 0 * latents(2, 3))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_is_gone_on_from_at_its_episode(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.h5", tmp_path / "killed.h5"
    fill(whole, layout([5, 7, 4, 6]))
    ended = subprocess.run([sys.executable, "-c", KILLED, killed, Path(__file__).parent], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not killed.exists()
    there = LatentStore.open(killed, growing=True)
    assert there.of_split("all") == [0, 1]
    assert np.array_equal(there.tokens(1), LatentStore.open(whole).tokens(1))
    with open_writer(killed, layout([5, 7, 4, 6])) as writer:
        assert writer.left == [2, 3]
    fill(killed, layout([5, 7, 4, 6]))
    assert killed.read_bytes() == whole.read_bytes()


def test_a_growing_store_is_read_episode_by_episode(tmp_path: Path) -> None:
    path, plan = tmp_path / "l.h5", layout([5, 4])
    with pytest.raises(ArtifactError, match="no such latent store"):
        LatentStore.open(path, growing=True)
    with open_writer(path, plan) as writer:
        store = LatentStore.open(path, growing=True)
        with pytest.raises(ArtifactError, match="no such latent store"):
            LatentStore.open(path)
        assert store.of_split("all") == []
        for index in (1, 0):
            with pytest.raises(ArtifactError, match="is not there yet"):
                store.tokens(index)
            writer.write(index, latents(index, plan.episodes[index].length))
            writer.finish(index)
            assert np.array_equal(store.tokens(index), latents(index, plan.episodes[index].length).half().float().numpy())
    assert store.of_split("all") == [0, 1] == LatentStore.open(path, growing=True).of_split("all")


def test_a_file_has_one_writer(tmp_path: Path) -> None:
    with (
        open_writer(tmp_path / "l.h5", layout([5])),
        pytest.raises(ArtifactError, match="another process"),
        open_writer(tmp_path / "l.h5", layout([5])),
    ):
        pass


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"encoder_digest": "xyz"}, r"another encoder: model \(abc\), now model \(xyz\)"),
        ({"provenance": {"inputs": {"videos": "new"}}}, "other recordings: None, now new"),
        ({"preprocessing": {"crop": 64, "geometry": "centre"}}, "another configuration"),
    ],
)
def test_what_was_begun_for_something_else_is_refused(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with open_writer(tmp_path / "l.h5", layout([5])):
        pass
    other = replace(layout([5]), header=replace(HEADER, **changes))  # type: ignore[arg-type]
    with pytest.raises(StaleArtifactError, match=says), open_writer(tmp_path / "l.h5", other):
        pass


@pytest.fixture
def sharded(tmp_path: Path) -> tuple[Path, Path]:
    """The same episodes in one file and in two."""
    lengths = [5, 7, 4, 6]
    fill(tmp_path / "one.h5", layout(lengths, num_views=2))
    members = []
    for part in (Shard(0, 2), Shard(1, 2)):
        mine = part.of(lengths)
        members.append(member_path(tmp_path / "two.h5", part))
        fill(members[-1], layout(lengths[mine.start : mine.stop], num_views=2, first=mine.start), first=mine.start)
    write_index(tmp_path / "two.h5", members)
    return tmp_path / "one.h5", tmp_path / "two.h5"


def test_files_of_several_writers_are_one_store(sharded: tuple[Path, Path]) -> None:
    one, two = (LatentStore.open(path) for path in sharded)
    assert one.digest == two.digest
    assert (one.episodes, one.split, one.lengths) == (two.episodes, two.split, two.lengths)
    for index in range(4):
        assert one.num_views(index) == two.num_views(index)
        assert np.array_equal(one.tokens(index, view=one.num_views(index) - 1), two.tokens(index, view=one.num_views(index) - 1))
        assert np.array_equal(one.states(index), two.states(index))
    with h5py.File(sharded[1]) as file:
        assert file["members/two-00001-of-00002/tokens"].shape[2:] == (4, 3)


def test_an_index_refuses_a_missing_or_another_member(sharded: tuple[Path, Path]) -> None:
    member = member_path(sharded[1], Shard(1, 2))
    content = member.read_bytes()
    member.unlink()
    with pytest.raises(ArtifactError, match=r"1 of its 2 members are not beside it: two-00001-of-00002\.h5"):
        LatentStore.open(sharded[1])
    fill(member, layout([6, 4], first=2, num_views=2))
    with pytest.raises(ArtifactError, match=r"is not the member that two\.h5 was made of"):
        LatentStore.open(sharded[1])
    member.write_bytes(content)
    assert LatentStore.open(sharded[1]).digest == LatentStore.open(sharded[0]).digest


def test_members_of_another_encoder_make_no_index(tmp_path: Path) -> None:
    fill(tmp_path / "a.h5", layout([5]))
    fill(tmp_path / "b.h5", replace(layout([5]), header=replace(HEADER, encoder_digest="xyz")))
    with pytest.raises(StaleArtifactError, match=r"b\.h5: was begun with another encoder"):
        write_index(tmp_path / "c.h5", [tmp_path / "a.h5", tmp_path / "b.h5"])
    assert not (tmp_path / "c.h5").exists()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_parts_hold_every_episode_once_in_order_and_about_as_many_steps(count: int) -> None:
    lengths = np.random.default_rng(count).integers(2, 30, 40).tolist()
    parts = [Shard(index, count).of(lengths) for index in range(count)]
    assert [episode for part in parts for episode in part] == list(range(40))
    steps = [sum(lengths[episode] for episode in part) for part in parts]
    assert max(steps) - min(steps) <= 2 * max(lengths)


@pytest.mark.parametrize("text", ["", "3", "3/3", "-1/3", "a/b", "1/2/3"])
def test_a_part_that_is_none_is_told_the_form(text: str) -> None:
    with pytest.raises(ConfigError, match="is not i/n"):
        Shard.parse(text)


def test_removing_leaves_what_other_jobs_may_be_writing(sharded: tuple[Path, Path]) -> None:
    path = sharded[1]
    with open_writer(member_path(path, Shard(2, 3)), layout([5])):
        pass
    with pytest.raises(StaleArtifactError, match="in 2 parts and in 3"):
        find_shards(path)
    remove(path, Shard(1, 3))
    assert sorted(file.name for file in path.parent.iterdir()) == ["one.h5", "two-00002-of-00003.h5.partial"]
    remove(path)
    assert [file.name for file in path.parent.iterdir()] == ["one.h5"]
