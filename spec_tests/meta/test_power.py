"""What the statistical tests can see: the biases that SPEC.md states under S10, found with a probability of 0.99.

The suite's own tests are run, with what they compare recorded or with samples that are biased. For the probability,
thousands of counts are drawn under the biased law and put to the suite's own assertion, against its own expectation.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from .. import (
    test_a_joint as gates,
    test_a_masks as masks,
    test_d_data as data,
    test_d_joint as joint_pairs,
    test_s_joint as joint,
    test_s_sampling as sampling,
)
from ..adapters import numpy_core
from ..assertions import chi_square, distributed
from ..conformance import HERE, Implementation
from ..contract import IdTriple, Pair

ENOUGH, SAMPLES = 0.99, 1000
FAIR = Implementation(numpy_core, "numpy_core")
Counts = dict[Any, int]
Weight = Callable[[str], float]


# --- laws ------------------------------------------------------------------------------------------------------------


def favouring(language: str, factor: float) -> Weight:
    """Examples in one language are drawn `factor` times as often as others."""
    return lambda name: factor if sampling.LANGUAGE[name] == language else 1.0


def shares(weights: Sequence[float]) -> np.ndarray:
    return np.asarray(weights) / np.sum(weights)


def counts_of(law: Mapping[Any, float], draws: int, samples: int, rng: np.random.Generator) -> Iterator[Counts]:
    """Counts of independent draws."""
    for row in rng.multinomial(draws, shares(list(law.values())), size=samples):
        yield dict(zip(law, map(int, row), strict=True))


def choices(
    edits: Counter[str], candidates: Mapping[str, set[str]], language: str, weight: Weight, samples: int, rng: Any
) -> Iterator[Counts]:
    """How often these edits draw the language and another one, where both are possible; each draws from its own."""
    drawn, total = np.zeros(samples, int), 0
    for edit, times in sorted(edits.items()):
        mine = [weight(name) for name in candidates[edit] if sampling.LANGUAGE[name] == language]
        others = [weight(name) for name in candidates[edit] if sampling.LANGUAGE[name] != language]
        if mine and others:
            drawn += rng.binomial(times, sum(mine) / sum(mine + others), size=samples)
            total += times
    for count in drawn:
        yield {True: int(count), False: int(total - count)}


# --- what a test compares --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """One comparison of a test: what is counted, and how often each is expected."""

    clause: str
    what: str
    expected: Mapping[Any, float]

    @property
    def draws(self) -> int:
        return round(sum(self.expected.values()))

    def rejects(self, counts: Mapping[Any, int]) -> bool:
        try:
            distributed(self.clause, counts, self.expected, self.what)
        except AssertionError:
            return True
        return False


@contextmanager
def recorded(module: ModuleType) -> Iterator[dict[str, View]]:
    """The comparisons that tests of a module make meanwhile, by what they say; none of them fails."""
    found: dict[str, View] = {}

    def note(clause: str, counts: Mapping[Any, int], expected: Mapping[Any, float], what: str, **_: Any) -> None:
        found[what] = View(clause, what, dict(expected))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "distributed", note)
        yield found


def compared(module: ModuleType, test: Callable[..., None], *arguments: Any) -> dict[str, View]:
    with recorded(module) as found:
        test(*arguments)
    return found


def one_of(views: Mapping[str, View], words: str) -> View:
    """The comparison whose description has these words."""
    (view,) = (view for what, view in views.items() if words in what)
    return view


def power(view: View, samples: Iterator[Counts]) -> float:
    """The share of the samples that a comparison rejects."""
    return float(np.mean([view.rejects(counts) for counts in samples]))


# --- samplers --------------------------------------------------------------------------------------------------------


def drawn(weight: Weight, candidates: Mapping[str, set[str]], edits: Sequence[str], rng: Any) -> list[str]:
    """One candidate for each edit, by weight."""
    places: dict[str, list[int]] = {}
    for place, edit in enumerate(edits):
        places.setdefault(edit, []).append(place)
    found = [""] * len(edits)
    for edit, mine in places.items():
        names = sorted(candidates[edit])
        law = shares([weight(name) for name in names])
        for place, chosen in zip(mine, rng.choice(len(names), size=len(mine), p=law), strict=True):
            found[place] = names[chosen]
    return found


def even(_: str) -> float:
    return 1.0


@functools.lru_cache(maxsize=2)
def pairs(seed: int, update: Weight = even, retain: Weight = even, leaks: float = 0.0) -> list[Pair]:
    """What `many_pairs` holds, from a sampler with these weights and this share of leaks."""
    rng = np.random.default_rng(seed)
    edits = sorted(sampling.LANGUAGE) * len(sampling.SEEDS)
    updates, retains = drawn(update, sampling.INSIDE, edits, rng), drawn(retain, sampling.OUTSIDE, edits, rng)
    parallels = drawn(even, sampling.INSIDE, edits, rng)
    leaked = rng.random(len(edits)) < leaks
    return [
        {"edit": edit, "update": [u], "retain": [p if out else r]}
        for edit, u, r, p, out in zip(edits, updates, retains, parallels, leaked, strict=True)
    ]


@functools.lru_cache(maxsize=2)
def triples(
    seed: int, edit: Weight = even, update: Weight = even, retain: Weight = even, leaks: float = 0.0
) -> list[IdTriple]:
    """What `many_triples` holds, from a sampler with these weights and this share of leaks."""
    rng = np.random.default_rng(seed)
    names = sorted(sampling.LANGUAGE)
    edits = [str(name) for name in rng.choice(names, size=sampling.STEPS, p=shares([edit(name) for name in names]))]
    updates, retains = drawn(update, sampling.INSIDE, edits, rng), drawn(retain, sampling.OUTSIDE, edits, rng)
    parallels = drawn(even, sampling.INSIDE, edits, rng)
    leaked = rng.random(len(edits)) < leaks
    return [
        {"edit": e, "update": u, "retain": p if out else r}
        for e, u, r, p, out in zip(edits, updates, retains, parallels, leaked, strict=True)
    ]


# --- what SPEC.md states ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stated:
    """A row of S10's table: the clause, what is drawn and how often, and the bias."""

    clause: str
    what: str
    draws: int
    bias: str


