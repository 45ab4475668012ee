"""What the V-JEPA 2.1 encoder and predictor keep and refuse, and that they are the released ones by name and count."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vjepa2cli import registry
from vjepa2cli.errors import InputError, WeightsError
from vjepa2cli.models.encoder_v21 import EncoderV21, EncoderV21Spec
from vjepa2cli.models.layers import interpolate_positions, rotary_table, rotate, token_positions
from vjepa2cli.models.pixels import PixelEncoder
from vjepa2cli.models.predictor_v21 import PredictorV21, PredictorV21Spec
from vjepa2cli.models.weights import encoder_digest, load_encoder, load_predictor, state_digest
from vjepa2cli.tokens import TokenGrid

SPEC = EncoderV21Spec(48, 4, 2, patch_size=8)
PREDICTOR_SPEC = PredictorV21Spec(48, 48, 24, 2, 2)
DISTILLED_SPEC = PredictorV21Spec(48, 72, 24, 2, 2, num_mask_tokens=3, num_levels=1)
GRID = TokenGrid(2, 4, 4)
V2_1 = [name for name, row in registry.RELEASED.items() if row.family == "2.1"]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scrambled(module: nn.Module) -> Any:
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(seed)))
    return module.eval()


def clip(num_frames: int = 4) -> Tensor:
    return torch.randn(2, 3, num_frames, 32, 32, generator=generator(1))


def ids(num_context: int = 10) -> tuple[Tensor, Tensor]:
    shuffled = torch.stack([torch.randperm(GRID.num_tokens, generator=generator(seed)) for seed in (2, 3)])
    return shuffled[:, :num_context], shuffled[:, num_context:]


# --- positions -------------------------------------------------------------------------------------------------------


def test_interleaved_rotation_keeps_norms_and_depends_on_distances_alone() -> None:
    grid = TokenGrid(3, 5, 7)
    q, k = torch.randn(2, 1, 1, grid.num_tokens, 32, generator=generator(0))
    positions = interpolate_positions(token_positions(torch.arange(grid.num_tokens)[None], grid), grid)
    here, there = (rotary_table(positions + shift, 32, variant="interleaved") for shift in (0.0, 6.5))
    torch.testing.assert_close(rotate(q, here).norm(dim=-1), q.norm(dim=-1), rtol=1e-5, atol=0)
    scores, shifted = (rotate(q, table) @ rotate(k, table).transpose(-1, -2) for table in (here, there))
    torch.testing.assert_close(shifted, scores, rtol=0, atol=1e-4)  # scores of about 20, angles of about 30 in float32
    assert (rotate(q, here) @ k.transpose(-1, -2) - scores).abs().max() > 1


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 24), (5, 6), (1, 2)])
def test_rows_and_columns_span_those_of_pretraining_and_time_counts_on(height: int, width: int) -> None:
    grid = TokenGrid(3, height, width)
    positions = token_positions(torch.arange(grid.num_tokens), grid)
    stretched = interpolate_positions(positions, grid)
    assert torch.equal(stretched[:, 0], positions[:, 0].float())
    ends = [2.0, 15.0 if height > 1 else 0.0, 15.0]
    torch.testing.assert_close(stretched.amax(0), torch.tensor(ends), rtol=0, atol=1e-5)
    torch.testing.assert_close(stretched[:, 2] * (width - 1), positions[:, 2] * 15.0, rtol=1e-6, atol=0)
    assert torch.equal(stretched, positions.float()) == (height == width == 16)


# --- the encoder -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_one_frame_takes_the_image_tokenizer_and_more_the_other() -> None:
    for num_frames, used, unused in ((1, "img", "video"), (4, "video", "img")):
        encoder = scrambled(EncoderV21(SPEC))
        before = encoder(clip(num_frames))
        assert before.shape == (2, 16 if num_frames == 1 else 32, 48)
        tokenizers = {"img": encoder.patch_embed_img, "video": encoder.patch_embed}
        tokenizers[unused].proj.weight.zero_()
        getattr(encoder, f"{unused}_mod_embed").add_(1)
        assert torch.equal(encoder(clip(num_frames)), before)
        # Along the channels, so that the norms do not take it away again.
        getattr(encoder, f"{used}_mod_embed").add_(torch.randn(48, generator=generator(9)))
        moved = encoder(clip(num_frames))
        tokenizers[used].proj.weight.zero_()
        assert (moved - before).abs().max() > 0.1
        assert (encoder(clip(num_frames)) - moved).abs().max() > 0.1


@torch.no_grad()
def test_levels_are_the_parts_of_what_is_hierarchical() -> None:
    encoder = scrambled(EncoderV21(EncoderV21Spec(48, 8, 2, patch_size=8)))
    parts = encoder.hierarchical(clip()).chunk(4, dim=-1)
    for found, part in zip(encoder.levels(clip(), layers=[7, 1, -3, 3]), (parts[3], parts[0], parts[2], parts[1]), strict=True):
        assert torch.equal(found, part)
    assert torch.equal(encoder(clip()), parts[3])
    encoder.norms_block[1].bias.add_(1)
    moved = encoder.hierarchical(clip()).chunk(4, dim=-1)
    torch.testing.assert_close(moved[1], parts[1] + 1)
    assert all(torch.equal(moved[level], parts[level]) for level in (0, 2, 3))


@torch.no_grad()
def test_masked_tokens_are_dropped_before_the_first_block() -> None:
    encoder, context_ids = scrambled(EncoderV21(SPEC)), ids()[0]
    pixels = clip()
    changed = pixels.clone()
    hidden = next(number for number in range(GRID.num_tokens) if number not in context_ids[0])
    t, row, column = GRID.positions(hidden)
    changed[0, :, 2 * t : 2 * t + 2, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 5
    assert torch.equal(encoder.hierarchical(pixels, context_ids), encoder.hierarchical(changed, context_ids))
    assert not torch.equal(encoder(pixels), encoder(changed))
    everything = torch.arange(GRID.num_tokens).expand(2, -1)
    torch.testing.assert_close(encoder(pixels, everything), encoder(pixels), rtol=0, atol=1e-5)


def test_layers_without_a_norm_images_without_a_frame_and_odd_depths_are_refused() -> None:
    encoder = EncoderV21(EncoderV21Spec(48, 8, 2, patch_size=8))
    with pytest.raises(InputError, match=r"layers: \[2, -9\] end no level .* give of 1, 3, 5, 7"):
        encoder.levels(clip(), layers=[1, 2, -1, -9])
    with pytest.raises(InputError, match="an image as a clip of one frame"):
        encoder(clip()[:, :, 0])
    with pytest.raises(InputError, match="frames: 3"):
        encoder(clip(3))
    with pytest.raises(InputError, match="depth: 6 blocks do not split into 4 levels"):
        EncoderV21Spec(48, 6, 2)


def test_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        encoder = scrambled(EncoderV21(SPEC))
        encoder.activation_checkpointing = checkpointing
        encoder.hierarchical(clip()).square().mean().backward()
        gradients.append(encoder.blocks[0].attn.qkv.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-6)


# --- the predictor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [PREDICTOR_SPEC, DISTILLED_SPEC])
@torch.no_grad()
def test_permuting_targets_or_context_permutes_what_is_predicted(spec: PredictorV21Spec) -> None:
    predictor, (context_ids, target_ids) = scrambled(PredictorV21(spec)), ids()
    context = torch.randn(2, 10, 48 * spec.num_levels, generator=generator(4))
    targets, kept = predictor(context, context_ids, target_ids, grid=GRID, return_context=True)
    assert (targets.shape[-1], kept.shape[-1]) == (spec.num_levels * spec.target_dim,) * 2
    order, shuffled = torch.randperm(target_ids.shape[1], generator=generator(5)), torch.randperm(10, generator=generator(6))
    permuted, kept_permuted = predictor(
        context[:, shuffled], context_ids[:, shuffled], target_ids[:, order], grid=GRID, return_context=True
    )
    torch.testing.assert_close(permuted, targets[:, order], rtol=0, atol=1e-5)
    torch.testing.assert_close(kept_permuted, kept[:, shuffled], rtol=0, atol=1e-5)


@torch.no_grad()
def test_modality_mask_token_and_width_of_the_context_matter() -> None:
    predictor, (context_ids, target_ids) = scrambled(PredictorV21(PREDICTOR_SPEC)), ids()
    context = torch.randn(2, 10, 192, generator=generator(4))
    video, image, other = (
        predictor(context, context_ids, target_ids, grid=GRID, **choice)
        for choice in ({}, {"modality": "image"}, {"mask_index": 1})
    )
    assert min((video - image).abs().max(), (video - other).abs().max()) > 1e-2
    with pytest.raises(InputError, match="mask_index: 2"):
        predictor(context, context_ids, target_ids, grid=GRID, mask_index=2)
    with pytest.raises(InputError, match=r"context: 48 channels are not 4 x 48; .* encoder\.hierarchical"):
        predictor(context[..., :48], context_ids, target_ids, grid=GRID)


# --- the released networks -------------------------------------------------------------------------------------------


def released(name: str) -> tuple[EncoderV21, PredictorV21]:
    """The networks of a registry row, without storage. The distilled ones read one level and predict a ViT-G's."""
    row = registry.released(name)
    size, shape = registry.size(row.size), row.predictor
    assert shape is not None
    distilled = row.checkpoint_key == "ema_encoder"
    spec = PredictorV21Spec(
        size.embed_dim,
        registry.size("gigantic").embed_dim if distilled else size.embed_dim,
        shape.embed_dim,
        shape.depth,
        shape.num_heads,
        num_mask_tokens=shape.num_mask_tokens,
        num_levels=1 if distilled else 4,
    )
    with torch.device("meta"):
        encoder = EncoderV21(EncoderV21Spec(size.embed_dim, size.depth, size.num_heads, size.mlp_ratio))
        return encoder, PredictorV21(spec)


