"""A checkpoint that goes through another layout and back is the same bit for bit; transformers loads what is written for it."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.conversion import Asked, Layout, convert
from vjepa2cli.errors import ArtifactError, WeightsError
from vjepa2cli.files import digest_file, read_json
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.checkpoints import read_checkpoint
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.encoder_v21 import EncoderV21, EncoderV21Spec
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.probe import AnticipationProbe, AnticipationProbeSpec, AttentiveProbe, ProbeSpec
from vjepa2cli.models.weights import (
    encoder_digest,
    load_encoder,
    load_predictor,
    load_probe,
    load_world_model_parts,
    state_digest,
)

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SPEC = EncoderSpec(48, 3, 2, mlp_ratio=10 / 3, crop=64, num_frames=8)
PREDICTOR_SPEC = PredictorSpec(48, 24, 2, 3, mlp_ratio=2.5, num_mask_tokens=3)
ASKED = Asked(num_heads=2, predictor_heads=3, crop=64)
AC_SPEC = AcPredictorSpec(48, 16, 2, 2, residual=True, action_mean=(0.0,) * 7, action_std=(0.1,) * 7)


@contextmanager
def quiet() -> Iterator[None]:
    """transformers and what it imports warn of their own future; what they compute is what is tested here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def scrambled(module: nn.Module, seed: int) -> Any:
    """The same network with weights of which none is zero or one."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
            seed += 1
    return module.eval()


def wrapped(network: nn.Module) -> dict[str, Tensor]:
    return {f"module.backbone.{name}": tensor for name, tensor in network.state_dict().items()}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """The layout of the released files: two encoders, a predictor, an optimizer and the positions of old."""
    target = wrapped(scrambled(Encoder(SPEC), 2)) | {"module.backbone.pos_embed": torch.zeros(1, 64, 48)}
    tree = {
        "encoder": wrapped(scrambled(Encoder(SPEC), 1)),
        "target_encoder": target,
        "predictor": wrapped(scrambled(Predictor(PREDICTOR_SPEC), 3)),
        "opt": {"state": {}},
        "epoch": 7,
    }
    torch.save(tree, tmp_path / "latest.pt")
    return tmp_path / "latest.pt"


def states(source: Path) -> dict[str, dict[str, Tensor]]:
    networks = read_checkpoint(source).networks
    kept = {"encoder": networks.get("target_encoder", networks.get("encoder", {})), "predictor": networks["predictor"]}
    return {network: {name: kept[network][name] for name in kept[network] if name != "pos_embed"} for network in kept}


def assert_equal_bits(actual: dict[str, dict[str, Tensor]], expected: dict[str, dict[str, Tensor]]) -> None:
    for network, state in expected.items():
        assert actual[network].keys() == state.keys()
        for name, tensor in state.items():
            assert actual[network][name].dtype == tensor.dtype
            assert torch.equal(actual[network][name].view(torch.int32), tensor.view(torch.int32)), name


@pytest.mark.parametrize("layout", ["transformers", "ours"])
def test_official_weights_come_back_bit_for_bit(official: Path, tmp_path: Path, layout: Layout) -> None:
    there = convert(str(official), tmp_path / "folder", to=layout, asked=ASKED)
    back = convert(str(tmp_path / "folder"), tmp_path / "back.pt", to="official")
    assert there.digests == back.digests
    assert_equal_bits(states(tmp_path / "folder"), states(official))
    assert_equal_bits(states(tmp_path / "back.pt"), states(official))
    again = convert(str(tmp_path / "back.pt"), tmp_path / "again", to=layout, asked=ASKED)
    assert again.digests == there.digests
    assert digest_file(tmp_path / "again" / "model.safetensors") == digest_file(tmp_path / "folder" / "model.safetensors")


def test_ours_to_transformers_and_back_keeps_the_spec_and_every_bit(official: Path, tmp_path: Path) -> None:
    convert(str(official), tmp_path / "ours", to="ours", asked=ASKED)
    convert(str(tmp_path / "ours"), tmp_path / "theirs", to="transformers")
    convert(str(tmp_path / "theirs"), tmp_path / "back", to="ours")
    assert "vjepa2cli" not in read_json(tmp_path / "theirs" / "config.json")
    for name in ("model.safetensors", "config.json"):
        assert digest_file(tmp_path / "back" / name) == digest_file(tmp_path / "ours" / name)
    spec = load_encoder(tmp_path / "theirs").spec
    assert isinstance(spec, EncoderSpec)
    assert replace(spec, num_frames=SPEC.num_frames) == SPEC
    assert load_predictor(tmp_path / "theirs").spec == PREDICTOR_SPEC


def test_the_encoder_is_the_moving_average_unless_asked(official: Path, tmp_path: Path) -> None:
    found = {}
    for key in (None, "encoder", "target_encoder"):
        out = tmp_path / f"{key}"
        found[key] = convert(str(official), out, to="ours", asked=replace(ASKED, checkpoint_key=key)).digests["encoder"]
    assert found[None] == found["target_encoder"] == state_digest(scrambled(Encoder(SPEC), 2))
    assert found["encoder"] == state_digest(scrambled(Encoder(SPEC), 1))


def test_an_official_file_holds_the_tensors_once_under_both_names(official: Path, tmp_path: Path) -> None:
    convert(str(official), tmp_path / "out.pt", to="official", asked=ASKED)
    held = read_checkpoint(tmp_path / "out.pt").networks
    num_bytes = sum(tensor.nbytes for network in ("encoder", "predictor") for tensor in held[network].values())
    assert held["encoder"].keys() == held["target_encoder"].keys()
    assert num_bytes < (tmp_path / "out.pt").stat().st_size < 1.5 * num_bytes
    for key in ("encoder", "target_encoder"):
        loaded = load_encoder(tmp_path / "out.pt", 2, checkpoint_key=key)
        assert state_digest(loaded) == state_digest(scrambled(Encoder(SPEC), 2))


@pytest.mark.parametrize(("layout", "name"), [("official", "slim.pt"), ("transformers", "slim"), ("ours", "slim")])
def test_slim_keeps_one_encoder_in_half_the_bytes(official: Path, tmp_path: Path, layout: Layout, name: str) -> None:
    converted = convert(str(official), tmp_path / name, to=layout, slim=True, asked=ASKED)
    held = read_checkpoint(tmp_path / name).networks
    assert set(held) <= {"encoder", "target_encoder"}
    assert {tensor.dtype for state in held.values() for tensor in state.values()} == {torch.bfloat16}
    loaded, whole = load_encoder(tmp_path / name, 2), load_encoder(official, 2)
    assert state_digest(loaded) == converted.digests["encoder"]
    for rounded, exact in zip(loaded.parameters(), whole.parameters(), strict=True):
        assert torch.equal(rounded, exact.bfloat16().float())


@pytest.mark.parametrize("slim", [False, True])
def test_a_converted_folder_gives_our_features_in_transformers(official: Path, tmp_path: Path, slim: bool) -> None:
    with quiet():
        transformers = pytest.importorskip("transformers")
    convert(str(official), tmp_path / "folder", to="transformers", slim=slim, asked=ASKED)
    clip = torch.randn(1, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    with quiet(), torch.no_grad():
        model, report = transformers.AutoModel.from_pretrained(tmp_path / "folder", output_loading_info=True)
        assert model.dtype == (torch.bfloat16 if slim else torch.float32)
        found = model.float().eval().get_vision_features(clip.transpose(1, 2))
        expected = load_encoder(tmp_path / "folder")(clip)
    # A file that was slimmed holds no predictor, and transformers makes its own.
    assert all(name.startswith("predictor.") for names in report.values() for name in names) if slim else not any(report.values())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_world_model_takes_its_encoder_along(tmp_path: Path) -> None:
    encoder, ac = scrambled(Encoder(SPEC), 1), scrambled(AcPredictor(AC_SPEC), 2)
    save_model(tmp_path / "encoder", *_model(encoder))
    about = {
        "kind": "ac_predictor",
        "spec": asdict(AC_SPEC),
        "encoder": {"source": str(tmp_path / "encoder"), "digest": encoder_digest(encoder)},
        "trained_steps": 9,
    }
    save_model(tmp_path / "ac", {"vjepa2cli": about}, ac.state_dict())
    convert(str(tmp_path / "ac"), tmp_path / "moved" / "whole", to="ours")
    (tmp_path / "moved").rename(tmp_path / "elsewhere")
    loaded, head, told = load_world_model_parts(tmp_path / "elsewhere" / "whole")
    assert (state_digest(loaded), state_digest(head)) == (state_digest(encoder), state_digest(ac))
    assert told["trained_steps"] == 9
    convert(str(tmp_path / "ac"), tmp_path / "ac.pt", to="official")
    held = read_checkpoint(tmp_path / "ac.pt").networks
    assert held["ac_predictor"].keys() == ac.state_dict().keys()
    assert all(torch.equal(held["ac_predictor"][name], tensor) for name, tensor in ac.state_dict().items())
    convert(str(tmp_path / "ac.pt"), tmp_path / "again", to="ours", asked=Asked(num_heads=2, predictor_heads=2, crop=64))
    loaded, head, _ = load_world_model_parts(tmp_path / "again")
    assert (state_digest(loaded), state_digest(head)) == (state_digest(encoder), state_digest(ac))
    with pytest.raises(WeightsError, match="transformers has no layout"):
        convert(str(tmp_path / "ac"), tmp_path / "no", to="transformers")


def _model(encoder: Encoder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from vjepa2cli.models.weights import to_transformers

    return to_transformers(encoder, None)


def test_a_probe_goes_both_ways(tmp_path: Path) -> None:
    probe = scrambled(AttentiveProbe(ProbeSpec(24, num_classes=5, depth=3, num_heads=2)), 1)
    save_model(tmp_path / "probe", {"vjepa2cli": {"kind": "probe", "num_heads": 2}}, probe.state_dict())
    convert(str(tmp_path / "probe"), tmp_path / "probe.pt", to="official")
    convert(str(tmp_path / "probe.pt"), tmp_path / "back", to="ours", asked=Asked(num_heads=2))
    assert state_digest(load_probe(tmp_path / "back")) == state_digest(probe)


def test_what_exists_is_left_alone_and_what_cannot_be_read_again_is_refused(official: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "note").touch()
    with pytest.raises(ArtifactError, match="exists"):
        convert(str(official), tmp_path / "precious", to="ours", asked=ASKED)
    assert (tmp_path / "precious" / "note").exists()
    with pytest.raises(ArtifactError, match="its name ends in"):
        convert(str(official), tmp_path / "folder", to="official", asked=ASKED)
    for asked, reason in ((Asked(), "pass num_heads="), (replace(ASKED, crop=None), "pass crop=")):
        with pytest.raises(WeightsError, match=reason):
            convert(str(official), tmp_path / "folder", to="ours", asked=asked)
    convert(str(official), tmp_path / "ours", to="ours", asked=ASKED)
    with pytest.raises(WeightsError, match="crop: 256 was asked for, the source says 64"):
        convert(str(tmp_path / "ours"), tmp_path / "folder", to="ours", asked=Asked(crop=256))
    assert not (tmp_path / "folder").exists()


def test_v2_1_keeps_its_bits_in_every_layout_but_that_of_transformers(tmp_path: Path) -> None:
    network = scrambled(EncoderV21(EncoderV21Spec(48, 4, 2, crop=64)), 4)
    torch.save({"ema_encoder": wrapped(network)}, tmp_path / "v21.pt")
    convert(str(tmp_path / "v21.pt"), tmp_path / "again.pt", to="official", asked=Asked(num_heads=2))
    convert(str(tmp_path / "v21.pt"), tmp_path / "ours", to="ours", asked=Asked(num_heads=2, crop=64))
    convert(str(tmp_path / "ours"), tmp_path / "back.pt", to="official")
    for source, num_heads in (("again.pt", 2), ("ours", None), ("back.pt", 2)):
        loaded = load_encoder(tmp_path / source, num_heads)
        assert isinstance(loaded, EncoderV21)
        assert state_digest(loaded) == state_digest(network)
    assert load_encoder(tmp_path / "ours").spec == network.spec
    with pytest.raises(WeightsError, match=r"transformers has no V-JEPA 2\.1"):
        convert(str(tmp_path / "v21.pt"), tmp_path / "folder", to="transformers", asked=Asked(num_heads=2, crop=64))
    assert not (tmp_path / "folder").exists()


PROBE = Asked(num_heads=2, predictor_heads=3, crop=64, probe_heads=2)


@pytest.fixture
def official_probe(tmp_path: Path) -> Path:
    probe = scrambled(AttentiveProbe(ProbeSpec(48, num_classes=5, depth=3, num_heads=2)), 9)
    torch.save({"classifiers": [{f"module.{name}": x for name, x in probe.state_dict().items()}]}, tmp_path / "probe.pt")
    return tmp_path / "probe.pt"


@pytest.mark.parametrize("layout", ["transformers", "ours"])
def test_a_classifier_is_joined_and_comes_back_bit_for_bit(
    official: Path, official_probe: Path, tmp_path: Path, layout: Layout
) -> None:
    convert(str(official), tmp_path / "folder", to=layout, asked=replace(PROBE, probe=str(official_probe)))
    back = convert(str(tmp_path / "folder"), tmp_path / "back.pt", to="official")
    assert set(back.digests) == {"encoder", "predictor", "probe"}
    assert_equal_bits(states(tmp_path / "back.pt"), states(official))
    probes = {"probe": read_checkpoint(official_probe).networks["probe"]}
    assert_equal_bits(read_checkpoint(tmp_path / "folder").networks, probes)
    assert_equal_bits(read_checkpoint(tmp_path / "back.pt").networks, probes)
    again = convert(str(tmp_path / "back.pt"), tmp_path / "again", to=layout, asked=PROBE)
    assert again.digests == back.digests
    assert digest_file(tmp_path / "again" / "model.safetensors") == digest_file(tmp_path / "folder" / "model.safetensors")
    # What transformers computes has its eps; a folder of ours remembers the released one.
    assert load_probe(tmp_path / "folder").spec.eps == (1e-6 if layout == "transformers" else 1e-5)


def test_a_converted_classifier_gives_our_logits_in_transformers(
    official: Path, official_probe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with quiet():
        transformers = pytest.importorskip("transformers")
    convert(str(official), tmp_path / "folder", to="transformers", asked=replace(PROBE, probe=str(official_probe)))
    assert "computes the probe's norms with 1e-06, not 1e-05" in caplog.text
    clip = torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    with quiet(), torch.no_grad():
        model, report = transformers.AutoModelForVideoClassification.from_pretrained(
            tmp_path / "folder", output_loading_info=True
        )
        found = model.eval()(clip.transpose(1, 2)).logits
        probe = load_probe(tmp_path / "folder")
        expected = probe(load_encoder(tmp_path / "folder")(clip))
    assert not any(report.values()), report
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_names_of_classes_go_along(official: Path, tmp_path: Path) -> None:
    probe, classes = AttentiveProbe(ProbeSpec(48, num_classes=3, depth=3, num_heads=2)), ["left", "right", "up"]
    about = {"kind": "probe", "spec": asdict(probe.spec), "classes": classes}
    save_model(tmp_path / "probe", {"vjepa2cli": about}, probe.state_dict())
    convert(str(official), tmp_path / "folder", to="transformers", asked=replace(ASKED, probe=str(tmp_path / "probe")))
    assert read_json(tmp_path / "folder" / "config.json")["id2label"] == {str(k): name for k, name in enumerate(classes)}


@pytest.mark.parametrize(("probe_heads", "slim", "reason"), [(4, False, "encoder's 2 heads"), (2, True, "leave --slim")])
def test_a_probe_that_transformers_would_compute_otherwise_is_not_joined(
    official: Path, official_probe: Path, tmp_path: Path, probe_heads: int, slim: bool, reason: str
) -> None:
    asked = replace(PROBE, probe=str(official_probe), probe_heads=probe_heads)
    with pytest.raises(WeightsError, match=reason):
        convert(str(official), tmp_path / "folder", to="transformers", slim=slim, asked=asked)
    assert not (tmp_path / "folder").exists()


def test_a_probe_of_the_next_action_goes_both_ways_alone(official: Path, tmp_path: Path) -> None:
    probe = scrambled(AnticipationProbe(AnticipationProbeSpec(48, 3, 4, 6, num_heads=2)), 1)
    torch.save({"classifiers": [probe.state_dict()]}, tmp_path / "ek100.pt")
    convert(str(tmp_path / "ek100.pt"), tmp_path / "ours", to="ours", asked=Asked(num_heads=2))
    convert(str(tmp_path / "ours"), tmp_path / "back.pt", to="official")
    for source in (load_probe(tmp_path / "ours"), load_probe(tmp_path / "back.pt", 2)):
        assert (source.spec, state_digest(source)) == (probe.spec, state_digest(probe))
    with pytest.raises(WeightsError, match="transformers has no layout for probe alone"):
        convert(str(tmp_path / "ek100.pt"), tmp_path / "no", to="transformers", asked=Asked(num_heads=2))
    with pytest.raises(WeightsError, match="has no place in a folder with an encoder"):
        convert(str(official), tmp_path / "no", to="ours", asked=replace(PROBE, probe=str(tmp_path / "ek100.pt")))
