"""Tiny models on disk, with random weights, for the tests of what stands on them."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from vjepa2cli.artifacts import latent_store
from vjepa2cli.artifacts.latent_store import LatentHeader
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.video_store import Description, VideoStoreWriter
from vjepa2cli.files import read_json, write_json
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.weights import encoder_digest, load_encoder, to_transformers

ENCODER = EncoderSpec(embed_dim=24, depth=1, num_heads=2, crop=32, num_frames=4)
MakeModel = Callable[..., Path]
_STRIDE = 2


@pytest.fixture
def tiny_encoder(tmp_path: Path) -> Path:
    """A model folder with an encoder of 2 x 2 patches a frame."""
    config, tensors = to_transformers(Encoder(ENCODER, generator=torch.Generator().manual_seed(0)), None)
    save_model(tmp_path / "encoder", config, tensors)
    return tmp_path / "encoder"


@pytest.fixture
def tiny_world_model(tmp_path: Path, tiny_encoder: Path) -> MakeModel:
    """`make(prefix="", trained_steps=1, ..., **spec)` writes the model of a run directory and returns the directory."""

    def make(
        prefix: str = "",
        trained_steps: int = 1,
        encoder_steps: int = 1,
        robot: str = "tabletop",
        rate: float = 4.0,
        state_space: dict[str, object] | None = None,
        **changes: object,
    ) -> Path:
        source = f"{prefix}{tiny_encoder}"
        said = read_json(tiny_encoder / "config.json")
        said["vjepa2cli"]["trained_steps"] = encoder_steps
        write_json(tiny_encoder / "config.json", said)
        encoder = load_encoder(source)
        numbers = {"latent_dim": encoder.spec.embed_dim, "embed_dim": 16, "depth": 1, "num_heads": 2, "grid_h": 2, "grid_w": 2}
        spec = AcPredictorSpec(**(numbers | {"layer_norm": isinstance(encoder, Encoder)} | changes))  # type: ignore[arg-type]
        ac = AcPredictor(spec, generator=torch.Generator().manual_seed(1))
        about = {
            "kind": "ac_predictor",
            "spec": asdict(spec),
            "encoder": {"source": source, "digest": encoder_digest(encoder)},
            "preprocessing": {"crop": 32, "geometry": "centre"},
            "rate": rate,
            "robot": robot,
            "trained_steps": trained_steps,
            "state_space": state_space,
        }
        save_model(tmp_path / "posttrain" / "model", {"vjepa2cli": about}, ac.state_dict())
        return tmp_path / "posttrain"

    return make


@pytest.fixture
def training_stores(tmp_path: Path, tiny_encoder: Path) -> tuple[Path, Path]:
    """A latent store and a video store: three episodes of random latents at 4 Hz, of videos whose frames spell their number."""
    header = LatentHeader(
        encoder_source="encoder",
        encoder_digest=encoder_digest(load_encoder(tiny_encoder)),
        layer_norm=True,
        grid=(1, 2, 2),
        embed_dim=24,
        rate=4.0,
        robot="tabletop",
        preprocessing={"crop": 32, "geometry": "centre"},
        provenance={},
    )
    names, lengths, splits = ["a", "b", "c"], [4, 6, 5], ["train", "train", "val"]
    latents, videos = tmp_path / "latents.h5", tmp_path / "robot.zarr"
    with latent_store.create(latents, header, lengths=lengths, dtype="float32", dims=(7, 7)) as writer:
        for index, length in enumerate(lengths):
            tokens = torch.randn(length, 4, 24, generator=torch.Generator().manual_seed(index)).numpy()
            writer.write(index, tokens, states=np.zeros((length, 7)), actions=np.zeros((length - 1, 7)))
        writer.name_episodes(names, splits)
    store = VideoStoreWriter.open(videos, {"codec": "zstd", "shard_frames": 16})
    for name, length in zip(names, lengths, strict=True):
        with store.entry(f"key-{name}") as entry:
            for number in range(_STRIDE * length):
                entry.append(number / 8, number, np.full((16, 16, 3), 10 * number, np.uint8))
            entry.finish(Description(source=name, source_digest=name, episode=name, fps=8.0))
    listed = {f"key-{name}": {"split": split, "weight": None} for name, split in zip(names, splits, strict=True)}
    store.finalise(listed, refused=[], provenance={})
    return latents, videos
