"""A parallel corpus: examples, and their partition into sets of parallel examples I(x) (§3.1, clause T1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..errors import DataError, LanguageError, UserError


@dataclass(frozen=True, slots=True, order=True)
class Example:
    """A fact in one language. All examples of one `fact` are parallel."""

    fact: str
    language: str
    id: str


class Corpus(Protocol):
    """The corpus interface of sampling. Examples are sorted, so that those of a fact are adjacent."""

    @property
    def examples(self) -> Sequence[Example]: ...

    @property
    def languages(self) -> tuple[str, ...]: ...

    def span(self, fact: str) -> range: ...

    def __getitem__(self, example_id: str) -> Example: ...

    def parallel(self, example_id: str, languages: Sequence[str] | None = None) -> tuple[Example, ...]: ...

    def within(self, languages: Sequence[str]) -> Corpus: ...


@dataclass(frozen=True)
class ParallelCorpus:
    """Examples in a canonical order: the order in which they were read does not change sampling."""

    examples: tuple[Example, ...]

    @classmethod
    def of(cls, examples: Iterable[Example]) -> ParallelCorpus:
        """Sort and check. DataError: two examples with the same id, or of the same fact and language."""
        ordered = tuple(sorted(examples))
        for a, b in pairwise(ordered):
            if (a.fact, a.language) == (b.fact, b.language):
                raise DataError(f"fact {a.fact!r} has two examples in language {a.language!r}: {a.id!r} and {b.id!r}")
        corpus = cls(ordered)
        if len(corpus.index) != len(ordered):
            raise DataError("two examples of the corpus have the same id; each needs its own")
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
        """The range of a fact's examples in the canonical order; empty for an unknown fact."""
        return self._spans.get(fact, range(0))

    def __getitem__(self, example_id: str) -> Example:
        """The example with this id. KeyError: an unknown id."""
        return self.examples[self.index[example_id]]

    def parallel(self, example_id: str, languages: Sequence[str] | None = None) -> tuple[Example, ...]:
        """I(x), x itself included, within `languages` where given."""
        checks.refuse(UserError, languages is not None and checks.of_names(languages, again=True))
        span = self.span(self[example_id].fact)
        group = self.examples[span.start : span.stop]
        return group if languages is None else tuple(example for example in group if example.language in languages)

    def within(self, languages: Sequence[str]) -> ParallelCorpus:
        """The part of the corpus in these languages. LanguageError: one that does not occur."""
        checks.refuse(UserError, checks.of_names(languages))
        for language in languages:
            if language not in self.languages:
                raise LanguageError(language, self.languages, "in the corpus")
        return ParallelCorpus(tuple(example for example in self.examples if example.language in languages))


@dataclass(frozen=True)
class FullCorpus:
    """Facts "<prefix>/<number>" in all languages. Examples are made on access: XNLI's training set has six million."""

    prefix: str
    count: int
    languages: tuple[str, ...]  # sorted

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """The facts' numbers in the canonical order: sorted as strings of digits."""
        return np.argsort(np.arange(self.count).astype(str), kind="stable")

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        places = np.empty_like(self._order)
        places[self._order] = np.arange(self.count)
        return places

    @property
    def examples(self) -> Sequence[Example]:
        return _Examples(self)

    def example(self, number: int, language: str) -> Example:
        fact = f"{self.prefix}/{number}"
        return Example(fact, language, f"{fact}/{language}")

    def at(self, place: int) -> Example:
        """The example at this index of the canonical order."""
        fact, language = divmod(place, len(self.languages))
        return self.example(int(self._order[fact]), self.languages[language])

    def _number(self, fact: str) -> int | None:
        prefix, _, digits = fact.rpartition("/")
        known = prefix == self.prefix and digits.isdecimal() and str(int(digits)) == digits
        return int(digits) if known and int(digits) < self.count else None

    def span(self, fact: str) -> range:
        number, width = self._number(fact), len(self.languages)
        if number is None:
            return range(0)
        start = int(self._places[number]) * width
        return range(start, start + width)

    def __getitem__(self, example_id: str) -> Example:
        fact, _, language = example_id.rpartition("/")
        number = self._number(fact)
        if number is None or language not in self.languages:
            raise KeyError(example_id)
        return self.example(number, language)

    def parallel(self, example_id: str, languages: Sequence[str] | None = None) -> tuple[Example, ...]:
        checks.refuse(UserError, languages is not None and checks.of_names(languages, again=True))
        fact = self[example_id].fact.rpartition("/")[2]
        return tuple(self.example(int(fact), code) for code in self.languages if languages is None or code in languages)

    def within(self, languages: Sequence[str]) -> FullCorpus:
        """The part of the corpus in these languages. LanguageError: one that does not occur."""
        checks.refuse(UserError, checks.of_names(languages))
        for language in languages:
            if language not in self.languages:
                raise LanguageError(language, self.languages, "in the corpus")
        return FullCorpus(self.prefix, self.count, tuple(code for code in self.languages if code in languages))


@dataclass(frozen=True)
class _Examples(Sequence[Example]):
    corpus: FullCorpus

    def __len__(self) -> int:
        return self.corpus.count * len(self.corpus.languages)

    @overload
    def __getitem__(self, place: int) -> Example: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Example]: ...

    def __getitem__(self, place: int | slice) -> Example | Sequence[Example]:
        if isinstance(place, slice):
            return [self.corpus.at(i) for i in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self.corpus.at(int(place) % len(self))
