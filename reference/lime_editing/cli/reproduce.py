"""`reproduce`, `many` and `make-classifier`: train and judge editors, and write the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import data, hardware, results
from ..editors import methods
from ..errors import UserError
from ..hardware import Processes
from ..names import PAPER_APPROACHES, PIVOT, PROTOCOLS, Rulings
from ..report import many as study, write
from ..reproduce import cells as grid, classifier, plan, processes
from ..reproduce.cells import Cell, Experiment, Sources, Status, cell_folder
from ..reproduce.classifier import RawClassifier
from ..reproduce.plan import Protocols
from ..reproduce.run import prepare
from ..reproduce.scales import Scale
from .options import MakeClassifier, Many, Reproduce, Study, command_line
from .output import console, doing, here, print_json
from .progress import lines, show_plan, watch
from .sources import given, refuse_unused, scale_of

FACTS_ONLY = "`many` edits facts only; leave out --task, or name a data set of facts"
Main = Callable[[Sequence[str]], int]  # the entry point; cluster jobs call it


@dataclass(frozen=True)
class _Run:
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
        """Whether the cells run on other machines."""
        return self.options.executor == "slurm" and self.options.cell is None


def reproduce(options: Reproduce, main: Main) -> None:
    _refuse_untrained(options)
    run = _run_of(options)
    processes.quiet()
    results.check_place(run.root, write=not options.dry_run)
    found, classifiers = _prepared(run)
    by_protocol = {
        name: {task: grid.under(one, rulings) for task, one in found.items()} for name, rulings in run.rulings.items()
    }
    shared = processes.on_one_device(run.places)
    if options.dry_run:
        with doing(run.console, "timing one step of each approach"):
            made = plan.make(run.cells, by_protocol, classifiers, run.root, len(run.places), shared)
        if options.json:
            remarks = [f"{task}: {remark}" for task, one in found.items() for remark in one.remarks]
            print_json({**made.as_dict(), "remarks": remarks})
        else:
            show_plan(run.console, made)
        return
    if options.cell is not None and run.processes.count == 1:
        (one,) = run.cells
        for ready in by_protocol.values():
            # A cluster may restart a job before its old processes have ended.
            lines(run.console, processes.run_one(one, ready[one.task], run.root, patience=180))
            print(cell_folder(one, ready[one.task], run.root))
        return
    count = len(run.cells) * len(run.rulings)
    together = f"by {run.processes.count} processes" if run.processes.count > 1 else f"{len(run.places)} at a time"
    run.console.print(f"Editing {run.scale.about}: {count} cells, {together}, kept in {run.root}")
    if shared > 1 and options.device != "cpu":
        run.console.print(f"note: up to {shared} cells share a device; a batch beyond its memory is computed in parts")
    watch(run.console, count, _statuses(run, by_protocol, main))
    run.processes.leave()
    if options.cell is None and run.processes.first:
        folders = [cell_folder(one, ready[one.task], run.root) for ready in by_protocol.values() for one in run.cells]
        with results.held(run.root):
            results.add_to_index(run.root, folders)
            run.console.print(write.table(folders))
            page = write.write(run.root, results.read_index(run.root))
        run.console.print(f"The page, with figures and intervals: {page}")


def many(options: Many, main: Main) -> None:
    """The command: train editors (or use trained ones), and judge them over many edits in one model."""
    _refuse_untrained(options)
    if any(data.find(task).classifies for task in options.task):
        raise UserError(FACTS_ONLY)
    run = _run_of(Reproduce(**{f.name: getattr(options, f.name) for f in fields(Study)}))
    if run.processes.count > 1:
        raise UserError("many runs in worker processes of its own; leave out torchrun")
    processes.quiet()
    run = replace(run, cells=[cell for cell in run.cells if cell.approach != "unedited"])
    ready, _ = _prepared(run)
    if any(one.errors for one in ready.values()):
        raise UserError(FACTS_ONLY)
    root, count = run.root / "many", len(run.cells)
    run.console.print(f"Editing {run.scale.about}: {count} editors, kept in {run.root}")
    watch(run.console, count, _statuses(run, {options.protocol: ready}, main))
    series = {task: replace(one, many=grid.Many(options.edits)) for task, one in ready.items()}
    run.console.print(f"Making up to {max(options.edits):,} edits with each, kept in {root}")
    watch(run.console, count, processes.run_grid(run.cells, series, run.root, run.places))
    single, folders = ([cell_folder(c, of[c.task], run.root) for c in run.cells] for of in (ready, series))
    with results.held(root):
        results.add_to_index(root, folders)
        page = study.write(root, results.read_index(root), single)
    run.console.print(page.read_text(encoding="utf-8"))
    run.console.print(f"Kept with the figure in {page.parent}")


def make_classifier(options: MakeClassifier) -> None:
    """The command; its last line is the classifier's folder. UserError: as of `classifier.find` and `make`."""
    dataset, scale = data.find("nli"), scale_of(options.scale, options.set)
    source = here(options.nli or scale.data[dataset.name], options.offline, dataset.patterns)
    processes.quiet()
    results.check_place(options.results / scale.name)
    out, sources = console(), Sources(source, options.model, None, options.device, options.precision)
    with doing(out, f"reading {source} and {options.model}"):
        wanted = classifier.find(dataset, scale.task(dataset), sources, options.results / scale.name)
    _fine_tune(out, wanted)
    print(wanted.folder)


