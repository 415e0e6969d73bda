"""The report of `check-data`: the content of a corpus, gaps by language, and what a run would skip and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..names import PIVOT


@dataclass(frozen=True, slots=True)
class Language:
    """One language: the number of facts or pairs it has and lacks, the number by split, and missing relations."""

    has: int
    lacks: int
    splits: dict[str, int]
    lacking_relations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Examination:
    """The report. `skipped`: counts by reason; `remarks`: problems for a run."""

    task: str
    source: str
    fingerprint: str
    languages: dict[str, Language]
    counts: dict[str, int]
    splits: dict[str, dict[str, int]]
    skipped: dict[str, int]
    remarks: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def empty(languages: dict[str, Language], splits: dict[str, dict[str, int]]) -> Iterator[str]:
    for split in splits:
        without = [code for code, language in languages.items() if not language.splits[split]]
        if without:
            yield f"no {split} items in {', '.join(without)}: a run wants these languages left out (--languages)"
    if PIVOT not in languages:
        yield f"no {PIVOT!r}: a run edits in English, and trains on it (training en)"


def some(names: Sequence[str], shown: int = 5, separator: str = "; ") -> str:
    return separator.join([*names[:shown], *["…"] * (len(names) > shown)]) or "none"


def longer(found: Sequence[str], what: str, longest: int | None, so: str) -> list[str]:
    return [f"{len(found):,} {what} are longer than {longest} tokens and {so}: {some(found)}"] if found else []
