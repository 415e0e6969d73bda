"""`reproduce`: train and judge editors, and write the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import data, hardware, results
from ..errors import UserError
from ..hardware import Processes
from ..names import PAPER_APPROACHES, PROTOCOLS, Rulings
from ..report import write
from ..reproduce import cells as grid, classifier, jobs, plan, processes
from ..reproduce.cells import Cell, Experiment, Sources, Status, cell_folder
from ..reproduce.classifier import RawClassifier
from ..reproduce.run import prepare
from ..reproduce.scales import Scale
from . import plans
from .options import Reproduce, command_line
from .output import console, doing, print_json
from .progress import lines, watch
from .sources import given, refuse_unused, scale_of


@dataclass(frozen=True)
class _Run:
    """One call of the command: what is run, where, and who works on it."""

    options: Reproduce
    scale: Scale
    cells: Sequence[Cell]
    rulings: Mapping[str, Rulings]  # by protocol
    places: Sequence[str | None]
    root: Path
    processes: Processes
    console: Console

    @property
    def elsewhere(self) -> bool:
        """Whether the cells run on other machines than this one."""
        return self.options.executor == "slurm" and self.options.cell is None


def reproduce(options: Reproduce, main: Callable[[Sequence[str]], int]) -> None:
    """The command; `main` is the entry point that a job of a cluster calls. UserError: as its parts."""
    run = run_of(options)
    processes.quiet()
    results.check_place(run.root, write=not options.dry_run)
    found, classifiers = prepared(run)
    by_protocol = {
        name: {task: grid.under(one, rulings) for task, one in found.items()} for name, rulings in run.rulings.items()
    }
    if options.dry_run:
        with doing(run.console, "timing one step of each approach"):
            shared = processes.on_one_device(run.places)
            made = plan.make(run.cells, by_protocol, classifiers, run.root, len(run.places), shared)
        if options.json:
            remarks = [f"{task}: {remark}" for task, one in found.items() for remark in one.remarks]
            print_json({**made.as_dict(), "remarks": remarks})
        else:
            plans.write(run.console, made)
        return
    if options.cell is not None and run.processes.count == 1:
        for ready in by_protocol.values():
            # A cluster may start a job again before its last process has ended everywhere.
            one = run.cells[0]
            lines(run.console, processes.run_one(one, ready[one.task], run.root, patience=180))
            print(cell_folder(one, ready[one.task], run.root))
        return
    count = len(run.cells) * len(run.rulings)
    together = f"by {run.processes.count} processes" if run.processes.count > 1 else f"{len(run.places)} at a time"
    run.console.print(f"Editing {run.scale.about}: {count} cells, {together}, kept in {run.root}")
    shared = processes.on_one_device(run.places)
    if shared > 1 and options.device != "cpu":
        run.console.print(
            f"note: up to {shared} cells at a time share a device; a batch beyond its memory is computed in parts",
            highlight=False,
        )
    watch(run.console, count, statuses(run, by_protocol, main))
    run.processes.leave()
    if options.cell is None and run.processes.first:
        _report(run, by_protocol)


def run_of(options: Reproduce) -> _Run:
    """What is to be run. UserError: options that do not fit together, or have no effect; an unknown --cell."""
    _refuse_unused(options)
    scale = scale_of(options.scale, options.set, options.edited_layers)
    protocols = tuple(PROTOCOLS) if options.protocol == "both" else (options.protocol,)
    changed: dict[str, Any] = dict(options.ruling)
    rulings = {name: replace(PROTOCOLS[name], **changed) for name in protocols}
    cells = _cells(options, scale)
    root = options.results / (scale.name if options.split == "test" else f"{scale.name}-{options.split}")
    together = hardware.join(options.device)
    places = _places(options, len(cells) * len(rulings))
    if together.count > 1 and (options.dry_run or len(places) > 1 or options.executor != "processes"):
        raise UserError(
            "under torchrun all processes work on one cell; --jobs, --executor and --dry-run are for a single one"
        )
    out = console(stderr=options.json, quiet=not together.first)
    return _Run(options, scale, cells, rulings, places, root, together, out)


def _refuse_unused(options: Reproduce) -> None:
    """UserError: an option that has no effect."""
    refuse_unused(options, options.task)
    if options.json and not options.dry_run:
        raise UserError("--json prints the plan of --dry-run; metrics.json in a cell's folder has its numbers")
    if (options.partition or options.slurm) and options.executor != "slurm":
        raise UserError("--partition and --slurm are for jobs on a cluster; give --executor slurm")
    if options.hours and options.executor == "processes":
        raise UserError("--hours is for jobs; give --executor slurm or local")
    if options.executor == "local" and options.device.startswith("cuda:"):
        raise UserError(f"--device {options.device}: each job has a GPU of its own; give --device cuda")


def _cells(options: Reproduce, scale: Scale) -> list[Cell]:
    trainings = options.training or ("en", "all", "lime")
    if options.control:
        trainings = tuple(dict.fromkeys((*trainings, "shared")))
    approaches = options.approach or PAPER_APPROACHES
    cells = grid.grid(options.task, approaches, trainings, range(options.seeds or scale.seeds))
    if options.cell is None:
        return cells
    chosen = [cell for cell in cells if cell.name == options.cell]
    if not chosen:
        known = ", ".join(cell.name for cell in cells)
        raise UserError(f"--cell {options.cell}: not one of this run's cells, which are {known}")
    return chosen


def _places(options: Reproduce, cells: int) -> Sequence[str | None]:
    """For each of the cells side by side the GPU that it may see; None for all of the machine."""
    if hardware.launched() > 1:
        return [None] * (options.jobs or 1)
    if options.executor == "slurm" and options.cell is None:  # the cluster has its own
        return [None] * (options.jobs or cells)
    return processes.places(options.device, options.jobs)


def statuses(
    run: _Run, by_protocol: Mapping[str, Mapping[str, Experiment]], main: Callable[[Sequence[str]], int]
) -> Iterator[Status]:
    """All cells under all protocols, in processes or as jobs."""
    options = run.options
    if options.executor != "processes":
        wanted = [
            jobs.Job(cell, cell_folder(cell, ready[cell.task], run.root), ("--protocol", name))
            for name, ready in by_protocol.items()
            for cell in run.cells
        ]
        gpus = int(options.device != "cpu")
        resources = jobs.Resources(options.partition, options.hours or 24.0, gpus, dict(options.slurm))
        submits = jobs.executor("slurm" if options.executor == "slurm" else "local", run.root / "jobs", resources)
        command = jobs.Command(main, command_line("reproduce", _of_one_job(options)))
        yield from jobs.run_jobs(wanted, command, submits, run.places)
        return
    for ready in by_protocol.values():
        if run.processes.count > 1:
            yield from processes.run_together(run.cells, ready, run.root, run.processes)
        else:
            yield from processes.run_grid(run.cells, ready, run.root, run.places)


def _of_one_job(options: Reproduce) -> Reproduce:
    """The options of a job: those of the run without what is about jobs."""
    return replace(options, executor="processes", partition=None, hours=None, slurm=(), jobs=None)


def _report(run: _Run, by_protocol: Mapping[str, Mapping[str, Experiment]]) -> None:
    folders = [cell_folder(cell, ready[cell.task], run.root) for ready in by_protocol.values() for cell in run.cells]
    with results.held(run.root):
        results.add_to_index(run.root, folders)
        run.console.print(write.table(folders))
        page = write.write(run.root, results.read_index(run.root))
    run.console.print(f"The page, with figures and intervals: {page}")


def prepared(run: _Run) -> tuple[dict[str, Experiment], list[RawClassifier]]:
    """Each task ready to run, and in a dry run the classifiers that it would have fine-tuned."""
    options, rulings = run.options, next(iter(run.rulings.values()))
    command = command_line("reproduce", replace(options, cell=None))
    ready, classifiers = dict[str, Experiment](), list[RawClassifier]()
    for task in dict.fromkeys(cell.task for cell in run.cells):
        dataset = data.find(task)
        source, model, finished = given(options, run.scale, dataset)
        sources = Sources(source, model, options.languages, options.device, options.precision)
        if not finished:
            with run.processes.in_turn():
                wanted = _classifier(run, sources, task)
            if wanted.done:
                sources = replace(sources, model=str(wanted.folder))
            else:
                sources = replace(sources, classes=tuple(wanted.content.classes))
            classifiers += [wanted] if options.dry_run else []
        with doing(run.console, f"reading {source} and {sources.model}"), run.processes.in_turn():
            cells = [cell for cell in run.cells if cell.task == task]
            found = prepare(task, cells, run.scale, rulings, sources, options.split, run.elsewhere)
        ready[task] = replace(found, record={**found.record, "command": list(command)}, plugins=options.plugin)
        for remark in found.remarks:
            run.console.print(f"note: {source}: {remark}", highlight=False, markup=False)
    return ready, classifiers


def _classifier(run: _Run, sources: Sources, task: str) -> RawClassifier:
    """The raw classifier of an encoder, fine-tuned first where it is not there yet; in a dry run only looked for."""
    options, dataset = run.options, data.find(task)
    with doing(run.console, f"reading {sources.data} and {sources.model}"):
        wanted = classifier.find(dataset, run.scale.task(dataset), sources, run.root, elsewhere=run.elsewhere)
    if options.dry_run or wanted.done:
        return wanted
    if run.elsewhere:
        raise UserError(
            "a raw classifier is fine-tuned before the jobs begin, and not where they are submitted: first run "
            "`make-classifier` in a job of its own, or give a finished one (--raw-model)"
        )
    if run.processes.count > 1:
        raise UserError(
            "one process fine-tunes a raw classifier: first run `make-classifier` without torchrun, or give a finished "
            "one (--raw-model)"
        )
    make_classifier(run.console, wanted)
    return wanted


def make_classifier(console: Console, wanted: RawClassifier) -> None:
    """Fine-tune a raw classifier as far as that is not done, and print its accuracy."""
    if wanted.done:
        accuracy = classifier.make(wanted)["test"]
    else:
        console.print(
            f"Fine-tuning {wanted.sources.model} on the English pairs of {wanted.sources.data} first, {wanted.steps:,} "
            f"steps: the raw classifier, kept in {wanted.folder} (`make-classifier` does this alone)"
        )
        held = results.held(wanted.folder.parent, name=".classifier.lock")
        with held, doing(console, "fine-tuning", at_once=False) as say:
            told = classifier.make(wanted, lambda step, steps, loss: say(f"{step:,} of {steps:,}, loss {loss:.3f}"))
            accuracy = told["test"]
    english, others = accuracy["en"], [value for code, value in accuracy.items() if code != "en"]
    rest = f", {100 * sum(others) / len(others):.1f}% in the others" if others else ""
    console.print(
        f"The raw classifier in {wanted.folder} is right on {100 * english:.1f}% of the test pairs in English{rest}"
    )
