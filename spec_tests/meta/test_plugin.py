"""The plugin's verdicts: who conforms, who does not, and who cannot be judged."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from .. import report
from ..conformance import Implementation, SuiteError, Violation, clauses, version
from ..verdicts import Result
from .miniatures import right

ROOT = Path(__file__).parents[2]
MINIATURES = "spec_tests.meta.miniatures"
#: Of the Hypothesis profile that these runs have.
MUTANT_EXAMPLES = 15
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


def entry(kind: str, name: str) -> str:
    return f'[[xfail]]\n{kind} = "{name}"\nreason = "known since the first day"\n'


def reports(name: str) -> list[str]:
    return [part for ending in ("json", "md", "html") for part in ("--report", f"{{folder}}/{name}.{ending}")]


#: What an implementation raises that is none of its business, and how a report names it.
ORDERS = {
    "skipping": "Skipped: not today",
    "xfailing": "XFailed: as expected",
    "unittest_skipping": "SkipTest: not today",
    "exiting": "SystemExit: 0",
    "pytest_exiting": "Exit: enough",
    "leaving": "SystemExit: os._exit(0)",
}
SMALL = (
    *("right", "wrong", "crashing", "misfit", "incomplete", "empty", "asserting", "warning", "strange", "interrupted"),
    *("deviating", "undecided", "boasting", "unknown_editor", "hasty", "ending", *ORDERS),
    *("pleading", "spelled", "listed"),
)
#: Files that are named in place of a module.
FILES = {
    "my_metrics": "from spec_tests.adapters.numpy_core import aggregate, breakdown, hit, metrics, succ\n",
    "my_ending": "import sys\nsys.exit('no licence found')\n",
}
XFAILS = {
    "M3": entry("clause", "M3"),
    "test": entry("test", "test_golden_metrics") + entry("test", "test_succ_is_the_harmonic_mean"),
    "one of them": entry("test", "test_golden_metrics"),
    "passing": entry("clause", "M3") + entry("test", "test_both_zero_gives_zero"),
    "not claimed": entry("clause", "M3") + entry("clause", "T1"),
    "of E": entry("clause", "E1"),
    "no test": entry("test", "test_nothing"),
    "unknown": entry("clause", "M99"),
    "without reason": '[[xfail]]\nclause = "M3"\n',
    "empty reason": '[[xfail]]\nclause = "M3"\nreason = " "\n',
    "something else": '[xfails]\nM3 = "because"\n',
    "no toml": "M3 because",
}
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
    "no such clause": named("right", "--clauses", "M3,Q9"),
    "no clause": named("right", "--clauses", ","),
    "clause elsewhere": named("right", "--chapters", "M", "--clauses", "S1"),
    "no test": [*FEW[:-1], "no_such_test", "--implementation", f"{MINIATURES}:right"],
    "a function": named("right.succ"),
    "a folder": [*FEW, "--implementation", "{folder}"],
    "here": [*FEW, "--implementation", "."],
    "one chapter": named("right", "--chapters", "m"),
    "one test": ["spec_tests/test_m_metrics.py::test_both_zero_gives_zero", "--implementation", f"{MINIATURES}:right"],
    "left out": named("right", "--leave-out", "M3,test_edits_weigh_the_same"),
    "left out unknown": named("right", "--leave-out", "E99"),
    **{name: [*FEW, "--implementation", f"{{folder}}/{name}.py"] for name in FILES},
    "no file": [*FEW, "--implementation", "{folder}/nothing.py"],
    "in a file": [*FEW, "--implementation", "{folder}/my_metrics.py:nothing"],
    "without ending": [*FEW, "--implementation", "{folder}/my_metrics"],
    **{name: named(name, "--call-timeout", "0.3") for name in ("sleeping", "stubborn")},
    "no limit": named("right", "--call-timeout", "-1"),
    **{f"known {name}": named(name, "--xfails", "{folder}/M3.toml") for name in ("right", "wrong")},
    "with tracebacks": named("wrong", "--tb", "short"),
    "lacking succ": [*FEW[:-1], "both_zero", "--implementation", f"{MINIATURES}:half_told"],
    "no mlama": named("right", "--mlama", "no/such/folder"),
    "no xfails": named("right", "--xfails", "{folder}/nothing.toml"),
    "nothing": [*named("right")[:-1], ""],
    "in process": FEW,
    **{
        f"report of {name}": named(name, *reports(name))
        for name in ("wrong", "crashing", "misfit", "deviating", "warning", "incomplete", "interrupted", "verbose")
    },
    "repeated": [*FEW[:-1], "harmonic", "--implementation", f"{MINIATURES}:right", "--repeat", "3"],
    "seeded": [*FEW[:-1], "harmonic", "--implementation", f"{MINIATURES}:once_wrong", "--repeat", "9"],
    **{f"xfails {name}": named("wrong", "--xfails", f"{{folder}}/{name}.toml") for name in XFAILS},
    "xfails in E": named("right", "--chapters", "M", "--xfails", "{folder}/of E.toml"),
    "xfails of all": [
        *("spec_tests", "--ignore=spec_tests/meta", "--chapters", "T", "--implementation", f"{MINIATURES}:empty"),
        *("--xfails", "{folder}/no test.toml", "--report", "{folder}/empty.json"),
    ],
    "report.txt": named("right", "--report", "out.txt"),
    "report nowhere": named("right", "--report", "no/such/folder/out.md"),
    "report on a folder": named("right", "--report", "{folder}/folder.md"),
    "report too long": named("right", "--report", f"{{folder}}/{'a' * 248}.json", "--report", "{folder}/beside.json"),
    "in order": [*paths(["test_a_joint.py", "test_a_masks.py"]), "--collect-only", "-q", *named("right")[-2:]],
    "no repeats": named("right", "--repeat", "0"),
    "numpy_core": [*paths(RULED + OTHERS), *QUIETLY, "--implementation", "spec_tests.adapters.numpy_core"],
    "blind": [
        *(*paths(["test_e_editors.py"]), "-k", "gates_see"),
        *("--implementation", "spec_tests.adapters.textbook:blind"),
    ],
    "released": [*paths(RULED), *QUIETLY, "--implementation", "spec_tests.adapters.numpy_core:released"],
    **{f"beside {name}": [*named("right"), f"{{folder}}/test_{name}.py"] for name in ("both_right", "both_wrong")},
}


@dataclass(frozen=True)
class Run:
    returncode: int
    stdout: str
    outcomes: dict[str, str]
    tests: int
    folder: Path


Runs = dict[str, Run]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All runs of this file, one after the other in a process of their own."""
    folder = tmp_path_factory.mktemp("runs")
    for name, text in XFAILS.items():
        (folder / f"{name}.toml").write_text(text)
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "folder.md").mkdir()
    for name, condition in (("both_right", "True"), ("both_wrong", "False")):
        (folder / f"test_{name}.py").write_text(f"def test_{name}():\n    assert {condition}\n")
    options = ["--hypothesis-profile=mutants", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(
            {name: [part.format(folder=folder) for part in [*arguments, *options]] for name, arguments in RUNS.items()}
        ),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: Run(*values, folder) for name, values in json.loads(done.stdout).items()}


