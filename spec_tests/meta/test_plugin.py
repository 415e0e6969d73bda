"""The plugin's verdicts: who conforms, who does not, and who cannot be judged."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MINIATURES = "spec_tests.meta.miniatures"
#: The chapters in which alternatives of a ruling matter, and the others.
RULED = ["test_m_metrics.py", "test_a_masks.py", "test_b_budget.py", "test_d_data.py"]
OTHERS = ["test_t_task.py", "test_s_sampling.py", "test_r_reproduction.py"]
FEW = ["spec_tests/test_m_metrics.py", "spec_tests/test_t_task.py", "-k", "succ or both or golden or context"]
QUIETLY = ["-q", "-k", "not hash_seeds"]
#: All runs share one process: most of a small run is spent on importing.
DRIVER = """
import contextlib, io, json, sys
import pytest
from spec_tests.conformance import Injected
from spec_tests.meta.miniatures import wrong

found = {}
for name, arguments in json.load(sys.stdin).items():
    injected = Injected(wrong, "a wrong object")
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.redirect_stderr(text):
        plugins = [injected] if name == "in process" else []
        code = pytest.main(arguments, plugins=plugins)
    found[name] = [int(code), text.getvalue(), injected.outcomes, len(injected.results)]
json.dump(found, sys.stdout)
"""


def paths(names: list[str]) -> list[str]:
    return [f"spec_tests/{name}" for name in names]


def named(name: str, *options: str) -> list[str]:
    return [*FEW, "--implementation", f"{MINIATURES}:{name}", *options]


SMALL = (
    *("right", "wrong", "crashing", "misfit", "incomplete", "empty"),
    *("deviating", "undecided", "boasting", "unknown_editor"),
)
RUNS = {
    **{name: named(name) for name in SMALL},
    "without_mend": [
        *(*paths(["test_e_editors.py", "test_m_metrics.py"]), "-k", "identity_on_normalised or captured_is or succ"),
        *("--implementation", f"{MINIATURES}:without_mend"),
    ],
    "nothing named": FEW,
    "not there": named("nobody"),
    "not a module": [*FEW, "--implementation", "no.such.module"],
    "no such chapter": named("right", "--chapters", "M,Q"),
    "one chapter": named("right", "--chapters", "M"),
    "in process": FEW,
    "numpy_core": [*paths(RULED + OTHERS), *QUIETLY, "--implementation", "spec_tests.adapters.numpy_core"],
    "blind": [
        *(*paths(["test_e_editors.py"]), "-k", "gates_see"),
        *("--implementation", "spec_tests.adapters.textbook:blind"),
    ],
    "released": [*paths(RULED), *QUIETLY, "--implementation", "spec_tests.adapters.numpy_core:released"],
}


@dataclass(frozen=True)
class Run:
    returncode: int
    stdout: str
    outcomes: dict[str, str]
    tests: int


Runs = dict[str, Run]


@pytest.fixture(scope="module")
def runs() -> Runs:
    """All runs of this file, one after the other in a process of their own."""
    options = ["--hypothesis-profile=mutants", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps({name: [*arguments, *options] for name, arguments in RUNS.items()}),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: Run(*values) for name, values in json.loads(done.stdout).items()}


def row(run: Run, clause: str) -> str:
    found = re.search(rf"^{clause} .*$", run.stdout, flags=re.MULTILINE)
    assert found, run.stdout
    return found.group()


@pytest.mark.parametrize("name", ["numpy_core", "released", "blind", "right", "deviating", "one chapter"])
def test_right_implementations_conform(runs: Runs, name: str) -> None:
    """Exit code 0; the independent implementation passes under the required and under the alternative rulings."""
    assert runs[name].returncode == 0, runs[name].stdout[-3000:]


@pytest.mark.parametrize("name", ["wrong", "crashing", "incomplete"])
def test_wrong_implementations_do_not(runs: Runs, name: str) -> None:
    """Exit code 1, a red clause, and a line that reproduces it."""
    assert runs[name].returncode == 1, runs[name].stdout[-3000:]
    assert "FAILED" in row(runs[name], "M3")
    assert f"--implementation {MINIATURES}:{name}" in runs[name].stdout


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing named", "no implementation to judge"),
        ("not there", "cannot import the implementation"),
        ("not a module", "cannot import the implementation 'no.such.module'"),
        ("no such chapter", "--chapters names Q"),
        ("undecided", "con_positions = 'some'"),
        ("boasting", "CLAIMS names ['X']"),
        ("unknown_editor", "EDITORS names ['rome']"),
        ("misfit", "`succ` does not take the arguments of the contract"),
        ("empty", "not claimed"),
    ],
)
def test_what_cannot_be_judged_says_why(runs: Runs, name: str, sentence: str) -> None:
    """Exit code 2 and a sentence."""
    assert runs[name].returncode == 2, runs[name].stdout[-3000:]
    assert sentence in runs[name].stdout


def test_a_failure_explains_itself(runs: Runs) -> None:
    """Clause and sentence, inputs, expected and got."""
    for part in ("M3 (§4.1; ruling): succ is the harmonic mean", "acc = ", "expected: ", "got:      "):
        assert part in runs["wrong"].stdout


def test_a_crash_is_the_implementations_own(runs: Runs) -> None:
    """A KeyError inside `succ` is a failure of the implementation; a wrong signature is an error of the adapter."""
    assert "raised by the implementation's `succ`" in runs["crashing"].stdout
    assert "ERROR" in row(runs["misfit"], "M3")


def test_a_missing_function_is_named(runs: Runs) -> None:
    """A claimed chapter that lacks a function fails by its name."""
    assert "claims 'M' and lacks its function `succ`" in runs["incomplete"].stdout


def test_what_is_not_claimed_is_shown_and_never_passed(runs: Runs) -> None:
    """An implementation of M alone has every T clause as not claimed."""
    assert "not claimed" in row(runs["right"], "T1")
    assert "passed" in row(runs["right"], "M3")
    assert re.search(r"passed, .*not claimed", runs["right"].stdout)
    assert not re.search(r"\bpassed", runs["empty"].stdout)


def test_chapters_limit_the_table(runs: Runs) -> None:
    """Only rows of the chosen chapters are shown."""
    assert row(runs["one chapter"], "M3")
    assert not re.search(r"^T1 ", runs["one chapter"].stdout, flags=re.MULTILINE)


def test_deviations_are_declared_in_the_table(runs: Runs) -> None:
    """An alternative is tested as such, and said."""
    assert "declared deviation: con_positions = all (required: mask)\n" in runs["deviating"].stdout


def test_an_implementation_without_mend_is_not_judged_by_it(runs: Runs) -> None:
    """Tests of an editor are not claimed by those who have other editors only; of its own editors one is judged."""
    assert runs["without_mend"].returncode == 1, runs["without_mend"].stdout[-3000:]
    assert "not claimed" in row(runs["without_mend"], "E6")
    assert "FAILED" in row(runs["without_mend"], "E1")
    assert "claims 'E' and lacks its function `make_editor`" in runs["without_mend"].stdout
    assert "1 failed" in runs["without_mend"].stdout


def test_an_object_is_judged_in_process(runs: Runs) -> None:
    """Injected keeps outcomes by clause and a result for each test."""
    run = runs["in process"]
    assert run.returncode == 1
    assert run.outcomes["M3"] == "failed"
    assert run.outcomes["S1"] == "not run"
    assert run.outcomes["T1"] == "not claimed"
    assert run.tests > 10
