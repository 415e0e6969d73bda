"""Chapter B: what masks and a MEND editor may cost, in parameters and in intermediates."""

from __future__ import annotations

import gc
import itertools
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from . import strategies as given_
from . import tiny
from .assertions import equal, holds
from .conformance import Implementation, clause, every_learned, needs
from .contract import Array, Masks
from .editing import every_model, masked_editor
from .tiny import assert_close, make, make_request, setting, shifts

Shapes = dict[str, tuple[int, int]]


def mlp(h: int, layers: int = 3) -> Shapes:
    """The MLP matrices of some encoder layers of hidden size h."""
    return {f"{i}.up": (h, 4 * h) for i in range(layers)} | {f"{i}.down": (4 * h, h) for i in range(layers)}


def spoken(count: int) -> list[str]:
    return [f"l{place}" for place in range(count)]


def cost_of_one_language(implementation: Implementation, shapes: Shapes) -> int:
    """c · Σ (n + m)."""
    c = 2 if implementation.ruling("mask_scale") == "learned" else 1
    return c * sum(n + m for n, m in shapes.values())


def size(implementation: Implementation, shapes: Shapes, languages: int, masks: str) -> int:
    found = implementation.editor_shapes(shapes, spoken(languages), masks)
    return sum(math.prod(shape) for shape in found.values())


# B1


@clause("B1")
@given(given_.matrices(), st.integers(1, 6))
def test_masks_cost_one_number_per_language_and_side(
    implementation: Implementation, shapes: Shapes, languages: int
) -> None:
    """All mask parameters together: c · |L| · Σ (n + m); log α has a row for each language."""
    found = implementation.initial_masks(shapes, spoken(languages))
    equal("B1", set(found), set(shapes), "masked matrices", shapes=shapes)
    for name, (n, m) in shapes.items():
        got = {side: np.shape(found[name][side]) for side in ("x", "delta")}
        equal("B1", got, {"x": (languages, n), "delta": (languages, m)}, f"log α of {name}")
    total = sum(np.size(array) for sides in found.values() for array in sides.values())
    equal("B1", total, languages * cost_of_one_language(implementation, shapes), "parameters", shapes=shapes)


@clause("B1")
@pytest.mark.parametrize("h", [32, 64, 128])
@pytest.mark.parametrize("languages", [1, 5, 15])
def test_masks_add_exactly_their_budget_to_an_editor(implementation: Implementation, h: int, languages: int) -> None:
    """A MEND with masks is larger than one without by c · |L| · Σ (n + m); one shared mask is that with |L| = 1."""
    base = size(implementation, mlp(h), languages, "none")
    per_language = cost_of_one_language(implementation, mlp(h))
    for masks, rows in (("language", languages), ("shared", 1)):
        extra = size(implementation, mlp(h), languages, masks) - base
        equal("B1", extra, rows * per_language, f"extra parameters, masks = {masks}", h=h, languages=languages)


@clause("B1")
@needs("E")
@every_learned
@pytest.mark.parametrize("languages", [1, 7])
def test_every_editor_pays_the_same_for_its_masks(implementation: Implementation, name: str, languages: int) -> None:
    """An editor with masks has c · |L| · Σ (n + m) parameters more than one without; with one shared mask |L| = 1."""
    world = tiny.setting("bert")

    def total(masks: Masks) -> int:
        editor = tiny.make(implementation, name, world, masks, languages=spoken(languages))
        return sum(value.numel() for value in implementation.parameters(editor).values())

    for masks, count in (("language", languages), ("shared", 1)):
        expected = count * cost_of_one_language(implementation, world.shapes)
        equal("B1", total(masks) - total("none"), expected, f"extra parameters, masks = {masks}", editor=name)


# B2


