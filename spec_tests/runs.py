"""What chapter U runs on: small facts and sentence pairs in three languages, tiny models, and a run played again.

Raw predictions come from a model of the suite's own; edited ones from `edit` and `edited_logits`, at test time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from . import oracles, strategies as given_
from .assertions import equal, holds
from .conformance import Implementation
from .contract import Asked, FactRow, Input, Outcome, PairRow, Plan, Told, Trace
from .strategies import TEMPLATES, template
from .texts import CLASSES, read_tokenizer

LANGUAGES = ("de", "en", "sw")
#: Names of entities by their number; most are one token. Entity 6 is known from test facts alone.
NAMES = ("a", "b", "c d", "e", "f g", "h", "k l m")
#: Of each relation of the uneven facts the first words of its entities' names.
FIRST = {"P17": "abcefhk", "P36": "nopqrst", "P30": "uvwxyzi"}
WORDS = [*LANGUAGES, "country", "of", "is", "capital", "lies", "on", "earth", "(", ")", "."]
WORDS += [f"{said}subject" for said in LANGUAGES] + [*"abcdefghklm", "premise", "claim"]
UNEVEN_WORDS = [*WORDS, *"inopqrstuvwxyz"]
SHUFFLED = ("contradiction", "entailment", "neutral")
#: Two logits that are nearer to each other are no prediction that can be asked for.
TIE = 1e-4


def facts() -> list[FactRow]:
    """Sixty subjects in three relations; German lacks every fourth, Swahili every second fact."""
    rows = []
    for said, relation, subject in _told({"de": (4, 1), "sw": (2, 1)}):
        entity = 6 if subject >= 58 else (7 * subject + len(relation)) % 6
        rows.append(given_.fact_row(said, relation, subject, entity, NAMES[entity]))
    return rows


def uneven_facts() -> list[FactRow]:
    """The same subjects, of which English lacks every seventh; and an entity's name is of no other relation.

    Some facts of German and Swahili are none of English's, in every split.
    """
    rows = []
    for said, relation, subject in _told({"de": (4, 1), "en": (7, 6), "sw": (2, 1)}):
        entity = 6 if subject >= 58 else (subject // 3 + list(TEMPLATES).index(relation)) % 6
        rows.append(given_.fact_row(said, relation, subject, entity, _uneven_name(said, relation, entity)))
    return rows


def _told(lacks: Mapping[str, tuple[int, int]]) -> list[tuple[str, str, int]]:
    """Language, relation and subject of every fact that is told.

    `lacks`: (7, 6) of a language leaves out its subjects 6, 13, 20 and so on.
    """
    told = []
    for said, relation, subject in product(LANGUAGES, TEMPLATES, range(60)):
        every, missing = lacks.get(said, (1, 1))  # no number has the remainder 1 by 1
        if subject % every != missing:
            told.append((said, relation, subject))
    return told


def _uneven_name(said: str, relation: str, entity: int) -> str:
    """In some languages it is longer than in others."""
    words = [FIRST[relation][entity], *NAMES[entity].split()[1:]]
    if said == "de" and entity in (2, 4):
        words = words[:1]
    if said == "sw" and entity in (0, 3):
        words.append("sw")
    return " ".join([*words, "m"] if relation == "P30" else words)


def pairs() -> dict[str, list[PairRow]]:
    """Rows of three splits, with the languages of the hypotheses in another order than those of the premises."""
    return {split: [_pair(split, row) for row in range(count)] for split, count in _SIZES.items()}


_SIZES = {"train": 30, "validation": 14, "test": 16}


def _pair(split: str, row: int) -> PairRow:
    order = sorted(LANGUAGES, reverse=bool(row % 2))
    words = {"train": "a b", "validation": "c d", "test": "e f"}[split]
    return {
        "premise": {said: f"{said} premise {words} {row}" for said in LANGUAGES},
        "hypothesis": {"language": order, "translation": [f"{said} claim {NAMES[row % 7]} {row}" for said in order]},
        "label": (row + len(split)) % 3,
    }


def plan(**changes: Any) -> Plan:
    """Six steps of ten edits, a validation after every second one."""
    usual: dict[str, Any] = {
        "edits": 60,
        "batch": 10,
        "validate_every": 20,
        "patience": 60,
        "n_update": 2,
        "n_retain": 3,
        "validation_limit": 13,  # no multiple of the languages, so that their averages are not the edits'
        "test_limit": None,
        "lr": 3e-3,
        "inner_lr": 0.05,
    }
    return {**usual, **changes}  # type: ignore[typeddict-item]


@dataclass(frozen=True)
class World:
    """The data and the raw model of a run, as the suite knows them."""

    data: Any
    model: Path
    rows: Any

    @property
    def of_pairs(self) -> bool:
        return isinstance(self.data, Mapping)

    @cached_property
    def encode(self) -> Any:
        return read_tokenizer(self.model)

    @cached_property
    def raw(self) -> Any:
        kind = AutoModelForSequenceClassification if self.of_pairs else AutoModelForMaskedLM
        return kind.from_pretrained(self.model).eval()

    @cached_property
    def splits(self) -> dict[str, dict[str, set[str]]]:
        """Per split the languages in which each fact is told."""
        told: dict[str, dict[str, set[str]]] = {}
        if self.of_pairs:
            return {split: {str(row): set(LANGUAGES) for row in range(len(part))} for split, part in self.rows.items()}
        for split, part in oracles.split(self.rows).items():
            of = told.setdefault(split, {})
            for row in part:
                of.setdefault(f"{row['relation']}/{row['sub_uri']}", set()).add(row["language"])
        return told

    def order(self, example: tuple[str, str]) -> int:
        """Where the data tell an example of facts."""
        return self._order[example]

    @cached_property
    def _order(self) -> dict[tuple[str, str], int]:
        return {(f"{row['relation']}/{row['sub_uri']}", row["language"]): n for n, row in enumerate(self.rows)}

    def examples(self, split: str, languages: Sequence[str] = LANGUAGES) -> set[tuple[str, str]]:
        return {(fact, said) for fact, told in self.splits[split].items() for said in told if said in languages}

    def labels(self, split: str | None = None) -> dict[tuple[str, str], list[tuple[int, ...]]]:
        """Per language and relation the names of its entities, of one split or of all."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        for row in self.rows if split is None else oracles.split(self.rows)[split]:
            found.setdefault((row["language"], row["relation"]), {})[row["obj_uri"]] = row["obj_label"]
        return {key: [self.alone(name) for _, name in sorted(told.items())] for key, told in found.items()}

    @cached_property
    def lengths(self) -> dict[str, list[int]]:
        """Per language the lengths of its entities' names."""
        found: dict[str, dict[str, int]] = {}
        for row in self.rows:
            found.setdefault(row["language"], {})[row["obj_uri"]] = len(self.alone(row["obj_label"]))
        return {said: sorted(told.values()) for said, told in found.items()}

    def alone(self, name: str) -> tuple[int, ...]:
        return tuple(self.encode(name, add_special_tokens=False)["input_ids"])

    def sentence(self, told: Told, masks: int, named_in: str | None = None) -> Input:
        """The input of a fact."""
        relation, subject = told["fact"].split("/")
        who = f"{named_in or told['language']}subject{subject[1:]}"
        text = template(told["language"], relation).replace("[X]", who)
        ids = self.encode(text.replace("[Y]", " ".join(["[MASK]"] * masks)))["input_ids"]
        return {"input_ids": ids, "positions": [at for at, one in enumerate(ids) if one == self.encode.mask_token_id]}

    def pair(self, split: str, told: Told) -> Input:
        """The input of a sentence pair."""
        row: PairRow = self.rows[split][int(told["fact"])]
        hypothesis = row["hypothesis"]["translation"][row["hypothesis"]["language"].index(told["language"])]
        found = self.encode(row["premise"][told["language"]], hypothesis)
        return {"input_ids": found["input_ids"], "positions": [0], "token_type_ids": found["token_type_ids"]}

    def gold(self, split: str, fact: str) -> int:
        """The model's number of a pair's gold class."""
        return SHUFFLED.index(CLASSES[self.rows[split][int(fact)]["label"]])

    @torch.no_grad()
    def raw_prediction(self, one: Input, positions: Sequence[int] | None = None) -> list[int] | None:
        """The raw model's tokens or class; None where two are as likely."""
        ids = torch.tensor([one["input_ids"]])
        read = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if "token_type_ids" in one:
            read["token_type_ids"] = torch.tensor([one["token_type_ids"]])
        logits = self.raw(**read).logits[0]
        chosen = one["positions"] if positions is None else positions
        return likeliest(logits[None] if logits.dim() == 1 else logits[list(chosen)])

    def wrong(self, split: str) -> set[tuple[str, str]]:
        """The pairs of a split that the raw model gets wrong."""
        found = set()
        for fact, said in self.examples(split):
            (answer,) = self.raw_prediction(self.pair(split, {"fact": fact, "language": said})) or [-1]
            if answer != self.gold(split, fact):
                found.add((fact, said))
        return found


