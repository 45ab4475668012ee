"""The workflow on a real Slurm of two pretended nodes: the literal command, and what clusters do to jobs.

It installs Slurm and starts its daemons, as root on Debian, so it runs only where VJEPA2_TEST_SLURM=1 asks for it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
HERE = Path(__file__).parent
STEPS = 500
WEIGHTS = "results/pretrain/model/model.safetensors"
REPORT = "results/pretrain/report.json"
FAST = ["--slurm-init-seconds-before-status-checks", "6", "--latency-wait", "10"]
ONE_CORE = [f"{step}=1" for step in ("pretrain", "posttrain", "precompute", "probe", "validate", "evaluate")]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("VJEPA2_TEST_SLURM") != "1", reason="VJEPA2_TEST_SLURM is not 1"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Slurm, for as long as the tests of this module run."""
    folder = Path(f"/tmp/vjepa2-slurm-{os.getpid()}")
    subprocess.run([HERE / "up.sh", folder], check=True, timeout=200)
    yield
    subprocess.run([HERE / "down.sh", folder], check=True, timeout=30)
    shutil.rmtree(folder, ignore_errors=True)  # slurmctld may still write its last state


@dataclass
class Attempt:
    """One job of a rule: its number, and what Slurm says of it."""

    number: str
    said: str


class Training:
    """A folder in which all but a pretraining of `STEPS` steps is done, and that pretraining as Slurm jobs."""

    def __init__(self, folder: Path, finished_run: Path, *, resources: list[str]) -> None:
        shutil.copytree(finished_run, folder, symlinks=True)
        shutil.rmtree(folder / "results/pretrain")
        tree = yaml.safe_load((REPOSITORY / "tests/workflow/smallest.yaml").read_text())
        tree["overrides"]["pretrain"] |= {"steps": STEPS, "checkpoint_every": 10, "evaluate_every": STEPS}
        self.folder = folder
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(tree))
        self._resources = [f"pretrain:{resource}" for resource in ("tasks_per_gpu=0", *resources)]
        self._number = 0

    def submit(self) -> subprocess.Popen[str]:
        """`snakemake --profile slurm` for the pretraining, going on in a process of its own."""
        how = ["--configfile", str(self.config), "--directory", str(self.folder), "--set-threads", *ONE_CORE]
        return snakemake(REPORT, *how, "--set-resources", *self._resources, log=self.folder / "snakemake.log")

    def wait_for_step(self, step: int) -> None:
        """Until a checkpoint of that step or a later one is there."""
        checkpoints = self.folder / "results/pretrain/checkpoints"
        wait_until(lambda: any(int(path.name[5:]) >= step for path in checkpoints.glob("step_[0-9]*") if path.name[5:].isdigit()))

    def wait_for_job(self) -> Attempt:
        """The next job that this training was submitted as."""
        numbers: list[str] = []

        def submitted() -> bool:
            text = (self.folder / "snakemake.log").read_text() if (self.folder / "snakemake.log").exists() else ""
            numbers[:] = [line.split("jobid ")[1].split()[0] for line in text.splitlines() if "SLURM jobid" in line]
            return len(numbers) > self._number

        wait_until(submitted)
        self._number += 1
        number = numbers[self._number - 1]
        return Attempt(number, slurm("scontrol", "show", "job", number))

    def said(self) -> str:
        """All that snakemake and the training said."""
        files = [self.folder / "snakemake.log", self.folder / "results/logs/pretrain.log"]
        return "\n".join(file.read_text() for file in files if file.exists())


def snakemake(*options: str, log: Path, cwd: Path = REPOSITORY) -> subprocess.Popen[str]:
    with log.open("a") as handle:
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", *options, *FAST]
        return subprocess.Popen(command, stdout=handle, stderr=subprocess.STDOUT, text=True, cwd=cwd)


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wait_until(reached: Callable[[], bool], *, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.2)


def cancelled(training: Training) -> tuple[list[Attempt], int]:
    """`scancel` of a job in the middle; its attempts and the exit code of snakemake."""
    run = training.submit()
    attempts = [training.wait_for_job()]
    training.wait_for_step(40)
    slurm("scancel", attempts[0].number)
    attempts.append(training.wait_for_job())
    return attempts, run.wait(300)


