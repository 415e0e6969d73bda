"""The command `lime-spec`: skeletons, comparisons, badges, which tests are meant; the clauses as tests of one's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .. import badge, cli, comparison, own_suite, skeleton
from ..conformance import SuiteError, load
from ..contract import NAMES, OF_EDITOR
from ..remote import server

ROOT = Path(__file__).parents[2]
CHAPTERS = ",".join(NAMES)


# Skeletons


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("an_adapter", None)


def test_a_skeleton_has_just_the_functions_of_its_chapters(folder: Path) -> None:
    """Each empty, with the contract's arguments, defaults and docstring; it claims what its functions say."""
    skeleton.write(folder / "an_adapter.py", "m, S")
    found = load("an_adapter")
    assert found.claims == {"M", "S"}
    assert {name for name in vars(found.target) if callable(getattr(found.target, name))} == {*NAMES["M"], *NAMES["S"]}
    text = (folder / "an_adapter.py").read_text(encoding="utf-8")
    assert "def metrics(outcomes, languages=None):" in text
    assert 'Outcome: {"edit": str,' in text
    assert "role: 'update' or 'retain'" in text
    with pytest.raises(pytest.skip.Exception, match="`succ` has to be written yet"):
        found.succ(1, 1)
    assert found.unwritten == {"succ": True}


def test_a_skeleton_of_everything_is_python_of_any_version(folder: Path) -> None:
    """All functions of the contract, those of each editor too, in Python that 3.8 reads."""
    skeleton.write(folder / "an_adapter.py", CHAPTERS)
    text = (folder / "an_adapter.py").read_text(encoding="utf-8")
    names = {name for names in (*NAMES.values(), *OF_EDITOR.values(), ("factors",)) for name in names}
    import ast  # noqa: PLC0415

    tree = ast.parse(text, feature_version=(3, 8))
    assert {node.name for node in tree.body if isinstance(node, ast.FunctionDef)} == names
    assert max(map(len, text.splitlines())) <= 120
    for name in names:
        first = skeleton.what_is_asked(name).splitlines()[0]
        assert first
        assert first in text


def test_a_skeleton_of_one_editor_leaves_the_others_out(folder: Path) -> None:
    """EDITORS says which there are."""
    skeleton.write(folder / "an_adapter.py", "E", "mend")
    found = load("an_adapter")
    assert found.editors == ("mend",)
    assert hasattr(found.target, "transform")
    assert not hasattr(found.target, "gates")


@pytest.mark.parametrize(
    ("file", "chapters", "editors", "words"),
    [
        ("a.py", "M,Q", None, "--chapters names Q; there are T, M"),
        ("a.py", "", None, "--chapters names nothing"),
        ("a.py", "E", "rome", "--editors names rome; there are mend"),
        ("a.py", "M,S", "mend", "--editors is for chapter E"),
        ("a.txt", "M", None, "expected a name that ends in .py"),
        ("there.py", "M", None, "is there already"),
    ],
)
def test_a_skeleton_that_cannot_be_written_says_why(
    folder: Path, file: str, chapters: str, editors: str | None, words: str
) -> None:
    """Nothing is overwritten."""
    (folder / "there.py").write_text("mine = 1\n")
    with pytest.raises(SuiteError, match=words):
        skeleton.write(folder / file, chapters, editors)
    assert (folder / "there.py").read_text() == "mine = 1\n"


def _only_a_docstring() -> None:
    """Nothing."""


def _dots() -> None: ...


def _raises() -> None:
    """Something."""
    raise ValueError


def test_empty_functions_are_told_from_others() -> None:
    """A docstring, an ellipsis or `pass` is nothing; any statement is something, and so is what has no source."""
    assert server.empty(_only_a_docstring)
    assert server.empty(_dots)
    assert not server.empty(_raises)
    assert not server.empty(len)
    assert not server.empty(lambda: None)


# Which tests are meant


@pytest.mark.parametrize(
    "argument", ["test_m_metrics.py::test_x[a::b]", "spec_tests/test_m_metrics.py::test_x", "/a/b/test_m_metrics.py"]
)
def test_a_tests_id_is_found_wherever_the_suite_lies(argument: str) -> None:
    """With the folder of another installation, or with none."""
    found = cli._test(argument)
    assert found == str(cli.HERE / "test_m_metrics.py") + "".join(argument.partition("::")[1:])


@pytest.mark.parametrize("argument", ["test_mine.py", "adapter.py", "--report", "spec_tests/meta/old_code/adapter.py"])
def test_other_arguments_are_no_tests(argument: str) -> None:
    """An adapter that lies in the suite's folder is none either."""
    assert cli._test(argument) == ""


