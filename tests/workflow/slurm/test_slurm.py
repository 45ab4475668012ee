"""The workflow on a real Slurm of two pretended nodes: the literal command, and what clusters do to jobs.

It installs Slurm and starts its daemons, as root on Debian, so it runs only where VJEPA2_TEST_SLURM=1 asks for it.

No story depends on how fast the machine is. A training is stopped (SIGSTOP) once it has written a checkpoint, and what happens to
its job happens while it stands still; after that it is woken. Slurm looks at time limits every 30 seconds, so the warning of one
comes at a moment that nobody chooses: the training stands still until that warning wakes it, as Slurm's signals do.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
HERE = Path(__file__).parent
STEPS, CHECKPOINT_EVERY = 40, 5
SNAKEMAKE = Path(sys.executable).parent / "snakemake"
STARTED: "list[subprocess.Popen[bytes]]" = []
HELD = "another process trains in this run directory (process "

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("VJEPA2_TEST_SLURM") != "1", reason="VJEPA2_TEST_SLURM is not 1"),
]


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wait_until(reached: Callable[[], Any], *, what: str, run: "subprocess.Popen[bytes] | None" = None, log: Path) -> None:
    """Until `reached`; fails at once where the run that should bring it about has ended, and after ten minutes."""
    until = time.monotonic() + 600
    while not reached():
        over = time.monotonic() > until or (run is not None and run.poll() is not None)
        if over and not reached():
            pytest.fail(f"waiting for {what}:\n{log.read_text()[-6000:]}")
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Slurm, for as long as the tests of this module run; the ports at which its first jobs would meet are all taken."""
    folder = Path(f"/tmp/vjepa2-slurm-{os.getpid()}")
    subprocess.run([HERE / "up.sh", folder], check=True, timeout=300)
    taken = []
    for job in range(1, 41):
        taken.append(socket.socket())
        taken[-1].bind(("", 20000 + job))
        taken[-1].listen()
    yield
    for listener in taken:
        listener.close()
    for run in STARTED:
        run.kill()
        run.wait()
    subprocess.run([HERE / "down.sh", folder], check=True, timeout=30)
    shutil.rmtree(folder, ignore_errors=True)  # slurmctld may still write its last state


@pytest.fixture(scope="module")
def clone(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository, its profile edited in the one place to edit: two nodes for the pretraining, one core a process."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name, follow_symlinks=False)
    default = folder / "config/default.yaml"
    smallest = yaml.safe_load((REPOSITORY / "tests/workflow/smallest.yaml").read_text())
    default.write_text(yaml.safe_dump(yaml.safe_load(default.read_text()) | smallest))
    profile = folder / "profiles/slurm/profile.yaml"
    tree = yaml.safe_load(profile.read_text())
    tree["slurm-init-seconds-before-status-checks"] = 4
    tree["slurm-keep-successful-logs"] = True  # also of an attempt that failed before one that did not
    tree["set-threads"] = {step: 2 if step in ("collect", "ingest") else 1 for step in tree["set-threads"]}
    tree["set-resources"]["pretrain"] |= {"nodes": 2, "tasks": 2, "mpi": "srun"}
    profile.write_text(yaml.safe_dump(tree))
    return folder


def start(clone: Path, *options: str, log: Path) -> subprocess.Popen[bytes]:
    """`snakemake --profile slurm ...`, going on in a process of its own until the cluster is taken down."""
    with log.open("ab") as handle:
        command = [SNAKEMAKE, "--profile", "slurm", *options]
        STARTED.append(subprocess.Popen(command, stdout=handle, stderr=subprocess.STDOUT, cwd=clone))
    return STARTED[-1]


def jobs(log: Path) -> list[str]:
    """The numbers of the Slurm jobs that a run of snakemake has submitted for its pretraining, in turn."""
    return re.findall(r"SLURM jobid (\d+) \(log: \S*/rule_pretrain/", log.read_text() if log.exists() else "")


@dataclass(frozen=True)
class Holder:
    """A training that stands still: its leading process, and the Slurm job that it is of."""

    pid: int
    job: str


class Training:
    """A pretraining of `STEPS` steps as Slurm jobs, in a results folder of its own beside all the others."""

    def __init__(self, clone: Path, name: str, *resources: str) -> None:
        self.clone, self.results = clone, clone / f"results-{name}"
        self.log = clone / f"{name}.log"
        shutil.copytree(clone / "results-base", self.results, ignore=shutil.ignore_patterns("pretrain", "two"))
        self._how = ["--configfile", configuration(clone, self.results.name)]
        self._how += ["--set-resources", *(f"pretrain:{resource}" for resource in resources)] if resources else []
        self._step = 0

    def submit(self) -> None:
        self.run = start(self.clone, f"{self.results.name}/pretrain/report.json", *self._how, log=self.log)

    def hold(self) -> Holder:
        """Stop the training once it has written one more checkpoint than it had when it was last stopped."""
        self.wait_until(lambda: self.last_step() > self._step, what=f"a checkpoint after step {self._step}")
        holder = json.loads((self.results / "pretrain/.lease").read_text())
        os.kill(holder["pid"], signal.SIGSTOP)
        self._step = self.last_step()
        return Holder(holder["pid"], holder["job"])

    def last_step(self) -> int:
        found = (re.fullmatch(r"step_(\d+)", path.name) for path in (self.results / "pretrain/checkpoints").glob("step_*"))
        return max((int(match[1]) for match in found if match), default=0)

    def other_process(self, holder: Holder) -> int:
        """The process of this training that does not lead it."""
        run_dir = f"{self.results.name}/pretrain"
        words = {process.pid: process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])}
        ranks = [pid for pid, line in words.items() if run_dir in line and "launch" not in line and "srun" not in line[0]]
        return next(pid for pid in ranks if pid != holder.pid and "vjepa2cli" in words[pid])

    def ended(self, holder: Holder) -> None:
        """Wait until a training is gone, so that the step it has come to is its last."""
        self.wait_until(lambda: not psutil.pid_exists(holder.pid), what=f"the end of the training in job {holder.job}")
        self._step = self.last_step()

    def wait_until(self, reached: Callable[[], Any], *, what: str) -> None:
        wait_until(reached, what=what, run=self.run, log=self.log)

    def said(self) -> str:
        """All that snakemake, Slurm and the training said."""
        files = [self.log, *self.clone.glob(".snakemake/slurm_logs/rule_pretrain/**/*.log"), self.results / "logs/pretrain.log"]
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())

    def code(self) -> int:
        return self.run.wait(900)

    def weights(self) -> bytes:
        return (self.results / "pretrain/model/model.safetensors").read_bytes()


