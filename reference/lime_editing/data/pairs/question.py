"""Questions about sentence pairs: one of the corpus, or a premise and a hypothesis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.records import EditRequest
from ...core.sampling import derived_rng
from ...core.task import pair
from ...errors import LanguageError, UserError
from .. import Reader
from ..question import SEPARATOR, Asked, Prompt, Question
from .read import Pairs
from .task import class_numbers


def question(pairs: Pairs, reader: Reader, asked: Asked) -> Question:
    """A pair of the corpus ("test/17"), or a premise and a hypothesis; those of validation and test are recognised.

    A look is written "premise | hypothesis". UserError: no such pair or class, or nothing to edit.
    """
    tokenizer, language, to, place = reader.tokenizer, asked.language, asked.to, asked.place
    if language not in pairs.languages:
        raise LanguageError(language, pairs.languages, "in the corpus")
    numbers = dict(zip(pairs.classes, class_numbers(pairs, reader.classes or {}), strict=True))
    if to not in numbers:
        raise UserError(f"unknown class {to!r}; the classes are {', '.join(numbers)}")
    said, known = {}, None
    if place is None and len(asked.texts) == 2:  # premise and hypothesis
        premise, hypothesis = asked.texts
        place = _written_pair(pairs, premise, hypothesis, language)
        said = {language: (premise, hypothesis)}
    elif place is None:
        raise UserError("say what to edit: --pair SPLIT/ROW, or --premise and --hypothesis")
    if place is not None:
        row = _pair_row(pairs, place)
        said, known = {code: _pair(row, code) for code in pairs.languages}, pairs.classes[row["label"]]
    order = sorted(said, key=lambda code: (code != language, code))
    rng = derived_rng(0, "show", place or "")
    rows = pairs.rows["test"]
    others = [i for i in rng.permutation(len(rows)) if f"test/{i}" != place][: asked.unrelated]
    drawn = [pairs.languages[rng.integers(len(pairs.languages))] for _ in others]
    return Question(
        EditRequest(pair(tokenizer, *said[language]), (numbers[to],), language),
        *(SEPARATOR.join(said[language]), to, place, known),
        tuple(_pair_prompt(tokenizer, code, said[code]) for code in order),
        tuple(_pair_prompt(tokenizer, "", _parted(look)) for look in asked.looks),
        tuple(_pair_prompt(tokenizer, code, _pair(rows[int(i)], code)) for i, code in zip(others, drawn, strict=True)),
    )


def _pair_prompt(tokenizer: Any, language: str, texts: tuple[str, str]) -> Prompt:
    return Prompt(language, SEPARATOR.join(texts), pair(tokenizer, *texts))


def _pair_row(pairs: Pairs, place: str) -> Any:
    split, _, number = place.partition("/")
    for name, rows in pairs.rows.items():
        if name == split and number.isdecimal() and int(number) < len(rows):
            return rows[int(number)]
    known = ", ".join(f"{name}/0 to {name}/{len(rows) - 1}" for name, rows in pairs.rows.items())
    raise UserError(f"no pair {place!r}; there are {known}")


def _written_pair(pairs: Pairs, premise: str, hypothesis: str, language: str) -> str | None:
    for split in ("test", "validation"):
        for i, row in enumerate(pairs.rows[split]):
            if row["premise"].get(language) == premise and _pair(row, language)[1] == hypothesis:
                return f"{split}/{i}"
    return None


def _pair(row: Mapping[str, Any], language: str) -> tuple[str, str]:
    hypothesis = row["hypothesis"]
    return row["premise"][language], hypothesis["translation"][hypothesis["language"].index(language)]


def _parted(look: str) -> tuple[str, str]:
    premise, separator, hypothesis = look.partition(SEPARATOR)
    if not separator:
        raise UserError(f"--look {look!r}: write a pair as PREMISE{SEPARATOR}HYPOTHESIS")
    return premise, hypothesis
