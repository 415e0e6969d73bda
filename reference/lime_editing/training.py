"""Training an editor: one visible loop (§3.2, §B.3)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor

from .data import Task
from .devices import ALONE, Processes, halving
from .editing import Editor, Objective, objective
from .errors import UserError
from .masks import open_share
from .metrics import Scores
from .sampling import derived_rng, training_triples
from .types import Triple

LOSSES = ("rel", "loc", "mask", "total")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long an editor is trained. An edit is what the paper calls a training step."""

    edits: int  # at most
    batch: int  # edits per optimiser step
    validate_every: int  # edits
    patience: int  # edits without a better succ after which training stops
    checkpoint_every: int  # edits
    clip: float = 1.0  # largest norm of the editor's own gradient, and of its masks'
    decay: bool = False  # whether learning rates fall linearly to a tenth

    def __post_init__(self) -> None:
        if self.batch < 1 or min(self.edits, self.validate_every, self.checkpoint_every) < self.batch:
            raise UserError(
                f"a schedule needs a batch of 1 at least, and edits, validate_every and checkpoint_every of one batch "
                f"at least; got {self}"
            )


@dataclass(frozen=True, slots=True)
class Report:
    """What the loop says at each validation; losses are means since the last one."""

    step: int
    losses: dict[str, float]
    scores: Scores
    best: bool
    open_gates: float | None  # share of the masks' gates that are not zero; None without masks
    at_a_time: int  # edits of a batch that went through the model together, as many as the memory held

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
    """All that a training needs to go on after a step. Random draws belong to (seed, step) and need no state."""

    step: int
    parameters: dict[str, Tensor]
    best: dict[str, Tensor]  # the parameters of the best validation
    first: dict[str, Tensor]  # Adam's moments
    second: dict[str, Tensor]
    sums: dict[str, float]  # losses since the last validation
    reports: list[Report]


def early_stopping(validations: Sequence[tuple[int, float]], patience: int) -> tuple[int, bool]:
    """Of validations (step, succ) so far, the step of the best, the earliest of equals, and whether patience has ended.

    §B.3, clause R5: with the last of them succ has not improved for `patience` steps.
    """
    best, _ = max(validations, key=lambda validation: validation[1])
    return best, validations[-1][0] - best >= patience


