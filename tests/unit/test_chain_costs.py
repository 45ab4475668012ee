"""What a run is foretold to take: in proportion to what its configs ask for, and to what the machine can do."""

from typing import Any

import pytest

from vjepa2cli import config as configs
from vjepa2cli.train.chain_costs import chain_work, price
from vjepa2cli.train.costs import compute_costs

STEPS = ("collect", "ingest", "pretrain", "precompute", "posttrain", "probe", "validate", "evaluate")
WIDTHS = {"96": 1e9, "192": 2e9, "1408": 4e9}
RATES = {
    "device": "a machine",
    "start_seconds": 5.0,
    "training_flops": WIDTHS,
    "inference_flops": {width: 2 * rate for width, rate in WIDTHS.items()},
    "decoded_pixels": 1e7,
    "simulated_frames": 100.0,
    "written_bytes": 1e9,
}


def foretold(*, frames: int | None = None, gpus: dict[str, int] | None = None, **changes: list[str]) -> dict[str, dict[str, Any]]:
    loaded = {step: configs.load_any(f"tiny-{step}", overrides=changes.get(step, ())) for step in STEPS}
    work = chain_work(loaded, encoders=["trained", "untrained", "pixels"], frames=frames)
    return {row["step"]: row for row in price(work, RATES, gpus=gpus or {})}


def test_a_training_takes_its_operations_at_the_rate_of_its_width_and_a_start() -> None:
    config = configs.load_any("tiny-pretrain")
    seconds = config.steps * compute_costs(config).flops_per_step / WIDTHS["192"]  # type: ignore[attr-defined, arg-type]
    row = foretold()["pretrain"]
    assert row["seconds_per_job"] == pytest.approx(5 + seconds + row["disk_bytes"] / 1e9)
    assert row["gpu_hours"] == pytest.approx(row["seconds_per_job"] / 3600)


def test_every_step_of_the_chain_is_foretold_and_grows_with_what_it_is_asked() -> None:
    before = foretold()
    assert tuple(before) == STEPS
    for step, change in {
        "collect": "episodes=800",
        "pretrain": "steps=1800",
        "posttrain": "steps=2000",
        "validate": "max_windows=4096",
        "evaluate": "cem.samples=640",
    }.items():
        assert foretold(**{step: [change]})[step]["seconds_per_job"] > 1.3 * before[step]["seconds_per_job"], step
    more = foretold(collect=["episodes=800"])
    for step in ("ingest", "precompute"):
        assert more[step]["disk_bytes"] == 2 * before[step]["disk_bytes"]


def test_eight_gpus_share_the_operations_and_not_the_start() -> None:
    one, eight = foretold()["pretrain"], foretold(gpus={"pretrain": 8})["pretrain"]
    fixed = 5 + one["disk_bytes"] / 1e9
    assert eight["seconds_per_job"] - fixed == pytest.approx((one["seconds_per_job"] - fixed) / 8)
    assert eight["gpu_hours"] > one["gpu_hours"]


def test_what_is_not_known_is_said() -> None:
    loaded = {step: configs.load_any(f"tiny-{step}") for step in STEPS if step != "collect"}
    rows = {row["step"]: row for row in price(chain_work(loaded, encoders=["trained"], frames=None), RATES, gpus={})}
    assert "give --frames" in rows["ingest"]["remarks"][0]
    rows = {row["step"]: row for row in price(chain_work(loaded, encoders=["trained"], frames=100), RATES, gpus={})}
    assert rows["ingest"]["remarks"] == []
