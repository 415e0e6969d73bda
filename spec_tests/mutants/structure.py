"""Mutants of what an editor is made of: parts that are fewer than stated, and that read less than they may."""

from __future__ import annotations

import itertools
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from ..contract import Gates, Request
from ..tiny import gradients, rate
from .base import mutant
from .e_editors import OfKnowledgeEditor, TransformMutation
from .editing import AskedMutation, DenseMutation, EditorMutation, OfEditableTraining, Update


class Apart(EditorMutation):
    """MEND's transform with something constant in the place of one of its inputs."""

    def alone(self, editor: Any, matrix: str, x: Any, delta: Any, language: str, which: int) -> torch.Tensor:
        steady = [torch.linspace(-1, 1, rows.shape[-1], dtype=rows.dtype).expand_as(rows) for rows in (x, delta)]
        asked = (x, steady[1]) if which == 0 else (steady[0], delta)
        return self.base.transform(editor, matrix, *asked, language)[which]


@mutant("x-and-delta-transformed-apart", "E17", "x̃ knows x alone, and δ̃ knows δ alone.")
class TransformedApart(Apart):
    def transform(self, editor: Any, matrix: str, x: Any, delta: Any, language: str) -> Any:
        return tuple(self.alone(editor, matrix, x, delta, language, which) for which in (0, 1))


@mutant("x-does-not-see-delta", "E17", "x̃ knows x alone.")
class XDoesNotSeeDelta(Apart):
    def transform(self, editor: Any, matrix: str, x: Any, delta: Any, language: str) -> Any:
        _, both = self.base.transform(editor, matrix, x, delta, language)
        return self.alone(editor, matrix, x, delta, language, 0), both


@mutant("delta-passes-untransformed", "E17", "δ is normalised and no more.")
class DeltaPasses(TransformMutation):
    def wrong(self, x: Any, delta: Any, x_new: Any, delta_new: Any) -> tuple[torch.Tensor, torch.Tensor]:
        centred = delta - delta.mean(-1, keepdim=True)
        return x_new, centred / centred.square().mean(-1, keepdim=True).sqrt()


@mutant("one-inner-rate-for-all-of-mend", "E17", "All matrices of MEND are edited at the rate of the first.")
class OneInnerRate(DenseMutation):
    OF = "mend"

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        return self.base.edit(editor, requests), self.factors_of(editor)

    def factors_of(self, editor: Any) -> dict[str, float]:
        if self.made[id(editor)].name != self.OF:
            return {}
        small = [v.detach().flatten() for _, v in sorted(self.base.parameters(editor).items()) if v.numel() <= 8]
        rates = torch.cat(small).exp() if small else torch.ones(1)
        edited = self.made[id(editor)].edited
        if len(rates) != len(edited):
            return {}
        return {matrix: float(rates[0] / own) for matrix, own in zip(edited, rates, strict=True)}

    def own(self, edits: Any) -> Any:
        return edits[0]

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        return {m: edits[1].get(m, 1.0) * d for m, d in self.base.dense(editor, edits[0], index).items()}

    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        found = self.base.factors(editor, edits[0], index)
        return {m: (u, edits[1].get(m, 1.0) * v) for m, (u, v) in found.items()}


class ReadsLess(OfKnowledgeEditor):
    """KnowledgeEditor's encoder is given a part of what it should read."""

    def gates(self, editor: Any, request: Request) -> dict[str, Gates]:
        return self.base.gates(editor, self.read(request))

    @abstractmethod
    def read(self, request: Request) -> Request:
        """What goes wrong."""


@mutant("reader-stops-after-eight", "E17", "KnowledgeEditor reads the first eight tokens of x_e.", "knowledge_editor")
class StopsAfterEight(ReadsLess):
    def read(self, request: Request) -> Request:
        return {**request, "input_ids": request["input_ids"][:8]}


def _shortened(request: Request, ids: list[int]) -> Request:
    """With predictions at the first of these tokens."""
    return {**request, "input_ids": ids, "positions": list(range(len(request["positions"])))}


@mutant("reader-begins-late", "E17", "KnowledgeEditor reads the last sixteen tokens of x_e.", "knowledge_editor")
class BeginsLate(ReadsLess):
    def read(self, request: Request) -> Request:
        return _shortened(request, request["input_ids"][-16:])


@mutant("reader-skips-every-second", "E17", "KnowledgeEditor reads every second token of long x_e.", "knowledge_editor")
class SkipsEverySecond(ReadsLess):
    def read(self, request: Request) -> Request:
        ids = request["input_ids"]
        return request if len(ids) < 12 else _shortened(request, ids[::2])


@mutant("reader-skips-repetitions", "E17", "KnowledgeEditor reads once what stands twice in a row.", "knowledge_editor")
class SkipsRepetitions(ReadsLess):
    def read(self, request: Request) -> Request:
        return {**request, "input_ids": [token for token, _ in itertools.groupby(request["input_ids"])]}


