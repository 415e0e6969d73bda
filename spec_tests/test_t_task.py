"""Chapter T, the part that needs no editor: parallel inputs, and edits that confirm the raw prediction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_tests import golden, oracles
from spec_tests import strategies as given_
from spec_tests.assertions import equal, holds, rejects
from spec_tests.conformance import Implementation, clause
from spec_tests.contract import Example


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
@pytest.mark.parametrize("confirming", [0, 3, 6])
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
