"""Training an editor: one visible loop (§3.2, §B.3)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from .data import Task
from .editing import Editor, Objective, objective
from .errors import UserError
from .masks import open_share
from .metrics import Scores
from .sampling import derived_rng, training_triples
from .types import Triple


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

    def as_dict(self) -> dict[str, float | bool | None]:
        return {
            "step": self.step,
            **self.losses,
            **asdict(self.scores),
            "best": self.best,
            "open_gates": self.open_gates,
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
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    on_checkpoint: Callable[[State], None] = lambda state: None,
    state: State | None = None,
) -> list[Report]:
    """Train `editor.parameters` in place on all languages of `task`, and leave the best of the validations in them.

    Every step draws from its own generator and validation from others, so the validation interval changes no sample
    (clause S7), and from a `state` on the training goes bit for bit as if it had never stopped.
    UserError: a loss that is not finite.
    """
    optimiser = adam(editor)
    if state is None:
        state = State(0, {}, _copies(editor.parameters), {}, {}, {}, [])
    assign(editor.parameters, state.parameters)
    _restore(optimiser, editor.parameters, state)
    best, sums, reports = state.best, dict(state.sums), list(state.reports)
    rates = [group["lr"] for group in optimiser.param_groups]
    steps = schedule.edits // schedule.batch
    for step in range(state.step + 1, steps + 1):
        if reports and early_stopping(_validations(reports, schedule.batch), schedule.patience)[1]:
            break
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - 0.9 * (step - 1) / steps if schedule.decay else 1.0)
        triples = batch_of_triples(task, schedule.batch, seed, step)
        losses = train_step(editor, optimiser, triples, step_seed(seed, step), settings, schedule.clip)
        if not math.isfinite(losses["total"]):
            raise UserError(f"the training loss is {losses['total']} at step {step}; lower the learning rates")
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value
        on_step(step, losses["total"])
        if step % (schedule.validate_every // schedule.batch) == 0 or step == steps:
            since = step - (reports[-1].step if reports else 0)
            scores = validate(editor)
            now = step * schedule.batch
            seen = [*_validations(reports, schedule.batch), (now, scores.succ)]
            improved = early_stopping(seen, schedule.patience)[0] == now
            masks = editor.mask_parameters()
            means = {name: total / since for name, total in sums.items()}
            reports.append(Report(step, means, scores, improved, open_share(masks) if masks else None))
            sums = {}
            if improved:
                best = _copies(editor.parameters)
            on_report(reports)
        if step % (schedule.checkpoint_every // schedule.batch) == 0:
            moments = [
                {name: optimiser.state[p][key] for name, p in editor.parameters.items() if p in optimiser.state}
                for key in ("exp_avg", "exp_avg_sq")
            ]
            on_checkpoint(State(step, editor.parameters, best, moments[0], moments[1], sums, reports))
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
    losses = objective(editor, triples, seed, settings)
    optimiser.zero_grad()
    losses["total"].backward(inputs=list(editor.parameters.values()))
    # Apart, because the penalty's gradient would drown the editor's own under one common norm.
    for group in (editor.own_parameters(), editor.mask_parameters()):
        torch.nn.utils.clip_grad_norm_(list(group.values()), clip)
    optimiser.step()
    return {name: value.item() for name, value in losses.items()}


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


def _restore(optimiser: torch.optim.Adam, parameters: dict[str, Tensor], state: State) -> None:
    for name, first in state.first.items():
        moments = {"exp_avg": first.clone(), "exp_avg_sq": state.second[name].clone()}
        optimiser.state[parameters[name]] = {"step": torch.tensor(float(state.step)), **moments}


def step_seed(seed: int, step: int) -> int:
    """The seed of one step's gates."""
    return int.from_bytes(hashlib.blake2b(f"gates {seed} {step}".encode(), digest_size=7).digest(), "little")
