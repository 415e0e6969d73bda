"""Wrong implementations, each wrong in one way: small wrappers around any implementation of the contract.

A mutant states the clause that it breaks. `run_mutants` hands it to the tests of that clause's chapter, which have to
notice. Most are defects that released code of this field really had.
"""

from __future__ import annotations

import inspect
import json
import os
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spec_tests.conformance import Implementation
from spec_tests.contract import (
    RULINGS,
    Array,
    Data,
    Editors,
    Example,
    Experiment,
    FactRow,
    Gates,
    IdTriple,
    Input,
    Labelled,
    Losses,
    MaskAlgebra,
    Outcome,
    Pair,
    PairEdit,
    PairRow,
    Request,
    Sampling,
    StoredRun,
    TableRow,
    Triple,
)
from spec_tests.tiny import (
    LANGUAGES,
    conditioned,
    divergence,
    finetuned,
    gradients,
    logits_of,
    objective_after_a_step,
    rate,
    with_update,
)

Update = dict[str, torch.Tensor]


class Mutation:
    """Everything as the base has it, but for what a subclass defines."""

    #: Chapters that the base has to claim beside the clause's own.
    NEEDS: frozenset[str] = frozenset()
    #: Whether it takes another process to see what is wrong.
    ELSEWHERE = False

    def __init__(self, base: Any) -> None:
        self.base = base
        judged = Implementation(base, "base")
        self.CLAIMS = judged.claims
        self.RULINGS = judged.rulings
        self.EDITORS = judged.editors

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)


@dataclass(frozen=True)
class Mutant:
    id: str
    clause: str
    sentence: str
    build: Callable[[Any], Mutation]
    #: Chapters and capabilities that the base has to claim.
    needs: frozenset[str]


MUTANTS: list[Mutant] = []


