"""The training loop of an editor (§3.2, §B.3)."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from threading import Lock
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from .. import checks
from ..backbone import Sent
from ..errors import UserError
from ..hardware import ALONE, Processes, halving, later
from ..names import Clipping, LogAlpha
from ..records import Triple
from ..updates import Update
from .editing import Batch, Editor, Objective, batch_of, losses_of, uniforms_of
from .graphs import Graphs
from .masks import clamp, open_share
from .metrics import Scores
from .sampling import Pair, derived_rng, training_triples
from .sets import Given, trained_on_sets
from .task import Task, ready

T = TypeVar("T")
Parts: TypeAlias = Callable[[int], tuple[Sequence[Sent[Batch]], Given]]  # a batch, in parts of at most so many triples
_Unread: TypeAlias = tuple[int, int, Callable[[], list[float]]]  # step, triples at a time, a reader of its losses
LOSSES = ("rel", "loc", "mask", "total")
AHEAD = 3  # batches prepared while a GPU computes: for large batches, sampling gates takes longer than a step


@dataclass(frozen=True, slots=True)
class Schedule:
    """The length of a training. The paper calls an edit a training step."""

    edits: int  # at most
    batch: int  # edits per optimiser step
    validate_every: int  # edits
    patience: int  # edits without a better succ after which training stops
    checkpoint_every: int  # edits
    clip: float = 1.0  # largest gradient norm, for editor and masks separately, or for both together
    decay: bool = False  # whether learning rates fall linearly to a tenth

    def __post_init__(self) -> None:
        checks.refuse(UserError, checks.of_record(self), whose="a schedule's ")
        if self.batch < 1 or min(self.edits, self.validate_every, self.checkpoint_every) < self.batch:
            raise UserError(f"a schedule needs a batch of at least 1, and at least one for each interval; got {self}")

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.edits // self.batch

    def validates(self, step: int) -> bool:
        """Whether a validation follows this step: at equal intervals, and at the end (clause R5)."""
        return step % (self.validate_every // self.batch) == 0 or step == self.steps

    def checkpoints(self, step: int) -> bool:
        """Whether a checkpoint follows this step."""
        return step % (self.checkpoint_every // self.batch) == 0

    def rate(self, step: int) -> float:
        """The factor on every learning rate in this step."""
        return 1 - 0.9 * (step - 1) / self.steps if self.decay else 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """One validation; losses are means since the one before."""

    step: int
    losses: dict[str, float]
    scores: Scores
    best: bool
    open_gates: float | None  # share of the masks' gates that are not zero; None without masks
    at_a_time: int  # edits computed together, as many as fit in memory

    def as_dict(self) -> dict[str, float | bool | None]:
        return {
            "step": self.step,
            **self.losses,
            **asdict(self.scores),
            "best": self.best,
            "open_gates": self.open_gates,
            "at_a_time": self.at_a_time,
        }


@dataclass(frozen=True)
class State:
    """A checkpoint: all that a training needs to resume. Random draws depend only on (seed, step)."""

    step: int
    parameters: dict[str, Tensor]
    best: dict[str, Tensor]  # the parameters of the best validation
    first: dict[str, Tensor]  # Adam's moments
    second: dict[str, Tensor]
    sums: dict[str, float]  # losses since the last validation
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class Stepped:
    """An optimiser step was taken."""

    step: int
    loss: float
    at_a_time: int


@dataclass(frozen=True, slots=True)
class Validated:
    """A validation was made. `reports`: all so far, the new one last."""

    reports: tuple[Report, ...]


Event = Stepped | Validated | State


def early_stopping(validations: Sequence[tuple[int, float]], patience: int) -> tuple[int, bool]:
    """From validations (step, succ): the step of the best, and whether `patience` steps have passed since (R5)."""
    best, _ = max(validations, key=lambda validation: validation[1])
    return best, validations[-1][0] - best >= patience


def train(
    editor: Editor,
    task: Task,
    validate: Callable[[Editor], Scores],
    schedule: Schedule,
    objective: Objective,
    seed: int,
    state: State | None = None,
    processes: Processes = ALONE,
) -> Iterator[Event]:
    """Train `editor.parameters` in place on all languages of `task`. At the end they are the best validation's.

    The training advances as events are read: exhaust the iterator. Every step has its own random generator, so the
    validation interval changes no sample (clause S7). Resuming from a `state` gives bit-identical results. Several
    processes share each batch. A batch that does not fit in memory is computed in parts; only rounding differs. While a
    GPU computes a step, the next batch is prepared and the losses of the previous step are read. UserError: a loss that
    is not finite (that step and later ones change no parameter); no memory for one edit.
    """
    # Over sixty lines: the order of reading, validating and yielding is all that it does. Eight parameters:
    # editor, data, validation, length, objective, seed, state and processes are independent.
    checks.refuse(UserError, checks.of_arguments(train, locals()), checks.of_task(task))
    checks.refuse(UserError, checks.of_record(objective), whose="an objective's ")
    optimiser, device, graphs = adam(editor), editor.backbone.like.device, graphs_of(editor, objective)
    if state is None:
        state = State(0, {}, _copies(editor.parameters), {}, {}, {}, ())
    _restore(editor, optimiser, state)
    best, sums, reports, at_a_time = state.best, dict(state.sums), state.reports, schedule.batch
    rates = [group["lr"] for group in optimiser.param_groups]
    stopped, unread, reading = torch.zeros((), device=device), deque[_Unread](), Lock()
    steps = range(state.step + 1, schedule.steps + 1)

    def prepare(step: int) -> Parts:
        with reading:
            triples = batch_of_triples(task, schedule.batch, seed, step)
        drawn = step_seed(seed, step)
        parts = cache(partial(parts_of, editor, triples, drawn, objective, graphs is not None, processes))
        parts(schedule.batch)
        return parts

    for step, parts in zip(steps, ahead(prepare, steps, AHEAD if overlaps(device) else 0), strict=False):
        if reports and early_stopping(_validations(reports, schedule.batch), schedule.patience)[1]:
            break
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * schedule.rate(step)
        attempt = partial(accumulated, editor, parts, schedule.batch, objective, graphs, processes)
        values, at_a_time = halving(attempt, at_a_time)
        # No synchronisation: after a loss that is not finite, the device skips all updates.
        stopped += ~values[-1].isfinite()
        optimiser.found_inf = stopped.clamp(max=1)  # type: ignore[attr-defined]
        descend(editor, optimiser, schedule.clip, objective.clipping, objective.log_alpha)
        unread.append((step, at_a_time, later(values)))
        late = overlaps(device) and not (schedule.validates(step) or schedule.checkpoints(step))
        # The reader of an event may use the task, and not every tokenizer is thread-safe.
        with reading:
            while len(unread) > late:
                number, count, read = unread.popleft()
                losses = dict(zip(LOSSES, read(), strict=True))
                _check_finite(losses["total"], number)
                sums = {name: sums.get(name, 0.0) + value for name, value in losses.items()}
                yield Stepped(number, losses["total"], count)
            if schedule.validates(step):
                report = _report(editor, validate(editor), reports, sums, step, at_a_time, schedule)
                reports, sums = (*reports, report), {}
                best = _copies(editor.parameters) if report.best else best
                yield Validated(reports)
            if schedule.checkpoints(step):
                yield State(step, editor.parameters, best, *_moments(optimiser, editor.parameters), sums, reports)
    assign(editor.parameters, best)


def overlaps(device: torch.device) -> bool:
    """Whether the device computes asynchronously, so that the host can prepare batches."""
    return device.type != "cpu"


def ahead(make: Callable[[int], T], steps: range, threads: int) -> Iterator[T]:
    """`make(step)` for each step, computed `threads` steps ahead by as many threads; with 0 threads, on demand."""
    if threads == 0:
        yield from map(make, steps)
        return
    with ThreadPoolExecutor(threads) as pool:
        upcoming = deque(pool.submit(make, step) for step in steps[:threads])
        for step in steps:
            made = upcoming.popleft().result()
            if step + threads in steps:
                upcoming.append(pool.submit(make, step + threads))
            yield made


def _check_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise UserError(f"the training loss is {loss} at step {step}; lower the learning rates (checkpoints are kept)")


def _report(
    editor: Editor,
    scores: Scores,
    reports: Sequence[Report],
    sums: Mapping[str, float],
    step: int,
    at_a_time: int,
    schedule: Schedule,
) -> Report:
    now = step * schedule.batch
    seen = [*_validations(reports, schedule.batch), (now, scores.succ)]
    means = {name: total / (step - (reports[-1].step if reports else 0)) for name, total in sums.items()}
    masks, best = editor.mask_parameters(), early_stopping(seen, schedule.patience)[0] == now
    return Report(step, means, scores, best, open_share(masks) if masks else None, at_a_time)


def train_step(
    editor: Editor,
    optimiser: torch.optim.Optimizer,
    triples: Sequence[Triple],
    seed: int,
    objective: Objective,
    clip: float,
    graphs: Graphs[Batch] | None = None,
) -> dict[str, float]:
    """One optimiser step on a batch; the seed samples its gates. Returns the losses before the step.

    `graphs`: `graphs_of` this editor and objective, reused in every step.
    """
    checks.refuse(UserError, checks.of_arguments(train_step, locals(), "triples"), checks.of_step(editor, optimiser))
    checks.refuse(UserError, checks.of_record(objective), whose="an objective's ")
    parts = partial(parts_of, editor, triples, seed, objective, graphs is not None, ALONE)
    values = accumulated(editor, parts, len(triples), objective, graphs, ALONE, len(triples))
    descend(editor, optimiser, clip, objective.clipping, objective.log_alpha)
    return dict(zip(LOSSES, values.tolist(), strict=True))


def gradients(
    editor: Editor,
    triples: Sequence[Triple],
    seed: int,
    objective: Objective,
    processes: Processes = ALONE,
    at_a_time: int | None = None,
) -> dict[str, float]:
    """The losses of a batch. Sets every parameter's `.grad` to the gradient of the total."""
    parts, size = partial(parts_of, editor, triples, seed, objective, False, processes), len(triples)
    values = accumulated(editor, parts, size, objective, None, processes, at_a_time or size)
    return dict(zip(LOSSES, values.tolist(), strict=True))


