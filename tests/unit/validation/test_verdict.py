"""The verdict on a world model: what is there by its thresholds, what is refused, and that the report is a function of inputs."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from vjepa2cli.artifacts.reports import read_report
from vjepa2cli.artifacts.statistics import share
from vjepa2cli.errors import ArtifactError, InputError, PlanningError
from vjepa2cli.models.weights import encoder_digest, load_encoder
from vjepa2cli.planning.validation import validate
from vjepa2cli.planning.validation.capabilities import THRESHOLDS, judge
from vjepa2cli.settings import CemConfig, ValidateConfig

CONFIG = ValidateConfig(
    horizon=3,
    max_windows=20,
    num_ranked=3,
    num_rivals=4,
    num_sweeps=3,
    sweep_points=5,
    num_inversions=3,
    num_maps=1,
    map_points=3,
    num_compared=4,
    num_known=12,
    cem=CemConfig(samples=16, iterations=2, elites=4, plan_gripper=False),
)
PAGE = Path(__file__).parents[3] / "docs" / "own-robot.md"


def measured(
    *, ratio: float = 0.8, still: float = 1.0, certain: bool = True, percentile: float = 0.95, sign: float = 1.0,
    error: float = 0.3, within: float = 0.95, moves: int = 40, steps: int = 4, swept_sign: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Invented measurements; `certain` ones exclude chance."""
    low = 0.01 if certain else -0.01
    gap = {"mean": 0.1, "interval": [low, 0.2]}
    step = {
        "error": {"model": ratio, "copy": 1.0, "no_action": still},
        "below_copy": gap,
        "below_shuffled": gap,
        "true_beats_shuffled": share(90 if certain else 50, 100),
    }
    answer = {
        "error": {"mean": error, "interval": [error, error]},
        "magnitude": 1.0,
        "below_nothing": gap,
        "sign": share(round(sign * moves), moves),
    }
    swept_sign = sign if swept_sign is None else swept_sign
    swept = {"moves": moves, "sign": share(round(swept_sign * moves), moves), "left_out": gap}
    return {
        "model": {"trained_steps": 5},
        "seen_in_training": 0,
        "num_episodes": 3,
        "rate": 4.0,
        "prediction": [step | {"steps": number + 1} for number in range(steps)],
        "ranking": [
            {"percentile": {"mean": percentile, "interval": [percentile - 0.1, percentile]}, "rank": {}} for _ in range(steps)
        ],
        "numbers": [{"name": name, "unit": "m", "far": 1.0, "sweep": swept} for name in ("x", "gripper")],
        "inversion": {"numbers": {"x": answer}},
        "familiarity": {"within": within},
    }


def levels(**changes: Any) -> dict[str, str]:
    return {found["name"]: found["level"] for found in judge(measured(**changes), config=CONFIG)["capabilities"]}


def test_what_meets_every_threshold_is_there():
    said = judge(measured(), config=CONFIG)
    assert {found["level"] for found in said["capabilities"]} == {"yes"}
    assert (said["grade"], said["trusted_horizon"], said["caveats"]) == (1.0, 4, [])
    assert said["verdict"] == (
        "The model stands still without action, predicts the next frame, uses its actions, steers in x, sees gripper; "
        "trust it for 4 steps, 1 s."
    )


@pytest.mark.parametrize(
    ("changes", "name", "level"),
    [
        ({"still": 1.11}, "stands still without action", "no"),
        ({"ratio": 0.91}, "predicts the next frame", "partly"),
        ({"certain": False}, "predicts the next frame", "no"),
        ({"percentile": 0.89}, "uses its actions", "partly"),
        ({"certain": False}, "uses its actions", "no"),
        ({"sign": 0.75}, "steers in x", "partly"),
        ({"error": 0.9}, "steers in x", "partly"),
        ({"sign": 0.6}, "steers in x", "no"),
        ({"sign": 0.6, "swept_sign": 1.0}, "steers in x", "partly"),
        ({"sign": 0.6, "swept_sign": 0.75}, "steers in x", "no"),
        ({"certain": False}, "steers in x", "no"),
        ({"moves": 11}, "steers in x", "untold"),
        ({"sign": 0.75}, "sees gripper", "partly"),
        ({"certain": False}, "sees gripper", "no"),
        ({"moves": 11}, "sees gripper", "untold"),
        ({"steps": 2}, "holds over its horizon", "partly"),
        ({"percentile": 0.7}, "holds over its horizon", "no"),
    ],
)
def test_each_capability_has_its_threshold(changes: dict[str, Any], name: str, level: str):
    assert levels(**changes)[name] == level


