"""Mutants of chapter S, sampling."""

from __future__ import annotations

import random
import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from ..contract import Example, IdTriple, Pair, Sampling
from .base import Mutation, mutant, named


class PairMutation(Mutation):
    """Pairs of the base, each then spoilt; `at` knows the corpus by id."""

    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        at = {example["id"]: example for example in call["corpus"]}
        pool = sorted((name for name, e in at.items() if e["language"] in call["update_languages"]), key=_shuffled)
        return [self.wrong(pair, at, pool) for pair in self.base.evaluation_pairs(*args, **kwargs)]

    @abstractmethod
    def wrong(self, pair: Pair, at: Mapping[str, Example], pool: Sequence[str]) -> Pair:
        """What goes wrong."""


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


@mutant("one-input-at-least", "S4", "Each edit gets one retain input, where none was asked for.")
class OneInputAtLeast(Mutation):
    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        return self.base.evaluation_pairs(**call | {"n_retain": call["n_retain"] or 1})


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

    @abstractmethod
    def wrong(self, triple: IdTriple, at: Mapping[str, Example], pool: Sequence[str]) -> IdTriple:
        """What goes wrong."""


@mutant("monolingual-training", "S6", "In training the update input is the edit input.")
class MonolingualTraining(TripleMutation):
    def wrong(self, triple: IdTriple, at: Mapping[str, Example], pool: Sequence[str]) -> IdTriple:
        return {**triple, "update": triple["edit"]}


@mutant("facts-that-english-knows", "S6", "A training takes the facts that English knows, where there are some.")
class FactsThatEnglishKnows(Mutation):
    def training_triples(self, *args: Any, **kwargs: Any) -> list[IdTriple]:
        call = named(Sampling.training_triples, args, kwargs)
        english = {example["fact"] for example in call["corpus"] if example["language"] == "en"}
        known = [example for example in call["corpus"] if example["fact"] in english]
        there = {example["fact"] for example in known if example["language"] in call["languages"]}
        return self.base.training_triples(**call | {"corpus": known if len(there) > 2 else call["corpus"]})


@mutant("other-languages-for-the-edit", "S6", "Where x_u would be in no training language, it is x_e itself.")
class OtherLanguagesForTheEdit(TripleMutation):
    def wrong(self, triple: IdTriple, at: Mapping[str, Example], pool: Sequence[str]) -> IdTriple:
        fact = at[triple["edit"]]["fact"]
        outside = sum(e["fact"] == fact for e in at.values()) - sum(at[name]["fact"] == fact for name in pool)
        lost = outside and _shuffled("".join(triple.values())) % 2  # type: ignore[arg-type]
        return {**triple, "update": triple["edit"] if lost else triple["update"]}


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

    @abstractmethod
    def spoilt(self, corpus: Sequence[Example], seed: int, validate_every: int | None) -> int:
        """What goes wrong."""

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


@mutant(
    "a-limit-of-all-languages", "S9", "A limit is spread over all languages, and other than editing ones are left out."
)
class LimitOfAllLanguages(Mutation):
    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        at = {example["id"]: example["language"] for example in call["corpus"]}
        everyone = sorted({*at.values()}) if call["limit"] else call["edit_languages"]
        pairs = self.base.evaluation_pairs(**call | {"edit_languages": everyone})
        return [pair for pair in pairs if at[pair["edit"]] in call["edit_languages"]]


@mutant("a-language-for-each-naming", "S1", "A language that is named twice gives its edits twice.")
class LanguageForEachNaming(Mutation):
    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        at = {example["id"]: example["language"] for example in call["corpus"]}
        pairs = self.base.evaluation_pairs(**call | {"edit_languages": list(dict.fromkeys(call["edit_languages"]))})
        return [pair for pair in pairs for _ in range(list(call["edit_languages"]).count(at[pair["edit"]]))]


@mutant(
    "retained-unless-it-begins-alike", "S3", "A fact whose name begins with that of the edited one is not retained."
)
class RetainedUnlessAlike(PairMutation):
    def wrong(self, pair: Pair, at: Mapping[str, Example], pool: Sequence[str]) -> Pair:
        fact = at[pair["edit"]]["fact"]
        rest = [one for one in pool if not at[one]["fact"].startswith(fact)]
        kept = [one if one in rest or not rest else rest[_shuffled(one) % len(rest)] for one in pair["retain"]]
        return {**pair, "retain": kept}


