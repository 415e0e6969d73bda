"""Chapter E, structure: which output depends on which input and number, and what an option changes.

Everything is found by perturbation: one input, one number or one option is another, and what moves is looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from . import probes
from .assertions import close, equal, holds
from .conformance import Implementation, clause, each_of, every_learned, needs
from .contract import Gates, Request
from .editing import transformed, updates, without
from .stepping import AfterTraining, batch, is_rate
from .tiny import (
    LANGUAGES,
    Setting,
    gradients,
    inner_rates,
    make,
    make_felt,
    make_request,
    mask_places,
    perturb,
    rate,
    setting,
    shifts,
    step as take_step,
    with_update,
)

trained = pytest.mark.parametrize("after_training", [False, True], ids=["random", "trained"])


def rows(world: Setting, matrix: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Three random rows x and δ."""
    n, m = world.shapes[matrix]
    generator = torch.Generator().manual_seed(seed)
    x, delta = (torch.randn(3, width, generator=generator, dtype=torch.float64) for width in (n, m))
    return x, 1e-3 * delta


# --- E17: MEND --------------------------------------------------------------------------------------------------------


@clause("E17")
@needs("mend")
@trained
def test_x_and_delta_are_transformed_together(implementation: Implementation, after_training: bool) -> None:
    """x̃ moves with δ and δ̃ with x, in every matrix; before any training neither does."""
    world = setting("bert")
    if after_training:
        editor = make_felt(AfterTraining(implementation, "bert"), "mend", world, lr=1e-2)
    else:
        editor = make_felt(implementation, "mend", world)
        perturb(implementation, editor)
    for matrix in world.edited:
        x, delta = rows(world, matrix)
        other_x, other_delta = rows(world, matrix, seed=1)
        both = transformed(implementation, editor, matrix, x, delta, "en")
        moved = {
            "x̃ with δ": (transformed(implementation, editor, matrix, x, other_delta, "en")[0], both[0]),
            "δ̃ with x": (transformed(implementation, editor, matrix, other_x, delta, "en")[1], both[1]),
            "x̃ with x": (transformed(implementation, editor, matrix, other_x, delta, "en")[0], both[0]),
            "δ̃ with δ": (transformed(implementation, editor, matrix, x, other_delta, "en")[1], both[1]),
        }
        for what, (new, old) in moved.items():
            change = float((new - old).abs().max())
            holds("E17", change > 1e-6, f"{what}, {matrix}", expected="a change above 1e-6", got=f"{change:.1e}")


@clause("E4", "L1")
@needs("editable_training")
def test_a_long_answer_is_stepped_down_as_far_as_a_short_one(implementation: Implementation) -> None:
    """A loss is the mean over the positions of y_e: the step is the rate times its gradient for one and for four."""
    world = setting("bert")
    editor = make_felt(implementation, "editable_training", world)
    rng = np.random.default_rng(120)
    one, four = (
        _rates(implementation, editor, "editable_training", world, make_request("bert", rng, positions=count))
        for count in (1, 4)
    )
    for matrix in world.edited:
        ratio = four[matrix] / one[matrix]
        close("E4", ratio, 1.0, f"the rate of {matrix} for four positions, by that for one", "model")