def stated() -> list[Stated]:
    lines = (HERE / "SPEC.md").read_text(encoding="utf-8").split("**S10**")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [Stated(clause, what, int(draws.replace(",", "")), bias) for clause, what, draws, bias in cells[1:]]


CHECKS: dict[tuple[str, str, str], Callable[[Stated], float]] = {}


def shows(clause: str, what: str, bias: str) -> Callable[[Callable[[Stated], float]], Callable[[Stated], float]]:
    """The function gives the smallest probability with which the tests of a clause find a stated bias."""

    def register(check: Callable[[Stated], float]) -> Callable[[Stated], float]:
        CHECKS[clause, what, bias] = check
        return check

    return register


def test_the_table_states_what_is_shown_here() -> None:
    """Row by row, and nothing else."""
    assert [(row.clause, row.what, row.bias) for row in stated()] == list(CHECKS)


@pytest.mark.parametrize("row", stated(), ids=lambda row: f"{row.clause}: {row.what}")
def test_the_stated_bias_is_found(row: Stated) -> None:
    """With a probability of 0.99 at least; each check compares the number of draws with the stated one."""
    assert CHECKS[row.clause, row.what, row.bias](row) >= ENOUGH


TENTH = "a language a tenth more or less often"
POSSIBLE = f"{TENTH}, where another is possible"
LEAK = "one parallel in 200"
FACTORS = (0.9, 1.1)


def of_inputs(row: Stated, views: Mapping[str, View], edits: Counter[str], candidates: Mapping[str, set[str]]) -> float:
    """Over all languages and both directions: the least power of the view of one language."""
    assert edits.total() == row.draws
    rng, least = np.random.default_rng(1), 1.0
    for language in sampling.LANGUAGES:
        view = one_of(views, f": {language}, where another language is possible")
        for factor in FACTORS:
            found = choices(edits, candidates, language, favouring(language, factor), SAMPLES, rng)
            least = min(least, power(view, found))
    return least


