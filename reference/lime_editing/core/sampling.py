"""Samples the inputs of each edit, for training and evaluation (§3.2, §4.1). Pure functions of a corpus and a seed.

Every draw has a generator derived from (seed, purpose, index): the step of a training, or the edit of an evaluation. So
no draw depends on earlier draws, on Python's hash seed, or on how the corpus was read. A training resumes at any step
without stored random state (clause S7).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from .. import checks
from ..errors import DataError, UserError
from .corpus import Corpus, Example


@dataclass(frozen=True, slots=True)
class Pair:
    """One edit of an evaluation, with its update inputs and its retain inputs."""

    edit: Example
    update: tuple[Example, ...]
    retain: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class ExampleTriple:
    """x_e, x_u and x_r of one training example."""

    edit: Example
    update: Example
    retain: Example


def derived_rng(seed: int, *place: str | int) -> np.random.Generator:
    """The generator of a purpose and index, the same in every process. UserError: a seed that is no plain int."""
    checks.refuse(UserError, checks.of_seed(seed, *place))
    digest = hashlib.blake2b(repr((seed, *place)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def training_triples(corpus: Corpus, count: int, seed: int, step: int) -> list[ExampleTriple]:
    """The `count` triples of one training step, in all languages of `corpus` (clause S6).

    x_e is uniform over the corpus, x_u over I(x_e), x_r over the rest.
    """
    checks.refuse(UserError, checks.of_arguments(training_triples, locals()))
    checks.refuse(DataError, not corpus.examples and "the corpus has no examples to train on; give data that have some")
    rng = derived_rng(seed, "train", step)
    triples = []
    for _ in range(count):
        edit = corpus.examples[int(rng.integers(len(corpus.examples)))]
        parallel = corpus.parallel(edit.id)
        update = parallel[rng.integers(len(parallel))]
        triples.append(ExampleTriple(edit, update, unrelated(corpus, edit, 1, rng)[0]))
    return triples


def evaluation_pairs(
    corpus: Corpus,
    edit_languages: Sequence[str],
    update_languages: Sequence[str],
    n_update: int,
    n_retain: int,
    seed: int,
    limit: int | None = None,
    editable: frozenset[str] | None = None,
) -> list[Pair]:
    """Every edit in the editing languages once, or `limit` of them, drawn evenly over the languages (S1-S5, S9).

    `editable` holds the ids of D_edit; without it D_edit is the whole corpus.

    x_u are drawn without replacement from I(x_e), x_e and its parallels, and x_r from the rest, both within the
    updating languages.
    """
    # Eight parameters: what clauses S1 to S9 name.
    checks.refuse(UserError, checks.of_arguments(evaluation_pairs, locals(), "edit_languages", "update_languages"))
    updates = corpus.within(update_languages)
    pairs = []
    for edit in evaluation_edits(corpus, edit_languages, seed, limit, editable):
        rng = derived_rng(seed, "evaluate", edit.id)
        parallel = corpus.parallel(edit.id, update_languages)
        drawn = rng.choice(len(parallel), size=min(n_update, len(parallel)), replace=False)
        update = tuple(parallel[i] for i in sorted(drawn))
        pairs.append(Pair(edit, update, tuple(unrelated(updates, edit, n_retain, rng))))
    return pairs


def evaluation_edits(
    corpus: Corpus,
    languages: Sequence[str],
    seed: int,
    limit: int | None = None,
    editable: frozenset[str] | None = None,
) -> list[Example]:
    """D_edit, language by language: all examples, or `limit` of them, spread evenly over the languages (clause S9)."""
    shuffled = []
    for language in languages:
        examples = [e for e in corpus.within([language]).examples if editable is None or e.id in editable]
        order = derived_rng(seed, "limit", language).permutation(len(examples))
        shuffled.append([examples[i] for i in order])
    # One of each language in turn: when a language has no more, the others get its share.
    dealt = [example for turn in zip_longest(*shuffled) for example in turn if example is not None]
    chosen = {example.id for example in dealt[:limit]}
    return [example for group in shuffled for example in sorted(group) if example.id in chosen]


def unrelated(corpus: Corpus, edit: Example, count: int, rng: np.random.Generator) -> list[Example]:
    """`count` examples, uniform over `corpus` minus I(x_e), without replacement if there are enough (clause S3)."""
    span = corpus.span(edit.fact)
    rest = len(corpus.examples) - len(span)
    if rest == 0:
        raise DataError(f"no input is unrelated to {edit.id!r}, all are its parallels; give more facts or languages")
    drawn = rng.choice(rest, size=count, replace=count > rest)
    return [corpus.examples[i if i < span.start else i + len(span)] for i in drawn]
