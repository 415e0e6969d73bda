"""Least squares over keys K (R, n) and value differences D (R, m): ΔW = Dᵀ K (Kᵀ K + Λ)⁻¹, solved in float64.

For Λ = λ I the push-through identity gives factors, from an R × R system: Dᵀ (K Kᵀ + λ I)⁻¹ K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..updates import Factors, Update

if TYPE_CHECKING:
    from . import Chunk

#: Maps a chunk to each matrix's keys (E, T, n) and value differences (E, T, m); rows of zeros have no effect.
RowsOf = Callable[["Chunk"], Factors]


def each(rows: Factors, ridge: Tensor) -> Update:
    """One update for each edit, from its own rows. `ridge` is λ, or one λ for each matrix."""
    factors = {}
    for (name, (keys, wanted)), lam in zip(rows.items(), ridge.expand(len(rows)), strict=True):
        with torch.autocast(keys.device.type, enabled=False):
            k = keys.double()
            gram = k @ k.mT + lam.double() * torch.eye(k.shape[-2]).to(k)
            factors[name] = (keys, torch.linalg.solve(gram, wanted.double()).to(wanted.dtype))
    return Update(factors)


def together(rows_of: RowsOf, chunks: Sequence[Chunk], ridge: Tensor, parameters: Sequence[Tensor] = ()) -> Update:
    """One update for all edits: few rows give an R × R system, many an n × n system, summed chunk by chunk."""
    if len(chunks) == 1:
        rows = {name: (k.flatten(0, 1)[None], d.flatten(0, 1)[None]) for name, (k, d) in rows_of(chunks[0]).items()}
        if all(k.shape[1] <= k.shape[2] for k, _ in rows.values()):
            return each(rows, ridge)
    names, sums = list(chunks[0]().matrices), iter(_Summed.apply(rows_of, chunks, *parameters))  # type: ignore[no-untyped-call]
    lambdas = dict(zip(names, ridge.expand(len(names)), strict=True))
    return Update(deltas={name: solve(next(sums), next(sums), lam)[None] for name, lam in lambdas.items()})


def solve(cross: Tensor, gram: Tensor, ridge: Tensor) -> Tensor:
    """ΔW (m, n) of Dᵀ K (m, n), Kᵀ K (n, n), and Λ (n, n) or λ."""
    with torch.autocast(gram.device.type, enabled=False):
        own = ridge.double() * (torch.eye(len(gram)).to(gram).double() if ridge.dim() == 0 else 1)
        lower = torch.linalg.cholesky(gram.double() + own)
        solved: Tensor = torch.cholesky_solve(cross.mT.double(), lower).mT.to(cross.dtype)
        return solved


def add(sums: Sequence[Tensor], rows: Factors) -> list[Tensor]:
    """Dᵀ K and Kᵀ K of each matrix, added to `sums` of earlier chunks."""
    products = []
    for pair in rows.values():
        k, d = (part.flatten(0, 1).to(torch.promote_types(part.dtype, torch.float32)) for part in pair)
        with torch.autocast(k.device.type, enabled=False):
            products += [d.mT @ k, k.mT @ k]
    return [total.add_(product) for total, product in zip(sums, products, strict=True)] if sums else products


class _Summed(torch.autograd.Function):
    """Dᵀ K and Kᵀ K of each matrix over all chunks; keys have no gradient."""

    @staticmethod
    def forward(ctx: Any, rows_of: RowsOf, chunks: Sequence[Chunk], *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.rows_of, ctx.chunks, sums = rows_of, chunks, list[Tensor]()
        ctx.low = bool(parameters) and torch.is_autocast_enabled(parameters[0].device.type)
        ctx.save_for_backward(*parameters)
        for chunk in chunks:
            sums = add(sums, rows_of(chunk))
        return tuple(sums)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        totals = [torch.zeros_like(parameter) for parameter in ctx.saved_tensors]
        with torch.enable_grad(), torch.autocast(totals[0].device.type, torch.bfloat16, enabled=ctx.low):
            for chunk in ctx.chunks:
                rows = list(ctx.rows_of(chunk).values())
                slopes = [(k @ g.mT.to(k.dtype)).to(d.dtype) for (k, d), g in zip(rows, gradients[::2], strict=True)]
                found = torch.autograd.grad([d for _, d in rows], ctx.saved_tensors, slopes, allow_unused=True)
                for total, slope in zip(totals, found, strict=True):
                    total.add_(0 if slope is None else slope)
        return (None, None, *totals)
