"""Chapter S: what is drawn, from where, how often, and that a seed says it all.

The statistical tests draw some 50,000 inputs from a corpus of 266 examples with fixed seeds and compare them with their
exact expectation by chi-square at a false-alarm rate of 1e-6 each. `meta/test_power.py` shows what they can see.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st

from . import elsewhere, golden, oracles, probes, strategies as given_
from .assertions import assume, distributed, equal, fail, holds
from .conformance import Implementation, clause
from .contract import Example, IdTriple, Pair

LANGUAGES = ["en", "de", "zh", "sw"]
ROLES = ("edit", "update", "retain")
SEEDS = range(190)
STEPS = 50_000


def uneven_corpus() -> list[Example]:
    """100 facts in English, 66 in German, 50 in Chinese and 50 in Swahili; ten of the 110 facts are not in English.

    Ten are in English alone, and half of the Chinese facts are Swahili ones, too.
    """
    spoken = {
        "en": lambda f: f < 100,
        "de": lambda f: f >= 10 and f % 3 != 1,
        "zh": lambda f: f >= 10 and f % 2 == 0,
        "sw": lambda f: f >= 10 and f % 4 < 2,
    }
    return [given_.example(f"f{f:02}", said) for f in range(110) for said, knows in spoken.items() if knows(f)]


CORPUS = uneven_corpus()
LANGUAGE = {e["id"]: e["language"] for e in CORPUS}
FACT = {e["id"]: e["fact"] for e in CORPUS}
INSIDE = {e["id"]: oracles.parallel(CORPUS, e["id"]) for e in CORPUS}
OUTSIDE = {e["id"]: oracles.unrelated(CORPUS, e["id"], LANGUAGES) for e in CORPUS}


@pytest.fixture(scope="session")
def many_pairs(implementation: Implementation) -> list[Pair]:
    """Every edit of the uneven corpus under 190 seeds, with one update and one retain input."""
    return [
        pair
        for seed in SEEDS
        for pair in implementation.evaluation_pairs(CORPUS, LANGUAGES, LANGUAGES, 1, 1, seed=seed)
    ]


@pytest.fixture(scope="session")
def many_triples(implementation: Implementation) -> list[IdTriple]:
    """A training of 50,000 steps."""
    return implementation.training_triples(CORPUS, LANGUAGES, STEPS, seed=5)


def expectation(
    edits: Iterable[str], candidates: dict[str, set[str]], bin_of: Callable[[str, str], Any]
) -> dict[Any, float]:
    """How often each bin is expected if every edit draws one of its candidates uniformly."""
    result: dict[Any, float] = {}
    for edit, times in Counter(edits).items():
        for name in candidates[edit]:
            key = bin_of(edit, name)
            result[key] = result.get(key, 0.0) + times / len(candidates[edit])
    return result


def drawn_uniformly(clause_id: str, drawn: Sequence[tuple[str, str]], candidates: dict[str, set[str]]) -> None:
    """(edit, input) pairs are uniform: over languages, pairs of languages, facts, and being x_e itself.

    A language is looked at once more among the edits that leave a choice, where a bias shows best. An input that may
    not be drawn at all is another clause's matter.
    """
    role = "update" if candidates is INSIDE else "retain"
    for edit, name in [pair for pair in drawn if pair[1] not in candidates[pair[0]]]:
        _is_a_candidate(role, CORPUS, edit, name, LANGUAGES)
    views: dict[str, Callable[[str, str], Any]] = {
        "language of the input": lambda edit, name: LANGUAGE[name],
        "languages of edit and input": lambda edit, name: (LANGUAGE[edit], LANGUAGE[name]),
        "fact of the input": lambda edit, name: FACT[name],
        "the edit's own input": lambda edit, name: edit == name,
    }
    for what, bin_of in views.items():
        expected = expectation((edit for edit, _ in drawn), candidates, bin_of)
        if len(expected) > 1:
            counts = Counter(bin_of(*pair) for pair in drawn)
            distributed(clause_id, counts, expected, f"{role} inputs are not drawn uniformly: {what}")
    for language in LANGUAGES:
        choices = {edit: {LANGUAGE[name] == language for name in names} for edit, names in candidates.items()}
        free = [pair for pair in drawn if len(choices[pair[0]]) > 1]
        expected = expectation((edit for edit, _ in free), candidates, lambda _, name: LANGUAGE[name] == language)  # noqa: B023
        counts = Counter(LANGUAGE[name] == language for _, name in free)
        what = f"{role} inputs are not drawn uniformly: {language}, where another language is possible"
        distributed(clause_id, counts, expected, what)


def _is_a_candidate(role: str, corpus: Sequence[Example], edit: str, name: str, languages: Sequence[str]) -> None:
    """An input of an edit may be drawn in this role; if not, the clause that it breaks says why."""
    said = {e["id"]: (e["fact"], e["language"]) for e in corpus}
    about = {"edit": edit, "input": name, "updating languages": list(languages), "corpus": corpus}
    holds("S5", name in said, f"{role} inputs are not of the corpus", expected="an example", got=name, **about)
    fact, language = said[name]
    what = f"{role} inputs are in other than the updating languages"
    holds("S5", language in languages, what, expected=languages, got=language, **about)
    own = said[edit][0]
    if role == "retain":
        holds("S3", fact != own, "a parallel is drawn as unrelated", expected=f"none of {own}", got=name, **about)
    elif (own, language) not in said.values() and fact != own:
        fail("S8", "another fact takes the place of one that is missing in a language", about, own, fact)
    else:
        holds("S2", fact == own, "update inputs are not parallel to their edit", expected=own, got=name, **about)


def canonical(pairs: Iterable[Pair]) -> list[list[Any]]:
    """The content of an evaluation: neither the order of edits nor that of an edit's inputs means anything."""
    return sorted([pair["edit"], sorted(pair["update"]), sorted(pair["retain"])] for pair in pairs)


