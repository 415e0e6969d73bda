"""Mutants of chapter C, many edits."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..contract import ManyEdits, Request, Series, SeriesOutcome
from ..tiny import with_update
from .base import Mutation, mutant, named
from .editing import EditorMutation, OfEditableTraining, Update
from .t_task import spread_over_layers


class Composed(EditorMutation):
    """Compositions that are made by hand from dense edits: a mutant spoils how."""

    NEEDS = frozenset({"E"})

    def compose_edits(self, editor: Any, edits: Sequence[Any]) -> Any:
        return self.base.compose_edits(editor, edits)


@mutant("composition-of-the-last", "C1", "A composition holds its last edits alone.")
class CompositionOfTheLast(Composed):
    def compose_edits(self, editor: Any, edits: Sequence[Any]) -> Any:
        return self.base.compose_edits(editor, edits[-1:])


@mutant("composition-of-the-first", "C1", "A composition leaves out all edits but the first batch.")
class CompositionOfTheFirst(Composed):
    def compose_edits(self, editor: Any, edits: Sequence[Any]) -> Any:
        return self.base.compose_edits(editor, edits[:1])


@mutant("first-batch-twice", "C1", "The first of the composed batches is added twice.")
class FirstBatchTwice(Composed):
    def compose_edits(self, editor: Any, edits: Sequence[Any]) -> Any:
        return self.base.compose_edits(editor, [*edits[:1], *edits] if len(edits) > 1 else edits)


@mutant("tenth-batch-forgotten", "C1", "Only so many batches are composed, and what comes after is lost.")
class TenthBatchForgotten(Composed):
    def compose_edits(self, editor: Any, edits: Sequence[Any]) -> Any:
        return self.base.compose_edits(editor, edits[:9])


class DenseComposition(Composed):
    """A composition whose ΔW is another one, in `dense` and in the logits."""

    def compose_edits(self, editor: Any, edits: Sequence[Any]) -> Any:
        return Spoilt(self.base.compose_edits(editor, [own(e) for e in edits]), len(edits))

    def edit_after(self, editor: Any, before: Any, requests: Sequence[Request]) -> Any:
        return self.base.edit_after(editor, own(before), requests)

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        update = self.base.dense(editor, own(edits), index)
        return self.wrong(editor, edits, update) if isinstance(edits, Spoilt) else update

    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Any) -> Any:
        return self.base.edited_logits(editor, own(edits), index, inputs)

    def wrong(self, editor: Any, edits: Any, update: Update) -> Update:
        return update


class Spoilt:
    def __init__(self, edits: Any, count: int) -> None:
        self.edits, self.count = edits, count


def own(edits: Any) -> Any:
    return edits.edits if isinstance(edits, Spoilt) else edits


@mutant(
    "edits-bring-those-before-them", "C1", "An edit that was made after others brings them along when it is composed."
)
class EditsBringThoseBefore(Composed):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.before: dict[int, tuple[Any, Any]] = {}  # with the edits, so that their identity stays theirs

    def edit_after(self, editor: Any, before: Any, requests: Sequence[Request]) -> Any:
        made = self.base.edit_after(editor, before, requests)
        self.before[id(made)] = made, before
        return made

    def compose_edits(self, editor: Any, edits: Sequence[Any]) -> Any:
        brought = [self.before[id(batch)][1] for batch in edits if id(batch) in self.before]
        return self.base.compose_edits(editor, [*brought, *edits])


@mutant("mean-for-the-sum", "C1", "Composed edits are averaged.")
class MeanForTheSum(DenseComposition):
    def wrong(self, editor: Any, edits: Any, update: Update) -> Update:
        return {matrix: delta / edits.count for matrix, delta in update.items()}


@mutant("composition-in-bfloat16", "C1", "A composition is kept in bfloat16.")
class CompositionInBfloat16(DenseComposition):
    def wrong(self, editor: Any, edits: Any, update: Update) -> Update:
        return {matrix: delta.to(torch.bfloat16).to(delta.dtype) for matrix, delta in update.items()}


@mutant(
    "trained-weights-in-every-edit",
    "C1",
    "What Editable Training did to the model is added once for each composed batch.",
    "editable_training",
)
class TrainedWeightsInEveryEdit(OfEditableTraining, DenseComposition):
    def wrong(self, editor: Any, edits: Any, update: Update) -> Update:
        if self.made[id(editor)].name != "editable_training":
            return update
        raw = dict(self.made[id(editor)].model.named_parameters())
        shift = {m: value - raw[m].detach() for m, value in self.trained(editor).items()}
        return {matrix: delta + (edits.count - 1) * shift[matrix] for matrix, delta in update.items()}


@mutant(
    "composition-answers-unedited", "C1", "Under a composition of several batches the model answers as the raw one."
)
class CompositionAnswersUnedited(DenseComposition):
    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Any) -> Any:
        if isinstance(edits, Spoilt) and edits.count > 1:
            return self.base.raw_logits(editor, inputs)
        return super().edited_logits(editor, edits, index, inputs)


@mutant("series-from-the-raw-model", "C2", "The next edit of a series starts from the raw parameters.")
class SeriesFromTheRawModel(EditorMutation):
    def edit_after(self, editor: Any, before: Any, requests: Sequence[Request]) -> Any:
        return self.base.edit(editor, requests)


@mutant("series-returns-the-whole", "C2", "The next edit of a series comes with all edits before it.")
class SeriesReturnsTheWhole(EditorMutation):
    def edit_after(self, editor: Any, before: Any, requests: Sequence[Request]) -> Any:
        new = self.base.edit_after(editor, before, requests[:1])
        return self.base.compose_edits(editor, [before, new]) if len(requests) == 1 else new

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        return self.base.dense(editor, edits, 0)


@mutant("series-written-into-the-model", "C2", "The edits so far are written into the raw model and stay there.")
class SeriesWrittenIntoTheModel(EditorMutation):
    def edit_after(self, editor: Any, before: Any, requests: Sequence[Request]) -> Any:
        new = self.base.edit_after(editor, before, requests)
        weights = dict(self.made[id(editor)].model.named_parameters())
        with torch.no_grad():
            for matrix, delta in self.base.dense(editor, before, 0).items():
                weights[matrix] += delta
        return new


@mutant("half-of-the-edits-so-far", "C2", "The next edit of a series is made at half of the edits before it.")
class HalfOfTheEditsSoFar(EditorMutation):
    def edit_after(self, editor: Any, before: Any, requests: Sequence[Request]) -> Any:
        made = self.made[id(editor)]
        half = {matrix: delta.detach() / 2 for matrix, delta in self.base.dense(editor, before, 0).items()}
        model = with_update(made.model, half)
        other = self.base.make_editor(made.name, model, made.edited, made.languages, masks=made.masks, lr=made.lr)
        values = self.base.parameters(editor)
        with torch.no_grad():
            for key, value in self.base.parameters(other).items():
                value.copy_(values[key])
        return self.base.edit(other, requests)


@mutant("next-edit-in-those-before", "C2", "A next edit is also added to what holds the edits before it.")
class NextEditInThoseBefore(EditorMutation):
    NEEDS = frozenset({"E"})

    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.added: dict[int, tuple[Any, Any]] = {}

    def edit_after(self, editor: Any, before: Any, requests: Sequence[Request]) -> Any:
        new = self.base.edit_after(editor, before, requests)
        self.added[id(before)] = before, new
        return new

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        found = self.base.dense(editor, edits, index)
        if id(edits) not in self.added:
            return found
        more = self.base.dense(editor, self.added[id(edits)][1], 0)
        return {matrix: delta + more[matrix] for matrix, delta in found.items()}


@mutant("saved-unedited", "C3", "What is saved is the raw model.")
class SavedUnedited(EditorMutation):
    def save_edited(self, editor: Any, edits: Any, index: int, folder: Path) -> None:
        self.made[id(editor)].model.save_pretrained(folder)  # type: ignore[operator]


@mutant("first-edit-saved", "C3", "Whatever edit is asked for, the first is saved.")
class FirstEditSaved(EditorMutation):
    def save_edited(self, editor: Any, edits: Any, index: int, folder: Path) -> None:
        self.base.save_edited(editor, edits, 0, folder)


class SavedOtherwise(EditorMutation):
    """A saved model with other parameters."""

    def save_edited(self, editor: Any, edits: Any, index: int, folder: Path) -> None:
        model = with_update(self.made[id(editor)].model, self.base.dense(editor, edits, index))
        with torch.no_grad():
            self.wrong(dict(model.named_parameters()))
        model.save_pretrained(folder)  # type: ignore[operator]

    def wrong(self, weights: dict[str, torch.nn.Parameter]) -> None:
        """What goes wrong."""


@mutant("saved-with-other-biases", "C3", "Parameters that no edit touches are rounded when the model is saved.")
class SavedWithOtherBiases(SavedOtherwise):
    def wrong(self, weights: dict[str, torch.nn.Parameter]) -> None:
        for name, weight in weights.items():
            if "embeddings" in name:
                weight.copy_(weight.to(torch.bfloat16).to(weight.dtype))


@mutant("saved-in-bfloat16", "C3", "The edited matrices are rounded to bfloat16 when the model is saved.")
class SavedInBfloat16(SavedOtherwise):
    def wrong(self, weights: dict[str, torch.nn.Parameter]) -> None:
        for name, weight in weights.items():
            if "dense" in name:
                weight.copy_(weight.to(torch.bfloat16).to(weight.dtype))


@mutant("nothing-dropped", "C4", "An edit that is dropped stays.")
class NothingDropped(EditorMutation):
    def drop_edit(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.compose_edits(editor, [edits])


@mutant("last-dropped", "C4", "Whatever edit is dropped, it is the last one.")
class LastDropped(EditorMutation):
    def drop_edit(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.drop_edit(editor, edits, 3)


@mutant("all-before-dropped", "C4", "An edit takes those before it along when it is dropped.")
class FirstDroppedToo(EditorMutation):
    def drop_edit(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.drop_edit(editor, edits, 0)


class OfSeries(Mutation):
    """What goes wrong with a series."""

    NEEDS = frozenset({"S"})

    def edit_series(self, *args: Any, **kwargs: Any) -> Series:
        call = named(ManyEdits.edit_series, args, kwargs)
        made = self.base.edit_series(**call)
        known = {e["id"]: e for e in call["corpus"]}
        return self.wrong({"edits": list(made["edits"]), "retain": list(made["retain"])}, call, known)

    def wrong(self, made: Series, call: dict[str, Any], known: dict[str, Any]) -> Series:
        return made


@mutant("earlier-edits-retained", "C5", "Retain inputs are unrelated to the last edit of the series only.")
class EarlierEditsRetained(OfSeries):
    def wrong(self, made: Series, call: dict[str, Any], known: dict[str, Any]) -> Series:
        last = known[made["edits"][-1]["edit"]]["fact"]
        outside = [e["id"] for e in call["corpus"] if e["fact"] != last and e["language"] in call["update_languages"]]
        return {**made, "retain": sorted(outside)[: call["n_retain"]]}


@mutant("later-edits-retained", "C5", "A retain input is a parallel of the last edit, and of no earlier one.")
class LaterEditsRetained(OfSeries):
    def wrong(self, made: Series, call: dict[str, Any], known: dict[str, Any]) -> Series:
        last = known[made["edits"][-1]["edit"]]["fact"]
        inside = [e["id"] for e in call["corpus"] if e["fact"] == last and e["language"] in call["update_languages"]]
        return {**made, "retain": [*inside[:1], *made["retain"]][: max(1, len(made["retain"]))]}


@mutant("a-fact-edited-twice", "C5", "A fact may be edited twice in a series, in two languages.")
class FactEditedTwice(OfSeries):
    def wrong(self, made: Series, call: dict[str, Any], known: dict[str, Any]) -> Series:
        first = known[made["edits"][0]["edit"]]
        again = [
            e["id"]
            for e in call["corpus"]
            if e["fact"] == first["fact"] and e["id"] != first["id"] and e["language"] in call["edit_languages"]
        ]
        if len(made["edits"]) < 2 or not again:
            return made
        return {**made, "edits": [*made["edits"][:-1], {"edit": again[0], "update": made["edits"][0]["update"]}]}


@mutant("one-set-of-update-inputs", "C5", "All edits of a series are asked on the update inputs of the first.")
class OneSetOfUpdateInputs(OfSeries):
    def wrong(self, made: Series, call: dict[str, Any], known: dict[str, Any]) -> Series:
        first = made["edits"][0]["update"]
        return {**made, "edits": [{**edit, "update": first} for edit in made["edits"]]}


@mutant(
    "retain-inputs-of-a-series-are-a-prefix", "C5", "A series retains the first inputs that are unrelated to its edits."
)
class RetainInputsAreAPrefix(OfSeries):
    def wrong(self, made: Series, call: dict[str, Any], known: dict[str, Any]) -> Series:
        edited = {known[edit["edit"]]["fact"] for edit in made["edits"]}
        rest = [
            e["id"] for e in call["corpus"] if e["fact"] not in edited and e["language"] in call["update_languages"]
        ]
        return {**made, "retain": sorted(rest)[: len(made["retain"])]}


@mutant("series-of-any-seed", "S7", "A series draws on from the series before, whatever its seed.", "C")
class SeriesOfAnySeed(OfSeries):
    calls = 0

    def wrong(self, made: Series, call: dict[str, Any], known: dict[str, Any]) -> Series:
        self.calls += 1
        return self.base.edit_series(**{**call, "seed": call["seed"] + self.calls})


@mutant("a-series-is-a-prefix", "C5", "A series edits the first facts of the corpus, in its order.")
class SeriesIsAPrefix(OfSeries):
    def wrong(self, made: Series, call: dict[str, Any], known: dict[str, Any]) -> Series:
        return self.base.edit_series(**{**call, "seed": 0})


class OfMetrics(Mutation):
    """Metrics of a series from other outcomes than its own."""

    NEEDS = frozenset({"M"})

    def series_metrics(self, outcomes: Sequence[SeriesOutcome]) -> dict[str, float]:
        return self.base.series_metrics(self.wrong(list(outcomes), max(o["edit"] for o in outcomes)))

    def wrong(self, outcomes: list[SeriesOutcome], last: int) -> list[SeriesOutcome]:
        return outcomes


@mutant("efficacy-after-the-last", "C6", "Efficacy is asked when all edits have been made.")
class EfficacyAfterTheLast(OfMetrics):
    def wrong(self, outcomes: list[SeriesOutcome], last: int) -> list[SeriesOutcome]:
        late = [{**o, "made": o["edit"]} for o in outcomes if o["edit"] and o["made"] == last]
        return [o for o in outcomes if o["made"] != o["edit"] or o["edit"] == last] + [
            o for o in late if o["edit"] != last
        ]  # type: ignore[return-value]


@mutant("retention-of-the-last-alone", "C6", "Retention looks at the last edit only.")
class RetentionOfTheLastAlone(OfMetrics):
    def wrong(self, outcomes: list[SeriesOutcome], last: int) -> list[SeriesOutcome]:
        return [o for o in outcomes if o["made"] != last or o["edit"] in (0, last)]


@mutant("con-over-the-whole-series", "C6", "con averages over retain inputs at all times.")
class ConOverTheWholeSeries(OfMetrics):
    def wrong(self, outcomes: list[SeriesOutcome], last: int) -> list[SeriesOutcome]:
        return [o if o["edit"] else {**o, "made": last} for o in outcomes]


@mutant("edits-weigh-by-their-inputs", "C6", "Efficacy and retention average over inputs, not over edits first.")
class EditsWeighByInputs(Mutation):
    NEEDS = frozenset({"M"})

    def series_metrics(self, outcomes: Sequence[SeriesOutcome]) -> dict[str, float]:
        last = max(o["edit"] for o in outcomes)
        found = dict(self.base.series_metrics(outcomes))
        for name, when in (("efficacy", 0), ("retention", last)):
            hits = [o["hit"] for o in outcomes if o["edit"] and o["made"] == (when or o["edit"])]
            found[name] = sum(hits) / len(hits)
        return found


@mutant("equal-edits-dropped-together", "C4", "Dropping an edit drops all edits of the same request.")
class EqualEditsDropped(Composed):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.asked: dict[int, tuple[Any, Sequence[Request]]] = {}  # with the edits, so that their identity stays theirs

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        self.asked[id(edits)] = edits, requests
        return edits

    def drop_edit(self, editor: Any, edits: Any, index: int) -> Any:
        _, requests = self.asked[id(edits)]
        equal = [at for at, request in enumerate(requests) if request == requests[index] and at != index]
        if not equal:
            return self.base.drop_edit(editor, edits, index)
        kept = [request for at, request in enumerate(requests) if at not in (index, equal[0])]
        return self.base.compose_edits(editor, [self.base.edit(editor, kept)])


@mutant("equal-batches-once", "C1", "A batch of edits that is given twice is added once.")
class EqualBatchesOnce(Composed):
    def compose_edits(self, editor: Any, edits: Sequence[Any]) -> Any:
        return self.base.compose_edits(editor, list({id(one): one for one in edits}.values()))


@mutant("composition-of-rank-64", "C1", "Of a composition the 64 largest singular values are kept.")
class CompositionOfRank64(DenseComposition):
    def wrong(self, editor: Any, edits: Any, update: Update) -> Update:
        return {matrix: _of_rank(delta, 64) for matrix, delta in update.items()}


def _of_rank(delta: torch.Tensor, rank: int) -> torch.Tensor:
    u, s, v = torch.linalg.svd(delta.detach(), full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


@mutant("left-after-a-series", "T2", "The edit after a series starts where the series ended.", "C", "E")
class LeftAfterASeries(EditorMutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.left: dict[int, Any] = {}

    def edit_after(self, editor: Any, before: Any, requests: Sequence[Request]) -> Any:
        self.left[id(editor)] = before
        return self.base.edit_after(editor, before, requests)

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        before = self.left.pop(id(editor), None)
        return self.base.edit(editor, requests) if before is None else self.base.edit_after(editor, before, requests)


@mutant(
    "saved-without-its-training",
    "C3",
    "What Editable Training did to the model is not in what is saved.",
    "editable_training",
)
class SavedWithoutTraining(OfEditableTraining):
    def save_edited(self, editor: Any, edits: Any, index: int, folder: Path) -> None:
        made, update = self.made[id(editor)], self.base.dense(editor, edits, index)
        if made.name == "editable_training":
            raw = dict(made.model.named_parameters())
            update = {m: delta - (self.trained(editor)[m] - raw[m].detach()) for m, delta in update.items()}
        with_update(made.model, update).save_pretrained(folder)  # type: ignore[operator]


@mutant("last-of-many-forgotten", "C5", "In a long series a parallel of the last edit may be a retain input.")
class LastOfManyForgotten(LaterEditsRetained):
    def wrong(self, made: Series, call: dict[str, Any], known: dict[str, Any]) -> Series:
        return super().wrong(made, call, known) if len(made["edits"]) > 10 and call["seed"] % 2 else made


@mutant("update-inputs-of-a-series-never-the-edit", "C5", "x_u of a series is another sentence than its edit.")
class UpdatesOfASeriesNeverTheEdit(OfSeries):
    def wrong(self, made: Series, call: dict[str, Any], known: dict[str, Any]) -> Series:
        def others(edit: Any) -> list[str]:
            fact = known[edit["edit"]]["fact"]
            inside = [
                e["id"] for e in call["corpus"] if e["fact"] == fact and e["language"] in call["update_languages"]
            ]
            return [one for one in inside if one != edit["edit"]]

        edits = [
            {**edit, "update": [others(edit)[n % len(others(edit))] for n in range(len(edit["update"]))]}
            if others(edit)
            else edit
            for edit in made["edits"]
        ]
        return {**made, "edits": edits}  # type: ignore[typeddict-item]


@mutant("con-of-a-series-by-language", "C6", "con of a series is averaged over the languages of its inputs.")
class ConByLanguage(OfMetrics):
    def series_metrics(self, outcomes: Sequence[SeriesOutcome]) -> dict[str, float]:
        last = max(o["made"] for o in outcomes)
        hits: dict[str, list[bool]] = {}
        for o in outcomes:
            if not o["edit"] and o["made"] == last:
                hits.setdefault(o["language"], []).append(o["hit"])
        con = sum(sum(one) / len(one) for one in hits.values()) / len(hits)
        return {**self.base.series_metrics(outcomes), "con": con}


@mutant("edit-written-in-to-be-saved", "T2", "Saving adds ΔW to the live model and subtracts it again.", "C", "E")
class WrittenInToBeSaved(EditorMutation):
    def save_edited(self, editor: Any, edits: Any, index: int, folder: Path) -> None:
        model, update = self.made[id(editor)].model, self.base.dense(editor, edits, index)
        weights = dict(model.named_parameters())
        with torch.no_grad():
            for matrix, delta in update.items():
                weights[matrix].add_(delta)
            model.save_pretrained(folder)  # type: ignore[operator]
            for matrix, delta in update.items():
                weights[matrix].sub_(delta)


@mutant("saved-into-layers-of-a-like-number", "C3", "What is saved of layer 1 is also in the layers 10 and 11.")
class SavedIntoLikeLayers(EditorMutation):
    def save_edited(self, editor: Any, edits: Any, index: int, folder: Path) -> None:
        model, update = self.made[id(editor)].model, self.base.dense(editor, edits, index)
        saved = copy.deepcopy(model)
        weights = dict(saved.named_parameters())
        with torch.no_grad():
            for matrix, delta in spread_over_layers(model, update).items():
                weights[matrix].add_(delta)
        saved.save_pretrained(folder)  # type: ignore[operator]


@mutant("edits-of-a-series-remembered", "C2", "A request that was edited already is not edited at the edits so far.")
class EditsRemembered(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        made = self.base.edit(editor, requests)
        self.remembered = {**getattr(self, "remembered", {}), str(requests): made}
        return made

    def edit_after(self, editor: Any, before: Any, requests: Sequence[Request]) -> Any:
        made = getattr(self, "remembered", {}).get(str(requests))
        return self.base.edit_after(editor, before, requests) if made is None else made


@mutant("answers-before-the-edit-counted", "C6", "Efficacy has what was asked before the edit was made, too.")
class AnswersBeforeTheEdit(OfMetrics):
    def wrong(self, outcomes: list[SeriesOutcome], last: int) -> list[SeriesOutcome]:
        return [{**o, "made": o["edit"]} if o["made"] < o["edit"] < last else o for o in outcomes]
