"""What chapters T, A and B ask of an editor, tested through chapter E's functions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spec_tests.conformance import clause, each_of, every_editor, every_learned, needs
from spec_tests.contract import Request
from spec_tests.tiny import (
    LANGUAGES,
    Setting,
    assert_close,
    close_gates,
    conditioned,
    differences,
    divergence,
    gate_values,
    logits_of,
    make,
    make_felt,
    make_input,
    make_request,
    make_triple,
    masked_gradient,
    one_thread,
    perturb,
    rate,
    set_masks,
    setting,
    shifts,
    snapshot,
    with_update,
)

KINDS = ("bert", "square", "classifier", "roberta")
every_model = pytest.mark.parametrize("kind", KINDS)
#: A gate is not zero with probability sigmoid(log α + this): -β log(-γ/ζ) at the defaults of A3.
_SHIFT = -(2 / 3) * math.log(0.1 / 1.1)


@pytest.fixture(autouse=True)
def _light() -> Iterator[None]:
    with one_thread():
        yield


def variants(name: str) -> tuple[str, ...]:
    """The kinds of masks that an editor has."""
    return ("none",) if name == "finetuning" else ("none", "language", "shared")


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


# --- T ----------------------------------------------------------------------------------------------------------------


@clause("T2")
@needs("E")
@every_model
@every_editor
def test_an_edit_knows_nothing_of_the_edits_before_it(implementation: Any, name: str, kind: str) -> None:
    """Editing a then b gives for b, bit for bit, what editing b gives an editor that never saw a."""
    world = setting(kind)
    rng = np.random.default_rng(20)
    requests = [make_request(kind, rng) for _ in range(3)]
    inputs = [make_input(kind, rng)]
    used = make_felt(implementation, name, world, widest(name))
    for request in requests[:2]:
        implementation.edited_logits(used, implementation.edit(used, [request]), 0, inputs)
    fresh = make_felt(implementation, name, world, widest(name))
    expected = [updates(implementation, fresh, [request])[0] for request in reversed(requests)][::-1]
    for index, found in enumerate(updates(implementation, used, requests)):
        for matrix in world.edited:
            same = torch.equal(found[matrix], expected[index][matrix])
            assert same, f"edit {index} of {matrix} depends on the edits before it"


@clause("T2")
@needs("E")
@pytest.mark.parametrize("training", [False, True])
@every_model
@every_editor
def test_editing_and_training_leave_the_raw_model_as_it_was(
    implementation: Any, name: str, kind: str, training: bool
) -> None:
    """Parameters, buffers, training flags and outputs of the model are bit for bit what they were."""
    world = setting(kind)
    world.model.train(training)
    rng = np.random.default_rng(21)
    requests, triple = [make_request(kind, rng) for _ in range(2)], make_triple(kind, rng)
    probe = make_input(kind, rng)
    before, output = snapshot(world.model), logits_of(world.model, probe).detach().clone()
    editor = make_felt(implementation, name, world, widest(name))
    calls = {
        "make_editor": lambda: None,
        "capture": lambda: implementation.capture(editor, requests[0]),
        "edit": lambda: implementation.edit(editor, requests[:1]),
        "edited_logits": lambda: implementation.edited_logits(
            editor, implementation.edit(editor, requests[1:]), 0, [probe]
        ),
    }
    if name != "finetuning":
        calls["losses"] = lambda: implementation.losses(editor, [triple], seed=0)
        calls["train_step"] = lambda: implementation.train_step(editor, [triple], seed=0)
    for function, call in calls.items():
        call()
        changed = differences(before, snapshot(world.model))
        assert not changed, f"{function} changed {', '.join(changed)}"
        assert torch.equal(logits_of(world.model, probe), output), f"{function} changed what the model computes"


@clause("T2")
@needs("E")
@every_editor
def test_raw_predictions_stay_the_raw_models(implementation: Any, name: str) -> None:
    """`raw_logits` are the untouched model's logits, before and after edits and training."""
    world = setting("bert")
    rng = np.random.default_rng(22)
    inputs = [make_input("bert", rng) for _ in range(3)]
    expected = [logits_of(world.model, one) for one in inputs]
    editor = make_felt(implementation, name, world, widest(name))
    for _ in range(2):
        for index, found in enumerate(implementation.raw_logits(editor, inputs)):
            assert_close(found, expected[index], f"logits of input {index}", rtol=1e-7, atol=1e-9)
        implementation.edit(editor, [make_request("bert", rng)])
        if name != "finetuning":
            implementation.train_step(editor, [make_triple("bert", rng)], seed=0)


