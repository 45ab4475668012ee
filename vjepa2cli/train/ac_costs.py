"""What a post-training config costs on latents of a given shape: parameters, operations, bytes read, memory; see `costs`.

benchmarks/posttrain.py holds these figures against a run.
"""

from dataclasses import dataclass
from functools import cached_property

from vjepa2cli.settings import PosttrainConfig
from vjepa2cli.train.costs import Blocks

_EXTRINSICS_DIM = 6
_FORWARD_AND_BACKWARD = 3.0


@dataclass(frozen=True)
class LatentShape:
    """Rows and columns of the tokens of a step, their width, the bytes that a number of them takes, and the robot's numbers."""

    rows: int
    columns: int
    width: int
    number_bytes: int = 2
    numbers: int = 7

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.rows * self.columns


@dataclass(frozen=True)
class AcCosts:
    """The costs of a config on latents of a shape; see the properties."""

    config: PosttrainConfig
    shape: LatentShape

    @cached_property
    def blocks(self) -> Blocks:
        """The predictor's blocks."""
        chosen = self.config.predictor
        return Blocks(chosen.embed_dim, chosen.depth, int(chosen.embed_dim * chosen.mlp_ratio), chosen.num_heads)

    @property
    def parameters(self) -> int:
        """As released: extrinsics have an embedding whether they are used or not."""
        own, width = self.config.predictor.embed_dim, self.shape.width
        return (
            self.blocks.parameters
            + 2 * own * width
            + 3 * own
            + width
            + self.conditioning_parameters
            + 7 * own * (not self.config.predictor.extrinsics)
        )

    @property
    def conditioning_parameters(self) -> int:
        """Of what embeds actions, states and, where they are used, extrinsics."""
        own = self.config.predictor.embed_dim
        extrinsics = (_EXTRINSICS_DIM + 1) * own if self.config.predictor.extrinsics else 0
        return 2 * (self.shape.numbers + 1) * own + extrinsics

    @property
    def trained_parameters(self) -> int:
        """Those that an update changes."""
        return self.parameters if self.config.trainable == "all" else self.conditioning_parameters

    @property
    def frame_tokens(self) -> int:
        """Tokens of a step with those of its action, its state and its extrinsics."""
        return self.shape.tokens + 2 + self.config.predictor.extrinsics

    @property
    def tokens_per_step(self) -> int:
        """Tokens that the predictor reads under teacher forcing in a batch."""
        return self.config.batch_size * (self.config.num_frames - 1) * self.frame_tokens

    @property
    def _rollout_frames(self) -> int:
        """Steps that are read in a rollout: each once, or with checkpointing all of them again every time."""
        steps = self.config.rollout_steps
        return steps * (steps + 1) // 2 if self._checkpointing else steps

    @property
    def flops_per_step(self) -> float:
        """Operations of one update on the whole batch."""
        config, frame, blocks = self.config, self.frame_tokens, self.blocks
        forced = blocks.training_flops((config.num_frames - 1) * frame, checkpointing=self._checkpointing)
        forced += self._ends_flops(config.num_frames - 1)
        rolled = self._ends_flops(self._rollout_frames)
        for steps in range(1, config.rollout_steps + 1):
            if self._checkpointing:
                rolled += blocks.training_flops(steps * frame, checkpointing=True)
            else:
                linear = blocks.training_flops(frame, checkpointing=False)
                square = blocks.training_flops(0, checkpointing=False)
                attention = (1 + 2.5) * blocks.attention_flops(frame)
                rolled += linear - attention + square + steps * attention
        return config.batch_size * (forced + config.rollout_fraction * rolled)

    def _ends_flops(self, frames: int) -> float:
        """Into the predictor's width and out of it; the latents that go in have no gradient, those that are fed back do."""
        return _FORWARD_AND_BACKWARD * 2 * 2 * frames * self.shape.tokens * self.shape.width * self.config.predictor.embed_dim

    @property
    def bytes_read_per_step(self) -> int:
        """Bytes of latents in a batch, as they are kept."""
        shape = self.shape
        return self.config.batch_size * self.config.num_frames * shape.tokens * shape.width * shape.number_bytes

    def rows_at_once(self, processes: int) -> float:
        """Windows that one process holds on its device at a time."""
        rows = self.config.batch_size / processes
        return min(rows, self.config.micro_batch_size or rows)

    def state_bytes(self, processes: int) -> float:
        """Weights, gradients and both moments, float32, on one process; see `Costs.state_bytes`."""
        stage, trained = self.config.zero_stage, self.trained_parameters
        share = trained / processes
        moments = 0 if self.config.offload_optimizer else 8 * (share if stage else trained)
        copies = (0 if self.config.offload_optimizer else 4 * share) if stage else 0
        gradients = 4 * (share if stage == 2 else trained)
        rounded = 2 * self.parameters if self._is_bf16 else 0
        return 4 * self.parameters + gradients + moments + copies + rounded

    def activation_bytes(self, processes: int) -> float:
        """What the backward pass of the rows that one process holds at once needs kept."""
        forced = (self.config.num_frames - 1) * self.frame_tokens
        recomputed = self.blocks.block_bytes(forced, bf16=self._is_bf16) if self._checkpointing else 0
        return self.rows_at_once(processes) * (self._kept_bytes() + recomputed)

    def _kept_bytes(self) -> float:
        """Of one row but for the block that is computed again."""
        config, frame = self.config, self.frame_tokens
        windows = 4 * config.num_frames * self.shape.tokens * self.shape.width
        kept = windows + self._stack_bytes(config.num_frames - 1, config.num_frames - 1)
        for steps in range(1, config.rollout_steps + 1):
            kept += self._stack_bytes(steps if self._checkpointing else 1, 1)
            if not self._checkpointing and steps > 1:  # keys and values of this step, joined to those before
                kept += config.predictor.depth * 2 * steps * frame * config.predictor.embed_dim * (2 if self._is_bf16 else 4)
        return kept

    def _stack_bytes(self, frames: int, predicted: int) -> float:
        """Of one pass of the predictor over so many steps, the last of which are predicted and compared."""
        own, width, tokens = self.config.predictor.embed_dim, self.shape.width, self.shape.tokens
        blocks = self.blocks.activation_bytes(frames * self.frame_tokens, checkpointing=self._checkpointing, bf16=self._is_bf16)
        ends = frames * tokens * ((2 * width + 8 * own) if self._is_bf16 else 8 * own)
        return blocks + ends + predicted * tokens * 12 * width

    @property
    def _checkpointing(self) -> bool:
        return self.config.predictor.activation_checkpointing

    @property
    def _is_bf16(self) -> bool:
        return self.config.precision == "bf16"
