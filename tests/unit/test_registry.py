"""The registry agrees with the networks it describes, and with itself."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from vjepa2cli import registry
from vjepa2cli.errors import WeightsError
from vjepa2cli.models.ac_predictor import AcPredictor, AcPredictorSpec
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.probe import AttentiveProbe, ProbeSpec

V2 = [name for name, row in registry.RELEASED.items() if row.family in ("2", "2-ac")]


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", V2)
def test_networks_of_a_row_have_its_number_of_parameters(name: str) -> None:
    row, size = registry.released(name), registry.size(registry.released(name).size)
    assert row.predictor is not None
    shape = row.predictor.embed_dim, row.predictor.depth, row.predictor.num_heads
    with torch.device("meta"):
        encoder = Encoder(EncoderSpec(size.embed_dim, size.depth, size.num_heads, size.mlp_ratio))
        if row.family == "2-ac":
            predictor: torch.nn.Module = AcPredictor(AcPredictorSpec(size.embed_dim, *shape))
        else:
            predictor = Predictor(PredictorSpec(size.embed_dim, *shape, num_mask_tokens=row.predictor.num_mask_tokens))
    assert (num_parameters(encoder), num_parameters(predictor)) == (row.encoder_parameters, row.predictor.parameters)


@pytest.mark.parametrize("name", [name for name, row in registry.RELEASED.items() if row.hub is not None])
def test_copies_of_the_hub_hold_an_encoder_a_predictor_and_the_probe(name: str) -> None:
    """Two public accounts of the copies give these parameter counts; that the networks here add up to them proves the layout."""
    row, size = registry.released(name), registry.size(registry.released(name).size)
    assert row.hub is not None
    with torch.device("meta"):
        networks: list[torch.nn.Module] = [
            Encoder(EncoderSpec(size.embed_dim, size.depth, size.num_heads, size.mlp_ratio)),
            Predictor(PredictorSpec(size.embed_dim, 384, 12, 12, num_mask_tokens=10)),
        ]
        if row.probe is not None and row.probe.num_classes is not None:
            networks.append(AttentiveProbe(ProbeSpec(size.embed_dim, row.probe.num_classes)))
            assert num_parameters(networks[-1]) == row.probe.parameters
    assert sum(map(num_parameters, networks)) == row.hub.parameters


def test_sizes_that_nobody_states_are_estimated_as_those_that_are_stated() -> None:
    rows = registry.RELEASED
    large, ac = rows["vjepa2-vitl-256"], rows["vjepa2-ac-vitg"]
    assert (large.told_gigabytes, replace(large, gigabytes=None).told_gigabytes) == ("5.1", "~5")
    assert ac.predictor is not None
    assert 4 * (2 * ac.encoder_parameters + 3 * ac.predictor.parameters) / 1e9 == pytest.approx(ac.gigabytes, abs=0.1)
    told = [rows[name].told_gigabytes for name in ("vjepa2-vitg-384", "vjepa2.1-vitG-384", "ssv2-vitl-256", "ek100-vitl-256")]
    assert told == ["~16", ">7.6", ">0.2", "?"]


@pytest.mark.parametrize(
    ("size", "hidden"), [("tiny", 768), ("large", 4096), ("huge", 5120), ("giant", 6144), ("gigantic", 8192)]
)
def test_mlp_ratios_give_the_released_widths(size: str, hidden: int) -> None:
    assert int(registry.SIZES[size].embed_dim * registry.SIZES[size].mlp_ratio) == hidden


def test_names_urls_and_sizes_are_consistent() -> None:
    rows = registry.RELEASED.values()
    assert len({row.url for row in rows}) == len(rows) == 15
    assert all(row.url.startswith("https://dl.fbaipublicfiles.com/vjepa2/") for row in rows)
    assert all(row.size in registry.SIZES for row in rows)
    assert all((row.probe is not None) == (row.family == "probe") for row in rows)
    assert all(registry.released_file(row.file_name) is row for row in rows)


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(WeightsError, match="did you mean 'vjepa2-vitg-384'"):
        registry.released("vjepa2-vitg-385")
    with pytest.raises(WeightsError, match="did you mean 'large'"):
        registry.size("larg")


def test_the_registry_costs_no_torch() -> None:
    code = "import sys, vjepa2cli.registry; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
