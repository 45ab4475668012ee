"""Behaviour cloning learns what latents and goals say of the actions, and is a function of its recordings and its seed."""

import numpy as np
import torch
from numpy.typing import NDArray

from vjepa2cli.planning.cloning import clone
from vjepa2cli.settings import CloningConfig

CONFIG = CloningConfig(steps=200, batch_size=64, lr=5e-3, ahead=1, patch_width=8, width=32)


class Walks:
    """A point walks about, and its latents spell where it is."""

    lengths = [20] * 62

    def states(self, index: int) -> NDArray[np.float32]:
        rng = np.random.default_rng(index)
        return np.cumsum(rng.normal(0, 0.02, (20, 7)), axis=0).astype(np.float32)

    def actions(self, index: int) -> NDArray[np.float32]:
        return np.diff(self.states(index), axis=0)

    def tokens(self, index: int, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        mixing = np.random.default_rng(99).normal(0, 1, (7, 4 * 6))
        return (10 * self.states(index) @ mixing).reshape(20, 4, 6).astype(np.float32)[start:stop]


def test_a_clone_tells_the_action_that_leads_to_the_goal() -> None:
    made = clone(Walks(), range(60), [60, 61], CONFIG)
    # Of actions in standard units, saying 0 costs 0.36 by Huber's loss.
    assert made.report["val_loss"] < 0.1
    network = made.network(torch.device("cpu"))
    walks = Walks()
    latents, states = torch.from_numpy(walks.tokens(61)), torch.from_numpy(walks.states(61))
    scales = {name: torch.from_numpy(values) for name, values in made.scales.items()}
    said = network(latents[:-1], latents[1:], (states[:-1] - scales["state_mean"]) / scales["state_std"])
    actions = said * scales["std"] + scales["mean"]
    assert np.corrcoef(actions.numpy().ravel(), walks.actions(61).ravel())[0, 1] > 0.9


def test_a_clone_is_a_function_of_recordings_and_seed() -> None:
    short = CONFIG.model_copy(update={"steps": 1})
    torch.manual_seed(5)
    one = clone(Walks(), range(10), [10], short)
    torch.manual_seed(6)
    same, other = clone(Walks(), range(10), [10], short), clone(Walks(), range(10), [10], short.model_copy(update={"seed": 1}))
    assert all((values == same.weights[name]).all() for name, values in one.weights.items())
    assert any((values != other.weights[name]).any() for name, values in one.weights.items())
