"""Every kind of source gives the same network; what does not fit is listed; nothing that could run code is opened."""

import os
import pickle
import re
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vjepa2cli import registry
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.errors import WeightsError
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.fitting import mlp_ratio
from vjepa2cli.models.pixels import PixelEncoder
from vjepa2cli.models.predictor import Predictor, PredictorSpec, inference_mask_index
from vjepa2cli.models.probe import AttentiveProbe, ProbeSpec
from vjepa2cli.models.weights import (
    encoder_digest,
    load_ac_predictor,
    load_encoder,
    load_predictor,
    load_probe,
    load_world_model_parts,
    state_digest,
    to_transformers,
)

SPEC = EncoderSpec(24, 2, 2, mlp_ratio=3.0, patch_size=8, crop=32, num_frames=4)
PREDICTOR_SPEC = PredictorSpec(24, 12, 2, 2, num_mask_tokens=3)
AC_SPEC = AcPredictorSpec(24, 16, 2, 2, residual=True, action_mean=(0.0,) * 7, action_std=(0.1,) * 7)
PROBE_SPEC = ProbeSpec(24, num_classes=5, depth=3, num_heads=2)


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path / "cache"))


def encoder(seed: int = 0) -> Encoder:
    return Encoder(SPEC, generator=torch.Generator().manual_seed(seed))


def wrapped(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in network.state_dict().items()}


def training_checkpoint(path: Path) -> Path:
    """The layout of the released files: wrappers' prefixes, optimizer state, legacy positions."""
    tree: dict[str, Any] = {
        "encoder": wrapped(encoder(1), "module.backbone.") | {"module.backbone.pos_embed": torch.zeros(1, 32, 24)},
        "target_encoder": wrapped(encoder(2), "module.backbone."),
        "predictor": wrapped(Predictor(PREDICTOR_SPEC), "module.backbone."),
        "opt": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]},
        "scaler": None,
        "epoch": 7,
    }
    torch.save(tree, path)
    return path


def ac_model(path: Path, source: str, digest: str) -> Path:
    about = {"kind": "ac_predictor", "spec": asdict(AC_SPEC), "encoder": {"source": source, "digest": digest}, "trained_steps": 9}
    save_model(path, {"vjepa2cli": about}, AcPredictor(AC_SPEC).state_dict())
    return path


def encoder_model(path: Path, network: Encoder) -> Path:
    save_model(path, *to_transformers(network, Predictor(PREDICTOR_SPEC)))
    return path


def test_every_kind_of_source_gives_the_same_encoder(tmp_path: Path) -> None:
    original = encoder(2)
    encoder_model(tmp_path / "run" / "model", original)
    save_file(original.state_dict(), tmp_path / "plain.safetensors")
    save_file(wrapped(original, "module.backbone."), tmp_path / "wrapped.safetensors")
    save_file(wrapped(original, "target_encoder.") | wrapped(encoder(3), "encoder."), tmp_path / "several.safetensors")
    torch.save(original.state_dict(), tmp_path / "plain.pth")
    sources: list[tuple[Path, int | None]] = [
        (tmp_path / "run", None),
        (tmp_path / "run" / "model", None),
        (tmp_path / "run" / "model" / "model.safetensors", None),
        (tmp_path / "plain.safetensors", 2),
        (tmp_path / "wrapped.safetensors", 2),
        (tmp_path / "several.safetensors", 2),
        (tmp_path / "plain.pth", 2),
        (training_checkpoint(tmp_path / "latest.pt"), 2),
    ]
    for source, num_heads in sources:
        loaded = load_encoder(source, num_heads)
        assert state_digest(loaded) == state_digest(original), source
        assert not loaded.training
        assert isinstance(loaded, Encoder)
        shape = loaded.spec.embed_dim, loaded.spec.depth, loaded.spec.num_heads, loaded.spec.mlp_ratio, loaded.spec.patch_size
        assert shape == (24, 2, 2, 3.0, 8), source
    assert load_encoder(tmp_path / "run").spec == SPEC


