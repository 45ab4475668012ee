"""Where the processes of a command run and meet: what is started, and what is refused before anything is."""

import os
import socket
import sys
from pathlib import Path

import pytest

from vjepa2cli.errors import DependencyError, InputError
from vjepa2cli.launching import free_port, prepare_launch

COMMAND = ("pretrain", "store.zarr", "--run-dir", "run")
OURS = ("-m", "vjepa2cli", "--threads", "3", *COMMAND)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a rule in job 12345 on two nodes; squeue and scontrol answer as Slurm's do."""
    for name, answer in (("squeue", "gpu[07-08]"), ("scontrol", "gpu07\ngpu08")):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\nprintf '{answer}\\n'\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return {"SLURM_JOB_ID": "12345", "PATH": os.environ["PATH"]}


def test_one_process_is_the_command_itself() -> None:
    prepared = prepare_launch(COMMAND, nodes=1, processes=1, threads=3, environment={"HOME": "/home/me"})
    assert prepared.words == (sys.executable, *OURS)
    assert prepared.environment == {"HOME": "/home/me"}


def test_several_processes_on_a_node_are_torchruns() -> None:
    words = prepare_launch(COMMAND, nodes=1, processes=4, threads=3, environment={}).words
    assert words[:5] == (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4")
    assert words[5:] == OURS


def test_several_nodes_meet_at_the_first_one_by_the_number_of_the_job(job: dict[str, str]) -> None:
    prepared = prepare_launch(COMMAND, nodes=2, processes=4, threads=3, environment=job)
    assert prepared.words[0] == "srun"
    assert {"--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--cpus-per-task=3", "--kill-on-bad-exit=1"} < set(prepared.words)
    assert prepared.words[-len(OURS) :] == OURS
    assert prepared.environment == job | {"MASTER_ADDR": "gpu07", "MASTER_PORT": "20345"}


def test_a_port_in_use_is_passed_over_by_each_job_in_its_own_way() -> None:
    first = free_port(777)
    with socket.socket() as taken:
        taken.bind(("", first))
        another, same_port = free_port(777), free_port(777 + 12000)
    assert len({first, another, same_port}) == 3
    assert all(20000 <= port < 32000 for port in (first, another, same_port))


def test_a_job_with_other_nodes_than_asked_for_never_starts_by_half(job: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"job 12345 has 2 \(gpu07, gpu08\); ask Slurm for 3"):
        prepare_launch(COMMAND, nodes=3, processes=1, threads=1, environment=job)


def test_several_nodes_need_a_job_and_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="runs in no Slurm job"):
        prepare_launch(COMMAND, nodes=2, processes=1, threads=1, environment={})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="squeue: not found"):
        prepare_launch(COMMAND, nodes=2, processes=1, threads=1, environment={"SLURM_JOB_ID": "1"})


def test_a_job_that_is_gone_is_said_in_slurms_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "squeue"
    script.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Invalid job id specified' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(InputError, match="Invalid job id specified; is the job still running"):
        prepare_launch(COMMAND, nodes=2, processes=1, threads=1, environment={"SLURM_JOB_ID": "1"})
