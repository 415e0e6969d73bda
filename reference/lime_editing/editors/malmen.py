"""MALMEN (Tan, Zhang and Fu 2024): MEND's network; least squares make one update of many edits.

The network transforms (x, δ) at a predicted position into (x̃, δ̃). The key x then has the desired value difference d =
S x, S = -lr·δ̃ x̃ᵀ. MEND adds all S; MALMEN solves for the ΔW that comes closest to all d at their keys: ΔW = D Kᵀ (K
Kᵀ + e^λ I)⁻¹, with one learned λ for each matrix.

It is trained across languages as the others: x_u and x_r replace its paper's paraphrases and unrelated inputs. It is
trained on sets: a batch becomes one update. Masks act on x and δ before the network, as in MEND. The keys are not
masked, because the model computes unmasked keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..updates import Factors, Update
from . import least_squares, mend

if TYPE_CHECKING:
    from . import Chunk, Edits

NAME = "malmen"
TITLE = "MALMEN"
TRAINED = True
LOG_RIDGE = "malmen.log_ridge"


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyper-parameters; the defaults are those that its authors released."""

    rank: int = 1920  # of each residual block
    lr: float = 1e-5  # of the network
    inner_lr: float = 1e-6  # where the learned inner learning rates start
    inner_lr_lr: float = 1e-5  # their own learning rate, of log lr_W, and that of λ
    ridge: float = 1.0  # where e^λ starts


def init(raw: Mapping[str, Tensor], width: int, settings: Settings, seed: int) -> dict[str, Tensor]:
    """MEND's parameters, and λ (matrices,) in the order of `raw`."""
    own = mend.Settings(settings.rank, settings.lr, settings.inner_lr, settings.inner_lr_lr)
    start = next(iter(raw.values())).new_full((len(raw),), math.log(settings.ridge))
    return {**mend.init(raw, width, own, seed), LOG_RIDGE: start}


def learning_rates(parameters: Mapping[str, Tensor], settings: Settings) -> dict[str, float]:
    """The learning rate of each parameter (clause E9)."""
    return {**mend.learning_rates(parameters, settings), LOG_RIDGE: settings.inner_lr_lr}


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """The least squares of each edit alone."""
    return least_squares.each(wanted(parameters, edits), parameters[LOG_RIDGE].exp())


def merge(parameters: Mapping[str, Tensor], settings: Settings, chunks: Sequence[Chunk]) -> Update:
    """The least squares of all edits."""
    ridge, own = parameters[LOG_RIDGE].exp(), list(parameters.values())
    return least_squares.together(lambda take: wanted(parameters, take()), chunks, ridge, own)


def wanted(parameters: Mapping[str, Tensor], edits: Edits) -> Factors:
    """Keys (E, P, n) at the predicted positions, and the network's value differences (E, P, m)."""
    gradient, rows = edits.gradient(), {}
    for name, (x_tilde, scaled) in mend.transformed(parameters, gradient.factors).items():
        keys = edits.answering(gradient.keys[name])
        coefficients = (edits.answering(x_tilde) * keys).sum(-1, keepdim=True)
        rows[name] = (keys, edits.answering(scaled) * coefficients)
    return rows
