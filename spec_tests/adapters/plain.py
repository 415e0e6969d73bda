"""Both plain implementations as one that claims every chapter: NumPy for T M S A B D R, the textbook for E and L.

Chapters C and U are made of both; runs are said as plainly as possible.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from ..contract import (
    NAMES,
    OF_EDITOR,
    Array,
    Asked,
    Example,
    Input,
    JudgedEdit,
    Outcome,
    PairRow,
    Plan,
    Request,
    RunEvaluation,
    RunStep,
    Told,
    Trace,
    Validation,
)
from . import numpy_core, textbook

CLAIMS = frozenset({*NAMES, "ranked"})
EDITORS = textbook.EDITORS
_TEXTBOOK = {name for names in (NAMES["E"], NAMES["L"], *OF_EDITOR.values()) for name in names}
_TEXTBOOK |= {name for name in NAMES["C"] if hasattr(textbook, name)}
ENGLISH = "en"


def __getattr__(name: str) -> Any:
    return getattr(textbook if name in _TEXTBOOK else numpy_core, name)


@dataclass(frozen=True)
class Part:
    """One split: its examples, which of them may be edited, and what they become."""

    corpus: list[Example]
    editable: frozenset[str]
    request: Callable[[Example, random.Random], Request]
    update: Callable[[Example, Example, Request], Input]
    retain: Callable[[Example, random.Random], Input]

    @cached_property
    def at(self) -> dict[str, Example]:
        return {example["id"]: example for example in self.corpus}

    def asked(self, edit: str, update: Sequence[str], retain: Sequence[str], rng: random.Random) -> Asked:
        """One edit with its inputs; labels and lengths are drawn here."""
        at = self.at
        x_e = at[edit]
        request = self.request(x_e, rng)
        return {
            "edit": _told(x_e),
            "request": request,
            "update": [(_told(at[name]), self.update(at[name], x_e, request)) for name in update],
            "retain": [(_told(at[name]), self.retain(at[name], rng)) for name in retain],
        }

    def within(self, languages: Sequence[str]) -> list[Example]:
        return [example for example in self.corpus if example["language"] in languages]


def _told(example: Example) -> Told:
    return {"fact": example["fact"], "language": example["language"]}


def _example(fact: str, language: str) -> Example:
    return {"id": f"{fact}/{language}", "fact": fact, "language": language}


def _facts(folder: Path, encode: Any) -> dict[str, Part]:
    told, templates = numpy_core._told(folder)
    spelled = lambda name: list(encode(name, add_special_tokens=False)["input_ids"])  # noqa: E731
    labels: dict[tuple[str, str], dict[str, list[int]]] = {}
    for key, rows in told.items():
        labels[key] = {row["obj_uri"]: spelled(row["obj_label"]) for row in rows}
    subjects = {
        (said, f"{relation}/{row['sub_uri']}"): row["sub_label"]
        for (said, relation), rows in told.items()
        for row in reversed(rows)
    }

    def sentence(fact: str, language: str, masks: int) -> Input:
        text = templates[language, fact.split("/", maxsplit=1)[0]].replace("[X]", subjects[language, fact])
        ids = encode(text.replace("[Y]", " ".join([encode.mask_token] * masks)))["input_ids"]
        return {"input_ids": ids, "positions": [at for at, token in enumerate(ids) if token == encode.mask_token_id]}

    def request(edit: Example, rng: random.Random) -> Request:
        pool = labels[edit["language"], edit["fact"].split("/")[0]]
        label = pool[rng.choice(sorted(pool))]
        language = edit["language"]
        return {**sentence(edit["fact"], language, len(label)), "labels": label, "language": language}

    def retain(example: Example, rng: random.Random) -> Input:
        language = example["language"]
        names = {uri: label for (said, _), pool in labels.items() if said == language for uri, label in pool.items()}
        return sentence(example["fact"], language, len(names[rng.choice(sorted(names))]))

    def update(example: Example, edit: Example, asked: Request) -> Input:
        return sentence(example["fact"], example["language"], len(asked["labels"]))

    parts = {}
    for split, rows in numpy_core.split(folder).items():
        corpus = [_example(f"{row['relation']}/{row['sub_uri']}", row["language"]) for row in rows]
        parts[split] = Part(corpus, frozenset(e["id"] for e in corpus), request, update, retain)
    return parts


def _pairs(data: Mapping[str, Sequence[PairRow]], model: Any, encode: Any) -> dict[str, Part]:
    number = {name.lower(): key for key, name in model.config.id2label.items()}
    classes = [number[name] for name in ("entailment", "neutral", "contradiction")]

    def part(split: str, rows: Sequence[PairRow]) -> Part:
        def read(example: Example) -> Input:
            found = encode(*numpy_core._texts(rows[int(example["fact"])], example["language"]))
            more = {"token_type_ids": list(found["token_type_ids"])} if "token_type_ids" in found else {}
            return {"input_ids": list(found["input_ids"]), "positions": [0], **more}  # type: ignore[typeddict-item]

        def gold(example: Example) -> int:
            return classes[rows[int(example["fact"])]["label"]]

        def request(edit: Example, rng: random.Random) -> Request:
            label = rng.choice(classes) if split == "train" else gold(edit)
            return {**read(edit), "labels": [label], "language": edit["language"]}

        @torch.no_grad()
        def wrong(example: Example) -> bool:
            one = read(example)
            read_ = {name: torch.tensor([one[name]]) for name in ("input_ids", "token_type_ids") if name in one}  # type: ignore[literal-required]
            return int(model(**read_).logits[0].argmax()) != gold(example)

        corpus = [_example(str(at), said) for at, row in enumerate(rows) for said in sorted(row["premise"])]
        edited = frozenset(e["id"] for e in corpus if split == "train" or wrong(e))
        return Part(corpus, edited, request, lambda x, _edit, _asked: read(x), lambda x, _rng: read(x))

    return {split: part(split, rows) for split, rows in data.items()}


def _evaluation(part: Part, edited: Sequence[str], updated: Sequence[str], plan: Plan, seed: str, limit: Any) -> Any:
    """What an evaluation asks: edits in some languages, inputs in others."""
    count = (plan["n_update"], plan["n_retain"])
    pairs = numpy_core.evaluation_pairs(part.corpus, edited, updated, *count, seed=seed)  # type: ignore[arg-type]
    chosen = [pair for pair in pairs if pair["edit"] in part.editable]
    if limit is not None:
        rng, at = random.Random(f"limit {seed}"), part.at
        groups = [[p["edit"] for p in chosen if at[p["edit"]]["language"] == said] for said in sorted(edited)]
        kept = set(numpy_core._limited(groups, limit, rng))
        chosen = [pair for pair in chosen if pair["edit"] in kept]
    return [part.asked(p["edit"], p["update"], p["retain"], random.Random(f"{seed} {p['edit']}")) for p in chosen]


def _judged(editor: Any, asked: Sequence[Asked]) -> list[JudgedEdit]:
    """One edit after another, at test time; retained is what the raw model says."""
    found: list[JudgedEdit] = []
    for one in asked:
        edits = textbook.edit(editor, [one["request"]])
        hits = {}
        for role in ("update", "retain"):
            inputs = [x for _, x in one[role]]  # type: ignore[literal-required]
            new = [x.argmax(-1).tolist() for x in textbook.edited_logits(editor, edits, 0, inputs)]
            old = [x.argmax(-1).tolist() for x in textbook.raw_logits(editor, inputs)]
            wanted = [one["request"]["labels"]] * len(inputs) if role == "update" else old
            hits[role] = [a == list(b) for a, b in zip(new, wanted, strict=True)]
        found.append({**one, "update_hits": hits["update"], "retain_hits": hits["retain"]})
    return found


def _scores(judged: Sequence[JudgedEdit]) -> dict[str, float]:
    rows: list[Outcome] = [
        {
            "edit": f"{one['edit']['fact']}/{one['edit']['language']}",
            "edit_language": one["edit"]["language"],
            "role": role,  # type: ignore[typeddict-item]
            "language": told["language"],
            "hit": hit,
        }
        for one in judged
        for role in ("update", "retain")
        for (told, _), hit in zip(one[role], one[f"{role}_hits"], strict=True)  # type: ignore[literal-required]
    ]
    return numpy_core.metrics(rows)


def _train(editor: Any, parts: dict[str, Part], languages: Sequence[str], seed: int, plan: Plan) -> Any:
    """Step by step; the best parameters are copied, and put back at the end."""
    steps: list[RunStep] = []
    validations: list[Validation] = []
    best = _copied(editor)
    drawn = numpy_core.training_triples(parts["train"].within(languages), languages, plan["edits"], seed)
    checked = _evaluation(parts["validation"], languages, languages, plan, f"{seed}", plan["validation_limit"])
    for edits in range(plan["batch"], plan["edits"] + 1, plan["batch"]):
        batch = drawn[edits - plan["batch"] : edits]
        rngs = [random.Random(f"training {seed} {edits} {place}") for place in range(len(batch))]
        asked = [
            parts["train"].asked(t["edit"], [t["update"]], [t["retain"]], rng)
            for t, rng in zip(batch, rngs, strict=True)
        ]
        triples: Any = [{"edit": a["request"], "update": a["update"][0][1], "retain": a["retain"][0][1]} for a in asked]
        gates = random.Random(f"gates {seed} {edits}").getrandbits(32)
        loss = textbook.train_step(editor, triples, gates)["total"]
        steps.append({"edits": edits, "asked": asked, "seed": gates, "loss": loss})
        if edits % plan["validate_every"] == 0:
            scores = _scores(_judged(editor, checked))
            if all(scores["succ"] > earlier["succ"] for earlier in validations):
                best, judged = _copied(editor), edits
            validations.append({"edits": edits, "asked": checked, **scores})  # type: ignore[typeddict-item]
            if edits - judged >= plan["patience"]:
                break
    with torch.no_grad():
        for name, value in textbook.parameters(editor).items():
            value.copy_(best[name])
    return {"steps": steps, "validations": validations, "stopped": edits, "judged": judged}


def _copied(editor: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in textbook.parameters(editor).items()}


def run(
    data: Path | Mapping[str, Sequence[PairRow]],
    model: Path,
    editor: str,
    training: str | None,
    seed: int,
    plan: Plan,
    folder: Path,
    interrupt: int | None = None,
) -> Trace:
    encode = numpy_core._tokenizer(model)
    of_pairs = isinstance(data, Mapping)
    raw = (AutoModelForSequenceClassification if of_pairs else AutoModelForMaskedLM).from_pretrained(model).eval()
    parts = _pairs(data, raw, encode) if isinstance(data, Mapping) else _facts(data, encode)
    everyone = sorted({example["language"] for example in parts["train"].corpus})
    edited = [
        name
        for name, _ in raw.named_parameters()
        if name.endswith((".intermediate.dense.weight", ".output.dense.weight")) and ".attention." not in name
    ][-6:]
    masks: Any = "language" if training == "lime" else "none"
    start, own = (
        textbook.make_editor(editor, raw, edited, everyone, masks, seed, plan["inner_lr"], plan["lr"]) for _ in range(2)
    )
    trained: Any = {"steps": [], "validations": [], "stopped": 0, "judged": 0}
    if training is not None:
        trained = _train(own, parts, [ENGLISH] if training == "en" else everyone, seed, plan)
    found: dict[Any, RunEvaluation] = {}
    for name, languages in (("en", [ENGLISH]), ("all", everyone)):
        asked = _evaluation(parts["test"], languages, everyone, plan, "test", plan["test_limit"])
        judged = _judged(own, asked)
        found[name] = {"edits": judged, **_scores(judged)}  # type: ignore[typeddict-item]
    return {**trained, "evaluations": found, "start": start, "editor": own}


def preferences(editor: Any) -> tuple[Sequence[str], Array]:
    masks = textbook.mask_parameters(editor)
    parts = [one.detach().double().numpy() for arrays in masks.values() for one in arrays.values()]
    return editor.languages, numpy_core.mask_similarity(np.concatenate(parts, axis=1))


_OTHER = {name: getattr(textbook.released, name) for name in _TEXTBOOK if hasattr(textbook.released, name)}
#: Every alternative of the chapters but U at once.
released = SimpleNamespace(
    **{
        name: getattr(numpy_core.released, name)
        for chapter in "TMSABDRC"
        for name in NAMES[chapter]
        if hasattr(numpy_core.released, name)
    }
    | _OTHER,
    CLAIMS=CLAIMS - {"U"},
    EDITORS=EDITORS,
    RULINGS={**numpy_core.released.RULINGS, **textbook.released.RULINGS},
)