def row(run: Run, clause: str) -> str:
    found = re.search(rf"^{clause} .*$", run.stdout, flags=re.MULTILINE)
    assert found, run.stdout
    return found.group()


@pytest.mark.parametrize(
    "name",
    [
        *("numpy_core", "released", "blind", "right", "deviating", "one chapter", "one test", "left out", "incomplete"),
        *("warning", "strange", "my_metrics"),
    ],
)
def test_right_implementations_conform(runs: Runs, name: str) -> None:
    """Exit code 0; the independent implementation passes under the required and under the alternative rulings."""
    assert runs[name].returncode == 0, runs[name].stdout[-3000:]


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("wrong", "FAILED"), ("crashing", "CRASHED"), ("asserting", "CRASHED"), *((name, "CRASHED") for name in ORDERS)],
)
def test_wrong_implementations_do_not(runs: Runs, name: str, outcome: str) -> None:
    """Exit code 1, a red clause, and a line that reproduces it."""
    assert runs[name].returncode == 1, runs[name].stdout[-3000:]
    assert outcome in row(runs[name], "M3")
    assert f"--implementation {MINIATURES}:{name}" in runs[name].stdout


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing named", "no implementation to judge"),
        ("not there", "cannot import the implementation"),
        ("not a module", "cannot import the implementation 'no.such.module'"),
        ("no such chapter", "--chapters names Q"),
        ("no such clause", "--clauses names Q9; SPEC.md has no such clause"),
        ("no clause", "--clauses names nothing"),
        ("clause elsewhere", "--clauses names S1; --chapters names M alone"),
        ("no test", "could not be judged: no test was chosen"),
        ("a function", "which is not called; name what it makes"),
        ("a folder", "it is a folder; name a file in it"),
        ("here", "it is a folder; name a file in it"),
        ("pleading", "CLAIMS is 5"),
        ("spelled", "EDITORS is 'mend'"),
        ("listed", "RULINGS is ['penalty']; expected a dictionary"),
        ("undecided", "con_positions = 'some'"),
        ("boasting", "CLAIMS names ['X']"),
        ("unknown_editor", "EDITORS names ['rome']"),
        ("hasty", "ACCUMULATES is 0"),
        ("ending", "it ends the process when it is imported (sys.exit('no licence found'))"),
        ("my_ending", "it ends the process when it is imported (sys.exit('no licence found'))"),
        ("no file", "there is no file "),
        ("in a file", "has no attribute 'nothing'"),
        ("without ending", "a file is named with its ending, "),
        ("left out unknown", "--leave-out names E99"),
        ("no limit", "--call-timeout -1: expected seconds, or 0 for no limit"),
        ("sleeping", "`succ` did not return within 0.3 s (--call-timeout 0.3)"),
        ("stubborn", "`succ` did not return within 0.3 s (--call-timeout 0.3)"),
        ("interrupted", "the run was interrupted"),
        ("misfit", "`succ` does not take the arguments of the contract"),
        ("empty", "not claimed"),
        ("report.txt", "--report out.txt: expected a name that ends in .html, .md, .json"),
        ("report nowhere", "there is no folder"),
        ("report on a folder", "it is a folder; name a file"),
        ("report too long", ".json: cannot be written: "),
        ("no repeats", "--repeat 0: expected 1 or more"),
        ("xfails passing", "entry 2 (test test_both_zero_gives_zero) passes: take it out"),
        ("xfails not claimed", "entry 2 (clause T1) is not claimed: take it out"),
        ("xfails of all", "entry 1 (test test_nothing) matches no test"),
        ("xfails unknown", "entry 1: SPEC.md has no clause M99"),
        ("xfails without reason", "entry 1 has ['clause']; expected \"reason\""),
        ("xfails empty reason", "entry 1: reason = ' '; expected a text"),
        ("xfails something else", "expected [[xfail]] entries and nothing else, found ['xfails']"),
        ("xfails no toml", "no toml.toml is not TOML ("),
        ("no mlama", "--mlama no/such/folder: there is no such folder"),
        ("no xfails", "nothing.toml: cannot be read: No such file or directory; expected a file of [[xfail]] entries"),
        ("nothing", "--implementation names nothing; expected package.module[:object] or path/to/file.py"),
    ],
)
def test_what_cannot_be_judged_says_why(runs: Runs, name: str, sentence: str) -> None:
    """Exit code 2 and a sentence."""
    assert runs[name].returncode == 2, runs[name].stdout[-3000:]
    assert sentence in runs[name].stdout


