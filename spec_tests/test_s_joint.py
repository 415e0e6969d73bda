"""Chapter S, joint draws: what is drawn together, and an evaluation whose editing languages are not all.

Single draws are the matter of `test_s_sampling`. Here two inputs of one edit, or of neighbouring edits, tell nothing of
each other, and English edits are drawn for as evenly as those of all languages.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from . import oracles, strategies as given_
from .assertions import distributed, equal, holds
from .conformance import Implementation, clause
from .contract import Example, IdTriple, Pair
from .test_s_sampling import CORPUS, FACT, INSIDE, LANGUAGE, LANGUAGES, OUTSIDE, ROLES, drawn_uniformly

ENGLISH = sorted(name for name, said in LANGUAGE.items() if said == "en")
SEEDS, STEPS = range(200), 20_000
#: Facts by number, in four parts of which each is told about as often.
PART = {name: int(fact[1:]) // 25 for name, fact in FACT.items()}


@pytest.fixture(scope="module")
def english(implementation: Implementation) -> list[list[Pair]]:
    """Evaluations from English to all languages, with two update and three retain inputs for each edit."""
    return [implementation.evaluation_pairs(CORPUS, ["en"], LANGUAGES, 2, 3, seed=seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def training(implementation: Implementation) -> list[IdTriple]:
    """A training on all languages."""
    return implementation.training_triples(CORPUS, LANGUAGES, STEPS, seed=6)


def one_of(names: Sequence[str], *place: object) -> str:
    """One input of several, chosen by the suite: their order within an edit is free, and need not be that of draws."""
    return random.Random(repr(place)).choice(list(names))


# --- editing languages other than updating languages ------------------------------------------------------------------


@clause("S2", "S10")
def test_update_inputs_of_english_edits_are_uniform(english: list[list[Pair]]) -> None:
    """Two x_u for each of 20,000 English edits: every member of I(x_e) alike, the English one too."""
    drawn = [(pair["edit"], name) for pairs in english for pair in pairs for name in pair["update"]]
    equal("S2", {LANGUAGE[edit] for edit, _ in drawn}, {"en"}, "editing languages")
    several = [(edit, name) for edit, name in drawn if len(INSIDE[edit]) > 1]
    drawn_uniformly("S2", several, INSIDE)


@clause("S3", "S10")
def test_retain_inputs_of_english_edits_are_uniform(english: list[list[Pair]]) -> None:
    """60,000 x_r of English edits: by language in proportion to its examples, and every fact that any of them tells."""
    drawn = [(pair["edit"], name) for pairs in english for pair in pairs for name in pair["retain"]]
    drawn_uniformly("S3", drawn, OUTSIDE)


@clause("S2", "S3", "S10")
def test_edits_outside_the_updating_languages_draw_evenly(implementation: Implementation) -> None:
    """Swahili edits, updated and retained in English and German: both inputs are uniform there."""
    updating = ["de", "en"]
    inside = {name: {n for n in INSIDE[name] if LANGUAGE[n] in updating} for name in LANGUAGE}
    outside = {name: {n for n in OUTSIDE[name] if LANGUAGE[n] in updating} for name in LANGUAGE}
    pairs = [
        pair
        for seed in range(200)
        for pair in implementation.evaluation_pairs(CORPUS, ["sw"], updating, 1, 1, seed=seed)
    ]
    for clause_id, role, candidates in (("S2", "update", inside), ("S3", "retain", outside)):
        drawn = [(pair["edit"], name) for pair in pairs for name in pair[role]]  # type: ignore[literal-required]
        # By language, and by whether Swahili tells the fact, too.
        told = {FACT[name] for name, said in LANGUAGE.items() if said == "sw"}
        expected: Counter[Any] = Counter()
        for edit, times in Counter(edit for edit, _ in drawn).items():
            for name in candidates[edit]:
                expected[LANGUAGE[name], FACT[name] in told] += times / len(candidates[edit])  # type: ignore[assignment]
        found = Counter((LANGUAGE[name], FACT[name] in told) for _, name in drawn)
        distributed(clause_id, found, expected, f"languages of {role} inputs of Swahili edits")
        stray = [pair for pair in drawn if pair[1] not in candidates[pair[0]]]
        equal(clause_id, stray[:3], [], f"{role} inputs from elsewhere")


# --- x_u and x_r ------------------------------------------------------------------------------------------------------


def apart(
    clause_id: str, drawn: Iterable[tuple[str, str, str]], bins: dict[str, Callable[[str], Any]], what: str
) -> None:
    """Of (edit, x_u, x_r), the x_u tells nothing about the x_r beyond what the edit does."""
    rows = list(drawn)
    edits = Counter(edit for edit, _, _ in rows)
    of_update, of_retain = bins["update"], bins["retain"]
    expected: Counter[Any] = Counter()
    for edit, times in edits.items():
        first, second = Counter(map(of_update, INSIDE[edit])), Counter(map(of_retain, OUTSIDE[edit]))
        for (a, x), (b, y) in itertools.product(first.items(), second.items()):
            expected[a, b] += times * x * y / (first.total() * second.total())  # type: ignore[assignment]
    distributed(clause_id, Counter((of_update(u), of_retain(r)) for _, u, r in rows), expected, what)


BINS: dict[str, dict[str, Callable[[str], Any]]] = {
    "languages of x_u and x_r": {"update": lambda name: LANGUAGE[name], "retain": lambda name: LANGUAGE[name]},
    "language of x_u and part of the corpus of x_r": {
        "update": lambda name: LANGUAGE[name],
        "retain": lambda name: PART[name],
    },
}


@clause("S3", "S10")
@pytest.mark.parametrize("what", BINS)
def test_update_and_retain_inputs_are_drawn_apart(english: list[list[Pair]], what: str) -> None:
    """One of each for 20,000 English edits: neither language nor fact of x_r follow x_u."""
    drawn = [
        (p["edit"], one_of(p["update"], seed, p["edit"], "u"), one_of(p["retain"], seed, p["edit"], "r"))
        for seed, pairs in enumerate(english)
        for p in pairs
    ]
    apart("S3", drawn, BINS[what], what)


@clause("S6", "S10")
@pytest.mark.parametrize("what", BINS)
def test_inputs_of_a_training_step_are_drawn_apart(training: list[IdTriple], what: str) -> None:
    """20,000 steps: neither language nor fact of x_r follow x_u."""
    apart("S6", [(t["edit"], t["update"], t["retain"]) for t in training], BINS[what], what)


# --- several inputs of one edit ---------------------------------------------------------------------------------------


@cache
def mixtures(sizes: tuple[tuple[str, int], ...], count: int) -> dict[tuple[str, ...], float]:
    """How likely each mixture of kinds is among `count` different examples, of so many of each kind."""
    total = math.comb(sum(size for _, size in sizes), count)
    found = {}
    for kinds in itertools.combinations_with_replacement([kind for kind, _ in sizes], count):
        ways = math.prod(math.comb(dict(sizes)[kind], times) for kind, times in Counter(kinds).items())
        found[kinds] = ways / total
    return found


def mixed(
    clause_id: str, groups: Sequence[tuple[str, list[str]]], candidates: dict[str, set[str]], count: int, what: str
) -> None:
    """The languages of an edit's `count` different inputs are those of any `count` of its candidates."""
    kept = [(edit, names) for edit, names in groups if len(set(names)) == count and len(candidates[edit]) >= count]
    several = f"edits with {count} different inputs"
    holds(clause_id, len(kept) > 1000, several, expected=f"more than 1,000 of {len(groups):,}", got=len(kept))
    expected: Counter[Any] = Counter()
    for edit, times in Counter(edit for edit, _ in kept).items():
        sizes = tuple(sorted(Counter(LANGUAGE[name] for name in candidates[edit]).items()))
        expected.update({kinds: times * share for kinds, share in mixtures(sizes, count).items()})  # type: ignore[arg-type]
    expected = Counter({kinds: value for kinds, value in expected.items() if value})
    found = Counter(tuple(sorted(LANGUAGE[name] for name in names)) for _, names in kept)
    distributed(clause_id, found, expected, what)


