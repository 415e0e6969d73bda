"""Facts in each form that they come in: mLAMA's folder or archive, tables of it, a corpus of one's own (chapter D).

    <folder or zip>/<language>/templates.jsonl      {"relation": "P36", "template": "The capital of [X] is [Y] ."}
    <folder or zip>/<language>/<relation>.jsonl     {"sub_uri", "obj_uri", "sub_label", "obj_label", "lineid", "uuid"}
    *.parquet, *.jsonl or *.csv with m_lama's fields    the same, and "language", "predicate_id" and "template"
    *.parquet, *.jsonl or *.csv of one's own            language, relation, template, subject, object, and ids (`OWN`)

The same content is the same corpus from each (clause D9). The order of facts within a relation and a language is
content (D1): it is the file's, or, with m_lama's fields, that of `lineid`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

from ...errors import DataError, LanguageError
from .. import files
from ..files import Files

_CODES = (
    "af ar az be bg bn ca ceb cs cy da de el en es et eu fa fi fr ga gl he hi hr hu hy "
    "id it ja ka ko la lt lv ms nl pl pt ro ru sk sl sq sr sv ta th tr uk ur vi zh"
)
#: The languages of the real mLAMA, by which it is recognised.
LANGUAGES = frozenset(_CODES.split())
#: GoogleRE's relations, empty in many languages. The paper's corpus is T-REx's 41 alone, as the authors read it.
GOOGLE_RE = frozenset({"date_of_birth", "place_of_birth", "place_of_death"})
#: What a row of m_lama has, in the order of a Fact, and beside it.
M_LAMA = ("language", "predicate_id", "sub_uri", "obj_uri", "sub_label", "obj_label")
M_LAMA_BESIDE = ("template", "lineid")
#: The columns of a corpus of one's own: these, and an "object_id" where the object's text is not enough.
OWN = ("language", "relation", "template", "subject", "object")
#: By the first of these that a row has, its sentence is parallel to those of other languages in the same relation.
#: A subject is in one split only (D2): with "subject_id" in all its relations, with "fact" in one.
ID = ("subject_id", "fact")


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

    `left_out` counts what the real mLAMA holds and the paper's corpus does not, by reason.
    """

    facts: tuple[Fact, ...]
    templates: Mapping[tuple[str, str], str]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.facts)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(language for language, _ in self.templates))


def read(source: str | Path, languages: Sequence[str] | None = None) -> Facts:
    """Read the facts of `languages` (default: all that are there), language by language in sorted order.

    `source` is a folder, a zip archive or a file in one of the forms above, or a folder with one of them inside.
    DataError: nothing of the kind, a missing template, a broken line, a bad field. LanguageError: no such language.
    """
    path = Path(source)
    if path.is_file() and path.suffix.lower() in (".zip", *files.TABLES):
        if path.suffix.lower() == ".zip":
            return _read_zip(path, languages)
        return _read_tables(files.of_folder(path.parent, path.name), languages)
    for depth in ("", "*/", "*/*/"):
        roots = sorted({found.parent.parent for found in path.glob(f"{depth}*/templates.jsonl")})
        if roots:
            return _read_tree(files.of_folder(_only(roots, path), "*/*.jsonl"), "", languages)
    tables = files.of_folder(path, "**/*")
    openers = {name: opener for name, opener in tables.openers.items() if name.lower().endswith(files.TABLES)}
    if openers:
        return _read_tables(replace(tables, openers=openers), languages)
    archives = sorted(path.glob("**/*.zip"))
    if archives:
        return _read_zip(_only(archives, path), languages)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; expected facts as mLAMA's folder or archive, or as a table")
    raise DataError(
        f"{path}: no facts here; expected <language>/templates.jsonl (mLAMA's folder), a zip archive of it, or a table "
        f"that ends in {', '.join(files.TABLES)}"
    )


def _only(found: Sequence[Path], source: Path) -> Path:
    if len(found) > 1:
        raise DataError(f"{source}: holds facts in several places; name one of {', '.join(map(str, found))}")
    return found[0]


def _chosen(languages: Sequence[str] | None, known: Iterable[str], root: str) -> list[str]:
    ordered = sorted(known)
    for language in languages or ():
        if language not in ordered:
            raise LanguageError(language, ordered, f"in {root}")
    return ordered if languages is None else sorted(set(languages))


