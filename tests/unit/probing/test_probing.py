"""A probe from labelled clips to its report: what is chosen where, what is counted, what is kept and what is refused."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from vjepa2cli.artifacts.feature_cache import FeatureCache
from vjepa2cli.artifacts.latent_store import Shard
from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.artifacts.video_store import VideoStore
from vjepa2cli.errors import ArtifactError, WeightsError
from vjepa2cli.models.probe import AttentiveProbe, ProbeSpec
from vjepa2cli.models.probe_sweep import ProbeSweep
from vjepa2cli.models.weights import load_encoder, load_probe
from vjepa2cli.settings import ProbeConfig
from vjepa2cli.train.probing import probe, remove_part
from vjepa2cli.train.probing.contest import Setting, make_features, prepare_features, recognition_contestant
from vjepa2cli.train.probing.heads import ProbeTask, targets_of
from vjepa2cli.train.probing.judging import judge
from vjepa2cli.train.probing.samples import Sample, from_store, labelled
from vjepa2cli.train.process_group import ProcessGroup, choose_device


def setting(store: Path, config: ProbeConfig, folder: Path, **changes: object) -> Setting:
    data = from_store(VideoStore.open(store), config)
    return Setting(data, config, ProcessGroup(choose_device("cpu")), folder / "features", **changes)  # type: ignore[arg-type]


def test_motion_is_learnt_from_clips_and_a_single_frame_tells_nothing(
    labelled_store: Path, encoder_folder: Path, tmp_path: Path, smallest: ProbeConfig
) -> None:
    changes = {"steps": 100, "baselines": ("single-frame",), "learning_rates": (3e-3, 1e-6), "batch_size": 8}
    report = probe(
        labelled_store, tmp_path / "run", model=str(encoder_folder), config=smallest.model_copy(update=changes), device="cpu"
    )
    body = read_report(report, "probe")
    clips, single = body["results"]
    assert (clips["total"], body["clips"]) == (8, {"train": 26, "selection": 6, "val": 8})
    assert clips["correct"] > single["correct"]
    # Clips come in pairs of both classes with the same middle frame, so whatever is named, half of it is wrong.
    assert single["correct"] == 4
    assert single["behind"]["mean"] == (clips["correct"] - 4) / 8
    assert "trained is ahead by" in body["verdict"]
    assert [head["learning_rate"] for head in clips["heads"]] == [3e-3, 1e-6]
    assert sum(count for _, _, count in clips["confusion"]) == sum(one["total"] for one in clips["calibration"]["bins"]) == 8
    assert all((report.parent / one["picture"]).is_file() for result in body["results"] for one in result["examples"])


def test_scores_do_not_depend_on_batches_or_on_what_is_cached(
    labelled_store: Path, encoder_folder: Path, tmp_path: Path, smallest: ProbeConfig
) -> None:
    config = smallest.model_copy(update={"segments": 2, "views": 3, "frame_step": 1})
    head = AttentiveProbe(ProbeSpec(24, 2, depth=2, num_heads=2), generator=torch.Generator().manual_seed(3))
    encoder, found = load_encoder(encoder_folder), []
    for batch, max_cache in ((1, 0), (24, 0), (24, None), (24, 7 * 2 * 24 * 24)):
        own = setting(labelled_store, config.model_copy(update={"feature_batch": batch}), tmp_path / f"{batch}{max_cache}")
        own = Setting(own.data, own.config, own.group, own.cache, max_cache)
        splits = prepare_features(recognition_contestant("trained", str(encoder_folder), own), own)
        scores = judge(ProbeSweep([head]), splits.val, targets_of(own.data.val), precision="fp32")
        found.append(scores.answers[0].confidence)
    for other in found[1:]:
        torch.testing.assert_close(torch.from_numpy(found[0]), torch.from_numpy(other), rtol=0, atol=2e-3)  # float16 on disk
    # By hand: the tokens of both segments of a view together, softmax, mean over views.
    own = setting(labelled_store, config, tmp_path / "hand")
    contestant = recognition_contestant("trained", str(encoder_folder), own)
    reader = contestant.make_reader(own.data.val, 3)
    (prepared,) = reader.read([0], None, threads=0, ahead=0)
    with torch.no_grad():
        tokens = encoder(prepared.clips).reshape(3, -1, 24)
        expected = head(tokens).softmax(-1).mean(0)
    assert float(expected.max()) == pytest.approx(float(found[0][0, 0]), abs=1e-5)


def test_several_levels_are_tokens_beside_each_other(
    labelled_store: Path, encoder_folder: Path, tmp_path: Path, smallest: ProbeConfig
) -> None:
    own = setting(labelled_store, smallest.model_copy(update={"layers": (0, -1)}), tmp_path)
    contestant = recognition_contestant("trained", str(encoder_folder), own)
    features = make_features(contestant, own.data.val, own, copies=None, views=1)
    (row, tokens), *_ = features.encode([0])
    (prepared,) = features.reader.read([0], None, threads=0, ahead=0)
    with torch.no_grad():
        levels = load_encoder(encoder_folder).levels(prepared.clips, [0, -1])
    torch.testing.assert_close(tokens, torch.cat(levels, dim=1))
    assert row == 0


def test_features_are_kept_and_another_encoder_is_refused(
    labelled_store: Path, encoder_folder: Path, tmp_path: Path, smallest: ProbeConfig
) -> None:
    cache = tmp_path / "kept"

    def run(name: str, model: str) -> Path:
        return probe(labelled_store, tmp_path / name, model=model, config=smallest, cache=cache, device="cpu")

    first = read_report(run("a", str(encoder_folder)))
    stamps = [path.stat().st_mtime_ns for path in sorted(cache.rglob("tokens.npy"))]
    second = read_report(run("b", str(encoder_folder)))
    assert [path.stat().st_mtime_ns for path in sorted(cache.rglob("tokens.npy"))] == stamps
    assert first["results"] == second["results"]
    with pytest.raises(ArtifactError, match=r"train: holds features of another encoder .* give another --cache"):
        run("c", f"untrained:{encoder_folder}")


def test_jobs_that_share_the_encoders_come_to_the_report_of_one(
    labelled_store: Path, encoder_folder: Path, tmp_path: Path, smallest: ProbeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = smallest.model_copy(update={"baselines": ("untrained", "pixels")})
    model, other = str(encoder_folder), f"untrained:{encoder_folder}"
    whole = probe(labelled_store, tmp_path / "whole", model=model, beside=[other], config=config, device="cpu")
    run_dir = tmp_path / "shared"
    told: list[str] = []
    for index in (1, 0):
        note = probe(
            labelled_store,
            run_dir,
            model=model,
            beside=[other],
            config=config,
            shard=Shard(index, 2),
            device="cpu",
            say=told.append,
        )
        assert note.name == f"part-0000{index}-of-00002.json"
    assert [line.split(": ")[0] for line in told] == ["untrained", other, "trained", "pixels"]
    assert not (run_dir / "report.json").exists()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a job has done this")

    monkeypatch.setattr(ProbeTask, "batch", never)
    monkeypatch.setattr(FeatureCache, "write", never)
    report = probe(labelled_store, run_dir, model=model, beside=[other], config=config, device="cpu")
    assert read_report(report)["digest"] == read_report(whole)["digest"]
    remove_part(run_dir, config, [other], Shard(0, 2))
    left = {path.name for path in run_dir.iterdir()} & {"trained", "untrained", "pixels", other.replace("/", "-")}
    assert left == {"untrained", other.replace("/", "-")}
    assert encoder_folder.is_dir()


def test_a_probe_of_ours_is_judged_alone_and_under_its_label_map_only(
    labelled_videos: Path, encoder_folder: Path, tmp_path: Path, smallest: ProbeConfig
) -> None:
    tables, root = [labelled_videos / "train.csv", labelled_videos / "val.csv"], labelled_videos
    trained = read_report(probe(tables, tmp_path / "a", model=str(encoder_folder), config=smallest, root=root, device="cpu"))
    weights = str(tmp_path / "a" / "trained")

    def alone(table: Path, name: str) -> dict[str, object]:
        run = probe(
            [table], tmp_path / name, model=str(encoder_folder), config=smallest, weights=weights, root=root, device="cpu"
        )
        return read_report(run)["results"][0]

    again = alone(labelled_videos / "val.csv", "b")
    for key in ("correct", "total", "confusion"):
        assert again[key] == trained["results"][0][key]
    lines = (labelled_videos / "val.csv").read_text()
    other = tmp_path / "val.jsonl"
    rows = [{"path": line.split()[0], "label": f"c{line.split()[1]}"} for line in lines.splitlines()]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(WeightsError, match="was trained under another label map: its class 0 is '0', here 'c0'"):
        alone(other, "c")
    assert load_probe(weights).spec.num_classes == 2


def test_half_of_the_encoder_width_is_refused(
    labelled_store: Path, encoder_folder: Path, tmp_path: Path, smallest: ProbeConfig
) -> None:
    probe(labelled_store, tmp_path / "a", model=f"pixels:{encoder_folder}", config=smallest, device="cpu")
    with pytest.raises(WeightsError, match=r"reads tokens of width 96, and those of .* have 24"):
        probe(
            labelled_store,
            tmp_path / "b",
            model=str(encoder_folder),
            config=smallest,
            weights=str(tmp_path / "a" / "trained"),
            device="cpu",
        )


def test_copies_are_augmented_and_the_same_in_every_run(
    labelled_store: Path, encoder_folder: Path, tmp_path: Path, smallest: ProbeConfig
) -> None:
    augment = smallest.augment.model_copy(update={"copies": 3, "scale": (0.3, 1.0), "aspect_ratio": (0.75, 1.3)})
    own = setting(labelled_store, smallest.model_copy(update={"augment": augment, "frame_step": 1}), tmp_path)
    contestant = recognition_contestant("trained", str(encoder_folder), own)
    features = [make_features(contestant, own.data.train, own, copies=3, views=1) for _ in range(2)]
    count = len(own.data.train)
    rows = [0, count, 2 * count]
    first, second = (features[index].get(rows) for index in (0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])


def test_heads_that_are_stopped_change_no_more_and_are_told(
    labelled_store: Path, encoder_folder: Path, tmp_path: Path, smallest: ProbeConfig
) -> None:
    changes = {"steps": 12, "learning_rates": (1e-2, 1e-3, 1e-4), "evaluate_every": 3, "checkpoint_every": 12}
    config = smallest.model_copy(update=changes | {"keep_heads": ((0.25, 2), (0.5, 1))})
    report = probe(labelled_store, tmp_path / "run", model=str(encoder_folder), config=config, device="cpu")
    (result,) = read_report(report)["results"]
    stops = sorted(head["stopped_at"] for head in result["heads"])
    assert stops == [0, 3, 6]
    assert result["heads"][result["head"]]["stopped_at"] == 0
    for index, head in enumerate(result["heads"]):
        scores = {row["step"]: row[f"accuracy_{index}"] for row in result["evaluations"]}
        later = [score for step, score in scores.items() if head["stopped_at"] and step >= head["stopped_at"]]
        assert len({*later}) <= 1


def test_few_shots_are_as_many_of_every_class_of_as_many_videos_and_drawn_by_the_seed(
    labelled_store: Path, smallest: ProbeConfig
) -> None:
    store, drawn = VideoStore.open(labelled_store), []
    for seed in (0, 0, 1):
        data = from_store(store, smallest.model_copy(update={"shots": 5, "seed": seed}))
        seen = (*data.train, *data.selection)
        assert sorted(sample.targets[0] for sample in seen) == [0] * 5 + [1] * 5
        assert len({sample.group for sample in seen}) == 10
        assert len(data.val) == 8
        drawn.append({sample.name for sample in seen})
    assert drawn[0] == drawn[1] != drawn[2]
    everything = from_store(store, smallest.model_copy(update={"shots": 99}))
    assert {*everything.train} == {*from_store(store, smallest).train}


def test_a_second_clip_of_a_video_is_shown_only_after_all_others() -> None:
    clips = [Sample(f"{video}{number}", (0,), video, footage=None) for video in "abc" for number in range(3)]  # type: ignore[arg-type]
    for shots, each in ((3, 1), (6, 2)):
        chosen = labelled(clips, ProbeConfig(shots=shots))
        assert Counter(sample.group for sample in chosen) == dict.fromkeys("abc", each)
