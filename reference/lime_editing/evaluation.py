"""Judging an editor (§4.1): pairs of an edit and its sampled inputs → outcomes, one per edited prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import torch

from .backbone import Backbone, States
from .data import Task
from .editing import Editor, edit_from
from .metrics import hit
from .sampling import Pair, derived_rng
from .types import EditRequest, Outcome, Role, Update

Positions = Literal["mask", "all"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch of edits with everything in their judging that no editor has a part in.

    edits     the trunk states of the edit inputs
    states    those of all inputs to be judged, rows e·width … (e+1)·width - 1 of edit e
    raw       per row the raw model's prediction, where it is wanted
    """

    pairs: tuple[Pair, ...]
    requests: tuple[EditRequest, ...]
    edits: States
    states: States
    width: int
    raw: tuple[list[int], ...]


def evaluate(
    subject: Editor | Backbone,
    task: Task,
    pairs: Sequence[Pair],
    seed: int,
    batch: int = 32,
    con_positions: Positions = "mask",
    progress: Callable[[int], None] = lambda done: None,
) -> list[Outcome]:
    """One outcome per edit and input, for an editor, or for the raw model without any edit.

    "all" asks a retained masked sentence for the raw prediction at every position of its padded row (clause M7).

    The seed draws desired predictions and retain lengths, edit by edit, so that every editor is asked the same.
    `progress` hears the number of edits done after each batch.
    """
    backbone = subject.backbone if isinstance(subject, Editor) else subject
    roles: tuple[Role, ...] = ("retain",) if isinstance(subject, Editor) else ("update", "retain")
    outcomes: list[Outcome] = []
    done = 0
    for prepared in batches(backbone, task, pairs, seed, batch, con_positions, roles):
        outcomes += judge(subject, prepared)
        done += len(prepared.pairs)
        progress(done)
    return outcomes


@torch.no_grad()
def batches(
    backbone: Backbone,
    task: Task,
    pairs: Sequence[Pair],
    seed: int,
    batch: int = 32,
    con_positions: Positions = "mask",
    raw_of: Sequence[Role] = ("retain",),
) -> Iterator[Prepared]:
    """The batches of an evaluation, one by one, with the raw predictions of inputs in these roles."""
    for start in range(0, len(pairs), batch):
        yield _prepared(backbone, task, pairs[start : start + batch], seed, con_positions, raw_of)


def _prepared(
    backbone: Backbone,
    task: Task,
    pairs: Sequence[Pair],
    seed: int,
    con_positions: Positions,
    raw_of: Sequence[Role],
) -> Prepared:
    requests, inputs = [], []
    for pair in pairs:
        rng = derived_rng(seed, "inputs", pair.edit.id)
        request = task.request(pair.edit, rng)
        updates = [task.update_input(x, pair.edit, request) for x in pair.update]
        retains = [task.retain_input(x, rng) for x in pair.retain]
        requests.append(request)
        inputs.append(updates + retains)
    # Every edit gets equally many rows: short ones repeat their last input, which is then not judged.
    width = max(map(len, inputs))
    if con_positions == "all" and not backbone.classifies:
        padded = tuple(range(max(len(i.ids) for row in inputs for i in row)))
        for pair, row in zip(pairs, inputs, strict=True):
            row[len(pair.update) :] = [replace(i, positions=padded) for i in row[len(pair.update) :]]
    rows = [i for row in inputs for i in row + row[-1:] * (width - len(row))]
    states = backbone.trunk(rows)
    wanted = [
        e * width + j
        for e, pair in enumerate(pairs)
        for j in range(len(pair.update) + len(pair.retain))
        if ("update" if j < len(pair.update) else "retain") in raw_of
    ]
    raw: list[list[int]] = [[] for _ in rows]
    if wanted:
        chosen = states.take(torch.tensor(wanted, device=states.hidden.device))
        counts = [len(rows[i].positions) for i in wanted]
        for i, prediction in zip(wanted, _predictions(backbone, chosen, counts), strict=True):
            raw[i] = prediction
    edits = backbone.trunk([request.input for request in requests])
    return Prepared(tuple(pairs), tuple(requests), edits, states, width, tuple(raw))


@torch.no_grad()
def judge(subject: Editor | Backbone, prepared: Prepared) -> list[Outcome]:
    """One outcome per edit and input of a prepared batch."""
    edited: Sequence[list[int]] = prepared.raw
    if isinstance(subject, Editor):
        update = edit_from(subject, prepared.requests, prepared.edits)
        counts = torch.bincount(prepared.states.example, minlength=len(prepared.raw)).tolist()
        edited = _predictions(subject.backbone, prepared.states, counts, update)
    outcomes = []
    for e, (pair, request) in enumerate(zip(prepared.pairs, prepared.requests, strict=True)):
        for j, example in enumerate(pair.update + pair.retain, e * prepared.width):
            role: Role = "update" if j - e * prepared.width < len(pair.update) else "retain"
            judged = hit(edited[j], request.labels if role == "update" else prepared.raw[j])
            outcomes.append(Outcome(pair.edit.id, pair.edit.language, role, example.language, judged))
    return outcomes


def _predictions(
    backbone: Backbone, states: States, counts: Sequence[int], update: Update | None = None
) -> list[list[int]]:
    """Per row of the states the prediction at its positions; a classifier has one."""
    best = backbone.upper(states, update).argmax(-1).tolist()
    ends = list(accumulate(counts))
    return [best[end - count : end] for count, end in zip(counts, ends, strict=True)]