@clause("S3", "S10")
def test_retain_inputs_of_an_edit_mix_the_languages(english: list[list[Pair]]) -> None:
    """Three x_r for each of 20,000 edits: their languages are those of three examples, each drawn for itself."""
    groups = [(pair["edit"], pair["retain"]) for pairs in english for pair in pairs]
    mixed("S3", groups, OUTSIDE, 3, "languages of an edit's three retain inputs")


@clause("S2", "S10")
def test_update_inputs_of_an_edit_mix_the_languages(english: list[list[Pair]]) -> None:
    """Two different x_u of an edit: any two members of I(x_e)."""
    groups = [(pair["edit"], pair["update"]) for pairs in english for pair in pairs]
    mixed("S2", groups, INSIDE, 2, "languages of an edit's two update inputs")


@clause("S3", "S10")
def test_retain_inputs_of_an_edit_are_different_facts(english: list[list[Pair]]) -> None:
    """How often two of three different x_r are one fact in two languages is a matter of chance."""
    rows = [(p["edit"], p["retain"]) for pairs in english for p in pairs if len(set(p["retain"])) == 3]
    alone = 0.0
    for edit, times in Counter(edit for edit, _ in rows).items():
        total = len(OUTSIDE[edit])
        sizes = Counter(Counter(FACT[name] for name in OUTSIDE[edit]).values())
        # Ways to choose three examples of three facts: the third elementary symmetric polynomial of the sizes.
        power = [sum(count * size**k for size, count in sizes.items()) for k in (1, 2, 3)]
        ways = (power[0] ** 3 - 3 * power[0] * power[1] + 2 * power[2]) / 6
        alone += times * ways / math.comb(total, 3)
    found = Counter(len({FACT[name] for name in names}) == 3 for _, names in rows)
    distributed("S3", found, {True: alone, False: len(rows) - alone}, "edits whose retain inputs are of three facts")


