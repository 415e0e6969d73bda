"""MEMIT (Meng et al. 2022b): many keys and values at once, distributed over the layers.

Values are found at the last edited layer, as in ROME. From the first layer to the last, each output matrix then adds an
equal share of the remaining difference R: ΔW = R Kᵀ (λ C + K Kᵀ)⁻¹. Keys are computed with the earlier layers' updates.

Nothing is trained, so there is no cross-lingual training and no mask. It sees the same inputs as ROME.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..updates import Update, plus
from . import least_squares
from .rome import LOWER, directions, fit, init, learning_rates, outputs, valued

if TYPE_CHECKING:
    from . import Chunk, Edits

__all__ = ["NAME", "TITLE", "TRAINED", "Settings", "fit", "init", "learning_rates", "merge", "update"]
NAME = "memit"
TITLE = "MEMIT"
TRAINED = False


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyper-parameters; the defaults are its authors', for 10,000 edits of a model of 6 billion parameters."""

    steps: int = 25
    lr: float = 0.5
    kl: float = 0.0625
    largest: float = 0.75
    smoothing: float = 0.01
    ridge: float = 15_000.0  # λ
    parallels: bool = False


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """Each edit's ΔW of all output matrices, as factors (there are few keys)."""
    target, at = _target(parameters, settings, edits), Update()
    for i, name in enumerate(outputs(edits)):
        keys, missing = _missing(edits, at, i, target)
        at = plus(at, Update({name: (directions(parameters, name, keys, settings.ridge), missing)}))
    return at


def merge(parameters: Mapping[str, Tensor], settings: Settings, chunks: Sequence[Chunk]) -> Update:
    """One ΔW of each output matrix for all edits, layer by layer and chunk by chunk. Values are kept on the host."""
    targets, at = [_target(parameters, settings, take()).cpu() for take in chunks], Update()
    for i, name in enumerate(outputs(chunks[0]())):
        sums: list[Tensor] = []
        for take, target in zip(chunks, targets, strict=True):
            sums = least_squares.add(sums, {name: _missing(take(), at, i, target)})
        lower = parameters[LOWER + name].double()
        delta = least_squares.solve(sums[0], sums[1], settings.ridge * (lower @ lower.mT))
        at = plus(at, Update(deltas={name: delta[None]}))
    return at


def _target(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Tensor:
    """The desired output of the last output matrix at each key (E, P, m)."""
    name = outputs(edits)[-1]
    before = edits.answering(edits.gradient().keys[name]) @ edits.matrices[name].mT
    return before + valued(parameters, settings, edits, name).factors[name][1]


def _missing(edits: Edits, at: Update, i: int, target: Tensor) -> tuple[Tensor, Tensor]:
    """The keys of the i-th output matrix under earlier updates, and its share of the remaining difference."""
    names, found = outputs(edits), edits.gradient(at).keys
    keys, last = (edits.answering(found[name]) for name in (names[i], names[-1]))
    lacks = target.to(last) - last @ edits.matrices[names[-1]].mT
    return keys, lacks * (keys != 0).any(-1, keepdim=True) / (len(names) - i)
