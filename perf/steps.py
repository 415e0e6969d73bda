"""A training step, taken apart: how many operations it dispatches and how long each phase of it keeps the host busy.

All that the programs for a GPU and for the host's share need of the reference is imported here, and nowhere else.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lime_editing.backbone import Backbone, Sent, load_tokenizer, wrap
from lime_editing.core import editing, masks, training
from lime_editing.core.editing import Editor, Objective, edit
from lime_editing.core.evaluation import evaluate
from lime_editing.core.sampling import evaluation_pairs
from lime_editing.core.training import adam, descend, train_step
from lime_editing.errors import UserError
from lime_editing.names import Rulings
from lime_editing.records import Triple

__all__ = [
    "MILD",
    "PHASES",
    "Backbone",
    "Editor",
    "Objective",
    "Phases",
    "Triple",
    "UserError",
    "adam",
    "code",
    "descend",
    "edit",
    "evaluate",
    "evaluation_pairs",
    "loop_of",
    "moved",
    "phases_of",
    "real_data",
    "real_step",
    "step_of",
    "train_step",
    "training",
    "ways",
    "with_precision",
    "wrap",
]

#: Phase, and the function that it is. What a phase calls belongs to the innermost phase, except in `WHOLE` ones.
PHASES: tuple[tuple[str, Any, str], ...] = (
    ("prepare inputs", training, "batch_of_triples"),
    ("prepare inputs", training, "uniforms_of"),
    ("prepare inputs", training, "batch_of"),
    ("prepare inputs", Sent, "within"),
    ("losses", training, "losses_of"),
    ("trunk", Backbone, "read"),
    ("edit gradient", editing, "capture"),
    ("masks", masks, "masked"),
    ("masks", editing, "masks_of"),
    ("masks", masks, "side_by_side"),
    ("masks", masks, "penalty"),
    ("backward", torch.autograd, "grad"),
    ("optimiser", training, "descend"),
)
#: The approach's own part, whose owner is the editor's module.
UPDATE = "method update"
REST = "rest"
WHOLE = frozenset({"edit gradient", "backward"})
ORDER = ("prepare inputs", "trunk", "edit gradient", "masks", UPDATE, "losses", "backward", "optimiser", REST)


def ways(device: str) -> tuple[str, ...]:
    """How a step can run: eagerly, recorded as a CUDA graph, and in the loop, which also prepares batches ahead."""
    return ("eager", "loop") if device == "cpu" else ("eager", "captured", "loop")


def step_of(editor: Editor, triples: Sequence[Triple], way: str = "eager") -> Callable[[], object]:
    """One step, from a batch of triples on; the learning rates are the paper's, so that it may be repeated."""
    graphs = training.graphs_of(editor, Objective()) if way == "captured" else None
    return partial(train_step, editor, adam(editor), triples, 0, Objective(), 1.0, graphs)


def loop_of(editor: Editor, task: Any, batch: int) -> Callable[[], object]:
    """One more step of a training that never ends, validates or stores anything."""
    never = 10**9 * batch
    schedule = training.Schedule(never, batch, never, never, never)
    return partial(next, training.train(editor, task, _no_validation, schedule, Objective(), 0))


def _no_validation(editor: Editor) -> Any:
    raise AssertionError("a training that never ends is not validated")


def real_step(editor: Editor, task: Any, batch: int) -> Callable[[], object]:
    """A step of the real loop on other examples of the task at each call, from drawing and tokenising them on."""
    optimiser, numbers = adam(editor), count(1)

    def run() -> object:
        step = next(numbers)
        return train_step(editor, optimiser, training.batch_of_triples(task, batch, 0, step), step, Objective(), 1.0)

    return run


def real_data(task: str, fixtures: Path) -> Any:
    """The training split of the fixtures' facts or sentence pairs, tokenised on demand."""
    # The readers of data need more packages than the rest.
    from lime_editing import data  # noqa: PLC0415

    dataset = data.find(task)
    tokenizer = load_tokenizer(fixtures / ("raw_model" if task == "facts" else "raw_classifier"))
    content = dataset.read(str(fixtures / ("facts/mlama1.1" if task == "facts" else "nli")), None)
    classes = {name: i for i, name in enumerate(content.classes)} if dataset.classifies else None
    return dataset.tasks(content, data.Reader(tokenizer, None, classes), Rulings(), {})["train"]


