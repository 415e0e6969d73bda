"""Sentence pairs (XNLI, or a user's corpus): inputs of two texts, whose class is predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ...names import SPLITS
from .. import Dataset, Predict, Reader
from ..examination import Examination, Language, empty, longer
from .question import question
from .read import PATTERNS, fingerprint, read
from .task import accuracy_of, errors, labelled, misfits, tasks, too_long

ASKED = 300  # test pairs that a classifier predicts: enough to see whether its classes match the data's


def examine(
    source: str, languages: Sequence[str] | None, reader: Reader | None, predict: Predict | None = None, key: str = ""
) -> Examination:
    """The report on the sentence pairs in some languages (default: all). Errors: as of `read`."""
    pairs = read(source, languages)
    lacking = {split: Counter(code for _, code in pairs.lacking[split]) for split in SPLITS}
    found, splits = dict[str, Language](), dict[str, dict[str, int]]()
    for code in pairs.languages:
        has = {str(split): len(pairs.rows[split]) - lacking[split][code] for split in SPLITS}
        found[code] = Language(sum(has.values()), len(pairs) - sum(has.values()), has)
    for split, rows in pairs.rows.items():
        classes = Counter(rows.with_format("numpy")["label"][:].tolist())
        splits[split] = {"pairs": len(rows), **{name: classes[i] for i, name in enumerate(pairs.classes)}}
    inputs = sum(language.has for language in found.values())
    counts = {"pairs": len(pairs), "inputs": inputs, "languages": len(found), "classes": len(pairs.classes)}
    blank = "a premise or hypothesis is missing or blank in its language"
    skipped = {f"of {split}: {blank}": sum(of.values()) for split, of in lacking.items() if of}
    remarks = [*pairs.notes, *empty(found, splits)]
    for part, numbers in splits.items():
        remarks += [f"{part} has no pair of class {name!r}" for name in pairs.classes if not numbers[name]]
    if reader is not None:
        few = {**pairs.rows, "test": pairs.rows["test"].select(range(min(len(pairs.rows["test"]), ASKED)))}
        remarks += misfits(replace(pairs, rows=few), reader, predict, f"{key}{fingerprint(pairs)}")
        for split in SPLITS if reader.longest else ():
            cut = too_long(pairs, reader.tokenizer, reader.longest or 0, split)
            long = [f"{split}/{i} in {code!r} has {n}" for i, code, n in cut]
            remarks += longer(long, f"inputs of {split}", reader.longest, "are cut")
    return Examination("nli", source, fingerprint(pairs), found, counts, splits, skipped, tuple(remarks))


DATASET = Dataset(
    name="nli",
    title="NLI",
    classifies=True,
    patterns=PATTERNS,
    read=read,
    fingerprint=fingerprint,
    tasks=tasks,
    remarks=lambda source, pairs: list(pairs.notes),
    misfits=misfits,
    errors=errors,
    labelled=labelled,
    accuracy=accuracy_of,
    question=question,
    examine=examine,
)
