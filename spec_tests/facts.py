"""Training examples from the repository's facts: the fixture that E10 trains and judges on."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForMaskedLM, AutoTokenizer

from .contract import Input, Request, Triple

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
MODEL = FIXTURES / "raw_model"
#: Fifths of the subjects, by a hash of their id: E10 trains on the first, is judged on the last, and was tuned between.
PARTS = {"train": (0, 1, 2), "tuning": (3,), "judged": (4,)}


@dataclass(frozen=True)
class Case:
    """An edit with the inputs that it is judged on."""

    edit: Request
    update: list[Input]
    retain: list[Input]


@dataclass(frozen=True)
class Facts:
    """Facts by (relation, subject) with {language: names of subject and object}, templates and labels by relation."""

    tokenizer: Any
    facts: dict[tuple[str, str], dict[str, tuple[str, str]]]
    templates: dict[tuple[str, str], str]
    labels: dict[tuple[str, str], list[list[int]]]

    def part(self, name: str) -> Facts:
        """The facts of one part of the subjects."""
        chosen = {key: told for key, told in self.facts.items() if zlib.crc32(key[1].encode()) % 5 in PARTS[name]}
        return Facts(self.tokenizer, chosen, self.templates, self.labels)

    def sentence(self, relation: str, language: str, subject: str, masks: int) -> Input:
        """The template with its subject, and as many [MASK] as the object has tokens."""
        mask = self.tokenizer.mask_token
        template = self.templates[relation, language].replace("[Y]", " ".join([mask] * masks))
        ids = self.tokenizer(template.replace("[X]", subject))["input_ids"]
        return {
            "input_ids": ids,
            "positions": [place for place, token in enumerate(ids) if token == self.tokenizer.mask_token_id],
        }

    def triples(self, rng: np.random.Generator, count: int) -> list[Triple]:
        """Training examples: cases with one input of each role."""
        cases = self.cases(rng, count, 1)
        return [{"edit": case.edit, "update": case.update[0], "retain": case.retain[0]} for case in cases]

    def cases(self, rng: np.random.Generator, count: int, inputs: int) -> list[Case]:
        """Random x_e, parallel x_u and unrelated x_r, each in a random language; y_e is never the true object."""
        keys = sorted(self.facts)
        cases: list[Case] = []
        while len(cases) < count:
            edited, *retained = (keys[int(i)] for i in rng.choice(len(keys), size=1 + inputs, replace=False))
            language = self._language(edited, rng)
            label = self._label(edited, language, rng)
            if label == self.tokenizer(self.facts[edited][language][1], add_special_tokens=False)["input_ids"]:
                continue
            update = [self._input(edited, self._language(edited, rng), len(label)) for _ in range(inputs)]
            retain = []
            for key in retained:
                said = self._language(key, rng)
                retain.append(self._input(key, said, len(self._label(key, said, rng))))
            request = self._input(edited, language, len(label))
            cases.append(Case({**request, "labels": label, "language": language}, update, retain))
        return cases

    def _language(self, key: tuple[str, str], rng: np.random.Generator) -> str:
        return str(rng.choice(sorted(self.facts[key])))

    def _label(self, key: tuple[str, str], language: str, rng: np.random.Generator) -> list[int]:
        """A random object of the relation."""
        labels = self.labels[key[0], language]
        return labels[int(rng.integers(len(labels)))]

    def _input(self, key: tuple[str, str], language: str, masks: int) -> Input:
        return self.sentence(key[0], language, self.facts[key][language][0], masks)


def load_facts(languages: Sequence[str]) -> Facts:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    facts: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    templates: dict[tuple[str, str], str] = {}
    labels: dict[tuple[str, str], list[list[int]]] = {}
    for language in languages:
        folder = FIXTURES / "facts" / "mlama1.1" / language
        templates |= {(row["relation"], language): row["template"] for row in _rows(folder / "templates.jsonl")}
        for path in sorted(folder.glob("P*.jsonl")):
            relation, rows = path.stem, _rows(path)
            names = sorted({row["obj_label"] for row in rows})
            labels[relation, language] = [tokenizer(name, add_special_tokens=False)["input_ids"] for name in names]
            for row in rows:
                facts.setdefault((relation, row["sub_uri"]), {})[language] = (row["sub_label"], row["obj_label"])
    return Facts(tokenizer, facts, templates, labels)


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def raw_model() -> tuple[Any, list[str]]:
    """The fixture's masked language model, and the MLP matrices of its last three layers."""
    model = AutoModelForMaskedLM.from_pretrained(MODEL).float().eval()
    top = model.config.num_hidden_layers
    wanted = [
        f"encoder.layer.{layer}.{part}.dense.weight"
        for layer in range(top - 3, top)
        for part in ("intermediate", "output")
    ]
    return model, [name for name, _ in model.named_parameters() if name.endswith(tuple(wanted))]
