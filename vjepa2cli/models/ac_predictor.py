"""The action-conditioned predictor: from the latents of frames, the actions and the states, the latents of the next frames.

Source: Assran et al. 2025 (arXiv:2506.09985), section 3; src/models/ac_predictor.py of facebookresearch/vjepa2.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vjepa2cli.errors import InputError
from vjepa2cli.models.layers import (
    Block,
    KeyValues,
    Rotary,
    RotaryVariant,
    check_heads,
    initialise,
    rotary_table,
    run_block,
    token_positions,
)
from vjepa2cli.tokens import TokenGrid

_EXTRINSICS_DIM = 6
_SINE_BASE = 10000.0


@dataclass(frozen=True)
class AcPredictorSpec:
    """The numbers that make an AC predictor over latents of width `latent_dim`.

    grid_h, grid_w: rows and columns of a frame's tokens; None stands for a square.
    absolute_positions: patch tokens also carry fixed sine codes of their row and column. Rotary positions only show once
        attention has sharpened, which a small network on a short budget never reaches; the released weights do without.
    condition_patches: the embeddings of a frame's action and state are also added to each of its patches, for the same reason.
    residual: the network puts out the change of the latents, not the latents.
    layer_norm: the latents it was trained on are layer-normed, and so is each prediction before it is fed back.
    *_mean, *_std: numbers that actions and states are standardised by before they are embedded; None leaves them as they are.
    conditioning_init_std: standard deviation of the initial weights that embed actions, states and extrinsics.
    """

    latent_dim: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    action_dim: int = 7
    state_dim: int = 7
    grid_h: int | None = None
    grid_w: int | None = None
    use_extrinsics: bool = False
    absolute_positions: bool = False
    condition_patches: bool = False
    residual: bool = False
    layer_norm: bool = True
    action_mean: tuple[float, ...] | None = None
    action_std: tuple[float, ...] | None = None
    state_mean: tuple[float, ...] | None = None
    state_std: tuple[float, ...] | None = None
    conditioning_init_std: float = 0.02
    rotary: RotaryVariant = "tiled"

    def __post_init__(self) -> None:
        check_heads("AC predictor", self.embed_dim, self.num_heads)
        for name, dim in (("action", self.action_dim), ("state", self.state_dim)):
            mean, std = getattr(self, f"{name}_mean"), getattr(self, f"{name}_std")
            if (mean is None) != (std is None) or (mean is not None and not len(mean) == len(std) == dim):
                raise InputError(f"AC predictor: {name}_mean and {name}_std must both be None or both hold {dim} numbers")


class FrameCache:
    """Keys and values of the frames that an AC predictor has read, block by block; new frames go on from them."""

    def __init__(self, depth: int) -> None:
        self.blocks = [KeyValues() for _ in range(depth)]
        self.num_frames = 0

    def branch(self, *, grows: bool = True) -> "FrameCache":
        """A cache that goes on from here by itself, or does not grow at all; what was computed so far is shared."""
        other = FrameCache(0)
        other.blocks = [copy.copy(block) for block in self.blocks]
        other.num_frames = self.num_frames
        for block in other.blocks:
            block.grows = grows
        return other


class AcPredictor(nn.Module):
    """Predict frame t + 1 at slot t from the frames, actions and states up to t.

    A frame's tokens are [action, state, (extrinsics), patches]. Every token sees its own frame and the frames before it.
    """

    def __init__(self, spec: AcPredictorSpec, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.activation_checkpointing = False
        self.predictor_embed = nn.Linear(spec.latent_dim, spec.embed_dim)
        self.action_encoder = nn.Linear(spec.action_dim, spec.embed_dim)
        self.state_encoder = nn.Linear(spec.state_dim, spec.embed_dim)
        # The released checkpoint holds these weights although it never used them.
        self.extrinsics_encoder = nn.Linear(_EXTRINSICS_DIM, spec.embed_dim)
        self.predictor_blocks = nn.ModuleList(Block(spec.embed_dim, spec.num_heads, spec.mlp_ratio) for _ in range(spec.depth))
        self.predictor_norm = nn.LayerNorm(spec.embed_dim, eps=1e-6)
        self.predictor_proj = nn.Linear(spec.embed_dim, spec.latent_dim)
        initialise(self, self.predictor_blocks, generator)
        with torch.no_grad():
            for embedding in (self.action_encoder, self.state_encoder, self.extrinsics_encoder):
                embedding.weight.mul_(spec.conditioning_init_std / 0.02)

    def forward(
        self,
        latents: Tensor,
        actions: Tensor,
        states: Tensor,
        extrinsics: Tensor | None = None,
        *,
        cache: FrameCache | None = None,
    ) -> Tensor:
        """latents [B, T, HW, D], actions [B, T, A], states [B, T, S] -> [B, T, HW, D]; extrinsics [B, T, 6] if the spec says so.

        The output is raw: layer-norm it before a loss or before feeding it back (`world_model.rollout` does). With a `cache` the
        T frames follow those that the cache holds, and are added to it.
        """
        x = self._embed(latents, actions, states, extrinsics)  # [B, T, C + HW, P]
        num_frames, tokens_per_frame = x.shape[1:3]
        first_frame = cache.num_frames if cache is not None else 0
        rotary = self._rotary(first_frame, num_frames, tokens_per_frame, latents.shape[2], device=x.device)
        mask = _block_causal_mask(first_frame, num_frames, tokens_per_frame, device=x.device)
        x = x.flatten(1, 2)
        for index, block in enumerate(self.predictor_blocks):
            if cache is not None:
                x = block(x, rotary, mask, cache.blocks[index])
            else:
                x = run_block(block, x, rotary, mask, checkpointing=self.activation_checkpointing)
        if cache is not None:
            cache.num_frames += num_frames
        x = x.reshape(x.shape[0], num_frames, tokens_per_frame, -1)[:, :, -latents.shape[2] :]
        predicted: Tensor = self.predictor_proj(self.predictor_norm(x))
        return latents + predicted if self.spec.residual else predicted

    @property
    def conditioning(self) -> tuple[nn.Linear, ...]:
        """What embeds actions, states and, where they are used, extrinsics."""
        embeddings = (self.action_encoder, self.state_encoder)
        return (*embeddings, self.extrinsics_encoder) if self.spec.use_extrinsics else embeddings

    def new_cache(self) -> FrameCache:
        """An empty cache for this network."""
        return FrameCache(self.spec.depth)

    def _embed(self, latents: Tensor, actions: Tensor, states: Tensor, extrinsics: Tensor | None) -> Tensor:
        spec = self.spec
        lead = latents.shape[:2]
        wanted = {
            "latents": (latents, spec.latent_dim),
            "actions": (actions, spec.action_dim),
            "states": (states, spec.state_dim),
        }
        if spec.use_extrinsics:
            if extrinsics is None:
                raise InputError("extrinsics: missing, and this AC predictor was trained with the camera's extrinsics [B, T, 6]")
            wanted["extrinsics"] = (extrinsics, _EXTRINSICS_DIM)
        for name, (tensor, dim) in wanted.items():
            if tensor.shape[:2] != lead or tensor.shape[-1] != dim:
                raise InputError(f"{name}: shape {list(tensor.shape)}, but [{lead[0]}, {lead[1]}, ..., {dim}] is needed")
        tokens = [
            self.action_encoder(_standardised(actions, spec.action_mean, spec.action_std)).unsqueeze(2),
            self.state_encoder(_standardised(states, spec.state_mean, spec.state_std)).unsqueeze(2),
        ]
        if spec.use_extrinsics:
            tokens.append(self.extrinsics_encoder(extrinsics).unsqueeze(2))
        patches = self.predictor_embed(latents)
        if spec.absolute_positions:
            patches = patches + _sine_codes(*self._grid(latents.shape[2]), spec.embed_dim, device=patches.device)
        if spec.condition_patches:
            patches = patches + tokens[0] + tokens[1]
        return torch.cat((*tokens, patches), dim=2)

    def _rotary(
        self, first_frame: int, num_frames: int, tokens_per_frame: int, num_patches: int, *, device: torch.device
    ) -> Rotary:
        """Angles of whole frames: a patch lies at (t, row, column), what conditions it at (t, 0, 0)."""
        rows, columns = self._grid(num_patches)
        patches = token_positions(torch.arange(num_patches, device=device), TokenGrid(1, rows, columns))
        frame = torch.cat((patches.new_zeros(tokens_per_frame - num_patches, 3), patches))  # [C + HW, 3]
        times = torch.arange(first_frame, first_frame + num_frames, device=device)
        positions = frame.repeat(num_frames, 1)
        positions[:, 0] = times.repeat_interleave(tokens_per_frame)
        return rotary_table(positions.unsqueeze(0), self.spec.embed_dim // self.spec.num_heads, variant=self.spec.rotary)

    def _grid(self, num_patches: int) -> tuple[int, int]:
        side = math.isqrt(num_patches)
        rows, columns = self.spec.grid_h or side, self.spec.grid_w or side
        if rows * columns != num_patches:
            raise InputError(f"latents: {num_patches} tokens a frame do not fill this AC predictor's {rows} x {columns} grid")
        return rows, columns


def _standardised(x: Tensor, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Tensor:
    if mean is None or std is None:
        return x
    return (x - x.new_tensor(mean)) / x.new_tensor(std)


def _sine_codes(rows: int, columns: int, dim: int, *, device: torch.device) -> Tensor:
    """Fixed codes of a grid's places, [rows * columns, dim]: sines and cosines of the row, then of the column.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.5, in two dimensions.
    """
    ids = torch.arange(rows * columns, device=device)
    frequencies = _SINE_BASE ** -(torch.arange(dim // 4, device=device) / (dim // 4))
    angles = torch.stack((ids // columns, ids % columns), dim=-1).unsqueeze(-1) * frequencies  # [HW, 2, dim / 4]
    codes = torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return torch.nn.functional.pad(codes, (0, dim - codes.shape[1]))


def _block_causal_mask(first_frame: int, num_frames: int, tokens_per_frame: int, *, device: torch.device) -> Tensor | None:
    """[N, N_keys], True where the key's frame is not later than the token's; None where every token may see every key."""
    if num_frames == 1:
        return None
    frames = torch.arange(first_frame + num_frames, device=device).repeat_interleave(tokens_per_frame)
    return frames[first_frame * tokens_per_frame :, None] >= frames[None, :]
