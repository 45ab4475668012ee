"""All of DeepSpeed: the engine around a module, its updates and its checkpoints.

On a CPU two switches keep DeepSpeed from compiling anything at start: its shared-memory operator is declared absent, and the
optimizer is torch's own AdamW.
"""

import errno
import logging
import math
import os
import pickle
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vjepa2cli.errors import ConfigError, TrainingError
from vjepa2cli.settings import TrainingConfig
from vjepa2cli.train.optimizer_state import held_state, restore
from vjepa2cli.train.process_group import ProcessGroup, noticing_loss

_MODULE, _STATE = "module.pt", "__run__"
_SHORT_WRITES = ("unexpected pos", "PytorchStreamWriter failed writing")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context of a precision: bf16, or fp32 for none."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def _import_deepspeed(device: torch.device) -> Any:
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
        import deepspeed.ops
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


class Engine:
    """A module under DeepSpeed: `sums`, `backward` and `step` make one update, `save` and `load` keep its whole state."""

    def __init__(
        self, module: nn.Module, groups: Iterable[dict[str, Any]], *, config: TrainingConfig, group: ProcessGroup
    ) -> None:
        """Wrap `module`; each of `groups` has `name`, `params`, `peak_lr` and `weight_decay`. See `check_processes`."""
        self.group, self._zero_stage = group, config.zero_stage
        self.parts = _parts(config, group)
        self._module, optimizer = module.to(group.device), config.optimizer
        adamw = torch.optim.AdamW(
            [settings | {"lr": settings["peak_lr"]} for settings in groups],
            lr=optimizer.lr,
            betas=optimizer.betas,
            eps=optimizer.eps,
            fused=True,  # in one pass over the state, on a CPU as on CUDA
        )
        self._norms = _GradientNorms(adamw)
        zero: dict[str, Any] = {"stage": config.zero_stage}
        if config.offload_optimizer:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        settings = {
            "train_micro_batch_size_per_gpu": len(self.parts[0]),
            "gradient_accumulation_steps": len(self.parts),
            "gradient_clipping": optimizer.gradient_clipping,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,  # its CPU Adam would be compiled at start
            "steps_per_print": 10**9,
        }
        with _quiet():
            self._engine, *_ = _import_deepspeed(group.device).initialize(model=self._module, optimizer=adamw, config=settings)
        group.bound_waiting()  # DeepSpeed has made a group of its own
        self._adds_up = group.world_size > 1 or config.zero_stage > 0
        if not self._adds_up:
            self._engine.enable_backward_allreduce = False  # gradients would be copied into one tensor and back for nobody

    def set_learning_rate(self, factor: float) -> None:
        """Give every group `factor` times its peak rate."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = factor * group["peak_lr"]

    def sums(self, inputs: Any) -> Tensor:
        """Forward pass: the sums of the loss's terms over these rows."""
        sums: Tensor = self._engine(inputs)
        return sums

    @torch.no_grad()
    def sums_alone(self, inputs: Any) -> Tensor:
        """The same sums, of which nothing will be learnt."""
        sums: Tensor = self._module(inputs)
        return sums

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Backward pass of one part's share in the whole batch's loss; with the `last` part the gradient is whole."""
        self._engine.set_gradient_accumulation_boundary(last)
        with _quiet(), noticing_loss():
            # DeepSpeed takes the mean over processes; the parts of a batch are shares of its sum.
            self._engine.backward(loss * self.group.world_size, scale_wrt_gas=False)
        if last and not self._adds_up:
            # As DeepSpeed does where it adds up: what played no part decays as well, on any number of processes.
            for parameter in self._module.parameters():
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def step(self, *, by_group: bool = False) -> dict[str, float]:
        """Update the parameters; returns norms of the gradient before clipping, `total` and with `by_group` each named group's.

        A gradient that is not finite changes nothing, and its total is inf or NaN.
        """
        if self._zero_stage == 0 and not math.isfinite(total := self._norms.total()):
            self._engine.zero_grad()
            return {"total": total}
        with _quiet(), noticing_loss(), self._norms.watched(by_group):
            self._engine.step()
        if self._zero_stage > 0:
            total = float(self._engine.get_global_grad_norm())
        return {"total": total} | (self._norms.by_group(total, self.group if self._zero_stage else None) if by_group else {})

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        """Write the whole state and `state` into `folder`, which appears only when every process has written its part.

        Raises OSError where the disk is full; nothing of the checkpoint is left then.
        """
        partial = folder.with_name(f".{folder.name}.partial")
        try:
            self.group.together(lambda: self._write(partial, state))
        except (OSError, TrainingError):
            if self.group.is_leader:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        self.group.on_leader(lambda: partial.rename(folder) and None)

    def _write(self, folder: Path, state: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self.group.is_leader:
            _save(self._module.state_dict() | {_STATE: state}, folder / _MODULE)
        if self.group.is_leader or self._zero_stage:
            _save(held_state(self._module, self._engine.optimizer), folder / f"optimizer_{self.group.rank:05d}.pt")

    def load(self, folder: Path) -> dict[str, Any]:
        """Read the whole state, of any number of processes; returns what `save` was given with it.

        Raises TrainingError where the checkpoint does not fit this run.
        """
        state: dict[str, Any] = self.group.together(lambda: self._read(folder))
        return state

    def _read(self, folder: Path) -> dict[str, Any]:
        try:
            held = torch.load(folder / _MODULE, map_location="cpu", weights_only=True, mmap=True)
            state: dict[str, Any] = held.pop(_STATE)
            self._module.load_state_dict(held)
            written = [
                torch.load(file, map_location="cpu", weights_only=True, mmap=True)
                for file in sorted(folder.glob("optimizer_*.pt"))
            ]
            restore(self._module, self._engine.optimizer, written)
        except (RuntimeError, KeyError, ValueError, OSError, pickle.UnpicklingError) as error:
            reason = " ".join((str(error).splitlines() or [type(error).__name__])[0].split())
            raise TrainingError(f"{folder}: cannot be resumed: {reason}; remove it to resume from an earlier one") from None
        if self._zero_stage:
            self._engine.optimizer.refresh_fp32_params()
        return state


def check_processes(config: TrainingConfig, *, group: ProcessGroup) -> None:
    """Raise ConfigError where the batch does not divide over the processes, or the optimizer's state cannot be moved out."""
    message = None
    if config.batch_size % group.world_size:
        message = f"batch_size: {config.batch_size} does not divide over {group.world_size} processes; choose a multiple"
    elif config.offload_optimizer and config.zero_stage == 0:
        message = "offload_optimizer: true needs zero_stage 1 or 2, which hold the optimizer's state apart; set one of them"
    elif config.offload_optimizer and group.device.type == "cpu":
        message = "offload_optimizer: true moves the optimizer's state to the CPU, where --device cpu has it anyway; drop it"
    if message:
        raise group.agreed(ConfigError(message))


