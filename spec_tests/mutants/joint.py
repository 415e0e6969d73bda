"""Mutants of draws that are right one by one and wrong together, and of draws that look right in one setting alone."""

from __future__ import annotations

import os
import random
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..contract import Array, Data, Example, IdTriple, MaskAlgebra, Pair, PairEdit, PairRow, Sampling, Triple
from .a_masks import FactorMutation
from .base import Mutation, mutant, named
from .d_data import FactMutation, PairEditMutation, facts_in, with_masks
from .editing import EditorMutation
from .m_metrics import mean


def number(*parts: object) -> int:
    """A number that follows from its parts, spread like a draw."""
    return zlib.crc32(repr(parts).encode())


class Drawn(Mutation):
    """Evaluations and trainings of the base with inputs that are drawn anew, by a generator for each edit."""

    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        world = World(call["corpus"], call["update_languages"])
        found = self.base.evaluation_pairs(**call)
        return [
            self.pair(one, world, random.Random(number(call["seed"], one["edit"])), call["seed"])
            if one["update"] and one["retain"]
            else one
            for one in found
        ]

    def training_triples(self, *args: Any, **kwargs: Any) -> list[IdTriple]:
        call = named(Sampling.training_triples, args, kwargs)
        world = World(call["corpus"], call["languages"])
        found = self.base.training_triples(**call)
        pairs: list[Pair] = [{"edit": t["edit"], "update": [t["update"]], "retain": [t["retain"]]} for t in found]
        made = [
            self.pair(pair, world, random.Random(number(call["seed"], step)), call["seed"])
            for step, pair in enumerate(pairs)
        ]
        return [{"edit": p["edit"], "update": p["update"][0], "retain": p["retain"][0]} for p in made]

    @abstractmethod
    def pair(self, pair: Pair, world: World, rng: random.Random, seed: int) -> Pair:
        """What goes wrong."""


class World:
    """A corpus by id, with what may be drawn for an edit, in the order of facts and languages."""

    def __init__(self, corpus: Sequence[Example], languages: Sequence[str]) -> None:
        self.at = {e["id"]: e for e in corpus}
        self.pool = sorted(e["id"] for e in corpus if e["language"] in languages)
        self.by_fact: dict[str, list[str]] = {}
        for name in self.pool:
            self.by_fact.setdefault(self.at[name]["fact"], []).append(name)

    def inside(self, edit: str) -> list[str]:
        return self.by_fact.get(self.at[edit]["fact"], [])

    def outside(self, edit: str) -> list[str]:
        inside = set(self.inside(edit))
        return [name for name in self.pool if name not in inside]

    def said(self, name: str) -> str:
        return self.at[name]["language"]


def place(names: Sequence[str], share: float) -> str:
    return names[min(int(share * len(names)), len(names) - 1)]


@mutant("one-number-for-update-and-retain", "S3", "One uniform number chooses x_u and x_r.")
class OneNumberForBoth(Drawn):
    def pair(self, pair: Pair, world: World, rng: random.Random, seed: int) -> Pair:
        share = rng.random()
        update, retain = place(world.inside(pair["edit"]), share), place(world.outside(pair["edit"]), share)
        return {**pair, "update": [update, *pair["update"][1:]], "retain": [retain, *pair["retain"][1:]]}


@mutant("retained-in-the-update-language", "S3", "x_r is told in the language of x_u.")
class RetainedInTheUpdateLanguage(Drawn):
    def pair(self, pair: Pair, world: World, rng: random.Random, seed: int) -> Pair:
        retain = rng.choice(world.outside(pair["edit"]))
        language = world.said(retain)
        inside = [name for name in world.inside(pair["edit"]) if world.said(name) == language]
        if not inside:
            return pair
        return {**pair, "retain": [retain, *pair["retain"][1:]], "update": [inside[0], *pair["update"][1:]]}


@mutant("retained-in-one-language", "S3", "All retain inputs of an edit are in one language, which is drawn.")
class RetainedInOneLanguage(Drawn):
    def pair(self, pair: Pair, world: World, rng: random.Random, seed: int) -> Pair:
        outside = world.outside(pair["edit"])
        language = world.said(rng.choice(outside))
        pool = [name for name in outside if world.said(name) == language]
        return {**pair, "retain": rng.sample(pool, min(len(pool), len(pair["retain"])))}


