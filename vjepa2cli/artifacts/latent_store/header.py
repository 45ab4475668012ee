"""What a latent store is bound to, and the trajectories that it holds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SCHEMA = "vjepa2cli.latents/2"
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LatentHeader:
    """What a latent store is bound to; `state_space` says what the numbers of a state are, None those of an end effector."""

    encoder_source: str
    encoder_digest: str
    layer_norm: bool
    grid: tuple[int, int, int]
    embed_dim: int
    rate: float
    robot: str
    preprocessing: dict[str, Any]
    provenance: dict[str, Any]
    state_space: dict[str, Any] | None = None

    @property
    def recordings_digest(self) -> str | None:
        """Digest of the video store that the frames came from, where it is known."""
        digest: str | None = self.provenance.get("inputs", {}).get("videos")
        return digest

    @property
    def token_shape(self) -> tuple[int, int]:
        """Tokens of a step, and their width."""
        return self.grid[1] * self.grid[2], self.embed_dim


@dataclass(frozen=True)
class Episode:
    """A trajectory but for its latents: states [T, S], actions [T-1, A], and the camera's extrinsics [T, 6] where they are known.

    `split` is `train` or `val`.
    """

    name: str
    split: str
    states: npt.NDArray[np.float32]
    actions: npt.NDArray[np.float32]
    extrinsics: npt.NDArray[np.float32] | None = None

    @property
    def length(self) -> int:
        """How many steps it has."""
        return len(self.states)
