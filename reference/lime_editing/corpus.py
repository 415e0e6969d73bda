"""A parallel corpus: examples, and the equivalence I(x) that partitions them (§3.1, clause T1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from .errors import DataError, LanguageError


@dataclass(frozen=True, slots=True, order=True)
class Example:
    """A fact said in a language. All examples of one `fact` are parallel."""

    fact: str
    language: str
    id: str


@dataclass(frozen=True)
class ParallelCorpus:
    """Examples in a canonical order, so that whoever reads the same content in another order samples the same."""

    examples: tuple[Example, ...]

    @classmethod
    def of(cls, examples: Iterable[Example]) -> ParallelCorpus:
        """Sort and check. DataError: two examples with one id, or of one fact in one language."""
        ordered = tuple(sorted(examples))
        for a, b in pairwise(ordered):
            if (a.fact, a.language) == (b.fact, b.language):
                raise DataError(f"fact {a.fact!r} has two examples in language {a.language!r}: {a.id!r} and {b.id!r}")
        corpus = cls(ordered)
        if len(corpus.index) != len(ordered):
            raise DataError("two examples of the corpus have the same id")
        return corpus

    @cached_property
    def index(self) -> dict[str, int]:
        """Example id → its place in `examples`."""
        return {example.id: i for i, example in enumerate(self.examples)}

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """The languages that occur, sorted."""
        return tuple(sorted({example.language for example in self.examples}))

    @cached_property
    def _spans(self) -> dict[str, range]:
        spans: dict[str, range] = {}
        for i, example in enumerate(self.examples):
            spans[example.fact] = range(spans.get(example.fact, range(i, i)).start, i + 1)
        return spans

    def span(self, fact: str) -> range:
        """Where a fact's examples lie, side by side in the canonical order; empty for a fact that is not there."""
        return self._spans.get(fact, range(0))

    def __getitem__(self, example_id: str) -> Example:
        """The example of this id. KeyError names an unknown one."""
        return self.examples[self.index[example_id]]

    def parallel(self, example_id: str, languages: Sequence[str] | None = None) -> tuple[Example, ...]:
        """I(x), x itself included, within `languages` where given."""
        span = self.span(self[example_id].fact)
        group = self.examples[span.start : span.stop]
        return group if languages is None else tuple(example for example in group if example.language in languages)

    def within(self, languages: Sequence[str]) -> ParallelCorpus:
        """The part of the corpus in these languages. LanguageError: one that does not occur."""
        for language in languages:
            if language not in self.languages:
                raise LanguageError(language, self.languages, "in the corpus")
        return ParallelCorpus(tuple(example for example in self.examples if example.language in languages))
