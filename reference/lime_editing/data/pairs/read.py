"""Sentence pairs (§4.3, §A.2, chapter D): XNLI in all its formats, and a user's corpus.

XNLI's schema    premise {language: text}, hypothesis {"language": [...], "translation": [...]}, label: parquet (the
                 hub's `all_languages`, with or without its card) or what `save_to_disk` writes; memory-mapped
tables           one row per pair and language (`COLUMNS`): XNLI-1.0's .jsonl and .tsv, XNLI-MT-1.0's .tsv, the hub's
                 configurations of one language each, a user's tables; held in memory

Rows with the same id are parallel; without ids, rows with the same line number. Split and language are columns, or part
of a file's or folder's name. If a row lacks a language or its text is blank, the pair is missing in that language, and
I(x) is smaller (clause S8). Labels are names or numbers; XNLI's names may have other spellings.
"""

from __future__ import annotations

import glob
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc

from ... import checks
from ...errors import DataError
from ...names import JUDGED, PIVOT, SPLITS, Split
from .. import files
from ..files import Files

CONFIG = "all_languages"
PATTERNS = (f"{CONFIG}/*",)
NAMES = ("entailment", "neutral", "contradiction")
#: Column → its names in tables; the first that exists is used.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "pairID"),
    "language": ("language",),
    "premise": ("premise", "sentence1"),
    "hypothesis": ("hypothesis", "hypo", "sentence2"),
    "label": ("label", "gold_label"),
}
#: Other spellings of XNLI's classes; XNLI-MT-1.0 uses the first.
SPELLINGS = {"contradictory": "contradiction", "contradicts": "contradiction"}
SPELLINGS |= dict.fromkeys(("entails", "entailed", "entail"), "entailment")
EXPECTED = "sentence pairs: a folder, archive or table of XNLI, or a table of pairs (docs/data-and-models.md)"
#: Words in the names of files and folders → split.
_WORDS: Mapping[str, Split] = {
    "train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"
}  # fmt: skip
#: The types of each column: in the hub's schema, and in files of other libraries.
_SCHEMA = {
    "premise": ("Translation", "dict"),
    "hypothesis": ("TranslationVariableLanguages", "dict"),
    "label": ("ClassLabel", "Value"),
}
_CODE = re.compile(r"[a-z]{2,3}([-_][A-Za-z]{2,4})?")


