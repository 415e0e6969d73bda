"""The command as a user runs it, on a miniature: same numbers twice, in any process, and no work done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch

from lime_editing import results
from lime_editing.backbone import load, load_tokenizer
from lime_editing.core.editing import Editor, Objective, make_editor
from lime_editing.core.evaluation import evaluate
from lime_editing.core.metrics import Scores
from lime_editing.core.sampling import evaluation_pairs
from lime_editing.core.task import Task
from lime_editing.core.training import Stepped, Validated, train
from lime_editing.data import Reader
from lime_editing.data.facts.read import read
from lime_editing.data.facts.task import tasks
from lime_editing.editors import finetuning
from lime_editing.errors import UserError
from lime_editing.names import PAPER_APPROACHES, PROTOCOLS, RULINGS, TASKS, Rulings
from lime_editing.reproduce.cells import Cell, Status, cell_folder, grid
from lime_editing.reproduce.processes import run_grid
from lime_editing.reproduce.scales import Scale, TaskScale, override
from reference.tests.miniature import CELL, MINI, SCHEDULE, TASK, finished, prepared, run, scale

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from pathlib import Path
from reference.tests.miniature import run
print(run(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))
"""


def run_elsewhere(facts: Path, model: Path, results: Path, hash_seed: str) -> Path:
    """One cell in a process of its own, with one thread, as workers have: MKL may round otherwise with several."""
    argv = [sys.executable, "-c", SCRIPT, str(facts), str(model), str(results)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, cwd=ROOT, check=True, env=environment, capture_output=True, text=True)
    return Path(done.stdout.strip().splitlines()[-1])


def test_hash_seeds_and_processes_do_not_change_a_number(facts: Path, model: Path, tmp_path: Path) -> None:
    first, second = (run_elsewhere(facts, model, tmp_path / seed, seed) for seed in ("1", "4242"))
    assert first.name == second.name
    for name in ("metrics.json", "curve.json", "rows.parquet", "editor.safetensors", "cell.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_a_finished_cell_is_left_alone(facts: Path, model: Path, tmp_path: Path) -> None:
    said: list[Status] = []
    first = run(facts, model, tmp_path / "results")
    assert run(facts, model, tmp_path / "results", listen=said.append) == first
    assert not said


def test_what_changes_a_number_changes_the_folder(facts: Path, model: Path, tmp_path: Path) -> None:
    def folder(of: Scale = MINI, languages: tuple[str, ...] | None = None, protocol: str = "paper") -> Path:
        experiment = prepared(facts, model, of, languages, rulings=PROTOCOLS[protocol])
        return cell_folder(CELL, experiment, tmp_path)

    folders = [folder(), folder(scale(mask_lr=0.5)), folder(languages=("en", "de")), folder(protocol="released")]
    tokenizer = model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"Lagu"', '"Lagos"'))
    folders.append(folder())
    config_file = model / "config.json"
    config_file.write_text(config_file.read_text().replace('"gelu"', '"relu"'))
    folders.append(folder())
    assert len(set(folders)) == len(folders)


def test_a_damaged_cell_is_made_again(facts: Path, model: Path, tmp_path: Path) -> None:
    folder = run(facts, model, tmp_path / "results")
    rows = (folder / "rows.parquet").read_bytes()
    (folder / "rows.parquet").unlink()
    assert (run(facts, model, tmp_path / "results") / "rows.parquet").read_bytes() == rows


def test_no_temporary_file_is_left(facts: Path, model: Path, tmp_path: Path) -> None:
    names = {path.name for path in run(facts, model, tmp_path / "results").iterdir()}
    assert names == {"cell.json", "curve.json", "editor.safetensors", "metrics.json", "rows.parquet"}


def test_the_record_says_what_the_number_depends_on(facts: Path, model: Path, tmp_path: Path) -> None:
    about = json.loads((run(facts, model, tmp_path / "results") / "cell.json").read_text())
    assert about["cell"]["seed"] == 0
    assert about["rulings"] == {name: values[0] for name, (values, _) in RULINGS.items()}
    assert about["protocol"] == "paper"
    assert {"data", "model", "code", "scale", "languages", "titles"} <= about.keys()


def train_split(facts: Path, model: Path) -> tuple[tuple[str, ...], Task]:
    """The languages of the facts, and their training split."""
    content = read(facts)
    return content.languages, tasks(content, Reader(load_tokenizer(model)), Rulings(), {})["train"]


def test_the_validation_interval_changes_no_training_step(facts: Path, model: Path) -> None:
    languages, task = train_split(facts, model)
    losses = []
    for every in (2, 6):
        schedule = replace(SCHEDULE, validate_every=every, patience=99)
        editor = make_editor("mend", load(model, 2), languages, "language", 0, TASK.settings["mend"])
        succ = iter(range(99))
        events = list(
            train(editor, task, lambda _, succ=succ: Scores(0, 0, next(succ)), schedule, Objective(), 0)  # type: ignore[misc]
        )
        assert sum(isinstance(event, Validated) for event in events) == SCHEDULE.edits // every
        losses.append([event.loss for event in events if isinstance(event, Stepped)])
    assert losses[0] == losses[1]


def test_training_stops_when_patience_ends_and_keeps_the_best(facts: Path, model: Path) -> None:
    languages, task = train_split(facts, model)
    editor = make_editor("mend", load(model, 2), languages, settings=TASK.settings["mend"])
    name = "mend.log_inner_lr"
    seen: list[list[float]] = []
    succ = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.9])

    def validate(current: Editor) -> Scores:
        seen.append(current.parameters[name].tolist())
        return Scores(0, 0, next(succ))

    schedule = replace(SCHEDULE, validate_every=2, patience=4, decay=False)
    *_, last = (e for e in train(editor, task, validate, schedule, Objective(), 0) if isinstance(e, Validated))
    assert [report.scores.succ for report in last.reports] == [0.1, 0.5, 0.4, 0.3]
    assert editor.parameters[name].tolist() == seen[1]


