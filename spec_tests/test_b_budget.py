"""Chapter B: what masks and a MEND editor may cost, in parameters and in intermediates."""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from . import probes, strategies as given_, tiny
from .assertions import equal, holds, near
from .border import Handed
from .conformance import Implementation, clause, every_learned, needs
from .contract import Array, Masks
from .editing import every_model, masked_editor
from .tiny import make, make_request, raw_weights, setting, shifts

Shapes = dict[str, tuple[int, int]]


def mlp(h: int, layers: int = 3) -> Shapes:
    """The MLP matrices of some encoder layers of hidden size h."""
    return {f"{i}.up": (h, 4 * h) for i in range(layers)} | {f"{i}.down": (4 * h, h) for i in range(layers)}


def spoken(count: int) -> list[str]:
    """Languages, some of which are a part of another's name, and none of which is English."""
    known = ("zh", "zh-yue", "zh_classical", "ku", "ckb", "ku-Arab", "pt", "pt-BR")
    return [*known, *(f"l{place}" for place in range(count))][:count]


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
    about = {"shapes": shapes, "languages": languages}
    equal("B1", sorted(found), sorted(shapes), "other matrices have masks", **about)
    for name, (n, m) in shapes.items():
        got = {side: np.shape(found[name][side]) for side in ("x", "delta")}
        what = "log α does not have a row for each language"
        equal("B1", got, {"x": (languages, n), "delta": (languages, m)}, what, matrix=name, **about)
    total = sum(np.size(array) for sides in found.values() for array in sides.values())
    expected = languages * cost_of_one_language(implementation, shapes)
    equal("B1", total, expected, "masks have another number of parameters", **about)


@clause("B1")
@pytest.mark.parametrize("h", [32, 64, 128])
@pytest.mark.parametrize("languages", [1, 5, 15])
def test_masks_add_exactly_their_budget_to_an_editor(implementation: Implementation, h: int, languages: int) -> None:
    """A MEND with masks is larger than one without by c · |L| · Σ (n + m); one shared mask is that with |L| = 1."""
    base = size(implementation, mlp(h), languages, "none")
    per_language = cost_of_one_language(implementation, mlp(h))
    for masks, rows in (("language", languages), ("shared", 1)):
        extra = size(implementation, mlp(h), languages, masks) - base
        what = "masks make an editor larger by another number of parameters"
        equal("B1", extra, rows * per_language, what, masks=masks, h=h, languages=languages)


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
        what = "masks make an editor larger by another number of parameters"
        about = {"editor": name, "masks": masks, "languages": languages}
        equal("B1", total(masks) - total("none"), expected, what, **about)


# B2


@clause("B2")
@pytest.mark.parametrize("masks", ["none", "language", "shared"])
def test_an_editor_grows_at_most_quadratically(implementation: Implementation, masks: str) -> None:
    """Doubling h multiplies no parameter, no buffer and not their sum by more than 4 (up to lower-order terms)."""
    # A small model's transform may have another rank than a large one's: each is compared with its like.
    large = [(lambda h: {"w": (h, h)}, (2048, 4096))] if masks == "none" else []
    for shapes, sizes in [(lambda h: mlp(h, 1), (64, 128, 256)), *large]:
        made = [implementation.editor_shapes(shapes(h), spoken(15), masks) for h in sizes]
        totals, largest = ([kind(map(math.prod, one.values())) for one in made] for kind in (sum, max))
        for what, numbers in (("sum of parameters", totals), ("largest parameter", largest)):
            growth = [after / before for before, after in itertools.pairwise(numbers)]
            faster = f"the {what} of an editor grows faster than h²"
            holds("B2", max(growth) <= 4.05, faster, expected="4 times as h doubles", got=growth, h=sizes, masks=masks)


@clause("B2")
@pytest.mark.parametrize("masks", ["none", "language", "shared"])
def test_languages_multiply_no_matrix(implementation: Implementation, masks: str) -> None:
    """More languages add |L| · (n + m) numbers or nothing; nothing has n · m · |L|, however it is cut up."""
    h, few, many = 128, 2, 40
    growth = size(implementation, mlp(h), many, masks) - size(implementation, mlp(h), few, masks)
    rows = many - few if masks == "language" else 0
    what = "more languages cost something else than their masks"
    about = {"languages": (few, many), "masks": masks, "h": h}
    equal("B2", growth, rows * cost_of_one_language(implementation, mlp(h)), what, **about)


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
    with watching_tensors(implementation) as seen:
        implementation.edit(editor, [tiny.make_request("wide", np.random.default_rng(1), words=3)])
    largest = max(seen.largest, *(value.numel() for value in implementation.parameters(editor).values()))
    below, what = largest < (n * m) ** 2, "an edit relates every weight to every weight"
    expected = f"tensors below (n · m)² = {(n * m) ** 2} elements"
    holds("B2", below, what, expected=expected, got=largest, editor=name, masks=masks)


