"""The numbers of transformers' V-JEPA 2 with random tiny weights, through the key mapping: parity that a bare clone can prove."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vjepa2cli as vj
from vjepa2cli.artifacts.model_dir import save_model
from vjepa2cli.models.encoder import Encoder, EncoderSpec
from vjepa2cli.models.fitting import Stated, fit_probe
from vjepa2cli.models.key_mapping import (
    from_transformers,
    stated_numbers,
    to_official_names,
    to_transformers,
    to_transformers_names,
)
from vjepa2cli.models.predictor import Predictor, PredictorSpec
from vjepa2cli.models.probe import ProbeSpec

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@contextmanager
def quiet() -> Iterator[None]:
    """transformers and what it imports warn of their own future; what they compute is what is tested here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


with quiet():
    transformers = pytest.importorskip("transformers")

SPEC = EncoderSpec(48, 3, 2, mlp_ratio=10 / 3, crop=64, num_frames=8)
PREDICTOR_SPEC = PredictorSpec(48, 24, 2, 2, mlp_ratio=2.5, num_mask_tokens=3)
GRID = vj.TokenGrid(4, 4, 4)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scrambled(module: torch.nn.Module, seed: int) -> Any:
    """The same network with weights at which every parameter matters: none is zero, no norm is the identity."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator(seed)))
            seed += 1
    return module.eval()


def theirs(model_class: str = "VJEPA2Model", **extra: Any) -> Any:
    config, _ = to_transformers(Encoder(SPEC), Predictor(PREDICTOR_SPEC))
    with quiet():
        model = getattr(transformers, model_class)(transformers.VJEPA2Config(**config, **extra))
    return scrambled(model, seed=5)


def clip() -> Tensor:
    return torch.randn(2, 3, 8, 64, 64, generator=generator(0))


def ids() -> tuple[Tensor, Tensor]:
    shuffled = torch.stack([torch.randperm(GRID.num_tokens, generator=generator(seed)) for seed in (1, 2)])
    return shuffled[:, :20].sort().values, shuffled[:, 20:50].sort().values


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_their_weights_give_our_features_and_predictions() -> None:
    model = theirs()
    encoder, predictor = from_transformers(model.config.to_dict(), model.state_dict())
    assert (encoder.spec, predictor.spec) == (SPEC, PREDICTOR_SPEC)
    context_ids, target_ids = ids()
    with torch.no_grad(), quiet():
        expected = model(clip().transpose(1, 2), context_mask=[context_ids], target_mask=[target_ids])
        features = encoder(clip())
        # transformers encodes the whole clip and gathers the context afterwards.
        context = features.gather(1, context_ids.unsqueeze(-1).expand(-1, -1, SPEC.embed_dim))
        predicted = predictor(context, context_ids, target_ids, grid=GRID, mask_index=1)
    close(features, expected.last_hidden_state)
    close(predicted, expected.predictor_output.last_hidden_state)


def test_our_model_folder_loads_in_transformers(tmp_path: Path) -> None:
    encoder, predictor = scrambled(Encoder(SPEC), seed=7), scrambled(Predictor(PREDICTOR_SPEC), seed=11)
    save_model(tmp_path / "model", *to_transformers(encoder, predictor))
    with quiet():
        model, report = transformers.AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(report.values()), report
    context_ids, target_ids = ids()
    with torch.no_grad(), quiet():
        found = model.eval()(clip().transpose(1, 2), context_mask=[context_ids], target_mask=[target_ids])
        features = encoder(clip())
        context = features.gather(1, context_ids.unsqueeze(-1).expand(-1, -1, SPEC.embed_dim))
        predicted = predictor(context, context_ids, target_ids, grid=GRID, mask_index=1)
    close(found.last_hidden_state, features)
    close(found.predictor_output.last_hidden_state, predicted)


def test_their_folder_loads_here(tmp_path: Path) -> None:
    model = theirs()
    with quiet():
        model.save_pretrained(tmp_path)
    encoder = vj.load_encoder(tmp_path)
    with torch.no_grad(), quiet():
        close(encoder(clip()), model.get_vision_features(clip().transpose(1, 2)))
    assert vj.load_predictor(tmp_path).spec == PREDICTOR_SPEC
    assert vj.load_encoder(tmp_path / "model.safetensors").spec == SPEC


@pytest.mark.parametrize("eps", [1e-6, 1e-5])
def test_their_classifier_gives_our_logits(eps: float) -> None:
    """With the eps that transformers takes from the backbone, and with that of the released probes."""
    model = theirs("VJEPA2ForVideoClassification", num_labels=5, num_pooler_layers=3)
    for name, module in model.pooler.named_modules():
        if "layer_norm" in name:
            module.eps = eps
    networks = to_official_names(model.state_dict())
    numbers = stated_numbers(model.config.to_dict())["probe"]
    assert numbers["eps"] == 1e-6
    probe = fit_probe(networks["probe"], Stated("transformers", numbers | {"eps": eps}))
    tokens = torch.randn(2, 64, 48, generator=generator(3))
    with torch.no_grad(), quiet():
        close(probe(tokens), model.classifier(model.pooler(tokens)))
    assert set(networks) == {"encoder", "predictor", "probe"}


def test_their_classifier_folder_gives_our_encoder_probe_and_logits(tmp_path: Path) -> None:
    model = theirs("VJEPA2ForVideoClassification", num_labels=5, num_pooler_layers=3)
    with quiet():
        model.save_pretrained(tmp_path)
    encoder, probe = vj.load_encoder(tmp_path), vj.load_probe(tmp_path)
    assert (encoder.spec, probe.spec) == (SPEC, ProbeSpec(48, num_classes=5, num_heads=2, eps=1e-6))
    with torch.no_grad(), quiet():
        logits = probe(encoder(clip()))
        assert isinstance(logits, Tensor)
        close(logits, model(clip().transpose(1, 2)).logits)


def test_the_key_mapping_is_its_own_inverse() -> None:
    with quiet():
        original = theirs("VJEPA2ForVideoClassification", num_labels=5).state_dict()
    networks = to_official_names(original)
    back = {name: tensor for network, state in networks.items() for name, tensor in to_transformers_names(network, state).items()}
    backbone = {name.removeprefix("vjepa2."): tensor for name, tensor in original.items()}
    assert back.keys() == backbone.keys()
    assert all(torch.equal(back[name], backbone[name]) for name in back)


def test_a_part_of_a_fused_weight_that_is_missing_is_named(tmp_path: Path) -> None:
    config, tensors = to_transformers(Encoder(SPEC), Predictor(PREDICTOR_SPEC))
    del tensors["encoder.layer.1.attention.key.weight"]
    save_model(tmp_path / "model", config, tensors)
    with pytest.raises(vj.Vjepa2Error, match=r"1 missing key: blocks\.1\.attn\.qkv\.weight; 2 unexpected keys: .*query\.weight"):
        vj.load_encoder(tmp_path)