@clause("B2")
@pytest.mark.parametrize("masks", ["none", "language", "shared"])
def test_an_editor_grows_at_most_quadratically(implementation: Implementation, masks: str) -> None:
    """Doubling h multiplies no parameter, no buffer and not their sum by more than 4 (up to lower-order terms)."""
    sizes = [64, 128, 256]
    totals = [size(implementation, mlp(h), 15, masks) for h in sizes]
    largest = [_largest(implementation, mlp(h), 15, masks) for h in sizes]
    for what, numbers in (("sum of parameters", totals), ("largest parameter", largest)):
        growth = [after / before for before, after in itertools.pairwise(numbers)]
        holds(
            "B2", max(growth) <= 4.05, f"growth of the {what} as h doubles", expected="at most 4", got=growth, h=sizes
        )


@clause("B2")
@pytest.mark.parametrize("masks", ["none", "language", "shared"])
def test_languages_multiply_no_matrix(implementation: Implementation, masks: str) -> None:
    """More languages add |L| · (n + m) numbers or nothing; nothing has n · m · |L|, however it is cut up."""
    h, few, many = 128, 2, 40
    growth = size(implementation, mlp(h), many, masks) - size(implementation, mlp(h), few, masks)
    rows = many - few if masks == "language" else 0
    equal("B2", growth, rows * cost_of_one_language(implementation, mlp(h)), f"{many} for {few} languages", masks=masks)


@clause("B2")
@needs("E")
@pytest.mark.parametrize("masks", ["none", "language"])
@every_learned
def test_an_edit_never_relates_every_weight_to_every_weight(
    implementation: Implementation, name: str, masks: Masks
) -> None:
    """While an edit is made, no tensor has (n · m)² elements; nor does any parameter."""
    world = tiny.setting("wide", torch.float32)
    editor = tiny.make(implementation, name, world, masks)
    n, m = world.shapes[world.edited[0]]
    with LargestTensor() as seen:
        implementation.edit(editor, [tiny.make_request("wide", np.random.default_rng(1), words=3)])
    largest = max(value.numel() for value in implementation.parameters(editor).values())
    seen.elements = max(seen.elements, largest)
    below = seen.elements < (n * m) ** 2
    holds("B2", below, "largest tensor", expected=f"below (n · m)² = {(n * m) ** 2}", got=seen.elements, masks=masks)


@clause("B2")
@needs("E")
@pytest.mark.parametrize("masks", ["none", "language", "shared"])
@every_learned
def test_an_edit_makes_no_matrix_per_language(implementation: Implementation, name: str, masks: Masks) -> None:
    """With 40 languages for 2, an edit makes no larger tensor, but for one row of gates for each language."""
    world = tiny.setting("bert")
    n, m = world.shapes[world.edited[0]]
    request = tiny.make_request("bert", np.random.default_rng(2), language="l1", words=3)
    largest = []
    for languages in (2, 40):
        editor = tiny.make(implementation, name, world, masks, languages=spoken(languages))
        with LargestTensor() as seen:
            implementation.edit(editor, [request])
        largest.append(seen.elements)
    limit = max(largest[0], 40 * (n + m))
    holds("B2", largest[1] <= limit, "largest tensor", expected=f"at most {limit}", got=largest[1], masks=masks)


def _largest(implementation: Implementation, shapes: Shapes, languages: int, masks: str) -> int:
    return max(math.prod(shape) for shape in implementation.editor_shapes(shapes, spoken(languages), masks).values())


# B3


