"""mLAMA (§4.3, §A.1, chapter D): facts as masked sentences, read from the original archive's folder layout.

    <folder>/<language>/templates.jsonl     {"relation": "P36", "template": "The capital of [X] is [Y] ."}
    <folder>/<language>/<relation>.jsonl    {"sub_uri", "obj_uri", "sub_label", "obj_label", "lineid", "uuid"}

The lines are read here rather than by a library because an error must name the file, the line and the field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..corpus import Example, ParallelCorpus
from ..errors import DataError, LanguageError, ModelError
from ..types import EditRequest, Input

Split = Literal["train", "validation", "test"]
Subject = Literal["parallel", "edit-language"]


@dataclass(frozen=True, slots=True)
class Fact:
    """⟨[X], relation, [Y]⟩ in one language, and where it was read, as "file:line"."""

    language: str
    relation: str
    sub_uri: str
    obj_uri: str
    sub_label: str
    obj_label: str
    source: str


@dataclass(frozen=True)
class Facts:
    """All facts of some languages, in file order, and the template of each (language, relation)."""

    facts: tuple[Fact, ...]
    templates: Mapping[tuple[str, str], str]

    @cached_property
    def languages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(language for language, _ in self.templates))


def read(folder: str | Path, languages: Sequence[str] | None = None) -> Facts:
    """Read the facts of `languages` (default: every language of the folder), language by language in sorted order.

    DataError: a missing folder or template, a broken line, a missing or empty field. LanguageError: no such language.
    """
    root = Path(folder)
    known = sorted(path.parent.name for path in root.glob("*/templates.jsonl"))
    if not known:
        raise DataError(f"{root}: no <language>/templates.jsonl in this folder; expected mLAMA's unpacked layout")
    facts: list[Fact] = []
    templates: dict[tuple[str, str], str] = {}
    for language in known if languages is None else sorted(set(languages)):
        if language not in known:
            raise LanguageError(language, known, f"in {root}")
        templates |= _read_templates(root / language / "templates.jsonl", language)
        for path in sorted((root / language).glob("*.jsonl")):
            if path.name != "templates.jsonl":
                facts += _read_facts(path, language, templates)
    return Facts(tuple(facts), templates)


def fingerprint(facts: Facts) -> str:
    """A digest of the content in file order, wherever it was read from."""
    digest = hashlib.blake2b(digest_size=8)
    for fact in facts.facts:
        digest.update(
            repr((fact.language, fact.relation, fact.sub_uri, fact.obj_uri, fact.sub_label, fact.obj_label)).encode()
        )
    digest.update(repr(sorted(facts.templates.items())).encode())
    return digest.hexdigest()


def split(facts: Facts) -> dict[Split, Facts]:
    """8:1:1 per relation and language in file order (D1); then a subject stays in one split only (D2):

    train keeps all, test drops the subjects of train, validation those of train and test.
    """
    parts: dict[Split, list[Fact]] = {"train": [], "validation": [], "test": []}
    groups: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts.facts:
        groups.setdefault((fact.language, fact.relation), []).append(fact)
    for group in groups.values():
        a, b = round(len(group) * 8 / 10), round(len(group) * 9 / 10)
        parts["train"] += group[:a]
        parts["validation"] += group[a:b]
        parts["test"] += group[b:]
    taken = {fact.sub_uri for fact in parts["train"]}
    parts["test"] = [fact for fact in parts["test"] if fact.sub_uri not in taken]
    taken |= {fact.sub_uri for fact in parts["test"]}
    parts["validation"] = [fact for fact in parts["validation"] if fact.sub_uri not in taken]
    return {name: Facts(tuple(part), facts.templates) for name, part in parts.items()}


@dataclass(frozen=True)
class FactTask:
    """One split, tokenised. An input is a (relation, subject): facts that differ only in the known object are one.

    `candidates` holds the labels of each (language, relation), `lengths` the token counts of a language's entity names.
    """

    facts: Facts
    tokenizer: Any
    candidates: Mapping[tuple[str, str], Sequence[tuple[int, ...]]]
    lengths: Mapping[str, Sequence[int]]
    subject: Subject = "parallel"
    _prompts: dict[tuple[str, str], tuple[tuple[int, ...], int]] = field(default_factory=dict, repr=False)

    @cached_property
    def corpus(self) -> ParallelCorpus:
        return ParallelCorpus.of(Example(_key(f), f.language, f"{_key(f)}/{f.language}") for f in self._inputs.values())

    @property
    def editable(self) -> None:
        """Every fact may be edited."""

    @cached_property
    def _inputs(self) -> dict[tuple[str, str], Fact]:
        inputs: dict[tuple[str, str], Fact] = {}
        for fact in self.facts.facts:
            inputs.setdefault((_key(fact), fact.language), fact)
        return inputs

    def within(self, languages: Sequence[str]) -> FactTask:
        """The part of the split in these languages."""
        facts = tuple(fact for fact in self.facts.facts if fact.language in languages)
        return replace(self, facts=Facts(facts, self.facts.templates))

    def request(self, edit: Example, rng: np.random.Generator) -> EditRequest:
        """The desired prediction is uniform over the relation's entities in the editing language (clause D4)."""
        fact = self._inputs[edit.fact, edit.language]
        labels = self.candidates[fact.language, fact.relation]
        label = labels[int(rng.integers(len(labels)))]
        return EditRequest(self._masked(fact, fact, len(label)), label, edit.language)

    def update_input(self, update: Example, edit: Example, request: EditRequest) -> Input:
        """The parallel sentence; its subject is that of the updating, or by ruling D6 of the editing language."""
        fact = self._inputs[update.fact, update.language]
        subject = self._inputs[edit.fact, edit.language] if self.subject == "edit-language" else fact
        return self._masked(fact, subject, len(request.labels))

    def retain_input(self, retain: Example, rng: np.random.Generator) -> Input:
        """An unrelated sentence; its number of masks follows the language's entity names (clause D5)."""
        fact = self._inputs[retain.fact, retain.language]
        lengths = self.lengths[fact.language]
        return self._masked(fact, fact, lengths[int(rng.integers(len(lengths)))])

    def _masked(self, fact: Fact, subject: Fact, count: int) -> Input:
        """The template of `fact` with the label of `subject` filled in and [Y] replaced by `count` masks (D3)."""
        template = self.facts.templates[fact.language, fact.relation]
        key = (template, subject.sub_label)
        if key not in self._prompts:
            # [Y] goes first, lest a label contain the placeholder; one mask is enough to find its place.
            text = template.replace("[Y]", self.tokenizer.mask_token).replace("[X]", subject.sub_label)
            tokens = tuple(self.tokenizer(text)["input_ids"])
            self._prompts[key] = tokens, tokens.index(self.tokenizer.mask_token_id)
        ids, at = self._prompts[key]
        mask = self.tokenizer.mask_token_id
        return Input(ids[:at] + (mask,) * count + ids[at + 1 :], tuple(range(at, at + count)))


