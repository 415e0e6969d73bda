"""Mutants of runs: of what is trained on, validated and judged, and of what of it is kept and told."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from ..contract import Array, Outcome, Runs as Contract
from ..runs import SHUFFLED, as_triples
from ..texts import CLASSES, read_tokenizer
from ..tiny import shifts
from .base import Mutation, mutant, named
from .d_data import facts_in, with_masks
from .m_metrics import harmonic, mean, shares

Call = dict[str, Any]
Trace = dict[str, Any]


class RunMutation(Mutation):
    """The trace of the base's run, with something in it that is wrong."""

    NEEDS = frozenset({"U", "E"})

    def run(self, *args: Any, **kwargs: Any) -> Any:
        call = named(Contract.run, args, kwargs)
        trace = self.base.run(**call)
        return trace if call["interrupt"] is not None else self.wrong(dict(trace), call)

    @abstractmethod
    def wrong(self, trace: Trace, call: Call) -> Trace:
        """What goes wrong."""

    # What several of them do.

    def raw_model(self, call: Call) -> Any:
        pairs = isinstance(call["data"], Mapping)
        kind = AutoModelForSequenceClassification if pairs else AutoModelForMaskedLM
        return kind.from_pretrained(call["model"]).eval()

    def fresh(self, trace: Trace, call: Call) -> Any:
        """An editor with the parameters of the start, and an optimiser that has not stepped."""
        model = self.raw_model(call)
        parts = (".intermediate.dense.weight", ".output.dense.weight")
        edited = self.edited([n for n, _ in model.named_parameters() if n.endswith(parts) and ".attention." not in n])
        masks = "language" if call["training"] == "lime" else "none"
        options = {"lr": call["plan"]["lr"]}
        if call["editor"] in ("mend", "editable_training"):
            options["inner_lr"] = call["plan"]["inner_lr"]
        editor = self.base.make_editor(call["editor"], model, edited, ("de", "en", "sw"), masks=masks, **options)
        self.put(editor, self.values(trace["start"]))
        return editor

    def edited(self, names: Sequence[str]) -> Sequence[str]:
        """Those of a model's MLP matrices that are edited."""
        return names[-6:]

    def values(self, editor: Any) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.base.parameters(editor).items()}

    def put(self, editor: Any, values: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, value in self.base.parameters(editor).items():
                value.copy_(values[name])

    def hits(self, editor: Any, one: Any) -> dict[str, list[bool]]:
        """Of the inputs of one edit, at test time."""
        edits = self.base.edit(editor, [one["request"]])
        found = {}
        for role in ("update", "retain"):
            inputs = [x for _, x in one[role]]
            new = [logits.argmax(-1).tolist() for logits in self.base.edited_logits(editor, edits, 0, inputs)]
            old = [logits.argmax(-1).tolist() for logits in self.kept(editor, inputs)]
            wanted = [list(one["request"]["labels"])] * len(inputs) if role == "update" else old
            found[role] = [a == b for a, b in zip(new, wanted, strict=True)]
        return found

    def kept(self, editor: Any, inputs: Sequence[Any]) -> list[torch.Tensor]:
        """The logits that con refers to."""
        return self.base.raw_logits(editor, inputs)

    def judged(self, editor: Any, edits: Sequence[Any]) -> dict[str, Any]:
        """An evaluation of these edits, judged anew."""
        found = []
        for one in edits:
            hits = self.hits(editor, one)
            found.append({**one, "update_hits": hits["update"], "retain_hits": hits["retain"]})
        return self.told(found)

    def told(self, edits: Sequence[Any]) -> dict[str, Any]:
        """An evaluation with its rates."""
        return {"edits": list(edits), **rates(edits)}


def rates(edits: Sequence[Any]) -> dict[str, float]:
    found = {}
    for name, role in (("acc", "update"), ("con", "retain")):
        by: dict[str, list[float]] = {}
        for one in edits:
            hits = one[f"{role}_hits"]
            if hits:
                by.setdefault(one["edit"]["language"], []).append(mean(hits))
        found[name] = mean([mean(values) for values in by.values()])
    return {**found, "succ": harmonic(found["acc"], found["con"])}


def outcomes(edits: Sequence[Any]) -> list[Outcome]:
    return [
        {
            "edit": f"{one['edit']['fact']}/{one['edit']['language']}",
            "edit_language": one["edit"]["language"],
            "role": role,  # type: ignore[typeddict-item]
            "language": told["language"],
            "hit": hit,
        }
        for one in edits
        for role in ("update", "retain")
        for (told, _), hit in zip(one[role], one[f"{role}_hits"], strict=True)
    ]


class EachEvaluation(RunMutation):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        found = {name: self.other(one, name, trace, call) for name, one in trace["evaluations"].items()}
        return {**trace, "evaluations": found}

    @abstractmethod
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        """What goes wrong with one evaluation."""


# U1


@mutant("last-batch-not-judged", "U1", "What does not fill a batch of edits is not judged.")
class LastBatchNotJudged(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        edits = evaluation["edits"]
        return self.told(edits[: max(1, len(edits) // 16 * 16)])


@mutant("one-edit-judged-twice", "U1", "The first edit of an evaluation is judged twice.")
class JudgedTwice(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        return self.told([*evaluation["edits"], evaluation["edits"][0]])


@mutant("judged-with-sampled-gates", "U1", "An evaluation draws the gates of its edits, as training does.")
class JudgedWithSampledGates(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        masks = [one for arrays in self.base.mask_parameters(trace["editor"]).values() for one in arrays.values()]
        if not masks:
            return evaluation
        kept, generator = [one.detach().clone() for one in masks], torch.Generator().manual_seed(0)
        with torch.no_grad():
            for one in masks:
                u = torch.rand(one.shape, generator=generator).clamp(1e-3, 1 - 1e-3)
                one.copy_((one + u.to(one).logit()) * 1.5)
        found = self.judged(trace["editor"], evaluation["edits"])
        with torch.no_grad():
            for one, old in zip(masks, kept, strict=True):
                one.copy_(old)
        return found


@mutant("first-position-judged", "U1", "Of a name of several tokens the first alone is judged.")
class FirstPositionJudged(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        return self.judged(trace["editor"], evaluation["edits"])

    def hits(self, editor: Any, one: Any) -> dict[str, list[bool]]:
        edits = self.base.edit(editor, [one["request"]])
        found = {}
        for role in ("update", "retain"):
            inputs = [x for _, x in one[role]]
            new = [logits.argmax(-1).tolist()[0] for logits in self.base.edited_logits(editor, edits, 0, inputs)]
            old = [logits.argmax(-1).tolist()[0] for logits in self.base.raw_logits(editor, inputs)]
            wanted = [one["request"]["labels"][0]] * len(inputs) if role == "update" else old
            found[role] = [a == b for a, b in zip(new, wanted, strict=True)]
        return found


@mutant("roles-of-a-run-swapped", "U1", "Update inputs are asked for the raw prediction, and retain inputs for y_e.")
class RolesSwapped(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        edits = [{**one, "update_hits": [not hit for hit in one["update_hits"]]} for one in evaluation["edits"]]
        return self.told(edits)


@mutant("one-label-for-all-edits", "U1", "An evaluation draws one label of a relation and language, for all edits.")
class OneLabelForAll(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        first: dict[Any, Any] = {}
        kept = []
        for one in evaluation["edits"]:
            key = one["edit"]["fact"].split("/")[0], one["edit"]["language"]
            first.setdefault(key, one["request"]["labels"])
            kept += [one] if one["request"]["labels"] == first[key] else []
        made = [kept[place % len(kept)] for place in range(len(evaluation["edits"]))]
        renamed = [{**m, "edit": one["edit"]} for m, one in zip(made, evaluation["edits"], strict=True)]
        return self.told(renamed)


@mutant("limit-is-a-prefix", "U1", "A limited evaluation judges the first edits of its first language.")
class LimitIsAPrefix(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        if call["plan"]["test_limit"] is None or name == "en":
            return evaluation
        english = trace["evaluations"]["en"]["edits"]
        return self.told(english)


@mutant("run-edits-the-first-layers", "U1", "A run edits the matrices of the first three layers.")
class RunEditsTheFirstLayers(RunMutation):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        if trace["steps"]:
            return trace
        editor = self.fresh(trace, call)
        evaluations = {name: self.judged(editor, one["edits"]) for name, one in trace["evaluations"].items()}
        return {**trace, "start": editor, "editor": editor, "evaluations": evaluations}

    def edited(self, names: Sequence[str]) -> Sequence[str]:
        return names[:6]


@mutant("layers-sorted-as-text", "U1", "A run takes layers 7 to 9 of twelve for the last: their names sort behind.")
class LayersSortedAsText(RunEditsTheFirstLayers):
    def edited(self, names: Sequence[str]) -> Sequence[str]:
        return sorted(names)[-6:]


@mutant("one-outcome-for-each-role", "U1", "Of the inputs of an edit one of each role is judged.")
class OneOutcomeEach(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        return self.told(
            [
                {**one, **{key: one[key][:1] for key in ("update", "retain", "update_hits", "retain_hits")}}
                for one in evaluation["edits"]
            ]
        )


@mutant("edits-of-a-run-add-up", "U1", "An edit of an evaluation is made on top of the one before.")
class EditsAddUp(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        edits = evaluation["edits"]
        shifted = [edits[0], *edits[:-1]]
        found = []
        for one, before in zip(edits, shifted, strict=True):
            hits = self.hits(trace["editor"], {**one, "request": before["request"]})
            found.append({**one, "update_hits": hits["update"], "retain_hits": hits["retain"]})
        return self.told(found)


@mutant("right-pairs-judged-too", "U1", "An evaluation of sentence pairs edits what the raw model gets right, too.")
class RightPairsJudged(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        if not isinstance(call["data"], Mapping):
            return evaluation
        have = {(one["edit"]["fact"], one["edit"]["language"]) for one in evaluation["edits"]}
        spare = [one for one in evaluation["edits"] if one["edit"]["language"] == "en"][:1]
        rows = [str(row) for row in range(len(call["data"]["test"])) if (str(row), "en") not in have]
        more = [{**one, "edit": {"fact": row, "language": "en"}} for one in spare for row in rows[:1]]
        return self.told([*evaluation["edits"], *more])


# U2, U3


@mutant("con-against-the-trained-model", "U2", "con refers to what θ' predicts.", "editable_training")
class ConAgainstTrained(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        if call["editor"] != "editable_training":
            return evaluation
        model = self.raw_model(call)
        edited = list(self.base.trained_weights(trace["editor"]))
        world = type("World", (), {"model": model, "edited": edited})
        moved = shifts(self.base, trace["editor"], call["editor"], world)  # type: ignore[arg-type]
        with torch.no_grad():
            for matrix, shift in moved.items():
                dict(model.named_parameters())[matrix].add_(shift)
        self.model = model
        return self.judged(trace["editor"], evaluation["edits"])

    def kept(self, editor: Any, inputs: Sequence[Any]) -> list[torch.Tensor]:
        found = []
        for one in inputs:
            with torch.no_grad():
                found.append(self.model(input_ids=torch.tensor([one["input_ids"]])).logits[0][one["positions"]])
        return found


@mutant("con-against-the-last-edit", "U2", "con refers to what the last edited model predicts.")
class ConAgainstLast(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        self.last: Any = None
        found = []
        for one in evaluation["edits"]:
            hits = self.hits(trace["editor"], one)
            self.last = one["request"]
            found.append({**one, "update_hits": hits["update"], "retain_hits": hits["retain"]})
        return self.told(found)

    def kept(self, editor: Any, inputs: Sequence[Any]) -> list[torch.Tensor]:
        if self.last is None:
            return self.base.raw_logits(editor, inputs)
        return self.base.edited_logits(editor, self.base.edit(editor, [self.last]), 0, inputs)


@mutant("english-edits-for-all", "U3", "The evaluation from all languages is the one from English.")
class EnglishForAll(RunMutation):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        english = trace["evaluations"]["en"]
        return {**trace, "evaluations": {"en": english, "all": english}}


@mutant("english-inputs-of-english-edits", "U3", "From English, update and retain inputs are English.")
class EnglishInputs(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        if name != "en":
            return evaluation
        edits = []
        for one in evaluation["edits"]:
            kept = {}
            for role in ("update", "retain"):
                told = [place for place, (at, _) in enumerate(one[role]) if at["language"] == "en"] or [0]
                kept[role] = [one[role][told[place % len(told)]] for place in range(len(one[role]))]
            edits.append({**one, **kept})
        return self.judged(trace["editor"], edits)


@mutant("run-reports-a-micro-average", "U3", "A run reports rates over all edits at once.")
class MicroAverage(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        rows = outcomes(evaluation["edits"])
        acc, con = (mean(list(shares(rows, role, "edit").values())) for role in ("update", "retain"))
        return {**evaluation, "acc": acc, "con": con, "succ": harmonic(acc, con)}


@mutant("run-reports-mean-success", "U3", "A run reports the mean of its edits' harmonic means.")
class MeanSuccess(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        each = [harmonic(mean(one["update_hits"]), mean(one["retain_hits"])) for one in evaluation["edits"]]
        return {**evaluation, "succ": mean(each)}


# U4, U5, U6: trainings


class OwnTraining(RunMutation):
    """Trains once more, with the base's steps, and judges that; what goes wrong is left to subclasses."""

    def wrong(self, trace: Trace, call: Call) -> Trace:
        if call["training"] is None:
            return trace
        editor, plan = self.fresh(trace, call), call["plan"]
        steps: list[Any] = []
        validations: list[Any] = []
        best, kept = 0, self.values(editor)
        asked = self.validated(trace, call)
        for number, step in enumerate(trace["steps"]):
            batch = self.batch(trace, number, call)
            edits = (number + 1) * plan["batch"]
            loss = self.step(editor, as_triples(batch), self.seed(trace, number), number, trace, call)
            steps.append({**step, "asked": batch, "seed": self.told_seed(trace, number), "edits": edits, "loss": loss})
            if self.validates(edits, number + 1, plan):
                judged = [self.with_hits(editor, one) for one in asked]
                found = self.rated(judged)
                validations.append({"edits": edits, "asked": asked, **found})
                if all(self.better(found, v) for v in validations[:-1]):
                    best, kept = edits, self.values(editor)
                if self.ends(edits, best, number + 1, plan):
                    break
        self.put(editor, self.judged_values(editor, kept))
        evaluations = {n: self.judged(editor, one["edits"]) for n, one in trace["evaluations"].items()}
        told = {"steps": steps, "validations": validations, "stopped": edits, "judged": best}
        return {**trace, **told, "evaluations": evaluations, "editor": editor}

    def with_hits(self, editor: Any, one: Any) -> Any:
        hits = self.hits(editor, one)
        return {**one, "update_hits": hits["update"], "retain_hits": hits["retain"]}

    def validated(self, trace: Trace, call: Call) -> Any:
        return trace["validations"][0]["asked"]

    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        return trace["steps"][number]["asked"]

    def seed(self, trace: Trace, number: int) -> int:
        return int(trace["steps"][number]["seed"])

    def told_seed(self, trace: Trace, number: int) -> int:
        return int(trace["steps"][number]["seed"])

    def step(self, editor: Any, triples: Any, seed: int, number: int, trace: Trace, call: Call) -> float:
        return float(self.base.train_step(editor, triples, seed)["total"])

    def rated(self, judged: Sequence[Any]) -> dict[str, float]:
        return rates(judged)

    def validates(self, edits: int, steps: int, plan: Any) -> bool:
        return edits % plan["validate_every"] == 0

    def better(self, found: Any, earlier: Any) -> bool:
        return bool(found["succ"] > earlier["succ"])

    def ends(self, edits: int, best: int, steps: int, plan: Any) -> bool:
        return bool(edits - best >= plan["patience"])

    def judged_values(self, editor: Any, kept: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return kept


@mutant("the-same-batch-every-step", "U4", "Every step of a training sees the edits of the first.")
class SameBatch(OwnTraining):
    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        return trace["steps"][0]["asked"]


@mutant("the-same-gates-every-step", "U4", "Every step of a training draws the gates of the first.")
class SameGates(OwnTraining):
    def seed(self, trace: Trace, number: int) -> int:
        return int(trace["steps"][0]["seed"])

    def told_seed(self, trace: Trace, number: int) -> int:
        return self.seed(trace, number)


@mutant("gates-of-another-step-told", "U5", "Every step draws the gates of the first, and says others.")
class GatesTold(OwnTraining):
    def seed(self, trace: Trace, number: int) -> int:
        return int(trace["steps"][0]["seed"])


@mutant("trained-on-validation", "U4", "A part of each batch comes from the validation set.")
class TrainedOnValidation(OwnTraining):
    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        batch = list(trace["steps"][number]["asked"])
        other = trace["validations"][0]["asked"][number % len(trace["validations"][0]["asked"])]
        return [*batch[:-1], {**other, "update": other["update"][:1], "retain": other["retain"][:1]}]


@mutant("english-only-trains-on-everything", "U4", "A training on English alone trains on all languages.")
class EnglishTrainsOnAll(RunMutation):
    def run(self, *args: Any, **kwargs: Any) -> Any:
        call = named(Contract.run, args, kwargs)
        return self.base.run(**call | {"training": "all" if call["training"] == "en" else call["training"]})

    def wrong(self, trace: Trace, call: Call) -> Trace:
        return trace


@mutant("english-pairs-train-on-everything", "U4", "A training of pairs on English alone trains on all languages.")
class EnglishPairsTrainOnAll(EnglishTrainsOnAll):
    def run(self, *args: Any, **kwargs: Any) -> Any:
        call = named(Contract.run, args, kwargs)
        return super().run(**call) if isinstance(call["data"], Mapping) else self.base.run(**call)


@mutant("all-means-english", "U4", "A training on all languages edits in English, and updates in all.")
class AllMeansEnglish(OwnTraining):
    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        pool = [one for step in trace["steps"] for one in step["asked"] if one["edit"]["language"] == "en"]
        size = call["plan"]["batch"]
        return [pool[(number * size + place) % len(pool)] for place in range(size)]


@mutant("updates-in-the-edit-language", "U4", "A training on all languages updates in the language of the edit.")
class UpdatesInTheEditLanguage(OwnTraining):
    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        batch = []
        for one in trace["steps"][number]["asked"]:
            request = one["request"]
            own = {k: request[k] for k in ("input_ids", "positions", "token_type_ids") if k in request}
            batch.append({**one, "update": [(one["edit"], own)]})
        return batch


@mutant("training-desires-the-known", "U4", "A training of sentence pairs desires the gold class.")
class TrainingDesiresGold(OwnTraining):
    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        batch = trace["steps"][number]["asked"]
        if not isinstance(call["data"], Mapping):
            return batch
        order = (1, 2, 0)  # of the classes in the suite's classifier
        gold = [order[call["data"]["train"][int(one["edit"]["fact"])]["label"]] for one in batch]
        return [
            {**one, "request": {**one["request"], "labels": [label]}} for one, label in zip(batch, gold, strict=True)
        ]


@mutant("rates-fall-unsaid", "U5", "Steps grow shorter in the course of a training.")
class RatesFall(OwnTraining):
    def step(self, editor: Any, triples: Any, seed: int, number: int, trace: Trace, call: Call) -> float:
        before = self.values(editor)
        loss = super().step(editor, triples, seed, number, trace, call)
        after = self.values(editor)
        self.put(editor, {name: old + (after[name] - old) / (number + 1) for name, old in before.items()})
        return loss


@mutant("moments-lost-at-validation", "U5", "Every validation makes the optimiser anew.")
class MomentsLost(OwnTraining):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        self.anew: Any = None
        return super().wrong(trace, call)

    def step(self, editor: Any, triples: Any, seed: int, number: int, trace: Trace, call: Call) -> float:
        every = call["plan"]["validate_every"] // call["plan"]["batch"]
        if number and number % every == 0:
            self.anew = self.fresh(trace, call)
        if self.anew is None:
            return super().step(editor, triples, seed, number, trace, call)
        self.put(self.anew, self.values(editor))
        loss = float(self.base.train_step(self.anew, triples, seed)["total"])
        self.put(editor, self.values(self.anew))
        return loss


@mutant("loss-of-the-step-before", "U5", "What a step reports is the loss of the step before.")
class LossOfTheStepBefore(RunMutation):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        losses = [step["loss"] for step in trace["steps"]]
        steps = [{**step, "loss": losses[max(0, n - 1)]} for n, step in enumerate(trace["steps"])]
        return {**trace, "steps": steps}


@mutant("masks-frozen-in-runs", "U5", "In a run the masks stay where they began.")
class MasksFrozen(OwnTraining):
    def step(self, editor: Any, triples: Any, seed: int, number: int, trace: Trace, call: Call) -> float:
        masks = [one for arrays in self.base.mask_parameters(editor).values() for one in arrays.values()]
        kept = [one.detach().clone() for one in masks]
        loss = super().step(editor, triples, seed, number, trace, call)
        with torch.no_grad():
            for one, old in zip(masks, kept, strict=True):
                one.copy_(old)
        return loss


@mutant("reader-steps-twice", "U5", "A training of KnowledgeEditor steps twice on each batch.")
class ReaderStepsTwice(OwnTraining):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        return super().wrong(trace, call) if call["editor"] == "knowledge_editor" else trace

    def step(self, editor: Any, triples: Any, seed: int, number: int, trace: Trace, call: Call) -> float:
        loss = super().step(editor, triples, seed, number, trace, call)
        super().step(editor, triples, seed, number, trace, call)
        return loss


@mutant("best-is-an-alias", "U6", "What is kept as best moves on with the training.")
class BestIsAnAlias(OwnTraining):
    def judged_values(self, editor: Any, kept: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self.values(editor)


@mutant("start-is-judged", "U6", "What is judged has the parameters of the start.")
class StartIsJudged(OwnTraining):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        self.began = self.values(trace["start"])
        return super().wrong(trace, call)

    def judged_values(self, editor: Any, kept: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self.began


@mutant("patience-in-optimiser-steps", "U6", "Patience counts optimiser steps, where validation counts edits.")
class PatienceInSteps(OwnTraining):
    def ends(self, edits: int, best: int, steps: int, plan: Any) -> bool:
        return bool(steps - best // plan["batch"] >= plan["patience"])


@mutant("validation-every-step", "U6", "Validation comes after each optimiser step.")
class ValidationEveryStep(OwnTraining):
    def validates(self, edits: int, steps: int, plan: Any) -> bool:
        return True


@mutant("validation-at-the-end-alone", "U6", "Validation comes once, at the end.")
class ValidationAtTheEnd(OwnTraining):
    def validates(self, edits: int, steps: int, plan: Any) -> bool:
        return edits == plan["edits"]


@mutant("best-by-acc", "U6", "The best validation is that with the highest acc.")
class BestByAcc(OwnTraining):
    def better(self, found: Any, earlier: Any) -> bool:
        return bool(found["acc"] > earlier["acc"])


@mutant("best-by-con", "U6", "The best validation is that with the highest con.")
class BestByCon(OwnTraining):
    def better(self, found: Any, earlier: Any) -> bool:
        return bool(found["con"] > earlier["con"])


@mutant("later-of-equals-is-best", "U6", "Of equally good validations the last is judged.")
class LaterOfEquals(OwnTraining):
    def better(self, found: Any, earlier: Any) -> bool:
        return bool(found["succ"] >= earlier["succ"])


@mutant("validated-on-test", "U6", "Validation asks edits of the test set.")
class ValidatedOnTest(OwnTraining):
    def validated(self, trace: Trace, call: Call) -> Any:
        keys = ("edit", "request", "update", "retain")
        edits = trace["evaluations"]["en" if call["training"] == "en" else "all"]["edits"][:12]
        return [{key: one[key] for key in keys} for one in edits]


@mutant("validated-on-training", "U6", "Validation asks edits that were trained on.")
class ValidatedOnTraining(OwnTraining):
    def validated(self, trace: Trace, call: Call) -> Any:
        return trace["steps"][0]["asked"]


@mutant("english-validated-on-everything", "U6", "A training on English is validated in all languages.")
class EnglishValidatedOnAll(OwnTraining):
    def validated(self, trace: Trace, call: Call) -> Any:
        if call["training"] != "en":
            return super().validated(trace, call)
        with_all = self.base.run(**call | {"training": "all", "folder": _beside(call["folder"])})
        return with_all["validations"][0]["asked"]


def _beside(folder: Path) -> Path:
    other = Path(folder).with_name(f"{Path(folder).name}-{random.getrandbits(32)}")
    other.mkdir()
    return other


@mutant("validated-before-its-steps", "U6", "What a validation reports is that of the validation before.")
class ValidatedBefore(RunMutation):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        told = trace["validations"]
        names = ("acc", "con", "succ")
        moved = [{**v, **{n: told[max(0, at - 1)][n] for n in names}} for at, v in enumerate(told)]
        return {**trace, "validations": moved}


# U7


class Resumed(RunMutation):
    """Something is lost where a run goes on from what another left."""

    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.interrupted = False

    def run(self, *args: Any, **kwargs: Any) -> Any:
        call = named(Contract.run, args, kwargs)
        if call["interrupt"] is not None:
            self.interrupted = True
            return self.base.run(**call)
        if not self.interrupted:
            return self.base.run(**call)
        self.interrupted = False
        return self.wrong(dict(self.going_on(call)), call)

    def going_on(self, call: Call) -> Trace:
        return self.base.run(**call)

    def wrong(self, trace: Trace, call: Call) -> Trace:
        return trace


@mutant("interrupted-runs-begin-anew", "U7", "An interrupted run begins anew.", "resumable")
class BeginsAnew(Resumed):
    def going_on(self, call: Call) -> Trace:
        return self.base.run(**call | {"folder": _beside(call["folder"])})


@mutant("moments-lost-on-resuming", "U7", "The optimiser's moments are lost where a run goes on.", "resumable")
class MomentsLostOnResuming(Resumed):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        with torch.no_grad():
            for value in self.base.parameters(trace["editor"]).values():
                value.mul_(1 + 1e-6)
        return trace


@mutant("due-validation-lost-on-resuming", "U7", "A validation that was due is not made up for.", "resumable")
class DueValidationLost(Resumed):
    due = 0

    def run(self, *args: Any, **kwargs: Any) -> Any:
        self.due = named(Contract.run, args, kwargs)["interrupt"] or self.due
        return super().run(*args, **kwargs)

    def wrong(self, trace: Trace, call: Call) -> Trace:
        return {**trace, "validations": [one for one in trace["validations"] if one["edits"] != self.due]}


@mutant("best-lost-on-resuming", "U7", "The best so far is forgotten where a run goes on.", "resumable")
class BestLost(Resumed):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        return {**trace, "judged": trace["stopped"]}


@mutant("draws-begin-anew-on-resuming", "U7", "A run that goes on draws from the beginning.", "resumable")
class DrawsBeginAnew(Resumed):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        steps = trace["steps"]
        return {**trace, "steps": [{**step, "asked": steps[0]["asked"]} for step in steps]}


@mutant("gates-begin-anew-on-resuming", "U7", "A run that goes on numbers its steps from the first.", "resumable")
class GatesBeginAnew(Resumed):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        steps = trace["steps"]
        return {**trace, "steps": [{**step, "seed": number} for number, step in enumerate(steps)]}


# U8


class FigureMutation(Mutation):
    NEEDS = frozenset({"U", "E"})

    def preferences(self, editor: Any) -> tuple[Sequence[str], Array]:
        languages, table = self.base.preferences(editor)
        masks = self.base.mask_parameters(editor)
        parts = [[arrays[factor].detach().double().numpy() for factor in ("x", "delta")] for arrays in masks.values()]
        return languages, self.of(parts, np.asarray(table))

    @abstractmethod
    def of(self, parts: list[list[Array]], table: Array) -> Array:
        """What goes wrong."""

    def cosines(self, values: Array) -> Array:
        rows = []
        for own in values:
            top = np.argsort(-own)[: max(1, round(values.shape[1] / 100))]
            a, b = own[top], values[:, top]
            rows.append(b @ a / (np.linalg.norm(a) * np.linalg.norm(b, axis=1)))
        return np.stack(rows)


@mutant("figure-of-x-alone", "U8", "Figure 5 is made of the masks of x.")
class FigureOfX(FigureMutation):
    def of(self, parts: list[list[Array]], table: Array) -> Array:
        return self.cosines(np.concatenate([one[0] for one in parts], axis=1))


@mutant("figure-of-delta-alone", "U8", "Figure 5 is made of the masks of δ.")
class FigureOfDelta(FigureMutation):
    def of(self, parts: list[list[Array]], table: Array) -> Array:
        return self.cosines(np.concatenate([one[1] for one in parts], axis=1))


@mutant("figure-of-one-matrix", "U8", "Figure 5 is made of the masks of the first matrix.")
class FigureOfOneMatrix(FigureMutation):
    def of(self, parts: list[list[Array]], table: Array) -> Array:
        return self.cosines(np.concatenate(parts[0], axis=1))


@mutant("figure-of-gates", "U8", "Figure 5 is made of the gates, not of log α.")
class FigureOfGates(FigureMutation):
    def of(self, parts: list[list[Array]], table: Array) -> Array:
        values = np.concatenate([one for pair in parts for one in pair], axis=1)
        return self.cosines(np.clip(1.2 / (1 + np.exp(-values)) - 0.1, 0, 1) + 1e-9)


@mutant("figure-with-sorted-names", "U8", "The rows of Figure 5 are named in sorted order.")
class FigureWithSortedNames(Mutation):
    NEEDS = frozenset({"U", "E"})

    def preferences(self, editor: Any) -> tuple[Sequence[str], Array]:
        languages, table = self.base.preferences(editor)
        return sorted(languages, reverse=list(languages) == sorted(languages)), table


@mutant("labels-of-examples", "U4", "An example that is edited again gets the label and the inputs of the first time.")
class LabelsOfExamples(OwnTraining):
    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        before = [one for step in trace["steps"][: number + 1] for one in step["asked"]]
        return [next(one for one in before if one["edit"] == own["edit"]) for own in trace["steps"][number]["asked"]]


@mutant("length-of-an-example", "U4", "A retain input has the length that it had when it was first drawn.")
class LengthOfAnExample(OwnTraining):
    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        first: dict[tuple[str, str], Any] = {}
        for step in trace["steps"][: number + 1]:
            for one in step["asked"]:
                (told, x) = one["retain"][0]
                first.setdefault((told["fact"], told["language"]), [(told, x)])
        return [
            {**one, "retain": first[one["retain"][0][0]["fact"], one["retain"][0][0]["language"]]}
            for one in trace["steps"][number]["asked"]
        ]


@mutant("runs-of-one-seed", "S7", "A run makes its seed 3, whatever seed it is asked for.", "U", "E")
class RunsOfOneSeed(Mutation):
    def run(self, *args: Any, **kwargs: Any) -> Any:
        return self.base.run(**named(Contract.run, args, kwargs) | {"seed": 3})


@mutant("retain-inputs-of-a-few", "U1", "All edits of an evaluation are judged on some retain inputs of one small set.")
class RetainInputsOfAFew(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        few = [pair for one in evaluation["edits"] for pair in one["retain"]][:15]
        edits = []
        for place, one in enumerate(evaluation["edits"]):
            rest = [pair for pair in few if pair[0]["fact"] != one["edit"]["fact"]]
            edits.append({**one, "retain": [rest[(place + n) % len(rest)] for n in range(len(one["retain"]))]})
        return self.judged(trace["editor"], edits)


@mutant("first-edits-of-each-language", "S9", "A limited evaluation judges the first edits of each language.", "U", "E")
class FirstOfEachLanguage(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        if call["plan"]["test_limit"] is None:
            return evaluation
        told = {one["edit"]["language"]: one for one in evaluation["edits"]}
        left, edits = Counter(one["edit"]["language"] for one in evaluation["edits"]), []
        test = {f"{row['relation']}/{row['sub_uri']}" for row in self.base.split(call["data"])["test"]}
        for row in facts_in(call["data"]):
            fact, said = f"{row['relation']}/{row['sub_uri']}", row["language"]
            if fact in test and left[said]:
                left[said] -= 1
                edits.append({**told[said], "edit": {"fact": fact, "language": said}})
        return self.told(edits)


@mutant("update-inputs-never-the-edit", "U4", "x_u of a training is another sentence than x_e where there is one.")
class UpdatesNeverTheEdit(OwnTraining):
    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        mask = None if isinstance(call["data"], Mapping) else read_tokenizer(call["model"]).mask_token_id
        others: dict[str, list[Any]] = {}
        for one in (one for step in trace["steps"] for one in step["asked"]):
            others.setdefault(one["edit"]["fact"], []).append(one["update"][0])
        batch = []
        for one in trace["steps"][number]["asked"]:
            there = [pair for pair in others[one["edit"]["fact"]] if pair[0]["language"] != one["edit"]["language"]]
            told, x = there[number % len(there)] if there else one["update"][0]
            if mask is not None:
                x = with_masks(x, mask, len(one["request"]["labels"]))
            batch.append({**one, "update": [(told, x)]})
        return batch


@mutant("only-told-in-two-languages", "U4", "A training edits only facts that more than one of its languages tells.")
class OnlyToldInTwo(OwnTraining):
    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        batch = trace["steps"][number]["asked"]
        if isinstance(call["data"], Mapping) or call["training"] == "en":
            return batch
        told = Counter(f"{row['relation']}/{row['sub_uri']}" for row in facts_in(call["data"]))
        pool = [one for step in trace["steps"] for one in step["asked"] if told[one["edit"]["fact"]] > 1]
        size = call["plan"]["batch"]
        return [pool[(number * size + place) % len(pool)] for place in range(size)]


@mutant("validated-by-all-edits-alike", "U6", "A validation's acc and con are means over its edits, of any language.")
class ValidatedByEdits(OwnTraining):
    def rated(self, judged: Sequence[Any]) -> dict[str, float]:
        rows = outcomes(judged)
        acc, con = (mean(list(shares(rows, role, "edit").values())) for role in ("update", "retain"))
        return {"acc": acc, "con": con, "succ": harmonic(acc, con)}


# Draws that follow from what they are drawn for


class OfFacts:
    """What the data of a run of facts say, and edits that desire something else."""

    def known(self, call: Call) -> dict[tuple[str, str], list[int]]:
        """The known answer of each example."""
        encode = read_tokenizer(call["model"])
        return {
            (f"{row['relation']}/{row['sub_uri']}", row["language"]): encode(
                row["obj_label"], add_special_tokens=False
            )["input_ids"]
            for row in facts_in(call["data"])
        }

    def desiring(self, one: Any, label: list[int], call: Call) -> Any:
        mask = read_tokenizer(call["model"]).mask_token_id
        request = {**with_masks(one["request"], mask, len(label)), "labels": label}
        update = [(told, with_masks(x, mask, len(label))) for told, x in one["update"]]
        return {**one, "request": request, "update": update}

    def towards_the_known(self, asked: Sequence[Any], call: Call) -> list[Any]:
        known = self.known(call)
        return [self.desiring(one, known[one["edit"]["fact"], one["edit"]["language"]], call) for one in asked]


class FromAPool(OwnTraining):
    """The edits of all steps, but for some, in their order, and again from the first."""

    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        pool = self.pool([one for step in trace["steps"] for one in step["asked"]], call)
        size = call["plan"]["batch"]
        return [pool[(number * size + place) % len(pool)] for place in range(size)]

    @abstractmethod
    def pool(self, asked: list[Any], call: Call) -> list[Any]:
        """What goes wrong."""


@mutant("known-answers-never-desired", "U4", "A training never desires the known answer.")
class KnownNeverDesired(FromAPool, OfFacts):
    def pool(self, asked: list[Any], call: Call) -> list[Any]:
        if isinstance(call["data"], Mapping):
            return asked
        known = self.known(call)
        return [o for o in asked if o["request"]["labels"] != known[o["edit"]["fact"], o["edit"]["language"]]]


@mutant("gold-classes-never-desired", "U4", "A training on pairs never desires the gold class.")
class GoldNeverDesired(FromAPool):
    def pool(self, asked: list[Any], call: Call) -> list[Any]:
        if not isinstance(call["data"], Mapping):
            return asked
        rows = call["data"]["train"]
        gold = {str(row): SHUFFLED.index(CLASSES[told["label"]]) for row, told in enumerate(rows)}
        return [one for one in asked if list(one["request"]["labels"]) != [gold[one["edit"]["fact"]]]]


@mutant("steps-of-one-language", "U4", "All edits of a step are in one language.")
class StepsOfOneLanguage(FromAPool):
    def pool(self, asked: list[Any], call: Call) -> list[Any]:
        return sorted(asked, key=lambda one: one["edit"]["language"])


@mutant("retained-as-edited-in-the-step", "U4", "x_r is x_e of another edit of the step, where that is no parallel.")
class RetainedAsEdited(OwnTraining):
    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        batch = trace["steps"][number]["asked"]
        if isinstance(call["data"], Mapping):
            return batch
        mask = read_tokenizer(call["model"]).mask_token_id
        made = []
        for one, other in zip(batch, [*batch[1:], batch[0]], strict=True):
            x = with_masks(
                {k: other["request"][k] for k in ("input_ids", "positions")},
                mask,
                len(one["retain"][0][1]["positions"]),
            )
            alike = one["edit"]["fact"] == other["edit"]["fact"]
            made.append(one if alike else {**one, "retain": [(other["edit"], x)]})
        return made


@mutant("retained-in-the-edit-language", "U4", "A training retains in the language of the edit, and draws it afresh.")
class RetainedInTheEditLanguage(OwnTraining):
    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        drawn: dict[str, list[Any]] = {}
        for one in (one for step in trace["steps"] for one in step["asked"]):
            drawn.setdefault(one["retain"][0][0]["language"], []).append(one["retain"][0])
        batch = []
        for place, one in enumerate(trace["steps"][number]["asked"]):
            pool = drawn.get(one["edit"]["language"], one["retain"])
            apart = [pair for pair in pool if pair[0]["fact"] != one["edit"]["fact"]] or one["retain"]
            batch.append({**one, "retain": [apart[(7 * number + place) % len(apart)]]})
        return batch


@mutant("validated-towards-the-known", "U6", "The edits of a validation desire the known answer.")
class ValidatedTowardsTheKnown(OwnTraining, OfFacts):
    def validated(self, trace: Trace, call: Call) -> Any:
        asked = super().validated(trace, call)
        return asked if isinstance(call["data"], Mapping) else self.towards_the_known(asked, call)


@mutant("judged-towards-the-known", "U1", "The edits of an evaluation desire the known answer.")
class JudgedTowardsTheKnown(EachEvaluation, OfFacts):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        if isinstance(call["data"], Mapping):
            return evaluation
        return self.judged(trace["editor"], self.towards_the_known(evaluation["edits"], call))


@mutant(
    "judged-at-the-labels-length", "U1", "In an evaluation a retain input has as many masks as the label has tokens."
)
class JudgedAtTheLabelsLength(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        if isinstance(call["data"], Mapping):
            return evaluation
        mask = read_tokenizer(call["model"]).mask_token_id
        edits = [
            {**o, "retain": [(told, with_masks(x, mask, len(o["request"]["labels"]))) for told, x in o["retain"]]}
            for o in evaluation["edits"]
        ]
        return self.judged(trace["editor"], edits)


@mutant("retained-where-the-raw-model-is-right", "U1", "An evaluation of pairs retains what the raw model gets right.")
class RetainedWhereRight(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        if not isinstance(call["data"], Mapping):
            return evaluation
        gold = {str(n): SHUFFLED.index(CLASSES[row["label"]]) for n, row in enumerate(call["data"]["test"])}
        drawn = {(t["fact"], t["language"]): (t, x) for one in evaluation["edits"] for t, x in one["retain"]}
        said = self.kept(trace["editor"], [x for _, x in drawn.values()])
        right = [
            p for p, logits in zip(drawn.values(), said, strict=True) if int(logits.argmax()) == gold[p[0]["fact"]]
        ]
        edits = []
        for place, one in enumerate(evaluation["edits"]):
            pool = [pair for pair in right if pair[0]["fact"] != one["edit"]["fact"]]
            edits.append({**one, "retain": [pool[(3 * place + n) % len(pool)] for n in range(len(one["retain"]))]})
        return self.judged(trace["editor"], edits)


@mutant("examples-of-one-seed", "S7", "A training of any seed has the same examples, with other labels.", "U", "E")
class ExamplesOfOneSeed(OwnTraining, OfFacts):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        if call["training"] is None or call["seed"] == 3:
            return trace
        self.first = self.base.run(**call | {"seed": 3, "folder": _beside(call["folder"])})["steps"]
        return super().wrong(trace, call)

    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        own: dict[Any, list[int]] = {}
        for one in (one for step in trace["steps"] for one in step["asked"]):
            own[one["edit"]["fact"].split("/")[0], one["edit"]["language"]] = one["request"]["labels"]
        return [
            self.desiring(
                one,
                own.get((one["edit"]["fact"].split("/")[0], one["edit"]["language"]), one["request"]["labels"]),
                call,
            )
            for one in self.first[number]["asked"]
        ]


@mutant("languages-that-prefer-alike-share-a-row", "U8", "Languages of one hundredth of dimensions share a row.")
class ShareARow(FigureMutation):
    def of(self, parts: list[list[Array]], table: Array) -> Array:
        values = np.concatenate([one for pair in parts for one in pair], axis=1)
        rows: dict[tuple[int, ...], int] = {}
        for row, own in enumerate(values):
            top = sorted(np.argsort(-own)[: max(1, round(values.shape[1] / 100))].tolist())
            table[row] = table[rows.setdefault(tuple(top), row)]
        return table


@mutant("masks-of-the-last-step-judged", "U6", "What is judged has the masks of the last step.")
class MasksOfTheLastStep(OwnTraining):
    def judged_values(self, editor: Any, kept: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        last = self.values(editor)
        with torch.no_grad():
            for arrays in self.base.mask_parameters(editor).values():
                for one in arrays.values():
                    one.add_(1)
        moved = self.values(editor)
        return {name: torch.where(moved[name] == last[name], kept[name], last[name]) for name in kept}


@mutant("rates-of-the-last-step-judged", "U6", "What is judged has the inner rates of the last step.")
class RatesOfTheLastStep(OwnTraining):
    def judged_values(self, editor: Any, kept: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        last = self.values(editor)
        return {name: last[name] if "rate" in name or "lr" in name else kept[name] for name in kept}


@mutant("earlier-best-lost-on-resuming", "U7", "A best older than what a run goes on from is lost.", "resumable")
class EarlierBestLost(Resumed):
    def wrong(self, trace: Trace, call: Call) -> Trace:
        if not trace["steps"] or trace["judged"] >= trace["steps"][0]["edits"] - call["plan"]["batch"]:
            return trace
        with torch.no_grad():
            for value in self.base.parameters(trace["editor"]).values():
                value.mul_(1 + 1e-6)
        return trace


def told_in_english(call: Call) -> set[str]:
    """The facts that English tells, in whichever split."""
    if isinstance(call["data"], Mapping):
        return {str(row) for part in call["data"].values() for row in range(len(part))}
    rows = [row for row in facts_in(call["data"]) if row["language"] == "en"]
    return {f"{row['relation']}/{row['sub_uri']}" for row in rows}


@mutant("judged-where-english-tells", "U1", "An evaluation goes through the facts that English tells.")
class JudgedWhereEnglishTells(EachEvaluation):
    def other(self, evaluation: Any, name: str, trace: Trace, call: Call) -> Any:
        told = told_in_english(call)
        return self.told([one for one in evaluation["edits"] if one["edit"]["fact"] in told])


@mutant("trained-where-english-tells", "U4", "A training goes through the facts that English tells.")
class TrainedWhereEnglishTells(OwnTraining):
    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        told, asked = told_in_english(call), trace["steps"][number]["asked"]
        kept = [one for one in asked if one["edit"]["fact"] in told]
        return [kept[place % len(kept)] for place in range(len(asked))]


@mutant("trained-towards-any-relation", "U4", "A training desires an entity of another relation.")
class TrainedTowardsAnyRelation(OwnTraining, OfFacts):
    def batch(self, trace: Trace, number: int, call: Call) -> Any:
        batch = trace["steps"][number]["asked"]
        return batch if isinstance(call["data"], Mapping) else [self.towards_another(one, call) for one in batch]

    def towards_another(self, one: Any, call: Call) -> Any:
        request, relation = one["request"], one["edit"]["fact"].split("/")[0]
        far = [label for (fact, _), label in self.known(call).items() if fact.split("/")[0] != relation]
        label = next((label for label in far if len(label) == len(request["labels"])), request["labels"])
        return {**one, "request": {**request, "labels": label}}


@mutant("second-interruption-loses-the-first-part", "U7", "Interrupted twice, a run knows its last part.", "resumable")
class SecondInterruption(Resumed):
    times = 0

    def run(self, *args: Any, **kwargs: Any) -> Any:
        self.times = self.times + 1 if named(Contract.run, args, kwargs)["interrupt"] is not None else self.times
        return super().run(*args, **kwargs)

    def wrong(self, trace: Trace, call: Call) -> Trace:
        times, self.times = self.times, 0
        return trace if times < 2 else {**trace, "judged": trace["validations"][-1]["edits"] + 1}
