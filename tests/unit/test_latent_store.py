"""The latent store: whole or absent, ragged episodes, and padding that cannot be read."""

from pathlib import Path

import numpy as np
import pytest

from vjepa2cli.artifacts.latent_store import LatentHeader, LatentStore, create
from vjepa2cli.errors import ArtifactError

HEADER = LatentHeader("model", "abc", True, (1, 2, 2), 3, 4.0, "arm", {"crop": 32, "geometry": "centre"}, {})


def _write(path: Path, lengths: list[int], *, fail: bool = False) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    episodes = [rng.normal(size=(length, 4, 3)).astype(np.float16) for length in lengths]
    with create(path, HEADER, lengths=lengths, dtype="float16", dims=(7, 7)) as writer:
        for index, tokens in enumerate(episodes):
            writer.write(index, tokens, states=rng.normal(size=(len(tokens), 7)), actions=np.full((len(tokens) - 1, 7), index))
            if fail:
                raise OSError(28, "No space left on device")
        writer.name_episodes([f"e{i}" for i in range(len(lengths))], ["train"] * (len(lengths) - 1) + ["val"])
    return episodes


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
    with pytest.raises(ArtifactError, match="not within 0:2"):
        LatentStore.open(tmp_path / "ragged.h5").tokens(1, 0, 3)
    saved = (tmp_path / "even.h5").stat().st_size - (tmp_path / "ragged.h5").stat().st_size
    assert saved > 48 * 4 * 3 * 2  # at least the tokens of the 48 steps that were never written


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