@pytest.mark.parametrize(("name", "code"), [("both_right", 0), ("both_wrong", 1)])
def test_a_failure_beside_the_suite_counts(runs: Runs, name: str, code: int) -> None:
    """An implementation that conforms does not hide a test of another folder that fails."""
    assert runs[f"beside {name}"].returncode == code, runs[f"beside {name}"].stdout[-3000:]


def test_a_failure_explains_itself(runs: Runs) -> None:
    """What is wrong, expected and got in a line; the clause and its sentence, the inputs; no line of the suite."""
    told = runs["wrong"].stdout.partition("= FAILURES =")[2]
    assert re.search(r"^succ is not the harmonic mean: expected [\d.e-]+, got [\d.e-]+$", told, flags=re.MULTILINE)
    for part in (
        "M3 (§4.1; ruling) in SPEC.md: succ is the harmonic mean",
        "\n  acc = ",
        "\n  con = ",
        "\n  tolerance: ",
    ):
        assert part in told
    assert not re.search(r"assertions\.py|Violation|close\(", told)
    assert "assertions.py" in runs["with tracebacks"].stdout


def test_a_crash_shows_the_implementations_own_code(runs: Runs) -> None:
    """The error, the call that raised it, and where; nothing of the suite's."""
    told = runs["crashing"].stdout.partition("= FAILURES =")[2].partition("= conformance of")[0]
    assert "KeyError: 'succ' (raised by the implementation's `succ`)\n  M3 (§4.1; ruling) in SPEC.md: " in told
    assert "\n  call: succ(acc=" in told
    assert re.search(r'^  File ".*miniatures.py", line \d+, in _crash$', told, flags=re.MULTILINE)
    assert not re.search(r'File ".*(border|test_m_metrics)\.py"', told)
    assert re.search(r"^  M3   KeyError: 'succ' .*, in succ\(", runs["crashing"].stdout, flags=re.MULTILINE)