@clause("S2", "S3", "S10")
@pytest.mark.parametrize(("clause_id", "role"), [("S2", "update"), ("S3", "retain")])
def test_neighbouring_edits_draw_apart(english: list[list[Pair]], clause_id: str, role: str) -> None:
    """Within an evaluation, what one edit drew tells nothing about what the next one draws."""
    expected: Counter[Any] = Counter()
    found: Counter[Any] = Counter()
    candidates = INSIDE if role == "update" else OUTSIDE
    shares = {}
    for edit in ENGLISH:
        counts = Counter((LANGUAGE[name], PART[name] if role == "retain" else 0) for name in candidates[edit])
        shares[edit] = {key: value / counts.total() for key, value in counts.items()}
    for seed, pairs in enumerate(english):
        told = {pair["edit"]: one_of(pair[role], seed, pair["edit"]) for pair in pairs}  # type: ignore[literal-required]
        # Every second pair of neighbours: no edit is in two of them.
        for one, other in zip(ENGLISH[::2], ENGLISH[1::2], strict=True):
            first, second = (
                (LANGUAGE[name], PART[name] if role == "retain" else 0) for name in (told[one], told[other])
            )
            found[first, second] += 1
    for one, other in zip(ENGLISH[::2], ENGLISH[1::2], strict=True):
        for (a, x), (b, y) in itertools.product(shares[one].items(), shares[other].items()):
            expected[a, b] += len(english) * x * y  # type: ignore[assignment]
    distributed(clause_id, found, expected, f"{role} inputs of neighbouring edits")


