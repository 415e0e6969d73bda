"""XNLI (§4.3, §A.2, chapter D): parallel sentence pairs, read with `datasets` from a hub id or a folder of that schema.

premise     Translation                      {language: text}
hypothesis  TranslationVariableLanguages     {"language": [...], "translation": [...]}
label       ClassLabel(entailment, neutral, contradiction)

A corpus of one's own is read from tables (tables.py) and has this schema from then on. A row may lack a language, or
have a blank text in it: the pair is then missing in that language, and I(x) is smaller (clause S8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import DataError, LanguageError
from ...names import SPLITS, Split
from . import tables
from .tables import CONFIG


@dataclass(frozen=True)
class Pairs:
    """The rows of each split, memory-mapped, the chosen languages, and the classes in the data's order."""

    rows: Mapping[Split, Any]
    languages: tuple[str, ...]
    classes: tuple[str, ...]
    lacking: Mapping[Split, frozenset[tuple[int, str]]] = field(default_factory=dict)  # (row, language) not said

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.rows.values())


def read(source: str, languages: Sequence[str] | None = None) -> Pairs:
    """Load sentence pairs in some languages (default: all): XNLI's `all_languages` of a folder or hub id, or tables.

    DataError: not there, of another schema, or a row without a class. LanguageError: no such language.
    """
    own = tables.found(Path(source))
    loaded = tables.read(own, source) if own else _load(source)
    for split in SPLITS:
        if split not in loaded:
            raise DataError(f"{source}: no split {split!r}; found {', '.join(loaded)}")
        if not own:
            _check_schema(loaded[split].features, f"{source}, split {split!r}")
    features = loaded["train"].features
    known = sorted(features["premise"].languages)
    for language in languages or ():
        if language not in known:
            raise LanguageError(language, known, f"in {source}")
    chosen = tuple(sorted(set(languages))) if languages else tuple(known)
    classes = tuple(features["label"].names)
    rows = {split: loaded[split] for split in SPLITS}
    lacking = {split: _lacking(rows[split], chosen, len(classes), f"{source}, split {split!r}") for split in SPLITS}
    return Pairs(rows, chosen, classes, lacking)


def _load(source: str) -> Any:
    folder = Path(source)
    where = str(folder.resolve()) if folder.is_dir() else source
    bare = {split: sorted(map(str, folder.glob(f"**/{split}*.parquet"))) for split in SPLITS if folder.is_dir()}
    try:
        if any(bare.values()) and not tables.names_configuration(folder):
            return datasets.load_dataset("parquet", data_files={name: paths for name, paths in bare.items() if paths})
        return datasets.load_dataset(where, CONFIG)
    except (OSError, ValueError, datasets.exceptions.DatasetsError, pa.ArrowException) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise DataError(
            f"cannot load {CONFIG!r} from {source!r}: {reason} Expected a hub id, a folder of parquet files whose "
            f"README.md names the configuration {CONFIG!r}, or tables of sentence pairs."
        ) from error


def _lacking(rows: Any, languages: Sequence[str], classes: int, where: str) -> frozenset[tuple[int, str]]:
    """What is not said: (row, language). Whole columns at a time, for XNLI has twelve million texts.

    DataError: a row whose class is none of the data's.
    """
    found: set[tuple[int, str]] = set()
    start = 0
    for table in rows.with_format("arrow").iter(10_000):
        for i, label in enumerate(table["label"].to_pylist()):
            if label is None or not 0 <= label < classes:
                raise DataError(
                    f"{where}, row {start + i}: field 'label' must be one of {classes} classes, got {label}"
                )
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
    """A digest of the content, wherever it was read from."""
    digest = hashlib.blake2b(repr((pairs.languages, pairs.classes)).encode(), digest_size=8)
    for split in SPLITS:
        for table in pairs.rows[split].with_format("arrow").iter(1000):
            digest.update(repr(texts_of(table)).encode())
    return digest.hexdigest()


def texts(row: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """{language: (premise, hypothesis)} of one row, in the languages that it is said in."""
    hypothesis = dict(zip(row["hypothesis"]["language"], row["hypothesis"]["translation"], strict=True))
    both = ((language, text, hypothesis.get(language)) for language, text in row["premise"].items())
    return {language: (premise, text) for language, premise, text in both if premise is not None and text is not None}


def texts_of(table: Any) -> list[dict[str, tuple[str, str]]]:
    """`texts` of every row of an arrow table, column by column: twelve million texts take minutes."""
    premise, hypothesis = (table[name].combine_chunks() for name in ("premise", "hypothesis"))
    premises = {premise.type.field(i).name: premise.field(i).to_pylist() for i in range(premise.type.num_fields)}
    languages, texts = (hypothesis.field(name).to_pylist() for name in ("language", "translation"))
    rows = []
    for i, (spoken, said) in enumerate(zip(languages, texts, strict=True)):
        other = dict(zip(spoken, said, strict=True))
        both = ((language, column[i], other.get(language)) for language, column in premises.items())
        rows.append({language: (a, b) for language, a, b in both if a is not None and b is not None})
    return rows


def _check_schema(features: Any, where: str) -> None:
    expected = {
        "premise": datasets.Translation,
        "hypothesis": datasets.TranslationVariableLanguages,
        "label": datasets.ClassLabel,
    }
    for name, kind in expected.items():
        if not isinstance(features.get(name), kind):
            found = type(features[name]).__name__ if name in features else "no such column"
            raise DataError(f"{where}: column {name!r} must be {kind.__name__}, found {found}")