def parts_of(
    editor: Editor,
    triples: Sequence[Triple],
    seed: int,
    objective: Objective,
    fixed: bool,
    processes: Processes,
    at_a_time: int,
) -> tuple[list[Sent[Batch]], Given]:
    """This process's share of a batch, in parts of `at_a_time` triples. The seed gives each triple its gates."""
    mine, uniforms = processes.share(len(triples)), uniforms_of(editor, len(triples), seed)
    chosen = [slice(i, min(i + at_a_time, mine.stop)) for i in range(mine.start, mine.stop, at_a_time)]
    given = Given(editor, [triple.edit for triple in triples], uniforms, at_a_time, mine.start)
    draws, positions = [None if uniforms is None else uniforms[s] for s in chosen], objective.loc_positions
    own = zip(chosen, draws, strict=True)
    return [batch_of(editor, triples[s], drawn, fixed, positions) for s, drawn in own], given


def graphs_of(editor: Editor, objective: Objective) -> Graphs[Batch] | None:
    """`computed` as CUDA graphs; None without a GPU, and for an editor that is trained on sets or series."""
    device = editor.backbone.like.device
    fixed = device.type == "cuda" and not trained_on_sets(editor)
    return Graphs(partial(computed, editor, objective), device) if fixed else None


def computed(
    editor: Editor, objective: Objective, batch: Batch, given: Update | None = None, leaves: Sequence[Tensor] = ()
) -> list[Tensor | None]:
    """The losses of a batch (4,), and the gradient of the total for each parameter and leaf (None: no gradient)."""
    checks.refuse(UserError, checks.of_mode(trains=True))
    with editor.backbone.autocast():
        losses = losses_of(editor, batch, objective, given)
    wanted = [*editor.parameters.values(), *leaves]
    gradients = torch.autograd.grad(losses["total"], wanted, allow_unused=True)
    return [torch.stack([losses[name].detach() for name in LOSSES]), *gradients]


