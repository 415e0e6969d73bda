"""Evaluation of an editor (§4.1): from edits with sampled inputs to outcomes, one per prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..backbone import Backbone, Sent, States, places_of, states_at
from ..errors import UserError
from ..hardware import ALONE, Processes, halving
from ..names import Positions, Role, Stopping
from ..records import EditRequest, Input, Outcome
from ..updates import Update
from .corpus import Example
from .editing import Editor, edit_from
from .metrics import Scores, count, hit, mean_of_edits, scores
from .sampling import Pair, derived_rng
from .task import Task, ready, with_parallels

BATCH = 32  # edits per batch


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch of edits, with everything of its evaluation that does not depend on the editor.

    edits     the trunk states of the edit inputs
    states    those of all judged inputs; edit e has the rows e·width … (e+1)·width - 1
    counts    the number of predicted positions in each of these rows
    asked     the rows whose raw predictions are needed; `raw` holds these predictions, row by row, on the device
    """

    pairs: tuple[Pair, ...]
    requests: tuple[EditRequest, ...]
    edits: States
    states: States
    width: int
    counts: tuple[int, ...]
    asked: tuple[int, ...]
    raw: Tensor


def judged(
    subject: Editor | Backbone,
    task: Task,
    pairs: Sequence[Pair],
    seed: int,
    batch: int = BATCH,
    con_positions: Positions = "mask",
    processes: Processes = ALONE,
) -> Iterator[list[Outcome]]:
    """The outcomes of this process's share of the pairs, batch by batch: one per edit and input.

    "all" compares a retained masked sentence at every position of its padded row (clause M7). The seed draws edit by
    edit: every editor gets the same requests. If `batch` edits do not fit in memory, fewer are computed at a time.
    """
    checks.refuse(UserError, checks.of_arguments(judged, locals()), checks.of_task(task))
    backbone = subject.backbone if isinstance(subject, Editor) else subject
    roles: tuple[Role, ...] = ("retain",) if isinstance(subject, Editor) else ("update", "retain")
    mine, size = processes.share(len(pairs)), batch
    parallels = isinstance(subject, Editor) and getattr(subject.settings, "parallels", False)
    for start in range(mine.start, mine.stop, batch):
        chosen = pairs[start : min(start + batch, mine.stop)]

        def attempt(at_a_time: int, chosen: Sequence[Pair] = chosen) -> list[Outcome]:
            prepared = batches(backbone, task, chosen, seed, at_a_time, con_positions, roles, parallels)
            return [outcome for one in prepared for outcome in judge(subject, one)]

        found, size = halving(attempt, size)
        yield found


def evaluate(
    subject: Editor | Backbone,
    task: Task,
    pairs: Sequence[Pair],
    seed: int,
    batch: int = BATCH,
    con_positions: Positions = "mask",
) -> list[Outcome]:
    """One outcome for each edit and each of its inputs. A backbone as `subject` is judged without edits."""
    return [outcome for found in judged(subject, task, pairs, seed, batch, con_positions) for outcome in found]


def validator(
    task: Task,
    pairs: Sequence[Pair],
    seed: int,
    processes: Processes = ALONE,
    con_positions: Positions = "mask",
    stopping: Stopping = "averages",
) -> Callable[[Editor], Scores]:
    """A function that scores an editor on these pairs. What does not depend on the editor is computed once.

    `stopping="edits"` replaces succ by the mean of the edits' own harmonic means (clause R5).
    """
    checks.refuse(UserError, checks.of_arguments(validator, locals()), checks.of_task(task))
    mine = processes.share(len(pairs))
    size, held = BATCH, list[Prepared]()

    def validate(editor: Editor) -> Scores:
        nonlocal size

        def attempt(at_a_time: int) -> list[Outcome]:
            if not held or at_a_time != size:
                own = pairs[mine.start : mine.stop]
                held[:] = batches(editor.backbone, task, own, seed, at_a_time, con_positions)
            return [outcome for prepared in held for outcome in judge(editor, prepared)]

        outcomes, size = halving(attempt, size)
        found = count(gathered(outcomes, pairs, processes, editor.backbone.like.device))
        plain = scores(found)
        return plain if stopping == "averages" else replace(plain, succ=mean_of_edits(found))

    return validate


def gathered(
    outcomes: Sequence[Outcome], pairs: Sequence[Pair], processes: Processes, device: torch.device
) -> list[Outcome]:
    """The outcomes of all processes, in the order of the pairs; `outcomes` are this process's."""
    if processes.count == 1:
        return list(outcomes)
    counts = [len(pair.update) + len(pair.retain) for pair in pairs]
    before = sum(counts[: processes.share(len(pairs)).start])
    # Each process knows all outcomes but their hits, so only the hits are sent.
    hits = torch.zeros(sum(counts), device=device)
    hits[before : before + len(outcomes)] = torch.tensor([float(o.hit) for o in outcomes], device=device)
    processes.add([hits])
    places = [place for pair in pairs for place in _places(pair)]
    return [replace(place, hit=bool(hit)) for place, hit in zip(places, hits.tolist(), strict=True)]


def _places(pair: Pair) -> list[Outcome]:
    """The outcomes of a pair, not yet judged."""
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
    parallels: bool = False,
) -> Iterator[Prepared]:
    """The batches of an evaluation, with the raw predictions of inputs in the roles `raw_of`.

    With `parallels` an editor sees more than clause T5 allows. Eight parameters: model, data, six independent choices.
    """
    for start in range(0, len(pairs), batch):
        with backbone.autocast():
            prepared = _prepared(backbone, task, pairs[start : start + batch], seed, con_positions, raw_of, parallels)
        yield prepared


