"""What a run would do and take, before it is run: counted from its data, and from one measured step per approach."""

from __future__ import annotations

import heapq
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from . import store
from .backbone import Backbone
from .classifier import Wanted, collate
from .config import Evaluation
from .data import Task
from .editing import Editor, Objective
from .errors import ModelError
from .evaluation import BATCH, batches, judge
from .experiments import EVALUATION_SEED, EVALUATIONS, JUDGED, VARIANTS, Cell, Experiment, assemble, cell_folder
from .sampling import evaluation_pairs
from .training import Schedule, adam, batch_of_triples, train_step
from .types import Role

Progress = Callable[[str], None]

SAMPLE = 8  # edits that are judged to measure: on a CPU a batch of more is hardly cheaper per edit
SLOW = 10.0  # seconds after which a step is not taken again
ROW = 2  # bytes of an outcome in rows.parquet: 1.7 in the cells of the tiny scale
NOTES = 8_192  # bytes of a cell's json, and of the headers of its other files


@dataclass(frozen=True, slots=True)
class Measured:
    """One approach on this machine, with one CPU thread as in a run: seconds and operations per edit, and bytes.

    Operations are those of matrix products, as they are executed, two per multiply-add.
    """

    approach: str
    start_seconds: float  # to read data and model
    train_seconds: float
    train_operations: float
    judge_seconds: float
    judge_operations: float
    model_bytes: int
    editor_bytes: int  # its parameters; training holds them five times: gradient, Adam's two, the best
    step_bytes: int  # what a training step keeps for its backward pass
    judge_bytes: int  # states, logits and dense edits of a batch that is judged


@dataclass(frozen=True, slots=True)
class Planned:
    """One cell: what is left to do, at most, and what it takes. Patience may end a training sooner."""

    cell: str
    folder: str
    state: Literal["done", "begun", "to do"]
    trained: int  # edits
    judged: int  # edits, validations included
    operations: float
    seconds: float
    memory: int  # bytes on the device, at its most
    disk: int  # bytes that stay
    state_bytes: int  # bytes of the checkpoint that goes when the cell is done


@dataclass(frozen=True, slots=True)
class Plan:
    """All cells of a run, `jobs` at a time."""

    jobs: int
    device: str
    cells: tuple[Planned, ...]
    measured: tuple[Measured, ...]
    disk_free: int
    first: int = 0  # so many of the cells run before all others, each alone

    @property
    def seconds(self) -> float:
        """Of wall-clock: each worker takes the next cell as it ends one."""
        alone = sum(cell.seconds for cell in self.cells[: self.first])
        return alone + makespan([cell.seconds for cell in self.cells[self.first :] if cell.state != "done"], self.jobs)

    @property
    def memory(self) -> int:
        """On the device: on a CPU the largest cells run side by side, a GPU has one at a time."""
        together = self.jobs if self.device == "cpu" else 1
        beside = sum(sorted((cell.memory for cell in self.cells[self.first :]), reverse=True)[:together])
        return max(beside, *(cell.memory for cell in self.cells[: self.first]), 0)

    @property
    def disk(self) -> int:
        """Bytes that are written and stay, and the largest checkpoints that are held beside them."""
        states = sorted((cell.state_bytes for cell in self.cells), reverse=True)[: self.jobs]
        return sum(cell.disk for cell in self.cells) + sum(states)

    def as_dict(self) -> dict[str, Any]:
        """For a program: seconds, bytes and counts."""
        totals = {name: sum(getattr(c, name) for c in self.cells) for name in ("trained", "judged", "operations")}
        return {**asdict(self), **totals, "seconds": self.seconds, "memory": self.memory, "disk": self.disk}


