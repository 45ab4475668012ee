"""Each fault is provoked: it changes nothing, names its batch, and the run stops or goes back as it was told to."""

import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.config import validate
from vjepa2cli.data.video import write_video
from vjepa2cli.errors import ArtifactError, StoppedError, TrainingError
from vjepa2cli.ingestion import ingest
from vjepa2cli.settings import HealthConfig, IngestConfig, PretrainConfig
from vjepa2cli.train.engine import Engine
from vjepa2cli.train.health import Watch, feature_figures, not_finite
from vjepa2cli.train.losses import LossModule, Term
from vjepa2cli.train.online_probe import ridge_accuracy
from vjepa2cli.train.pretraining import PretrainTask, pretrain
from vjepa2cli.train.process_group import ProcessGroup

PRETRAIN: dict[str, Any] = {
    "step": "pretrain",
    "steps": 24,
    "batch_size": 4,
    "precision": "fp32",
    "checkpoint_every": 8,
    "evaluate_every": 24,
    "encoder": {"embed_dim": 24, "depth": 2, "num_heads": 2},
    "predictor": {"embed_dim": 24, "depth": 1, "num_heads": 2},
    "clip": {"num_frames": 4, "fps": None, "crop": 64},
    "ema": {"start": 0.99, "end": 0.99},
}
ROLL_BACK = {"health": {"on_fault": "roll_back"}}


def config(**changes: Any) -> PretrainConfig:
    """The config above, changed."""
    found = validate(PRETRAIN | changes, where="test")
    assert isinstance(found, PretrainConfig)
    return found


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips of coloured blocks, each either red or blue all over and labelled so."""
    folder, rng = tmp_path_factory.mktemp("blocks"), np.random.default_rng(3)
    rows = ["video,start_frame,num_frames,label,episode"]
    for number in range(8):
        frames = rng.integers(0, 100, (10, 4, 5, 3), dtype=np.uint8)
        frames[..., 0 if number % 2 else 2] += 150
        write_video(folder / f"{number}.mp4", frames.repeat(16, 1).repeat(16, 2), fps=4)
        rows.append(f"{number}.mp4,0,10,{'red' if number % 2 else 'blue'},{number}")
    (folder / "labels.csv").write_text("\n".join(rows))
    ingest(
        [folder], folder / "v.zarr", labels=folder / "labels.csv", config=IngestConfig(short_side=64, val_fraction=0.5), workers=1
    )
    return folder / "v.zarr"


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`poisoned(13)` puts a NaN into the batch of step 13."""

    def poison(*steps: int) -> None:
        whole = PretrainTask.batch

        def batch(task: PretrainTask, step: int, *, rows: range) -> Any:
            made = whole(task, step, rows=rows)
            if step in steps:
                made.inputs[0].clips[0, 0, 0, 0, 0] = math.nan
            return made

        monkeypatch.setattr(PretrainTask, "batch", batch)

    return poison


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def model(run_dir: Path) -> bytes:
    """What a run has learnt."""
    return (run_dir / "model" / "model.safetensors").read_bytes()


def test_a_poisoned_batch_stops_the_run_names_its_clips_and_leaves_the_checkpoint(
    blocks: Path, tmp_path: Path, poisoned: Callable[..., None]
) -> None:
    poisoned(13)
    told = r"step 13: the loss is nan; its batch is listed in .*; the last good checkpoint is .*step_00000008"
    with pytest.raises(TrainingError, match=told):
        pretrain(blocks, tmp_path, config=config(), device="cpu")
    fault = json.loads((tmp_path / "faults" / "step_00000013.json").read_text())
    assert (fault["step"], fault["checkpoint"], len(fault["batch"])) == (13, 8, 4)
    assert all(name.split()[1].count(":") == 2 for name in fault["batch"])
    assert [row["step"] for row in rows_of(tmp_path) if "loss" in row] == list(range(1, 13))


@pytest.mark.parametrize("stage", [0, 1])
def test_a_run_goes_back_leaves_the_poisoned_batch_out_and_lowers_the_rate(
    blocks: Path, tmp_path: Path, poisoned: Callable[..., None], stage: int
) -> None:
    poisoned(13)
    told = config(**ROLL_BACK, zero_stage=stage)
    report = read_report(pretrain(blocks, tmp_path / "whole", config=told, device="cpu"), "pretrain")
    rollback = {"from": 13, "to": 8, "left_out": 13, "rate_factor": 0.5, "reason": "the loss is nan"}
    assert report["rollbacks"] == [rollback]
    rows = rows_of(tmp_path / "whole")
    assert [row["rollback"] for row in rows if "rollback" in row] == [rollback]
    assert [row["step"] for row in rows if "loss" in row] == [step for step in range(1, 25) if step != 13]
    rates = {row["step"]: row["lr"] for row in rows if "lr" in row}
    assert rates[8] == 2 * rates[9] == 2 * rates[24]
    assert all(math.isfinite(row["loss"]) for row in rows if "loss" in row)


