"""What `python -m perf.gpu` measures: one function for each part, which adds rows to a `Log` until its time is over."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch.profiler import ProfilerActivity, profile

from perf import counting, setting, steps

HERE = Path(__file__).resolve().parents[1]
Row = dict[str, Any]
MaskKind = Literal["none", "language"]
PRECISIONS = ("bf16", "tf32", "fp32")
#: The paper trains on so many edits (§B.3).
PAPER_EDITS = 500_000


@dataclass
class Log:
    """The rows of one part, written to a file after each; a time limit; and what is measured on.

    `deadline` is a moment of time.monotonic(), which all processes of a machine share.
    """

    path: Path
    device: str
    quick: bool
    deadline: float
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    done: bool = False

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.write()

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.write()

    def write(self) -> None:
        write_atomically(self.path, json.dumps({"rows": self.rows, "notes": self.notes, "done": self.done}))

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def attempt(self, about: Row, measure: Callable[[], Row]) -> bool:
        """Add the row that `measure` returns, or what went wrong; False, and a note, where the time is over."""
        if self.left() <= 0:
            self.note(f"no time was left for {', '.join(str(value) for value in about.values())}")
            return False
        start = time.monotonic()
        try:
            row = measure()
        except torch.OutOfMemoryError:
            row = {"error": "out of memory"}
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            row = {"error": f"{type(error).__name__}: {lines[0][:300]}"}
        if "error" in row and self.device != "cpu":
            torch.cuda.empty_cache()
        self.add({**about, **row, "took": time.monotonic() - start})
        return True


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """While open, products of float32 are exact, or in TF32 ("tf32"); cuDNN's LSTM is exact ("fp32") or in TF32.

    Afterwards torch's defaults hold, under which the LSTM alone is in TF32: it must not be nested. The flags are
    written and never read: reading cuDNN's is an error where its parts differ.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True


def wait(device: str) -> None:
    """Until all that was asked of the device is done."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def repeated(run: Callable[[], object], device: str, seconds: float, chunks: int = 5) -> list[float]:
    """Seconds per call in so many chunks of calls, after a warm-up; `seconds` is what all chunks may take together."""

    def timed(calls: int) -> float:
        wait(device)
        start = time.perf_counter()
        for _ in range(calls):
            run()
        wait(device)
        return (time.perf_counter() - start) / calls

    # What a device sets up, or records, on the first calls is not the speed of the others.
    once = min(timed(1) for _ in range(4))
    chunks = max(2, min(chunks, int(seconds / once)))
    return [timed(max(1, int(seconds / chunks / once))) for _ in range(chunks)]


# 1. A GPU against the CPU

#: Largest relative error, in norm, that passes; a training adds up the errors of its steps. On a CPU float32 is at most
#: 7e-7, 8e-7, 7e-6, 6e-7 and 7e-7 from float64, and bf16 2e-3, 8e-3, 8e-2, 8e-3 and 3e-2 from float32.
TOLERANCES = {
    "fp32": {"losses": 1e-5, "logits": 1e-5, "gradient": 1e-4, "ΔW": 3e-5, "training": 1e-4},
    "bf16": {"losses": 2e-2, "logits": 3e-2, "gradient": 2e-1, "ΔW": 5e-2, "training": 1e-1},
}
TRAINING_STEPS = 20
#: Added to log_inner_lr, so that an edit changes predictions: e⁵ times the rates that training starts with.
BOLDER = 5.0
#: A tensor's gradient is compared with the gradient of all parameters where it is a smaller part of it than this.
SMALL_PART = 1e-3


@dataclass(frozen=True)
class Case:
    """An editor with parameters unlike the first ones, so that every one of them has an effect, and some batches."""

    editor: steps.Editor
    batches: tuple[list[steps.Triple], ...]


def against_cpu(log: Log) -> None:
    """Losses, gradients, edits and a short training of each editor, against the CPU's in float32."""
    combinations: list[tuple[str, MaskKind]] = [
        (task, masks) for masks in ("language", "none") for task in ("facts", "nli")
    ]
    for task, masks in combinations[:1] if log.quick else combinations:
        size = setting.size_of("tiny" if log.quick else "small", task)
        backbone = setting.backbone_of(size)
        model = deepcopy(backbone.model).to(log.device)
        with computing("fp32"):
            there = steps.wrap(model, size.edited)
        for name in setting.LEARNED:
            case = _case(name, size, backbone, task, masks, 4 if log.quick else 8)
            expected: Row = {}
            for precision in ("fp32", "bf16"):
                other = steps.moved(case.editor, steps.with_precision(there, precision))
                about = {"editor": name, "task": task, "masks": masks, "precision": precision}

                measure = partial(_against, case, other, precision, expected, 4 if log.quick else TRAINING_STEPS)
                if not log.attempt(about, measure):
                    return
        log.attempt(
            {"editor": "finetuning", "task": task, "masks": "none", "precision": "fp32"},
            partial(_finetuning, backbone, there, size, task),
        )


