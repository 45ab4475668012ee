"""The workflow: one command a rule, nothing to do twice, and an edited value re-runs exactly what depends on it."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import typer
import yaml

from vjepa2cli.artifacts.latent_store import LatentStore
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.cli import app

REPOSITORY = Path(__file__).parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]


def planned(ended: subprocess.CompletedProcess[str]) -> set[str]:
    """Names of the rules that a dry run would run; of `resolve_config` with the step."""
    assert ended.returncode == 0, ended.stdout + ended.stderr
    blocks = re.split(r"\n(?=(?:local)?rule \w+:)", ended.stdout + ended.stderr)
    rules = set()
    for block in blocks:
        named = re.match(r"(?:local)?rule (\w+):", block)
        wildcard = re.search(r"wildcards: .*step=(\w+)", block)
        if named and named[1] != "all":
            rules.add(f"config {wildcard[1]}" if wildcard else named[1])
    return rules


def altered(folder: Path, **changes: object) -> Path:
    """A config file that differs from the one of the tests."""
    tree = yaml.safe_load((REPOSITORY / "tests/workflow/smallest.yaml").read_text())
    for key, value in changes.items():
        tree[key] = tree.get(key, {}) | value if isinstance(value, dict) else value
    file = folder / "altered.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


@pytest.mark.slow
def test_second_run_has_nothing_to_do(finished_run: Path, snakemake: Command) -> None:
    again = snakemake(finished_run, "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr
    assert planned(again) == set()


JUDGED = {"validate", "evaluate", "report"}
TRAINED = {"precompute", "posttrain", "probe", *JUDGED}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "value", "dependants"),
    [
        ("collect", {"seed": 7}, {"collect", "ingest", "pretrain", *TRAINED}),
        ("ingest", {"split_seed": 7}, {"ingest", "pretrain", *TRAINED}),
        ("pretrain", {"optimizer": {"lr": 1e-4}}, {"pretrain", *TRAINED}),
        ("precompute", {"batch_frames": 32}, {"precompute", "posttrain", *JUDGED}),
        ("posttrain", {"seed": 7}, {"posttrain", *JUDGED}),
        ("probe", {"seed": 7}, {"probe", "report"}),
        ("validate", {"horizon": 2}, {"validate", "report"}),
        ("evaluate", {"reach": {"tolerance": 0.05}}, {"evaluate", "report"}),
        ("report", {"title": "another"}, {"report"}),
    ],
)
def test_an_edited_value_reruns_exactly_what_depends_on_it(
    finished_run: Path, snakemake: Command, tmp_path: Path, step: str, value: dict[str, object], dependants: set[str]
) -> None:
    before = yaml.safe_load((REPOSITORY / "tests/workflow/smallest.yaml").read_text())["overrides"]
    file = altered(tmp_path, overrides={step: before.get(step, {}) | value})
    assert planned(snakemake(finished_run, "--dry-run", configfile=file)) == {f"config {step}", *dependants}


@pytest.mark.slow
def test_another_results_folder_starts_afresh_and_leaves_the_first_alone(
    finished_run: Path, snakemake: Command, tmp_path: Path
) -> None:
    everything = planned(snakemake(finished_run, "--dry-run", configfile=altered(tmp_path, results="others")))
    assert {"collect", "ingest", "pretrain", *TRAINED} <= everything


@pytest.mark.slow
def test_edited_training_starts_over_and_the_rest_stays(finished_run: Path, snakemake: Command, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder, symlinks=True)
    before = json.loads((folder / "results/posttrain/trained/report.json").read_text())
    pretrained = (folder / "results/pretrain/report.json").stat().st_mtime_ns
    overrides = {"posttrain": {"steps": 4, "checkpoint_every": 2, "evaluate_every": 2}}
    ended = snakemake(folder, "results/posttrain/trained/report.json", configfile=altered(tmp_path, overrides=overrides))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    after = json.loads((folder / "results/posttrain/trained/report.json").read_text())
    assert (before["steps"], after["steps"]) == (12, 4)
    assert "replacing" in (folder / "results/logs/posttrain-trained.log").read_text()
    assert (folder / "results/pretrain/report.json").stat().st_mtime_ns == pretrained


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_from_its_checkpoint_when_it_is_retried(
    finished_run: Path, snakemake: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder, symlinks=True)
    shutil.rmtree(folder / "results/pretrain")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(REPOSITORY / "tests/workflow/smallest.yaml"), "--cores", "2", "--retries", "1"]
    with subprocess.Popen([*command, "results/pretrain/report.json"], stderr=subprocess.PIPE, text=True, cwd=REPOSITORY) as run:
        _kill_a_child_after(run, folder / "results/pretrain/checkpoints/step_00000004", "pretrain")
        _, said = run.communicate(timeout=600)
    assert run.returncode == 0, said
    assert "of them done before" in (folder / "results/logs/pretrain.log").read_text()
    weights = "results/pretrain/model/model.safetensors"
    assert (folder / weights).read_bytes() == (finished_run / weights).read_bytes()


def _kill_a_child_after(run: subprocess.Popen[str], sign: Path, verb: str) -> None:
    """Kill the process below `run` that runs `vjepa2 VERB`, once `sign` is there."""
    until = time.monotonic() + 120
    while not sign.exists():
        assert time.monotonic() < until
        assert run.poll() is None
        time.sleep(0.01)
    for child in psutil.Process(run.pid).children(recursive=True):
        if verb in child.cmdline():
            child.send_signal(signal.SIGKILL)


def test_every_rule_is_one_call_of_the_command() -> None:
    text = "\n".join(path.read_text() for path in (REPOSITORY / "workflow/rules").glob("*.smk"))
    shells = re.findall(r"shell:\n((?:\s+\"[^\n]*\n)+)", text)
    assert len(shells) == len(re.findall(r"^rule \w+:", text, re.MULTILINE))
    for shell in shells:
        assert len(re.findall(r"\bvjepa2 (?:--threads {threads} )?[a-z]+", shell)) == shell.count("vjepa2") == 1
        assert not re.search(r"&&|;|\|", shell)


def test_every_rule_has_a_log_and_no_run_directory_is_an_output() -> None:
    text = "\n".join(path.read_text() for path in (REPOSITORY / "workflow/rules").glob("*.smk"))
    assert len(re.findall(r"^    log:", text, re.MULTILINE)) == len(re.findall(r"^rule \w+:", text, re.MULTILINE))
    assert "directory(" not in text


@pytest.mark.parametrize("name", ["default", "ci", "real"])
def test_shipped_configurations_plan(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if name == "real":
        request.getfixturevalue("shared")
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "all", "--nolock"]
    command += ["--configfile", f"config/{name}.yaml", "--config", f"results={tmp_path}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": "/nowhere"}, "no such file or folder; set `data`"),
        ({"resluts": "x"}, "config: resluts: no such key; allowed are results, simulate, .*; did you mean results?"),
        ({"overrides": {"pretrian": {}}}, "config: overrides.pretrian: no such key; .* did you mean pretrain?"),
        ({"simulate": "yes, please"}, "config: simulate: 'yes, please' is not of type 'boolean'"),
        ({"sweep": "nowhere.csv"}, "config: sweep: nowhere.csv: no such file"),
        ({"simulate": True, "episodes": ["robot/droid"]}, "a run has one robot"),
        ({"encoders": ["untrained"]}, "trained"),
    ],
)
def test_a_faulty_configuration_is_refused_with_a_reason(tmp_path: Path, change: dict[str, object], says: str) -> None:
    tree = yaml.safe_load((REPOSITORY / "config/real.yaml").read_text()) | change
    (tmp_path / "faulty.yaml").write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--nolock", "--configfile", str(tmp_path / "faulty.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert ended.returncode == 1
    assert re.search(says, ended.stdout + ended.stderr)


SHEET = "run,pretrain.seed,pretrain.steps,collect.episodes,probe.steps\nseed-1,1,,,\nsmall,,,20,\nshort,,6,,\nread,,,,5\n"


def test_runs_of_a_sweep_share_what_is_made_alike(tmp_path: Path, snakemake: Command) -> None:
    (tmp_path / "sweep.csv").write_text(SHEET)
    everything = snakemake(tmp_path, "--dry-run", configfile=altered(tmp_path, sweep="sweep.csv"))
    assert everything.returncode == 0, everything.stdout + everything.stderr
    counted = dict(re.findall(r"^(\w+) +(\d+)$", everything.stdout + everything.stderr, re.MULTILINE))
    # One base run and four lines; a new collection is a new store, a new pretraining is new latents, a new probe a new page.
    assert {name: int(counted[name]) for name in ("collect", "ingest", "pretrain", "precompute", "probe", "report")} == {
        "collect": 2,
        "ingest": 2,
        "pretrain": 4,
        "precompute": 4,
        "probe": 5,
        "report": 5,
    }
    one = snakemake(tmp_path, "results/runs/seed-1/pretrain/report.json", "--dry-run", configfile=tmp_path / "altered.yaml")
    said = one.stdout + one.stderr
    assert "--set seed=1" in said
    assert "pretrain results/robot.zarr --run-dir results/runs/seed-1/pretrain" in said


@pytest.mark.slow
def test_steps_in_parts_make_the_same_latents_and_play_the_same_episodes(
    finished_run: Path, snakemake: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder, symlinks=True)
    for left in [*(folder / "results/latents").iterdir(), folder / "results/robot.zarr.json"]:
        left.unlink()
    shutil.rmtree(folder / "results/robot.zarr")
    wanted = ["results/latents/trained.h5", "--forcerun", "ingest", "precompute", "--rerun-triggers", "input"]
    how = altered(tmp_path, shards={"ingest": 2, "precompute": 2})
    ended = snakemake(
        folder, *wanted, "--allowed-rules", "ingest_part", "ingest", "precompute_part", "precompute", configfile=how
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(list((folder / "results/latents").glob("trained-*-of-00002.h5"))) == 2
    before, after = (LatentStore.open(run / "results/latents/trained.h5") for run in (finished_run, folder))
    assert before.digest == after.digest
    assert all(np.array_equal(before.tokens(index), after.tokens(index)) for index in range(len(before.lengths)))
    (folder / "results/evaluate/trained/report.json").unlink()
    wanted = ["results/evaluate/trained/report.json", "--rerun-triggers", "input", "--allowed-rules", "evaluate_part", "evaluate"]
    ended = snakemake(folder, *wanted, configfile=altered(tmp_path, shards={"evaluate": 2}))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(list((folder / "results/evaluate/trained").glob("report-*-of-00002.jsonl"))) == 2
    reports = [read_report(run / "results/evaluate/trained/report.json") for run in (finished_run, folder)]
    assert reports[0]["digest"] == reports[1]["digest"]


def test_the_sheets_that_are_shipped_and_shown_plan(tmp_path: Path, snakemake: Command) -> None:
    shown = re.search(r"```csv\n(.*?)```", (REPOSITORY / "docs/workflow.md").read_text(), re.DOTALL)
    assert shown is not None
    for sheet in (shown[1], (REPOSITORY / "config/sweep.csv").read_text()):
        (tmp_path / "sweep.csv").write_text(sheet)
        ended = snakemake(tmp_path, "--dry-run", "--quiet", "all", configfile=altered(tmp_path, sweep="sweep.csv"))
        assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("sheet", "says"),
    [
        ("run,pretrian.seed\na,1\n", "column pretrian.seed: no such step; .* did you mean pretrain?"),
        ("run,pretrain.seed\na,1\na,2\n", "line 3: run: 'a' is the name of an earlier line"),
        ("run,pretrain.seed\n,1\n", "line 2: the whole: 'run' is a required property"),
        ("run,pretrain.seed\na/b,1\n", "line 2: run: 'a/b' does not match .*; the name of the run"),
    ],
)
def test_a_faulty_sheet_is_refused_with_its_line_or_column(tmp_path: Path, snakemake: Command, sheet: str, says: str) -> None:
    (tmp_path / "sweep.csv").write_text(sheet)
    ended = snakemake(tmp_path, "--dry-run", configfile=altered(tmp_path, sweep="sweep.csv"))
    assert ended.returncode == 1
    assert re.search(f"sweep.csv: {says}", ended.stdout + ended.stderr)


MODULE = """
configfile: "mine.yaml"
rule mine:
    input: "results-mine/report.html"
    output: "mine.txt"
    shell: "ls {{input}} > {{output}}; echo counted >> {{output}}"
