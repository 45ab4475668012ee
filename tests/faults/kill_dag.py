"""Kill the whole workflow at random moments, start it again each time, and compare what it ends in with an undisturbed run.

    python tests/faults/kill_dag.py WORK_FOLDER [--configfile F] [--kills 5] [--seed 0] [--reference FINISHED_FOLDER]

Both runs lie below WORK_FOLDER and use the same relative paths. Prints one JSON object; exit code 1 where a digest differs.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
RESULTS = "results"
NOT_COMPARED = ("logs", "checkpoints", "benchmarks")
"""What may differ: logs, and the state to resume from, which a run that was never stopped writes at the same steps anyway."""


def snakemake(folder: Path, configfile: Path, *options: str) -> list[str]:
    """The command that runs the workflow in `folder`."""
    place = [
        "--snakefile",
        REPOSITORY / "Snakefile",
        "--directory",
        folder,
        "--workflow-profile",
        REPOSITORY / "profiles/default",
    ]
    command = [sys.executable, "-m", "snakemake", *place, "--configfile", configfile, "--config", f"results={RESULTS}"]
    return [str(word) for word in [*command, "--cores", "2", *options]]


def run(folder: Path, configfile: Path, *options: str) -> None:
    """Run the workflow to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(snakemake(folder, configfile, *options), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the workflow failed in {folder}:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")


def run_and_kill(folder: Path, configfile: Path, *, after: float, everything: bool) -> str:
    """Start the workflow, kill all of its processes (or Snakemake alone) `after` some seconds, and tell how far it had come."""
    folder.mkdir(parents=True, exist_ok=True)
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(snakemake(folder, configfile), start_new_session=True, **silent) as process:  # type: ignore[call-overload]
        try:
            process.wait(timeout=after)
        except subprocess.TimeoutExpired:
            (os.killpg if everything else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
        else:
            return "it had ended"
    subprocess.run(snakemake(folder, configfile, "--unlock"), capture_output=True, check=True)
    logs = sorted((folder / RESULTS / "logs").rglob("*.log"), key=lambda path: path.stat().st_mtime)
    return f"last log: {logs[-1].stem}" if logs else "before the first job"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every result by relative path; of JSON without what says how long it took."""
    found = {}
    for path in sorted((folder / RESULTS).rglob("*")):
        name = path.relative_to(folder / RESULTS)
        if not path.is_file() or path.name.startswith(".") or set(name.parts) & set(NOT_COMPARED):
            continue
        found[str(name)] = hashlib.sha256(_content(path, folder)).hexdigest()
    return found


def _content(path: Path, folder: Path) -> bytes:
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text().replace(str(folder), ".")  # a video store keeps where its sources lay
        trees = [json.loads(text)] if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
        return json.dumps([_without_times(tree) for tree in trees], sort_keys=True).encode()
    if path.suffix == ".html":
        return b"a page"  # it shows how long steps took; that it is there must do
    return path.read_bytes()


def _without_times(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_times(value) for key, value in tree.items() if key not in ("timing", "seconds", "waited")}
    return [_without_times(item) for item in tree] if isinstance(tree, list) else tree


def main() -> None:
    """Run the two, compare them, and say where they differ."""
    parser = argparse.ArgumentParser(description="Kill the workflow at random moments and compare its results.")
    parser.add_argument("work", type=Path)
    parser.add_argument("--configfile", type=Path, default=REPOSITORY / "config" / "ci.yaml")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", type=Path, help="a folder in which the same config has run undisturbed")
    parser.add_argument("--seconds", type=float, help="how long an undisturbed run takes, where --reference is given")
    options = parser.parse_args()
    configfile, seconds = options.configfile.resolve(), options.seconds or 60.0
    reference = (options.reference or options.work / "undisturbed").resolve()
    if options.reference is None:
        began = time.monotonic()
        run(reference, configfile)
        seconds = time.monotonic() - began
    disturbed, generator = (options.work / "disturbed").resolve(), random.Random(options.seed)
    kills = []
    for number in range(options.kills):
        after = generator.uniform(0.05, 2 / (options.kills + 1)) * seconds
        everything = number % 2 == 0
        where = run_and_kill(disturbed, configfile, after=after, everything=everything)
        kills.append({"after": round(after, 1), "killed": "everything" if everything else "Snakemake alone", "where": where})
    run(disturbed, configfile)
    expected, got = digests(reference), digests(disturbed)
    differ = sorted(name for name in expected | got if expected.get(name) != got.get(name))
    print(json.dumps({"seconds": round(seconds, 1), "kills": kills, "compared": len(expected), "differ": differ}, indent=1))  # noqa: T201
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
