"""Who a process is in its group, as each launcher tells it; half a story is an error, never a group of one."""

import pytest

from vjepa2cli import ranks
from vjepa2cli.errors import TrainingError

TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
SRUN = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "n[07-08]"}
NAMES = (*TORCHRUN, *SRUN, "SLURM_JOB_ID")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which no launcher has left anything."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what a test sets behind its back is undone as well
        monkeypatch.delenv(name)
    return monkeypatch


def launched(environment: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Set what a launcher sets."""
    for name, value in variables.items():
        environment.setenv(name, value)


def test_nobody_launched_this(environment: pytest.MonkeyPatch) -> None:
    assert (ranks.is_leader(), ranks.local_rank(), ranks.name_ranks()) == (True, 0, False)


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN | {"SLURM_JOB_ID": "123456"}])
def test_each_launcher_names_the_same_process(environment: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    launched(environment, variables)
    assert (ranks.is_leader(), ranks.local_rank(), ranks.name_ranks()) == (False, 1, True)
    import os

    assert [os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")] == ["3", "1", "4"]
    if "SLURM_JOB_ID" in variables:
        assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("n07", "23456")


def test_a_task_of_srun_alone_is_a_group_of_one(environment: pytest.MonkeyPatch) -> None:
    launched(environment, SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"})
    assert (ranks.is_leader(), ranks.name_ranks()) == (True, False)


@pytest.mark.parametrize(
    ("variables", "missing"), [({"RANK": "0"}, "WORLD_SIZE"), ({"WORLD_SIZE": "2"}, "RANK"), (SRUN, "MASTER_PORT")]
)
def test_half_a_launcher_is_refused(environment: pytest.MonkeyPatch, variables: dict[str, str], missing: str) -> None:
    launched(environment, variables)
    with pytest.raises(TrainingError, match=missing):
        ranks.name_ranks()


@pytest.mark.parametrize(
    ("hosts", "first"),
    [("n1", "n1"), ("n1,n2", "n1"), ("gpu[07-09,12]", "gpu07"), ("gpu[3,5]-b,login", "gpu3-b"), ("a[1-2]-c[4-5]", "a1-c4")],
)
def test_the_first_host_of_a_list(hosts: str, first: str) -> None:
    assert ranks.first_host(hosts) == first