def _case(name: str, size: counting.Size, backbone: Any, task: str, masks: MaskKind, edits: int) -> Case:
    editor = setting.editor_of(name, size, backbone, masks, setting.LANGUAGES[:15])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, parameter in editor.parameters.items():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator).to(parameter))
            if key.endswith("log_inner_lr"):
                parameter.add_(BOLDER)
    batches = tuple(setting.random_triples(size, setting.LENGTHS[task], edits, seed) for seed in range(2))
    return Case(editor, batches)


def _against(case: Case, other: steps.Editor, precision: str, expected: Row, training: int) -> Row:
    """`expected` is filled by the first that needs it."""
    if not expected:
        expected.update(_quantities(steps.moved(case.editor, case.editor.backbone), case, training))
    with computing(precision):
        return _compared(_quantities(other, case, training), expected, precision)


def _quantities(editor: steps.Editor, case: Case, training: int) -> Row:
    """All that is compared, on the CPU again: losses, gradient, logits under edits, ΔW, losses of a training."""
    triples = case.batches[0]
    losses, gradients = steps.gradients_of(editor, triples)
    with torch.no_grad(), editor.backbone.autocast():
        update = steps.edit(editor, [triple.edit for triple in triples])
        logits = editor.backbone.upper(editor.backbone.trunk([triple.update for triple in triples]), update)
        # Without what Editable Training puts in the place of the raw matrices: that is the same everywhere.
        delta = replace(update, weights={}).dense(0)
    optimiser, trained = steps.adam(editor), []
    for step in range(training):
        found = steps.train_step(editor, optimiser, case.batches[step % 2], step, steps.MILD, 1.0)
        trained.append(found["total"])
    return {
        "losses": losses,
        "gradient": {name: g.float().cpu() for name, g in gradients.items()},
        "logits": logits.float().cpu(),
        "ΔW": {name: d.float().cpu() for name, d in delta.items()},
        "training": trained,
    }


def _compared(found: Row, expected: Row, precision: str) -> Row:
    """Per quantity the largest relative error and whether it passes, and the parameter that is worst."""
    # Beside the total: a loss that is near 0 has the rounding of the logits, which are not.
    total = abs(expected["losses"]["total"])
    errors = {"losses": max(abs(found["losses"][name] - e) for name, e in expected["losses"].items()) / total}
    errors["logits"] = steps.relative(found["logits"], expected["logits"])
    worst = {}
    for what in ("gradient", "ΔW"):
        least = SMALL_PART * torch.stack([t.norm() for t in expected[what].values()]).norm().item()
        each = {name: steps.relative(found[what][name], e, least) for name, e in expected[what].items()}
        worst[what] = max(each, key=each.__getitem__)
        errors[what] = each[worst[what]]
    pairs = zip(found["training"], expected["training"], strict=True)
    errors["training"] = max(abs(a - e) / abs(e) for a, e in pairs)
    return {
        "errors": errors,
        "passed": all(error <= TOLERANCES[precision][what] for what, error in errors.items()),
        "worst": worst,
        "losses": {name: value for name, value in expected["losses"].items() if name != "mask"},
        "trained": [expected["training"][0], expected["training"][-1], found["training"][-1]],
    }


