"""The strict config tree: what is misspelt is named, what is resolved is stable, what is shipped loads."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from vjepa2cli import config
from vjepa2cli.errors import ConfigError
from vjepa2cli.settings import STEPS, CollectConfig, EvaluateConfig, PosttrainConfig, PretrainConfig


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def pretrain(tmp_path: Path) -> Path:
    return write(tmp_path / "pretrain.yaml", "step: pretrain\nsteps: 30\noptimizer:\n  lr: 3e-4\n")


def refusal(source: str | Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load_any(source, overrides=overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "key", "neighbour"),
    [
        ("optimiser.lr=1e-3", "optimiser", "optimizer"),
        ("optimizer.learning_rat=1", "optimizer.learning_rat", None),
        ("optimizer.wieght_decay=0", "optimizer.wieght_decay", "weight_decay"),
        ("batchsize=3", "batchsize", "batch_size"),
        ("encoder.embed_dims=3", "encoder.embed_dims", "embed_dim"),
    ],
)
def test_unknown_key_names_itself_its_file_and_its_nearest_neighbour(
    pretrain: Path, override: str, key: str, neighbour: str | None
) -> None:
    message = refusal(pretrain, override)
    assert str(pretrain) in message
    assert f"{key}: unknown key" in message
    assert (f"did you mean {neighbour!r}?" in message) if neighbour else ("known: lr, betas" in message)


def test_unknown_key_within_a_list_names_its_nearest_neighbour(tmp_path: Path) -> None:
    path = write(tmp_path / "masks.yaml", "step: pretrain\nmasks:\n- num_blocs: 3\n")
    assert "masks.0.num_blocs: unknown key; did you mean 'num_blocks'?" in refusal(path)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("steps=many", "steps"),
        ("steps=1.5", "steps"),
        ("steps=true", "steps"),
        ("steps=-1", "steps"),
        ("steps='30'", "steps"),
        ("optimizer.lr=-1", "optimizer.lr"),
        ("optimizer.lr=.nan", "optimizer.lr"),
        ("optimizer.betas=[0.9]", "optimizer.betas"),
        ("precision=fp16", "precision"),
        ("clip.static_fraction=1.4", "clip.static_fraction"),
        ("optimizer=3", "optimizer"),
        ("masks=[]", "masks"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_names_its_key(pretrain: Path, override: str, key: str) -> None:
    assert f"{pretrain}: {key}" in refusal(pretrain, override)


def test_every_fault_is_named_at_once(pretrain: Path) -> None:
    message = refusal(pretrain, "steps=-1", "precison=fp32", "ema.start=7")
    assert all(key in message for key in ("steps: -1", "precison: unknown key", "ema.start: 7"))


@pytest.mark.parametrize(
    ("text", "number"),
    [("3e-4", 3e-4), ("3E-4", 3e-4), ("1.5e-3", 1.5e-3), ("2e3", 2000.0), (".5", 0.5), ("1", 1.0), ("5.25e-4", 5.25e-4)],
)
def test_a_number_as_people_write_it_is_a_number(pretrain: Path, text: str, number: float) -> None:
    assert config.load(pretrain, PretrainConfig, overrides=[f"optimizer.lr={text}"]).optimizer.lr == number


def test_a_file_reads_exponents_as_the_override_does(pretrain: Path) -> None:
    assert config.load(pretrain, PretrainConfig).optimizer.lr == 3e-4


def test_overrides_reach_sections_lists_booleans_and_absence(pretrain: Path) -> None:
    loaded = config.load(
        pretrain,
        PretrainConfig,
        overrides=["clip.fps=null", "clip.scale=[0.4, 1.0]", "encoder.activation_checkpointing=true", "ema.end=1"],
    )
    assert loaded.clip.fps is None
    assert loaded.clip.scale == (0.4, 1.0)
    assert loaded.encoder.activation_checkpointing is True
    assert loaded.ema.end == 1


def test_the_last_override_wins(pretrain: Path) -> None:
    assert config.load(pretrain, PretrainConfig, overrides=["steps=5", "steps=6"]).steps == 6


@pytest.mark.parametrize("override", ["steps", "=3", "optimizer", "steps.more=3"])
def test_a_malformed_override_is_quoted(pretrain: Path, override: str) -> None:
    assert f"--set {override!r}" in refusal(pretrain, override)


def test_base_gives_what_a_file_does_not_say(pretrain: Path, tmp_path: Path) -> None:
    longer = write(tmp_path / "longer.yaml", f"base: {pretrain}\nsteps: 60\noptimizer:\n  weight_decay: 0.1\n")
    loaded = config.load(longer, PretrainConfig)
    assert (loaded.steps, loaded.optimizer.lr, loaded.optimizer.weight_decay) == (60, 3e-4, 0.1)


@pytest.mark.parametrize("name", config.preset_names())
def test_every_shipped_preset_loads_and_survives_its_own_dump(name: str, tmp_path: Path) -> None:
    loaded = config.load_any(name)
    path = tmp_path / "resolved.yaml"
    config.save(loaded, path)
    again = config.load_any(path)
    assert again == loaded
    assert config.digest(again) == config.digest(loaded)
    assert name in config.preset_names(loaded.step)


@pytest.mark.parametrize("name", config.preset_names())
def test_a_preset_can_be_a_base(name: str, tmp_path: Path) -> None:
    assert config.load_any(write(tmp_path / "mine.yaml", f"base: {name}\n")) == config.load_any(name)


@pytest.mark.parametrize("step", sorted(STEPS))
def test_defaults_of_every_step_survive_a_dump(step: str, tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    config.save(STEPS[step](step=step), path)
    assert config.load_any(path) == STEPS[step](step=step)


def test_digest_is_of_values_not_of_spelling(tmp_path: Path) -> None:
    short = write(tmp_path / "a.yaml", "step: posttrain\n")
    spelt_out = write(tmp_path / "b.yaml", "optimizer: {weight_decay: 0.04, lr: 5.25e-4}\nseed: 0\nstep: posttrain\n")
    assert config.digest(config.load_any(short)) == config.digest(config.load_any(spelt_out))
    assert config.digest(config.load_any(short)) != config.digest(config.load_any(short, overrides=["seed=1"]))


def test_first_difference_names_the_key_and_both_values() -> None:
    old, new = PretrainConfig(), PretrainConfig.model_validate({"optimizer": {"lr": 1e-3}, "masks": [{"num_blocks": 4}]})
    assert config.first_difference(old, new) == "optimizer.lr: 0.000525 -> 0.001"
    assert config.first_difference(old, old) is None
    assert config.first_difference(CollectConfig(), CollectConfig(episodes=3)) == "episodes: 400 -> 3"


def test_saving_the_same_config_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    config.save(EvaluateConfig(), path)
    before = path.stat().st_mtime_ns
    config.save(EvaluateConfig(), path)
    assert path.stat().st_mtime_ns == before
    config.save(EvaluateConfig(episodes=3), path)
    assert config.load(path, EvaluateConfig).episodes == 3


def test_a_config_for_another_step_is_refused_by_name(pretrain: Path) -> None:
    with pytest.raises(ConfigError, match="is a config for step 'pretrain', but 'posttrain' is needed"):
        config.load(pretrain, PosttrainConfig)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- 1\n- 2\n", "holds no keys"),
        ("", "holds no keys"),
        ("step: pretrian\n", "'pretrian' is not one of collect"),
        ("steps: 3\n", "step: None is not one of"),
        ("step: [pretrain\n", "not YAML"),
    ],
)
def test_a_file_that_is_no_config_says_why(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in refusal(write(tmp_path / "bad.yaml", text))


def test_an_absent_file_and_an_unknown_preset_are_told_apart(tmp_path: Path) -> None:
    assert "no such config file" in refusal(tmp_path / "absent.yaml")
    assert "neither a file nor a preset" in refusal("no-such-preset")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"step: [pretrain]\n", "is not one of"),
        (b"base: itself.yaml\nstep: pretrain\n", "base"),
        (b"\x89PNG\r\n\x1a\n\xff", "not"),
    ],
    ids=["a list as step", "a base that names itself", "bytes that are no text"],
)
def test_a_strange_file_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "itself.yaml").write_bytes(content)
    assert reason in refusal("itself.yaml")


def test_an_override_that_is_no_yaml_is_quoted(pretrain: Path) -> None:
    assert "--set 'clip.scale=[0.3'" in refusal(pretrain, "clip.scale=[0.3")


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        PretrainConfig().steps = 3