def _prepared(
    backbone: Backbone,
    task: Task,
    pairs: Sequence[Pair],
    seed: int,
    con_positions: Positions,
    raw_of: Sequence[Role],
    parallels: bool,
) -> Prepared:
    if any(not pair.update and not pair.retain for pair in pairs):
        raise UserError("an edit of the evaluation has no inputs; give at least one update or retain input")
    requests, inputs = [], []
    ready(task, pairs)
    for pair in pairs:
        rng = derived_rng(seed, "inputs", pair.edit.id)
        request = task.request(pair.edit, rng)
        request = with_parallels(task, pair.edit, request) if parallels else request
        updates = [task.update_input(x, pair.edit, request) for x in pair.update]
        retains = [task.retain_input(x, rng) for x in pair.retain]
        requests.append(request)
        inputs.append(updates + retains)
    # All edits have the same number of rows: short ones repeat their last input, which is not judged again.
    width = max(map(len, inputs))
    if con_positions == "all" and not backbone.classifies:
        for pair, row in zip(pairs, inputs, strict=True):
            # As released, padded to the longest of the edit's retain inputs; other edits have no effect (clause E8).
            own = row[len(pair.update) :]
            padded = tuple(range(max((len(i.ids) for i in own), default=0)))
            row[len(pair.update) :] = [replace(i, positions=padded) for i in own]
    rows = [i for row in inputs for i in row + row[-1:] * (width - len(row))]
    wanted = [
        e * width + j
        for e, pair in enumerate(pairs)
        for j in range(len(pair.update) + len(pair.retain))
        if ("update" if j < len(pair.update) else "retain") in raw_of
    ]
    rows, like = backbone.predicted(rows), backbone.like
    edited = backbone.predicted([request.input for request in requests])
    laid, starts = backbone.rows(edited + rows)
    of_rows = starts[len(edited) :]
    of_wanted = places_of([rows[i] for i in wanted], of_rows[wanted]) if wanted else None
    record = (laid, places_of(edited, starts[: len(edited)]), places_of(rows, of_rows), of_wanted)
    laid, of_edits, of_all, of_wanted = Sent.of(record, like).on(like.device)
    output = backbone.read(laid)
    edits, states, raw = states_at(output, of_edits), states_at(output, of_all), like.new_empty(0, dtype=torch.long)
    if of_wanted is not None:
        raw = backbone.upper(states_at(output, of_wanted)).argmax(-1)
    counts = tuple(len(i.positions) for i in rows)
    return Prepared(tuple(pairs), tuple(requests), edits, states, width, counts, tuple(wanted), raw)


@torch.no_grad()
def judge(subject: Editor | Backbone, prepared: Prepared) -> list[Outcome]:
    """One outcome per edit and input of a prepared batch."""
    found, width = [prepared.raw], prepared.width
    if isinstance(subject, Editor):
        with subject.backbone.autocast():
            update = edit_from(subject, prepared.requests, prepared.edits)
            checks.refuse(UserError, checks.of_made(update, len(prepared.requests)), at=subject.method.NAME)
            found.append(subject.backbone.upper(prepared.states, update).argmax(-1))
    # One read per batch, because each read synchronises with the device.
    best = iter(torch.cat(found).tolist())
    raw = {i: tuple(islice(best, prepared.counts[i])) for i in prepared.asked}
    edited = {i: tuple(islice(best, count)) for i, count in enumerate(prepared.counts)} if len(found) > 1 else raw
    outcomes = []
    for e, (pair, request) in enumerate(zip(prepared.pairs, prepared.requests, strict=True)):
        for row, place in enumerate(_places(pair), e * width):
            expected = request.labels if place.role == "update" else raw[row]
            outcomes.append(replace(place, hit=hit(edited[row], expected)))
    return outcomes


@torch.no_grad()
def predict(
    backbone: Backbone, inputs: Sequence[Input], update: Update | None = None, batch: int = 128
) -> list[tuple[int, ...]]:
    """For each input the most likely token at each predicted position, or the class.

    `batch` inputs are computed at a time; inputs of similar length share a batch.
    """
    checks.refuse(UserError, checks.of_arguments(predict, locals()))
    checks.refuse(UserError, bool(inputs) and checks.of_inputs(inputs), update is not None and checks.of_edits(update))
    if update is not None and update.edits > 1:
        raise UserError(f"the update has {update.edits} edits; give one: update[i], or compose([update]) for their sum")
    order = sorted(range(len(inputs)), key=lambda i: len(inputs[i].ids))
    found: list[tuple[int, ...]] = [()] * len(inputs)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        with backbone.autocast():
            best = iter(backbone.upper(backbone.trunk([inputs[i] for i in chosen]), update).argmax(-1).tolist())
        for i in chosen:
            found[i] = tuple(islice(best, len(inputs[i].positions)))
    return found


def answers(backbone: Backbone, tokenizer: Any, inputs: Sequence[Input], update: Update | None = None) -> list[str]:
    """`predict` as text, or as class names. `update` has one edit."""
    checks.refuse(UserError, checks.of_tokenizer(tokenizer, "decode"))
    return [spell(backbone, tokenizer, labels) for labels in predict(backbone, inputs, update)]


def spell(backbone: Backbone, tokenizer: Any, labels: Sequence[int]) -> str:
    """Tokens as text, or a class by its name."""
    if backbone.classifies:
        return str(backbone.model.config.id2label[labels[0]])
    return str(tokenizer.decode(list(labels)))
