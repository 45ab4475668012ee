"""The command itself: quick help, clean streams, exit codes, one line an error."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]


def modules_after(code: str, env: dict[str, str] | None = None) -> set[str]:
    """Names of the modules in a fresh Python after `code`."""
    report = "\nimport json, sys; sys.__stdout__.write('\\n' + json.dumps(sorted(sys.modules)))"
    ended = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True, env=os.environ | (env or {})
    )
    return set(json.loads(ended.stdout.splitlines()[-1]))


HEAVY = {"torch", "numpy", "deepspeed", "zarr", "h5py", "av", "cv2", "mujoco", "matplotlib"}
RUN = """
import sys
from vjepa2cli.cli import main
sys.argv = ['vjepa2', *{arguments!r}]
try:
    main()
except SystemExit:
    pass
"""
PARTS = [
    [],
    ["collect"],
    ["ingest"],
    ["pretrain"],
    ["encode"],
    ["surprise"],
    ["precompute"],
    ["posttrain"],
    ["probe"],
    ["validate"],
    ["plan"],
    ["evaluate"],
    ["report"],
    ["config"],
    ["weights"],
]


def test_help_of_every_command_imports_nothing_heavy() -> None:
    code = "\n".join(RUN.format(arguments=[*part, "--help"]) for part in PARTS)
    assert modules_after(code) & HEAVY == set()


def test_shell_completion_imports_nothing_heavy() -> None:
    env = {"_VJEPA2_COMPLETE": "complete_bash", "COMP_WORDS": "vjepa2 pre", "COMP_CWORD": "1"}
    assert modules_after(RUN.format(arguments=[]), env) & HEAVY == set()


def test_help_answers_within_half_a_second(vjepa2: Command) -> None:
    """Processor time of the quickest of five, so that a busy machine does not fail it."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert vjepa2("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


def test_usage_error_is_exit_code_two(vjepa2: Command) -> None:
    assert vjepa2("pretrain").returncode == 2
    assert vjepa2("no-such-command").returncode == 2


def test_version_is_printed(vjepa2: Command) -> None:
    ended = vjepa2("--version")
    assert (ended.returncode, ended.stdout) == (0, "vjepa2 0.1.0\n")


CORES = str(len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("given", "threads"),
    [
        ({}, CORES),
        ({"VJEPA2_THREADS": "3"}, "3"),
        ({"OMP_NUM_THREADS": "7"}, "7"),  # as launchers set it
        ({"OMP_NUM_THREADS": "7", "VJEPA2_THREADS": "3"}, "3"),
    ],
)
def test_threads_are_set_before_torch(given: dict[str, str], threads: str) -> None:
    code = "import os\n" + RUN.format(arguments=["config", "list"]) + "\nos.write(2, os.environ['OMP_NUM_THREADS'].encode())"
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "VJEPA2_THREADS")}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment | given, check=True)
    assert ended.stderr == threads


def test_error_is_one_unwrapped_line_with_the_users_own_brackets(vjepa2: Command) -> None:
    name = "/nowhere/[bold]" + "x" * 200 + ".yaml"
    ended = vjepa2("config", "check", name, env={"COLUMNS": "40"})
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == f"error: {name}: no such config file; 'vjepa2 config list' shows the presets\n"


def test_an_output_that_cannot_be_written_is_one_line(vjepa2: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = vjepa2("config", "resolve", "tiny-ingest", "--out", tmp_path / "file" / "below.yaml")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


def test_interruption_is_exit_code_130_and_one_line() -> None:
    code = (
        "import vjepa2cli.config as config\nfrom vjepa2cli.cli import main\nimport sys\n"
        "def interrupted(*_, **__): raise KeyboardInterrupt\n"
        "config.load_any = interrupted\nsys.argv = ['vjepa2', 'config', 'show', 'tiny-ingest']\nmain()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "interrupted; run the same command again to go on\n")
