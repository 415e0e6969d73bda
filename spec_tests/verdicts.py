"""What is made of results: the outcome of each clause, the causes of what is red, the exit code, the table.

A violation names the clause that does not hold, and only that clause is red; what else the test would have asked is not
judged. A clause that takes another one for granted is not judged either, once that one is violated (`PRESUPPOSED`). So
one fault of an implementation is one red clause, however many tests stumble over it.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .conformance import HERE, Implementation, Violation, clauses
from .contract import NAMES, RULINGS
from .showing import IN_A_LINE, first_line

CONFORMS, NONCONFORMING, NOT_JUDGED = 0, 1, 2
#: Of a test, and of a clause: from the weakest to the strongest, for a clause has the strongest of its tests.
#: "error" is the adapter's or the suite's, "crashed" an exception inside the implementation.
OUTCOMES = (
    *("not run", "not claimed", "claimed in part", "passed", "known failure"),
    *("not judged", "error", "timed out", "crashed", "failed"),
)
#: The outcomes that show an implementation wrong.
WRONG = ("crashed", "failed")
#: The outcomes of tests that say nothing, although they were asked.
SILENT = ("not run", "not claimed", "claimed in part")
#: Clauses about the tests themselves: a violation of another clause is no failure of theirs.
ABOUT_TESTS = frozenset({"S10"})
#: What the tests of a clause take for granted: clauses by whose violation it can fail without a fault of its own. Most
#: tests take little for granted: they compare up to what another clause owns.
_EDITORS = ("T3", "T4", "T5", "T6", "T7", "A5", "A6", "A7", "B4", *(f"E{number}" for number in range(1, 15)))
PRESUPPOSED: Mapping[str, tuple[str, ...]] = {
    # An editor whose edits do not start from the raw model can do nothing else right.
    **dict.fromkeys(_EDITORS, ("T2",)),
    **dict.fromkeys(("L1", "L2", "L3", "L4"), ("T2", "T4")),
    # What is read off logits under an edit takes them to be those of W + ΔW.
    **dict.fromkeys(("E3", "E8", "E10", "E12"), ("T2", "T4")),
    "E2": ("T2", "E1", "E6"),
    "E4": ("T2", "L1"),
    "E10": ("T2", "T4", "E9", "E11"),
    "M2": ("M1",),
    "M4": ("M1", "M2"),
    "M5": ("M4",),
    "M6": ("M3",),
    "M9": ("M3",),
    "R4": ("M3", "M5", "M9"),
    "S9": ("S1",),
    "A3": ("T2", "A2"),
    "A4": ("A2",),
    "A8": ("A3",),
    "A6": ("T2", "A8"),
    "A9": ("A6",),
    "D2": ("D1",),
}


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
    #: The editor that it is about, where it is about one.
    editor: str | None = None
    #: Where the implementation crashed: function, exception and line; or the function that ran out of time.
    crash: tuple[str, ...] = ()
    #: The call that crashed, or what came of a call that the suite cannot use.
    call: str = ""
    #: The violated clause that kept this test from judging.
    after: str = ""
    #: The width in which numbers were handed out, where it is not the default.
    dtype: str = ""
    seconds: float = 0.0

    @property
    def blamed(self) -> tuple[str, ...]:
        """The clauses that its outcome is about: of a failure the one that the violation names, else the first."""
        if self.outcome in (*WRONG, "timed out", "known failure"):
            return (self.violation.clause.id,) if self.violation else self.clauses[:1]
        return self.clauses

    def outcome_of(self, clause: str) -> tuple[str, str]:
        """What it says about a clause, with the clause after which nothing could be said."""
        if clause in self.blamed and clause not in ABOUT_TESTS:
            return self.outcome, self.after
        if clause in ABOUT_TESTS and self.outcome in ("passed", "not judged", *WRONG, "known failure"):
            return "passed", ""
        if clause in ABOUT_TESTS and self.outcome in SILENT:
            return self.outcome, ""
        return ("not judged", self.after or self.blamed[0]) if self.blamed else (self.outcome, "")


# Faults and their shadows


@functools.cache
def presupposed(clause: str) -> frozenset[str]:
    """All that the tests of a clause take for granted, at one remove or more."""
    direct = PRESUPPOSED.get(clause, ())
    return frozenset(direct).union(*(presupposed(name) for name in direct)) if direct else frozenset()


def depth(clause: str) -> int:
    """How far a clause is from those that take nothing for granted."""
    return 1 + max((depth(name) for name in PRESUPPOSED.get(clause, ())), default=-1)


def judged(results: Sequence[Result]) -> list[Result]:
    """Failures that another clause's failure explains become "not judged", and so do crashes that happened before."""
    found: list[Result] = []
    for result in results:
        after = shadowed(result, results) or _crashed_before(result, found)
        found.append(replace(result, outcome="not judged", after=after, reason="") if after else result)
    return found


