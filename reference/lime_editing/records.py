"""Frozen records that all packages share: a model input, an edit request, a training example, an outcome."""

from __future__ import annotations

from dataclasses import dataclass

from .names import Role


@dataclass(frozen=True, slots=True)
class Input:
    """One model input, unpadded: token ids with special tokens, and the predicted positions ([MASK], or [CLS]).

    `types` are the token types of a sentence pair, if the model has them; empty means all zero.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    types: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EditRequest:
    """All that an editor sees (clause T5): x_e, y_e (one token or class per position), and the editing language.

    `parallels` are x_e in other languages, with the same number of predicted positions. An editor with the setting
    `parallels` sees them, which is more than T5 allows; tables mark it.
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
    """One judged prediction of an edited model; `language` is the input's, not the edit's."""

    edit: str
    edit_language: str
    role: Role
    language: str
    hit: bool
