"""All of DeepSpeed: the process group, the engine around a module, and its checkpoints.

On a CPU two switches keep DeepSpeed from compiling anything at start: its shared-memory operator is declared absent before the
process group starts, and the optimizer is torch's own AdamW.
"""

import errno
import logging
import os
import shutil
import socket
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vjepa2cli.errors import ConfigError, DependencyError, TrainingError
from vjepa2cli.settings import TrainingConfig

_TAG = "state"
_SHORT_WRITES = ("unexpected pos", "PytorchStreamWriter failed writing")


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a device; raises DependencyError where CUDA is asked for and absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DependencyError(
            f"--device {name}: torch {torch.__version__} sees no CUDA device; use --device cpu, or install a CUDA build"
        )
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return torch.device(name)


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


def _name_ranks() -> bool:
    """Set the five variables of a process group: from srun where it launched us, to a group of one (True) where nobody did."""
    if "RANK" in os.environ:
        return False
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        os.environ |= {
            "RANK": os.environ["SLURM_PROCID"],
            "WORLD_SIZE": os.environ["SLURM_STEP_NUM_TASKS"],
            "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        }
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise TrainingError(
                f"srun started {os.environ['WORLD_SIZE']} tasks but {' and '.join(missing)} is not set; export it or use torchrun"
            )
        return False
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return True


def start_process_group(device: torch.device) -> tuple[int, int]:
    """Join the process group and return (rank, world size); a refused group is an error, never a silent group of one."""
    deepspeed = _import_deepspeed(device)
    if not torch.distributed.is_initialized():
        alone = _name_ranks()
        backend = "nccl" if device.type == "cuda" else "gloo"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                deepspeed.init_distributed(dist_backend=backend, verbose=False, auto_mpi_discovery=False)
        except (RuntimeError, ValueError) as error:
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise TrainingError(f"the process group at {place} was refused: {str(error).splitlines()[0]}") from None
        if alone:  # a process that this one starts would take them for its own, and find the port in use
            for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
                del os.environ[name]
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    if world_size != int(os.environ.get("WORLD_SIZE", world_size)):
        raise TrainingError(f"the process group has {world_size} members but WORLD_SIZE says {os.environ['WORLD_SIZE']}")
    return rank, world_size


class Engine:
    """A module under DeepSpeed: `update` makes one optimizer step, `save` and `load` keep its whole state."""

    def __init__(
        self, module: nn.Module, groups: Iterable[dict[str, Any]], *, config: TrainingConfig, device: torch.device
    ) -> None:
        """Wrap `module`; each group has `params`, `peak_lr` and `weight_decay`.

        Raises ConfigError where the batch does not divide over the processes.
        """
        self.device = device
        optimizer = config.optimizer
        self.rank, self.world_size = start_process_group(device)
        share, rest = divmod(config.batch_size, self.world_size)
        if rest:
            raise ConfigError(
                f"batch_size: {config.batch_size} does not divide over {self.world_size} processes; choose a multiple"
            )
        self.rows = range(self.rank * share, (self.rank + 1) * share)
        adamw = torch.optim.AdamW(
            [group | {"lr": group["peak_lr"]} for group in groups], lr=optimizer.lr, betas=optimizer.betas, eps=optimizer.eps
        )
        settings = {
            "train_micro_batch_size_per_gpu": share,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": optimizer.gradient_clipping,
            "zero_optimization": {"stage": config.zero_stage},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        }
        with _quiet():
            self._engine, *_ = _import_deepspeed(device).initialize(model=module.to(device), optimizer=adamw, config=settings)

    def set_learning_rate(self, factor: float) -> None:
        """Give every group `factor` times its peak rate."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = factor * group["peak_lr"]

    def sums(self, inputs: Any) -> Tensor:
        """Forward pass: the sums of the loss's terms over this process's rows."""
        sums: Tensor = self._engine(inputs)
        return sums

    def update(self, loss: Tensor) -> None:
        """Backward pass and optimizer step; `loss` is this process's part of the whole batch's loss."""
        with _quiet():
            self._engine.backward(loss * self.world_size)  # DeepSpeed takes the mean over processes
            self._engine.step()

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes, in float64."""
        total = values.detach().double().clone()
        if self.world_size > 1:
            torch.distributed.all_reduce(total)
        return total

    def barrier(self) -> None:
        """Wait for every process."""
        if self.world_size > 1:
            torch.distributed.barrier()

    def save(self, folder: Path) -> None:
        """Write the whole state into `folder`, which appears only when every process has written its part.

        Raises OSError where the disk is full; nothing of the checkpoint is left then.
        """
        partial = folder.with_name(f".{folder.name}.partial")
        try:
            with _quiet():
                self._engine.save_checkpoint(str(partial), tag=_TAG, save_latest=False)
        except RuntimeError as error:
            # torch.save writes by its own archive writer, which tells a short write by the position that it did not reach.
            if not any(sign in str(error) for sign in _SHORT_WRITES):
                raise
            shutil.rmtree(partial)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        self.barrier()
        if self.rank == 0:
            partial.rename(folder)
        self.barrier()

    def load(self, folder: Path) -> None:
        """Read the whole state; raises TrainingError where the checkpoint does not fit this run.

        Rates, decay and the like stay this run's, which may go on with another.
        """
        settings = [{key: group[key] for key in group if key != "params"} for group in self._engine.optimizer.param_groups]
        try:
            with _quiet():
                path, _ = self._engine.load_checkpoint(str(folder), tag=_TAG)
        except (RuntimeError, AssertionError, ValueError, OSError) as error:
            raise TrainingError(
                f"{folder}: cannot be resumed: {str(error).splitlines()[0]}; remove it to resume from an earlier one"
            ) from None
        if path is None:
            raise TrainingError(f"{folder}: holds no checkpoint; remove it to resume from an earlier one")
        for group, own in zip(self._engine.optimizer.param_groups, settings, strict=True):
            group.update(own)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep DeepSpeed's and torch's deprecation warnings to themselves; errors still come through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
