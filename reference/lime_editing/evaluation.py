"""Judging an editor (§4.1): pairs of an edit and its sampled inputs → outcomes, one per edited prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch

from .backbone import Backbone
from .data import Task
from .editing import Editor, edit
from .metrics import hit
from .sampling import Pair, derived_rng
from .types import Outcome, Role

Positions = Literal["mask", "all"]


@torch.no_grad()
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
    outcomes: list[Outcome] = []
    for start in range(0, len(pairs), batch):
        outcomes += _judge(subject, task, pairs[start : start + batch], seed, con_positions)
        progress(min(start + batch, len(pairs)))
    return outcomes


def _judge(
    subject: Editor | Backbone, task: Task, pairs: Sequence[Pair], seed: int, con_positions: Positions
) -> list[Outcome]:
    backbone = subject.backbone if isinstance(subject, Editor) else subject
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
    counts = [len(i.positions) for i in rows]
    raw = backbone.upper(states).argmax(-1).split(counts)
    edited = raw
    if isinstance(subject, Editor):
        edited = backbone.upper(states, edit(subject, requests)).argmax(-1).split(counts)
    outcomes = []
    for i, (pair, request) in enumerate(zip(pairs, requests, strict=True)):
        for j, example in enumerate(pair.update + pair.retain):
            role: Role = "update" if j < len(pair.update) else "retain"
            after, before = edited[i * width + j].tolist(), raw[i * width + j].tolist()
            judged = hit(after, request.labels if role == "update" else before)
            outcomes.append(Outcome(pair.edit.id, pair.edit.language, role, example.language, judged))
    return outcomes
