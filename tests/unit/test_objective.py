"""The pretraining loss: of several kinds of clips, families of masks and levels, and who learns from what."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vjepa2cli.config import validate
from vjepa2cli.data.mask_batches import MaskBatches
from vjepa2cli.data.masking import MaskIds
from vjepa2cli.errors import ConfigError
from vjepa2cli.models.weights import load_encoder, load_predictor, state_digest, to_folder
from vjepa2cli.settings import PretrainConfig
from vjepa2cli.tokens import TokenGrid
from vjepa2cli.train.losses import weighted_loss
from vjepa2cli.train.networks import build_encoder, build_predictor, clip_grid
from vjepa2cli.train.objective import MaskedClips, PretrainModule, distance_weights, family_losses

V2 = {
    "step": "pretrain",
    "batch_size": 2,
    "precision": "fp32",
    "encoder": {"embed_dim": 24, "depth": 4, "num_heads": 2},
    "predictor": {"embed_dim": 24, "depth": 1, "num_heads": 2, "num_mask_tokens": 4},
    "clip": {"num_frames": 4, "crop": 64},
}
V21 = V2 | {
    "encoder": V2["encoder"] | {"architecture": "vjepa2.1"},  # type: ignore[operator]
    "predictor": V2["predictor"] | {"levels": 4},  # type: ignore[operator]
    "context_loss": {"weight": 0.5, "by_distance": True},
}
IMAGES = {"batch_size": 2, "clip": {"num_frames": 1, "crop": 64}, "masks": [{"num_blocks": 4}]}
LONG = {"batch_size": 2, "clip": {"num_frames": 8, "crop": 64}, "masks": [{}, {"num_blocks": 2, "spatial_scale": [0.5, 0.5]}]}


def _config(tree: dict[str, Any], **changes: object) -> PretrainConfig:
    config = validate(tree | changes, where="test")
    assert isinstance(config, PretrainConfig)
    return config


def _module(config: PretrainConfig) -> PretrainModule:
    """Networks that differ from their fresh state, so that no mask token and no target is the same as another by its start."""
    generator = torch.Generator().manual_seed(0)
    networks = build_encoder(config, generator=generator), build_predictor(config, generator=generator)
    module = PretrainModule(
        *networks, losses=family_losses(config), by_distance=config.context_loss.by_distance, precision=config.precision
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def _inputs(config: PretrainConfig) -> list[MaskedClips]:
    generator = torch.Generator().manual_seed(1)
    parts = []
    for index, group in enumerate(config.groups):
        clips = torch.randn(group.batch_size, 3, group.clip.num_frames, group.clip.crop, group.clip.crop, generator=generator)
        masks = MaskBatches(clip_grid(config, index), group.masks, batch_size=group.batch_size, seed=0, group=index)
        parts.append(MaskedClips(clips, masks.draws(1, rows=range(group.batch_size))[0][1], index))
    return parts


def _normed(tokens: Tensor) -> Tensor:
    return (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()


def _expected(module: PretrainModule, config: PretrainConfig, inputs: list[MaskedClips]) -> float:
    """The loss of V-JEPA 2.1 token by token, as its description has it: kinds of clips weigh the same, and so do families."""
    encoder, target_encoder, predictor = module.encoder, module.target_encoder, module.predictor
    kinds = []
    for part in inputs:
        levels = target_encoder.hierarchical(part.clips).chunk(4, dim=-1)
        wanted = torch.cat([_normed(level) for level in levels], dim=-1)
        losses = []
        for ids, token in zip(part.families, config.mask_token_indices[part.group], strict=True):
            context = encoder.hierarchical(part.clips, ids.context_ids)
            grid = encoder.grid(part.clips)
            modality = "image" if part.clips.shape[2] == 1 else "video"
            predicted, restored = predictor(
                context, ids.context_ids, ids.target_ids, grid=grid, mask_index=token, modality=modality, return_context=True
            )
            on_targets, on_context = [], []
            for row in range(len(part.clips)):
                hidden, seen = ids.target_ids[row].tolist(), ids.context_ids[row].tolist()
                on_targets += [float((predicted[row, place] - wanted[row, i]).abs().mean()) for place, i in enumerate(hidden)]
                for place, i in enumerate(seen):
                    nearest = min(math.dist(grid.positions(i), grid.positions(j)) for j in hidden)
                    on_context.append(float((restored[row, place] - wanted[row, i]).abs().mean()) / math.sqrt(nearest))
            losses.append(sum(on_targets) / len(on_targets) + config.context_loss.weight * sum(on_context) / len(on_context))
        kinds.append(sum(losses) / len(losses))
    return sum(kinds) / len(kinds)


@torch.no_grad()
def test_the_loss_of_videos_and_images_is_the_described_one_token_by_token() -> None:
    config = _config(V21, beside=[IMAGES])
    module, inputs = _module(config), _inputs(config)
    assert module.mean_loss(inputs) == pytest.approx(_expected(module, config, inputs), rel=1e-5)


def test_a_kept_token_weighs_by_the_root_of_its_distance_to_the_nearest_target() -> None:
    # In a grid of 2 x 2 x 3: target 0 is (0, 0, 0); 1 lies beside it, 5 at (0, 1, 2), 11 at (1, 1, 2).
    weights = distance_weights(MaskIds(torch.tensor([[1, 5, 11]]), torch.tensor([[0]])), TokenGrid(2, 2, 3))
    assert weights.tolist() == [pytest.approx([1.0, 5**-0.25, 6**-0.25])]


@torch.no_grad()
def test_kinds_and_families_weigh_as_stated() -> None:
    second = LONG | {"weight": 3.0, "masks": [{"weight": 4.0}, {"num_blocks": 2, "spatial_scale": [0.5, 0.5]}]}
    config = _config(V2, beside=[second])
    module, inputs = _module(config), _inputs(config)
    counts, sums = module.counts(inputs), module(inputs).double()
    (a, _, b, _), (c, _, d, _) = (sums / counts).nan_to_num().view(2, 4).tolist()
    assert module.mean_loss(inputs) == pytest.approx(0.25 * (a + b) / 2 + 0.75 * (4 * c + d) / 5)


def test_the_gradient_of_parts_of_several_kinds_is_that_of_the_whole_batch() -> None:
    config = _config(V21, beside=[IMAGES])
    module, inputs = _module(config), _inputs(config)
    halves = [
        [
            MaskedClips(
                part.clips[row : row + 1],
                [MaskIds(f.context_ids[row, None], f.target_ids[row, None]) for f in part.families],
                part.group,
            )
            for part in inputs
        ]
        for row in range(2)
    ]
    counts = module.counts(inputs)
    assert torch.equal(sum(module.counts(half) for half in halves), counts)
    gradients = []
    for parts in ([inputs], halves):
        module.zero_grad()
        for part in parts:
            weighted_loss(module(part), counts, module.terms).backward()
        gradients.append(module.encoder.patch_embed_img.proj.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-8)


def _taught_tokens(config: PretrainConfig) -> list[int]:
    module, inputs = _module(config), _inputs(config)
    weighted_loss(module(inputs), module.counts(inputs), module.terms).backward()
    return [index for index, token in enumerate(module.predictor.mask_tokens) if token.grad is not None]


def test_every_family_of_masks_teaches_a_token_of_its_own_and_in_the_released_training_every_kind_of_clip() -> None:
    assert _taught_tokens(_config(V2)) == [0, 1]
    assert _taught_tokens(_config(V2, beside=[LONG])) == [0, 1, 2, 3]
    released = {"mask_token_per_group": True}
    assert _taught_tokens(_config(V2, released_quirks=released)) == [0]
    assert _taught_tokens(_config(V2, beside=[LONG], released_quirks=released)) == [0, 1]


def test_an_image_passes_the_image_tokenizer_and_its_embeddings_alone() -> None:
    config = _config(V21, beside=[IMAGES])
    module, inputs = _module(config), _inputs(config)
    weighted_loss(module(inputs[1:]), module.counts(inputs[1:]), module.terms).backward()
    for network in (module.encoder, module.predictor):
        assert network.img_mod_embed.grad is not None
        assert network.video_mod_embed.grad is None
    assert module.encoder.patch_embed.proj.weight.grad is None
    assert module.encoder.patch_embed_img.proj.weight.grad is not None


@pytest.mark.parametrize("tree", [V2, V21])
def test_activation_checkpointing_changes_no_gradient(tree: dict[str, Any]) -> None:
    gradients = []
    for on in (False, True):
        networks = {name: tree[name] | {"activation_checkpointing": on} for name in ("encoder", "predictor")}
        config = _config(tree, **networks)
        module, inputs = _module(config), _inputs(config)
        assert module.encoder.activation_checkpointing is module.predictor.activation_checkpointing is on
        weighted_loss(module(inputs), module.counts(inputs), module.terms).backward()
        gradients.append([parameter.grad for parameter in module.parameters() if parameter.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("tree", [V2, V21])
def test_a_model_folder_gives_back_both_networks(tree: dict[str, Any], tmp_path: Path) -> None:
    from vjepa2cli.artifacts.model_dir import save_model

    module = _module(_config(tree))
    save_model(tmp_path / "model", *to_folder(module.encoder, module.predictor))
    for network, load in ((module.encoder, load_encoder), (module.predictor, load_predictor)):
        loaded = load(tmp_path / "model")
        assert state_digest(loaded) == state_digest(network)
        assert loaded.spec == network.spec


@pytest.mark.parametrize(
    ("tree", "changes", "reason"),
    [
        (V2, {"predictor": {"levels": 4}}, "levels: 4 needs"),
        (V2, {"beside": [IMAGES]}, "sees an image as a clip that stands still"),
        (V2, {"predictor": {"num_mask_tokens": 1}}, "num_mask_tokens: 1 is not enough; 2"),
        (V2, {"masking": {"rows_per_draw": 4}}, "rows_per_draw does not divide"),
        (V21, {"context_loss": {"weight": 1.0, "rises_from": 5, "rises_to": 4}}, "rises_to"),
    ],
)
def test_keys_that_do_not_go_together_are_refused_in_one_line(tree: dict[str, Any], changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        _config(tree, **changes)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("clip", "reason"), [({"crop": 100}, "clip: 16 frames at crop 100"), ({"num_frames": 5}, "5 frames")])
def test_a_clip_that_makes_no_whole_tubelets_names_its_section(clip: dict[str, int], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        clip_grid(_config(V2, clip=clip))
