"""What a check says, and how one is run where a crash cannot hurt."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT = 300
_MARK = "@vjepa2"
_REPORT = f"""
def report(*fields):
    print({_MARK!r}, *(" ".join(str(field).split()) for field in fields), sep="\\t", flush=True)
"""


@dataclass(frozen=True)
class Check:
    """One thing that was tried: `ok` is True, False (a step will fail), or None (absent or slow, and it may not matter)."""

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


def one_line(error: BaseException) -> str:
    """An exception as one line, with its type."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def run_contained(script: str, *arguments: str) -> tuple[list[list[str]], str]:
    """Run a Python script in another process: the fields of each line that it reported by `report(...)`, and how it ended."""
    package_root = str(Path(__file__).parents[2])
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), package_root])
    try:
        done = subprocess.run(
            [sys.executable, "-c", _REPORT + script, *arguments],
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [], f"it did not end within {_TIMEOUT} s"
    lines = [line.split("\t")[1:] for line in done.stdout.splitlines() if line.startswith(f"{_MARK}\t")]
    return lines, _ending(done.returncode, done.stderr)


def _ending(code: int, stderr: str) -> str:
    if code < 0:
        return f"it crashed with {signal.Signals(-code).name}"
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    return f"it ended with exit code {code}{': ' * bool(last)}{last}"
