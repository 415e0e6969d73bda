"""One edit, looked at: what the model says before and after, in every language and where nothing may change."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import prompts
from .backbone import Backbone
from .data import mlama, xnli
from .editing import Editor, edit
from .errors import LanguageError, UserError
from .prompts import MASK
from .sampling import derived_rng
from .types import EditRequest, Input, Update

SEPARATOR = " | "  # between premise and hypothesis, where a pair is written as one text


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


@dataclass(frozen=True, slots=True)
class Line:
    """What the model says to one input; `desired`: whether it says y_e after the edit."""

    language: str
    text: str
    before: str
    after: str
    changed: bool
    desired: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """All that is shown of one edit; `matrices` has the norm of each ΔW as a share of its matrix's."""

    approach: str
    checkpoint: str | None
    language: str
    text: str
    to: str
    place: str | None
    known: str | None
    matrices: Mapping[str, float]
    parallel: tuple[Line, ...]
    looks: tuple[Line, ...]
    unrelated: tuple[Line, ...]

    def as_dict(self) -> dict[str, Any]:
        """For a program; the last three are counts."""
        return {
            **asdict(self),
            "desired": sum(line.desired for line in self.parallel),
            "languages": len(self.parallel),
            "unrelated_changed": sum(line.changed for line in self.unrelated),
        }


def show(editor: Editor, tokenizer: Any, question: Question, checkpoint: str | None = None) -> Shown:
    """Edit, and ask the model before and after."""
    update = edit(editor, [question.request])
    backbone, labels = editor.backbone, question.request.labels

    def lines(asked: Sequence[Prompt]) -> tuple[Line, ...]:
        inputs = [prompt.input for prompt in asked]
        both = zip(prompts.predict(backbone, inputs), prompts.predict(backbone, inputs, update), strict=True)
        return tuple(
            Line(
                *(prompt.language, prompt.text),
                *(prompts.spell(backbone, tokenizer, before), prompts.spell(backbone, tokenizer, after)),
                *(before != after, after == labels),
            )
            for prompt, (before, after) in zip(asked, both, strict=True)
        )

    return Shown(
        *(editor.method.NAME, checkpoint, question.request.language, question.text, question.to),
        *(question.place, question.known, _sizes(backbone, update)),
        *(lines(question.parallel), lines(question.looks), lines(question.unrelated)),
    )


def _sizes(backbone: Backbone, update: Update) -> dict[str, float]:
    dense = update.dense(0, backbone.raw)
    sizes = {
        name: float(dense[name].detach().norm() / raw.norm()) for name, raw in backbone.raw.items() if name in dense
    }
    return {name: size for name, size in sizes.items() if size > 0}


def ask_fact(
    facts: mlama.Facts,
    tokenizer: Any,
    language: str,
    to: str,
    fact: str | None = None,
    text: str | None = None,
    looks: Sequence[str] = (),
    unrelated: int = 6,
) -> Question:
    """A fact of the corpus ("P36/Q142", or "P36/France" by its name in `language`), or a sentence with [MASK].

    A sentence that is in the corpus has its parallels shown too; any other is looked at by itself.
    UserError: no such fact, or nothing to edit. LanguageError: not in this language.
    """
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
    request = prompts.request(tokenizer, said[language], to, language)
    order = sorted(said, key=lambda code: (code != language, code))
    count = len(request.labels)
    return Question(
        *(request, said[language], to, place),
        index[place][language].obj_label if place else None,
        tuple(Prompt(code, said[code], prompts.sentence(tokenizer, said[code], count)) for code in order),
        tuple(Prompt("", look, prompts.sentence(tokenizer, look, count)) for look in looks),
        tuple(
            # As many masks as the known answer has tokens, so that one can read what the model says.
            Prompt(f.language, _text(facts, f), prompts.request(tokenizer, _text(facts, f), f.obj_label, "").input)
            for f in _unrelated_facts(index, place, unrelated)
        ),
    )


def _index(facts: mlama.Facts) -> dict[str, dict[str, mlama.Fact]]:
    """Relation and subject → language → the first such fact."""
    index: dict[str, dict[str, mlama.Fact]] = {}
    for fact in facts.facts:
        index.setdefault(f"{fact.relation}/{fact.sub_uri}", {}).setdefault(fact.language, fact)
    return index


def _text(facts: mlama.Facts, fact: mlama.Fact) -> str:
    return facts.templates[fact.language, fact.relation].replace("[Y]", MASK).replace("[X]", fact.sub_label)


def _place(facts: mlama.Facts, index: Mapping[str, Mapping[str, mlama.Fact]], wanted: str, language: str) -> str:
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
    facts: mlama.Facts, index: Mapping[str, Mapping[str, mlama.Fact]], tokenizer: Any, text: str, language: str
) -> str | None:
    """The place of a sentence, compared token by token, with any number of [MASK] for one."""
    here = [(place, _text(facts, f[language])) for place, f in index.items() if language in f]

    def tokens(texts: Sequence[str]) -> list[tuple[int, ...]]:
        rows = tokenizer([t.replace(MASK, tokenizer.mask_token) for t in texts])["input_ids"]
        mask = tokenizer.mask_token_id
        return [tuple(t for i, t in enumerate(row) if t != mask or row[i - 1] != mask) for row in rows]

    wanted, *others = tokens([text, *(t for _, t in here)])
    return next((place for (place, _), row in zip(here, others, strict=True) if row == wanted), None)


