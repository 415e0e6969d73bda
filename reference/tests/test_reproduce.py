"""The command as a user runs it, on a miniature: same numbers twice, in any process, and no work done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch

from lime_editing import results as store
from lime_editing.core.backbone import load, load_tokenizer
from lime_editing.core.editing import Objective, make_editor
from lime_editing.core.editors import finetuning, knowledge_editor
from lime_editing.core.evaluation import evaluate
from lime_editing.core.metrics import Scores
from lime_editing.core.sampling import evaluation_pairs
from lime_editing.core.training import Schedule, train
from lime_editing.data.facts import task as mlama
from lime_editing.errors import UserError
from lime_editing.reproduce import processes as grid
from lime_editing.reproduce import run as experiments
from lime_editing.reproduce import scales as config

SCHEDULE = Schedule(edits=12, batch=2, validate_every=4, patience=12, checkpoint_every=2, decay=True)
TINY = config.TINY.tasks["facts"]
SETUP = replace(
    TINY,
    settings={**TINY.settings, "knowledge_editor": knowledge_editor.Settings(lr=1e-3, lstm=4, hidden=4)},
    edited_layers=2,
    all_languages=SCHEDULE,
    english_only=SCHEDULE,
    validation=config.Evaluation(n_update=2, n_retain=2, edits=6),
    test=config.Evaluation(n_update=2, n_retain=2, edits=9),
)
MINI = replace(config.TINY, tasks={"facts": SETUP, "nli": SETUP})
CELL = experiments.Cell("facts", "mend", "lime", 0)


def changed(**values: object) -> config.Preset:
    return replace(MINI, tasks={"facts": replace(SETUP, **values), "nli": SETUP})


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_reproduce import CELL, MINI
from test_reproduce import run
print(run(sys.argv[2], sys.argv[3], Path(sys.argv[4])))
"""


def prepared(
    facts: Path,
    model: Path,
    preset: config.Preset = MINI,
    languages: tuple[str, ...] | None = None,
    cell: experiments.Cell = CELL,
    rulings: config.Rulings = config.Rulings(),  # noqa: B008  # frozen
) -> experiments.Experiment:
    sources = experiments.Sources(str(facts), str(model), languages)
    return experiments.prepare(cell.task, [cell], preset, rulings, sources)


def run(
    facts: Path,
    model: Path,
    results: Path,
    cell: experiments.Cell = CELL,
    listen: experiments.Listener = lambda _: None,
) -> Path:
    """One cell in this process."""
    return experiments.run_cell(cell, prepared(facts, model, cell=cell), results, listen)


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
    def folder(preset: config.Preset = MINI, languages: tuple[str, ...] | None = None, protocol: str = "paper") -> Path:
        experiment = prepared(facts, model, preset, languages, rulings=config.PROTOCOLS[protocol])
        return experiments.cell_folder(CELL, experiment, tmp_path)

    folders = [folder(), folder(changed(mask_lr=0.5)), folder(languages=("en", "de")), folder(protocol="released")]
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
    assert about["rulings"] == {
        "kl_direction": "paper",
        "penalty": "sum",
        "mask_scale": "none",
        "subject": "parallel",
        "con_positions": "mask",
        "knowledge_editor_condition": "input+label",
    }
    assert about["protocol"] == "paper"
    assert {"data", "model", "code", "preset", "languages"} <= about.keys()


def test_the_validation_interval_changes_no_training_step(facts: Path, model: Path) -> None:
    read = mlama.read(facts)
    task = mlama.tasks(read, load_tokenizer(model))["train"]
    losses = []
    for every in (2, 6):
        schedule = replace(SCHEDULE, validate_every=every, patience=99)
        editor = make_editor("mend", load(model, 2), read.languages, "language", 0, SETUP.settings["mend"])
        said: list[float] = []
        succ = iter(range(99))
        train(
            editor,
            task,
            lambda _, succ=succ: Scores(0, 0, next(succ)),
            schedule,
            Objective(),
            0,
            on_step=lambda _, loss, __, said=said: said.append(loss),
        )
        losses.append(said)
    assert losses[0] == losses[1]


def test_training_stops_when_patience_ends_and_keeps_the_best(facts: Path, model: Path) -> None:
    read = mlama.read(facts)
    task = mlama.tasks(read, load_tokenizer(model))["train"]
    editor = make_editor("mend", load(model, 2), read.languages, settings=SETUP.settings["mend"])
    name = "mend.log_inner_lr"
    seen: list[list[float]] = []
    succ = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.9])

    def validate(current: object) -> Scores:
        seen.append(editor.parameters[name].tolist())
        return Scores(0, 0, next(succ))

    schedule = replace(SCHEDULE, validate_every=2, patience=4, decay=False)
    reports = train(editor, task, validate, schedule, Objective(), 0)
    assert [report.scores.succ for report in reports] == [0.1, 0.5, 0.4, 0.3]
    assert editor.parameters[name].tolist() == seen[1]


def test_a_failing_cell_ends_the_grid_with_its_reason(facts: Path, model: Path, tmp_path: Path) -> None:
    bad = replace(prepared(facts, model), setup=changed(edited_layers=9).tasks["facts"])
    with pytest.raises(UserError, match="cannot edit the last 9 layers"):
        grid.run_grid([CELL], {"facts": bad}, tmp_path, 1, lambda _: None)