# S1 to S5, S8: evaluation


#: 61 facts in 53 languages, as mLAMA has: more than what is held, or looked through, at a time.
MANY_LANGUAGES = [f"l{number:02}" for number in range(53)]
MANY = [given_.example(f"f{fact:02}", said) for fact in range(61) for said in MANY_LANGUAGES]


@clause("S1", "S2", "S3", "S6")
def test_a_large_corpus_is_drawn_from_as_a_whole(implementation: Implementation) -> None:
    """Each of 3,233 examples is an edit; any is updated, retained and trained on, the last as likely as the first."""
    pairs = implementation.evaluation_pairs(MANY, MANY_LANGUAGES, MANY_LANGUAGES, 1, 1, seed=3)
    equal("S1", len({pair["edit"] for pair in pairs}), len(MANY), "edits of a large corpus")
    triples = implementation.training_triples(MANY, MANY_LANGUAGES, len(MANY), seed=3)
    drawn = {role: [name for pair in pairs for name in pair[role]] for role in ("update", "retain")}  # type: ignore[literal-required]
    trained = {role: [triple[role] for triple in triples] for role in ROLES}  # type: ignore[literal-required]
    for clause_id, what, names in (
        ("S2", "update inputs of an evaluation", drawn["update"]),
        ("S3", "retain inputs of an evaluation", drawn["retain"]),
        *(("S6", f"{role} inputs of a training", trained[role]) for role in ROLES),
    ):
        # By chance 63% of the examples are drawn at least once.
        few, most = len(set(names)), len(MANY) / 2
        holds(clause_id, few > most, f"different {what} of a large corpus", expected=f"more than {most}", got=few)
        for part, of in (("fact", 0), ("language", 1)):
            every = sorted({e["id"].split("/")[of] for e in MANY})
            evenly = dict.fromkeys(every, len(names) / len(every))
            counts = Counter(name.split("/")[of] for name in names)
            distributed(clause_id, counts, evenly, f"{what} are not uniform over a large corpus, by {part}")


@clause("S4")
def test_many_inputs_are_as_many_as_asked_for(implementation: Implementation) -> None:
    """60 update inputs, or the 53 that there are, and 300 retain inputs: more than a batch of any usual size."""
    pairs = implementation.evaluation_pairs(MANY, ["l00"], MANY_LANGUAGES, 60, 300, seed=3, limit=5)
    for pair in pairs:
        found = len(pair["update"])
        holds("S4", found == 60 or len(set(pair["update"])) == 53, "update inputs", expected="60, or all 53", got=found)
        equal("S4", len(pair["retain"]), 300, "retain inputs of an edit")


