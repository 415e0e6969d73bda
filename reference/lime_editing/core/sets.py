"""Many edits as one update or in series, and fitting an editor before it edits (chapter C)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from .. import checks
from ..editors import Measuring, Merging
from ..errors import UserError
from ..records import EditRequest
from ..updates import Update, compose, plus
from .editing import EditBatch, Editor, edit_batch

CHUNK = 32  # edits per chunk


def chunks_of(
    editor: Editor,
    requests: Sequence[EditRequest],
    size: int = CHUNK,
    uniforms: Tensor | None = None,
    at: Update | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> list[Callable[[], EditBatch]]:
    """Requests in chunks. Calling a chunk runs the trunk on its inputs."""

    def read(start: int) -> EditBatch:
        part = slice(start, start + size)
        progress(min(part.stop, len(requests)))
        return edit_batch(editor, requests[part], None, None if uniforms is None else uniforms[part], at)

    return [partial(read, start) for start in range(0, len(requests), size)]


@torch.no_grad()
def edit_all(
    editor: Editor,
    requests: Sequence[EditRequest],
    chunk: int = CHUNK,
    at: Update | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> Update:
    """Many edits as one: the editor's merge, or their sum. Memory grows with `chunk`, not with the number of edits.

    `at` is as in `edit`. `progress` gets the number of edits read; it starts again in each pass over them. UserError:
    no requests, or as of `edit`.
    """
    checks.refuse(UserError, checks.of_arguments(edit_all, locals(), "requests"))
    chunks = chunks_of(editor, requests, chunk, None, at and compose([at], dense=True), progress)
    if isinstance(editor.method, Merging):
        return editor.method.merge(editor.parameters, editor.settings, chunks)
    return compose(editor.method.update(editor.parameters, editor.settings, take()) for take in chunks)


@torch.no_grad()
def fit(editor: Editor, requests: Sequence[EditRequest], chunk: int = CHUNK) -> Editor:
    """The editor, fitted to edits of a training split. UserError: an editor without `fit`."""
    checks.refuse(UserError, checks.of_arguments(fit, locals(), "requests"))
    if not isinstance(editor.method, Measuring):
        raise UserError(f"{editor.method.NAME} measures nothing before it edits; use it without fit")
    chunks = chunks_of(editor, requests, chunk)
    return replace(editor, parameters=editor.method.fit(editor.settings, len(editor.languages), chunks))


def trained_on_sets(editor: Editor) -> bool:
    """Whether a training batch is a set, whose edits become one update, or consists of series."""
    return isinstance(editor.method, Merging) or getattr(editor.settings, "series", 1) > 1


class Given:
    """The set or series of a training batch; empty for an editor that is trained on single edits.

    `leaves` are the tensors of a set's update; `pulled` propagates their summed gradients to the parameters.
    """

    def __init__(
        self, editor: Editor, requests: Sequence[EditRequest], uniforms: Tensor | None, size: int, first: int = 0
    ) -> None:
        self.editor, self.requests, self.uniforms, self.size = editor, requests, uniforms, size
        self.first, self.update = first, None
        self.made, self.leaves = list[Tensor](), list[Tensor]()

    update: Update | None

    def compute(self) -> None:
        method = self.editor.method
        if not trained_on_sets(self.editor):
            return
        if not isinstance(method, Merging):
            self.update = before_in_series(self.editor, self.requests, self.uniforms)
            return
        chunks = chunks_of(self.editor, self.requests, self.size, self.uniforms)
        made = method.merge(self.editor.parameters, self.editor.settings, chunks)
        self.made = [*(part for pair in made.factors.values() for part in pair), *made.deltas.values()]
        self.leaves = [tensor.detach().requires_grad_() for tensor in self.made]
        parts = iter(self.leaves)
        factors = {name: (next(parts), next(parts)) for name in made.factors}
        self.update = Update(factors, {name: next(parts) for name in made.deltas})

    def next(self, edits: int) -> Update | None:
        self.first += edits
        if self.update is None or self.leaves:
            return self.update
        return self.update.take(slice(self.first - edits, self.first))

    def pulled(self, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor | None]:
        own, slopes = list(gradients[: len(parameters)]), gradients[len(parameters) :]
        live = [(t, g) for t, g in zip(self.made, slopes, strict=bool(slopes)) if t.requires_grad and g is not None]
        if not live:
            return own
        more = torch.autograd.grad([t for t, _ in live], parameters, [g for _, g in live], allow_unused=True)
        return [g if m is None else m if g is None else g + m for g, m in zip(own, more, strict=True)]


@torch.no_grad()
def before_in_series(editor: Editor, requests: Sequence[EditRequest], uniforms: Tensor | None) -> Update:
    """For each edit the sum of those before it; every `settings.series` consecutive requests are a series."""
    length, total, befores = min(editor.settings.series, len(requests)), Update(), list[Update]()
    for place in range(length):
        there = slice(place, None, length)
        befores.append(total.take(slice(len(requests[there]))))
        own = None if uniforms is None else uniforms[there]
        edits = edit_batch(editor, requests[there], None, own, befores[-1])
        total = plus(befores[-1], editor.method.update(editor.parameters, editor.settings, edits))

    def rows(name: str, side: int) -> Tensor:
        widest = befores[-1].factors[name][side]
        result = widest.new_zeros(len(requests), *widest.shape[1:])
        for place, before in enumerate(befores[1:], 1):
            part = before.factors[name][side]
            result[place::length, : part.shape[1]] = part
        return result

    return Update({name: (rows(name, 0), rows(name, 1)) for name in befores[-1].factors})
