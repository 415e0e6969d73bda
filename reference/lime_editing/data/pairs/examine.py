"""What `check-data` says of sentence pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ...names import SPLITS
from .. import Reader
from ..examination import Examination, Language, empty, some
from .read import fingerprint, read
from .task import too_long


def examine(source: str, languages: Sequence[str] | None, reader: Reader | None) -> Examination:
    """What the sentence pairs of some languages (default: all) hold. Errors: as of `read`."""
    pairs = read(source, languages)
    lacking = {split: Counter(code for _, code in pairs.lacking[split]) for split in SPLITS}
    found = {
        code: Language(
            sum(len(rows) - lacking[split][code] for split, rows in pairs.rows.items()),
            sum(counts[code] for counts in lacking.values()),
            {split: len(rows) - lacking[split][code] for split, rows in pairs.rows.items()},
        )
        for code in pairs.languages
    }
    splits: dict[str, dict[str, int]] = {}
    for split, rows in pairs.rows.items():
        classes = Counter(rows.with_format("numpy")["label"][:].tolist())
        splits[split] = {"pairs": len(rows), **{name: classes[i] for i, name in enumerate(pairs.classes)}}
    counts = {
        "pairs": len(pairs),
        "inputs": sum(language.has for language in found.values()),
        "languages": len(found),
        "classes": len(pairs.classes),
    }
    skipped = {
        f"of {split}: a premise or hypothesis is missing or blank in its language": sum(counts_.values())
        for split, counts_ in lacking.items()
    }
    remarks = list(empty(found, splits))
    for part, numbers in splits.items():
        remarks += [f"{part} has no pair of class {name!r}" for name in pairs.classes if not numbers[name]]
    if reader is not None and reader.longest is not None:
        for split in SPLITS:
            long = [
                f"{split}/{i} in {code!r} has {n}"
                for i, code, n in too_long(pairs, reader.tokenizer, reader.longest, split)
            ]
            if long:
                remarks.append(
                    f"{len(long):,} inputs of {split} are longer than {reader.longest} tokens and are cut: {some(long)}"
                )
    kept = {reason: count for reason, count in skipped.items() if count}
    return Examination("nli", source, fingerprint(pairs), found, counts, splits, kept, tuple(remarks))
