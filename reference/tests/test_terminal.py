"""What a person sees while cells run."""

from __future__ import annotations

import io

from rich.console import Console

from lime_editing.experiments import Progress
from lime_editing.metrics import Scores
from lime_editing.terminal import Watch


def test_a_bar_shows_loss_and_scores_and_an_ended_cell_leaves_a_line() -> None:
    out = io.StringIO()
    with Watch(Console(file=out, width=150, force_terminal=True, color_system=None)) as watch:
        watch(Progress("facts-mend-all-seed0", "train", 16, 320, 0.731))
        watch(Progress("facts-mend-all-seed0", "train", 160, 320, 0.25, Scores(0.5, 0.75, 0.6)))
        watch(Progress("facts-mend-all-seed0", "test en → all", 3, 9))
        watch(Progress("facts-mend-en-seed0", "train", 16, 320, 0.5))
        watch(Progress("facts-mend-all-seed0", "done", 1, 1))
    said = out.getvalue()
    assert "facts-mend-en-seed0 train" in said
    assert "loss 0.500" in said
    assert "facts-mend-all-seed0: done after 0 s" in said


def test_a_log_file_gets_one_line_per_cell() -> None:
    out = io.StringIO()
    with Watch(Console(file=out, width=150)) as watch:
        for done in range(16, 320, 16):
            watch(Progress("facts-mend-all-seed0", "train", done, 320, 0.5))
        watch(Progress("facts-mend-all-seed0", "done", 1, 1))
    assert [line.strip() for line in out.getvalue().splitlines() if line.strip()] == [
        "facts-mend-all-seed0: done after 0 s"
    ]
