"""What a checkpoint holds is told as it is, without reading a tensor and without running anything."""

import json
import resource
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vjepa2cli import registry
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.errors import WeightsError
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.contents import read_contents
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.encoder_v21 import EncoderV21, EncoderV21Spec
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.predictor_v21 import PredictorV21, PredictorV21Spec
from vjepa2cli.models.probe import AnticipationProbe, AnticipationProbeSpec, AttentiveProbe, ProbeSpec
from vjepa2cli.models.weights import to_folder, to_transformers

SPEC = EncoderSpec(24, 2, 2, mlp_ratio=3.0, patch_size=8, crop=32, num_frames=4)
PREDICTOR_SPEC = PredictorSpec(24, 12, 3, 2, num_mask_tokens=3)


def wrapped(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in network.state_dict().items()}


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_a_training_checkpoint_is_told_key_by_key(tmp_path: Path) -> None:
    encoder, predictor = Encoder(SPEC), Predictor(PREDICTOR_SPEC)
    tree: dict[str, Any] = {
        "encoder": wrapped(encoder, "module.backbone.") | {"module.backbone.pos_embed": torch.zeros(1, 32, 24)},
        "target_encoder": {name: tensor.bfloat16() for name, tensor in wrapped(encoder, "module.").items()},
        "predictor": wrapped(predictor, "module.backbone."),
        "opt": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]},
        "scaler": None,
        "epoch": 7,
    }
    torch.save(tree, tmp_path / "latest.pt")
    contents = read_contents(tmp_path / "latest.pt")
    online, target, third = contents.networks
    assert [network.network for network in contents.networks] == ["encoder", "target_encoder", "predictor"]
    assert contents.top_level == {
        "encoder": f"dict of {len(tree['encoder'])}",
        "target_encoder": f"dict of {len(tree['target_encoder'])}",
        "predictor": f"dict of {len(tree['predictor'])}",
        "opt": "dict of 2",
        "scaler": "nothing",
        "epoch": "int 7",
    }
    assert (online.prefixes, target.prefixes) == (("module.backbone.",), ("module.",))
    assert online.parameters == target.parameters == num_parameters(encoder)
    assert third.parameters == num_parameters(predictor)
    assert (online.num_tensors, target.num_tensors) == (len(tree["encoder"]), len(tree["encoder"]) - 1)
    assert target.dtypes == {"bfloat16": target.num_tensors}
    assert (target.width, target.depth, target.mlp_ratio, target.patch_size) == (24, 2, 3.0, 8)
    assert (third.width, third.depth) == (12, 3)
    assert (target.size, target.exact, target.num_heads) == ("tiny", False, None)
    assert target.shapes["module.patch_embed.proj.weight"] == [24, 3, 2, 8, 8]


def test_a_model_folder_tells_heads_that_its_config_states(tmp_path: Path) -> None:
    encoder, predictor = Encoder(SPEC), Predictor(PREDICTOR_SPEC)
    save_model(tmp_path / "run" / "model", *to_transformers(encoder, predictor))
    contents = read_contents(tmp_path / "run")
    assert contents.layout == "ours"
    found = {network.network: (network.num_heads, network.parameters) for network in contents.networks}
    assert found == {"encoder": (2, num_parameters(encoder)), "predictor": (2, num_parameters(predictor))}


def test_a_folder_of_v2_1_tells_both_networks(tmp_path: Path) -> None:
    encoder, predictor = EncoderV21(EncoderV21Spec(48, 4, 2)), PredictorV21(PredictorV21Spec(48, 48, 24, 2, 4))
    save_model(tmp_path, *to_folder(encoder, predictor))
    found = {
        network.network: (network.family, network.num_heads, network.parameters) for network in read_contents(tmp_path).networks
    }
    assert found == {"encoder": ("2.1", 2, num_parameters(encoder)), "predictor": ("2.1", 4, num_parameters(predictor))}


def test_the_classifiers_of_a_probe_are_counted(tmp_path: Path) -> None:
    probe = AnticipationProbe(AnticipationProbeSpec(48, num_verbs=3, num_nouns=4, num_actions=6, num_heads=2))
    torch.save({"classifiers": [wrapped(probe, "module.")]}, tmp_path / "probe.pt")
    (network,) = read_contents(tmp_path / "probe.pt").networks
    assert network.outputs == {"verb_classifier": 3, "noun_classifier": 4, "action_classifier": 6}


def test_ac_predictors_probes_and_flat_files_are_told_apart(tmp_path: Path) -> None:
    ac, probe = AcPredictor(AcPredictorSpec(24, 16, 2, 2)), AttentiveProbe(ProbeSpec(24, num_classes=5, depth=3, num_heads=2))
    save_model(tmp_path / "ac", {"vjepa2cli": {"kind": "ac_predictor", "spec": asdict(ac.spec)}}, ac.state_dict())
    torch.save({"classifiers": [wrapped(probe, "module."), wrapped(probe, "module.")]}, tmp_path / "probes.pt")
    save_file(wrapped(Encoder(SPEC), "encoder.") | wrapped(Encoder(SPEC), "ema_encoder."), tmp_path / "several.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    (network,) = read_contents(tmp_path / "ac").networks
    assert (network.network, network.num_heads, network.depth) == ("ac_predictor", 2, 2)
    pair = read_contents(tmp_path / "probes.pt").networks
    assert [(network.key, network.network, network.depth) for network in pair] == [
        ("classifiers[0]", "probe", 3),
        ("classifiers[1]", "probe", 3),
    ]
    flat = read_contents(tmp_path / "several.safetensors").networks
    assert {network.network for network in flat} == {"encoder", "ema_encoder"}
    assert [network.network for network in read_contents(tmp_path / "other.safetensors").networks] == ["unknown"]


def test_v2_1_is_told_and_not_refused(tmp_path: Path) -> None:
    state = Encoder(SPEC).state_dict() | {"norms_block.0.weight": torch.ones(24), "video_mod_embed": torch.zeros(1, 1, 24)}
    torch.save({"ema_encoder": state}, tmp_path / "new.pt")
    (network,) = read_contents(tmp_path / "new.pt").networks
    assert (network.network, network.family) == ("ema_encoder", "2.1")


@pytest.mark.parametrize("size", ["base", "large", "giant"])
def test_a_released_size_is_known_and_a_file_of_gigabytes_is_not_read(tmp_path: Path, size: str) -> None:
    """The file is sparse: its header says what it holds, and its zeros are never asked for."""
    row = registry.SIZES[size]
    spec = EncoderSpec(row.embed_dim, row.depth, row.num_heads, row.mlp_ratio)
    with torch.device("meta"):
        encoder = Encoder(spec)
    header, position = {}, 0
    for name, tensor in encoder.state_dict().items():
        end = position + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    path = tmp_path / "large.safetensors"
    with path.open("wb") as handle:
        handle.write(struct.pack("<Q", len(text)) + text)
        handle.truncate(8 + len(text) + position)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (network,) = read_contents(path).networks
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert (network.size, network.exact, network.num_heads) == (size, True, row.num_heads)
    assert network.parameters == num_parameters(encoder)
    assert network.num_bytes == position
    assert grown * 1024 < position / 10


@pytest.mark.parametrize("content", [{}, {"config.json": "{}"}, {"model.safetensors": ""}])
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(WeightsError, match=r"no (config\.json|model\*\.safetensors) in it"):
        read_contents(tmp_path)