@pytest.mark.parametrize("name", V2_1)
def test_released_sizes_have_the_released_number_of_parameters(name: str) -> None:
    row = registry.released(name)
    counts = tuple(sum(parameter.numel() for parameter in network.parameters()) for network in released(name))
    assert row.predictor is not None
    assert counts == (row.encoder_parameters, row.predictor.parameters)


LEVEL_LAYERS = {"b": (2, 5, 8, 11), "l": (5, 11, 17, 23), "g": (9, 19, 29, 39), "G": (11, 23, 37, 47)}
EMBED = {
    "b": {"predictor_embed.weight": [384, 768]},
    "l": {"predictor_embed.weight": [384, 1024]},
    "g": {"predictor_embed.0.weight": [1408, 5632], "predictor_embed.2.weight": [384, 1408]},
    "G": {"predictor_embed.0.weight": [1664, 6656], "predictor_embed.2.weight": [384, 1664]},
}
PREDICTED = {"b": 1664, "l": 1664, "g": 5632, "G": 6656}


@pytest.mark.parametrize("letter", list(EMBED))
def test_released_sizes_have_the_released_names_shapes_and_levels(letter: str) -> None:
    encoder, predictor = released(f"vjepa2.1-vit{letter}-384")
    assert encoder.spec.level_layers == LEVEL_LAYERS[letter]
    width, depth = encoder.spec.embed_dim, encoder.spec.depth
    held = {name: list(tensor.shape) for name, tensor in encoder.state_dict().items()}
    around = {name: shape for name, shape in held.items() if not name.startswith("blocks.")}
    norms = {f"norms_block.{level}.{kind}": [width] for level in range(4) for kind in ("weight", "bias")}
    assert around == norms | {
        "patch_embed.proj.weight": [width, 3, 2, 16, 16],
        "patch_embed.proj.bias": [width],
        "patch_embed_img.proj.weight": [width, 3, 1, 16, 16],
        "patch_embed_img.proj.bias": [width],
        "img_mod_embed": [1, 1, width],
        "video_mod_embed": [1, 1, width],
    }
    parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    inside = {f"blocks.{i}.{part}.{kind}" for i in range(depth) for part in parts for kind in ("weight", "bias")}
    assert held.keys() - around.keys() == inside
    found = {name: list(tensor.shape) for name, tensor in predictor.state_dict().items() if "_blocks." not in name}
    wanted = EMBED[letter] | {f"predictor_proj{ending}.weight": [PREDICTED[letter], 384] for ending in ("", "_context")}
    wanted |= {name.replace("weight", "bias"): shape[:1] for name, shape in wanted.items()}
    wanted |= {f"predictor_norm.{kind}": [384] for kind in ("weight", "bias")}
    wanted |= {f"mask_tokens.{k}": [1, 1, 384] for k in range(8)} | {f"{m}_mod_embed": [1, 1, 384] for m in ("img", "video")}
    assert found == wanted


