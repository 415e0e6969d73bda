"""Failures that an implementation knows of, as `--xfails FILE` names them: TOML, a reason for each.

    [[xfail]]
    clause = "E8"
    reason = "edits are made one at a time, and padded edits differ: issue 12"

    [[xfail]]
    test = "test_m_metrics.py::test_both_zero"    # the end of a test's id; without brackets all its cases
    reason = "..."

An entry stands for all tests that carry its clause, or for those that it names. One that matches no test, or of whose
tests none fails, is an error: the file says no more than what is so.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .conformance import SuiteError, clauses
from .verdicts import Result, judged


@dataclass(frozen=True)
class Known:
    """One entry: a clause or a test, and the reason."""

    number: int
    kind: str
    name: str
    reason: str

    def matches(self, nodeid: str, named: Iterable[str]) -> bool:
        if self.kind == "clause":
            return self.name in named
        return ends_with(nodeid, self.name)

    @property
    def label(self) -> str:
        return f"entry {self.number} ({self.kind} {self.name})"


def ends_with(nodeid: str, name: str) -> bool:
    """Whether a test goes by this name: its id or the end of it, with or without its case in brackets."""
    return any(full == name or full.endswith(("/" + name, "::" + name)) for full in (nodeid, nodeid.partition("[")[0]))


def read(path: Path) -> list[Known]:
    """The entries of a file.

    Errors: SuiteError where the file is unreadable, no TOML, or an entry lacks a reason or names no known clause.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = f"cannot be read: {error.strerror}; expected a file of [[xfail]] entries"
        raise SuiteError(f"--xfails {path}: {why}") from error
    except ValueError as error:
        raise SuiteError(f"--xfails {path} is not TOML ({error}); expected [[xfail]] entries") from error
    entries = content.get("xfail")
    if set(content) != {"xfail"} or not isinstance(entries, list):
        raise SuiteError(f"--xfails {path}: expected [[xfail]] entries and nothing else, found {sorted(content)}")
    return [_known(path, number, entry) for number, entry in enumerate(entries, 1)]


def _known(path: Path, number: int, entry: Mapping[str, Any]) -> Known:
    where = f"--xfails {path}: entry {number}"
    kinds = [kind for kind in ("clause", "test") if kind in entry]
    if len(kinds) != 1 or set(entry) != {*kinds, "reason"}:
        raise SuiteError(f'{where} has {sorted(entry)}; expected "reason", and either "clause" or "test"')
    for key, value in entry.items():
        if not isinstance(value, str) or not value.strip():
            raise SuiteError(f"{where}: {key} = {value!r}; expected a text that is not empty")
    name = entry[kinds[0]]
    if kinds[0] == "clause" and name not in clauses():
        raise SuiteError(f"{where}: SPEC.md has no clause {name}")
    return Known(number, kinds[0], name, entry["reason"])


def concerning(entries: Iterable[Known], chapters: Sequence[str]) -> list[Known]:
    """Without the entries for clauses of chapters that are not judged now."""
    return [known for known in entries if known.kind == "test" or known.name[0] in chapters]


def reason(entries: Iterable[Known], nodeid: str, named: Sequence[str]) -> str:
    """Why this test may fail; empty where it may not."""
    return next((known.reason for known in entries if known.matches(nodeid, named)), "")


def stale(entries: Iterable[Known], results: Sequence[Result], whole: bool) -> list[str]:
    """What is wrong with each entry that is not so (any more); of an entry without a test only where all were run."""
    lines = []
    found = judged(results)
    for known in entries:
        # A failure is a known one of the clause that it violates, and says nothing about the others of its test.
        outcomes = {result.outcome for result in found if known.matches(result.nodeid, result.blamed)}
        if "known failure" in outcomes:
            continue
        if outcomes - {"not claimed", "not run", "not judged", "claimed in part"}:
            lines.append(f"{known.label} passes: take it out")
        elif outcomes == {"not claimed"}:
            lines.append(f"{known.label} is not claimed: take it out")
        elif whole and not outcomes:
            lines.append(f"{known.label} matches no test")
    return lines
