"""Facts in all supported formats: mLAMA's folder or archive, its tables, a user's corpus (chapter D).

    <language>/templates.jsonl      {"relation": "P36", "template": "The capital of [X] is [Y] ."}
    <language>/<relation>.jsonl     {"sub_uri", "obj_uri", "sub_label", "obj_label", "lineid", "uuid"}
    tables with m_lama's fields     the same, and "language", "predicate_id" and "template"
    tables of a user                language, relation, template, subject, object, and ids (`OWN`)

Equal content gives equal corpora, whatever the format (clause D9). The order of facts within a relation and a language
is content (D1): the file's order, or, with m_lama's fields, the order of `lineid`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ... import checks
from ...errors import DataError
from ...names import SPLITS
from .. import files
from ..files import Files

_CODES = (
    "af ar az be bg bn ca ceb cs cy da de el en es et eu fa fi fr ga gl he hi hr hu hy "
    "id it ja ka ko la lt lv ms nl pl pt ro ru sk sl sq sr sv ta th tr uk ur vi zh"
)
LANGUAGES = frozenset(_CODES.split())  # the languages of the real mLAMA; they identify it
#: GoogleRE's relations, empty in many languages. The paper's corpus has only T-REx's 41, as in the released code.
GOOGLE_RE = frozenset({"date_of_birth", "place_of_birth", "place_of_death"})
EXPECTED = (
    "facts: mLAMA's folder or archive (<language>/templates.jsonl), or a table of facts (docs/data-and-models.md)"
)
#: The column names of each field of Fact, in its order (the first that exists is used), then further columns. Sentences
#: of one relation and subject id are parallel. A subject is in one split only (D2): with "subject_id" in all its
#: relations, with "fact" in one.
COLUMNS: Mapping[str, Sequence[tuple[str, ...]]] = {
    "a corpus of facts": (
        *(("language",), ("relation",), ("subject_id", "fact"), ("object_id", "object"), ("subject",), ("object",)),
        ("template",),
    ),
    "m_lama's fields": (
        *(("language",), ("predicate_id",), ("sub_uri",), ("obj_uri",), ("sub_label",), ("obj_label",)),
        *(("template",), ("lineid",)),
    ),
}
OWN, M_LAMA = COLUMNS
IDS = ("subject_id", "fact", "object_id")  # fields of a corpus of facts that may be whole numbers


class Fact(NamedTuple):
    """⟨[X], relation, [Y]⟩ in one language, with its file and line (or parquet row)."""

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

    @property
    def key(self) -> str:
        """The fact's id, equal in all languages."""
        return f"{self.relation}/{self.sub_uri}"