def _parts(config: TrainingConfig, group: ProcessGroup) -> list[range]:
    """This process's rows of the batch, cut into as many even parts as it takes for `micro_batch_size` of them at once."""
    rows = group.share(config.batch_size)
    count = -(-len(rows) // (config.micro_batch_size or len(rows)))
    return [rows[len(rows) * part // count : len(rows) * (part + 1) // count] for part in range(count)]


class _GradientNorms:
    """Norms of the gradient that an AdamW is about to apply, whole or in the slices that ZeRO gives it."""

    def __init__(self, adamw: torch.optim.AdamW) -> None:
        self._groups, self._watching = adamw.param_groups, False
        self._squares: dict[str, Tensor] = {}
        adamw.register_step_pre_hook(self._look)

    def total(self) -> float:
        """Of the gradients that lie at the parameters themselves."""
        gradients = [p.grad for group in self._groups for p in group["params"] if p.grad is not None]
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).double()))

    @contextmanager
    def watched(self, wanted: bool) -> Iterator[None]:
        """Look at what the next step applies, where `wanted`."""
        self._squares, self._watching = {}, wanted
        yield
        self._watching = False

    def _look(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._watching:
            for group in optimizer.param_groups:
                gradients = [p.grad for p in group["params"] if p.grad is not None]
                if gradients:
                    square = torch.stack(torch._foreach_norm(gradients)).double().square().sum()
                    self._squares[group["name"]] = self._squares.get(group["name"], 0.0) + square

    def by_group(self, total: float, over: ProcessGroup | None) -> dict[str, float]:
        """Of each name's groups, before clipping; slices are summed `over` processes."""
        names = sorted({group["name"] for group in self._groups})
        squares = torch.stack([torch.as_tensor(self._squares.get(name, 0.0), dtype=torch.float64).cpu() for name in names])
        if over is not None:
            squares = over.total(squares).cpu()
        applied = float(squares.sum().sqrt())
        scale = total / applied if applied else 0.0
        return {name: float(square.sqrt()) * scale for name, square in zip(names, squares, strict=True)}


def _save(tree: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(tree, file)
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as error:
        # torch.save writes by its own archive writer, which tells a short write by the position that it did not reach.
        if not any(sign in str(error) for sign in _SHORT_WRITES):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep DeepSpeed's and torch's deprecation warnings to themselves; errors still come through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