@clause("S6", "S10")
def test_a_training_comes_back_to_an_example_by_chance(training: list[IdTriple]) -> None:
    """x_e of a step is that of the step before, or of the corpus's size before, no more often than chance has it."""
    size = len(CORPUS)
    for distance in (1, 2, size):
        again = sum(a["edit"] == b["edit"] for a, b in zip(training, training[distance:], strict=False))
        steps = len(training) - distance
        counts, expected = {True: again, False: steps - again}, {True: steps / size, False: steps * (1 - 1 / size)}
        distributed("S6", counts, expected, f"x_e of a step and of the {distance} before")


#: Steps that lie so far apart: within a batch, and between batches.
DISTANCES = range(1, 13)


@clause("S6", "S10")
def test_no_step_takes_its_inputs_from_another(training: list[IdTriple]) -> None:
    """One role of a step and one of a step up to twelve later have one example no more often than chance has it."""
    number = {name: place for place, name in enumerate(LANGUAGE)}
    drawn = {role: np.array([number[step[role]] for step in training]) for role in ROLES}  # type: ignore[literal-required]
    chance = {role: np.zeros(len(number)) for role in ROLES}
    for edit in LANGUAGE:
        for role, candidates in (("edit", {edit}), ("update", INSIDE[edit]), ("retain", OUTSIDE[edit])):
            chance[role][[number[name] for name in candidates]] += 1 / len(LANGUAGE) / len(candidates)
    found: Counter[Any] = Counter()
    expected: Counter[Any] = Counter()
    for one, other, distance in itertools.product(ROLES, ROLES, DISTANCES):
        same = drawn[one][:-distance] == drawn[other][distance:]
        often = len(same) * float(chance[one] @ chance[other])
        found[one, other, distance] = int(same.sum())
        expected[one, other, distance] = often  # type: ignore[assignment]
        found["none"] += int((~same).sum())
        expected["none"] += len(same) - often  # type: ignore[assignment]
    distributed("S6", found, expected, "role, role of a later step and distance of two that have one example")


# --- facts of one subject ---------------------------------------------------------------------------------------------


def subjects() -> list[Example]:
    """Four facts about each of ten subjects, named relation/subject, in two languages."""
    told = [f"P{relation}/Q{subject}" for relation in range(4) for subject in range(10)]
    return [given_.example(fact, said) for fact in told for said in ("en", "de")]


SUBJECTS = subjects()


def _kind(edit: str, other: str) -> str:
    (relation, subject), (another, who) = edit.split("/")[:2], other.split("/")[:2]
    return "its subject" if subject == who else "its relation" if relation == another else "neither"


@clause("T1", "S8")
def test_facts_about_one_subject_are_not_parallel(implementation: Implementation) -> None:
    """I(x) has the fact in each language, and no other fact about its subject or of its relation."""
    for e in SUBJECTS:
        got = sorted(implementation.parallel(SUBJECTS, e["id"]))
        equal("T1", got, sorted(oracles.parallel(SUBJECTS, e["id"])), f"I({e['id']})", corpus=SUBJECTS)


@clause("S3", "S10")
@pytest.mark.parametrize("how", ["evaluation", "training"])
def test_other_facts_about_the_subject_are_retained(implementation: Implementation, how: str) -> None:
    """What is unrelated is decided by the fact: others about its subject, or of its relation, come as often as any."""
    if how == "training":
        triples = implementation.training_triples(SUBJECTS, ["en", "de"], 10_000, seed=3)
        drawn = [(triple["edit"], triple["retain"]) for triple in triples]
    else:
        pairs = [
            pair
            for seed in range(130)
            for pair in implementation.evaluation_pairs(SUBJECTS, ["en", "de"], ["en", "de"], 1, 1, seed=seed)
        ]
        drawn = [(pair["edit"], name) for pair in pairs for name in pair["retain"]]
    share = len(drawn) / 78
    expected = {"its subject": 6 * share, "its relation": 18 * share, "neither": 54 * share}
    distributed("S3", Counter(_kind(*pair) for pair in drawn), expected, "unrelated facts by what they share")
    holds("S3", all(a.split("/")[:2] != b.split("/")[:2] for a, b in drawn), "x_r", expected="no parallel", got=how)
