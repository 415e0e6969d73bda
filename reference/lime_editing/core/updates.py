"""An edit as a value: what it adds to the edited matrices, without touching them.

Shapes: E edits in a batch, T tokens of an edit input, n and m the input and output width of an edited matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import UserError

Factors: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Update:
    """E independent edits. ΔW is (m, n), as torch stores a linear layer's weight; `dense` is for looking at one.

    factors   per matrix U (E, T, n) and V (E, T, m): ΔW = Vᵀ U, never materialised
    deltas    per matrix D (E, m, n), where an edit has no such form
    weights   per matrix θ' (m, n), from which all edits start in the place of the raw W (clause E4)
    """

    factors: Factors = field(default_factory=dict)
    deltas: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def edits(self) -> int:
        """E; 0 for an update that changes nothing but `weights`."""
        parts = [*(u for u, _ in self.factors.values()), *self.deltas.values()]
        return max(map(len, parts), default=0)

    def __getitem__(self, index: int) -> Update:
        """The edit at `index`, as an update of one."""
        return self.take(slice(index, index + 1))

    def take(self, chosen: Tensor | slice) -> Update:
        """The edits at these indices."""
        factors = {name: (u[chosen], v[chosen]) for name, (u, v) in self.factors.items()}
        return Update(factors, {name: d[chosen] for name, d in self.deltas.items()}, self.weights)

    def dense(self, index: int, raw: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """ΔW (m, n) of one edit, per edited matrix; `raw` has the raw W, asked for only where `weights` replace it."""
        one = self[index]
        result = {name: d[0] for name, d in one.deltas.items()}
        result |= {name: w - (raw or {})[name] + result.get(name, 0) for name, w in one.weights.items()}
        for name, (u, v) in one.factors.items():
            result[name] = v[0].mT @ u[0] + result.get(name, 0)
        return result

    def edited(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """W + ΔW (m, n) of the first edit, per edited matrix."""
        return {name: raw[name] + delta for name, delta in self.dense(0, raw).items()}

    def apply(self, name: str, hidden: Tensor) -> Tensor:
        """What factors or deltas add for the inputs h (E·k, S, n), of which rows e·k … (e+1)·k - 1 see edit e (B4)."""
        result = hidden.new_zeros(())
        if name in self.factors:
            u, v = self.factors[name]
            result = (hidden.reshape(len(u), -1, u.shape[-1]) @ u.mT @ v).view(*hidden.shape[:-1], -1)
        if name in self.deltas:
            d = self.deltas[name]
            result = result + (hidden.reshape(len(d), -1, d.shape[-1]) @ d.mT).view(*hidden.shape[:-1], -1)
        return result


def compose(updates: Iterable[Update], dense: bool = False) -> Update:
    """The sum of all their edits, as one edit (chapter C); their order matters to rounding alone.

    Factors are multiplied out with `dense`, and as soon as their rows hold more numbers than a ΔW: memory does not grow
    with the edits. θ' of Editable Training is in the sum once.
    UserError: updates of two Editable Trainings, which start from different θ'.
    """
    pending: dict[str, list[tuple[Tensor, Tensor]]] = {}
    sums: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for update in updates:
        for name, weight in update.weights.items():
            known = weights.setdefault(name, weight)
            if known is not weight and not torch.equal(known, weight):
                raise UserError(f"edits that start from different trained weights of {name} have no sum")
        for name, delta in update.deltas.items():
            total = delta.to(torch.promote_types(delta.dtype, torch.float32)).sum(0)
            sums[name] = sums[name] + total if name in sums else total
        for name, (u, v) in update.factors.items():
            rows = pending.setdefault(name, [])
            rows.append((u.flatten(0, 1), v.flatten(0, 1)))
            if sum(len(part) for part, _ in rows) * (u.shape[-1] + v.shape[-1]) > u.shape[-1] * v.shape[-1]:
                sums[name] = _multiplied(pending.pop(name), sums.get(name))
    for name in [name for name in pending if dense or name in sums]:
        sums[name] = _multiplied(pending.pop(name), sums.get(name))
    factors = {name: _joined(rows) for name, rows in pending.items()}
    return Update(
        {name: (u[None], v[None]) for name, (u, v) in factors.items()},
        {name: total[None] for name, total in sums.items()},
        weights,
    )


def plus(first: Update, second: Update) -> Update:
    """The sum edit by edit, of E edits each, or of one that holds for all edits of the other."""
    factors, deltas = dict(first.factors), dict(first.deltas)
    for name, (u, v) in second.factors.items():
        if name in factors:
            edits = max(len(u), len(factors[name][0]))
            sides = [[part.expand(edits, -1, -1) for part in pair] for pair in zip(factors[name], (u, v), strict=True)]
            factors[name] = (torch.cat(sides[0], 1), torch.cat(sides[1], 1))
        else:
            factors[name] = (u, v)
    for name, delta in second.deltas.items():
        deltas[name] = deltas[name] + delta if name in deltas else delta
    return Update(factors, deltas, {**first.weights, **second.weights})


def _joined(rows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return rows[0] if len(rows) == 1 else (torch.cat([u for u, _ in rows]), torch.cat([v for _, v in rows]))


def _multiplied(rows: list[tuple[Tensor, Tensor]], total: Tensor | None) -> Tensor:
    """Σ Vᵀ U (m, n), added to a total; never in bf16, whatever the factors are in."""
    u, v = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in _joined(rows))
    with torch.autocast(u.device.type, enabled=False):
        return v.mT @ u if total is None else torch.addmm(total, v.mT, u)
