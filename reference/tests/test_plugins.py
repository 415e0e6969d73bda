"""Plug-ins: what they register runs as if it were our own, and what is wrong with them is said in one sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lime_editing import data, editors, plugins, results
from lime_editing.__main__ import main
from lime_editing.errors import UserError
from lime_editing.names import PAPER_APPROACHES
from lime_editing.reproduce.cells import Cell, cell_record
from reference.tests.corpora import capitals, write_lines
from reference.tests.miniature import finished, prepared, run, set_options
from reference.tests.page import example, write_example
from reference.tests.refusals import refused

pytestmark = pytest.mark.usefixtures("registries")

MINE = Cell("facts", "mine", "all", 0)
#: An editor without any training, as short as it can be.
PLAIN = """
from dataclasses import dataclass
from lime_editing import Update, register

class Plain:
    NAME, TITLE, TRAINED = "plain", "Plain gradient", False

    @dataclass(frozen=True)
    class Settings:
        rate: float = 0.5

    def init(self, raw, width, settings, seed):
        return {}

    def learning_rates(self, parameters, settings):
        return {}

    def update(self, parameters, settings, edits):
        return Update({name: (x, -settings.rate * delta) for name, (x, delta) in edits.gradient().factors.items()})

register(Plain())
"""


def forget() -> None:
    """As if no plug-in had been loaded."""
    for registry in (editors._METHODS, data._REGISTERED):
        for name in [name for name in registry if name in ("mine", "plain", "capitals")]:
            del registry[name]  # type: ignore[attr-defined]


def record_with(source: str, facts: Path, model: Path, at: Path, cell: Cell = MINE) -> dict[str, Any]:
    """A cell's record, where its editor is registered by this file."""
    forget()
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_text(source, encoding="utf-8")
    plugins.load_all([str(at)])
    return cell_record(cell, prepared(facts, model, cell=cell))


def test_a_changed_plug_in_changes_its_cells_and_no_others(facts: Path, model: Path, tmp_path: Path) -> None:
    source = example("mine.py")
    changed = source.replace("-next(rates)", "-2 * next(rates)")
    assert changed != source
    first = record_with(source, facts, model, tmp_path / "a" / "mine.py")
    elsewhere = record_with(f"# a comment\n{source}", facts, model, tmp_path / "b" / "renamed.py")
    other = record_with(changed, facts, model, tmp_path / "c" / "mine.py")
    assert len(first["plugins"]) == 16
    assert results.differences(first, elsewhere) == []
    assert results.differences(first, other) == [f"plugins: {first['plugins']}, not {other['plugins']}"]
    mend = Cell("facts", "mend", "all", 0)
    assert "plugins" not in record_with(source, facts, model, tmp_path / "d" / "mine.py", mend)