def makespan(seconds: Sequence[float], jobs: int) -> float:
    """When the last of these jobs ends, if `jobs` workers take them in order."""
    ends = [0.0] * jobs
    for duration in seconds:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def make(
    cells: Sequence[Cell],
    experiments: Mapping[str, Experiment],
    results: Path,
    jobs: int,
    progress: Progress = lambda doing: None,
) -> Plan:
    """The plan of `run_grid` with the same arguments. It writes nothing."""
    folders = {cell: cell_folder(cell, experiments[cell.task], results) for cell in cells}
    left = [cell for cell in cells if not store.is_done(folders[cell])]
    measured: dict[tuple[str, str], Measured] = {}
    tasks: dict[str, Mapping[Any, Task]] = {}
    # Of an approach the variant with most: masks, and all languages.
    for cell in sorted(left, key=lambda cell: list(VARIANTS).index(cell.variant) if cell.variant else 0, reverse=True):
        if (cell.task, cell.approach) not in measured:
            progress(f"measuring {cell.approach} on {cell.task}")
            found, tasks[cell.task] = _measure(cell, experiments[cell.task])
            measured[cell.task, cell.approach] = found
    planned = tuple(
        _planned(cell, experiments[cell.task], folders[cell], measured[cell.task, cell.approach], tasks[cell.task])
        if cell in left
        else Planned(cell.name, str(folders[cell]), "done", 0, 0, 0.0, 0.0, 0, 0, 0)
        for cell in cells
    )
    existing = next(path for path in (results, *results.absolute().parents) if path.is_dir())
    device = next(iter(experiments.values())).sources.device
    return Plan(jobs, device, planned, tuple(measured.values()), shutil.disk_usage(existing).free)


def joined(first: Sequence[Planned], plans: Mapping[str, Plan]) -> Plan:
    """The plans of several protocols as one, after what is done before all cells."""
    if len(plans) > 1:
        plans = {name: replace(plan, **_named(plan, name)) for name, plan in plans.items()}
    one = next(iter(plans.values()))
    cells = tuple(cell for plan in plans.values() for cell in plan.cells)
    measured = tuple(one for plan in plans.values() for one in plan.measured)
    return replace(one, cells=(*first, *cells), measured=measured, first=len(first))


def _named(plan: Plan, protocol: str) -> dict[str, Any]:
    return {
        "cells": tuple(replace(cell, cell=f"{cell.cell} ({protocol})") for cell in plan.cells),
        "measured": tuple(replace(one, approach=f"{one.approach} ({protocol})") for one in plan.measured),
    }


def of_classifier(wanted: Wanted) -> Planned:
    """A raw classifier that is fine-tuned before all cells, from one measured step; judged are all other pairs."""
    name, folder = "nli-classifier", str(wanted.folder)
    if wanted.done:
        return Planned(name, folder, "done", 0, 0, 0.0, 0.0, 0, 0, 0)
    model, size = wanted.start.model.to(wanted.device).requires_grad_(True), wanted.setup.classifier.batch
    examples = wanted.examples
    batch = collate([examples[i] for i in range(min(size, len(examples)))], wanted.start.pad_id)
    inputs = {name: rows.to(wanted.device) for name, rows in batch.items()}
    kept: dict[int, int] = {}
    step = _keeping(kept, model.parameters(), lambda: model(**inputs).loss.backward())  # noqa: PLW0108  # run twice
    seconds, operations = _cost(step, wanted.device)
    model.zero_grad()
    weights = sum(map(_bytes, model.parameters()))
    judged = sum(len(wanted.pairs.rows[split]) for split in JUDGED) * len(wanted.pairs.languages)
    steps = wanted.steps + judged / size / 3  # forward alone is a third of a step
    return Planned(
        *(name, folder, "to do", len(examples) * wanted.setup.classifier.epochs, judged),
        *(steps * operations, steps * seconds, 4 * weights + sum(kept.values()), weights + NOTES, 0),
    )


