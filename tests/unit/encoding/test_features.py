"""Features: the numbers are the encoder's own, whatever the mode, the layers and the format."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vjepa2cli.artifacts.feature_files import SUFFIXES, read_blocks, read_header
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.data.video import read_clip, read_image, write_image, write_video
from vjepa2cli.encoding import Pictures, encode
from vjepa2cli.errors import ConfigError
from vjepa2cli.settings import EncodeConfig

FPS = 8.0


def settings(**changes: Any) -> EncodeConfig:
    return EncodeConfig(**({"num_frames": 4, "precision": "fp32"} | changes))


def read(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def encoded(video: Path, model: Path | str, **changes: Any) -> dict[str, NDArray[Any]]:
    out = video.parent / "features.npz"
    encode(video, model=model, out=out, config=settings(**changes))
    return read(out)


def test_tokens_are_those_of_windows_that_follow_each_other(video: Path, tiny_encoder: Path, by_hand: Any):
    summary = encode(video, model=tiny_encoder, out=video.parent / "features.npz", config=settings())
    found, pixels = read(video.parent / "features.npz"), read_clip(video).pixels
    assert found["tokens"].shape == (6, 2, 2, 24)
    # Frames 8, 9, 10 and a copy of 10 make the last window.
    for step, numbers in {0: [0, 1, 2, 3], 2: [4, 5, 6, 7], 4: [8, 9, 10, 10]}.items():
        assert np.allclose(found["tokens"][step : step + 2], by_hand(tiny_encoder, pixels[numbers])[0], atol=1e-5)
    assert np.allclose(found["timestamps"], np.array([0.5, 2.5, 4.5, 6.5, 8.5, 10]) / FPS, atol=2e-3)
    assert found["grid"].tolist() == [6, 2, 2]
    assert (summary["encoded"][0]["num_frames"], summary["encoded"][0]["padded_frames"]) == (11, 1)
    origin = json.loads(str(found["provenance"]))
    assert (origin["source"], origin["recipe"]["precision"], origin["device"]) == ("square.mp4", "fp32", "cpu")


def test_last_window_is_moved_back_and_gives_its_new_steps_alone(video: Path, tiny_encoder: Path, by_hand: Any):
    found, pixels = encoded(video, tiny_encoder, num_frames=8), read_clip(video).pixels
    assert np.allclose(found["tokens"][:4], by_hand(tiny_encoder, pixels[:8])[0], atol=1e-5)
    assert np.allclose(found["tokens"][4:], by_hand(tiny_encoder, pixels[[4, 5, 6, 7, 8, 9, 10, 10]])[0][2:], atol=1e-5)


@pytest.mark.parametrize(("num_frames", "stride"), [(8, 2), (8, 4), (6, 4), (4, None), (16, None)])
def test_a_time_step_of_overlapping_windows_is_their_mean(
    video: Path, tiny_encoder: Path, by_hand: Any, num_frames: int, stride: int | None
):
    found, pixels = encoded(video, tiny_encoder, mode="window", num_frames=num_frames, stride=stride), read_clip(video).pixels
    pixels = np.concatenate([pixels, pixels[-1:]])
    length = min(num_frames, 12)
    starts = sorted({*range(0, 12 - length, stride or num_frames // 2), 12 - length})
    sums, counts = np.zeros((6, 2, 2, 24)), np.zeros(6)
    for start in starts:
        sums[start // 2 : (start + length) // 2] += by_hand(tiny_encoder, pixels[start : start + length])[0]
        counts[start // 2 : (start + length) // 2] += 1
    assert counts.max() > 1 or len(starts) == 1
    assert np.allclose(found["tokens"], sums / counts[:, None, None, None], atol=1e-5)
    assert np.allclose(found["timestamps"], np.array([0.5, 2.5, 4.5, 6.5, 8.5, 10]) / FPS, atol=2e-3)


@pytest.mark.parametrize("stride", [None, 2])
def test_per_frame_is_the_mean_of_tokens_over_a_time_step(video: Path, tiny_encoder: Path, stride: int | None):
    rows = encoded(video, tiny_encoder, mode="per-frame", stride=stride)
    tokens = encoded(video, tiny_encoder, mode="tokens" if stride is None else "window", stride=stride)
    assert np.allclose(rows["features"], tokens["tokens"].mean((1, 2)), atol=1e-6)
    assert np.array_equal(rows["timestamps"], tokens["timestamps"])


@pytest.mark.parametrize(("stride", "starts"), [(None, [0, 4, 8]), (1, [*range(8)]), (3, [0, 3, 6, 8]), (7, [0, 7])])
def test_pooled_is_the_mean_of_a_clip_and_says_where_it_lies(
    video: Path, tiny_encoder: Path, by_hand: Any, stride: int | None, starts: list[int]
):
    found, pixels = encoded(video, tiny_encoder, mode="pooled", stride=stride), read_clip(video).pixels
    clips = [[min(start + index, 10) for index in range(4)] for start in starts]
    expected = [by_hand(tiny_encoder, pixels[numbers])[0].mean((0, 1, 2)) for numbers in clips]
    assert np.allclose(found["features"], expected, atol=1e-5)
    assert np.allclose(found["timestamps"], [np.mean(numbers) / FPS for numbers in clips], atol=2e-3)
    assert np.allclose(found["spans"], [[numbers[0] / FPS, numbers[-1] / FPS] for numbers in clips], atol=2e-3)


@pytest.mark.parametrize("mode", ["tokens", "window", "per-frame", "pooled"])
def test_layers_are_the_levels_of_the_encoder(video: Path, deep_encoder: Path, by_hand: Any, mode: str):
    found = encoded(video, deep_encoder, num_frames=12, mode=mode, layers=(0, -1))
    pixels = read_clip(video).pixels[[*range(11), 10]]
    levels = by_hand(deep_encoder, pixels, layers=[0, 2])
    assert not np.allclose(levels[0], levels[1], atol=1e-2)
    name = "tokens" if mode in ("tokens", "window") else "features"
    axes = {"tokens": (), "window": (), "per-frame": (1, 2), "pooled": (0, 1, 2)}[mode]
    for layer, expected in zip((0, 2), levels, strict=True):
        pooled = expected.mean(axes, keepdims=mode == "pooled").reshape(-1, 24) if axes else expected
        assert np.allclose(found[f"{name}_layer{layer}"], pooled, atol=1e-5)
    assert name not in found
    last = encoded(video, deep_encoder, num_frames=12, mode=mode)[name]
    assert np.allclose(found[f"{name}_layer2"], last, atol=1e-5)


@torch.no_grad()
def test_v2_1_reads_an_image_by_its_own_tokenizer_and_a_video_of_one_frame_as_a_video(
    tiny_v21: str, tmp_path: Path, by_hand: Any
):
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    write_image(tmp_path / "one.png", image)
    write_video(tmp_path / "one.mp4", [image], fps=FPS)
    for suffix, pixels in {"png": image[None], "mp4": read_clip(tmp_path / "one.mp4").pixels[[0, 0]]}.items():
        found = encoded(tmp_path / f"one.{suffix}", tiny_v21, crop=32)
        assert found["grid"].tolist() == [1, 2, 2]
        assert np.allclose(found["tokens"], by_hand(tiny_v21, pixels)[0], atol=1e-5)
    encode(
        tmp_path / "one.png",
        model=tiny_v21,
        out=tmp_path / "a.npz",
        pictures=Pictures(tmp_path / "p.png"),
        config=settings(crop=32),
    )
    assert read_image(tmp_path / "p.png").shape == (256, 512, 3)


def test_levels_of_v2_1_go_through_norms_of_their_own(video: Path, tiny_v21: str, by_hand: Any):
    found, pixels = encoded(video, tiny_v21, crop=32, num_frames=12, layers=(1, -1)), read_clip(video).pixels[[*range(11), 10]]
    for layer, tokens in zip((1, 3), by_hand(tiny_v21, pixels, layers=[1, 3]), strict=True):
        assert np.allclose(found[f"tokens_layer{layer}"], tokens, atol=1e-5)


def test_image_is_a_tubelet_of_copies(tiny_encoder: Path, tmp_path: Path, by_hand: Any):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    write_image(tmp_path / "one.png", image)
    found = encoded(tmp_path / "one.png", tiny_encoder)
    assert np.allclose(found["tokens"], by_hand(tiny_encoder, np.stack([image, image]))[0], atol=1e-5)


def test_crop_of_two_sides_is_height_and_width(video: Path, tiny_encoder: Path, by_hand: Any):
    found = encoded(video, tiny_encoder, num_frames=12, crop=(32, 48))
    assert found["grid"].tolist() == [6, 2, 3]
    pixels = read_clip(video).pixels[[*range(11), 10]]
    assert np.allclose(found["tokens"], by_hand(tiny_encoder, pixels, crop=(32, 48))[0], atol=1e-5)


def test_store_gives_the_features_of_its_frames(store: Path, tiny_encoder: Path, tmp_path: Path, by_hand: Any):
    encode(store, model=tiny_encoder, out=tmp_path / "features", config=settings(num_frames=6))
    found = read(tmp_path / "features" / "one.npz")
    frames = VideoStore.open(store).frames("one", 0, 6)
    assert np.allclose(found["tokens"][:3], by_hand(tiny_encoder, frames)[0], atol=1e-5)
    assert np.allclose(found["timestamps"], np.array([0.5, 2.5, 4.5, 6.5, 8.5, 10]) / FPS)


def test_formats_hold_the_same_numbers_and_the_same_header(video: Path, tiny_encoder: Path, tmp_path: Path):
    for suffix in SUFFIXES:
        encode(video, model=tiny_encoder, out=tmp_path / f"a{suffix}", config=settings(mode="window"))
    headers = [read_header(tmp_path / f"a{suffix}") for suffix in SUFFIXES]
    assert all(header == headers[0] for header in headers)
    for name in ("tokens", "timestamps"):
        arrays = [np.concatenate(list(read_blocks(tmp_path / f"a{suffix}", name))) for suffix in SUFFIXES]
        assert all(np.array_equal(array, arrays[0]) for array in arrays)


def test_bf16_is_close_and_said(video: Path, tiny_encoder: Path):
    exact, rounded = encoded(video, tiny_encoder), encoded(video, tiny_encoder, precision="bf16")
    assert json.loads(str(rounded["provenance"]))["recipe"]["precision"] == "bf16"
    assert not np.array_equal(exact["tokens"], rounded["tokens"])
    product = (exact["tokens"] * rounded["tokens"]).sum(-1)
    norms = np.linalg.norm(exact["tokens"], axis=-1) * np.linalg.norm(rounded["tokens"], axis=-1)
    assert (product / norms).min() > 0.999


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_frames": 5}, "num_frames: 5 is not a multiple of 2, the encoder's; set it to 4"),
        ({"crop": (32, 40)}, "crop: 40 is not a multiple of 16"),
        ({"stride": 2}, "mode tokens covers every frame once"),
        ({"stride": 3, "mode": "window"}, "stride: 3 is not a multiple of 2"),
        ({"stride": 6, "mode": "per-frame"}, "stride: 6 leaves frames out between windows of 4"),
        ({"layers": (3,)}, "layers: 3 is no block .* give of 0 to 2"),
        ({"layers": (-4,)}, "layers: -4 is no block"),
        ({"layers": (2, -1)}, "layers: 2 is named twice"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_read(
    video: Path, deep_encoder: Path, tmp_path: Path, changes: dict[str, Any], reason: str
):
    with pytest.raises(ConfigError, match=reason):
        encode(video, model=deep_encoder, out=tmp_path / "a.npz", config=settings(**changes))
    assert not (tmp_path / "a.npz").exists()