def test_a_long_message_is_cut(runs: Runs) -> None:
    """With its length, in what is printed and in each report."""
    run = runs["report of verbose"]
    assert "x … (1,000,000 characters) (raised by the implementation's `succ`)" in run.stdout
    texts = [run.stdout, *((run.folder / f"verbose.{ending}").read_text("utf-8") for ending in ("json", "md", "html"))]
    assert not [text for text in texts if re.search("x{1001}", text)]


def test_what_cannot_be_used_is_named(runs: Runs) -> None:
    """The function and what it returned, for an adapter that returns something else than the contract's."""
    run = runs["lacking succ"]
    assert run.returncode == 2
    said = "the suite cannot go on with what `metrics` returned: KeyError: 'succ'"
    assert f"{said}\n  M3 (§4.1; ruling) in SPEC.md: " in run.stdout
    assert "\n  call: metrics(...) returned {'acc': 0, 'con': 0}\n" in run.stdout
    assert f"what could not be judged, and why:\n  {said} (M" in run.stdout


def test_a_crash_is_the_implementations_own(runs: Runs) -> None:
    """A KeyError inside `succ` is a failure of the implementation; a wrong signature is an error of the adapter."""
    assert "raised by the implementation's `succ`" in runs["crashing"].stdout
    assert "ERROR" in row(runs["misfit"], "M3")
    told = "`succ` does not take the arguments of the contract: "
    assert "; it asks for succ(acc, con) (M3" in runs["misfit"].stdout
    head = runs["misfit"].stdout.partition("what could not be judged, and why:\n  ")[2]
    assert head.startswith(told)
    assert re.search(r"\(M3.*\)", head.partition("\n")[0])
    for ending in ("md", "html"):
        page = (runs["report of misfit"].folder / f"misfit.{ending}").read_text(encoding="utf-8")
        assert "could not be judged" in page
        assert "does not take the arguments of the contract" in page


def test_a_missing_function_judges_nothing(runs: Runs) -> None:
    """Its clauses are claimed in part, and what is there is judged."""
    assert "claimed in part" in row(runs["incomplete"], "M3")
    assert "[lacks `succ`]" in row(runs["incomplete"], "M3")
    assert "FAILED" not in runs["incomplete"].stdout
    assert re.search(r"^conforms in all .*; M is claimed in part: lacks succ", runs["incomplete"].stdout, re.MULTILINE)
    assert "passed  " in row(runs["incomplete"], "M7")


@pytest.mark.parametrize("name", ORDERS)
def test_an_implementation_gives_no_orders_to_the_suite(runs: Runs, name: str) -> None:
    """What means "skip" or "stop" to a test framework is a crash like any other."""
    assert f"{ORDERS[name]} (raised by the implementation's `succ`)" in runs[name].stdout
    assert "not claimed" not in row(runs[name], "M3")