def test_of_several_encoders_the_moving_average_is_taken_unless_asked(tmp_path: Path) -> None:
    source = training_checkpoint(tmp_path / "latest.pt")
    assert state_digest(load_encoder(source, 2)) == state_digest(encoder(2))
    assert state_digest(load_encoder(source, 2, checkpoint_key="encoder")) == state_digest(encoder(1))
    with pytest.raises(WeightsError, match="holds no ema_encoder; it holds encoder, predictor, target_encoder"):
        load_encoder(source, 2, checkpoint_key="ema_encoder")


def test_predictor_and_probe_come_from_folders_and_bare_files(tmp_path: Path) -> None:
    predictor, probe, ac = Predictor(PREDICTOR_SPEC), AttentiveProbe(PROBE_SPEC), AcPredictor(AC_SPEC)
    source = training_checkpoint(tmp_path / "latest.pt")
    assert load_predictor(source, 2).spec == PREDICTOR_SPEC
    assert state_digest(load_predictor(source, 2)) == state_digest(predictor)
    torch.save({"classifiers": [wrapped(probe, "module.")], "epoch": 20}, tmp_path / "probe.pt")
    save_model(tmp_path / "probe", {"vjepa2cli": {"kind": "probe", "num_heads": 2}}, probe.state_dict())
    for loaded in (load_probe(tmp_path / "probe.pt", 2), load_probe(tmp_path / "probe")):
        assert (loaded.spec, state_digest(loaded)) == (PROBE_SPEC, state_digest(probe))
    torch.save({"encoder": encoder().state_dict(), "predictor": wrapped(ac, "module.")}, tmp_path / "ac.pt")
    assert state_digest(load_ac_predictor(tmp_path / "ac.pt", 2)) == state_digest(ac)
    assert load_ac_predictor(ac_model(tmp_path / "ac", "x", "y")).spec == AC_SPEC


def test_the_mask_token_of_inference_is_1_for_released_predictors_and_0_for_ours(tmp_path: Path) -> None:
    """A file says nothing but how many there are, a folder of ours says which; so ten of our own are not taken for released."""
    ten = replace(PREDICTOR_SPEC, num_mask_tokens=10)
    for spec, expected in ((ten, 1), (replace(PREDICTOR_SPEC, num_mask_tokens=8), 1), (PREDICTOR_SPEC, 0)):
        save_file(Predictor(spec).state_dict(), tmp_path / "predictor.safetensors")
        assert inference_mask_index(load_predictor(tmp_path / "predictor.safetensors", 2)) == expected
    config, tensors = to_transformers(encoder(), Predictor(ten))
    save_model(tmp_path / "ours", config, tensors)
    assert inference_mask_index(load_predictor(tmp_path / "ours")) == 0
    del config["vjepa2cli"]
    save_model(tmp_path / "theirs", config, tensors)
    assert inference_mask_index(load_predictor(tmp_path / "theirs")) == 1


def test_a_world_model_in_one_file_asks_for_the_heads_of_both(tmp_path: Path) -> None:
    ac = AcPredictor(AC_SPEC)
    torch.save({"encoder": encoder(1).state_dict(), "predictor": wrapped(ac, "module.")}, tmp_path / "ac.pt")
    with pytest.raises(WeightsError, match=r"ac_predictor: .* pass predictor_heads="):
        load_world_model_parts(tmp_path / "ac.pt")
    with pytest.raises(WeightsError, match=r"encoder: .* pass num_heads="):
        load_world_model_parts(tmp_path / "ac.pt", predictor_heads=2)
    own, loaded, about = load_world_model_parts(tmp_path / "ac.pt", num_heads=2, predictor_heads=2)
    assert (state_digest(own), state_digest(loaded), about) == (state_digest(encoder(1)), state_digest(ac), {})


def test_a_config_that_computes_otherwise_is_refused(tmp_path: Path) -> None:
    config, tensors = to_transformers(encoder(), None)
    save_model(tmp_path / "model", config | {"hidden_act": "relu"}, tensors)
    with pytest.raises(WeightsError, match=r"'hidden_act': 'relu'.*'hidden_act': 'gelu'"):
        load_encoder(tmp_path / "model")