@clause("E17")
@pytest.mark.parametrize(("kind", "layers"), [("bert", 2), ("bert", 3), ("square", 2), ("deep", 2)])
@each_of("mend", "editable_training")
def test_an_inner_rate_is_one_number_of_one_matrix(
    implementation: Implementation, name: str, kind: str, layers: int
) -> None:
    """There are as many small numbers as matrices, and each scales the edit of its own and of no other.

    Of a square model both matrices of a layer have one shape; of a deep one the layers 1 and 10 are edited.
    """
    made = setting(kind)
    names = [own for own, _ in made.model.named_parameters() if own.endswith((".intermediate.dense.weight", DOWN))]
    edited = [own for own in names if ".attention." not in own][-2 * layers :] if kind == "bert" else made.edited
    world = Setting(kind, made.model, tuple(edited))
    editor = make_felt(implementation, name, world)
    small = [(own, value) for own, value in implementation.parameters(editor).items() if is_rate(value)]
    known = inner_rates(implementation, editor)
    small = [(own, value) for own, value in small if own in known] or small  # a scale may be one number, too
    if not small:
        pytest.skip("not claimed: the inner rates lie among other numbers")
    count = sum(value.numel() for _, value in small)
    equal(
        "E17",
        count,
        len(world.edited),
        f"inner rates of {len(world.edited)} matrices",
        parameters=[own for own, _ in small],
    )
    request = make_request(kind, np.random.default_rng(110), language="en")
    before = _rates(implementation, editor, name, world, request)
    moved_by = []
    for _, value in small:
        for place in range(value.numel()):
            kept = value.detach().clone()
            with torch.no_grad():
                value.view(-1)[place] += 0.25 * value.view(-1)[place].abs()
            after = _rates(implementation, editor, name, world, request)
            with torch.no_grad():
                value.copy_(kept)
            moved_by.append([m for m in world.edited if abs(after[m] - before[m]) > 1e-6 * abs(before[m])])
    equal("E17", sorted(map(tuple, moved_by)), sorted((m,) for m in world.edited), "matrices that each rate scales")


DOWN = ".output.dense.weight"


def _rates(implementation: Any, editor: Any, name: str, world: Setting, request: Request) -> dict[str, float]:
    """How long the edit of each matrix is, in its own direction at the start."""
    shift = shifts(implementation, editor, name, world)
    (update,) = updates(implementation, editor, [request])
    if name == "mend":
        return {matrix: float(found.norm()) for matrix, found in update.items()}
    slopes = gradients(with_update(world.model, shift), world.edited, request)
    return {matrix: rate(found - shift[matrix], slopes[matrix]) for matrix, found in update.items()}


# --- E17: Editable Training -------------------------------------------------------------------------------------------


@clause("E17")
@needs("editable_training")
@pytest.mark.parametrize("chosen", [slice(None), slice(1)], ids=["four", "one"])
def test_editable_training_learns_the_edited_matrices_and_their_rates(
    implementation: Implementation, chosen: slice
) -> None:
    """As many numbers as the edited matrices have, and one for each matrix."""
    made = setting("bert")
    world = Setting("bert", made.model, made.edited[chosen])
    editor = make(implementation, "editable_training", world)
    count = sum(value.numel() for value in implementation.parameters(editor).values())
    expected = sum(n * m + 1 for n, m in world.shapes.values())
    equal("E17", count, expected, "numbers that Editable Training learns", matrices=world.shapes)


# --- E17: KnowledgeEditor ---------------------------------------------------------------------------------------------


def _gates(implementation: Any, editor: Any, request: Request) -> torch.Tensor:
    found: dict[str, Gates] = implementation.gates(editor, request)
    parts = [part.detach().flatten() for matrix in sorted(found) for part in _parts(found[matrix])]
    return torch.cat(parts)


def _parts(gate: Gates) -> list[torch.Tensor]:
    return [*gate["a"], *gate["b"], gate["scale"][None]]


@pytest.fixture(params=["bert", "classifier"])
def reader(request: pytest.FixtureRequest, implementation: Implementation) -> tuple[Any, str]:
    """A KnowledgeEditor off its start, and the kind of its model."""
    editor = make(implementation, "knowledge_editor", setting(request.param))
    perturb(implementation, editor, scale=0.3)
    return editor, request.param