def _planned(cell: Cell, experiment: Experiment, folder: Path, cost: Measured, tasks: Mapping[Any, Task]) -> Planned:
    setup, languages = experiment.setup, experiment.languages
    asked = [_edits(tasks[experiment.split], edited or languages, setup.test) for edited in EVALUATIONS.values()]
    trained, validated, step, weight = 0, 0, 0, 0.0
    per_edit = setup.test.n_update + setup.test.n_retain
    if cell.variant is not None:
        trained_on = VARIANTS[cell.variant][0] or languages
        schedule = _schedule(cell, experiment)
        step = _step_reached(folder / store.STATE) * schedule.batch
        trained = max(0, schedule.edits // schedule.batch * schedule.batch - step)
        validation = _edits(tasks["validation"], trained_on, setup.validation)
        validated = -(-trained // schedule.validate_every) * validation
        weight = (setup.validation.n_update + setup.validation.n_retain) / per_edit  # of a judged edit's work
    learned = cell.variant is not None
    judged = sum(asked) + weight * validated
    kept = _held(cell, experiment, cost, tasks) if learned else 0
    copies = 5 if learned else 1
    return Planned(
        *(cell.name, str(folder), "begun" if step else "to do", trained, sum(asked) + validated),
        trained * cost.train_operations + judged * cost.judge_operations,
        cost.start_seconds + trained * cost.train_seconds + judged * cost.judge_seconds,
        cost.model_bytes + copies * cost.editor_bytes + max(cost.step_bytes, cost.judge_bytes) + kept,
        cost.editor_bytes + sum(asked) * per_edit * ROW + NOTES,
        4 * cost.editor_bytes,
    )


def _schedule(cell: Cell, experiment: Experiment) -> Schedule:
    setup = experiment.setup
    return setup.english_only if cell.variant == "en" else setup.all_languages


def _edits(task: Task, languages: Sequence[str], plan: Evaluation) -> int:
    """How many edits an evaluation has."""
    editable = task.editable
    total = sum(e.language in languages and (editable is None or e.id in editable) for e in task.corpus.examples)
    return total if plan.edits is None else min(plan.edits, total)


def _held(cell: Cell, experiment: Experiment, cost: Measured, tasks: Mapping[Any, Task]) -> int:
    """Bytes of the trunk states that all validations share: as many per input as in the batch that was judged."""
    plan, test = experiment.setup.validation, experiment.setup.test
    assert cell.variant is not None
    edits = _edits(tasks["validation"], VARIANTS[cell.variant][0] or experiment.languages, plan)
    return round(cost.judge_bytes / BATCH / (test.n_update + test.n_retain) * edits * (plan.n_update + plan.n_retain))


def _step_reached(path: Path) -> int:
    """The step of an interrupted training's checkpoint, 0 where none is to be read."""
    try:
        return int(store.read_about(path).get("step", 0))
    except ModelError:
        return 0


def _measure(cell: Cell, experiment: Experiment) -> tuple[Measured, Mapping[Any, Task]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker of run_grid has it
    try:
        began = time.perf_counter()
        subject, tasks = assemble(cell, experiment)
        start = time.perf_counter() - began
        train = _train_cost(cell, experiment, subject, tasks["train"]) if isinstance(subject, Editor) else (0.0, 0.0, 0)
        judged = _judge_cost(experiment, subject, tasks[experiment.split])
    finally:
        torch.set_num_threads(threads)
    backbone = subject.backbone if isinstance(subject, Editor) else subject
    own = subject.parameters.values() if isinstance(subject, Editor) else ()
    sizes = (sum(map(_bytes, backbone.model.parameters())), sum(map(_bytes, own)))
    name = f"{cell.task} {cell.approach}"
    return Measured(name, start, *train[:2], *judged[:2], *sizes, train[2], judged[2]), tasks


def _train_cost(cell: Cell, experiment: Experiment, editor: Editor, task: Task) -> tuple[float, float, int]:
    """(seconds per edit, operations per edit, bytes kept for the backward pass) of one training step."""
    if cell.variant is None:
        return 0.0, 0.0, 0
    batch = _schedule(cell, experiment).batch
    triples = batch_of_triples(task.within(VARIANTS[cell.variant][0] or experiment.languages), batch, 0, 1)
    optimiser = adam(editor)
    kept: dict[int, int] = {}
    own = (*editor.parameters.values(), *editor.backbone.model.parameters())
    step = _keeping(kept, own, lambda: train_step(editor, optimiser, triples, 0, Objective(), 1.0))
    seconds, operations = _cost(step, experiment.sources.device)
    return seconds / batch, operations / batch, sum(kept.values())


def _keeping(kept: dict[int, int], own: Iterable[Tensor], run: Callable[[], object]) -> Callable[[], None]:
    """A step that notes the bytes of what its backward pass needs beside its `own` parameters."""
    known = {p.untyped_storage().data_ptr() for p in own}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def step() -> None:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run()

    return step


def _judge_cost(experiment: Experiment, subject: Editor | Backbone, task: Task) -> tuple[float, float, int]:
    """(seconds per edit, operations per edit, bytes of a whole batch) of judging as the run does."""
    plan, languages = experiment.setup.test, experiment.languages
    sample = SAMPLE if experiment.sources.device == "cpu" else BATCH
    pairs = evaluation_pairs(
        *(task.corpus, languages, languages, plan.n_update, plan.n_retain, EVALUATION_SEED, sample, task.editable)
    )
    backbone = subject.backbone if isinstance(subject, Editor) else subject
    roles: tuple[Role, ...] = ("retain",) if isinstance(subject, Editor) else ("update", "retain")
    size = 0

    def run() -> None:
        nonlocal size
        positions = experiment.rulings.con_positions
        for prepared in batches(backbone, task, pairs, EVALUATION_SEED, BATCH, positions, roles):
            judge(subject, prepared)
            states = prepared.states
            classes = backbone.model.config.num_labels if backbone.classifies else backbone.model.config.vocab_size
            size = _bytes(states.hidden) + len(states.example) * classes * states.hidden.element_size()

    seconds, operations = _cost(run, experiment.sources.device)
    dense = 0
    if isinstance(subject, Editor) and subject.method.NAME == "finetuning":
        dense = 5 * BATCH * sum(map(_bytes, backbone.raw.values()))  # ΔW, its copy, two moments, the gradient
    return seconds / len(pairs), operations / len(pairs), size * BATCH // len(pairs) + dense


class _Counter(TorchDispatchMode):
    """Operations by torch's formulas."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)
        return out


def _cost(run: Callable[[], None], device: str) -> tuple[float, float]:
    """Seconds and operations. It runs twice: counted, which warms up, and timed; only once where it is slow."""

    def timed() -> float:
        began = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # turning kernels off is told of
        # The fused kernels of attention and LSTM are not counted.
        with (
            sdpa_kernel(SDPBackend.MATH),
            torch.backends.mkldnn.flags(enabled=False),
            torch.backends.cudnn.flags(enabled=False),
            _Counter() as counter,  # type: ignore[no-untyped-call]
        ):
            seconds = timed()
    return seconds if seconds > SLOW else timed(), float(counter.total)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def write(console: Console, plan: Plan) -> None:
    """The plan for a person."""
    table = Table(
        "cell", "state", *(_right("edits trained", "edits judged", "TFLOP", "time", "memory", "disk")), box=None
    )
    for cell in plan.cells:
        numbers = (f"{cell.trained:,}", f"{cell.judged:,}", f"{cell.operations / 1e12:,.3g}")
        sizes = (_span(cell.seconds), _size(cell.memory), _size(cell.disk))
        if cell.state == "done":
            table.add_row(cell.cell, cell.state, style="dim")
        else:
            table.add_row(cell.cell, cell.state, *numbers, *sizes)
    console.print(table)
    if plan.measured:
        per = Table("measured, per edit", *_right("trained", "GFLOP", "judged", "GFLOP"), box=None)
        for one in plan.measured:
            trained = (f"{1e3 * one.train_seconds:.3g} ms", f"{one.train_operations / 1e9:.3g}")
            judged = (f"{1e3 * one.judge_seconds:.3g} ms", f"{one.judge_operations / 1e9:.3g}")
            per.add_row(one.approach, *(trained if one.train_seconds else ("", "")), *judged)
        console.print("", per)
    done = sum(cell.state == "done" for cell in plan.cells)
    work = sum(cell.operations for cell in plan.cells) / 1e12
    console.print(
        f"\n{len(plan.cells)} cells, {done} of them done. The rest, {plan.jobs} at a time on {plan.device}, if no "
        f"training stops early: about {_span(plan.seconds)}, {work:,.3g} TFLOP, {_size(plan.memory)} of tensors on the "
        f"device, and {_size(plan.disk)} of disk, where {_size(plan.disk_free)} are free. Nothing was run.",
        highlight=False,
    )


def _right(*names: str) -> list[Any]:
    return [Column(name, justify="right") for name in names]


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"