def test_heads_that_the_file_does_not_say_are_asked_for(tmp_path: Path) -> None:
    save_file(encoder().state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(WeightsError, match="pass num_heads="):
        load_encoder(tmp_path / "plain.safetensors")
    with pytest.raises(WeightsError, match="num_heads: 3 was asked for, the file says 2"):
        load_encoder(encoder_model(tmp_path / "model", encoder()), 3)


def test_keys_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = encoder().state_dict()
    del state["norm.bias"]
    state["blocks.1.mlp.fc2.bias"] = torch.zeros(7)
    state["head.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(WeightsError) as caught:
        load_encoder(tmp_path / "odd.pt", 2)
    message = str(caught.value)
    assert "1 missing key: norm.bias" in message
    assert "1 unexpected key: head.weight" in message
    assert "1 misshapen key: blocks.1.mlp.fc2.bias [7] instead of [24]" in message
    assert "\n" not in message


def test_a_missing_key_that_the_shape_hangs_on_is_named(tmp_path: Path) -> None:
    state = encoder().state_dict()
    del state["patch_embed.proj.weight"]
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=r"missing key: patch_embed\.proj\.weight"):
        load_encoder(tmp_path / "odd.pt", 2)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("raw", [False, True])
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path: Path, raw: bool) -> None:
    trap = Malicious(tmp_path / "trapped")
    if raw:
        (tmp_path / "bad.pt").write_bytes(pickle.dumps({"encoder": trap}))
    else:
        torch.save({"encoder": trap}, tmp_path / "bad.pt")
    with pytest.raises(WeightsError, match="nothing that could run code is opened"):
        load_encoder(tmp_path / "bad.pt", 2)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.pt", b""),
        ("text.pt", b"hello, world"),
        ("text.safetensors", b"hello, world"),
        ("tensors.npz", b"PK"),
        ("list.pt", pickle.dumps([1, 2], protocol=2)),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_encoder(tmp_path / name, 2)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    torch.save(encoder().state_dict(), whole) if suffix == ".pt" else save_file(encoder().state_dict(), whole)
    cut.write_bytes(whole.read_bytes()[:-2000])
    with pytest.raises(WeightsError, match=re.escape(str(cut))):
        load_encoder(cut, 2)


def test_a_source_that_is_nowhere_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="did you mean 'vjepa2-vitl-256'"):
        load_encoder("vjepa2-vitl-265")
    url = "https://dl.fbaipublicfiles.com/vjepa2/vitl.pt"
    with pytest.raises(WeightsError, match=re.escape(f"put {url} at {tmp_path / 'cache' / 'vitl.pt'}")):
        load_encoder("vjepa2-vitl-256")
    with pytest.raises(WeightsError, match="a run that has ended"):
        load_encoder(tmp_path)


def test_a_released_name_finds_its_file_and_knows_its_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.SIZES, "large", registry.ModelSize(24, 2, 2, 3.0))
    (tmp_path / "cache").mkdir()
    training_checkpoint(tmp_path / "cache" / "vitl.pt")
    loaded = load_encoder("vjepa2-vitl-256")
    assert (loaded.spec.num_heads, loaded.spec.crop, loaded.spec.num_frames) == (2, 256, 64)
    assert state_digest(loaded) == state_digest(encoder(2))


def test_somebodys_own_file_under_a_released_name_is_not_taken_for_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="pass num_heads="):
        load_encoder(training_checkpoint(tmp_path / "vitl.pt"))


def test_baselines_share_the_source_and_nothing_of_its_weights(tmp_path: Path) -> None:
    trained = encoder_model(tmp_path / "model", encoder(2))
    fresh, pixels = load_encoder(f"untrained:{trained}"), load_encoder(f"pixels:{trained}")
    assert fresh.spec == SPEC
    assert encoder_digest(fresh) == encoder_digest(encoder(0)) != encoder_digest(encoder(2))
    assert isinstance(pixels, PixelEncoder)
    assert (pixels.spec.patch_size, pixels.spec.tubelet_size) == (8, 2)
    assert encoder_digest(pixels).startswith("pixels-")


