"""Many edits: as one update, in series, and what an editor is fitted to before it edits (chapter C)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..errors import UserError
from .editing import EditBatch, Editor, batch_of
from .editors import Measuring, Merging
from .masks import draw_uniforms
from .records import EditRequest
from .updates import Update, compose, plus

CHUNK = 32  # edits that are computed at a time


def chunks_of(
    editor: Editor,
    requests: Sequence[EditRequest],
    size: int = CHUNK,
    draws: Mapping[str, Tensor] | None = None,
    at: Update | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> list[Callable[[], EditBatch]]:
    """Requests in chunks; each is read by the trunk when it is called."""

    def read(start: int) -> EditBatch:
        part = slice(start, start + size)
        progress(min(part.stop, len(requests)))
        own = None if draws is None else {name: u[part] for name, u in draws.items()}
        return batch_of(editor, requests[part], None, own, at)

    return [partial(read, start) for start in range(0, len(requests), size)]


@torch.no_grad()
def edit_all(
    editor: Editor,
    requests: Sequence[EditRequest],
    chunk: int = CHUNK,
    at: Update | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Update:
    """Many edits as one: the editor's own merge of them, or their sum. Memory grows with `chunk`, not with the edits.

    `at` is as in `edit`; `progress` is told how many edits were read, anew each time that they are read.
    UserError: no requests; as of `edit`.
    """
    if not requests:
        raise UserError("there is nothing to edit: give one request at least")
    chunks = chunks_of(editor, requests, chunk, None, at and compose([at], dense=True), progress)
    if isinstance(editor.method, Merging):
        return editor.method.merge(editor.parameters, editor.settings, chunks)
    return compose(editor.method.update(editor.parameters, editor.settings, take()) for take in chunks)


@torch.no_grad()
def fit(editor: Editor, requests: Sequence[EditRequest], chunk: int = CHUNK) -> Editor:
    """The editor with what it measures on edits of a training split. UserError: an editor that measures nothing."""
    if not isinstance(editor.method, Measuring):
        raise UserError(f"{editor.method.NAME} measures nothing before it edits: use it as it is")
    chunks = chunks_of(editor, requests, chunk)
    return replace(editor, parameters=editor.method.fit(editor.settings, len(editor.languages), chunks))


class Given:
    """What a training batch is as a whole, for an editor that is trained on sets or series; else nothing.

    `update` is what `training_losses` is given; in `leaves`, the tensors of a set's update, gradients of parts add up.
    """

    def __init__(self, editor: Editor, requests: Sequence[EditRequest], seed: int, size: int) -> None:
        self.update: Update | None = None
        self.made, self.leaves = list[Tensor](), list[Tensor]()
        draws = draw_uniforms(editor.parameters, len(requests), seed)
        if isinstance(editor.method, Merging):
            made = editor.method.merge(editor.parameters, editor.settings, chunks_of(editor, requests, size, draws))
            self.made = [*(part for pair in made.factors.values() for part in pair), *made.deltas.values()]
            self.leaves = [tensor.detach().requires_grad_() for tensor in self.made]
            parts = iter(self.leaves)
            factors = {name: (next(parts), next(parts)) for name in made.factors}
            self.update = Update(factors, {name: next(parts) for name in made.deltas})
        elif getattr(editor.settings, "series", 1) > 1:
            self.update = before_in_series(editor, requests, draws)

    def backward(self) -> None:
        """Pass what the leaves have gathered on to the editor's parameters, chunk by chunk."""
        pairs = [(t, leaf.grad) for t, leaf in zip(self.made, self.leaves, strict=True) if t.requires_grad]
        if pairs and pairs[0][1] is not None:  # this process may have had no part of the batch
            torch.autograd.backward([t for t, _ in pairs], [slope for _, slope in pairs])


@torch.no_grad()
def before_in_series(editor: Editor, requests: Sequence[EditRequest], draws: Mapping[str, Tensor]) -> Update:
    """Of each edit the sum of those before it, where each `settings.series` requests in a row are a series."""
    length, total, befores = min(editor.settings.series, len(requests)), Update(), list[Update]()
    for place in range(length):
        there = slice(place, None, length)
        befores.append(total.take(slice(len(requests[there]))))
        edits = batch_of(editor, requests[there], None, {n: u[there] for n, u in draws.items()}, befores[-1])
        total = plus(befores[-1], editor.method.update(editor.parameters, editor.settings, edits))

    def rows(name: str, side: int) -> Tensor:
        widest = befores[-1].factors[name][side]
        result = widest.new_zeros(len(requests), *widest.shape[1:])
        for place, before in enumerate(befores[1:], 1):
            part = before.factors[name][side]
            result[place::length, : part.shape[1]] = part
        return result

    return Update({name: (rows(name, 0), rows(name, 1)) for name in befores[-1].factors})
