"""Finetuning (§4.2, clause E3): Adam on the edited matrices until x_e is predicted as desired. Nothing is trained.

Edits are independent: each has its own ΔW and moments, and leaves the batch when it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..names import Optimiser
from ..updates import Update

if TYPE_CHECKING:
    from . import Edits

NAME = "finetuning"
TITLE = "Finetuning"
TRAINED = False
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # of Adam, as published
ALPHA, LARGEST = 0.99, 100.0  # RMSprop's default in torch; the norm at which the released code clips
PIECE = 1 << 16  # elements that Adam updates at a time


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyper-parameters; the defaults are the paper's (§B.2)."""

    lr: float = 5e-6
    steps: int = 100  # at most; 1 at least
    #: "rmsprop" is the released code's: the gradient of all matrices is clipped to a norm of 100.
    optimiser: Optimiser = field(default="adam", metadata={"ruling": "finetuning_optimiser"})


def init(raw: Mapping[str, Tensor], width: int, settings: Settings, seed: int) -> dict[str, Tensor]:
    """No parameters: there is no editor to train."""
    return {}


def learning_rates(parameters: Mapping[str, Tensor], settings: Settings) -> dict[str, float]:
    """No parameters, so no learning rates."""
    return {}


@torch.no_grad()
def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """The dense ΔW of each edit after its last step (clause E12)."""
    take_step = _adam if settings.optimiser == "adam" else _rmsprop
    result: dict[str, Tensor] = {}
    # The edits that are not done: their indices, and per matrix ΔW and the two moments, (K, m, n) each.
    running, state = torch.empty(0), dict[str, tuple[Tensor, Tensor, Tensor]]()
    for step in range(settings.steps):
        at = Update(deltas={name: delta for name, (delta, _, _) in state.items()}) if state else None
        gradient = edits.gradient(at)
        done = gradient.correct()
        if not state:
            running = torch.arange(len(done), device=done.device)
            for name, (x, delta) in gradient.factors.items():
                # The optimiser's state is never bf16, even if the products are.
                exact = torch.promote_types(delta.dtype, torch.float32)
                zeros = x.new_zeros(len(x), delta.shape[-1], x.shape[-1], dtype=exact)
                result[name], state[name] = zeros, (zeros.clone(), zeros.clone(), zeros.clone())
        for name, (delta, _, _) in state.items():
            result[name][running[done]] = delta[done]
        if done.all():
            return Update(deltas=result)
        left = (~done).nonzero()[:, 0]
        if done.any():
            running, edits = running[left], edits.take(left)
            state = {name: (d[left], first[left], second[left]) for name, (d, first, second) in state.items()}
        gradients = {
            name: (delta[left].mT @ x[left]).to(state[name][0]) for name, (x, delta) in gradient.factors.items()
        }
        if settings.optimiser == "rmsprop":
            _clip(gradients)
        for name, g in gradients.items():
            take_step(*state[name], g, step + 1, settings.lr)
    for name, (delta, _, _) in state.items():
        result[name][running] = delta
    return Update(deltas=result)


def _adam(delta: Tensor, first: Tensor, second: Tensor, gradient: Tensor, step: int, lr: float) -> None:
    """One step of Adam, in place, piece by piece: a piece fits in the CPU cache."""
    pieces = zip(*(t.flatten().split(PIECE) for t in (delta, first, second, gradient)), strict=True)
    for d, m, v, g in pieces:
        m.lerp_(g, 1 - BETA1)
        v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
        root = v.sqrt().div_((1 - BETA2**step) ** 0.5).add_(EPS)
        d.addcdiv_(m, root, value=-lr / (1 - BETA1**step))


def _rmsprop(delta: Tensor, first: Tensor, second: Tensor, gradient: Tensor, step: int, lr: float) -> None:
    """One step of RMSprop, in place; the first moment and the step are not used."""
    second.mul_(ALPHA).addcmul_(gradient, gradient, value=1 - ALPHA)
    delta.addcdiv_(gradient, second.sqrt().add_(EPS), value=-lr)


def _clip(gradients: Mapping[str, Tensor]) -> None:
    """Scale each edit's gradient over all matrices down to the largest norm, in place."""
    norm = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)
    for g in gradients.values():
        g.mul_((LARGEST / (norm + 1e-6)).clamp(max=1)[:, None, None])