def configuration(clone: Path, results: str) -> str:
    """The configuration of a training in a results folder."""
    tree = yaml.safe_load((clone / "config/default.yaml").read_text()) | {"results": results}
    tree["overrides"]["pretrain"] = {"steps": STEPS, "checkpoint_every": CHECKPOINT_EVERY, "evaluate_every": STEPS}
    (clone / f"{results}.yaml").write_text(yaml.safe_dump(tree))
    return f"{results}.yaml"


def wake(pid: int) -> None:
    """Let a process go on that stands still, if it is there yet."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def stands_still(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() == psutil.STATUS_STOPPED


def cancelled_then_killed(training: Training) -> None:
    """`scancel`, and in the next attempt what happens where memory runs out."""
    training.submit()
    first = training.hold()
    slurm("scancel", first.job)
    training.ended(first)
    second = training.hold()
    os.kill(second.pid, signal.SIGKILL)


def out_of_time(training: Training) -> None:
    """Slurm's warning before the time limit, and the node of the job drained before the job is submitted again."""
    training.submit()
    holder = training.hold()
    node = slurm("squeue", "-h", "-j", holder.job, "-o", "%N").strip()
    training.wait_until(lambda: not stands_still(holder.pid), what="the warning of the time limit")
    slurm("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        training.ended(holder)
        wake(training.hold().pid)
    finally:
        slurm("scontrol", "update", f"NodeName={node}", "State=RESUME")


def orphaned(training: Training) -> None:
    """Snakemake killed while its job trains, and started again at once."""
    training.submit()
    holder = training.hold()
    training.run.kill()
    training.run.wait()
    unlock = [SNAKEMAKE, "--unlock", "--cores", "1", "--configfile", f"{training.results.name}.yaml"]
    subprocess.run(unlock, check=True, cwd=training.clone, capture_output=True)
    training.submit()
    training.wait_until(lambda: HELD in training.said(), what="the refusal of the second submission")
    wake(holder.pid)


def on_two_nodes(training: Training) -> None:
    """The signal of a time limit to both processes, and in the next attempt one of them lost."""
    training.submit()
    first = training.hold()
    slurm("scancel", "--signal=TERM", first.job)
    wake(first.pid)
    training.ended(first)
    second = training.hold()
    os.kill(training.other_process(second), signal.SIGKILL)
    wake(second.pid)


@dataclass(frozen=True)
class Told:
    """The stories, going on side by side with the whole chain: most of their time is Slurm's waiting."""

    chain: subprocess.Popen[bytes]
    refused: subprocess.Popen[bytes]
    trainings: Mapping[str, tuple[Training, Future[None]]]
    undisturbed: Mapping[int, Future[bytes]]

    def story(self, name: str) -> Training:
        """A training at the end of its story."""
        training, story = self.trainings[name]
        story.result(900)
        assert training.code() == 0, training.said()[-6000:]
        return training


@pytest.fixture(scope="module")
def told(clone: Path) -> Iterator[Told]:
    """The literal command, the same once more, and the trainings that things happen to; all in one working directory."""
    chain = start(clone, "all", log=clone / "chain.log")
    wait_until(lambda: "SLURM jobid" in (clone / "chain.log").read_text(), what="a job", run=chain, log=clone / "chain.log")
    refused = start(clone, "all", log=clone / "refused.log")
    local = [SNAKEMAKE, "results-base/robot.zarr.json", "results-base/config/pretrain.yaml", "--cores", "2"]
    local += ["--configfile", configuration(clone, "results-base")]
    subprocess.run(local, check=True, cwd=clone, stdout=subprocess.DEVNULL, timeout=600)
    stories = {
        "cancelled": (cancelled_then_killed, ["tasks_per_gpu=0", "mem_mb=1000*attempt"]),
        "out-of-time": (out_of_time, ["tasks_per_gpu=0", "runtime=2*attempt", "slurm_extra='--signal=TERM@30'"]),
        "orphaned": (orphaned, ["tasks_per_gpu=0", "mem_mb=1000"]),
        "two": (on_two_nodes, []),
    }
    with ThreadPoolExecutor() as pool:
        trainings = {name: Training(clone, name, *resources) for name, (_, resources) in stories.items()}
        running = {name: (training, pool.submit(stories[name][0], training)) for name, training in trainings.items()}
        undisturbed = {processes: pool.submit(trained_here, clone, processes) for processes in (1, 2)}
        yield Told(chain, refused, running, undisturbed)


def trained_here(clone: Path, processes: int) -> bytes:
    """The weights of the same training without Slurm and without events."""
    run_dir = clone / f"results-base/here-{processes}"
    command = [SNAKEMAKE.with_name("vjepa2"), "--threads", "1", "launch", "--processes", str(processes), "--", "pretrain"]
    command += [clone / "results-base/robot.zarr", "--run-dir", run_dir, "--config", clone / "results-base/config/pretrain.yaml"]
    subprocess.run(command, check=True, capture_output=True, timeout=900)
    return (run_dir / "model/model.safetensors").read_bytes()


def test_the_literal_command_runs_the_chain_and_pretrains_on_both_nodes(told: Told, clone: Path) -> None:
    assert told.chain.wait(900) == 0, (clone / "chain.log").read_text()[-6000:]
    assert (clone / "results/report.html").stat().st_size > 10_000
    numbers = jobs(clone / "chain.log")
    said = {path.name: path.read_text()[-3000:] for path in (clone / ".snakemake/slurm_logs/rule_pretrain/results").glob("*.log")}
    assert len(numbers) == 1, said
    (number,) = numbers
    job = slurm("scontrol", "show", "job", number)
    assert "NumNodes=2" in job
    assert "NumTasks=2" in job


def test_the_same_command_in_the_same_folder_is_refused_meanwhile(told: Told, clone: Path) -> None:
    assert told.refused.wait(300) == 1
    assert "Directory cannot be locked" in (clone / "refused.log").read_text()


def test_a_cancelled_or_killed_training_goes_on_in_a_job_with_more_memory(told: Told) -> None:
    training = told.story("cancelled")
    memory = [re.search(r"MinMemoryNode=(\w+)", slurm("scontrol", "show", "job", number)) for number in jobs(training.log)]
    assert [found and found[1] for found in memory[:3]] == ["1000M", "2000M", "3000M"]
    assert "of them done before" in training.said()
    assert training.weights() == told.undisturbed[1].result(900)


def test_a_training_that_runs_out_of_time_goes_on_on_another_node(told: Told) -> None:
    training = told.story("out-of-time")
    nodes = [re.search(r" NodeList=(\w+)", slurm("scontrol", "show", "job", number)) for number in jobs(training.log)]
    assert {found[1] for found in nodes if found} == {"n1", "n2"}
    assert "of them done before" in training.said()
    assert training.weights() == told.undisturbed[1].result(900)


def test_an_orphaned_job_is_not_joined_by_its_second_submission(told: Told) -> None:
    training = told.story("orphaned")
    assert f"job {jobs(training.log)[0]})" in training.said()
    assert training.weights() == told.undisturbed[1].result(900)


def test_a_training_on_two_nodes_goes_on_after_a_signal_and_after_a_lost_process(told: Told) -> None:
    training = told.story("two")
    assert len(jobs(training.log)) >= 3
    assert "of them done before" in training.said()
    assert training.weights() == told.undisturbed[2].result(900)


def test_a_job_with_fewer_nodes_than_asked_for_starts_nothing(cluster: None, tmp_path: Path) -> None:
    command = f"{SNAKEMAKE.with_name('vjepa2')} launch --nodes 2 -- pretrain none.zarr --run-dir {tmp_path}/run"
    submitted = ["sbatch", "--wait", "--nodes=1", f"--output={tmp_path}/said", f"--chdir={tmp_path}", f"--wrap={command}"]
    assert subprocess.run(submitted, check=False, capture_output=True, timeout=300).returncode == 1
    assert re.search(r"--nodes 2: job \d+ has 1 \(n[12]\); ask Slurm for 2", (tmp_path / "said").read_text())
    assert not (tmp_path / "run").exists()
