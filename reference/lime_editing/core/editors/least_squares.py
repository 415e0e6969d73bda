"""Least squares over keys and value differences: ΔW = D Kᵀ (K Kᵀ + Λ)⁻¹, in float64.

Keys K are (R, n) and value differences D (R, m), row by row, so that ΔW = Dᵀ K (Kᵀ K + Λ)⁻¹. For Λ = λ·I the
push-through identity gives the same from the other side, Dᵀ (K Kᵀ + λ I)⁻¹ K, which has the form of factors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..updates import Factors, Update

if TYPE_CHECKING:
    from . import Chunk

#: Per matrix the keys (E, T, n) and value differences (E, T, m) of some edits; a row of zeros asks for nothing.
RowsOf = Callable[["Chunk"], Factors]


def each(rows: Factors, ridge: Mapping[str, Tensor]) -> Update:
    """One update for each edit, from its own rows."""
    return Update({name: (keys, _values(keys, wanted, ridge[name])) for name, (keys, wanted) in rows.items()})


def together(
    rows_of: RowsOf, chunks: Sequence[Chunk], ridge: Mapping[str, Tensor], parameters: Sequence[Tensor] = ()
) -> Update:
    """One update for all edits. Few rows are solved by R, and stay factors; many by n, chunk by chunk.

    The gradient of `parameters` goes through the chunks a second time, so that memory does not grow with their number.
    """
    if len(chunks) == 1:
        rows = {name: (k.flatten(0, 1), d.flatten(0, 1)) for name, (k, d) in rows_of(chunks[0]).items()}
        if all(len(k) <= k.shape[1] for k, _ in rows.values()):
            return each({name: (k[None], d[None]) for name, (k, d) in rows.items()}, ridge)
    sums = iter(_Summed.apply(rows_of, chunks, list(ridge), *parameters))  # type: ignore[no-untyped-call]
    return Update(deltas={name: solve(next(sums), next(sums), lam)[None] for name, lam in ridge.items()})


def solve(cross: Tensor, gram: Tensor, ridge: Tensor) -> Tensor:
    """ΔW (m, n) of Dᵀ K (m, n) and Kᵀ K (n, n); the ridge is λ, or Λ (n, n)."""
    with torch.autocast(gram.device.type, enabled=False):
        own = ridge.double() * torch.eye(len(gram), device=gram.device) if ridge.dim() == 0 else ridge.double()
        lower = torch.linalg.cholesky(gram.double() + own)
        solved: Tensor = torch.cholesky_solve(cross.mT.double(), lower).mT.to(cross.dtype)
        return solved


def add(sums: list[Tensor], rows: Factors) -> list[Tensor]:
    """Dᵀ K and Kᵀ K of each matrix, added to those of the chunks before."""
    products = []
    with torch.autocast(next(iter(rows.values()))[0].device.type, enabled=False):
        for keys, wanted in rows.values():
            k, d = (part.flatten(0, 1).to(torch.promote_types(part.dtype, torch.float32)) for part in (keys, wanted))
            products += [d.mT @ k, k.mT @ k]
    return [total.add_(product) for total, product in zip(sums, products, strict=True)] if sums else products


def _values(keys: Tensor, wanted: Tensor, ridge: Tensor) -> Tensor:
    """V (…, R, m) with ΔW = Vᵀ K."""
    with torch.autocast(keys.device.type, enabled=False):
        k = keys.double()
        gram = k @ k.mT + ridge.double() * torch.eye(k.shape[-2], device=k.device)
        solved: Tensor = torch.linalg.solve(gram, wanted.double()).to(wanted.dtype)
        return solved


class _Summed(torch.autograd.Function):
    """Dᵀ K and Kᵀ K of each matrix over all chunks; keys have no gradient."""

    @staticmethod
    def forward(
        ctx: Any, rows_of: RowsOf, chunks: Sequence[Chunk], names: Sequence[str], *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.again = (rows_of, chunks, torch.is_autocast_enabled(parameters[0].device.type) if parameters else False)
        ctx.save_for_backward(*parameters)
        sums: list[Tensor] = []
        for chunk in chunks:
            rows = rows_of(chunk)
            sums = add(sums, {name: rows[name] for name in names})
        return tuple(sums)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows_of, chunks, low = ctx.again
        parameters = ctx.saved_tensors
        totals: list[Tensor | None] = [None] * len(parameters)
        with torch.enable_grad(), torch.autocast(parameters[0].device.type, torch.bfloat16, enabled=low):
            for chunk in chunks:
                rows = list(rows_of(chunk).values())
                wanted = [d for _, d in rows]
                slopes = [(k @ g.mT.to(k.dtype)).to(d.dtype) for (k, d), g in zip(rows, gradients[::2], strict=True)]
                found = torch.autograd.grad(wanted, parameters, slopes, allow_unused=True)
                pairs = zip(totals, found, strict=True)
                totals = [a if b is None else b if a is None else a + b for a, b in pairs]
        return (None, None, None, *totals)
