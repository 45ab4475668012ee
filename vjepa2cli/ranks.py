"""Which process of a group this is, as `torchrun`, `deepspeed` and `srun` tell it in the environment."""

import os
import re

from vjepa2cli.errors import TrainingError

_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
FIRST_PORT, NUM_PORTS = 20000, 12000
"""Where groups meet: below the ports that systems give to whatever connects to somewhere."""


def is_leader() -> bool:
    """Whether this process is the one of its group that speaks and writes: rank 0, or the only one."""
    return _number("RANK", _number("SLURM_PROCID", 0) if _started_by_srun() else 0) == 0


def local_rank() -> int:
    """The number of this process among those of its group on this machine."""
    return _number("LOCAL_RANK", _number("SLURM_LOCALID", 0) if _started_by_srun() else 0)


def name_ranks() -> bool:
    """Give a launched process the variables of a process group, which srun does not set; False where nobody launched one.

    The leader's address is the step's first host, its port follows from the job's number; both may be set instead. Raises
    TrainingError where a launcher says only half of it: a group is never smaller than what was launched.
    """
    if "RANK" in os.environ:
        missing = [name for name in ("WORLD_SIZE", *_ADDRESS) if name not in os.environ]
        if missing:
            raise TrainingError(f"RANK is set but {' and '.join(missing)} is not; start with torchrun, deepspeed or srun")
        return True
    if _number("WORLD_SIZE", 1) > 1:
        raise TrainingError("WORLD_SIZE is set but RANK is not; start with torchrun, deepspeed or srun")
    if not _started_by_srun():
        return False
    hosts, job = os.environ.get("SLURM_STEP_NODELIST"), os.environ.get("SLURM_JOB_ID")
    if hosts:
        os.environ.setdefault("MASTER_ADDR", first_host(hosts))
    if job:
        os.environ.setdefault("MASTER_PORT", str(port_of_job(int(job))))
    missing = [name for name in _ADDRESS if name not in os.environ]
    if missing:
        raise TrainingError(
            f"srun started {os.environ['SLURM_STEP_NUM_TASKS']} tasks but {' and '.join(missing)} is not set; export it, "
            "or use torchrun"
        )
    os.environ |= {
        "RANK": os.environ["SLURM_PROCID"],
        "WORLD_SIZE": os.environ["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
    }
    return True


def port_of_job(job: int) -> int:
    """Where the processes of a Slurm job meet, unless that port is taken."""
    return FIRST_PORT + job % NUM_PORTS


def first_host(hosts: str) -> str:
    """The first name of a Slurm host list such as `gpu[07-09,12]-a,login`."""
    name, depth = "", 0
    for letter in hosts:
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == "," and not depth:
            break
        name += letter
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", name)


def _started_by_srun() -> bool:
    return _number("SLURM_STEP_NUM_TASKS", 1) > 1 and "SLURM_PROCID" in os.environ


def _number(name: str, otherwise: int) -> int:
    return int(os.environ.get(name, otherwise))
