"""What the `edit` command is asked, and the inputs that it then looks at: of a corpus, or written by hand."""

from __future__ import annotations

from dataclasses import dataclass

from ..records import EditRequest, Input

SEPARATOR = " | "  # between premise and hypothesis, where a pair is written as one text


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asks for: one of `place` (an input of the corpus) and `texts` (one of their own).

    `source` and `languages` say which corpus is read, `language` is that of the edit, `to` the desired answer; `looks`
    are further inputs to look at, and `unrelated` says how many unrelated ones.
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
    """One input, as text and as the model reads it; a free text has no language."""

    language: str
    text: str
    input: Input


@dataclass(frozen=True, slots=True)
class Question:
    """An edit, and the inputs to look at. `place` and `known` are the corpus's, where the input is one of its own."""

    request: EditRequest
    text: str
    to: str
    place: str | None
    known: str | None
    parallel: tuple[Prompt, ...]  # I(x), the edit input first
    looks: tuple[Prompt, ...]
    unrelated: tuple[Prompt, ...]
