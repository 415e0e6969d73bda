"""The frozen records that everything else passes around.

Shapes: E edits in a batch, T tokens of an edit input, n and m the input and output width of an edited matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Role = Literal["update", "retain"]
Masks = Literal["none", "language", "shared"]


@dataclass(frozen=True, slots=True)
class Input:
    """One model input, unpadded: token ids with special tokens, and the predicted positions ([MASK], or [CLS])."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EditRequest:
    """All that an editor sees (clause T5): x_e, y_e as one token or class per position, and the editing language."""

    input: Input
    labels: tuple[int, ...]
    language: str


@dataclass(frozen=True, slots=True)
class Triple:
    """One training example (§3.2): the request (x_e, y_e), an update input x_u and a retain input x_r."""

    edit: EditRequest
    update: Input
    retain: Input


@dataclass(frozen=True, slots=True)
class Outcome:
    """One judged prediction of an edited model; `language` is that of the input, not of the edit."""

    edit: str
    edit_language: str
    role: Role
    language: str
    hit: bool


@dataclass(frozen=True, slots=True)
class Update:
    """E independent edits as low-rank factors: per edited matrix U (E, T, n) and V (E, T, m), with ΔW = Vᵀ U.

    ΔW is (m, n), as torch stores a linear layer's weight, and is never materialised; `dense` is for looking at one.
    """

    factors: Mapping[str, tuple[Tensor, Tensor]]

    def __len__(self) -> int:
        return next(iter(self.factors.values()))[0].shape[0]

    def __getitem__(self, index: int) -> Update:
        """The edit at `index`, as an update of one."""
        return Update({name: (u[index : index + 1], v[index : index + 1]) for name, (u, v) in self.factors.items()})

    def dense(self, index: int) -> dict[str, Tensor]:
        """ΔW (m, n) of one edit, per edited matrix."""
        return {name: v[index].mT @ u[index] for name, (u, v) in self.factors.items()}