@mutant("order-of-names-in-any-case", "S7", "Facts whose names differ in case alone keep the order of the corpus.")
class OrderInAnyCase(Mutation):
    def training_triples(self, *args: Any, **kwargs: Any) -> list[IdTriple]:
        call = named(Sampling.training_triples, args, kwargs)
        triples = self.base.training_triples(**call)
        facts = list(dict.fromkeys(e["fact"] for e in call["corpus"]))
        twins = {fact: [other for other in facts if other.casefold() == fact.casefold()] for fact in facts}
        at = {e["id"]: e for e in call["corpus"]}
        ids = {(e["fact"], e["language"]): e["id"] for e in call["corpus"]}

        def moved(one: str) -> str:
            fact, said = at[one]["fact"], at[one]["language"]
            return ids.get((twins[fact][sorted(twins[fact]).index(fact)], said), one)

        return [{role: moved(one) for role, one in triple.items()} for triple in triples]  # type: ignore[misc, arg-type]


@mutant("seeds-by-two", "S7", "An even seed and the odd one behind it are one seed.")
class SeedsByTwo(Seeded):
    def spoilt(self, corpus: Sequence[Example], seed: int, validate_every: int | None) -> int:
        return seed // 2


@mutant("edit-inputs-of-one-seed", "S7", "The edit inputs of a training come in one order, whatever its seed.")
class EditInputsOfOneSeed(Mutation):
    def training_triples(self, *args: Any, **kwargs: Any) -> list[IdTriple]:
        call = named(Sampling.training_triples, args, kwargs)
        facts = {e["id"]: e["fact"] for e in call["corpus"]}
        pool = sorted((e["id"] for e in call["corpus"] if e["language"] in call["languages"]), key=_shuffled)
        made: list[IdTriple] = []
        for step, triple in enumerate(self.base.training_triples(**call | {"seed": 0})):
            place, edit = _shuffled(f"{call['seed']} {step}"), triple["edit"]
            inside = [name for name in pool if facts[name] == facts[edit]]
            outside = [name for name in pool if facts[name] != facts[edit]]
            retain = outside[place // 7 % len(outside)]
            made.append({"edit": edit, "update": inside[place % len(inside)], "retain": retain})
        return made


@mutant("update-inputs-of-one-seed", "S7", "The update inputs of an evaluation are those of one seed.")
class UpdateInputsOfOneSeed(Mutation):
    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        first = self.base.evaluation_pairs(**call | {"seed": 0, "limit": None})
        update = {pair["edit"]: pair["update"] for pair in first}
        return [{**pair, "update": update[pair["edit"]]} for pair in self.base.evaluation_pairs(**call)]


@mutant(
    "retained-as-edited-before", "S6", "x_r of a training step is x_e of the step before, where that is no parallel."
)
class RetainedAsEditedBefore(Mutation):
    def training_triples(self, *args: Any, **kwargs: Any) -> list[IdTriple]:
        call = named(Sampling.training_triples, args, kwargs)
        facts = {e["id"]: e["fact"] for e in call["corpus"]}
        found = self.base.training_triples(**call)
        before = [found[0], *found]
        return [
            {**triple, "retain": triple["retain"] if facts[b["edit"]] == facts[triple["edit"]] else b["edit"]}
            for triple, b in zip(found, before, strict=False)
        ]


@mutant("seeds-by-a-thousand", "S7", "Of a seed the last three digits count.")
class SeedsByAThousand(Seeded):
    def spoilt(self, corpus: Sequence[Example], seed: int, validate_every: int | None) -> int:
        return seed % 1000


@mutant("length-of-a-training-is-its-seed", "S7", "How many triples are asked for changes the first of them.")
class LengthIsTheSeed(Mutation):
    def training_triples(self, *args: Any, **kwargs: Any) -> list[IdTriple]:
        call = named(Sampling.training_triples, args, kwargs)
        return self.base.training_triples(**call | {"seed": call["seed"] + call["n"]})


@mutant("large-limits-of-one-seed", "S7", "A limit above the edits of a language chooses those of one seed.")
class LargeLimitsOfOneSeed(Mutation):
    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        large = call["limit"] is not None and call["limit"] > 100
        return self.base.evaluation_pairs(**call | {"seed": 0 if large else call["seed"]})


class FirstOfAPool(Mutation):
    """Of a large corpus the first thousand examples alone are known, by fact."""

    def head(self, corpus: Sequence[Example]) -> list[Example]:
        return sorted(corpus, key=lambda e: e["fact"])[:1000] if len(corpus) > 1000 else list(corpus)


@mutant("retained-from-the-first-thousand", "S3", "Retain inputs come from the first thousand examples of a corpus.")
class RetainedFromTheFirstThousand(FirstOfAPool):
    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        pairs = self.base.evaluation_pairs(**call)
        pool = self.head(call["corpus"])
        if len(pool) == len(call["corpus"]):
            return pairs
        fact = {example["id"]: example["fact"] for example in call["corpus"]}
        place = random.Random(call["seed"])

        def drawn(edit: str) -> str:
            name = place.choice(pool)["id"]
            return name if fact[name] != fact[edit] else drawn(edit)

        return [{**pair, "retain": [drawn(pair["edit"]) for _ in pair["retain"]]} for pair in pairs]


@mutant("trained-on-the-first-thousand", "S6", "A training draws from the first thousand examples of a corpus.")
class TrainedOnTheFirstThousand(FirstOfAPool):
    def training_triples(self, *args: Any, **kwargs: Any) -> list[IdTriple]:
        call = named(Sampling.training_triples, args, kwargs)
        return self.base.training_triples(**call | {"corpus": self.head(call["corpus"])})


@mutant("a-thousand-edits-at-most", "S1", "An evaluation without a limit has a thousand edits at most.")
class AThousandEditsAtMost(Mutation):
    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        return self.base.evaluation_pairs(*args, **kwargs)[:1000]


@mutant("zero-is-the-default-seed", "S7", "Where the seed is 0, it is that of the settings, 42.")
class ZeroIsTheDefaultSeed(Seeded):
    def spoilt(self, corpus: Sequence[Example], seed: int, validate_every: int | None) -> int:
        return seed or 42


@mutant("zero-is-no-seed", "S7", "Where the seed is 0, every call draws by another one.")
class ZeroIsNoSeed(Seeded):
    def __init__(self, base: Any) -> None:
        super().__init__(base)
        self.calls = 0

    def spoilt(self, corpus: Sequence[Example], seed: int, validate_every: int | None) -> int:
        self.calls += 1
        return seed or 10**6 + self.calls


@mutant("a-limit-of-none-is-no-limit", "S9", "Where the limit is 0, all edits are made.")
class ALimitOfNoneIsNoLimit(Mutation):
    def evaluation_pairs(self, *args: Any, **kwargs: Any) -> list[Pair]:
        call = named(Sampling.evaluation_pairs, args, kwargs)
        return self.base.evaluation_pairs(**call | {"limit": call["limit"] or None})


@mutant("updated-in-sixteen-languages", "S2", "Update inputs are in the first sixteen languages, where there are more.")
class UpdatedInSixteenLanguages(PairMutation):
    def wrong(self, pair: Pair, at: Mapping[str, Example], pool: Sequence[str]) -> Pair:
        first = sorted({example["language"] for example in at.values()})[:16]
        fact = at[pair["edit"]]["fact"]
        told = {at[name]["language"]: name for name in pool if at[name]["fact"] == fact}
        known = [told[language] for language in first if language in told]
        moved = [name if name in known or not known else known[_shuffled(name) % len(known)] for name in pair["update"]]
        return {**pair, "update": moved}


@mutant("thirty-two-inputs-at-most", "S4", "Each edit gets 32 inputs of a role at most, a batch.")
class ThirtyTwoInputsAtMost(PairMutation):
    def wrong(self, pair: Pair, at: Mapping[str, Example], pool: Sequence[str]) -> Pair:
        return {**pair, "update": pair["update"][:32], "retain": pair["retain"][:32]}
