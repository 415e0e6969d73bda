"""Questions about facts: one of the corpus, or a sentence with [MASK]."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.sampling import derived_rng
from ...core.task import MASK, request, sentence
from ...errors import UserError
from .. import Reader
from ..question import Asked, Prompt, Question, ordered
from .read import Fact, Facts

_Index = Mapping[str, Mapping[str, Fact]]  # relation/subject → language → the first such fact


def question(facts: Facts, reader: Reader, asked: Asked) -> Question:
    """A fact of the corpus ("P36/Q142" or "P36/France"), or a sentence with [MASK], with its parallels if any."""
    tokenizer, language = reader.tokenizer, asked.language
    text = asked.texts[0] if asked.texts else "[X]"
    ordered(language, facts.languages, "in the corpus")
    index: dict[str, dict[str, Fact]] = {}
    for fact in facts.facts:
        index.setdefault(fact.key, {}).setdefault(fact.language, fact)
    if asked.place is not None:
        place: str | None = _place(facts, index, asked.place, language)
    elif "[X]" not in text:
        place = _written(facts, index, tokenizer, text, language)
    else:
        raise UserError(f"say what to edit: --fact, or a sentence with {MASK} in which the subject replaces [X]")
    said = {code: facts.text(f, MASK) for code, f in index[place].items()} if place else {language: text}
    codes = ordered(language, said, f"for {place}")
    wish = request(tokenizer, said[language], asked.to, language)

    def prompt(code: str, text: str, masks: int = len(wish.labels)) -> Prompt:
        return Prompt(code, text, sentence(tokenizer, text, masks))

    return Question(
        *(wish, said[language], asked.to, place),
        index[place][language].obj_label if place else None,
        tuple(prompt(code, said[code]) for code in codes),
        tuple(prompt("", look) for look in asked.looks),
        tuple(
            # As many masks as the known answer has tokens, so that the model's answer is readable.
            prompt(f.language, facts.text(f, MASK), len(tokenizer(f.obj_label, add_special_tokens=False)["input_ids"]))
            for f in _unrelated(index, place, asked.unrelated)
        ),
    )


def _place(facts: Facts, index: _Index, wanted: str, language: str) -> str:
    if wanted in index:
        return wanted
    relation, _, subject = wanted.partition("/")
    spoken = {place: f[language] for place, f in index.items() if language in f}
    here = {fact.sub_label: place for place, fact in spoken.items() if fact.relation == relation}
    for name, place in here.items():
        if name.casefold() == subject.casefold():
            return place
    if not here:
        known = sorted({r for code, r in facts.templates if code == language})
        raise UserError(f"no relation {relation!r} in {language!r}; there are: {', '.join(known)}")
    near = difflib.get_close_matches(subject, here, 3, 0.5) or sorted(here)[:3]
    named = ", ".join(f"{here[name]} ({name})" for name in near)
    raise UserError(f"no fact {wanted!r} in {language!r}; {relation} has, for instance, {named}")


def _written(facts: Facts, index: _Index, tokenizer: Any, text: str, language: str) -> str | None:
    """The place of a sentence, compared by tokens; several [MASK] equal one."""
    here = {place: facts.text(f[language], tokenizer.mask_token) for place, f in index.items() if language in f}
    mask = tokenizer.mask_token_id

    def tokens(texts: Sequence[str]) -> list[list[int]]:
        rows = tokenizer(texts)["input_ids"]
        return [[t for i, t in enumerate(row) if t != mask or row[i - 1] != mask] for row in rows]

    wanted, *others = tokens([text.replace(MASK, tokenizer.mask_token), *here.values()])
    return next((place for place, row in zip(here, others, strict=True) if row == wanted), None)


def _unrelated(index: _Index, place: str | None, count: int) -> list[Fact]:
    """Unrelated facts, half of the same relation, where an edit does most harm; each in a random language."""
    rng = derived_rng(0, "show", place or "")
    places = [p for p in index if p != place]
    places = [places[i] for i in rng.permutation(len(places))]
    near = [p for p in places if place and p.partition("/")[0] == place.partition("/")[0]][: count // 2]
    chosen = [*near, *(p for p in places if p not in near)][:count]
    return [list(index[p].values())[rng.integers(len(index[p]))] for p in chosen]