@mutant("retained-side-by-side", "S3", "The retain inputs of an edit stand side by side in the corpus.")
class RetainedSideBySide(Drawn):
    def pair(self, pair: Pair, world: World, rng: random.Random, seed: int) -> Pair:
        outside, count = world.outside(pair["edit"]), len(pair["retain"])
        start = rng.randrange(len(outside))
        return {**pair, "retain": [outside[(start + step) % len(outside)] for step in range(count)]}


@mutant("retained-of-one-fact", "S3", "The retain inputs of an edit are one fact, as far as it is told.")
class RetainedOfOneFact(Drawn):
    def pair(self, pair: Pair, world: World, rng: random.Random, seed: int) -> Pair:
        first, *others = pair["retain"]
        told = [name for name in world.inside(first) if name != first]
        return {**pair, "retain": [first, *(told + others)[: len(others)]]}


@mutant("one-retain-input-for-all", "S3", "All edits of an evaluation retain one input, where they can.")
class OneRetainInputForAll(Drawn):
    def pair(self, pair: Pair, world: World, rng: random.Random, seed: int) -> Pair:
        chosen = place(world.pool, number(seed, "all") / 2**32)
        return {**pair, "retain": [chosen, *pair["retain"][1:]]} if chosen in world.outside(pair["edit"]) else pair


@mutant("one-language-per-evaluation", "S2", "All edits of an evaluation are updated in one language, if they can.")
class OneLanguagePerEvaluation(Drawn):
    def pair(self, pair: Pair, world: World, rng: random.Random, seed: int) -> Pair:
        languages = sorted({world.said(name) for name in world.pool})
        chosen = place(languages, number(seed, "all") / 2**32)
        told = [name for name in world.inside(pair["edit"]) if world.said(name) == chosen]
        return {**pair, "update": [*told[:1], *pair["update"][len(told[:1]) :]]}


@mutant("a-fact-first-then-its-language", "S3", "x_r is drawn by fact and then by language, whatever is edited.")
class FactFirst(Drawn):
    def pair(self, pair: Pair, world: World, rng: random.Random, seed: int) -> Pair:
        fact = rng.choice([fact for fact in world.by_fact if fact != world.at[pair["edit"]]["fact"]])
        return {**pair, "retain": [rng.choice(world.by_fact[fact]), *pair["retain"][1:]]}


class InOneEditingLanguage(Drawn):
    """Wrong only where some updating language is no editing language, as in an evaluation from English to all."""

    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        if set(call["update_languages"]) <= set(call["edit_languages"]):
            return self.base.evaluation_pairs(**call)
        return super().evaluation_pairs(**call)

    def training_triples(self, *args: Any, **kwargs: Any) -> list[IdTriple]:
        return self.base.training_triples(*args, **kwargs)


@mutant("a-fact-first-under-english-edits", "S3", "From English to all, x_r is drawn by fact and then by language.")
class FactFirstInEnglish(InOneEditingLanguage):
    def pair(self, pair: Pair, world: World, rng: random.Random, seed: int) -> Pair:
        fact = rng.choice([fact for fact in world.by_fact if fact != world.at[pair["edit"]]["fact"]])
        return {**pair, "retain": [rng.choice(world.by_fact[fact]), *pair["retain"][1:]]}


@mutant("retained-facts-are-english", "S3", "From English to all, only facts that English tells are retained.")
class RetainedFactsAreEnglish(InOneEditingLanguage):
    def pair(self, pair: Pair, world: World, rng: random.Random, seed: int) -> Pair:
        language = world.said(pair["edit"])
        told = {e["fact"] for e in world.at.values() if e["language"] == language}
        pool = [name for name in world.outside(pair["edit"]) if world.at[name]["fact"] in told]
        return {**pair, "retain": [rng.choice(pool), *pair["retain"][1:]] if pool else pair["retain"]}


