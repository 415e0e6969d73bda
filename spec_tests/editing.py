"""Helpers for tests of editors, in whichever chapter: parametrisations, editors off their start, their edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from .assertions import equal, holds, width
from .border import Handed
from .contract import Request
from .tiny import LANGUAGES, Setting, make_felt, make_request, mask_places, perturb, set_masks

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


def transformed(
    implementation: Any, editor: Any, matrix: str, x: torch.Tensor, delta: torch.Tensor, language: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """MEND's transform of these rows, which are handed out in the width that is asked for."""
    width = getattr(torch, Handed.width)
    x_new, delta_new = implementation.transform(editor, matrix, x.to(width), delta.to(width), language)
    return x_new, delta_new


def copied(implementation: Any, source: Any, target: Any, clause_id: str) -> None:
    """Give one editor the parameters of another under the same names; the source may have masks beside them.

    Masks may be part of a larger tensor: without them it has the size that it has in the base editor.
    """
    live, given = implementation.parameters(target), implementation.parameters(source)
    missing = sorted(set(live) - set(given))
    what = "a masked editor does not have all parameters of its base editor, under the same names"
    equal(clause_id, missing, [], what, got_names=sorted(given))
    places = mask_places(implementation, source) if implementation.mask_parameters(source) else {}
    with torch.no_grad():
        for name, value in live.items():
            numbers = given[name].detach()
            if numbers.shape != value.shape:
                numbers = without(numbers, [index for at, index in places.values() if at == name])
                shapes = {"expected": tuple(value.shape), "got": tuple(given[name].shape)}
                what = "a parameter of the base editor has another size with masks"
                holds(clause_id, numbers.numel() == value.numel(), what, **shapes, parameter=name)
            value.copy_(numbers.reshape(value.shape))


def without(value: torch.Tensor, places: Sequence[torch.Tensor]) -> torch.Tensor:
    """The numbers of a tensor in their order, but for those at these places."""
    kept = torch.ones(value.numel(), dtype=torch.bool)
    for index in places:
        kept[index.flatten()] = False
    return value.detach().flatten()[kept]


def other_labels(kind: str, labels: Sequence[int]) -> list[int]:
    """Labels that differ from these."""
    return [(label + 1) % 3 if kind == "classifier" else 5 + (label + 1) % 50 for label in labels]


def rank(matrix: torch.Tensor, came_back: torch.Tensor | None = None) -> int:
    """Up to rounding in the width of what came back, from which the matrix was computed."""
    singular = torch.linalg.svdvals(matrix.double())
    rounded = 1e-9 if came_back is None or width(came_back) == "float64" else 1e-3
    return int((singular > rounded * singular[0]).sum())