@mutant("reader-sees-one-label", "E17", "KnowledgeEditor reads the first token of y_e.", "knowledge_editor")
class SeesOneLabel(ReadsLess):
    def read(self, request: Request) -> Request:
        labels = request["labels"]
        return {**request, "labels": labels if len(labels) < 4 else [labels[0]] * len(labels)}


@mutant(
    "labels-once",
    "E17",
    "KnowledgeEditor reads a token of y_e once, however often it stands there.",
    "knowledge_editor",
)
class LabelsOnce(ReadsLess):
    def read(self, request: Request) -> Request:
        labels = list(dict.fromkeys(request["labels"]))
        # A gate is asked for as many labels as there are masks.
        return {**request, "labels": labels + labels[:1] * (len(request["labels"]) - len(labels))}


@mutant("labels-in-no-order", "E17", "KnowledgeEditor reads the tokens of y_e in no order.", "knowledge_editor")
class LabelsInNoOrder(ReadsLess):
    def read(self, request: Request) -> Request:
        return {**request, "labels": sorted(request["labels"])}


@mutant("reader-sees-no-masks", "E17", "KnowledgeEditor does not read where the masks stand.", "knowledge_editor")
class SeesNoMasks(ReadsLess):
    def read(self, request: Request) -> Request:
        if len(request["input_ids"]) < 12:
            return request
        left = [token for at, token in enumerate(request["input_ids"]) if at not in request["positions"]]
        return {**request, "input_ids": left}


class OtherGates(OfKnowledgeEditor):
    """Gates of all matrices, spoilt together."""

    def gates(self, editor: Any, request: Request) -> dict[str, Gates]:
        return self.together(self.base.gates(editor, request))

    @abstractmethod
    def together(self, gates: dict[str, Gates]) -> dict[str, Gates]:
        """What goes wrong."""


@mutant("one-scale-for-all-matrices", "E17", "KnowledgeEditor has one scale for all matrices.", "knowledge_editor")
class OneScale(OtherGates):
    def together(self, gates: dict[str, Gates]) -> dict[str, Gates]:
        first = next(iter(gates.values()))["scale"]
        return {matrix: {**gate, "scale": first} for matrix, gate in gates.items()}


@mutant("gates-shared-by-shape", "E17", "Matrices of one shape share KnowledgeEditor's gates.", "knowledge_editor")
class GatesSharedByShape(OtherGates):
    def together(self, gates: dict[str, Gates]) -> dict[str, Gates]:
        first: dict[Any, Gates] = {}
        for gate in gates.values():
            first.setdefault((gate["a"][0].shape, gate["a"][1].shape), gate)
        return {m: first[gate["a"][0].shape, gate["a"][1].shape] for m, gate in gates.items()}


@mutant("gates-of-a-layer", "E17", "Matrices of one layer and shape share KnowledgeEditor's gates.", "knowledge_editor")
class GatesOfALayer(OtherGates):
    def together(self, gates: dict[str, Gates]) -> dict[str, Gates]:
        first: dict[Any, Gates] = {}
        like = {m: (re.findall(r"\d+", m)[0], *(len(part) for part in gate["a"])) for m, gate in gates.items()}
        for matrix, gate in gates.items():
            first.setdefault(like[matrix], gate)
        return {matrix: first[like[matrix]] for matrix in gates}


@mutant("offset-is-the-gate", "E17", "KnowledgeEditor's offset is its gate.", "knowledge_editor")
class OffsetIsTheGate(OtherGates):
    def together(self, gates: dict[str, Gates]) -> dict[str, Gates]:
        return {matrix: {**gate, "b": gate["a"]} for matrix, gate in gates.items()}


@mutant("scale-of-a-half", "E17", "KnowledgeEditor's scale is a half, whatever is edited.", "knowledge_editor")
class ScaleOfAHalf(OtherGates):
    def together(self, gates: dict[str, Gates]) -> dict[str, Gates]:
        return {m: {**gate, "scale": torch.full_like(gate["scale"], 0.5)} for m, gate in gates.items()}


@mutant(
    "rates-shared-by-shape",
    "E17",
    "Editable Training has one inner rate for all matrices of a shape.",
    "editable_training",
)
class RatesSharedByShape(AskedMutation, OfEditableTraining):
    OF = "editable_training"

    def wrong(self, editor: Any, requests: Any, index: int, update: Update) -> Update:
        made = self.made[id(editor)]
        raw = dict(made.model.named_parameters())
        shift = {m: value - raw[m].detach() for m, value in self.trained(editor).items()}
        slopes = gradients(self.trained_model(editor), made.edited, requests[index])
        rates = {m: rate(update[m] - shift[m], slopes[m]) for m in made.edited}
        first: dict[Any, float] = {}
        for matrix, own in rates.items():
            first.setdefault(self.like(matrix, raw[matrix]), own)
        return {m: shift[m] + (update[m] - shift[m]) * first[self.like(m, raw[m])] / rates[m] for m in made.edited}

    def like(self, matrix: str, weight: torch.Tensor) -> Any:
        """Matrices of which this is equal share a rate."""
        return weight.shape