module vjepa2:
    snakefile: "{snakefile}"
    config: config["vjepa2"]
use rule * from vjepa2 as vjepa2_*
"""


def test_another_workflow_takes_this_one_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(MODULE.format(snakefile=REPOSITORY / "Snakefile"))
    smallest = yaml.safe_load((REPOSITORY / "tests/workflow/smallest.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"vjepa2": smallest | {"results": "results-mine"}}))
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--directory", str(tmp_path)]
    command += ["--snakefile", str(tmp_path / "Snakefile")]
    whole = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=False, cwd=tmp_path)
    said = whole.stdout + whole.stderr
    assert whole.returncode == 0, said
    assert re.search(r"^vjepa2_report +1$", said, re.MULTILINE)
    assert re.search(r"^mine +1$", said, re.MULTILINE)
    # Its own rules keep their shell, and ours find the command.
    (tmp_path / "results-mine").mkdir()
    (tmp_path / "results-mine/report.html").touch()
    allowed = [*command, "mine.txt", "results-mine/config/collect.yaml", "--allowed-rules", "mine", "vjepa2_resolve_config"]
    ended = subprocess.run(allowed, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tmp_path / "mine.txt").read_text().endswith("counted\n")
    assert yaml.safe_load((tmp_path / "results-mine/config/collect.yaml").read_text())["episodes"] == 16


def test_the_command_of_every_rule_is_one_that_the_command_line_takes(tmp_path: Path, snakemake: Command) -> None:
    (tmp_path / "sweep.csv").write_text(SHEET)
    planned = snakemake(
        tmp_path,
        "--dry-run",
        "--printshellcmds",
        configfile=altered(
            tmp_path,
            sweep="sweep.csv",
            encoders=["trained", "untrained"],
            shards={"ingest": 2, "precompute": 3, "probe": 2, "evaluate": 2},
        ),
    )
    lines = re.findall(r"^ *(?:Shell command: )?vjepa2 (.*?) > \S+ 2>&1$", planned.stdout, re.MULTILINE)
    named = {_parsed(typer.main.get_command(app), shlex.split(line)) for line in lines}
    assert named == {"resolve", "launch", "collect", "ingest", "init", *TRAINED} - {"posttrain"}
    trainings = [shlex.split(line.partition(" -- ")[2]) for line in lines if " -- " in line]
    assert {_parsed(typer.main.get_command(app), words) for words in trainings} == {"pretrain", "posttrain"}


def _parsed(command: Any, words: list[str]) -> str:
    """The name of the command that these words are of; raises where one of its options or arguments is wrong or lacks."""
    context = command.make_context(command.name, words)
    if not hasattr(command, "commands"):
        return str(command.name)
    name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
    inner.name = name
    return _parsed(inner, rest)


def test_lint_is_clean() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint"], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert ended.returncode == 0
    assert "good condition" in ended.stdout + ended.stderr
