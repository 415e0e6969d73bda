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

from spec_tests.contract import Input, Triple

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
MODEL = FIXTURES / "raw_model"
#: Objects of more tokens are left out: predicting them takes longer training than a smoke test has.
LONGEST_LABEL = 1


@dataclass(frozen=True)
class Facts:
    """Facts by (relation, subject) with {language: names of subject and object}, templates and labels by relation."""

    tokenizer: Any
    facts: dict[tuple[str, str], dict[str, tuple[str, str]]]
    templates: dict[tuple[str, str], str]
    labels: dict[tuple[str, str], list[list[int]]]

    def held_out(self, chosen: bool) -> Facts:
        """A fifth of the subjects, or the rest of them."""
        part = {key: told for key, told in self.facts.items() if (zlib.crc32(key[1].encode()) % 5 == 0) == chosen}
        return Facts(self.tokenizer, part, self.templates, self.labels)

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
        """Random x_e, parallel x_u and unrelated x_r, each in a random language; y_e is never the true object."""
        keys = sorted(self.facts)
        triples: list[Triple] = []
        while len(triples) < count:
            edited, retained = (keys[int(i)] for i in rng.choice(len(keys), size=2, replace=False))
            edit_language, update_language = (str(rng.choice(sorted(self.facts[edited]))) for _ in range(2))
            own = self.tokenizer(self.facts[edited][edit_language][1], add_special_tokens=False)["input_ids"]
            labels = [label for label in self.labels[edited[0], edit_language] if label != own]
            if not labels:
                continue
            label = labels[int(rng.integers(len(labels)))]
            request = self._input(edited, edit_language, len(label))
            retain_language = str(rng.choice(sorted(self.facts[retained])))
            triples.append(
                {
                    "edit": {**request, "labels": label, "language": edit_language},
                    "update": self._input(edited, update_language, len(label)),
                    "retain": self._input(retained, retain_language, int(rng.integers(1, LONGEST_LABEL + 1))),
                }
            )
        return triples

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
            tokens = [tokenizer(name, add_special_tokens=False)["input_ids"] for name in names]
            labels[relation, language] = [one for one in tokens if len(one) <= LONGEST_LABEL]
            for row in rows if labels[relation, language] else ():
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
