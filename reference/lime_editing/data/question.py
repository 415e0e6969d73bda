"""The request of the `edit` command, and the inputs that it shows: from a corpus, or the user's text."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..errors import LanguageError
from ..records import EditRequest, Input

SEPARATOR = " | "  # between premise and hypothesis of a pair written as one text


@dataclass(frozen=True, slots=True)
class Asked:
    """A user's request: either `place` (an input of the corpus) or `texts` (the user's input).

    `source` and `languages` select the corpus; `to` is the desired answer in `language`; `looks` and so many
    `unrelated` inputs are shown, too.
    """

    source: str
    languages: tuple[str, ...] | None
    language: str
    to: str
    place: str | None = None
    texts: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()
    unrelated: int = 6


@dataclass(frozen=True, slots=True)
class Prompt:
    """One input, as text and as model input; the user's own text has no language."""

    language: str
    text: str
    input: Input


@dataclass(frozen=True, slots=True)
class Question:
    """An edit, and the inputs to show. `place` and `known` (the known answer) are set for inputs of the corpus."""

    request: EditRequest
    text: str
    to: str
    place: str | None
    known: str | None
    parallel: tuple[Prompt, ...]  # I(x), the edit input first
    looks: tuple[Prompt, ...]
    unrelated: tuple[Prompt, ...]


def ordered(language: str, known: Collection[str], where: str) -> list[str]:
    """These languages, the editing language first. LanguageError: it is not among them."""
    if language not in known:
        raise LanguageError(language, sorted(known), where)
    return sorted(known, key=lambda code: (code != language, code))