@clause("E17")
@needs("knowledge_editor")
@pytest.mark.parametrize("words", [5, 34])
def test_every_token_of_the_edit_input_is_read(
    implementation: Implementation, reader: tuple[Any, str], words: int
) -> None:
    """Of short and of long inputs: another token at any place, the first and the last too, gives other gates.

    A token that stands twice is read twice.
    """
    editor, kind = reader
    request = make_request(kind, np.random.default_rng(111), words=words, positions=2)
    before = _gates(implementation, editor, request)
    for place in range(len(request["input_ids"])):
        ids = list(request["input_ids"])
        ids[place] = 5 + (ids[place] + 11) % 50
        after = _gates(implementation, editor, {**request, "input_ids": ids})
        same = torch.allclose(after, before, rtol=1e-9, atol=1e-12)
        what = f"gates after another token at {place} of {len(ids)}"
        holds("E17", not same, what, expected="other gates", got="the same", model=kind)
    head, *rest = request["input_ids"]
    one, other = (
        _gates(implementation, editor, {**request, "input_ids": [head, *three, *rest[3:]]})
        for three in ([7, 7, 8], [7, 8, 8])
    )
    same = torch.allclose(one, other, rtol=1e-9, atol=1e-12)
    holds("E17", not same, "gates after 7, 7, 8 and after 7, 8, 8", expected="other gates", got="the same", model=kind)


@clause("E17")
@needs("knowledge_editor")
@pytest.mark.parametrize("count", [6, 20])
def test_every_token_of_the_desired_prediction_is_read(implementation: Implementation, count: int) -> None:
    """Of six tokens and of twenty each, and their order, and how often each stands, has a part in the gates."""
    editor = make(implementation, "knowledge_editor", setting("bert"))
    perturb(implementation, editor, scale=0.3)
    if implementation.ruling("knowledge_editor_condition") == "input":
        pytest.skip("not claimed: by the declared ruling y_e is not read")
    request = make_request("bert", np.random.default_rng(112), positions=count)
    request["labels"] = [*range(7, 7 + 2 * count, 2)]
    before = _gates(implementation, editor, request)
    tried = {f"label {place}": [t + (at == place) for at, t in enumerate(request["labels"])] for place in range(count)}
    first, second, *rest = request["labels"]
    tried["order of the labels"] = [second, first, *rest]
    tried["order of the last labels"] = [first, second, *rest[:-2], rest[-1], rest[-2]]
    for what, labels in tried.items():
        after = _gates(implementation, editor, {**request, "labels": labels})
        same = torch.allclose(after, before, rtol=1e-9, atol=1e-12)
        holds("E17", not same, f"gates after another {what}", expected="other gates", got="the same")
    repeated = ([first] * (count - 1) + [second], [first] + [second] * (count - 1))
    one, other = (_gates(implementation, editor, {**request, "labels": labels}) for labels in repeated)
    same = torch.allclose(one, other, rtol=1e-9, atol=1e-12)
    what = f"gates where a label stands once, and {count - 1} times"
    holds("E17", not same, what, expected="other gates", got="the same")


@clause("E17")
@needs("knowledge_editor")
@pytest.mark.parametrize("kind", ["bert", "square", "deep"])
def test_every_matrix_has_gates_of_its_own(implementation: Implementation, kind: str) -> None:
    """Scale, gate and offset of two matrices of one shape differ; gate and offset differ; inputs move the scale."""
    world = setting(kind)
    editor = make(implementation, "knowledge_editor", world)
    perturb(implementation, editor, scale=0.3)
    rng = np.random.default_rng(113)
    first, second = (implementation.gates(editor, make_request(kind, rng)) for _ in range(2))
    pairs = itertools.combinations(world.edited, 2)
    for low, high in ((one, other) for one, other in pairs if world.shapes[one] == world.shapes[other]):
        for part in ("a", "b"):
            pair = zip(first[low][part], first[high][part], strict=True)  # type: ignore[literal-required]
            same = all(torch.allclose(one, other, rtol=1e-6) for one, other in pair)
            holds("E17", not same, f"{part} of {low} and of {high}", expected="gates that differ", got="the same gates")
        same = torch.allclose(first[low]["scale"], first[high]["scale"], rtol=1e-6, atol=0)
        holds("E17", not same, f"scales of {low} and of {high}", expected="scales that differ", got=first[low]["scale"])
    for matrix in world.edited:
        gate = first[matrix]
        same = all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(gate["a"], gate["b"], strict=True))
        holds("E17", not same, f"a and b of {matrix}", expected="outer products that differ", got="the same one")
        same = torch.allclose(gate["scale"], second[matrix]["scale"], rtol=1e-9, atol=0)
        holds("E17", not same, f"scale of {matrix} for two edits", expected="scales that differ", got=gate["scale"])


