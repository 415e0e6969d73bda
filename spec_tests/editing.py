"""Helpers for tests of editors, in whichever chapter: parametrisations, editors off their start, their edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from .contract import Request
from .tiny import LANGUAGES, Setting, make_felt, make_request, perturb, set_masks

KINDS = ("bert", "square", "classifier", "roberta")
VARIANTS = ("none", "language", "shared")
every_model = pytest.mark.parametrize("kind", KINDS)
every_variant = pytest.mark.parametrize("masks", VARIANTS)
seeds = st.integers(0, 2**32 - 1)


def random_requests(kind: str) -> st.SearchStrategy[Request]:
    return seeds.map(lambda seed: make_request(kind, np.random.default_rng(seed)))


def variants(name: str) -> tuple[str, ...]:
    """The kinds of masks that an editor has."""
    return ("none",) if name == "finetuning" else VARIANTS


def widest(name: str) -> str:
    """With language masks, where the editor has any."""
    return variants(name)[:2][-1]


def masked_editor(implementation: Any, name: str, world: Setting, languages: Sequence[str] = LANGUAGES) -> Any:
    """An editor with language masks, all of its parameters off their start."""
    editor = make_felt(implementation, name, world, "language", languages=languages)
    perturb(implementation, editor)
    set_masks(implementation, editor)
    return editor


def updates(implementation: Any, editor: Any, requests: Sequence[Request]) -> list[dict[str, torch.Tensor]]:
    """The dense edits of the requests, edited one after the other."""
    made = [implementation.dense(editor, implementation.edit(editor, [request]), 0) for request in requests]
    return [{matrix: delta.detach() for matrix, delta in update.items()} for update in made]


def other_labels(kind: str, labels: Sequence[int]) -> list[int]:
    """Labels that differ from these."""
    return [(label + 1) % 3 if kind == "classifier" else 5 + (label + 1) % 50 for label in labels]


def rank(matrix: torch.Tensor) -> int:
    singular = torch.linalg.svdvals(matrix)
    return int((singular > 1e-9 * singular[0]).sum())
