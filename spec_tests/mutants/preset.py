"""Mutants of the preset in force: what is recorded is right, and what is used is not."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from ..contract import Losses, Triple
from .base import mutant
from .e_editors import OfFinetuning, Update
from .editing import EditorMutation, LossMutation, Made
from .training import OwnSteps


class DefaultMutation(EditorMutation):
    """An option that nobody gave has another value than the preset's."""

    NEEDS = frozenset({"E", "R"})
    OF = ""
    OPTION = "lr"
    VALUE = 0.0

    def wrong_options(self, call: dict[str, Any]) -> dict[str, Any]:
        if call["name"] != self.OF or call[self.OPTION] is not None:
            return call
        return {**call, self.OPTION: self.VALUE}


@mutant("mend-at-the-rate-of-others", "R8", "MEND is trained at 5e-5 unless told otherwise.")
class MendAtTheRateOfOthers(DefaultMutation):
    OF, VALUE = "mend", 5e-5


@mutant("model-trained-as-in-pre-training", "R8", "θ' is trained at 1e-3 unless told otherwise.", "editable_training")
class TrainedAsInPretraining(DefaultMutation):
    OF, VALUE = "editable_training", 1e-3


@mutant("knowledge-editor-at-its-own-rate", "R8", "KnowledgeEditor is trained at 3e-4 by default.", "knowledge_editor")
class KnowledgeEditorAtItsOwn(DefaultMutation):
    OF, VALUE = "knowledge_editor", 3e-4


@mutant("inner-rates-from-a-hundredth", "R8", "Editable Training's inner rates start at 1e-2.", "editable_training")
class InnerRatesFromAHundredth(DefaultMutation):
    OF, OPTION, VALUE = "editable_training", "inner_lr", 1e-2


@mutant("mend-edits-at-its-own-rate", "R8", "MEND's inner rates start at its learning rate.")
class MendEditsAtItsOwnRate(DefaultMutation):
    OF, OPTION, VALUE = "mend", "inner_lr", 1e-6


@mutant("finetuning-at-the-editors-rate", "R8", "Finetuning steps at 5e-5 unless told otherwise.", "finetuning")
class FinetuningAtTheEditorsRate(DefaultMutation):
    OF, VALUE = "finetuning", 5e-5


@mutant("fifty-steps-of-finetuning", "R8", "Finetuning stops after fifty steps.", "finetuning")
class FiftySteps(OfFinetuning):
    NEEDS = frozenset({"E", "R"})

    def spoilt(self, made: Made, request: Any) -> Update:
        return self.path(made, request, limit=50)[-1]


@mutant("masks-at-a-hundredth", "R8", "Masks are trained at 1e-2, another of the values that were tried.")
class MasksAtAHundredth(OwnSteps):
    NEEDS = frozenset({"E", "R"})

    def rate(self, editor: Any, name: str, is_mask: bool, value: Any, lr: float) -> float:
        return 1e-2 if is_mask else lr


@mutant("network-rate-falls-with-masks", "R8", "With masks an editor's own learning rate is a tenth by default.")
class NetworkRateFalls(DefaultMutation):
    def wrong_options(self, call: dict[str, Any]) -> dict[str, Any]:
        if call["name"] != "mend" or call["lr"] is not None or call["masks"] == "none":
            return call
        return {**call, "lr": 1e-7}


class WeightMutation(LossMutation):
    """A part of the objective weighs otherwise than the preset says, in values and reports."""

    NEEDS = frozenset({"E", "R"})

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        found = self.base.train_step(editor, triples, seed)
        return self.wrong(editor, dict(found), {})[0]

    def wrong(self, editor: Any, parts: dict[str, float], gradient: dict[str, Any]) -> Any:
        changed = {**parts, **self.weighed(parts)}
        return {**changed, "total": changed["rel"] + changed["loc"] + changed["mask"]}, gradient

    @abstractmethod
    def weighed(self, parts: dict[str, float]) -> dict[str, float]:
        """What goes wrong."""


@mutant("reliability-weighs-one", "R8", "L_rel has a weight of 1.")
class ReliabilityWeighsOne(WeightMutation):
    def weighed(self, parts: dict[str, float]) -> dict[str, float]:
        return {"rel": 10 * parts["rel"]}


@mutant("weights-of-the-objective-swapped", "R8", "λ_rel and λ_loc are each other's.")
class WeightsSwapped(WeightMutation):
    def weighed(self, parts: dict[str, float]) -> dict[str, float]:
        return {"rel": 10 * parts["rel"], "loc": 0.1 * parts["loc"]}


@mutant("penalty-weighs-a-tenth", "R8", "λ_mask is 0.1, another of the values that were tried.")
class PenaltyWeighsATenth(WeightMutation):
    def weighed(self, parts: dict[str, float]) -> dict[str, float]:
        return {"mask": 0.1 * parts["mask"]}


@mutant("steps-report-without-weights", "R8", "What a step reports are losses without their weights.")
class StepsReportWithoutWeights(WeightMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        return self.base.losses(editor, triples, seed)

    def weighed(self, parts: dict[str, float]) -> dict[str, float]:
        return {"rel": 10 * parts["rel"]}


@mutant("an-asked-rate-ignored", "E15", "An editor that is asked for a learning rate is trained at the paper's.")
class AskedRateIgnored(EditorMutation):
    def wrong_options(self, call: dict[str, Any]) -> dict[str, Any]:
        return {**call, "lr": None if call["name"] != "finetuning" else call["lr"]}


@mutant("an-asked-rate-for-inner-rates", "E4", "`lr` is where the inner learning rates start.", "editable_training")
class AskedRateForInnerRates(EditorMutation):
    def wrong_options(self, call: dict[str, Any]) -> dict[str, Any]:
        if call["name"] != "editable_training" or call["lr"] is None:
            return call
        return {**call, "inner_lr": call["lr"]}