def test_of_many_numbers_a_few_are_named_and_one_that_hardly_moves_is_untold():
    body = measured()
    number, answer = body["numbers"][0], body["inversion"]["numbers"]["x"]
    names = [f"joint_{index}" for index in range(26)]
    body["numbers"] = [number | {"name": name} for name in names]
    body["numbers"][25] |= {"far": 0.0}
    body["inversion"]["numbers"] = dict.fromkeys(names, answer) | {"joint_25": answer | {"sign": share(0, 0)}}
    said = judge(body, config=CONFIG)
    assert "steers in joint_0, joint_1, joint_2, joint_3, joint_4, joint_5, joint_6 and 18 more; trust it" in said["verdict"]
    assert said["capabilities"][-2] == {"name": "steers in joint_25", "level": "untold", "said": "it hardly moves"}


def test_nothing_that_cannot_be_told_counts():
    assert judge(measured(moves=3), config=CONFIG)["grade"] == 1
    assert judge(measured(certain=False, still=2.0), config=CONFIG)["grade"] == 0
    assert "trust no step of it" in judge(measured(certain=False), config=CONFIG)["verdict"]


def test_what_the_verdict_rests_on_is_said():
    body = measured(within=0.4) | {"seen_in_training": 2, "num_episodes": 3}
    said = judge(body | {"model": {"trained_steps": 0}}, config=CONFIG)["caveats"]
    assert said[0] == "nobody trained this model"
    assert "on 2 of the 3 episodes" in said[1]
    assert "only 40% of the frames" in said[2]
    alone = judge(measured() | {"num_episodes": 1, "familiarity": None}, config=CONFIG)["caveats"]
    assert "all windows are of one episode" in alone[0]
    assert "--train-latents" in alone[1]


def test_the_page_holds_the_thresholds_that_are_used():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", PAGE.read_text(), re.MULTILINE))
    assert {name: float(value) for name, value in rows.items()} == asdict(THRESHOLDS)


def test_report_is_a_function_of_latents_model_and_config(write_latents, tiny_world_model, tiny_encoder: Path, tmp_path: Path):
    latents = write_latents(digest=encoder_digest(load_encoder(tiny_encoder)))
    model = tiny_world_model()
    report = read_report(validate(latents, tmp_path / "a.json", model=model, config=CONFIG), "validation")
    again = read_report(validate(latents, tmp_path / "b.json", model=model, config=CONFIG), "validation")
    assert report["digest"] == again["digest"]
    assert [step["steps"] for step in report["prediction"]] == [1, 2, 3]
    assert report["num_windows"] == 9
    assert [number["name"] for number in report["numbers"]][:3] == ["x", "y", "z"]
    for name, found in report["inversion"]["numbers"].items():
        assert name in "xyz"
        assert max(abs(answer) for _, answer in found["pairs"]) <= CONFIG.cem.max_translation
    # Random weights know nothing, and the report must not claim that they do.
    assert not report["beats_copy"]
    assert report["trusted_horizon"] == 0
    assert "yes" not in {found["level"] for found in report["capabilities"]}
    assert report["familiarity"]["training_episodes"] == 2
    off = dict.fromkeys(("num_ranked", "num_sweeps", "num_inversions", "num_maps", "num_compared"), 0)
    bare = read_report(validate(latents, tmp_path / "c.json", model=model, config=CONFIG.model_copy(update=off)))
    assert (bare["inversion"], bare["ranking"], bare["landscapes"], bare["familiarity"]) == (None, [], [], None)