@shows("S2", "update inputs of evaluations", POSSIBLE)
def _(row: Stated) -> float:
    fair = pairs(0)
    views = compared(sampling, sampling.test_update_inputs_are_uniform, fair)
    return of_inputs(row, views, Counter(pair["edit"] for pair in fair), sampling.INSIDE)


@shows("S3", "retain inputs of evaluations", TENTH)
def _(row: Stated) -> float:
    fair = pairs(0)
    views = compared(sampling, sampling.test_retain_inputs_are_uniform, fair)
    return of_inputs(row, views, Counter(pair["edit"] for pair in fair), sampling.OUTSIDE)


@shows("S3", "retain inputs of evaluations and of a training", LEAK)
def _(row: Stated) -> float:
    assert len(pairs(0)) + len(triples(0)) == row.draws
    return 1 - (1 - 1 / 200) ** row.draws


@shows("S6", "edit inputs of a training", TENTH)
def _(row: Stated) -> float:
    views = compared(sampling, sampling.test_training_draws_uniformly, triples(0))
    view, rng, least = one_of(views, "the languages of the edits"), np.random.default_rng(2), 1.0
    assert view.draws == row.draws
    for language in sampling.LANGUAGES:
        for factor in FACTORS:
            law = {said: (factor if said == language else 1) * share for said, share in view.expected.items()}
            least = min(least, power(view, counts_of(law, row.draws, SAMPLES, rng)))
    return least


@shows("S6", "update inputs of a training", POSSIBLE)
def _(row: Stated) -> float:
    return of_training(row, "update", sampling.INSIDE)


@shows("S6", "retain inputs of a training", TENTH)
def _(row: Stated) -> float:
    return of_training(row, "retain", sampling.OUTSIDE)


def of_training(row: Stated, role: str, candidates: dict[str, set[str]]) -> float:
    fair = triples(0)
    chosen = [(triple["edit"], triple[role]) for triple in fair]  # type: ignore[literal-required]
    views = compared(sampling, sampling.drawn_uniformly, "S6", chosen, candidates)
    return of_inputs(row, views, Counter(triple["edit"] for triple in fair), candidates)


@shows("S6", "languages of successive steps", "the language of the step before in one step of 30")
def _(row: Stated) -> float:
    (view,) = compared(sampling, sampling.test_each_step_draws_its_languages_afresh, triples(0), "edit").values()
    assert view.draws == row.draws
    share = {said: count / len(sampling.CORPUS) for said, count in Counter(sampling.LANGUAGE.values()).items()}
    law = {(a, b): share[a] * (29 / 30 * share[b] + (a == b) / 30) for a, b in view.expected}
    return power(view, counts_of(law, row.draws, SAMPLES, np.random.default_rng(3)))


@shows("S9", "edits of limited evaluations", "the first half of each language half as often again as the second")
def _(row: Stated) -> float:
    (view,) = compared(sampling, sampling.test_a_limited_evaluation_is_a_random_part_of_each_language, FAIR).values()
    assert view.draws == row.draws
    rng, samples = np.random.default_rng(4), []
    names = {said: [n for n in sampling.LANGUAGE if sampling.LANGUAGE[n] == said] for said in sampling.LANGUAGES}
    for _ in range(100):
        found: Counter[str] = Counter()
        for mine in names.values():
            weights = shares([1.5 if place < len(mine) / 2 else 1 for place in range(len(mine))])
            # Ten of a language without replacement: the highest of weighted exponential races, 300 evaluations at once.
            keys = rng.exponential(size=(300, len(mine))) / weights
            found.update(mine[place] for place in np.argpartition(keys, 10, axis=1)[:, :10].ravel())
        samples.append(dict(found))
    return power(view, iter(samples))