@clause("S1", "S5")
@given(given_.evaluations())
def test_every_example_is_edited_exactly_once(implementation: Implementation, call: dict[str, Any]) -> None:
    """The edits of an evaluation are the examples in the editing languages, each once, and none in another."""
    pairs = implementation.evaluation_pairs(**call)
    edits = sorted(pair["edit"] for pair in pairs)
    expected = sorted(e["id"] for e in call["corpus"] if e["language"] in call["edit_languages"])
    others = [e["id"] for e in call["corpus"] if e["language"] not in call["edit_languages"] and e["id"] in edits]
    equal("S5", others, [], "edits are taken from other than the editing languages", **call)
    equal("S1", edits, expected, "an evaluation does not edit every example once", **call)


@clause("S2", "S5", "S8")
@given(given_.evaluations())
def test_update_inputs_are_parallels_in_the_updating_languages(
    implementation: Implementation, call: dict[str, Any]
) -> None:
    """x_u ∈ I(x_e), in an updating language; where the fact is missing there, nothing takes its place."""
    for pair in implementation.evaluation_pairs(**call):
        for name in pair["update"]:
            _is_a_candidate("update", call["corpus"], pair["edit"], name, call["update_languages"])


@clause("S3", "S5")
@given(given_.evaluations())
def test_retain_inputs_are_unrelated_and_in_the_updating_languages(
    implementation: Implementation, call: dict[str, Any]
) -> None:
    """x_r ∉ I(x_e), parallels outside the editing and updating languages included."""
    for pair in implementation.evaluation_pairs(**call):
        for name in pair["retain"]:
            _is_a_candidate("retain", call["corpus"], pair["edit"], name, call["update_languages"])


#: Names of facts of which one begins another, and two differ in their letters' case alone.
ALIKE = [*(f"f{number}" for number in (1, 10, 11, 12, 100)), "F1", "F10"]
SIMILAR = [given_.example(fact, said) for fact in ALIKE for said in LANGUAGES]


@clause("S3")
def test_facts_of_similar_names_are_unrelated(implementation: Implementation) -> None:
    """Over many seeds every other fact is retained, also one whose name begins with that of the edit."""
    drawn: dict[str, set[str]] = {}
    for seed in range(60):
        for pair in implementation.evaluation_pairs(SIMILAR, ["en"], LANGUAGES, 1, 2, seed=seed):
            drawn.setdefault(pair["edit"].rpartition("/")[0], set()).update(
                one.rpartition("/")[0] for one in pair["retain"]
            )
    for fact in ALIKE:
        expected = sorted(set(ALIKE) - {fact})
        equal("S3", sorted(drawn.get(fact, ())), expected, f"facts that are retained for edits of {fact}")


@clause("S4")
@given(given_.evaluations())
def test_edits_get_the_number_of_inputs_asked_for(implementation: Implementation, call: dict[str, Any]) -> None:
    """As many as asked, or every candidate once where there are fewer."""
    for pair in implementation.evaluation_pairs(**call):
        candidates = {
            "update": oracles.parallel(call["corpus"], pair["edit"], call["update_languages"]),
            "retain": oracles.unrelated(call["corpus"], pair["edit"], call["update_languages"]),
        }
        for role, names in candidates.items():
            got, asked = pair[role], call[f"n_{role}"]  # type: ignore[literal-required]
            every = len(names) < asked and sorted(got) == sorted(names)
            fits = len(got) == asked or every
            what = f"an edit has another number of {role} inputs than were asked for"
            holds("S4", fits, what, expected=asked, got=got, edit=pair["edit"], **call)


@clause("S4")
@pytest.mark.parametrize("role", ["update", "retain"])
def test_none_is_drawn_where_none_is_asked_for(implementation: Implementation, role: str) -> None:
    """No input of a role is a number, too; to refuse it is free."""
    counts = {"n_update": 2, "n_retain": 2, f"n_{role}": 0}
    try:
        pairs = implementation.evaluation_pairs(SIMILAR, ["en"], LANGUAGES, **counts, seed=5)
    except (ValueError, LookupError):
        return
    drawn = [pair[role] for pair in pairs if pair[role]]  # type: ignore[literal-required]
    equal("S4", drawn, [], f"an edit has {role} inputs where none were asked for")


