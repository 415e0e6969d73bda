"""Runs every mutant against the tests of its clause's chapter and prints which test killed it.

    python -m spec_tests.run_mutants --implementation package.module[:object] [--only id,id]

A mutant is killed by a test that fails for it, carries a clause of its chapter and passes for the implementation
itself. Exit codes: 0 all killed, 1 some survived, 2 could not be judged.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spec_tests.conformance import Implementation, Injected, Result, SuiteError, load
from spec_tests.mutants import MUTANTS, Mutant

HERE = Path(__file__).parent
ALL_KILLED, SURVIVED, NOT_JUDGED = 0, 1, 2


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: the test that killed it, or why there is none."""

    mutant: Mutant
    killer: Result | None
    reason: str = ""


class ClauseFirst:
    """Runs the tests of one clause before the rest of its chapter: a mutant mostly dies there."""

    def __init__(self, clause: str) -> None:
        self.clause = clause

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: all(self.clause not in mark.args for mark in item.iter_markers("clause")))


class Only:
    """Keeps the named tests."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self.names]


def run(target: Any, name: str, options: Sequence[str], plugin: object) -> tuple[Injected, str]:
    """One pytest run in this process, with what it printed."""
    judged = Injected(target, name)
    fixed = [str(HERE), f"--ignore={HERE / 'meta'}", "-q", "--hypothesis-profile=mutants"]
    # Everything is imported already from the second run on.
    fixed += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        pytest.main([*fixed, *options], plugins=[judged, plugin])
    return judged, printed.getvalue()


def judge(mutant: Mutant, base: Any) -> Verdict:
    chapter = mutant.clause[0]
    judged, printed = run(
        mutant.build(base), f"mutant {mutant.id}", ["--chapters", chapter, "-x"], ClauseFirst(mutant.clause)
    )
    failed = [result for result in judged.results if result.outcome == "failed"]
    errors = [result for result in judged.results if result.outcome == "error"]
    if not failed:
        return Verdict(mutant, None, _last_line(errors[0].message) if errors else _survival(judged, printed))
    if not any(name[0] == chapter for name in failed[0].clauses):
        return Verdict(mutant, None, f"only {_short(failed[0])} fails, which carries no clause of {chapter}")
    return Verdict(mutant, failed[0])


def _survival(judged: Injected, printed: str) -> str:
    passed = sum(result.outcome == "passed" for result in judged.results)
    return f"{passed} tests pass" if passed else f"no test ran: {_last_line(printed)}"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was printed"])[-1]


def _short(result: Result) -> str:
    return result.nodeid.rpartition("::")[2]


def unsound(base: Any, verdicts: Sequence[Verdict]) -> set[str]:
    """The killing tests that the implementation itself does not pass."""
    names = {verdict.killer.nodeid for verdict in verdicts if verdict.killer}
    judged, _ = run(base, "the base", [], Only(names))
    return names - {result.nodeid for result in judged.results if result.outcome == "passed"}


def matrix(verdicts: Sequence[Verdict]) -> list[str]:
    width = max(len(verdict.mutant.id) for verdict in verdicts)
    lines = []
    for verdict in verdicts:
        found = f"killed by {_short(verdict.killer)}" if verdict.killer else f"SURVIVED: {verdict.reason}"
        lines.append(f"{verdict.mutant.clause:<4} {verdict.mutant.id:<{width}}  {found}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spec_tests.run_mutants", description=__doc__)
    parser.add_argument(
        "--implementation", required=True, metavar="MODULE[:OBJECT]", help="what the mutants are made of"
    )
    parser.add_argument("--only", metavar="ID,ID", help="these mutants only")
    options = parser.parse_args(arguments)
    try:
        base = load(options.implementation)
        chosen = _chosen(options.only, base)
    except SuiteError as error:
        print(error, file=sys.stderr)
        return NOT_JUDGED
    verdicts = []
    for mutant in chosen:
        verdicts.append(judge(mutant, base.target))
        print("." if verdicts[-1].killer else "S", end="", flush=True)
    print()
    wrong = unsound(base.target, verdicts)
    verdicts = [
        Verdict(v.mutant, None, f"{_short(v.killer)} fails without the mutation, too")
        if v.killer and v.killer.nodeid in wrong
        else v
        for v in verdicts
    ]
    print("\n".join(matrix(verdicts)))
    survivors = [verdict.mutant.id for verdict in verdicts if not verdict.killer]
    print(f"{len(verdicts) - len(survivors)} of {len(verdicts)} mutants killed; {len(MUTANTS) - len(chosen)} left out")
    return SURVIVED if survivors else ALL_KILLED


def _chosen(only: str | None, base: Implementation) -> list[Mutant]:
    """The named mutants, or all that the base has the chapters for."""
    possible = [mutant for mutant in MUTANTS if not base.lacks(mutant.needs)]
    names = [name.strip() for name in only.split(",")] if only else [mutant.id for mutant in possible]
    missing = set(names) - {mutant.id for mutant in possible}
    if missing or not names:
        raise SuiteError(f"{base.label} allows no mutant {', '.join(sorted(missing)) or 'at all'}")
    return [mutant for mutant in possible if mutant.id in names]


if __name__ == "__main__":
    sys.exit(main())
