"""Hypothesis strategies for what crosses the border. `meta/test_strategies.py` shows that they reach the hard cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from .border import Handed
from .contract import Array, Example, FactRow, Outcome

#: One code is a part of another, and one is what some readers of tables take for a missing number.
LANGUAGES = ("en", "de", "zh", "zh-cn", "nan")

rates = st.floats(0, 1, allow_subnormal=False)
seeds = st.integers(0, 2**31 - 1)


# Corpora


@st.composite
def corpora(draw: st.DrawFn, min_facts: int = 1, max_facts: int = 6, min_languages: int = 1) -> list[Example]:
    """Facts said in some languages each; facts are missing here and there, and order and ids mean nothing."""
    languages = draw(st.lists(st.sampled_from(LANGUAGES), min_size=min_languages, max_size=4, unique=True))
    facts = draw(st.integers(min_facts, max_facts))
    corpus = []
    for fact in range(facts):
        spoken = draw(st.sets(st.sampled_from(languages), min_size=1))
        corpus += [example(f"f{fact}", language) for language in sorted(spoken)]
    corpus = draw(st.permutations(corpus))
    if draw(st.booleans()):  # ids that say neither the fact nor the language
        corpus = [{**one, "id": f"{place}"} for place, one in enumerate(corpus)]
    return corpus


def example(fact: str, language: str) -> Example:
    return {"id": f"{fact}/{language}", "fact": fact, "language": language}


def languages_of(corpus: Sequence[Example]) -> list[str]:
    return sorted({e["language"] for e in corpus})


def some_languages(corpus: Sequence[Example]) -> st.SearchStrategy[list[str]]:
    """A non-empty choice among the corpus's languages, in any order."""
    return st.lists(st.sampled_from(languages_of(corpus)), min_size=1, unique=True)


