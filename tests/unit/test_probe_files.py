"""The released probes of the next action: three queries, three classifiers, one file."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vjepa2cli import registry
from vjepa2cli.errors import WeightsError
from vjepa2cli.models.probe import AnticipationProbe, AnticipationProbeSpec
from vjepa2cli.models.weights import load_probe, state_digest


def wrapped(network: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in network.state_dict().items()}


def test_a_probe_of_the_next_action_loads_strictly(tmp_path: Path) -> None:
    probe = AnticipationProbe(AnticipationProbeSpec(24, num_verbs=3, num_nouns=4, num_actions=6, depth=3, num_heads=2))
    torch.save({"classifiers": [wrapped(probe, "module.")]}, tmp_path / "ek100.pt")
    loaded = load_probe(tmp_path / "ek100.pt", 2)
    assert (loaded.spec, state_digest(loaded)) == (probe.spec, state_digest(probe))
    state = wrapped(probe, "module.")
    del state["module.noun_classifier.bias"]
    state["module.pooler.query_tokens"] = torch.zeros(1, 1, 24)
    torch.save({"classifiers": [state]}, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=r"1 missing key: noun_classifier\.bias; 1 misshapen key: pooler\.query_tokens"):
        load_probe(tmp_path / "odd.pt", 2)


def test_a_released_probe_of_the_next_action_knows_its_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.SIZES, "large", registry.ModelSize(64, 2, 2))
    probe = AnticipationProbe(AnticipationProbeSpec(64, 3, 4, 6, num_heads=16))
    monkeypatch.setenv("VJEPA2_HOME", str(tmp_path))
    torch.save({"classifiers": [wrapped(probe, "module.")]}, tmp_path / "ek100-vitl-256.pt")
    assert load_probe("ek100-vitl-256").spec == probe.spec
