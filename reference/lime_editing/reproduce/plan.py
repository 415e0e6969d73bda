"""The plan of a run: its work, time, memory and disk, from counts and from one timed step of each approach."""

from __future__ import annotations

import heapq
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import results
from ..core.editing import Editor, Objective
from ..core.evaluation import BATCH, evaluate
from ..core.sampling import evaluation_pairs
from ..core.task import Task
from ..core.training import adam, batch_of_triples, train_step
from ..editors import Measuring
from ..names import JUDGED, Rulings
from . import store
from .cells import Cell, Experiment, cell_folder, evaluations
from .classifier import RawClassifier, collate
from .run import EVALUATION_SEED, assemble, fitted, reader_of
from .scales import Evaluation

Protocols = Mapping[str, Mapping[str, Experiment]]  # by protocol and task
SAMPLE = 8  # edits in a timed evaluation
ROW, NOTES = 2, 8_192  # bytes of an outcome in rows.parquet; of a cell's json files and all headers


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one approach on this machine, with one CPU thread as in a run."""

    approach: str
    start: float  # seconds to read data and model
    train: float  # seconds per edit
    judge: float  # seconds per edit
    editor: int  # bytes of its parameters
    memory: int  # bytes on the device, about: model, editor with gradient, moments and best, a step's activations


@dataclass(frozen=True, slots=True)
class Planned:
    """One cell: its remaining work (at most: a training may stop early), and its needs."""

    cell: str
    folder: str
    state: str = "done"  # or "begun", "to do"
    trained: int = 0  # edits
    judged: int = 0  # edits, validations included
    seconds: float = 0.0
    memory: int = 0  # bytes
    disk: int = 0  # bytes of the results
    checkpoint: int = 0  # bytes of a training's checkpoint, until its end


@dataclass(frozen=True, slots=True)
class Plan:
    """All cells of a run, `jobs` at a time, `shared` per device. `first` run before all others."""

    jobs: int
    device: str
    cells: tuple[Planned, ...]
    measured: tuple[Cost, ...]
    disk_free: int
    first: int = 0
    shared: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Seconds, bytes and counts for a program. It assumes that the largest cells run at the same time."""
        alone, others = self.cells[: self.first], self.cells[self.first :]
        beside = heapq.nlargest(self.jobs if self.device == "cpu" else self.shared, (cell.memory for cell in others))
        states = heapq.nlargest(self.jobs, (cell.checkpoint for cell in self.cells))
        waits = makespan([cell.seconds for cell in others if cell.state != "done"], self.jobs)
        return {
            **asdict(self),
            "trained": sum(cell.trained for cell in self.cells),
            "judged": sum(cell.judged for cell in self.cells),
            "seconds": sum(cell.seconds for cell in alone) + waits,
            "memory": max(sum(beside), *(cell.memory for cell in alone), 0),
            "disk": sum(cell.disk for cell in self.cells) + sum(states),
        }


def makespan(seconds: Sequence[float], jobs: int) -> float:
    """The time when the last of these jobs ends, if `jobs` workers take them in order."""
    ends = [0.0] * jobs
    for duration in seconds:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def make(
    cells: Sequence[Cell], protocols: Protocols, unmade: Sequence[RawClassifier], root: Path, jobs: int, shared: int = 1
) -> Plan:
    """The plan of a run of these cells under each protocol. It writes nothing."""
    first = [of_classifier(wanted) for wanted in unmade]
    costs: dict[tuple[str, ...], tuple[Cost, Mapping[Any, Task]]] = {}
    planned, device = [], "cpu"
    for protocol, experiments in protocols.items():
        for cell in cells:
            experiment, key = experiments[cell.task], (protocol, cell.task, cell.approach)
            folder, device = cell_folder(cell, experiment, root), experiment.sources.device
            one = Planned(f"{cell.name} ({protocol})" if len(protocols) > 1 else cell.name, str(folder))
            if not results.is_done(folder):
                if key not in costs:  # measured with masks and all languages, which cost most
                    same = [c for c in cells if (c.task, c.approach) == (cell.task, cell.approach)]
                    costs[key] = _measure(max(same, key=lambda c: (c.masks != "none", c.training or "")), experiment)
                one = _planned(one, cell, experiment, *costs[key])
            planned.append(one)
    free, measured = shutil.disk_usage(results.existing(root)).free, tuple(cost for cost, _ in costs.values())
    return Plan(jobs, device, (*first, *planned), measured, free, len(first), shared)


