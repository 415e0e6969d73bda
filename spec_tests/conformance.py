"""What the pytest plugin is made of: the clauses of SPEC.md, the implementation under test, and the judgement.

In process, without the command line:

    run = Injected(my_implementation, name="mutant: kl-reversed")
    code = pytest.main(["spec_tests", "--chapters", "L", "--hypothesis-profile", "mutants"], plugins=[run])
    run.outcomes     {"L1": "passed", "L2": "failed", ...}, every clause of SPEC.md in the chosen chapters
    run.results      one Result per test

A test ends as one of OUTCOMES. Exit codes: 0 conforms in all that it claims, 1 does not, 2 could not be judged.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .contract import CAPABILITIES, EDITORS, LEARNED, NAMES, OF_EDITOR, RULINGS

HERE = Path(__file__).parent
#: The clause or clauses that a test checks: @clause("M1").
clause = pytest.mark.clause
#: Chapters, capabilities and editors that a test needs beside the chapters of its clauses: @needs("E", "finetuning").
needs = pytest.mark.needs


def each_of(*editors: str) -> pytest.MarkDecorator:
    """The test runs once for each of these editors, in its argument `name`, and is claimed by those who have it."""
    return pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in editors])


every_editor = each_of(*EDITORS)
every_learned = each_of(*LEARNED)

CONFORMS, NONCONFORMING, NOT_JUDGED = 0, 1, 2
#: Functions that a capability asks for beside its chapter.
OPTIONAL = {"factored": ("factors",)}


@dataclass(frozen=True)
class Clause:
    id: str
    section: str
    sentence: str
    #: The ruling that has named alternatives here.
    ruling: str | None = None

    @property
    def chapter(self) -> str:
        return self.id[0]


@functools.cache
def clauses() -> dict[str, Clause]:
    """The clauses of SPEC.md in its order: lines of the form `**M1** (§4.1) sentence`, and what follows each."""
    text = (HERE / "SPEC.md").read_text(encoding="utf-8")
    found = re.findall(
        r"^\*\*([A-Z]\d+)\*\* \(([^)]+)\) (.+)\n((?:(?!\*\*[A-Z]\d+\*\* |#).*\n)*)", text, flags=re.MULTILINE
    )
    twice = [name for name, count in Counter(name for name, *_ in found).items() if count > 1]
    if twice:
        raise SuiteError(f"SPEC.md defines {', '.join(twice)} more than once")
    return {name: Clause(name, section, sentence, _ruling(below)) for name, section, sentence, below in found}


def _ruling(text: str) -> str | None:
    named = re.search(r"Named\s+alternative:\s+`(\w+) =", text)
    return named.group(1) if named else None


class SuiteError(Exception):
    """The suite or the adapter is broken, so nothing can be said about the implementation."""


class Violation(AssertionError):
    """A clause does not hold: for which inputs, what it asks for and what came."""

    def __init__(self, clause: Clause, what: str, inputs: Mapping[str, str], expected: str, got: str) -> None:
        lines = [what, f"  {clause.id} ({clause.section}): {clause.sentence}"]
        lines += [f"  {name} = {value}" for name, value in inputs.items()]
        super().__init__("\n".join([*lines, f"  expected: {expected}", f"  got:      {got}"]))
        self.what, self.inputs, self.expected, self.got = what, dict(inputs), expected, got


class Implementation:
    """The implementation under test. A function of the contract is called as an attribute: `implementation.succ(1, 0)`.

    What it raises passes through, marked as its own, so that a wrong implementation and a broken suite stay apart.
    """

    def __init__(self, target: Any, label: str, spelling: str | None = None) -> None:
        self.target = target
        self.label = label
        #: "package.module:object" where given on the command line (another process can load it), else None.
        self.spelling = spelling
        self.claims = _claims(target)
        self.rulings = _rulings(target)
        self.editors = _editors(target)

    def __repr__(self) -> str:
        return self.label

    def ruling(self, name: str) -> str:
        """The alternative of a ruling that the implementation follows; by default the required one."""
        return self.rulings.get(name, RULINGS[name][0])

    def deviations(self) -> dict[str, str]:
        """The rulings of which it declares an alternative, each with what it declares."""
        return {name: value for name, value in sorted(self.rulings.items()) if value != RULINGS[name][0]}

    def lacks(self, needed: Iterable[str]) -> list[str]:
        """What it does not claim of some chapters, capabilities and editors.

        A test of chapter E that names no editor makes a MEND.
        """
        needed = dict.fromkeys(needed)
        if "E" in needed and not needed.keys() & set(EDITORS):
            needed["mend"] = None
        missing = [name for name in needed if name not in EDITORS and name not in self.claims]
        # Without chapter E there is nothing to say about its editors.
        editors = () if "E" in missing else needed.keys() & set(EDITORS)
        return missing + sorted(name for name in editors if name not in self.editors)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        owner = next((key for key, names in (NAMES | OPTIONAL | OF_EDITOR).items() if name in names), None)
        if owner is None:
            raise AttributeError(f"{name!r} is no function of the contract")
        function = getattr(self.__dict__["target"], name, None)
        if not callable(function):
            raise AssertionError(f"{self.__dict__['label']} claims {owner!r} and lacks its function `{name}`")
        return _guarded(function, name)


def _guarded(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            inspect.signature(function).bind(*args, **kwargs)
        except TypeError as error:
            raise SuiteError(f"`{name}` does not take the arguments of the contract: {error}") from error
        try:
            with np.errstate(all="ignore"):
                return function(*args, **kwargs)
        except Exception as error:
            error.add_note(f"raised by the implementation's `{name}`")
            error.raised_by_implementation = name  # type: ignore[attr-defined]
            raise

    return call


def _claims(target: Any) -> frozenset[str]:
    declared = getattr(target, "CLAIMS", None)
    if declared is None:
        return frozenset(key for key, names in NAMES.items() if any(callable(getattr(target, n, None)) for n in names))
    unknown = set(declared) - set(NAMES) - set(CAPABILITIES)
    if unknown:
        raise SuiteError(f"CLAIMS names {sorted(unknown)}; known are {[*NAMES, *CAPABILITIES]}")
    return frozenset(declared)


def _rulings(target: Any) -> dict[str, str]:
    declared = dict(getattr(target, "RULINGS", {}))
    for name, value in declared.items():
        if value not in RULINGS.get(name, ()):
            known = f"its alternatives are {RULINGS[name]}" if name in RULINGS else f"known rulings are {list(RULINGS)}"
            raise SuiteError(f"RULINGS declares {name} = {value!r}; {known}")
    return declared


def _editors(target: Any) -> tuple[str, ...]:
    declared = tuple(getattr(target, "EDITORS", EDITORS))
    unknown = [name for name in declared if name not in EDITORS]
    if unknown:
        raise SuiteError(f"EDITORS names {unknown}; known are {list(EDITORS)}")
    return declared


def load(spelling: str) -> Implementation:
    """The implementation named `package.module` or `package.module:object`."""
    module_name, _, path = spelling.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
        for part in filter(None, path.split(".")):
            target = getattr(target, part)
    except Exception as error:
        raise SuiteError(f"cannot import the implementation {spelling!r}: {type(error).__name__}: {error}") from error
    return Implementation(target, spelling, spelling)


#: Of a test, and of a clause: from the weakest to the strongest, for a clause has the strongest of its tests.
#: "error" is the adapter's or the suite's, "crashed" an exception inside the implementation.
OUTCOMES = ("not run", "not claimed", "passed", "known failure", "error", "crashed", "failed")
#: The outcomes that show an implementation wrong.
WRONG = ("crashed", "failed")


@dataclass(frozen=True)
class Result:
    """One test: its node id, its clauses (none for a test of the suite), how it ended, and on how many examples."""

    nodeid: str
    clauses: tuple[str, ...]
    outcome: str
    message: str = ""
    examples: int = 0
    #: The arguments of the smallest example that fails, where Hypothesis looked for it.
    example: str = ""
    violation: Violation | None = None
    #: The seed that it failed under, where tests are repeated under many.
    seed: int | None = None
    #: Why the failure is a known one.
    reason: str = ""


def by_clause(results: Iterable[Result], chapters: Iterable[str]) -> dict[str, str]:
    """The outcome of every clause of the chapters; a clause of which only a part was claimed says so."""
    chosen = {name for name, c in clauses().items() if c.chapter in chapters}
    seen: dict[str, set[str]] = {name: set() for name in clauses() if name in chosen}
    for result in results:
        for name in result.clauses:
            if name in seen:
                seen[name].add(result.outcome)
    return {name: _combined(outcomes) for name, outcomes in seen.items()}


def _combined(outcomes: set[str]) -> str:
    if outcomes == {"passed", "not claimed"}:
        return "passed in part"
    return max(outcomes, key=OUTCOMES.index, default="not run")


def exit_code(results: Iterable[Result]) -> int:
    """A shown nonconformity outweighs an error; tests of which not one was claimed judge nothing."""
    outcomes = {result.outcome for result in results}
    if outcomes & set(WRONG):
        return NONCONFORMING
    judged = outcomes & {"passed", "known failure"}
    return CONFORMS if judged and "error" not in outcomes else NOT_JUDGED


def examples_by_clause(results: Iterable[Result]) -> Counter[str]:
    """On how many examples each clause was tried; a test without Hypothesis is one."""
    counts: Counter[str] = Counter()
    for result in results:
        for name in result.clauses:
            counts[name] += result.examples
    return counts


def table(implementation: Implementation, results: Sequence[Result], chapters: Sequence[str], width: int) -> list[str]:
    """The conformance table: a line for each clause that was run, declared deviations, the counts."""
    outcomes, examples = by_clause(results, chapters), examples_by_clause(results)
    deviations = implementation.deviations()
    lines = [f"{'':<4} {'outcome':<14} {'examples':>8}  clause"]
    for name, outcome in outcomes.items():
        if outcome == "not run":
            continue
        clause = clauses()[name]
        shown = outcome.upper() if outcome in (*WRONG, "error") else outcome
        head = f"{name:<4} {shown:<14} {examples[name]:>8,}  "
        if clause.ruling in deviations:
            head += f"[{clause.ruling} = {deviations[clause.ruling]}] "
        sentence = f"({clause.section}) " + re.sub(r"[`*]", "", clause.sentence)
        lines.append(head + _shortened(sentence, max(20, width - len(head))))
    lines += [
        f"declared deviation: {name} = {value} (required: {RULINGS[name][0]})" for name, value in deviations.items()
    ]
    return [*lines, counted(outcomes)]


def counted(outcomes: Mapping[str, str]) -> str:
    """How many clauses came out in which way."""
    counts = Counter(outcomes.values())
    order = ("passed", "passed in part", *reversed(OUTCOMES))
    parts = [f"{counts[outcome]} {outcome}" for outcome in dict.fromkeys(order) if counts[outcome]]
    return f"{len(outcomes)} clauses: {', '.join(parts)}"


def _shortened(sentence: str, width: int) -> str:
    return sentence if len(sentence) <= width else sentence[: width - 1].rstrip() + "…"


class Injected:
    """A pytest plugin that hands an object to the suite and keeps what the run found."""

    def __init__(self, target: Any, name: str = "injected object", spelling: str | None = None) -> None:
        self.target = target
        self.name = name
        #: By what another process can load it, where one can.
        self.spelling = spelling
        self.results: list[Result] = []
        self.outcomes: dict[str, str] = {}