@dataclass(frozen=True)
class Facts:
    """All facts of some languages, in file order, and the template of each (language, relation).

    `left_out` counts, by reason, the facts that the paper's corpus does not have. `notes` are choices made in reading.
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

    def text(self, fact: Fact, mask: str, subject: str | None = None) -> str:
        """The sentence of a fact with one mask. [Y] is replaced first, because a label may contain it."""
        template = self.templates[fact.language, fact.relation]
        return template.replace("[Y]", mask).replace("[X]", subject or fact.sub_label)


_Row = tuple[Fact, str, int]  # a fact, its template ("" if it has none), and its index within its relation and language
_Templates = dict[tuple[str, str], tuple[str, str]]  # (language, relation) → template, and its file and line


def read(source: str | Path, languages: Sequence[str] | None = None) -> Facts:
    """Read the facts in `languages` (default: all), language by language in sorted order.

    `source` is a folder, archive or file in one of the formats above, a folder with one, a URL, or a hub data set.
    """
    with files.located(source, EXPECTED) as found:
        checks.refuse(DataError, checks.of_layout(found.openers), at=found.root)
        roots = sorted({PurePosixPath(n).parent.parent for n in found.openers if n.endswith("/templates.jsonl")})
        if len(roots) > 1:
            places = ", ".join(found.where(root) for root in roots)
            raise DataError(f"{found.root}: has facts in several places; give one of them: {places}")
        return _of_folders(found, roots[0], languages) if roots else _of_tables(found, languages)


def _of_folders(source: Files, root: PurePosixPath, languages: Sequence[str] | None) -> Facts:
    tables: dict[str, dict[str, str]] = {}
    for name in source.openers:
        path = PurePosixPath(name)
        if path.parent.name and path.parent.parent == root and path.suffix == ".jsonl":
            tables.setdefault(path.parent.name, {})[path.stem] = name
    known = [language for language, names in tables.items() if "templates" in names]
    for language in sorted(tables.keys() - {*known}):
        if language in (languages or tables):
            raise DataError(f"{source.where(root / language)}: has no templates.jsonl; add it, or remove the folder")
    taken, notes = files.chosen(languages, known, source.where(root))
    templates: _Templates = {}
    for language in taken:
        name = tables[language].pop("templates")
        for line, row in files.json_rows(source, name):
            where = f"{source.where(name)}:{line}"
            relation, template = files.texts(row, ("relation", "template"), where)
            _template(templates, (language, relation), template, where)
    rows = (
        row
        for language in taken
        for relation, name in sorted(tables[language].items())
        for row in _rows(source, name, M_LAMA, {"language": language, "predicate_id": relation, "template": ""})
    )
    return _assembled(rows, templates, set(known) >= LANGUAGES, (*source.notes, *notes))


def _of_tables(source: Files, languages: Sequence[str] | None) -> Facts:
    names, notes = files.once(source, source.tables)
    columns = {name: files.columns_of(source, name) for name in names}
    kinds = {name: _kind(source.where(name), told) for name, told in columns.items() if told}
    if len(set(kinds.values())) > 1:
        raise DataError(f"{source.root}: some of its tables have m_lama's fields, and others do not; give one kind")
    if any("split" in told for told in columns.values()) or sum(s in " ".join(names).lower() for s in SPLITS) > 1:
        notes.append("their own splits are not used: facts are split 8:1:1 within a relation and language (clause D1)")
    rows = [row for name, kind in kinds.items() for row in _rows(source, name, kind, {})]
    known = {fact.language for fact, _, _ in rows}
    checks.refuse(DataError, not known and f"{source.root}: no facts in {', '.join(names)}; give a table with rows")
    taken, more = files.chosen(languages, sorted(known), source.root)
    kept = (row for row in rows if row[0].language in taken)
    real = known >= LANGUAGES and M_LAMA in kinds.values()
    return _assembled(kept, {}, real, (*source.notes, *notes, *more))


def _kind(where: str, columns: Sequence[str]) -> str:
    lacking = {kind: files.lacking(columns, wanted) for kind, wanted in COLUMNS.items()}
    kind = min(lacking, key=lambda kind: len(lacking[kind]))
    if lacking[kind]:
        raise files.lacks(where, lacking[kind], kind, columns, "facts")
    return kind


def _rows(source: Files, name: str, kind: str, beside: Mapping[str, str]) -> Iterator[_Row]:
    file, wanted = source.where(name), COLUMNS[kind]
    for line, own in files.rows(source, name, [*chain(*wanted)]):
        row, where = {**own, **beside}, f"{file}:{line}"
        used = [names[0] if names[0] in row else next((n for n in names if n in row), names[0]) for names in wanted[:6]]
        # Names and ids repeat in every language and relation: each string is stored once.
        told = list(map(sys.intern, files.texts(row, used, where, IDS)))
        files.check_language(told[0], where)
        template = row.get("template") or ""
        if (template or kind == OWN) and not beside:
            (template,) = files.texts(row, ("template",), where)
        place: Any = row.get("lineid") if kind == M_LAMA and not beside else 0
        if isinstance(place, (str, float)) and str(place).removesuffix(".0").isdecimal():
            place = int(float(place))
        if type(place) is not int:
            raise DataError(f"{where}: field 'lineid' must be a whole number, which orders facts; got {place!r}")
        yield Fact(*told, file, line), template, place  # type: ignore[call-arg, arg-type]


def _template(templates: _Templates, key: tuple[str, str], template: str, where: str) -> None:
    if template.count("[X]") != 1 or template.count("[Y]") != 1:
        raise DataError(f"{where}: template {template!r} must contain [X] and [Y] once each")
    known, first = templates.setdefault(key, (template, where))
    checks.refuse(DataError, checks.of_templates(key, template, where, known, first))


def _assembled(rows: Iterable[_Row], told: _Templates, real: bool, notes: Sequence[str]) -> Facts:
    """The facts in order, each with a template. For the real mLAMA, facts outside the paper's corpus are left out."""
    groups: dict[tuple[str, str], list[tuple[int, Fact]]] = {}
    templates, left_out = dict(told), Counter[str]()
    for fact, own, place in rows:
        key = (fact.language, fact.relation)
        template = own or told.get(key, ("",))[0]
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