@mutant(
    "rates-of-a-layer",
    "E17",
    "Editable Training has one inner rate for a layer's matrices of a shape.",
    "editable_training",
)
class RatesOfALayer(RatesSharedByShape):
    def like(self, matrix: str, weight: torch.Tensor) -> Any:
        return re.findall(r"\d+", matrix)[0], weight.shape


@mutant(
    "rates-of-like-layers",
    "E17",
    "Editable Training has one inner rate for layers whose numbers begin alike.",
    "editable_training",
)
class RatesOfLikeLayers(RatesSharedByShape):
    def like(self, matrix: str, weight: torch.Tensor) -> Any:
        return re.sub(r"(\d)\d*", r"\1", matrix)


class MoreParameters(EditorMutation):
    """An editor says that it learns more than it does."""

    OF = ""

    def parameters(self, editor: Any) -> dict[str, torch.Tensor]:
        found = dict(self.base.parameters(editor))
        made = self.made[id(editor)]
        if made.name == self.OF:
            found.update(self.more(made.model, made.edited))
        return found

    @abstractmethod
    def more(self, model: torch.nn.Module, edited: Sequence[str]) -> dict[str, torch.Tensor]:
        """What goes wrong."""


@mutant("biases-trained-too", "E17", "Editable Training trains the biases of the edited layers.", "editable_training")
class BiasesTrained(MoreParameters):
    OF = "editable_training"

    def more(self, model: torch.nn.Module, edited: Sequence[str]) -> dict[str, torch.Tensor]:
        raw = dict(model.named_parameters())
        names = [matrix.removesuffix("weight") + "bias" for matrix in edited]
        return {name: raw[name].detach().clone() for name in names}


@mutant("a-rate-for-every-row", "E17", "Editable Training learns an inner rate for every row.", "editable_training")
class RateForEveryRow(MoreParameters):
    OF = "editable_training"

    def more(self, model: torch.nn.Module, edited: Sequence[str]) -> dict[str, torch.Tensor]:
        raw = dict(model.named_parameters())
        return {f"rates.{matrix}": raw[matrix].new_zeros(len(raw[matrix])) for matrix in edited}


# E18: what an option changes


@mutant("seed-of-the-making-ignored", "E18", "Every editor starts from the same numbers.")
class SeedOfTheMakingIgnored(EditorMutation):
    def wrong_options(self, call: dict[str, Any]) -> dict[str, Any]:
        return {**call, "seed": 0}


@mutant("starts-at-random", "E18", "An editor starts from numbers of the global generator.")
class StartsAtRandom(EditorMutation):
    def wrong_options(self, call: dict[str, Any]) -> dict[str, Any]:
        with torch.random.fork_rng(devices=[]):
            return {**call, "seed": int(torch.randint(0, 1000, ()))}


@mutant("learning-rate-scales-edits", "E18", "The learning rate of training has a part in the edit.")
class LearningRateScalesEdits(DenseMutation):
    OF = "mend"

    def wrong(self, editor: Any, edits: Any, index: int, update: Update) -> Update:
        lr = self.made[id(editor)].lr
        return update if lr is None else {matrix: delta * (1 + lr) for matrix, delta in update.items()}


@mutant("languages-move-the-edit", "E18", "How many languages an editor knows has a part in its edits.")
class LanguagesMoveTheEdit(DenseMutation):
    def wrong(self, editor: Any, edits: Any, index: int, update: Update) -> Update:
        made = self.made[id(editor)]
        if made.name == "finetuning":
            return update
        return {matrix: delta * (1 + 0.01 * len(made.languages)) for matrix, delta in update.items()}


@mutant("masks-drawn-first", "E18", "How many masks there are decides on the numbers that are drawn behind them.")
class MasksDrawnFirst(EditorMutation):
    def wrong_options(self, call: dict[str, Any]) -> dict[str, Any]:
        return call if call["masks"] == "none" else {**call, "seed": call["seed"] + len(call["languages"])}


@mutant("rank-option-ignored", "E18", "MEND has the same transform whatever rank is asked for.", "ranked")
class RankIgnored(EditorMutation):
    def make_editor(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("rank", None)
        return super().make_editor(*args, **kwargs)


@mutant("eight-tokens-of-an-answer", "E17", "KnowledgeEditor reads the first eight tokens of y_e.", "knowledge_editor")
class EightTokensOfAnAnswer(EditorMutation):
    def gates(self, editor: Any, request: Request) -> dict[str, Gates]:
        labels = list(request["labels"])
        return self.base.gates(editor, {**request, "labels": [*labels[:8], *[labels[0]] * len(labels[8:])]})


@mutant("a-small-rate-starts-small", "E18", "An editor of a small learning rate starts from smaller numbers.")
class SmallRateStartsSmall(EditorMutation):
    def make_editor(self, *args: Any, **kwargs: Any) -> Any:
        editor = super().make_editor(*args, **kwargs)
        lr = self.made[id(editor)].lr
        with torch.no_grad():
            for value in self.base.parameters(editor).values():
                value.mul_(1 if lr is None else min(1.0, (lr / 1e-3) ** 0.25))
        return editor