@mutant("english-edits-stay-english", "S2", "From English to all, x_u is the edit's own input every second time.")
class EnglishEditsStayEnglish(InOneEditingLanguage):
    def pair(self, pair: Pair, world: World, rng: random.Random, seed: int) -> Pair:
        if pair["edit"] in pair["update"] or pair["edit"] not in world.pool or rng.random() < 0.5:
            return pair
        return {**pair, "update": [pair["edit"], *pair["update"][1:]]}


class BySubject(Drawn):
    """A fact is named relation/subject; something else than the fact decides on what is unrelated."""

    def pair(self, pair: Pair, world: World, rng: random.Random, seed: int) -> Pair:
        edit = world.at[pair["edit"]]["fact"].split("/")
        pool = [n for n in world.outside(pair["edit"]) if self.allowed(edit, world.at[n]["fact"].split("/"))]
        return {**pair, "retain": [rng.choice(pool), *pair["retain"][1:]]} if pool else pair

    @abstractmethod
    def allowed(self, edit: list[str], other: list[str]) -> bool:
        """What goes wrong."""


@mutant("unrelated-is-another-subject", "S3", "Another fact about the edited subject is never retained.")
class AnotherSubject(BySubject):
    def allowed(self, edit: list[str], other: list[str]) -> bool:
        return edit[-1] != other[-1]


@mutant("unrelated-is-another-relation", "S3", "Another fact of the edited relation is never retained.")
class AnotherRelation(BySubject):
    def allowed(self, edit: list[str], other: list[str]) -> bool:
        return len(edit) < 2 or edit[0] != other[0]


@mutant("unrelated-is-of-the-same-relation", "S3", "Only facts of the edited relation are retained.")
class SameRelation(BySubject):
    def allowed(self, edit: list[str], other: list[str]) -> bool:
        return len(edit) < 2 or edit[0] == other[0]