@clause("S8")
def test_a_fact_without_parallels_in_the_updating_languages_gets_no_update_input(
    implementation: Implementation,
) -> None:
    """A fact known in English only, updated in German: there is nothing to draw, and nothing is drawn."""
    corpus = [given_.example("f0", "en"), given_.example("f1", "de"), given_.example("f2", "de")]
    pairs = implementation.evaluation_pairs(corpus, ["en"], ["de"], 2, 1, seed=3)
    for pair in pairs:
        what = "a fact that the updating languages lack has update inputs"
        equal("S8", list(pair["update"]), [], what, edit=pair["edit"], corpus=corpus)
    what = "a fact that the updating languages lack is not edited"
    equal("S1", [pair["edit"] for pair in pairs], ["f0/en"], what, corpus=corpus)


@clause("S3", "S8", "S10")
def test_every_input_is_unrelated_to_a_fact_that_the_updating_languages_lack(implementation: Implementation) -> None:
    """2,000 x_r of a fact known in English only, updated in German: every German input as often as any other."""
    corpus = [given_.example("f0", "en"), *(given_.example(f"f{fact}", "de") for fact in range(1, 6))]
    pairs = [
        pair for s in range(1000) for pair in implementation.evaluation_pairs(corpus, ["en"], ["de"], 1, 2, seed=s)
    ]
    drawn = Counter(name for pair in pairs for name in pair["retain"])
    assume(drawn.total() > 0, "nothing was drawn")
    expected = {e["id"]: drawn.total() / 5 for e in corpus if e["language"] == "de"}
    distributed("S3", drawn, expected, "retain inputs of a fact that the updating languages lack are not uniform")


@clause("S2", "S10")
def test_update_inputs_are_uniform(many_pairs: list[Pair]) -> None:
    """50,000 x_u over the members of I(x_e), x_e itself as likely as any other."""
    drawn_uniformly("S2", [(pair["edit"], name) for pair in many_pairs for name in pair["update"]], INSIDE)


@clause("S3", "S10")
def test_retain_inputs_are_uniform(many_pairs: list[Pair]) -> None:
    """50,000 x_r over all examples outside I(x_e): by language in proportion to its examples."""
    drawn_uniformly("S3", [(pair["edit"], name) for pair in many_pairs for name in pair["retain"]], OUTSIDE)


@clause("S3", "S10")
def test_no_parallel_is_ever_retained(many_pairs: list[Pair], many_triples: list[IdTriple]) -> None:
    """Not one of 100,000 retain inputs is a parallel; a leak of one in 200 would show with certainty."""
    drawn = [(p["edit"], name) for p in many_pairs for name in p["retain"]]
    drawn += [(t["edit"], t["retain"]) for t in many_triples]
    leaks = [(edit, name) for edit, name in drawn if name in INSIDE[edit]]
    what = "a parallel is drawn as unrelated"
    holds("S3", not leaks, what, expected="none", got=leaks[:5], draws=len(drawn), leaks=len(leaks))


@clause("S2", "S10")
def test_several_update_inputs_are_uniform_too(implementation: Implementation) -> None:
    """Two x_u for each edit: every member of I(x_e) is drawn equally often."""
    drawn = [
        (pair["edit"], name)
        for seed in range(60)
        for pair in implementation.evaluation_pairs(CORPUS, LANGUAGES, LANGUAGES, 2, 1, seed=seed)
        if len(INSIDE[pair["edit"]]) >= 2
        for name in pair["update"]
    ]
    drawn_uniformly("S2", drawn, INSIDE)


# S6: training


@clause("S6", "S2", "S3", "S8")
@given(given_.evaluations())
def test_triples_stay_in_the_training_languages(implementation: Implementation, call: dict[str, Any]) -> None:
    """x_e, x_u ∈ I(x_e) and x_r ∉ I(x_e) are examples of the training languages; with one, all three are in it."""
    corpus, languages, seed = call["corpus"], call["update_languages"], call["seed"]
    inside = {e["id"] for e in corpus if e["language"] in languages}
    inputs = {"corpus": corpus, "languages": languages, "seed": seed}
    for triple in implementation.training_triples(corpus, languages, 20, seed=seed):
        what = "a training step draws from other than the training languages"
        holds("S6", {triple[role] for role in ROLES} <= inside, what, expected=languages, got=triple, **inputs)
        for role in ("update", "retain"):
            _is_a_candidate(role, corpus, triple["edit"], triple[role], languages)  # type: ignore[literal-required]


