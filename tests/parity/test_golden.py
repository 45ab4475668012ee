"""What the released code computes with small random weights, to 1e-5 in float32 (the files come from another machine)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import vjepa2cli as vj
from vjepa2cli.data.masking import MaskIds
from vjepa2cli.models.world_model import encode_frames, normalise_latents, rollout
from vjepa2cli.train.losses import weighted_loss
from vjepa2cli.train.objective import FamilyLoss, MaskedClips, PretrainModule

Load = Callable[[str], dict[str, Tensor]]

GRID = vj.TokenGrid(4, 4, 4)
HEADS = {"encoder": 3, "target_encoder": 3, "predictor": 2, "ac_predictor": 2, "probe": 3}
LOADERS = {
    "encoder": vj.load_encoder,
    "target_encoder": vj.load_encoder,
    "predictor": vj.load_predictor,
    "ac_predictor": vj.load_ac_predictor,
    "probe": vj.load_probe,
}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "golden"


@pytest.fixture(scope="module")
def cases(golden: Path) -> Load:
    return lambda name: load_file(golden / f"{name}.cases.safetensors")


@pytest.fixture(scope="module")
def network(golden: Path) -> Callable[[str], Any]:
    return lambda name: LOADERS[name](golden / f"{name}.weights.safetensors", HEADS[name])


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_features_masked_or_whole_at_any_size(network: Any, cases: Load) -> None:
    encoder, case = network("encoder"), cases("encoder")
    with torch.no_grad():
        close(encoder(case["clip"]), case["features"])
        close(encoder(case["clip"], case["mask_a"]), case["features_mask_a"])
        close(encoder(case["clip"], case["mask_b"]), case["features_mask_b"])
        close(encoder(case["clip_other_size"]), case["features_other_size"])


def test_levels_go_through_the_final_norm(network: Any, cases: Load) -> None:
    case = cases("encoder")
    with torch.no_grad():
        first, last = network("encoder").levels(case["clip"], layers=[0, -1])
    close(first, case["hidden_first"])
    close(last, case["hidden_last"])


@pytest.mark.parametrize(("mask", "mask_index"), [("a", 0), ("b", 1)])
def test_predictions(network: Any, cases: Load, mask: str, mask_index: int) -> None:
    case, clip = cases("predictor"), cases("encoder")["clip"]
    context_ids, target_ids = case[f"mask_{mask}_ctx"], case[f"mask_{mask}_tgt"]
    with torch.no_grad():
        context = network("encoder")(clip, context_ids)
        predicted = network("predictor")(context, context_ids, target_ids, grid=GRID, mask_index=mask_index)
    close(predicted, case[f"pred_{mask}"])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_pretraining_loss_and_gradients(network: Any, cases: Load, checkpointing: bool) -> None:
    encoder, predictor = network("encoder"), network("predictor")
    encoder.activation_checkpointing = predictor.activation_checkpointing = checkpointing
    losses = ((FamilyLoss(0.5, 0.0, mask_token=0), FamilyLoss(0.5, 0.0, mask_token=1)),)
    module = PretrainModule(encoder, predictor, losses=losses, by_distance=False, precision="fp32")
    module.target_encoder.load_state_dict(network("target_encoder").state_dict())
    masks, expected = cases("predictor"), cases("pretrain_step")
    families = [MaskIds(masks[f"mask_{mask}_ctx"], masks[f"mask_{mask}_tgt"]) for mask in "ab"]
    inputs = [MaskedClips(cases("encoder")["clip"], families)]
    sums, counts = module(inputs), module.counts(inputs)
    loss = weighted_loss(sums, counts, module.terms)
    loss.backward()
    close((sums / counts).float().detach()[::2], expected["loss_per_mask"])
    close(loss.detach().reshape(1), expected["loss"])
    gradients = {key: parameter.grad for key, parameter in module.named_parameters()}
    named = [key for key in expected if not key.startswith("loss")]
    assert len(named) > 6
    for key in named:
        close(gradients[key], expected[key])


def test_latents_of_frames_encoded_alone(network: Any, cases: Load) -> None:
    encoder, case = network("encoder"), cases("ac_step")
    with torch.no_grad():
        latents = [encode_frames(encoder, frames, layer_norm=True) for frames in case["frames"].transpose(1, 2)]
    close(torch.stack(latents).flatten(1, 2), case["latents"])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_action_conditioned_losses_and_gradients(network: Any, cases: Load, checkpointing: bool) -> None:
    ac, case = network("ac_predictor"), cases("ac_step")
    ac.activation_checkpointing = checkpointing
    latents, actions, states = case["latents"].unflatten(1, (4, 16)), case["actions"], case["states"]
    teacher_forced = normalise_latents(ac(latents[:, :-1], actions, states[:, :-1]))
    rolled = rollout(ac, latents[:, :1], states, actions[:, :2])
    close(teacher_forced.detach().flatten(1, 2), case["teacher_forced"])
    close(rolled.detach().flatten(1, 2), case["rollout"])
    loss_teacher_forcing = (teacher_forced - latents[:, 1:]).abs().mean()
    loss_rollout = (rolled - latents[:, 1:3]).abs().mean()
    close(loss_teacher_forcing.detach().reshape(1), case["loss_teacher_forcing"])
    close(loss_rollout.detach().reshape(1), case["loss_rollout"])
    (loss_teacher_forcing + loss_rollout).backward()
    gradients = {key: parameter.grad for key, parameter in ac.named_parameters()}
    named = [key for key in case if key.startswith("grad.")]
    assert len(named) >= 3
    for key in named:
        close(gradients[key.removeprefix("grad.")], case[key])


def test_probe_logits(network: Any, cases: Load) -> None:
    case = cases("probe")
    with torch.no_grad():
        close(network("probe")(case["tokens"]), case["logits"])


def test_poses(cases: Load) -> None:
    case = cases("poses")
    close(vj.pose_delta(case["states"]), case["deltas"])
    close(vj.pose_compose(case["states"], case["actions"]), case["next_states"])


def _tokens(network: Any, cases: Load, device: str) -> dict[str, Tensor]:
    """Everything the reference files hold of a forward pass."""
    encoder, predictor, ac, probe = (network(name).to(device) for name in ("encoder", "predictor", "ac_predictor", "probe"))
    case, masks, step = (
        {key: tensor.to(device) for key, tensor in cases(name).items()} for name in ("encoder", "predictor", "ac_step")
    )
    out = {"features": encoder(case["clip"]), "other size": encoder(case["clip_other_size"])}
    for mask_index, mask in enumerate("ab"):
        out[f"masked {mask}"] = encoder(case["clip"], case[f"mask_{mask}"])
        ids = masks[f"mask_{mask}_ctx"], masks[f"mask_{mask}_tgt"]
        out[f"predicted {mask}"] = predictor(encoder(case["clip"], ids[0]), *ids, grid=GRID, mask_index=mask_index)
    out["hidden first"], out["hidden last"] = encoder.levels(case["clip"], [0, -1])
    latents = step["latents"].unflatten(1, (4, 16))
    out["teacher forced"] = normalise_latents(ac(latents[:, :-1], step["actions"], step["states"][:, :-1]))
    out["rollout"] = rollout(ac, latents[:, :1], step["states"], step["actions"][:, :2])
    out["logits"] = probe(cases("probe")["tokens"].to(device))
    return out


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bf16_autocast_stays_near_float32(network: Any, cases: Load, device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with torch.no_grad():
        exact = _tokens(network, cases, device)
        with torch.autocast(device, torch.bfloat16):
            rounded = _tokens(network, cases, device)
    cosines = {
        name: torch.cosine_similarity(rounded[name].double().flatten(), exact[name].double().flatten(), dim=0).item()
        for name in exact
    }
    assert min(cosines.values()) >= 0.999, cosines
    assert any(not torch.equal(rounded[name].float(), exact[name]) for name in exact), "autocast did nothing"
