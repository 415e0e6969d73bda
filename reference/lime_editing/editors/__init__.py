"""The editors: one file for each, all of one shape (`Method`), in one registry.

A new editor is a module, or an object, with the members of `Method`. `register` makes it known under its NAME: to
`make_editor`, and to the command line (`--plugin`). Masks, losses and the training loop know no editor by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ..errors import UserError
from ..updates import Factors, Update
from . import editable_training, finetuning, knowledge_editor, malmen, memit, mend, rome, slag, ultraedit


@dataclass(frozen=True, slots=True)
class Gradient:
    """Per edited matrix the factors x (E, T, n) and δ (E, T, m) of ∇L.

    `correct()` says which x_e are predicted as desired (E,); it is computed where it is asked for. `keys` are x as the
    model has it, without masks; `logits` (N, V) are those at all predicted positions.
    """

    factors: Factors
    correct: Callable[[], Tensor]
    keys: Mapping[str, Tensor]
    logits: Tensor


class Edits(Protocol):
    """What an editor sees of E edits (clause T5)."""

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        """The edited matrices {name: (m, n)} as they are before the edit: the raw ones, or those of a series so far."""

    @property
    def languages(self) -> Tensor:
        """Of each edit (E,) the index of its language among the editor's; 0 where one mask serves all."""

    def gradient(
        self,
        at: Update | None = None,
        differentiable: bool = False,
        keep: tuple[float, Tensor] | None = None,
    ) -> Gradient:
        """∇ of the desired predictions' cross entropy at x_e, under an update or at the raw parameters.

        In a series both are those of the edits before. The masks of the editing languages are on the factors already
        (clause A7). `differentiable` keeps the graph. `keep` (weight, logits) adds so much of the KL divergence from
        these logits of an earlier gradient, over all answers but the desired one.
        """

    def answering(self, rows: Tensor) -> Tensor:
        """Of the rows (E, T, w) of a gradient those at the predicted positions (E, P, w); 0 where an edit has fewer."""

    def condition(self, labels: bool) -> tuple[Tensor, Tensor]:
        """Frozen embeddings (E, S, h) of x_e, followed by those of y_e with `labels`, and the lengths (E,).

        Both are on the model's device: reading a length there would wait for a GPU.
        """

    def take(self, chosen: Tensor) -> Edits:
        """The edits at these indices, ascending."""


class Method(Protocol):
    """An editor as a module. All functions are pure; parameters are a flat {name: tensor}.

    NAME      the approach in options, files and cells
    TITLE     the approach in tables and figures
    TRAINED   whether it is trained before it edits: then it exists in each of names.TRAININGS, masks included
    Settings  a frozen dataclass of hyper-parameters with defaults, which serve where a scale has none of its own.
              A field whose metadata has "ruling" takes the value of that ruling.
    """

    NAME: str
    TITLE: str
    TRAINED: bool

    @property
    def Settings(self) -> Callable[..., Any]: ...

    def init(self, raw: Mapping[str, Tensor], width: int, settings: Any, seed: int) -> dict[str, Tensor]:
        """Trainable parameters for the raw matrices {name: (m, n)}, of their dtype and device; {}: nothing is trained.

        `width` is that of the model's embeddings.
        """

    def learning_rates(self, parameters: Mapping[str, Tensor], settings: Any) -> dict[str, float]:
        """{parameter name: learning rate}, every parameter once (clause E9)."""

    def update(self, parameters: Mapping[str, Tensor], settings: Any, edits: Edits) -> Update:
        """One independent edit for each of `edits`, in one batch (clause E8)."""


#: Some edits, computed when it is called.
Chunk = Callable[[], Edits]


@runtime_checkable
class Merging(Protocol):
    """What a `Method` may have: its own way to make many edits one. The default is `updates.compose`.

    An editor that is trained and merges is trained on sets: all edits of a batch become one update, under which all
    update and retain inputs are asked. An editor whose settings have a `series` is trained on series of so many edits.
    """

    def merge(self, parameters: Mapping[str, Tensor], settings: Any, chunks: Sequence[Chunk]) -> Update:
        """One edit of all edits: take chunk by chunk, and keep none."""


@runtime_checkable
class Measuring(Protocol):
    """What a `Method` that is not trained may have: something that it measures before it edits."""

    def fit(self, settings: Any, languages: int, chunks: Sequence[Chunk]) -> dict[str, Tensor]:
        """Its parameters, from edits of a training split in so many languages."""


_BUILT_IN: tuple[Method, ...] = (
    *(finetuning, editable_training, knowledge_editor, mend),
    *(malmen, ultraedit, slag, rome, memit),
)
_METHODS = {method.NAME: method for method in _BUILT_IN}


#: What `register` asks for, and of functions the number of their arguments.
_MEMBERS = {"NAME": None, "TITLE": None, "TRAINED": None, "Settings": 0, "init": 4, "learning_rates": 2, "update": 3}


def register(method: Method) -> None:
    """Make an editor known by its NAME.

    UserError: a member is missing or does not take the arguments of Method's, a NAME that cannot be part of a file's
    name, or that another editor has.
    """
    lacks = [name for name in _MEMBERS if not hasattr(method, name)]
    if lacks:
        raise UserError(f"{method!r} is no editor: it lacks {', '.join(lacks)}; see lime_editing.Method")
    if not is_dataclass(method.Settings):
        raise UserError(f"{method.NAME}.Settings is no dataclass; see lime_editing.Method")
    for name, count in _MEMBERS.items():
        if count is not None:
            _check_arguments(f"{method.NAME}.{name}", getattr(method, name), count)
    if not method.NAME.isidentifier() or method.NAME == "unedited":
        raise UserError(f"an editor cannot have the NAME {method.NAME!r}; use letters, digits and _")
    if _METHODS.get(method.NAME, method) is not method:
        raise UserError(f"there is another editor named {method.NAME!r} already; give yours another NAME")
    _METHODS[method.NAME] = method


def _check_arguments(name: str, function: Callable[..., Any], count: int) -> None:
    try:
        inspect.signature(function).bind(*[None] * count)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} does not take {count} arguments ({error}); see lime_editing.Method") from error


def methods() -> Mapping[str, Method]:
    """All known editors by name."""
    return dict(_METHODS)


def find(name: str) -> Method:
    """The editor of this name. UserError: an unknown one, with the known ones."""
    if name not in _METHODS:
        raise UserError(f"unknown editor {name!r}; known: {', '.join(_METHODS)}; register your own first (--plugin)")
    return _METHODS[name]