def _read_zip(path: Path, languages: Sequence[str] | None) -> Facts:
    with files.of_zip(path) as archive:
        inside = (name.split("/") for name in archive.openers)
        prefixes = {"/".join(parts[:-2]) for parts in inside if len(parts) > 1 and parts[-1] == "templates.jsonl"}
        if not prefixes:
            raise DataError(f"{path}: no <language>/templates.jsonl in this archive; expected mLAMA's")
        if len(prefixes) > 1:
            raise DataError(f"{path}: holds facts in several folders, {', '.join(sorted(prefixes))}; one is expected")
        prefix = prefixes.pop()
        return _read_tree(archive, prefix + "/" if prefix else "", languages)


def _read_tree(source: Files, prefix: str, languages: Sequence[str] | None) -> Facts:
    """mLAMA's layout, whose languages lie at `prefix`."""
    relations: dict[str, dict[str, str]] = {}
    for name in source.openers:
        language, slash, file = name.removeprefix(prefix).partition("/")
        if name.startswith(prefix) and slash and "/" not in file and file.endswith(".jsonl"):
            relations.setdefault(language, {})[file.removesuffix(".jsonl")] = name
    root = source.where(prefix).rstrip("/")
    known = [language for language, names in relations.items() if "templates" in names]
    for language in sorted(set(relations) - set(known)):
        if languages is None or language in languages:
            raise DataError(f"{root}/{language}: has no templates.jsonl; add it, or remove the folder")
    real = set(known) >= LANGUAGES
    same: dict[str, str] = {}
    facts: list[Fact] = []
    templates: dict[tuple[str, str], str] = {}
    left_out: dict[str, int] = {}
    for language in _chosen(languages, known, root):
        names = relations[language]
        told = dict(_read_templates(source, names.pop("templates")))
        templates |= {(language, relation): template for relation, template in told.items()}
        for relation, name in sorted(names.items()):
            read_ = _read_facts(source, name, language, relation, same)
            reason = _reason(relation, language, relation in told) if real else None
            if reason:
                left_out[reason] = left_out.get(reason, 0) + sum(1 for _ in read_)
                continue
            before = len(facts)
            facts += read_
            if len(facts) > before and relation not in told:
                raise DataError(
                    f"{source.where(name)}: no template for relation {relation!r} in "
                    f"{root}/{language}/templates.jsonl; add one"
                )
    return Facts(tuple(facts), templates, {reason: count for reason, count in left_out.items() if count})


def _reason(relation: str, language: str, told: bool) -> str | None:
    """Why the paper's corpus lacks facts of the real mLAMA."""
    if relation in GOOGLE_RE:
        return f"relation {relation}: GoogleRE's, which the paper's corpus leaves out"
    return None if told else f"relation {relation}: no template in language {language!r}"


def _read_templates(source: Files, name: str) -> Iterator[tuple[str, str]]:
    for line, row in files.json_rows(source, name):
        where = f"{source.where(name)}:{line}"
        files.check(row, ("relation", "template"), where)
        _check_template(row["template"], where)
        yield row["relation"], row["template"]


def _check_template(template: str, where: str) -> None:
    if template.count("[X]") != 1 or template.count("[Y]") != 1:
        raise DataError(f"{where}: template {template!r} must hold [X] and [Y] once each")


def _read_facts(source: Files, name: str, language: str, relation: str, same: dict[str, str]) -> Iterator[Fact]:
    file = source.where(name)
    for line, row in files.json_rows(source, name):
        files.check(row, M_LAMA[2:], f"{file}:{line}")
        yield _fact([language, relation, *(row[name] for name in M_LAMA[2:])], file, line, same)


def _fact(told: Sequence[str], file: str, line: int, same: dict[str, str]) -> Fact:
    """A fact whose strings are shared with all others: names and ids recur in every language and relation."""
    language, relation, sub_uri, obj_uri, sub_label, obj_label = (same.setdefault(text, text) for text in told)
    return Fact(language, relation, sub_uri, obj_uri, sub_label, obj_label, file, line)


