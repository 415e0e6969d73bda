"""Facts in each form that they come in: mLAMA's folder or archive, tables of it, a corpus of one's own (chapter D).

    <language>/templates.jsonl      {"relation": "P36", "template": "The capital of [X] is [Y] ."}
    <language>/<relation>.jsonl     {"sub_uri", "obj_uri", "sub_label", "obj_label", "lineid", "uuid"}
    tables with m_lama's fields     the same, and "language", "predicate_id" and "template"
    tables of one's own             language, relation, template, subject, object, and ids (`OWN`)

The same content is the same corpus from each (clause D9). The order of facts within a relation and a language is
content (D1): it is the file's, or, with m_lama's fields, that of `lineid`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ...borders import border
from ...errors import DataError
from ...names import SPLITS
from .. import files
from ..download import locate
from ..files import Files

_CODES = (
    "af ar az be bg bn ca ceb cs cy da de el en es et eu fa fi fr ga gl he hi hr hu hy "
    "id it ja ka ko la lt lv ms nl pl pt ro ru sk sl sq sr sv ta th tr uk ur vi zh"
)
#: The languages of the real mLAMA, by which it is recognised.
LANGUAGES = frozenset(_CODES.split())
#: GoogleRE's relations, empty in many languages. The paper's corpus is T-REx's 41 alone, as the authors read it.
GOOGLE_RE = frozenset({"date_of_birth", "place_of_birth", "place_of_death"})
EXPECTED = (
    "facts: mLAMA's folder or archive (<language>/templates.jsonl), or a table of facts (docs/data-and-models.md)"
)
#: How tables name what a Fact has, in its order: by the first of these that a row has. A sentence is parallel to those
#: of other languages with its relation and subject id. A subject is in one split only (D2): with "subject_id" in all
#: its relations, with "fact" in one.
COLUMNS: Mapping[str, Sequence[tuple[str, ...]]] = {
    "m_lama's fields": (("language",), ("predicate_id",), ("sub_uri",), ("obj_uri",), ("sub_label",), ("obj_label",)),
    "a corpus of facts": (
        *(("language",), ("relation",), ("subject_id", "fact"), ("object_id", "object"), ("subject",), ("object",)),
    ),
}
M_LAMA, OWN = COLUMNS
#: Fields of a corpus of facts that may be whole numbers.
IDS = ("subject_id", "fact", "object_id")


@dataclass(frozen=True, slots=True)
class Fact:
    """⟨[X], relation, [Y]⟩ in one language, and where it was read: a line, or a row of parquet."""

    language: str
    relation: str
    sub_uri: str
    obj_uri: str
    sub_label: str
    obj_label: str
    file: str
    line: int

    @property
    def source(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Facts:
    """All facts of some languages, in file order, and the template of each (language, relation).

    `left_out` counts what the real mLAMA holds and the paper's corpus does not, by reason; `notes` are sentences on
    choices that were made in reading.
    """

    facts: tuple[Fact, ...]
    templates: Mapping[tuple[str, str], str]
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.facts)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(language for language, _ in self.templates))


def read(source: str | Path, languages: Sequence[str] | None = None) -> Facts:
    """Read the facts of `languages` (default: all that are there), language by language in sorted order.

    `source` is a folder, a zip archive or a file in one of the forms above, a folder with one of them inside, an
    address, or a data set of the hub.
    DataError: nothing of the kind, a missing template, a broken line, a bad field. LanguageError: no such language.
    """
    with border(DataError, f"cannot read facts from {str(source)!r}"):
        path = Path(locate(str(source), expected=EXPECTED))
        with files.opened(path) as found:
            parts = [name.split("/") for name in found.openers if name.endswith("/templates.jsonl")]
            roots = sorted({"/".join([*one[:-2], ""]) for one in parts})
            if len(roots) > 1:
                places = ", ".join(found.where(root) for root in roots)
                raise DataError(f"{found.root}: holds facts in several places; name one of them: {places}")
            if not roots and not found.tables:
                raise files.nothing(found, EXPECTED)
            return _of_folders(found, roots[0], languages) if roots else _of_tables(found, languages)


def _of_folders(source: Files, root: str, languages: Sequence[str] | None) -> Facts:
    """mLAMA's layout, whose languages lie at `root`."""
    relations: dict[str, dict[str, str]] = {}
    for name in source.openers:
        language, slash, file = name.removeprefix(root).partition("/")
        if name.startswith(root) and slash and "/" not in file and file.endswith(".jsonl"):
            relations.setdefault(language, {})[file.removesuffix(".jsonl")] = name
    told = {language: names.pop("templates", None) for language, names in relations.items()}
    for language in (code for code, name in sorted(told.items()) if name is None and code in (languages or told)):
        raise DataError(f"{source.where(root + language)}: has no templates.jsonl; add it, or remove the folder")
    known = [language for language, name in told.items() if name is not None]
    taken, notes = files.chosen(languages, known, source.where(root))
    templates: _Templates = {}
    for language, name in ((language, str(told[language])) for language in taken):
        for line, row in files.json_rows(source, name):
            relation, template = files.texts(row, ("relation", "template"), f"{source.where(name)}:{line}")
            _template(templates, (language, relation), template, f"{source.where(name)}:{line}")
    beside = (
        (
            name,
            {"language": language, "predicate_id": relation, "template": templates.get((language, relation), ("",))[0]},
        )
        for language in taken
        for relation, name in sorted(relations[language].items())
    )
    rows = (row for name, fields in beside for row in _rows(source, name, M_LAMA, fields))
    return _assembled(rows, templates, set(known) >= LANGUAGES, (*source.notes, *notes))


