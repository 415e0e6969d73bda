"""Chapter S: what is drawn, from where, how often, and that a seed says it all.

The statistical tests draw some 50,000 inputs from a corpus of 266 examples with fixed seeds and compare them with their
exact expectation by chi-square at a false-alarm rate of 1e-6 each. `meta/test_power.py` shows what they can see.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import golden, oracles
from . import strategies as given_
from .assertions import distributed, equal, holds
from .conformance import Implementation, clause
from .contract import Example, IdTriple, Pair

LANGUAGES = ["en", "de", "zh", "sw"]
SEEDS = range(190)
STEPS = 50_000


def uneven_corpus() -> list[Example]:
    """100 facts in English, 67 of them in German, 50 in Chinese, 50 (half of them others) in Swahili."""
    spoken = {"en": lambda f: True, "de": lambda f: f % 3 != 0, "zh": lambda f: f % 2 == 0, "sw": lambda f: f % 4 < 2}
    return [given_.example(f"f{f:02}", said) for f in range(100) for said, knows in spoken.items() if knows(f)]


CORPUS = uneven_corpus()
LANGUAGE = {e["id"]: e["language"] for e in CORPUS}
FACT = {e["id"]: e["fact"] for e in CORPUS}
INSIDE = {e["id"]: oracles.parallel(CORPUS, e["id"]) for e in CORPUS}
OUTSIDE = {e["id"]: oracles.unrelated(CORPUS, e["id"], LANGUAGES) for e in CORPUS}


@pytest.fixture(scope="module")
def many_pairs(implementation: Implementation) -> list[Pair]:
    """Every edit of the uneven corpus under 190 seeds, with one update and one retain input."""
    return [
        pair
        for seed in SEEDS
        for pair in implementation.evaluation_pairs(CORPUS, LANGUAGES, LANGUAGES, 1, 1, seed=seed)
    ]


@pytest.fixture(scope="module")
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

    A language is looked at once more among the edits that leave a choice, where a bias shows best.
    """
    views: dict[str, Callable[[str, str], Any]] = {
        "language of the input": lambda edit, name: LANGUAGE[name],
        "languages of edit and input": lambda edit, name: (LANGUAGE[edit], LANGUAGE[name]),
        "fact of the input": lambda edit, name: FACT[name],
        "the edit's own input": lambda edit, name: edit == name,
    }
    for what, bin_of in views.items():
        expected = expectation((edit for edit, _ in drawn), candidates, bin_of)
        if len(expected) > 1:
            distributed(clause_id, Counter(bin_of(*pair) for pair in drawn), expected, what)
    for language in LANGUAGES:
        choices = {edit: {LANGUAGE[name] == language for name in names} for edit, names in candidates.items()}
        free = [pair for pair in drawn if len(choices[pair[0]]) > 1]
        expected = expectation((edit for edit, _ in free), candidates, lambda _, name: LANGUAGE[name] == language)  # noqa: B023
        counts = Counter(LANGUAGE[name] == language for _, name in free)
        distributed(clause_id, counts, expected, f"inputs in {language}, where another language is possible")


def canonical(pairs: Iterable[Pair]) -> list[list[Any]]:
    """The content of an evaluation: neither the order of edits nor that of an edit's inputs means anything."""
    return sorted([pair["edit"], sorted(pair["update"]), sorted(pair["retain"])] for pair in pairs)


# S1 to S5, S8: evaluation


@clause("S1", "S5")
@given(given_.evaluations())
def test_every_example_is_edited_exactly_once(implementation: Implementation, call: dict[str, Any]) -> None:
    """The edits of an evaluation are the examples in the editing languages, each once, and none in another."""
    pairs = implementation.evaluation_pairs(**call)
    expected = sorted(e["id"] for e in call["corpus"] if e["language"] in call["edit_languages"])
    equal("S1", sorted(pair["edit"] for pair in pairs), expected, "edits", **call)


