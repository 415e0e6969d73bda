"""What a task provides, whatever its data: a parallel corpus, and the model inputs that its examples become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from ..corpus import Corpus, Example
from ..types import EditRequest, Input

Key = TypeVar("Key")
Value = TypeVar("Value")
#: Tokenised inputs that a task remembers: all of a test set, and of a training set no more than memory allows.
REMEMBERED = 100_000


class Task(Protocol):
    """One split of a dataset, tokenised."""

    @property
    def corpus(self) -> Corpus: ...

    @property
    def editable(self) -> frozenset[str] | None:
        """D_edit: the ids of the examples that may be edited; None for all."""

    def within(self, languages: Sequence[str]) -> Task:
        """The part of the split in these languages."""

    def request(self, edit: Example, rng: np.random.Generator) -> EditRequest:
        """x_e with a desired prediction y_e."""

    def update_input(self, update: Example, edit: Example, request: EditRequest) -> Input:
        """x_u, with as many predicted positions as y_e has labels."""

    def retain_input(self, retain: Example, rng: np.random.Generator) -> Input:
        """x_r."""


def remember(known: dict[Key, Value], key: Key, make: Callable[[], Value]) -> Value:
    """The value of a key, made once and kept while there is room: the oldest go first."""
    if key not in known:
        if len(known) >= REMEMBERED:
            del known[next(iter(known))]
        known[key] = make()
    return known[key]