def _run_of(options: Reproduce) -> _Run:
    _refuse_unused(options)
    scale = scale_of(options.scale, options.set, options.edited_layers)
    protocols = PROTOCOLS if options.protocol == "both" else (options.protocol,)
    rulings = {name: replace(PROTOCOLS[name], **dict[str, Any](options.ruling)) for name in protocols}
    cells = _cells(options, scale)
    root = options.results / (scale.name if options.split == "test" else f"{scale.name}-{options.split}")
    together = hardware.join(options.device)
    if hardware.launched() > 1:
        places: Sequence[str | None] = [None] * (options.jobs or 1)
    elif options.executor == "slurm" and options.cell is None:  # the cluster has its own
        places = [None] * (options.jobs or len(cells) * len(rulings))
    else:
        places = processes.places(options.device, options.jobs)
    if together.count > 1 and (options.dry_run or len(places) > 1 or options.executor != "processes"):
        raise UserError("under torchrun all processes work on one cell; leave out --jobs, --executor and --dry-run")
    out = console(stderr=options.json, quiet=not together.first)
    return _Run(options, scale, cells, rulings, places, root, together, out)


def _refuse_untrained(options: Study) -> None:
    asked, known = options.approach or PAPER_APPROACHES, methods()
    chosen = "--training" if options.training != type(options).training else "--control" if options.control else None
    if chosen and not any(known[name].TRAINED for name in asked):
        raise UserError(f"{chosen} has no effect on {', '.join(asked)}, without a training; leave it out")


def _refuse_unused(options: Reproduce) -> None:
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
    trainings = dict.fromkeys((*(options.training or ("en", "all", "lime")), *(["shared"] if options.control else [])))
    approaches, seeds = options.approach or PAPER_APPROACHES, range(options.seeds or scale.seeds)
    cells = grid.grid(options.task, approaches, list(trainings), seeds)
    chosen = [cell for cell in cells if options.cell in (None, cell.name)]
    if not chosen:
        known = ", ".join(cell.name for cell in cells)
        raise UserError(f"--cell {options.cell}: not one of this run's cells, which are {known}")
    return chosen


def _statuses(run: _Run, by_protocol: Protocols, main: Main) -> Iterator[Status]:
    options = run.options
    if options.executor != "processes":
        wanted = [
            processes.Job(cell, cell_folder(cell, ready[cell.task], run.root), ("--protocol", name))
            for name, ready in by_protocol.items()
            for cell in run.cells
        ]
        gpus = 1 if options.device != "cpu" else None
        slurm = {"partition": options.partition, "gpus_per_node": gpus, "additional_parameters": dict(options.slurm)}
        submits = processes.executor(options.executor, run.root / "jobs", options.hours or 24.0, **slurm)
        # A job's command has no options for jobs.
        of_a_job = replace(options, executor="processes", partition=None, hours=None, slurm=(), jobs=None)
        command = processes.Command(main, command_line("reproduce", of_a_job))
        yield from processes.run_jobs(wanted, command, submits, run.places)
        return
    for ready in by_protocol.values():
        if run.processes.count > 1:
            yield from processes.run_together(run.cells, ready, run.root, run.processes)
        else:
            yield from processes.run_grid(run.cells, ready, run.root, run.places)


def _prepared(run: _Run) -> tuple[dict[str, Experiment], list[RawClassifier]]:
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
            done = {"model": str(wanted.folder)} if wanted.done else {"classes": tuple(wanted.content.classes)}
            sources = replace(sources, **done)
            classifiers += [wanted] if options.dry_run else []
        with doing(run.console, f"reading {source} and {sources.model}"), run.processes.in_turn():
            cells = [cell for cell in run.cells if cell.task == task]
            found = prepare(task, cells, run.scale, rulings, sources, options.split, run.elsewhere)
        ready[task] = replace(found, record={**found.record, "command": list(command)}, plugins=options.plugin)
        for remark in found.remarks:
            run.console.print(f"note: {source}: {remark}")
    return ready, classifiers


def _classifier(run: _Run, sources: Sources, task: str) -> RawClassifier:
    """The raw classifier of an encoder, fine-tuned first if necessary (not in a dry run)."""
    options, dataset = run.options, data.find(task)
    with doing(run.console, f"reading {sources.data} and {sources.model}", at_once=False):
        wanted = classifier.find(dataset, run.scale.task(dataset), sources, run.root, elsewhere=run.elsewhere)
    if options.dry_run or wanted.done:
        return wanted
    if run.elsewhere or run.processes.count > 1:
        raise UserError(
            "a raw classifier is fine-tuned by one process, before jobs or torchrun begin: first run `make-classifier` "
            "without torchrun, on a cluster in a job of its own, or give a finished one (--raw-model)"
        )
    _fine_tune(run.console, wanted)
    return wanted


def _fine_tune(console: Console, wanted: RawClassifier) -> None:
    if wanted.done:
        told = classifier.make(wanted)
    else:
        console.print(
            f"Fine-tuning {wanted.sources.model} on the English pairs of {wanted.sources.data} first, {wanted.steps:,} "
            f"steps: the raw classifier, kept in {wanted.folder} (`make-classifier` does this alone)"
        )
        held = results.held(wanted.folder.parent, name=".classifier.lock")
        with held, doing(console, "fine-tuning", at_once=False) as say:
            told = classifier.make(wanted, lambda step, steps, loss: say(f"{step:,} of {steps:,}, loss {loss:.3f}"))
    english, others = told["test"][PIVOT], [value for code, value in told["test"].items() if code != PIVOT]
    rest = f", {100 * sum(others) / len(others):.1f}% in the others" if others else ""
    console.print(
        f"The raw classifier in {wanted.folder} is right on {100 * english:.1f}% of the test pairs in English{rest}"
    )
