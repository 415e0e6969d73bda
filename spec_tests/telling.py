"""What is printed of a test that fails: a sentence, the clause, the case and the implementation's own frames.

pytest would print the suite's code, which a reader of a failure need not know. `--tb` with any style brings it back.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from types import TracebackType

import pytest
from _pytest._code.code import ReprFileLocation, TerminalRepr
from _pytest._io import TerminalWriter

from . import border
from .assertions import NotShown
from .border import Journal, Lacking, SuiteError, TimedOut
from .conformance import HERE, Violation, clauses
from .showing import IN_A_LINE, cut, shown

#: What says by itself all that there is to say.
_SENTENCES = (TimedOut, Lacking, NotShown, SuiteError, pytest.skip.Exception, pytest.fail.Exception)
#: Of a deep recursion, the last calls.
_FRAMES = 8


class Sentence(TerminalRepr):
    """Stands in a report for a traceback."""

    def __init__(self, lines: Sequence[str], where: tuple[str, int]) -> None:
        self.lines = list(lines)
        #: Where pytest looks for its summary's line.
        self.reprcrash = ReprFileLocation(*where, self.lines[0])

    def toterminal(self, tw: TerminalWriter) -> None:
        tw.line(self.lines[0], bold=True, red=True)
        for line in self.lines[1:]:
            tw.line(line)


def message(error: BaseException, journal: Journal) -> str:
    """An error in words; the implementation's are cut where they are long."""
    if isinstance(error, _SENTENCES):
        return cut(str(error))
    kind = "" if type(error).__name__ == "Crash" else f"{type(error).__name__}: "
    raised = getattr(error, "raised_by_implementation", None)
    if raised:
        return f"{kind}{cut(str(error))} (raised by the implementation's `{raised}`)"
    if isinstance(error, AssertionError):
        return cut(str(error))
    if journal.returned is not None:
        return f"the suite cannot go on with what `{journal.returned[0]}` returned: {kind}{cut(str(error))}"
    return kind + cut(str(error))


def call(error: BaseException, journal: Journal) -> str:
    """The call that crashed, or what came of the last one where the suite cannot use it; else empty."""
    called = getattr(error, "called_with", None)
    if called is not None:
        args, kwargs = called
        parts = [shown(value, longest=IN_A_LINE) for value in args]
        parts += [f"{name}={shown(value, longest=IN_A_LINE)}" for name, value in kwargs.items()]
        return cut(f"{error.raised_by_implementation}({', '.join(parts)})")  # type: ignore[attr-defined]
    if journal.returned is None or isinstance(error, (AssertionError, *_SENTENCES)):
        return ""
    name, result = journal.returned
    return f"{name}(...) returned {shown(result)}"


def example(error: BaseException) -> str:
    """The smallest example that Hypothesis found, in a line."""
    notes = [note for note in getattr(error, "__notes__", []) if "test case" in note or "example" in note]
    lines = (re.sub(r"implementation=[^\n]*\n", "", note) for note in notes)
    return cut("\n".join(re.sub(r"([(\[{])?\s*\n\s*", lambda found: found.group(1) or " ", line) for line in lines))


def without_progress(sections: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """What a test printed, but for progress bars: "Loading weights:  50%|###  | 29/58"."""
    kept = ((name, "".join(line for line in text.splitlines(True) if "%|" not in line)) for name, text in sections)
    return [(name, text) for name, text in kept if text.strip()]


def sentence(error: BaseException, told: str, named: Sequence[str], called: str, smallest: str) -> list[str]:
    """The lines of a failure: what is wrong, the clause, the case, and where it came about."""
    if isinstance(error, Violation):
        return [*str(error).splitlines(), *_indented(smallest)]
    lines = told.splitlines() or [type(error).__name__]
    lines += [f"  {clauses()[name].where}: {clauses()[name].sentence}" for name in named[:1] if name in clauses()]
    return [*lines, *_indented(f"call: {called}" if called else ""), *_indented(smallest), *_frames(error)]


def _indented(text: str) -> list[str]:
    return [f"  {cut(line)}" for line in text.splitlines()]


def _frames(error: BaseException) -> list[str]:
    """The implementation's own frames, or the line of the suite that could not go on."""
    if isinstance(error, _SENTENCES):
        return []
    elsewhere = [note for note in getattr(error, "__notes__", []) if note.startswith("in the implementation's process")]
    if elsewhere:
        return _indented(elsewhere[0])
    found = traceback.extract_tb(_behind_the_border(error.__traceback__))
    if not hasattr(error, "raised_by_implementation"):
        found = traceback.StackSummary([frame for frame in found if str(HERE) in frame.filename][-1:])
    left = len(found) - _FRAMES
    head = [f"  … {left} calls before"] if left > 0 else []
    return [*head, *(cut(line) for frame in found[-_FRAMES:] for line in _frame(frame))]


def _frame(frame: traceback.FrameSummary) -> list[str]:
    return traceback.StackSummary([frame]).format()[0].rstrip().splitlines()


def _behind_the_border(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that is the implementation's, where it has one."""
    frame, behind = trace, trace
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == border.__file__:
            behind = frame.tb_next or behind
        frame = frame.tb_next
    return behind
