"""Wrappers around editors that the mutants of several chapters share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..contract import Editors, Input, Request, Triple
from ..tiny import logits_of, with_update
from .base import Mutation, named

Update = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Made:
    """What an editor was made from. It keeps the editor, so that its identity stays its own."""

    editor: Any
    name: str
    model: torch.nn.Module
    edited: tuple[str, ...]
    languages: tuple[str, ...]
    masks: str
    lr: float | None


class EditorMutation(Mutation):
    """Remembers what every editor was made from."""

    NEEDS = frozenset({"E"})

    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.made: dict[int, Made] = {}

    def make_editor(self, *args: Any, **kwargs: Any) -> Any:
        call = named(Editors.make_editor, args, kwargs)
        editor = self.base.make_editor(**self.wrong_options(dict(call)))
        made = {key: tuple(call[key]) for key in ("edited", "languages")}
        made |= {key: call[key] for key in ("name", "model", "masks", "lr")}
        self.made[id(editor)] = Made(editor, **made)
        return editor

    def wrong_options(self, call: dict[str, Any]) -> dict[str, Any]:
        return call


class NotedEdits(EditorMutation):
    """`edit` returns (edits, note), and what `dense` makes of the note the logits and factors do not have."""

    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        return self.base.edited_logits(editor, edits[0], index, inputs)

    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.factors(editor, edits[0], index)


class DenseMutation(EditorMutation):
    """Edits of the base with another ΔW, in `dense` and in the logits alike."""

    #: The editor that is spoilt; without a name all are.
    OF: str | None = None

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        update = self.base.dense(editor, edits, index)
        if self.OF not in (None, self.made[id(editor)].name):
            return update
        return self.wrong(editor, edits, index, {matrix: delta.detach() for matrix, delta in update.items()})

    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        if self.OF not in (None, self.made[id(editor)].name):
            return self.base.edited_logits(editor, self.own(edits), index, inputs)
        model = with_update(self.made[id(editor)].model, self.dense(editor, edits, index))
        with torch.no_grad():
            return [logits_of(model, one) for one in inputs]

    def own(self, edits: Any) -> Any:
        """The base's edits, for a mutant that keeps something beside them."""
        return edits

    def wrong(self, editor: Any, edits: Any, index: int, update: Update) -> Update:
        """What goes wrong, where a subclass leaves `dense` as it is."""
        return update


class ScaledMutation(DenseMutation):
    """Edits by a factor that is fixed when they are made."""

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        return self.base.edit(editor, requests), self.factor(editor)

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        own, factor = edits
        return {matrix: factor * delta for matrix, delta in self.base.dense(editor, own, index).items()}

    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return {m: (u, edits[1] * v) for m, (u, v) in self.base.factors(editor, edits[0], index).items()}

    @abstractmethod
    def factor(self, editor: Any) -> Any:
        """What goes wrong."""


class OfEditableTraining(EditorMutation):
    """What goes wrong with the parameters that Editable Training trains."""

    def trained(self, editor: Any) -> dict[str, torch.Tensor]:
        """θ' of each edited matrix."""
        return {matrix: value.detach().clone() for matrix, (_, value) in self.base.trained_weights(editor).items()}

    def trained_model(self, editor: Any) -> torch.nn.Module:
        made = self.made[id(editor)]
        raw = dict(made.model.named_parameters())
        return with_update(made.model, {m: value - raw[m].detach() for m, value in self.trained(editor).items()})


class LossMutation(EditorMutation):
    """The base's objective, with values or gradients spoilt."""

    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        parts, gradient = self.base.losses(editor, triples, seed)
        return self.wrong(editor, dict(parts), dict(gradient))

    @abstractmethod
    def wrong(self, editor: Any, parts: dict[str, float], gradient: dict[str, Any]) -> Any:
        """What goes wrong."""

    def masks_by_name(self, editor: Any) -> dict[str, torch.Tensor]:
        """Mask parameters under their names in `parameters`."""
        owned = {value.data_ptr() for arrays in self.base.mask_parameters(editor).values() for value in arrays.values()}
        return {n: v for n, v in self.base.parameters(editor).items() if v.data_ptr() in owned}


def weighed(shares: Sequence[float], made: Sequence[tuple[Any, dict[str, Any]]]) -> tuple[Any, dict[str, Any]]:
    """What `losses` gave for parts of a batch as one: values and gradients, each by its share."""
    parts = {name: sum(share * one[name] for share, (one, _) in zip(shares, made, strict=True)) for name in made[0][0]}
    gradient: dict[str, Any] = dict.fromkeys(made[0][1])
    for name in gradient:
        some = [share * one[name] for share, (_, one) in zip(shares, made, strict=True) if one[name] is not None]
        gradient[name] = torch.stack(some).sum(0) if some else None
    return parts, gradient


@dataclass(frozen=True)
class Asked:
    """Edits with the requests that they were made for."""

    edits: Any
    requests: Sequence[Request]


class AskedMutation(DenseMutation):
    """Knows the requests of the edits that it spoils."""

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        return Asked(self.base.edit(editor, requests), requests)

    def own(self, edits: Any) -> Any:
        return edits.edits

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        update = {m: delta.detach() for m, delta in self.base.dense(editor, edits.edits, index).items()}
        if self.made[id(editor)].name != self.OF:
            return update
        return self.wrong(editor, edits.requests, index, update)

    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.factors(editor, edits.edits, index)
