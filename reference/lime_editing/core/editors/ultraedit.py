"""UltraEdit (Gu et al. 2025): MALMEN's least squares with statistics in the place of a trained network.

x and δ of each token are normalised by their running mean and deviation over the edits seen; the key x is asked for the
value difference d = -lr·‖x̂‖²·δ̂, and ΔW = D Kᵀ (K Kᵀ + I)⁻¹.

Nothing is trained, so there is no cross-lingual training and no mask: no loss could teach one. A deviation needs more
than one edit, so the statistics begin with edits of the training split in all languages. As a control for masks,
`statistics` may be kept for each editing language apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ...errors import UserError
from ..updates import Factors, Update
from . import least_squares

if TYPE_CHECKING:
    from . import Chunk, Edits

NAME = "ultraedit"
TITLE = "UltraEdit"
TRAINED = False
EPS = 1e-7


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyper-parameters; the defaults are those that its authors released."""

    lr: float = 1e-6
    ridge: float = 1.0
    statistics: Literal["pooled", "language"] = "pooled"


def init(raw: Mapping[str, Tensor], width: int, settings: Settings, seed: int) -> dict[str, Tensor]:
    """No parameters before `fit`."""
    return {}


def learning_rates(parameters: Mapping[str, Tensor], settings: Settings) -> dict[str, float]:
    """None is trained."""
    return {}


def fit(settings: Settings, languages: Sequence[str], chunks: Sequence[Chunk]) -> dict[str, Tensor]:
    """Count (), mean and summed squares (n + m,) of (x, δ), as "ultraedit.<language or all>.<matrix>.<which>"."""
    parameters: dict[str, Tensor] = {}
    for chunk in chunks:
        edits = chunk()
        parameters = _seen(parameters, settings, edits, edits.gradient().factors)
    return parameters


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """Each edit's own least squares, with the statistics as they are."""
    factors = edits.gradient().factors
    return least_squares.each(_wanted(parameters, settings, edits, factors), _ridge(settings, factors))


def merge(parameters: Mapping[str, Tensor], settings: Settings, chunks: Sequence[Chunk]) -> Update:
    """The least squares of all edits; the statistics see all of them before any is normalised."""
    running = dict(parameters)
    for chunk in chunks:
        edits = chunk()
        running = _seen(running, settings, edits, edits.gradient().factors)

    def rows_of(chunk: Chunk) -> Factors:
        edits = chunk()
        return _wanted(running, settings, edits, edits.gradient().factors)

    return least_squares.together(rows_of, chunks, _ridge(settings, chunks[0]().matrices))


def _wanted(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits, factors: Factors) -> Factors:
    """Per matrix the keys and the value differences that are asked for; 0 where none."""
    rows = {}
    for name, (x, delta) in factors.items():
        wanted, n = torch.zeros_like(delta), x.shape[-1]
        for group, index in _groups(settings, edits):
            count, mean, square = (parameters.get(f"ultraedit.{group}.{name}.{which}") for which in _MOMENTS)
            if count is None or mean is None or square is None:
                raise UserError(f"ultraedit has no statistics of {group!r}: measure them first, with lime_editing.fit")
            both = torch.cat([x[index], delta[index]], -1)
            hat = (both - mean) / ((square / (count - 1)).sqrt() + EPS)
            x_hat, delta_hat = hat[..., :n], hat[..., n:]
            wanted[index] = (-settings.lr * x_hat.square().sum(-1, keepdim=True) * delta_hat).to(wanted)
        live = (delta != 0).any(-1, keepdim=True)
        rows[name] = (x * live, wanted * live)
    return rows


def _seen(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits, factors: Factors) -> dict[str, Tensor]:
    """The statistics with these edits' rows added (Chan et al.)."""
    result = dict(parameters)
    for name, (x, delta) in factors.items():
        for group, index in _groups(settings, edits):
            live = (delta[index] != 0).any(-1)
            new = torch.cat([x[index], delta[index]], -1)[live].float()
            if not len(new):
                continue
            keys, zeros = [f"ultraedit.{group}.{name}.{which}" for which in _MOMENTS], new.new_zeros(new.shape[1])
            count, mean, square = (result.get(key, zeros if i else zeros[0]) for i, key in enumerate(keys))
            here, total = new.mean(0), count + len(new)
            square = square + (new - here).square().sum(0) + (here - mean).square() * (count * len(new) / total)
            result |= dict(zip(keys, (total, mean + (here - mean) * (len(new) / total), square), strict=True))
    return result


_MOMENTS = ("count", "mean", "square")


def _groups(settings: Settings, edits: Edits) -> list[tuple[str, list[int]]]:
    """Which edits share statistics."""
    codes = edits.languages if settings.statistics == "language" else ["all"] * len(edits.languages)
    return [(code, [i for i, own in enumerate(codes) if own == code]) for code in dict.fromkeys(codes)]


def _ridge(settings: Settings, names: Mapping[str, object]) -> dict[str, Tensor]:
    return {name: torch.tensor(settings.ridge) for name in names}
