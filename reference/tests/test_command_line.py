"""The command line: help that loads nothing, options as records, and records as command lines."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from lime_editing import __main__
from lime_editing.cli import options
from lime_editing.cli.options import command_line, flag, read
from lime_editing.cli.parser import LIST, parser
from lime_editing.report.template import typed

HEAVY = ("torch", "transformers", "datasets", "matplotlib", "pyarrow", "numpy", "rich")
LIGHT = """
import sys
sys.argv = ["lime_editing", *sys.argv[1:]]
from lime_editing.__main__ import main
try:
    main()
except SystemExit:
    pass
print(*(name for name in %r if name in sys.modules), file=sys.stderr)
"""
COMMANDS = {"bare": [], "help": ["--help"], **{command: [command, "--help"] for command in LIST}}


def said_by(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with contextlib.suppress(SystemExit):
        __main__.main(argv)
    return capsys.readouterr().out


@pytest.mark.parametrize("argv", COMMANDS.values(), ids=COMMANDS.keys())
def test_what_only_says_how_to_use_it_loads_nothing(argv: list[str]) -> None:
    """So it is there at once: what takes seconds is loaded when a command needs it."""
    done = subprocess.run([sys.executable, "-c", LIGHT % (HEAVY,), *argv], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("usage: ")
    assert done.stderr.strip() == ""


def test_without_a_command_it_lists_what_it_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    said = said_by([], capsys)
    for command in LIST:
        assert re.search(rf"^ +{command} +\w", said, re.MULTILINE)
        assert f"python -m lime_editing {command}" in said


def test_every_example_in_a_help_is_a_command_that_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    """The examples are parsed with the options that they show."""
    lines: list[str] = []
    for argv in COMMANDS.values():
        text = said_by(argv, capsys).replace("\\\n", " ")
        found = [line.strip() for line in text.splitlines() if line.startswith("  python -m lime_editing ")]
        assert found, argv
        lines += found
    for line in lines:
        words = shlex.split(re.split(r" {3,}(?=\S*[a-z])(?!-)", line)[0])[3:]
        assert parser().parse_args(words).command == words[0]


# A record is a command line, and a command line is a record

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda text: text != "--"
)  # argparse takes it for the end of options
NAME = st.text(st.characters(categories=["L", "Nd"], include_characters="._-[]"), min_size=1).filter(
    lambda text: text != "--"
)
NAMES = st.lists(NAME, min_size=1, unique=True).map(tuple)
#: How a value of each kind is drawn, by what reads it.
DRAWN: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    Path: TEXT.map(Path),
    options.positive: st.integers(1, 10**9),
    options.count: st.integers(0, 10**9),
    options.hours: st.floats(1e-6, 1e6),
    options.names: NAMES,
    options.trainings: st.lists(st.sampled_from([*options.TRAININGS]), min_size=1, unique=True).map(tuple),
    options.counts: st.sets(st.integers(1, 10**9), min_size=1).map(lambda found: tuple(sorted(found))),
    options.layers: st.integers(1, 99)
    | st.lists(NAME.filter(lambda n: not n.isdecimal()), min_size=1, unique=True).map(tuple),
    options.setting: st.tuples(NAME, TEXT),
    options.expanded: TEXT.filter(lambda text: not text.startswith("~")).map(Path),  # ~ is the user's home
    options.counts: st.sets(st.integers(1, 10**9), min_size=1).map(lambda found: tuple(sorted(found))),
}


def value_of(one: Field[Any]) -> st.SearchStrategy[Any]:
    told = one.metadata
    if told["keys"] is not None:
        return st.fixed_dictionaries(
            {}, optional={key: st.sampled_from(values) if values else TEXT for key, values, _ in told["keys"]()}
        )
    if one.default is False:
        return st.booleans()
    if told["values"]:
        return st.sampled_from(told["values"])
    drawn = DRAWN[told["parse"]]
    return st.lists(drawn).map(tuple) if told["many"] else drawn


def records(kind: Any) -> st.SearchStrategy[Any]:
    """Records of a command, in which any field may have its default."""
    needed = {one.name: value_of(one) for one in fields(kind) if one.default is MISSING and not one.metadata["keys"]}
    others = {one.name: value_of(one) for one in fields(kind) if one.name not in needed}
    return st.fixed_dictionaries(needed, optional=others).map(lambda values: kind(**values))


@pytest.mark.parametrize("name", LIST)
@settings(deadline=None)  # a busy machine is no error
@given(data=st.data())
def test_a_record_is_read_back_from_its_command_line(name: str, data: st.DataObject) -> None:
    """read(parse(command_line(record))) = record."""
    record = data.draw(records(LIST[name]))
    argv = command_line(name, record)
    parsed = parser().parse_args(argv)
    assert parsed.command == name
    assert read(LIST[name], parsed) == record


@pytest.mark.parametrize("name", LIST)
def test_every_option_of_a_record_is_in_the_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = said_by([name, "--help"], capsys)
    for one in fields(LIST[name]):
        told = one.metadata
        keys = [key for key, _, _ in told["keys"]()] if told["keys"] else [one.name]
        for key in keys:
            assert re.search(rf"^  {one.name if told['positional'] else flag(key)}\b", said, re.MULTILINE), key
        if told["about"]:
            assert told["about"].replace("%%", "%").split()[0] in said


def test_a_command_line_can_be_typed() -> None:
    """As a shell reads it, whatever signs it has."""
    record = options.Edit(to="it's", sentence="-- [MASK] $x", look=("a | b",))
    argv = command_line("edit", record)
    assert shlex.split(typed(argv)) == ["python", "-m", "lime_editing", *argv]


def test_a_wrong_option_is_told_with_the_usage_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        __main__.main(["edits", "file", "--dorp", "1"])
    said = capsys.readouterr().err
    assert said.startswith("usage: python -m lime_editing edits [options]")
    assert "unrecognized arguments: --dorp 1" in said
    assert said_by(["--version"], capsys).startswith("lime_editing 0.")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["reproduce", "--approach", "finetuning", "--training", "lime"], "--training has no effect on finetuning"),
        (["many", "--approach", "finetuning,rome", "--control"], "--control has no effect on finetuning, rome"),
        (["reproduce", "--task", "fact"], "unknown task 'fact'; known: facts, nli; register your own"),
        (["many", "--task", "nli", "--nli", "not/read/at-all"], "`many` edits facts only"),
    ],
)
def test_what_has_no_effect_is_refused_before_anything_is_read(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert __main__.main(argv) == 2
    assert message in capsys.readouterr().err
