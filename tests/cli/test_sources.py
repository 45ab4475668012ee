"""A `--model` that is a released name is brought here the first time, by every command that takes one, and a line says so."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer.main
from typer.testing import CliRunner

from vjepa2cli import registry
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.cli import app
from vjepa2cli.errors import Vjepa2Error, WeightsError
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.weights import to_transformers

NAME = "vjepa2-vitl-256"
SPEC = EncoderSpec(24, 1, 2, crop=32, num_frames=4)
REQUIRED = {
    "INPUT": "video.mp4",
    "VIDEO": "video.mp4",
    "STORE.zarr": "store.zarr",
    "LATENTS.h5": "latents.h5",
    "DATA": "COIN.json",
    "--run-dir": "run",
    "--out": "out",
    "--obs": "now.png",
    "--goal": "goal.png",
}


def commands_with_a_model() -> Iterator[tuple[str, str]]:
    """Each command that takes a source of weights, and the option that names it."""
    group = typer.main.get_command(app)
    assert hasattr(group, "commands")
    for name, command in group.commands.items():
        for option in ("--model", "--init-from"):
            if any(option in parameter.opts for parameter in command.params):
                yield name, option


def labelled_set(folder: Path) -> None:
    """What `probe` reads before it asks for a model: labelled videos in both splits."""
    videos = {f"v{index}": {"recipe_type": 0, "class": "ab"[index % 2], "subset": "training"} for index in range(4)}
    videos["v4"] = {"recipe_type": 0, "class": "a", "subset": "testing"}
    for name in videos:
        (folder / f"{name}.mp4").touch()
    (folder / "COIN.json").write_text(json.dumps({"database": videos}))


def test_the_commands_with_a_model_are_found() -> None:
    expected = {"pretrain", "encode", "surprise", "precompute", "probe", "validate", "plan", "evaluate"}
    assert expected <= {command for command, _ in commands_with_a_model()}


@pytest.mark.parametrize("prefix", ["", "untrained:", "pixels:"])
@pytest.mark.parametrize(("command", "option"), list(commands_with_a_model()))
def test_every_command_with_a_model_asks_for_a_released_name(
    command: str, option: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it may not ask, it says what to do; so a command that was added and does not ask is seen here."""
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path))
    monkeypatch.setenv("VJEPA2_OFFLINE", "1")
    group = typer.main.get_command(app)
    assert hasattr(group, "commands")
    monkeypatch.chdir(tmp_path)
    labelled_set(tmp_path)
    arguments = [command]
    for parameter in group.commands[command].params:
        if parameter.required or parameter.metavar == "DATA...":
            named = parameter.opts[0].startswith("--")
            key = parameter.opts[0] if named else str(parameter.metavar or parameter.human_readable_name)
            arguments += [parameter.opts[0], REQUIRED[key]] if named else [REQUIRED[key.rstrip(".")]]
    ended = CliRunner().invoke(app, [*arguments, option, prefix + NAME])
    assert isinstance(ended.exception, WeightsError), ended.output
    assert str(ended.exception).startswith(f"{NAME}: is not on this machine, and VJEPA2_OFFLINE is set; run `vjepa2 weights pull")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a mirror that has the official file of a ViT-L, here a very small one; returns the cache."""
    (tmp_path / "mirror").mkdir()
    state = Encoder(SPEC, generator=torch.Generator().manual_seed(0)).state_dict()
    torch.save({"target_encoder": state}, tmp_path / "mirror" / registry.RELEASED[NAME].file_name)
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("VJEPA2_MIRROR", f"file://{tmp_path / 'mirror'}")
    return tmp_path / "cache"


def run(*arguments: str | Path) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def test_a_released_name_is_brought_once_and_one_line_says_so(
    mirror: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("weights", "convert", NAME, "--to", "ours", "--num-heads", "2", "--crop", "32", "--json")
    run(*arguments, "--out", tmp_path / "first")
    first = capfd.readouterr()
    said = [line for line in first.err.splitlines() if "not on this machine" in line]
    assert said == [f"{NAME} is not on this machine; downloading it (5.1 GB) to {mirror}"]
    assert f"{NAME}: took the official file vitl.pt" in first.err
    run(*arguments, "--out", tmp_path / "second")
    second = capfd.readouterr()
    assert second.err == ""
    assert json.loads(first.out)["digests"] == json.loads(second.out)["digests"]


def test_the_encoder_that_a_world_model_names_is_brought_too(
    mirror: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = AcPredictorSpec(24, 16, 1, 2)
    about = {"kind": "ac_predictor", "spec": vars(spec), "encoder": {"source": f"untrained:{NAME}", "digest": "0"}}
    about |= {"robot": "vjepa2cli-tabletop", "rate": 4.0, "preprocessing": {"crop": 32}}
    save_model(tmp_path / "run" / "model", {"vjepa2cli": about}, AcPredictor(spec).state_dict())
    with pytest.raises(WeightsError, match="pass num_heads="):
        run("evaluate", "--model", tmp_path / "run", "--out", tmp_path / "report.json")
    assert f"{NAME} is not on this machine; downloading it" in capfd.readouterr().err
    assert (mirror / "vitl.pt").is_file()


def test_a_world_model_in_one_file_is_said_to_bring_its_encoder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ac = AcPredictor(AcPredictorSpec(24, 16, 1, 2))
    torch.save({"encoder": Encoder(SPEC).state_dict(), "predictor": ac.state_dict()}, tmp_path / "ac.pt")
    with pytest.raises(Vjepa2Error):
        run("plan", "--obs", "a.png", "--goal", "b.png", "--model", tmp_path / "ac.pt")
    assert f"{tmp_path / 'ac.pt'}: carries its own encoder, which is taken" in capfd.readouterr().err


def test_a_copy_of_the_hub_is_told_apart_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path))
    monkeypatch.setenv("VJEPA2_OFFLINE", "1")
    hub = registry.RELEASED[NAME].hub
    assert hub is not None
    config, tensors = to_transformers(Encoder(SPEC), None)
    del config["vjepa2cli"]
    save_model(tmp_path / hub.name, config, tensors)
    run("weights", "convert", NAME, "--to", "official", "--out", tmp_path / "again.pt")
    assert f"{NAME}: takes the Hugging Face copy {hub.repository}, which holds the online encoder" in capfd.readouterr().err
    run("weights", "list", "--json")
    assert [row["name"] for row in json.loads(capfd.readouterr().out)["weights"] if row["origin"] == "hub"] == [NAME]


def test_the_list_fits_a_hundred_columns(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VJEPA2_HOME", "/cache")
    run("weights", "list")
    listed = capfd.readouterr().out.splitlines()
    assert max(map(len, listed)) <= 100
    for name in registry.RELEASED:
        assert any(line.startswith(f"{name} ") for line in listed)


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for home, caches, expected in (
        ("/weights", "/caches", "/weights"),
        ("", "/caches", "/caches/vjepa2cli"),
        ("", "relative", str(Path.home() / ".cache" / "vjepa2cli")),
        ("", "", str(Path.home() / ".cache" / "vjepa2cli")),
    ):
        monkeypatch.setenv("VJEPA2_HOME", home)
        monkeypatch.setenv("XDG_CACHE_HOME", caches)
        assert str(registry.cache_folder()) == expected
