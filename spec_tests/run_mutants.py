"""Runs every mutant against the tests of its clause's chapter and prints the kill matrix, mutant × chapter.

    python -m spec_tests.run_mutants --implementation MODULE[:OBJECT] [--only id,id] [--whole | --blame] [--jobs 2]
                                     [--one-in N]

A mutant is killed by a test that fails for it, blames a clause of its chapter and passes for the implementation
itself. One that its own chapter lets live is shown to all other chapters, to say who would have noticed; with --whole
every mutant is. With --blame every mutant is shown to all tests that its functions can reach, one case of each, and it
is said which clauses are red: its own and no other is right. With --one-in N it is every N-th mutant; which ones, the
commit decides, so that a row of commits shows them all. Exit codes: 0 all killed by their own chapter (with
--blame: none but its own clause is red), and every clause has a mutant; 1 not so; 2 could not be judged.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from .conformance import Implementation, Injected, SuiteError, clauses, load
from .contract import EDITORS, NAMES, OF_EDITOR
from .mutants import BY_ID, MUTANTS, Mutant, Mutation
from .verdicts import WRONG, Result, causes

HERE = Path(__file__).parent
ALL_KILLED, SURVIVED, NOT_JUDGED = 0, 1, 2
#: S10 is about the tests; no implementation can break it.
WITHOUT_MUTANT = frozenset({"S10"})
#: The implementation that other processes put mutants around, as package.module[:object].
BASE = "SPEC_TESTS_MUTANTS_OF"


def __getattr__(name: str) -> Mutation:
    """The mutant of this id around the implementation in the environment: `spec_tests.run_mutants:<id>` there."""
    if name not in BY_ID or BASE not in os.environ:
        raise AttributeError(name)
    return BY_ID[name].build(load(os.environ[BASE]).target)


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: the test of its own chapter that killed it, or why there is none.

    `elsewhere` says of other chapters whether one of their tests fails, where they were asked.
    """

    mutant: Mutant
    killer: Result | None
    reason: str = ""
    elsewhere: Mapping[str, bool] = field(default_factory=dict)


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


class Everything:
    """Keeps all tests."""


class Concerned:
    """Keeps the tests that a change of some chapters' functions can reach: one case of each, and none of `but`.

    A test says by its clauses and its `needs` which chapters' functions it calls. With `editors` one case is kept for
    each editor.
    """

    def __init__(self, chapters: Iterable[str], but: str | None = None, editors: bool = False) -> None:
        self.chapters, self.but, self.editors = set(chapters), but, editors

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        first: dict[str, pytest.Item] = {}
        for item in items:
            own = {name[0] for mark in item.iter_markers("clause") for name in mark.args}
            used = own | {name for mark in item.iter_markers("needs") for name in mark.args}
            editor = "".join(sorted(used & set(EDITORS))) if self.editors else ""
            if used & self.chapters and self.but not in own:
                first.setdefault(item.nodeid.partition("[")[0] + editor, item)
        items[:] = first.values()


def run(
    target: Any, name: str, options: Sequence[str], plugin: object, spelling: str | None = None
) -> tuple[Injected, str]:
    """One pytest run in this process, with what it printed."""
    judged = Injected(target, name, spelling)
    fixed = [str(HERE), f"--ignore={HERE / 'meta'}", "-q", "--hypothesis-profile=mutants"]
    # Everything is imported already from the second run on.
    fixed += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        pytest.main([*fixed, *options], plugins=[judged, plugin])
    return judged, printed.getvalue()


def judge(mutant: Mutant, base: Implementation, whole: bool = False) -> Verdict:
    """The mutant before its own chapter, and before the others where that lets it live or `whole` asks for it."""
    chapter = mutant.clause[0]
    target, spelling = mutant.build(base.target), None
    if target.ELSEWHERE and base.spelling:
        os.environ[BASE], spelling = base.spelling, f"{__package__}.run_mutants:{mutant.id}"
    judged, printed = run(
        target, f"mutant {mutant.id}", ["--chapters", chapter, "-x"], ClauseFirst(mutant.clause), spelling
    )
    verdict = _own(mutant, judged, printed)
    if verdict.killer and not whole:
        return verdict
    return replace(verdict, elsewhere=elsewhere(mutant, base))


def _own(mutant: Mutant, judged: Injected, printed: str) -> Verdict:
    chapter = mutant.clause[0]
    failed = [result for result in judged.results if result.outcome in WRONG]
    errors = [result for result in judged.results if result.outcome == "error"]
    if not failed:
        return Verdict(mutant, None, _last_line(errors[0].message) if errors else _survival(judged, printed))
    killer = next((result for result in failed if any(name[0] == chapter for name in result.blamed)), None)
    if killer is None:
        blamed = ", ".join(failed[0].blamed)
        return Verdict(
            mutant, None, f"only {_short(failed[0])} fails, which blames {blamed} and no clause of {chapter}"
        )
    return Verdict(mutant, killer)