@pytest.mark.parametrize("name", ["sleeping", "stubborn"])
def test_a_call_that_takes_too_long_ends_its_test(runs: Runs, name: str) -> None:
    """It is named, no more calls are waited for, and the other tests go on."""
    assert "TIMED OUT" in row(runs[name], "M3")
    assert "passed" in row(runs[name], "M7")
    assert runs[name].stdout.count("did not return within") < 20


def test_a_call_that_cannot_be_interrupted_ends_the_run(tmp_path: Path) -> None:
    """The report is written all the same: the test timed out, and what comes after it was not run."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *named("stuck", "--call-timeout", "0.5"),
            "--report",
            str(tmp_path / "a.json"),
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "could not be judged: `succ` did not return, and could not be interrupted" in done.stdout
    made = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert clause_of(made, "M3")["outcome"] == "timed out"
    assert not made["run"]["whole"]


def test_what_was_interrupted_was_not_run(runs: Runs) -> None:
    """A test that Ctrl-C ends has not passed, and neither have those after it."""
    run = runs["report of interrupted"]
    made = json.loads((run.folder / "interrupted.json").read_text(encoding="utf-8"))
    assert made["exit_code"] == 2
    assert clause_of(made, "M3")["outcome"] == "not run"
    whys = {one["why"] for one in made["run"]["not_run"]}
    assert {"the run was interrupted", "the run ended before"} <= whys
    assert "the run was interrupted" in made["verdict"]


def test_warnings_are_counted_and_not_judged(runs: Runs) -> None:
    """Those of the judged code, by function; the clause passes."""
    assert "passed" in row(runs["warning"], "M3")
    found = re.search(r"^warnings in `succ`: (\d+) × FutureWarning: succ will be", runs["warning"].stdout, re.MULTILINE)
    assert found
    run = runs["report of warning"]
    (told,) = json.loads((run.folder / "warning.json").read_text(encoding="utf-8"))["warnings"]
    assert (told["function"], told["category"]) == ("succ", "FutureWarning")
    assert told["count"] >= MUTANT_EXAMPLES
    for ending in ("md", "html"):
        assert "FutureWarning: succ will be" in (run.folder / f"warning.{ending}").read_text(encoding="utf-8")


def test_a_part_of_the_tests_is_called_a_part(runs: Runs) -> None:
    """By -k, by a single test, and by what was left out."""
    last = {name: runs[name].stdout.strip().splitlines()[-3:] for name in ("right", "one test", "left out")}
    assert any("a part of chapters T, M only" in line for line in last["right"])
    assert any("a part of chapter M only" in line for line in last["one test"])
    assert any("left out: M3,test_edits_weigh_the_same" in line for line in last["left out"])
    assert "[left out]" in row(runs["left out"], "M3")
    assert "M3 " in runs["left out"].stdout
    assert "passed in part" in row(runs["left out"], "M4")


def test_a_fault_is_told_first_and_once(runs: Runs) -> None:
    """What is wrong, in a line that names the clause, stands before the clauses."""
    printed = runs["wrong"].stdout
    told = printed.index("M3   succ is not the harmonic mean")
    assert printed.index("what is wrong, each fault once:") < told < printed.index("\nM1 ")
    others = [clause for clause in ("M1", "M2", "M4", "M5", "M8") if "passed" not in row(runs["wrong"], clause)]
    assert others == []


def test_what_is_not_claimed_is_shown_and_never_passed(runs: Runs) -> None:
    """An implementation of M alone has every T clause as not claimed."""
    assert "not claimed" in row(runs["right"], "T1")
    assert "passed" in row(runs["right"], "M3")
    assert re.search(r"passed, .*not claimed", runs["right"].stdout)
    assert not re.search(r"\bpassed", runs["empty"].stdout)


def test_a_report_that_cannot_be_written_keeps_no_other(runs: Runs) -> None:
    """The verdict is printed, and the other report is there."""
    run = runs["report too long"]
    assert "conforms in all that it claims" in run.stdout
    assert json.loads((run.folder / "beside.json").read_text(encoding="utf-8"))["exit_code"] == 0


def test_a_folder_that_refuses_a_report_is_told_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not after an hour."""
    report.check([tmp_path / "out.html"])
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SuiteError, match=f"nothing can be written in {tmp_path}; name another folder"):
        report.check([tmp_path / "out.html"])


