"""The command as a user runs it, on a miniature: same numbers twice, in any process, and no work done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lime_editing import config, experiments, store
from lime_editing.backbone import load, load_tokenizer
from lime_editing.data import mlama
from lime_editing.editing import Objective, make_editor
from lime_editing.metrics import Scores
from lime_editing.training import Schedule, train

MINI = replace(
    config.TINY,
    edited_layers=2,
    all_languages=Schedule(edits=12, batch=2, validate_every=4, patience=12, decay=True),
    english_only=Schedule(edits=12, batch=2, validate_every=4, patience=12, decay=True),
    evaluation=config.Evaluation(n_update=2, n_retain=2, validation_edits=6, test_edits=9),
)
CELL = experiments.Cell("facts", "mend", "lime", 0)

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_reproduce import CELL, MINI
from test_reproduce import run
print(run(sys.argv[2], sys.argv[3], Path(sys.argv[4])))
"""


def run(
    facts: Path, model: Path, results: Path, preset: config.Preset = MINI, listen: experiments.Listener = lambda _: None
) -> Path:
    """One cell in this process."""
    sources = experiments.Sources(str(facts), str(model), None)
    record = experiments.prepare([CELL], preset, sources)
    return experiments.run_cell(CELL, preset, sources, record, results, listen)


def run_elsewhere(facts: Path, model: Path, results: Path, hash_seed: str) -> Path:
    """One cell in a process of its own."""
    argv = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(facts), str(model), str(results)]
    done = subprocess.run(
        argv, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True
    )
    return Path(done.stdout.strip().splitlines()[-1])


def test_hash_seeds_and_processes_do_not_change_a_number(facts: Path, model: Path, tmp_path: Path) -> None:
    first, second = (run_elsewhere(facts, model, tmp_path / seed, seed) for seed in ("1", "4242"))
    assert first.name == second.name
    for name in ("metrics.json", "curve.json", "rows.parquet", "editor.safetensors", "cell.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_a_finished_cell_is_left_alone(facts: Path, model: Path, tmp_path: Path) -> None:
    said: list[experiments.Progress] = []
    first = run(facts, model, tmp_path / "results")
    assert run(facts, model, tmp_path / "results", listen=said.append) == first
    assert not said


def test_what_changes_a_number_changes_the_folder(facts: Path, model: Path, tmp_path: Path) -> None:
    def prepared(preset: config.Preset, languages: tuple[str, ...] | None) -> Path:
        record = experiments.prepare([CELL], preset, experiments.Sources(str(facts), str(model), languages))
        return experiments.cell_folder(CELL, record, tmp_path)

    folders = [prepared(MINI, None), prepared(replace(MINI, mask_lr=0.5), None), prepared(MINI, ("en", "de"))]
    tokenizer = model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"Lagu"', '"Lagos"'))
    folders.append(prepared(MINI, None))
    config_file = model / "config.json"
    config_file.write_text(config_file.read_text().replace('"gelu"', '"relu"'))
    folders.append(prepared(MINI, None))
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
    assert about["rulings"] == {
        "kl_direction": "paper",
        "penalty": "mean",
        "mask_scale": "none",
        "subject": "parallel",
        "con_positions": "mask",
    }
    assert {"data", "model", "code", "preset", "languages"} <= about.keys()


def test_the_validation_interval_changes_no_training_step(facts: Path, model: Path) -> None:
    read = mlama.read(facts)
    task = mlama.tasks(read, load_tokenizer(model))["train"]
    losses = []
    for every in (2, 6):
        schedule = Schedule(edits=12, batch=2, validate_every=every, patience=99, decay=True)
        editor = make_editor("mend", load(model, 2), read.languages, "language", 0, MINI.settings["mend"])
        said: list[float] = []
        succ = iter(range(99))
        train(
            editor,
            task,
            lambda _, succ=succ: Scores(0, 0, next(succ)),
            schedule,
            Objective(),
            0,
            on_step=lambda _, loss, said=said: said.append(loss),
        )
        losses.append(said)
    assert losses[0] == losses[1]


def test_training_stops_when_patience_ends_and_keeps_the_best(facts: Path, model: Path) -> None:
    read = mlama.read(facts)
    task = mlama.tasks(read, load_tokenizer(model))["train"]
    editor = make_editor("mend", load(model, 2), read.languages, settings=MINI.settings["mend"])
    name = "mend.log_inner_lr"
    seen: list[list[float]] = []
    succ = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.9])

    def validate(current: object) -> Scores:
        seen.append(editor.parameters[name].tolist())
        return Scores(0, 0, next(succ))

    schedule = Schedule(edits=12, batch=2, validate_every=2, patience=4)
    reports = train(editor, task, validate, schedule, Objective(), 0)
    assert [report.scores.succ for report in reports] == [0.1, 0.5, 0.4, 0.3]
    assert editor.parameters[name].tolist() == seen[1]


def test_a_failing_cell_ends_the_grid_with_its_reason(facts: Path, model: Path, tmp_path: Path) -> None:
    sources = experiments.Sources(str(facts), str(model), None)
    record = experiments.prepare([CELL], MINI, sources)
    bad = replace(MINI, edited_layers=9)
    with pytest.raises(experiments.UserError, match="cannot edit the last 9 layers"):
        experiments.run_grid([CELL], bad, sources, record, tmp_path, 1, lambda _: None)


def test_results_below_a_file_end_the_grid_with_its_name(facts: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sources = experiments.Sources(str(facts), str(model), None)
    record = experiments.prepare([CELL], MINI, sources)
    with pytest.raises(experiments.UserError, match=r"Not a directory.*file"):
        experiments.run_grid([CELL], MINI, sources, record, tmp_path / "file", 1, lambda _: None)


def test_the_grid_runs_cells_side_by_side_and_keeps_their_order(facts: Path, model: Path, tmp_path: Path) -> None:
    cells = experiments.grid(("mend",), ("en", "all"), (0,))
    said: list[experiments.Progress] = []
    sources = experiments.Sources(str(facts), str(model), None)
    record = experiments.prepare(cells, MINI, sources)
    folders = experiments.run_grid(cells, MINI, sources, record, tmp_path, 2, said.append)
    assert list(folders) == cells
    assert {p.cell for p in said if p.doing == "done"} == {cell.name for cell in cells}
    for folder in folders.values():
        assert set(store.read_rows(folder / "rows.parquet")) == {"en → all", "all → all"}
