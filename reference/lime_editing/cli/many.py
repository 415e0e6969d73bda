"""`many`: train editors, or take trained ones, and judge them over many edits in one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

from .. import results
from ..errors import UserError
from ..report import many as report
from ..reproduce import processes
from ..reproduce.cells import Many as Study, cell_folder
from .options import Many, Reproduce
from .progress import watch
from .reproduce import prepared, run_of, statuses


def many(options: Many, main: Callable[[Sequence[str]], int]) -> None:
    """The command. UserError: options that do not fit together; as of `reproduce`."""
    given = {f.name: getattr(options, f.name) for f in fields(Reproduce)}
    run = run_of(Reproduce(**given))
    if len(run.rulings) > 1 or run.processes.count > 1 or options.executor != "processes" or options.dry_run:
        raise UserError(
            "many runs here, under one protocol: leave out torchrun, --executor, --dry-run and --protocol both"
        )
    processes.quiet()
    (rulings,), cells = run.rulings, [cell for cell in run.cells if cell.approach != "unedited"]
    ready, _ = prepared(run)
    if any(one.errors for one in ready.values()):
        raise UserError("many edits are made of facts: an edit of a sentence pair is of an error of the raw model")
    run.console.print(f"Editing {run.scale.about}: {len(cells)} editors, kept in {run.root}")
    watch(run.console, len(cells), statuses(replace(run, cells=cells), {rulings: ready}, main))
    study = {task: replace(one, many=Study(options.edits)) for task, one in ready.items()}
    run.console.print(f"Making up to {max(options.edits):,} edits with each, kept in {run.root / 'many'}")
    watch(run.console, len(cells), processes.run_grid(cells, study, run.root, run.places))
    folders = [cell_folder(cell, study[cell.task], run.root) for cell in cells]
    with results.held(run.root / "many"):
        results.add_to_index(run.root / "many", folders)
        single = [cell_folder(cell, ready[cell.task], run.root) for cell in cells]
        page = report.write(run.root / "many", results.read_index(run.root / "many"), single)
    run.console.print(page.read_text(encoding="utf-8"), highlight=False, markup=False)
    run.console.print(f"Kept with the figure in {page.parent}", highlight=False)