def _finetuning(backbone: Any, there: Any, size: counting.Size, task: str) -> Row:
    """Three steps of finetuning: what they change in the logits; ΔW's entries without gradient are noise."""
    requests = [triple.edit for triple in setting.random_triples(size, setting.LENGTHS[task], 4)]
    changes = []
    for one in (backbone, there):
        with torch.no_grad(), computing("fp32"):
            states = one.trunk([request.input for request in requests])
            update = steps.edit(setting.finetuner_of(one, 3), requests)
            changes.append(one.upper(states, update).cpu() - one.upper(states).cpu())
    errors = {"logits": steps.relative(changes[1], changes[0])}
    return {"errors": errors, "passed": errors["logits"] <= 1e-2, "of": "the change of the logits, passes up to 1e-2"}


# 7. Recorded steps against eager ones

#: Largest relative error, in norm, that passes. Recorded and eager steps start the same kernels; shapes differ.
#: On a CPU twenty steps of MEND in float32 move its parameters up to 1.3e-2 beside those in float64, because Adam makes
#: small gradients as large as others. The gradients of two shapes in bf16 are up to 0.15 apart: near 0 rounding
#: decides what MEND's clamp lets through. A wrong buffer or mask row is an error of about 1, in float32 too.
RECORDED = {
    "fp32": {"losses": 1e-5, "gradient": 1e-4, "parameters": 5e-2, "training": 1e-4, "again": 0.0},
    "bf16": {"losses": 2e-2, "gradient": 4e-1, "parameters": 2e-1, "training": 1e-1, "again": 0.0},
}


def recorded(log: Log) -> None:
    """Gradients, twenty steps and the loop with captured steps, against the same eagerly."""
    combinations: list[tuple[str, MaskKind]] = [("facts", "language"), ("nli", "language"), ("facts", "none")]
    for task, masks in combinations[:1] if log.quick else combinations:
        size = setting.size_of("tiny" if log.quick else "small", task)
        with computing("fp32"):
            backbone = setting.backbone_of(size, log.device)
        for name in setting.LEARNED:
            for precision in ("fp32", "bf16"):
                about = {"editor": name, "task": task, "masks": masks, "precision": precision}
                case = partial(_recorded, name, size, backbone, task, masks, precision)
                if not log.attempt(about, case):
                    return
    log.attempt({"editor": "mend", "task": "facts", "masks": "none", "precision": "guard"}, partial(_guard, log))


