"""Mutants of training: of the step that an editor takes, and of the editor that the step leaves behind."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..contract import Input, Losses, Request, Triple
from ..tiny import gradients, logits_of, rate, shifts, with_update
from .base import mutant
from .editing import AskedMutation, DenseMutation, EditorMutation, LossMutation, NotedEdits, OfEditableTraining, Update

Gradient = dict[str, torch.Tensor]
#: The paper's learning rates, and those of the inner learning rates (which are free) and of the masks.
LR = {"mend": 1e-6, "editable_training": 5e-5, "knowledge_editor": 5e-5}
INNER, MASKS = 1e-4, 1e-3


class OwnSteps(EditorMutation):
    """Takes Adam's steps itself, down the gradient that the base states."""

    def __init__(self, base: Any) -> None:
        super().__init__(base)
        #: Per editor the number of its steps and the two moments of each parameter.
        self.moments: dict[int, tuple[int, Gradient, Gradient]] = {}

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        parts, _ = self.base.losses(editor, triples, seed)
        self.descend(editor, self.gradient(editor, triples, seed))
        return parts

    def gradient(self, editor: Any, triples: Sequence[Triple], seed: int) -> Gradient:
        """What is descended."""
        _, found = self.base.losses(editor, triples, seed)
        live = self.base.parameters(editor)
        return {name: torch.zeros_like(live[name]) if one is None else one.detach() for name, one in found.items()}

    def descend(self, editor: Any, gradient: Gradient) -> None:
        live = self.base.parameters(editor)
        zeros = {name: torch.zeros_like(one) for name, one in live.items()}
        count, first, second = self.moments.get(id(editor), (0, zeros, dict(zeros)))
        first = {name: 0.9 * first[name] + 0.1 * one for name, one in gradient.items()}
        second = {name: 0.999 * second[name] + 0.001 * one.square() for name, one in gradient.items()}
        self.moments[id(editor)] = count + 1, first, second
        masks = self.mask_names(editor)
        with torch.no_grad():
            for name, value in live.items():
                lr = MASKS if name in masks else INNER if value.numel() <= 8 else self.of_network(editor)
                step = self.step(first[name], second[name], count + 1)
                value.sub_(self.rate(editor, name, name in masks, value, lr) * step)

    def of_network(self, editor: Any) -> float:
        made = self.made[id(editor)]
        return LR[made.name] if made.lr is None else made.lr

    def rate(self, editor: Any, name: str, is_mask: bool, value: torch.Tensor, lr: float) -> float:
        """The learning rate of a parameter."""
        return lr

    def step(self, first: torch.Tensor, second: torch.Tensor, count: int) -> torch.Tensor:
        """What a learning rate multiplies."""
        return first / (1 - 0.9**count) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)

    def mask_names(self, editor: Any) -> set[str]:
        owned = {value.data_ptr() for arrays in self.base.mask_parameters(editor).values() for value in arrays.values()}
        return {name for name, value in self.base.parameters(editor).items() if value.data_ptr() in owned}


# E15: the rule of a step


@mutant("gradients-never-cleared", "E15", "A step goes down the sum of the gradients of all steps so far.")
class NeverCleared(OwnSteps):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.left: dict[int, Gradient] = {}

    def gradient(self, editor: Any, triples: Sequence[Triple], seed: int) -> Gradient:
        found = super().gradient(editor, triples, seed)
        before = self.left.get(id(editor), {})
        self.left[id(editor)] = {name: one + before.get(name, 0) for name, one in found.items()}
        return self.left[id(editor)]


@mutant("losses-leave-gradients", "E15", "What `losses` computed is left behind and added to the next step.")
class LossesLeaveGradients(NeverCleared):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        parts, gradient = self.base.losses(editor, triples, seed)
        self.left[id(editor)] = {name: one for name, one in gradient.items() if one is not None}
        return parts, gradient

    def gradient(self, editor: Any, triples: Sequence[Triple], seed: int) -> Gradient:
        before = self.left.pop(id(editor), {})
        return {name: one + before.get(name, 0) for name, one in OwnSteps.gradient(self, editor, triples, seed).items()}


@mutant("optimiser-made-anew", "E15", "Every step makes its optimiser anew, so that there are no moments.")
class OptimiserMadeAnew(OwnSteps):
    def descend(self, editor: Any, gradient: Gradient) -> None:
        self.moments.pop(id(editor), None)
        super().descend(editor, gradient)