@clause("T3")
@needs("E")
@every_model
@every_editor
def test_an_edit_that_confirms_the_raw_prediction_is_made(implementation: Any, name: str, kind: str) -> None:
    """It stands in a row of edits as any other: a learned editor's has a ΔW of its own, finetuning takes no step."""
    world = setting(kind)
    editor = make_felt(implementation, name, world)
    rng = np.random.default_rng(38)
    requests = [make_request(kind, rng) for _ in range(3)]
    for request in requests:
        confirmed = logits_of(world.model, request).argmax(-1).tolist()
        request["labels"] = confirmed if request is requests[1] else _others(kind, confirmed)
    edits = implementation.edit(editor, requests)
    for index, expected in enumerate(updates(implementation, editor, requests)):
        changes = name != "finetuning" or index != 1
        for matrix, found in implementation.dense(editor, edits, index).items():
            assert bool(found.any()) == changes, f"edit {index} {'keeps' if changes else 'changes'} {matrix}"
            scale = float(expected[matrix].abs().max())
            assert_close(found, expected[matrix], f"edit {index}, {matrix}", atol=1e-8 * scale)


def _others(kind: str, labels: Sequence[int]) -> list[int]:
    """Labels that differ from these."""
    return [(label + 1) % 3 if kind == "classifier" else 5 + (label + 1) % 50 for label in labels]


@clause("T4")
@needs("E")
@pytest.mark.parametrize("chosen", [slice(None), slice(1), slice(2, 3)])
@every_model
@every_editor
def test_only_declared_matrices_change(implementation: Any, name: str, kind: str, chosen: slice) -> None:
    """An edit has a ΔW for exactly the declared matrices, and its logits are those of the model with W + ΔW."""
    made = setting(kind)
    world = Setting(kind, made.model, made.edited[chosen])
    editor = make_felt(implementation, name, world)
    perturb(implementation, editor)
    rng = np.random.default_rng(23)
    requests = [make_request(kind, rng) for _ in range(2)]
    for request in requests:
        request["labels"] = _others(kind, logits_of(world.model, request).argmax(-1).tolist())
    edits = implementation.edit(editor, requests)
    inputs = [make_input(kind, rng) for _ in range(3)]
    raw = [logits_of(world.model, one) for one in inputs]
    for index in range(2):
        update = implementation.dense(editor, edits, index)
        assert set(update) == set(world.edited)
        expected = [logits_of(with_update(world.model, update), one) for one in inputs]
        for number, found in enumerate(implementation.edited_logits(editor, edits, index, inputs)):
            what = f"logits of input {number} under edit {index}"
            assert_close(found, expected[number], what, rtol=1e-7, atol=1e-8)
            assert not torch.allclose(found, raw[number], atol=1e-6), f"{what} are the raw ones"


@clause("T5")
@needs("E")
@every_learned
def test_an_edit_does_not_see_what_it_is_judged_by(implementation: Any, name: str) -> None:
    """Another retain input leaves L_rel as it was, another update input leaves L_loc as it was."""
    world = setting("bert")
    editor = masked_editor(implementation, name, world)
    rng = np.random.default_rng(24)
    triple = make_triple("bert", rng, "de")
    other = make_triple("bert", rng)
    labels = triple["edit"]["labels"]
    parts, _ = implementation.losses(editor, [triple], seed=5)
    retained, _ = implementation.losses(editor, [{**triple, "retain": other["retain"]}], seed=5)
    assert retained["rel"] == pytest.approx(parts["rel"], rel=1e-9), "L_rel depends on the retain input"
    assert retained["loc"] != pytest.approx(parts["loc"], rel=1e-6), "L_loc does not depend on its input"
    update = make_input("bert", rng, positions=len(labels))
    updated, _ = implementation.losses(editor, [{**triple, "update": update}], seed=5)
    assert updated["loc"] == pytest.approx(parts["loc"], rel=1e-9), "L_loc depends on the update input"
    assert updated["rel"] != pytest.approx(parts["rel"], rel=1e-6), "L_rel does not depend on its input"


