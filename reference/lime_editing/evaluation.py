"""Judging an editor (§4.1): pairs of an edit and its sampled inputs → outcomes, one per edited prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import torch

from .backbone import Backbone, States
from .corpus import Example
from .data import Task
from .devices import ALONE, Processes, halving
from .editing import Editor, edit_from
from .metrics import Scores, hit, scores
from .sampling import Pair, derived_rng
from .types import EditRequest, Outcome, Role, Update

Positions = Literal["mask", "all"]
BATCH = 32  # edits that are judged at a time


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
    batch: int = BATCH,
    con_positions: Positions = "mask",
    progress: Callable[[int], None] = lambda done: None,
    processes: Processes = ALONE,
) -> list[Outcome]:
    """One outcome per edit and input, for an editor, or for the raw model without any edit.

    "all" asks a retained masked sentence for the raw prediction at every position of its padded row (clause M7).

    The seed draws desired predictions and retain lengths, edit by edit, so that every editor is asked the same.
    Several processes share the batches; `progress` hears the number of edits done after each. Where the memory does
    not hold `batch` edits at a time they are fewer.
    """
    backbone = subject.backbone if isinstance(subject, Editor) else subject
    roles: tuple[Role, ...] = ("retain",) if isinstance(subject, Editor) else ("update", "retain")
    outcomes: list[Outcome] = []
    mine, size = processes.share(len(pairs)), batch
    for start in range(mine.start, mine.stop, batch):
        chosen = pairs[start : min(start + batch, mine.stop)]

        def attempt(at_a_time: int, chosen: Sequence[Pair] = chosen) -> list[Outcome]:
            prepared = batches(backbone, task, chosen, seed, at_a_time, con_positions, roles)
            return [outcome for one in prepared for outcome in judge(subject, one)]

        found, size = halving(attempt, size)
        outcomes += found
        progress(min((start - mine.start + len(chosen)) * processes.count, len(pairs)))
    return _all(outcomes, pairs, processes, backbone.like.device)


def validator(task: Task, pairs: Sequence[Pair], seed: int, processes: Processes = ALONE) -> Callable[[Editor], Scores]:
    """The scores of an editor on these pairs, again and again: what no editor has a part in is computed once."""
    mine = processes.share(len(pairs))
    size, held = BATCH, list[Prepared]()

    def validate(editor: Editor) -> Scores:
        nonlocal size

        def attempt(at_a_time: int) -> list[Outcome]:
            if not held or at_a_time != size:
                held[:] = batches(editor.backbone, task, pairs[mine.start : mine.stop], seed, at_a_time)
            return [outcome for prepared in held for outcome in judge(editor, prepared)]

        outcomes, size = halving(attempt, size)
        return scores(_all(outcomes, pairs, processes, editor.backbone.like.device))

    return validate


def _all(
    outcomes: Sequence[Outcome], pairs: Sequence[Pair], processes: Processes, device: torch.device
) -> list[Outcome]:
    """The outcomes of all processes, in the order of the pairs, from those of this one's share."""
    if processes.count == 1:
        return list(outcomes)
    counts = [len(pair.update) + len(pair.retain) for pair in pairs]
    before = sum(counts[: processes.share(len(pairs)).start])
    # An outcome is known by its place, so that its hit is all that has to travel.
    hits = torch.zeros(sum(counts), device=device)
    hits[before : before + len(outcomes)] = torch.tensor([float(o.hit) for o in outcomes], device=device)
    processes.add([hits])
    places = [place for pair in pairs for place in _places(pair)]
    return [replace(place, hit=bool(hit)) for place, hit in zip(places, hits.tolist(), strict=True)]


def _places(pair: Pair) -> list[Outcome]:
    """The outcomes of a pair before anything is judged."""
    asked: list[tuple[Role, Example]] = [("update", x) for x in pair.update]
    asked += [("retain", x) for x in pair.retain]
    return [Outcome(pair.edit.id, pair.edit.language, role, x.language, False) for role, x in asked]


@torch.no_grad()
def batches(
    backbone: Backbone,
    task: Task,
    pairs: Sequence[Pair],
    seed: int,
    batch: int = BATCH,
    con_positions: Positions = "mask",
    raw_of: Sequence[Role] = ("retain",),
) -> Iterator[Prepared]:
    """The batches of an evaluation, one by one, with the raw predictions of inputs in these roles."""
    for start in range(0, len(pairs), batch):
        with backbone.autocast():
            prepared = _prepared(backbone, task, pairs[start : start + batch], seed, con_positions, raw_of)
        yield prepared


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
        for pair, row in zip(pairs, inputs, strict=True):
            # Padded as if the edit were alone, so that no other edit has a part in its outcomes (clause E8).
            padded = tuple(range(max(len(i.ids) for i in row)))
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
        chosen = states.take(wanted)
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
        counts = torch.bincount(prepared.states.example, minlength=len(prepared.raw)).tolist()
        with subject.backbone.autocast():
            update = edit_from(subject, prepared.requests, prepared.edits)
            edited = _predictions(subject.backbone, prepared.states, counts, update)
    outcomes = []
    for e, (pair, request) in enumerate(zip(prepared.pairs, prepared.requests, strict=True)):
        for j, place in enumerate(_places(pair), e * prepared.width):
            expected = request.labels if place.role == "update" else prepared.raw[j]
            outcomes.append(replace(place, hit=hit(edited[j], expected)))
    return outcomes


def _predictions(
    backbone: Backbone, states: States, counts: Sequence[int], update: Update | None = None
) -> list[list[int]]:
    """Per row of the states the prediction at its positions; a classifier has one."""
    best = backbone.upper(states, update).argmax(-1).tolist()
    ends = list(accumulate(counts))
    return [best[end - count : end] for count, end in zip(counts, ends, strict=True)]