def likeliest(logits: torch.Tensor) -> list[int] | None:
    best = logits.topk(2, -1).values
    return None if bool((best[:, 0] - best[:, 1] < TIE).any()) else [int(one) for one in logits.argmax(-1)]


def place(told: Told) -> tuple[str, str]:
    return told["fact"], told["language"]


def plain(x: Mapping[str, Any]) -> dict[str, list[int]]:
    """An input without what is all zero anyway."""
    row = {"input_ids": list(x["input_ids"]), "positions": list(x["positions"])}
    types = list(x.get("token_type_ids") or ())
    return {**row, "token_type_ids": types} if any(types) else row


def as_triples(asked: Sequence[Asked]) -> list[Any]:
    return [{"edit": one["request"], "update": one["update"][0][1], "retain": one["retain"][0][1]} for one in asked]


def check_inputs(clause_id: str, implementation: Implementation, world: World, split: str, asked: Asked) -> None:
    """An edit of facts or pairs, and each of its inputs, are what the data say, token by token, in their languages."""
    edit, request = asked["edit"], asked["request"]
    equal(clause_id, request["language"], edit["language"], "language of a request", edit=edit)
    count = len(request["labels"])
    named_in = edit["language"] if implementation.ruling("subject") == "edit-language" else None
    if world.of_pairs:
        expected = world.pair(split, edit)
        updates = [world.pair(split, told) for told, _ in asked["update"]]
        retains = [world.pair(split, told) for told, _ in asked["retain"]]
    else:
        expected = world.sentence(edit, count)
        updates = [world.sentence(told, count, named_in) for told, _ in asked["update"]]
        retains = [world.sentence(told, len(x["positions"])) for told, x in asked["retain"]]
    equal(clause_id, plain(request), plain(expected), "edit input", edit=edit)
    for role, wanted in (("update", updates), ("retain", retains)):
        got = [plain(x) for _, x in asked[role]]  # type: ignore[literal-required]
        equal(clause_id, got, [plain(x) for x in wanted], f"{role} inputs", edit=edit)


