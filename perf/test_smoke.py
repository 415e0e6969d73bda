"""The full-training smoke run: the real loop for some steps, and the share of the rank-1 core in it.

The core is capture, masks, transform and apply, forward and backward. Which part a backward operation belongs to, the
profiler says: it carries the sequence number of the operation that it differentiates.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from lime_editing import backbone as backbones, data
from lime_editing.backbone import load, load_tokenizer
from lime_editing.core import editing, evaluation, masks, training
from lime_editing.core.editing import Editor, Objective, make_editor
from lime_editing.core.metrics import Scores, count, scores
from lime_editing.core.sampling import evaluation_pairs
from lime_editing.core.task import Task
from lime_editing.core.training import Schedule
from lime_editing.data import Reader
from lime_editing.editors import mend
from lime_editing.names import Precision, Rulings
from lime_editing.reproduce.scales import TINY
from lime_editing.updates import Update
from perf import counting, setting
from perf.conftest import Machine
from perf.counting import FACTS, Seen, Size

FIXTURES = Path(__file__).parent.parent / "fixtures"
CORE = ("capture", "masks", "transform", "apply")
#: Where each part of a step begins and ends. An inner part counts for itself, except that all in `capture` is capture.
PARTS: tuple[tuple[str, Any, str], ...] = (
    ("data", training, "batch_of_triples"),
    ("trunk", backbones.Backbone, "read"),
    ("capture", editing, "capture"),
    ("masks", masks, "masked"),
    ("transform", mend, "transform"),
    ("edited layers", backbones.Backbone, "upper"),
    ("apply", Update, "apply"),
    ("penalty", masks, "penalty"),
    ("optimiser", torch.optim.Adam, "step"),
    ("validation", evaluation, "evaluate"),
)
ALL_OF_IT = ("capture", "validation")


@dataclass(frozen=True)
class Run:
    """What is trained, on what, and how it is validated."""

    editor: Editor
    task: Task
    validate: Callable[[Editor], Scores]
    batch: int

    def train(self, steps: int) -> training.Report:
        """Train so many steps, with a validation at the end."""
        every = steps * self.batch
        schedule = Schedule(edits=every, batch=self.batch, validate_every=every, patience=every, checkpoint_every=every)
        events = training.train(self.editor, self.task, self.validate, schedule, Objective(lambda_mask=1e-5), 0)
        *_, last = (event for event in events if isinstance(event, training.Validated))
        return last.reports[-1]


def tiny_run(machine: Machine) -> Run:
    """MEND with LiME's masks on the facts and the raw model of the fixtures, as at tiny scale."""
    scale, dataset = TINY.tasks["facts"], data.find("facts")
    content, reader = dataset.read(TINY.data["facts"], None), Reader(load_tokenizer(FIXTURES / "raw_model"))
    tasks = dataset.tasks(content, reader, Rulings(), {})
    languages = tasks["train"].corpus.languages
    precision: Precision = "bf16" if machine.precision == "bf16" else "float32"
    made = load(FIXTURES / "raw_model", scale.edited_layers, machine.device, precision=precision)
    editor = make_editor("mend", made, languages, "language", settings=scale.settings["mend"], mask_lr=scale.mask_lr)
    return Run(editor, tasks["train"], validator(tasks["validation"], 30), scale.all_languages.batch)


def large_run(machine: Machine) -> Run:
    """The same at mBERT size, on random inputs."""
    size = setting.size_of("mbert")
    editor = setting.editor_of("mend", size, machine.backbone(size), "language")
    task = setting.RandomTask(size, FACTS, 2000)
    return Run(editor, task, validator(task, 64), 10 if machine.device == "cpu" else 512)


def counted(run: Run, steps: int) -> float:
    """The operations that an edit of these steps needs; validation is left out."""
    config, settings = run.editor.backbone.model.config, run.editor.settings
    body = (config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.num_attention_heads)
    size = Size(*body, config.vocab_size, rank=settings.rank)
    triples = [t for step in range(1, steps + 1) for t in training.batch_of_triples(run.task, run.batch, 0, step)]
    inputs = [(t.edit.input, t.update, t.retain) for t in triples]
    seen = [[Seen(len(one.ids), len(one.positions)) for one in row] for row in inputs]
    return sum(counting.training("mend", size, (e, u, r)) for e, u, r in seen) / len(seen)