def shadowed(result: Result, results: Iterable[Result]) -> str:
    """The violated clause which explains that this test fails; empty where there is none, or the test does not fail."""
    if result.outcome not in (*WRONG, "timed out"):
        return ""
    wanted = frozenset().union(*(presupposed(name) for name in result.blamed))
    red = {
        name
        for other in results
        if other.outcome in (*WRONG, "known failure") and _share_an_editor(result, other)
        for name in other.blamed
    }
    return next((name for name in clauses() if name in wanted & red), "")


def _share_an_editor(one: Result, other: Result) -> bool:
    return one.editor == other.editor or None in (one.editor, other.editor)


def _crashed_before(result: Result, before: Iterable[Result]) -> str:
    """The clause under which the implementation crashed, or ran out of time, at the same place for the first time."""
    if not result.crash:
        return ""
    first = next((o for o in before if o.crash == result.crash and o.outcome in ("crashed", "timed out")), None)
    return first.blamed[0] if first and first.blamed != result.blamed else ""


# Clauses


@dataclass(frozen=True)
class Verdict:
    """What became of a clause, and why where it is not plain: "after E11", "lacks breakdown"."""

    outcome: str
    why: str = ""

    def __str__(self) -> str:
        return self.outcome + (f" ({self.why})" if self.why else "")


def verdicts(results: Iterable[Result], chapters: Iterable[str]) -> dict[str, Verdict]:
    """Of every clause of the chapters."""
    chosen = [name for name, clause in clauses().items() if clause.chapter in set(chapters)]
    seen: dict[str, list[tuple[str, str, Result]]] = {name: [] for name in chosen}
    for result in judged(list(results)):
        for name in dict.fromkeys((*result.clauses, *result.blamed)):
            if name in seen:
                seen[name].append((*result.outcome_of(name), result))
    return {name: _verdict(said) for name, said in seen.items()}


def _verdict(said: Sequence[tuple[str, str, Result]]) -> Verdict:
    outcome = max((one for one, *_ in said), key=OUTCOMES.index, default="not run")
    if outcome == "not judged":
        after = sorted({after for one, after, _ in said if one == outcome and after})
        reasons = [result.message for one, _, result in said if one == outcome and not result.after and result.message]
        return Verdict(outcome, f"after {', '.join(after)}" if after else first_line(next(iter(reasons), "")))
    silent = [(one, result.message) for one, _, result in said if one in SILENT]
    if outcome == "passed" and silent:
        told: dict[str, dict[str, None]] = {}
        for one in map(_silence, silent):
            head, colon, names = one.partition(": ")
            told.setdefault(head + colon, {}).update(dict.fromkeys(names.split(", ")))
        return Verdict("passed in part", "; ".join(head + ", ".join(names) for head, names in told.items()))
    if outcome in SILENT and silent:
        whys = [_silence(one).removeprefix(f"{outcome}: ") for one in silent if one[0] == outcome]
        parts = dict.fromkeys(part for why in whys if why != outcome for part in why.split(", "))
        return Verdict(outcome, ", ".join(parts))
    return Verdict(outcome)


def _silence(said: tuple[str, str]) -> str:
    outcome, message = said
    message = message.removeprefix(f"{outcome}: ")
    lacking = re.search(r"lacks its function (`\w+`)", message)
    return f"lacks {lacking.group(1)}" if lacking else f"{outcome}: {message}" if message else outcome


def by_clause(results: Iterable[Result], chapters: Iterable[str]) -> dict[str, str]:
    """The outcome of every clause of the chapters; a clause of which only a part was claimed says so."""
    return {name: verdict.outcome for name, verdict in verdicts(results, chapters).items()}