@clause("S6")
def test_one_training_language_is_all_three(implementation: Implementation) -> None:
    """Monolingual training: x_u is x_e, and x_r is another example of the language."""
    for triple in implementation.training_triples(CORPUS, ["de"], 200, seed=1):
        said = {LANGUAGE[triple[role]] for role in ROLES}
        equal("S6", said, {"de"}, "a step of a monolingual training draws other languages", triple=triple)
        _is_a_candidate("update", CORPUS, triple["edit"], triple["update"], ["de"])


@clause("S6", "S10")
def test_training_draws_uniformly(many_triples: list[IdTriple]) -> None:
    """50,000 steps: x_e uniform over the examples, x_u over I(x_e), x_r over the rest."""
    equal("S6", len(many_triples), STEPS, "a training has another number of steps than were asked for")
    edits = Counter(triple["edit"] for triple in many_triples)
    what = "the edits of a training are not uniform over the examples"
    distributed("S6", edits, dict.fromkeys(LANGUAGE, STEPS / len(CORPUS)), what)
    languages = Counter(LANGUAGE[triple["edit"]] for triple in many_triples)
    sizes = Counter(LANGUAGE.values())
    shares = {language: STEPS * size / len(CORPUS) for language, size in sizes.items()}
    distributed("S6", languages, shares, "the languages of the edits of a training are not those of the examples")
    drawn_uniformly("S6", [(t["edit"], t["update"]) for t in many_triples], INSIDE)
    drawn_uniformly("S6", [(t["edit"], t["retain"]) for t in many_triples], OUTSIDE)


@clause("S6")
def test_training_on_some_languages_draws_uniformly(implementation: Implementation) -> None:
    """20,000 steps on two of four languages: what the others know of a fact has no part in what is drawn."""
    languages, steps = ["sw", "de"], 20_000
    examples = [name for name, said in LANGUAGE.items() if said in languages]
    triples = implementation.training_triples(CORPUS, languages, steps, seed=9)
    edits = Counter(triple["edit"] for triple in triples)
    what = "the edits of a training on two languages are not uniform over their examples"
    distributed("S6", edits, dict.fromkeys(examples, steps / len(examples)), what)
    for role, everyone in (("update", INSIDE), ("retain", OUTSIDE)):
        candidates = {edit: everyone[edit].intersection(examples) for edit in examples}
        bin_of = lambda edit, name: (LANGUAGE[edit], LANGUAGE[name], len(INSIDE[name]))  # noqa: E731
        drawn = [(triple["edit"], triple[role]) for triple in triples]  # type: ignore[literal-required]
        expected = expectation((edit for edit, _ in drawn), candidates, bin_of)
        what = f"{role} inputs by both languages, and by how many languages know the input's fact"
        distributed("S6", Counter(bin_of(*pair) for pair in drawn), expected, what)


@clause("S1", "S3", "S6")
def test_a_language_that_is_named_twice_is_one_language(implementation: Implementation) -> None:
    """It gives each of its examples once, and is drawn no more often; to refuse it is free."""
    twice = ["de", "sw", "de"]
    shares = Counter(said for said in LANGUAGE.values() if said in twice)

    def evenly(clause_id: str, names: Sequence[str], what: str) -> None:
        expected = {said: len(names) * share / shares.total() for said, share in shares.items()}
        distributed(clause_id, Counter(LANGUAGE[name] for name in names), expected, f"{what}, German named twice")

    with contextlib.suppress(ValueError, LookupError):
        edits = sorted(pair["edit"] for pair in implementation.evaluation_pairs(CORPUS, twice, ["en"], 1, 1, seed=5))
        expected = sorted(name for name, said in LANGUAGE.items() if said in twice)
        equal("S1", edits, expected, "edits of languages of which one is named twice", languages=twice)
    with contextlib.suppress(ValueError, LookupError):
        # Of facts that neither German nor Swahili knows: all that they tell is unrelated.
        alone = [edit for edit, names in INSIDE.items() if not shares.keys() & {LANGUAGE[name] for name in names}]
        pairs = [p for seed in range(60) for p in implementation.evaluation_pairs(CORPUS, ["en"], twice, 1, 2, seed)]
        evenly("S3", [name for p in pairs if p["edit"] in alone for name in p["retain"]], "retain inputs")
    with contextlib.suppress(ValueError, LookupError):
        triples = implementation.training_triples(CORPUS, twice, 5_000, seed=5)
        evenly("S6", [triple["edit"] for triple in triples], "edits of a training")