def train(
    editor: Editor,
    task: Task,
    validate: Callable[[Editor], Scores],
    schedule: Schedule,
    settings: Objective,
    seed: int,
    on_report: Callable[[list[Report]], None] = lambda reports: None,
    on_step: Callable[[int, float, int], None] = lambda step, loss, at_a_time: None,
    on_checkpoint: Callable[[State], None] = lambda state: None,
    state: State | None = None,
    processes: Processes = ALONE,
) -> list[Report]:
    """Train `editor.parameters` in place on all languages of `task`, and leave the best of the validations in them.

    Every step draws from its own generator and validation from others, so the validation interval changes no sample
    (clause S7), and from a `state` on the training goes bit for bit as if it had never stopped. Several processes share
    each batch, and a batch that is too large for the memory is computed in parts: the same sums in another order.
    UserError: a loss that is not finite, before it has touched the parameters; memory for not even one edit.
    """
    optimiser = adam(editor)
    if state is None:
        state = State(0, {}, _copies(editor.parameters), {}, {}, {}, [])
    assign(editor.parameters, state.parameters)
    _restore(optimiser, editor.parameters, state)
    best, sums, reports = state.best, dict(state.sums), list(state.reports)
    rates = [group["lr"] for group in optimiser.param_groups]
    steps, at_a_time = schedule.edits // schedule.batch, schedule.batch
    for step in range(state.step + 1, steps + 1):
        if reports and early_stopping(_validations(reports, schedule.batch), schedule.patience)[1]:
            break
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - 0.9 * (step - 1) / steps if schedule.decay else 1.0)
        triples = batch_of_triples(task, schedule.batch, seed, step)
        attempt = partial(gradients, editor, triples, step_seed(seed, step), settings, processes)
        losses, at_a_time = halving(attempt, at_a_time)
        if not math.isfinite(losses["total"]):
            raise UserError(
                f"the training loss is {losses['total']} at step {step}; lower the learning rates. What was stored "
                "before is kept"
            )
        descend(editor, optimiser, schedule.clip)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value
        on_step(step, losses["total"], at_a_time)
        if step % (schedule.validate_every // schedule.batch) == 0 or step == steps:
            since = step - (reports[-1].step if reports else 0)
            scores = validate(editor)
            now = step * schedule.batch
            seen = [*_validations(reports, schedule.batch), (now, scores.succ)]
            improved = early_stopping(seen, schedule.patience)[0] == now
            masks = editor.mask_parameters()
            means = {name: total / since for name, total in sums.items()}
            reports.append(Report(step, means, scores, improved, open_share(masks) if masks else None, at_a_time))
            sums = {}
            if improved:
                best = _copies(editor.parameters)
            on_report(reports)
        if step % (schedule.checkpoint_every // schedule.batch) == 0:
            first, second = _moments(optimiser, editor.parameters)
            on_checkpoint(State(step, editor.parameters, best, first, second, sums, reports))
    assign(editor.parameters, best)
    return reports


def train_step(
    editor: Editor,
    optimiser: torch.optim.Optimizer,
    triples: Sequence[Triple],
    seed: int,
    settings: Objective,
    clip: float,
) -> dict[str, float]:
    """One optimiser step on a batch; the seed draws its gates. Returns the losses from before the step."""
    losses = gradients(editor, triples, seed, settings)
    descend(editor, optimiser, clip)
    return losses


def gradients(
    editor: Editor,
    triples: Sequence[Triple],
    seed: int,
    settings: Objective,
    processes: Processes = ALONE,
    at_a_time: int | None = None,
) -> dict[str, float]:
    """The losses of a batch, and in every parameter's `.grad` the gradient of the total.

    The losses are means over the batch, so that parts of it, on one process or on several, add up by their shares.
    """
    parameters, backbone = list(editor.parameters.values()), editor.backbone
    for parameter in parameters:
        parameter.grad = None
    mine, step = processes.share(len(triples)), at_a_time or len(triples)
    sums = backbone.like.new_zeros(len(LOSSES))
    for first in range(mine.start, mine.stop, step):
        part = triples[first : min(first + step, mine.stop)]
        with backbone.autocast():
            losses = objective(editor, part, seed, settings, first, len(triples))
        share = len(part) / len(triples)
        (share * losses["total"]).backward(inputs=parameters)
        sums += share * torch.stack([losses[name].detach() for name in LOSSES])
    for parameter in parameters if not mine else ():
        parameter.grad = torch.zeros_like(parameter)
    processes.add([*(p.grad for p in parameters if p.grad is not None), sums])
    return dict(zip(LOSSES, sums.tolist(), strict=True))


def descend(editor: Editor, optimiser: torch.optim.Optimizer, clip: float) -> None:
    """Clip the gradients and take the optimiser's step."""
    # Apart, because the penalty's gradient would drown the editor's own under one common norm.
    for group in (editor.own_parameters(), editor.mask_parameters()):
        torch.nn.utils.clip_grad_norm_(list(group.values()), clip)
    optimiser.step()


def batch_of_triples(task: Task, count: int, seed: int, step: int) -> list[Triple]:
    """The tokenised (x_e, x_u, x_r) of one step (clause S6)."""
    rng = derived_rng(seed, "train-inputs", step)
    triples = []
    for drawn in training_triples(task.corpus, count, seed, step):
        request = task.request(drawn.edit, rng)
        update = task.update_input(drawn.update, drawn.edit, request)
        triples.append(Triple(request, update, task.retain_input(drawn.retain, rng)))
    return triples


def adam(editor: Editor) -> torch.optim.Adam:
    """One optimiser; parameters of one learning rate form one group, and each belongs to exactly one (clause E9)."""
    groups: dict[float, list[Tensor]] = {}
    for name, rate in editor.learning_rates().items():
        groups.setdefault(rate, []).append(editor.parameters[name])
    return torch.optim.Adam([{"params": params, "lr": rate} for rate, params in groups.items()], fused=True)


def assign(parameters: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    """Copy values into live parameters."""
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def _validations(reports: Sequence[Report], batch: int) -> list[tuple[int, float]]:
    """(edits, succ) of each validation."""
    return [(report.step * batch, report.scores.succ) for report in reports]


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in tensors.items()}


def _moments(optimiser: torch.optim.Adam, parameters: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Adam's, of the parameters that have taken a step."""
    taken = {name: optimiser.state[p] for name, p in parameters.items() if p in optimiser.state}
    first, second = ({name: of[key] for name, of in taken.items()} for key in ("exp_avg", "exp_avg_sq"))
    return first, second


def _restore(optimiser: torch.optim.Adam, parameters: dict[str, Tensor], state: State) -> None:
    for name, first in state.first.items():
        moments = {"exp_avg": first.clone(), "exp_avg_sq": state.second[name].clone()}
        optimiser.state[parameters[name]] = {"step": torch.tensor(float(state.step)), **moments}


def step_seed(seed: int, step: int) -> int:
    """The seed of one step's gates."""
    return int.from_bytes(hashlib.blake2b(f"gates {seed} {step}".encode(), digest_size=7).digest(), "little")