def examples_by_clause(results: Iterable[Result]) -> Counter[str]:
    """On how many examples each clause was tried; a test without Hypothesis is one."""
    counts: Counter[str] = Counter()
    for result in results:
        for name in result.clauses:
            counts[name] += result.examples
    return counts


def seconds_by_clause(results: Iterable[Result]) -> Counter[str]:
    """How long the tests of each clause took; a test of several clauses counts for its first."""
    counts: Counter[str] = Counter()
    for result in results:
        for name in result.clauses[:1]:
            counts[name] += result.seconds  # type: ignore[assignment]
    return counts


# Causes


@dataclass(frozen=True)
class Cause:
    """A fault, with its clause, in a line: what is wrong, in which editors, and in how many tests it shows."""

    clause: str
    outcome: str
    what: str
    editors: tuple[str, ...]
    tests: int

    def __str__(self) -> str:
        return f"{self.clause:<4} {self.what}{shown_in(self.editors, self.tests)}"


def shown_in(editors: Sequence[str], tests: int) -> str:
    """In which editors and in how many tests a fault shows, in brackets; empty for one test and no editor."""
    parts = [*editors, *([f"{tests} tests"] if tests > 1 else [])]
    return f" ({', '.join(parts)})" if parts else ""


def causes(results: Sequence[Result]) -> list[Cause]:
    """One line for each fault, in the order of SPEC.md; the same fault in several editors is one."""
    order = list(clauses())
    groups: dict[str, list[Result]] = {}
    for result in judged(results):
        if result.outcome in (*WRONG, "timed out"):
            for name in result.blamed:
                groups.setdefault(name, []).append(result)
    found = []
    for name in sorted(groups, key=order.index):
        mine = groups[name]
        worst = max(mine, key=lambda result: OUTCOMES.index(result.outcome))
        shown = [result for result in mine if result.outcome == worst.outcome]
        editors = tuple(dict.fromkeys(result.editor for result in mine if result.editor))
        found.append(Cause(name, worst.outcome, _joined(shown), editors, len(mine)))
    return found


def errors(results: Sequence[Result]) -> list[str]:
    """What kept tests from judging, other than a violation: each once, with the clauses that it concerns."""
    groups: dict[str, dict[str, None]] = {}
    for result in results:
        if result.outcome == "error":
            groups.setdefault(first_line(result.message, 300), {}).update(dict.fromkeys(result.clauses))
    order = list(clauses())
    return [f"{what} ({', '.join(sorted(concerned, key=order.index))})" for what, concerned in groups.items()]


def _joined(shown: Sequence[Result]) -> str:
    """The first of some failures of a clause, whose test asks the plainest, and how many others there are."""
    others = len({_what(result) for result in shown}) - 1
    more = f"; and {others} other finding{'s' * (others > 1)}" if others else ""
    violation = shown[0].violation
    if violation is None:
        call = f", in {shown[0].call}" if 0 < len(shown[0].call) <= IN_A_LINE else ""
        return first_line(shown[0].message, 300) + call + more
    case = ", ".join(f"{name} = {value}" for name, value in violation.inputs.items())
    return violation.told + (f", for {case}" if case and len(case) <= IN_A_LINE else "") + more


def _what(result: Result) -> object:
    """What two findings have in common that are one."""
    return result.violation.what if result.violation else result.crash or result.message


# The whole


def exit_code(results: Iterable[Result]) -> int:
    """A shown nonconformity outweighs an error; tests of which not one was claimed judge nothing."""
    found = judged(list(results))
    outcomes = {result.outcome for result in found}
    if outcomes & set(WRONG):
        return NONCONFORMING
    # Without a red clause, nothing explains why a test could not judge.
    unexplained = any(result.outcome == "not judged" and not result.after for result in found)
    if unexplained or outcomes & {"error", "timed out"}:
        return NOT_JUDGED
    return CONFORMS if outcomes & {"passed", "known failure"} else NOT_JUDGED