@clause("E17")
@needs("knowledge_editor")
def test_numbers_of_the_network_belong_to_one_matrix_or_to_all(implementation: Implementation) -> None:
    """One tensor moves the gates of one matrix, or of all; every matrix has tensors of its own."""
    world = setting("bert")
    editor = make(implementation, "knowledge_editor", world)
    perturb(implementation, editor, scale=0.3)
    request = make_request("bert", np.random.default_rng(114))

    def told() -> dict[str, torch.Tensor]:
        found = implementation.gates(editor, request)
        return {matrix: torch.cat([part.detach().flatten() for part in _parts(found[matrix])]) for matrix in found}

    before, alone = told(), set()
    for value in implementation.parameters(editor).values():
        kept = value.detach().clone()
        with torch.no_grad():
            value.mul_(1.3)
        after = told()
        with torch.no_grad():
            value.copy_(kept)
        moved = [matrix for matrix in world.edited if not torch.equal(before[matrix], after[matrix])]
        if len(moved) == 1:
            alone.update(moved)
    if len(implementation.parameters(editor)) > len(world.edited):
        equal("E17", alone, set(world.edited), "matrices with a part of the network of their own")


@clause("E17", "A7")
@needs("knowledge_editor")
def test_gates_do_not_see_the_masks(implementation: Implementation) -> None:
    """Masks are on the gradient that is gated, and on nothing that the network reads."""
    editor = make(implementation, "knowledge_editor", setting("bert"), "language")
    perturb(implementation, editor)
    request = make_request("bert", np.random.default_rng(115), language="en")
    before = _gates(implementation, editor, request)
    with torch.no_grad():
        for arrays in implementation.mask_parameters(editor).values():
            for value in arrays.values():
                value.add_(1.5)
    same = torch.equal(_gates(implementation, editor, request), before)
    holds("E17", same, "gates under other masks", expected="the same gates", got="other gates")


# --- E18 --------------------------------------------------------------------------------------------------------------


def _started(implementation: Any, name: str, world: Setting, masks: str = "none", **options: Any) -> Any:
    editor = make(implementation, name, world, masks, **options)
    return {own: value.detach().clone() for own, value in implementation.parameters(editor).items()}


@clause("E18")
@every_learned
def test_a_seed_decides_on_the_start(implementation: Implementation, name: str) -> None:
    """One seed is one start, whatever the global generator gave; two differ where numbers are drawn at all."""
    world = setting("bert")
    first = _started(implementation, name, world, seed=3)
    with probes.global_state(implementation, 99):
        again = _started(implementation, name, world, seed=3)
    differing = [own for own in first if not torch.equal(first[own], again[own])]
    equal("E18", differing, [], "tensors that differ between two editors of one seed", editor=name)
    other = _started(implementation, name, world, seed=4)
    differing = [own for own in first if not torch.equal(first[own], other[own])]
    draws = name != "editable_training"
    starts = "other numbers for each" if draws else "the same numbers"
    got = f"{differing} differ" if differing else "the same numbers"
    holds("E18", bool(differing) == draws, "starts of two seeds", expected=starts, got=got, editor=name)


