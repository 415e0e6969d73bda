"""What a run would do and need, before it runs: counted from its data, and timed on one step per approach."""

from __future__ import annotations

import heapq
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from .. import results
from ..core.backbone import Backbone
from ..core.editing import Editor, Objective
from ..core.evaluation import BATCH, batches, judge
from ..core.sampling import evaluation_pairs
from ..core.task import Task
from ..core.training import adam, batch_of_triples, train_step
from ..errors import ModelError
from ..names import JUDGED
from . import store
from .cells import Cell, Experiment, cell_folder, evaluations
from .classifier import RawClassifier, collate
from .run import EVALUATION_SEED, assemble
from .scales import Evaluation

SAMPLE = 8  # edits that are judged to measure: on a CPU a larger batch is hardly cheaper per edit
SLOW = 10.0  # seconds after which a step is not timed a second time
ROW, NOTES = 2, 8_192  # bytes of an outcome in rows.parquet; of a cell's json files and all headers


@dataclass(frozen=True, slots=True)
class Cost:
    """One approach on this machine, with one CPU thread as in a run: seconds, and bytes on the device."""

    approach: str
    start: float  # to read data and model
    train: float  # per edit
    judge: float  # per edit
    model_bytes: int
    editor_bytes: int  # its parameters; a training holds them five times: gradient, Adam's two moments, the best
    work_bytes: int  # what a training step keeps for its backward pass, or a judged batch has in logits and states


@dataclass(frozen=True, slots=True)
class Planned:
    """One cell: what is left to do, at most (patience may end a training sooner), and what it needs."""

    cell: str
    folder: str
    state: Literal["done", "begun", "to do"]
    trained: int = 0  # edits
    judged: int = 0  # edits, validations included
    seconds: float = 0.0
    memory: int = 0  # bytes on the device, at most
    disk: int = 0  # bytes that stay
    checkpoint: int = 0  # bytes of a training's checkpoint, which is removed at the end


@dataclass(frozen=True, slots=True)
class Plan:
    """All cells of a run, `jobs` at a time, of which `shared` are on one device.

    The `first` ones run before all others, one by one.
    """

    jobs: int
    device: str
    cells: tuple[Planned, ...]
    measured: tuple[Cost, ...]
    disk_free: int
    first: int = 0
    shared: int = 1

    def as_dict(self) -> dict[str, Any]:
        """For a program: seconds, bytes and counts. The largest cells may run side by side."""
        alone, others = self.cells[: self.first], self.cells[self.first :]
        beside = sorted((cell.memory for cell in others), reverse=True)[
            : self.jobs if self.device == "cpu" else self.shared
        ]
        states = sorted((cell.checkpoint for cell in self.cells), reverse=True)[: self.jobs]
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
    """When the last of these jobs ends, if `jobs` workers take them in order."""
    ends = [0.0] * jobs
    for duration in seconds:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def make(
    cells: Sequence[Cell],
    protocols: Mapping[str, Mapping[str, Experiment]],
    classifiers: Sequence[RawClassifier],
    root: Path,
    jobs: int,
    shared: int = 1,
) -> Plan:
    """The plan of a run of these cells under each protocol ({protocol: {task: experiment}}). It writes nothing."""
    first = [of_classifier(wanted) for wanted in classifiers]
    costs: dict[tuple[str, ...], tuple[Cost, Mapping[Any, Task]]] = {}
    planned = []
    for protocol, experiments in protocols.items():
        for cell in cells:
            experiment = experiments[cell.task]
            folder, key = cell_folder(cell, experiment, root), (protocol, cell.task, cell.approach)
            if results.is_done(folder):
                planned.append(Planned(cell.name, str(folder), "done"))
                continue
            if key not in costs:
                same = [c for c in cells if (c.task, c.approach) == (cell.task, cell.approach)]
                costs[key] = _measure(max(same, key=lambda c: (c.masks != "none", c.training or "")), experiment)
            made = _planned(cell, experiment, folder, *costs[key])
            planned.append(replace(made, cell=f"{made.cell} ({protocol})") if len(protocols) > 1 else made)
    existing = next(path for path in (root, *root.absolute().parents) if path.is_dir())
    device = next(iter(next(iter(protocols.values())).values())).sources.device
    measured = tuple(cost for cost, _ in costs.values())
    return Plan(jobs, device, (*first, *planned), measured, shutil.disk_usage(existing).free, len(first), shared)


def of_classifier(wanted: RawClassifier) -> Planned:
    """A raw classifier that is fine-tuned before all cells, from one measured step."""
    name, folder = f"{wanted.dataset.name}-classifier", str(wanted.folder)
    if wanted.done:
        return Planned(name, folder, "done")
    device, examples, settings = wanted.sources.device, wanted.examples, wanted.scale.classifier
    model = wanted.start.model.to(device).requires_grad_(True)
    batch = collate([examples[i] for i in range(min(settings.batch, len(examples)))], wanted.start.pad_id)
    inputs = {name: rows.to(device) for name, rows in batch.items()}
    seconds, kept = _timed(lambda: model(**inputs).loss.backward(), device, model.parameters())  # noqa: PLW0108  # two calls
    model.zero_grad()
    weights = _bytes(model.parameters())
    judged = sum(len(wanted.content.rows[split]) for split in JUDGED) * len(wanted.content.languages)
    steps = wanted.steps + judged / settings.batch / 3  # forward alone is a third of a step
    trained = len(examples) * settings.epochs
    return Planned(name, folder, "to do", trained, judged, steps * seconds, 4 * weights + kept, weights + NOTES)