class KilledAfter:
    """A Progress that interrupts the run once so many steps are done."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def start(self, description: str, *, total: int, done: int = 0) -> None: ...

    def advance(self, count: int = 1, *, fields: dict[str, float] | None = None) -> None:
        self._left -= count
        if self._left == 0:
            raise KeyboardInterrupt

    def finish(self) -> None: ...


def test_a_run_that_went_back_and_was_killed_ends_as_the_one_that_was_not(
    blocks: Path, tmp_path: Path, poisoned: Callable[..., None]
) -> None:
    poisoned(6, 13)
    pretrain(blocks, tmp_path / "whole", config=config(**ROLL_BACK), device="cpu")
    with pytest.raises(KeyboardInterrupt):  # at step 15, after it went back from 6 to 0 and from 13 to 8
        pretrain(blocks, tmp_path / "killed", config=config(**ROLL_BACK), device="cpu", progress=KilledAfter(22))
    pretrain(blocks, tmp_path / "killed", config=config(**ROLL_BACK), device="cpu", threads=0)
    assert model(tmp_path / "killed") == model(tmp_path / "whole")
    assert [rollback["to"] for rollback in read_report(tmp_path / "killed" / "report.json")["rollbacks"]] == [0, 8]


def test_going_back_ends_where_it_does_not_help(blocks: Path, tmp_path: Path, poisoned: Callable[..., None]) -> None:
    poisoned(13, 14, 15)
    told = config(health={"on_fault": "roll_back", "max_rollbacks": 2})
    with pytest.raises(TrainingError, match=r"step 15: .*health\.max_rollbacks: 2 of them did not help"):
        pretrain(blocks, tmp_path, config=told, device="cpu")
    kept = config(health={"on_fault": "roll_back", "max_rollbacks": 3})
    assert len(read_report(pretrain(blocks, tmp_path, config=kept, device="cpu"))["rollbacks"]) == 3


def test_without_momentum_the_features_collapse_and_the_run_says_so(blocks: Path, tmp_path: Path) -> None:
    fast: dict[str, Any] = {"optimizer": {"lr": 0.03}, "steps": 10, "checkpoint_every": 5, "health": {"min_rank_share": 0.2}}
    pretrain(blocks, tmp_path / "slow", config=config(**fast, ema={"start": 0.999, "end": 0.999}), device="cpu")
    with pytest.raises(TrainingError, match=r"step 5: the features have collapsed: their rank is 1\..*raise ema\.start"):
        pretrain(blocks, tmp_path / "none", config=config(**fast, ema={"start": 0.0, "end": 0.0}), device="cpu")
    assert list((tmp_path / "none" / "checkpoints").iterdir()) == []  # though no evaluation is due at step 5


@pytest.mark.parametrize(("checkpoint_every", "first"), [(24, "step 17: the"), (8, "step 16: after the update the")])
def test_a_rate_that_grows_too_far_is_noticed_by_the_jump_of_the_loss_and_before_a_checkpoint(
    blocks: Path, tmp_path: Path, checkpoint_every: int, first: str
) -> None:
    growing = {"optimizer": {"lr": 1000.0}, "schedule": {"warmup_steps": 1000}, "checkpoint_every": checkpoint_every}
    jump = r" loss .*jumped to .* the median of the last \d+ steps is .*lower optimizer\.lr"
    with pytest.raises(TrainingError, match=first + jump):
        pretrain(blocks, tmp_path, config=config(**growing), device="cpu")
    kept = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert kept == (["step_00000008"] if checkpoint_every == 8 else [])


def test_a_jump_is_one_against_what_the_steps_before_it_were() -> None:
    watch = Watch(HealthConfig(spike_factor=2.0))
    assert [watch.fault_of_loss(1.0 + 0.01 * step) for step in range(20)] == [None] * 20
    assert watch.fault_of_loss(2.1) is None
    assert "jumped to 2.3" in str(watch.fault_of_loss(2.3))
    resumed = Watch(HealthConfig(spike_factor=2.0))
    resumed.restore(**watch.state())  # type: ignore[arg-type]
    assert resumed.state() == watch.state()
    assert resumed.fault_of_loss(2.3) == watch.fault_of_loss(2.3)


RUINOUS: dict[str, Any] = {"optimizer": {"lr": 1e30}, "steps": 4, "checkpoint_every": 4}
"""Its first update leaves parameters that are finite, and networks that are not."""


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_figures_of_features_that_are_not_finite_are_a_fault_and_no_measure_for_others(value: float) -> None:
    tokens = torch.randn(4, 5, 16, generator=torch.Generator().manual_seed(0))
    sound = feature_figures(tokens, tokens)
    tokens[0, 0, 0] = value
    broken = feature_figures(tokens, tokens)
    assert {"rank", "spread", "std"} < set(not_finite(broken))
    watch = Watch(HealthConfig())
    assert "no finite rank" in str(watch.fault_of_figures(broken))
    assert "no finite loss" in str(watch.fault_of_figures(sound | {"loss": value}))
    assert watch.state()["first"] == {}
    assert watch.fault_of_figures(sound) is None
    assert watch.state()["first"] == sound


def test_an_evaluation_that_is_not_finite_stops_the_run_in_one_line(blocks: Path, tmp_path: Path) -> None:
    looked = config(**RUINOUS, evaluate_every=1)
    with pytest.raises(TrainingError, match=r"step 1: the evaluation found no finite loss, rank.*lower optimizer\.lr"):
        pretrain(blocks, tmp_path, config=looked, device="cpu")
    fault = json.loads((tmp_path / "faults" / "step_00000001.json").read_text())
    assert (fault["step"], fault["figures"]["rank"]) == (1, "nan")
    assert [row["step"] for row in rows_of(tmp_path) if "eval" in row] == [0]


def test_going_back_from_an_evaluation_that_is_not_finite_lowers_the_rate(blocks: Path, tmp_path: Path) -> None:
    told = config(**RUINOUS, evaluate_every=1, health={"on_fault": "roll_back", "rate_factor": 1e-33})
    report = read_report(pretrain(blocks, tmp_path, config=told, device="cpu"))
    assert [(rollback["from"], rollback["to"], rollback["left_out"]) for rollback in report["rollbacks"]] == [(1, 0, None)]
    assert [row["step"] for row in rows_of(tmp_path) if "loss" in row] == [1, 2, 3, 4]
    assert not any(not_finite({**row, "step": 0}) for row in report["evaluations"])


@pytest.mark.parametrize("on_fault", ["stop", "roll_back"])
def test_the_state_that_a_ruinous_update_led_to_is_never_a_checkpoint(blocks: Path, tmp_path: Path, on_fault: str) -> None:
    ruined = config(**RUINOUS | {"checkpoint_every": 1}, health={"on_fault": on_fault, "max_rollbacks": 0})
    with pytest.raises(TrainingError, match=r"step 1: after the update the loss of its batch is nan; its batch is listed"):
        pretrain(blocks, tmp_path, config=ruined, device="cpu")
    kept = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert kept == ([] if on_fault == "stop" else ["step_00000000"])


class StoppedAfter(KilledAfter):
    """A Progress that asks the run to end once so many steps are done."""

    def advance(self, count: int = 1, *, fields: dict[str, float] | None = None) -> None:
        self._left -= count
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def test_what_a_signal_left_no_time_to_look_at_is_looked_at_before_it_is_gone_on_from(
    blocks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan: dict[str, Any] = {"steps": 9, "checkpoint_every": 4, "evaluate_every": 9, "keep_checkpoints": 1}
    with pytest.raises(StoppedError):
        pretrain(blocks, tmp_path, config=config(**plan), device="cpu", progress=StoppedAfter(6))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step_00000004", "step_00000007"]
    evaluate = PretrainTask.evaluate
    monkeypatch.setattr(PretrainTask, "evaluate", lambda task, step: evaluate(task, step) | ({"rank": 0.1} if step == 7 else {}))
    told = config(**plan, **ROLL_BACK)
    report = read_report(pretrain(blocks, tmp_path, config=told, device="cpu"))
    assert [(rollback["from"], rollback["to"], rollback["rate_factor"]) for rollback in report["rollbacks"]] == [(7, 4, 0.5)]
    assert (tmp_path / "faults" / "step_00000007" / "module.pt").is_file()
    assert [row["step"] for row in rows_of(tmp_path) if "loss" in row] == list(range(1, 10))


class Root(LossModule):
    """The root of a weight: at zero its value is finite and its slope is not."""

    terms = (Term("root", 1.0),)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2, 2))

    def counts(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.ones(1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.weight.abs().sqrt().sum()[None] + inputs.sum()


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_gradient_that_is_not_finite_changes_nothing(stage: int) -> None:
    module = Root()
    groups = [{"name": "all", "params": [module.weight], "peak_lr": 1.0, "weight_decay": 0.0}]
    engine = Engine(module, groups, config=config(zero_stage=stage), group=ProcessGroup(torch.device("cpu")))
    for begin, expected in ((0.0, False), (1.0, True), (0.0, False), (1.0, True)):
        with torch.no_grad():
            module.weight.fill_(begin)
        loss = engine.sums(torch.zeros(1)).sum()
        assert math.isfinite(float(loss.detach()))
        engine.backward(loss, last=True)
        norms = engine.step(by_group=True)
        assert math.isfinite(norms["total"]) is expected
        assert bool((module.weight != begin).any()) is expected
        if expected:
            assert norms == pytest.approx({"total": 1.0, "all": 1.0})  # four slopes of a half


def test_the_figures_tell_one_direction_from_many() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(1, 5, 16, generator=generator)
    many = shared + torch.randn(400, 5, 16, generator=generator)
    one = shared + torch.randn(400, 1, 1, generator=generator) * torch.ones(16)
    found, collapsed = feature_figures(many, many), feature_figures(one, -one)
    assert found["rank"] == pytest.approx(16, rel=0.02)
    assert found["spread"] == pytest.approx(1.0, rel=0.05)
    assert found["correlation"] < 0.1
    assert collapsed["rank"] == pytest.approx(1.0, abs=0.01)
    assert collapsed["correlation"] == pytest.approx(1.0, abs=1e-6)
    assert (found["teacher_student_cosine"], collapsed["teacher_student_cosine"]) == pytest.approx((1.0, -1.0))


@pytest.mark.parametrize("split", ["val", "train"])
def test_an_evaluation_goes_without_what_cannot_be_read_and_says_so(
    blocks: Path, tmp_path: Path, split: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Path(shutil.copytree(blocks, tmp_path / "v.zarr"))
    harmed = next(entry.key for entry in VideoStore.open(store).entries if entry.split == split)
    shard = store / "videos" / harmed / "frames" / "c" / "0" / "0" / "0" / "0"
    shard.write_bytes(bytes(len(shard.read_bytes())))
    with pytest.raises(ArtifactError, match=f"{harmed}/frames cannot be read"):
        pretrain(store, tmp_path / "stopped", config=config(steps=0), device="cpu")
    report = read_report(pretrain(store, tmp_path / "run", config=config(steps=2, unreadable="skip"), device="cpu", threads=0))
    looks = report["evaluations"]
    assert [(row["step"], row["unreadable"], row["probe_accuracy"]) for row in looks] == [
        (step, 2.0 if split == "val" else 1.0, 1.0)  # a validation video is a clip of the evaluation and a window of the probe
        for step in (0, 2)
    ]
    assert len([line for line in caplog.messages if "the evaluation goes without" in line and harmed in line]) == 1


def test_the_online_probe_reads_labels_off_features_that_hold_them(blocks: Path, tmp_path: Path) -> None:
    looked = config(steps=6, evaluate_every=3, ema={"start": 0.5, "end": 0.5})
    looks = read_report(pretrain(blocks, tmp_path / "labelled", config=looked, device="cpu"))["evaluations"]
    assert [(row["step"], row["probe_accuracy"]) for row in looks] == [(0, 1.0), (3, 1.0), (6, 1.0)]
    assert len({row["loss"] for row in looks}) == 3  # of an encoder that learns meanwhile
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(300, 8, generator=generator), torch.randint(0, 3, (300,), generator=generator)
    assert ridge_accuracy(features[:200], labels[:200], features[200:], labels[200:]) < 0.45
    features[torch.arange(300), labels] += 5
    assert ridge_accuracy(features[:200], labels[:200], features[200:], labels[200:]) > 0.9


def test_threads_that_make_batches_change_nothing(blocks: Path, tmp_path: Path) -> None:
    for threads in (0, 3):
        pretrain(blocks, tmp_path / str(threads), config=config(micro_batch_size=2), device="cpu", threads=threads)
    assert model(tmp_path / "0") == model(tmp_path / "3")
