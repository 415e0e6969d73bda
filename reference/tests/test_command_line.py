"""The command line: help that loads nothing, options as records, and records as command lines."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys

import pytest

from lime_editing import __main__
from lime_editing.cli.parser import LIST, parser

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