def blamed(mutant: Mutant, base: Implementation) -> dict[str, str]:
    """The clauses that are red for a mutant in all tests that its functions reach, each with what is said of it."""
    target, spelling = mutant.build(base.target), None
    if target.ELSEWHERE and base.spelling:
        os.environ[BASE], spelling = base.spelling, f"{__package__}.run_mutants:{mutant.id}"
    reached = Concerned(touched(mutant) | {mutant.clause[0]}, editors=True)
    found, _ = run(target, f"mutant {mutant.id}", [], reached, spelling)
    if not any(result.outcome in WRONG for result in found.results):
        found, _ = run(target, f"mutant {mutant.id}", ["--chapters", mutant.clause[0]], Everything(), spelling)
    return {cause.clause: cause.what for cause in causes(found.results) if cause.outcome in WRONG}


def elsewhere(mutant: Mutant, base: Implementation) -> dict[str, bool]:
    """Whether a test of each other chapter fails, of those whose tests the mutant's functions can reach."""
    own = mutant.clause[0]
    judged, _ = run(mutant.build(base.target), f"mutant {mutant.id}", [], Concerned(touched(mutant), own))
    found: dict[str, bool] = {}
    for result in judged.results:
        if result.outcome == "passed" or result.outcome in WRONG:
            for name in result.clauses:
                found[name[0]] = found.get(name[0], False) or result.outcome in WRONG
    return found


def touched(mutant: Mutant) -> set[str]:
    """The chapters of the functions that a mutant overrides."""
    defined = {name for kind in overriding(mutant) for name in vars(kind)}
    return {chapter for chapter, names in names_by_chapter().items() if defined & names}


def overriding(mutant: Mutant) -> list[type[Mutation]]:
    """The classes in which a mutant differs from its base."""
    assert isinstance(mutant.build, type)
    return [kind for kind in mutant.build.__mro__ if issubclass(kind, Mutation) and kind is not Mutation]


@functools.cache
def names_by_chapter() -> dict[str, set[str]]:
    """All functions of the contract; those of one editor and of the capability `factored` are E's."""
    of_editors = {name for names in OF_EDITOR.values() for name in names} | {"factors"}
    return {chapter: set(names) | (of_editors if chapter == "E" else set()) for chapter, names in NAMES.items()}


def _survival(judged: Injected, printed: str) -> str:
    passed = sum(result.outcome == "passed" for result in judged.results)
    return f"{passed} tests pass" if passed else f"no test ran: {_last_line(printed)}"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was printed"])[-1]


def _short(result: Result) -> str:
    return result.nodeid.rpartition("::")[2]


def unsound(base: Implementation, verdicts: Sequence[Verdict]) -> set[str]:
    """The killing tests that the implementation itself does not pass."""
    names = {verdict.killer.nodeid for verdict in verdicts if verdict.killer}
    judged, _ = run(base.target, "the base", [], Only(names), base.spelling)
    return names - {result.nodeid for result in judged.results if result.outcome == "passed"}


def matrix(verdicts: Sequence[Verdict]) -> list[str]:
    """A row for each mutant and a column for each chapter, with the killing test or why there is none.

    X killed by its own chapter, x by another one, - lived on, . was not asked or cannot notice.
    """
    chapters = list(dict.fromkeys(name[0] for name in clauses()))
    width = max(len(verdict.mutant.id) for verdict in verdicts)
    lines = [f"{'':<4} {'':<{width}}  {' '.join(chapters)}"]
    for verdict in verdicts:
        row = " ".join(_cell(verdict, chapter) for chapter in chapters)
        lines.append(f"{verdict.mutant.clause:<4} {verdict.mutant.id:<{width}}  {row}  {_found(verdict)}")
    return lines


def _cell(verdict: Verdict, chapter: str) -> str:
    if chapter == verdict.mutant.clause[0]:
        return "X" if verdict.killer else "-"
    return {None: ".", True: "x", False: "-"}[verdict.elsewhere.get(chapter)]


def _found(verdict: Verdict) -> str:
    if verdict.killer:
        # One that crashes may be a mutant that does not work, in place of one that is found.
        crash = ", in which it crashed" if verdict.killer.outcome == "crashed" else ""
        return f"killed by {_short(verdict.killer)}{crash}"
    others = [chapter for chapter, killed in verdict.elsewhere.items() if killed]
    only = f"killed only by chapter {' and '.join(others)}: " if others else ""
    return f"SURVIVED: {only}{verdict.reason}"