def _recorded(name: str, size: counting.Size, backbone: Any, task: str, masks: MaskKind, precision: str) -> Row:
    """Batches of two shapes in turn, so that graphs are changed."""
    start = _case(name, size, backbone, task, masks, 8).editor
    start = steps.moved(start, steps.with_precision(backbone, precision))
    long = tuple(replace(seen, tokens=seen.tokens + 9) for seen in setting.LENGTHS[task])
    kinds = [
        setting.random_triples(size, lengths, 8, seed) for seed, lengths in enumerate((setting.LENGTHS[task], long))
    ]
    errors: dict[str, float] = defaultdict(float)
    with computing(precision), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        graphs = steps.training.graphs_of(start, steps.MILD)
        for triples in kinds:
            expected, gradient = steps.gradients_of(start, triples)
            for _ in range(3):  # eagerly in a fixed shape, recorded, replayed
                found, own = steps.gradients_of(start, triples, graphs)
                total = abs(expected["total"])
                errors["losses"] = max(errors["losses"], *(abs(found[k] - e) / total for k, e in expected.items()))
                least = SMALL_PART * torch.stack([t.norm() for t in gradient.values()]).norm().item()
                worst = max(steps.relative(own[key], e, least) for key, e in gradient.items())
                errors["gradient"] = max(errors["gradient"], worst)
        results = []
        for ways in (None, graphs_again, graphs_again):
            editor = steps.moved(start, start.backbone)
            optimiser = steps.adam(editor)
            use = ways(editor) if ways else None
            losses = [
                steps.train_step(editor, optimiser, kinds[step // 3 % 2], step, steps.MILD, 1.0, use)["total"]
                for step in range(TRAINING_STEPS)
            ]
            results.append((losses, editor.parameters))
    (eager, theirs), (first, ours), (second, again) = results
    errors["training"] = max(abs(a - e) / abs(e) for a, e in zip(first, eager, strict=True))
    moved = {key: p - start.parameters[key] for key, p in theirs.items()}
    least = SMALL_PART * torch.stack([t.norm() for t in moved.values()]).norm().item()
    errors["parameters"] = max(steps.relative(p - start.parameters[key], moved[key], least) for key, p in ours.items())
    errors["again"] = max(steps.relative(p, ours[key]) for key, p in again.items()) + float(first != second)
    said = sorted({str(one.message) for one in caught if "CUDA graphs" in str(one.message)})
    kept = len(graphs._recorded) if graphs else 0
    passed = all(error <= RECORDED[precision][what] for what, error in errors.items()) and not said
    passed &= start.backbone.like.device.type == "cpu" or kept == 2
    return {"errors": dict(errors), "passed": passed, "graphs": kept, "said": said}


def graphs_again(editor: steps.Editor) -> Any:
    """Fresh ones."""
    return steps.training.graphs_of(editor, steps.MILD)


def _guard(log: Log) -> Row:
    """The real loop: a loss that is not finite ends it, and no parameter has been changed by then."""
    size = setting.size_of("tiny")
    editor = setting.editor_of("mend", size, setting.backbone_of(size, log.device))
    task = KnownTask(size, setting.LENGTHS["facts"], 20)
    run = steps.loop_of(editor, task, 4)
    for _ in range(6):
        run()
    with torch.no_grad():
        editor.parameters["mend.log_inner_lr"].fill_(torch.inf)
    before = {name: p.detach().clone() for name, p in editor.parameters.items()}
    try:
        for _ in range(4):
            run()
        ended = "never"
    except steps.UserError as error:
        ended = str(error)
    same = all(torch.equal(p, before[name]) for name, p in editor.parameters.items())
    return {"errors": {}, "passed": same and "training loss" in ended, "said": [ended], "graphs": 0}


# 2. What the machine can do


def peaks(log: Log) -> None:
    """FLOP/s of a large square product, bytes per second of a copy, and host time per dispatched operation."""
    n = 256 if log.quick else 8192 if log.device != "cpu" else 1024
    for precision in PRECISIONS:
        log.attempt({"what": "product", "precision": precision}, partial(_product, log, precision, n))
    log.attempt({"what": "copy"}, partial(_copy, log))
    log.attempt({"what": "small operation"}, partial(_small_operation, log))


def _product(log: Log, precision: str, n: int) -> Row:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    # Random, since a GPU multiplies ones at a higher clock.
    a, b, out = (torch.randn(n, n, device=log.device).to(dtype) for _ in range(3))
    with computing(precision):
        chunks = repeated(lambda: torch.mm(a, b, out=out), log.device, 0.02 if log.quick else 1.0)
    rates = [2 * n**3 / seconds for seconds in chunks]
    return {"n": n, "flops": statistics.median(rates), "best_flops": max(rates)}


def _copy(log: Log) -> Row:
    numbers = 2**20 if log.quick else 2**28 if log.device != "cpu" else 2**26
    a = torch.ones(numbers, device=log.device)
    b = torch.empty_like(a)
    chunks = repeated(lambda: b.copy_(a), log.device, 0.02 if log.quick else 0.5)
    return {"bytes": 8 * numbers, "bytes_per_second": 8 * numbers / statistics.median(chunks)}


def _small_operation(log: Log) -> Row:
    """Of an addition of one number: what an operation costs that a device is done with at once."""
    a = torch.ones(1, device=log.device)

    def run() -> None:
        for _ in range(1000):
            a.add_(1)

    return {"seconds": statistics.median(repeated(run, log.device, 0.02 if log.quick else 0.3)) / 1000}


# 3 and 4. Speed and memory at mBERT's size


@dataclass(frozen=True, slots=True)
class Setup:
    """One row: what is done with which editor on which batch."""

    what: Literal["training", "evaluation"]
    editor: str
    task: str
    batch: int
    precision: str
    masks: MaskKind = "language"
    way: str = "eager"

    def about(self) -> Row:
        return {name: getattr(self, name) for name in self.__slots__}


def setups(quick: bool, ways: Sequence[str]) -> list[Setup]:
    """All rows, what says most first: each may be the last that the time allows."""
    learned, main = setting.LEARNED, [(editor, task) for task in ("facts", "nli") for editor in setting.LEARNED]
    rows = []
    for precision in ("bf16", "tf32"):
        for way in reversed(ways):  # the fastest first
            for batch in (10, 512, 64) if precision == "bf16" else (10, 512):
                rows += [Setup("training", editor, task, batch, precision, way=way) for editor, task in main]
    rows += [Setup("evaluation", editor, "facts", batch, "bf16") for batch in (512, 10) for editor in learned]
    rows += [Setup("training", "mend", "facts", batch, "bf16", "none") for batch in (10, 512)]
    everything = [
        Setup(what, editor, task, batch, precision, way=way)
        for precision in PRECISIONS
        for task in ("facts", "nli")
        for what in ("training", "evaluation")
        for batch in (10, 64, 512)
        for editor in learned
        for way in (reversed(ways) if what == "training" else ("eager",))
    ]
    rows = list(dict.fromkeys([*rows, *everything]))
    if not quick:
        return rows
    few = [row for row in rows if row.batch == 10 and row.precision == "bf16" and row.task == "facts"]
    return [replace(row, batch=3) for row in few if row.editor != "editable_training"]


class Workbench:
    """Models and untrained editors of mBERT's size, each made once and kept on the device."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.size_name = "tiny" if log.quick else "mbert"
        self._made: dict[tuple[str, str, str], steps.Editor] = {}

    def size(self, task: str) -> counting.Size:
        return setting.size_of(self.size_name, task)

    def backbone(self, task: str) -> Any:
        with computing("fp32"):
            return setting.backbone_of(self.size(task), self.log.device)

    def editor(self, setup: Setup) -> steps.Editor:
        """A fresh editor with parameters of its own."""
        key = (setup.editor, setup.task, setup.masks)
        if key not in self._made:
            languages = setting.LANGUAGES if setup.task == "facts" else setting.LANGUAGES[:15]
            made = setting.editor_of(
                setup.editor, self.size(setup.task), self.backbone(setup.task), setup.masks, languages
            )
            self._made[key] = made
        return steps.moved(self._made[key], steps.with_precision(self.backbone(setup.task), setup.precision))

    def triples(self, setup: Setup) -> list[steps.Triple]:
        """Random ones, in languages that the editor knows."""
        triples = setting.random_triples(self.size(setup.task), setting.LENGTHS[setup.task], setup.batch)
        if setup.task == "facts":
            return triples
        known = setting.LANGUAGES[:15]
        return [replace(t, edit=replace(t.edit, language=known[i % len(known)])) for i, t in enumerate(triples)]

    def step(self, editor: steps.Editor, setup: Setup) -> Callable[[], object]:
        """One step; in the loop other inputs each time, of the same lengths, which were tokenised before."""
        if setup.way != "loop":
            return steps.step_of(editor, self.triples(setup), setup.way)
        task = KnownTask(self.size(setup.task), setting.LENGTHS[setup.task], max(50, setup.batch))
        task.make_all()
        return steps.loop_of(editor, task, setup.batch)


class KnownTask(setting.RandomTask):
    """A random task that makes each input once: real data are tokenised once too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known: dict[tuple[str, str], Any] = {}

    def _kept(self, kind: str, key: str, make: Callable[[], Any]) -> Any:
        if (kind, key) not in self._known:
            self._known[kind, key] = make()
        return self._known[kind, key]

    def request(self, edit: Any, rng: Any) -> Any:
        return self._kept("request", edit.id, lambda: setting.RandomTask.request(self, edit, rng))

    def update_input(self, update: Any, edit: Any, request: Any) -> Any:
        return self._kept("update", update.id, lambda: setting.RandomTask.update_input(self, update, edit, request))

    def retain_input(self, retain: Any, rng: Any) -> Any:
        return self._kept("retain", retain.id, lambda: setting.RandomTask.retain_input(self, retain, rng))

    def make_all(self) -> None:
        for one in self.corpus.examples:
            request = self.request(one, setting.NO_RNG)
            self.update_input(one, one, request)
            self.retain_input(one, setting.NO_RNG)


RETAINS = 4


def speed(log: Log) -> None:
    """Training steps and evaluations at mBERT's size: edits per second, and the most memory that was in use."""
    bench = Workbench(log)
    for setup in setups(log.quick, steps.ways(log.device)):
        if not log.attempt(setup.about(), partial(_speed, log, bench, setup)):
            return


def _speed(log: Log, bench: Workbench, setup: Setup) -> Row:
    size, lengths = bench.size(setup.task), setting.LENGTHS[setup.task]
    bench.editor(setup)  # what is kept is made before memory is looked at
    before = _start_of_memory(log.device)
    editor = bench.editor(setup)
    own = sum(4 * parameter.numel() for parameter in editor.parameters.values())
    if setup.what == "training":
        run = bench.step(editor, setup)
        need, edits = float(counting.training(setup.editor, size, lengths)), setup.batch
    else:
        run, need, edits = _evaluation(editor, setup, size, lengths)
    with warnings.catch_warnings(), computing(setup.precision):
        warnings.filterwarnings("ignore", "RNN module weights")
        chunks = repeated(run, log.device, 0.05 if log.quick else 0.7)
    seconds = statistics.median(chunks)
    row: Row = {
        "seconds": seconds,
        "spread": [min(chunks), max(chunks)],
        "edits_per_second": edits / seconds,
        "gflop_per_edit": need / 1e9,
        "editor_bytes": own,
    }
    if setup.what == "training":
        row["hours"] = PAPER_EDITS * seconds / edits / 3600
    if log.device != "cpu":
        model = sum(t.numel() * t.element_size() for t in editor.backbone.model.parameters())
        row |= {"peak_bytes": torch.cuda.max_memory_allocated() - before + model, "model_bytes": model}
    return row


def _start_of_memory(device: str) -> int:
    if device == "cpu":
        return 0
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _evaluation(
    editor: steps.Editor, setup: Setup, size: counting.Size, lengths: counting.Lengths
) -> tuple[Callable[[], object], float, int]:
    """An evaluation of a batch, the operations that an edit needs, and how many edits there are."""
    task = KnownTask(size, lengths, setup.batch)
    spoken = task.corpus.languages
    pairs = steps.evaluation_pairs(task.corpus, spoken, spoken, 1, RETAINS, 0, setup.batch)
    judged = [lengths[1], *[lengths[2]] * RETAINS]
    need = counting.preparing(size, lengths[0], judged) + counting.judging(setup.editor, size, lengths[0], judged)
    return partial(steps.evaluate, editor, task, pairs, 0, batch=len(pairs)), need, len(pairs)


# 5. The tiny grid

NEEDED = ("datasets", "pyarrow", "rich", "matplotlib", "filelock", "submitit")


def grid(log: Log) -> None:
    """Cells of the tiny grid at the same time on the device, beside the CPU's published rows."""
    if lacking():
        log.note(f"left out: {', '.join(lacking())} cannot be imported, which the grid needs")
        return
    approaches, trainings = (("mend",), ("lime",)) if log.quick else (setting.LEARNED, ("all", "lime"))
    about = {"approach": ",".join(approaches), "training": ",".join(trainings)}
    log.attempt(about, partial(_cells, log, approaches, trainings))


def lacking() -> list[str]:
    """The packages that the grid needs and that are not installed."""
    return [name for name in NEEDED if find_spec(name) is None]


def _cells(log: Log, approaches: Sequence[str], trainings: Sequence[str]) -> Row:
    """Cells with seed 0, and how far their rows are from those of results/tiny, in their standard deviations."""
    chosen = [(approach, training) for approach in approaches for training in trainings]
    command = [sys.executable, "-m", "lime_editing", "reproduce", "--task", "facts", "--offline", "--seeds", "1"]
    command += ["--approach", ",".join(approaches), "--training", ",".join(trainings), "--device", log.device]
    command += ["--jobs", str(len(chosen))]
    if log.quick:
        few = {"edits": 16, "validate_every": 16, "patience": 16, "checkpoint_every": 16}
        for name, value in few.items():
            command += ["--set", f"all_languages.{name}={value}"]
        command += ["--set", "validation.edits=2", "--set", "test.edits=2", "--languages", "en,fr"]
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        done = subprocess.run(
            [*command, "--results", folder],
            cwd=HERE,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=max(1.0, log.left()),
        )
        seconds = time.monotonic() - start
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {"error": f"exit status {done.returncode}: {last[:300]}"}
        found = _table(next(Path(folder).rglob("tables.json")))
    published = _table(HERE / "results" / "tiny" / "tables.json")
    rows = []
    for cell in chosen:
        for evaluation in ("en → all", "all → all"):
            here, there = found[evaluation, *cell], published[evaluation, *cell]
            deviation = there["deviation"]
            each = {m: {"here": here[m], "published": there[m], "deviation": deviation[m]} for m in METRICS}
            rows.append({"approach": cell[0], "training": cell[1], "evaluation": evaluation, **each})
    return {"seconds": seconds, "comparable": not log.quick, "rows": rows}


METRICS = ("acc", "con", "succ")


def _table(path: Path) -> dict[tuple[str, str, str | None], Row]:
    """The rows of the facts table under the paper's protocol."""
    rows = json.loads(path.read_text(encoding="utf-8"))["facts"]["rows"]
    return {(row["evaluation"], row["approach"], row.get("training", row.get("variant"))): row for row in rows}


# 6. Where the time of a step goes


def profiles(log: Log) -> None:
    """Kernels, waiting and host time of a step; synchronisations; dispatched operations; host time by phase."""
    bench = Workbench(log)
    cases = [(editor, "facts") for editor in setting.LEARNED] + [("mend", "nli"), ("knowledge_editor", "nli")]
    for batch in (3,) if log.quick else (10, 512):
        for editor, task in cases[:2] if log.quick else cases:
            for way in reversed(steps.ways(log.device)[:2]):
                setup = Setup("training", editor, task, batch, "bf16", way=way)
                if not log.attempt(setup.about(), partial(_profile, log, bench, setup)):
                    return


def _profile(log: Log, bench: Workbench, setup: Setup) -> Row:
    editor = bench.editor(setup)
    run = steps.step_of(editor, bench.triples(setup), setup.way)
    with warnings.catch_warnings(), computing(setup.precision):
        warnings.filterwarnings("ignore", "RNN module weights")
        seconds = statistics.median(repeated(run, log.device, 0.05 if log.quick else 0.5))
        row: Row = {"seconds": seconds}
        row["host_by_phase"] = steps.phases_of(editor, run, dispatched=False, repeats=3).ordered()
        counted = steps.phases_of(editor, run, dispatched=True)
        row |= {"operations": sum(counted.taken.values()), "operations_by_phase": counted.ordered()}
        row["most_dispatched"] = dict(counted.names.most_common(12))
        if log.device != "cpu":
            row |= _synchronisations(run)
        row |= _traced(run, log.device, seconds)
    return row


def _synchronisations(run: Callable[[], object]) -> Row:
    """How often one call waits for the device, and from which lines."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = Counter(
        f"{Path(one.filename).name}:{one.lineno}" for one in caught if "synchronizing CUDA" in str(one.message)
    )
    return {"synchronisations": sum(places.values()), "synchronised_at": dict(places.most_common(8))}


CALLS = 2  # under the profiler


def _traced(run: Callable[[], object], device: str, seconds: float) -> Row:
    """From a trace of some calls: kernels, how long they keep the device busy, and what the host does meanwhile.

    The profiler slows the host down and not the kernels: `busy` is of the time that a step takes without it.
    """
    activities = [ProfilerActivity.CPU] + ([] if device == "cpu" else [ProfilerActivity.CUDA])
    with profile(activities=activities) as profiler:
        start = time.perf_counter()
        for _ in range(CALLS):
            run()
        wait(device)
        traced = (time.perf_counter() - start) / CALLS
    row: Row = {"traced_seconds": traced}
    return row if device == "cpu" else row | traced_events(list(profiler.events()), CALLS, traced, seconds)


def traced_events(events: Sequence[Any], calls: int, traced: float, seconds: float) -> Row:
    """What the events of so many calls say, per call; a call takes `traced` seconds here, and else `seconds`."""
    on_device = [e for e in events if e.device_type.name == "CUDA" and not getattr(e, "is_user_annotation", False)]
    on_device = [e for e in on_device if not e.name.startswith(("Optimizer.", "ProfilerStep"))]
    kernels = [e for e in on_device if not e.name.startswith(("Memcpy", "Memset"))]
    busy = _covered([(e.time_range.start, e.time_range.end) for e in on_device]) / 1e6 / calls
    host: dict[str, float] = defaultdict(float)
    for event in events:
        if event.device_type.name == "CPU" and event.name.startswith(("cuda", "cu")):
            kind = "waiting" if "Synchronize" in event.name else "copies" if "Memcpy" in event.name else "launches"
            host[kind] += (event.time_range.end - event.time_range.start) / 1e6 / calls
    longest: dict[str, float] = defaultdict(float)
    times: Counter[str] = Counter()
    for kernel in kernels:
        name = kernel.name.removeprefix("void ")[:90]
        longest[name] += (kernel.time_range.end - kernel.time_range.start) / 1e6 / calls
        times[name] += 1
    return {
        "kernels": len(kernels) / calls,
        "copies": sum(e.name.startswith("Memcpy") for e in on_device) / calls,
        "busy_seconds": busy,
        "busy": busy / seconds,
        "traced_host": {**host, "waiting_share": host["waiting"] / traced},
        "longest_kernels": [
            {"name": name, "seconds": s, "times": times[name] / calls}
            for name, s in sorted(longest.items(), key=lambda kernel: -kernel[1])[:10]
        ],
    }


def _covered(spans: list[tuple[float, float]]) -> float:
    """How much time these spans cover together."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        if end > until:
            total += end - max(start, until)
            until = end
    return total


#: Exit code of a process that cannot use the GPU because the server that it comes from has touched it.
FORKED = 77
PARTS: dict[int, Callable[[Log], None]] = {1: against_cpu, 2: peaks, 3: speed, 5: grid, 6: profiles, 7: recorded}


def run_part(number: int, log: Log) -> None:
    """Run one part in a process of its own; whoever kills it kills what it has started as well."""
    if hasattr(os, "setsid"):
        os.setsid()
    if log.device != "cpu":
        if torch.cuda._is_in_bad_fork():
            sys.exit(FORKED)
        torch.cuda.set_device(torch.device(log.device).index or 0)
    torch.manual_seed(0)
    try:
        PARTS[number](log)
    except Exception as error:
        log.note(f"ended by {type(error).__name__}: {str(error)[:300]}")
        raise
    log.done = True
    log.write()
