"""The mutants' own books."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from .. import run_mutants
from ..conformance import HERE, Implementation, SuiteError, clauses
from ..contract import CAPABILITIES, EDITORS, NAMES
from ..mutants import BY_ID, MUTANTS, Mutant, Mutation
from ..mutants.declared import Declares
from ..run_mutants import WITHOUT_MUTANT, Verdict
from ..verdicts import Result

#: What released code of this field got wrong, and who stands for it.
DEFECTS = {
    "the L0 penalty is detached": ("detached-penalty", "penalty-trains-nothing"),
    "a mask has an unbounded scale": ("unbounded-mask-scale",),
    "an L0 mean is called a sum": ("other-penalty-norm",),
    "the KL divergence is reversed": ("kl-reversed",),
    "retain inputs are drawn from the edited fact's parallels": ("retain-from-parallels",),
    "harmonic means are averaged per step": ("succ-per-step",),
    "a micro average stands for the macro average": ("micro-average",),
    "edit language and mask row are mismatched through a set's order": (
        "rows-in-sorted-order",
        "rows-by-sorted-language",
    ),
    "a set's order decides that of the samples": ("set-order", "order-of-reading"),
    "training and validation share one random stream": ("shared-random-stream",),
    "inner learning rates have two owners": ("two-owners",),
    "inner learning rates are moved by none": ("no-owner", "inner-rates-never-move", "step-size-moved-by-none"),
    "masks of rows and columns are swapped": ("masks-of-x-and-delta-swapped",),
    "a matrix is transposed by its shape": ("transposed-if-square",),
    "gates are sampled at test time": ("sampled-at-test",),
    "raw parameters are left modified": ("raw-model-left-edited",),
    "the mask is another language's than the edit's": ("next-languages-mask", "masks-of-another-language"),
    "an unknown option is ignored": ("masks-option-ignored", "masks-ignored-by-finetuning", "edit-language-guessed"),
    "RMSprop goes by the name of Adam": ("rmsprop-under-the-name-of-adam",),
    "con is asked of every position of the padded row": ("whole-row-compared",),
    "ascent stands for descent": ("ascent-for-descent",),
    "KnowledgeEditor never sees the desired prediction": ("condition-of-the-other-ruling",),
    "a part of an evaluation is one language": ("prefix-of-one-language",),
    "gates are drawn per token": ("one-draw-per-token",),
    "LayerNorm's eps swallows the gradient": ("eps-swallows-the-gradient",),
    "the first optimiser step is over eleven edits": ("eleven-edits-first",),
    "the last step of finetuning is lost": ("last-step-dropped",),
    "an update input names the edit language's subject": ("subject-of-the-other-ruling",),
}


def test_ids_are_unique() -> None:
    """One id, one mutant."""
    ids = [mutant.id for mutant in MUTANTS]
    assert sorted(ids) == sorted(set(ids))


def test_there_are_at_least_twenty() -> None:
    """A handful of miniatures would prove little."""
    assert len(MUTANTS) >= 20


def test_every_clause_has_a_mutant() -> None:
    """A clause that nothing can break is not tested; a mutant of no clause breaks nothing."""
    assert {mutant.clause for mutant in MUTANTS} == set(clauses()) - WITHOUT_MUTANT


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_known_defect_has_a_mutant(defect: str) -> None:
    """What went wrong once is tried on every implementation."""
    assert DEFECTS[defect]
    assert set(DEFECTS[defect]) <= set(BY_ID)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_a_mutant_differs_from_its_base_in_functions_of_the_contract(mutant: Mutant) -> None:
    """It says what is wrong in a sentence, and overrides functions that the contract names."""
    assert mutant.sentence.endswith(".")
    assert mutant.needs <= {*NAMES, *CAPABILITIES, *EDITORS}
    # To declare what is not followed is a fault, too.
    declares = isinstance(mutant.build, type) and issubclass(mutant.build, Declares)
    assert run_mutants.touched(mutant) or declares, "nothing of the contract is overridden"


def test_an_implementation_survives_as_its_own_mutant() -> None:
    """A wrapper that changes nothing keeps the functions, claims and rulings of its base."""
    base = SimpleNamespace(CLAIMS=frozenset("M"), RULINGS={"con_positions": "all"}, succ=lambda acc, con: acc * con)
    same = Mutation(base)
    assert same.succ(0.5, 0.5) == 0.25
    assert set(same.CLAIMS) == {"M"}
    assert same.RULINGS == {"con_positions": "all"}


def test_no_test_is_read_before_its_profile_is_known() -> None:
    """Hypothesis gives a test its settings when it is read: else a busy machine exceeds the deadline of its default."""
    code = "import sys; from spec_tests import run_mutants; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=True)
    assert [name for name in done.stdout.split() if name.startswith("spec_tests.test_")] == []


def test_only_mutants_of_claimed_chapters_are_chosen() -> None:
    """An implementation of chapter M alone is not judged by the mutants of the others."""
    base = Implementation(SimpleNamespace(CLAIMS=frozenset("M")), "base")
    assert {mutant.clause[0] for mutant in run_mutants._chosen(None, base)} == {"M"}


# The kill matrix

NUMPY = "spec_tests.adapters.numpy_core"
KILLER = Result("spec_tests/test_m_metrics.py::test_succ", ("M3",), "failed")


def verdict(name: str, killed: bool, **elsewhere: bool) -> Verdict:
    return Verdict(BY_ID[name], KILLER if killed else None, "7 tests pass", elsewhere)


def test_the_matrix_has_a_row_per_mutant_and_a_column_per_chapter() -> None:
    """X is the own chapter's kill, x another one's, - a chapter that lets it live, . one that was not asked."""
    killed = verdict("arithmetic-mean", True, R=True, S=False)
    head, row, lived = run_mutants.matrix([killed, verdict("zero-over-zero", False)])
    columns = {chapter: head.index(chapter) for chapter in NAMES}
    assert {chapter: row[at] for chapter, at in columns.items() if row[at] != "."} == {"M": "X", "S": "-", "R": "x"}
    assert row.endswith("killed by test_succ")
    crashed = run_mutants.matrix([Verdict(BY_ID["arithmetic-mean"], replace(KILLER, outcome="crashed"))])
    assert crashed[1].endswith("killed by test_succ, in which it crashed")
    assert lived[columns["M"]] == "-"
    assert lived.endswith("SURVIVED: 7 tests pass")


def test_a_kill_by_another_chapter_alone_is_no_kill() -> None:
    """It is said who noticed, and it counts as survived."""
    *_, row = run_mutants.matrix([verdict("arithmetic-mean", False, R=True, S=False)])
    assert row.endswith("SURVIVED: killed only by chapter R: 7 tests pass")


def test_a_clause_without_a_mutant_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among the chapters that are claimed; S10 is about the tests."""
    kept = [mutant for mutant in MUTANTS if mutant.clause not in ("M3", "D1")]
    monkeypatch.setattr(run_mutants, "MUTANTS", kept)
    base = Implementation(SimpleNamespace(CLAIMS=frozenset("MS")), "base")
    assert run_mutants.without_mutant(base) == ["M3"]


