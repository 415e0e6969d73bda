"""MEMIT (Meng et al. 2022b): many keys and values at once, spread over the layers.

The values are found at the last edited layer, as in ROME. From the first layer to the last, each output matrix then
takes an equal share of what is still missing there: ΔW = R Kᵀ (λ C + K Kᵀ)⁻¹ at the keys that occur under the layers
before. What is said of ROME holds here: it sees the edit input alone unless `parallels` asks for more, it is not
trained, and it has no masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..updates import Update, plus
from . import least_squares, rome

if TYPE_CHECKING:
    from . import Chunk, Edits

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


init, learning_rates, fit = rome.init, rome.learning_rates, rome.fit


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """Each edit's ΔW of all output matrices, solved on the side of its few keys."""
    seen, count = edits.with_parallels() if settings.parallels else edits, len(edits.languages)
    names = rome.outputs(edits)
    target, at = _target(parameters, settings, seen, count, names[-1]), Update()
    for i, name in enumerate(names):
        keys, missing = _missing(seen, at, names, i, target)
        u = rome.directions(parameters, name, keys, settings.ridge)
        at = plus(at, Update({name: (u, missing)}))
    return at


def merge(parameters: Mapping[str, Tensor], settings: Settings, chunks: Sequence[Chunk]) -> Update:
    """One ΔW of each output matrix for all edits, layer by layer and chunk by chunk; their values wait on the host."""
    targets, names = list[Tensor](), list[str]()
    for chunk in chunks:
        edits = chunk()
        seen, names = edits.with_parallels() if settings.parallels else edits, rome.outputs(edits)
        targets.append(_target(parameters, settings, seen, len(edits.languages), names[-1]).cpu())
    at = Update()
    for i, name in enumerate(names):
        sums: list[Tensor] = []
        for chunk, target in zip(chunks, targets, strict=True):
            edits = chunk()
            seen = edits.with_parallels() if settings.parallels else edits
            sums = least_squares.add(sums, {name: _missing(seen, at, names, i, target.to(seen.matrices[name]))})
        lower = parameters[rome.LOWER + name].double()
        delta = least_squares.solve(sums[0], sums[1], settings.ridge * (lower @ lower.mT))
        at = plus(at, Update(deltas={name: delta[None]}))
    return at


def _target(parameters: Mapping[str, Tensor], settings: Settings, seen: Edits, count: int, name: str) -> Tensor:
    """What the last output matrix is to give at each key: (E, P, m)."""
    found, keys = rome.values(parameters, settings, seen, count, name)
    return keys @ seen.matrices[name].mT + found.factors[name][1]


def _missing(seen: Edits, at: Update, names: Sequence[str], i: int, target: Tensor) -> tuple[Tensor, Tensor]:
    """The keys of the i-th output matrix under the edits of those before, and its share of what the last one lacks."""
    found = seen.gradient(at).keys
    keys, last = (
        seen.answering(found[name]).unflatten(0, (len(target), -1)).flatten(1, 2) for name in (names[i], names[-1])
    )
    there = (keys != 0).any(-1, keepdim=True)
    return keys, (target - last @ seen.matrices[names[-1]].mT) * there / (len(names) - i)