def validator(task: Task, edits: int) -> Callable[[Editor], Scores]:
    languages = task.corpus.languages
    pairs = evaluation_pairs(task.corpus, languages, languages, 1, 1, 0, edits)
    return lambda editor: scores(count(evaluation.evaluate(editor, task, pairs, 0)))


def marked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with record_function(f"part: {name}"):
            return function(*args, **kwargs)

    return wrapper


def timeline(spans: list[tuple[float, float, str]]) -> tuple[list[float], list[str]]:
    """Moments, and the part that time belongs to from each moment to the next: the innermost of nested spans."""
    moments: list[float] = []
    parts: list[str] = []
    open_: list[tuple[float, str]] = [(float("inf"), "")]

    def close(until: float) -> None:
        while open_[-1][0] <= until:
            moments.append(open_.pop()[0])
            parts.append(open_[-1][1])

    for start, end, name in sorted(spans, key=lambda span: (span[0], -span[1])):
        close(start)
        part = open_[-1][1] if open_[-1][1] in ALL_OF_IT else name
        moments.append(start)
        parts.append(part)
        open_.append((end, part))
    close(max(end for _, end, _ in spans))
    return moments, parts


def shares_of(run: Callable[[], object]) -> dict[str, float]:
    """The share of each part in the time of `run` on the CPU, its backward operations included."""
    with pytest.MonkeyPatch.context() as patch:
        for name, owner, attribute in PARTS:
            patch.setattr(owner, attribute, marked(name, getattr(owner, attribute)))
        with profile(activities=[ProfilerActivity.CPU]) as profiler, record_function("part: rest"):
            run()
    events = sorted(profiler.events(), key=lambda e: e.time_range.start)
    spans = [(e.time_range.start, e.time_range.end, e.name[6:]) for e in events if e.name.startswith("part: ")]
    moments, parts = timeline(spans)
    taken: dict[str, float] = defaultdict(float)
    for (start, end), part in zip(itertools.pairwise(moments), parts, strict=False):
        taken[part] += end - start
    # The backward pass of a step runs in the rest; what it differentiates was made in some part before.
    made_in: dict[int, str] = {}
    for event in events:
        part = parts[max(0, bisect.bisect_right(moments, event.time_range.start) - 1)]
        if part != "rest":
            made_in.setdefault(event.sequence_nr, part)
        elif event.name.startswith("autograd::engine::evaluate_function"):
            took = event.time_range.end - event.time_range.start
            taken["rest"] -= took
            taken[made_in.get(event.sequence_nr, "rest") if event.sequence_nr >= 0 else "rest"] += took
    total = sum(taken.values())
    return {part: value / total for part, value in sorted(taken.items(), key=lambda item: -item[1]) if part}


def test_timeline_gives_time_to_the_innermost_part() -> None:
    """A span within another takes its time, and gives back what follows; within capture all is capture."""
    spans = [(0.0, 10.0, "rest"), (2.0, 6.0, "edited layers"), (3.0, 4.0, "apply"), (7.0, 9.0, "capture")]
    spans.append((8.0, 8.5, "apply"))
    moments, parts = timeline(spans)
    assert moments == [0, 2, 3, 4, 6, 7, 8, 8.5, 9, 10]
    within = ["rest", "edited layers", "apply", "edited layers", "rest", "capture", "capture", "capture", "rest", ""]
    assert parts == within


@pytest.mark.parametrize(("name", "steps"), [("tiny", 8), pytest.param("mbert", 3, marks=pytest.mark.whole)], ids=str)
def test_training(measure: Callable[..., None], machine: Machine, name: str, steps: int) -> None:
    """`training.train` from data to validation; every loss is finite, and the loop says what it did."""
    run = tiny_run(machine) if name == "tiny" else large_run(machine)
    with machine.computing():
        report = run.train(steps)
        assert report.step == steps
        shares = shares_of(partial(run.train, steps))
    assert set(CORE) < set(shares)
    core = sum(shares[part] for part in CORE)
    said = ", ".join(f"{part} {share:.0%}" for part, share in shares.items() if share >= 0.005)
    need = counted(run, steps)
    measure(
        partial(run.train, steps),
        f"full training: {name}, {steps} steps of {run.batch} edits and a validation",
        steps * run.batch,
        need,
        notes=f"rank-1 core {core:.0%}; {said}",
        shares=shares,
    )
