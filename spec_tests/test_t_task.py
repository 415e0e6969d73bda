"""Chapter T, the part that needs no editor: parallel inputs, and edits that confirm the raw prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from . import golden, oracles, probes, strategies as given_
from .assertions import agree, assume, close, differs, equal, holds, near, rejects, same_bits
from .conformance import Implementation, clause, every_editor, every_learned, needs
from .contract import Example, Request
from .editing import every_model, masked_editor, other_labels, updates, variants, widest
from .tiny import (
    Setting,
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
    step,
    sure,
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
    equal(
        "T1",
        sorted(got),
        sorted(oracles.parallel(corpus, x)),
        "I(x) is not the examples of the fact of x",
        corpus=corpus,
        x=x,
    )
    holds("T1", x in got, "x is not in I(x)", expected=x, got=got, corpus=corpus)


@clause("T1")
@given(given_.corpora())
def test_parallelism_is_an_equivalence(implementation: Implementation, corpus: list[Example]) -> None:
    """Every member of a class has the same class, so that the classes partition the corpus."""
    classes = {e["id"]: frozenset(implementation.parallel(corpus, e["id"])) for e in corpus}
    for x, members in classes.items():
        for y in members:
            holds(
                "T1",
                classes[y] == members,
                f"I({y}) is not I({x}), though {y} is in it",
                expected=members,
                got=classes[y],
                corpus=corpus,
            )
    equal("T1", sum(len(c) for c in set(classes.values())), len(corpus), "the classes overlap", corpus=corpus)


@clause("T1")
@given(given_.corpora())
def test_a_class_has_one_member_per_language(implementation: Implementation, corpus: list[Example]) -> None:
    """No two members of I(x) are in one language."""
    language = {e["id"]: e["language"] for e in corpus}
    for x in language:
        said = [language[y] for y in implementation.parallel(corpus, x)]
        equal("T1", len(said), len(set(said)), f"I({x}) has two members in one language", corpus=corpus)


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
    equal(
        "T1",
        sorted(got),
        sorted(expected),
        "I(x) within some languages is not what of I(x) is in them",
        corpus=corpus,
        x=x,
        languages=languages,
    )
    alone = implementation.parallel(corpus, x["id"], [x["language"]])
    equal("T1", list(alone), [x["id"]], "I(x) within the language of x is not {x}", corpus=corpus, x=x)


@clause("T1")
@pytest.mark.parametrize("languages", [("en", "de", "en"), ("de", "de"), ("fr", "en", "fr", "fr")], ids="-".join)
def test_a_language_that_is_asked_for_twice_is_one_language(
    implementation: Implementation, languages: tuple[str, ...]
) -> None:
    """A class has one member in a language, however often the language is named."""
    corpus = [given_.example(f"f{number}", code) for number in range(2) for code in ("en", "de", "fr")]
    try:
        got = implementation.parallel(corpus, "f1/en", list(languages))
    except (ValueError, LookupError):
        return  # to refuse it is free
    expected = sorted(f"f1/{code}" for code in set(languages))
    equal("T1", sorted(got), expected, "I(x) within languages that are named twice", languages=languages)


@clause("T1")
@given(given_.corpora(), st.data())
def test_one_fact_twice_in_one_language_is_an_error(
    implementation: Implementation, corpus: list[Example], data: st.DataObject
) -> None:
    """Two entries of a corpus in one language are one input told twice; the error names the fact."""
    first = data.draw(st.sampled_from(corpus))
    second: Example = {"id": "again", "fact": first["fact"], "language": first["language"]}
    malformed = data.draw(st.permutations([*corpus, second]))
    asked = data.draw(st.sampled_from(corpus))["id"]
    call = lambda: implementation.parallel(malformed, asked)  # noqa: E731
    rejects("T1", call, (first["fact"],), "a fact twice in one language", corpus=malformed, x=asked)
    others = [e["language"] for e in corpus if e["language"] != first["language"]]
    for languages in filter(None, (others, [first["language"]])):
        within = lambda: implementation.parallel(malformed, asked, languages)  # noqa: B023, E731
        rejects("T1", within, (first["fact"],), "a fact twice in one language", corpus=malformed, languages=languages)


@clause("T1")
@needs("S")
@pytest.mark.parametrize("languages", [["en", "de"], ["fr"]], ids=["its languages", "another language"])
def test_nothing_is_drawn_from_a_malformed_corpus(implementation: Implementation, languages: list[str]) -> None:
    """A fact twice in German is an error of evaluations and trainings that names it, whatever they are asked for."""
    corpus = [given_.example(f"fact{number}", code) for number in range(4) for code in ("en", "de", "fr")]
    corpus.append({"id": "fact2/de again", "fact": "fact2", "language": "de"})
    calls = {
        "an evaluation": lambda: implementation.evaluation_pairs(corpus, languages, languages, 1, 1, seed=0),
        "a training": lambda: implementation.training_triples(corpus, languages, 4, seed=0),
    }
    for what, call in calls.items():
        rejects("T1", call, ("fact2",), f"{what} of a corpus that has a fact twice in one language", corpus=corpus)


@clause("T1")
def test_a_fact_in_many_languages_is_one_class(implementation: Implementation) -> None:
    """Three facts in 53 languages, as mLAMA has: I(x) has a member in each, and within twenty of them twenty."""
    languages = [f"l{number:02}" for number in range(53)]
    corpus = [given_.example(fact, said) for said in languages for fact in ("f0", "f1", "f2")]
    for chosen in (None, languages[::-1], languages[30:50]):
        got = sorted(implementation.parallel(corpus, "f1/l40", chosen))
        expected = [f"f1/{said}" for said in sorted(chosen or languages)]
        equal("T1", got, expected, "I(x) of a fact in 53 languages", languages=chosen)


@clause("T1")
@pytest.mark.parametrize("between", ["-", "_", "/", ".", ":", " ", ""], ids=lambda mark: mark or "nothing")
def test_a_fact_and_its_language_are_two_names(implementation: Implementation, between: str) -> None:
    """A fact in zh-tw, and one whose name ends with zh in tw: written together, they are alike."""
    told = [("fact", "en"), ("fact", f"zh{between}tw"), (f"fact{between}zh", "tw"), (f"fact{between}zh", "en")]
    corpus: list[Example] = [
        {"id": f"{place}", "fact": fact, "language": said} for place, (fact, said) in enumerate(told)
    ]
    for x in corpus:
        expected = ["0", "1"] if x["fact"] == "fact" else ["2", "3"]
        got = sorted(implementation.parallel(corpus, x["id"]))
        equal("T1", got, expected, "I(x) is not the examples of the fact of x", corpus=corpus, x=x)


#: Names of facts that are told apart by case, spaces, zeros, composition or width alone.
ALIKE = {
    "small": "f1",
    "capital": "F1",
    "zero": "f01",
    "point": "f1.0",
    "space after": "f1 ",
    "space before": " f1",
    "space of no width": "f1\u200b",
    "wide": "f\uff11",
    "composed": "\u00e91",
    "decomposed": "e\u03011",
    "ligature": "\ufb011",
    "letters": "fi1",
    "number": "1",
    "number with zero": "01",
    "number with point": "1.0",
}


@clause("T1")
@pytest.mark.parametrize("fact", ALIKE.values(), ids=ALIKE)
def test_facts_of_similar_names_are_apart(implementation: Implementation, fact: str) -> None:
    """The name of a fact is compared as it is: neither normalised, nor stripped, nor read as a number.

    Each is in languages of its own, so that two facts taken for one have no language twice.
    """
    corpus: list[Example] = [
        {"id": f"{place}/{language}", "fact": name, "language": f"{language}{place}"}
        for place, name in enumerate(ALIKE.values())
        for language in ("en", "de")
    ]
    place = list(ALIKE.values()).index(fact)
    got = implementation.parallel(corpus, f"{place}/en")
    equal("T1", sorted(got), [f"{place}/de", f"{place}/en"], "I(x) is not the examples of the fact of x", fact=fact)


@clause("T1")
def test_within_no_language_nothing_is_parallel(implementation: Implementation) -> None:
    """An empty list of languages is not the same as none given."""
    corpus = [given_.example("f0", "en"), given_.example("f0", "de")]
    equal("T1", list(implementation.parallel(corpus, "f0/en", [])), [], "I(x) within an empty list of languages")


@clause("T1")
def test_an_unknown_example_is_an_error(implementation: Implementation) -> None:
    """There is no I(x) of an x outside the corpus."""
    corpus = [given_.example("f0", "en"), given_.example("f1", "de")]
    rejects("T1", lambda: implementation.parallel(corpus, "f9/xx"), ("f9/xx",), "an example outside the corpus")


@clause("T3")
@needs("S")
@pytest.mark.parametrize("confirming", [0, 3, 6], ids=["none", "half", "all"])
def test_confirming_edits_are_counted(implementation: Implementation, confirming: int) -> None:
    """Examples whose desired prediction is the raw prediction are enumerated as if nothing were known of either."""
    corpus = [given_.example(f"f{number}", language) for number in range(3) for language in ("en", "de")]
    expected = implementation.evaluation_pairs(corpus, ["en", "de"], ["en", "de"], 1, 1, seed=0)
    told: list[Example] = [{**e, "raw": 4, "desired": 4 if i < confirming else 5} for i, e in enumerate(corpus)]
    pairs = implementation.evaluation_pairs(told, ["en", "de"], ["en", "de"], 1, 1, seed=0)
    got, everyone = (sorted(pair["edit"] for pair in found) for found in (pairs, expected))
    equal("T3", got, everyone, "edits that confirm the raw prediction are not enumerated like the others", corpus=told)


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
            about = {"editor": name, "model": kind, "edit": requests[index], "matrix": matrix}
            what = "an edit depends on the edits before it"
            same_bits("T2", found[matrix], expected[index][matrix], what, **about)


@clause("T2")
@needs("E")
@every_editor
def test_an_edit_stays_what_it_is_while_others_are_made(implementation: Any, name: str) -> None:
    """Its ΔW, asked again and again, before and after edits of the same size: bit for bit the same."""
    world = setting("bert")
    editor = make_felt(implementation, name, world, widest(name))
    perturb(implementation, editor)
    first = make_request("bert", np.random.default_rng(44), language="en", positions=2)
    second = {**first, "labels": other_labels("bert", other_labels("bert", first["labels"])), "language": "de"}
    edits = implementation.edit(editor, [first])

    def told() -> dict[str, torch.Tensor]:
        return {matrix: delta.detach().clone() for matrix, delta in implementation.dense(editor, edits, 0).items()}

    expected = told()
    for after in ("being asked", "an edit of the same size", "that edit's being asked", "an edit of another size"):
        if after == "an edit of the same size":
            others = implementation.edit(editor, [second])
        elif after == "that edit's being asked":
            implementation.dense(editor, others, 0)
            implementation.edited_logits(editor, others, 0, [first])
        elif after == "an edit of another size":
            implementation.edit(editor, [make_request("bert", np.random.default_rng(45), positions=3)] * 2)
        for matrix, found in told().items():
            what = f"an edit is another one after {after}"
            same_bits("T2", found, expected[matrix], what, editor=name, edit=first, matrix=matrix)


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
        calls["train_step"] = lambda: step(implementation, editor, [triple], seed=0)
    changes: dict[str, list[str]] = {}
    for function, call in calls.items():
        call()
        changed = differences(before, snapshot(world.model))
        if not torch.equal(logits_of(world.model, probe), output):
            changed.append("what the model computes")
        if changed:
            changes[function] = changed
    what = f"{' and '.join(changes)} left the raw model changed"
    equal("T2", changes, {}, what, editor=name, model=kind, in_training_mode=training)


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
    for after in ("making the editor", "an edit and a training step"):
        for one, wanted, found in zip(inputs, expected, implementation.raw_logits(editor, inputs), strict=True):
            what = f"`raw_logits` are not the raw model's after {after}"
            near("T2", found, wanted, what, editor=name, input=one)
        implementation.edit(editor, [make_request("bert", rng)])
        if name != "finetuning":
            step(implementation, editor, [make_triple("bert", rng)], seed=0)


@clause("T2", "T4")
@needs("E")
@every_editor
def test_many_inputs_are_answered_in_their_places(implementation: Any, name: str) -> None:
    """Long and short ones by turns, more than a model may read at a time: each gets its logits, raw and edited."""
    world = setting("bert")
    editor = make_felt(implementation, name, world, widest(name))
    rng = np.random.default_rng(39)
    request = make_request("bert", rng)
    request["labels"] = other_labels("bert", logits_of(world.model, request).argmax(-1).tolist())
    inputs = [make_input("bert", rng, words=2 + 5 * place % 12) for place in range(33)]
    edits = implementation.edit(editor, [request])
    edited = with_update(world.model, implementation.dense(editor, edits, 0))
    raw, new = (implementation.raw_logits(editor, inputs), implementation.edited_logits(editor, edits, 0, inputs))
    for clause_id, model, found in (("T2", world.model, raw), ("T4", edited, new)):
        equal(clause_id, len(found), len(inputs), "not every input is answered", editor=name)
        for place, (one, logits) in enumerate(zip(inputs, found, strict=True)):
            what = "of many inputs, one does not get the logits that it has alone"
            near(clause_id, logits, logits_of(model, one), what, editor=name, place=f"{place} of 33", input=one)


@clause("T3")
@needs("E")
@pytest.mark.parametrize("kind", ["bert", "classifier"])
@every_learned
def test_an_edit_that_confirms_a_sure_prediction_is_made(implementation: Any, name: str, kind: str) -> None:
    """However small the loss is that is left: the edit has a ΔW of its own in every matrix."""
    request = make_request(kind, np.random.default_rng(40), positions=1)
    world = sure(kind, request, 1e-3)
    editor = make_felt(implementation, name, world)
    (update,) = updates(implementation, editor, [request])
    for matrix, found in update.items():
        what = "an edit that confirms a prediction of which the model is sure leaves the matrix"
        about = {"editor": name, "model": kind, "edit": request, "matrix": matrix}
        holds("T3", bool(found.any()), what, expected="a ΔW of its own", got="zero", **about)


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
            about = {"editor": name, "model": kind, "confirms": index == 1, "edit": requests[index], "matrix": matrix}
            what = f"an edit that {'confirms' if index == 1 else 'changes'} the raw prediction"
            is_so = f"{what} {'leaves' if changes else 'changes'} the matrix"
            holds("T3", bool(found.any()) == changes, is_so, expected=changes, got=bool(found.any()), **about)
            # Finetuning alone and in a row may round its ways apart; E8 asks for more.
            kind_of = "training" if name == "finetuning" else "model"
            near("T3", found, expected[matrix], f"{what} is not in its place", kind_of, by_norm=True, **about)


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
    for index, request in enumerate(requests):
        update = implementation.dense(editor, edits, index)
        about = {"editor": name, "model": kind, "edit": request}
        equal("T4", set(update), set(world.edited), "an edit has a ΔW for other matrices than were declared", **about)
        edited = with_update(world.model, update)
        for one, before, found in zip(
            inputs, raw, implementation.edited_logits(editor, edits, index, inputs), strict=True
        ):
            what = "the edited model does not compute what the raw one does with W + ΔW"
            near("T4", found, logits_of(edited, one), what, input=one, **about)
            differs(
                "T4", found, before, "the edited model computes what the raw one does", expected="other logits", **about
            )


@clause("T4")
@needs("E")
@every_editor
def test_layers_are_told_apart_by_their_whole_number(implementation: Any, name: str) -> None:
    """Of twelve layers, 1 and 10 are edited, and neither 11 nor another one whose number begins like one of these."""
    test_only_declared_matrices_change(implementation, name, "deep", slice(None))


@clause("T5")
@needs("E")
@every_learned
def test_an_edit_does_not_see_what_it_is_judged_by(implementation: Any, name: str) -> None:
    """Another retain input leaves L_rel as it was, another update input leaves L_loc as it was."""
    world = setting("bert")
    editor = masked_editor(implementation, name, world)
    shown = {"loc": False, "rel": False}
    for seed in range(24, 34):  # where an edit reaches its answer with certainty, L_rel is 0 for many inputs
        rng = np.random.default_rng(seed)
        triple = make_triple("bert", rng, "de")
        retain = make_triple("bert", rng)["retain"]
        update = make_input("bert", rng, positions=len(triple["edit"]["labels"]))
        about = {"editor": name, "triple": triple}
        parts, _ = implementation.losses(editor, [triple], seed=5)
        retained, _ = implementation.losses(editor, [{**triple, "retain": retain}], seed=5)
        updated, _ = implementation.losses(editor, [{**triple, "update": update}], seed=5)
        close("T5", retained["rel"], parts["rel"], "L_rel depends on the retain input", "losses", **about)
        close("T5", updated["loc"], parts["loc"], "L_loc depends on the update input", "losses", **about)
        for part, found in (("loc", retained), ("rel", updated)):
            shown[part] |= not agree(found[part], parts[part], "losses")
        if all(shown.values()):
            return
    dull = [f"L_{part}" for part, seen in shown.items() if not seen]
    assume(False, f"{' and '.join(dull)} does not depend on its own input, so nothing is shown")


@clause("T5")
@needs("E")
@every_editor
def test_an_edit_sees_input_labels_and_language(implementation: Any, name: str) -> None:
    """Each of the three, changed alone, changes the edit; without masks an editor has no use for the language."""
    world = setting("bert")
    learned = name != "finetuning"
    editor = masked_editor(implementation, name, world) if learned else make_felt(implementation, name, world)
    request = make_request("bert", np.random.default_rng(25), language="en", positions=2)
    tokens = list(request["input_ids"])
    word = next(i for i in range(1, len(tokens) - 1) if i not in request["positions"])
    tokens[word] = 5 + (tokens[word] - 4) % 50
    changed: dict[str, Request] = {
        "input": {**request, "input_ids": tokens},
        "desired prediction": {**request, "labels": [request["labels"][0], 5 + (request["labels"][1] - 4) % 50]},
        "editing language": {**request, "language": "fr"},
    }
    (expected,) = updates(implementation, editor, [request])
    for seen, found in zip(changed, updates(implementation, editor, list(changed.values())), strict=True):
        about = {"editor": name, "edit": request, "changed": changed[seen]}
        for matrix in world.edited:
            if learned or seen != "editing language":
                what = f"an edit does not depend on its {seen}"
                differs("T5", found[matrix], expected[matrix], what, expected="another ΔW", matrix=matrix, **about)
            else:
                what = "the language changes an edit of finetuning"
                near("T5", found[matrix], expected[matrix], what, matrix=matrix, **about)
    if learned:
        plain = make_felt(implementation, name, world)
        perturb(implementation, plain)
        english, french = updates(implementation, plain, [request, changed["editing language"]])
        for matrix in world.edited:
            what = "the language changes an edit of an editor without masks"
            near("T5", french[matrix], english[matrix], what, editor=name, matrix=matrix, edit=request)


@clause("T5")
@needs("E")
@every_editor
def test_a_request_is_what_it_says_when_it_is_made(implementation: Any, name: str) -> None:
    """One that was changed in place, and made again, is the edit of what it says now."""
    world = setting("bert")
    editor = make_felt(implementation, name, world, widest(name))
    set_masks(implementation, editor)
    request = make_request("bert", np.random.default_rng(46), language="en", positions=2, words=4)
    requests = [request]
    tokens, labels = list(request["input_ids"]), other_labels("bert", request["labels"])
    word = next(i for i in range(1, len(tokens) - 1) if i not in request["positions"])

    def another_word() -> None:
        request["input_ids"][word] = 5 + (tokens[word] - 4) % 50

    def other_predictions() -> None:
        request["labels"][:] = labels

    def another_language() -> None:
        request["language"] = "de"

    def another_request() -> None:
        requests[0] = make_request("bert", np.random.default_rng(47), language="fr", positions=2, words=4)

    implementation.edit(editor, requests)
    for change in (another_word, other_predictions, another_language, another_request):
        change()
        fresh: Request = {**requests[0], "input_ids": list(requests[0]["input_ids"])}
        fresh["labels"], fresh["positions"] = list(fresh["labels"]), list(fresh["positions"])
        found = implementation.dense(editor, implementation.edit(editor, requests), 0)
        (expected,) = updates(implementation, editor, [fresh])
        for matrix in world.edited:
            what = f"an edit of a request with {change.__name__.replace('_', ' ')} is not that of an equal request"
            near("T5", found[matrix], expected[matrix], what, "arrays", editor=name, edit=fresh, matrix=matrix)


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
    for number in range(3):
        step(implementation, editor, [make_triple(kind, rng) for _ in range(2)], seed=number)
    trained = with_update(world.model, shifts(implementation, editor, "editable_training", world))
    for one, found, expected in zip(inputs, implementation.raw_logits(editor, inputs), before, strict=True):
        moved = float((logits_of(trained, one) - logits_of(world.model, one)).detach().abs().max())
        assume(moved > 0.01, f"training moved the logits of θ' by {moved:.2g} only, so nothing was tried")
        same_bits("T6", found, expected, "training changed the raw predictions", model=kind, input=one)


@clause("T6")
@needs("E", "editable_training")
@every_model
def test_locality_refers_to_the_original_model(implementation: Any, kind: str) -> None:
    """Where θ' has moved far and edits move it no further, L_loc from f(x_r; θ') were none; from f(x_r; θ) it is not.

    So it is in whichever direction and at whichever positions, which are L2's matter.
    """
    world = setting(kind)
    editor = make(implementation, "editable_training", world, inner_lr=1e-9)
    perturb(implementation, editor)
    triple = make_triple(kind, np.random.default_rng(40))
    parts, _ = implementation.losses(editor, [triple], seed=0)
    trained = with_update(world.model, shifts(implementation, editor, "editable_training", world))
    with torch.no_grad():
        own, raw = (logits_of(one, triple["retain"]) for one in (trained, world.model))
    moved = float(divergence(own, raw))
    assume(moved > 0.01, f"θ' diverges from θ by {moved:.2g} only, so nothing is shown")
    what = "locality refers to the trained model θ', and not to the original one"
    expected = f"far from 0, as f(x_r; θ') diverges from f(x_r; θ) by {moved:.3g}"
    holds("T6", parts["loc"] > 0.01 * moved, what, expected=expected, got=parts["loc"], model=kind, triple=triple)


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
        with probes.global_state(implementation, 4):
            again = updates(implementation, editor, requests)
        about = {"editor": name, "model": kind, "masks": masks}
        changed = [own for own, v in implementation.parameters(editor).items() if not torch.equal(v, before[own])]
        equal("T7", changed, [], "editing changes the editor's parameters", **about)
        for request, found, expected in zip(requests, again, first, strict=True):
            for matrix in world.edited:
                what = "the same edit, made again, is another"
                same_bits("T7", found[matrix], expected[matrix], what, edit=request, matrix=matrix, **about)


@golden.cases("parallel")
def test_golden_parallels(implementation: Implementation, case: golden.Case) -> None:
    """The committed classes."""
    golden.check(implementation, case)