@mutant("moments-without-correction", "E15", "Adam's moments are used as they are, so that first steps are too long.")
class WithoutCorrection(OwnSteps):
    def step(self, first: torch.Tensor, second: torch.Tensor, count: int) -> torch.Tensor:
        return first / (second.sqrt() + 1e-8)


@mutant("one-second-moment-per-tensor", "E15", "All numbers of a tensor are divided by one second moment.")
class OneSecondMoment(OwnSteps):
    def step(self, first: torch.Tensor, second: torch.Tensor, count: int) -> torch.Tensor:
        return super().step(first, second.mean().expand_as(second), count)


@mutant("gradient-descent-for-adam", "E15", "Steps are those of plain gradient descent.")
class GradientDescent(OwnSteps):
    def step(self, first: torch.Tensor, second: torch.Tensor, count: int) -> torch.Tensor:
        return first / (1 - 0.9**count)


@mutant("signs-for-adam", "E15", "Every step is as long as the learning rate, against the sign of its gradient.")
class Signs(OptimiserMadeAnew):
    def step(self, first: torch.Tensor, second: torch.Tensor, count: int) -> torch.Tensor:
        return first.sign()


@mutant("rmsprop-for-adam", "E15", "The first moment is the gradient itself.")
class RmspropForAdam(OwnSteps):
    def descend(self, editor: Any, gradient: Gradient) -> None:
        if id(editor) in self.moments:
            count, _, second = self.moments[id(editor)]
            # What the next average makes of it is the gradient, bias correction included.
            factor = (1 - 0.9 ** (count + 1)) - 0.1
            self.moments[id(editor)] = count, {n: factor / 0.9 * one for n, one in gradient.items()}, second
        super().descend(editor, gradient)


@mutant("a-warm-up", "E15", "The first steps are shorter than the learning rate.")
class WarmUp(OwnSteps):
    def rate(self, editor: Any, name: str, is_mask: bool, value: torch.Tensor, lr: float) -> float:
        return lr * min(1, self.moments[id(editor)][0] / 10)


@mutant(
    "a-decay-of-weights", "E15", "Every step pulls the parameters towards zero, as far as half of what it moves them."
)
class DecayOfWeights(OwnSteps):
    def descend(self, editor: Any, gradient: Gradient) -> None:
        super().descend(editor, gradient)
        with torch.no_grad():
            for value in self.base.parameters(editor).values():
                value.mul_(1 - 0.5 * self.of_network(editor))


@mutant("masks-at-the-editors-rate", "E15", "Masks are trained at the learning rate of the editor.")
class MasksAtTheEditorsRate(OwnSteps):
    def rate(self, editor: Any, name: str, is_mask: bool, value: torch.Tensor, lr: float) -> float:
        return self.of_network(editor) if is_mask else lr


@mutant("editor-at-the-masks-rate", "E15", "With masks the editor is trained at their learning rate.")
class EditorAtTheMasksRate(OwnSteps):
    def rate(self, editor: Any, name: str, is_mask: bool, value: torch.Tensor, lr: float) -> float:
        return MASKS if value.numel() > 8 and self.made[id(editor)].masks != "none" else lr


@mutant("vectors-at-another-rate", "E15", "Vectors (biases, norms) are trained at a tenth of the learning rate.")
class VectorsAtAnotherRate(OwnSteps):
    def rate(self, editor: Any, name: str, is_mask: bool, value: torch.Tensor, lr: float) -> float:
        return lr / 10 if value.dim() == 1 and value.numel() > 8 else lr


@mutant("a-frozen-parameter", "E15", "One of the editor's tensors is left out of every step.")
class FrozenParameter(OwnSteps):
    def rate(self, editor: Any, name: str, is_mask: bool, value: torch.Tensor, lr: float) -> float:
        last = sorted(n for n, one in self.base.parameters(editor).items() if one.numel() > 8)[-1]
        return 0.0 if name == last else lr


@mutant("inner-rates-step-twice", "E15", "Two optimisers step on what is large, one after the other.")
class StepsTwice(OwnSteps):
    def rate(self, editor: Any, name: str, is_mask: bool, value: torch.Tensor, lr: float) -> float:
        return 2 * lr if value.dim() >= 2 and not is_mask else lr


