"""One command on several processes, here or on the nodes of a Slurm job: who starts them, and where they meet.

Snakemake's Slurm plugin takes most of Slurm's variables out of a rule's environment, so the job is asked for its nodes. Every
process is a task of its own under srun: a signal that Slurm sends reaches each of them, and no launcher in between cuts short
the checkpoint that they answer with.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vjepa2cli.errors import DependencyError, InputError
from vjepa2cli.ranks import FIRST_PORT, NUM_PORTS, port_of_job

_TRIES = 50


@dataclass(frozen=True)
class Launch:
    """What takes this process's place: its words, and the variables that it starts with."""

    words: tuple[str, ...]
    environment: Mapping[str, str]


def prepare_launch(command: Sequence[str], *, nodes: int, processes: int, threads: int, environment: Mapping[str, str]) -> Launch:
    """How to run `vjepa2 COMMAND` as `processes` processes of `threads` threads on each of `nodes` nodes.

    One process is this one; several on one node are torchrun's; several nodes are those of the Slurm job that this runs in.
    Raises InputError where there is no such job or it has another number of nodes, DependencyError where Slurm's commands lack.
    """
    ours = (sys.executable, "-m", "vjepa2cli", "--threads", str(threads), *command)
    if nodes == 1 and processes == 1:
        return Launch(ours, environment)
    if nodes == 1:
        torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
        return Launch((*torchrun, *ours[1:]), environment)
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        raise InputError(
            f"--nodes {nodes}: several nodes come from Slurm, and this runs in no Slurm job; submit it (snakemake --profile "
            "slurm), or launch it on one node"
        )
    hosts = _hosts_of(job)
    if len(hosts) != nodes:
        raise InputError(
            f"--nodes {nodes}: job {job} has {len(hosts)} ({', '.join(hosts)}); ask Slurm for {nodes}, in a profile with "
            f"`nodes: {nodes}` and `tasks: {nodes * processes}`"
        )
    srun = (
        "srun",
        f"--nodes={nodes}",
        f"--ntasks={nodes * processes}",
        f"--ntasks-per-node={processes}",
        f"--cpus-per-task={threads}",
        "--kill-on-bad-exit=1",
    )
    meeting = {"MASTER_ADDR": hosts[0], "MASTER_PORT": str(free_port(int(job)))}
    return Launch((*srun, *ours), {**environment, **meeting})


def launch(prepared: Launch) -> None:
    """Become the prepared command; its exit code and the signals to it are this process's. Does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(prepared.words[0], list(prepared.words), dict(prepared.environment))


def num_cores() -> int:
    """Cores that this process may use, which is fewer than the machine has where Slurm or a container says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_port(job: int) -> int:
    """The port that the number of a job gives, or another that nobody listens at here, where its first process runs.

    The others are drawn by the job's number, so that two jobs that start at once on a node do not try the same ones in turn.
    """
    others = random.Random(job)
    for port in [port_of_job(job), *(FIRST_PORT + others.randrange(NUM_PORTS) for _ in range(_TRIES))]:
        with socket.socket() as tried:
            try:
                tried.bind(("", port))
            except OSError:
                continue
        return port
    raise InputError(
        f"{_TRIES} ports between {FIRST_PORT} and {FIRST_PORT + NUM_PORTS} are all in use on {socket.gethostname()}; end what "
        "holds them"
    )


def _hosts_of(job: str) -> list[str]:
    """The nodes of a job by name, the one that its batch script runs on first."""
    folded = _answer("squeue", "--noheader", "--jobs", job, "--format", "%N")
    return _answer("scontrol", "show", "hostnames", folded).split()


def _answer(*words: str) -> str:
    if shutil.which(words[0]) is None:
        raise DependencyError(f"{words[0]}: not found; several nodes need Slurm's commands on the node of the job")
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    if ended.returncode or not ended.stdout.strip():
        said = ended.stderr.strip().splitlines()
        raise InputError(f"{' '.join(words)}: {said[0] if said else 'no answer'}; is the job still running?")
    return ended.stdout.strip()
