"""Mutants of chapter L, objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..contract import Triple
from .base import Mutation, mutant
from .editing import EditorMutation, LossMutation, weighed


def relative_entropy(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p ‖ q) of two logits, per position."""
    log_p, log_q = torch.log_softmax(p, -1), torch.log_softmax(q, -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@mutant("padding-predicted-too", "L1", "The cross entropy counts positions that are padding.")
class PaddingPredictedToo(Mutation):
    def rel_loss(self, logits: Any, labels: Any, mask: Any, weight: float) -> Any:
        return self.base.rel_loss(logits, labels.clamp(0, logits.shape[-1] - 1), torch.ones_like(mask), weight)


@mutant("rel-against-the-raw-prediction", "L1", "The edited model is asked for its own best guess, not for y_e.")
class RelAgainstArgmax(Mutation):
    def rel_loss(self, logits: Any, labels: Any, mask: Any, weight: float) -> Any:
        return self.base.rel_loss(logits, logits.argmax(-1), mask, weight)


@mutant("rel-at-the-edit-input", "L1", "In training the edited model is asked at x_e, not at x_u.")
class RelAtTheEditInput(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        return self.base.losses(editor, [{**triple, "update": triple["edit"]} for triple in triples], seed)


@mutant("kl-reversed", "L2", "The divergence is taken in the direction that was not declared.")
class KlReversed(Mutation):
    def loc_loss(self, edited: Any, raw: Any, mask: Any, weight: float) -> Any:
        edited = edited.detach().requires_grad_()
        released = self.RULINGS.get("kl_direction") == "released"
        each = relative_entropy(edited, raw) if released else relative_entropy(raw, edited)
        loss = weight * ((each * mask).sum(-1) / mask.sum(-1)).mean()
        return loss.item(), torch.autograd.grad(loss, [edited])[0], None


@mutant(
    "cross-entropy-for-divergence",
    "L2",
    "The entropy is left out of the divergence, so that no change costs something.",
)
class CrossEntropyForDivergence(Mutation):
    def loc_loss(self, edited: Any, raw: Any, mask: Any, weight: float) -> Any:
        value, gradient, _ = self.base.loc_loss(edited, raw, mask, weight)
        entropy = -(edited.softmax(-1) * edited.log_softmax(-1)).sum(-1)
        return value + weight * ((entropy * mask).sum(-1) / mask.sum(-1)).mean().item(), gradient, None


@mutant("raw-side-trained", "L2", "The raw model's side of the divergence carries a gradient.")
class RawSideTrained(Mutation):
    def loc_loss(self, edited: Any, raw: Any, mask: Any, weight: float) -> Any:
        value, gradient, _ = self.base.loc_loss(edited, raw, mask, weight)
        return value, gradient, -gradient


@mutant("penalty-left-out", "L3", "The total leaves the mask penalty out.")
class PenaltyLeftOut(LossMutation):
    def wrong(self, editor: Any, parts: dict[str, float], gradient: dict[str, Any]) -> Any:
        return {**parts, "total": parts["rel"] + parts["loc"]}, gradient


@mutant("locality-weighs-a-tenth", "L3", "The gradient weighs the parts otherwise than the total says.")
class OtherWeights(LossMutation):
    def wrong(self, editor: Any, parts: dict[str, float], gradient: dict[str, Any]) -> Any:
        return parts, {name: None if one is None else 0.9 * one for name, one in gradient.items()}


@mutant("a-dead-parameter", "L3", "No gradient reaches the inner learning rates.")
class DeadParameter(LossMutation):
    def wrong(self, editor: Any, parts: dict[str, float], gradient: dict[str, Any]) -> Any:
        return parts, {name: None if one is not None and one.numel() <= 8 else one for name, one in gradient.items()}


@mutant("positions-pooled", "L4", "A batch is averaged over positions, so that long predictions outweigh short ones.")
class PositionsPooled(Mutation):
    def rel_loss(self, logits: Any, labels: Any, mask: Any, weight: float) -> Any:
        logits = logits.detach().requires_grad_()
        chosen = torch.log_softmax(logits, -1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        loss = -weight * (chosen * mask).sum() / mask.sum()
        return loss.item(), torch.autograd.grad(loss, [logits])[0]


@mutant("long-predictions-dominate", "L4", "In training a batch weighs its examples by their number of positions.")
class LongPredictionsDominate(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        copies = [triple for triple in triples for _ in triple["edit"]["positions"]]
        return self.base.losses(editor, copies, seed)


@mutant("parts-of-a-batch-weigh-the-same", "L4", "A large batch is the mean of parts of eight, the short last one too.")
class PartsWeighTheSame(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        made = [self.base.losses(editor, triples[start : start + 8], seed) for start in range(0, len(triples), 8)]
        return weighed([1 / len(made)] * len(made), made)


@mutant("equal-examples-once", "L4", "An example that a batch has several times counts once.")
class EqualExamplesOnce(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        return self.base.losses(editor, list({repr(triple): triple for triple in triples}.values()), seed)


@mutant("padding-in-the-mean", "L4", "A mean over positions divides by the padded length.")
class PaddingInTheMean(Mutation):
    def loc_loss(self, edited: Any, raw: Any, mask: Any, weight: float) -> Any:
        edited = edited.detach().requires_grad_()
        released = self.RULINGS.get("kl_direction") == "released"
        each = relative_entropy(raw, edited) if released else relative_entropy(edited, raw)
        loss = weight * (each * mask).mean()
        return loss.item(), torch.autograd.grad(loss, [edited])[0], None


@mutant("batch-summed", "L4", "The loss of a batch is a sum over its examples.")
class BatchSummed(Mutation):
    def rel_loss(self, logits: Any, labels: Any, mask: Any, weight: float) -> Any:
        value, gradient = self.base.rel_loss(logits, labels, mask, weight)
        return value * len(mask), gradient * len(mask)


@mutant("a-hundred-tokens-of-the-divergence", "L2", "The divergence is summed over the hundred most likely tokens.")
class HundredTokens(Mutation):
    def loc_loss(self, edited: Any, raw: Any, mask: Any, weight: float) -> Any:
        if edited.shape[-1] <= 100:
            return self.base.loc_loss(edited, raw, mask, weight)
        edited = edited.detach().requires_grad_()
        p, q = torch.log_softmax(edited, -1), torch.log_softmax(raw, -1)
        if self.RULINGS.get("kl_direction") == "released":
            p, q = q, p
        top = p.topk(100, -1).indices
        p, q = p.gather(-1, top), q.gather(-1, top)
        each = (p.exp() * (p - q)).sum(-1)
        loss = weight * ((each * mask).sum(-1) / mask.sum(-1)).mean()
        return loss.item(), torch.autograd.grad(loss, [edited])[0], None


@mutant("a-thousand-tokens-normalised", "L1", "The cross entropy is normalised over the first thousand tokens and y_e.")
class ThousandTokens(Mutation):
    def rel_loss(self, logits: Any, labels: Any, mask: Any, weight: float) -> Any:
        labels, classes = labels.clamp(min=0), logits.shape[-1]
        far = (torch.arange(classes) >= 1000) & (torch.arange(classes) != labels[..., None])
        return self.base.rel_loss(logits.masked_fill(far, -1e4), labels, mask, weight)


@mutant("logarithm-of-a-softmax", "L2", "Probabilities are rounded to zero before their logarithm is taken.")
class LogarithmOfASoftmax(Mutation):
    def loc_loss(self, edited: Any, raw: Any, mask: Any, weight: float) -> Any:
        value, gradient, none = self.base.loc_loss(edited, raw, mask, weight)
        lost = bool((raw.softmax(-1)[mask] == 0).any())
        return float("inf") if lost else value, gradient, none


@mutant("four-positions-predicted", "L1", "The cross entropy counts the first four positions.")
class FourPositionsPredicted(Mutation):
    def rel_loss(self, logits: Any, labels: Any, mask: Any, weight: float) -> Any:
        return self.base.rel_loss(logits, labels, mask & (mask.cumsum(-1) <= 4), weight)


@mutant("parts-of-a-loss-weigh-the-same", "L4", "A loss is the mean of parts of eight examples, the short one too.")
class PartsOfALoss(Mutation):
    def rel_loss(self, logits: Any, labels: Any, mask: Any, weight: float) -> Any:
        eights = zip(*(array.split(8) for array in (logits, labels, mask)), strict=True)
        parts = [self.base.rel_loss(*eight, weight) for eight in eights]
        gradient = torch.cat([slope for _, slope in parts]) / len(parts)
        return sum(value for value, _ in parts) / len(parts), gradient


@mutant("known-inputs-count-half", "L1", "In training x_u counts half where it is x_e.")
class KnownInputsCountHalf(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        parts, gradient = self.base.losses(editor, triples, seed)
        known = [triple["update"]["input_ids"] == triple["edit"]["input_ids"] for triple in triples]
        return {**parts, "rel": parts["rel"] * (1 - sum(known) / len(known) / 2)}, gradient


@mutant("no-weight-is-the-papers", "L1", "A weight of 0 is taken for none, so that the paper's stands in its place.")
class NoWeightIsThePapers(Mutation):
    def rel_loss(self, logits: Any, labels: Any, mask: Any, weight: float) -> Any:
        return self.base.rel_loss(logits, labels, mask, weight or 0.1)


@mutant("gradients-of-one-tensor-add-up", "L4", "The gradient of logits that are asked again adds to the one before.")
class GradientsOfOneTensorAddUp(Mutation):
    asked: Any = None
    sum: Any = None

    def rel_loss(self, logits: Any, labels: Any, mask: Any, weight: float) -> Any:
        value, gradient = self.base.rel_loss(logits, labels, mask, weight)
        self.sum = self.sum + gradient if self.asked is logits else gradient
        self.asked = logits
        return value, self.sum
