"""What a person sees while cells run."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console

from lime_editing.cli import progress
from lime_editing.cli.progress import lines, watch
from lime_editing.core.metrics import Scores
from lime_editing.reproduce.cells import Status

DONE = Status("facts-mend-all-seed0", "done", 1, 1, None, Scores(0.5, 0.75, 0.6), Scores(0.25, 1.0, 0.4))
ROW = ["facts-mend-all-seed0", "50.00", "75.00", "60.00", "25.00", "100.00", "40.00", "0", "s"]


def test_a_bar_shows_loss_and_scores_and_an_ended_cell_leaves_a_row() -> None:
    out = io.StringIO()
    statuses = (
        Status("facts-mend-all-seed0", "train", 16, 320, 0.731),
        Status("facts-mend-all-seed0", "train", 160, 320, 0.25, Scores(0.5, 0.75, 0.6)),
        Status("facts-mend-all-seed0", "test en → all", 3, 9),
        Status("facts-mend-en-seed0", "train", 16, 320, 0.5),
        DONE,
    )
    watch(Console(file=out, width=150, force_terminal=True, color_system=None), 2, statuses)
    said = out.getvalue()
    assert "facts-mend-en-seed0 train" in said
    assert "loss 0.500" in said
    assert "1/2" in said
    assert " ".join(ROW[1:]) in " ".join(said.split())


def test_a_log_file_gets_one_row_per_cell() -> None:
    out = io.StringIO()
    steps = (Status("facts-mend-all-seed0", "train", done, 320, 0.5) for done in range(16, 320, 16))
    watch(Console(file=out, width=150), 1, (*steps, DONE))
    header, row, *rest = [line.split() for line in out.getvalue().splitlines() if line.strip()]
    assert header[-6:] == ["en", "→", "all", "all", "→", "all"]
    assert row == ROW
    assert not rest or rest[0][0] == "cells"


def test_a_cell_that_was_kept_says_so() -> None:
    out = io.StringIO()
    watch(Console(file=out, width=150), 1, [replace(DONE, doing="kept")])
    assert "kept" in out.getvalue()


def test_a_log_has_a_line_as_something_begins_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    out, now = io.StringIO(), 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)

    def statuses() -> Iterator[Status]:
        nonlocal now
        for done in range(1, 11):
            yield Status("facts-mend-all-seed0", "train", done, 10, 0.5)
            now += 10

    lines(Console(file=out, width=150), statuses(), every=30)
    assert [line.split()[2] for line in out.getvalue().splitlines()] == ["1/10", "4/10", "7/10", "10/10"]
