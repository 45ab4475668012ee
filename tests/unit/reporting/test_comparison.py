"""Runs side by side on one page, and the time and memory of their jobs."""

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from vjepa2cli.errors import ArtifactError
from vjepa2cli.reporting import report
from vjepa2cli.reporting.comparison import Run, comparison, differing
from vjepa2cli.reporting.statistics import Share
from vjepa2cli.settings import ReportConfig

SEEDED = [
    Run("this page", {"pretrain.seed": 0, "pretrain.steps": 60}, {"goals reached": Share.of(40, 50), "feature rank": 30.0}),
    Run("seed-1", {"pretrain.seed": 1, "pretrain.steps": 60}, {"goals reached": Share.of(30, 50), "feature rank": 34.0}),
    Run("short", {"pretrain.seed": 0, "pretrain.steps": 6}, {"feature rank": 5.5}),
]
HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def words_of(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_a_run_is_told_by_what_it_changes_and_what_it_lacks_is_a_dash() -> None:
    assert differing(SEEDED) == ["pretrain.seed", "pretrain.steps"]
    words = words_of(comparison(SEEDED))
    assert "this page – 40/50 (67–89 %) 30" in words
    assert "seed-1 pretrain.seed 1 30/50 (46–72 %) 34" in words
    assert "short pretrain.steps 6 – 5.5" in words


def test_the_mean_over_seeds_is_of_runs_that_differ_in_nothing_else() -> None:
    words = words_of(comparison(SEEDED))
    assert "this page, seed-1 70 % (60 to 80) 32 (30 to 34)" in words
    assert "Over seeds" not in comparison([SEEDED[0], SEEDED[2]])


def test_a_run_alone_is_compared_with_nothing() -> None:
    assert comparison(SEEDED[:1]) == ""


def test_the_page_of_a_run_compares_it_with_the_summary_of_another(make_results: Callable[..., Any], tmp_path: Path) -> None:
    first, second = make_results(tmp_path / "first"), make_results(tmp_path / "second", {"trained": 20})
    summary = tmp_path / "second/summary.json"
    report(second.inputs, tmp_path / "second/report.html", config=ReportConfig(), summary=summary)
    report(first.inputs, tmp_path / "first/report.html", config=ReportConfig(), others=[summary])
    words = words_of((tmp_path / "first/report.html").read_text())
    assert "this page – 47/50 (84–98 %)" in words
    assert "second – 20/50 (28–54 %)" in words
    with pytest.raises(ArtifactError, match="'summary' is needed"):
        report(first.inputs, tmp_path / "first/report.html", config=ReportConfig(), others=[tmp_path / "first/probe/report.json"])


def test_time_and_memory_of_the_jobs_stand_on_the_page_and_not_in_its_digest(
    make_results: Callable[..., Any], tmp_path: Path
) -> None:
    results = make_results(tmp_path)
    without = report(results.inputs, tmp_path / "report.html", config=ReportConfig()).read_text()
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "pretrain.tsv").write_text(f"{HEAD}7380.5\t2:03:00\t2048.00\t0\t0\t0\t0\t0\t99.0\t7200.00\n")
    (folder / "probe.tsv").write_text(f"{HEAD}1.5\t0:00:01\tNA\tNA\tNA\tNA\tNA\tNA\tNA\tNA\n")
    page = report(results.inputs, tmp_path / "report.html", config=ReportConfig(), benchmarks=[folder, tmp_path / "none"])
    words = words_of(page.read_text())
    assert "pretrain 2.1 h 2.0 h 2.0 GiB probe 1.5 s – –" in words
    digest = re.compile(r'vjepa2cli-digest" content="(\w+)"')
    assert digest.findall(page.read_text()) == digest.findall(without)
    (folder / "probe.tsv").write_text("nothing")
    with pytest.raises(ArtifactError, match="no benchmark file"):
        report(results.inputs, page, config=ReportConfig(), benchmarks=[folder])
