"""The chapter on a robot's recordings: what ingest found is said in words, drawn, and cannot become markup."""

from pathlib import Path
from typing import Any

import pytest

from vjepa2cli.artifacts.video_store import VideoStore, VideoStoreWriter
from vjepa2cli.reporting import report
from vjepa2cli.settings import ReportConfig

CURVE = [0.1, 0.2, 0.3, 0.5, 0.9, 0.4, 0.1]


def found(**changes: Any) -> dict[str, Any]:
    axis = {"unit": "m", "forward_share": 0.5, "step_quantiles": [-0.01, 0.0, 0.01], "range": [0.1, 0.5]}
    histogram = {"reach": 0.02, "counts": [1, 2, 8, 2, 1]}
    names = ("<x>", "resting")
    checks: dict[str, Any] = {
        "version": 1,
        "episodes": 4,
        "steps": 321,
        "rate": 5.0,
        "minutes": 1.07,
        "coverage": {
            "idle_share": 0.25,
            "axes": [axis | {"name": name, "idle_share": 0.3, "histogram": histogram} for name in names],
        },
        "alignment": {
            "lead_s": 0.21,
            "lead_rows": 1.1,
            "axes": [
                {"name": "<x>", "meaning": "absolute", "lead_s": 0.21, "lead_rows": 1.1, "correlation": 0.9, "curve": CURVE},
                {
                    "name": "resting",
                    "meaning": "absolute",
                    "lead_s": None,
                    "lead_rows": None,
                    "correlation": 0.0,
                    "curve": [0.0] * 7,
                },
            ],
        },
        "cameras": [
            {
                "camera": "front",
                "looked_at": 4,
                "aspect": 1.0,
                "heat": [[0.0, 3.0], [1.0, 0.0]],
                "in_centre": 0.64,
                "warnings": [],
            }
        ],
        "warnings": ["camera <front>: much lies outside"],
    }
    return checks | changes


@pytest.fixture
def page_of(make_results: Any, tmp_path: Path) -> Any:
    """`page_of(checks)` gives the page of a store in which these were found."""

    def make(checks: dict[str, Any] | None) -> str:
        store = make_results(tmp_path / "results").root / "robot.zarr"
        if checks is not None:
            VideoStoreWriter(store, {}).keep_checks(checks, of=VideoStore.open(store).digest)
        return report([store], tmp_path / "page.html", config=ReportConfig()).read_text(encoding="utf-8")

    return make


def test_what_was_found_is_said_and_drawn(page_of: Any) -> None:
    page = page_of(found())
    assert "4 episodes, 321 steps at 5 Hz, 1.07 minutes; in 25 % of the steps nothing moves." in page
    assert "Commands lead what moves by 0.21 s, 1.1 rows." in page
    assert "camera &lt;front&gt;: much lies outside" in page
    assert "64 % of it within the central square" in page
    assert "&lt;x&gt;" in page
    assert "<x>" not in page
    assert page.count("<svg") == 3


def test_absence_of_commands_and_of_warnings_is_said(page_of: Any) -> None:
    page = page_of(found(alignment=None, warnings=[]))
    assert "Commands were not recorded." in page
    assert "Nothing was found amiss." in page
    assert page.count("<svg") == 2


def test_store_that_changed_since_has_no_chapter(page_of: Any, tmp_path: Path) -> None:
    assert "Recordings of the robot" not in page_of(None)
    store = tmp_path / "results/robot.zarr"
    VideoStoreWriter(store, {}).keep_checks(found(), of="another digest")
    assert VideoStore.open(store).robot_checks is None
