"""Questions about sentence pairs: one of the corpus, or a premise and a hypothesis."""

from __future__ import annotations

from typing import Any

from ...core.sampling import derived_rng
from ...core.task import pair
from ...errors import UserError
from ...names import JUDGED
from ...records import EditRequest
from .. import Reader
from ..question import SEPARATOR, Asked, Prompt, Question, ordered
from .read import Pairs, texts
from .task import class_numbers

_Texts = tuple[str, ...]  # premise and hypothesis


def question(pairs: Pairs, reader: Reader, asked: Asked) -> Question:
    """A pair of the corpus ("test/17"), or a premise and a hypothesis. A further input is "premise | hypothesis"."""
    language, to, place = asked.language, asked.to, asked.place
    ordered(language, pairs.languages, "in the corpus")
    numbers = dict(zip(pairs.classes, class_numbers(pairs, reader.classes or {}), strict=True))
    if to not in numbers:
        raise UserError(f"unknown class {to!r}; the classes are {', '.join(numbers)}")

    def prompt(code: str, both: _Texts) -> Prompt:
        return Prompt(code, SEPARATOR.join(both), pair(reader.tokenizer, both[0], both[1], reader.longest))

    def told(row: Any) -> dict[str, _Texts]:
        return {code: both for code, both in texts(row).items() if code in pairs.languages}

    if place is None and len(asked.texts) != 2:
        raise UserError("say what to edit: --pair SPLIT/ROW, or --premise and --hypothesis")
    if place is None:
        place = _written(pairs, asked.texts, language)
    said, known = {language: asked.texts}, None
    if place is not None:
        row = _row(pairs, place)
        said, known = told(row), pairs.classes[row["label"]]
    codes = ordered(language, said, f"for {place}")
    rng, rows = derived_rng(0, "show", place or ""), pairs.rows["test"]
    others = [told(rows[int(i)]) for i in rng.permutation(len(rows)) if f"test/{i}" != place][: asked.unrelated]
    drawn = [(list(other)[rng.integers(len(other))], other) for other in others if other]
    return Question(
        EditRequest(prompt("", said[language]).input, (numbers[to],), language),
        *(SEPARATOR.join(said[language]), to, place, known),
        tuple(prompt(code, said[code]) for code in codes),
        tuple(prompt("", _parted(look)) for look in asked.looks),
        tuple(prompt(code, other[code]) for code, other in drawn),
    )


def _row(pairs: Pairs, place: str) -> Any:
    split, _, number = place.partition("/")
    for name, rows in pairs.rows.items():
        if name == split and number.isdecimal() and int(number) < len(rows):
            return rows[int(number)]
    known = ", ".join(f"{name}/0 to {name}/{len(rows) - 1}" for name, rows in pairs.rows.items() if len(rows))
    raise UserError(f"no pair {place!r}; there are {known}")


def _written(pairs: Pairs, both: _Texts, language: str) -> str | None:
    found = (
        f"{split}/{i}"
        for split in reversed(JUDGED)
        for i, row in enumerate(pairs.rows[split])
        if row["premise"].get(language) == both[0] and texts(row).get(language) == both
    )
    return next(found, None)


def _parted(look: str) -> _Texts:
    premise, separator, hypothesis = look.partition(SEPARATOR)
    if not separator:
        raise UserError(f"--look {look!r}: write a pair as PREMISE{SEPARATOR}HYPOTHESIS")
    return premise, hypothesis
