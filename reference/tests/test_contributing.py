"""CONTRIBUTING.md does what it says: every example runs, and every command is one that there is."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from importlib.util import find_spec
from pathlib import Path

import pytest

from lime_editing.__main__ import main
from lime_editing.cli import options
from lime_editing.cli.options import command_line, read
from lime_editing.cli.parser import parser, plugins_of
from reference.tests.corpora import capitals, write_lines
from reference.tests.miniature import set_options
from reference.tests.page import PAGE, ROOT, command_with, commands, example, write_example

pytestmark = pytest.mark.usefixtures("registries")


def test_the_page_is_short() -> None:
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= 195


def test_every_command_is_one_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = set(re.findall(r"@nox.session\ndef (\w+)\(", (ROOT / "noxfile.py").read_text(encoding="utf-8")))
    monkeypatch.chdir(tmp_path)
    for name in ("mine.py", "capitals.py"):
        write_example(tmp_path, name)
    for words in commands():
        if words[:2] == ["nox", "-s"]:
            assert words[2] in sessions
            assert all((ROOT / word).exists() for word in words if "/" in word)
            if words[2] == "reproduce":
                assert parser().parse_args(["reproduce", *words[4:]]).command == "reproduce"
        elif words[:2] == ["python", "-m"] and words[2] == "lime_editing":
            options.plug_in(plugins_of(words[3:]))
            assert parser().parse_args(words[3:]).command == words[3]
        elif words[:2] == ["python", "-m"]:
            assert find_spec(words[2]) is not None
        else:
            assert words[0] in {"pip", "pre-commit"}


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_editor_outside_the_package_runs_to_a_report(in_folder: Path, facts: Path, model: Path) -> None:
    """In processes of their own, trained each way and with masks."""
    source = write_example(in_folder, "mine.py").read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for line in source.splitlines()) <= 26
    argv = [*command_with("mine.py"), *set_options(), "--facts", str(facts), "--model", str(model), "--jobs", "2"]
    assert main(argv) == 0
    root = in_folder / "runs" / "tiny-changed"
    rows = json.loads((root / "tables.json").read_text(encoding="utf-8"))["facts"]["rows"]
    assert [(row["evaluation"], row["training"]) for row in rows if row["approach"] == "mine"] == [
        *[("en → all", training) for training in ("all", "lime")],
        *[("all → all", training) for training in ("all", "lime")],
    ]
    record = json.loads(next(root.glob("facts-mine-lime-*/cell.json")).read_text(encoding="utf-8"))
    assert (record["titles"]["approach"], record["scale"]["settings"]["lr"]) == ("My Editor", 0.1)
    for written in ("report.html", "tables.md", "table2.tex", "figures/figure4-facts.svg"):
        assert "My Editor" in (root / written).read_text(encoding="utf-8"), written


def test_a_data_set_of_one_file_runs_to_a_report(in_folder: Path, model: Path) -> None:
    write_example(in_folder, "capitals.py")
    write_lines(in_folder / "my.jsonl", capitals())
    argv = [*command_with("capitals.py"), *set_options(), "--model", str(model), "--jobs", "2"]
    assert main(argv) == 0
    root = in_folder / "runs" / "tiny-changed"
    assert list(json.loads((root / "tables.json").read_text(encoding="utf-8"))) == ["capitals"]
    assert "Capitals, protocol “paper”" in (root / "report.html").read_text(encoding="utf-8")
    assert len(list(root.glob("capitals-*/metrics.json"))) == 3  # no edit, finetuning, mend


def test_an_option_is_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    """The record of the example is parsed, shown in the help, and written as a command line."""
    names = {**vars(options), "dataclass": dataclass, "__name__": "lime_editing.cli.options"}
    exec(compile(example("cli/options.py"), "cli/options.py", "exec"), names)
    record = names["Report"]
    (new,) = {one.name for one in fields(record)} - {one.name for one in fields(options.Report)}
    made = argparse.ArgumentParser()
    options.add(made, record)
    found = read(record, made.parse_args([options.flag(new), "7"]))
    assert getattr(found, new) == 7
    assert command_line("report", found) == ("report", options.flag(new), "7")
    assert command_line("report", record()) == ("report",)
    assert options.flag(new) in made.format_help()
    assert all(one.default is not MISSING for one in fields(record))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the suite, with the clause of the page, its version, its test and its mutant."""
    root = tmp_path_factory.mktemp("suite")
    for name in ("spec_tests", "fixtures/golden", "reference"):
        leave = shutil.ignore_patterns("__pycache__", ".hypothesis")
        shutil.copytree(ROOT / name, root / name, ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", root)
    specification = root / "spec_tests" / "SPEC.md"
    text = specification.read_text(encoding="utf-8")
    last = list(re.finditer(r"^\*\*M\d+\*\* .*$", text, re.MULTILINE))[-1].end()
    (clause,) = re.findall(r"^```markdown\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    text = f"{text[:last]}\n\n{clause}\n{text[last:]}"
    (version,) = re.findall(r"since (\d+\.\d+)", clause)
    specification.write_text(re.sub(r"^Version \d+\.\d+", f"Version {version}", text, flags=re.MULTILINE), "utf-8")
    changes = root / "spec_tests" / "CHANGELOG.md"
    changes.write_text(changes.read_text("utf-8").replace("\n## ", f"\n## {version}\n\nM11.\n\n## ", 1), "utf-8")
    for name in ("spec_tests/test_m_metrics.py", "spec_tests/mutants/m_metrics.py"):
        with (root / name).open("a", encoding="utf-8") as file:
            file.write(f"\n\n{example(name)}")
    return root


def in_suite(suite: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *argv]
    return subprocess.run(command, cwd=suite, capture_output=True, text=True, check=False)


def test_a_clause_has_a_test_that_the_reference_passes(suite: Path) -> None:
    (name,) = re.findall(r"def (test_\w+)", example("spec_tests/test_m_metrics.py"))
    argv = ("pytest", "spec_tests/test_m_metrics.py", "-k", name, "--implementation", "lime_editing.conformance")
    done = in_suite(suite, *argv)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_a_clause_belongs_to_the_specification(suite: Path) -> None:
    done = in_suite(suite, "pytest", "spec_tests/meta/test_spec.py", "-q", "-k", "clause or law")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mutant_of_the_clause_is_killed(suite: Path) -> None:
    (command,) = (words for words in commands() if words[:3] == ["nox", "-s", "mutants"])
    done = in_suite(suite, "spec_tests.run_mutants", *command[4:], "--jobs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