# Reports


def report(name: str = "an implementation", **changes: Any) -> dict[str, Any]:
    row = {"id": "M3", "outcome": "passed", "why": None, "sentence": "succ is a mean.", "section": "§4.1"}
    packages = {"numpy": "2.1", "torch": None}
    base: dict[str, Any] = {
        "version": 2,
        "specification": {"version": "2.0", "digest": "aa"},
        "implementation": {"name": name, "claims": ["M"], "editors": [], "deviations": [], "environment": None},
        "run": {"date": "2026-01-01", "chapters": ["M"], "whole": True, "part": "", "dtype": "float64"},
        "exit_code": 0,
        "verdict": "conforms",
        "tests": {"test_m_metrics.py::test_a": "passed"},
        "clauses": [row],
    }
    base["run"] |= {"python": "3.11.7", "machine": "Linux", "packages": packages}
    return {**base, **changes}


def test_two_reports_that_agree_differ_in_nothing() -> None:
    """And say so."""
    assert comparison.compare(report(), report())[-1] == "nothing changed"


def test_all_that_changed_is_said() -> None:
    """Versions, rulings, clauses, what a clause asks, tests that are new, gone or otherwise."""
    row = report()["clauses"][0]
    after = report(
        specification={"version": "2.1", "digest": "bb"},
        implementation={
            "name": "an implementation",
            "claims": ["M"],
            "editors": [],
            "deviations": [{"ruling": "con_positions", "declared": "all", "required": "mask"}],
            "environment": {"python": "3.8.18", "machine": "Linux", "packages": {"numpy": "1.20"}},
        },
        tests={"lime_spec/test_m_metrics.py::test_a": "failed", "test_m_metrics.py::test_b": "passed"},
        clauses=[
            {**row, "outcome": "not judged", "why": "after M1", "sentence": "succ is another mean."},
            {**row, "id": "M11"},
        ],
    )
    assert comparison.compare(report(), after)[3:] == [
        "specification: 2.0 (aa) → 2.1 (bb)",
        "Python: 3.11.7 → 3.8.18",
        "numpy: 2.1 → 1.20",
        "torch: none → as required",
        "ruling con_positions: as required → all",
        "M3: asks for something else: succ is another mean.",
        "M3: passed → not judged (after M1)",
        "M11: new; it is passed",
        "test new: test_m_metrics.py::test_b (passed)",
        "test test_m_metrics.py::test_a: passed → failed",
    ]


def test_a_reader_who_stops_early_is_no_error() -> None:
    """Such as `head`."""
    reading, writing = os.pipe()
    os.close(reading)
    code = "from spec_tests import cli; raise SystemExit(cli._said(lambda: ['a line'] * 100_000))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_ends_without_a_verdict_was_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest's own exit codes and errors are none of the three codes; 1 would call the implementation wrong."""
    for code in pytest.ExitCode:
        monkeypatch.setattr(pytest, "main", lambda _, code=code: code)
        assert cli.main(["--implementation", "mine"]) == min(code, 2)


ENDING = "import pytest, sys; from spec_tests import cli; pytest.main = lambda _: {}; sys.exit(cli.main(['-q']))"


def test_a_run_whose_output_cannot_be_written_was_not_judged() -> None:
    """Not even when Python ends, and writes what is left. Without an output it is judged as ever."""
    broken = [sys.executable, "-c", ENDING.format("print('a line', flush=True)")]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(broken, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        ["could not be judged: BrokenPipeError: [Errno 32] Broken pipe"],
    )
    closed = ["sh", "-c", '"$@" >&-', "sh", sys.executable, "-c", ENDING.format("sys.stdout.write('a line') - 6")]
    assert subprocess.run(closed, cwd=ROOT, check=False).returncode == 0


