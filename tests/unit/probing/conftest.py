"""Small labelled sets of moving squares, whose class is where they go, and an encoder to probe."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.video_store import Description, VideoStoreWriter, Window
from vjepa2cli.data.video import write_video
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.weights import to_transformers
from vjepa2cli.settings import ProbeConfig

FRAMES = 9
CLASSES = ("left", "right")


def moving_square(label: str, seed: int, *, frames: int = FRAMES) -> np.ndarray:
    """A square that goes to one side through the same places: uint8 [F, 32, 48, 3]."""
    rng = np.random.default_rng(seed)
    video = np.full((frames, 32, 48, 3), 40, np.uint8)
    row = int(rng.integers(4, 20))
    for number in range(frames):
        place = number if label == "right" else frames - 1 - number
        left = 4 + place * 32 // (frames - 1)
        video[number, row : row + 8, left : left + 8] = 220
    return video


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with an encoder of four tokens a time step."""
    spec = EncoderSpec(embed_dim=24, depth=2, num_heads=2, crop=32, num_frames=4)
    folder = tmp_path_factory.mktemp("model") / "encoder"
    save_model(folder, *to_transformers(Encoder(spec, generator=torch.Generator().manual_seed(1)), None))
    return folder


@pytest.fixture(scope="session")
def labelled_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video store of 40 videos, one window each, eight of them held out; two of them pass the middle at the same place."""
    path = tmp_path_factory.mktemp("store") / "moving.zarr"
    writer = VideoStoreWriter.open(path, {"codec": "zstd", "shard_frames": 16})
    listed = {}
    for index in range(40):
        label, name = CLASSES[index % 2], f"v{index:02d}"
        with writer.entry(name) as entry:
            for number, frame in enumerate(moving_square(label, index // 2)):
                entry.append(number / 4, number, frame)
            window = Window(0, FRAMES, label)
            entry.finish(Description(source=name, source_digest=name, episode=name, fps=4.0, windows=(window,)))
        listed[name] = {"split": "val" if index >= 32 else "train", "weight": None}
    writer.finalise(listed, refused=[], provenance={})
    return path


@pytest.fixture(scope="session")
def labelled_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eight videos, `train.csv` and `val.csv` in the released format beside it, whose paths are true no more."""
    folder = tmp_path_factory.mktemp("set")
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for index in range(8):
        split = "val" if index >= 6 else "train"
        place = Path("videos") / CLASSES[index % 2] / f"{index}.mp4"
        write_video(folder / place, moving_square(CLASSES[index % 2], index), fps=8)
        lines[split].append(f"/old/place/{place} {index % 2}\n")
    for split, rows in lines.items():
        (folder / f"{split}.csv").write_text("".join(rows))
    return folder


@pytest.fixture
def smallest() -> ProbeConfig:
    """A sweep of two heads that is over in a moment."""
    return ProbeConfig(
        steps=4,
        batch_size=4,
        checkpoint_every=4,
        evaluate_every=4,
        precision="fp32",
        num_frames=4,
        crop=32,
        depth=1,
        num_heads=2,
        baselines=(),
        neighbours=(1, 3),
        examples=1,
    )