def test_an_editor_in_a_package_depends_on_all_of_the_package(
    facts: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(package: str, rate: str) -> dict[str, Any]:
        forget()
        folder = tmp_path / package
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        (folder / "rates.py").write_text(f"RATE = {rate}\n")
        editor = PLAIN.replace("-settings.rate", "-RATE").replace("import Update", "import Update, UserError")
        (folder / "editor.py").write_text(f"from .rates import RATE\n{editor}")
        plugins.load_all([f"{package}.editor"])
        cell = Cell("facts", "plain", None, 0)
        return cell_record(cell, prepared(facts, model, cell=cell))

    monkeypatch.syspath_prepend(str(tmp_path))
    first, same, other = record("one", "0.5"), record("two", "0.5"), record("three", "0.25")
    assert first["plugins"] == same["plugins"] != other["plugins"]


def test_a_data_set_is_part_of_its_cells(facts: Path, model: Path, tmp_path: Path) -> None:
    plugins.load_all([str(write_example(tmp_path, "capitals.py"))])
    assert plugins.files(data.find("capitals")) == {tmp_path / "capitals.py"}
    ours = [editors.find(name) for name in PAPER_APPROACHES]  # what the others add is in test_rooms
    assert plugins.files(data.find("facts"), data.find("nli"), *ours) == set()


def test_two_plug_ins_of_one_file_name_are_two(tmp_path: Path) -> None:
    for name in ("a", "b"):
        path = tmp_path / name / "editor.py"
        path.parent.mkdir()
        path.write_text(PLAIN.replace('"plain"', f'"plain_{name}"'))
    plugins.load_all([str(tmp_path / name / "editor.py") for name in ("a", "b")])
    assert {"plain_a", "plain_b"} <= editors.methods().keys()


def test_a_module_may_be_an_editor(tmp_path: Path) -> None:
    """As our own are: functions in the place of methods."""
    lines = [line.removeprefix("    ") for line in PLAIN.replace("register(Plain())", "").splitlines()]
    source = "\n".join(line.replace("(self, ", "(") for line in lines if line != "class Plain:")
    path = tmp_path / "plain.py"
    path.write_text(f"{source}\nimport sys\nregister(sys.modules[__name__])\n")
    plugins.load_all([str(path)])
    assert editors.find("plain").TITLE == "Plain gradient"
    assert plugins.files(editors.find("plain")) == {path}


def test_the_cell_of_a_plug_in_that_is_not_named_is_refused_with_what_to_do(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.load_all([str(write_example(tmp_path, "mine.py"))])
    folder = run(facts, model, tmp_path / "results", MINE)
    forget()
    argv = ["edit", "--facts", str(facts), "--model", str(model), "--fact", "P1/Q0", "--to", "Bema"]
    refused(capsys, [*argv, "--checkpoint", str(folder)], ["unknown editor 'mine'", "(--plugin)"])


def command(facts: Path, model: Path, root: Path, *more: str) -> list[str]:
    sources = ("--task", "facts", "--facts", str(facts), "--model", str(model), "--results", str(root))
    return ["reproduce", *sources, *set_options(), *more]


@pytest.mark.skipif(os.name == "nt", reason="submitit's local jobs need POSIX")
def test_an_editor_outside_the_package_runs_in_jobs(facts: Path, model: Path, tmp_path: Path) -> None:
    """Each job is a process of its own; tables put what the paper lacks after its rows."""
    path = write_example(tmp_path, "mine.py")
    argv = command(facts, model, tmp_path, f"--plugin={path}", "--approach", "mine,finetuning", "--training", "all")
    assert main([*argv, "--executor", "local", "--jobs", "2"]) == 0
    tables = json.loads((tmp_path / "tiny-changed" / "tables.json").read_text(encoding="utf-8"))["facts"]
    named = [row["approach"] for row in tables["rows"] if row["evaluation"] == "all → all"]
    assert named == ["unedited", "finetuning", "mine"]
    assert (tmp_path / "tiny-changed" / "report.html").read_text(encoding="utf-8").count("My Editor") >= 2


def test_a_plan_knows_a_plug_in(facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_example(tmp_path, "mine.py")
    capsys.readouterr()
    argv = command(facts, model, tmp_path, "--plugin", str(path), "--approach", "mine", "--training", "lime")
    assert main([*argv, "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert [cell["cell"] for cell in planned["cells"]] == ["facts-unedited-seed0", "facts-mine-lime-seed0"]
    assert planned["cells"][1]["trained"] == 12


def test_an_untrained_editor_edits_from_the_command_line(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plain.py"
    path.write_text(PLAIN)
    capsys.readouterr()
    argv = ["edit", "--facts", str(facts), "--model", str(model), "--fact", "P1/Q0", "--to", "Bema", "--json"]
    assert main([*argv, "--plugin", str(path), "--approach", "plain"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["approach"], len(shown["matrices"])) == ("plain", 6)


def test_the_same_plug_in_may_be_named_in_every_command_of_a_process(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_example(tmp_path, "capitals.py")
    for _ in range(2):
        assert main(["check-data", str(facts), "--plugin", str(path)]) == 0


def test_a_file_of_edits_is_of_the_tasks_that_edit_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, file = write_example(tmp_path, "capitals.py"), tmp_path / "edits.jsonl"
    file.write_text('{"prompt": "[MASK]", "to": "Aton"}\n')
    argv = ["edit", "--file", str(file), "--save", str(tmp_path / "kept"), "--plugin", str(path), "--task", "capitals"]
    assert main(argv) == 2
    assert "--task capitals: a file of edits is of facts or nli; edit data of your own from Python" in (
        capsys.readouterr().err
    )


BROKEN: dict[str, tuple[str | None, str]] = {
    "no-file": (None, "mine.py: no such file"),
    "syntax": ("def", "cannot be imported: SyntaxError"),
    "import": ("import no_such_module", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
    "exit": ("raise SystemExit(3)", "cannot be imported: SystemExit"),
    "nothing": ("x = 1", "registers no editor and no data set; call lime_editing.register"),
    "no-editor": ("import lime_editing\nlime_editing.register(object())", "this is no editor: it lacks NAME"),
    "a-name-that-is-taken": (PLAIN.replace('"plain"', '"mend"'), "an editor named 'mend' exists"),
    "a-data-set-s-name-that-is-taken": (
        'CAPITALS.replace(\'"capitals", "Cap\', \'"facts", "Cap\')',
        "a data set named 'facts' exists",
    ),
    "a-data-set-named-like-an-option": ("CAPITALS.replace('(\"capitals\"', '(\"model\"')", "named like an option"),
    "a-data-set-with-a-path": ("CAPITALS.replace('(\"capitals\"', '(\"../x\"')", "cannot have the name '../x'"),
}


@pytest.mark.parametrize(("source", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_plug_in_ends_with_one_sentence(
    source: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    if source is not None:
        written = eval(source, {"CAPITALS": example("capitals.py")}) if source.startswith("CAPITALS") else source
        path.write_text(written, encoding="utf-8")
    for _ in range(2):  # in the same process
        refused(capsys, ["reproduce", "--plugin", str(path)], [said])


def written(folder: Path, name: str, change: tuple[str, str]) -> str:
    """An example of the page with one text exchanged."""
    path, text = write_example(folder, name), example(name)
    assert change[0] in text
    path.write_text(text.replace(*change), encoding="utf-8")
    return str(path)


#: A mistake in the page's editor: what it exchanges there, and what is said about it.
IN_AN_EDITOR = {
    "a-name-that-is-a-number": ('= "mine",', "= 7,", "TRAINED True or False; got [7, "),
    "no-title": ('"My Editor"', "None", "TRAINED True or False; got ['mine', None"),
    "a-text-for-trained": ('r", True', 'r", "no"', "TRAINED True or False; got ['mine', 'My Editor', 'no'"),
    "whole-numbers": (
        ".inner_lr))",
        ".inner_lr)).long()",
        "mine: `init` must give a dict of tensors by name, of floating",
    ),
    "no-rates": ("return dict.fromkeys(parameters, settings.lr)", "pass", "mine: `learning_rates` must give a dict"),
    "a-rate-below-0": ("settings.lr)", "-1.0)", "the learning rate of mine.log_rates must be a finite number"),
    "a-rate-of-words": ("settings.lr)", '"fast")', "the learning rate of mine.log_rates must be a finite number"),
    "no-return": (
        "return le.Update",
        "le.Update",
        "mine: `update` must give an Update with one edit for each request; got None",
    ),
    "a-dict": (
        "return le.Update(",
        "return dict(",
        "mine: `update` must give an Update with one edit for each request; got {",
    ),
    "one-for-all": (
        "(x, -next(rates) * delta)",
        "(x[:1], -delta[:1])",
        "`update` must give an Update with one edit for each request; got 1 for",
    ),
    "no-registration": ("le.register(Mine())", "", "call lime_editing.register, or lime_editing.data.register"),
}


@pytest.mark.parametrize(("old", "new", "said"), IN_AN_EDITOR.values(), ids=IN_AN_EDITOR.keys())
def test_a_mistake_in_an_editor_is_told(
    old: str, new: str, said: str, facts: Path, model: Path, tmp_path: Path
) -> None:
    source = written(tmp_path, "mine.py", (old, new))

    def judged() -> None:
        plugins.load_all([source])
        run(facts, model, tmp_path / "results", MINE)

    with pytest.raises(UserError, match=re.escape(said)):
        judged()


def test_an_editor_without_training_gives_an_edit_for_each_request(facts: Path, model: Path, tmp_path: Path) -> None:
    """It is first asked where it is judged."""
    path = tmp_path / "plain.py"
    path.write_text(PLAIN.replace("return Update({", "Update({"))
    plugins.load_all([str(path)])
    with pytest.raises(UserError, match="plain: `update` must give an Update with one edit for each request; got None"):
        run(facts, model, tmp_path / "results", Cell("facts", "plain", None, 0))


def test_a_data_set_that_is_registered_as_an_editor_is_told_where_it_belongs(tmp_path: Path) -> None:
    path = written(tmp_path, "capitals.py", ("data.register(", "le.register("))
    with pytest.raises(
        UserError, match=r"this is no editor: it lacks .*; see lime_editing.Method, or data.register$"
    ) as raised:
        plugins.load_all([path])
    assert len(str(raised.value)) < 250


#: A mistake in the page's data set: what it exchanges there, the run's languages, and what is said about it.
IN_A_DATA_SET = {
    "a-name-that-is-a-number": ('"capitals", "C', '7, "C', None, "name must be a text; got 7"),
    "no-title": ('"Capitals"', "None", None, "title must be a text; got None"),
    "an-unknown-language": ("", "", ("de", "en", "xx"), "my.jsonl: unknown language 'xx'; known: de, en"),
    "no-content": ("return Rows([row for row in rows", "Rows([row for row in rows", None, "`read` must give"),
    "no-fingerprint": ("return hashlib", "hashlib", None, "capitals: fingerprint must be a text; got None"),
    "no-tasks": ("return {name", "{name", None, "`tasks` must give the splits train, validation, test; got None"),
    "two-splits": ('"validation", ', "", None, "`tasks` must give the splits train, validation, test; got"),
    "all-languages-for-one": (' if row["language"] in languages], self', "], self", None, "`within` must leave out"),
}


@pytest.mark.parametrize(("old", "new", "languages", "said"), IN_A_DATA_SET.values(), ids=IN_A_DATA_SET.keys())
def test_a_mistake_in_a_data_set_is_told(
    old: str, new: str, languages: tuple[str, ...] | None, said: str, model: Path, tmp_path: Path
) -> None:
    """Most of them would else give numbers of other data than were asked for."""
    rows, cell = write_lines(tmp_path / "my.jsonl", capitals()), Cell("capitals", "mend", "en", 0)
    source = written(tmp_path, "capitals.py", (old, new))

    def judged() -> None:
        plugins.load_all([source])
        finished(cell, prepared(rows, model, languages=languages, cell=cell), tmp_path / "results")

    with pytest.raises(UserError, match=re.escape(said)):
        judged()


def no_data(argv: list[str], path: Path) -> str:
    return "the scale has no data for the task capitals; give --capitals SOURCE"


def no_examination(argv: list[str], path: Path) -> str:
    argv[:] = ["check-data", str(path), "--task", "capitals", *argv[1:3]]
    return "check-data cannot look at data of the task capitals"


def no_classifier(argv: list[str], path: Path) -> str:
    path.write_text(path.read_text().replace("False, read", "True, read"))
    argv += ["--capitals", str(path), "--model", "some-encoder"]
    return "no raw classifier can be fine-tuned on data of the task capitals"


def not_its_option(argv: list[str], path: Path) -> str:
    argv[:] = ["reproduce", "--plugin", str(path), "--task", "facts", "--capitals", "my.jsonl"]
    return "--capitals has no effect on the task facts"


@pytest.mark.parametrize("case", [no_data, no_examination, no_classifier, not_its_option], ids=lambda c: c.__name__)
def test_what_a_data_set_lacks_is_said(
    case: Callable[[list[str], Path], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_example(tmp_path, "capitals.py")
    argv = ["reproduce", "--plugin", str(path), "--task", "capitals", "--results", str(tmp_path)]
    said = case(argv, path)
    refused(capsys, argv, [said], code=1 if argv[0] == "check-data" else 2)


def test_an_unknown_approach_names_those_of_plug_ins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_example(tmp_path, "mine.py")
    argv = ["reproduce", "--plugin", str(path), "--approach", "min"]
    refused(capsys, argv, ["unknown editor 'min'; known: finetuning, editable_training, ", "mine; register"])


def test_help_shows_the_options_of_a_plug_in(tmp_path: Path) -> None:
    """The help of its data is printed as it is, whatever signs it has."""
    path = tmp_path / "capitals.py"
    path.write_text(example("capitals.py").replace("file of JSON lines", "file, 100% JSON lines"))
    command_ = [sys.executable, "-m", "lime_editing", "reproduce", "--help", "--plugin", str(path)]
    done = subprocess.run(command_, capture_output=True, text=True, check=True)
    assert "--capitals SOURCE" in done.stdout
    assert "file, 100% JSON lines" in done.stdout


@pytest.mark.parametrize("name", ["json", "os", "lime_editing"])
def test_a_module_that_is_there_already_and_registers_nothing_is_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, ["edit", "--plugin", name], [f"--plugin {name}: registers no editor and no data set"])
    assert name in sys.modules