def test_results_below_a_file_end_the_grid_with_its_name(facts: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*Not a directory"):
        grid.run_grid([CELL], {"facts": prepared(facts, model)}, tmp_path / "file", 1, lambda _: None)


def test_the_grid_runs_cells_side_by_side_and_keeps_their_order(facts: Path, model: Path, tmp_path: Path) -> None:
    cells = experiments.grid(("facts",), ("mend",), ("en", "all"), (0,))
    said: list[experiments.Progress] = []
    folders = grid.run_grid(cells, {"facts": prepared(facts, model)}, tmp_path, 2, said.append)
    assert list(folders) == cells
    assert {p.cell for p in said if p.doing == "done"} == {cell.name for cell in cells}
    for folder in folders.values():
        assert set(store.read_rows(folder / "rows.parquet")) == {"en → all", "all → all"}
    said.clear()
    grid.run_grid(cells, {"facts": prepared(facts, model)}, tmp_path, 2, said.append)
    assert [p.doing for p in said] == ["kept"] * len(cells)


class Killed(Exception):
    """Stands for a process that is gone."""


@pytest.mark.parametrize("approach", ["mend", "editable_training", "knowledge_editor"])
@pytest.mark.parametrize("after", [1, 3, 4, 6])
def test_an_interrupted_cell_ends_as_if_it_had_not_been(
    approach: str, after: int, facts: Path, model: Path, tmp_path: Path
) -> None:
    cell = experiments.Cell("facts", approach, "lime", 0)
    whole = run(facts, model, tmp_path / "whole", cell)

    def die(progress: experiments.Progress) -> None:
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
    folder = experiments.cell_folder(CELL, prepared(facts, model), tmp_path)
    folder.mkdir()
    (folder / ".metrics.json.123.tmp").write_text("{")
    (folder / ".tmpAb3xY9").write_text("half of a checkpoint, as safetensors leaves it")
    assert not [path for path in run(facts, model, tmp_path).iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("approach", ["finetuning", "mend", "knowledge_editor"])
def test_the_released_protocol_trains_and_judges(approach: str, facts: Path, model: Path, tmp_path: Path) -> None:
    cell = experiments.Cell("facts", approach, None if approach == "finetuning" else "lime", 0)
    experiment = prepared(facts, model, cell=cell, rulings=config.PROTOCOLS["released"])
    folder = experiments.run_cell(cell, experiment, tmp_path, lambda _: None)
    about = json.loads((folder / "cell.json").read_text())
    assert (about["protocol"], about["rulings"]["subject"]) == ("released", "edit-language")
    if approach == "knowledge_editor":
        assert about["preset"]["settings"]["condition"] == "input"
    if cell.variant:
        names = safetensors.torch.load_file(folder / "editor.safetensors")
        assert any(name.endswith("delta_scale") for name in names)


def test_consistency_at_all_positions_asks_for_more(facts: Path, model: Path) -> None:
    """Clause M7's alternative: the same edits, with every position of the padded row compared."""
    read = mlama.read(facts)
    task = mlama.tasks(read, load_tokenizer(model))["train"]
    editor = make_editor("finetuning", load(model, 2), read.languages, settings=finetuning.Settings(lr=0.05, steps=3))
    pairs = evaluation_pairs(task.corpus, read.languages, read.languages, 2, 4, 0, 12)
    masks, everywhere = (
        {(o.edit, i): o.hit for i, o in enumerate(evaluate(editor, task, pairs, 0, con_positions=positions))}
        for positions in ("mask", "all")
    )
    retained = [key for i, key in enumerate(masks) if i % 6 >= 2]
    assert all(masks[key] for key in retained if everywhere[key])
    assert sum(everywhere[key] for key in retained) < sum(masks[key] for key in retained)
    assert all(masks[key] == everywhere[key] for i, key in enumerate(masks) if i % 6 < 2)


def test_the_grid_of_the_paper_has_ten_cells_per_task_and_six_of_control() -> None:
    def trained(*variants: experiments.Variant) -> list[experiments.Cell]:
        cells = experiments.grid(experiments.TASKS, experiments.APPROACHES, variants, range(1))
        return [cell for cell in cells if cell.approach != "unedited"]

    assert len(trained("en", "all", "lime")) == 20
    assert len(trained("en", "all", "lime", "shared")) == 26
    assert len({cell.name for cell in trained("en", "all", "lime", "shared")}) == 26


def test_more_seeds_repeat_what_is_trained_and_nothing_else() -> None:
    cells = experiments.grid(("facts",), experiments.APPROACHES, ("en", "all", "lime"), range(3))
    assert len(cells) == 2 + 9 * 3
    assert {cell.seed for cell in cells if cell.variant is None} == {0}


def test_the_released_protocol_turns_every_ruling() -> None:
    paper, released = (vars_of(config.PROTOCOLS[name]) for name in ("paper", "released"))
    assert all(paper[name] != released[name] for name in paper)


def vars_of(rulings: config.Rulings) -> dict[str, object]:
    return {name: getattr(rulings, name) for name in rulings.__slots__}


@pytest.mark.parametrize(
    ("path", "text", "read"),
    [
        ("settings.mend.lr", "0.5", lambda setup: setup.settings["mend"].lr),
        ("mask_lr", "1", lambda setup: setup.mask_lr),
        ("lambda_mask.sum", "1e-3", lambda setup: setup.lambda_mask["sum"]),
        ("all_languages.edits", "32", lambda setup: setup.all_languages.edits),
        ("test.edits", "null", lambda setup: setup.test.edits or "null"),
    ],
)
def test_a_value_of_a_setup_is_set_by_its_path(path: str, text: str, read: Callable[[config.Setup], object]) -> None:
    if text == "null":
        with pytest.raises(UserError, match="expected a value like 9"):
            config.override(SETUP, path, text)
    else:
        assert read(config.override(SETUP, path, text)) == float(text)
        assert read(SETUP) != float(text)


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
        config.override(SETUP, path, text)
