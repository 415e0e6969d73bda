"""ROME (Meng et al. 2022a): one layer's MLP output matrix, as a memory of keys and values.

The key k is the matrix's input at a predicted position. The value r is added to its output; steps of Adam find r for
the desired answer, with a KL term that keeps all other answers. ΔW = r (C⁻¹ k)ᵀ / (kᵀ C⁻¹ k), where C is the second
moment of keys in sentences of all languages. Each [MASK] has its own key. r is optimised through this ΔW, so that value
and update have the same key.

Nothing is trained, so there is no cross-lingual training and no mask. The editor sees only the edit input (clause T5).
With `parallels` it also sees x_e in the other languages, which are then keys of the same edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import UserError
from ..updates import Update
from .finetuning import init, learning_rates

if TYPE_CHECKING:
    from . import Chunk, Edits

__all__ = ["NAME", "TITLE", "TRAINED", "Settings", "fit", "init", "learning_rates", "update"]
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
    largest: float = 4.0  # of a value's norm, as a multiple of the norm of the matrix's raw output
    smoothing: float = 0.01  # added to C's diagonal, as a share of its mean
    parallels: bool = False


def fit(settings: Any, languages: int, chunks: Sequence[Chunk]) -> dict[str, Tensor]:
    """For each output matrix the lower Cholesky factor (n, n) of C, smoothed: the mean of edits' sums of k kᵀ."""
    sums: dict[str, Tensor] = {}
    count = 0
    for take in chunks:
        edits = take()
        keys = edits.gradient().keys
        count += len(edits.languages)
        for name in outputs(edits):
            k = edits.answering(keys[name]).flatten(0, 1).double()
            sums[name] = sums.get(name, 0) + k.mT @ k
    means = {name: total / count for name, total in sums.items()}
    smooth = {name: settings.smoothing * c.diagonal().mean() * torch.eye(len(c)).to(c) for name, c in means.items()}
    return {LOWER + name: torch.linalg.cholesky(c + smooth[name]).float() for name, c in means.items()}


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """Each edit's ΔW of one matrix."""
    names = outputs(edits)
    if not -len(names) <= settings.layer < len(names):
        raise UserError(f"rome's setting layer is {settings.layer}, but only {len(names)} output matrices are edited")
    return valued(parameters, settings, edits, names[settings.layer])


def outputs(edits: Edits) -> list[str]:
    """The edited output matrices of MLPs: those with fewer outputs, from the first layer to the last."""
    least = min(len(matrix) for matrix in edits.matrices.values())
    return [name for name, matrix in edits.matrices.items() if len(matrix) == least]


def valued(parameters: Mapping[str, Tensor], settings: Any, edits: Edits, name: str) -> Update:
    """The update of one matrix: the directions of its keys are U (E, P, n), the values found are V (E, P, m)."""
    first = edits.gradient()
    keys = edits.answering(first.keys[name])
    u, before = directions(parameters, name, keys, 0.0), (keys @ edits.matrices[name].mT).norm(dim=-1, keepdim=True)
    r = keys.new_zeros(*keys.shape[:2], len(edits.matrices[name]))
    optimiser = torch.optim.Adam([r], settings.lr)
    for _ in range(settings.steps):
        x, delta = edits.gradient(Update({name: (u, r)}), keep=(settings.kl, first.logits)).factors[name]
        r.grad = ((u @ x.mT) @ delta).to(r)
        optimiser.step()
        r.mul_((settings.largest * before / r.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp(max=1))
    return Update({name: (u, r)})


def directions(parameters: Mapping[str, Tensor], name: str, keys: Tensor, ridge: float) -> Tensor:
    """U (E, P, n) of keys K (E, P, n): (K C⁻¹ Kᵀ + ridge·I)⁻¹ K C⁻¹. Without ridge, Rᵀ U maps key p to R's row p."""
    if LOWER + name not in parameters:
        raise UserError("the editor has no key statistics C yet: measure them first, with lime_editing.fit")
    k = keys.double()
    a = torch.cholesky_solve(k.flatten(0, 1).mT, parameters[LOWER + name].double()).mT.view_as(k)
    gram = a @ k.mT
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    # A missing key is a row of zeros; two equal keys have half of the value each.
    safe = torch.where(diagonal == 0, 1.0, ridge + 1e-6 * diagonal)
    u: Tensor = torch.linalg.solve(gram + torch.diag_embed(safe), a).to(keys.dtype)
    return u