def test_digests_see_names_shapes_and_values() -> None:
    linear = nn.Linear(2, 3)
    same, turned, moved = nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 3)
    same.load_state_dict(linear.state_dict())
    turned.load_state_dict({"weight": linear.weight.reshape(2, 3), "bias": torch.zeros(2)})
    moved.load_state_dict({"weight": linear.weight, "bias": linear.bias + 1e-3})
    assert state_digest(linear) == state_digest(same)
    assert len({state_digest(module) for module in (linear, turned, moved, nn.Sequential(linear))}) == 4


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


@pytest.mark.parametrize("prefix", ["", "untrained:", "pixels:"])
def test_a_world_model_finds_its_encoder_from_another_folder(elsewhere: Path, prefix: str) -> None:
    expected = load_encoder(f"{prefix}{encoder_model(elsewhere / 'runs' / 'a' / 'model', encoder(2))}")
    source = ac_model(elsewhere / "runs" / "b" / "model", f"{prefix}runs/a", encoder_digest(expected)).parent
    found, ac, about = load_world_model_parts(source)
    assert encoder_digest(found) == encoder_digest(expected)
    assert (ac.spec, about["trained_steps"]) == (AC_SPEC, 9)


def test_a_world_model_refuses_another_encoder_or_none(elsewhere: Path) -> None:
    encoder_model(elsewhere / "a", encoder(1))
    with pytest.raises(WeightsError, match="trained on the latents of another encoder"):
        load_world_model_parts(ac_model(elsewhere / "b", "a", encoder_digest(encoder(2))))
    with pytest.raises(WeightsError, match="its encoder gone is neither here nor beside it"):
        load_world_model_parts(ac_model(elsewhere / "c", "gone", "0"))


def test_a_released_world_model_is_one_file_and_says_how_it_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.SIZES, "giant", registry.ModelSize(24, 2, 2, 3.0))
    row = registry.RELEASED["vjepa2-ac-vitg"]
    shrunk = registry.ReleasedPredictor(16, 2, 2, 0)
    monkeypatch.setitem(registry.RELEASED, row.name, registry.ReleasedModel(**{**vars(row), "predictor": shrunk}))
    (tmp_path / "cache").mkdir()
    tree = {"encoder": wrapped(encoder(1), "module."), "predictor": wrapped(AcPredictor(AC_SPEC), "module.")}
    torch.save(tree, tmp_path / "cache" / row.file_name)
    found, ac, about = load_world_model_parts(row.name)
    assert state_digest(found) == state_digest(encoder(1))
    assert (ac.spec.num_heads, about["preprocessing"]) == (2, {"crop": 256, "geometry": "wide"})


def test_half_precision_files_become_float32_and_do_not_follow_the_file(tmp_path: Path) -> None:
    state = {name: tensor.to(torch.bfloat16) for name, tensor in encoder().state_dict().items()}
    save_file(state, tmp_path / "half.safetensors")
    loaded = load_encoder(tmp_path / "half.safetensors", 2)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(loaded.norm.weight, torch.ones(24))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_pages_of_the_file_that_others_have_changed_stay_changed(tmp_path: Path, suffix: str) -> None:
    """Loading lets go of the pages that it has read itself, and of no others."""
    path = tmp_path / f"plain{suffix}"
    save_file(encoder().state_dict(), path) if suffix == ".safetensors" else torch.save(encoder().state_dict(), path)
    theirs = load_file(path) if suffix == ".safetensors" else torch.load(path, mmap=True)
    theirs["norm.weight"].fill_(7.0)
    loaded = load_encoder(path, 2)
    assert torch.equal(theirs["norm.weight"], torch.full((24,), 7.0))
    assert state_digest(loaded) == state_digest(encoder())


@pytest.mark.parametrize(("dim", "hidden"), [(1408, 6144), (1664, 8192), (96, 385), (1000, 3333), (7, 5)])
def test_a_ratio_read_from_shapes_gives_the_shape_back(dim: int, hidden: int) -> None:
    assert int(dim * mlp_ratio(hidden, dim)) == hidden


def test_loading_warns_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="error"):
        load_encoder(training_checkpoint(tmp_path / "latest.pt"), 2)
