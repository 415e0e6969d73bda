"""The editors: one file for each, all of one shape (`Method`), in one registry.

A new editor is a module, or an object, with the members of `Method`. `register` makes it known under its NAME: to
`make_editor`, and to the command line (`--plugin`). Masks, losses and the training loop know no editor by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Protocol

from torch import Tensor

from ...errors import UserError
from ..updates import Factors, Update
from . import editable_training, finetuning, knowledge_editor, mend


@dataclass(frozen=True, slots=True)
class Gradient:
    """Per edited matrix the factors x (E, T, n) and δ (E, T, m) of ∇L.

    `correct()` says which x_e are predicted as desired (E,); it is computed where it is asked for.
    """

    factors: Factors
    correct: Callable[[], Tensor]


class Edits(Protocol):
    """What an editor sees of E edits (clause T5)."""

    def gradient(self, at: Update | None = None, differentiable: bool = False) -> Gradient:
        """∇ of the desired predictions' cross entropy at x_e, under an update or at the raw parameters.

        The masks of the editing languages are on the factors already (clause A7). `differentiable` keeps the graph.
        """

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


_BUILT_IN: tuple[Method, ...] = (finetuning, editable_training, knowledge_editor, mend)
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
