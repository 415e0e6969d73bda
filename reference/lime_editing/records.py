"""The frozen records that all rooms use: a model input, an edit request, a training example, an outcome."""

from __future__ import annotations

from dataclasses import dataclass

from .names import Role


@dataclass(frozen=True, slots=True)
class Input:
    """One model input, unpadded: token ids with special tokens, and the predicted positions ([MASK], or [CLS]).

    `types` are the token types of a sentence pair, where the model has them; empty is all zero.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    types: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EditRequest:
    """All that an editor sees (clause T5): x_e, y_e as one token or class per position, and the editing language.

    `parallels` of x_e in other languages, with as many predicted positions, are there for an editor that asks for them
    by its setting of this name: it sees more than T5 allows, and tables say so.
    """

    input: Input
    labels: tuple[int, ...]
    language: str
    parallels: tuple[Input, ...] = ()


@dataclass(frozen=True, slots=True)
class Triple:
    """One training example (§3.2): the request (x_e, y_e), an update input x_u and a retain input x_r."""

    edit: EditRequest
    update: Input
    retain: Input


@dataclass(frozen=True, slots=True)
class Outcome:
    """One judged prediction of an edited model; `language` is that of the input, not of the edit."""

    edit: str
    edit_language: str
    role: Role
    language: str
    hit: bool