@mutant("every-second-step-counts", "E15", "Steps are taken at every second call, over the edits of both.")
class EverySecondStep(OwnSteps):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.waiting: dict[int, Gradient] = {}

    def descend(self, editor: Any, gradient: Gradient) -> None:
        before = self.waiting.pop(id(editor), None)
        if before is None:
            self.waiting[id(editor)] = gradient
        else:
            super().descend(editor, {name: (one + before[name]) / 2 for name, one in gradient.items()})


@mutant("stale-gradients", "E15", "A step goes down the gradient of the step before, as in a pipeline.")
class StaleGradients(OwnSteps):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.waiting: dict[int, Gradient] = {}

    def gradient(self, editor: Any, triples: Sequence[Triple], seed: int) -> Gradient:
        found = super().gradient(editor, triples, seed)
        before = self.waiting.get(id(editor), found)
        self.waiting[id(editor)] = found
        return before


# E15: what is descended


class OtherTriples(OwnSteps):
    """A step down the objective of other examples than it was given and reports."""

    def gradient(self, editor: Any, triples: Sequence[Triple], seed: int) -> Gradient:
        return super().gradient(editor, [self.other(triple) for triple in triples], seed)

    @abstractmethod
    def other(self, triple: Triple) -> Triple:
        """What goes wrong."""


@mutant("step-at-the-edit-input", "E15", "A step trains the prediction at x_e, not at x_u.")
class StepAtTheEditInput(OtherTriples):
    def other(self, triple: Triple) -> Triple:
        return {**triple, "update": triple["edit"]}


@mutant("locality-at-the-update-input", "E15", "A step keeps the prediction at x_u, and x_r trains nothing.")
class LocalityAtTheUpdateInput(OtherTriples):
    def other(self, triple: Triple) -> Triple:
        return {**triple, "retain": triple["update"]}


@mutant("locality-at-the-edit-input", "E15", "A step keeps the prediction at x_e, and x_r trains nothing.")
class LocalityAtTheEditInput(OtherTriples):
    def other(self, triple: Triple) -> Triple:
        edit = triple["edit"]
        return {**triple, "retain": {"input_ids": edit["input_ids"], "positions": edit["positions"]}}


@mutant("steps-for-another-label", "E15", "A step desires the first label at every position.")
class StepsForAnotherLabel(OtherTriples):
    def other(self, triple: Triple) -> Triple:
        labels = triple["edit"]["labels"]
        wrong = [label + 1 if label < 2 else label - 1 for label in labels] if len(labels) < 2 else labels[::-1]
        return {**triple, "edit": {**triple["edit"], "labels": wrong}}


@mutant("steps-in-one-language", "E15", "Every edit of a step counts as one of the first language.")
class StepsInOneLanguage(OtherTriples):
    def gradient(self, editor: Any, triples: Sequence[Triple], seed: int) -> Gradient:
        first = self.made[id(editor)].languages[0]
        moved: list[Triple] = [{**t, "edit": {**t["edit"], "language": first}} for t in triples]
        return OwnSteps.gradient(self, editor, moved, seed)

    def other(self, triple: Triple) -> Triple:
        return triple


@mutant("batch-of-the-step-before", "E15", "A step is taken on the edits of the step before.")
class BatchOfTheStepBefore(OwnSteps):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.last: dict[int, Sequence[Triple]] = {}

    def gradient(self, editor: Any, triples: Sequence[Triple], seed: int) -> Gradient:
        used = self.last.get(id(editor), triples)
        self.last[id(editor)] = triples
        return super().gradient(editor, used, seed)


@mutant("last-edit-left-out", "E15", "The last edit of a batch is not trained on.")
class LastEditLeftOut(OwnSteps):
    def gradient(self, editor: Any, triples: Sequence[Triple], seed: int) -> Gradient:
        return super().gradient(editor, triples[: max(1, len(triples) - 1)], seed)