@clause("S6", "S10")
@pytest.mark.parametrize("role", ["edit", "update", "retain"])
def test_each_step_draws_its_languages_afresh(many_triples: list[IdTriple], role: str) -> None:
    """The language of a step tells nothing about that of the next."""
    said = [LANGUAGE[triple[role]] for triple in many_triples]  # type: ignore[literal-required]
    share = {language: count / len(said) for language, count in Counter(said).items()}
    steps = len(said) - 1
    expected = {(a, b): steps * share[a] * share[b] for a in share for b in share}
    distributed(
        "S6",
        Counter(itertools.pairwise(said)),
        expected,
        f"the language of a step depends on that of the step before: {role} inputs",
    )


# S7: seeds

CALL = (LANGUAGES, LANGUAGES, 2, 3)


def evaluate(implementation: Implementation, corpus: list[Example], seed: int, limit: int | None = None) -> Any:
    return canonical(implementation.evaluation_pairs(corpus, *CALL, seed=seed, limit=limit))


def train(implementation: Implementation, corpus: list[Example], seed: int, validate_every: int | None = None) -> Any:
    triples = implementation.training_triples(corpus, LANGUAGES, 200, seed=seed, validate_every=validate_every)
    return [[t["edit"], t["update"], t["retain"]] for t in triples]


@clause("S7")
@pytest.mark.parametrize("limit", [None, 40])
def test_a_seed_fixes_the_evaluation(implementation: Implementation, limit: int | None) -> None:
    """Same seed, same inputs for every edit; another seed, others. 0 is a seed."""
    first = evaluate(implementation, CORPUS, 0, limit)
    equal("S7", evaluate(implementation, CORPUS, 0, limit), first, "one seed gives two evaluations")
    other = evaluate(implementation, CORPUS, 8, limit)
    holds(
        "S7",
        other != first,
        "two seeds give one evaluation",
        expected="different samples",
        got="the same",
        seeds=(0, 8),
    )


@clause("S7")
def test_a_seed_fixes_the_training(implementation: Implementation) -> None:
    """Same seed, same triples in the same order; another seed, others. 0 is a seed."""
    first = train(implementation, CORPUS, 0)
    equal("S7", train(implementation, CORPUS, 0), first, "one seed gives two trainings")
    other = train(implementation, CORPUS, 8)
    holds(
        "S7", other != first, "two seeds give one training", expected="different triples", got="the same", seeds=(0, 8)
    )


@clause("S7")
@pytest.mark.parametrize("steps", [1, 7, 64])
def test_a_training_begins_as_a_longer_one(implementation: Implementation, steps: int) -> None:
    """The first triples are the first, however many are asked for."""
    got = [tuple(t[role] for role in ROLES) for t in implementation.training_triples(CORPUS, LANGUAGES, steps, seed=7)]  # type: ignore[literal-required]
    what = "how many triples are asked for changes the first of them"
    equal("S7", got, [tuple(t) for t in train(implementation, CORPUS, 7)][:steps], what, steps=steps)


#: Neighbours, even ones and odd ones before them, numbers that share their lowest bits or their last digits, and
#: what stands for no seed in much code.
SEEDS_APART = (0, 1, 2, 3, 7, 8, 42, 7 + 2**8, 7 + 2**16, 7 + 2**30, 7 + 10**3, 7 + 10**6)


