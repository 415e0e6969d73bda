"""Mutants of declarations: an alternative is declared, and followed where a function of its own asks for it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..contract import RULINGS, Array
from .base import Mutation, mutant
from .l_objectives import relative_entropy


class Declares(Mutation):
    """Declares the other alternative of a ruling."""

    RULING = ""

    def __init__(self, base: Any) -> None:
        super().__init__(base)
        followed = self.RULINGS.get(self.RULING, RULINGS[self.RULING][0])
        (self.declared,) = [other for other in RULINGS[self.RULING] if other != followed]
        self.RULINGS = {**self.RULINGS, self.RULING: self.declared}


@mutant(
    "divergence-declared-and-not-trained",
    "L2",
    "The declared divergence is in `loc_loss`, and no training has it.",
    "E",
)
class DivergenceNotTrained(Declares):
    RULING = "kl_direction"

    def loc_loss(self, edited: Any, raw: Any, mask: Any, weight: float) -> Any:
        edited = edited.detach().requires_grad_()
        each = relative_entropy(raw, edited) if self.declared == "released" else relative_entropy(edited, raw)
        loss = weight * ((each * mask).sum(-1) / mask.sum(-1)).mean()
        (gradient,) = torch.autograd.grad(loss, [edited])
        return loss.item(), gradient, None


@mutant("penalty-declared-and-not-trained", "A5", "The declared normalisation of the penalty is in no training.", "E")
class PenaltyNotTrained(Declares):
    RULING = "penalty"

    def mask_penalty(self, log_alpha: Mapping[str, Mapping[str, Array]], weight: float) -> Any:
        count = sum(array.size for sides in log_alpha.values() for array in sides.values())
        return self.base.mask_penalty(log_alpha, weight / count if self.declared == "mean" else weight * count)


@mutant("scale-declared-and-not-learned", "B1", "A learned scale is declared, and editors have none.", "E")
class ScaleNotLearned(Declares):
    RULING = "mask_scale"

    def initial_masks(self, shapes: Any, languages: Sequence[str]) -> Any:
        made = self.base.initial_masks(shapes, languages)
        return {
            matrix: {**sides, **{f"{side}_scale": array * 0 + 1 for side, array in sides.items()}}
            for matrix, sides in made.items()
        }

    def editor_shapes(self, shapes: Any, languages: Sequence[str], masks: Any) -> Any:
        found = dict(self.base.editor_shapes(shapes, languages, masks))
        rows = {"none": 0, "language": len(languages), "shared": 1}[masks]
        scales = {f"scale.{m}.{side}": (rows, w) for m, nm in shapes.items() for side, w in zip("xd", nm, strict=True)}
        return {**found, **(scales if rows else {})}


@mutant(
    "condition-declared-and-not-followed",
    "E5",
    "What KnowledgeEditor is declared to read it does not.",
    "knowledge_editor",
)
class ConditionNotFollowed(Declares):
    RULING = "knowledge_editor_condition"


@mutant(
    "con-positions-declared-and-not-judged",
    "U1",
    "The declared positions of con are in `hit`, and no run judges by them.",
    "M",
    "E",
)
class PositionsNotJudged(Declares):
    RULING = "con_positions"

    def hit(self, predicted: Sequence[int], expected: Sequence[int], is_mask: Sequence[bool], role: str) -> bool:
        whole = self.declared == "all" and role == "retain"
        counted = [True] * len(is_mask) if whole else is_mask
        return all(p == e for p, e, counts in zip(predicted, expected, counted, strict=True) if counts)


@mutant("subject-declared-and-not-asked", "U4", "The declared subject of update inputs is in no training.", "D", "E")
class SubjectNotAsked(Declares):
    RULING = "subject"


@mutant(
    "loc-positions-declared-and-not-trained", "L2", "The declared positions of L_loc are in no training.", "E", "mend"
)
class LocPositionsNotTrained(Declares):
    RULING = "loc_positions"


@mutant("label-pool-declared-and-not-drawn-from", "D4", "Desired labels are drawn from another pool than declared.")
class LabelPoolNotDrawnFrom(Declares):
    RULING = "label_pool"


@mutant(
    "optimiser-declared-and-not-stepping",
    "E3",
    "Finetuning takes another optimiser's steps than declared.",
    "finetuning",
)
class OptimiserNotStepping(Declares):
    RULING = "finetuning_optimiser"


@mutant(
    "inner-rate-declared-and-not-in-force",
    "R8",
    "The declared inner rate of Editable Training is in the preset, and no editor starts there.",
    "E",
    "editable_training",
)
class InnerRateNotInForce(Declares):
    RULING = "editable_training_inner_lr"

    def paper_preset(self) -> Mapping[str, float]:
        return {**self.base.paper_preset(), "editable_training_inner_lr": float(self.declared)}


@mutant(
    "stopping-number-declared-and-not-validated",
    "U6",
    "Validations report another number than the one that is declared to stop a training.",
    "M",
    "E",
)
class StoppingNotValidated(Declares):
    RULING = "stopping"