@shows("A3", "gates of one edit, which A4 counts too", "log α too high or too low by 0.07")
def _(row: Stated) -> float:
    rng, least = np.random.default_rng(5), 1.0
    edges = [float(edge) for edge in np.linspace(0, 1, 10)]
    for log_alpha in (-2.0, 0.0, 1.5):
        test = masks.test_sampled_gates_have_the_hard_concrete_distribution
        (view,) = compared(masks, test, FAIR, log_alpha).values()
        assert view.draws == row.draws
        for shift in (-0.07, 0.07):
            below = [masks._below(edge, log_alpha + shift) for edge in edges]
            law = dict(enumerate([below[0], *np.diff(below), 1 - below[-1]]))
            least = min(least, power(view, counts_of(law, row.draws, SAMPLES, rng)))
    return least


def of_one(view: View, row: Stated, factors: Sequence[float], biased: Sequence[Any] = ()) -> float:
    """Over all kinds (or some of them) and factors: the least power where one kind is drawn `factor` times as often."""
    assert view.draws == row.draws
    rng, least = np.random.default_rng(6), 1.0
    for one in biased or view.expected:
        for factor in factors:
            law = {kind: (factor if kind == one else 1) * share for kind, share in view.expected.items()}
            least = min(least, power(view, counts_of(law, row.draws, SAMPLES, rng)))
    return least


@functools.cache
def fact_edits() -> Any:
    return data.inputs(FAIR, data.EDIT, "de", data.RETAIN, data.SEEDS)


@shows("D4", "desired labels of a fact", "an entity 30% more or less often")
def _(row: Stated) -> float:
    (view,) = compared(data, data.test_desired_labels_are_uniform_over_the_entities, FAIR, fact_edits()).values()
    return of_one(view, row, (0.7, 1.3))


@shows("D5", "numbers of retained [MASK]", "names of one token a quarter more or less often")
def _(row: Stated) -> float:
    (view,) = compared(data, data.test_retain_masks_follow_the_lengths_of_entity_names, fact_edits()).values()
    return of_one(view, row, (0.75, 1.25), [1])


@functools.cache
def pair_views() -> dict[str, View]:
    """What the two tests compare that draw many pairs of sentences."""
    retained = compared(data, data.test_pairs_are_retained_from_the_whole_test_set, FAIR)
    return {**retained, **compared(data, data.test_training_desires_any_class, FAIR)}


@shows("D7", "retained pairs", TENTH)
def _(row: Stated) -> float:
    return of_one(one_of(pair_views(), "languages are not retained as often as each other"), row, FACTORS)


@shows("D7", "edited pairs of a training", TENTH)
def _(row: Stated) -> float:
    return of_one(one_of(pair_views(), "languages are not edited evenly in training"), row, FACTORS)


@shows("D7", "retained pairs of a training", LEAK)
def _(row: Stated) -> float:
    assert row.draws == data.TRAINED
    return 1 - (1 - 1 / 200) ** row.draws


@shows("D7", "desired classes of a training", "a class a tenth more or less often")
def _(row: Stated) -> float:
    return of_one(one_of(pair_views(), "desired classes of a training are not uniform"), row, FACTORS)


# Joint draws


@functools.cache
def english() -> list[list[Pair]]:
    """What `test_s_joint` asks of evaluations from English, from a fair sampler with replacement."""
    rng = np.random.default_rng(7)
    edits = joint.ENGLISH * len(joint.SEEDS)
    roles = [drawn(even, candidates, edits, rng) for candidates in (sampling.INSIDE,) * 2 + (sampling.OUTSIDE,) * 3]
    rows = [{"edit": e, "update": [u, v], "retain": [a, b, c]} for e, u, v, a, b, c in zip(edits, *roles, strict=True)]
    size = len(joint.ENGLISH)
    return [rows[start : start + size] for start in range(0, len(rows), size)]  # type: ignore[misc]


@shows("S3", "retain inputs of English edits", TENTH)
def _(row: Stated) -> float:
    views = compared(sampling, joint.test_retain_inputs_of_english_edits_are_uniform, english())
    edits = Counter(pair["edit"] for pairs in english() for pair in pairs for _ in pair["retain"])
    return of_inputs(row, views, edits, sampling.OUTSIDE)


