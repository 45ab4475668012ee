"""Runs over several inputs: processes and formats change no bit, batches the last ones; a run goes on where it stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.encoding import Pictures, encode, pipeline, run
from vjepa2cli.encoding.memory import Plan
from vjepa2cli.encoding.workers import Crew
from vjepa2cli.errors import ArtifactError, ConfigError, InputError, StaleArtifactError, VideoError, WeightsError
from vjepa2cli.settings import EncodeConfig

CONFIG = EncodeConfig(num_frames=4, precision="fp32")
GOOD = ["a.mp4", "b.mp4", "below/a.mp4", "c.png"]


def digests(folder: Path) -> dict[str, str]:
    """Digest of the features of every input, by its name."""
    return {item["source"]: item["digest"] for item in read_report(folder / "encoding.json", "encode")["encoded"]}


def alone(inputs: Path, model: Path, config: EncodeConfig) -> dict[str, Any]:
    """The arrays of inputs that were encoded one at a time."""
    found = {}
    for name in GOOD:
        encode(inputs / name, model=model, out=inputs.parent / "alone.npz", config=config)
        found[name] = arrays(inputs.parent / "alone.npz")
    return found


def arrays(path: Path) -> dict[str, Any]:
    """What an .npz holds besides its header."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files if file[name].dtype.kind in "fi"}


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same arrays but for the rounding of float32."""
    assert found.keys() == expected.keys() >= {"timestamps", "grid", "num_frames"}
    for name, array in expected.items():
        assert found[name].shape == array.shape
        assert np.abs(found[name] - array).max() <= 1e-5, name


def fixed_plan(monkeypatch: pytest.MonkeyPatch, batch_size: int, processes: int) -> None:
    plan = Plan(batch_size, Crew(processes, ring_frames=5, tasks_ahead=2), 0)
    monkeypatch.setattr(run, "make_plan", lambda *_, **__: plan)


def test_folder_encodes_what_it_can_and_names_the_rest(inputs: Path, tiny_encoder: Path, tmp_path: Path):
    summary = encode(inputs, model=tiny_encoder, out=tmp_path / "features", config=CONFIG)
    assert summary["written"] == [str(tmp_path / "features" / f"{name}.npz") for name in GOOD]
    reason = "it holds text; give a video file such as .mp4, .webm, .mkv or .mov"
    assert summary["refused"] == [{"source": "text.mp4", "reason": reason}]
    report = read_report(tmp_path / "features" / "encoding.json", "encode")
    assert report["refused"] == summary["refused"]
    assert [item["num_frames"] for item in report["encoded"]] == [11, 3, 30, 1]
    for name in GOOD:
        (inputs / name).unlink()
    with pytest.raises(InputError, match=r"none of 1 inputs .* text\.mp4: it holds text"):
        encode(inputs, model=tiny_encoder, out=tmp_path / "nothing", config=CONFIG)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("mode", ["tokens", "window", "pooled"])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_change_no_more_than_the_last_bits(
    inputs: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, mode: Any, batch_size: int
):
    config = CONFIG.model_copy(update={"mode": mode})
    expected = alone(inputs, tiny_encoder, config)
    fixed_plan(monkeypatch, batch_size, 0)
    encode(inputs, model=tiny_encoder, out=inputs.parent / "features", config=config)
    for name in GOOD:
        assert_close(arrays(inputs.parent / "features" / f"{name}.npz"), expected[name])


@pytest.mark.parametrize("mode", ["tokens", "window", "pooled"])
def test_processes_change_no_bit(inputs: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, mode: Any):
    config = CONFIG.model_copy(update={"mode": mode})
    for processes in (0, 1, 2):
        fixed_plan(monkeypatch, 3, processes)
        encode(inputs, model=tiny_encoder, out=inputs.parent / f"by-{processes}", config=config)
    assert digests(inputs.parent / "by-0") == digests(inputs.parent / "by-1") == digests(inputs.parent / "by-2")


def test_batches_hold_windows_of_several_inputs(inputs: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch):
    shapes = []

    def noting(encoder: Any, pixels: Any, *, recipe: Any) -> Any:
        shapes.append(tuple(pixels.shape[:2]))
        return original(encoder, pixels, recipe=recipe)

    original = pipeline.encode_windows
    monkeypatch.setattr(pipeline, "encode_windows", noting)
    fixed_plan(monkeypatch, 6, 0)
    encode(inputs, model=tiny_encoder, out=inputs.parent / "features", config=CONFIG)
    # 11, 3 and 30 frames make 3 + 1 + 8 windows of four frames; the image is one of two.
    assert sorted(shapes) == [(1, 2), (6, 4), (6, 4)]


@pytest.mark.parametrize("out", ["features", "features.h5", "features.zarr"])
def test_a_second_run_keeps_what_is_there_and_adds_what_is_new(
    inputs: Path, tiny_encoder: Path, make_video: Callable[..., Path], out: str
):
    target = inputs.parent / out
    first = encode(inputs, model=tiny_encoder, out=target, config=CONFIG)
    assert (len(first["written"]), first["kept"]) == (4, [])
    again = encode(inputs, model=tiny_encoder, out=target, config=CONFIG)
    assert (again["written"], again["kept"], again["encoded"]) == ([], first["written"], first["encoded"])
    make_video(inputs / "new.mp4", 5)
    more = encode(inputs, model=tiny_encoder, out=target, config=CONFIG)
    assert [Path(path).name.removesuffix(".npz") for path in more["written"]] == ["new.mp4"]
    assert [item for item in more["encoded"] if item["source"] != "new.mp4"] == first["encoded"]


@pytest.mark.parametrize("out", ["features", "features.h5", "features.zarr"])
def test_features_that_were_made_otherwise_are_kept_until_they_are_to_be_replaced(
    inputs: Path, tiny_encoder: Path, deep_encoder: Path, make_video: Callable[..., Path], out: str
):
    target = inputs.parent / out
    encode(inputs, model=tiny_encoder, out=target, config=CONFIG)
    other = CONFIG.model_copy(update={"num_frames": 8})
    with pytest.raises(StaleArtifactError, match=r"a\.mp4 were made otherwise: num_frames: 4 -> 8"):
        encode(inputs, model=tiny_encoder, out=target, config=other)
    with pytest.raises(StaleArtifactError, match="model: "):
        encode(inputs, model=deep_encoder, out=target, config=CONFIG)
    make_video(inputs / "b.mp4", 6)
    changed = encode(inputs, model=tiny_encoder, out=target, config=CONFIG)
    assert [(item["source"], "other content" in item["reason"]) for item in changed["refused"]] == [
        ("b.mp4", True),
        ("text.mp4", False),
    ]
    replaced = encode(inputs, model=tiny_encoder, out=target, config=CONFIG, replace=True)
    assert [Path(path).name.removesuffix(".npz") for path in replaced["written"]] == ["b.mp4"]
    assert len(encode(inputs, model=tiny_encoder, out=target, config=other, replace=True)["written"]) == 4


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_one_store_takes_all_inputs(inputs: Path, tiny_encoder: Path, tmp_path: Path, suffix: str):
    encode(inputs, model=tiny_encoder, out=tmp_path / "features", config=CONFIG)
    encode(inputs, model=tiny_encoder, out=tmp_path / f"all{suffix}", config=CONFIG)
    store = h5py.File(tmp_path / f"all{suffix}") if suffix == ".h5" else zarr.open_group(tmp_path / f"all{suffix}", mode="r")
    for name in GOOD:
        with np.load(tmp_path / "features" / f"{name}.npz") as file:
            for array in ("tokens", "timestamps", "grid", "num_frames"):
                assert np.array_equal(store[f"{name}/{array}"][...], file[array])
    report = read_report(tmp_path / "all.encoding.json", "encode")
    assert report["encoded"] == read_report(tmp_path / "features" / "encoding.json", "encode")["encoded"]
    assert not list(tmp_path.glob("*.parts"))


def test_a_folder_takes_the_format_that_is_asked_for(inputs: Path, tiny_encoder: Path, tmp_path: Path):
    encode(inputs, model=tiny_encoder, out=tmp_path / "features", suffix=".safetensors", config=CONFIG)
    found = sorted(str(path.relative_to(tmp_path / "features")) for path in (tmp_path / "features").rglob("*.safetensors"))
    assert found == [f"{name}.safetensors" for name in GOOD]


def test_shared_pictures_are_drawn_from_what_was_written(inputs: Path, tiny_encoder: Path, tmp_path: Path):
    pictures = Pictures(tmp_path / "pictures", shared=True)
    for target in ("features", "all.h5"):
        summary = encode(inputs, model=tiny_encoder, out=tmp_path / target, config=CONFIG, pictures=pictures)
        assert [Path(path).stem.split(".")[0] for path in summary["drawn"]] == ["a", "b", "a", "c"]
    again = encode(inputs, model=tiny_encoder, out=tmp_path / "all.h5", config=CONFIG, pictures=pictures)
    assert again["drawn"] == summary["drawn"]
    pooled = CONFIG.model_copy(update={"mode": "pooled"})
    with pytest.raises(ConfigError, match="pictures are of tokens"):
        encode(inputs, model=tiny_encoder, out=tmp_path / "x", config=pooled, pictures=pictures)


def test_what_is_in_the_way_is_refused(inputs: Path, tiny_encoder: Path, tmp_path: Path):
    video = inputs / "a.mp4"
    for given, out, reason in (
        (video, "a.txt", "choose one of these suffixes"),
        (inputs, "a.npz", "a folder of .npz or to one .h5 or .zarr"),
        (inputs, "inputs/notes.txt", "is a file"),
    ):
        with pytest.raises(InputError, match=reason):
            encode(given, model=tiny_encoder, out=tmp_path / out, config=CONFIG)
    with pytest.raises(InputError, match=r"is not \.h5"):
        encode(video, model=tiny_encoder, out=tmp_path / "a.npz", suffix=".h5", config=CONFIG)
    (tmp_path / "theirs.zarr").mkdir()
    with pytest.raises(ArtifactError, match="other than features"):
        encode(inputs, model=tiny_encoder, out=tmp_path / "theirs.zarr", config=CONFIG)
    with pytest.raises(WeightsError, match="vjepa2-vitl-256"):
        encode(video, model=None)
    with pytest.raises(InputError, match=r"\.mp4 for a video"):
        encode(video, model=tiny_encoder, out=tmp_path / "a.npz", pictures=Pictures(tmp_path / "a.png"), config=CONFIG)
    with pytest.raises(VideoError, match=r"text\.mp4"):
        encode(inputs / "text.mp4", model=tiny_encoder, out=tmp_path / "a.npz", config=CONFIG)
    assert not (tmp_path / "a.npz").exists()


def test_a_video_that_is_cut_short_after_some_windows_leaves_nothing(
    tiny_encoder: Path, tmp_path: Path, make_video: Callable[..., Path], shared: Path
):
    cut = shared / "data/hostile/derived/truncated_60pct_04_coffee.mp4"
    make_video(tmp_path / "inputs" / "a.mp4", 5)
    (tmp_path / "inputs" / "cut.mp4").write_bytes(cut.read_bytes())
    summary = encode(tmp_path / "inputs", model=tiny_encoder, out=tmp_path / "features", config=CONFIG)
    assert [item["source"] for item in summary["refused"]] == ["cut.mp4"]
    assert sorted(path.name for path in (tmp_path / "features").iterdir()) == ["a.mp4.npz", "encoding.json"]
