"""Editable Training (Sinitsin et al. 2020; clause E4): the raw model is trained to be edited by one gradient step.

θ_u = θ' - lr·∇L(θ'), with one learned lr per matrix. θ' = θ + shift, where only the edited matrices are shifted; the
shift is trained through the inner step, second order included. Locality and consistency refer to the original θ (T6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..types import Edits, Update

NAME = "editable_training"
SHIFT, LOG_INNER_LR = "editable_training.shift.", "editable_training.log_inner_lr"


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyper-parameters; the defaults are the paper's (§B.2)."""

    lr: float = 5e-5  # of the shift
    inner_lr: float = 1e-4  # where the learned inner learning rates start
    inner_lr_lr: float = 1e-4  # their own learning rate, of log lr_W


def init(
    shapes: Mapping[str, tuple[int, int]], width: int, like: Tensor, settings: Settings, seed: int
) -> dict[str, Tensor]:
    """Per matrix {name: (n, m)} a shift (m, n) of zeros, and log lr (matrices,) in the order of `shapes`."""
    shifts = {f"{SHIFT}{name}": like.new_zeros(m, n) for name, (n, m) in shapes.items()}
    return shifts | {LOG_INNER_LR: like.new_full((len(shapes),), math.log(settings.inner_lr))}


def learning_rates(parameters: Mapping[str, Tensor], settings: Settings) -> dict[str, float]:
    """The learning rate of each parameter; every one is owned once (clause E9)."""
    return {name: settings.inner_lr_lr if name == LOG_INNER_LR else settings.lr for name in parameters}


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """The shift, shared by all edits, and each edit's own gradient step.

    The shift is the parameter itself, since a copy would be as large as the matrices (clause B4): unlike other updates,
    this one does not outlast a step of training.
    """
    shift = {name.removeprefix(SHIFT): p[None] for name, p in parameters.items() if name.startswith(SHIFT)}
    gradient = edits.gradient(Update(deltas=shift), differentiable=torch.is_grad_enabled())
    rates = parameters[LOG_INNER_LR].exp()
    steps = {name: (x, -rates[i] * delta) for i, (name, (x, delta)) in enumerate(gradient.factors.items())}
    return Update(steps, shift)