@clause("B2")
@needs("E")
@pytest.mark.parametrize("masks", ["none", "language", "shared"])
@every_learned
def test_an_edit_makes_no_matrix_per_language(implementation: Implementation, name: str, masks: Masks) -> None:
    """With 40 languages for 2, an edit makes no larger tensor, but for the gates of each language (B1)."""
    world = tiny.setting("bert")
    n, m = world.shapes[world.edited[0]]
    request = tiny.make_request("bert", np.random.default_rng(2), language=spoken(2)[1], words=3)
    largest = []
    for languages in (2, 40):
        editor = tiny.make(implementation, name, world, masks, languages=spoken(languages))
        with watching_tensors(implementation) as seen:
            implementation.edit(editor, [request])
        largest.append(seen.largest)
    of_masks = sum(n + m for n, m in world.shapes.values()) if masks == "language" else 0
    limit = max(largest[0] + 38 * of_masks, 40 * (n + m))
    what, expected = "an edit makes a matrix for each language", f"tensors of at most {limit} elements"
    holds("B2", largest[1] <= limit, what, expected=expected, got=largest[1], editor=name, masks=masks)


# B3


@contextmanager
def watching_tensors(implementation: Any, least: int = 0) -> Iterator[probes.Seen]:
    """Records the largest tensor that an operation returns, and those of `least` elements that one makes."""
    with probes.watching(implementation, least) as seen:
        yield seen
    if not seen.counted:
        pytest.skip("not claimed: the torch of this implementation cannot count what operations make")


def masking(implementation: Implementation, side: int, tokens: int, backward: bool, seed: int | None) -> None:
    names = ("x", "delta", "x_scale", "delta_scale")
    log_alpha = dict.fromkeys(names if implementation.ruling("mask_scale") == "learned" else names[:2])
    log_alpha = {name: Handed.out(np.zeros((3, side))) for name in log_alpha}
    x, delta = (Handed.out(np.ones((tokens, side))) for _ in range(2))
    arguments: list[Array] = [x, delta, x, delta] if backward else [x, delta]
    function = implementation.mask_factors_gradient if backward else implementation.mask_factors
    function(log_alpha, spoken(3), spoken(3)[1], *arguments, seed=seed)


@clause("B3")
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("seed", [None, 3], ids=["at-test", "in-training"])
def test_masking_makes_nothing_of_n_times_m(implementation: Implementation, backward: bool, seed: int | None) -> None:
    """At n = m = 4096 and T = 2 no tensor has n · m elements, and all memory together stays below a byte for each."""
    side, tokens = 4096, 2
    masking(implementation, 8, tokens, backward, seed)
    gc.collect()
    with probes.watching(implementation) as seen:
        masking(implementation, side, tokens, backward, seed)
    limit = side * side
    about = {"n": side, "T": tokens, "backward": backward, "sampled": seed is not None}
    what = "masking makes something of n · m elements"
    holds("B3", seen.peak < limit, what, expected=f"a peak below {limit} bytes of NumPy's", got=seen.peak, **about)
    expected = f"tensors far below n · m = {limit} elements"
    holds("B3", seen.largest < limit // 8, what, expected=expected, got=seen.largest, **about)


# Of editors


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
    raw = raw_weights(world)
    for index, request in enumerate(requests):
        update = implementation.dense(editor, edits, index)
        for matrix, (u, v) in implementation.factors(editor, edits, index).items():
            n, m = world.shapes[matrix]
            rows = max(len(one["input_ids"]) for one in requests) + (name == "knowledge_editor")
            about = {"editor": name, "model": kind, "edit": request, "matrix": matrix}
            size, got = rows * (n + m), u.numel() + v.numel()
            what = "an edit is held as more than a row for each token"
            holds("B4", got <= size, what, expected=f"at most {size} numbers for {rows} rows", got=got, **about)
            expected, beside = update[matrix] - shift.get(matrix, 0), raw[matrix] if shift else None
            what = "the factors of an edit do not multiply out to it"
            near("B4", v.T @ u, expected, what, "model", of=[u, v, update[matrix]], beside=beside, **about)


@clause("B4")
@needs("E", "factored")
@pytest.mark.parametrize("masks", ["none", "language"])
@every_learned
def test_an_edit_makes_nothing_of_the_size_of_a_matrix(implementation: Any, name: str, masks: str) -> None:
    """While edits of wide matrices are made, no operation makes a tensor of n·m elements for one of them.

    Editable Training may form its θ' once for a call, however many edits the call makes. Short inputs keep all rows of
    a call together below n·m elements.
    """
    world = setting("wide", torch.float32)
    editor = make(implementation, name, world, masks)
    requests = [make_request("wide", np.random.default_rng(seed), words=1, positions=1) for seed in range(35, 52)]
    n, m = world.shapes[world.edited[0]]
    made = []
    for count in (2, 4 if name == "editable_training" else 17):  # it may make many edits in parts, as many calls would
        implementation.edit(editor, requests[:count])
        with watching_tensors(implementation, n * m) as seen:
            implementation.edit(editor, requests[:count])
        made.append(seen)
    about = {"editor": name, "masks": masks, "n · m": n * m}
    what = "an edit makes something of n · m elements"
    if name == "editable_training":
        same = made[0].made == made[1].made
        expected = f"as much for four edits as for two: {made[0].made} elements"
        holds("B4", same, what, expected=expected, got=made[1].made, by=made[1].found[:4], **about)
    else:
        equal("B4", [*made[0].found[:4], *made[1].found[:4]], [], what, **about)