def with_precision(backbone: Backbone, precision: str) -> Backbone:
    """The same model; matrix products are in bf16 where the precision says so."""
    return replace(backbone, precision="bf16" if precision == "bf16" else "float32")


def moved(editor: Editor, backbone: Backbone) -> Editor:
    """The same editor of another copy of the model, with its own copies of the parameters."""
    device = backbone.like.device
    parameters = {name: p.detach().to(device, copy=True).requires_grad_() for name, p in editor.parameters.items()}
    return replace(editor, backbone=backbone, parameters=parameters)


@dataclass
class Phases:
    """Per phase the dispatched operations, or the seconds of host time; `names` counts each operation."""

    taken: dict[str, float] = field(default_factory=lambda: defaultdict(int))
    names: Counter[str] = field(default_factory=Counter)
    open: list[str] = field(default_factory=lambda: [REST])

    def ordered(self) -> dict[str, float]:
        return {name: self.taken[name] for name in ORDER if self.taken.get(name)}


class _Dispatched(TorchDispatchMode):
    """Counts every operation for the phase that is open."""

    def __init__(self, phases: Phases) -> None:
        super().__init__()
        self.phases = phases

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.phases.taken[self.phases.open[-1]] += 1
        self.phases.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def phases_of(editor: Editor, run: Callable[[], object], dispatched: bool, repeats: int = 1) -> Phases:
    """Operations (`dispatched`) or seconds of host time per call of `run`, phase by phase.

    Seconds are those of the host alone: on a GPU what it has asked for may still be running, except where it waits.
    """
    phases = Phases()
    moment = time.perf_counter()

    def switch() -> None:
        nonlocal moment
        now = time.perf_counter()
        if not dispatched:
            phases.taken[phases.open[-1]] += now - moment
        moment = now

    def marked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if phases.open[-1] in WHOLE:
                return function(*args, **kwargs)
            switch()
            phases.open.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                switch()
                phases.open.pop()

        return wrapper

    with _patched([*PHASES, (UPDATE, editor.method, "update")], marked):
        if dispatched:
            with _Dispatched(phases):
                run()
            return phases
        switch()
        for _ in range(repeats):
            run()
        switch()
    phases.taken = {name: value / repeats for name, value in phases.taken.items()}
    return phases


@contextmanager
def _patched(places: Sequence[tuple[str, Any, str]], marked: Callable[..., Any]) -> Iterator[None]:
    """While open, each function marks its phase."""
    before = [(owner, name, getattr(owner, name)) for _, owner, name in places]
    for phase, owner, name in places:
        setattr(owner, name, marked(phase, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def relative(actual: Tensor, expected: Tensor, least: float = 0.0) -> float:
    """‖a - e‖ / max(‖e‖, least), in float64; 0 where both are 0."""
    a, e = (t.detach().to("cpu", torch.float64) for t in (actual, expected))
    size = max(e.norm().item(), least)
    error = (a - e).norm().item()
    return 0.0 if error == 0 else error / size if size else float("inf")


def gradients_of(
    editor: Editor, triples: Sequence[Triple], graphs: Any = None
) -> tuple[dict[str, float], Mapping[str, Tensor]]:
    """The losses of a batch, and the gradient of the total for every parameter that has one."""
    alone, count = training.ALONE, len(triples)
    parts = partial(training.parts_of, editor, triples, 0, MILD, graphs is not None, alone)
    values = training.accumulated(editor, parts, count, MILD, graphs, alone, count)
    gradients = {name: p.grad.clone() for name, p in editor.parameters.items() if p.grad is not None}
    return dict(zip(training.LOSSES, values.tolist(), strict=True)), gradients


#: An objective in which the masks' penalty does not drown the rest.
MILD = Objective(lambda_mask=1e-5)


def code() -> str | None:
    """The fingerprint of the reference that was measured; None where the packages for that are missing."""
    try:
        from lime_editing.results import code_digest  # noqa: PLC0415 (it needs more packages than the rest)
    except ImportError:
        return None
    return code_digest()