def _planned(cell: Cell, experiment: Experiment, folder: Path, cost: Cost, tasks: Mapping[Any, Task]) -> Planned:
    scale, languages = experiment.scale, experiment.languages
    asked = sum(_edits(tasks[experiment.split], edited, scale.test) for edited in evaluations(languages).values())
    per_edit = scale.test.n_update + scale.test.n_retain
    trained, validated, step, copies = 0, 0, 0, 1
    if cell.trained is not None:
        schedule, trained_on = scale.schedule(cell.trained), cell.trained.languages or languages
        step, copies = _step_reached(folder / results.STATE) * schedule.batch, 5
        trained = max(0, schedule.steps * schedule.batch - step)
        times = -(-trained // schedule.validate_every)
        validated = times * _edits(tasks["validation"], trained_on, scale.validation)
    share = (scale.validation.n_update + scale.validation.n_retain) / per_edit  # of a judged edit's work
    return Planned(
        *(cell.name, str(folder), "begun" if step else "to do", trained, asked + validated),
        cost.start + trained * cost.train + (asked + share * validated) * cost.judge,
        cost.model_bytes + copies * cost.editor_bytes + cost.work_bytes,
        cost.editor_bytes + asked * per_edit * ROW + NOTES,
        4 * cost.editor_bytes,
    )


def _edits(task: Task, languages: Sequence[str], plan: Evaluation) -> int:
    """How many edits an evaluation has."""
    editable = task.editable
    total = sum(e.language in languages and (editable is None or e.id in editable) for e in task.corpus.examples)
    return total if plan.edits is None else min(plan.edits, total)


def _step_reached(path: Path) -> int:
    """The step of an interrupted training's checkpoint; 0 where none can be read."""
    try:
        return int(store.read_about(path).get("step", 0))
    except ModelError:
        return 0


def _measure(cell: Cell, experiment: Experiment) -> tuple[Cost, Mapping[Any, Task]]:
    threads, device = torch.get_num_threads(), experiment.sources.device
    torch.set_num_threads(1)  # as in a worker
    try:
        began = time.perf_counter()
        subject, tasks = assemble(cell, experiment)
        start = time.perf_counter() - began
        train, kept = 0.0, 0
        if isinstance(subject, Editor) and cell.trained is not None:
            batch = experiment.scale.schedule(cell.trained).batch
            task = tasks["train"].within(cell.trained.languages or experiment.languages)
            triples, optimiser = batch_of_triples(task, batch, 0, 1), adam(subject)
            own = (*subject.parameters.values(), *subject.backbone.model.parameters())
            seconds, kept = _timed(lambda: train_step(subject, optimiser, triples, 0, Objective(), 1.0), device, own)
            train = seconds / batch
        judged, held = _judged(experiment, subject, tasks[experiment.split])
    finally:
        torch.set_num_threads(threads)
    backbone = subject.backbone if isinstance(subject, Editor) else subject
    learned = subject.parameters.values() if isinstance(subject, Editor) else ()
    sizes = (_bytes(backbone.model.parameters()), _bytes(learned))
    return Cost(f"{cell.task} {cell.approach}", start, train, judged, *sizes, max(kept, held)), tasks


def _judged(experiment: Experiment, subject: Editor | Backbone, task: Task) -> tuple[float, int]:
    """(seconds per edit, bytes of a whole batch) of judging as the run does."""
    plan, languages = experiment.scale.test, experiment.languages
    sample = SAMPLE if experiment.sources.device == "cpu" else BATCH
    pairs = evaluation_pairs(
        *(task.corpus, languages, languages, plan.n_update, plan.n_retain, EVALUATION_SEED, sample, task.editable)
    )
    backbone = subject.backbone if isinstance(subject, Editor) else subject
    size = 0

    def run() -> None:
        nonlocal size
        for prepared in batches(backbone, task, pairs, EVALUATION_SEED, BATCH, experiment.rulings.con_positions):
            judge(subject, prepared)
            config, states = backbone.model.config, prepared.states
            classes = config.num_labels if backbone.classifies else config.vocab_size
            size = _bytes([states.hidden]) + len(states.places.predicted) * classes * states.hidden.element_size()

    seconds, _ = _timed(run, experiment.sources.device)
    dense = 0
    if isinstance(subject, Editor) and subject.method.NAME == "finetuning":
        dense = 5 * BATCH * _bytes(backbone.raw.values())  # ΔW, its copy, two moments, the gradient
    return seconds / len(pairs), size * BATCH // len(pairs) + dense


def _timed(run: Callable[[], object], device: str, own: Iterable[Tensor] = ()) -> tuple[float, int]:
    """Seconds of the second of two calls, and the bytes that it keeps for a backward pass beside its `own` tensors."""
    known, kept = {p.untyped_storage().data_ptr() for p in own}, dict[int, int]()

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    seconds = SLOW + 1
    for attempt in range(2):
        began = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run()
        if device != "cpu":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
        if seconds > SLOW or attempt:
            break
        kept.clear()
    return seconds, sum(kept.values())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
