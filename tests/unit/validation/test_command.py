"""The command: a table on stdout, caveats on stderr, JSON alone where it is asked for, and pictures that are refused by name."""

import json
from pathlib import Path

import pytest

from vjepa2cli.cli import app
from vjepa2cli.errors import InputError
from vjepa2cli.models.weights import encoder_digest, load_encoder

SMALL = ["--config", "ci-validate", "--set", "cem.samples=4"]


@pytest.fixture
def arguments(write_latents, tiny_world_model, tiny_encoder: Path, tmp_path: Path) -> list[str]:
    latents = write_latents(digest=encoder_digest(load_encoder(tiny_encoder)), splits=("train", "train", "val"))
    return ["validate", str(latents), "--model", str(tiny_world_model()), "--out", str(tmp_path / "v.json"), *SMALL]


def test_a_row_for_every_capability_on_stdout_and_caveats_on_stderr(
    arguments: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    app(arguments, standalone_mode=False)
    said = capfd.readouterr()
    report = json.loads((tmp_path / "v.json").read_text())
    lines = said.out.splitlines()
    assert lines[0] == str(tmp_path / "v.json")
    assert lines[-1] == report["verdict"]
    rows = [line.split(maxsplit=1) for line in lines[2:-2]]
    assert [row[0] for row in rows] == [found["level"] for found in report["capabilities"]]
    assert all(row[1].startswith(found["name"]) for row, found in zip(rows, report["capabilities"], strict=True))
    assert "caveat: all windows are of one episode" in said.err
    assert "caveat" not in said.out
    app([*arguments, "--json"], standalone_mode=False)
    assert json.loads(capfd.readouterr().out)["digest"] == report["digest"]


def test_film_strip_is_drawn_and_refused_before_anything_is_judged(
    tiny_world_model, training_stores, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    latents, videos = training_stores
    out, strip = tmp_path / "v.json", tmp_path / "strip.png"
    command = ["validate", str(latents), "--model", str(tiny_world_model()), "--out", str(out), *SMALL, "--set", "horizon=2"]
    for more, reason in (
        (["--film-strip", str(strip)], "name their video store with --store"),
        (["--film-strip", str(tmp_path / "strip.gif"), "--store", str(videos)], r"strip\.gif: pictures are written as"),
    ):
        with pytest.raises(InputError, match=reason):
            app([*command, *more], standalone_mode=False)
    assert not out.exists()
    app([*command, "--film-strip", str(strip), "--store", str(videos)], standalone_mode=False)
    assert capfd.readouterr().out.splitlines()[-1] == str(strip)
    assert strip.stat().st_size > 1000
