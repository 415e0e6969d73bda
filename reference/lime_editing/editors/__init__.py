"""The editors: one file each, with one interface (`Method`), in one registry.

A new editor is a module or an object with the members of `Method`. `register` adds it under its NAME, for `make_editor`
and for the command line (`--plugin`). Masks, losses and the training loop do not depend on any editor.
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
    """For each edited matrix the factors x (E, T, n) and δ (E, T, m) of ∇L.

    `correct()` computes which x_e are predicted as desired (E,). `keys` are x without masks; `logits` (N, V) are those
    at all predicted positions.
    """

    factors: Factors
    correct: Callable[[], Tensor]
    keys: Mapping[str, Tensor]
    logits: Tensor


class Edits(Protocol):
    """E edits, as an editor sees them (clause T5)."""

    @property
    def matrices(self) -> Mapping[str, Tensor]:
        """The edited matrices {name: (m, n)} before the edit: raw, or after the earlier edits of a series."""

    @property
    def languages(self) -> Tensor:
        """The index of each edit's language among the editor's (E,); 0 if all languages share one mask."""

    def gradient(
        self,
        at: Update | None = None,
        differentiable: bool = False,
        keep: tuple[float, Tensor] | None = None,
    ) -> Gradient:
        """The gradient of the cross entropy of y_e at x_e, under an update or at the raw parameters.

        In a series, both include the earlier edits. The masks of the editing languages are already applied to the
        factors (clause A7). `differentiable` keeps the graph. `keep` (weight, logits) adds weight times the KL
        divergence from these logits of an earlier gradient, over all answers but the desired one.
        """

    def answering(self, rows: Tensor) -> Tensor:
        """The rows at predicted positions (E, P, w) of a gradient's rows (E, T, w); 0 if an edit has fewer than P."""

    def condition(self, labels: bool) -> tuple[Tensor, Tensor]:
        """Frozen embeddings (E, S, h) of x_e, with `labels` followed by those of y_e, and the lengths (E,).

        Both are on the model's device: reading a length there would synchronise with the GPU.
        """

    def take(self, chosen: Tensor) -> Edits:
        """The edits at these indices, ascending."""


class Method(Protocol):
    """The interface of an editor. All functions are pure: they change no tensor that they are given, the raw matrices
    included. Parameters are a flat {name: tensor}.

    NAME      the approach in options, files and cells
    TITLE     the approach in tables and figures
    TRAINED   whether it is trained before it edits; then it exists in each of names.TRAININGS, with and without masks
    Settings  a frozen dataclass of hyper-parameters; its defaults apply if a scale has no own values.
              A field whose metadata has "ruling" takes the value of that ruling.
    """

    NAME: str
    TITLE: str
    TRAINED: bool

    @property
    def Settings(self) -> Callable[..., Any]: ...

    def init(self, raw: Mapping[str, Tensor], width: int, settings: Any, seed: int) -> dict[str, Tensor]:
        """Trainable parameters for the raw matrices {name: (m, n)}, in their dtype and device; {} if there are none.

        `width` is the width of the model's embeddings. No name begins with "mask." or ends with "_scale".
        """

    def learning_rates(self, parameters: Mapping[str, Tensor], settings: Any) -> dict[str, float]:
        """{parameter name: learning rate}, every parameter once (clause E9)."""

    def update(self, parameters: Mapping[str, Tensor], settings: Any, edits: Edits) -> Update:
        """One independent edit for each of `edits`, in one batch (clause E8)."""


Chunk = Callable[[], Edits]  # calling it computes some edits


@runtime_checkable
class Merging(Protocol):
    """An optional member of a `Method`: how it makes one update of many edits. The default is `updates.compose`.

    A trained editor that merges is trained on sets: all edits of a batch become one update, which is used for all
    update and retain inputs. An editor whose settings have `series` is trained on series of that many edits.
    """

    def merge(self, parameters: Mapping[str, Tensor], settings: Any, chunks: Sequence[Chunk]) -> Update:
        """One update for all edits. Read chunk by chunk, and keep no chunk in memory."""


@runtime_checkable
class Measuring(Protocol):
    """An optional member of a `Method` that is not trained: it measures statistics before it edits."""

    def fit(self, settings: Any, languages: int, chunks: Sequence[Chunk]) -> dict[str, Tensor]:
        """The parameters, measured on edits of a training split in `languages` languages."""


_BUILT_IN: tuple[Method, ...] = (
    *(finetuning, editable_training, knowledge_editor, mend),
    *(malmen, ultraedit, slag, rome, memit),
)
_METHODS = {method.NAME: method for method in _BUILT_IN}


#: Required members for `register`, and the number of arguments of functions.
_MEMBERS = {"NAME": None, "TITLE": None, "TRAINED": None, "Settings": 0, "init": 4, "learning_rates": 2, "update": 3}


def register(method: Method) -> None:
    """Register an editor under its NAME.

    UserError: a member is missing or takes other arguments than Method's; NAME cannot be part of a file name, or is
    taken.
    """
    lacks = [name for name in _MEMBERS if not hasattr(method, name)]
    if lacks:
        raise UserError(f"this is no editor: it lacks {', '.join(lacks)}; see lime_editing.Method, or data.register")
    if not (isinstance(method.NAME, str) and isinstance(method.TITLE, str) and method.TRAINED in (True, False)):
        raise UserError(
            f"NAME and TITLE must be texts, TRAINED True or False; got {[method.NAME, method.TITLE, method.TRAINED]}"
        )
    if not is_dataclass(method.Settings):
        raise UserError(f"{method.NAME}.Settings is not a dataclass; see lime_editing.Method")
    for name, count in _MEMBERS.items():
        if count is not None:
            _check_arguments(f"{method.NAME}.{name}", getattr(method, name), count)
    if not method.NAME.isidentifier() or method.NAME == "unedited":
        raise UserError(f"an editor cannot have the NAME {method.NAME!r}; use letters, digits and _")
    if _METHODS.get(method.NAME, method) is not method:
        raise UserError(f"an editor named {method.NAME!r} exists already; give yours another NAME")
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
    """The editor with this name. UserError: an unknown one; the known ones are listed."""
    if name not in _METHODS:
        raise UserError(f"unknown editor {name!r}; known: {', '.join(_METHODS)}; register your own first (--plugin)")
    return _METHODS[name]