# --- loading ---------------------------------------------------------------------------------------------------------


def checkpoint(path: Path, *, key: str, predictor: PredictorV21) -> Path:
    """The layout of the released files: the wrappers' prefixes, and an online encoder beside the moving average."""
    networks = {"encoder": EncoderV21(SPEC, generator=generator(1)), key: EncoderV21(SPEC), "predictor": predictor}
    path.parent.mkdir(exist_ok=True)
    prefix = "module.backbone."
    torch.save(
        {name: {prefix + name: tensor for name, tensor in net.state_dict().items()} for name, net in networks.items()}, path
    )
    return path


@pytest.mark.parametrize(("key", "spec"), [("target_encoder", PREDICTOR_SPEC), ("ema_encoder", DISTILLED_SPEC)])
def test_a_checkpoint_gives_its_networks_back(tmp_path: Path, key: str, spec: PredictorV21Spec) -> None:
    source = checkpoint(tmp_path / "new.pt", key=key, predictor=PredictorV21(spec))
    encoder, predictor = load_encoder(source, 2), load_predictor(source, 2)
    assert (encoder.spec, state_digest(encoder)) == (SPEC, state_digest(EncoderV21(SPEC)))
    assert (predictor.spec, state_digest(predictor)) == (spec, state_digest(PredictorV21(spec)))
    assert not any(network.training for network in (encoder, predictor))
    online = load_encoder(source, 2, checkpoint_key="encoder")
    assert state_digest(online) == state_digest(EncoderV21(SPEC, generator=generator(1)))
    fresh, pixels = load_encoder(f"untrained:{source}", 2), load_encoder(f"pixels:{source}", 2)
    assert isinstance(fresh, EncoderV21)
    assert isinstance(pixels, PixelEncoder)
    assert encoder_digest(fresh) == encoder_digest(EncoderV21(SPEC))


def test_a_released_name_finds_its_file_and_knows_its_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(registry.SIZES, "base", registry.ModelSize(48, 4, 2))
    row = registry.RELEASED["vjepa2.1-vitb-384"]
    shrunk = registry.ReleasedPredictor(24, 2, 2, 0)
    monkeypatch.setitem(registry.RELEASED, row.name, registry.ReleasedModel(**{**vars(row), "predictor": shrunk}))
    checkpoint(tmp_path / "cache" / row.file_name, key="ema_encoder", predictor=PredictorV21(DISTILLED_SPEC))
    assert load_encoder(row.name).spec == SPEC
    assert load_predictor(row.name).spec == DISTILLED_SPEC


def test_keys_of_both_versions_at_once_are_listed(tmp_path: Path) -> None:
    state = EncoderV21(SPEC).state_dict()
    del state["norms_block.2.bias"]
    torch.save(state | {"norm.weight": torch.ones(48)}, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=r"1 missing key: norms_block\.2\.bias; 1 unexpected key: norm\.weight"):
        load_encoder(tmp_path / "odd.pt", 2)