def test_without_assertions_nothing_is_judged() -> None:
    command = [sys.executable, "-O", "-m", "spec_tests", "--implementation", "mine"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Python runs without assertions (-O, PYTHONOPTIMIZE)")


def test_the_usage_names_a_command_once(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("start", "compare", "badge"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        usage = capsys.readouterr().out.partition("\n\n")[0].split()
        assert usage.count(command) == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ["start", "no/a.py", "--chapters", "M"],
            "no/a.py: there is no folder {folder}/no; make it, or name another file",
        ),
        (["start", "a" * 300 + ".py", "--chapters", "M"], ".py: cannot be written: File name too long"),
        (["start", "a.py", "--chapters", "E", "--editors", ""], "--editors names nothing; there are mend, "),
        (["badge", "good.json", "no/b.svg"], "no/b.svg: there is no folder {folder}/no; make it, or name another file"),
        (["badge", "good.json", "folder.svg"], "folder.svg: cannot be written: Is a directory; name another file"),
        (["badge", "stub.json", "b.svg"], "stub.json lacks specification.version, specification.digest, "),
        (["compare", "good.json", "stub.json"], "stub.json lacks specification.version, specification.digest, "),
        (["strat", "a.py"], "there is no command, test or file strat; commands are start, compare, badge; "),
    ],
)
def test_a_wrong_command_says_what_and_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str], said: str
) -> None:
    """In one line, and with the exit code 2."""
    (folder / "good.json").write_text(json.dumps(report()))
    (folder / "stub.json").write_text('{"version": 2, "clauses": [], "run": {}, "specification": {}}')
    (folder / "folder.svg").mkdir()
    assert cli.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said.format(folder=folder) in line
    assert "Errno" not in line


@pytest.mark.parametrize(
    ("text", "words"),
    [("no json", "is not JSON"), ("[]", "is no conformance report"), ('{"clauses": []}', "is no conformance")],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """With its path."""
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SuiteError, match=words):
        comparison.read(tmp_path / "a.json")
    old = report(version=1)
    (tmp_path / "b.json").write_text(json.dumps(old))
    with pytest.raises(SuiteError, match="has form 1 of the report"):
        comparison.read(tmp_path / "b.json")
    for rows in ("all", [{"id": "M3", "outcome": "passed"}]):
        (tmp_path / "c.json").write_text(json.dumps(report(clauses=rows)))
        with pytest.raises(SuiteError, match="has clauses without id"):
            comparison.read(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "1 of 1 clauses"),
        ({"exit_code": 2}, "not judged"),
        ({"exit_code": 1, "clauses": [{"outcome": "failed"}, {"outcome": "passed in part"}]}, "1 of 2 clauses"),
        ({"run": {**report()["run"], "whole": False}}, "1 of 1 clauses, run in part"),
    ],
)
def test_a_badge_counts_what_holds_of_what_is_claimed(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """As a picture and as JSON, green, red or grey by the exit code."""
    made = report(**changes)
    badge.write(made, tmp_path / "badge.svg")
    badge.write(made, tmp_path / "badge.json")
    shown = json.loads((tmp_path / "badge.json").read_text())
    assert shown["message"] == said
    assert shown["label"] == "lime-spec 2.0"
    picture = (tmp_path / "badge.svg").read_text()
    assert f"#{shown['color']}" in picture
    texts = [node.text for node in ET.fromstring(picture).iter() if node.tag.endswith("text")]
    assert texts == ["lime-spec 2.0", said]


# One's own test suite

MINE = """
from lime_spec import clauses

test_clause = clauses(
    "spec_tests.meta.miniatures:wrong", chapters="M", known_failures={{"M3": "later", {more}}},
    options=["--hypothesis-profile=mutants"],
)
test_nothing = clauses("spec_tests.meta.miniatures:empty", chapters="R", options=["--clauses=R1"])
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of somebody's own tests."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "test_mine.py").write_text(MINE.format(more='"M7": "never"').replace("lime_spec", "spec_tests"))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "spec_tests.plugin",
        "-rA",
        "-p",
        "no:cacheprovider",
        "test_mine.py",
    ]
    command += ["-k", "M3 or M7 or M9 or R1 or known", "--conformance-report", "out.json"]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    return done.stdout + (folder / "out.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [
        "XFAIL test_mine.py::test_clause[M3] - later",
        "PASSED test_mine.py::test_clause[M7]",
        "FAILED test_mine.py::test_clause[known failures]",
        "entry 2 (clause M7) passes: take it out",
        "SKIPPED",
        "not claimed",
        "specification 2.6: spec_tests.meta.miniatures:wrong",
        '"exit_code":',
    ],
)
def test_each_clause_is_a_test_of_ones_own(own: str, words: str) -> None:
    """Known failures are expected ones with their reason, stale ones fail, and what is not claimed is skipped."""
    assert words in own, own[:4000]


def test_only_what_was_selected_is_judged(own: str) -> None:
    """In one run for all that pytest selected."""
    assert "test_clause[M1]" not in own
    assert json.loads(own[own.index('{\n "version"') :])["tests"]


@pytest.mark.parametrize("chapters", ["M,Q", "Q"])
def test_an_unknown_chapter_is_an_error(chapters: str) -> None:
    """When the tests are collected."""
    with pytest.raises(ValueError, match="chapters names Q; SPEC"):
        own_suite.clauses("nothing", chapters=chapters)