def test_a_mutant_that_its_own_chapter_spares_is_shown_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant of T with succ's functions: no test of T notices, and one of M does."""
    stray = Mutant("stray", "T1", "succ is the arithmetic mean.", BY_ID["arithmetic-mean"].build, frozenset("TM"))
    monkeypatch.setattr(run_mutants, "run", lambda *args: _run_of(args[2], args[3]))
    found = run_mutants.judge(stray, run_mutants.load(NUMPY))
    assert found.killer is None
    assert dict(found.elsewhere) == {"M": True}


def _run_of(options: list[str], plugin: object) -> tuple[run_mutants.Injected, str]:
    """A run in which one test of each chapter is there, and that of M fails."""
    judged = run_mutants.Injected(None)
    judged.results = [Result("t.py::test_parallels", ("T1",), "passed")]
    if isinstance(plugin, run_mutants.Concerned):
        assert (plugin.chapters, plugin.but, options) == ({"M"}, "T", [])
        judged.results = [KILLER]
    return judged, ""


def test_a_mutant_can_be_loaded_by_another_process() -> None:
    """Under its id, around the implementation that the environment names."""
    code = (
        "from spec_tests.conformance import load; "
        "print(load('spec_tests.run_mutants:arithmetic-mean').succ(1.0, 0.5), load('spec_tests.run_mutants').label)"
    )
    environment = {"PATH": "", "PYTHONPATH": str(HERE.parent), run_mutants.BASE: NUMPY}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.75", "spec_tests.run_mutants"]


@pytest.mark.parametrize("one_in", [1, 3, 8])
def test_the_parts_of_a_row_of_commits_are_all_mutants(one_in: int) -> None:
    parts = [run_mutants.part_of(MUTANTS, one_in, f"{number:08x}ff") for number in range(one_in)]
    assert sorted(mutant.id for part in parts for mutant in part) == sorted(mutant.id for mutant in MUTANTS)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert run_mutants.part_of(MUTANTS, one_in, "") == run_mutants.part_of(MUTANTS, one_in, "0" * 40)


def test_a_part_of_no_mutant_is_refused() -> None:
    with pytest.raises(SuiteError, match="--one-in 0"):
        run_mutants.part_of(MUTANTS, 0, "")
