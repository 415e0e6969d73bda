"""UltraEdit (Gu et al. 2025): MALMEN's least squares with statistics instead of a trained network.

(x, δ) of each token is normalised by mean and deviation over the edits seen. The key x gets the value difference d =
-lr·‖x̂‖²·δ̂, and ΔW = D Kᵀ (K Kᵀ + λ I)⁻¹. All of many edits are seen before any of them is normalised.

Nothing is trained, so there is no cross-lingual training and no mask. One edit has no deviation, so statistics start
with edits of the training split in all languages. Separate statistics for each editing language (`statistics`) are a
control for masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..updates import Factors, Update
from . import least_squares
from .finetuning import init, learning_rates

if TYPE_CHECKING:
    from . import Chunk, Edits

__all__ = ["NAME", "TITLE", "TRAINED", "Settings", "fit", "init", "learning_rates", "merge", "update"]
NAME = "ultraedit"
TITLE = "UltraEdit"
TRAINED = False
EPS = 1e-7


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyper-parameters; the defaults are those that its authors released."""

    lr: float = 1e-6
    ridge: float = 1.0  # λ
    statistics: Literal["pooled", "language"] = "pooled"


def fit(settings: Settings, languages: int, chunks: Sequence[Chunk]) -> dict[str, Tensor]:
    """For each matrix (L, 1 + 2(n + m)): by editing language the number of rows (x, δ), their sum and squares' sum.

    UserError: too few edits for a deviation.
    """
    sums = _seen({}, languages, chunks)
    for name, total in sums.items():
        counts = total[:, 0] if settings.statistics == "language" else total[:, 0].sum(0, keepdim=True)
        if counts.min() < 2:
            of = " in each language" if settings.statistics == "language" else ""
            raise UserError(f"{name}: a deviation needs at least two rows{of}; give lime_editing.fit more edits")
    return sums


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """The least squares of each edit alone, with the statistics unchanged."""
    return least_squares.each(wanted(parameters, settings, edits), torch.tensor(settings.ridge))


def merge(parameters: Mapping[str, Tensor], settings: Settings, chunks: Sequence[Chunk]) -> Update:
    """The least squares of all edits."""
    seen = _seen(_measured(parameters), 0, chunks)
    return least_squares.together(lambda take: wanted(seen, settings, take()), chunks, torch.tensor(settings.ridge))


def wanted(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Factors:
    """For each matrix the keys (E, T, n) and the value differences (E, T, m); 0 for rows without gradient."""
    rows = {}
    for name, (x, delta) in edits.gradient().factors.items():
        own = _measured(parameters)[f"ultraedit.{name}"]
        own = own[edits.languages] if settings.statistics == "language" else own.sum(0, keepdim=True)
        count, mean, square = own[:, :1], *(own[:, 1:] / own[:, :1]).chunk(2, -1)
        deviation = ((square - mean.square()).clamp(min=0) * (count / (count - 1))).sqrt()
        hat = (torch.cat([x, delta], -1) - mean[:, None]) / (deviation[:, None] + EPS)
        x_hat, delta_hat = hat.to(x).split([x.shape[-1], delta.shape[-1]], -1)
        live = (delta != 0).any(-1, keepdim=True)
        rows[name] = (x * live, -settings.lr * live * x_hat.square().sum(-1, keepdim=True) * delta_hat)
    return rows


def _measured(parameters: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if not parameters:
        raise UserError("ultraedit has no statistics yet: measure them first, with lime_editing.fit")
    return parameters


def _seen(parameters: Mapping[str, Tensor], languages: int, chunks: Sequence[Chunk]) -> dict[str, Tensor]:
    sums = {name: total.clone() for name, total in parameters.items()}
    for take in chunks:
        edits = take()
        for name, (x, delta) in edits.gradient().factors.items():
            both, live = torch.cat([x, delta], -1).double(), (delta != 0).any(-1, keepdim=True)
            row = (torch.cat([live, both, both.square()], -1) * live).sum(1)
            total = sums.setdefault(f"ultraedit.{name}", row.new_zeros(languages, row.shape[1]))
            total.index_add_(0, edits.languages, row)
    return sums