def _of_tables(source: Files, languages: Sequence[str] | None) -> Facts:
    """Tables with m_lama's fields, or with the columns of a corpus of one's own."""
    names, notes = files.once(source, source.tables)
    columns = {name: files.columns_of(source, name) for name in names}
    kinds = {name: _kind(source.where(name), told) for name, told in columns.items() if told}
    if len(set(kinds.values())) > 1:
        raise DataError(f"{source.root}: some of its tables have m_lama's fields, and some columns of their own")
    if any("split" in told for told in columns.values()) or sum(s in " ".join(names).lower() for s in SPLITS) > 1:
        notes.append("their own splits are not used: facts are split 8:1:1 within a relation and language (clause D1)")
    rows = [row for name, kind in kinds.items() for row in _rows(source, name, kind, {})]
    known = {fact.language for fact, _, _ in rows}
    if not known:
        raise DataError(f"{source.root}: no facts in {', '.join(names)}")
    taken, more = files.chosen(languages, sorted(known), source.root)
    kept = (row for row in rows if row[0].language in taken)
    real = known >= LANGUAGES and M_LAMA in kinds.values()
    return _assembled(kept, {}, real, (*source.notes, *notes, *more))


def _kind(where: str, columns: Sequence[str]) -> str:
    """Which of `COLUMNS` a table has. DataError: none."""
    lacking: dict[str, list[str]] = {}
    for kind, fields in COLUMNS.items():
        wanted = [*fields, ("template",), *([("lineid",)] if kind == M_LAMA else [])]
        lacking[kind] = [names[0] for names in wanted if not any(name in columns for name in names)]
    kind = min((OWN, M_LAMA), key=lambda kind: len(lacking[kind]))
    if lacking[kind]:
        raise files.lacks(where, lacking[kind], kind, columns, "facts")
    return kind


#: A fact, its template ("": it has none), and its place among those of its relation and language.
_Row = tuple[Fact, str, int]
#: The template of each (language, relation), and where it was read.
_Templates = dict[tuple[str, str], tuple[str, str]]


def _rows(source: Files, name: str, kind: str, beside: Mapping[str, Any]) -> Iterator[_Row]:
    """The facts of one table; `beside` is what all its rows have beside their own fields, where it is mLAMA's."""
    file, fields, usual = source.where(name), COLUMNS[kind], [names[0] for names in COLUMNS[kind]]
    for line, own in files.rows(source, name, [*(one for names in fields for one in names), "template", "lineid"]):
        row, where = {**own, **beside}, f"{file}:{line}"
        used = usual if kind == M_LAMA else [next((one for one in names if one in row), names[0]) for names in fields]
        # Names and ids recur in every language and relation: each is kept once.
        told = list(map(sys.intern, files.texts(row, used, where, IDS)))
        files.check_language(told[0], where)
        template = row.get("template") or ""
        if (template or kind == OWN) and not beside:
            (template,) = files.texts(row, ("template",), where)
        place: Any = row.get("lineid") if kind == M_LAMA and not beside else 0
        if isinstance(place, (str, float)) and str(place).removesuffix(".0").isdecimal():
            place = int(float(place))
        if not isinstance(place, int) or isinstance(place, bool):
            raise DataError(f"{where}: field 'lineid' must be a whole number, got {place!r}: it is the order of facts")
        yield Fact(*told, file, line), template, place  # type: ignore[call-arg, arg-type]


def _template(templates: _Templates, key: tuple[str, str], template: str, where: str) -> None:
    """DataError: a template without [X] and [Y], or another one than was told before."""
    if template.count("[X]") != 1 or template.count("[Y]") != 1:
        raise DataError(f"{where}: template {template!r} must hold [X] and [Y] once each")
    known, first = templates.setdefault(key, (template, where))
    if known != template:
        raise DataError(
            f"{where}: relation {key[1]!r} has another template in {key[0]!r} than at {first}: {template!r}, {known!r}"
        )


def _assembled(rows: Iterable[_Row], told: _Templates, real: bool, notes: Sequence[str]) -> Facts:
    """The facts in their order, with a template each. Of the real mLAMA, what the paper's corpus lacks is left out."""
    groups: dict[tuple[str, str], list[tuple[int, Fact]]] = {}
    templates, left_out = dict(told), Counter[str]()
    for fact, template, place in rows:
        key = (fact.language, fact.relation)
        if real and fact.relation in GOOGLE_RE:
            left_out[f"relation {fact.relation}: GoogleRE's, which the paper's corpus leaves out"] += 1
        elif real and not template:
            left_out[f"relation {fact.relation}: no template in language {fact.language!r}"] += 1
        elif not template:
            raise DataError(f"{fact.source}: no template for relation {key[1]!r} in language {key[0]!r}; add one")
        else:
            _template(templates, key, template, fact.source)
            groups.setdefault(key, []).append((place, fact))
    facts = [fact for key in sorted(groups) for _, fact in sorted(groups[key], key=lambda placed: placed[0])]
    kept = {key: templates[key][0] for key in sorted(templates) if not (real and key[1] in GOOGLE_RE)}
    return Facts(tuple(facts), kept, left_out, tuple(notes))