def test_a_robot_with_numbers_of_its_own_is_judged_by_them(write_latents, tiny_world_model, tiny_encoder: Path, tmp_path: Path):
    space = {
        "kind": "own",
        "names": ["shoulder", "elbow", "wrist"],
        "units": ["rad"] * 3,
        "wraps": [False] * 3,
        "limits": [None] * 3,
        "usual_change": [0.05] * 3,
    }
    latents = write_latents(digest=encoder_digest(load_encoder(tiny_encoder)), state_space=space)
    model = tiny_world_model(state_space=space, action_dim=3, state_dim=3)
    report = read_report(validate(latents, tmp_path / "a.json", model=model, config=CONFIG), "validation")
    assert [found["name"] for found in report["capabilities"]][3:-1] == [f"steers in {name}" for name in space["names"]]
    assert {number["unit"] for number in report["numbers"]} == {"rad"}
    assert report["landscapes"][0]["axes"] == ["shoulder", "elbow"]


def test_a_model_that_nobody_trained_is_judged_and_called_so(write_latents, tiny_world_model, tiny_encoder: Path, tmp_path: Path):
    latents = write_latents(digest=encoder_digest(load_encoder(tiny_encoder)))
    report = read_report(validate(latents, tmp_path / "a.json", model=tiny_world_model(trained_steps=0), config=CONFIG))
    assert "nobody trained this model" in report["caveats"]


def test_what_was_trained_on_is_told_from_what_is_judged(write_latents, tiny_world_model, tiny_encoder: Path, tmp_path: Path):
    digest = encoder_digest(load_encoder(tiny_encoder))
    known = write_latents("known.h5", digest=digest)
    apart = write_latents("apart.h5", digest=digest, splits=("val", "val"), seed=5)
    model = tiny_world_model()

    def report(latents: Path, known: Path | None = None, **changes: Any) -> dict[str, Any]:
        chosen = CONFIG.model_copy(update=changes)
        return read_report(validate(latents, tmp_path / "r.json", model=model, config=chosen, train_latents=known))

    assert report(apart)["familiarity"] is None
    single = write_latents("single.h5", digest=digest, splits=("train", "val", "val"))
    assert report(single)["familiarity"] is None, "one training episode is at no distance from another"
    assert report(apart, known)["familiarity"]["training_episodes"] == 2
    assert report(apart, known)["seen_in_training"] == 0
    assert report(known, split="all")["seen_in_training"] == 2


def test_latents_of_another_encoder_robot_or_rate_are_refused(
    write_latents, tiny_world_model, tiny_encoder: Path, tmp_path: Path
):
    digest = encoder_digest(load_encoder(tiny_encoder))
    model, out = tiny_world_model(), tmp_path / "a.json"
    foreign, fitting = write_latents("foreign.h5", digest="0" * 64), write_latents("fitting.h5", digest=digest)
    space = {"kind": "own", "names": ["a", "b", "c"], "units": ["rad"] * 3, "wraps": [False] * 3, "limits": [None] * 3}
    joints = write_latents("joints.h5", digest=digest, state_space=space | {"usual_change": [0.1] * 3})
    with pytest.raises(ArtifactError, match="run 'vjepa2 precompute' with that encoder"):
        validate(foreign, out, model=model, config=CONFIG)
    with pytest.raises(ArtifactError, match=r"holds the numbers a \(rad\), b \(rad\), c \(rad\), but .* was trained on x \(m\)"):
        validate(joints, out, model=model, config=CONFIG)
    with pytest.raises(ArtifactError, match=r"holds 8 steps a second, but .* was trained on 4; run .* --set rate=4"):
        validate(write_latents("fast.h5", digest=digest, rate=8.0), out, model=model, config=CONFIG)
    with pytest.raises(ArtifactError, match=r"foreign\.h5: holds latents of the encoder"):
        validate(fitting, out, model=model, config=CONFIG, train_latents=foreign)
    with pytest.raises(ArtifactError, match="no such latent store"):
        validate(tmp_path / "absent.h5", out, model=model, config=CONFIG)
    apart = write_latents("apart.h5", digest=digest, splits=("val", "val"))
    with pytest.raises(InputError, match="a film strip shows training frames; name their latents with --train-latents"):
        validate(apart, out, model=model, config=CONFIG, videos=tmp_path / "robot.zarr")
    with pytest.raises(PlanningError, match="reads the camera's extrinsics"):
        validate(fitting, out, model=tiny_world_model(use_extrinsics=True), config=CONFIG)
    assert not out.exists()