def _read_tables(source: Files, languages: Sequence[str] | None) -> Facts:
    """Tables with m_lama's fields, or with the columns of a corpus of one's own."""
    shapes = {name: _shape(source, name) for name in source.openers}
    kinds = {kind for kind in shapes.values() if kind}
    if len(kinds) > 1:
        raise DataError(f"{source.root}: some of its tables have m_lama's fields, and some columns of their own")
    same: dict[str, str] = {}
    groups: dict[tuple[str, str], list[tuple[int, Fact]]] = {}
    templates: dict[tuple[str, str], tuple[str, str]] = {}  # with where it was first
    known: set[str] = set()
    untold: dict[tuple[str, str], tuple[int, str]] = {}
    read_ = _m_lama_rows if kinds == {"m_lama"} else _own_rows
    for fact, template, place in chain.from_iterable(
        read_(source, name, languages, known, same) for name, kind in shapes.items() if kind
    ):
        key = (fact.language, fact.relation)
        if not template:
            untold[key] = (untold.get(key, (0,))[0] + 1, fact.source)
            continue
        if key not in templates:
            _check_template(template, fact.source)
            templates[key] = same.setdefault(template, template), fact.source
        elif templates[key][0] != template:
            raise DataError(
                f"{fact.source}: relation {fact.relation!r} has another template in {fact.language!r} than at "
                f"{templates[key][1]}: {template!r} and {templates[key][0]!r}"
            )
        groups.setdefault(key, []).append((place, fact))
    if not known:
        raise DataError(f"{source.root}: no facts in {', '.join(source.openers)}")
    _chosen(languages, known, source.root)
    real = known >= LANGUAGES and kinds == {"m_lama"}
    left_out: dict[str, int] = {}
    for (language, relation), (count, where) in untold.items():
        if not real:
            raise DataError(f"{where}: no template for relation {relation!r} in language {language!r}; add one")
        reason = str(_reason(relation, language, told=False))
        left_out[reason] = left_out.get(reason, 0) + count
    if real:
        for key in [key for key in groups if key[1] in GOOGLE_RE]:
            reason = str(_reason(key[1], key[0], told=True))
            left_out[reason] = left_out.get(reason, 0) + len(groups.pop(key))
            del templates[key]
    facts: list[Fact] = []
    for key in sorted(groups):
        group = groups.pop(key)
        group.sort(key=lambda placed: placed[0])
        facts += [fact for _, fact in group]
    return Facts(tuple(facts), {key: templates[key][0] for key in sorted(templates)}, left_out)


def _shape(source: Files, name: str) -> Literal["m_lama", "own"] | None:
    """What the columns are, or None for a file without rows. DataError: neither of the two."""
    columns = files.columns_of(source, name)
    if not columns:
        return None
    lacks = [column for column in (*M_LAMA, *M_LAMA_BESIDE) if column not in columns]
    own = [column for column in OWN if column not in columns]
    if not any(column in columns for column in ID):
        own.append("subject_id")
    if not lacks:
        return "m_lama"
    if not own:
        return "own"
    wanted, missing = ("m_lama's fields", lacks) if len(lacks) < len(own) else ("a corpus of facts", own)
    raise DataError(
        f"{source.where(name)}: lacks {', '.join(map(repr, missing))} of {wanted}; it has {', '.join(columns)}"
    )


def _m_lama_rows(
    source: Files, name: str, languages: Sequence[str] | None, known: set[str], same: dict[str, str]
) -> Iterator[tuple[Fact, str, int]]:
    """Each fact with its template and lineid."""
    file = source.where(name)
    for line, row in files.rows(source, name, (*M_LAMA, *M_LAMA_BESIDE)):
        where = f"{file}:{line}"
        files.check(row, M_LAMA, where)
        known.add(row["language"])
        if languages is not None and row["language"] not in languages:
            continue
        template, place = row.get("template") or "", row.get("lineid")
        if isinstance(place, str) and place.isdecimal():
            place = int(place)
        if not isinstance(place, int) or isinstance(place, bool):
            raise DataError(f"{where}: field 'lineid' must be a whole number, got {place!r}: it is the order of facts")
        if not isinstance(template, str):
            raise DataError(f"{where}: field 'template' must be text, got {template!r}")
        yield _fact([row[column] for column in M_LAMA], file, line, same), template, place


def _own_rows(
    source: Files, name: str, languages: Sequence[str] | None, known: set[str], same: dict[str, str]
) -> Iterator[tuple[Fact, str, int]]:
    """Each fact with its template; the order is the file's."""
    file = source.where(name)
    for line, row in files.rows(source, name, (*OWN, *ID, "object_id")):
        where = f"{file}:{line}"
        given = next((column for column in ID if column in row), ID[0])
        files.check(row, [*OWN, given, *(["object_id"] if "object_id" in row else [])], where)
        language, object_ = row["language"], row["object"]
        files.check_language(language, where)
        known.add(language)
        if languages is None or language in languages:
            told = [language, row["relation"], row[given], row.get("object_id") or object_, row["subject"], object_]
            yield _fact(told, file, line, same), row["template"], 0
