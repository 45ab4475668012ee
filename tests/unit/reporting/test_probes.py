"""The chapter on probes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vjepa2cli.artifacts.reports import read_report, write_report
from vjepa2cli.data.video import write_image

MakeResults = Callable[..., Any]


def test_the_chapter_on_probes_holds_what_the_report_holds(make_results: MakeResults, tmp_path: Path) -> None:
    results = make_results(tmp_path)
    report = results.root / "probe/report.json"
    body = {
        key: value
        for key, value in read_report(report).items()
        if key not in ("schema", "kind", "digest", "timing", "provenance")
    }
    write_image(results.root / "probe/trained/examples/right_00000.png", np.zeros((8, 16, 3), np.uint8))
    example = {"picture": "trained/examples/right_00000.png", "clip": "clip <one>", "true": "up", "named": "down"}
    body["results"][0] |= {
        "confusion": [[0, 0, 44], [0, 1, 6], [1, 0, 6], [1, 1, 44]],
        "calibration": {"expected_error": 0.123, "bins": [{"confidence": 0.75, "right": 88, "total": 100}]},
        "heads": [{"learning_rate": 0.003, "weight_decay": 0.4, "selection": 0.9, "validation": 0.88, "diverged": False}],
        "linear": {"correct": 60, "total": 100},
        "class_mean_accuracy": 0.88,
        "examples": [
            example | {"confidence": 0.91, "right": False},
            example | {"picture": "gone.png", "confidence": 1, "right": True},
        ],
    }
    body |= {
        "published": {"large 256": 73.7},
        "protocol": {"clips": "16 frames", "head": "depth 4", "chosen_on": "clips set aside"},
    }
    write_report(report, "probe", body, provenance=read_report(report)["provenance"])
    page = results.page()
    chapter = page[page.index('id="probing"') : page.index('id="pretraining"')]
    for said in ("60.0 %", "Expected calibration error: trained encoder 12.3 %", "0.003", "published, ViT large 256", "73.7 %"):
        assert said in chapter
    assert "named down, 91 % sure. clip &lt;one&gt;" in chapter.replace("up: ", "")
    assert "gone.png" in page