def check_sampling(
    clause_id: str, world: World, split: str, asked: Asked, languages: Sequence[str], counts: tuple[int, int]
) -> None:
    """Update inputs are parallels and retain inputs are none, of this split and these languages, as many as asked."""
    fact = asked["edit"]["fact"]
    candidates = world.examples(split, languages)
    inside = {one for one in candidates if one[0] == fact}
    for role, pool, count in (("update", inside, counts[0]), ("retain", candidates - inside, counts[1])):
        got = [place(told) for told, _ in asked[role]]  # type: ignore[literal-required]
        stray = [one for one in got if one not in pool]
        equal(
            clause_id, stray, [], f"{role} inputs of {asked['edit']} from elsewhere", split=split, languages=languages
        )
        fits = len(got) == count or (len(pool) < count and sorted(got) == sorted(pool))
        holds(clause_id, fits, f"{role} inputs of {asked['edit']}", expected=count, got=len(got))


def hits(
    implementation: Implementation, world: World, editor: Any, asked: Sequence[Asked]
) -> Iterator[tuple[Asked, dict[str, list[bool | None]]]]:
    """For each edit whether its inputs hit, by the suite's own account; None where a prediction is a tie.

    con under the ruling "all" looks at all positions of a row; only rows of one length are looked at then.
    """
    everywhere = implementation.ruling("con_positions") == "all" and not world.of_pairs
    for one in asked:
        edits = implementation.edit(editor, [one["request"]])
        inputs = [x for role in ("update", "retain") for _, x in one[role]]  # type: ignore[literal-required]
        asked_at = [list(x["positions"]) for x in inputs]
        if everywhere:
            lengths = {len(x["input_ids"]) for _, x in one["retain"]}
            for at in range(len(one["update"]), len(inputs)):
                asked_at[at] = list(range(len(inputs[at]["input_ids"]))) if len(lengths) == 1 else []
        wanted: list[Any] = [{**x, "positions": at or [0]} for x, at in zip(inputs, asked_at, strict=True)]
        predicted = [likeliest(logits) for logits in implementation.edited_logits(editor, edits, 0, wanted)]
        found: dict[str, list[bool | None]] = {"update": [], "retain": []}
        for number, (x, at, new) in enumerate(zip(inputs, asked_at, predicted, strict=True)):
            role = "update" if number < len(one["update"]) else "retain"
            old = list(one["request"]["labels"]) if role == "update" else world.raw_prediction(x, at or [0])
            found[role].append(None if new is None or old is None or not at else new == old)
        yield one, found


def outcomes(asked: Sequence[Asked], found: Sequence[Mapping[str, Sequence[bool | None]]]) -> list[Outcome] | None:
    """The outcomes of some edits; None where a prediction is a tie."""
    rows: list[Outcome] = []
    for one, of in zip(asked, found, strict=True):
        fact, said = place(one["edit"])
        for role in ("update", "retain"):
            for (told, _), hit in zip(one[role], of[role], strict=True):  # type: ignore[literal-required]
                if hit is None:
                    return None
                rows.append(given_.outcome(f"{fact}/{said}", said, role, told["language"], bool(hit)))
    return rows


@dataclass(frozen=True)
class Done:
    """A run, with what it was asked for."""

    world: World
    editor: str
    training: str | None
    plan: Plan
    trace: Trace

    @property
    def languages(self) -> tuple[str, ...]:
        """Those of the training."""
        return ("en",) if self.training == "en" else LANGUAGES