def follows(view: View, row: Stated, share: float) -> float:
    """The power where, in this share of draws, the second of two values is the first."""
    assert view.draws == row.draws
    firsts: Counter[Any] = Counter()
    for (a, _), value in view.expected.items():
        firsts[a] += value  # type: ignore[assignment]
    law = {(a, b): (1 - share) * value + share * firsts[a] * (a == b) for (a, b), value in view.expected.items()}
    return power(view, counts_of(law, row.draws, SAMPLES, np.random.default_rng(8)))


LANGUAGES_OF_BOTH = "languages of x_u and x_r"


@shows(
    "S3",
    "update and retain input of an English edit",
    "the retain input in the language of the update input in one edit of 20",
)
def _(row: Stated) -> float:
    (view,) = compared(
        joint, joint.test_update_and_retain_inputs_are_drawn_apart, english(), LANGUAGES_OF_BOTH
    ).values()
    return follows(view, row, 1 / 20)


@shows(
    "S6",
    "update and retain input of a training step",
    "the retain input in the language of the update input in one step of 20",
)
def _(row: Stated) -> float:
    test = joint.test_inputs_of_a_training_step_are_drawn_apart
    (view,) = compared(joint, test, triples(0)[: joint.STEPS], LANGUAGES_OF_BOTH).values()
    return follows(view, row, 1 / 20)


def in_one(view: View, shares_: Mapping[str, float], draws: int, share: float) -> float:
    """The power where, in this share of edits, all three inputs are in one language."""
    total = sum(view.expected.values())
    law = {kinds: (1 - share) * value / total for kinds, value in view.expected.items()}
    for language, weight in shares_.items():
        law[(language,) * 3] += share * weight
    return power(view, counts_of(law, draws, SAMPLES, np.random.default_rng(9)))


@shows("S3", "three retain inputs of an English edit", "all three in one language in one edit of 50")
def _(row: Stated) -> float:
    (view,) = compared(joint, joint.test_retain_inputs_of_an_edit_mix_the_languages, english()).values()
    # Edits whose inputs are not three different ones are left out.
    assert 0.97 * row.draws <= view.draws <= row.draws
    said = Counter(sampling.LANGUAGE.values())
    return in_one(view, {language: n / said.total() for language, n in said.items()}, view.draws, 1 / 50)


def compared_gates(pattern: torch.Tensor) -> View:
    with recorded(gates) as found:
        gates.independent([(pattern, pattern.roll(1))], "gates")
    (view,) = found.values()
    return view


@shows("A3", "gates of two edits of a batch", "one gate in four shared")
def _(row: Stated) -> float:
    rng = np.random.default_rng(10)
    view = compared_gates(torch.from_numpy(rng.random(row.draws) < gates.BETWEEN))
    assert row.draws == 2 * len(gates.SEEDS) * 4 * (16 + 16)
    p = gates.BETWEEN
    law = {
        (a, b): 0.75 * (p if a else 1 - p) * (p if b else 1 - p) + 0.25 * (a == b) * (p if a else 1 - p)
        for a in (False, True)
        for b in (False, True)
    }
    return power(view, counts_of(law, row.draws, SAMPLES, rng))


@shows("A3", "gates of one edit that pass a gradient", "a gate for each of two tokens")
def _(row: Stated) -> float:
    assert row.draws == len(gates.SEEDS) * 4 * (16 + 16)
    expected = {True: row.draws * gates.BETWEEN, False: row.draws * (1 - gates.BETWEEN)}
    view, both = View("A3", row.what, expected), 1 - (1 - gates.BETWEEN) ** 2
    return power(view, counts_of({True: both, False: 1 - both}, row.draws, SAMPLES, np.random.default_rng(11)))


@functools.cache
def joint_views() -> dict[str, View]:
    """What the tests of pairs compare that are drawn together."""
    trained = numpy_core.pair_training(data.PAIRS, data.tokenize_pair, joint_pairs.TRAINED, 6)
    apart = compared(joint_pairs, joint_pairs.test_what_a_training_edit_draws_is_drawn_apart, trained)
    return {**apart, **compared(joint_pairs, joint_pairs.test_retained_pairs_of_an_edit_mix_languages_and_rows, FAIR)}


