"""Mutants of chapter T, the task."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import torch

from ..contract import Example, Input, Losses, Pair, Request, Sampling, Triple
from ..tiny import cross_entropy, divergence, logits_of, with_update
from .base import Mutation, mutant, named
from .editing import (
    AskedMutation,
    DenseMutation,
    EditorMutation,
    NotedEdits,
    OfEditableTraining,
    ScaledMutation,
    Update,
)
from .m_metrics import mean


@mutant("parallel-without-itself", "T1", "I(x) leaves x itself out.")
class ParallelWithoutItself(Mutation):
    def parallel(self, corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
        return [other for other in self.base.parallel(corpus, example, languages) if other != example]


@mutant("facts-read-from-ids", "T1", "The fact of an example is what its id says before the last slash.")
class FactsReadFromIds(Mutation):
    def parallel(self, corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
        told: list[Example] = [{**e, "fact": e["id"].rpartition("/")[0] or e["id"]} for e in corpus]
        return self.base.parallel(told, example, languages)


@mutant(
    "the-last-of-a-fact-told-twice", "T1", "What draws takes the last of two examples of a fact in one language.", "S"
)
class LastOfAFactToldTwice(Mutation):
    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        told = {(example["fact"], example["language"]): example for example in call["corpus"]}
        return self.base.evaluation_pairs(**call | {"corpus": list(told.values())})


@mutant("parallel-in-every-language", "T1", "I(x) ignores the languages that it is asked for.")
class ParallelInEveryLanguage(Mutation):
    def parallel(self, corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
        return self.base.parallel(corpus, example)


@mutant("right-answers-skipped", "T3", "Inputs that the raw model answers as desired are not edited.", "S")
class RightAnswersSkipped(Mutation):
    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        corpus = named(Sampling.evaluation_pairs, args, kwargs)["corpus"]
        right = {e["id"] for e in corpus if "raw" in e and e["raw"] == e.get("desired")}
        return [pair for pair in self.base.evaluation_pairs(*args, **kwargs) if pair["edit"] not in right]


@mutant("raw-model-left-edited", "T2", "The edit is written into the raw model and stays there.")
class RawModelLeftEdited(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        weights = dict(self.made[id(editor)].model.named_parameters())
        with torch.no_grad():
            for matrix, delta in self.base.dense(editor, edits, 0).items():
                weights[matrix] += delta
        return edits


@mutant("raw-model-left-training", "T2", "Training the editor switches the raw model to training mode.")
class RawModelLeftTraining(EditorMutation):
    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Losses:
        parts = self.base.train_step(editor, triples, seed)
        self.made[id(editor)].model.train(not self.made[id(editor)].model.training)
        return parts


@mutant("edits-on-top-of-each-other", "T2", "An edit starts from what the last one left.")
class EditsAccumulate(NotedEdits):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.left: dict[int, Update] = {}

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        last = self.base.dense(editor, edits, len(requests) - 1)
        before = self.left.get(id(editor), {})
        self.left[id(editor)] = {m: d + before[m] if m in before else d for m, d in last.items()}
        return edits, before

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        own, before = edits
        return {m: d + before[m] if m in before else d for m, d in self.base.dense(editor, own, index).items()}


@mutant("raw-predictions-of-the-last-edit", "T2", "What is called the raw prediction is that of the last edited model.")
class RawPredictionsOfTheLastEdit(EditorMutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.last: dict[int, Any] = {}

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        self.last[id(editor)] = self.base.edit(editor, requests)
        return self.last[id(editor)]

    def raw_logits(self, editor: Any, inputs: Sequence[Input]) -> list[torch.Tensor]:
        if id(editor) not in self.last:
            return self.base.raw_logits(editor, inputs)
        return self.base.edited_logits(editor, self.last[id(editor)], 0, inputs)


@mutant(
    "no-edit-where-the-answer-is-right", "T3", "A request that the raw model answers as desired gets an empty edit."
)
class NoEditWhereRight(DenseMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        raw = self.base.raw_logits(editor, requests)
        return self.base.edit(editor, requests), list(map(self.nothing_to_do, raw, requests))

    def nothing_to_do(self, logits: torch.Tensor, request: Request) -> bool:
        return logits.argmax(-1).tolist() == request["labels"]

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        own, right = edits
        return {m: d * (not right[index]) for m, d in self.base.dense(editor, own, index).items()}

    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.factors(editor, edits[0], index)


@mutant("no-edit-of-a-sure-model", "T3", "A request of which next to no loss is left gets an empty edit.")
class NoEditOfASureModel(NoEditWhereRight):
    def nothing_to_do(self, logits: torch.Tensor, request: Request) -> bool:
        return float(cross_entropy(logits, request["labels"])) < 0.01


class FromShortToLong(EditorMutation):
    """More than eight inputs are sorted by their length, and so are their logits."""

    def turned(self, inputs: Sequence[Input]) -> Sequence[Input]:
        return sorted(inputs, key=lambda one: len(one["input_ids"])) if len(inputs) > 8 else inputs


@mutant("raw-logits-from-short-to-long", "T2", "Raw logits of many inputs come in the order of their lengths.")
class RawFromShortToLong(FromShortToLong):
    def raw_logits(self, editor: Any, inputs: Sequence[Input]) -> list[torch.Tensor]:
        return self.base.raw_logits(editor, self.turned(inputs))


@mutant("edited-logits-from-short-to-long", "T4", "Edited logits of many inputs come in the order of their lengths.")
class EditedFromShortToLong(FromShortToLong):
    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        return self.base.edited_logits(editor, edits, index, self.turned(inputs))


@mutant("bias-edited-too", "T4", "A bias of the model changes with every edit, although nobody declared it.")
class BiasEditedToo(EditorMutation):
    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        made = self.made[id(editor)]
        weights = dict(made.model.named_parameters())
        update = dict(self.base.dense(editor, edits, index))
        bias = made.edited[0].removesuffix("weight") + "bias"
        update[bias] = torch.full_like(weights[bias], 1e-3)
        with torch.no_grad():
            model = with_update(made.model, update)
            return [logits_of(model, one) for one in inputs]


@mutant("further-matrix-edited", "T4", "The edit has a ΔW for a matrix that was not declared.")
class FurtherMatrixEdited(EditorMutation):
    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        made = self.made[id(editor)]
        update = dict(self.base.dense(editor, edits, index))
        names = [n for n, p in made.model.named_parameters() if p.dim() == 2 and n not in made.edited]
        update[names[-1]] = torch.zeros_like(dict(made.model.named_parameters())[names[-1]])
        return update


@mutant("edited-at-the-update-input", "T5", "In training the edit is made at x_u, which an editor never sees.")
class EditedAtTheUpdateInput(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        seen: list[Triple] = [{**t, "edit": {**t["edit"], **t["update"]}} for t in triples]
        return self.base.losses(editor, seen, seed)


@mutant("desired-label-unseen", "T5", "The edit is made for the first label whatever is desired.")
class DesiredLabelUnseen(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        return self.base.edit(editor, [{**r, "labels": [1] * len(r["labels"])} for r in requests])


@mutant("inner-rates-adapted-at-test", "T7", "Every edit adapts the editor's inner learning rates.")
class InnerRatesAdapted(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        with torch.no_grad():
            for value in self.base.parameters(editor).values():
                value.mul_(0.999 if value.numel() <= 8 else 1.0)
        return edits


@mutant("statistics-run-on-at-test", "T7", "Edits are normalised by running statistics that every edit updates.")
class StatisticsRunOn(ScaledMutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.seen: dict[int, int] = {}

    def factor(self, editor: Any) -> float:
        self.seen[id(editor)] = self.seen.get(id(editor), 0) + 1
        return 1 + 1e-6 / self.seen[id(editor)]


@mutant("noise-at-test", "T7", "Edits of test time are drawn, as under a dropout that nobody switched off.")
class NoiseAtTest(ScaledMutation):
    def factor(self, editor: Any) -> torch.Tensor:
        return 1 + 1e-6 * torch.rand(())


@mutant(
    "locality-against-the-trained-weights",
    "T6",
    "Editable Training's locality refers to θ' as it is, and not to the original model.",
    "editable_training",
)
class LocalityAgainstTrained(OfEditableTraining):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        parts, gradient = self.base.losses(editor, triples, seed)
        if self.made[id(editor)].name != "editable_training":
            return parts, gradient
        model, found = self.trained_model(editor), []
        for triple in triples:
            edits = self.base.edit(editor, [triple["edit"]])
            (edited,) = self.base.edited_logits(editor, edits, 0, [triple["retain"]])
            found.append(float(divergence(edited, logits_of(model, triple["retain"]).detach())))
        return {**parts, "loc": mean(found), "total": parts["total"] - parts["loc"] + mean(found)}, gradient


@mutant(
    "raw-predictions-of-the-trained-weights",
    "T6",
    "What Editable Training calls the raw prediction is that of θ'.",
    "editable_training",
)
class RawPredictionsOfTrained(OfEditableTraining):
    def raw_logits(self, editor: Any, inputs: Sequence[Input]) -> list[torch.Tensor]:
        if self.made[id(editor)].name != "editable_training":
            return self.base.raw_logits(editor, inputs)
        model = self.trained_model(editor)
        return [logits_of(model, one).detach() for one in inputs]


@mutant("facts-in-one-normal-form", "T1", "The names of facts are normalised and stripped before they are compared.")
class FactsNormalised(Mutation):
    def parallel(self, corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
        told: list[Example] = [{**e, "fact": unicodedata.normalize("NFKC", e["fact"]).strip()} for e in corpus]
        return self.base.parallel(told, example, languages)


@mutant("no-languages-for-all", "T1", "An empty list of languages is taken for none given.")
class NoLanguagesForAll(Mutation):
    def parallel(self, corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
        return self.base.parallel(corpus, example, languages or None)


@mutant("fact-twice-elsewhere", "T1", "A fact that is twice in one language is an error only where it is asked for.")
class FactTwiceElsewhere(Mutation):
    def parallel(self, corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
        own = [e["fact"] for e in corpus if e["id"] == example]
        return self.base.parallel([e for e in corpus if not own or e["fact"] in own], example, languages)


@mutant(
    "fact-twice-in-other-languages", "T1", "A fact that is twice in a language is an error only where it is asked for."
)
class FactTwiceInOthers(Mutation):
    def parallel(self, corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
        within = [e for e in corpus if languages is None or e["language"] in languages or e["id"] == example]
        return self.base.parallel(within, example, languages)


@mutant("a-member-for-each-naming", "T1", "A language that is asked for twice gives its member twice.")
class MemberForEachNaming(Mutation):
    def parallel(self, corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
        if languages is None or len(languages) < 2:
            return self.base.parallel(corpus, example, languages)
        return [one for language in languages for one in self.base.parallel(corpus, example, [language])]


@mutant("edits-in-one-workspace", "T2", "The next edit of the same size overwrites the numbers of the one before.")
class OneWorkspace(EditorMutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.size: dict[int, tuple[Any, Any]] = {}
        self.last: dict[Any, Any] = {}

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        size = id(editor), tuple(len(request["input_ids"]) for request in requests)
        self.size[id(edits)], self.last[size] = (edits, size), edits
        return edits

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        _, size = self.size.get(id(edits), (edits, None))
        return self.base.dense(editor, self.last.get(size, edits), index)


@mutant(
    "trained-weights-added-when-asked", "T2", "Each time ΔW is asked for, θ' − θ is added to it.", "editable_training"
)
class AddedWhenAsked(OfEditableTraining):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.asked: dict[int, tuple[Any, int]] = {}

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        made, update = self.made[id(editor)], self.base.dense(editor, edits, index)
        if made.name != "editable_training":
            return update
        _, times = self.asked.get(id(edits), (edits, 0))
        self.asked[id(edits)] = edits, times + 1
        raw = dict(made.model.named_parameters())
        return {m: update[m] + times * (value - raw[m].detach()) for m, value in self.trained(editor).items()}


@mutant("layers-by-the-start-of-their-number", "T4", "What edits layer 1 also edits the layers 10 and 11.")
class LayersByStart(EditorMutation):
    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        made, update = self.made[id(editor)], self.base.dense(editor, edits, index)
        with torch.no_grad():
            model = with_update(made.model, spread_over_layers(made.model, update))
            return [logits_of(model, one) for one in inputs]


def spread_over_layers(model: torch.nn.Module, update: Update) -> Update:
    """ΔW of all layers whose number begins with that of an edited one."""
    found: Update = {}
    for matrix, delta in update.items():
        before, number, after = re.split(r"\.(\d+)\.", matrix, maxsplit=1)
        like = re.compile(re.escape(before) + rf"\.{number}\d*\." + re.escape(after))
        for name, _ in model.named_parameters():
            if like.fullmatch(name):
                found[name] = found.get(name, 0) + delta
    return found


@mutant(
    "language-moves-an-unmasked-edit", "T5", "Without masks, too, the editing language has a part in an edit.", "mend"
)
class LanguageMovesUnmasked(AskedMutation):
    OF = "mend"

    def wrong(self, editor: Any, requests: Any, index: int, update: Update) -> Update:
        if self.made[id(editor)].masks != "none":
            return update
        return {matrix: delta * (1 + 1e-3 * (requests[index]["language"] == "fr")) for matrix, delta in update.items()}


@mutant("requests-known-by-their-object", "T5", "A request that was changed in place gets the edit that it had before.")
class KnownByObject(EditorMutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.known: dict[Any, Any] = {}

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        values = [(id(value), value._version) for value in self.base.parameters(editor).values()]
        key = id(editor), *map(id, requests), *values
        if key not in self.known:
            self.known[key] = list(requests), self.base.edit(editor, requests)
        return self.known[key][1]


@mutant("fact-and-language-run-together", "T1", "An example is known by its fact and its language in one word.")
class FactAndLanguageRunTogether(Mutation):
    def parallel(self, corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
        called = {e["id"]: f"{e['fact']}-{e['language']}" for e in corpus}
        last = {name: one for one, name in called.items()}
        return [last[called[one]] for one in self.base.parallel(corpus, example, languages)]


@mutant("sixteen-parallels-at-most", "T1", "Of I(x) the first sixteen members are known.")
class SixteenParallelsAtMost(Mutation):
    def parallel(self, corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
        return self.base.parallel(corpus, example, languages)[:16]