def accumulated(
    editor: Editor,
    parts: Parts,
    size: int,
    objective: Objective,
    graphs: Graphs[Batch] | None,
    processes: Processes,
    at_a_time: int,
) -> Tensor:
    """The losses (4,) of a batch in parts, as means over all of it. Sets every parameter's `.grad`."""
    parameters, like = list(editor.parameters.values()), editor.backbone.like
    found: Sequence[Tensor | None] = ()
    batches, given = parts(at_a_time)
    with editor.backbone.autocast():
        given.compute()
    for part in batches:
        count = len(part.record.asked.masks)
        update, share = given.next(count), count / size
        own = graphs(part) if graphs else computed(editor, objective, part.on(like.device), update, given.leaves)
        own = own if share == 1 else [None if t is None else share * t for t in own]
        each = zip(found, own, strict=True)
        found = [t if f is None or t is None else f + t for f, t in each] if found else own
    values, *gradients = found or (like.new_zeros(len(LOSSES)), *map(torch.zeros_like, parameters))
    assert values is not None
    gradients = given.pulled(gradients, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        # Adam's fused kernel ignores strides.
        parameter.grad = None if gradient is None else gradient.contiguous()
    processes.add([*(t for t in gradients if t is not None), values])
    return values


def descend(
    editor: Editor,
    optimiser: torch.optim.Optimizer,
    clip: float,
    clipping: Clipping = "apart",
    log_alpha: LogAlpha = "free",
) -> None:
    """Clip the gradients and take the optimiser's step."""
    # Separately: with one common norm the penalty's gradient would dominate the editor's.
    apart = (editor.own_parameters(), editor.mask_parameters())
    for group in apart if clipping == "apart" else (editor.parameters,):
        torch.nn.utils.clip_grad_norm_(list(group.values()), clip)
    optimiser.step()
    if log_alpha == "clamped":
        # The released code clamps before each edit; clamping after each step gives the same gates.
        clamp(editor.parameters)


def batch_of_triples(task: Task, count: int, seed: int, step: int) -> list[Triple]:
    """The tokenised (x_e, x_u, x_r) of one step (clause S6)."""
    rng, chosen, triples = derived_rng(seed, "train-inputs", step), training_triples(task.corpus, count, seed, step), []
    ready(task, [Pair(drawn.edit, (drawn.update,), (drawn.retain,)) for drawn in chosen])
    for drawn in chosen:
        request = task.request(drawn.edit, rng)
        update = task.update_input(drawn.update, drawn.edit, request)
        triples.append(Triple(request, update, task.retain_input(drawn.retain, rng)))
    return triples


def adam(editor: Editor) -> torch.optim.Adam:
    """One optimiser, with one group for each learning rate; each parameter is in exactly one group (clause E9)."""
    if not editor.method.TRAINED:
        raise UserError(f"{editor.method.NAME} is not trained; use it without a training")
    groups: dict[float, list[Tensor]] = {}
    for name, rate in editor.learning_rates().items():
        groups.setdefault(rate, []).append(editor.parameters[name])
    return torch.optim.Adam([{"params": params, "lr": rate} for rate, params in groups.items()], fused=True)


def assign(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy values into the parameters, in place."""
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def _validations(reports: Sequence[Report], batch: int) -> list[tuple[int, float]]:
    return [(report.step * batch, report.scores.succ) for report in reports]


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in tensors.items()}


def _moments(
    optimiser: torch.optim.Adam, parameters: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Adam's first and second moments, for parameters that have been updated."""
    taken = {name: optimiser.state[p] for name, p in parameters.items() if p in optimiser.state}
    first, second = ({name: of[key] for name, of in taken.items()} for key in ("exp_avg", "exp_avg_sq"))
    return first, second


def _restore(editor: Editor, optimiser: torch.optim.Adam, state: State) -> None:
    assign(editor.parameters, state.parameters)
    for name, first in state.first.items():
        moments = {"exp_avg": first.clone(), "exp_avg_sq": state.second[name].clone()}
        step = torch.tensor(float(state.step), device=first.device)
        optimiser.state[editor.parameters[name]] = {"step": step, **moments}


def step_seed(seed: int, step: int) -> int:
    """The seed of one step's gates."""
    return int.from_bytes(hashlib.blake2b(f"gates {seed} {step}".encode(), digest_size=7).digest(), "little")