@clause("T5")
@needs("E")
@every_editor
def test_an_edit_sees_input_labels_and_language(implementation: Any, name: str) -> None:
    """Each of the three, changed alone, changes the edit; finetuning has no use for the language."""
    world = setting("bert")
    learned = name != "finetuning"
    editor = masked_editor(implementation, name, world) if learned else make_felt(implementation, name, world)
    request = make_request("bert", np.random.default_rng(25), language="en", positions=2)
    tokens = list(request["input_ids"])
    word = next(i for i in range(1, len(tokens) - 1) if i not in request["positions"])
    tokens[word] = 5 + (tokens[word] - 4) % 50
    variants: dict[str, Request] = {
        "input": {**request, "input_ids": tokens},
        "desired prediction": {**request, "labels": [request["labels"][0], 5 + (request["labels"][1] - 4) % 50]},
        "editing language": {**request, "language": "fr"},
    }
    (expected,) = updates(implementation, editor, [request])
    for seen, found in zip(variants, updates(implementation, editor, list(variants.values())), strict=True):
        for matrix in world.edited:
            same = torch.allclose(found[matrix], expected[matrix], rtol=1e-6)
            depends = learned or seen != "editing language"
            assert same != depends, f"the edit of {matrix} {'does not depend' if same else 'depends'} on the {seen}"


@clause("T6")
@needs("E", "editable_training")
@every_model
def test_training_the_model_leaves_the_raw_predictions(implementation: Any, kind: str) -> None:
    """After steps that move θ' far, `raw_logits`, to which con refers, are bit for bit what they were."""
    world = setting(kind)
    editor = make(implementation, "editable_training", world, lr=0.02)
    rng = np.random.default_rng(39)
    inputs = [make_input(kind, rng) for _ in range(3)]
    before = [one.clone() for one in implementation.raw_logits(editor, inputs)]
    for step in range(3):
        implementation.train_step(editor, [make_triple(kind, rng) for _ in range(2)], seed=step)
    trained = with_update(world.model, shifts(implementation, editor, "editable_training", world))
    for index, found in enumerate(implementation.raw_logits(editor, inputs)):
        assert torch.equal(found, before[index]), f"training changed the raw logits of input {index}"
        moved = (logits_of(trained, inputs[index]) - logits_of(world.model, inputs[index])).abs().max()
        assert moved > 0.01, f"training moved the logits of θ' by {float(moved)}: nothing was tried"


@clause("T6")
@needs("E", "L", "editable_training")
@every_model
def test_locality_refers_to_the_original_model(implementation: Any, kind: str) -> None:
    """Once θ' has moved, L_loc is the divergence from f(x_r; θ), and not the one from f(x_r; θ')."""
    world = setting(kind)
    editor = make_felt(implementation, "editable_training", world)
    perturb(implementation, editor)
    triple = make_triple(kind, np.random.default_rng(40))
    parts, _ = implementation.losses(editor, [triple], seed=0)
    trained = with_update(world.model, shifts(implementation, editor, "editable_training", world))
    (update,) = updates(implementation, editor, [triple["edit"]])
    with torch.no_grad():
        edited = logits_of(with_update(world.model, update), triple["retain"])
        raw, wrong = (logits_of(model, triple["retain"]) for model in (world.model, trained))
    released = implementation.ruling("kl_direction") == "released"
    expected, other = (float(divergence(q, edited) if released else divergence(edited, q)) for q in (raw, wrong))
    assert other != pytest.approx(expected, rel=0.1), "θ' is too near to θ for this test"
    assert parts["loc"] == pytest.approx(expected, rel=1e-6), f"the divergence from θ' is {other}"