@dataclass(frozen=True)
class Pairs:
    """The rows of each split, the chosen languages, and the classes in the data's order.

    `lacking` holds (row, language) of missing texts. `notes` are sentences on choices made while reading.
    """

    rows: Mapping[Split, Any]
    languages: tuple[str, ...]
    classes: tuple[str, ...]
    lacking: Mapping[Split, frozenset[tuple[int, str]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.rows.values())


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    nested: bool  # in XNLI's schema
    split: Split | None
    language: str | None = None
    classes: tuple[str, ...] = ()  # the names of its numbered labels, if the file has them


#: The rows of each split in XNLI's schema, the classes, and notes.
_Loaded = tuple[dict[Split, Any], tuple[str, ...], list[str]]


def read(source: str | Path, languages: Sequence[str] | None = None) -> Pairs:
    """Sentence pairs in some languages (default: all) of a folder, a zip archive, a table, a URL, or a hub data set."""
    with files.located(source, EXPECTED, PATTERNS) as found:
        loaded, classes, notes = _loaded(found)
        for split in JUDGED:
            if split not in loaded:
                raise DataError(f"{source}: no split {split!r}; found {', '.join(loaded) or 'none'}")
        if "train" not in loaded:
            notes.append("no train pairs, which the editors' trainings need; XNLI's own are in XNLI-MT-1.0")
            loaded["train"] = loaded["test"].select([])
        taken, more = files.chosen(languages, _codes(loaded["test"]), str(source))
        rows = {split: loaded[split] for split in SPLITS}
        lacking = {split: _lacking(rows[split], taken, len(classes), f"{source}, split {split!r}") for split in SPLITS}
        return Pairs(rows, tuple(taken), classes, lacking, (*notes, *more))


def _loaded(found: Files) -> _Loaded:
    whole = [name for name in found.tables if CONFIG in Path(name).parts[:-1]]
    notes = [*found.notes]
    if whole and len(whole) < len(found.tables):
        notes.append(f"read from {CONFIG} alone, which has the pairs of the other folders, too")
    by_split: dict[Split | None, list[str]] = {}
    for name in whole or found.tables:
        words = [word for part in reversed(Path(name.lower()).parts) for word in re.split(r"[^a-z]+", part)]
        by_split.setdefault(next((_WORDS[word] for word in words if word in _WORDS), None), []).append(name)
    kept: dict[str, Split | None] = {}
    for split, names in by_split.items():
        once, left = files.once(found, names)
        notes += left
        kept |= dict.fromkeys(once, split)
    for strict in (False, True):  # ignore tables of other kinds; if there are no others, refuse them
        known = {name: _table(found, name, split, strict) for name, split in kept.items()}
        if tables := [table for table in known.values() if table]:
            break
    notes += [f"left out: {name}, which is no table of pairs" for name, table in known.items() if tables and not table]
    if len({table.nested for table in tables}) > 1:
        raise DataError(f"{found.root}: some tables have XNLI's schema, and some one row a language; give one kind")
    checks.refuse(DataError, checks.of_tables({table.name: table.split for table in tables}), at=found.root)
    rows, classes, more = (_nested if tables and tables[0].nested else _of_rows)(found, tables)
    return rows, classes, [*notes, *more]


def _table(found: Files, name: str, split: Split | None, strict: bool) -> _Table | None:
    """The description of a table; None if it is empty, of two languages, or of another kind (`strict`: DataError)."""
    columns, where, classes = files.columns_of(found, name), found.where(name), ()
    if files.kind(name) in (".parquet", files.SAVED):
        with files.columnar(found, name) as (schema, _):
            features = datasets.Features.from_arrow_schema(schema)
        if not all(isinstance(features.get(one), (datasets.Value, NoneType)) for one in ("premise", "hypothesis")):
            if split is None:
                raise DataError(f"{where}: its name or folder must contain its split, one of {', '.join(SPLITS)}")
            return _Table(name, columns, True, split)
        classes = tuple(getattr(features.get("label"), "names", ()))
    words = [word for word in Path(name.removesuffix(".gz")).name.split(".")[1:-1] if _CODE.fullmatch(word)]
    named = [word for word in words if word not in _WORDS] or [Path(name).parent.name]
    language = named[0] if _CODE.fullmatch(named[0]) else PIVOT if "multinli" in name else None
    language = None if "language" in columns else language
    wanted = {one: names for one, names in COLUMNS.items() if not language or one not in ("id", "language")}
    lacking = files.lacking(columns, wanted.values())
    lacking += ["split"] if split is None and "split" not in columns else []
    if not columns or len(named) > 1 or (len(lacking) > 2 and not strict):
        return None
    if lacking:
        raise files.lacks(where, lacking, "a corpus of sentence pairs", columns, "sentence pairs")
    return _Table(name, columns, False, split, language, classes)


def _nested(found: Files, tables: Sequence[_Table]) -> _Loaded:
    loaded: dict[Split, Any] = {}
    checks.refuse(DataError, checks.of_parts({found.where(t.name): str(t.split) for t in tables}, NAMES, spelled))
    for split in (split for split in SPLITS if any(table.split == split for table in tables)):
        names = [table.name for table in tables if table.split == split]
        if files.kind(names[0]) == files.SAVED:
            loaded[split] = datasets.load_from_disk(str(Path(found.where(names[0])).parent))
        elif found.path(names[0]):
            # `datasets` treats brackets and stars in a path as a pattern.
            paths = [glob.escape(found.where(name)) for name in names]
            loaded[split] = datasets.load_dataset("parquet", data_files={split: paths})[split]
        else:
            raise DataError(f"{found.where(names[0])}: XNLI's schema is only read from a folder; unpack the archive")
        _check_schema(loaded[split].features, f"{found.root}, split {split!r}")
        if _codes(loaded[split]) != _codes(next(iter(loaded.values()))):
            raise DataError(f"{found.root}, split {split!r}: has other languages than the earlier splits")
    label = next(iter(loaded.values())).features["label"]
    if isinstance(label, datasets.ClassLabel):
        return loaded, tuple(spelled(name) for name in label.names), []
    # Another library wrote the file, without the names of the classes.
    values = {value for rows in loaded.values() for value in rows.unique("label")} - {None}
    classes, notes = _names({spelled(value) for value in values}, found.root)
    if label.dtype in ("string", "large_string"):
        numbers = {value: classes.index(spelled(value)) for value in values}
        for split, rows in loaded.items():
            told = [numbers.get(value, -1) for value in rows["label"][:]]
            loaded[split] = rows.remove_columns("label").add_column("label", told)
    return loaded, classes, notes


def _codes(rows: Any) -> list[str]:
    premise = rows.features["premise"]
    return sorted(premise if isinstance(premise, dict) else premise.languages)


def _check_schema(features: Any, where: str) -> None:
    if str(getattr(features.get("label"), "dtype", "")).startswith(("float", "bool", "double", "timestamp", "date")):
        raise DataError(f"{where}: column 'label' must have whole numbers or names, found {features['label'].dtype}")
    for name, kinds in _SCHEMA.items():
        found = type(features[name]).__name__ if name in features else "no such column"
        keys = features[name] if (name, found) == ("hypothesis", "dict") else ("language", "translation")
        if found not in kinds or not {"language", "translation"} <= set(keys):
            raise DataError(f"{where}: column {name!r} must be {kinds[0]}, found {found}")


def _of_rows(found: Files, tables: Sequence[_Table]) -> _Loaded:
    pairs: dict[Split, dict[str, dict[str, Any]]] = {split: {} for split in SPLITS}
    home: dict[str, Split] = {}  # the split of each id; a user's ids are unique over all splits
    left: Counter[str] = Counter()
    for table in tables:
        named = {one: next((name for name in names if name in table.columns), "") for one, names in COLUMNS.items()}
        named["language"] = "" if table.language else named["language"]
        given = [name for one, name in named.items() if name and one != "label"]
        for i, (line, row) in enumerate(files.rows(found, table.name, [*named.values(), "split"])):
            where, label, own = f"{found.where(table.name)}:{line}", row.get(named["label"]), named["id"] == "id"
            if isinstance(label, int) and 0 <= label < len(table.classes):
                label = table.classes[label]
            if not own and (label == "-" or None in (row.get(named["premise"]), row.get(named["hypothesis"]))):
                left["no gold label" if label == "-" else "a blank text"] += 1
                continue
            told = dict(zip(given, files.texts(row, given, where, COLUMNS["id"]), strict=True))
            split, name = _split_of(row, table, where), told.get(named["id"], str(i))
            language, label = table.language or told[named["language"]], _label(label, where)
            files.check_language(language, where)
            if own and home.setdefault(name, split) != split:
                raise DataError(f"{where}: id {name!r} is in {home[name]} and in {split}; its pairs are in one split")
            pair = pairs[split].setdefault(name, {"premise": {}, "hypothesis": {}, "label": label})
            if language in pair["premise"]:
                raise DataError(f"{where}: id {name!r} occurs twice in language {language!r}; give each its own")
            if pair["label"] != label:
                both = f"{label!r}, and {pair['label']!r} in another language"
                raise DataError(f"{where}: label of id {name!r} is {both}")
            pair["premise"][language], pair["hypothesis"][language] = told[named["premise"]], told[named["hypothesis"]]
    kept = {split: list(rows.values()) for split, rows in pairs.items() if rows}
    checks.refuse(DataError, not kept and f"{found.root}: it has no sentence pairs; give a table with rows")
    names, notes = _names({pair["label"] for rows in kept.values() for pair in rows}, found.root)
    notes += [f"{count:,} rows with {reason} are left out" for reason, count in left.items()]
    codes = sorted({code for rows in kept.values() for pair in rows for code in pair["premise"]})
    return {split: _dataset(rows, codes, names) for split, rows in kept.items()}, names, notes


def _dataset(pairs: Sequence[Mapping[str, Any]], codes: Sequence[str], names: Sequence[str]) -> Any:
    numbers = {name: i for i, name in enumerate(names)} | {i: i for i in range(len(names))}
    columns = {
        "premise": [{code: pair["premise"].get(code) for code in codes} for pair in pairs],
        "hypothesis": [dict(sorted(pair["hypothesis"].items())) for pair in pairs],
        "label": [numbers[pair["label"]] for pair in pairs],
    }
    features = datasets.Features(
        premise=datasets.Translation(codes),
        hypothesis=datasets.TranslationVariableLanguages(codes),
        label=datasets.ClassLabel(names=list(names)),
    )
    return datasets.Dataset.from_dict(columns, features=features)


def _split_of(row: Mapping[str, Any], table: _Table, where: str) -> Split:
    split: Any = row.get("split") if "split" in table.columns else table.split
    if split not in SPLITS or table.split not in (None, split):
        meant = f"{table.split}, as the name of the file says" if table.split else f"one of {', '.join(SPLITS)}"
        raise DataError(f"{where}: field 'split' must be {meant}, got {split!r}")
    return split  # type: ignore[no-any-return]


def _label(label: Any, where: str) -> str | int:
    if isinstance(label, str) and re.fullmatch(r"-|nan|<na>|n/a|-?\d*\.\d*|-\d+", label.strip().casefold()):
        raise DataError(
            f"{where}: field 'label' is {label!r}, which is no class; give its name, or its number from 0, and remove "
            "pairs without a gold label"
        )
    if isinstance(label, str) and label.strip():
        return int(label) if label.isdecimal() else str(spelled(label))
    if isinstance(label, int) and not isinstance(label, bool) and label >= 0:
        return label
    raise DataError(f"{where}: field 'label' must be the name of a class or its number, got {label!r}")


def spelled(label: Any) -> Any:
    """The name of an XNLI class in any spelling; other labels are unchanged."""
    name = SPELLINGS.get(str(label).lower(), str(label).lower())
    return name if name in NAMES else label


def _names(labels: set[Any], source: str) -> tuple[tuple[str, ...], list[str]]:
    """The classes in XNLI's order, or sorted if they are not XNLI's; and a note if the order is assumed."""
    if any(str(label) != str(label).strip() for label in labels):
        raise DataError(f"{source}: labels {sorted(labels, key=repr)} have spaces around them; remove the spaces")
    if labels <= set(NAMES):
        return NAMES, []
    if labels <= set(range(len(NAMES))):
        return NAMES, [f"labels 0, 1 and 2 are taken for {', '.join(NAMES)}, which is XNLI's order"]
    if not all(isinstance(label, str) for label in labels):
        raise DataError(f"{source}: labels {', '.join(sorted(map(str, labels)))} must be names, or 0, 1 and 2")
    if len({label.casefold() for label in labels}) < len(labels):
        told = ", ".join(sorted(labels))
        raise DataError(f"{source}: labels {told} differ in case only; write each class in one way")
    return tuple(sorted(labels)), []


def _lacking(rows: Any, languages: Sequence[str], classes: int, where: str) -> frozenset[tuple[int, str]]:
    """The missing texts: (row, language). It works on whole columns, because XNLI has twelve million texts."""
    found, start = set[tuple[int, str]](), 0
    for table in rows.with_format("arrow").iter(10_000):
        for i, label in enumerate(table["label"].to_pylist()):
            if label is None or not 0 <= label < classes:
                place = f"{where}, row {start + i}"
                raise DataError(f"{place}: field 'label' must be one of {classes} classes, got {label}")
        premise, hypothesis = (table[name].combine_chunks() for name in ("premise", "hypothesis"))
        spoken, said = hypothesis.field("language"), hypothesis.field("translation")
        codes, texts = spoken.flatten(), said.flatten()
        owner = pc.list_parent_indices(spoken)
        for language in languages:
            present = np.zeros(len(table), dtype=bool)
            mine = pc.and_(pc.equal(codes, language), _told(texts))
            present[owner.filter(mine).to_numpy()] = True
            present &= _told(premise.field(language)).to_numpy(zero_copy_only=False)
            found |= {(start + int(row), language) for row in np.flatnonzero(~present)}
        start += len(table)
    return frozenset(found)


def _told(texts: Any) -> Any:
    return pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(texts), ""), False)


def fingerprint(pairs: Pairs) -> str:
    """A digest of the content, independent of its source."""
    digest = hashlib.blake2b(repr((pairs.languages, pairs.classes)).encode(), digest_size=8)
    for split in SPLITS:
        for table in pairs.rows[split].with_format("arrow").iter(1000):
            digest.update(repr(texts_of(table)).encode())
    return digest.hexdigest()


def texts(row: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """{language: (premise, hypothesis)} of one row, in the languages that it has."""
    hypothesis = dict(zip(row["hypothesis"]["language"], row["hypothesis"]["translation"], strict=True))
    both = ((language, text, hypothesis.get(language)) for language, text in row["premise"].items())
    return {language: (premise, text) for language, premise, text in both if premise is not None and text is not None}


def texts_of(table: Any) -> list[dict[str, tuple[str, str]]]:
    """`texts` of every row of an arrow table."""
    return [texts(row) for row in table.select(["premise", "hypothesis"]).to_pylist()]