@clause("E18")
@every_learned
def test_languages_and_learning_rates_do_not_move_the_start(implementation: Implementation, name: str) -> None:
    """With other languages, with another learning rate: what is not named starts the same."""
    world = setting("bert")
    base = _started(implementation, name, world, seed=5)
    tried = {
        "two languages": _started(implementation, name, world, seed=5, languages=LANGUAGES[:2]),
        "a large learning rate": _started(implementation, name, world, seed=5, lr=0.5),
        "a learning rate": _started(implementation, name, world, seed=5, lr=2e-4),
        "a small learning rate": _started(implementation, name, world, seed=5, lr=1e-9),
    }
    for what, found in tried.items():
        differing = [own for own in base if own not in found or not torch.equal(base[own], found[own])]
        equal("E18", differing, [], f"tensors that start otherwise with {what}", editor=name)


@clause("E18")
@every_learned
def test_languages_of_masks_do_not_move_the_rest_of_the_start(implementation: Implementation, name: str) -> None:
    """With masks for two languages or for three, what is no mask starts the same."""
    starts = []
    for languages in (LANGUAGES, LANGUAGES[:2]):
        editor = make(implementation, name, setting("bert"), "language", seed=5, languages=languages)
        places = mask_places(implementation, editor).values()
        live = implementation.parameters(editor)
        own = {key: without(value, [index for at, index in places if at == key]) for key, value in live.items()}
        starts.append({key: value.clone() for key, value in own.items() if value.numel()})
    three, two = starts
    equal("E18", sorted(two), sorted(three), "the parameters that are no masks, with two languages", editor=name)
    differing = [key for key in three if not torch.equal(three[key], two[key])]
    equal("E18", differing, [], "tensors beside the masks that start otherwise with two languages", editor=name)


@clause("E18")
@every_learned
def test_an_edit_depends_on_no_option_of_training(implementation: Implementation, name: str) -> None:
    """Another learning rate, or further languages: the same edit before any training."""
    world = setting("bert")
    request = make_request("bert", np.random.default_rng(116), language="en")
    found: list[dict[str, torch.Tensor]] = []
    for options in ({}, {"lr": 0.3}, {"languages": LANGUAGES[:1]}):
        editor = make_felt(implementation, name, world, **options)
        found += updates(implementation, editor, [request])
    for what, other in zip(("learning rate", "number of languages"), found[1:], strict=True):
        for matrix in world.edited:
            near = torch.allclose(other[matrix], found[0][matrix], rtol=1e-9, atol=0)
            holds("E18", near, f"edit of {matrix} under another {what}", expected=found[0][matrix], got=other[matrix])


@clause("E18")
@needs("ranked", "mend")
def test_a_rank_decides_on_the_size_of_the_transform(implementation: Implementation) -> None:
    """Every further rank adds as many numbers as the one before: r·(n + m) of factors, and few beside them."""
    world = setting("bert")
    sizes = []
    for rank in (1, 2, 3):
        values = implementation.parameters(make(implementation, "mend", world, rank=rank)).values()
        sizes.append(sum(value.numel() for value in values))
    steps: Sequence[int] = [after - before for before, after in itertools.pairwise(sizes)]
    widths = sum(sum(shape) for shape in set(world.shapes.values()))
    holds("E18", steps[0] == steps[1] > 0, "numbers that ranks 2 and 3 add", expected="equal numbers", got=steps)
    # A bias between the factors has a number for each rank.
    few = steps[0] % widths <= widths // 10
    holds("E18", few, "numbers that a rank adds", expected=f"a multiple of {widths}, and few more", got=steps[0])
    editor = make_felt(implementation, "mend", world, lr=1e-2, rank=1)
    request = make_request("bert", np.random.default_rng(117), language="en")
    (before,) = updates(implementation, editor, [request])
    for step in range(2):
        take_step(implementation, editor, batch("bert", 118 + step, 3), seed=step)
    (after,) = updates(implementation, editor, [request])
    still = [matrix for matrix in world.edited if torch.equal(before[matrix], after[matrix])]
    equal("E18", still, [], "matrices whose edit did not move in two steps of rank 1")