@clause("T7")
@needs("E")
@every_model
@every_editor
def test_an_edit_leaves_the_editor_as_it_was(implementation: Any, name: str, kind: str) -> None:
    """Parameters and edits are the same bit for bit after edits, whatever the global generator gave in between."""
    world = setting(kind)
    for masks in variants(name):
        editor = make_felt(implementation, name, world, masks)
        perturb(implementation, editor)
        set_masks(implementation, editor)
        rng = np.random.default_rng(41)
        requests, inputs = [make_request(kind, rng) for _ in range(3)], [make_input(kind, rng)]
        before = {own: value.detach().clone() for own, value in implementation.parameters(editor).items()}
        first = updates(implementation, editor, requests)
        implementation.edited_logits(editor, implementation.edit(editor, requests), 0, inputs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            again = updates(implementation, editor, requests)
        changed = [own for own, v in implementation.parameters(editor).items() if not torch.equal(v, before[own])]
        assert not changed, f"masks {masks}: editing changed {', '.join(changed)}"
        for index, (found, expected) in enumerate(zip(again, first, strict=True)):
            for matrix in world.edited:
                same = torch.equal(found[matrix], expected[matrix])
                assert same, f"masks {masks}: {matrix} of edit {index}, made again, is another"


# --- A ----------------------------------------------------------------------------------------------------------------


def penalty(implementation: Any, editor: Any) -> tuple[float, dict[tuple[str, str], torch.Tensor]]:
    """L_mask at λ 1 in closed form, with its gradient per matrix and factor, under the declared normalisation."""
    factors = {
        (matrix, factor): arrays[factor].detach()
        for matrix, arrays in implementation.mask_parameters(editor).items()
        for factor in ("x", "delta")
    }
    open_ = {key: torch.sigmoid(value + _SHIFT) for key, value in factors.items()}
    mean = implementation.ruling("penalty") == "mean"
    norm = sum(value.numel() for value in factors.values()) if mean else 1
    value = sum(float(p.sum()) for p in open_.values()) / norm
    return value, {key: p * (1 - p) / norm for key, p in open_.items()}


def mask_gradients(implementation: Any, editor: Any, gradient: dict[str, Any]) -> dict[tuple[str, str], torch.Tensor]:
    """The gradients that belong to the mask parameters: the live tensors are found by identity."""
    names = {value.data_ptr(): name for name, value in implementation.parameters(editor).items()}
    found = {}
    for matrix, arrays in implementation.mask_parameters(editor).items():
        for factor, value in arrays.items():
            assert value.data_ptr() in names, f"the mask {factor} of {matrix} is not among the parameters"
            one = gradient[names[value.data_ptr()]]
            found[matrix, factor] = torch.zeros_like(value) if one is None else one
    return found


@clause("A5")
@needs("E")
@every_learned
def test_the_penalty_is_part_of_the_training_objective(implementation: Any, name: str) -> None:
    """The mask part is Σ P(gate ≠ 0) over all languages and matrices, and pushes the gates of every language."""
    editor = masked_editor(implementation, name, setting("bert"))
    value, slopes = penalty(implementation, editor)
    parts, gradient = implementation.losses(editor, [make_triple("bert", np.random.default_rng(26), "en")], seed=0)
    assert parts["mask"] == pytest.approx(value, rel=1e-6)
    found = mask_gradients(implementation, editor, gradient)
    for (matrix, factor), slope in slopes.items():
        for row in (LANGUAGES.index("de"), LANGUAGES.index("fr")):
            what = f"{LANGUAGES[row]}, which nothing edits, {factor} of {matrix}"
            assert_close(found[matrix, factor][row], slope[row], what, atol=1e-12)


@clause("A5")
@needs("E")
@every_learned
def test_without_masks_there_is_no_penalty(implementation: Any, name: str) -> None:
    """An editor that has no mask has a mask loss of 0."""
    editor = make(implementation, name, setting("bert"))
    parts, _ = implementation.losses(editor, [make_triple("bert", np.random.default_rng(27))], seed=0)
    assert parts["mask"] == 0.0


@clause("A6")
@needs("E")
@pytest.mark.parametrize("language", LANGUAGES)
@every_learned
def test_an_edit_trains_the_masks_of_its_language_only(implementation: Any, name: str, language: str) -> None:
    """Take the penalty's gradient off: rows of other languages keep exactly nothing, the editing language's do not."""
    editor = masked_editor(implementation, name, setting("bert"))
    rng = np.random.default_rng(28)
    _, slopes = penalty(implementation, editor)
    _, gradient = implementation.losses(editor, [make_triple("bert", rng, language) for _ in range(2)], seed=0)
    for (matrix, factor), found in mask_gradients(implementation, editor, gradient).items():
        from_edits = found - slopes.get((matrix, factor), torch.zeros_like(found))
        for row, other in enumerate(LANGUAGES):
            size = float(from_edits[row].abs().max())
            if other == language:
                assert size > 1e-9, f"{factor} of {matrix}: the edit in {other} does not reach its mask"
            else:
                assert size < 1e-14, f"{factor} of {matrix}: an edit in {language} moves the mask of {other} by {size}"


@clause("A6")
@needs("E")
@pytest.mark.parametrize("language", LANGUAGES)
@every_learned
def test_an_edit_uses_the_mask_of_its_language_only(implementation: Any, name: str, language: str) -> None:
    """Other values in the rows of all other languages leave an edit as it was; other values in its own row do not."""
    world = setting("bert")
    editor = masked_editor(implementation, name, world)
    request = make_request("bert", np.random.default_rng(37), language=language)
    (before,) = updates(implementation, editor, [request])
    own = LANGUAGES.index(language)
    for row in [*(r for r in range(len(LANGUAGES)) if r != own), own]:
        with torch.no_grad():
            for arrays in implementation.mask_parameters(editor).values():
                for value in arrays.values():
                    value[row] = value[row].flip(0) + 0.5
        (after,) = updates(implementation, editor, [request])
        for matrix in world.edited:
            same = torch.allclose(after[matrix], before[matrix], rtol=1e-9)
            assert same == (row != own), f"{matrix}: the mask of {LANGUAGES[row]} and an edit in {language}"


@clause("A7")
@needs("E")
@pytest.mark.parametrize("language", LANGUAGES)
def test_masks_act_before_the_transform(implementation: Any, language: str) -> None:
    """g(mask(x, m_x), mask(δ, m_δ)) with open gates is g of the masked factors with all gates closed."""
    world = setting("bert")
    editor = masked_editor(implementation, "mend", world)
    row = LANGUAGES.index(language)
    masks = implementation.mask_parameters(editor)
    captured = implementation.capture(editor, make_request("bert", np.random.default_rng(29), language=language))
    masked, found = {}, {}
    for matrix, (x, delta) in captured.items():
        alive = delta.abs().sum(-1) > 0
        x, delta = x[alive].detach(), delta[alive].detach()  # noqa: PLW2901
        found[matrix] = [v.detach().clone() for v in implementation.transform(editor, matrix, x, delta, language)]
        masked[matrix] = [
            rows * (1 + gate_values(masks[matrix], factor, row)) for factor, rows in (("x", x), ("delta", delta))
        ]
    close_gates(implementation, editor)
    for matrix, factors in masked.items():
        expected = implementation.transform(editor, matrix, *factors, language)
        for which, one, other in zip(("x̃", "δ̃"), found[matrix], expected, strict=True):
            assert_close(one, other, f"{which} of {matrix}", atol=1e-8)


@clause("A7")
@needs("E")
@pytest.mark.parametrize("language", LANGUAGES)
@each_of("editable_training", "knowledge_editor")
def test_masks_act_on_the_gradient_that_an_editor_takes(implementation: Any, name: str, language: str) -> None:
    """An inner step, or what is gated, is the sum of outer products of masked factors; nothing else is masked."""
    world = setting("bert")
    editor = masked_editor(implementation, name, world)
    masks = implementation.mask_parameters(editor)
    request = make_request("bert", np.random.default_rng(46), language=language)
    shift = shifts(implementation, editor, name, world)
    gradient = masked_gradient(with_update(world.model, shift), masks, request, LANGUAGES.index(language))
    (update,) = updates(implementation, editor, [request])
    gates = implementation.gates(editor, request) if name == "knowledge_editor" else {}
    for matrix, found in update.items():
        if name == "knowledge_editor":
            step, expected = found, conditioned(gates[matrix], gradient[matrix])
        else:
            step = found - shift[matrix]
            expected = -rate(step, gradient[matrix]) * gradient[matrix]
        assert_close(step, expected, matrix, atol=1e-8 * float(expected.abs().max()))


@clause("A3")
@needs("E")
@pytest.mark.parametrize(("drawn", "closed"), [("x", "delta"), ("delta", "x")])
@every_learned
def test_gates_are_drawn_in_training_and_fixed_at_test(implementation: Any, name: str, drawn: str, closed: str) -> None:
    """Two seeds give two objectives, by the gates of either factor; an edit at test time is the same each time."""
    editor = masked_editor(implementation, name, setting("bert"))
    with torch.no_grad():
        for arrays in implementation.mask_parameters(editor).values():
            arrays[closed].fill_(-40.0)
    rng = np.random.default_rng(30)
    triple, request = make_triple("bert", rng), make_request("bert", rng)
    first, again, other = (implementation.losses(editor, [triple], seed=seed)[0]["rel"] for seed in (1, 1, 2))
    assert first == again, "one seed gives two objectives"
    assert first != other, f"two seeds give one objective: the gates of {drawn} are not drawn"
    once, twice = updates(implementation, editor, [request, request])
    for matrix in once:
        assert torch.equal(once[matrix], twice[matrix]), f"{matrix}: two edits with one request differ"


@clause("A9")
@needs("E")
@every_model
@every_learned
def test_with_all_gates_closed_a_masked_editor_is_its_base_editor(implementation: Any, name: str, kind: str) -> None:
    """All gates 0: for every language the edit of the editor without masks that has the same other parameters."""
    world = setting(kind)
    base = make_felt(implementation, name, world)
    masked = masked_editor(implementation, name, world)
    target = implementation.parameters(base)
    source = implementation.parameters(masked)
    assert set(target) <= set(source), "a masked editor has all parameters of its base editor, under the same names"
    with torch.no_grad():
        for own, value in target.items():
            value.copy_(source[own])
    close_gates(implementation, masked)
    rng = np.random.default_rng(31)
    for language in LANGUAGES:
        request = make_request(kind, rng, language=language)
        (expected,), (found,) = (updates(implementation, editor, [request]) for editor in (base, masked))
        for matrix in world.edited:
            scale = float(expected[matrix].abs().max())
            assert_close(found[matrix], expected[matrix], f"{matrix}, {language}", rtol=1e-9, atol=1e-12 * scale)


@clause("A9")
@needs("E")
@every_learned
def test_permuting_the_languages_permutes_the_masks(implementation: Any, name: str) -> None:
    """An editor whose languages are listed in another order, with its rows in that order, makes the same edits."""
    world = setting("bert")
    order = (2, 0, 1)
    editor = masked_editor(implementation, name, world)
    permuted = masked_editor(implementation, name, world, [LANGUAGES[i] for i in order])
    with torch.no_grad():
        source = implementation.parameters(editor)
        for own, value in implementation.parameters(permuted).items():
            value.copy_(source[own])
        masks = implementation.mask_parameters(editor)
        for matrix, arrays in implementation.mask_parameters(permuted).items():
            for factor, value in arrays.items():
                value.copy_(masks[matrix][factor][list(order)])
    for language in LANGUAGES:
        request = make_request("bert", np.random.default_rng(32), language=language)
        (expected,), (found,) = (updates(implementation, one, [request]) for one in (editor, permuted))
        for matrix in world.edited:
            scale = float(expected[matrix].abs().max())
            assert_close(found[matrix], expected[matrix], f"{matrix}, {language}", rtol=1e-9, atol=1e-12 * scale)


@clause("A10")
@needs("E")
@every_editor
def test_an_edit_in_an_unknown_language_is_an_error_that_lists_the_known(implementation: Any, name: str) -> None:
    """An editing language that the editor was not made for is refused, by name and with the known ones."""
    request = make_request("bert", np.random.default_rng(33), language="xx")
    for masks in variants(name):
        editor = make(implementation, name, setting("bert"), masks)
        with pytest.raises((ValueError, LookupError)) as error:
            implementation.edit(editor, [request])
        for language in ("xx", *LANGUAGES):
            assert language in str(error.value), f"masks {masks}: the message does not name {language}: {error.value}"


# --- B ----------------------------------------------------------------------------------------------------------------


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
