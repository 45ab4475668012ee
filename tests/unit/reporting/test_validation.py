"""The chapter of a validation: what the world model is good for, and the figures and tables that this is told from."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from vjepa2cli.artifacts.reports import write_report
from vjepa2cli.data.video import read_image
from vjepa2cli.errors import ArtifactError
from vjepa2cli.files import read_json
from vjepa2cli.reporting.film_strips import draw_rollout_strip


def chapter(page: str) -> str:
    return page[page.index('<section id="validation">') :].split("</section>")[0]


def test_every_capability_stands_with_its_level_and_what_it_is_told_from(page: str, results: Any) -> None:
    found = chapter(page)
    report = read_json(results.root / "validate/trained.json")
    rows = re.findall(r"<tr><td><span class=\"[a-z-]+\">(\w+)</span></td><td>([^<]*)</td><td>([^<]*)</td></tr>", found)
    own = [(row["level"], row["name"], row["said"].replace('"', "&quot;")) for row in report["capabilities"]]
    assert rows[: len(own)] == own
    assert ("yes", "steers in z") in {row[:2] for row in rows}
    assert ("untold", "sees roll") in {row[:2] for row in rows}
    assert "To be trusted for 4 steps, 1 s." in found


def test_figures_show_what_the_verdict_is_told_from(page: str) -> None:
    found = chapter(page)
    assert found.count("<svg") == 2 + 2 + 1 + 4 + 3
    for words in ("nothing moves", "no action", "true start", "went up", "went down", "gripper of the action", "y (cm)"):
        assert words in found
    assert "so it does in 28 of 30 moves" in found
    assert "28/30 (79–98 %)" in found
    assert "95 % (90–98), rank 2 of 65" in found


def test_film_strip_is_drawn_where_its_store_is_given(results: Any, page: str, tmp_path: Path) -> None:
    assert "imagined rollout of episode_00003" in chapter(page)
    without = results.page(results.root / "validate/trained.json")
    assert "imagined rollout" not in without
    strip = draw_rollout_strip(results.root / "validate/trained.json", results.root / "robot.zarr", tmp_path / "strip.png")
    pixels = read_image(strip)
    shades = {shade: int((pixels == shade).all(-1).sum()) for shade in (0, 120)}
    assert shades[120] / shades[0] == pytest.approx(4 / 5, rel=0.01), "four frames of the episode, five of the one most like it"
    again = draw_rollout_strip(results.root / "validate/trained.json", results.root / "robot.zarr", tmp_path / "again.png")
    assert strip.read_bytes() == again.read_bytes()


def test_what_it_rests_on_and_what_it_cannot_do_is_said_first(make_results: Any, tmp_path: Path) -> None:
    results = make_results(tmp_path, {"trained": 47})
    path = tmp_path / "validate/trained.json"
    body = read_json(path)
    changed = {key: value for key, value in body.items() if key not in ("schema", "kind", "provenance", "digest", "timing")}
    for row in changed["capabilities"]:
        if row["name"] == "steers in z":
            row["level"] = "no"
    changed |= {
        "caveats": ["nobody knows these recordings"],
        "familiarity": None,
        "film": None,
        "inversion": None,
        "landscapes": [],
    }
    shutil.rmtree(tmp_path / "validate")
    write_report(path, "validation", changed, provenance=body["provenance"])
    words = results.page()
    assert "That the world model steers in z is not shown: planning finds the direction of 23 of 24 moves" in words
    assert "Of the world model: nobody knows these recordings." in words
    assert words.index("is not shown") < words.index('<section id="validation">')


def test_strip_of_a_report_that_holds_none_is_refused(results: Any, tmp_path: Path) -> None:
    body = {"film": None}
    path = write_report(tmp_path / "v.json", "validation", body, provenance={})
    with pytest.raises(ArtifactError, match="holds no imagined rollout; run 'vjepa2 validate' with --store"):
        draw_rollout_strip(path, results.root / "robot.zarr", tmp_path / "strip.png")
    assert not (tmp_path / "strip.png").exists()
