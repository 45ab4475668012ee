"""Encoding: every frame is covered once, the numbers are the encoder's own, and what cannot be read is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from vjepa2cli import registry
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.artifacts.video_store import Description, VideoStoreWriter
from vjepa2cli.data.transforms import preprocess
from vjepa2cli.data.video import Clip, iterate_frames, read_clip, read_image, write_image, write_video
from vjepa2cli.encoding import Pictures, encode
from vjepa2cli.encoding.windows import at_rate, windows
from vjepa2cli.errors import ConfigError, InputError, VideoError, WeightsError
from vjepa2cli.models.encoder_v21 import EncoderV21, EncoderV21Spec
from vjepa2cli.models.weights import load_encoder
from vjepa2cli.settings import EncodeConfig

CONFIG = EncodeConfig(num_frames=4)
FPS = 8.0


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Eleven frames of a bright square that moves over a gradient."""
    frames = []
    for index in range(11):
        frame = np.broadcast_to(np.linspace(0, 200, 64, dtype=np.uint8)[None, :, None], (48, 64, 3)).copy()
        frame[10:26, 4 * index : 4 * index + 16] = (250, 40, 10)
        frames.append(frame)
    write_video(tmp_path / "square.mp4", frames, fps=FPS)
    return tmp_path / "square.mp4"


