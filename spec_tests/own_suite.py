"""The clauses as tests of somebody's own test suite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .cli import HERE

#: The test that says whether the list of known failures is true.
LIST = "known failures"
#: All that were made, for the summary at the end of a run.
MADE: list[Judgement] = []


@dataclass
class Judgement:
    """One run of the suite, made when the first of its tests is asked."""

    implementation: str
    options: tuple[str, ...]
    known: Mapping[str, str]
    report: dict[str, Any] | None = None
    said: str = ""
    chosen: frozenset[str] = field(default=frozenset())

    def of(self, clauses: Iterable[str]) -> None:
        """Judge these clauses, unless they are judged already."""
        asked = frozenset(clauses)
        if asked <= self.chosen:
            return
        self.chosen = asked
        with tempfile.TemporaryDirectory() as folder:
            report, known = Path(folder, "report.json"), Path(folder, "known.toml")
            command = [sys.executable, "-m", __package__, "--implementation", self.implementation, *self.options]
            chapters = ",".join(sorted({name[0] for name in asked}))
            command += ["--chapters", chapters, "--clauses", ",".join(sorted(asked)), "--report", str(report), "-q"]
            mine = {name: reason for name, reason in self.known.items() if name in asked or "test" in name}
            if mine:
                known.write_text(_toml(mine), encoding="utf-8")
                command += ["--xfails", str(known)]
            paths = os.pathsep.join([str(HERE.parent), *filter(None, sys.path)])
            environment = {**os.environ, "PYTHONPATH": paths, "PYTEST_ADDOPTS": ""}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            self.said = (done.stdout + done.stderr)[-4000:]
            self.report = json.loads(report.read_text(encoding="utf-8")) if report.exists() else None

    def row(self, clause: str) -> dict[str, Any]:
        if self.report is None:
            pytest.fail(f"{self.implementation} could not be judged\n{self.said}", pytrace=False)
        found: dict[str, Any] = next(row for row in self.report["clauses"] if row["id"] == clause)
        return found


def clauses(
    implementation: str | ModuleType,
    *,
    chapters: str | None = None,
    known_failures: Mapping[str, str] | None = None,
    python: str | None = None,
    options: Iterable[str] = (),
) -> Callable[..., None]:
    """A test for each clause, to be bound to a name that pytest collects:

        test_clause = clauses("my_adapter", chapters="M,S", known_failures={"M10": "breakdowns come later"})

    `implementation` is package.module, path/to/file.py or a module. `known_failures` gives a reason for each clause, or
    for each test by the end of its id; one that passes is a failure. With `python` the implementation runs in that
    interpreter. `options` are those of `lime-spec`. A clause that is not claimed is skipped, and a known failure is an
    expected one. The tests that pytest selected are judged in one run of the suite, in a process of its own.
    """
    from .conformance import clauses as known_clauses  # noqa: PLC0415

    spelling = implementation if isinstance(implementation, str) else implementation.__name__
    names = [part.strip().upper() for part in chapters.split(",")] if chapters else None
    chosen = [name for name, clause in known_clauses().items() if names is None or clause.chapter in names]
    wrong = [name for name in names or () if not any(clause[0] == name for clause in chosen)]
    if wrong or not chosen:
        raise ValueError(f"chapters names {', '.join(wrong) or 'nothing'}; SPEC.md has {_chapters(known_clauses())}")
    listed = dict(known_failures or {})
    python_options = () if python is None else ("--python", python)
    judgement = Judgement(spelling, (*python_options, *options), listed)
    MADE.append(judgement)

    @pytest.mark.parametrize("clause", [*chosen, *([LIST] if listed else [])])
    def test_clause(request: pytest.FixtureRequest, clause: str) -> None:
        """The clause holds, or is a known failure, or is not claimed."""
        judgement.of(_selected(request, judgement) or chosen)
        _say(judgement, clause)

    test_clause.judgement = judgement  # type: ignore[attr-defined]
    return test_clause


def _chapters(known: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(name[0] for name in known))


def _selected(request: pytest.FixtureRequest, judgement: Judgement) -> list[str]:
    """The clauses of this judgement that pytest selected."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    mine = [item for item in items if getattr(item.obj, "judgement", None) is judgement]
    return [item.callspec.params["clause"] for item in mine if item.callspec.params["clause"] != LIST]


def _say(judgement: Judgement, clause: str) -> None:
    from .report import explained  # noqa: PLC0415

    if clause == LIST:
        stale = (judgement.report or {}).get("stale_known_failures", [])
        if stale:
            pytest.fail("\n".join(stale), pytrace=False)
        return
    row = judgement.row(clause)
    outcome, why = row["outcome"], f": {row['why']}" if row["why"] else ""
    if outcome in ("passed", "passed in part"):
        return
    if outcome == "known failure":
        pytest.xfail("; ".join(dict.fromkeys(failure["known"] or "" for failure in row["failures"])) or outcome)
    if outcome in ("failed", "crashed", "timed out", "error"):
        told = [f"{clause} {outcome} ({row['section']}): {row['sentence']}"]
        told += [f"\n{explained(failure)}\nrepeat it: {failure['command']}" for failure in row["failures"]]
        pytest.fail("\n".join(told), pytrace=False)
    pytest.skip(f"{outcome}{why}")


def _toml(known: Mapping[str, str]) -> str:
    entries = []
    for name, reason in known.items():
        kind = "test" if "test" in name else "clause"
        entries.append(f"[[xfail]]\n{kind} = {json.dumps(name)}\nreason = {json.dumps(reason)}\n")
    return "\n".join(entries)
