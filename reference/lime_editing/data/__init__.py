"""What a task provides, whatever its data: a parallel corpus, and the model inputs that its examples become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..corpus import Example, ParallelCorpus
from ..types import EditRequest, Input


class Task(Protocol):
    """One split of a dataset, tokenised."""

    @property
    def corpus(self) -> ParallelCorpus: ...

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
