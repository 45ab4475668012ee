"""The benchmarks that the pages name: each is there and takes the options that are written after it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
SCRIPTS = sorted({name for page in PAGES for name in re.findall(r"benchmarks/\w+\.py", page.read_text(encoding="utf-8"))})


def written_after(script: str) -> list[list[str]]:
    """The arguments that the pages give to a benchmark, a list for each place."""
    places = [re.findall(rf"python {script}([^\n`#]*)", page.read_text(encoding="utf-8")) for page in PAGES]
    return [shlex.split(arguments) for place in places for arguments in place]


@pytest.mark.parametrize("script", SCRIPTS)
def test_benchmarks_take_the_options_that_the_pages_give_them(script: str) -> None:
    for arguments in written_after(script):
        mode = arguments[:1] if arguments and not arguments[0].startswith("-") and not Path(arguments[0]).suffix else []
        ended = subprocess.run(
            [sys.executable, script, *mode, "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120
        )
        assert ended.returncode == 0, ended.stderr
        assert [word for word in arguments if word.startswith("--") and word not in ended.stdout.split()] == []
