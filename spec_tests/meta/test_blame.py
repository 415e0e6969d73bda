"""A fault turns one clause red: its own. Others pass, or are not judged after it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from .. import test_m_metrics, verdicts
from ..conformance import Violation, clauses
from ..verdicts import PRESUPPOSED, Result
from .planted import PLANTED
from .shown import shown

_EDITS = "one_step or outer_products or rate_starts or downhill or transformed or gated or confirms or only_declared"
_TRAINING = "parts_of_training or through_the_step or original_model or sum_of_its_parts or is_judged_by or descends"
#: The files and the tests in them that each fault could reach.
ASKED: dict[str, tuple[str, str]] = {
    "edits go uphill": ("tel", f"({_EDITS} or {_TRAINING}) and not knowledge_editor"),
    "inner rates have two owners": ("e", "owner or moves or nothing_to_train"),
    "L_loc at all positions": ("tel", _TRAINING),
    "the first order alone": ("tel", f"(editable_training or the_model) and ({_EDITS} or {_TRAINING})"),
    "no effective normalisation": ("te", f"({_EDITS} or identity_on or size_of_a) and not knowledge_editor"),
    "a penalty of the used rows": ("ael", f"(penalty or trains_the_masks or {_TRAINING}) and not knowledge_editor"),
    "succ is the arithmetic mean": ("mr", "succ or zero or metrics or breakdown or runs or harmonic or row"),
    "succ is averaged over edits": ("m", "succ or metrics or breakdown or runs or harmonic"),
    "the last edit is lost": ("ts", "confirming or edited_exactly or limit or parallels_in or number_of_inputs"),
    "a missing fact is replaced": ("ts", "edited_exactly or update_inputs or without_parallels"),
    "edits add up": ("te", f"({_EDITS} or edits_before or alike) and not knowledge_editor"),
    "a bias is edited too": ("te", f"({_EDITS} or takes_no_step or steps_until) and not knowledge_editor"),
    "gates are sampled at test time": (
        "a",
        "test_time or factors or rows_of_other or square or closed or only_the_editing",
    ),
}


@dataclass(frozen=True)
class Run:
    returncode: int
    found: tuple[dict[str, tuple[str, str]], list[str]]
    stdout: str

    @property
    def clauses(self) -> dict[str, tuple[str, str]]:
        return self.found[0]

    @property
    def causes(self) -> list[str]:
        return self.found[1]

    def ended(self, *outcomes: str) -> list[str]:
        """The clauses with one of these outcomes."""
        return [name for name, (outcome, _) in self.clauses.items() if outcome in outcomes]


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    """All runs of this file."""
    told = "{clause: [one.outcome, one.why] for clause, one in verdicts(injected.results, 'TMSABELDR').items()}"
    found = f"({told}, [str(cause) for cause in causes(injected.results)])"
    imports = "from spec_tests.meta.planted import PLANTED"
    return {name: Run(*values) for name, values in shown(ASKED, imports, "PLANTED[name][1]()", found).items()}


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_turns_its_own_clause_red_and_no_other(runs: dict[str, Run], name: str) -> None:
    """The others pass, or are not judged after it; the cause is told in one line."""
    run, (clause, _) = runs[name], PLANTED[name]
    assert run.ended("failed", "crashed", "error", "timed out") == [clause], run.stdout[-4000:]
    assert run.returncode == 1
    assert {run.clauses[other][1] for other in run.ended("not judged")} <= {f"after {clause}"}
    (told,) = run.causes
    assert told.startswith(clause)
    assert run.ended("passed", "passed in part"), "nothing else was asked"


def test_one_fault_of_several_editors_is_told_once(runs: dict[str, Run]) -> None:
    """With their names."""
    (told,) = runs["edits go uphill"].causes
    assert told.startswith("E11  edits go uphill: expected ")
    assert told.endswith(" (mend, editable_training, 3 tests)")


def test_what_is_taken_for_granted_is_no_circle() -> None:
    """A clause whose failure its own failure explained would never be red."""
    assert set(PRESUPPOSED) | {name for names in PRESUPPOSED.values() for name in names} <= set(clauses())
    assert [name for name in PRESUPPOSED if name in verdicts.presupposed(name)] == []


# Without a run


def failed(clause: str, test: str = "test_it", editor: str | None = None, *others: str) -> Result:
    violation = Violation(clauses()[clause], f"{clause} does not hold", {}, "", "")
    named = (clause, *others)
    return Result(f"t.py::{test}", named, "failed", str(violation), 1, "", violation, editor=editor)


def outcome(results: list[Result], clause: str) -> str:
    return str(verdicts.verdicts(results, [clause[0]])[clause])


def test_a_violation_is_that_of_its_own_clause() -> None:
    """What else the test would have asked is not judged."""
    result = Result("t.py::a", ("L1", "L2"), "failed", "", 1, "", failed("L2").violation)
    assert outcome([result], "L2") == "failed"
    assert outcome([result], "L1") == "not judged (after L2)"


def test_a_violation_of_another_clause_than_the_tests_is_shown() -> None:
    """A helper may find what the test did not look for."""
    result = Result("t.py::a", ("L1",), "failed", "", 1, "", failed("M3").violation)
    assert outcome([result], "M3") == "failed"
    assert outcome([result], "L1") == "not judged (after M3)"


@pytest.mark.parametrize(
    ("editor", "said"), [("mend", "not judged (after T2)"), ("finetuning", "failed"), (None, "not judged (after T2)")]
)
def test_a_clause_is_not_judged_after_what_it_presupposes(editor: str | None, said: str) -> None:
    """For the same editor, or where either is about none; an editor's fault explains nothing of another's."""
    results = [failed("E7", "later", editor), failed("T2", "first", "mend")]
    assert outcome(results, "E7") == said
    assert verdicts.exit_code(results) == 1


@pytest.mark.parametrize("rate", [math.nan, math.inf, None, "0.5", [0.5]])
def test_a_rate_that_is_no_number_is_a_violation(rate: object) -> None:
    """And no error of the suite, also where the implementation is compared with itself."""
    right, wrong, own = {"acc": 0.5, "con": 0.5, "succ": 0.5}, {"acc": 0.5, "con": rate, "succ": 0.5}, SimpleNamespace()
    own.has = lambda _: False
    with pytest.raises(Violation, match="con is no finite number"):
        test_m_metrics.obeys(own, "M6", wrong)  # type: ignore[arg-type]
    with pytest.raises(Violation, match="con is no finite number"):
        test_m_metrics.compare("M5", right, wrong, "differs")
    test_m_metrics.obeys(own, "M6", right)  # type: ignore[arg-type]
    test_m_metrics.compare("M5", right, {"acc": Fraction(1, 2), "con": np.float32(0.5)}, "differs")


def test_a_crash_is_told_once() -> None:
    """Where the implementation crashes at one place under several clauses, the first of them is red."""
    crash = ("edit", "KeyError", "a.py:3")
    told = ("KeyError: 3", 1)
    calls = zip(("E3", "E1", "E3"), ("edit(1)", "edit(2)", "edit(3)"), strict=True)
    results = [Result(f"t.py::{c}", (c,), "crashed", *told, crash=crash, call=call) for c, call in calls]
    assert outcome(results, "E3") == "crashed"
    assert outcome(results, "E1") == "not judged (after E3)"
    assert [str(cause) for cause in verdicts.causes(results)] == ["E3   KeyError: 3, in edit(1) (2 tests)"]


def test_what_cannot_be_shown_is_no_verdict() -> None:
    """A test whose case shows nothing leaves its clause unjudged, and without a red clause the whole as well."""
    results = [Result("t.py::a", ("E3",), "not judged", "the steps are as many"), Result("t.py::b", ("E1",), "passed")]
    assert outcome(results, "E3") == "not judged (the steps are as many)"
    assert verdicts.exit_code(results) == verdicts.NOT_JUDGED
    assert verdicts.exit_code([*results, failed("M3")]) == verdicts.NONCONFORMING


def test_a_failure_says_nothing_of_clauses_about_tests() -> None:
    """S10 is kept by a statistical test that finds a bias."""
    result = Result("t.py::a", ("S2", "S10"), "failed", "", 1, "", failed("S2").violation)
    assert outcome([result], "S10") == "passed"
