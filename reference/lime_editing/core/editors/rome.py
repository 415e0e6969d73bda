"""ROME (Meng et al. 2022a): the MLP's output matrix of one layer as a memory of keys and values.

At a predicted position the key k is what enters the matrix, and the value r that is added to its output is found by
steps of Adam on the desired answer, with a KL term that keeps all other answers. ΔW = r (C⁻¹ k)ᵀ / (kᵀ C⁻¹ k), where C
is the second moment of keys in sentences of all languages; several [MASK] are one key each, and r is found through this
very ΔW, so that the key of the value is the key of the update.

Nothing is trained, so there is no cross-lingual training and no mask. An editor sees the edit input alone (clause T5):
so does this one, unless `parallels` asks for x_e in the other languages, which are then keys of the same edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import UserError
from ..updates import Update

if TYPE_CHECKING:
    from . import Chunk, Edits

NAME = "rome"
TITLE = "ROME"
TRAINED = False
LOWER = "rome.lower."  # of the Cholesky factors of C


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyper-parameters; the defaults are its authors'."""

    layer: int = -1  # of the edited layers, counted from the first or, below 0, from the last
    steps: int = 20
    lr: float = 0.5
    kl: float = 0.0625  # weight of the KL term
    largest: float = 4.0  # a value's norm at most, as a multiple of what the matrix gives before the edit
    smoothing: float = 0.01  # of C, as a share of its mean diagonal
    parallels: bool = False  # whether x_e is seen in the other languages


def init(raw: Mapping[str, Tensor], width: int, settings: Any, seed: int) -> dict[str, Tensor]:
    """No parameters before `fit`."""
    return {}


def learning_rates(parameters: Mapping[str, Tensor], settings: Any) -> dict[str, float]:
    """None is trained."""
    return {}


def fit(settings: Any, languages: Sequence[str], chunks: Sequence[Chunk]) -> dict[str, Tensor]:
    """Per output matrix the lower Cholesky factor (n, n) of C, over the predicted positions of all edits."""
    sums: dict[str, Tensor] = {}
    count = 0
    for chunk in chunks:
        edits = chunk()
        keys = edits.gradient().keys
        count += len(edits.languages)
        for name in outputs(edits):
            k = edits.answering(keys[name]).flatten(0, 1).double()
            sums[name] = sums[name] + k.mT @ k if name in sums else k.mT @ k
    factors = {}
    for name, total in sums.items():
        c = total / count
        smoothed = c + settings.smoothing * c.diagonal().mean() * torch.eye(len(c), device=c.device)
        factors[LOWER + name] = torch.linalg.cholesky(smoothed).float()
    return factors


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """Each edit's ΔW of one matrix."""
    names = outputs(edits)
    if not -len(names) <= settings.layer < len(names):
        raise UserError(f"rome.layer is {settings.layer}, and {len(names)} output matrices are edited")
    name = names[settings.layer]
    seen = edits.with_parallels() if settings.parallels else edits
    found, _ = values(parameters, settings, seen, len(edits.languages), name)
    return found


def outputs(edits: Edits) -> list[str]:
    """The edited matrices that give an MLP's output: those with the fewer outputs, from the first layer to the last."""
    least = min(w.shape[0] for w in edits.matrices.values())
    return [name for name, w in edits.matrices.items() if w.shape[0] == least]


def values(
    parameters: Mapping[str, Tensor], settings: Any, seen: Edits, count: int, name: str
) -> tuple[Update, Tensor]:
    """The update of one matrix whose values are found, for `count` edits of inputs side by side, and its keys."""
    first = seen.gradient()
    keys = seen.answering(first.keys[name]).unflatten(0, (count, -1)).flatten(1, 2)  # (E, k·P, n)
    u = directions(parameters, name, keys, 0.0)
    before = (keys @ seen.matrices[name].mT).norm(dim=-1, keepdim=True)
    r = torch.zeros(*keys.shape[:2], len(seen.matrices[name]), device=keys.device, dtype=keys.dtype)
    optimiser = torch.optim.Adam([r], settings.lr)
    for _ in range(settings.steps):
        x, delta = seen.gradient(Update({name: (u, r)}), keep=(settings.kl, first.logits)).factors[name]
        x, delta = (rows.unflatten(0, (count, -1)).flatten(1, 2) for rows in (x, delta))
        r.grad = ((u @ x.mT) @ delta).to(r)
        optimiser.step()
        r.mul_((settings.largest * before / r.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp(max=1))
    return Update({name: (u, r)}), keys


def directions(parameters: Mapping[str, Tensor], name: str, keys: Tensor, ridge: float) -> Tensor:
    """U (E, P, n) of keys K (E, P, n): (K C⁻¹ Kᵀ + ridge·I)⁻¹ K C⁻¹, so that Rᵀ U answers key p with row p of R."""
    if LOWER + name not in parameters:
        raise UserError("C is not there: measure it first, with lime_editing.fit")
    k = keys.double()
    a = torch.cholesky_solve(k.flatten(0, 1).mT, parameters[LOWER + name].double()).mT.view_as(k)
    gram = a @ k.mT
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    # A missing key is a row of zeros, and two equal keys share their value.
    safe = torch.where(diagonal == 0, torch.ones_like(diagonal), ridge + 1e-6 * diagonal)
    u: Tensor = torch.linalg.solve(gram + torch.diag_embed(safe), a).to(keys.dtype)
    return u
