"""Inputs and models for the tests of encoding."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vjepa2cli import registry
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.video_store import Description, VideoStoreWriter
from vjepa2cli.data.transforms import preprocess
from vjepa2cli.data.video import Clip, write_image, write_video
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.encoder_v21 import EncoderV21, EncoderV21Spec
from vjepa2cli.models.weights import load_encoder, to_transformers

FPS = 8.0
Floats = NDArray[np.float32]
ByHand = Callable[..., list[Floats]]


def moving_square(num_frames: int, *, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A bright square that moves over a gradient, [F, Y, X, 3]."""
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    frames[:] = np.linspace(0, 200, width, dtype=np.uint8)[None, None, :, None]
    for index, frame in enumerate(frames):
        left = 4 * index % (width - 16)
        frame[10:26, left : left + 16] = (250, 40 + index % 200, 10)
    return frames


@pytest.fixture(scope="session")
def make_video(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_video(path, num_frames)` writes a video of a moving square at 8 frames a second and returns its path."""

    def make(path: Path, num_frames: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, moving_square(num_frames), fps=FPS)
        return path

    return make


@pytest.fixture
def video(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    """Eleven frames of a bright square that moves over a gradient."""
    return make_video(tmp_path / "square.mp4", 11)


@pytest.fixture
def inputs(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    """A folder: videos of 11, 3 and 30 frames, an image, a video below, and two files that hold no pictures."""
    folder = tmp_path / "inputs"
    for name, count in (("a.mp4", 11), ("b.mp4", 3), ("below/a.mp4", 30)):
        make_video(folder / name, count)
    write_image(folder / "c.png", moving_square(1)[0])
    (folder / "text.mp4").write_text("not a video")
    (folder / "notes.txt").write_text("not looked at")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A video store with eleven frames of a moving square."""
    writer = VideoStoreWriter.open(tmp_path / "videos.zarr", {"codec": "zstd", "shard_frames": 4})
    with writer.entry("one") as entry:
        for index, frame in enumerate(moving_square(11)):
            entry.append(index / FPS, index, frame)
        entry.finish(Description("one.mp4", "", "one", FPS))
    writer.finalise({"one": {"split": "train", "weight": None}}, refused=[], provenance={})
    return tmp_path / "videos.zarr"


@pytest.fixture
def deep_encoder(tmp_path: Path) -> Path:
    """A model folder with an encoder of three blocks."""
    spec = EncoderSpec(embed_dim=24, depth=3, num_heads=2, crop=32, num_frames=4)
    config, tensors = to_transformers(Encoder(spec, generator=torch.Generator().manual_seed(0)), None)
    save_model(tmp_path / "deep", config, tensors)
    return tmp_path / "deep"


@pytest.fixture
def tiny_v21(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a released V-JEPA 2.1 model, shrunk: a bare file does not say its heads."""
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(registry.SIZES, "base", registry.ModelSize(24, 4, 2))
    row = registry.RELEASED["vjepa2.1-vitb-384"]
    (tmp_path / "cache").mkdir()
    torch.save({"ema_encoder": EncoderV21(EncoderV21Spec(24, 4, 2)).state_dict()}, tmp_path / "cache" / row.file_name)
    return row.name


@pytest.fixture
def by_hand() -> ByHand:
    """`by_hand(model, pixels, layers=None, crop=32)`: tokens [T, H, W, D] of frames as one clip, of each layer or the output."""

    def encode(
        model: Path | str, pixels: NDArray[np.uint8], layers: Sequence[int] | None = None, crop: int | tuple[int, int] = 32
    ) -> list[Floats]:
        encoder = load_encoder(model)
        clip = preprocess(Clip(pixels, FPS, np.arange(len(pixels)) / FPS, ""), crop=crop)[None]
        grid = encoder.grid(clip)
        with torch.inference_mode():
            outputs = [encoder(clip)] if layers is None else encoder.levels(clip, layers)
        return [tokens[0].numpy().reshape(grid.t, grid.h, grid.w, -1) for tokens in outputs]

    return encode