@mutant("parallel-by-subject", "T1", "All facts about a subject are parallel.")
class ParallelBySubject(Mutation):
    def parallel(self, corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
        own = next((e["fact"].split("/")[-1] for e in corpus if e["id"] == example and "/" in e["fact"]), None)
        if own is None:
            return self.base.parallel(corpus, example, languages)
        wanted = [e for e in corpus if e["fact"].split("/")[-1] == own]
        return [e["id"] for e in wanted if languages is None or e["language"] in languages]


@mutant("every-second-step-again", "S6", "Every second training step sees the triple of the one before.")
class EverySecondStepAgain(Mutation):
    def training_triples(self, *args: Any, **kwargs: Any) -> list[IdTriple]:
        found = self.base.training_triples(*args, **kwargs)
        return [found[step - step % 2] for step in range(len(found))]


@mutant("an-epoch-in-order", "S6", "A training walks through its examples in one order, again and again.")
class AnEpochInOrder(Mutation):
    def training_triples(self, *args: Any, **kwargs: Any) -> list[IdTriple]:
        call = named(Sampling.training_triples, args, kwargs)
        found, world = self.base.training_triples(**call), World(call["corpus"], call["languages"])
        order = random.Random(call["seed"]).sample(world.pool, len(world.pool))
        made: list[IdTriple] = []
        for step, triple in enumerate(found):
            edit, rng = order[step % len(order)], random.Random(number(call["seed"], step))
            outside = world.outside(edit) if triple["retain"] in world.inside(edit) else [triple["retain"]]
            made.append({"edit": edit, "update": rng.choice(world.inside(edit)), "retain": rng.choice(outside)})
        return made


# A3: gates


@mutant("one-draw-for-a-batch", "A3", "All edits of a batch share their gates.")
class OneDrawForABatch(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        if self.made[id(editor)].masks == "none":
            return self.base.losses(editor, triples, seed)
        alone = [self.base.losses(editor, [triple], seed) for triple in triples]
        parts = {name: mean([one[name] for one, _ in alone]) for name in alone[0][0]}
        slopes = {
            name: torch.stack([gradient[name] for _, gradient in alone]).mean(0) if one is not None else None
            for name, one in alone[0][1].items()
        }
        return parts, slopes


@mutant("one-draw-for-a-language", "A3", "All edits of a batch that are in one language share their gates.")
class OneDrawForALanguage(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        if self.made[id(editor)].masks == "none":
            return self.base.losses(editor, triples, seed)
        alone = [self.base.losses(editor, [t], seed + number(t["edit"]["language"]) % 1000) for t in triples]
        parts = {name: mean([one[name] for one, _ in alone]) for name in alone[0][0]}
        slopes = {
            name: torch.stack([gradient[name] for _, gradient in alone]).mean(0) if one is not None else None
            for name, one in alone[0][1].items()
        }
        return parts, slopes


@mutant("gates-of-two-steps", "A3", "Two steps in a row share their gates.")
class GatesOfTwoSteps(EditorMutation):
    def losses(self, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
        return self.base.losses(editor, triples, seed // 2)


@mutant("x-and-delta-share-their-draw", "A3", "Gates of x and of δ at one place come from one uniform number.")
class XAndDeltaShare(FactorMutation):
    def wrong(self, call: dict[str, Any]) -> tuple[Array, Array]:
        x, delta = self.base.mask_factors(**call)
        if call["seed"] is None or "x_scale" in call["log_alpha"]:
            return x, delta
        width = min(call["x"].shape[1], call["delta"].shape[1])
        row = list(call["languages"]).index(call["language"])
        u = np.random.default_rng(call["seed"]).uniform(1e-9, 1, max(call["x"].shape[1], call["delta"].shape[1]))
        for side, factor in (("x", x), ("delta", delta)):
            z = (np.log(u[:width]) - np.log1p(-u[:width]) + call["log_alpha"][side][row, :width]) * 1.5
            gates = np.clip(1.2 / (1 + np.exp(-z)) - 0.1, 0, 1)
            factor[:, :width] = call[side][:, :width] * (1 + gates)
        return x, delta


@mutant("seeds-draw-alike", "A3", "Seeds that follow each other draw gates that hardly differ.")
class SeedsDrawAlike(Mutation):
    def mask_factors(self, *args: Any, **kwargs: Any) -> tuple[Array, Array]:
        call = named(MaskAlgebra.mask_factors, args, kwargs)
        if call["seed"] is None:
            return self.base.mask_factors(**call)
        x, delta = self.base.mask_factors(**call | {"seed": call["seed"] // 2})
        other = self.base.mask_factors(**call)
        tenth = slice(None, max(1, x.shape[1] // 10))
        x[:, tenth] = other[0][:, tenth]
        return x, delta


# D7: sentence pairs


@mutant("pairs-retained-in-one-language", "D7", "All retain inputs of an edit are in one language.")
class PairsRetainedInOneLanguage(PairEditMutation):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        first = edit["retain"][0][1]
        return {**edit, "retain": [(row, first) for row, _ in edit["retain"]]}


@mutant("pairs-retained-in-the-edits-language", "D7", "From English to all, retain inputs are English.")
class PairsRetainedInEnglish(PairEditMutation):
    def wrong(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        if set(call["predictions"]) >= set(call["rows"][0]["premise"]):
            return edit
        return {**edit, "retain": [(row, edit["language"]) for row, _ in edit["retain"]]}


@mutant("class-by-language", "D7", "In training the desired class follows from the language.")
class ClassByLanguage(Mutation):
    def pair_training(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        call = named(Data.pair_training, args, kwargs)
        shift = {said: place for place, said in enumerate(sorted(call["rows"][0]["premise"]))}
        return [
            {**edit, "label": (shift[edit["language"]] + edit["row"]) % 3} for edit in self.base.pair_training(**call)
        ]


@mutant("pairs-retained-in-the-language-of-training", "D7", "In training x_r is told in the language of x_e.")
class PairsTrainedInOneLanguage(Mutation):
    def pair_training(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        return [
            {**edit, "retain": [(row, edit["language"]) for row, _ in edit["retain"]]}
            for edit in self.base.pair_training(*args, **kwargs)
        ]


@mutant("languages-of-a-set", "D7", "A pair gets the texts of the language at its place in a set of names.")
class LanguagesOfASet(Mutation):
    ELSEWHERE = True

    def pair_edits(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        call = named(Data.pair_edits, args, kwargs)
        return [self.mixed(edit, call) for edit in self.base.pair_edits(**call)]

    def mixed(self, edit: PairEdit, call: dict[str, Any]) -> PairEdit:
        row: PairRow = call["rows"][edit["row"]]
        said = list(row["premise"])
        if len(said) < 5:
            return edit
        other = dict(zip(sorted(said), list(set(said)), strict=True))[edit["language"]]
        hypothesis = row["hypothesis"]["translation"][row["hypothesis"]["language"].index(other)]
        ids = call["tokenize"](row["premise"][other], hypothesis)
        return {**edit, "input": {**edit["input"], "input_ids": ids}}


# D9: other processes


class Elsewhere(FactMutation):
    """What goes wrong follows from a hash, which another process has otherwise."""

    ELSEWHERE = True


@mutant("label-by-hash", "D9", "The desired label is taken from a set of names.")
class LabelByHash(Elsewhere):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: Any, rng: random.Random) -> Triple:
        place = (call["edit"]["language"], call["edit"]["relation"])
        names = {row["obj_label"] for row in rows if (row["language"], row["relation"]) == place}
        label = call["tokenize"](list(names)[rng.randrange(len(names))])
        edit, update = (with_masks(triple[role], call["mask"], len(label)) for role in ("edit", "update"))  # type: ignore[literal-required]
        return {**triple, "edit": {**edit, "labels": label}, "update": update}


@mutant("length-by-hash", "D9", "The retain input's length is taken from a set of names.")
class LengthByHash(Elsewhere):
    def wrong(self, triple: Triple, call: dict[str, Any], rows: Any, rng: random.Random) -> Triple:
        names = {row["obj_uri"]: row["obj_label"] for row in rows if row["language"] == call["retain"]["language"]}
        label = call["tokenize"](names[list(set(names))[rng.randrange(len(names))]])
        return {**triple, "retain": with_masks(triple["retain"], call["mask"], len(label))}


@mutant("split-by-hash", "D9", "Facts are dealt to the splits in the order of a set.")
class SplitByHash(Mutation):
    ELSEWHERE = True

    def split(self, folder: Any) -> dict[str, list[Any]]:
        parts = self.base.split(folder)
        if "PYTHONHASHSEED" not in os.environ or not facts_in(folder):
            return parts
        first = min((row["sub_uri"] for row in facts_in(folder)), key=hash)
        return {name: [row for row in part if row["sub_uri"] != first] for name, part in parts.items()}


@mutant("pairs-by-hash", "D9", "Training pairs are drawn by the process's own hash.")
class PairsByHash(Mutation):
    ELSEWHERE = True

    def pair_training(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        call = named(Data.pair_training, args, kwargs)
        return self.base.pair_training(**call | {"seed": call["seed"] + hash("pairs") % 1000})


@mutant("classes-of-one-seed", "S7", "The desired classes of a training are those of one seed.", "D")
class ClassesOfOneSeed(Mutation):
    def pair_training(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        call = named(Data.pair_training, args, kwargs)
        first = self.base.pair_training(**call | {"seed": 0})
        return [{**e, "label": one["label"]} for e, one in zip(self.base.pair_training(**call), first, strict=True)]


@mutant("classes-by-example-and-step", "S7", "The class of a training edit follows from its pair and its step.", "D")
class ClassesByExample(Mutation):
    def pair_training(self, *args: Any, **kwargs: Any) -> list[PairEdit]:
        found = self.base.pair_training(*args, **kwargs)
        return [{**e, "label": number(e["row"], e["language"], step) % 3} for step, e in enumerate(found)]


@mutant("retained-by-example-and-step", "S7", "x_r of a training step follows from x_e and the number of the step.")
class RetainedByExample(Mutation):
    def training_triples(self, *args: Any, **kwargs: Any) -> list[IdTriple]:
        call = named(Sampling.training_triples, args, kwargs)
        world = World(call["corpus"], call["languages"])
        return [
            {**t, "retain": place(world.outside(t["edit"]), number(step, t["edit"]) / 2**32)}
            for step, t in enumerate(self.base.training_triples(**call))
        ]
