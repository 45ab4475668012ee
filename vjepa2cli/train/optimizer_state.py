"""AdamW's moments by parameter name, so that a checkpoint fits any number of processes and any ZeRO stage.

ZeRO keeps the parameters of a group as one flat tensor, of which every process holds a slice with its moments; without it every
process holds all. Each process writes the pieces that it holds, and takes those that it needs from all that were written.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class _Slice:
    """`length` numbers of the parameter `name` from `start` on, which lie at `place` in the tensor that AdamW updates."""

    name: str
    start: int
    length: int
    updated: Tensor
    place: int


def held_state(module: nn.Module, optimizer: Any) -> dict[str, Any]:
    """The pieces of AdamW's state that this process holds: `steps` (0 before the first) and `pieces` by parameter name."""
    adamw: torch.optim.AdamW = getattr(optimizer, "optimizer", optimizer)
    steps, pieces = 0, {}
    for held in _slices(module, optimizer):
        state = adamw.state.get(held.updated)
        if state:
            steps = int(state["step"])
            moments = [state[moment].flatten().narrow(0, held.place, held.length).cpu().clone() for moment in MOMENTS]
            pieces[held.name] = (held.start, *moments)
    return {"steps": steps, "pieces": pieces}


def restore(module: nn.Module, optimizer: Any, written: Sequence[Mapping[str, Any]]) -> None:
    """Give AdamW the state that all processes of an earlier run wrote; raises KeyError where a parameter has none."""
    adamw: torch.optim.AdamW = getattr(optimizer, "optimizer", optimizer)
    adamw.state.clear()
    steps = max((state["steps"] for state in written), default=0)
    if not steps:
        return
    for held in _slices(module, optimizer):
        state = adamw.state.setdefault(held.updated, {})
        if not state:
            state["step"] = torch.tensor(float(steps), device=held.updated.device)  # where a fused update wants it
            state.update({moment: torch.zeros_like(held.updated) for moment in MOMENTS})
        pieces = [state["pieces"][held.name] for state in written if held.name in state["pieces"]]
        if not pieces:
            raise KeyError(held.name)
        for moment, whole in zip(MOMENTS, _joined(pieces), strict=True):
            state[moment].view(-1).narrow(0, held.place, held.length).copy_(whole.narrow(0, held.start, held.length))


def _slices(module: nn.Module, optimizer: Any) -> Iterator[_Slice]:
    under_zero = hasattr(optimizer, "optimizer")
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if not under_zero:
            yield _Slice(name, 0, parameter.numel(), parameter, 0)
        elif (mapping := getattr(parameter, "_hp_mapping", None)) is not None:
            flat = optimizer.optimizer.param_groups[mapping.param_group_index]["params"][0]
            inside, place = mapping.lp_fragment_address, mapping.hp_fragment_address
            yield _Slice(name, inside.start, inside.numel, flat, place.start)


def _joined(pieces: Sequence[tuple[int, Tensor, Tensor]]) -> list[Tensor]:
    ordered = sorted(pieces, key=lambda piece: piece[0])
    return [torch.cat([first for _, first, _ in ordered]), torch.cat([second for _, _, second in ordered])]
