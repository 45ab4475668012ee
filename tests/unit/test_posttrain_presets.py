"""The presets of post-training: of the released predictor, honest about their memory and about where they depart."""

import re
from importlib import resources
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vjepa2cli import config as configs
from vjepa2cli.cli import app
from vjepa2cli.errors import ConfigError
from vjepa2cli.registry import RELEASED
from vjepa2cli.settings import PosttrainConfig
from vjepa2cli.train.explanation import cost_rows, explain
from vjepa2cli.train.schedules import learning_rate

RELEASED_PRESETS = [name for name in configs.preset_names("posttrain") if name.startswith("vjepa2")]
STATED = [*RELEASED_PRESETS, "tiny-posttrain"]


@pytest.mark.parametrize("name", STATED)
def test_a_preset_states_the_memory_that_its_numbers_give(name: str) -> None:
    text = (resources.files("vjepa2cli") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    stated = [
        float(number) * {"G": 1e9, "M": 1e6}[unit] for number, unit in re.findall(r"([\d.]+) ([GM])B of (?:weights|act)", text)
    ]
    costs = explain(name, overrides=(), tflops=400.0, gpus=None)["costs"]
    assert stated == pytest.approx([costs["state_bytes_per_gpu"], costs["activation_bytes_per_gpu"]], rel=0.03)
    card = re.search(r"(\d+)gb$", name)
    if card:
        assert costs["gpus"] == 1
        # The optimizer's update takes another copy of the weights.
        assert sum(stated) + 4 * costs["parameters"] < 0.9e9 * int(card[1])


@pytest.mark.parametrize("name", RELEASED_PRESETS)
def test_every_card_trains_the_released_predictor_on_the_same_batch_at_the_released_rates(name: str) -> None:
    config = configs.load(name, PosttrainConfig)
    found = explain(name, overrides=(), tflops=400.0, gpus=None)
    assert found["released"] == "vjepa2-ac-vitg"
    assert found["costs"]["parameters"] == 305_220_992
    assert (config.batch_size, config.num_frames, config.rollout_steps, config.steps) == (256, 8, 2, 94500)
    rates = [learning_rate(step, total=config.steps, peak=config.optimizer.lr, schedule=config.schedule) for step in RATES]
    assert rates == pytest.approx(list(RATES.values()))
    assert RELEASED[found["released"]].family == "2-ac"


RATES = {4500: 4.25e-4, 90000: 4.25e-4, 92250: 2.125e-4, 94500: 0.0}


def test_every_departure_is_one_and_own_changes_are_named() -> None:
    name = "vjepa2-giant-posttrain"
    config = configs.load(name, PosttrainConfig)
    for item in configs.about(name)["departures"]:
        theirs = {source: item[source] for source in ("yaml", "paper", "code", "checkpoint") if source in item}
        ours = configs.value_of(config, item["key"]) if "key" in item else item["ours"]
        assert any(ours != value for value in theirs.values()), item
    changed = explain(name, overrides=["released_quirks.shifted_rollout=true"], tflops=400.0, gpus=None)["departures"]
    assert {"what": "released_quirks.shifted_rollout", "ours": True, "theirs": {name: False}, "why": None} in changed


def test_costs_follow_the_latents_and_the_command_tells_them(tmp_path: Path) -> None:
    wide, small = (
        explain("tiny-posttrain", overrides=(), tflops=1.0, gpus=1, latents=latents)["costs"]
        for latents in ((16, 16, 1024), None)
    )
    assert small["latents"] == [6, 6, 192]
    assert wide["bytes_read_per_step"] == 16 * 3 * 256 * 1024 * 2
    assert all(text for _, text in cost_rows(wide))
    told = CliRunner().invoke(app, ["config", "explain", "tiny-posttrain", "--latents", "16x16x1024"])
    assert told.exit_code == 0, told.output
    assert "16 x 16 tokens of 1024 a step" in told.stdout
    refused = CliRunner().invoke(app, ["config", "explain", "tiny-posttrain", "--latents", "16x16"])
    assert isinstance(refused.exception, ConfigError)
    assert "ROWSxCOLUMNSxWIDTH" in str(refused.exception)