def by_hand(model: Path, clip: Clip, start: int, stop: int) -> NDArray[np.float32]:
    """Tokens of frames start to stop as one clip."""
    encoder = load_encoder(model)
    part = Clip(clip.pixels[start:stop], clip.fps, clip.timestamps[start:stop], clip.source)
    with torch.inference_mode():
        return encoder(preprocess(part, crop=32)[None])[0].numpy().reshape((stop - start) // 2, 2, 2, -1)


@pytest.fixture
def tiny_v21(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a released V-JEPA 2.1 model, shrunk: a bare file does not say its heads."""
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(registry.SIZES, "base", registry.ModelSize(24, 4, 2))
    row = registry.RELEASED["vjepa2.1-vitb-384"]
    (tmp_path / "cache").mkdir()
    torch.save({"ema_encoder": EncoderV21(EncoderV21Spec(24, 4, 2)).state_dict()}, tmp_path / "cache" / row.file_name)
    return row.name


@pytest.mark.parametrize("num_frames", [2, 4, 6])
@pytest.mark.parametrize("total", range(1, 16))
def test_windows_cover_every_frame_once(total: int, num_frames: int):
    frames = [(float(index), np.full((1, 1, 3), index, np.uint8)) for index in range(total)]
    covered: list[float] = []
    for window in windows(iter(frames), num_frames=num_frames, tubelet_size=2):
        times = [time for time, _ in window.frames]
        assert len(times) == num_frames or total < num_frames
        assert len(times) % 2 == 0
        covered += times[2 * window.skip : len(times) - window.padding]
    assert covered == [time for time, _ in frames]


def test_video_features_are_those_of_its_windows(video: Path, tiny_encoder: Path, tmp_path: Path):
    summary = encode(video, model=tiny_encoder, out=tmp_path / "features.npz", config=CONFIG)
    clip = read_clip(video)
    with np.load(tmp_path / "features.npz") as found:
        tokens, timestamps, origin = found["tokens"], found["timestamps"], json.loads(str(found["provenance"]))
    assert tokens.shape == (6, 2, 2, 24)
    for step, (start, stop) in {0: (0, 4), 2: (4, 8)}.items():
        assert np.allclose(tokens[step : step + 2], by_hand(tiny_encoder, clip, start, stop), atol=1e-5)
    # Frames 8, 9, 10 and a copy of 10 make the last window.
    padded = Clip(clip.pixels[[8, 9, 10, 10]], clip.fps, clip.timestamps[[8, 9, 10, 10]], clip.source)
    assert np.allclose(tokens[4:], by_hand(tiny_encoder, padded, 0, 4), atol=1e-5)
    assert np.allclose(timestamps, np.array([0.5, 2.5, 4.5, 6.5, 8.5, 10]) / FPS, atol=2e-3)
    assert summary["encoded"][0]["num_frames"] == 11
    assert summary["encoded"][0]["padded_frames"] == 1
    assert origin["source"] == "square.mp4"


def test_last_window_is_moved_back_to_be_full(video: Path, tiny_encoder: Path, tmp_path: Path):
    encode(video, model=tiny_encoder, out=tmp_path / "features.npz", config=EncodeConfig(num_frames=8))
    clip = read_clip(video)
    moved = Clip(clip.pixels[[4, 5, 6, 7, 8, 9, 10, 10]], clip.fps, clip.timestamps[[4, 5, 6, 7, 8, 9, 10, 10]], clip.source)
    with np.load(tmp_path / "features.npz") as found:
        assert found["grid"].tolist() == [6, 2, 2]
        assert np.allclose(found["tokens"][4:], by_hand(tiny_encoder, moved, 0, 8)[2:], atol=1e-5)


@pytest.mark.parametrize("fps", [2.0, 3.0, 8.0, 20.0])
def test_sampling_at_a_rate_is_that_of_the_clip_reader(video: Path, fps: float):
    frames = ((time, pixels) for time, _, pixels in iterate_frames(video))
    chosen = list(at_rate(frames, fps=fps, rate=FPS))
    clip = read_clip(video, fps=fps)
    assert np.allclose([time for time, _ in chosen], clip.timestamps)
    assert np.array_equal(np.stack([pixels for _, pixels in chosen]), clip.pixels)


@torch.no_grad()
def test_v2_1_reads_an_image_by_its_own_tokenizer_and_a_video_of_one_frame_as_a_video(tiny_v21: str, tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    write_image(tmp_path / "one.png", image)
    write_video(tmp_path / "one.mp4", [image], fps=FPS)
    encoder = load_encoder(tiny_v21)
    pixels = {"png": preprocess(Clip(image[None], 1.0, np.zeros(1), ""), crop=32)[None]}
    pixels["mp4"] = preprocess(Clip(read_clip(tmp_path / "one.mp4").pixels[[0, 0]], 1.0, np.zeros(2), ""), crop=32)[None]
    for suffix, clip in pixels.items():
        config = EncodeConfig(num_frames=4, crop=32)
        encode(tmp_path / f"one.{suffix}", model=tiny_v21, out=tmp_path / "a.npz", config=config)
        with np.load(tmp_path / "a.npz") as found:
            assert found["grid"].tolist() == [1, 2, 2]
            assert np.allclose(found["tokens"].reshape(4, 24), encoder(clip)[0].numpy(), atol=1e-5)
    encode(tmp_path / "one.png", model=tiny_v21, out=tmp_path / "a.npz", pictures=Pictures(tmp_path / "p.png"), config=config)
    assert read_image(tmp_path / "p.png").shape == (256, 512, 3)


def test_image_is_a_tubelet_of_copies_and_suffixes_agree(tiny_encoder: Path, tmp_path: Path):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    write_image(tmp_path / "one.png", image)
    for suffix in (".npz", ".safetensors"):
        encode(tmp_path / "one.png", model=tiny_encoder, out=tmp_path / f"one{suffix}", config=CONFIG)
    tensors = load_file(tmp_path / "one.safetensors")
    copies = Clip(np.stack([image, image]), 1.0, np.zeros(2), "")
    assert np.allclose(tensors["tokens"], by_hand(tiny_encoder, copies, 0, 2), atol=1e-5)
    with np.load(tmp_path / "one.npz") as found:
        for name, array in tensors.items():
            assert np.array_equal(found[name], array)


def test_folder_encodes_what_it_can_and_names_the_rest(video: Path, tiny_encoder: Path, tmp_path: Path):
    folder = tmp_path / "inputs"
    (folder / "below").mkdir(parents=True)
    video.rename(folder / "below" / "square.mp4")
    (folder / "text.mp4").write_text("not a video")
    (folder / "notes.txt").write_text("not looked at")
    summary = encode(
        folder, model=tiny_encoder, out=tmp_path / "features", config=CONFIG, pictures=Pictures(tmp_path / "pictures")
    )
    assert summary["written"] == [str(tmp_path / "features" / "below" / "square.mp4.npz")]
    assert Path(summary["drawn"][0]).is_file()
    assert [item["source"] for item in summary["refused"]] == ["text.mp4"]
    report = read_report(tmp_path / "features" / "encoding.json", "encode")
    assert report["refused"] == summary["refused"]
    (folder / "below" / "square.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="none of 2 inputs"):
        encode(folder, model=tiny_encoder, out=tmp_path / "nothing", config=CONFIG)
    assert not (tmp_path / "nothing").exists()


def test_store_gives_the_features_of_its_frames(tiny_encoder: Path, tmp_path: Path):
    frames = np.random.default_rng(1).integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
    writer = VideoStoreWriter.open(tmp_path / "videos.zarr", {"codec": "zstd", "shard_frames": 4})
    with writer.entry("one") as entry:
        for index, frame in enumerate(frames):
            entry.append(index / 4, index, frame)
        entry.finish(Description("one.mp4", "", "one", 4.0))
    writer.finalise({"one": {"split": "train", "weight": None}}, refused=[], provenance={})
    encode(tmp_path / "videos.zarr", model=tiny_encoder, out=tmp_path / "features", config=EncodeConfig(num_frames=6))
    with np.load(tmp_path / "features" / "one.npz") as found:
        assert np.allclose(found["tokens"], by_hand(tiny_encoder, Clip(frames, 4.0, np.arange(6) / 4, ""), 0, 6), atol=1e-5)
        assert found["timestamps"].tolist() == [0.125, 0.625, 1.125]


def test_wrong_calls_end_before_anything_is_read(video: Path, tiny_encoder: Path, tmp_path: Path):
    with pytest.raises(WeightsError, match="vjepa2-vitl-256"):
        encode(video, model=None)
    with pytest.raises(InputError, match="no such file"):
        encode(tmp_path / "absent.mp4", model=tiny_encoder)
    with pytest.raises(InputError, match=r"\.npz or \.safetensors"):
        encode(video, model=tiny_encoder, out=tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"\.mp4 for a video"):
        encode(video, model=tiny_encoder, out=tmp_path / "a.npz", pictures=Pictures(tmp_path / "a.png"))
    with pytest.raises(ConfigError, match="num_frames: 5 is not a multiple of 2"):
        encode(video, model=tiny_encoder, out=tmp_path / "a.npz", config=EncodeConfig(num_frames=5))
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(VideoError, match=r"text\.mp4"):
        encode(tmp_path / "text.mp4", model=tiny_encoder, out=tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()
