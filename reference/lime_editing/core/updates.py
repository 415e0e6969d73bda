"""An edit as a value: what it adds to the edited matrices, without touching them.

Shapes: E edits in a batch, T tokens of an edit input, n and m the input and output width of an edited matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

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

    def __getitem__(self, index: int) -> Update:
        """The edit at `index`, as an update of one."""
        at = slice(index, index + 1)
        return Update(
            {name: (u[at], v[at]) for name, (u, v) in self.factors.items()},
            {name: d[at] for name, d in self.deltas.items()},
            self.weights,
        )

    def dense(self, index: int, raw: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """ΔW (m, n) of one edit, per edited matrix; `raw` has the raw W, asked for only where `weights` replace it."""
        one = self[index]
        result = {name: d[0] for name, d in one.deltas.items()}
        result |= {name: w - (raw or {})[name] for name, w in one.weights.items()}
        for name, (u, v) in one.factors.items():
            result[name] = v[0].mT @ u[0] + result.get(name, 0)
        return result

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