def of_classifier(wanted: RawClassifier) -> Planned:
    name, settings, device = f"{wanted.dataset.name}-classifier", wanted.scale.classifier, wanted.sources.device
    if wanted.done:
        return Planned(name, str(wanted.folder))
    model, examples = wanted.start.model.to(device).requires_grad_(True), wanted.examples
    some = [examples[i] for i in range(min(settings.batch, len(examples)))]
    batch = collate(some, wanted.start.pad_id, wanted.start.reads_types)
    inputs = {key: rows.to(device) for key, rows in batch.items()}
    seconds, kept = _timed(lambda: model(**inputs).loss.backward(), device)  # noqa: PLW0108  # called twice
    model.zero_grad()
    weights = _bytes(model.parameters())
    tasks = wanted.dataset.tasks(wanted.content, reader_of(wanted.tokenizer, wanted.start), Rulings(), {})
    judged = sum(len(tasks[split].corpus.examples) for split in JUDGED)
    seconds *= wanted.steps + judged / settings.batch / 3  # forward alone is a third of a step
    trained = len(examples) * settings.epochs
    return Planned(name, str(wanted.folder), "to do", trained, judged, seconds, 4 * weights + kept, weights + NOTES)


def _planned(done: Planned, cell: Cell, experiment: Experiment, cost: Cost, tasks: Mapping[Any, Task]) -> Planned:
    step = store.step_reached(Path(done.folder, results.STATE))
    scale, languages = experiment.scale, experiment.languages
    asked = sum(_edits(tasks[experiment.split], edited, scale.test) for edited in evaluations(languages).values())
    per_edit = scale.test.n_update + scale.test.n_retain
    trained = validated = 0
    if cell.trained is not None:
        schedule, trained_on = scale.schedule(cell.trained), cell.trained.languages or languages
        trained = max(0, schedule.steps - step) * schedule.batch
        validated = ceil(trained / schedule.validate_every) * _edits(tasks["validation"], trained_on, scale.validation)
    share = (scale.validation.n_update + scale.validation.n_retain) / per_edit  # relative to an edit of the evaluation
    seconds = cost.start + trained * cost.train + (asked + share * validated) * cost.judge
    state, disk = "begun" if step else "to do", cost.editor + asked * per_edit * ROW + NOTES
    needs = (seconds, cost.memory, disk, 4 * cost.editor)
    return Planned(done.cell, done.folder, state, trained, asked + validated, *needs)


def _edits(task: Task, languages: Sequence[str], plan: Evaluation) -> int:
    editable = task.editable
    total = sum(e.language in languages and (editable is None or e.id in editable) for e in task.corpus.examples)
    return total if plan.edits is None else min(plan.edits, total)


def _measure(cell: Cell, experiment: Experiment) -> tuple[Cost, Mapping[Any, Task]]:
    device, scale, began = experiment.sources.device, experiment.scale, time.perf_counter()
    torch.set_num_threads(1)  # as in a worker
    subject, tasks = assemble(cell, experiment)
    if isinstance(subject, Editor) and isinstance(subject.method, Measuring):
        subject = fitted(subject, tasks["train"], 0, SAMPLE)
    start, train, kept, own = time.perf_counter() - began, 0.0, 0, 0
    backbone = subject.backbone if isinstance(subject, Editor) else subject
    if isinstance(subject, Editor):
        own = _bytes(subject.parameters.values())
        kept = 0 if own else 5 * BATCH * _bytes(backbone.raw.values())  # dense ΔW, its copy, moments, gradient
        if cell.trained is not None:
            batch, task = scale.schedule(cell.trained).batch, tasks["train"]
            triples = batch_of_triples(task.within(cell.trained.languages or experiment.languages), batch, 0, 1)
            given = (subject, adam(subject), triples, 0, Objective.under(experiment.rulings), 1.0)
            step, kept = _timed(lambda: train_step(*given), device)
            train = step / batch
    plan, task = scale.test, tasks[experiment.split]
    shape = (plan.n_update, plan.n_retain, EVALUATION_SEED, SAMPLE, task.editable)
    pairs = evaluation_pairs(task.corpus, experiment.languages, experiment.languages, *shape)
    judge, _ = _timed(lambda: evaluate(subject, task, pairs, EVALUATION_SEED), device)
    memory = _bytes(backbone.model.parameters()) + (5 if cell.trained else 1) * own + kept
    return Cost(f"{cell.task} {cell.approach}", start, train, judge / len(pairs), own, memory), tasks


def _timed(run: Callable[[], object], device: str) -> tuple[float, int]:
    """The seconds of the second of two calls, and the bytes of activations that it stores for a backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.grad_fn is not None:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for _ in range(2):
        kept.clear()
        began = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run()
        if device != "cpu":
            torch.accelerator.synchronize()
    return time.perf_counter() - began, sum(kept.values())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