@st.composite
def evaluations(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of evaluation_pairs. Two facts are known in every language, so that something unrelated exists."""
    corpus = draw(corpora())
    everywhere = [example(fact, language) for fact in ("all0", "all1") for language in languages_of(corpus)]
    corpus = draw(st.permutations([*corpus, *everywhere]))
    return {
        "corpus": corpus,
        "edit_languages": draw(some_languages(corpus)),
        "update_languages": draw(some_languages(corpus)),
        "n_update": draw(st.integers(1, 5)),
        "n_retain": draw(st.integers(1, 5)),
        "seed": draw(seeds),
    }


# Outcomes


@st.composite
def outcomes(draw: st.DrawFn, complete_inputs: bool = False) -> list[Outcome]:
    """Outcomes in which every editing language has both roles; sizes are unequal on purpose.

    With `complete_inputs` every editing language has both roles in every input language too, by its first edit: others
    lack some of them, as a fact is missing in some languages.
    """
    edit_languages = draw(st.lists(st.sampled_from(LANGUAGES), min_size=1, max_size=3, unique=True))
    input_languages = draw(st.lists(st.sampled_from(LANGUAGES), min_size=1, max_size=3, unique=True))
    rows: list[Outcome] = []
    for language in edit_languages:
        for number in range(draw(st.integers(1, 3))):
            for role in ("update", "retain"):
                must = input_languages if complete_inputs and not number else input_languages[:1]
                spoken = [*must, *draw(st.lists(st.sampled_from(input_languages), max_size=4))]
                if number and draw(st.booleans()):
                    spoken = []
                rows += [outcome(f"{language}-{number}", language, role, said, draw(st.booleans())) for said in spoken]
    return draw(st.permutations(rows))


def outcome(edit: str, edit_language: str, role: Any, language: str, hit: bool) -> Outcome:
    return {"edit": edit, "edit_language": edit_language, "role": role, "language": language, "hit": hit}


@st.composite
def padded_rows(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Predicted and expected ids of one padded row with at least one [MASK]; they often agree."""
    length = draw(st.integers(1, 8))
    is_mask = draw(st.lists(st.booleans(), min_size=length, max_size=length).filter(any))
    expected = draw(st.lists(st.integers(0, 3), min_size=length, max_size=length))
    wrong = draw(st.sets(st.integers(0, length - 1), max_size=2))
    predicted = [token + 1 if place in wrong else token for place, token in enumerate(expected)]
    return {"predicted": predicted, "expected": expected, "is_mask": is_mask}


# Masks

#: An implementation may hold log α within ±log 100, where every gate of test time is closed or open.
BOUND = math.log(100)
moderate = st.floats(-4.5, 4.5)
log_odds = st.one_of(moderate, st.sampled_from([-BOUND, 0.0, BOUND]))
#: Log odds that saturate a sigmoid, and the neighbourhood of 0.
extreme = st.sampled_from([-1e4, -800.0, -40.0, 0.0, 40.0, 800.0, 1e4])
any_log_odds = st.one_of(moderate, extreme)
#: Numbers whose products are there in float32, too.
entries = st.integers(-(10 << 12), 10 << 12).map(lambda number: number / (1 << 12))
#: Uniform draws, up to the ends of the open interval.
uniforms = st.one_of(st.floats(0.001, 0.999), st.sampled_from([1e-12, 1e-6, 0.5, 1 - 1e-6, 1 - 1e-12]))
betas = st.floats(0.2, 2)
gammas = st.floats(-0.5, -0.05)
zetas = st.floats(1.05, 1.5)
gates = st.one_of(st.floats(0, 1, allow_subnormal=False), st.sampled_from([0.0, 1.0]))


def arrays(shape: tuple[int, ...], elements: st.SearchStrategy[float]) -> st.SearchStrategy[Array]:
    """Arrays in the width in which they are handed out; in memory they lie row by row or column by column."""
    return st.builds(handed_out, npst.arrays(np.float64, shape, elements=elements), st.sampled_from("CF"))


def handed_out(array: Array, order: Literal["C", "F"]) -> Array:
    """In the width that is asked for. What is below 1 stays below it: uniform draws are."""
    out = Handed.out(array)
    below = np.where((array < 1) & (out >= 1), np.nextafter(np.ones((), out.dtype), 0, dtype=out.dtype), out)
    return np.asarray(below, order=order)


small_shapes = npst.array_shapes(min_dims=1, max_dims=2, max_side=5)


@st.composite
def matrices(draw: st.DrawFn) -> dict[str, tuple[int, int]]:
    """Edited matrices by name with (n, m), square ones among them."""
    sizes = st.integers(1, 6)
    names = draw(st.lists(st.sampled_from(["up.0", "down.0", "up.1", "down.1"]), min_size=1, unique=True))
    return {name: draw(st.one_of(st.tuples(sizes, sizes), sizes.map(lambda n: (n, n)))) for name in names}


@st.composite
def penalties(draw: st.DrawFn) -> dict[str, dict[str, Array]]:
    """{matrix: {"x": (L, n), "delta": (L, m)}}."""
    count = draw(st.integers(1, 3))
    return {
        name: {"x": draw(arrays((count, n), moderate)), "delta": draw(arrays((count, m), moderate))}
        for name, (n, m) in draw(matrices()).items()
    }


@st.composite
def masked_edits(draw: st.DrawFn, learned: bool, elements: st.SearchStrategy[float] = log_odds) -> dict[str, Any]:
    """Arguments of mask_factors: languages in any order, one of them editing, x (T, n), δ (T, m); n = m is frequent."""
    languages = draw(st.permutations(LANGUAGES))[: draw(st.integers(1, 4))]
    n = draw(st.integers(1, 5))
    m = draw(st.one_of(st.just(n), st.integers(1, 5)))
    tokens = draw(st.integers(1, 4))
    rows = {"x": (len(languages), n), "delta": (len(languages), m)}
    log_alpha = {side: draw(arrays(shape, elements)) for side, shape in rows.items()}
    if learned:
        log_alpha |= {f"{side}_scale": draw(arrays(shape, st.floats(-3, 3))) for side, shape in rows.items()}
    return {
        "log_alpha": log_alpha,
        "languages": languages,
        "language": draw(st.sampled_from(languages)),
        "x": draw(arrays((tokens, n), entries)),
        "delta": draw(arrays((tokens, m), entries)),
    }


# Facts


@st.composite
def fact_rows(draw: st.DrawFn) -> list[FactRow]:
    """Facts of some languages and relations in file order; subjects come back within and between them."""
    rows: list[FactRow] = []
    for language in draw(st.lists(st.sampled_from(LANGUAGES[:3]), min_size=1, unique=True)):
        for relation in draw(st.lists(st.sampled_from(["P17", "P36"]), min_size=1, unique=True)):
            subjects = draw(st.lists(st.integers(0, 30), min_size=1, max_size=20))
            # The place in the file is part of the object, so that no two rows are the same.
            rows += [fact_row(language, relation, s, 100 * (s % 3) + place) for place, s in enumerate(subjects)]
    return rows


def fact_row(language: str, relation: str, subject: int, object_: int, name: str | None = None) -> FactRow:
    """A fact whose labels tell their language; `name` is that of the object. An object of P17 may be a subject, too."""
    return {
        "language": language,
        "relation": relation,
        "sub_uri": f"Q{subject}",
        "obj_uri": f"Q{object_}" if relation == "P17" else f"{relation}Q{object_}",
        "sub_label": f"{language}subject{subject}",
        "obj_label": name or f"{language}{relation}object{object_}",
    }


# Sentences of facts

#: [Y] ends the sentence, begins it, and stands between words without a space beside it.
TEMPLATES = {"P17": "{} country of [X] is [Y] .", "P36": "[Y] {} capital of [X]", "P30": "{} [X] lies ([Y]) on earth"}


def template(language: str, relation: str) -> str:
    return TEMPLATES[relation].format(language)
