"""Mutants of chapter A, masks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..contract import Array, MaskAlgebra, Request, Triple
from .base import Mutation, mutant, named
from .editing import DenseMutation, EditorMutation, LossMutation, Update, weighed


@mutant("mask-without-bypass", "A1", "The mask multiplies by m where it should multiply by 1 + m.")
class MaskWithoutBypass(Mutation):
    def apply_mask(self, w: Array, m: Array) -> Array:
        return m * w


@mutant("gates-not-clipped", "A2", "Gates are stretched and not clipped, so that they leave [0, 1].")
class GatesNotClipped(Mutation):
    def gate(self, *args: Any, **kwargs: Any) -> Array:
        call = named(MaskAlgebra.gate, args, kwargs)
        log_alpha, u, width = call["log_alpha"], call["uniforms"], call["zeta"] - call["gamma"]
        z = log_alpha if u is None else (np.log(u) - np.log1p(-u) + log_alpha) / call["beta"]
        return width / (1 + np.exp(-z)) + call["gamma"]


class FactorMutation(Mutation):
    """Masks factors in a way of its own; `call` holds the arguments by name."""

    def mask_factors(self, *args: Any, **kwargs: Any) -> tuple[Array, Array]:
        return self.wrong(named(MaskAlgebra.mask_factors, args, kwargs))

    @abstractmethod
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        """What goes wrong."""


@mutant("unbounded-mask-scale", "A2", "The gate is multiplied by a scale that nothing bounds.")
class UnboundedMaskScale(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        x, delta = self.base.mask_factors(**call)
        return call["x"] + 3 * (x - call["x"]), call["delta"] + 3 * (delta - call["delta"])


@mutant("narrow-where-long", "A8", "Factors of more than 16 tokens are masked in half precision.")
class NarrowWhereLong(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        x, delta = (np.asarray(factor) for factor in self.base.mask_factors(**call))
        if len(x) <= 16:
            return x, delta
        return x.astype(np.float16).astype(x.dtype), delta.astype(np.float16).astype(delta.dtype)


@mutant("temperature-at-test", "A3", "The gates of test time are sharpened by the temperature of training.")
class TemperatureAtTest(Mutation):
    def gate(self, *args: Any, **kwargs: Any) -> Array:
        call = named(MaskAlgebra.gate, args, kwargs)
        sharper = call["log_alpha"] / (call["beta"] if call["uniforms"] is None else 1)
        return self.base.gate(**call | {"log_alpha": sharper})


@mutant("sampled-at-test", "A3", "The gates of test time are still sampled.")
class SampledAtTest(FactorMutation):
    calls = 0

    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        self.calls += 1
        return self.base.mask_factors(**call | {"seed": self.calls if call["seed"] is None else call["seed"]})


@mutant("never-sampled", "A3", "The gates of training are those of test time.")
class NeverSampled(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        return self.base.mask_factors(**call | {"seed": None})


@mutant("one-draw-per-token", "A3", "Every token of an edit draws gates of its own.")
class OneDrawPerToken(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        if call["seed"] is None:
            return self.base.mask_factors(**call)
        tokens = [
            {**call, "x": call["x"][[t]], "delta": call["delta"][[t]], "seed": call["seed"] + t}
            for t in range(len(call["x"]))
        ]
        x, delta = zip(*(self.base.mask_factors(**token) for token in tokens), strict=True)
        return np.concatenate(x), np.concatenate(delta)


@mutant(
    "probability-without-stretch", "A4", "The probability of an open gate is sigmoid(log α): the stretch is forgotten."
)
class ProbabilityWithoutStretch(Mutation):
    def gate_probability(self, log_alpha: Array, *_constants: float, **_named: float) -> Array:
        return 1 / (1 + np.exp(-log_alpha))


class PenaltyMutation(Mutation):
    def mask_penalty(self, log_alpha: Mapping[str, Mapping[str, Array]], weight: float) -> tuple[float, Any]:
        value, gradient = self.base.mask_penalty(log_alpha, weight)
        factor, slope = self.spoilt(sum(one.size for arrays in log_alpha.values() for one in arrays.values()))
        changed = {key: {side: slope * one for side, one in arrays.items()} for key, arrays in gradient.items()}
        return value * factor, changed

    @abstractmethod
    def spoilt(self, gates: int) -> tuple[float, float]:
        """What goes wrong."""


@mutant("detached-penalty", "A5", "The L0 penalty is cut off from its gradient and trains nothing.")
class DetachedPenalty(PenaltyMutation):
    def spoilt(self, gates: int) -> tuple[float, float]:
        return 1.0, 0.0


@mutant(
    "other-penalty-norm", "A5", "The penalty that is called a sum is the mean over all gates (or the other way round)."
)
class OtherPenaltyNorm(PenaltyMutation):
    def spoilt(self, gates: int) -> tuple[float, float]:
        factor = gates if self.RULINGS.get("penalty") == "mean" else 1 / gates
        return factor, factor


@mutant("penalty-as-reward", "A5", "The penalty's gradient opens gates.")
class PenaltyAsReward(PenaltyMutation):
    def spoilt(self, gates: int) -> tuple[float, float]:
        return 1.0, -1.0


@mutant(
    "rows-in-sorted-order",
    "A6",
    "Languages are sorted, as a set would sort them, while the rows are as they were given.",
)
class RowsInSortedOrder(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        return self.base.mask_factors(**call | {"languages": sorted(call["languages"])})


@mutant("next-languages-mask", "A6", "The mask of another language than the editing one is applied.")
class NextLanguagesMask(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        turned = [*call["languages"][1:], *call["languages"][:1]]
        return self.base.mask_factors(**call | {"languages": turned})


@mutant("sixteen-rows", "A6", "There are masks for sixteen languages, and the seventeenth has that of the first.")
class SixteenRows(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        known = list(call["languages"])
        if call["language"] in known:
            call["language"] = known[known.index(call["language"]) % 16]
        return self.base.mask_factors(**call)


@mutant("gradient-for-everyone", "A6", "An edit trains the masks of all languages.")
class GradientForEveryone(Mutation):
    def mask_factors_gradient(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        right = self.base.mask_factors_gradient(*args, **kwargs)
        return {name: np.broadcast_to(one.sum(0), one.shape).copy() for name, one in right.items()}


@mutant("masks-of-x-and-delta-swapped", "A8", "Where the widths allow it, x gets the mask of δ and δ that of x.")
class MasksSwapped(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        if call["x"].shape != call["delta"].shape:
            return self.base.mask_factors(**call)
        ones = np.ones_like(call["x"])
        on_x, on_delta = self.base.mask_factors(**call | {"x": ones, "delta": ones})
        return on_delta * call["x"], on_x * call["delta"]


@mutant("masked-twice", "A2", "x is masked where it is captured and again where it is used.")
class MaskedTwice(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        x, delta = self.base.mask_factors(**call)
        return self.base.mask_factors(**call | {"x": x})[0], delta


@mutant("gates-never-close", "A3", "A gate has a floor, so that a closed mask still changes an edit.")
class GatesNeverClose(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        factors = zip((call["x"], call["delta"]), self.base.mask_factors(**call), strict=True)
        # A gate of 0 is 0.001, and one of 1 stays 1.
        x, delta = (1.001 * before + 0.999 * (after - before) for before, after in factors)
        return x, delta


@mutant("unknown-language-is-the-first", "A10", "An unknown editing language quietly gets the first row.")
class UnknownIsFirst(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        known = call["language"] if call["language"] in call["languages"] else call["languages"][0]
        return self.base.mask_factors(**call | {"language": known})


@mutant("gates-fixed-in-training", "A3", "All training steps draw the same gates.")
class GatesFixedInTraining(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        return self.base.losses(editor, triples, 0)


@mutant("penalty-of-nothing", "A5", "An editor without masks pays a penalty.")
class PenaltyOfNothing(LossMutation):
    def wrong(self, editor: Any, parts: dict[str, float], gradient: dict[str, Any]) -> Any:
        paid = parts["mask"] or 1e-3
        return {**parts, "mask": paid, "total": parts["total"] - parts["mask"] + paid}, gradient


@mutant("penalty-trains-nothing", "A5", "In training the L0 penalty is in the value and not in the gradient.")
class PenaltyTrainsNothing(LossMutation):
    def wrong(self, editor: Any, parts: dict[str, float], gradient: dict[str, Any]) -> Any:
        for name in self.masks_by_name(editor):
            gradient[name] = None
        return parts, gradient


@mutant("other-languages-trained", "A6", "In training an edit moves the mask rows of all languages.")
class OtherLanguagesTrained(LossMutation):
    def wrong(self, editor: Any, parts: dict[str, float], gradient: dict[str, Any]) -> Any:
        for name in self.masks_by_name(editor):
            gradient[name] = gradient[name].mean(0, keepdim=True).expand_as(gradient[name]).clone()
        return parts, gradient


@mutant("masks-after-the-transform", "A7", "Masks act on what the transform gives, not on what it gets.")
class MasksAfterTheTransform(EditorMutation):
    def transform(self, editor: Any, matrix: str, x: Any, delta: Any, language: str) -> Any:
        masks = self.base.mask_parameters(editor)
        if not masks:
            return self.base.transform(editor, matrix, x, delta, language)
        kept = {factor: masks[matrix][factor].detach().clone() for factor in ("x", "delta")}
        made = self.made[id(editor)]
        row = made.languages.index(language) if made.masks == "language" else 0
        with torch.no_grad():
            for factor in kept:
                masks[matrix][factor].fill_(-40.0)
            new = self.base.transform(editor, matrix, x, delta, language)
            for factor, value in kept.items():
                masks[matrix][factor].copy_(value)
        gates = [(torch.sigmoid(kept[factor][row]) * 1.2 - 0.1).clamp(0, 1) for factor in ("x", "delta")]
        return tuple(value * (1 + gate) for value, gate in zip(new, gates, strict=True))


@mutant(
    "masks-for-hyper-networks-only",
    "A7",
    "Masks act where a network transforms the gradient, and the gradient of Editable Training goes unmasked.",
    "editable_training",
)
class MasksForNetworksOnly(DenseMutation):
    OF = "editable_training"

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        if self.made[id(editor)].name != self.OF:
            return self.base.edit(editor, requests)
        masks = [one for arrays in self.base.mask_parameters(editor).values() for one in arrays.values()]
        kept = [one.detach().clone() for one in masks]
        with torch.no_grad():
            for one in masks:
                one.fill_(-40.0)
            edits = self.base.edit(editor, requests)
            update = [self.base.dense(editor, edits, index) for index in range(len(requests))]
            for one, old in zip(masks, kept, strict=True):
                one.copy_(old)
        return edits, [{matrix: delta.detach().clone() for matrix, delta in one.items()} for one in update]

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        if self.made[id(editor)].name != self.OF:
            return self.base.dense(editor, edits, index)
        return edits[1][index]


@mutant("masks-of-another-language", "A6", "Edits use the row after that of their language.")
class MasksOfAnotherLanguage(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        languages = sorted(self.made[id(editor)].languages)
        following = dict(zip(languages, [*languages[1:], *languages[:1]], strict=True))
        moved = [{**r, "language": following.get(r["language"], r["language"])} for r in requests]
        return self.base.edit(editor, moved)


@mutant("rows-by-sorted-language", "A9", "The mask row is a language's place in sorted order, not in the given one.")
class RowsBySortedLanguage(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        given = self.made[id(editor)].languages
        used = dict(zip(sorted(given), given, strict=True))
        return self.base.edit(editor, [{**r, "language": used.get(r["language"], r["language"])} for r in requests])


@mutant("masks-cost-something", "A9", "An editor with masks edits harder, even where all gates are closed.")
class MasksCostSomething(DenseMutation):
    def wrong(self, editor: Any, edits: Any, index: int, update: Update) -> Update:
        factor = 1.0 if self.made[id(editor)].masks == "none" else 1.01
        return {matrix: factor * delta for matrix, delta in update.items()}


@mutant("edit-language-guessed", "A10", "An edit in an unknown language is made in a known one.")
class EditLanguageGuessed(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        known = self.made[id(editor)].languages
        guessed = [{**r, "language": r["language"] if r["language"] in known else known[0]} for r in requests]
        return self.base.edit(editor, guessed)


@mutant("training-language-guessed", "A10", "An edit in an unknown language trains the mask of a known one.")
class TrainingLanguageGuessed(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        return self.base.losses(editor, self.guessed(editor, triples), seed)

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        return self.base.train_step(editor, self.guessed(editor, triples), seed)

    def guessed(self, editor: Any, triples: Sequence[Triple]) -> list[Triple]:
        known = self.made[id(editor)].languages
        told = [(t, t["edit"]["language"]) for t in triples]
        return [{**t, "edit": {**t["edit"], "language": x if x in known else known[0]}} for t, x in told]


@mutant("a-seed-of-zero-is-none", "A3", "Under the seed 0 gates are those of test time.")
class ZeroIsNone(Mutation):
    def mask_factors(self, *args: Any, **kwargs: Any) -> Any:
        call = named(MaskAlgebra.mask_factors, args, kwargs)
        return self.base.mask_factors(**call | {"seed": call["seed"] or None})


@mutant("draws-count-the-steps", "A3", "What a seed draws depends on how many steps an editor has made.")
class DrawsCountSteps(EditorMutation):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.steps: dict[int, int] = {}

    def train_step(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        self.steps[id(editor)] = self.steps.get(id(editor), 0) + 1
        return self.base.train_step(editor, triples, seed)

    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        return self.base.losses(editor, triples, seed + 1000 * self.steps.get(id(editor), 0))


@mutant("shared-mask-counted-for-each-language", "A5", "A shared mask is paid for once for each language.")
class SharedMaskCounted(LossMutation):
    def wrong(self, editor: Any, parts: dict[str, float], gradient: dict[str, Any]) -> Any:
        made = self.made[id(editor)]
        paid = parts["mask"] * (len(made.languages) if made.masks == "shared" else 1)
        return {**parts, "mask": paid, "total": parts["total"] - parts["mask"] + paid}, gradient


@mutant("regions-cut-off", "A10", "An edit in a region of a known language uses the mask of that language.")
class RegionsCutOff(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        return self.base.edit(editor, [{**r, "language": r["language"].partition("-")[0]} for r in requests])


@mutant("names-by-their-start", "A6", "A language has the mask of the first one whose name its own begins with.")
class NamesByTheirStart(EditorMutation):
    def mask_factors(self, *args: Any, **kwargs: Any) -> Any:
        call = named(MaskAlgebra.mask_factors, args, kwargs)
        return self.base.mask_factors(**call | {"language": self.found(call["language"], call["languages"])})

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        known = self.made[id(editor)].languages
        return self.base.edit(editor, [{**r, "language": self.found(r["language"], known)} for r in requests])

    def found(self, language: str, known: Sequence[str]) -> str:
        if language not in known:
            return language
        return next(one for one in known if language.startswith(one))


@mutant("first-language-of-a-call-checked", "A10", "Of the requests of a call the first alone needs a known language.")
class FirstLanguageChecked(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        known = self.made[id(editor)].languages
        later = [{**r, "language": r["language"] if r["language"] in known else known[-1]} for r in requests[1:]]
        return self.base.edit(editor, [*requests[:1], *later])


@mutant("draws-repeat-after-sixteen", "A3", "The gates of a batch are drawn for sixteen places, and then once more.")
class DrawsRepeat(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        chunks = [triples[start : start + 16] for start in range(0, len(triples), 16)]
        shares = [len(chunk) / len(triples) for chunk in chunks]
        return weighed(shares, [self.base.losses(editor, chunk, seed) for chunk in chunks])


@mutant("draws-of-a-byte", "A3", "The last byte of a seed draws the gates.")
class DrawsOfAByte(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        return self.base.losses(editor, triples, seed % 256)


@mutant("draws-by-the-size-of-the-batch", "A3", "The gates of a batch follow from its seed and its numbers of tokens.")
class DrawsByTheSize(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        size = sum(len(triple[role]["input_ids"]) for triple in triples for role in ("update", "retain"))  # type: ignore[literal-required]
        return self.base.losses(editor, triples, 31 * seed + size)


@mutant("draws-kept-from-the-ends", "A3", "Uniform draws are kept within 0.02 and 0.98.")
class DrawsKeptFromTheEnds(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        if call["seed"] is None or call["language"] not in call["languages"]:
            return self.base.mask_factors(**call)
        drawn = self.base.mask_factors(**call | {side: np.ones_like(call[side]) for side in ("x", "delta")})
        row, made = list(call["languages"]).index(call["language"]), []
        for side, factor in zip(("x", "delta"), drawn, strict=True):
            log_alpha = call["log_alpha"][side][row]
            scale = call["log_alpha"].get(f"{side}_scale", np.ones_like(call["log_alpha"][side]))[row]
            low, high = (np.asarray(self.base.gate(log_alpha, np.full_like(log_alpha, u))) for u in (0.02, 0.98))
            gates = (np.asarray(factor) - 1) / np.where(scale == 0, 1, scale)
            made.append(call[side] * (1 + scale * np.clip(gates, low, high)))
        return made[0], made[1]


@mutant("draws-by-the-place-of-a-language", "A9", "What a seed draws depends on the place of the edit's language.")
class DrawsByPlace(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        if call["seed"] is None or call["language"] not in call["languages"]:
            return self.base.mask_factors(**call)
        return self.base.mask_factors(**call | {"seed": call["seed"] + list(call["languages"]).index(call["language"])})


@mutant("training-draws-by-the-first-language", "A9", "What a seed draws in training depends on the first language.")
class TrainingDrawsByFirst(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        first = self.made[id(editor)].languages[0]
        return self.base.losses(editor, triples, seed + sum(map(ord, first)))


@mutant("penalty-shared-by-a-batch", "A5", "L_mask is divided by the number of a batch's edits.")
class PenaltyShared(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        parts, gradient = self.base.losses(editor, triples, seed)
        paid = parts["mask"] / len(triples)
        return {**parts, "mask": paid, "total": parts["total"] - parts["mask"] + paid}, gradient


@mutant("eight-languages-listed", "A10", "The error of an unknown language lists eight of the known ones at most.")
class EightListed(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        made = self.made[id(editor)]
        unknown = [r["language"] for r in requests if r["language"] not in made.languages]
        if unknown and made.masks == "language":
            raise ValueError(f"no mask of {unknown[0]}; known are {', '.join(made.languages[:8])}")
        return self.base.edit(editor, requests)


@mutant("language-guessed-in-a-series", "A10", "After other edits, an unknown language gets the first mask.", "C", "E")
class GuessedInASeries(EditorMutation):
    def edit_after(self, editor: Any, before: Any, requests: Sequence[Request]) -> Any:
        known = self.made[id(editor)].languages
        guessed = [{**r, "language": r["language"] if r["language"] in known else known[0]} for r in requests]
        return self.base.edit_after(editor, before, guessed)


@mutant("arrays-read-as-they-lie", "A1", "A matrix and its mask are read in the order in which they lie in memory.")
class ArraysAsTheyLie(Mutation):
    def apply_mask(self, w: Array, m: Array) -> Array:
        return np.reshape(self.base.apply_mask(w.ravel("K"), m.ravel("K")), w.shape)
