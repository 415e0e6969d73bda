"""Questions about facts: one of the corpus, or a sentence with [MASK]."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.sampling import derived_rng
from ...core.task import MASK, request, sentence
from ...errors import LanguageError, UserError
from .. import Reader
from ..question import Asked, Prompt, Question
from .read import Fact, Facts


def question(facts: Facts, reader: Reader, asked: Asked) -> Question:
    """A fact of the corpus ("P36/Q142", or "P36/France" by its name in `language`), or a sentence with [MASK].

    A sentence that is in the corpus has its parallels shown too; any other is looked at by itself.
    UserError: no such fact, or nothing to edit. LanguageError: not in this language.
    """
    tokenizer, language, fact = reader.tokenizer, asked.language, asked.place
    text = asked.texts[0] if asked.texts else None
    if language not in facts.languages:
        raise LanguageError(language, facts.languages, "in the corpus")
    index = _index(facts)
    if fact is not None:
        place: str | None = _place(facts, index, fact, language)
    elif text is not None and "[X]" not in text:
        place = _written(facts, index, tokenizer, text, language)
    else:
        raise UserError(
            f"say what to edit: --fact RELATION/SUBJECT, or a sentence with {MASK} and its subject written out in the "
            "place of [X]"
        )
    said = {code: _text(facts, f) for code, f in index[place].items()} if place else {language: text or ""}
    if language not in said:
        raise LanguageError(language, sorted(said), f"for {place}")
    wish = request(tokenizer, said[language], asked.to, language)
    order = sorted(said, key=lambda code: (code != language, code))
    count = len(wish.labels)
    return Question(
        *(wish, said[language], asked.to, place),
        index[place][language].obj_label if place else None,
        tuple(Prompt(code, said[code], sentence(tokenizer, said[code], count)) for code in order),
        tuple(Prompt("", look, sentence(tokenizer, look, count)) for look in asked.looks),
        tuple(
            # As many masks as the known answer has tokens, so that one can read what the model says.
            Prompt(f.language, _text(facts, f), sentence(tokenizer, _text(facts, f), _length(tokenizer, f)))
            for f in _unrelated_facts(index, place, asked.unrelated)
        ),
    )


def _length(tokenizer: Any, fact: Fact) -> int:
    return len(tokenizer(fact.obj_label, add_special_tokens=False)["input_ids"])


def _index(facts: Facts) -> dict[str, dict[str, Fact]]:
    """Relation and subject → language → the first such fact."""
    index: dict[str, dict[str, Fact]] = {}
    for fact in facts.facts:
        index.setdefault(f"{fact.relation}/{fact.sub_uri}", {}).setdefault(fact.language, fact)
    return index


def _text(facts: Facts, fact: Fact) -> str:
    return facts.templates[fact.language, fact.relation].replace("[Y]", MASK).replace("[X]", fact.sub_label)


def _place(facts: Facts, index: Mapping[str, Mapping[str, Fact]], wanted: str, language: str) -> str:
    if wanted in index:
        return wanted
    relation, _, subject = wanted.partition("/")
    here = {
        f[language].sub_label: place for place, f in index.items() if language in f and f[language].relation == relation
    }
    for name, place in here.items():
        if name.casefold() == subject.casefold():
            return place
    if not here:
        known = sorted({r for code, r in facts.templates if code == language})
        raise UserError(f"no relation {relation!r} in {language!r}; there are: {', '.join(known)}")
    near = difflib.get_close_matches(subject, here, 3, 0.5) or sorted(here)[:3]
    named = ", ".join(f"{here[name]} ({name})" for name in near)
    raise UserError(f"no fact {wanted!r} in {language!r}; {relation} has, for instance, {named}")


def _written(
    facts: Facts, index: Mapping[str, Mapping[str, Fact]], tokenizer: Any, text: str, language: str
) -> str | None:
    """The place of a sentence, compared token by token, with any number of [MASK] for one."""
    here = [(place, _text(facts, f[language])) for place, f in index.items() if language in f]

    def tokens(texts: Sequence[str]) -> list[tuple[int, ...]]:
        rows = tokenizer([t.replace(MASK, tokenizer.mask_token) for t in texts])["input_ids"]
        mask = tokenizer.mask_token_id
        return [tuple(t for i, t in enumerate(row) if t != mask or row[i - 1] != mask) for row in rows]

    wanted, *others = tokens([text, *(t for _, t in here)])
    return next((place for (place, _), row in zip(here, others, strict=True) if row == wanted), None)


def _unrelated_facts(index: Mapping[str, Mapping[str, Fact]], place: str | None, count: int) -> list[Fact]:
    """Half of them of the same relation, which an edit harms first; each in a language at random."""
    rng = derived_rng(0, "show", place or "")
    places = [p for p in index if p != place]
    places = [places[i] for i in rng.permutation(len(places))]
    near = [p for p in places if place and p.partition("/")[0] == place.partition("/")[0]][: count // 2]
    chosen = [*near, *(p for p in places if p not in near)][:count]
    return [list(index[p].values())[rng.integers(len(index[p]))] for p in chosen]