class LargestTensor(TorchDispatchMode):
    """The element count of the largest tensor that any torch operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else (result,):
            if isinstance(part, torch.Tensor):
                self.elements = max(self.elements, part.numel())
        return result


def masking(implementation: Implementation, side: int, tokens: int, backward: bool, seed: int | None) -> None:
    names = ("x", "delta", "x_scale", "delta_scale")
    log_alpha = dict.fromkeys(names if implementation.ruling("mask_scale") == "learned" else names[:2])
    log_alpha = {name: np.zeros((3, side)) for name in log_alpha}
    x, delta = np.ones((tokens, side)), np.ones((tokens, side))
    arguments: list[Array] = [x, delta, x, delta] if backward else [x, delta]
    function = implementation.mask_factors_gradient if backward else implementation.mask_factors
    function(log_alpha, spoken(3), "l1", *arguments, seed=seed)


@clause("B3")
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("seed", [None, 3], ids=["at-test", "in-training"])
def test_masking_makes_nothing_of_n_times_m(implementation: Implementation, backward: bool, seed: int | None) -> None:
    """At n = m = 4096 and T = 2 no tensor has n · m elements, and all memory together stays below a byte for each."""
    side, tokens = 4096, 2
    masking(implementation, 8, tokens, backward, seed)
    gc.collect()
    tracemalloc.start()
    try:
        with LargestTensor() as seen:
            masking(implementation, side, tokens, backward, seed)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    limit = side * side
    bound = f"below n · m = {limit}"
    holds("B3", peak < limit, "peak bytes of NumPy", expected=bound, got=peak, n=side, T=tokens, backward=backward)
    largest = seen.elements
    holds("B3", largest < limit // 8, "largest tensor", expected=f"far {bound}", got=largest, n=side, T=tokens)


# Of editors


class Allocations(TorchDispatchMode):
    """Records every tensor of at least `least` elements that an operation makes.

    Views of older tensors are none, nor are tensors that have a shape and no memory.
    """

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least = least
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        old = {_storage(v) for v in tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)}
        for value in tree_leaves(result):
            if not isinstance(value, torch.Tensor) or value.is_meta or value.numel() < self.least:
                continue
            if _storage(value) not in old:
                self.found.append(f"{func} made {tuple(value.shape)}")
        return result


def _storage(value: torch.Tensor) -> int:
    return value.untyped_storage().data_ptr()


@clause("B4")
@needs("E", "factored")
@every_model
@every_learned
def test_factors_multiply_out_to_the_edit(implementation: Any, name: str, kind: str) -> None:
    """ΔW = Vᵀ U, beside θ' - θ for Editable Training, with a row per token and one for KnowledgeEditor's offset."""
    world = setting(kind)
    editor = masked_editor(implementation, name, world)
    shift = shifts(implementation, editor, name, world)
    rng = np.random.default_rng(34)
    requests = [make_request(kind, rng, words=words) for words in (2, 9)]
    edits = implementation.edit(editor, requests)
    for index, request in enumerate(requests):
        update = implementation.dense(editor, edits, index)
        for matrix, (u, v) in implementation.factors(editor, edits, index).items():
            n, m = world.shapes[matrix]
            rows = max(len(one["input_ids"]) for one in requests) + (name == "knowledge_editor")
            assert u.numel() + v.numel() <= rows * (n + m), f"{matrix}: {u.shape} and {v.shape} for {rows} rows"
            expected = update[matrix] - shift.get(matrix, 0)
            scale = float(update[matrix].detach().abs().max())
            assert_close(v.T @ u, expected, f"edit {index} ({request['language']}), {matrix}", atol=1e-9 * scale)


@clause("B4")
@needs("E", "factored")
@pytest.mark.parametrize("masks", ["none", "language"])
@every_learned
def test_an_edit_makes_nothing_of_the_size_of_a_matrix(implementation: Any, name: str, masks: str) -> None:
    """While two edits of wide matrices are made, no operation makes a tensor of n·m elements."""
    world = setting("wide", torch.float32)
    editor = make(implementation, name, world, masks)
    requests = [make_request("wide", np.random.default_rng(seed), words=3, positions=1) for seed in (35, 36)]
    implementation.edit(editor, requests)
    n, m = world.shapes[world.edited[0]]
    with Allocations(n * m) as made:
        implementation.edit(editor, requests)
    assert not made.found, f"with n·m = {n * m}: {'; '.join(made.found[:4])}"