@clause("S7")
def test_every_two_seeds_train_on_other_inputs(implementation: Implementation) -> None:
    """Each role for itself: x_e, x_u and x_r of less than half of the steps are those of another seed.

    And where two seeds happen to have one x_e at one step, they seldom have one x_r.
    """
    met = []
    made = {seed: train(implementation, CORPUS, seed) for seed in SEEDS_APART}
    for one, other in itertools.combinations(SEEDS_APART, 2):
        for place, role in enumerate(ROLES):
            same = sum(a[place] == b[place] for a, b in zip(made[one], made[other], strict=True))
            what = f"{role} inputs that two seeds draw at the same step"
            holds("S7", same < 100, what, expected="less than 100 of 200", got=same, seeds=(one, other))
        met += [(a[2], b[2]) for a, b in zip(made[one], made[other], strict=True) if a[0] == b[0]]
    again: dict[str, set[str]] = {}
    for edit, _, retain in made[0]:
        again.setdefault(edit, set()).add(retain)
    shown = any(len(retained) > 1 for retained in again.values())
    assume(shown and len(met) >= 8, f"x_r follows from x_e (S6), or only {len(met)} steps have one x_e under two seeds")
    same = sum(a == b for a, b in met)
    what = "x_r of steps that have one x_e under two seeds"
    holds("S7", same < len(met) / 2, what, expected=f"less than half of {len(met)}", got=same)


@clause("S7")
@pytest.mark.parametrize("limit", [None, 40, 133])
def test_every_two_seeds_evaluate_other_inputs(implementation: Implementation, limit: int | None) -> None:
    """Each draw for itself: of edits that both seeds have, some x_u and most x_r differ, and limited edits do.

    Also where the limit is above the number of edits of each language: of 133 edits two seeds share 72 by chance.
    """
    made = {}
    for seed in SEEDS_APART:
        pairs = implementation.evaluation_pairs(CORPUS, LANGUAGES, LANGUAGES, 1, 3, seed=seed, limit=limit)
        made[seed] = {pair["edit"]: pair for pair in pairs}
    for one, other in itertools.combinations(SEEDS_APART, 2):
        both = sorted(made[one].keys() & made[other].keys())
        if limit is not None:
            what = "edits that two seeds choose"
            holds("S7", len(both) < limit * 3 / 4, what, expected=f"few of {limit}", got=len(both), seeds=(one, other))
            continue
        for role, share in (("update", 9 / 10), ("retain", 1 / 2)):
            free = [edit for edit in both if role == "retain" or len(INSIDE[edit]) > 1]
            same = sum(sorted(made[one][e][role]) == sorted(made[other][e][role]) for e in free)  # type: ignore[literal-required]
            what = f"edits whose {role} inputs two seeds draw alike"
            told = f"less than {share:.0%} of {len(free)}"
            holds("S7", same < share * len(free), what, expected=told, got=same, seeds=(one, other))


@clause("S7")
@pytest.mark.parametrize("shuffle", [1, 2])
@pytest.mark.parametrize("corpus", [CORPUS, SIMILAR], ids=["uneven", "similar-names"])
def test_the_order_of_the_corpus_means_nothing(
    implementation: Implementation, corpus: list[Example], shuffle: int
) -> None:
    """A corpus read in another order gives the same samples, also one whose facts differ in their case alone."""
    shuffled = random.Random(shuffle).sample(corpus, len(corpus))
    for limit in (None, 20):
        expected = evaluate(implementation, corpus, 7, limit)
        equal(
            "S7",
            evaluate(implementation, shuffled, 7, limit),
            expected,
            "the order of the corpus changes an evaluation",
            limit=limit,
        )
    what = "the order of the corpus changes a training"
    equal("S7", train(implementation, shuffled, 7), train(implementation, corpus, 7), what)


@clause("S7")
@pytest.mark.parametrize("validate_every", [1, 7, 100])
def test_validation_does_not_touch_the_training(implementation: Implementation, validate_every: int) -> None:
    """However often a validation is sampled in between, the training sees the same triples."""
    got = train(implementation, CORPUS, 7, validate_every)
    what = "validation in between changes a training"
    equal("S7", got, train(implementation, CORPUS, 7), what, validate_every=validate_every)


