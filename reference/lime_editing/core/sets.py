"""Many edits: as one update, in series, and what an editor measures or is trained on before it edits (chapter C)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..errors import UserError
from . import masks as lime
from .editing import EditBatch, Editor
from .editors import Chunk, Measuring, Merging
from .records import EditRequest
from .updates import Update, compose, plus

CHUNK = 32  # edits that are computed at a time


def chunks_of(
    editor: Editor,
    requests: Sequence[EditRequest],
    size: int = CHUNK,
    draws: Mapping[str, Tensor] | None = None,
    at: Update | None = None,
) -> list[Chunk]:
    """Requests in chunks; each is read by the trunk when it is called. LanguageError: an unknown editing language."""
    lime.mask_rows([request.language for request in requests], editor.languages, editor.masks)

    def read(start: int) -> EditBatch:
        part = tuple(requests[start : start + size])
        own = None if draws is None else {name: u[start : start + size] for name, u in draws.items()}
        return EditBatch(editor, part, editor.backbone.trunk([request.input for request in part]), own, at)

    return [partial(read, start) for start in range(0, len(requests), size)]


@torch.no_grad()
def edit_all(
    editor: Editor,
    requests: Sequence[EditRequest],
    chunk: int = CHUNK,
    at: Update | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Update:
    """Many edits as one, computed `chunk` at a time: the editor's own merge of them, or their sum.

    Memory does not grow with the edits. `at` is as in `edit`; `progress` is told how many edits have been read, as
    often as an editor reads them. LanguageError: as of `edit`. UserError: no requests.
    """
    if not requests:
        raise UserError("there is nothing to edit: give one request at least")
    read = 0

    def counted(take: Chunk) -> Chunk:
        def take_and_tell() -> EditBatch:
            nonlocal read
            edits = take()
            read += len(edits.languages)
            progress(read)
            return edits  # type: ignore[return-value]  # of chunks_of

        return take_and_tell

    before = None if at is None else compose([at], dense=True)
    chunks = [counted(take) for take in chunks_of(editor, requests, chunk, None, before)]
    method = editor.method
    if isinstance(method, Merging):
        return method.merge(editor.parameters, editor.settings, chunks)
    return compose(method.update(editor.parameters, editor.settings, take()) for take in chunks)


@torch.no_grad()
def fit(editor: Editor, requests: Sequence[EditRequest], chunk: int = CHUNK) -> Editor:
    """The editor with what it measures before it edits, on edits of a training split.

    UserError: an editor that measures nothing.
    """
    if not isinstance(editor.method, Measuring):
        raise UserError(f"{editor.method.NAME} measures nothing before it edits: use it as it is")
    chunks = chunks_of(editor, requests, chunk)
    return replace(editor, parameters=editor.method.fit(editor.settings, editor.languages, chunks))


class Given:
    """What the batch of a training step holds as a whole, of an editor that is trained on sets or on series.

    update   what `training_losses` is given for each part of the batch; None where edits are independent
    leaves   the tensors of a set's update, whose gradients the parts add up
    """

    def __init__(self, editor: Editor, requests: Sequence[EditRequest], seed: int, size: int) -> None:
        self.update: Update | None = None
        self.leaves: list[Tensor] = []
        self._merged: list[Tensor] = []
        series = min(getattr(editor.settings, "series", 1), len(requests))
        if isinstance(editor.method, Merging):
            draws = lime.draw_uniforms(editor.parameters, len(requests), seed)
            made = editor.method.merge(editor.parameters, editor.settings, chunks_of(editor, requests, size, draws))
            self._merged = _tensors(made)
            self.leaves = [tensor.detach().requires_grad_() for tensor in self._merged]
            parts = iter(self.leaves)
            self.update = Update(
                {name: (next(parts), next(parts)) for name in made.factors}, {name: next(parts) for name in made.deltas}
            )
        elif series > 1:
            draws = lime.draw_uniforms(editor.parameters, len(requests), seed)
            self.update = before_in_series(editor, requests, series, draws)

    def backward(self) -> None:
        """Pass what the leaves have gathered on to the editor's parameters, chunk by chunk."""
        pairs = [(t, leaf.grad) for t, leaf in zip(self._merged, self.leaves, strict=True) if t.requires_grad]
        if pairs and pairs[0][1] is not None:
            torch.autograd.backward([t for t, _ in pairs], [slope for _, slope in pairs])


@torch.no_grad()
def before_in_series(
    editor: Editor, requests: Sequence[EditRequest], length: int, draws: Mapping[str, Tensor]
) -> Update:
    """Of each edit the sum of those before it, where each `length` requests in a row are a series; without gradient."""
    total, befores = Update(), list[Update]()
    for place in range(length):
        index = torch.arange(place, len(requests), length)
        total = total.take(slice(0, len(index)))
        befores.append(total)
        chosen = [requests[i] for i in index.tolist()]
        own = {name: u[index.to(u.device)] for name, u in draws.items()}
        edits = EditBatch(editor, tuple(chosen), editor.backbone.trunk([r.input for r in chosen]), own, total)
        total = plus(total, editor.method.update(editor.parameters, editor.settings, edits))
    result = {}
    for name, longest in befores[-1].factors.items():
        pair = []
        for side, widest in enumerate(longest):
            rows = widest.new_zeros(len(requests), *widest.shape[1:])
            for place, before in enumerate(befores[1:], 1):
                part = before.factors[name][side]
                rows[place::length, : part.shape[1]] = part
            pair.append(rows)
        result[name] = (pair[0], pair[1])
    return Update(result)


def _tensors(update: Update) -> list[Tensor]:
    return [*(part for pair in update.factors.values() for part in pair), *update.deltas.values()]
