"""What a person sees while cells run."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from lime_editing.cli.progress import watch
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


def test_a_log_file_gets_a_line_as_a_cell_begins_and_a_row_at_its_end() -> None:
    out = io.StringIO()
    steps = (Status("facts-mend-all-seed0", "train", done, 320, 0.5) for done in range(16, 320, 16))
    watch(Console(file=out, width=150), 1, (*steps, DONE))
    header, begins, row = [line.split() for line in out.getvalue().splitlines() if line.strip()]
    assert header[-6:] == ["en", "→", "all", "all", "→", "all"]
    assert begins[:3] == ["facts-mend-all-seed0", "train", "16/320"]
    assert row == ROW


def test_a_cell_that_was_kept_says_so() -> None:
    out = io.StringIO()
    watch(Console(file=out, width=150), 1, [replace(DONE, doing="kept")])
    assert "kept" in out.getvalue()