def out_of_time(training: Training) -> tuple[list[Attempt], int]:
    """Slurm's warning before the time limit, which may come a minute early; meanwhile the first node is drained."""
    run = training.submit()
    first = training.wait_for_job()
    training.wait_for_step(10)
    node = slurm("squeue", "-h", "-j", first.number, "-o", "%N").strip()
    slurm("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        second = training.wait_for_job()
        wait_until(lambda: "JobState=RUNNING" in slurm("scontrol", "show", "job", second.number))
    finally:
        slurm("scontrol", "update", f"NodeName={node}", "State=RESUME")
    attempts = [Attempt(job.number, slurm("scontrol", "show", "job", job.number)) for job in (first, second)]
    return attempts, run.wait(300)


def orphaned(training: Training) -> tuple[list[Attempt], int]:
    """Snakemake killed while its job trains, and started again at once."""
    run = training.submit()
    attempts = [training.wait_for_job()]
    training.wait_for_step(20)
    run.send_signal(signal.SIGKILL)
    run.wait()
    unlock = [sys.executable, "-m", "snakemake", "--unlock", "--cores", "1", "--directory", str(training.folder)]
    subprocess.run([*unlock, "--configfile", str(training.config)], check=True, cwd=REPOSITORY, capture_output=True)
    again = training.submit()
    attempts.append(training.wait_for_job())
    return attempts, again.wait(400)


@dataclass
class Chain:
    """The whole chain, going on as Slurm jobs in a copy of the repository."""

    folder: Path
    how: list[str]
    run: subprocess.Popen[str]


@pytest.fixture(scope="module")
def chain(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The literal command, once it has pretrained on both nodes: a node that another test drains would hold that up."""
    folder = tmp_path_factory.mktemp("chain")
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name, follow_symlinks=False)
    both = ["nodes=2", "tasks=2", "mpi=srun", "gres=gpu:1", "tasks_per_gpu=0"]
    how = ["--configfile", "tests/workflow/smallest.yaml", "--set-threads", "collect=2", "ingest=2", *ONE_CORE]
    how += ["--set-resources", *(f"pretrain:{resource}" for resource in both)]
    run = snakemake("all", *how, log=folder / "snakemake.log", cwd=folder)
    wait_until(lambda: run.poll() is not None or "(Rule: pretrain)" in (folder / "snakemake.log").read_text())
    return Chain(folder, how, run)


@pytest.fixture(scope="module")
def trainings(
    chain: Chain, finished_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[Training, Future[tuple[list[Attempt], int]]]]]:
    """The three stories, going on side by side while the other tests run: most of their time is Slurm's waiting."""
    root = tmp_path_factory.mktemp("slurm")
    told = {
        "cancelled": (cancelled, ["mem_mb=1000*attempt"]),
        "out_of_time": (out_of_time, ["runtime=2", "slurm_extra='--signal=TERM@75'"]),
        "orphaned": (orphaned, ["mem_mb=1000"]),
    }
    with ThreadPoolExecutor() as pool:
        stories = {}
        for name, (story, resources) in told.items():
            training = Training(root / name, finished_run, resources=resources)
            stories[name] = (training, pool.submit(story, training))
        yield stories


@pytest.fixture(scope="module")
def undisturbed(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of the same training without Slurm and without events."""
    training = Training(tmp_path_factory.mktemp("undisturbed") / "run", finished_run, resources=[])
    command = [sys.executable, "-m", "snakemake", REPORT, "--cores", "1", "--configfile", str(training.config)]
    subprocess.run([*command, "--directory", str(training.folder)], check=True, cwd=REPOSITORY, capture_output=True, timeout=300)
    return (training.folder / WEIGHTS).read_bytes()


def test_the_literal_command_runs_the_chain_and_pretrains_on_both_nodes(chain: Chain, trainings: object) -> None:
    """And while it runs a second one in the same folder is refused."""
    second = snakemake("all", *chain.how, log=chain.folder / "second.log", cwd=chain.folder)
    assert second.wait(60) == 1
    assert "Directory cannot be locked" in (chain.folder / "second.log").read_text()
    assert chain.run.wait(400) == 0, (chain.folder / "snakemake.log").read_text()[-4000:]
    assert (chain.folder / "results/report.html").stat().st_size > 10_000
    log = (chain.folder / "snakemake.log").read_text()
    number = re.search(r"SLURM jobid (\d+) \(log: \S*/rule_pretrain/", log)
    assert number is not None
    job = slurm("scontrol", "show", "job", number[1])
    assert "NumNodes=2" in job
    assert "NumTasks=2" in job


def test_a_cancelled_training_goes_on_in_a_job_with_more_memory(
    trainings: dict[str, tuple[Training, Future[tuple[list[Attempt], int]]]], undisturbed: bytes
) -> None:
    training, story = trainings["cancelled"]
    (first, second), code = story.result(300)
    assert code == 0, training.said()[-4000:]
    assert "MinMemoryNode=1000M" in first.said
    assert "MinMemoryNode=2000M" in second.said
    assert "of them done before" in training.said()
    assert (training.folder / WEIGHTS).read_bytes() == undisturbed


def test_a_training_that_runs_out_of_time_goes_on_on_another_node(
    trainings: dict[str, tuple[Training, Future[tuple[list[Attempt], int]]]], undisturbed: bytes
) -> None:
    training, story = trainings["out_of_time"]
    (first, second), code = story.result(300)
    assert code == 0, training.said()[-4000:]
    nodes = {word for attempt in (first, second) for word in attempt.said.split() if word.startswith("NodeList=")}
    assert nodes == {"NodeList=n1", "NodeList=n2"}
    assert "of them done before" in training.said()
    assert (training.folder / WEIGHTS).read_bytes() == undisturbed


def test_an_orphaned_job_is_not_joined_by_its_second_submission(
    trainings: dict[str, tuple[Training, Future[tuple[list[Attempt], int]]]], undisturbed: bytes
) -> None:
    training, story = trainings["orphaned"]
    (orphan, _), code = story.result(400)
    assert code == 0, training.said()[-4000:]
    logs = "\n".join(file.read_text() for file in training.folder.rglob("*.log"))
    assert "another process trains in this run directory (process " in logs
    assert f"job {orphan.number})" in logs
    assert (training.folder / WEIGHTS).read_bytes() == undisturbed
