"""The AC predictor is causal over frames, its cache changes nothing, and latents have not seen their future."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vjepa2cli.data.poses import pose_compose
from vjepa2cli.errors import InputError
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.pixels import PixelEncoder, PixelSpec
from vjepa2cli.models.world_model import WorldModel, encode_frames, normalise_latents, read_past, rollout

SPEC = AcPredictorSpec(latent_dim=24, embed_dim=32, depth=3, num_heads=2, grid_h=2, grid_w=3)
VARIANTS = [
    SPEC,
    replace(SPEC, residual=True),
    replace(SPEC, layer_norm=False),
    replace(SPEC, absolute_positions=True, condition_patches=True),
]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def predictor(spec: AcPredictorSpec = SPEC) -> AcPredictor:
    """Weights large enough that every path through the network shows in its output."""
    network = AcPredictor(spec, generator=generator(0))
    with torch.no_grad():
        for seed, parameter in enumerate(network.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(seed)))
    return network.eval()


def trajectory(num_frames: int = 5, *, latent_dim: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(2, num_frames, 6, latent_dim, generator=generator(1)),
        0.1 * torch.randn(2, num_frames, 7, generator=generator(2)),
        torch.rand(2, num_frames, 7, generator=generator(3)),
    )


@pytest.mark.parametrize("spec", VARIANTS)
@pytest.mark.parametrize("part", [0, 1, 2], ids=["latents", "actions", "states"])
def test_future_frame_cannot_change_past_prediction(part: int, spec: AcPredictorSpec) -> None:
    ac, inputs = predictor(spec), list(trajectory())
    with torch.no_grad():
        before = ac(*inputs)
        inputs[part] = inputs[part].clone()
        inputs[part][:, 3] += 1
        after = ac(*inputs)
    assert torch.equal(before[:, :3], after[:, :3])
    assert ((before - after)[:, 3:].abs().amax((0, 2, 3)) > 1e-4).all(), "the change reaches its own frame and those after it"


def test_a_prefix_gives_the_same_predictions() -> None:
    ac, (latents, actions, states) = predictor(), trajectory()
    with torch.no_grad():
        whole, prefix = ac(latents, actions, states), ac(latents[:, :2], actions[:, :2], states[:, :2])
    torch.testing.assert_close(prefix, whole[:, :2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("split", [[5], [1, 1, 1, 1, 1], [2, 1, 2]])
def test_cached_frames_give_the_uncached_predictions(split: list[int]) -> None:
    ac, inputs = predictor(), trajectory()
    cache = ac.new_cache()
    with torch.no_grad():
        whole = ac(*inputs)
        parts = [ac(*frames, cache=cache) for frames in zip(*(tensor.split(split, dim=1) for tensor in inputs), strict=True)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-6)
    assert cache.num_frames == 5


def uncached_rollout(ac: AcPredictor, latents: Tensor, states: Tensor, actions: Tensor) -> Tensor:
    """Feed everything anew for every frame, as the released planner does."""
    num_context = latents.shape[1]
    while latents.shape[1] < actions.shape[1] + 1:
        seen = latents.shape[1]
        predicted = ac(latents, actions[:, :seen], states[:, :seen])[:, -1:]
        latents = torch.cat((latents, normalise_latents(predicted) if ac.spec.layer_norm else predicted), dim=1)
        if states.shape[1] == seen:
            states = torch.cat((states, pose_compose(states[:, -1], actions[:, seen - 1])[:, None]), dim=1)
    return latents[:, num_context:]


@pytest.mark.parametrize("num_context", [1, 3])
@pytest.mark.parametrize("spec", VARIANTS)
def test_rollout_equals_the_uncached_one_and_so_do_its_gradients(spec: AcPredictorSpec, num_context: int) -> None:
    ac, (latents, actions, states) = predictor(spec), trajectory()
    latents, states = latents[:, :num_context], states[:, :num_context]
    found, gradients = [], []
    for roll in (uncached_rollout, lambda *inputs: rollout(*inputs, compose=pose_compose)):
        ac.zero_grad()
        tried = actions.clone().requires_grad_()
        out = roll(ac, latents, states, tried)
        (out - 0.3).abs().mean().backward()
        found.append(out.detach())
        gradients.append((tried.grad, ac.predictor_embed.weight.grad.clone()))
    assert found[0].shape == (2, 6 - num_context, 6, 24)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", VARIANTS)
def test_frames_that_all_rows_share_are_read_once_and_change_nothing(spec: AcPredictorSpec) -> None:
    """Three frames, then two actions in five versions: the same as reading all frames anew for each version."""
    ac, (latents, actions, states) = predictor(spec), trajectory()
    latents, states, before = latents[:1, :3], states[:1, :3], actions[:1, :2]
    tried = 0.1 * torch.randn(5, 2, 7, generator=generator(7))
    with torch.no_grad():
        past = read_past(ac, latents[:, :2], states[:, :2], before)
        assert past is not None
        shared = [
            rollout(
                ac, latents[:, 2:].expand(5, -1, -1, -1), states[:, 2:].expand(5, -1, -1), tried, compose=pose_compose, past=past
            )
            for _ in range(2)
        ]
        whole = [tensor.expand(5, *tensor.shape[1:]) for tensor in (latents, states, before)]
        anew = uncached_rollout(ac, whole[0], whole[1], torch.cat((whole[2], tried), dim=1))
    torch.testing.assert_close(shared[0], anew, rtol=0, atol=1e-5)
    assert torch.equal(shared[0], shared[1]), "a rollout leaves the past as it was"
    assert past.num_frames == 2
    assert read_past(ac, latents[:, :0], states[:, :0], before[:, :0]) is None


def test_states_that_are_known_are_not_integrated() -> None:
    ac, (latents, actions, states) = predictor(), trajectory()
    with torch.no_grad():
        known = rollout(ac, latents[:, :1], states, actions)
        integrated = rollout(ac, latents[:, :1], states[:, :1], actions, compose=pose_compose)
    torch.testing.assert_close(known[:, 0], integrated[:, 0])
    assert (known[:, 1:] - integrated[:, 1:]).abs().max() > 1e-3
    with pytest.raises(InputError, match="compose"):
        rollout(ac, latents[:, :1], states[:, :1], actions)


def test_no_latent_has_seen_its_future() -> None:
    encoder = Encoder(EncoderSpec(24, 2, 2)).eval()
    frames = torch.randn(4, 3, 32, 48, generator=generator(4))
    with torch.no_grad():
        before = encode_frames(encoder, frames, layer_norm=True)
        frames[2:] = 0
        after = encode_frames(encoder, frames, layer_norm=True)
    assert torch.equal(before[:2], after[:2])
    assert not torch.equal(before[2], after[2])
    torch.testing.assert_close(before.mean(-1), torch.zeros(4, 6), rtol=0, atol=1e-5)


def test_inputs_are_standardised_by_the_numbers_of_the_spec() -> None:
    mean, std = tuple(0.1 * index for index in range(7)), tuple(1.0 + index for index in range(7))
    latents, actions, states = trajectory()
    spec = replace(SPEC, action_mean=mean, action_std=std, state_mean=mean, state_std=std)
    scaled = actions * torch.tensor(std) + torch.tensor(mean), states * torch.tensor(std) + torch.tensor(mean)
    with torch.no_grad():
        torch.testing.assert_close(predictor(spec)(latents, *scaled), predictor()(latents, actions, states), rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="state_std"):
        replace(SPEC, state_mean=mean)


def test_conditioning_starts_at_the_spread_that_the_spec_names() -> None:
    plain, strong = (AcPredictor(replace(SPEC, conditioning_init_std=std), generator=generator(0)) for std in (0.02, 0.5))
    torch.testing.assert_close(strong.action_encoder.weight, 25 * plain.action_encoder.weight)
    assert 0.4 < strong.state_encoder.weight.std() < 0.6
    assert torch.equal(strong.predictor_proj.weight, plain.predictor_proj.weight)


def test_extrinsics_condition_a_predictor_that_was_made_for_them() -> None:
    ac, inputs = predictor(replace(SPEC, use_extrinsics=True)), trajectory()
    extrinsics = torch.rand(2, 5, 6, generator=generator(5))
    with torch.no_grad():
        assert (ac(*inputs, extrinsics) - ac(*inputs, extrinsics + 1)).abs().max() > 1e-3
    with pytest.raises(InputError, match="extrinsics"):
        ac(*inputs)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"latents": torch.zeros(2, 5, 5, 24)}, "grid"),
        ({"actions": torch.zeros(2, 5, 6)}, "actions"),
        ({"states": torch.zeros(2, 4, 7)}, "states"),
    ],
)
def test_inputs_of_another_shape_are_named(change: dict[str, Any], word: str) -> None:
    inputs = dict(zip(("latents", "actions", "states"), trajectory(), strict=True)) | change
    with pytest.raises(InputError, match=word):
        predictor()(**inputs)


def test_pixel_tokens_are_means_of_squares() -> None:
    encoder = PixelEncoder(PixelSpec(patch_size=8, tubelet_size=2, blocks=4))
    clip = torch.rand(1, 3, 4, 16, 24, generator=generator(6))
    tokens = encoder(clip)
    assert tokens.shape == (1, 2 * 2 * 3, encoder.spec.embed_dim)
    token = tokens[0, 6 + 3 + 2].reshape(2, 4, 4, 3)  # second tubelet, second row, third column
    square = clip[0, :, 3, 8 + 2 : 8 + 4, 16 + 6 : 16 + 8]  # its second frame's second row of squares, fourth square
    torch.testing.assert_close(token[1, 1, 3], square.mean((1, 2)))
    ids = torch.tensor([[11, 0]])
    assert torch.equal(encoder(clip, ids), tokens[:, ids[0]])


def test_a_world_model_encodes_pixels_through_its_transform_and_says_what_it_lacks() -> None:
    ac = predictor(replace(SPEC, layer_norm=False, latent_dim=24))
    pixels = PixelEncoder(PixelSpec(patch_size=16, tubelet_size=2, blocks=2))
    frames = np.arange(3 * 32 * 48 * 3, dtype=np.uint8).reshape(3, 32, 48, 3)
    world = WorldModel(pixels, ac, transform=lambda rgb: torch.from_numpy(rgb).permute(0, 3, 1, 2).float())
    expected = pixels(torch.from_numpy(frames[1]).permute(2, 0, 1)[None, :, None].expand(-1, -1, 2, -1, -1).float())[0]
    assert torch.equal(world.encode(frames)[1], expected)
    with pytest.raises(InputError, match="transform"):
        WorldModel(pixels, ac).encode(frames)
    with pytest.raises(InputError, match="encoder"):
        WorldModel(None, ac).encode(frames)