def tasks(facts: Facts, tokenizer: Any, subject: Subject = "parallel") -> dict[Split, FactTask]:
    """The three splits, tokenised; labels [Y] are shared by all of them (clause D2).

    DataError: a label that tokenises to nothing, or holds the mask token. ModelError: a tokenizer without a mask token.
    """
    if tokenizer.mask_token_id is None:
        raise ModelError("the tokenizer has no mask token; facts need a masked language model's tokenizer")
    for (language, relation), template in facts.templates.items():
        if tokenizer.mask_token in template:
            raise DataError(f"the template of {relation} in {language!r} contains the mask token: {template!r}")
    entities: dict[tuple[str, str], dict[str, Fact]] = {}
    for fact in facts.facts:
        if tokenizer.mask_token in fact.sub_label:
            raise DataError(f"{fact.source}: sub_label {fact.sub_label!r} contains the mask token; remove it")
        entities.setdefault((fact.language, fact.relation), {}).setdefault(fact.obj_uri, fact)
    labels = {key: _label_ids(tuple(pool.values()), tokenizer) for key, pool in entities.items()}
    # A canonical order, so that a draw does not depend on how the files were read (clause D9).
    candidates = {key: tuple(sorted(set(ids.values()))) for key, ids in labels.items()}
    names: dict[str, dict[str, int]] = {}
    for (language, _), ids in labels.items():
        names.setdefault(language, {}).update({uri: len(label) for uri, label in ids.items()})
    lengths = {language: tuple(sorted(by_uri.values())) for language, by_uri in names.items()}
    return {name: FactTask(part, tokenizer, candidates, lengths, subject) for name, part in split(facts).items()}


def _label_ids(facts: Sequence[Fact], tokenizer: Any) -> dict[str, tuple[int, ...]]:
    encoded = tokenizer([fact.obj_label for fact in facts], add_special_tokens=False)["input_ids"]
    for fact, ids in zip(facts, encoded, strict=True):
        if not ids:
            raise DataError(
                f"{fact.source}: obj_label {fact.obj_label!r} tokenises to nothing; remove the row or use a tokenizer "
                f"that knows its script"
            )
    return {fact.obj_uri: tuple(ids) for fact, ids in zip(facts, encoded, strict=True)}


def _key(fact: Fact) -> str:
    return f"{fact.relation}/{fact.sub_uri}"


def _read_templates(path: Path, language: str) -> dict[tuple[str, str], str]:
    templates = {}
    for line, row in _rows(path, ("relation", "template")):
        if row["template"].count("[X]") != 1 or row["template"].count("[Y]") != 1:
            raise DataError(f"{path}:{line}: template {row['template']!r} must hold [X] and [Y] once each")
        templates[language, row["relation"]] = row["template"]
    return templates


def _read_facts(path: Path, language: str, templates: Mapping[tuple[str, str], str]) -> Iterator[Fact]:
    for line, row in _rows(path, ("sub_uri", "obj_uri", "sub_label", "obj_label")):
        if (language, path.stem) not in templates:
            raise DataError(
                f"{path}: no template for relation {path.stem!r} in {path.with_name('templates.jsonl')}; add one"
            )
        uris, labels = (row["sub_uri"], row["obj_uri"]), (row["sub_label"], row["obj_label"])
        yield Fact(language, path.stem, *uris, *labels, f"{path}:{line}")


def _rows(path: Path, fields: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a jsonl file, with the given fields checked to be text."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _row(line, fields, f"{path}:{number}")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); convert it to UTF-8") from error


def _row(line: str, fields: Sequence[str], where: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: is not a JSON object ({error.msg} at column {error.colno}); mend or remove the line"
        ) from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(row).__name__}")
    for name in fields:
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise DataError(f"{where}: field {name!r} must be non-empty text, got {row.get(name)!r}")
    return row