def test_a_training_goes_no_further_than_its_events_are_read(facts: Path, model: Path) -> None:
    languages, task = train_split(facts, model)
    editor = make_editor("mend", load(model, 2), languages, settings=TASK.settings["mend"])
    schedule = replace(SCHEDULE, checkpoint_every=SCHEDULE.edits)
    events = train(editor, task, lambda _: Scores(0, 0, 0), schedule, Objective(), 0)
    seen = [editor.parameters["mend.log_inner_lr"].tolist()]
    for step in (1, 2):
        event = next(events)
        assert isinstance(event, Stepped)
        assert (event.step, event.at_a_time) == (step, SCHEDULE.batch)
        seen.append(editor.parameters["mend.log_inner_lr"].tolist())
    assert seen[0] != seen[1] != seen[2]
    assert isinstance(next(events), Validated)
    assert editor.parameters["mend.log_inner_lr"].tolist() == seen[2]


def statuses(cells: list[Cell], facts: Path, model: Path, results_: Path, jobs: int) -> Iterator[Status]:
    return run_grid(cells, {"facts": prepared(facts, model)}, results_, [None] * jobs)


def test_a_failing_cell_ends_the_grid_with_its_reason(facts: Path, model: Path, tmp_path: Path) -> None:
    bad = replace(prepared(facts, model), base=scale(edited_layers=9).tasks["facts"])
    with pytest.raises(UserError, match="facts-mend-lime-seed0: cannot edit the last 9 layers"):
        list(run_grid([CELL], {"facts": bad}, tmp_path, [None]))


