"""What the released V-JEPA 2.1 code computes with small random weights, to 1e-5 in float32."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import vjepa2cli as vj

HEADS = 2
GRID = vj.TokenGrid(2, 4, 4)
LEVELS = [2, 5, 8, 11]


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "golden"


@pytest.fixture(scope="module")
def case(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "v21.cases.safetensors")


@pytest.fixture
def encoder(golden: Path) -> Any:
    return vj.load_encoder(golden / "v21_encoder.weights.safetensors", HEADS)


@pytest.fixture
def predictor(golden: Path) -> Any:
    return vj.load_predictor(golden / "v21_predictor.weights.safetensors", HEADS)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_features_of_clips_of_any_size(encoder: Any, case: dict[str, Tensor]) -> None:
    close(encoder(case["clip"]), case["features"])
    close(encoder(case["clip_other_size"]), case["features_other_size"])


@torch.no_grad()
def test_an_image_goes_through_its_own_tokenizer(encoder: Any, case: dict[str, Tensor]) -> None:
    close(encoder(case["image"]), case["image_features"])
    assert encoder.grid(case["image"]) == vj.TokenGrid(1, 4, 4)


@torch.no_grad()
def test_four_levels_side_by_side_of_a_clip_or_its_context(encoder: Any, case: dict[str, Tensor]) -> None:
    close(encoder.hierarchical(case["clip"]), case["hierarchical"])
    close(encoder.hierarchical(case["clip"], case["context_ids"]), case["context_hierarchical"])
    context = encoder(case["clip"], case["context_ids"])
    close(context, case["context_hierarchical"].chunk(4, dim=-1)[-1])


@torch.no_grad()
def test_each_level_goes_through_its_own_norm(encoder: Any, case: dict[str, Tensor]) -> None:
    expected = case["hierarchical"].chunk(4, dim=-1)
    for found, wanted in zip(encoder.levels(case["clip"], layers=LEVELS), expected, strict=True):
        close(found, wanted)
    last, first = encoder.levels(case["clip"], layers=[-1, 2])
    close(last, expected[3])
    close(first, expected[0])


@torch.no_grad()
def test_targets_and_context_are_predicted(predictor: Any, case: dict[str, Tensor]) -> None:
    ids = case["context_ids"], case["target_ids"]
    targets, context = predictor(case["context_hierarchical"], *ids, grid=GRID, mask_index=1, return_context=True)
    close(targets, case["pred_target"])
    close(context, case["pred_context"])
    assert torch.equal(predictor(case["context_hierarchical"], *ids, grid=GRID, mask_index=1), targets)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@torch.no_grad()
def test_bf16_autocast_stays_near_float32(encoder: Any, predictor: Any, case: dict[str, Tensor], device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    encoder, predictor = encoder.to(device), predictor.to(device)
    case = {name: tensor.to(device) for name, tensor in case.items()}
    ids = case["context_ids"], case["target_ids"]
    with torch.autocast(device, torch.bfloat16):
        context = encoder.hierarchical(case["clip"], case["context_ids"])
        targets, kept = predictor(context, *ids, grid=GRID, mask_index=1, return_context=True)
        rounded = {
            "features": encoder(case["clip"]),
            "hierarchical": encoder.hierarchical(case["clip"]),
            "image_features": encoder(case["image"]),
            "features_other_size": encoder(case["clip_other_size"]),
            "context_hierarchical": context,
            "pred_target": targets,
            "pred_context": kept,
        }
    cosines = {
        name: torch.cosine_similarity(found.double().flatten(), case[name].double().flatten(), dim=0).item()
        for name, found in rounded.items()
    }
    assert min(cosines.values()) >= 0.999, cosines
    assert all((rounded[name].float() - case[name]).abs().max() > 1e-4 for name in rounded), "autocast did nothing"