def lacking(results: Iterable[Result]) -> dict[str, list[str]]:
    """The functions that are missing in claimed chapters."""
    found: dict[str, set[str]] = {}
    for result in results:
        name = re.search(r"lacks its function `(\w+)`", result.message)
        if result.outcome == "claimed in part" and name:
            owner = next((key for key, names in NAMES.items() if name.group(1) in names), "E")
            found.setdefault(owner, set()).add(name.group(1))
    return {owner: sorted(names) for owner, names in sorted(found.items())}


def verdict(
    results: Sequence[Result], chapters: Sequence[str], *, code: int, part: str = "", stale: Sequence[str] = ()
) -> str:
    """The whole in a sentence. `part` says which tests were run, where it was not all of the chapters."""
    outcomes = by_clause(results, chapters)
    known = sum(outcome == "known failure" for outcome in outcomes.values())
    found = causes(results)
    if code == CONFORMS:
        said = "conforms in all that it claims" + (f", but for {known} clauses with known failures" if known else "")
    elif code == NONCONFORMING:
        count = len({cause.clause for cause in found if cause.outcome in WRONG})
        said = "does not conform" + (
            f": {count} {'clauses are' if count > 1 else 'clause is'} violated" if count else ""
        )
    else:
        said = "could not be judged" + (": the list of known failures is not true" if stale else "")
    parts = [said, counted(outcomes)]
    parts += [f"{owner} is claimed in part: lacks {', '.join(names)}" for owner, names in lacking(results).items()]
    return "; ".join([*parts, *([part] if part else [])])


def table(
    implementation: Implementation, results: Sequence[Result], chapters: Sequence[str], width: int
) -> Iterator[str]:
    """The conformance table: causes first, then a line for each clause that was run, deviations, warnings, counts."""
    found, examples, seconds = verdicts(results, chapters), examples_by_clause(results), seconds_by_clause(results)
    deviations = implementation.deviations()
    told = causes(results)
    if told:
        yield "what is wrong, each fault once:"
        yield from (_shortened(f"  {cause}", max(60, 4 * width)) for cause in told)
        yield f"more: the clauses in {HERE / 'SPEC.md'}; above, each case with the command that repeats it"
        yield ""
    if broken := errors(results):
        yield "what could not be judged, and why:"
        yield from (_shortened(f"  {one}", max(60, 4 * width)) for one in broken)
        yield ""
    yield f"{'':<4} {'outcome':<14} {'examples':>8} {'seconds':>7}  clause"
    for name, one in found.items():
        if one.outcome == "not run" and not one.why:
            continue
        clause = clauses()[name]
        shown = one.outcome.upper() if one.outcome in (*WRONG, "error", "timed out") else one.outcome
        taken = f"{seconds[name]:.1f}" if seconds[name] >= 1 else ""
        head = f"{name:<4} {shown:<14} {examples[name]:>8,} {taken:>7}  "
        head += "".join(f"[{one} = {deviations[one]}] " for one in clause.rulings if one in deviations)
        if one.why:
            head += f"[{one.why}] "
        sentence = f"({clause.section}) " + re.sub(r"[`*]", "", clause.sentence)
        yield head + _shortened(sentence, max(20, width - len(head)))
    for name, value in deviations.items():
        yield f"declared deviation: {name} = {value} (required: {RULINGS[name][0]})"
    yield from warned(implementation)


def warned(implementation: Implementation) -> list[str]:
    """The warnings of the judged code, which count for nothing."""
    told: dict[tuple[str, str], dict[str, int]] = {}
    for (function, category, message), times in sorted(implementation.journal.warnings.items()):
        told.setdefault((function, category), {})[message] = times
    return [
        f"warnings in `{function}`: {sum(counts.values())} × {category}: {next(iter(counts))}"
        + (f"; and {len(counts) - 1} others" if len(counts) > 1 else "")
        for (function, category), counts in told.items()
    ]


def counted(outcomes: Mapping[str, str]) -> str:
    """How many clauses came out in which way."""
    counts = Counter(outcomes.values())
    order = ("passed", "passed in part", *reversed(OUTCOMES))
    parts = [f"{counts[outcome]} {outcome}" for outcome in dict.fromkeys(order) if counts[outcome]]
    return f"{len(outcomes)} clauses: {', '.join(parts)}"


def _shortened(sentence: str, width: int) -> str:
    return sentence if len(sentence) <= width else sentence[: width - 1].rstrip() + "…"
