"""Chapter T, the part that needs no editor: parallel inputs, and edits that confirm the raw prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from . import golden, oracles
from . import strategies as given_
from .assertions import equal, holds, rejects
from .conformance import Implementation, clause, every_editor, every_learned, needs
from .contract import Example, Request
from .editing import every_model, masked_editor, other_labels, updates, variants, widest
from .tiny import (
    Setting,
    assert_close,
    differences,
    divergence,
    logits_of,
    make,
    make_felt,
    make_input,
    make_request,
    make_triple,
    perturb,
    set_masks,
    setting,
    shifts,
    snapshot,
    with_update,
)


@clause("T1")
@given(given_.corpora(), st.data())
def test_parallels_are_the_examples_of_the_fact(
    implementation: Implementation, corpus: list[Example], data: st.DataObject
) -> None:
    """I(x) is every example of x's fact, each once, x among them."""
    x = data.draw(st.sampled_from(corpus))["id"]
    got = implementation.parallel(corpus, x)
    equal("T1", sorted(got), sorted(oracles.parallel(corpus, x)), "I(x)", corpus=corpus, x=x)
    holds("T1", x in got, "x is not in I(x)", expected=x, got=got, corpus=corpus)


@clause("T1")
@given(given_.corpora())
def test_parallelism_is_an_equivalence(implementation: Implementation, corpus: list[Example]) -> None:
    """Every member of a class has the same class, so that the classes partition the corpus."""
    classes = {e["id"]: frozenset(implementation.parallel(corpus, e["id"])) for e in corpus}
    for x, members in classes.items():
        for y in members:
            holds("T1", classes[y] == members, f"{y} is in I({x})", expected=members, got=classes[y], corpus=corpus)
    equal("T1", sum(len(c) for c in set(classes.values())), len(corpus), "the classes overlap", corpus=corpus)


@clause("T1")
@given(given_.corpora())
def test_a_class_has_one_member_per_language(implementation: Implementation, corpus: list[Example]) -> None:
    """No two members of I(x) are in one language."""
    language = {e["id"]: e["language"] for e in corpus}
    for x in language:
        said = [language[y] for y in implementation.parallel(corpus, x)]
        equal("T1", len(said), len(set(said)), f"languages of I({x})", corpus=corpus)


@clause("T1")
@given(given_.corpora(), st.data())
def test_languages_restrict_the_class(
    implementation: Implementation, corpus: list[Example], data: st.DataObject
) -> None:
    """Within some languages, I(x) is cut down to them; with x's language alone it is {x}."""
    x = data.draw(st.sampled_from(corpus))
    languages = data.draw(given_.some_languages(corpus))
    expected = oracles.parallel(corpus, x["id"], languages)
    got = implementation.parallel(corpus, x["id"], languages)
    equal("T1", sorted(got), sorted(expected), "I(x)", corpus=corpus, x=x, languages=languages)
    alone = implementation.parallel(corpus, x["id"], [x["language"]])
    equal("T1", list(alone), [x["id"]], "monolingual I(x)", corpus=corpus, x=x)


@clause("T1")
@given(given_.corpora(), st.data())
def test_one_fact_twice_in_one_language_is_an_error(
    implementation: Implementation, corpus: list[Example], data: st.DataObject
) -> None:
    """Two entries of one language that differ in nothing but the object are one input; the error names the fact."""
    first = data.draw(st.sampled_from(corpus))
    second: Example = {"id": "again", "fact": first["fact"], "language": first["language"]}
    malformed = data.draw(st.permutations([*corpus, second]))
    call = lambda: implementation.parallel(malformed, first["id"])  # noqa: E731
    rejects("T1", call, (first["fact"],), "a fact twice in one language", corpus=malformed)


@clause("T1")
def test_an_unknown_example_is_an_error(implementation: Implementation) -> None:
    """There is no I(x) of an x outside the corpus."""
    corpus = [given_.example("f0", "en"), given_.example("f1", "de")]
    rejects("T1", lambda: implementation.parallel(corpus, "f9/xx"), ("f9/xx",), "an example outside the corpus")


@clause("T3", "S1")
@pytest.mark.parametrize("confirming", [0, 3, 6], ids=["none", "half", "all"])
def test_confirming_edits_are_counted(implementation: Implementation, confirming: int) -> None:
    """Examples whose desired prediction is the raw prediction are enumerated like the others."""
    corpus = [given_.example(f"f{number}", language) for number in range(3) for language in ("en", "de")]
    for place, e in enumerate(corpus):
        e["raw"], e["desired"] = 4, 4 if place < confirming else 5
    pairs = implementation.evaluation_pairs(corpus, ["en", "de"], ["en", "de"], 1, 1, seed=0)
    got, everyone = sorted(pair["edit"] for pair in pairs), sorted(e["id"] for e in corpus)
    equal("T3", got, everyone, "enumerated edits", corpus=corpus)


@golden.cases("parallel")
def test_golden_parallels(implementation: Implementation, case: golden.Case) -> None:
    """The committed classes."""
    golden.check(implementation, case)


# Of editors


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
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
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
        request["labels"] = confirmed if request is requests[1] else other_labels(kind, confirmed)
    edits = implementation.edit(editor, requests)
    for index, expected in enumerate(updates(implementation, editor, requests)):
        changes = name != "finetuning" or index != 1
        for matrix, found in implementation.dense(editor, edits, index).items():
            assert bool(found.any()) == changes, f"edit {index} {'keeps' if changes else 'changes'} {matrix}"
            scale = float(expected[matrix].abs().max())
            assert_close(found, expected[matrix], f"edit {index}, {matrix}", atol=1e-8 * scale)


@clause("T4")
@needs("E")
@pytest.mark.parametrize("chosen", [slice(None), slice(1), slice(2, 3)], ids=["all", "first", "third"])
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
        request["labels"] = other_labels(kind, logits_of(world.model, request).argmax(-1).tolist())
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