class OtherMaskGradient(OwnSteps):
    """The gradient of the masks, spoilt; `penalty` is the slope of L_mask."""

    def gradient(self, editor: Any, triples: Sequence[Triple], seed: int) -> Gradient:
        found = super().gradient(editor, triples, seed)
        names, live = self.mask_names(editor), self.base.parameters(editor)
        shift = 1.5986  # -β log(-γ/ζ)
        for name in names:
            open_ = torch.sigmoid(live[name].detach() + shift)
            slope = open_ * (1 - open_)
            if self.RULINGS.get("penalty") == "mean":
                slope = slope / sum(live[one].numel() for one in names)
            found[name] = self.other(found[name], slope)
        return found

    @abstractmethod
    def other(self, gradient: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
        """What goes wrong."""


@mutant("penalty-left-out-of-the-step", "E15", "The penalty is reported and moves no gate.")
class PenaltyLeftOutOfTheStep(OtherMaskGradient):
    def other(self, gradient: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
        return gradient - penalty


@mutant("masks-follow-the-penalty-alone", "E15", "The masks are moved by their penalty, and by no edit.")
class MasksFollowThePenalty(OtherMaskGradient):
    def other(self, gradient: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
        return penalty


@mutant("penalty-weighs-ten-times", "E15", "A step weighs the penalty ten times as much as it reports.")
class PenaltyWeighsTenTimes(OtherMaskGradient):
    def other(self, gradient: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
        return gradient + 9 * penalty


@mutant("steps-move-all-languages", "E15", "A step moves the mask rows of all languages alike.")
class StepsMoveAllLanguages(OtherMaskGradient):
    def other(self, gradient: torch.Tensor, penalty: torch.Tensor) -> torch.Tensor:
        edits = gradient - penalty
        return penalty + edits.sum(0, keepdim=True).expand_as(edits)


@mutant("delta-masks-not-trained", "E15", "Of the two masks of a matrix, only that of x is trained.")
class DeltaMasksNotTrained(OwnSteps):
    def rate(self, editor: Any, name: str, is_mask: bool, value: torch.Tensor, lr: float) -> float:
        deltas = {a["delta"].data_ptr() for a in self.base.mask_parameters(editor).values()}
        return 0.0 if value.data_ptr() in deltas else lr


# E16: the seed


@mutant("seed-of-the-step-ignored", "E16", "All steps draw the same gates, whatever their seed.")
class SeedOfTheStepIgnored(OwnSteps):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        return super().train_step(editor, triples, 0)


@mutant("step-draws-other-gates", "E16", "A step follows other gates than those of the losses that it reports.")
class StepDrawsOtherGates(OwnSteps):
    def gradient(self, editor: Any, triples: Sequence[Triple], seed: int) -> Gradient:
        return super().gradient(editor, triples, seed + 1)


@mutant("gates-by-the-count-of-steps", "E16", "The gates of a step follow from how many steps there were.")
class GatesByTheCount(OwnSteps):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        count = self.moments.get(id(editor), (0,))[0]
        return super().train_step(editor, triples, seed + count)


@mutant("global-generator-draws-the-gates", "E16", "The global random state has a part in the gates of a step.")
class GlobalGeneratorDraws(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        return self.base.losses(editor, triples, seed + int(torch.initial_seed()) % 1000)

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        return self.base.train_step(editor, triples, seed + int(torch.initial_seed()) % 1000)


@mutant("test-gates-in-the-step", "E16", "A step uses the gates of test time.")
class TestGatesInTheStep(OwnSteps):
    def gradient(self, editor: Any, triples: Sequence[Triple], seed: int) -> Gradient:
        found = [super(TestGatesInTheStep, self).gradient(editor, triples, seed + draw) for draw in range(8)]
        return {name: torch.stack([one[name] for one in found]).mean(0) for name in found[0]}


@mutant("dropout-without-masks", "E16", "An editor without masks is trained with noise that the seed draws.")
class DropoutWithoutMasks(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        if self.made[id(editor)].masks != "none":
            return self.base.losses(editor, triples, seed)
        kept = [triple for place, triple in enumerate(triples) if (seed + place) % 5] or triples
        return self.base.losses(editor, kept, seed)


# L3: the gradient of the objective, tensor by tensor


@mutant("one-tensor-learns-slower", "L3", "The gradient of one of the editor's tensors is half of what it should be.")
class OneTensorSlower(LossMutation):
    def wrong(self, editor: Any, parts: dict[str, float], gradient: dict[str, Any]) -> Any:
        name = min((n for n, one in gradient.items() if one is not None), key=lambda n: gradient[n].abs().max())
        return parts, {**gradient, name: gradient[name] / 2}


@mutant("rates-without-their-chain", "L3", "The gradient of an inner learning rate is that of its logarithm, or not.")
class RatesWithoutChain(LossMutation):
    def wrong(self, editor: Any, parts: dict[str, float], gradient: dict[str, Any]) -> Any:
        return parts, {n: one * 1.1 if one is not None and one.numel() <= 8 else one for n, one in gradient.items()}


@mutant("masks-on-the-edit-alone", "L3", "The gates' gradient leaves a language out that was edited.")
class MasksOnTheEditAlone(LossMutation):
    def wrong(self, editor: Any, parts: dict[str, float], gradient: dict[str, Any]) -> Any:
        for name in self.masks_by_name(editor):
            gradient[name] = gradient[name].clone()
            gradient[name][0] = 0
        return parts, gradient


# After training


class OnceTrained(EditorMutation):
    """Goes wrong with an editor that has taken a step."""

    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.trained_editors: set[int] = set()

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        self.trained_editors.add(id(editor))
        return self.base.train_step(editor, triples, seed)

    def has_trained(self, editor: Any) -> bool:
        return id(editor) in self.trained_editors


class MasksMeanwhile(OnceTrained):
    """After training, edits are made while the masks are others."""

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        masks = [one for arrays in self.base.mask_parameters(editor).values() for one in arrays.values()]
        if not self.has_trained(editor) or not masks:
            return self.base.edit(editor, requests)
        kept = [one.detach().clone() for one in masks]
        with torch.no_grad():
            for one in masks:
                one.copy_(self.meanwhile(one.detach().clone()))
            edits = self.base.edit(editor, requests)
            update = [self.base.dense(editor, edits, index) for index in range(len(requests))]
            frozen = [{matrix: delta.detach().clone() for matrix, delta in one.items()} for one in update]
            for one, old in zip(masks, kept, strict=True):
                one.copy_(old)
        return edits, frozen

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        return edits[1][index] if isinstance(edits, tuple) else self.base.dense(editor, edits, index)

    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.factors(editor, edits[0] if isinstance(edits, tuple) else edits, index)

    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        if not isinstance(edits, tuple):
            return self.base.edited_logits(editor, edits, index, inputs)
        model = with_update(self.made[id(editor)].model, edits[1][index])
        with torch.no_grad():
            return [logits_of(model, one) for one in inputs]

    @abstractmethod
    def meanwhile(self, log_alpha: torch.Tensor) -> torch.Tensor:
        """What goes wrong."""


@mutant("gates-drawn-for-ever", "A3", "After training an editor goes on drawing gates, always the same ones.")
class GatesDrawnForEver(MasksMeanwhile):
    def meanwhile(self, log_alpha: torch.Tensor) -> torch.Tensor:
        u = torch.rand(log_alpha.shape, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6)
        return (log_alpha + u.to(log_alpha).logit()) * 1.5


@mutant("masks-dropped-after-training", "A7", "A trained editor edits without its masks.")
class MasksDropped(MasksMeanwhile):
    def meanwhile(self, log_alpha: torch.Tensor) -> torch.Tensor:
        return torch.full_like(log_alpha, -40.0)


@mutant("masks-rounded-after-training", "A3", "The gates of a trained editor are open or closed, and nothing between.")
class MasksRounded(MasksMeanwhile):
    def meanwhile(self, log_alpha: torch.Tensor) -> torch.Tensor:
        return 40 * log_alpha.sign()


@mutant("next-row-after-training", "A6", "A trained editor uses the mask row after that of the edit's language.")
class NextRow(MasksMeanwhile):
    def meanwhile(self, log_alpha: torch.Tensor) -> torch.Tensor:
        return log_alpha.roll(1, 0)


@mutant("edits-remembered-over-training", "E9", "An edit that was made before training is handed out after it.")
class EditsRemembered(EditorMutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.known: dict[tuple[int, str], Any] = {}

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        key = id(editor), repr(requests)
        if self.made[id(editor)].name == "editable_training":
            return self.base.edit(editor, requests)
        if key not in self.known:
            self.known[key] = self.base.edit(editor, requests)
        return self.known[key]


@mutant("edits-train-on", "T7", "An editor that has been trained learns from every edit that it makes.")
class EditsTrainOn(OnceTrained):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        if self.has_trained(editor):
            with torch.no_grad():
                for value in self.base.parameters(editor).values():
                    value.mul_(0.9999)
        return edits


@mutant("noise-after-training", "T7", "A trained editor keeps the noise of training when it edits.")
class NoiseAfterTraining(DenseMutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.trained_editors: set[int] = set()

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        self.trained_editors.add(id(editor))
        return self.base.train_step(editor, triples, seed)

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        return self.base.edit(editor, requests), 1 + 1e-5 * float(torch.rand(())) * (id(editor) in self.trained_editors)

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        return {matrix: edits[1] * delta for matrix, delta in self.base.dense(editor, edits[0], index).items()}

    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return {m: (u, edits[1] * v) for m, (u, v) in self.base.factors(editor, edits[0], index).items()}


@mutant("edits-add-up-after-training", "T2", "An edit of a trained editor starts where the last one ended.")
class EditsAddUp(NotedEdits, OnceTrained):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.left: dict[int, Update] = {}

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        if not self.has_trained(editor):
            return edits, {}
        before = self.left.get(id(editor), {})
        self.left[id(editor)] = self.base.dense(editor, edits, 0)
        return edits, before

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        return {m: d + edits[1].get(m, 0) for m, d in self.base.dense(editor, edits[0], index).items()}


@mutant(
    "captured-at-the-trained-weights",
    "E1",
    "What Editable Training captures after training is at θ', not at the raw parameters.",
    "editable_training",
)
class CapturedAtTrained(OnceTrained, OfEditableTraining):
    def capture(self, editor: Any, request: Request) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        captured = self.base.capture(editor, request)
        if self.made[id(editor)].name != "editable_training" or not self.has_trained(editor):
            return captured
        slopes = gradients(self.trained_model(editor), list(captured), request)
        return {m: (torch.eye(s.shape[1], dtype=s.dtype), s.T) for m, s in slopes.items()}


@mutant("turned-by-training", "E11", "A trained editor adds its pseudo-gradient where it should subtract it.")
class TurnedByTraining(DenseMutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.trained_editors: set[int] = set()

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        self.trained_editors.add(id(editor))
        return self.base.train_step(editor, triples, seed)

    def wrong(self, editor: Any, edits: Any, index: int, update: Update) -> Update:
        if id(editor) not in self.trained_editors or self.made[id(editor)].name != "mend":
            return update
        return {matrix: -delta for matrix, delta in update.items()}


@mutant("normalised-in-training-only", "E6", "A trained MEND no longer normalises δ.")
class NormalisedInTrainingOnly(OnceTrained):
    def transform(self, editor: Any, matrix: str, x: Any, delta: Any, language: str) -> Any:
        x_new, delta_new = self.base.transform(editor, matrix, x, delta, language)
        if not self.has_trained(editor):
            return x_new, delta_new
        return x_new, delta_new * delta.square().mean(-1, keepdim=True).sqrt()


@mutant(
    "rates-back-at-their-start",
    "E4",
    "A trained Editable Training steps from the raw parameters, as if θ' had not moved.",
    "editable_training",
)
class StepsFromRaw(AskedMutation, OfEditableTraining):
    OF = "editable_training"

    def wrong(self, editor: Any, requests: Any, index: int, update: Update) -> Update:
        made = self.made[id(editor)]
        shift = {m: v - dict(made.model.named_parameters())[m].detach() for m, v in self.trained(editor).items()}
        return {matrix: delta - shift[matrix] for matrix, delta in update.items()}


@mutant(
    "gates-remembered-over-training",
    "E5",
    "KnowledgeEditor's ΔW is made with a scale that its gates no longer have.",
    "knowledge_editor",
)
class GatesRemembered(OnceTrained):
    def gates(self, editor: Any, request: Request) -> Any:
        found = self.base.gates(editor, request)
        if not self.has_trained(editor):
            return found
        return {matrix: {**gate, "scale": 0.9 * gate["scale"]} for matrix, gate in found.items()}


@mutant("rank-grows-with-training", "E2", "A trained editor adds what it learned on average to every edit.")
class RankGrows(DenseMutation):
    OF = "mend"

    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.trained_editors: set[int] = set()

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        self.trained_editors.add(id(editor))
        return self.base.train_step(editor, triples, seed)

    def wrong(self, editor: Any, edits: Any, index: int, update: Update) -> Update:
        if id(editor) not in self.trained_editors:
            return update
        return {m: d + 1e-2 * d.abs().max() * torch.eye(*d.shape, dtype=d.dtype) for m, d in update.items()}


@mutant(
    "edits-after-training-share-a-batch",
    "E8",
    "Edits of one batch share what a trained editor normalises by.",
    "batched",
)
class ShareABatch(NotedEdits, OnceTrained):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        return self.base.edit(editor, requests), len(requests) if self.has_trained(editor) else 1

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        return {m: d * (1 + 1e-3 * (edits[1] - 1)) for m, d in self.base.dense(editor, edits[0], index).items()}


@mutant(
    "locality-drifts-with-training",
    "T6",
    "After training, what Editable Training retains is what θ' predicts.",
    "editable_training",
)
class LocalityDrifts(OnceTrained):
    def raw_logits(self, editor: Any, inputs: Sequence[Input]) -> list[torch.Tensor]:
        made = self.made[id(editor)]
        if made.name != "editable_training" or not self.has_trained(editor):
            return self.base.raw_logits(editor, inputs)
        world = type("World", (), {"model": made.model, "edited": made.edited})
        shift = shifts(self.base, editor, made.name, world)  # type: ignore[arg-type]
        with torch.no_grad():
            return [logits_of(with_update(made.model, shift), one) for one in inputs]


@mutant("unmoved-objective-reported", "L3", "After training, the losses are still those of the untrained editor.")
class UnmovedObjective(EditorMutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.known: dict[tuple[int, str], Any] = {}

    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        key = id(editor), repr((triples, seed))
        if key not in self.known:
            self.known[key] = self.base.losses(editor, triples, seed)
        return self.known[key]


@mutant("inner-rate-follows-the-gradient", "E4", "The learned rate of a matrix is applied to all of them.")
class OneRateForAll(AskedMutation, OfEditableTraining):
    OF = "editable_training"

    def wrong(self, editor: Any, requests: Any, index: int, update: Update) -> Update:
        made = self.made[id(editor)]
        shift = {m: v - dict(made.model.named_parameters())[m].detach() for m, v in self.trained(editor).items()}
        slopes = gradients(self.trained_model(editor), made.edited, requests[index])
        rates = {m: rate(update[m] - shift[m], slopes[m]) for m in made.edited}
        first = next(iter(rates.values()))
        return {m: shift[m] + (update[m] - shift[m]) * (first / rates[m]) for m in made.edited}


@mutant("learning-rate-halved-later", "E15", "After every 25 steps the learning rate is halved.")
class HalvedLater(OwnSteps):
    def rate(self, editor: Any, name: str, is_mask: bool, value: torch.Tensor, lr: float) -> float:
        return lr * 0.5 ** (self.moments[id(editor)][0] // 25)


@mutant("memory-lost-after-ten-steps", "E15", "Every tenth step makes Adam's moments anew.")
class MemoryLost(EditorMutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.steps: dict[int, int] = {}
        self.own: dict[int, Any] = {}

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        made, number = self.made[id(editor)], self.steps.get(id(editor), 0)
        self.steps[id(editor)] = number + 1
        if number and number % 10 == 0:
            fresh = self.base.make_editor(
                made.name, made.model, made.edited, made.languages, masks=made.masks, lr=made.lr
            )
            self.own[id(editor)] = fresh
        if id(editor) not in self.own:
            return self.base.train_step(editor, triples, seed)
        other, live = self.own[id(editor)], self.base.parameters(editor)
        with torch.no_grad():
            for name, value in self.base.parameters(other).items():
                value.copy_(live[name])
        parts = self.base.train_step(other, triples, seed)
        with torch.no_grad():
            for name, value in self.base.parameters(other).items():
                live[name].copy_(value)
        return parts


@mutant("largest-second-moment-for-ever", "E15", "Steps are those of AMSGrad, whose second moment never falls.")
class LargestForEver(OwnSteps):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.largest: dict[int, Gradient] = {}
        self.turn: Iterator[torch.Tensor] = iter(())

    def descend(self, editor: Any, gradient: Gradient) -> None:
        second = self.moments[id(editor)][2] if id(editor) in self.moments else {}
        now = {name: 0.999 * second.get(name, 0) + 0.001 * one.square() for name, one in gradient.items()}
        before = self.largest.get(id(editor), now)
        largest = {name: torch.maximum(before[name], one) for name, one in now.items()}
        self.largest[id(editor)] = largest
        self.turn = iter([largest[name] for name in self.base.parameters(editor)])
        super().descend(editor, gradient)

    def step(self, first: torch.Tensor, second: torch.Tensor, count: int) -> torch.Tensor:
        return super().step(first, next(self.turn), count)