@clause("S2", "S5", "S8")
@given(given_.evaluations())
def test_update_inputs_are_parallels_in_the_updating_languages(
    implementation: Implementation, call: dict[str, Any]
) -> None:
    """x_u ∈ I(x_e), in an updating language; where the fact is missing there, nothing takes its place."""
    for pair in implementation.evaluation_pairs(**call):
        allowed = oracles.parallel(call["corpus"], pair["edit"], call["update_languages"])
        stray = set(pair["update"]) - allowed
        holds("S8", not stray, f"x_u of {pair['edit']}", expected=allowed, got=pair["update"], **call)


@clause("S3", "S5")
@given(given_.evaluations())
def test_retain_inputs_are_unrelated_and_in_the_updating_languages(
    implementation: Implementation, call: dict[str, Any]
) -> None:
    """x_r ∉ I(x_e), parallels outside the editing and updating languages included."""
    for pair in implementation.evaluation_pairs(**call):
        allowed = oracles.unrelated(call["corpus"], pair["edit"], call["update_languages"])
        stray = set(pair["retain"]) - allowed
        holds("S3", not stray, f"x_r of {pair['edit']}", expected=allowed, got=pair["retain"], **call)


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
            holds("S4", fits, f"{role} inputs of {pair['edit']}", expected=asked, got=got, **call)


@clause("S8")
def test_a_fact_without_parallels_in_the_updating_languages_gets_no_update_input(
    implementation: Implementation,
) -> None:
    """A fact known in English only, updated in German: there is nothing to draw, and nothing is drawn."""
    corpus = [given_.example("f0", "en"), given_.example("f1", "de"), given_.example("f2", "de")]
    pairs = implementation.evaluation_pairs(corpus, ["en"], ["de"], 2, 1, seed=3)
    got = [(pair["edit"], list(pair["update"])) for pair in pairs]
    equal("S8", got, [("f0/en", [])], "edits and update inputs of a fact that German lacks", corpus=corpus)


@clause("S3", "S8", "S10")
def test_every_input_is_unrelated_to_a_fact_that_the_updating_languages_lack(implementation: Implementation) -> None:
    """2,000 x_r of a fact known in English only, updated in German: every German input as often as any other."""
    corpus = [given_.example("f0", "en"), *(given_.example(f"f{fact}", "de") for fact in range(1, 6))]
    pairs = [
        pair for s in range(1000) for pair in implementation.evaluation_pairs(corpus, ["en"], ["de"], 1, 2, seed=s)
    ]
    drawn = Counter(name for pair in pairs for name in pair["retain"])
    expected = {e["id"]: 2000 / 5 for e in corpus if e["language"] == "de"}
    distributed("S3", drawn, expected, "x_r of a fact that German lacks")


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
    holds("S3", not leaks, f"{len(leaks)} leaks in {len(drawn)} draws", expected="none", got=leaks[:5])


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


@clause("S6", "S8", "S3")
@given(given_.evaluations())
def test_triples_stay_in_the_training_languages(implementation: Implementation, call: dict[str, Any]) -> None:
    """x_e, x_u ∈ I(x_e) and x_r ∉ I(x_e) are examples of the training languages; with one, all three are in it."""
    corpus, languages, seed = call["corpus"], call["update_languages"], call["seed"]
    inside = {e["id"] for e in corpus if e["language"] in languages}
    inputs = {"corpus": corpus, "languages": languages, "seed": seed}
    for triple in implementation.training_triples(corpus, languages, 20, seed=seed):
        holds("S6", set(triple.values()) <= inside, "languages", expected=languages, got=triple, **inputs)
        related = oracles.parallel(corpus, triple["edit"], languages)
        holds("S8", triple["update"] in related, "x_u", expected=related, got=triple, **inputs)
        holds("S3", triple["retain"] not in related, "x_r", expected=f"none of {related}", got=triple, **inputs)


@clause("S6")
def test_one_training_language_is_all_three(implementation: Implementation) -> None:
    """Monolingual training: x_u is x_e, and x_r is another example of the language."""
    for triple in implementation.training_triples(CORPUS, ["de"], 200, seed=1):
        equal("S6", triple["update"], triple["edit"], "x_u of a monolingual step")
        equal("S6", LANGUAGE[triple["edit"]], "de", "language of x_e")
        equal("S6", LANGUAGE[triple["retain"]], "de", "language of x_r")