def test_results_below_a_file_end_the_grid_with_its_name(facts: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*Not a directory"):
        list(statuses([CELL], facts, model, tmp_path / "file", 1))


def test_the_grid_runs_cells_side_by_side(facts: Path, model: Path, tmp_path: Path) -> None:
    cells = grid(("facts",), ("mend",), ("en", "all"), (0,))
    experiment = prepared(facts, model)
    said = list(statuses(cells, facts, model, tmp_path, 2))
    assert {status.cell for status in said if status.doing == "done"} == {cell.name for cell in cells}
    for cell in cells:
        rows = results.read_rows(cell_folder(cell, experiment, tmp_path) / "rows.parquet")
        assert set(rows) == {"en → all", "all → all"}
    again = list(statuses(cells, facts, model, tmp_path, 2))
    assert [(status.cell, status.doing) for status in again] == [(cell.name, "kept") for cell in cells]
    assert again[0].scores == next(s.scores for s in said if (s.cell, s.doing) == (cells[0].name, "done"))


class Killed(Exception):
    """Stands for a process that is gone."""


@pytest.mark.parametrize("approach", ["mend", "editable_training", "knowledge_editor"])
@pytest.mark.parametrize("after", [1, 3, 4, 6])
def test_an_interrupted_cell_ends_as_if_it_had_not_been(
    approach: str, after: int, facts: Path, model: Path, tmp_path: Path
) -> None:
    cell = Cell("facts", approach, "lime", 0)
    whole = run(facts, model, tmp_path / "whole", cell)

    def die(progress: Status) -> None:
        # A step is heard of before its checkpoint, so the last one is always lost.
        if progress.doing == "train" and progress.done == after * SCHEDULE.batch:
            raise Killed

    with pytest.raises(Killed):
        run(facts, model, tmp_path / "cut", cell, die)
    steps: list[int] = []
    cut = run(facts, model, tmp_path / "cut", cell, lambda p: steps.append(p.done) if p.doing == "train" else None)
    assert steps[0] == after * SCHEDULE.batch
    assert {path.name for path in cut.iterdir()} == {path.name for path in whole.iterdir()}
    for path in whole.iterdir():
        assert (cut / path.name).read_bytes() == path.read_bytes(), path.name


def test_what_an_interrupted_write_left_is_removed(facts: Path, model: Path, tmp_path: Path) -> None:
    folder = cell_folder(CELL, prepared(facts, model), tmp_path)
    folder.mkdir()
    (folder / ".metrics.json.123.tmp").write_text("{")
    (folder / ".tmpAb3xY9").write_text("half of a checkpoint, as safetensors leaves it")
    assert not [path for path in run(facts, model, tmp_path).iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("approach", ["finetuning", "mend", "knowledge_editor"])
def test_the_released_protocol_trains_and_judges(approach: str, facts: Path, model: Path, tmp_path: Path) -> None:
    cell = Cell("facts", approach, None if approach == "finetuning" else "lime", 0)
    experiment = prepared(facts, model, cell=cell, rulings=PROTOCOLS["released"])
    folder = finished(cell, experiment, tmp_path)
    about = json.loads((folder / "cell.json").read_text())
    assert (about["protocol"], about["rulings"]["subject"]) == ("released", "edit-language")
    if approach == "knowledge_editor":
        assert about["scale"]["settings"]["condition"] == "input"
    if cell.training:
        names = safetensors.torch.load_file(folder / "editor.safetensors")
        assert any(name.endswith("delta_scale") for name in names)


def test_consistency_at_all_positions_asks_for_more(facts: Path, model: Path) -> None:
    """Clause M7's alternative: the same edits, with every position of the padded row compared."""
    languages, task = train_split(facts, model)
    editor = make_editor("finetuning", load(model, 2), languages, settings=finetuning.Settings(lr=0.05, steps=3))
    pairs = evaluation_pairs(task.corpus, languages, languages, 2, 4, 0, 12)
    masks, everywhere = (
        {(o.edit, i): o.hit for i, o in enumerate(evaluate(editor, task, pairs, 0, con_positions=positions))}
        for positions in ("mask", "all")
    )
    retained = [key for i, key in enumerate(masks) if i % 6 >= 2]
    assert all(masks[key] for key in retained if everywhere[key])
    assert sum(everywhere[key] for key in retained) < sum(masks[key] for key in retained)
    assert all(masks[key] == everywhere[key] for i, key in enumerate(masks) if i % 6 < 2)


def test_the_grid_of_the_paper_has_ten_cells_per_task_and_six_of_control() -> None:
    def trained(*trainings: str) -> list[Cell]:
        cells = grid(list(TASKS), PAPER_APPROACHES, trainings, range(1))
        return [cell for cell in cells if cell.approach != "unedited"]

    assert len(trained("en", "all", "lime")) == 20
    assert len(trained("en", "all", "lime", "shared")) == 26
    assert len({cell.name for cell in trained("en", "all", "lime", "shared")}) == 26


def test_more_seeds_repeat_what_is_trained_and_nothing_else() -> None:
    cells = grid(("facts",), PAPER_APPROACHES, ("en", "all", "lime"), range(3))
    assert len(cells) == 2 + 9 * 3
    assert {cell.seed for cell in cells if cell.training is None} == {0}


def test_the_released_protocol_turns_every_ruling() -> None:
    paper, released = (vars_of(PROTOCOLS[name]) for name in ("paper", "released"))
    assert all(paper[name] != released[name] for name in paper)


def vars_of(rulings: Rulings) -> dict[str, object]:
    return {name: getattr(rulings, name) for name in rulings.__slots__}


@pytest.mark.parametrize(
    ("path", "text", "read"),
    [
        ("settings.mend.lr", "0.5", lambda task_scale: task_scale.settings["mend"].lr),
        ("mask_lr", "1", lambda task_scale: task_scale.mask_lr),
        ("lambda_mask.sum", "1e-3", lambda task_scale: task_scale.lambda_mask["sum"]),
        ("all_languages.edits", "32", lambda task_scale: task_scale.all_languages.edits),
        ("test.edits", "null", lambda task_scale: task_scale.test.edits or "null"),
    ],
)
def test_a_value_of_a_task_scale_is_set_by_its_path(path: str, text: str, read: Callable[[TaskScale], object]) -> None:
    if text == "null":
        with pytest.raises(UserError, match="expected a value like 9"):
            override(TASK, path, text)
    else:
        assert read(override(TASK, path, text)) == float(text)
        assert read(TASK) != float(text)


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("settings.mand.lr", "1", "mand.*finetuning"),
        ("settings.mend", "1", "more than one value"),
        ("mask_lr.x", "1", "one value"),
        ("mask_lr", "fast", "fast"),
        ("nothing", "1", "nothing"),
    ],
)
def test_a_wrong_path_or_value_is_named(path: str, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        override(TASK, path, text)
