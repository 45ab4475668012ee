"""Surprise: the error of training itself, at the right time, of the past alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.data.masking import MaskIds
from vjepa2cli.data.transforms import preprocess
from vjepa2cli.data.video import Clip, read_clip, write_image, write_video
from vjepa2cli.encoding.surprise import Surprise, Windowing, check_windowing, compute_surprise, forecast_errors, measure_surprise
from vjepa2cli.errors import ConfigError, InputError, VideoError, WeightsError
from vjepa2cli.files import digest_file
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.encoder_v21 import EncoderV21, EncoderV21Spec
from vjepa2cli.models.key_mapping import to_folder, to_transformers
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.predictor_v21 import PredictorV21, PredictorV21Spec
from vjepa2cli.progress import SilentProgress
from vjepa2cli.reporting.surprise import draw_surprise
from vjepa2cli.settings import SurpriseConfig
from vjepa2cli.tokens import TokenGrid
from vjepa2cli.train.objective import FamilyLoss, MaskedClips, PretrainModule

WINDOWING = Windowing(num_frames=8, context_frames=4, stride=2, tubelet_size=2)


def networks(version: str = "2", levels: int = 4, mask_index: int = 0) -> tuple[Any, Any]:
    """A tiny encoder of 2 x 2 patches and its predictor, with random weights and mask tokens."""
    generator = torch.Generator().manual_seed(0)
    encoder: Encoder | EncoderV21
    predictor: Predictor | PredictorV21
    if version == "2":
        encoder = Encoder(EncoderSpec(24, 2, 2, crop=32, num_frames=8), generator=generator)
        spec = PredictorSpec(24, 16, 2, 2, num_mask_tokens=2, inference_mask_index=mask_index)
        predictor = Predictor(spec, generator=generator)
    else:
        encoder = EncoderV21(EncoderV21Spec(24, 4, 2, crop=32, num_frames=8), generator=generator)
        spec_v21 = PredictorV21Spec(24, 24, 16, 2, 2, num_levels=levels, inference_mask_index=mask_index)
        predictor = PredictorV21(spec_v21, generator=generator)
    for token in predictor.mask_tokens:
        nn.init.normal_(token, generator=generator)
    return encoder.requires_grad_(False), predictor.requires_grad_(False)


class Patches:
    """An encoder without positions: the token of a tubelet is its first row of pixels, so what stands still has equal tokens."""

    spec = EncoderSpec(24, 1, 2, crop=32, num_frames=8)

    def __call__(self, clips: Tensor, context_ids: Tensor | None = None) -> Tensor:
        self.seen = clips
        rows = clips.unflatten(2, (-1, 2)).mean(3)[:, 0].unflatten(-1, (2, 16)).unflatten(-3, (2, 16))  # [B, T, 2, 16, 2, 16]
        tokens = rows.select(3, 0).flatten(1, 3)
        return tokens if context_ids is None else tokens.gather(1, context_ids[..., None].expand(-1, -1, 16))

    def grid(self, clips: Tensor) -> TokenGrid:
        return TokenGrid(clips.shape[2] // 2, 2, 2)

    def parameters(self) -> Iterator[Tensor]:
        return iter(())


class Copier:
    """A predictor that says that nothing changes."""

    spec = PredictorSpec(16, 16, 1, 2)

    def __call__(self, context: Tensor, context_ids: Tensor, target_ids: Tensor, *, grid: TokenGrid, mask_index: int) -> Tensor:
        last = context[:, -grid.tokens_per_frame :].repeat(1, target_ids.shape[1] // grid.tokens_per_frame, 1)
        return functional.layer_norm(last, last.shape[-1:])


class Oracle(Copier):
    """A predictor that is never wrong, since it looks at the whole clip."""

    def __init__(self, encoder: Patches) -> None:
        self.encoder = encoder

    def __call__(self, context: Tensor, context_ids: Tensor, target_ids: Tensor, *, grid: TokenGrid, mask_index: int) -> Tensor:
        tokens = self.encoder(self.encoder.seen, target_ids)
        return functional.layer_norm(tokens, tokens.shape[-1:])


def scenes(*numbers: int, seed: int = 0) -> list[tuple[float, NDArray[np.uint8]]]:
    """Frames at 4 a second, each one of a few still pictures by its number."""
    pictures = np.random.default_rng(seed).integers(0, 256, (max(numbers) + 1, 36, 36, 3), np.uint8)
    return [(index / 4, pictures[number]) for index, number in enumerate(numbers)]


def measured(frames: list[tuple[float, NDArray[np.uint8]]], encoder: Any, predictor: Any, **changes: int) -> Surprise:
    return compute_surprise(frames, encoder, predictor, windowing=replace(WINDOWING, **changes), crop=32)


@pytest.mark.parametrize(("version", "levels"), [("2", 1), ("2.1", 4), ("2.1", 1)])
@torch.no_grad()
def test_error_is_the_loss_of_training_with_the_future_masked(version: str, levels: int) -> None:
    encoder, predictor = networks(version, levels)
    clips = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    ids = torch.arange(16).expand(2, -1)
    module = PretrainModule(encoder, predictor, losses=[[FamilyLoss(1, 0, 0)]], by_distance=False, precision="fp32")
    inputs = [MaskedClips(clips, [MaskIds(ids[:, :8], ids[:, 8:])])]
    loss = module(inputs)[0] / module.counts(inputs)[0]
    predicted, unchanged = forecast_errors(encoder, predictor, clips, context_steps=2)
    assert predicted.shape == unchanged.shape == (2, 2, 2, 2)
    assert float(predicted.mean()) == pytest.approx(float(loss), abs=1e-6)
    # Copied are the features of a context that has seen no more than its own frames.
    context = encoder.hierarchical(clips[:, :, :4]) if levels == 4 else encoder(clips[:, :, :4])
    parts = zip(context.chunk(levels, -1), module.target_features(clips)[:, 8:].chunk(levels, -1), strict=True)
    errors = [
        (functional.layer_norm(seen[:, -4:], seen.shape[-1:]).repeat(1, 2, 1) - target).abs().mean(-1) for seen, target in parts
    ]
    assert torch.allclose(unchanged, torch.stack(errors).mean(0).view(2, 2, 2, 2), atol=1e-5)


@torch.no_grad()
def test_predictor_is_given_the_mask_token_of_inference() -> None:
    clips = torch.randn(1, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    encoder, predictor = networks(mask_index=1)
    ids = torch.arange(16).expand(1, -1)
    context, grid = encoder(clips, ids[:, :8]), TokenGrid(4, 2, 2)
    whole = encoder(clips)
    targets = functional.layer_norm(whole, whole.shape[-1:])[:, 8:]
    found, _ = forecast_errors(encoder, predictor, clips, context_steps=2)
    by_index = [predictor(context, ids[:, :8], ids[:, 8:], grid=grid, mask_index=index) for index in range(2)]
    right, wrong = ((guess - targets).abs().mean(-1).view(1, 2, 2, 2) for guess in (by_index[1], by_index[0]))
    assert torch.allclose(found, right, atol=1e-6)
    assert not torch.allclose(found, wrong, atol=1e-3)


def test_perfect_prediction_surprises_nobody_and_copying_is_wrong_where_something_changes() -> None:
    encoder = Patches()
    found = measured(scenes(*range(12)), encoder, Oracle(encoder))
    assert np.abs(found.predicted).max() == 0
    assert found.unchanged.min() > 0.1


def test_still_video_is_copied_without_error() -> None:
    found = measured(scenes(*[0] * 12), Patches(), Copier())
    assert np.abs(found.unchanged).max() == np.abs(found.predicted).max() == 0


def test_every_error_stands_at_the_time_of_what_was_foretold() -> None:
    # One flash, at time step 4 of 8 (frames 8 and 9, at 2 and 2.25 s).
    frames = scenes(*[0] * 8, 1, 1, *[0] * 6)
    found = measured(frames, Patches(), Copier())
    assert found.timestamps.tolist() == [0.125 + 0.5 * step for step in range(8)]
    assert len(found.predicted) == 6
    flash = functional.l1_loss(*(functional.layer_norm(Patches()(clip_of(frames, at)), (16,)) for at in (0, 8))).item()
    # Windows begin at steps 0 to 4 and foretell steps 2-3, 3-4, 4-5, 5-6, 6-7; the fourth one copies the flash.
    by_step = found.predicted.mean((1, 2)) / flash
    assert np.allclose(by_step, [0, 0, 1, 0.5, 0.5, 0], atol=1e-5)
    by_window = [window.surprise / flash for window in found.windows]
    assert np.allclose(by_window, [0, 0.5, 0.5, 1, 0], atol=1e-5)
    first = found.windows[0]
    assert (first.start, first.targets_from, first.end) == (0, 1, 1.75)
    assert [window.start for window in found.windows] == [0, 0.5, 1, 1.5, 2]


def clip_of(frames: list[tuple[float, NDArray[np.uint8]]], at: int) -> Tensor:
    return preprocess(Clip(np.stack([frames[at][1]] * 2), 4.0, np.zeros(2), ""), crop=32)[None]


def test_a_cut_is_the_peak() -> None:
    found = measured(scenes(*[0] * 10, *[1] * 10), Patches(), Copier())
    assert found.timestamps[2 + int(found.predicted.mean((1, 2)).argmax())] == 2.625
    assert max(found.windows, key=lambda window: window.surprise).targets_from == 2.5
    wide = measured(scenes(*[0] * 10, *[1] * 10), Patches(), Copier(), stride=4)
    assert [window.start for window in wide.windows] == [0, 1, 2, 3]
    assert len(wide.predicted) == 8


@pytest.mark.parametrize("version", ["2", "2.1"])
def test_what_comes_later_cannot_change_an_earlier_error(version: str) -> None:
    encoder, predictor = networks(version)
    frames = scenes(*range(20))
    altered = [*frames[:14], *scenes(*range(6), seed=5)]
    altered = [(index / 4, pixels) for index, (_, pixels) in enumerate(altered)]
    before, after = (measured(some, encoder, predictor) for some in (frames, altered))
    ended = [one == other for one, other in zip(before.windows, after.windows, strict=True)]
    assert ended == [window.end < 14 / 4 for window in before.windows]
    # Step 5 is the last one that only such windows foretell.
    assert np.array_equal(before.predicted[:4], after.predicted[:4])
    assert not np.array_equal(before.predicted[4:], after.predicted[4:])


def test_size_of_the_batch_and_cut_of_the_stream_change_nothing() -> None:
    encoder, predictor = networks()
    frames = scenes(*range(15))
    found = [
        compute_surprise(iter(frames), encoder, predictor, windowing=WINDOWING, crop=32, batch_windows=size) for size in (1, 3)
    ]
    assert np.allclose(found[0].predicted, found[1].predicted, atol=1e-6)
    assert len(found[0].windows) == 4  # frame 14 fills no window


@pytest.mark.parametrize(
    ("changes", "windowing"),
    [
        ({}, Windowing(8, 4, 2, 2)),
        ({"num_frames": 6}, Windowing(6, 2, 2, 2)),
        ({"num_frames": 2}, "num_frames: 2 is one time step"),
        ({"num_frames": 12, "context_frames": 4, "stride": 8}, Windowing(12, 4, 8, 2)),
        ({"num_frames": 12, "context_frames": 4, "stride": 10}, "stride: 10 skips frames"),
        ({"context_frames": 3}, "context_frames: 3 is not a multiple of 2"),
        ({"context_frames": 8}, "set it to 6 or less"),
        ({"crop": 40}, "crop: 40 is not a multiple of 16"),
        ({"crop": (32, 40)}, "crop: 40 is not a multiple of 16"),
    ],
)
def test_windows_fit_the_encoder_or_are_refused(changes: dict[str, int], windowing: Windowing | str) -> None:
    spec = EncoderSpec(24, 2, 2, crop=32, num_frames=8)
    config = SurpriseConfig(**changes)  # type: ignore[arg-type]
    if isinstance(windowing, Windowing):
        assert check_windowing(config, spec) == (windowing, 32)
    else:
        with pytest.raises(ConfigError, match=windowing):
            check_windowing(config, spec)
    assert check_windowing(SurpriseConfig(), replace(spec, num_frames=64))[0].num_frames == 16


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", *to_transformers(*networks()))
    return tmp_path / "model"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_video(tmp_path / "cut.mp4", [pixels for _, pixels in scenes(*[0] * 10, *[1] * 9)], fps=4)
    return tmp_path / "cut.mp4"


def test_report_holds_the_numbers_and_is_drawn_twice_the_same(video: Path, model: Path, tmp_path: Path) -> None:
    names, drawing = ("a.json", "b.json"), tmp_path / "map.mp4"
    exact = SurpriseConfig(precision="fp32")
    paths = [measure_surprise(video, model=model, out=tmp_path / name, map_out=drawing, config=exact) for name in names]
    report = read_report(paths[0], "surprise")
    assert report == read_report(paths[1])
    encoder, predictor = networks()
    clip = read_clip(video)
    found = compute_surprise(zip(clip.timestamps, clip.pixels, strict=True), encoder, predictor, windowing=WINDOWING, crop=32)
    assert np.allclose(report["surprise"][2:], found.predicted.mean((1, 2)), atol=1e-5)
    assert np.allclose(report["unchanged"][2:], found.unchanged.mean((1, 2)), atol=1e-5)
    assert report["surprise"][:2] == [None, None]
    assert (report["source"], report["notes"]) == ("cut.mp4", [])
    assert report["provenance"]["inputs"]["video"] == digest_file(video)
    assert np.allclose(report["timestamps"], found.timestamps, atol=1e-6)
    assert report["max"] == max(window["surprise"] for window in report["windows"])
    assert report["peak"]["surprise"] == max(report["surprise"][2:])
    drawn = read_clip(drawing).pixels
    assert drawn.shape == (19, 256, 512, 3)
    # Nothing foretells the first context: its map is dark.
    assert drawn[:4, :, 258:].mean() < 30 < drawn[4:, :, 258:].mean()
    for suffix in ("png", "svg"):
        plots = [draw_surprise(path, path.with_suffix(f".{suffix}")).read_bytes() for path in paths]
        assert plots[0] == plots[1]
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        draw_surprise(paths[0], tmp_path / "a.jpg")


class Counted(SilentProgress):
    """How many units were expected, and how many were done."""

    def start(self, description: str, *, total: int, done: int = 0) -> None:
        self.total, self.done = total, done

    def advance(self, count: int = 1, *, fields: dict[str, float] | None = None) -> None:
        self.done += count


def test_progress_counts_windows(video: Path, model: Path, tmp_path: Path) -> None:
    for config in (SurpriseConfig(), SurpriseConfig(fps=2, num_frames=4)):
        progress = Counted()
        path = measure_surprise(video, model=model, out=tmp_path / "a.json", config=config, progress=progress)
        assert progress.done == progress.total == len(read_report(path)["windows"])


def test_what_cannot_be_foretold_is_refused_in_one_line(video: Path, model: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with pytest.raises(WeightsError, match=r"holds no pretraining predictor \(it holds encoder\)"):
        measure_surprise(video, model=tiny_encoder, out=out)
    with pytest.raises(WeightsError, match="baseline has no predictor"):
        measure_surprise(video, model=f"untrained:{model}", out=out)
    with pytest.raises(InputError, match=r"cut\.mp4: the video is too short: it has 19 frames, a window needs 24"):
        measure_surprise(video, model=model, out=out, config=SurpriseConfig(num_frames=24))
    write_image(tmp_path / "one.png", np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(InputError, match="an image has no time"):
        measure_surprise(tmp_path / "one.png", model=model, out=out)
    with pytest.raises(VideoError, match="no such file"):
        measure_surprise(tmp_path / "absent.mp4", model=model, out=out)
    with pytest.raises(VideoError, match="not a regular file"):
        measure_surprise(tmp_path, model=model, out=out)
    with pytest.raises(InputError, match=r"\.json; choose"):
        measure_surprise(video, model=model, out=tmp_path / "out.txt")
    with pytest.raises(InputError, match=r"\.mp4; choose"):
        measure_surprise(video, model=model, out=out, map_out=tmp_path / "map.png")
    student, predictor = networks("2.1", levels=1)
    save_model(tmp_path / "student", *to_folder(student, PredictorV21(replace(predictor.spec, target_dim=40))))
    with pytest.raises(WeightsError, match="features of its teacher, 40 wide"):
        measure_surprise(video, model=tmp_path / "student", out=out)
    assert not out.exists()