def test_what_needs_less_is_asked_first(runs: Runs) -> None:
    """So that a fault is told by the plainest test that sees it: of a clause, by one without an editor."""
    order = re.findall(r"::(test_\w+)", runs["in order"].stdout)
    names = ("test_gates_are_hard_concrete", "test_no_two_places_of_a_large_batch_share_a_draw")
    assert order.index(names[0]) < order.index(names[1])


@pytest.mark.parametrize("name", ["no such clause", "clause elsewhere", "interrupted"])
def test_what_was_not_begun_has_no_part(runs: Runs, name: str) -> None:
    """An option that is wrong is told alone, and no part of a chapter without a name is."""
    assert ("conformance of" in runs[name].stdout) == (name == "interrupted")
    assert "a part of chapter  only" not in runs[name].stdout


def test_chapters_limit_the_table(runs: Runs) -> None:
    """Only rows of the chosen chapters are shown."""
    assert row(runs["one chapter"], "M3")
    assert not re.search(r"^T1 ", runs["one chapter"].stdout, flags=re.MULTILINE)


def test_deviations_are_declared_in_the_table(runs: Runs) -> None:
    """An alternative is tested as such, and said."""
    assert "declared deviation: con_positions = all (required: mask)\n" in runs["deviating"].stdout


def test_an_implementation_without_mend_is_not_judged_by_it(runs: Runs) -> None:
    """Tests of an editor are not claimed by those who have other editors only; of its own editors one is judged."""
    assert runs["without_mend"].returncode == 0, runs["without_mend"].stdout[-3000:]
    assert "not claimed" in row(runs["without_mend"], "E6")
    assert "claimed in part" in row(runs["without_mend"], "E1")
    assert "lacks `make_editor`" in row(runs["without_mend"], "E1")
    assert "E is claimed in part: lacks make_editor" in runs["without_mend"].stdout


def test_an_object_is_judged_in_process(runs: Runs) -> None:
    """Injected keeps outcomes by clause and a result for each test."""
    run = runs["in process"]
    assert run.returncode == 1
    assert run.outcomes["M3"] == "failed"
    assert run.outcomes["S1"] == "not run"
    assert run.outcomes["T1"] == "not claimed"
    assert run.tests > 10


@pytest.mark.parametrize("name", ["M3", "test"])
def test_known_failures_are_shown_and_do_not_count(runs: Runs, name: str) -> None:
    """By clause or by test, with the reason given; what an entry of another chapter says is left alone."""
    run = runs[f"xfails {name}"]
    assert run.returncode == 0, run.stdout[-3000:]
    assert "known failure" in row(run, "M3")
    assert "FAILED" not in run.stdout
    assert runs["xfails in E"].returncode == 0, runs["xfails in E"].stdout[-3000:]


def test_a_failure_beside_the_known_ones_counts(runs: Runs) -> None:
    """Exit code 1."""
    assert runs["xfails one of them"].returncode == 1
    assert "FAILED" in row(runs["xfails one of them"], "M3")


def test_properties_are_repeated_under_many_seeds(runs: Runs) -> None:
    """Each run has new examples; a failure names the seed, and the command that repeats it has it."""
    assert runs["repeated"].returncode == 0, runs["repeated"].stdout[-3000:]
    once, thrice = examples(row(runs["right"], "M3")), examples(row(runs["repeated"], "M3"))
    assert 2.5 * MUTANT_EXAMPLES <= thrice <= 3 * MUTANT_EXAMPLES
    assert once <= MUTANT_EXAMPLES + 10
    assert runs["seeded"].returncode == 1
    assert re.search(rf"{MINIATURES}:once_wrong --hypothesis-seed [1-8]\n", runs["seeded"].stdout)


def examples(line: str) -> int:
    return int(line.split()[2].replace(",", ""))


