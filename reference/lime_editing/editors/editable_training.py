"""Editable Training (Sinitsin et al. 2020; clause E4): the model is trained so that one gradient step edits it.

θ_u = θ' - lr·∇L(θ'), with one learned lr per matrix. θ' are the editor's own copies of the edited matrices. They start
at the raw θ and are trained through the inner step, with second-order gradients. Locality and consistency refer to the
raw θ (T6).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..updates import Update

if TYPE_CHECKING:
    from . import Edits

NAME = "editable_training"
TITLE = "Editable Training"
TRAINED = True
WEIGHT, LOG_INNER_LR = "editable_training.weight.", "editable_training.log_inner_lr"


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyper-parameters; the defaults are the paper's (§B.2)."""

    lr: float = 5e-5  # of θ'
    inner_lr: float = 1e-4  # where the learned inner learning rates start
    inner_lr_lr: float = 1e-4  # their own learning rate, of log lr_W


def init(raw: Mapping[str, Tensor], width: int, settings: Settings, seed: int) -> dict[str, Tensor]:
    """A copy of each raw matrix {name: (m, n)}, and log lr (matrices,) in the order of `raw`."""
    weights = {f"{WEIGHT}{name}": w.clone() for name, w in raw.items()}
    like = next(iter(raw.values()))
    return weights | {LOG_INNER_LR: like.new_full((len(raw),), math.log(settings.inner_lr))}


def learning_rates(parameters: Mapping[str, Tensor], settings: Settings) -> dict[str, float]:
    """The learning rate of each parameter (clause E9)."""
    return {name: settings.inner_lr_lr if name == LOG_INNER_LR else settings.lr for name in parameters}


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """Each edit's gradient step from θ', the parameter itself (clause B4): the next step changes this update."""
    weights = {name.removeprefix(WEIGHT): p for name, p in parameters.items() if name.startswith(WEIGHT)}
    gradient = edits.gradient(Update(weights=weights), differentiable=torch.is_grad_enabled())
    rates = parameters[LOG_INNER_LR].exp().neg().unbind()
    each = zip(gradient.factors.items(), rates, strict=True)
    return Update({name: (x, rate * delta) for (name, (x, delta)), rate in each}, weights=weights)
