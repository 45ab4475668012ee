"""One pretraining step by two loops, of the same weights, clips and masks: ours, and one over the modules of transformers."""

import copy
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from vjepa2cli.data.masking import MaskIds
from vjepa2cli.models.weights import to_transformers
from vjepa2cli.settings import PretrainConfig
from vjepa2cli.train.engine import Engine
from vjepa2cli.train.losses import weighted_loss
from vjepa2cli.train.networks import build_encoder, build_predictor
from vjepa2cli.train.objective import MaskedClips, PretrainModule, family_losses
from vjepa2cli.train.process_group import ProcessGroup

MOMENTUM = 0.99925


class Ours:
    """One step as `vjepa2 pretrain` makes it, on clips at hand."""

    def __init__(self, config: PretrainConfig, clips: Tensor, families: list[MaskIds], *, device: torch.device) -> None:
        self.module, self._inputs = fresh_module(config), [MaskedClips(clips, families)]
        parts = {"encoder": self.module.encoder, "predictor": self.module.predictor}
        groups = [
            {"name": name, "params": list(part.parameters()), "peak_lr": 1e-4, "weight_decay": 0.04}
            for name, part in parts.items()
        ]
        self._engine = Engine(self.module, groups, config=config, group=ProcessGroup(device))

    def step(self) -> float:
        """Forward, backward, update, and the average of the weights."""
        sums, counts = self._engine.sums(self._inputs), self.module.counts(self._inputs)
        loss = weighted_loss(sums, counts.to(sums.device), self.module.terms)
        self._engine.backward(loss, last=True)
        self._engine.step()
        self.module.update_target(MOMENTUM)
        return float(loss.detach())


class Plain:
    """The same step by the modules of transformers."""

    def __init__(self, config: PretrainConfig, clips: Tensor, families: list[MaskIds], *, device: torch.device) -> None:
        with warnings.catch_warnings(action="ignore"):
            from transformers import VJEPA2Config, VJEPA2Model
        module = fresh_module(config)
        settings, tensors = to_transformers(module.encoder, module.predictor)
        self.model = VJEPA2Model(VJEPA2Config(**{key: value for key, value in settings.items() if key != "vjepa2cli"}))
        self.model.load_state_dict(tensors)
        self.model.to(device).train()
        self.target = copy.deepcopy(self.model.encoder).requires_grad_(False)
        self._clips, self._families, self._bf16 = clips.transpose(1, 2), families, config.precision == "bf16"
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.04)

    def step(self) -> float:
        """Forward, backward, update, and the average of the weights."""
        self._optimizer.zero_grad()
        with torch.autocast(self._clips.device.type, torch.bfloat16, enabled=self._bf16):
            with torch.no_grad():
                tokens = self.target(self._clips).last_hidden_state.float()
                wanted = F.layer_norm(tokens, tokens.shape[-1:])
            loss = torch.stack([self._family_loss(wanted, ids) for ids in self._families]).mean()
        loss.backward()
        self._optimizer.step()
        with torch.no_grad():
            for kept, now in zip(self.target.parameters(), self.model.encoder.parameters(), strict=True):
                kept.mul_(MOMENTUM).add_(now, alpha=1 - MOMENTUM)
        return float(loss.detach())

    def _family_loss(self, wanted: Tensor, ids: MaskIds) -> Tensor:
        encoder = self.model.encoder
        tokens = gather(encoder.embeddings(self._clips), ids.context_ids)
        for layer in encoder.layer:
            tokens = layer(tokens, ids.context_ids)[0]
        tokens = encoder.layernorm(tokens)
        whole = tokens.new_zeros(len(tokens), wanted.shape[1], tokens.shape[2])
        whole = whole.scatter(1, ids.context_ids[..., None].expand_as(tokens), tokens)  # which the predictor gathers again
        predicted = self.model.predictor(whole, [ids.context_ids], [ids.target_ids]).last_hidden_state
        return (predicted.float() - gather(wanted, ids.target_ids)).abs().mean()


def gather(tokens: Tensor, ids: Tensor) -> Tensor:
    """The tokens of the given ids."""
    return tokens.gather(1, ids[..., None].expand(-1, -1, tokens.shape[-1]))


def fresh_module(config: PretrainConfig) -> PretrainModule:
    """Networks of the same weights whenever they are asked for."""
    generator = torch.Generator().manual_seed(0)
    networks = build_encoder(config, generator=generator), build_predictor(config, generator=generator)
    return PretrainModule(*networks, losses=family_losses(config), by_distance=False, precision=config.precision)
