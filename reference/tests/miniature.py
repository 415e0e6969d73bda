"""The paper's grid on a miniature: scales of a few steps, and one cell run from prepare to its last file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lime_editing.core.training import Schedule
from lime_editing.editors import knowledge_editor
from lime_editing.names import APPROACHES, Rulings
from lime_editing.reproduce.cells import Cell, Experiment, Sources, Status, cell_folder
from lime_editing.reproduce.run import prepare, run_cell
from lime_editing.reproduce.scales import TINY, Evaluation, Scale, TaskScale

SCHEDULE = Schedule(edits=12, batch=2, validate_every=4, patience=12, checkpoint_every=2, decay=True)
TASK = replace(
    TINY.tasks["facts"],
    settings={
        **TINY.tasks["facts"].settings,
        "knowledge_editor": knowledge_editor.Settings(lr=1e-3, lstm=4, hidden=4),
    },
    edited_layers=2,
    all_languages=SCHEDULE,
    english_only=SCHEDULE,
    validation=Evaluation(n_update=2, n_retain=2, edits=6),
    test=Evaluation(n_update=2, n_retain=2, edits=9),
)
CELL = Cell("facts", "mend", "lime", 0)
EDITORS = tuple(name for name in APPROACHES if name != "unedited")


def scale(**values: object) -> Scale:
    """The miniature's scale, with values of its tasks changed."""
    changed: TaskScale = replace(TASK, **values)  # type: ignore[arg-type]
    return replace(TINY, tasks={"facts": changed, "nli": changed})


MINI = scale()
#: The same on the command line: with this `--results R` keeps cells in R/tiny-changed.
SETTINGS = {
    "edited_layers": 2,
    "all_languages.batch": 2,  # before edits and intervals, which must not be less
    "all_languages.edits": 12,
    "all_languages.validate_every": 4,
    "all_languages.patience": 12,
    "all_languages.checkpoint_every": 2,
    "validation.edits": 6,
    "test.edits": 9,
    "settings.mend.rank": 4,
    "settings.finetuning.steps": 3,
}


def set_options(**more: object) -> list[str]:
    """The settings as options of `reproduce`."""
    return [word for path, value in (SETTINGS | more).items() for word in ("--set", f"{path}={value}")]


def prepared(
    data: Path,
    model: Path,
    of: Scale = MINI,
    languages: tuple[str, ...] | None = None,
    cell: Cell = CELL,
    rulings: Rulings = Rulings(),  # noqa: B008  # frozen
) -> Experiment:
    return prepare(cell.task, [cell], of, rulings, Sources(str(data), str(model), languages))


def finished(
    cell: Cell, experiment: Experiment, results: Path, listen: Callable[[Status], object] = lambda _: None
) -> Path:
    """Run one cell in this process; its folder."""
    for status in run_cell(cell, experiment, results):
        listen(status)
    return cell_folder(cell, experiment, results)


def run(
    data: Path, model: Path, results: Path, cell: Cell = CELL, listen: Callable[[Status], object] = lambda _: None
) -> Path:
    """Prepare and run one cell in this process; its folder."""
    return finished(cell, prepared(data, model, cell=cell), results, listen)
