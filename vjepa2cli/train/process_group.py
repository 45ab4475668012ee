"""The processes of a training: how they find each other, add up, agree, and notice that one of them is gone."""

import atexit
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import distributed_c10d

from vjepa2cli.errors import DependencyError, TrainingError, Vjepa2Error
from vjepa2cli.ranks import local_rank, name_ranks

_T = TypeVar("_T")
_TIMEOUT, _SECONDS = "VJEPA2_GROUP_TIMEOUT", 600.0


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a device; raises DependencyError where CUDA is asked for and absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DependencyError(
            f"--device {name}: torch {torch.__version__} sees no CUDA device; use --device cpu, or install a CUDA build"
        )
    if name == "cuda":  # of those that this process sees, which may be its own alone
        name = f"cuda:{local_rank() % torch.cuda.device_count()}"
    return torch.device(name)


class ProcessGroup:
    """All processes of a training; rank 0 leads. Every process calls the same members in the same order."""

    def __init__(self, device: torch.device) -> None:
        """Join the group, of one where nobody launched more; raises TrainingError where it is refused."""
        self.device = device
        if not dist.is_initialized():
            _join(device)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        if self.world_size != int(os.environ.get("WORLD_SIZE", self.world_size)):
            raise TrainingError(f"the process group has {self.world_size} members but WORLD_SIZE says {os.environ['WORLD_SIZE']}")

    @property
    def is_leader(self) -> bool:
        """Whether this is rank 0, which writes."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """This process's part of `count` rows, which must divide."""
        share = count // self.world_size
        return range(self.rank * share, (self.rank + 1) * share)

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes, in float64 on the group's device."""
        total = values.detach().to(self.device, torch.float64, copy=True)
        if self.world_size > 1:
            with noticing_loss():
                dist.all_reduce(total)
        return total

    def gather(self, item: _T) -> list[_T]:
        """What every process gave, by rank; for small things that are pickled."""
        items: list[Any] = [item] * self.world_size
        if self.world_size > 1:
            with noticing_loss():
                dist.all_gather_object(items, item)
        return items

    def bound_waiting(self) -> None:
        """Give the groups that a library has made of the same processes the same patience; theirs would be half an hour."""
        for group in list(distributed_c10d._world.pg_map):
            distributed_c10d._set_pg_timeout(_patience(), group)

    def together(self, act: Callable[[], _T]) -> _T:
        """Run `act` on every process; where one cannot, all of them end, and the first that failed tells why."""
        result, failure = _attempt(act)
        self.require_none(failure)
        return cast(_T, result)

    def require_none(self, failure: Vjepa2Error | OSError | None) -> None:
        """Raise on every process where any of them failed."""
        self._raise_first(self.gather(failure))

    def on_leader(self, act: Callable[[], _T]) -> _T:
        """What `act` returns on the leader, for every process; where it cannot, all of them end."""
        result, failure = self.gather(_attempt(act) if self.is_leader else (None, None))[0]
        self._raise_first([failure])
        return cast(_T, result)

    def agreed(self, error: Vjepa2Error) -> Vjepa2Error:
        """An error that every process raises, and the leader alone tells."""
        error.told = not self.is_leader
        return error

    def _raise_first(self, failures: Sequence[Vjepa2Error | OSError | None]) -> None:
        for rank, failure in enumerate(failures):
            if failure is not None:
                if rank == self.rank:
                    raise failure
                quiet = failure if isinstance(failure, Vjepa2Error) else TrainingError(str(failure))
                quiet.told = True
                raise quiet


def _attempt(act: Callable[[], _T]) -> tuple[_T | None, Vjepa2Error | OSError | None]:
    try:
        return act(), None
    except (Vjepa2Error, OSError) as error:
        return None, error


@contextmanager
def noticing_loss() -> Iterator[None]:
    """Turn what a collective says when a process is gone, or silent for too long, into a TrainingError."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        said = re.sub(r"^\[[^\]]*\.(cc|cpp|h):\d+\] ", "", str(error).splitlines()[0]).split(". ")[0]
        raise TrainingError(
            f"another process of this training has ended or does not answer ({said}); see what it wrote. The last checkpoint is "
            "untouched: run the same command again"
        ) from None


def _join(device: torch.device) -> None:
    launched = name_ranks()
    timeout = _patience()
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ["LOCAL_RANK"] = str(device.index)  # which DeepSpeed takes for the number of the device
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not launched:
            # A group of one needs no address, and leaves none in the environment of the processes that it starts.
            os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks for it
            store = torch._C._distributed_c10d.HashStore()
            dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timeout)
            atexit.register(_leave)  # gloo's threads abort a process now and then that ends under them
            return
        try:
            dist.init_process_group(backend, timeout=timeout)
        except (RuntimeError, ValueError) as error:
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise TrainingError(f"the process group at {place} was refused: {str(error).splitlines()[0]}") from None


def _patience() -> timedelta:
    return timedelta(seconds=float(os.environ.get(_TIMEOUT, _SECONDS)))


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
