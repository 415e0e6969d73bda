"""The plan before the run: what it counts is what the run then does, and it leaves nothing behind."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from lime_editing.__main__ import main
from lime_editing.core.editing import Editor
from lime_editing.core.editors import finetuning
from lime_editing.reproduce import plan
from lime_editing.reproduce import run as experiments
from reference.tests.test_reproduce import CELL, MINI, SCHEDULE, prepared, run
from reference.tests.test_reproduce import changed as preset

#: Finetuning of a few steps; what is trained is as in the other tests, and so are the folders of its cells.
QUICK = preset(settings={**MINI.tasks["facts"].settings, "finetuning": finetuning.Settings(lr=2e-3, steps=3)})
FINETUNING = experiments.Cell("facts", "finetuning", None, 0)


def made(facts: Path, model: Path, results: Path, *cells: experiments.Cell, jobs: int = 1) -> plan.Plan:
    return plan.make(cells, {"facts": prepared(facts, model, QUICK)}, results, jobs)


def test_what_is_planned_is_what_is_done(facts: Path, model: Path, tmp_path: Path) -> None:
    """Edits trained and judged, those of validations too, and bytes."""
    results = tmp_path / "results"
    (planned,) = made(facts, model, results, CELL).cells
    assert planned.state == "to do"
    assert not results.exists()
    heard: dict[str, int] = {}
    folder = run(facts, model, results, listen=lambda p: heard.update({p.doing: p.total}))
    assert str(folder) == planned.folder
    curve = json.loads((folder / "curve.json").read_text())
    assert planned.trained == heard["train"] == SCHEDULE.edits
    validated = MINI.tasks["facts"].validation.edits or 0
    assert planned.judged == heard["test en → all"] + heard["test all → all"] + validated * len(curve)
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert planned.disk == pytest.approx(total, abs=plan.NOTES)
    assert planned.disk > (folder / "editor.safetensors").stat().st_size


def test_a_finished_cell_costs_nothing_and_an_interrupted_one_what_is_left(
    facts: Path, model: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def die(progress: experiments.Progress) -> None:
        if progress.doing == "train" and progress.done == 8:
            raise Killed

    whole = made(facts, model, tmp_path, CELL).cells[0]
    with pytest.raises(Killed):
        run(facts, model, tmp_path, listen=die)
    left = made(facts, model, tmp_path, CELL).cells[0]
    assert (left.state, left.trained) == ("begun", SCHEDULE.edits - 6)
    assert left.operations < whole.operations
    run(facts, model, tmp_path)
    after = made(facts, model, tmp_path, CELL, FINETUNING)
    assert [cell.state for cell in after.cells] == ["done", "to do"]
    assert (after.cells[0].seconds, after.cells[0].disk) == (0, 0)
    assert [one.approach for one in after.measured] == ["facts finetuning"]


def test_operations_and_memory_follow_from_the_cell(facts: Path, model: Path, tmp_path: Path) -> None:
    cells = [FINETUNING, CELL, experiments.Cell("facts", "unedited", None, 0)]
    planned = made(facts, model, tmp_path, *cells)
    by_name = {one.approach: one for one in planned.measured}
    tuned, learned, raw = (by_name[f"facts {name}"] for name in ("finetuning", "mend", "unedited"))
    subject, _ = experiments.assemble(CELL, prepared(facts, model))
    assert isinstance(subject, Editor)
    numbers = sum(p.numel() for p in subject.parameters.values())
    assert (learned.editor_bytes, tuned.editor_bytes) == (4 * numbers, 0)
    assert learned.model_bytes == 4 * sum(p.numel() for p in subject.backbone.model.parameters())
    assert raw.train_operations == tuned.train_operations == 0 < raw.judge_operations < tuned.judge_operations
    # A step's backward pass costs more than its forward one, and what it keeps is more than one layer's states.
    assert learned.train_operations > 0
    assert learned.step_bytes > 4 * 16 * SCHEDULE.batch
    edited = sum(m.numel() for m in subject.backbone.raw.values())
    assert tuned.judge_bytes > 5 * plan.BATCH * 4 * edited
    cell = planned.cells[1]
    assert cell.memory > learned.model_bytes + 5 * learned.editor_bytes
    assert cell.state_bytes == 4 * learned.editor_bytes


def test_more_edits_are_planned_as_more_work(facts: Path, model: Path, tmp_path: Path) -> None:
    longer = preset(all_languages=replace(SCHEDULE, edits=120, validate_every=12))
    short = plan.make([CELL], {"facts": prepared(facts, model)}, tmp_path, 1).cells[0]
    long = plan.make([CELL], {"facts": prepared(facts, model, longer)}, tmp_path, 1).cells[0]
    assert (short.trained, long.trained) == (12, 120)
    assert long.operations > 2 * short.operations


def test_the_counter_knows_products_of_matrices_and_an_lstm() -> None:
    """Forward, and the gradient of one factor; kernels and threads are left as they were."""
    threads, fused = torch.get_num_threads(), torch.backends.mkldnn.enabled
    a, b = torch.ones(3, 5, requires_grad=True), torch.ones(5, 7)
    _, operations = plan._cost(lambda: torch.matmul(a, b).sum().backward(), "cpu")
    assert operations == 2 * (2 * 3 * 5 * 7)
    lstm, words = torch.nn.LSTM(3, 5), torch.ones(2, 1, 3)
    with torch.no_grad():
        _, operations = plan._cost(lambda: lstm(words), "cpu")
    assert operations == 2 * (2 * (3 + 5) * 4 * 5)  # two words, four gates
    assert (torch.get_num_threads(), torch.backends.mkldnn.enabled) == (threads, fused)


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [(1, 9.0), (2, 5.0), (3, 4.0), (9, 4.0)],
)
def test_workers_take_the_next_cell_as_they_end_one(jobs: int, expected: float) -> None:
    assert plan.makespan([1, 4, 1, 3], jobs) == expected


def test_what_comes_first_is_waited_for() -> None:
    """A classifier is fine-tuned alone; two protocols follow one another, and are told apart."""
    cell = plan.Planned("c", "f", "to do", 0, 0, 0.0, 2.0, 5, 0, 0)
    measured = plan.Measured("a", 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0)
    one = plan.Plan(2, "cpu", (cell, cell), (measured,), 900)
    tuned = replace(cell, cell="t", seconds=3.0, memory=7)
    both = plan.joined([tuned], {"paper": one, "released": one})
    assert [c.cell for c in both.cells] == ["t", "c (paper)", "c (paper)", "c (released)", "c (released)"]
    assert [m.approach for m in both.measured] == ["a (paper)", "a (released)"]
    assert (both.seconds, both.memory) == (3 + 4, 10)
    assert (plan.joined([tuned], {"paper": replace(one, jobs=1)}).memory, plan.joined([], {"paper": one})) == (7, one)


def test_no_cells_take_no_time() -> None:
    assert plan.makespan([], 2) == 0


def test_the_command_prints_the_plan_and_runs_nothing(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    argv = ["reproduce", "--task", "facts", "--approach", "finetuning", "--facts", str(facts), "--dry-run"]
    argv += [
        "--model",
        str(model),
        "--results",
        str(results),
        "--set",
        "edited_layers=2",
        "--jobs",
        "2",
        "--set",
        "settings.finetuning.steps=3",
    ]
    assert main(argv) == 0
    said = capsys.readouterr().out
    for part in (
        "facts-unedited-seed0",
        "facts-finetuning-seed0",
        "GFLOP",
        "2 cells, 0 of them done",
        "Nothing was run",
    ):
        assert part in said
    assert main([*argv, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert [cell["state"] for cell in read["cells"]] == ["to do", "to do"]
    assert {"seconds", "memory", "disk", "operations", "trained", "judged", "jobs", "disk_free"} <= read.keys()
    assert read["memory"] == sum(cell["memory"] for cell in read["cells"])
    assert not results.exists()


def test_json_without_a_plan_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--json"]) == 2
    assert "--dry-run" in capsys.readouterr().err


def test_sizes_and_spans_are_read_in_their_units() -> None:
    cell = plan.Planned("c", "f", "to do", 12_000, 5, 2.5e12, 7200, 3_000_000_000, 4_500_000, 0)
    out = io.StringIO()
    plan.write(Console(file=out, width=200), plan.Plan(1, "cpu", (cell,), (), 900))
    said = out.getvalue()
    for part in ("12,000", "2.5", "2.0 h", "3.0 GB", "4.5 MB", "1 kB are free"):
        assert part in said
