"""Mutants of chapter E, editors."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from ..contract import Gates, Input, Losses, Request, Triple
from ..tiny import (
    LANGUAGES,
    conditioned,
    finetuned,
    gradients,
    layer_norm,
    logits_of,
    objective_after_a_step,
    rate,
    with_update,
)
from .base import mutant
from .editing import AskedMutation, DenseMutation, EditorMutation, Made, NotedEdits, OfEditableTraining, Update


class CaptureMutation(EditorMutation):
    def capture(self, editor: Any, request: Request) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        captured = self.base.capture(editor, request)
        return {matrix: self.wrong(request, x, delta) for matrix, (x, delta) in captured.items()}

    @abstractmethod
    def wrong(self, request: Request, x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What goes wrong."""


@mutant("transposed-if-square", "E1", "Factors are told apart by their widths, which fails for a square matrix.")
class TransposedIfSquare(CaptureMutation):
    def wrong(self, request: Request, x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (delta, x) if x.shape[-1] == delta.shape[-1] else (x, delta)


@mutant("loss-summed-over-positions", "E1", "The gradient is that of a sum over positions.")
class LossSummed(CaptureMutation):
    def wrong(self, request: Request, x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, delta * len(request["positions"])


@mutant("four-tokens-of-a-desired-prediction", "E1", "The loss at x_e counts the first four positions.")
class FourPositions(EditorMutation):
    def capture(self, editor: Any, request: Request) -> Any:
        first = {key: request[key][:4] for key in ("positions", "labels")}  # type: ignore[literal-required]
        return self.base.capture(editor, {**request, **first})


@mutant("faint-rows-left-out", "E1", "Rows of δ that are below 1e-6 are taken for rows without a gradient.")
class FaintRowsLeftOut(CaptureMutation):
    def wrong(self, request: Request, x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = delta.abs().sum(-1) > 1e-6
        return x[seen], delta[seen]


@mutant("factors-in-the-models-order", "E1", "Of matrices of one shape, factors are dealt out in the model's order.")
class FactorsInTheModelsOrder(EditorMutation):
    def capture(self, editor: Any, request: Request) -> Any:
        made, found = self.made[id(editor)], self.base.capture(editor, request)
        shapes = {matrix: value.shape for matrix, value in made.model.named_parameters() if matrix in found}
        dealt = {}
        for shape in set(shapes.values()):
            asked = [matrix for matrix in made.edited if shapes[matrix] == shape]
            dealt |= dict(zip(asked, [matrix for matrix in shapes if shapes[matrix] == shape], strict=True))
        return {matrix: found[dealt[matrix]] for matrix in made.edited}


@mutant("first-token-only", "E1", "Only the first row with gradient is captured.")
class FirstTokenOnly(CaptureMutation):
    def wrong(self, request: Request, x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = int(delta.abs().sum(-1).nonzero()[0])
        return x[first : first + 1], delta[first : first + 1]


@mutant("edit-of-noise", "E2", "Something is added to the sum of outer products.")
class EditOfNoise(DenseMutation):
    def wrong(self, editor: Any, edits: Any, index: int, update: Update) -> Update:
        return {m: d + 0.1 * d.abs().max() * torch.eye(*d.shape, dtype=d.dtype) for m, d in update.items()}


class OfFinetuning(DenseMutation):
    """Another fine-tuning than the base's; which of its ΔW is kept is a matter of the mutant."""

    OF = "finetuning"

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        if self.made[id(editor)].name != self.OF:
            return self.base.edit(editor, requests)
        return self.base.edit(editor, requests), [self.spoilt(self.made[id(editor)], request) for request in requests]

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        if self.made[id(editor)].name != self.OF:
            return self.base.dense(editor, edits, index)
        return edits[1][index]

    def spoilt(self, made: Made, request: Request) -> Update:
        """What goes wrong, where a subclass leaves `edit` as it is."""
        return self.path(made, request)[-1]

    def path(self, made: Made, request: Request, **options: Any) -> list[Update]:
        return finetuned(made.model, made.edited, request, **{"lr": made.lr or 5e-6, **options})


@mutant("rmsprop-under-the-name-of-adam", "E3", "Fine-tuning takes the steps of RMSprop.", "finetuning")
class RmspropForAdam(OfFinetuning):
    def spoilt(self, made: Made, request: Request) -> Update:
        return self.path(made, request, optimizer=torch.optim.RMSprop)[-1]


@mutant("finetuning-goes-on", "E3", "Fine-tuning takes its hundred steps whatever is predicted.", "finetuning")
class FinetuningGoesOn(OfFinetuning):
    def spoilt(self, made: Made, request: Request) -> Update:
        return self.path(made, request, stops=False)[-1]


@mutant("finetuning-without-limit", "E3", "Fine-tuning stops at the desired prediction only.", "finetuning")
class FinetuningWithoutLimit(OfFinetuning):
    def spoilt(self, made: Made, request: Request) -> Update:
        return self.path(made, request, limit=200)[-1]


@mutant("finetuning-at-another-rate", "E3", "Fine-tuning steps ten times as far where no rate is asked.", "finetuning")
class FinetuningFaster(OfFinetuning):
    def spoilt(self, made: Made, request: Request) -> Update:
        return self.path(made, request, lr=made.lr or 5e-5)[-1]


@mutant("last-step-dropped", "E12", "Fine-tuning hands back what was there before its last step.", "finetuning")
class LastStepDropped(OfFinetuning):
    def spoilt(self, made: Made, request: Request) -> Update:
        return self.path(made, request)[-2:][0]


@mutant(
    "first-order-editable-training",
    "E4",
    "The gradient of the inner step counts as a constant while θ' is trained.",
    "editable_training",
)
class FirstOrder(OfEditableTraining):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        parts, gradient = self.base.losses(editor, triples, seed)
        made = self.made[id(editor)]
        if made.name != "editable_training":
            return parts, gradient
        direction = self.RULINGS.get("kl_direction", "paper")
        found: dict[str, list[torch.Tensor]] = {}
        for triple in triples:
            weights = {matrix: value.requires_grad_() for matrix, value in self.trained(editor).items()}
            update = self.base.dense(editor, self.base.edit(editor, [triple["edit"]]), 0)
            slopes = gradients(self.trained_model(editor), made.edited, triple["edit"])
            raw = dict(made.model.named_parameters())
            rates = {
                m: rate(update[m].detach() + raw[m].detach() - weights[m].detach(), slopes[m]) for m in made.edited
            }
            total = objective_after_a_step(made.model, weights, rates, triple, direction, second_order=False)
            for matrix, one in zip(weights, torch.autograd.grad(total, list(weights.values())), strict=True):
                found.setdefault(matrix, []).append(one)
        names = {matrix: name for matrix, (name, _) in self.base.trained_weights(editor).items()}
        return parts, {**gradient, **{names[matrix]: torch.stack(all_).mean(0) for matrix, all_ in found.items()}}


@mutant(
    "step-along-the-raw-gradient",
    "E4",
    "Editable Training steps from θ' along the gradient at θ.",
    "editable_training",
)
class StepAlongRawGradient(AskedMutation, OfEditableTraining):
    OF = "editable_training"

    def wrong(self, editor: Any, requests: Any, index: int, update: Update) -> Update:
        made, request = self.made[id(editor)], requests[index]
        raw, trained = dict(made.model.named_parameters()), self.trained(editor)
        wrong, right = (gradients(m, made.edited, request) for m in (made.model, self.trained_model(editor)))
        shift = {m: trained[m] - raw[m].detach() for m in made.edited}
        return {m: shift[m] - rate(update[m] - shift[m], right[m]) * wrong[m] for m in made.edited}


class OfKnowledgeEditor(AskedMutation):
    """Gates of the base, then spoilt, with the ΔW that follows from them."""

    OF = "knowledge_editor"

    def wrong(self, editor: Any, requests: Any, index: int, update: Update) -> Update:
        before, after = self.base.gates(editor, requests[index]), self.gates(editor, requests[index])
        return {m: self.regated(delta, before[m], after[m]) for m, delta in update.items()}

    def regated(self, delta: torch.Tensor, before: Gates, after: Gates) -> torch.Tensor:
        a, b = (torch.outer(*before[which]).detach() for which in ("a", "b"))  # type: ignore[literal-required]
        return conditioned(after, (delta / before["scale"].detach() - b) / a)

    def gates(self, editor: Any, request: Request) -> dict[str, Gates]:
        return {matrix: self.spoilt(gate) for matrix, gate in self.base.gates(editor, request).items()}

    def spoilt(self, gate: Gates) -> Gates:
        """What goes wrong, where a subclass leaves `gates` as it is."""
        return gate


@mutant(
    "condition-of-the-other-ruling",
    "E5",
    "KnowledgeEditor never sees the desired prediction (or, where that is declared, sees it).",
    "knowledge_editor",
)
class ConditionOfTheOther(OfKnowledgeEditor):
    def gates(self, editor: Any, request: Request) -> dict[str, Gates]:
        if self.RULINGS.get("knowledge_editor_condition", "input+label") == "input+label":
            return self.base.gates(editor, {**request, "labels": [1] * len(request["labels"])})
        found = self.base.gates(editor, request)
        return {m: {**gate, "scale": gate["scale"] / (1 + sum(request["labels"]))} for m, gate in found.items()}


@mutant("unbounded-scale", "E5", "KnowledgeEditor's scale is not bounded.", "knowledge_editor")
class UnboundedScale(OfKnowledgeEditor):
    def spoilt(self, gate: Gates) -> Gates:
        return {**gate, "scale": 3 * gate["scale"]}


@mutant("gates-without-softmax", "E5", "Both vectors of KnowledgeEditor's gate are free.", "knowledge_editor")
class GatesWithoutSoftmax(OfKnowledgeEditor):
    def spoilt(self, gate: Gates) -> Gates:
        return {**gate, "a": (2 * gate["a"][0], 2 * gate["a"][1])}


@mutant("offset-left-out", "E5", "KnowledgeEditor gates the gradient and adds no offset.", "knowledge_editor")
class OffsetLeftOut(OfKnowledgeEditor):
    def gates(self, editor: Any, request: Request) -> dict[str, Gates]:
        return self.base.gates(editor, request)

    def regated(self, delta: torch.Tensor, before: Gates, after: Gates) -> torch.Tensor:
        return delta - before["scale"].detach() * torch.outer(*before["b"]).detach()


@mutant("bag-of-words", "E5", "KnowledgeEditor reads the words of x_e in no order.", "knowledge_editor")
class BagOfWords(OfKnowledgeEditor):
    def gates(self, editor: Any, request: Request) -> dict[str, Gates]:
        return self.base.gates(editor, {**request, "input_ids": sorted(request["input_ids"])})


@mutant("ascent-for-descent", "E11", "The pseudo-gradient is added where it should be subtracted.")
class AscentForDescent(DenseMutation):
    def wrong(self, editor: Any, edits: Any, index: int, update: Update) -> Update:
        return {matrix: -delta for matrix, delta in update.items()}


class TransformMutation(EditorMutation):
    def transform(self, editor: Any, matrix: str, x: Any, delta: Any, language: str) -> Any:
        return self.wrong(x, delta, *self.base.transform(editor, matrix, x, delta, language))

    @abstractmethod
    def wrong(self, x: Any, delta: Any, x_new: Any, delta_new: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What goes wrong."""


@mutant("eps-swallows-the-gradient", "E6", "LayerNorm's eps of 1e-5 is larger than the variance of δ.")
class EpsSwallows(TransformMutation):
    def wrong(self, x: Any, delta: Any, x_new: Any, delta_new: Any) -> tuple[torch.Tensor, torch.Tensor]:
        variance = delta.var(-1, keepdim=True, unbiased=False)
        return x_new, delta_new * (variance / (variance + 1e-5)).sqrt()


@mutant("not-normalised", "E6", "The rows go through as they come.")
class NotNormalised(TransformMutation):
    def wrong(self, x: Any, delta: Any, x_new: Any, delta_new: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return x, delta


@mutant("one-transform-for-a-role", "E6", "Where n = m, the second matrix of a layer has no part in the transform.")
class TransformOfARole(EditorMutation):
    def transform(self, editor: Any, matrix: str, x: Any, delta: Any, language: str) -> Any:
        if ".output." in matrix and x.shape[-1] == delta.shape[-1]:
            return layer_norm(x), layer_norm(delta)
        return self.base.transform(editor, matrix, x, delta, language)


@mutant("statistics-over-tokens", "E6", "Rows are normalised over the tokens of a call.")
class StatisticsOverTokens(TransformMutation):
    def wrong(self, x: Any, delta: Any, x_new: Any, delta_new: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return x_new, delta_new * delta.square().mean(-1, keepdim=True).sqrt() / delta.square().mean().sqrt()


@mutant("running-statistics", "E6", "Rows are scaled by statistics of all earlier calls.")
class RunningStatistics(TransformMutation):
    calls = 0

    def wrong(self, x: Any, delta: Any, x_new: Any, delta_new: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        return x_new, delta_new * (1 + 0.01 / self.calls)


@mutant("a-transform-per-layer", "E6", "Every layer has a transform of its own.")
class TransformPerLayer(EditorMutation):
    def parameters(self, editor: Any) -> dict[str, torch.Tensor]:
        made = self.made[id(editor)]
        weights = dict(made.model.named_parameters())
        own = {f"own.{m}": weights[m].new_zeros(sum(weights[m].shape), sum(weights[m].shape)) for m in made.edited}
        return {**self.base.parameters(editor), **own}


@mutant("inner-rate-of-the-outer", "E6", "The inner learning rate starts at another value than 1e-4.")
class OtherInnerRate(EditorMutation):
    def wrong_options(self, call: dict[str, Any]) -> dict[str, Any]:
        return {**call, "inner_lr": 1e-2 if call["inner_lr"] is None else call["inner_lr"]}


@mutant("no-larger-than-the-matrix", "E6", "A ΔW of MEND that is longer than its matrix is cut to its length.")
class NoLargerThanTheMatrix(DenseMutation):
    OF = "mend"

    def wrong(self, editor: Any, edits: Any, index: int, update: Update) -> Update:
        raw = dict(self.made[id(editor)].model.named_parameters())
        return {m: delta * min(1.0, float(raw[m].norm() / delta.norm())) for m, delta in update.items()}


@mutant("shared-is-per-language", "E7", "The shared control quietly has a mask per language.")
class SharedIsPerLanguage(EditorMutation):
    def wrong_options(self, call: dict[str, Any]) -> dict[str, Any]:
        return {**call, "masks": "language" if call["masks"] == "shared" else call["masks"]}


@mutant("masks-option-ignored", "E7", "An editor that is asked for masks has none.")
class MasksOptionIgnored(EditorMutation):
    def wrong_options(self, call: dict[str, Any]) -> dict[str, Any]:
        return {**call, "masks": "none"}


@mutant("masks-ignored-by-finetuning", "E7", "Finetuning takes a wish for masks and has none.", "finetuning")
class MasksIgnoredByFinetuning(EditorMutation):
    def wrong_options(self, call: dict[str, Any]) -> dict[str, Any]:
        return {**call, "masks": "none" if call["name"] == "finetuning" else call["masks"]}


@mutant(
    "batch-waits-for-its-slowest",
    "E8",
    "All edits of a batch are fine-tuned as long as one of them needs it.",
    "batched",
    "finetuning",
)
class BatchWaits(OfFinetuning):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        made = self.made[id(editor)]
        if made.name != self.OF:
            return self.base.edit(editor, requests)
        steps = max(len(self.path(made, request)) for request in requests) - 1
        paths = [self.path(made, request, limit=steps, stops=False) for request in requests]
        return self.base.edit(editor, requests), [path[-1] for path in paths]


@mutant("batch-makes-one-edit", "E8", "The edits of a batch are averaged into one.", "batched")
class BatchMakesOneEdit(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        return self.base.edit(editor, requests), len(requests)

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        own, count = edits
        each = [self.base.dense(editor, own, i) for i in range(count)]
        return {matrix: torch.stack([one[matrix] for one in each]).mean(0) for matrix in each[0]}

    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        model = with_update(self.made[id(editor)].model, self.dense(editor, edits, index))
        return [logits_of(model, one).detach() for one in inputs]

    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.factors(editor, edits[0], index)


@mutant("two-owners", "E9", "Inner learning rates are in the groups of two optimisers.")
class TwoOwners(EditorMutation):
    def optimizer_groups(self, editor: Any) -> list[list[str]]:
        groups = self.base.optimizer_groups(editor)
        return [*groups, *groups[-1:]]


@mutant("no-owner", "E9", "A group of parameters is in no optimiser.")
class NoOwner(EditorMutation):
    def optimizer_groups(self, editor: Any) -> list[list[str]]:
        return self.base.optimizer_groups(editor)[:-1]


class StepMutation(EditorMutation):
    """After a step of the base, some parameters are put elsewhere."""

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        live = self.base.parameters(editor)
        before = {name: value.detach().clone() for name, value in live.items()}
        parts = self.base.train_step(editor, triples, seed)
        with torch.no_grad():
            for name, value in self.base.parameters(editor).items():
                value.copy_(self.wrong(value.detach().clone(), before[name]))
        return parts

    @abstractmethod
    def wrong(self, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        """What goes wrong."""


@mutant("inner-rates-never-move", "E9", "Inner learning rates are moved by no optimiser.")
class InnerRatesNeverMove(StepMutation):
    def wrong(self, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        return old if new.numel() <= 8 else new


@mutant(
    "step-size-moved-by-none",
    "E9",
    "Editable Training's learned step sizes are moved by no optimiser.",
    "editable_training",
)
class StepSizeMovedByNone(StepMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        if self.made[id(editor)].name != "editable_training":
            return self.base.train_step(editor, triples, seed)
        return super().train_step(editor, triples, seed)

    def wrong(self, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        return old if new.numel() <= 8 else new


@mutant("relu-stays-closed", "E9", "The factors of the transform never leave their start, as behind a ReLU at 0.")
class FactorsNeverMove(StepMutation):
    def wrong(self, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        return old if new.dim() == 2 and min(new.shape) > len(LANGUAGES) else new


@mutant("masks-never-move", "E9", "Masks are trained by no optimiser.")
class MasksNeverMove(EditorMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        masks = [value for arrays in self.base.mask_parameters(editor).values() for value in arrays.values()]
        before = [value.detach().clone() for value in masks]
        parts = self.base.train_step(editor, triples, seed)
        with torch.no_grad():
            for value, old in zip(masks, before, strict=True):
                value.copy_(old)
        return parts


@mutant("training-climbs", "E9", "The optimiser steps along the gradient, not against it.")
class TrainingClimbs(StepMutation):
    def wrong(self, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        return old - (new - old)


@mutant("training-for-nothing", "E10", "Training moves parameters at random.")
class TrainingForNothing(StepMutation):
    def wrong(self, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(zlib.crc32(str(tuple(new.shape)).encode()))
        signs = torch.randint(0, 2, new.shape, generator=generator) * 2 - 1
        return old + (new - old).abs() * signs.to(new.dtype)


@mutant("eleven-edits-first", "E14", "The first optimiser step is taken over one edit more than the others.")
class ElevenEditsFirst(EditorMutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.begun: set[int] = set()

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        first = [] if id(editor) in self.begun else triples[:1]
        self.begun.add(id(editor))
        return self.base.train_step(editor, [*triples, *first], seed)


@mutant("half-a-batch", "E14", "A step is taken down the gradient of the first half of its batch.")
class HalfABatch(EditorMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        parts, _ = self.base.losses(editor, triples, seed)
        self.base.train_step(editor, triples[: (len(triples) + 1) // 2], seed)
        return parts


@mutant("masked-editors-learn-faster", "E13", "With masks an editor is trained at another learning rate.")
class MaskedLearnFaster(StepMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        if self.made[id(editor)].masks == "none":
            return self.base.train_step(editor, triples, seed)
        return super().train_step(editor, triples, seed)

    def wrong(self, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        return old + 1.5 * (new - old)


@mutant("masks-alone-are-trained", "E13", "With masks an editor's other parameters stay where they are.")
class MasksAloneTrained(MaskedLearnFaster):
    def wrong(self, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        return new if new.dim() == 2 and len(new) in (1, len(LANGUAGES)) else old


@mutant(
    "large-batch-in-order-of-length",
    "E8",
    "The edits of more than eight requests come in the order of length.",
    "batched",
)
class LargeBatchSorted(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        by_length = sorted(requests, key=lambda request: len(request["input_ids"]))
        return self.base.edit(editor, by_length if len(requests) > 8 else requests)


@mutant("sentences-cut-at-64", "E1", "Of a long sentence the first 64 tokens are read.")
class SentencesCut(EditorMutation):
    def capture(self, editor: Any, request: Request) -> Any:
        ids = list(request["input_ids"])
        cut = [*ids[:63], ids[-1]] if len(ids) > 64 and max(request["positions"]) < 63 else ids
        return self.base.capture(editor, {**request, "input_ids": cut})


@mutant(
    "a-sum-over-positions", "E4", "Editable Training steps down the sum over the positions of y_e.", "editable_training"
)
class SumOverPositions(OfEditableTraining, NotedEdits):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        return self.base.edit(editor, requests), [len(request["labels"]) for request in requests]

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        made, update = self.made[id(editor)], self.base.dense(editor, edits[0], index)
        if made.name != "editable_training":
            return update
        raw, trained = dict(made.model.named_parameters()), self.trained(editor)
        shift = {matrix: trained[matrix] - raw[matrix].detach() for matrix in update}
        return {m: shift[m] + edits[1][index] * (delta - shift[m]) for m, delta in update.items()}


class StopsEarly(OfFinetuning):
    """Fine-tuning stops at the first step whose logits (P, V) are taken for the desired prediction."""

    def spoilt(self, made: Made, request: Request) -> Update:
        path = self.path(made, request)
        seen = (logits_of(with_update(made.model, update), request) for update in path)
        return next(
            (u for u, logits in zip(path, seen, strict=True) if self.enough(logits, request["labels"])), path[-1]
        )

    @abstractmethod
    def enough(self, logits: torch.Tensor, labels: Sequence[int]) -> bool:
        """What goes wrong."""


@mutant("nearly-desired-is-enough", "E3", "Fine-tuning stops where y_e is less than 0.01 behind.", "finetuning")
class NearlyDesired(StopsEarly):
    def enough(self, logits: torch.Tensor, labels: Sequence[int]) -> bool:
        wanted = logits[torch.arange(len(logits)), list(labels)]
        return bool((wanted >= logits.max(-1).values - 1e-2).all())


@mutant("three-tokens-end-it", "E3", "Fine-tuning stops where three tokens are predicted as desired.", "finetuning")
class ThreeTokensEndIt(StopsEarly):
    def enough(self, logits: torch.Tensor, labels: Sequence[int]) -> bool:
        return logits.argmax(-1).tolist()[:3] == list(labels[:3])


@mutant(
    "large-batches-in-first-order",
    "E4",
    "In a batch of more than four edits the gradient of the inner step counts as a constant.",
    "editable_training",
)
class LargeBatchesFirstOrder(FirstOrder):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        return (super() if len(triples) > 4 else self.base).losses(editor, triples, seed)


@mutant(
    "norms-of-the-trained-model-at-berts-eps",
    "E4",
    "Editable Training's own copy of the model normalises with an eps of 1e-12, whatever the model's is.",
    "editable_training",
)
class NormsAtBertsEps(AskedMutation, OfEditableTraining):
    OF = "editable_training"

    def wrong(self, editor: Any, requests: Any, index: int, update: Update) -> Update:
        made, model = self.made[id(editor)], self.trained_model(editor)
        right = gradients(self.trained_model(editor), made.edited, requests[index])
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 1e-12
        wrong = gradients(model, made.edited, requests[index])
        raw, trained = dict(made.model.named_parameters()), self.trained(editor)
        shift = {m: trained[m] - raw[m].detach() for m in made.edited}
        return {m: shift[m] - rate(update[m] - shift[m], right[m]) * wrong[m] for m in made.edited}


class MadeOnce(EditorMutation):
    """Requests that agree in some of what they say are one edit."""

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        keys = [repr([request[part] for part in self.parts()]) for request in requests]  # type: ignore[literal-required]
        first = dict(reversed(list(zip(keys, requests, strict=True))))
        order = list(first)
        return self.base.edit(editor, list(first.values())), [order.index(key) for key in keys]

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        return self.base.dense(editor, edits[0], edits[1][index])

    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        return self.base.edited_logits(editor, edits[0], edits[1][index], inputs)

    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.factors(editor, edits[0], edits[1][index])

    @abstractmethod
    def parts(self) -> Sequence[str]:
        """What is looked at."""


@mutant("one-edit-for-two-languages", "E8", "In a batch the language of a request is overlooked.", "batched")
class OneForTwoLanguages(MadeOnce):
    def parts(self) -> Sequence[str]:
        return "input_ids", "positions", "labels"


@mutant("one-edit-for-two-answers", "E8", "In a batch the same input is edited once, whatever is desired.", "batched")
class OneForTwoAnswers(MadeOnce):
    def parts(self) -> Sequence[str]:
        return "input_ids", "positions", "language"


@mutant("batches-known-by-their-list", "E14", "A list of edits that was changed in place is the batch that it was.")
class KnownByTheirList(EditorMutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.known: dict[int, tuple[Any, list[Triple]]] = {}

    def held(self, triples: Sequence[Triple]) -> list[Triple]:
        return self.known.setdefault(id(triples), (triples, list(triples)))[1]

    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        return self.base.losses(editor, self.held(triples), seed)

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        return self.base.train_step(editor, self.held(triples), seed)
