"""SLAG (Hase et al. 2021): KnowledgeEditor, applied repeatedly until the model gives the desired answer.

Each of at most K steps computes the gradient after the previous steps. All steps but an edit's last are detached, so
the loss trains the last step. It is trained on series: each of r edits starts from those before it.

It is trained across languages as the others: x_u replaces its paper's paraphrases. Masks act on x and δ at each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..names import Condition
from ..updates import Update, plus
from . import knowledge_editor

if TYPE_CHECKING:
    from . import Edits

NAME = "slag"
TITLE = "SLAG"
TRAINED = True


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyper-parameters: KnowledgeEditor's, and its authors' K and r."""

    lr: float = 5e-5
    lstm: int = 512
    hidden: int = 128
    max_scale: float = 1.0
    condition: Condition = field(default="input+label", metadata={"ruling": "knowledge_editor_condition"})
    steps: int = 5  # K, at most; one at least is taken
    series: int = 10  # r, in training


init, learning_rates = knowledge_editor.init, knowledge_editor.learning_rates


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """The sum of each edit's steps: at most K·(T + 1) rows; 0 for steps that it did not take."""
    states, taken = knowledge_editor.read(parameters, *edits.condition(settings.condition == "input+label")), Update()
    for step in range(settings.steps):
        gradient = edits.gradient(Update({n: (u.detach(), v.detach()) for n, (u, v) in taken.factors.items()}))
        going = (~gradient.correct() | (step == 0))[:, None, None]
        if not going.any():
            break
        new = knowledge_editor.gated(parameters, settings, states, gradient.factors)
        before = {n: [torch.where(going, p.detach(), p) for p in pair] for n, pair in taken.factors.items()}
        taken = plus(
            Update({n: (u, v) for n, (u, v) in before.items()}),
            Update({n: (u, v * going) for n, (u, v) in new.items()}),
        )
    return taken