@clause("S6", "S10")
def test_training_draws_uniformly(many_triples: list[IdTriple]) -> None:
    """50,000 steps: x_e uniform over the examples, x_u over I(x_e), x_r over the rest."""
    equal("S6", len(many_triples), STEPS, "number of triples")
    edits = Counter(triple["edit"] for triple in many_triples)
    distributed("S6", edits, dict.fromkeys(LANGUAGE, STEPS / len(CORPUS)), "x_e by example")
    languages = Counter(LANGUAGE[triple["edit"]] for triple in many_triples)
    sizes = Counter(LANGUAGE.values())
    shares = {language: STEPS * size / len(CORPUS) for language, size in sizes.items()}
    distributed("S6", languages, shares, "language of x_e")
    drawn_uniformly("S6", [(t["edit"], t["update"]) for t in many_triples], INSIDE)
    drawn_uniformly("S6", [(t["edit"], t["retain"]) for t in many_triples], OUTSIDE)


@clause("S6", "S10")
@pytest.mark.parametrize("role", ["edit", "update", "retain"])
def test_each_step_draws_its_languages_afresh(many_triples: list[IdTriple], role: str) -> None:
    """The language of a step tells nothing about that of the next."""
    said = [LANGUAGE[triple[role]] for triple in many_triples]  # type: ignore[literal-required]
    share = {language: count / len(said) for language, count in Counter(said).items()}
    steps = len(said) - 1
    expected = {(a, b): steps * share[a] * share[b] for a in share for b in share}
    distributed("S6", Counter(itertools.pairwise(said)), expected, f"languages of successive {role} inputs")


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
    """Same seed, same inputs for every edit; another seed, others."""
    first = evaluate(implementation, CORPUS, 7, limit)
    equal("S7", evaluate(implementation, CORPUS, 7, limit), first, "the same seed again")
    other = evaluate(implementation, CORPUS, 8, limit)
    holds("S7", other != first, "seeds 7 and 8", expected="different samples", got="the same samples")


@clause("S7")
def test_a_seed_fixes_the_training(implementation: Implementation) -> None:
    """Same seed, same triples in the same order; another seed, others."""
    first = train(implementation, CORPUS, 7)
    equal("S7", train(implementation, CORPUS, 7), first, "the same seed again")
    other = train(implementation, CORPUS, 8)
    holds("S7", other != first, "seeds 7 and 8", expected="different triples", got="the same triples")


@clause("S7")
@pytest.mark.parametrize("shuffle", [1, 2])
def test_the_order_of_the_corpus_means_nothing(implementation: Implementation, shuffle: int) -> None:
    """A corpus read in another order gives the same samples."""
    shuffled = random.Random(shuffle).sample(CORPUS, len(CORPUS))
    for limit in (None, 40):
        expected = evaluate(implementation, CORPUS, 7, limit)
        equal("S7", evaluate(implementation, shuffled, 7, limit), expected, f"evaluation, limit {limit}")
    equal("S7", train(implementation, shuffled, 7), train(implementation, CORPUS, 7), "training")


@clause("S7")
@pytest.mark.parametrize("validate_every", [1, 7, 100])
def test_validation_does_not_touch_the_training(implementation: Implementation, validate_every: int) -> None:
    """However often a validation is sampled in between, the training sees the same triples."""
    got = train(implementation, CORPUS, 7, validate_every)
    equal("S7", got, train(implementation, CORPUS, 7), f"validation every {validate_every} steps")


@clause("S7")
@pytest.mark.parametrize("state", [0, 1])
def test_global_random_state_means_nothing(implementation: Implementation, state: int) -> None:
    """What other code drew from the global generators has no influence."""
    expected = evaluate(implementation, CORPUS, 7), train(implementation, CORPUS, 7)
    kept = random.getstate(), np.random.get_state()
    try:
        random.seed(state)
        np.random.seed(state)
        got = evaluate(implementation, CORPUS, 7), train(implementation, CORPUS, 7)
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
    equal("S7", got, expected, "under another global state")