def without_mutant(base: Implementation) -> list[str]:
    """The clauses of the claimed chapters that no mutant breaks."""
    broken = {mutant.clause for mutant in MUTANTS}
    return [name for name in clauses() if name[0] in base.claims and name not in broken | WITHOUT_MUTANT]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.run_mutants", description=__doc__)
    parser.add_argument(
        "--implementation", required=True, metavar="MODULE[:OBJECT]", help="what the mutants are made of"
    )
    parser.add_argument("--only", metavar="ID,ID", help="these mutants only")
    parser.add_argument(
        "--whole", action="store_true", help="show every mutant to every chapter, by one case of each test concerned"
    )
    parser.add_argument(
        "--blame", action="store_true", help="say which clauses are red for each mutant, in all tests concerned"
    )
    parser.add_argument("--one-in", type=int, default=1, metavar="N", help="every N-th of them, by the commit")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="mutants at a time (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        base = load(options.implementation)
        chosen = part_of(_chosen(options.only, base), options.one_in, commit())
    except SuiteError as error:
        print(error, file=sys.stderr)
        return NOT_JUDGED
    if options.blame:
        return _say_blame(chosen, base, options.jobs)
    verdicts = []
    for verdict in _verdicts(chosen, base, options.whole, options.jobs):
        verdicts.append(verdict)
        print("." if verdict.killer else "S", end="", flush=True)
    print()
    wrong = unsound(base, verdicts)
    verdicts = [
        replace(v, killer=None, reason=f"{_short(v.killer)} fails without the mutation, too")
        if v.killer and v.killer.nodeid in wrong
        else v
        for v in verdicts
    ]
    print("\n".join(matrix(verdicts)))
    survivors = [verdict.mutant.id for verdict in verdicts if not verdict.killer]
    bare = without_mutant(base)
    print(f"{len(verdicts) - len(survivors)} of {len(verdicts)} mutants killed; {len(MUTANTS) - len(chosen)} left out")
    if bare:
        print(f"no mutant breaks {', '.join(bare)}")
    return SURVIVED if survivors or bare else ALL_KILLED


def part_of(mutants: Sequence[Mutant], one_in: int, commit: str) -> Sequence[Mutant]:
    """Every `one_in`-th mutant, from a place that follows from the commit. SuiteError: a number below 1."""
    if one_in < 1:
        raise SuiteError(f"--one-in {one_in}: expected 1 or more")
    return mutants[int(commit[:8] or "0", 16) % one_in :: one_in]


def commit() -> str:
    """The commit that is checked out, in hexadecimal; empty where there is none."""
    try:
        command = ["git", "-C", str(HERE), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _say_blame(chosen: Sequence[Mutant], base: Implementation, jobs: int) -> int:
    others = 0
    for mutant, red in _blames(chosen, base, jobs):
        rest = [name for name in red if name != mutant.clause]
        others += bool(rest) or mutant.clause not in red
        own = red.get(mutant.clause)
        said = own or ("nothing is red" if not rest else "its own clause is not red")
        print(
            f"{mutant.clause:<4} {mutant.id}: {said}" + "".join(f"; {name}: {red[name]}" for name in rest), flush=True
        )
    print(f"{len(chosen) - others} of {len(chosen)} mutants are blamed for their own clause alone")
    return SURVIVED if others else ALL_KILLED


def _blames(chosen: Sequence[Mutant], base: Implementation, jobs: int) -> Iterator[tuple[Mutant, dict[str, str]]]:
    if jobs < 2 or len(chosen) < 2:
        yield from ((mutant, blamed(mutant, base)) for mutant in chosen)
        return
    asked = [(mutant.id, base.spelling) for mutant in chosen]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from zip(chosen, pool.map(_blamed, asked), strict=True)


def _blamed(asked: tuple[str, str]) -> dict[str, str]:
    return blamed(BY_ID[asked[0]], _loaded(asked[1]))


def _verdicts(chosen: Sequence[Mutant], base: Implementation, whole: bool, jobs: int) -> Iterator[Verdict]:
    """In order; several at a time in processes of their own, which load the implementation for themselves."""
    if jobs < 2 or len(chosen) < 2:
        yield from (judge(mutant, base, whole) for mutant in chosen)
        return
    asked = [(mutant.id, base.spelling, whole) for mutant in chosen]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for mutant, (killer, reason, others) in zip(chosen, pool.map(_judged, asked), strict=True):
            yield Verdict(mutant, killer, reason, others)


def _judged(asked: tuple[str, str, bool]) -> tuple[Result | None, str, Mapping[str, bool]]:
    name, spelling, whole = asked
    found = judge(BY_ID[name], _loaded(spelling), whole)
    # What the test raised stays behind: not every exception can be sent.
    killer = found.killer and Result(found.killer.nodeid, found.killer.clauses, found.killer.outcome)
    return killer, found.reason, found.elsewhere


@functools.cache
def _loaded(spelling: str) -> Implementation:
    return load(spelling)


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