@clause("S7")
@pytest.mark.parametrize("state", [0, 1])
def test_global_random_state_means_nothing(implementation: Implementation, state: int) -> None:
    """What other code drew from the global generators has no influence."""
    expected = evaluate(implementation, CORPUS, 7), train(implementation, CORPUS, 7)
    with probes.global_state(implementation, state):
        got = evaluate(implementation, CORPUS, 7), train(implementation, CORPUS, 7)
    equal("S7", got, expected, "the global random state changes samples", state=state)


def everything(implementation: Any) -> Any:
    """What another process is asked for."""
    return [
        evaluate(implementation, CORPUS, 7),
        evaluate(implementation, CORPUS, 7, 40),
        train(implementation, CORPUS, 7),
    ]


@clause("S7")
def test_hash_seeds_mean_nothing(implementation: Implementation) -> None:
    """Other processes under other values of PYTHONHASHSEED draw the same samples."""
    expected = everything(implementation)
    for hash_seed, found in elsewhere.told(implementation, "S7", "1", "4242").items():
        what = "samples depend on the hash seed of the process"
        equal("S7", found["S"], expected, what, PYTHONHASHSEED=hash_seed)


# S9: evaluations of limited size


@clause("S9", "S1")
@pytest.mark.parametrize(
    ("limit", "languages"),
    [*((limit, LANGUAGES) for limit in (1, 2, 4, 7, 40, 199)), (40, ["sw"]), (77, ["sw", "de"])],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_a_limit_is_spread_evenly_over_the_languages(
    implementation: Implementation, limit: int, languages: list[str]
) -> None:
    """`limit` different edits; editing languages differ by one edit at most, be they all of the corpus or some."""
    pairs = implementation.evaluation_pairs(CORPUS, languages, LANGUAGES, 1, 1, seed=11, limit=limit)
    edits = [pair["edit"] for pair in pairs]
    equal("S1", len(set(edits)), len(edits), "a limited evaluation makes an edit twice", limit=limit)
    equal("S9", len(edits), limit, "a limited evaluation has another number of edits", limit=limit)
    per_language = [Counter(LANGUAGE[edit] for edit in edits)[language] for language in languages]
    even = max(per_language) - min(per_language) <= 1
    what = "a limit is not spread evenly over the languages"
    holds("S9", even, what, expected="languages differ by one edit at most", got=per_language, limit=limit)


@clause("S9")
def test_a_limit_of_none_is_a_limit(implementation: Implementation) -> None:
    """No edit is a number, too; to refuse it is free."""
    with contextlib.suppress(ValueError, LookupError):
        pairs = implementation.evaluation_pairs(SIMILAR, ["en"], LANGUAGES, 1, 1, seed=5, limit=0)
        equal("S9", [pair["edit"] for pair in pairs], [], "edits of an evaluation of no edit")


@clause("S9", "S1")
@given(given_.evaluations(), st.integers(0, 3))
def test_a_limit_above_the_corpus_is_no_limit(implementation: Implementation, call: dict[str, Any], room: int) -> None:
    """With room for every edit of every language, every edit is made once."""
    limit = len(call["edit_languages"]) * len(call["corpus"]) + room
    pairs = implementation.evaluation_pairs(**call, limit=limit)
    expected = sorted(e["id"] for e in call["corpus"] if e["language"] in call["edit_languages"])
    equal(
        "S9",
        sorted(pair["edit"] for pair in pairs),
        expected,
        "a limit above the corpus leaves edits out",
        limit=limit,
        **call,
    )


@clause("S9", "S10")
def test_a_limited_evaluation_is_a_random_part_of_each_language(implementation: Implementation) -> None:
    """12,000 edits over 300 seeds: within a language every fact is drawn equally often, the last as the first."""
    counts: Counter[str] = Counter()
    for seed in range(300):
        pairs = implementation.evaluation_pairs(CORPUS, LANGUAGES, LANGUAGES, 1, 1, seed=seed, limit=40)
        counts.update(pair["edit"] for pair in pairs)
    sizes = Counter(LANGUAGE.values())
    expected = {name: counts.total() / len(LANGUAGES) / sizes[language] for name, language in LANGUAGE.items()}
    distributed("S9", counts, expected, "a limited evaluation is not a random part of each language")


@golden.cases("evaluation_pairs")
def test_golden_evaluations(implementation: Implementation, case: golden.Case) -> None:
    """The committed edits, and where their inputs may come from."""
    golden.check(implementation, case)
