"""The shipped recipes of released models: complete, honest about where they depart, and explained."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from vjepa2cli import config as configs
from vjepa2cli.cli import app
from vjepa2cli.data.masking import sample_fixed_masks, sample_masks
from vjepa2cli.errors import ConfigError
from vjepa2cli.registry import RELEASED
from vjepa2cli.settings import MaskConfig, PretrainConfig, TrainingConfig
from vjepa2cli.tokens import TokenGrid
from vjepa2cli.train.explanation import cost_rows, departure_lines, explain
from vjepa2cli.train.schedules import learning_rate

PAGE = (Path(__file__).parents[2] / "docs" / "pretraining.md").read_text(encoding="utf-8")
RECIPES = [name for name in configs.preset_names("pretrain") if name.startswith("vjepa2")]


def _explained(source: str | Path, **changes: Any) -> dict[str, Any]:
    return explain(str(source), **({"overrides": (), "tflops": 400.0, "gpus": None, "stored": None} | changes))


def test_every_released_pretraining_has_both_phases() -> None:
    released = {row.name for row in RELEASED.values() if row.family in ("2", "2.1")}
    assert {configs.about(name)["released"] for name in RECIPES if name.endswith("cooldown")} == released
    for name in RECIPES:
        if name.endswith("cooldown"):
            assert name.replace("-384", "").replace("cooldown", "pretrain") in RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_of_the_released_model_and_its_phases_fit_each_other(name: str) -> None:
    config, row = configs.load(name, PretrainConfig), RELEASED[configs.about(name)["released"]]
    assert config.encoder.size == row.size
    assert config.encoder.architecture == ("vjepa2.1" if row.family == "2.1" else "vjepa2")
    cooldown = name.endswith("cooldown")
    assert config.continues is cooldown
    if cooldown:
        assert (config.clip.crop, config.clip.num_frames) == (row.crop, row.frames)
        first = configs.load(name.replace("-384", "").replace("cooldown", "pretrain"), PretrainConfig)
        changed = {key.split(".")[0].split("[")[0] for key, _, _ in configs.differences(first, config)}
        assert changed == {"continues", "steps", "clip", "masking", "schedule"} | (
            {"beside", "context_loss"} if row.family == "2.1" else set()
        )


@pytest.mark.parametrize("name", RECIPES)
def test_every_departure_is_one(name: str) -> None:
    departures = configs.about(name)["departures"]
    config = configs.load(name, PretrainConfig)
    assert len({item.get("key", item.get("what")) for item in departures}) == len(departures)
    for item in departures:
        theirs = {source: item[source] for source in ("yaml", "paper", "code", "checkpoint") if source in item}
        assert theirs
        assert set(item) <= {"key", "what", "ours", "why", *theirs}
        ours = configs.value_of(config, item["key"]) if "key" in item else item["ours"]
        assert any(ours != value for value in theirs.values()), item


@pytest.mark.parametrize(
    ("name", "step", "rate"),
    [
        ("vjepa2-giant-pretrain", 6000, 3.125e-4),
        ("vjepa2-giant-pretrain", 240000, 5.25e-4),
        ("vjepa2-giant-384-cooldown", 6000, 3.154e-4),
        ("vjepa2-giant-384-cooldown", 12000, 1.058e-4),
        ("vjepa2.1-giant-cooldown", 12000, 1.21e-4),
    ],
)
def test_rates_are_those_that_the_released_code_gave(name: str, step: int, rate: float) -> None:
    config = configs.load(name, PretrainConfig)
    found = learning_rate(step, total=config.steps, peak=config.optimizer.lr, schedule=config.schedule)
    assert found == pytest.approx(rate, rel=2e-3)


@pytest.mark.parametrize("name", ["vjepa2-large-pretrain", "vjepa2.1-gigantic-cooldown", "tiny-pretrain"])
def test_an_explanation_adds_up(name: str) -> None:
    found = _explained(name, gpus=8, tflops=100.0)
    costs = found["costs"]
    assert costs["gpu_hours"] == pytest.approx(costs["flops_per_step"] * costs["updates"] / 1e14 / 3600)
    assert costs["days"] == pytest.approx(costs["gpu_hours"] / 8 / 24)
    assert costs["global_batch"] == sum(group["clips"] for group in costs["groups"])
    assert costs["tokens_per_step"] == sum(group["clips"] * group["tokens"] for group in costs["groups"])
    assert all(0 < share < 1 for group in costs["groups"] for share in (*group["kept"], *group["predicted"]))
    assert json.loads(json.dumps(found)) == found
    assert all(text for _, text in cost_rows(costs))


def test_v_jepa_2_at_vit_l_sees_what_its_paper_says_in_a_step() -> None:
    costs = _explained("vjepa2-large-pretrain")["costs"]
    assert (costs["global_batch"], costs["tokens_per_step"], costs["gpus"]) == (3072, 3072 * 2048, 128)
    assert costs["seconds_of_video_per_step"] == 3072 * 4
    assert costs["bytes_read_per_step"] == 3072 * 16 * 256 * 455 * 3


def test_what_is_changed_is_named_beside_what_the_recipe_has(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: vjepa2-large-pretrain\nsteps: 90000\n")
    found = _explained(mine, overrides=["optimizer.lr=6.25e-4"])
    assert found["recipe"] == "vjepa2-large-pretrain"
    lines = departure_lines(found["departures"])
    assert "steps: 90000; vjepa2-large-pretrain: 240000" in lines
    assert "optimizer.lr: 0.000625; vjepa2-large-pretrain: 0.000525" in lines
    assert any(line.startswith("steps: 90000; yaml: 3000; paper: 240000 (") for line in lines)


def test_a_preset_of_ours_departs_from_nothing_and_other_steps_are_refused() -> None:
    assert _explained("tiny-pretrain")["departures"] == []
    with pytest.raises(ConfigError, match="step 'plan'; those of pretrain and posttrain can be explained"):
        _explained("tiny-plan")


def test_the_command_explains_to_people_and_refuses_a_strange_size() -> None:
    told = CliRunner().invoke(app, ["config", "explain", "vjepa2-large-pretrain", "--gpus", "64", "--stored", "256x340"])
    assert told.exit_code == 0, told.output
    assert "on 64 GPUs" in told.stdout
    assert "256 x 340" in told.stdout
    assert "- released_quirks.mask_token_per_group: false; code: true" in told.stdout
    refused = CliRunner().invoke(app, ["config", "explain", "tiny-pretrain", "--stored", "big"])
    assert isinstance(refused.exception, ConfigError)
    assert "HEIGHTxWIDTH" in str(refused.exception)


def test_the_example_on_the_page_is_a_config_of_three_kinds_of_clips(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "mine.yaml").write_text(block, encoding="utf-8")
    config = configs.load(tmp_path / "mine.yaml", PretrainConfig)
    assert [(group.batch_size, group.clip.num_frames, group.clip.media) for group in config.groups] == [
        (8, 16, "video"),
        (4, 32, "video"),
        (8, 4, "image"),
    ]


def test_the_page_names_every_section_that_pretraining_alone_has() -> None:
    named = set(re.findall(r"`([a-z_]+)`", PAGE))
    own = set(PretrainConfig.model_fields) - set(TrainingConfig.model_fields)
    assert own - {"probe_windows"} <= named


@pytest.mark.parametrize(("kept", "batch"), [("shortest", 1), ("shortest", 24), ("fixed", 24)])
@pytest.mark.parametrize("blocks", ["8 blocks of .15", "2 blocks of .7"])
def test_the_table_of_masks_on_the_page_is_what_the_samplers_do(blocks: str, kept: str, batch: int) -> None:
    lines = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("|")]
    start = next(index for index, cells in enumerate(lines) if cells[0] == blocks)
    row = lines[start + {("shortest", 1): 0, ("shortest", 24): 1, ("fixed", 24): 2}[kept, batch]]
    shape = MaskConfig() if blocks.startswith("8") else MaskConfig(num_blocks=2, spatial_scale=(0.7, 0.7))
    sample, grid = (sample_masks if kept == "shortest" else sample_fixed_masks), TokenGrid(8, 16, 16)
    draws = [sample(batch, grid, shape=shape, generator=torch.Generator().manual_seed(seed)) for seed in range(60)]
    seen, hidden = (
        statistics.fmean(getattr(ids, name).shape[1] for ids in draws) / 2048 for name in ("context_ids", "target_ids")
    )
    assert [float(row[3].split()[0]), float(row[4].split()[0])] == pytest.approx([100 * seen, 100 * hidden], abs=0.06)
