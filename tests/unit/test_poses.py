"""Pose arithmetic against a vector of the released code, against its own inverse, and in float64."""

import pytest
import torch

from vjepa2cli.data.poses import euler_angles, pose_compose, pose_delta, rotation_matrix
from vjepa2cli.errors import InputError


def random_states(count: int, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    low = torch.tensor([-1, -1, 0, -3.1, -1.5, -3.1, 0], dtype=dtype)
    high = torch.tensor([1, 1, 1, 3.1, 1.5, 3.1, 1], dtype=dtype)
    return low + (high - low) * torch.rand(count, 7, generator=generator, dtype=dtype)


def test_delta_of_the_measured_vector() -> None:
    states = torch.tensor([[0.4, 0.1, 0.3, 3.0, -0.2, 0.5, 0.2], [0.45, 0.05, 0.33, 2.9, -0.1, 0.6, 0.9]])
    expected = torch.tensor([[0.05, -0.05, 0.03, -0.1351, 0.0391, 0.0824, 0.7]])
    torch.testing.assert_close(pose_delta(states), expected, rtol=0, atol=5e-5)  # the vector has four decimals


def test_composing_the_delta_gives_the_next_state() -> None:
    states = random_states(200)
    following = pose_compose(states[:-1], pose_delta(states))
    torch.testing.assert_close(following, states[1:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4)])
def test_leading_dimensions_are_carried_along(shape: tuple[int, ...]) -> None:
    states = random_states(int(torch.tensor(shape).prod())).reshape(*shape, 7)
    deltas = pose_delta(states)
    assert deltas.shape == (*shape[:-1], shape[-1] - 1, 7)
    flat = torch.stack([pose_delta(sequence) for sequence in states.reshape(-1, shape[-1], 7)])
    assert torch.equal(deltas.reshape(flat.shape), flat)


def test_rotation_is_extrinsic_xyz() -> None:
    angles = torch.tensor([0.3, -0.4, 0.5], dtype=torch.float64)
    about = [rotation_matrix(torch.diag(angles)[axis]) for axis in range(3)]
    torch.testing.assert_close(rotation_matrix(angles), about[2] @ about[1] @ about[0], rtol=0, atol=1e-15)
    ahead, sine, cosine = torch.eye(3, dtype=torch.float64)[0], angles[2].sin(), angles[2].cos()
    torch.testing.assert_close(about[2] @ ahead, torch.stack((cosine, sine, torch.zeros_like(sine))), rtol=0, atol=1e-15)


def test_gripper_is_clipped_and_turns_compose_on_the_left() -> None:
    state = torch.tensor([0, 0, 0, 0.1, 0.2, 0.3, 0.8], dtype=torch.float64)
    delta = torch.tensor([0, 0, 0, 0.4, -0.1, 0.2, 0.5], dtype=torch.float64)
    following = pose_compose(state, delta)
    assert following[6] == 1
    turned = rotation_matrix(delta[3:6]) @ rotation_matrix(state[3:6])
    torch.testing.assert_close(rotation_matrix(following[3:6]), turned, rtol=0, atol=1e-14)


def test_angles_keep_their_precision_where_the_pitch_is_steep() -> None:
    pitch = torch.tensor([0, torch.pi / 2 - 1e-3, 0], dtype=torch.float32)
    torch.testing.assert_close(euler_angles(rotation_matrix(pitch)), pitch, rtol=0, atol=1e-6)


def test_gradients_reach_the_action() -> None:
    states = random_states(3)
    delta = 0.1 * random_states(3).roll(1, 0)
    delta.requires_grad_()
    assert torch.autograd.gradcheck(lambda action: pose_compose(states, action)[..., :6], (delta,))


def test_six_numbers_are_refused() -> None:
    with pytest.raises(InputError, match=r"state: shape \[6\] does not end in 7"):
        pose_compose(torch.zeros(6), torch.zeros(7))
