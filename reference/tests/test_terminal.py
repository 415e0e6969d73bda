"""What a person sees while cells run."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from lime_editing import __main__
from lime_editing.cli.progress import Watch
from lime_editing.core.metrics import Scores
from lime_editing.reproduce.run import Progress

DONE = Progress("facts-mend-all-seed0", "done", 1, 1, None, Scores(0.5, 0.75, 0.6), Scores(0.25, 1.0, 0.4))
ROW = ["facts-mend-all-seed0", "50.00", "75.00", "60.00", "25.00", "100.00", "40.00", "0", "s"]


def test_a_bar_shows_loss_and_scores_and_an_ended_cell_leaves_a_row() -> None:
    out = io.StringIO()
    with Watch(Console(file=out, width=150, force_terminal=True, color_system=None), 2) as watch:
        watch(Progress("facts-mend-all-seed0", "train", 16, 320, 0.731))
        watch(Progress("facts-mend-all-seed0", "train", 160, 320, 0.25, Scores(0.5, 0.75, 0.6)))
        watch(Progress("facts-mend-all-seed0", "test en → all", 3, 9))
        watch(Progress("facts-mend-en-seed0", "train", 16, 320, 0.5))
        watch(DONE)
    said = out.getvalue()
    assert "facts-mend-en-seed0 train" in said
    assert "loss 0.500" in said
    assert "1/2" in said
    assert " ".join(ROW[1:]) in " ".join(said.split())


def test_a_log_file_gets_one_row_per_cell() -> None:
    out = io.StringIO()
    with Watch(Console(file=out, width=150), 1) as watch:
        for done in range(16, 320, 16):
            watch(Progress("facts-mend-all-seed0", "train", done, 320, 0.5))
        watch(DONE)
    header, row, *rest = [line.split() for line in out.getvalue().splitlines() if line.strip()]
    assert header[-6:] == ["en", "→", "all", "all", "→", "all"]
    assert row == ROW
    assert not rest or rest[0][0] == "cells"


def test_a_cell_that_was_kept_says_so() -> None:
    out = io.StringIO()
    with Watch(Console(file=out, width=150), 1) as watch:
        watch(replace(DONE, doing="kept"))
    assert "kept" in out.getvalue()


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
COMMANDS = {"bare": [], "help": ["--help"], **{c: [c, "--help"] for c in ("reproduce", "edit", "report", "check-data")}}


def said_by(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with contextlib.suppress(SystemExit):
        __main__.main(argv)
    return capsys.readouterr().out


@pytest.mark.parametrize("argv", COMMANDS.values(), ids=COMMANDS.keys())
def test_what_only_says_how_to_use_it_loads_nothing(argv: list[str]) -> None:
    """So it is there at once: what takes seconds is loaded when a command needs it."""
    done = subprocess.run([sys.executable, "-c", LIGHT % (HEAVY,), *argv], check=True, capture_output=True, text=True)
    assert "usage: lime_editing" in done.stdout
    assert done.stderr.strip() == ""


def test_without_a_command_it_lists_what_it_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    said = said_by([], capsys)
    for command in ("reproduce", "edit", "report", "check-data"):
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
        assert __main__.parser().parse_args(words).command == words[0]
