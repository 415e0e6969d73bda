"""Sentence pairs of one's own, from tables: one row per pair and language.

    id, language, premise, hypothesis, label    and "split", or the files train.*, validation.* and test.*

Rows of one id are parallel. A label is a name, the same in all languages, or XNLI's number of it. A pair may lack
languages. The rows are held in memory: six million of them belong in XNLI's own schema, which is memory-mapped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from ...errors import DataError
from ...names import SPLITS
from .. import files

COLUMNS = ("id", "language", "premise", "hypothesis", "label")
CONFIG = "all_languages"
NAMES = ("entailment", "neutral", "contradiction")
Tables = Mapping[str, tuple[Path, ...]]


def found(path: Path) -> Tables | None:
    """The tables of a folder by split, or one file under "": its column says the split. None: no such tables."""
    if path.is_file() and path.name.lower().endswith(files.TABLES):
        return {"": (path,)}
    if not path.is_dir() or names_configuration(path):
        return None
    tables: dict[str, tuple[Path, ...]] = {
        split: tuple(p for p in sorted(path.glob(f"{split}*")) if p.name.lower().endswith(files.TABLES))
        for split in SPLITS
    }
    if not any(tables.values()):
        return None
    first = next(paths[0] for paths in tables.values() if paths)
    nested = "id" not in files.columns_of(files.of_folder(first.parent, first.name), first.name)
    return None if nested and first.suffix.lower() == ".parquet" else tables


def names_configuration(folder: Path) -> bool:
    """Whether a folder is laid out as on the hub, with a card that says which files are which split."""
    card = folder / "README.md"
    return card.is_file() and CONFIG in card.read_text(encoding="utf-8", errors="replace")


def read(tables: Tables, source: str) -> dict[str, Any]:
    """{split: rows in XNLI's schema}. DataError: a bad field, an id that is told twice, or labels that disagree."""
    pairs: dict[str, dict[str, dict[str, Any]]] = {split: {} for split in SPLITS if split in tables or "" in tables}
    home: dict[str, str] = {}  # id → split
    for split, paths in tables.items():
        for path in paths:
            source_ = files.of_folder(path.parent, path.name)
            _check_columns(files.columns_of(source_, path.name), str(path), () if split else ("split",))
            for line, row in files.rows(source_, path.name, (*COLUMNS, "split")):
                where = f"{path}:{line}"
                _add(pairs, home, row, split or _split(row, where), where)
    kept = {split: rows for split, rows in pairs.items() if rows}
    if not kept:
        raise DataError(f"{source}: no sentence pairs in it")
    labels = {pair["label"] for rows in kept.values() for pair in rows.values()}
    names = _names(labels, source)
    languages = sorted({code for rows in kept.values() for pair in rows.values() for code in pair["premise"]})
    features = datasets.Features(
        premise=datasets.Translation(languages),
        hypothesis=datasets.TranslationVariableLanguages(languages),
        label=datasets.ClassLabel(names=list(names)),
    )
    return {split: _rows(list(rows.values()), languages, names, features) for split, rows in kept.items()}


def _rows(pairs: Sequence[Mapping[str, Any]], languages: Sequence[str], names: Sequence[str], features: Any) -> Any:
    numbers = {name: i for i, name in enumerate(names)} | {i: i for i in range(len(names))}
    columns = {
        "premise": [{code: pair["premise"].get(code) for code in languages} for pair in pairs],
        "hypothesis": [dict(sorted(pair["hypothesis"].items())) for pair in pairs],
        "label": [numbers[pair["label"]] for pair in pairs],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def _check_columns(columns: Sequence[str], where: str, more: Sequence[str]) -> None:
    lacks = [name for name in (*COLUMNS, *more) if name not in columns]
    if columns and lacks:
        raise DataError(
            f"{where}: lacks {', '.join(map(repr, lacks))} of a corpus of sentence pairs; it has {', '.join(columns)}"
        )


def _split(row: Mapping[str, Any], where: str) -> str:
    split = row.get("split")
    if split not in SPLITS:
        raise DataError(f"{where}: field 'split' must be one of {', '.join(SPLITS)}, got {split!r}")
    return str(split)


def _add(
    pairs: Mapping[str, dict[str, dict[str, Any]]], home: dict[str, str], row: dict[str, Any], split: str, where: str
) -> None:
    if isinstance(row.get("id"), int):
        row["id"] = str(row["id"])
    files.check(row, COLUMNS[:-1], where)
    name, language, label = row["id"], row["language"], _label(row.get("label"), where)
    files.check_language(language, where)
    if home.setdefault(name, split) != split:
        raise DataError(f"{where}: id {name!r} is in {home[name]} and in {split}; parallel pairs belong in one split")
    pair = pairs[split].setdefault(name, {"premise": {}, "hypothesis": {}, "label": label})
    if language in pair["premise"]:
        raise DataError(f"{where}: id {name!r} is told twice in language {language!r}; ids are of parallel pairs")
    if pair["label"] != label:
        raise DataError(f"{where}: label of id {name!r} is {label!r}, and {pair['label']!r} in another language")
    pair["premise"][language], pair["hypothesis"][language] = row["premise"], row["hypothesis"]


def _label(label: Any, where: str) -> str | int:
    if isinstance(label, str) and label.strip():
        return int(label) if label.isdecimal() else label
    if isinstance(label, int) and not isinstance(label, bool) and label >= 0:
        return label
    raise DataError(f"{where}: field 'label' must be the name of a class or its number, got {label!r}")


def _names(labels: set[str | int], source: str) -> tuple[str, ...]:
    """The classes in order: XNLI's where they are those, else sorted."""
    if labels <= set(NAMES) or labels <= set(range(len(NAMES))):
        return NAMES
    if not all(isinstance(label, str) for label in labels):
        raise DataError(f"{source}: labels {', '.join(sorted(map(str, labels)))} are neither names nor 0, 1 and 2")
    return tuple(sorted(str(label) for label in labels))