@shows(
    "D7",
    "language and desired class of a training edit",
    "the class decided by the language in one edit of 12",
)
def _(row: Stated) -> float:
    view = joint_views()["language and desired class"]
    kinds = [sorted({key[place] for key in view.expected}) for place in (0, 1)]
    renamed = {(a, kinds[0].index(a)): n for a, n in zip(kinds[0], range(3), strict=True)}
    assert view.draws == row.draws
    firsts: Counter[Any] = Counter()
    for (a, _), value in view.expected.items():
        firsts[a] += value  # type: ignore[assignment]
    decided = {a: kinds[1][place] for (a, place) in renamed}
    share = 1 / 12
    law = {
        (a, b): (1 - share) * value + share * firsts[a] * (decided[a] == b) for (a, b), value in view.expected.items()
    }
    return power(view, counts_of(law, row.draws, SAMPLES, np.random.default_rng(12)))


@shows("D7", "three retained pairs of an edit", "all three in one language in one edit of 15")
def _(row: Stated) -> float:
    view = joint_views()["languages of an edit's three retain inputs"]
    assert view.draws == row.draws
    return in_one(view, dict.fromkeys(data.PREDICTED, 1 / 3), row.draws, 1 / 15)


# --- the tests themselves, on biased samples -------------------------------------------------------------------------


@pytest.mark.parametrize("language", sampling.LANGUAGES)
def test_biased_evaluations_are_rejected(language: str) -> None:
    """The tests fail for a language a tenth too frequent among update or retain inputs, and pass for fair ones."""
    biased = favouring(language, 1.1)
    with pytest.raises(AssertionError, match="chi-square"):
        sampling.test_update_inputs_are_uniform(pairs(1, update=biased))
    with pytest.raises(AssertionError, match="chi-square"):
        sampling.test_retain_inputs_are_uniform(pairs(1, retain=biased))


@pytest.mark.parametrize("role", ["edit", "update", "retain"])
def test_biased_trainings_are_rejected(role: str) -> None:
    """The test fails for each role's own bias towards a language."""
    with pytest.raises(AssertionError, match="chi-square"):
        sampling.test_training_draws_uniformly(triples(1, **{role: favouring("de", 1.1)}))


def test_fair_samples_pass() -> None:
    """What rejects a biased sample accepts an even one."""
    fair, training = pairs(1), triples(1)
    sampling.test_update_inputs_are_uniform(fair)
    sampling.test_retain_inputs_are_uniform(fair)
    sampling.test_no_parallel_is_ever_retained(fair, training)
    sampling.test_training_draws_uniformly(training)


@pytest.mark.parametrize("seed", range(3))
def test_one_leak_in_200_is_rejected(seed: int) -> None:
    """In evaluations, in trainings, and with pairs of sentences."""
    with pytest.raises(AssertionError, match="leaks = "):
        sampling.test_no_parallel_is_ever_retained(pairs(seed, leaks=1 / 200), triples(0))
    with pytest.raises(AssertionError, match="leaks = "):
        sampling.test_no_parallel_is_ever_retained(pairs(0), triples(seed, leaks=1 / 200))
    with pytest.raises(AssertionError, match="a parallel pair is drawn as unrelated"):
        data.test_training_desires_any_class(leaking(seed))
    with pytest.raises(AssertionError, match="a parallel pair is drawn as unrelated"):
        data.test_pairs_are_retained_from_the_whole_test_set(leaking(seed))


def leaking(seed: int) -> Any:
    """numpy_core, which retains the edited pair itself once in 200 draws."""
    rng = np.random.default_rng(seed)

    def leaky(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            edits = function(*arguments)
            for edit in edits:
                edit["retain"] = [
                    (edit["row"], said) if rng.random() < 1 / 200 else (row, said) for row, said in edit["retain"]
                ]
            return edits

        return call

    return SimpleNamespace(pair_edits=leaky(numpy_core.pair_edits), pair_training=leaky(numpy_core.pair_training))


def test_what_cannot_come_is_never_accepted() -> None:
    """One stray count is enough."""
    assert chi_square({"a": 10, "b": 10, "xx": 1}, {"a": 10, "b": 10}) == math.inf