def test_the_report_says_what_the_run_found(runs: Runs) -> None:
    """JSON by its schema: the smallest example, expected and got, a command; three kinds of outcome; deviations."""
    schema = json.loads((ROOT / "spec_tests" / "report.schema.json").read_text(encoding="utf-8"))
    found = {}
    for name, outcome in {"wrong": "failed", "crashing": "crashed", "misfit": "error", "deviating": "passed"}.items():
        run = runs[f"report of {name}"]
        found[name] = json.loads((run.folder / f"{name}.json").read_text(encoding="utf-8"))
        jsonschema.validate(found[name], schema)
        assert found[name]["exit_code"] == run.returncode
        assert clause_of(found[name], "M3")["outcome"] == outcome
        assert not found[name]["run"]["whole"]
    for name in ("warning", "incomplete", "interrupted"):
        jsonschema.validate(json.loads((runs[f"report of {name}"].folder / f"{name}.json").read_text("utf-8")), schema)
    failure = clause_of(found["wrong"], "M3")["failures"][0]
    assert failure["inputs"].keys() == {"acc", "con"}
    assert float(failure["got"]) != float(failure["expected"])
    assert "acc=" in failure["smallest_example"]
    assert failure["tolerance"].startswith("1e-06, relative above 1 (float32: ")
    (cause,) = found["wrong"]["causes"]
    assert cause["clause"] == "M3"
    line = (
        r"succ is not the harmonic mean: expected [\d.e-]+, got [\d.e-]+, for acc = .+, con = .+; and 2 other findings"
    )
    assert re.fullmatch(line, cause["what"]), cause["what"]
    assert found["wrong"]["specification"]["version"] == version()
    assert re.fullmatch(r"[0-9a-f]{16}", found["wrong"]["specification"]["digest"])
    assert {"numpy", "torch", "transformers"} <= found["wrong"]["run"]["packages"].keys()
    assert clause_of(found["wrong"], "M3")["since"] == "1.0"
    assert failure["command"] == (
        "nox -s spec -- spec_tests/test_m_metrics.py::test_succ_is_the_harmonic_mean "
        f"--implementation {MINIATURES}:wrong"
    )
    crash = clause_of(found["crashing"], "M3")["failures"][0]
    assert crash["what"] == "KeyError: 'succ' (raised by the implementation's `succ`)"
    assert clause_of(found["deviating"], "M7")["deviation"] == "all"
    assert found["deviating"]["implementation"]["deviations"] == [
        {"ruling": "con_positions", "declared": "all", "required": "mask"}
    ]


def clause_of(report: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(clause for clause in report["clauses"] if clause["id"] == name)
    return found


def test_the_pages_say_the_same(runs: Runs) -> None:
    """Markdown and HTML have every clause, and for a failure its numbers and its command; the page needs no network."""
    folder = runs["report of wrong"].folder
    made = json.loads((folder / "wrong.json").read_text(encoding="utf-8"))
    markdown, page = ((folder / f"wrong.{ending}").read_text(encoding="utf-8") for ending in ("md", "html"))
    for clause in made["clauses"]:
        assert f"| {clause['id']} | {clause['outcome']}" in markdown
        assert f'<tr id="{clause["id"]}">' in page
    for failure in clause_of(made, "M3")["failures"]:
        assert failure["command"] in markdown
        assert html.escape(failure["command"]) in page
        assert f": expected {failure['expected']}, got {failure['got']}\n" in page
    assert not re.search(r"""src=|href="(?!#)|<script|url\(|@import""", page)
    assert list(folder.glob(".*")) == []


def test_text_of_an_implementation_is_no_markup() -> None:
    """What a failure says may hold anything: it is shown as it is."""
    bad = "<script>alert(1)</script> ``` | **x**"
    violation = Violation(clauses()["M3"], bad, {"acc": bad}, "0", bad)
    result = Result("spec_tests/t.py::test[x]", ("M3",), "failed", bad, 1, f"test(x={bad})", violation)
    made = report.judgement(Implementation(right, bad), [result], ["M"], exit_code=1, whole=False)
    assert "<script" not in report.as_html(made)
    fenced = re.findall(r"^(````+)\n(.*?)^\1$", report.as_markdown(made), flags=re.MULTILINE | re.DOTALL)
    assert any(f"{bad}: expected 0, got {bad}\nacc = {bad}\n" in text for _, text in fenced)
