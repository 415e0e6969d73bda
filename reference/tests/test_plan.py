"""The plan before the run: what it counts is what the run then does, and it leaves nothing behind."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lime_editing.__main__ import main
from lime_editing.cli.progress import show_plan
from lime_editing.core.editing import Editor
from lime_editing.editors import finetuning
from lime_editing.reproduce import plan
from lime_editing.reproduce.cells import Cell, Status
from lime_editing.reproduce.run import assemble
from lime_editing.reproduce.scales import Scale
from reference.tests.miniature import CELL, MINI, SCHEDULE, TASK, prepared, run, scale, set_options

#: Finetuning of a few steps; what is trained is as in the other tests, and so are the folders of its cells.
QUICK = scale(settings={**TASK.settings, "finetuning": finetuning.Settings(lr=2e-3, steps=3)})
FINETUNING = Cell("facts", "finetuning", None, 0)


def made(facts: Path, model: Path, results: Path, *cells: Cell, of: Scale = QUICK) -> plan.Plan:
    return plan.make(cells, {"paper": {"facts": prepared(facts, model, of)}}, [], results, 1)


def test_what_is_planned_is_what_is_done(facts: Path, model: Path, tmp_path: Path) -> None:
    """Edits trained and judged, those of validations too, and bytes."""
    results = tmp_path / "results"
    (planned,) = made(facts, model, results, CELL).cells
    assert planned.state == "to do"
    assert not results.exists()
    totals: dict[str, int] = {}
    folder = run(facts, model, results, listen=lambda status: totals.update({status.doing: status.total}))
    assert str(folder) == planned.folder
    curve = json.loads((folder / "curve.json").read_text())
    assert planned.trained == totals["train"] == SCHEDULE.edits
    validated = TASK.validation.edits or 0
    assert planned.judged == totals["test en → all"] + totals["test all → all"] + validated * len(curve)
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert planned.disk == pytest.approx(total, abs=plan.NOTES)
    assert planned.disk > (folder / "editor.safetensors").stat().st_size


def test_a_finished_cell_costs_nothing_and_an_interrupted_one_what_is_left(
    facts: Path, model: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def die(status: Status) -> None:
        if status.doing == "train" and status.done == 8:
            raise Killed

    whole = made(facts, model, tmp_path, CELL).cells[0]
    with pytest.raises(Killed):
        run(facts, model, tmp_path, listen=die)
    left = made(facts, model, tmp_path, CELL).cells[0]
    assert (left.state, left.trained) == ("begun", SCHEDULE.edits - 6)
    assert left.judged < whole.judged
    run(facts, model, tmp_path)
    after = made(facts, model, tmp_path, CELL, FINETUNING)
    assert [cell.state for cell in after.cells] == ["done", "to do"]
    assert (after.cells[0].seconds, after.cells[0].disk) == (0, 0)
    assert [one.approach for one in after.measured] == ["facts finetuning"]


def test_memory_and_disk_follow_from_the_cell(facts: Path, model: Path, tmp_path: Path) -> None:
    planned = made(facts, model, tmp_path, FINETUNING, CELL, Cell("facts", "unedited", None, 0))
    by_name = {one.approach: one for one in planned.measured}
    tuned, learned, raw = (by_name[f"facts {name}"] for name in ("finetuning", "mend", "unedited"))
    subject, _ = assemble(CELL, prepared(facts, model))
    assert isinstance(subject, Editor)
    weights = 4 * sum(p.numel() for p in subject.backbone.model.parameters())
    assert (learned.editor, tuned.editor, raw.editor) == (4 * sum(p.numel() for p in subject.parameters.values()), 0, 0)
    assert raw.memory == weights
    # A training holds its parameters five times, and what a step keeps for its backward pass.
    assert learned.memory > weights + 5 * learned.editor
    edited = sum(m.numel() for m in subject.backbone.raw.values())
    assert tuned.memory > weights + 5 * 4 * edited
    assert (tuned.train, raw.train) == (0, 0)
    assert min(learned.train, *(one.judge for one in planned.measured)) > 0
    cell = planned.cells[1]
    assert (cell.memory, cell.checkpoint) == (learned.memory, 4 * learned.editor)


def test_more_edits_are_planned_as_more_work(facts: Path, model: Path, tmp_path: Path) -> None:
    """Seconds follow from the measured ones, whatever these are."""
    longer = scale(all_languages=replace(SCHEDULE, edits=120, validate_every=12))
    for of, trained in ((MINI, 12), (longer, 120)):
        planned = made(facts, model, tmp_path, CELL, of=of)
        (cell,), (cost,) = planned.cells, planned.measured
        assert cell.trained == trained
        # Two inputs of each role in a validation as in a test, so that a judged edit is a judged edit.
        assert cell.seconds == pytest.approx(cost.start + cell.trained * cost.train + cell.judged * cost.judge)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [(1, 9.0), (2, 5.0), (3, 4.0), (9, 4.0)],
)
def test_workers_take_the_next_cell_as_they_end_one(jobs: int, expected: float) -> None:
    assert plan.makespan([1, 4, 1, 3], jobs) == expected


def test_what_comes_first_is_waited_for() -> None:
    """A classifier is fine-tuned alone, before all cells; on a CPU the largest cells run side by side."""
    cell = plan.Planned("c", "f", "to do", seconds=2.0, memory=5)
    tuned = replace(cell, cell="t", seconds=3.0, memory=7)
    said = plan.Plan(2, "cpu", (tuned, cell, cell), (), 900, first=1).as_dict()
    assert (said["seconds"], said["memory"]) == (3 + 2, 10)
    assert plan.Plan(1, "cpu", (tuned, cell, cell), (), 900, first=1).as_dict()["seconds"] == 3 + 4
    assert plan.Plan(2, "cuda", (tuned, cell, cell), (), 900, first=1).as_dict()["memory"] == 7


def test_two_protocols_are_told_apart(facts: Path, model: Path, tmp_path: Path) -> None:
    ready = {"facts": prepared(facts, model, QUICK)}
    both = plan.make([FINETUNING], {"paper": ready, "released": ready}, [], tmp_path, 1)
    assert [cell.cell for cell in both.cells] == [f"{FINETUNING.name} ({name})" for name in ("paper", "released")]


def test_no_cells_take_no_time() -> None:
    assert plan.makespan([], 2) == 0


def test_the_command_prints_the_plan_and_runs_nothing(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    argv = ["reproduce", "--task", "facts", "--approach", "finetuning", "--facts", str(facts), "--dry-run"]
    argv += ["--model", str(model), "--results", str(results), "--jobs", "2", *set_options()]
    assert main(argv) == 0
    said = capsys.readouterr().out
    for part in ("facts-unedited-seed0", "facts-finetuning-seed0", "2 cells, 0 of them done", "Nothing was run"):
        assert part in said
    assert main([*argv, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert [cell["state"] for cell in read["cells"]] == ["to do", "to do"]
    assert {"seconds", "memory", "disk", "trained", "judged", "jobs", "disk_free"} <= read.keys()
    assert read["memory"] == sum(cell["memory"] for cell in read["cells"])
    assert not results.exists()


def test_json_without_a_plan_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--json"]) == 2
    assert "--dry-run" in capsys.readouterr().err


def test_sizes_and_spans_are_read_in_their_units() -> None:
    cell = plan.Planned("c", "f", "to do", 12_000, 5, 7200, 3_000_000_000, 4_500_000, 0)
    out = io.StringIO()
    show_plan(Console(file=out, width=200), plan.Plan(1, "cpu", (cell,), (), 900))
    said = out.getvalue()
    for part in ("12,000", "2.0 h", "3.0 GB", "4.5 MB", "900 bytes are free"):
        assert part in said