def _unrelated_facts(index: Mapping[str, Mapping[str, mlama.Fact]], place: str | None, count: int) -> list[mlama.Fact]:
    """Half of them of the same relation, which an edit harms first; each in a language at random."""
    rng = derived_rng(0, "show", place or "")
    places = [p for p in index if p != place]
    places = [places[i] for i in rng.permutation(len(places))]
    near = [p for p in places if place and p.partition("/")[0] == place.partition("/")[0]][: count // 2]
    chosen = [*near, *(p for p in places if p not in near)][:count]
    return [list(index[p].values())[rng.integers(len(index[p]))] for p in chosen]


def ask_pair(
    pairs: xnli.Pairs,
    tokenizer: Any,
    label_ids: Mapping[str, int],
    language: str,
    to: str,
    place: str | None = None,
    premise: str | None = None,
    hypothesis: str | None = None,
    looks: Sequence[str] = (),
    unrelated: int = 6,
) -> Question:
    """A pair of the corpus ("test/17"), or a premise and a hypothesis; those of validation and test are recognised.

    A look is written "premise | hypothesis". UserError: no such pair or class, or nothing to edit.
    """
    if language not in pairs.languages:
        raise LanguageError(language, pairs.languages, "in the corpus")
    numbers = dict(zip(pairs.classes, xnli.tasks(pairs, tokenizer, label_ids, {})["test"].classes, strict=True))
    if to not in numbers:
        raise UserError(f"unknown class {to!r}; the classes are {', '.join(numbers)}")
    said, known = {}, None
    if place is None and premise is not None and hypothesis is not None:
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
    others = [i for i in rng.permutation(len(rows)) if f"test/{i}" != place][:unrelated]
    drawn = [pairs.languages[rng.integers(len(pairs.languages))] for _ in others]
    return Question(
        EditRequest(prompts.pair(tokenizer, *said[language]), (numbers[to],), language),
        *(SEPARATOR.join(said[language]), to, place, known),
        tuple(_pair_prompt(tokenizer, code, said[code]) for code in order),
        tuple(_pair_prompt(tokenizer, "", _parted(look)) for look in looks),
        tuple(_pair_prompt(tokenizer, code, _pair(rows[int(i)], code)) for i, code in zip(others, drawn, strict=True)),
    )


def _pair_prompt(tokenizer: Any, language: str, texts: tuple[str, str]) -> Prompt:
    return Prompt(language, SEPARATOR.join(texts), prompts.pair(tokenizer, *texts))


def _pair_row(pairs: xnli.Pairs, place: str) -> Any:
    split, _, number = place.partition("/")
    for name, rows in pairs.rows.items():
        if name == split and number.isdecimal() and int(number) < len(rows):
            return rows[int(number)]
    known = ", ".join(f"{name}/0 to {name}/{len(rows) - 1}" for name, rows in pairs.rows.items())
    raise UserError(f"no pair {place!r}; there are {known}")


def _written_pair(pairs: xnli.Pairs, premise: str, hypothesis: str, language: str) -> str | None:
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


def write(console: Console, shown: Shown) -> None:
    """The table for a person."""
    console.print(Text.assemble((shown.text, "bold"), " → ", (shown.to, "bold green")))
    of = f"{shown.place} of the corpus, where the answer is {shown.known}" if shown.place else "not in the corpus"
    by = shown.approach if shown.checkpoint is None else f"{shown.approach}, {shown.checkpoint}"
    console.print(
        f"an edit in {shown.language} by {by}; the input is {of}\n", style="dim", markup=False, highlight=False
    )
    table = Table("", "input", "before", "after", "", box=None, pad_edge=False)
    for line in shown.parallel:
        mark = Text("as desired", "green") if line.desired else Text("not as desired", "red")
        table.add_row(line.language, Text(line.text), Text(line.before), Text(line.after), mark)
    _add(table, "your inputs", shown.looks, wanted=True)
    _add(table, "unrelated: nothing should change", shown.unrelated, wanted=False)
    console.print(table)
    console.print(f"\n{_summary(shown)}", markup=False, highlight=False)


def _add(table: Table, title: str, lines: Sequence[Line], wanted: bool) -> None:
    """Quiet where nothing changed; a change that was not `wanted` stands out."""
    if lines:
        table.add_row()
        table.add_row("", Text(title, "italic"))
    for line in lines:
        mark = "unchanged" if not line.changed else "changed, to the desired answer" if line.desired else "changed"
        quiet = "" if line.changed else "dim"
        cells = [Text(cell, quiet) for cell in (line.language, line.text, line.before, line.after)]
        table.add_row(*cells, Text(mark, quiet or ("" if wanted else "red")))


def _summary(shown: Shown) -> str:
    desired = sum(line.desired for line in shown.parallel)
    changed = sum(line.changed for line in shown.unrelated)
    parts = [f"As desired in {desired} of {len(shown.parallel)} languages"] if len(shown.parallel) > 1 else []
    if shown.unrelated:
        parts.append(f"{len(shown.unrelated) - changed} of {len(shown.unrelated)} unrelated answers unchanged")
    sizes = shown.matrices.values()
    parts.append(
        f"{len(shown.matrices)} matrices changed, by {100 * min(sizes):.2g} to {100 * max(sizes):.2g}% of their norm"
        if shown.matrices
        else "no matrix changed: the model answered so before"
    )
    return "; ".join(parts) + ". The raw model itself is as it was."