OTHER_PROCESS = """
import json, sys
from {package} import test_s_sampling as s
from {package}.conformance import load
found = load(sys.argv[1])
print(json.dumps([s.evaluate(found, s.CORPUS, 7), s.evaluate(found, s.CORPUS, 7, 40), s.train(found, s.CORPUS, 7)]))
"""


@clause("S7")
def test_hash_seeds_mean_nothing(implementation: Implementation) -> None:
    """Other processes under other values of PYTHONHASHSEED draw the same samples."""
    if implementation.spelling is None:
        pytest.skip("not claimed: an injected object exists in this process only")
    expected = [evaluate(implementation, CORPUS, 7), evaluate(implementation, CORPUS, 7, 40)]
    expected.append(train(implementation, CORPUS, 7))
    command = [sys.executable, "-c", OTHER_PROCESS.format(package=__package__), implementation.spelling]
    running = {hash_seed: _start(command, hash_seed) for hash_seed in ("1", "4242")}
    said = {hash_seed: process.communicate(timeout=120) for hash_seed, process in running.items()}
    for hash_seed, (printed, complaints) in said.items():
        holds("S7", not running[hash_seed].returncode, "another process failed", expected=0, got=complaints[-2000:])
        got = json.loads(printed.splitlines()[-1])
        equal("S7", got, expected, f"samples under PYTHONHASHSEED={hash_seed}")


def _start(command: list[str], hash_seed: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# S9: evaluations of limited size


@clause("S9", "S1")
@pytest.mark.parametrize("limit", [1, 2, 4, 7, 40, 199])
def test_a_limit_is_spread_evenly_over_the_languages(implementation: Implementation, limit: int) -> None:
    """`limit` different edits; languages differ by one edit at most."""
    pairs = implementation.evaluation_pairs(CORPUS, LANGUAGES, LANGUAGES, 1, 1, seed=11, limit=limit)
    edits = [pair["edit"] for pair in pairs]
    equal("S9", len(set(edits)), limit, "number of different edits", limit=limit)
    equal("S9", len(edits), limit, "number of edits", limit=limit)
    per_language = [Counter(LANGUAGE[edit] for edit in edits)[language] for language in LANGUAGES]
    even = max(per_language) - min(per_language) <= 1
    holds("S9", even, "edits per language", expected="even", got=per_language, limit=limit)


@clause("S9", "S1")
@given(given_.evaluations(), st.integers(0, 3))
def test_a_limit_above_the_corpus_is_no_limit(implementation: Implementation, call: dict[str, Any], room: int) -> None:
    """With room for every edit of every language, every edit is made once."""
    limit = len(call["edit_languages"]) * len(call["corpus"]) + room
    pairs = implementation.evaluation_pairs(**call, limit=limit)
    expected = sorted(e["id"] for e in call["corpus"] if e["language"] in call["edit_languages"])
    equal("S9", sorted(pair["edit"] for pair in pairs), expected, "edits", limit=limit, **call)


@clause("S9", "S10")
def test_a_limited_evaluation_is_a_random_part_of_each_language(implementation: Implementation) -> None:
    """12,000 edits over 300 seeds: within a language every fact is drawn equally often, the last as the first."""
    counts: Counter[str] = Counter()
    for seed in range(300):
        pairs = implementation.evaluation_pairs(CORPUS, LANGUAGES, LANGUAGES, 1, 1, seed=seed, limit=40)
        counts.update(pair["edit"] for pair in pairs)
    sizes = Counter(LANGUAGE.values())
    expected = {name: 300 * 10 / sizes[language] for name, language in LANGUAGE.items()}
    distributed("S9", counts, expected, "edits of limited evaluations")


@golden.cases("evaluation_pairs")
def test_golden_evaluations(implementation: Implementation, case: golden.Case) -> None:
    """The committed edits, and where their inputs may come from."""
    golden.check(implementation, case)
