"""An edit as a value: what it adds to the edited matrices. The matrices themselves never change.

Shapes: E edits in a batch, T tokens of an edit input, n and m the input and output width of an edited matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from . import checks
from .errors import UserError

Factors: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Update:
    """E independent edits. ΔW is (m, n), the layout of a torch linear layer's weight; `dense` computes it.

    factors   per matrix U (E, T, n) and V (E, T, m): ΔW = Vᵀ U, never materialised
    deltas    per matrix ΔW (E, m, n), for edits without factors
    weights   per matrix θ' (m, n), which replaces the raw W in all edits (clause E4)
    """

    factors: Factors = field(default_factory=dict)
    deltas: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def edits(self) -> int:
        """E; 0 for an update that has only `weights`."""
        parts = [*(u for u, _ in self.factors.values()), *self.deltas.values()]
        return max(map(len, parts), default=0)

    def __getitem__(self, index: int) -> Update:
        """The edit at `index`, as an update of one. IndexError: there is no such edit."""
        if not 0 <= index < max(1, self.edits):  # an IndexError also ends `for one in update`
            raise IndexError(f"there is no edit {index}; the update has {self.edits}, counted from 0")
        return self.take(slice(index, index + 1))

    def take(self, chosen: Tensor | slice) -> Update:
        """The edits at these indices."""
        factors = {name: (u[chosen], v[chosen]) for name, (u, v) in self.factors.items()}
        return Update(factors, {name: d[chosen] for name, d in self.deltas.items()}, self.weights)

    def dense(self, index: int, raw: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """ΔW (m, n) of one edit, per edited matrix. `raw` holds the raw W; it is needed if `weights` replace it."""
        one = self[index]
        if one.weights.keys() - (raw or {}).keys():
            raise UserError("this update replaces the raw weights; give them, as in update.dense(0, backbone.raw)")
        result = {name: d[0] for name, d in one.deltas.items()}
        result |= {name: w - (raw or {})[name] + result.get(name, 0) for name, w in one.weights.items()}
        for name, (u, v) in one.factors.items():
            result[name] = v[0].mT @ u[0] + result.get(name, 0)
        return result

    def edited(self, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """W + ΔW (m, n) of the first edit, per edited matrix."""
        return {name: raw[name] + delta for name, delta in self.dense(0, raw).items()}

    def apply(self, name: str, hidden: Tensor, output: Tensor) -> Tensor:
        """W·h + ΔW·h for inputs h (E·k, S, n) and W·h (E·k, S, m); rows e·k … (e+1)·k - 1 see edit e (clause B4)."""
        if name in self.factors:
            u, v = self.factors[name]
            output = _plus(output, torch.bmm(hidden.reshape(len(u), -1, u.shape[-1]), u.mT), v)
        if name in self.deltas:
            delta = self.deltas[name]
            output = _plus(output, hidden.reshape(len(delta), -1, delta.shape[-1]), delta.mT)
        return output


def _plus(output: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """output (E·k, S, m) + left (E, k·S, r) right (E, r, m)."""
    return torch.baddbmm(output.reshape(*left.shape[:2], -1), left, right).view_as(output)


def compose(updates: Iterable[Update], dense: bool = False) -> Update:
    """The sum of all edits of the updates, as one edit (clause C1); θ' of Editable Training counts once.

    Factors are multiplied out with `dense`, or when they hold more numbers than ΔW: memory does not grow with the
    number of edits. UserError: updates with different θ', or of matrices of different sizes.
    """
    if updates is None or isinstance(updates, Update):
        raise UserError("compose adds a list of updates; for the edits of one update, give compose([update])")
    pending: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    sums: dict[str, Tensor] = {}
    weights: dict[str, Tensor] = {}

    def multiply(name: str) -> None:
        u, v = (torch.cat(parts) for parts in pending.pop(name))
        exact = torch.promote_types(v.dtype, torch.float32)  # never bf16, even for bf16 factors
        with torch.autocast(v.device.type, enabled=False):
            sums[name] = v.mT.to(exact) @ u.to(exact) + sums.get(name, 0)

    for update in updates:
        if not isinstance(update, Update):
            raise UserError(f"compose adds a list of updates, and {type(update).__name__} is not one")
        checks.refuse(UserError, checks.of_sum(update, {**weights, **sums, **pending}))
        for name, weight in update.weights.items():
            if weights.setdefault(name, weight) is not weight and not torch.equal(weights[name], weight):
                raise UserError(f"edits that start from different trained weights of {name} have no sum")
        for name, delta in update.deltas.items():
            sums[name] = delta.sum(0, dtype=torch.promote_types(delta.dtype, torch.float32)) + sums.get(name, 0)
        for name, factors in update.factors.items():
            for rows, part in zip(pending.setdefault(name, ([], [])), factors, strict=True):
                rows.append(part.flatten(0, 1).clone())  # a view would keep the whole base tensor
            n, m = (part.shape[-1] for part in factors)
            if dense or sum(map(len, pending[name][0])) * (n + m) > n * m:
                multiply(name)
    for name in pending.keys() & sums.keys():
        multiply(name)
    left = {name: (torch.cat(us)[None], torch.cat(vs)[None]) for name, (us, vs) in pending.items()}
    return Update(left, {name: total[None] for name, total in sums.items()}, weights)


def plus(first: Update, second: Update) -> Update:
    """The sum edit by edit. Both have E edits, or one of them has one edit, which is added to each of the other."""
    factors, deltas = {**second.factors, **first.factors}, {**second.deltas, **first.deltas}
    for name in first.factors.keys() & second.factors.keys():
        pairs, most = (first.factors[name], second.factors[name]), max(first.edits, second.edits)
        u, v = (torch.cat([pair[i].expand(most, -1, -1) for pair in pairs], 1) for i in (0, 1))
        factors[name] = (u, v)
    deltas |= {n: first.deltas[n] + second.deltas[n] for n in first.deltas.keys() & second.deltas.keys()}
    return Update(factors, deltas, {**first.weights, **second.weights})