def named(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of one of the contract's functions, by name, defaults included."""
    call = inspect.signature(function).bind(None, *args, **kwargs)
    call.apply_defaults()
    return {name: value for name, value in call.arguments.items() if name != "self"}


def mutant(name: str, clause: str, sentence: str, *needs: str) -> Callable[[type[Mutation]], type[Mutation]]:
    def register(build: type[Mutation]) -> type[Mutation]:
        MUTANTS.append(Mutant(name, clause, sentence, build, build.NEEDS | {clause[0], *needs}))
        return build

    return register


# --- T: the task ------------------------------------------------------------------------------------------------------


@mutant("parallel-without-itself", "T1", "I(x) leaves x itself out.")
class ParallelWithoutItself(Mutation):
    def parallel(self, corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
        return [other for other in self.base.parallel(corpus, example, languages) if other != example]


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


# --- M: metrics -------------------------------------------------------------------------------------------------------


def mean(values: Sequence[float]) -> float:
    return float(np.mean(list(values)))


def harmonic(acc: float, con: float) -> float:
    return 2 * acc * con / (acc + con) if acc + con else 0.0


def shares(outcomes: Sequence[Outcome], role: str, key: str | None) -> dict[str, float]:
    """The share of hits per value of `key` among the outcomes of one role; pooled where there is no key."""
    groups: dict[str, list[float]] = {}
    for outcome in outcomes:
        if outcome["role"] == role:
            groups.setdefault(str(outcome[key]) if key else "all", []).append(outcome["hit"])  # type: ignore[literal-required]
    return {name: mean(hits) for name, hits in groups.items()}


class MetricMutation(Mutation):
    """Metrics of the base (its errors too), with other numbers."""

    def metrics(self, outcomes: Sequence[Outcome], languages: Sequence[str] | None = None) -> dict[str, float]:
        right = self.base.metrics(outcomes, languages)
        chosen = [o for o in outcomes if languages is None or o["edit_language"] in languages]
        return self.wrong(right, chosen)

    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        raise NotImplementedError

    def averaged(self, outcomes: Sequence[Outcome], rate: Callable[[str], float]) -> dict[str, float]:
        acc, con = rate("update"), rate("retain")
        return {"acc": acc, "con": con, "succ": harmonic(acc, con)}


@mutant("roles-swapped", "M1", "Update inputs make con and retain inputs make acc.")
class RolesSwapped(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        return {"acc": right["con"], "con": right["acc"], "succ": right["succ"]}


@mutant("con-of-updates-too", "M2", "con is taken over update and retain inputs together.")
class ConOfEverything(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        con = (right["acc"] + right["con"]) / 2
        return {"acc": right["acc"], "con": con, "succ": harmonic(right["acc"], con)}


@mutant("arithmetic-mean", "M3", "succ is the arithmetic mean.")
class ArithmeticMean(Mutation):
    def succ(self, acc: float, con: float) -> float:
        return (acc + con) / 2


@mutant("zero-over-zero", "M3", "succ of two zeros is NaN.")
class ZeroOverZero(Mutation):
    def succ(self, acc: float, con: float) -> float:
        return self.base.succ(acc, con) if acc + con else float("nan")


@mutant("inputs-pooled", "M4", "Within a language all inputs weigh the same, so that edits with many inputs dominate.")
class InputsPooled(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        return self.averaged(outcomes, lambda role: mean([*shares(outcomes, role, "edit_language").values()]))


@mutant(
    "micro-average", "M5", "Edits of all languages are averaged at once, so that languages with many edits dominate."
)
class MicroAverage(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        return self.averaged(outcomes, lambda role: mean([*shares(outcomes, role, "edit").values()]))


@mutant("succ-per-step", "M6", "succ is computed per edit and averaged.")
class SuccPerStep(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        acc, con = shares(outcomes, "update", "edit"), shares(outcomes, "retain", "edit")
        both = [harmonic(acc[edit], con[edit]) for edit in acc if edit in con]
        return {**right, "succ": mean(both) if both else right["succ"]}


@mutant(
    "whole-row-compared", "M7", "con asks every position of the padded row (or, where that is declared, only [MASK])."
)
class WholeRowCompared(Mutation):
    def hit(self, predicted: Sequence[int], expected: Sequence[int], is_mask: Sequence[bool], role: str) -> bool:
        if role != "retain":
            return self.base.hit(predicted, expected, is_mask, role)
        other = [True] * len(is_mask) if self.RULINGS.get("con_positions", "mask") == "mask" else is_mask
        return all(p == e for p, e, counts in zip(predicted, expected, other, strict=True) if counts)


@mutant("one-token-suffices", "M7", "A name of several tokens hits as soon as one of them does.")
class OneTokenSuffices(Mutation):
    def hit(self, predicted: Sequence[int], expected: Sequence[int], is_mask: Sequence[bool], role: str) -> bool:
        return any(p == e for p, e, counts in zip(predicted, expected, is_mask, strict=True) if counts)


@mutant(
    "breakdown-by-the-other", "M8", "The breakdown by input language is the one by editing language, and vice versa."
)
class BreakdownByTheOther(Mutation):
    def breakdown(self, outcomes: Sequence[Outcome], by: str) -> dict[str, dict[str, float]]:
        return self.base.breakdown(outcomes, "language" if by == "edit_language" else "edit_language")


@mutant("succ-averaged-over-runs", "M9", "The succ of several runs is the mean of theirs.")
class SuccAveraged(Mutation):
    def aggregate(self, runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {**self.base.aggregate(runs), "succ": mean([harmonic(run["acc"], run["con"]) for run in runs])}


@mutant("nothing-is-zero", "M10", "A language or role without outcomes counts as 0.")
class NothingIsZero(Mutation):
    def metrics(self, outcomes: Sequence[Outcome], languages: Sequence[str] | None = None) -> dict[str, float]:
        try:
            return self.base.metrics(outcomes, languages)
        except (ValueError, LookupError):
            return {"acc": 0.0, "con": 0.0, "succ": 0.0}


# --- S: sampling ------------------------------------------------------------------------------------------------------


class PairMutation(Mutation):
    """Pairs of the base, each then spoilt; `at` knows the corpus by id."""

    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        at = {example["id"]: example for example in call["corpus"]}
        pool = sorted((name for name, e in at.items() if e["language"] in call["update_languages"]), key=_shuffled)
        return [self.wrong(pair, at, pool) for pair in self.base.evaluation_pairs(*args, **kwargs)]

    def wrong(self, pair: Pair, at: Mapping[str, Example], pool: Sequence[str]) -> Pair:
        raise NotImplementedError


def _shuffled(name: str) -> int:
    return zlib.crc32(name.encode())


@mutant("edits-lost", "S1", "The last edit of an evaluation is lost.")
class EditsLost(Mutation):
    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        return self.base.evaluation_pairs(*args, **kwargs)[:-1]


@mutant("update-in-the-edit-language", "S2", "x_u is x_e itself wherever that is allowed: the monolingual task.")
class UpdateInTheEditLanguage(PairMutation):
    def wrong(self, pair: Pair, at: Mapping[str, Example], pool: Sequence[str]) -> Pair:
        if pair["edit"] not in pool:
            return pair
        return {**pair, "update": [pair["edit"]] * min(1, len(pair["update"]))}


@mutant("retain-from-parallels", "S3", "Retain inputs may be the edited fact itself, told in another language.")
class RetainFromParallels(PairMutation):
    def wrong(self, pair: Pair, at: Mapping[str, Example], pool: Sequence[str]) -> Pair:
        edit = at[pair["edit"]]
        told = [name for name in pool if at[name]["fact"] == edit["fact"] and name != pair["edit"]]
        return {**pair, "retain": [*told[:1], *pair["retain"][1:]] if pair["retain"] else []}


@mutant("one-input-each", "S4", "Each edit gets one update and one retain input, however many were asked.")
class OneInputEach(PairMutation):
    def wrong(self, pair: Pair, at: Mapping[str, Example], pool: Sequence[str]) -> Pair:
        return {**pair, "update": pair["update"][:1], "retain": pair["retain"][:1]}


@mutant("retain-in-the-edit-language", "S5", "D_update holds the editing language only, where it can.")
class RetainInTheEditLanguage(PairMutation):
    def wrong(self, pair: Pair, at: Mapping[str, Example], pool: Sequence[str]) -> Pair:
        edit = at[pair["edit"]]
        own = [n for n in pool if at[n]["language"] == edit["language"] and at[n]["fact"] != edit["fact"]]
        if len(own) < len(pair["retain"]):
            return pair
        start = _shuffled(pair["edit"]) % len(own) if own else 0
        return {**pair, "retain": [*own[start:], *own[:start]][: len(pair["retain"])]}


@mutant("edits-in-every-language", "S5", "Edits are taken from the updating languages too.")
class EditsInEveryLanguage(Mutation):
    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        everyone = sorted({*call["edit_languages"], *call["update_languages"]})
        return self.base.evaluation_pairs(**call | {"edit_languages": everyone})


class TripleMutation(Mutation):
    def training_triples(self, *args: Any, **kwargs: Any) -> list[IdTriple]:
        call = named(Sampling.training_triples, args, kwargs)
        at = {example["id"]: example for example in call["corpus"]}
        pool = sorted((name for name, e in at.items() if e["language"] in call["languages"]), key=_shuffled)
        return [self.wrong(triple, at, pool) for triple in self.base.training_triples(*args, **kwargs)]

    def wrong(self, triple: IdTriple, at: Mapping[str, Example], pool: Sequence[str]) -> IdTriple:
        raise NotImplementedError


@mutant("monolingual-training", "S6", "In training the update input is the edit input.")
class MonolingualTraining(TripleMutation):
    def wrong(self, triple: IdTriple, at: Mapping[str, Example], pool: Sequence[str]) -> IdTriple:
        return {**triple, "update": triple["edit"]}


@mutant(
    "retain-language-follows", "S6", "In training the retain input is in the language of the edit, where it can be."
)
class RetainLanguageFollows(TripleMutation):
    def wrong(self, triple: IdTriple, at: Mapping[str, Example], pool: Sequence[str]) -> IdTriple:
        edit, retain = at[triple["edit"]], at[triple["retain"]]
        told = [n for n in pool if at[n]["language"] == edit["language"] and at[n]["fact"] == retain["fact"]]
        return {**triple, "retain": told[0] if told else triple["retain"]}


class Seeded(Mutation):
    """The base's samples, with a seed that is spoilt."""

    def spoilt(self, corpus: Sequence[Example], seed: int, validate_every: int | None) -> int:
        raise NotImplementedError

    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        return self.base.evaluation_pairs(**call | {"seed": self.spoilt(call["corpus"], call["seed"], None)})

    def training_triples(self, *args: Any, **kwargs: Any) -> list[IdTriple]:
        call = named(Sampling.training_triples, args, kwargs)
        spoilt = self.spoilt(call["corpus"], call["seed"], call["validate_every"])
        return self.base.training_triples(**call | {"seed": spoilt})


@mutant("shared-random-stream", "S7", "Validation draws from the stream that training draws from.")
class SharedStream(Seeded):
    def spoilt(self, corpus: Sequence[Example], seed: int, validate_every: int | None) -> int:
        return seed + (validate_every or 0)


@mutant(
    "order-of-reading", "S7", "The samples depend on the order in which the corpus was read, as with a set or a glob."
)
class OrderOfReading(Seeded):
    def spoilt(self, corpus: Sequence[Example], seed: int, validate_every: int | None) -> int:
        return seed + _shuffled("".join(example["id"] for example in corpus)) % 1000


@mutant("set-order", "S7", "The corpus is walked in the order of a set of names, which another process has otherwise.")
class SetOrder(Seeded):
    ELSEWHERE = True

    def spoilt(self, corpus: Sequence[Example], seed: int, validate_every: int | None) -> int:
        return seed + _shuffled(min((example["id"] for example in corpus), key=hash)) % 1000


@mutant(
    "one-stream-for-ever",
    "S7",
    "One generator lives as long as the process, so that every call draws on from the last.",
)
class OneStreamForEver(Seeded):
    calls = 0

    def spoilt(self, corpus: Sequence[Example], seed: int, validate_every: int | None) -> int:
        self.calls += 1
        return seed + 1000 * self.calls


@mutant("seed-ignored", "S7", "The seed is not used.")
class SeedIgnored(Seeded):
    def spoilt(self, corpus: Sequence[Example], seed: int, validate_every: int | None) -> int:
        return 0


@mutant("missing-fact-replaced", "S8", "A language in which the fact is missing lends another fact for x_u.")
class MissingFactReplaced(PairMutation):
    def wrong(self, pair: Pair, at: Mapping[str, Example], pool: Sequence[str]) -> Pair:
        fact = at[pair["edit"]]["fact"]
        told = {example["language"] for example in at.values() if example["fact"] == fact}
        lent = [name for name in pool if at[name]["language"] not in told]
        return {**pair, "update": [*pair["update"], *lent[:1]]}


@mutant(
    "prefix-of-one-language", "S9", "An evaluation of limited size is the head of a list that is sorted by language."
)
class PrefixOfOneLanguage(Mutation):
    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        at = {example["id"]: example for example in call["corpus"]}
        pairs = self.base.evaluation_pairs(**call | {"limit": None})
        return sorted(pairs, key=lambda pair: (at[pair["edit"]]["language"], pair["edit"]))[: call["limit"]]


# --- A: masks ---------------------------------------------------------------------------------------------------------


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

    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        raise NotImplementedError


@mutant("unbounded-mask-scale", "A2", "The gate is multiplied by a scale that nothing bounds.")
class UnboundedMaskScale(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        x, delta = self.base.mask_factors(**call)
        return call["x"] + 3 * (x - call["x"]), call["delta"] + 3 * (delta - call["delta"])


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

    def spoilt(self, gates: int) -> tuple[float, float]:
        raise NotImplementedError


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


@mutant("masked-twice", "A8", "x is masked where it is captured and again where it is used.")
class MaskedTwice(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        x, delta = self.base.mask_factors(**call)
        return self.base.mask_factors(**call | {"x": x})[0], delta


@mutant("gates-never-close", "A9", "A gate has a floor, so that a closed mask still changes an edit.")
class GatesNeverClose(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        x, delta = self.base.mask_factors(**call)
        return x + 1e-3 * call["x"], delta + 1e-3 * call["delta"]


@mutant("unknown-language-is-the-first", "A10", "An unknown editing language quietly gets the first row.")
class UnknownIsFirst(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        known = call["language"] if call["language"] in call["languages"] else call["languages"][0]
        return self.base.mask_factors(**call | {"language": known})


# --- B: budget --------------------------------------------------------------------------------------------------------

Shapes = Mapping[str, tuple[int, int]]


@mutant("full-size-masks", "B1", "A language has a mask for every element of a matrix.")
class FullSizeMasks(Mutation):
    def initial_masks(self, shapes: Shapes, languages: Sequence[str]) -> dict[str, dict[str, Array]]:
        made = self.base.initial_masks(shapes, languages)
        return {key: {**made[key], "full": np.zeros((len(languages), n, m))} for key, (n, m) in shapes.items()}


@mutant("one-mask-for-all", "B1", "Masks do not grow with the number of languages.")
class OneMaskForAll(Mutation):
    def initial_masks(self, shapes: Shapes, languages: Sequence[str]) -> dict[str, dict[str, Array]]:
        return self.base.initial_masks(shapes, languages[:1])


class ShapesMutation(Mutation):
    def editor_shapes(self, shapes: Shapes, languages: Sequence[str], masks: Any) -> dict[str, tuple[int, ...]]:
        return {**self.base.editor_shapes(shapes, languages, masks), **self.further(shapes, languages)}

    def further(self, shapes: Shapes, languages: Sequence[str]) -> dict[str, tuple[int, ...]]:
        raise NotImplementedError


@mutant("gradient-to-gradient-layer", "B2", "A dense layer maps all elements of a gradient to all elements.")
class GradientToGradient(ShapesMutation):
    def further(self, shapes: Shapes, languages: Sequence[str]) -> dict[str, tuple[int, ...]]:
        return {f"{key}.layer": (n * m, n * m) for key, (n, m) in shapes.items()}


@mutant("update-buffer-per-language", "B2", "A buffer keeps one full-size update per language.")
class BufferPerLanguage(ShapesMutation):
    def further(self, shapes: Shapes, languages: Sequence[str]) -> dict[str, tuple[int, ...]]:
        return {f"{key}.kept": (len(languages), m, n) for key, (n, m) in shapes.items()}


@mutant("a-matrix-per-language-on-the-way", "B2", "An edit makes a full mask for every language and uses one.", "E")
class MatrixPerLanguage(Mutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        for factors in self.base.mask_parameters(editor).values():
            factors["delta"][:, :, None] * factors["x"][:, None, :]
        return self.base.edit(editor, requests)


@mutant("mask-multiplied-out", "B3", "The full mask is multiplied out before it is applied.")
class MaskMultipliedOut(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        x, delta = self.base.mask_factors(**call)
        full = np.ones((x.shape[-1], delta.shape[-1]))
        return x * full[:, 0], delta * full[0]


# --- editors: E, and what T, A and B ask of them ----------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """What an editor was made from. It keeps the editor, so that its identity stays its own."""

    editor: Any
    name: str
    model: torch.nn.Module
    edited: tuple[str, ...]
    languages: tuple[str, ...]
    masks: str
    lr: float | None


class EditorMutation(Mutation):
    """Remembers what every editor was made from."""

    NEEDS = frozenset({"E"})

    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.made: dict[int, Made] = {}

    def make_editor(self, *args: Any, **kwargs: Any) -> Any:
        call = named(Editors.make_editor, args, kwargs)
        editor = self.base.make_editor(**self.wrong_options(dict(call)))
        made = {key: tuple(call[key]) for key in ("edited", "languages")}
        made |= {key: call[key] for key in ("name", "model", "masks", "lr")}
        self.made[id(editor)] = Made(editor, **made)
        return editor

    def wrong_options(self, call: dict[str, Any]) -> dict[str, Any]:
        return call


class DenseMutation(EditorMutation):
    """Edits of the base with another ΔW, in `dense` and in the logits alike."""

    #: The editor that is spoilt; without a name all are.
    OF: str | None = None

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        update = self.base.dense(editor, edits, index)
        if self.OF not in (None, self.made[id(editor)].name):
            return update
        return self.wrong(editor, edits, index, {matrix: delta.detach() for matrix, delta in update.items()})

    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        if self.OF not in (None, self.made[id(editor)].name):
            return self.base.edited_logits(editor, self.own(edits), index, inputs)
        model = with_update(self.made[id(editor)].model, self.dense(editor, edits, index))
        with torch.no_grad():
            return [logits_of(model, one) for one in inputs]

    def own(self, edits: Any) -> Any:
        """The base's edits, for a mutant that keeps something beside them."""
        return edits

    def wrong(self, editor: Any, edits: Any, index: int, update: Update) -> Update:
        raise NotImplementedError


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
class EditsAccumulate(EditorMutation):
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

    def edited_logits(self, editor: Any, edits: Any, index: int, inputs: Sequence[Input]) -> list[torch.Tensor]:
        return self.base.edited_logits(editor, edits[0], index, inputs)

    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.factors(editor, edits[0], index)


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
        right = [one.argmax(-1).tolist() == r["labels"] for one, r in zip(raw, requests, strict=True)]
        return self.base.edit(editor, requests), right

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        own, right = edits
        return {m: d * (not right[index]) for m, d in self.base.dense(editor, own, index).items()}

    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.factors(editor, edits[0], index)


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


class ScaledMutation(DenseMutation):
    """Edits by a factor that is fixed when they are made."""

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        return self.base.edit(editor, requests), self.factor(editor)

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        own, factor = edits
        return {matrix: factor * delta for matrix, delta in self.base.dense(editor, own, index).items()}

    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return {m: (u, edits[1] * v) for m, (u, v) in self.base.factors(editor, edits[0], index).items()}

    def factor(self, editor: Any) -> Any:
        raise NotImplementedError


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


class OfEditableTraining(EditorMutation):
    """What goes wrong with the parameters that Editable Training trains."""

    def trained(self, editor: Any) -> dict[str, torch.Tensor]:
        """θ' of each edited matrix."""
        return {matrix: value.detach().clone() for matrix, (_, value) in self.base.trained_weights(editor).items()}

    def trained_model(self, editor: Any) -> torch.nn.Module:
        made = self.made[id(editor)]
        raw = dict(made.model.named_parameters())
        return with_update(made.model, {m: value - raw[m].detach() for m, value in self.trained(editor).items()})


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


class LossMutation(EditorMutation):
    """The base's objective, with values or gradients spoilt."""

    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        parts, gradient = self.base.losses(editor, triples, seed)
        return self.wrong(editor, dict(parts), dict(gradient))

    def wrong(self, editor: Any, parts: dict[str, float], gradient: dict[str, Any]) -> Any:
        raise NotImplementedError

    def masks_by_name(self, editor: Any) -> dict[str, torch.Tensor]:
        """Mask parameters under their names in `parameters`."""
        owned = {value.data_ptr() for arrays in self.base.mask_parameters(editor).values() for value in arrays.values()}
        return {n: v for n, v in self.base.parameters(editor).items() if v.data_ptr() in owned}


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


@mutant("update-materialised", "B4", "An edit multiplies its factors out.", "factored")
class UpdateMaterialised(EditorMutation):
    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        edits = self.base.edit(editor, requests)
        for index in range(len(requests)):
            for u, v in self.base.factors(editor, edits, index).values():
                v.T @ u
        return edits


@mutant("factors-of-the-first", "B4", "All edits of a batch have the factors of the first.", "factored")
class FactorsOfTheFirst(EditorMutation):
    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.factors(editor, edits, 0)


class CaptureMutation(EditorMutation):
    def capture(self, editor: Any, request: Request) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        captured = self.base.capture(editor, request)
        return {matrix: self.wrong(request, x, delta) for matrix, (x, delta) in captured.items()}

    def wrong(self, request: Request, x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError


@mutant("transposed-if-square", "E1", "Factors are told apart by their widths, which fails for a square matrix.")
class TransposedIfSquare(CaptureMutation):
    def wrong(self, request: Request, x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (delta, x) if x.shape[-1] == delta.shape[-1] else (x, delta)


@mutant("loss-summed-over-positions", "E1", "The gradient is that of a sum over positions.")
class LossSummed(CaptureMutation):
    def wrong(self, request: Request, x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, delta * len(request["positions"])


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
        raise NotImplementedError

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


@dataclass(frozen=True)
class Asked:
    """Edits with the requests that they were made for."""

    edits: Any
    requests: Sequence[Request]


class AskedMutation(DenseMutation):
    """Knows the requests of the edits that it spoils."""

    def edit(self, editor: Any, requests: Sequence[Request]) -> Any:
        return Asked(self.base.edit(editor, requests), requests)

    def own(self, edits: Any) -> Any:
        return edits.edits

    def dense(self, editor: Any, edits: Any, index: int) -> Update:
        update = {m: delta.detach() for m, delta in self.base.dense(editor, edits.edits, index).items()}
        if self.made[id(editor)].name != self.OF:
            return update
        return self.wrong(editor, edits.requests, index, update)

    def factors(self, editor: Any, edits: Any, index: int) -> Any:
        return self.base.factors(editor, edits.edits, index)


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
        raise NotImplementedError


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

    def wrong(self, x: Any, delta: Any, x_new: Any, delta_new: Any) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError


@mutant("eps-swallows-the-gradient", "E6", "LayerNorm's eps of 1e-5 is larger than the variance of δ.")
class EpsSwallows(TransformMutation):
    def wrong(self, x: Any, delta: Any, x_new: Any, delta_new: Any) -> tuple[torch.Tensor, torch.Tensor]:
        variance = delta.var(-1, keepdim=True, unbiased=False)
        return x_new, delta_new * (variance / (variance + 1e-5)).sqrt()


@mutant("not-normalised", "E6", "The rows go through as they come.")
class NotNormalised(TransformMutation):
    def wrong(self, x: Any, delta: Any, x_new: Any, delta_new: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return x, delta


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
        return [*groups, groups[-1]]


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

    def wrong(self, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


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


# --- L: objectives ----------------------------------------------------------------------------------------------------


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


# --- D: data ----------------------------------------------------------------------------------------------------------


def facts_in(folder: Path) -> list[FactRow]:
    """All facts of a well-formed folder in file order."""
    paths = [path for path in sorted(Path(folder).glob("*/*.jsonl")) if path.stem != "templates"]
    lines = [(path, line) for path in paths for line in path.read_text(encoding="utf-8-sig").split("\n")]
    return [
        {"language": path.parent.name, "relation": path.stem, **json.loads(line)}
        for path, line in lines
        if line.strip()
    ]


class SplitMutation(Mutation):
    """Splits of a reader of our own, where the base reads the folder without an error."""

    #: From the first to keep its subjects to the last.
    order: tuple[str, ...] = ("train", "test", "validation")

    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        self.base.split(folder)
        groups: dict[Any, list[FactRow]] = {}
        for row in self.arranged(facts_in(folder)):
            groups.setdefault(self.group(row), []).append(row)
        parts: dict[str, list[FactRow]] = {"train": [], "validation": [], "test": []}
        for rows in groups.values():
            first, second = self.boundaries(len(rows))
            parts["train"] += rows[:first]
            parts["validation"] += rows[first:second]
            parts["test"] += rows[second:]
        return self.kept(parts)

    def arranged(self, rows: list[FactRow]) -> list[FactRow]:
        return rows

    def group(self, row: FactRow) -> Any:
        return row["language"], row["relation"]

    def boundaries(self, n: int) -> tuple[int, int]:
        return round(n * 8 / 10), round(n * 9 / 10)

    def kept(self, parts: dict[str, list[FactRow]]) -> dict[str, list[FactRow]]:
        taken: set[Any] = set()
        for name in self.order:
            parts[name] = [row for row in parts[name] if not taken & set(self.claimed(row))]
            taken |= {key for row in parts[name] for key in self.claimed(row)}
        return parts

    def claimed(self, row: FactRow) -> tuple[Any, ...]:
        """What no later split may have."""
        return (row["sub_uri"],)


@mutant("split-rounded-down", "D1", "The boundaries of the splits are rounded down.")
class SplitRoundedDown(SplitMutation):
    def boundaries(self, n: int) -> tuple[int, int]:
        return n * 8 // 10, n * 9 // 10


@mutant("halves-rounded-up", "D1", "A boundary of a half is rounded up.")
class HalvesRoundedUp(SplitMutation):
    def boundaries(self, n: int) -> tuple[int, int]:
        return int(n * 8 / 10 + 0.5), int(n * 9 / 10 + 0.5)


@mutant("split-by-language", "D1", "All relations of a language are split as one list.")
class SplitByLanguage(SplitMutation):
    def group(self, row: FactRow) -> Any:
        return row["language"]


@mutant("split-at-random", "D1", "The facts are shuffled before they are split.")
class SplitAtRandom(SplitMutation):
    def arranged(self, rows: list[FactRow]) -> list[FactRow]:
        return random.Random(0).sample(rows, len(rows))


@mutant("subjects-leak", "D2", "A subject may be in several splits.")
class SubjectsLeak(SplitMutation):
    def claimed(self, row: FactRow) -> tuple[Any, ...]:
        return ()


@mutant("subjects-leak-across-languages", "D2", "A subject is kept to one split within its language only.")
class SubjectsLeakAcrossLanguages(SplitMutation):
    def claimed(self, row: FactRow) -> tuple[Any, ...]:
        return ((row["language"], row["sub_uri"]),)


@mutant("validation-before-test", "D2", "Validation keeps the subjects that it shares with test.")
class ValidationBeforeTest(SplitMutation):
    order = ("train", "validation", "test")


@mutant("objects-kept-apart", "D2", "An object, too, is kept to one split.")
class ObjectsKeptApart(SplitMutation):
    def claimed(self, row: FactRow) -> tuple[Any, ...]:
        return row["sub_uri"], row["obj_uri"]


class FactMutation(Mutation):
    """The base's inputs of a fact, changed seed by seed; `call` holds the arguments by name."""

    def fact_inputs(self, *args: Any, **kwargs: Any) -> list[Triple]:
        call = named(Data.fact_inputs, args, kwargs)
        found = zip(self.base.fact_inputs(**call), call["seeds"], strict=True)
        rows = facts_in(call["folder"])
        return [self.wrong(triple, call, rows, random.Random(seed)) for triple, seed in found]

    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        raise NotImplementedError


def with_masks(x: Any, mask: int, count: int) -> Any:
    """An input with another number of masks in a row."""
    ids, (at, *_), end = x["input_ids"], x["positions"], x["positions"][-1] + 1
    return {
        **x,
        "input_ids": [*ids[:at], *[mask] * count, *ids[end:]],
        "positions": list(range(at, at + count)),
    }


def desiring(triple: Triple, mask: int, label: list[int]) -> Triple:
    """A triple with another desired label."""
    edit, update = (with_masks(triple[role], mask, len(label)) for role in ("edit", "update"))  # type: ignore[literal-required]
    return {**triple, "edit": {**edit, "labels": label}, "update": update}


@mutant("one-mask", "D3", "Each [Y] becomes a single [MASK], however many tokens the label has.")
class OneMask(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        edit = with_masks(triple["edit"], call["mask"], 1)
        return {**triple, "edit": {**edit, "labels": triple["edit"]["labels"]}}


@mutant("masks-at-the-end", "D3", "The masks stand at the end of the sentence.")
class MasksAtTheEnd(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        edit, mask = triple["edit"], call["mask"]
        ids = [token for token in edit["input_ids"] if token != mask]
        count = len(edit["positions"])
        positions = list(range(len(ids), len(ids) + count))
        return {**triple, "edit": {**edit, "input_ids": [*ids, *[mask] * count], "positions": positions}}


class LabelMutation(FactMutation):
    """Draws the desired label from facts of its own choice."""

    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        names = [row["obj_label"] for row in rows if self.chosen(row, call)]
        return desiring(triple, call["mask"], call["tokenize"](rng.choice(names)))

    def chosen(self, row: FactRow, call: dict[str, Any]) -> bool:
        return (row["language"], row["relation"]) == (call["edit"]["language"], call["edit"]["relation"])


@mutant("labels-by-facts", "D4", "The desired label is drawn from the facts, so that frequent objects come more often.")
class LabelsByFacts(LabelMutation):
    pass


@mutant("labels-of-any-relation", "D4", "The desired label is any entity of the language.")
class LabelsOfAnyRelation(LabelMutation):
    def chosen(self, row: FactRow, call: dict[str, Any]) -> bool:
        return row["language"] == call["edit"]["language"]


@mutant("labels-in-the-update-language", "D4", "The desired label is drawn in the updating language.")
class LabelsInTheUpdateLanguage(LabelMutation):
    def chosen(self, row: FactRow, call: dict[str, Any]) -> bool:
        return (row["language"], row["relation"]) == (call["update"], call["edit"]["relation"])


@mutant("update-as-long-as-its-own-object", "D4", "An update input has a mask for each token of its own true object.")
class UpdateAsLongAsItsObject(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        place = (call["update"], call["edit"]["relation"], call["edit"]["subject"])
        names = [r["obj_label"] for r in rows if (r["language"], r["relation"], r["sub_uri"]) == place]
        return {**triple, "update": with_masks(triple["update"], call["mask"], len(call["tokenize"](names[0])))}


@mutant("retain-as-long-as-the-label", "D5", "A retain input has as many masks as the edit's label has tokens.")
class RetainAsLongAsTheLabel(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        return {**triple, "retain": with_masks(triple["retain"], call["mask"], len(triple["edit"]["labels"]))}


@mutant("retain-lengths-evenly", "D5", "Every length that a language's entity names have is equally likely.")
class RetainLengthsEvenly(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        said = [row["obj_label"] for row in rows if row["language"] == call["retain"]["language"]]
        lengths = sorted({len(call["tokenize"](name)) for name in said})
        return {**triple, "retain": with_masks(triple["retain"], call["mask"], rng.choice(lengths))}


@mutant("retain-lengths-of-the-edit-language", "D5", "The masks of a retain input are counted in the editing language.")
class RetainLengthsOfTheEditLanguage(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        names = {row["obj_uri"]: row["obj_label"] for row in rows if row["language"] == call["edit"]["language"]}
        length = len(call["tokenize"](rng.choice(sorted(names.values()))))
        return {**triple, "retain": with_masks(triple["retain"], call["mask"], length)}


@mutant("subject-of-the-other-ruling", "D6", "The update input names the subject in the other of the two languages.")
class SubjectOfTheOtherRuling(FactMutation):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: list[FactRow], rng: random.Random) -> Triple:
        place = (call["edit"]["relation"], call["edit"]["subject"])
        names = {row["language"]: row["sub_label"] for row in rows if (row["relation"], row["sub_uri"]) == place}
        update, edit = (call["tokenize"](names[said]) for said in (call["update"], call["edit"]["language"]))
        right, other = (edit, update) if self.RULINGS.get("subject") == "edit-language" else (update, edit)
        return {**triple, "update": replaced(triple["update"], right, other)}


def replaced(x: Input, old: list[int], new: list[int]) -> Input:
    """An input in which some tokens in a row are others."""
    ids = x["input_ids"]
    at = next(i for i in range(len(ids)) if ids[i : i + len(old)] == old)
    moved = [p + (len(new) - len(old) if p > at else 0) for p in x["positions"]]
    return {"input_ids": [*ids[:at], *new, *ids[at + len(old) :]], "positions": moved}


class PairEditMutation(Mutation):
    """Edits of sentence pairs, changed one by one."""

    def pair_edits(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        call = named(Data.pair_edits, args, kwargs)
        return [self.wrong(edit, call) for edit in self.base.pair_edits(**call)]

    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        raise NotImplementedError


@mutant("right-pairs-edited-too", "D7", "An evaluation edits every test input.")
class RightPairsEditedToo(Mutation):
    def pair_edits(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        call = named(Data.pair_edits, args, kwargs)
        other = {said: [(row["label"] + 1) % 3 for row in call["rows"]] for said in call["predictions"]}
        return self.base.pair_edits(**call | {"predictions": other})


@mutant("another-wrong-class", "D7", "A wrong prediction is edited towards any other class.")
class AnotherWrongClass(PairEditMutation):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        return {**edit, "label": (call["predictions"][edit["language"]][edit["row"]] + 1) % 3}


@mutant("retained-from-the-errors", "D7", "Retain inputs come from the inputs that the raw model gets wrong.")
class RetainedFromTheErrors(PairEditMutation):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        golds = [row["label"] for row in call["rows"]]
        found = [(i, said) for said, told in call["predictions"].items() for i, c in enumerate(told) if c != golds[i]]
        pool = [place for place in found if place[0] != edit["row"]]
        rng = random.Random(repr(edit["retain"]))
        return {**edit, "retain": [rng.choice(pool) for _ in edit["retain"]]}


@mutant("hypothesis-by-position", "D7", "The hypothesis is taken by the language's place among the premises.")
class HypothesisByPosition(PairEditMutation):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        row: PairRow = call["rows"][edit["row"]]
        at = list(row["premise"]).index(edit["language"])
        ids = call["tokenize"](row["premise"][edit["language"]], row["hypothesis"]["translation"][at])
        return {**edit, "input": {**edit["input"], "input_ids": ids}}


@mutant("trained-towards-gold", "D7", "Training desires the gold class.")
class TrainedTowardsGold(Mutation):
    def pair_training(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        call = named(Data.pair_training, args, kwargs)
        return [{**edit, "label": call["rows"][edit["row"]]["label"]} for edit in self.base.pair_training(**call)]


class ClassifierMutation(Mutation):
    """The base's examples of a raw classifier, from other rows."""

    def classifier_examples(self, splits: Mapping[str, Sequence[PairRow]], tokenize: Any) -> list[Labelled]:
        return self.base.classifier_examples({**splits, "train": self.seen(splits)}, tokenize)

    def seen(self, splits: Mapping[str, Sequence[PairRow]]) -> Sequence[PairRow]:
        raise NotImplementedError


@mutant("classifier-sees-the-development-set", "D8", "The raw classifier is fine-tuned on validation pairs, too.")
class ClassifierSeesValidation(ClassifierMutation):
    def seen(self, splits: Mapping[str, Sequence[PairRow]]) -> Sequence[PairRow]:
        return [*splits["train"], *splits["validation"]]


@mutant("classifier-without-its-last-rows", "D8", "A pass leaves out what does not fill a batch.")
class ClassifierWithoutLastRows(ClassifierMutation):
    def seen(self, splits: Mapping[str, Sequence[PairRow]]) -> Sequence[PairRow]:
        return splits["train"][: (len(splits["train"]) - 1) // 8 * 8]


@mutant("classifier-in-all-languages", "D8", "The raw classifier is fine-tuned on the pairs of all languages.")
class ClassifierInAllLanguages(Mutation):
    def classifier_examples(self, splits: Mapping[str, Sequence[PairRow]], tokenize: Any) -> list[Labelled]:
        found = list(self.base.classifier_examples(splits, tokenize))
        for row in splits["train"]:
            for said, text in zip(row["hypothesis"]["language"], row["hypothesis"]["translation"], strict=True):
                if said != "en":
                    ids = tokenize(row["premise"][said], text)
                    found.append({"input_ids": ids, "positions": [0], "label": row["label"]})
        return found


@mutant("order-of-files", "D9", "The draws depend on the order in which the folder lists its files.")
class OrderOfFiles(Mutation):
    def fact_inputs(self, *args: Any, **kwargs: Any) -> list[Triple]:
        call = named(Data.fact_inputs, args, kwargs)
        shift = _shuffled("".join(os.listdir(call["folder"]))) % 1000
        return self.base.fact_inputs(**call | {"seeds": [seed + shift for seed in call["seeds"]]})


@mutant("carriage-returns-kept", "D9", "Windows line endings become part of the last name.")
class CarriageReturnsKept(Mutation):
    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        parts = self.base.split(folder)
        if not any(b"\r\n" in path.read_bytes() for path in Path(folder).glob("*/*.jsonl")):
            return parts
        return {name: [{**row, "obj_label": row["obj_label"] + "\r"} for row in part] for name, part in parts.items()}


@mutant("malformed-is-empty", "D9", "A folder with a malformed line has no facts.")
class MalformedIsEmpty(Mutation):
    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        try:
            return self.base.split(folder)
        except (ValueError, LookupError):
            return {"train": [], "validation": [], "test": []}


@mutant("malformed-without-line", "D9", "A malformed line is an error that names the file alone.")
class MalformedWithoutLine(Mutation):
    def split(self, folder: Path) -> dict[str, list[FactRow]]:
        try:
            return self.base.split(folder)
        except (ValueError, LookupError) as error:
            names = [path.name for path in sorted(Path(folder).glob("*/*.jsonl")) if path.name in str(error)]
            raise ValueError(f"malformed data in {', '.join(names)}") from error


# --- R: reproduction --------------------------------------------------------------------------------------------------


@mutant("one-rate-for-all-editors", "R1", "MEND is trained with the learning rate of the other editors.")
class OneRateForAllEditors(Mutation):
    def paper_preset(self) -> dict[str, float]:
        return {**self.base.paper_preset(), "mend_lr": 5e-5}


@mutant("english-validated-as-all", "R1", "Training on English alone is validated as rarely as training on everything.")
class EnglishValidatedAsAll(Mutation):
    def paper_preset(self) -> dict[str, float]:
        preset = self.base.paper_preset()
        return {**preset, "english_validate_every": preset["validate_every"], "english_patience": preset["patience"]}


@mutant("english-inputs-alone", "R2", "Table 1 updates and retains in English alone.")
class EnglishInputsAlone(Mutation):
    def experiments(self, languages: Sequence[str]) -> list[Experiment]:
        rows = self.base.experiments(languages)
        return [row | {"input_languages": ["en"]} if row["table"] == 1 else row for row in rows]


@mutant("masked-without-its-base", "R2", "Table 2 has the masked editors, and not those without masks.")
class MaskedWithoutItsBase(Mutation):
    def experiments(self, languages: Sequence[str]) -> list[Experiment]:
        rows = self.base.experiments(languages)
        return [r for r in rows if r["table"] == 1 or r["masks"] != "none" or r["editor"] == "finetuning"]


@mutant("default-rulings-recorded", "R3", "A record has the required rulings, whatever the run followed.")
class DefaultRulingsRecorded(Mutation):
    def record(self, facts: Path, model: Path, seed: int, rulings: Mapping[str, str]) -> dict[str, Any]:
        required = {name: alternatives[0] for name, alternatives in RULINGS.items()}
        return {**self.base.record(facts, model, seed, rulings), "rulings": required}


@mutant("fingerprint-of-the-path", "R3", "The data are known by the folder that they were in.")
class FingerprintOfThePath(Mutation):
    def record(self, facts: Path, model: Path, seed: int, rulings: Mapping[str, str]) -> dict[str, Any]:
        return {**self.base.record(facts, model, seed, rulings), "data": str(facts)}


@mutant("fingerprint-of-the-sizes", "R3", "The data are known by the number of their lines.")
class FingerprintOfTheSizes(Mutation):
    def record(self, facts: Path, model: Path, seed: int, rulings: Mapping[str, str]) -> dict[str, Any]:
        return {**self.base.record(facts, model, seed, rulings), "data": len(facts_in(facts))}


@mutant("code-not-recorded", "R3", "A record does not say which code made it.")
class CodeNotRecorded(Mutation):
    def record(self, facts: Path, model: Path, seed: int, rulings: Mapping[str, str]) -> dict[str, Any]:
        found = self.base.record(facts, model, seed, rulings)
        return {name: value for name, value in found.items() if name != "code"}


class TableMutation(Mutation):
    """Rows of a table, changed one by one, with the rows' own runs."""

    def table(self, runs: Sequence[StoredRun], edit_language: str | None) -> list[TableRow]:
        by_name = {run["name"]: run for run in runs}
        rows = self.base.table(runs, edit_language)
        return [self.wrong(row, [by_name[name] for name in row["runs"]]) for row in rows]

    def wrong(self, row: TableRow, runs: Sequence[StoredRun]) -> TableRow:
        raise NotImplementedError


@mutant("first-run-named", "R3", "A row names the first of its runs.")
class FirstRunNamed(TableMutation):
    def wrong(self, row: TableRow, runs: Sequence[StoredRun]) -> TableRow:
        return {**row, "runs": row["runs"][:1]}


@mutant("succ-of-runs-averaged", "R4", "A row's succ is the mean of the succ of its runs.", "M")
class SuccOfRunsAveraged(TableMutation):
    def wrong(self, row: TableRow, runs: Sequence[StoredRun]) -> TableRow:
        return {**row, "succ": 100 * mean([self.base.metrics(run["outcomes"])["succ"] for run in runs])}


@mutant("best-run-shown", "R4", "A row shows the run with the best succ.", "M")
class BestRunShown(TableMutation):
    def wrong(self, row: TableRow, runs: Sequence[StoredRun]) -> TableRow:
        best = max((self.base.metrics(run["outcomes"]) for run in runs), key=lambda rates: rates["succ"])
        return {**row, "acc": 100 * best["acc"], "con": 100 * best["con"], "succ": 100 * best["succ"]}


@mutant("table-in-tenths", "R4", "A row is rounded to one digit.")
class TableInTenths(TableMutation):
    def wrong(self, row: TableRow, runs: Sequence[StoredRun]) -> TableRow:
        return {**row, "acc": round(row["acc"], 1), "con": round(row["con"], 1), "succ": round(row["succ"], 1)}


@mutant(
    "patience-counted-from-the-last-rise",
    "R5",
    "Training stops where succ has not risen from one validation to the next.",
)
class PatienceFromTheLastRise(Mutation):
    def stopping(self, succ: Sequence[float], validate_every: int, patience: int, max_steps: int) -> tuple[int, int]:
        since = 0
        for place in range(len(succ)):
            since = 0 if place == 0 or succ[place] > succ[place - 1] else since + validate_every
            if since >= patience:
                break
        best = succ.index(max(succ[: place + 1]))
        return (place + 1) * validate_every, (best + 1) * validate_every


class StoppingMutation(Mutation):
    """The base's rule, with what it says spoilt."""

    def stopping(self, succ: Sequence[float], validate_every: int, patience: int, max_steps: int) -> tuple[int, int]:
        stopped, judged = self.base.stopping(succ, validate_every, patience, max_steps)
        return self.wrong(list(succ), validate_every, patience, max_steps, stopped, judged)

    def wrong(
        self, succ: list[float], every: int, patience: int, max_steps: int, stopped: int, judged: int
    ) -> tuple[int, int]:
        raise NotImplementedError


@mutant("last-parameters-judged", "R5", "The parameters at the end of the training are judged, not the best.")
class LastParametersJudged(StoppingMutation):
    def wrong(
        self, succ: list[float], every: int, patience: int, max_steps: int, stopped: int, judged: int
    ) -> tuple[int, int]:
        return stopped, stopped


@mutant("ties-count-as-improvement", "R5", "An equal succ is an improvement, and patience begins anew.")
class TiesImprove(StoppingMutation):
    def wrong(
        self, succ: list[float], every: int, patience: int, max_steps: int, stopped: int, judged: int
    ) -> tuple[int, int]:
        risen = [value + 1e-9 * place for place, value in enumerate(succ)]
        return self.base.stopping(risen, every, patience, max_steps)


@mutant("one-validation-too-many", "R5", "Training goes on until succ has not improved for longer than patience.")
class OneValidationTooMany(StoppingMutation):
    def wrong(
        self, succ: list[float], every: int, patience: int, max_steps: int, stopped: int, judged: int
    ) -> tuple[int, int]:
        return self.base.stopping(succ, every, patience + every, max_steps)


class SimilarityMutation(Mutation):
    """Cosines on dimensions of its own choice."""

    def mask_similarity(self, log_alpha: Array) -> Array:
        rows = []
        for place, row in enumerate(log_alpha):
            chosen = np.argsort(-self.key(log_alpha, place), kind="stable")[: self.count(log_alpha.shape[1])]
            a, b = row[chosen], log_alpha[:, chosen]
            rows.append(b @ a / (np.linalg.norm(a) * np.linalg.norm(b, axis=1)))
        return np.stack(rows)

    def key(self, log_alpha: Array, row: int) -> Array:
        return log_alpha[row]

    def count(self, width: int) -> int:
        return width // 100


@mutant("similarity-over-all-dimensions", "R6", "Figure 5 compares the languages over all of their parameters.")
class SimilarityOverAll(SimilarityMutation):
    def count(self, width: int) -> int:
        return width


@mutant("preferred-by-magnitude", "R6", "The preferred dimensions are those farthest from zero.")
class PreferredByMagnitude(SimilarityMutation):
    def key(self, log_alpha: Array, row: int) -> Array:
        return np.abs(log_alpha[row])


@mutant("preferred-on-average", "R6", "All rows look at the dimensions that are highest over all languages.")
class PreferredOnAverage(SimilarityMutation):
    def key(self, log_alpha: Array, row: int) -> Array:
        return log_alpha.mean(0)


@mutant(
    "preferences-of-the-column", "R6", "A row looks at the preferred dimensions of the language it is compared with."
)
class PreferencesOfTheColumn(Mutation):
    def mask_similarity(self, log_alpha: Array) -> Array:
        return np.asarray(self.base.mask_similarity(log_alpha)).T


@mutant("trained-anew-for-each-table", "R7", "Table 2's editors without masks are trained once more.")
class TrainedAnew(Mutation):
    def experiments(self, languages: Sequence[str]) -> list[Experiment]:
        return [row | {"run": f"{row['run']}, table {row['table']}"} for row in self.base.experiments(languages)]


@mutant("one-run-for-all-trainings", "R7", "The rows of an editor show one run, however it was trained.")
class OneRunForAllTrainings(Mutation):
    def experiments(self, languages: Sequence[str]) -> list[Experiment]:
        return [row | {"run": row["editor"]} for row in self.base.experiments(languages)]


#: Every mutant by its id.
BY_ID = {one.id: one for one in MUTANTS}
