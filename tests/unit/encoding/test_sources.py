"""What is encoded: folders, globs, lists and stores find the same inputs, each once, under names that never collide."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vjepa2cli.data.video import read_clip
from vjepa2cli.encoding.sources import find_sources
from vjepa2cli.errors import ArtifactError, InputError

ALL = ["a.mp4", "b.mp4", "below/a.mp4", "c.png", "text.mp4"]


def names(*given: str | Path) -> list[str]:
    return sorted(source.name for source in find_sources(given))


def test_folder_glob_and_list_find_the_same_names(inputs: Path, monkeypatch: pytest.MonkeyPatch):
    assert names(inputs) == ALL
    assert names(inputs / "**/*") == ALL
    assert names(*(inputs / name for name in ALL)) == ALL
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\r\n".join(str(inputs / name) for name in ALL).encode())))
    assert names("-") == ALL
    monkeypatch.chdir(inputs)
    assert names("**/*.mp4", "./c.png", "below/../a.mp4", "below") == ALL
    assert names("*.mp4") == ["a.mp4", "b.mp4", "text.mp4"]
    assert names("below/*.mp4") == ["a.mp4"]


def test_inputs_of_one_name_keep_theirs_by_the_folder_they_lie_in(inputs: Path):
    assert names(inputs / "a.mp4", inputs / "below" / "a.mp4") == ["a.mp4", "below/a.mp4"]
    assert names(inputs / "below", inputs / "a.mp4", inputs / "a.mp4") == ["a.mp4", "below/a.mp4"]


def test_hidden_and_unfinished_files_are_no_inputs(inputs: Path, make_video: Callable[..., Path]):
    (inputs / "a.mp4").rename(inputs / "._a.mp4")
    make_video(inputs / ".cache" / "x.mp4", 1)
    make_video(inputs / "videos.zarr" / "x.mp4", 1)
    assert names(inputs) == names(inputs / "**") == [name for name in ALL if name != "a.mp4"]


def test_a_file_whose_name_reads_like_a_glob_is_that_file(tmp_path: Path, make_video: Callable[..., Path]):
    make_video(tmp_path / "take[1].mp4", 1)
    assert names(tmp_path / "take[1].mp4") == ["take[1].mp4"]


def test_store_is_named_by_its_keys_and_among_others_by_its_path(store: Path, video: Path):
    assert names(store) == ["one"]
    assert names(store, video) == ["square.mp4", "videos.zarr/one"]
    assert names(store.parent / "*.zarr") == ["videos.zarr/one"]


@pytest.mark.parametrize("fps", [None, 2.0, 3.0, 8.0, 20.0])
def test_store_is_sampled_as_the_video_is(store: Path, video: Path, fps: float | None):
    stored, filmed = find_sources([store])[0], find_sources([video])[0]
    times = [np.array([time for time, _ in source.open(fps=fps)]) for source in (stored, filmed)]
    clip = read_clip(video, fps=fps)
    assert np.allclose(times[0], times[1], atol=1e-3)
    assert np.allclose(times[1], clip.timestamps)
    assert np.array_equal(np.stack([pixels for _, pixels in filmed.open(fps=fps)]), clip.pixels)


def test_content_and_not_name_makes_the_digest(inputs: Path, make_video: Callable[..., Path]):
    make_video(inputs / "copy.mp4", 11)
    digests = {source.name: source.digest() for source in find_sources([inputs])}
    assert digests["copy.mp4"] == digests["a.mp4"] != digests["b.mp4"]


def test_what_holds_no_input_is_named(inputs: Path, monkeypatch: pytest.MonkeyPatch):
    (inputs / "empty").mkdir()
    for given, reason in (
        ("absent.mp4", "no such file"),
        ("empty", "no video or image"),
        ("*.webm", "matches nothing"),
        ("*.txt", "of 1 matches none is a video"),
    ):
        with pytest.raises(InputError, match=reason):
            find_sources([inputs / given])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n\n")))
    with pytest.raises(InputError, match="no path on stdin"):
        find_sources(["-"])
    (inputs / "other.zarr").mkdir()
    with pytest.raises(ArtifactError, match="no video store"):
        find_sources([inputs / "other.zarr"])


def test_a_line_that_names_no_file_is_an_input_to_refuse(inputs: Path, monkeypatch: pytest.MonkeyPatch):
    lines = [inputs / "a.mp4", inputs / "gone.mp4", inputs / os.fsdecode(b"caf\xe9.mp4")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(map(os.fsencode, lines)))))
    found = find_sources(["-"])
    assert [source.path for source in found] == lines
    with pytest.raises(InputError, match="no such file"):
        found[1].digest()
