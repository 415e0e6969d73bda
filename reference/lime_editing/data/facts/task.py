"""mLAMA's splits, and its facts as masked sentences (§4.3, §A.1, chapter D)."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np

from ... import checks
from ...core.corpus import Example, ParallelCorpus
from ...core.sampling import Pair
from ...core.task import remember, with_masks
from ...errors import DataError, ModelError
from ...names import SPLITS, Rulings, Split, Subject
from ...records import EditRequest, Input
from .. import Errors, Predict, Reader
from ..examination import some
from .read import LANGUAGES, Fact, Facts

#: (language, relation) → entity's URI → tokens of its label.
Labels = Mapping[tuple[str, str], Mapping[str, tuple[int, ...]]]


class Count(NamedTuple):
    subjects: int
    facts: int


#: §A.1 and the authors' lists of subjects.
PUBLISHED: Mapping[Split, Count] = {
    "train": Count(27_225, 628_612),
    "validation": Count(1_820, 23_718),
    "test": Count(3_916, 53_993),
}


def fingerprint(facts: Facts) -> str:
    """A digest of the content in file order, independent of its source."""
    digest = hashlib.blake2b(digest_size=8)
    for fact in facts.facts:
        digest.update(repr(fact[:6]).encode())  # without file and line
    told = {(fact.language, fact.relation) for fact in facts.facts}  # a table has no templates without facts
    digest.update(repr(sorted(item for item in facts.templates.items() if item[0] in told)).encode())
    return digest.hexdigest()


def counts(facts: Facts) -> dict[Split, Count]:
    """Subjects and facts of each split (clause D2)."""
    return {name: Count(len({f.sub_uri for f in part.facts}), len(part.facts)) for name, part in split(facts).items()}


def disagreements(source: str | Path, facts: Facts) -> list[str]:
    """Differences of the splits from the paper's counts, or the authors' subjects, of facts in all languages."""
    found: list[str] = []
    if set(facts.languages) >= LANGUAGES:
        found = [
            f"{part} has {now.subjects:,} subjects and {now.facts:,} facts; the paper has {was.subjects:,} and "
            f"{was.facts:,}"
            for (part, now), was in zip(counts(facts).items(), PUBLISHED.values(), strict=True)
            if now != was
        ]
    lists = sorted(Path(source).glob("**/sub_uri_list/*_sub_uri_list.json"))
    parts = split(facts) if lists else {}
    for path in lists:
        name: Any = path.name.removesuffix("_sub_uri_list.json")
        listed = None
        with suppress(ValueError):
            listed = json.loads(path.read_text(encoding="utf-8-sig"))
        if name not in SPLITS or not isinstance(listed, list) or not all(isinstance(uri, str) for uri in listed):
            raise DataError(f"{path}: is not a JSON list of the subjects of one of {', '.join(SPLITS)}")
        ours = {fact.sub_uri for fact in parts[name].facts}
        more, fewer = sorted(ours - {*listed}), sorted({*listed} - ours)
        if more or fewer:
            found.append(
                f"{name}: {len(more):,} subjects are not in {path.name} ({some(more, 3, ', ')}), and {len(fewer):,} "
                f"of it are not in the split ({some(fewer, 3, ', ')})"
            )
    return found


def cuts(count: int) -> tuple[int, int]:
    """For `count` facts of a relation in a language: the first index of validation, and of test (clause D1)."""
    return round(count * 8 / 10), round(count * 9 / 10)


def split(facts: Facts) -> dict[Split, Facts]:
    """8:1:1 per relation and language in file order (D1). Then each subject stays in one split only (D2):

    train keeps all, test drops the subjects of train, and validation drops those of train and test.
    """
    parts: dict[Split, list[Fact]] = {"train": [], "validation": [], "test": []}
    groups: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts.facts:
        groups.setdefault((fact.language, fact.relation), []).append(fact)
    for group in groups.values():
        a, b = cuts(len(group))
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
    """One split, tokenised. An input is a (relation, subject): facts that differ only in the object share one input.

    `candidates` holds the labels of each (language, relation), `lengths` the token counts of a language's entity names.
    """

    facts: Facts
    tokenizer: Any
    candidates: Mapping[tuple[str, str], Sequence[tuple[int, ...]]]
    lengths: Mapping[str, Sequence[int]]
    subject: Subject = "parallel"
    _tokens: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)  # of sentences

    @cached_property
    def corpus(self) -> ParallelCorpus:
        return ParallelCorpus.of(Example(fact, language, f"{fact}/{language}") for fact, language in self._inputs)

    @property
    def editable(self) -> None:
        """Every fact may be edited."""

    @cached_property
    def _inputs(self) -> dict[tuple[str, str], Fact]:
        inputs: dict[tuple[str, str], Fact] = {}
        for fact in self.facts.facts:
            inputs.setdefault((sys.intern(fact.key), fact.language), fact)  # one string for all languages of a fact
        return inputs

    def within(self, languages: Sequence[str]) -> FactTask:
        """The part of the split in these languages."""
        facts = tuple(fact for fact in self.facts.facts if fact.language in languages)
        return replace(self, facts=Facts(facts, self.facts.templates))

    def ready(self, pairs: Sequence[Pair]) -> None:
        """Tokenise all sentences of the pairs that are new."""
        asked = [(x, pair.edit) for pair in pairs for x in (pair.edit, *pair.update)]
        asked += [(x, x) for pair in pairs for x in pair.retain]
        new = [text for text in dict.fromkeys(starmap(self._text, asked)) if text not in self._tokens]
        for text, ids in zip(new, self.tokenizer(new)["input_ids"] if new else (), strict=True):
            remember(self._tokens, text, partial(tuple, ids))

    def request(self, edit: Example, rng: np.random.Generator) -> EditRequest:
        """x_e; the desired prediction is uniform over the relation's entities in the editing language (clause D4)."""
        fact = self._inputs[edit.fact, edit.language]
        labels = self.candidates[fact.language, fact.relation]
        label = labels[int(rng.integers(len(labels)))]
        return EditRequest(self._masked(edit, edit, len(label)), label, edit.language)

    def update_input(self, update: Example, edit: Example, request: EditRequest) -> Input:
        """The parallel sentence. Its subject is in the updating language, or in the editing language (ruling D6)."""
        return self._masked(update, edit, len(request.labels))

    def retain_input(self, retain: Example, rng: np.random.Generator) -> Input:
        """An unrelated sentence. Its number of masks is drawn from the lengths of the language's entity names (D5)."""
        lengths = self.lengths[retain.language]
        return self._masked(retain, retain, lengths[int(rng.integers(len(lengths)))])

    def _text(self, asked: Example, edit: Example) -> str:
        """The sentence of an example with one mask for [Y]; the subject follows ruling D6."""
        if (asked.fact, asked.language) not in self._inputs:
            raise DataError(f"this split has no fact {asked.fact!r} in {asked.language!r}; take its own pairs")
        fact = self._inputs[asked.fact, asked.language]
        subject = self._inputs[edit.fact, edit.language] if self.subject == "edit-language" else fact
        return self.facts.text(fact, self.tokenizer.mask_token, subject.sub_label)

    def _masked(self, asked: Example, edit: Example, count: int) -> Input:
        text = self._text(asked, edit)
        ids = remember(self._tokens, text, lambda: tuple(self.tokenizer(text)["input_ids"]))
        return with_masks(ids, self.tokenizer.mask_token_id, count)


def tasks(facts: Facts, reader: Reader, rulings: Rulings, errors: Errors) -> dict[Split, FactTask]:
    """The three splits, tokenised. They share the labels [Y] (clause D2). Every fact may be edited.

    DataError: labels that cannot be spelled; a sentence that can become too long. ModelError: no mask token.
    """
    tokenizer, labels = reader.tokenizer, _labels(facts, reader.tokenizer)
    for language, (count, unknown, _) in _spelling(facts, tokenizer, labels).items():
        if count == len(unknown):
            raise DataError(
                f"{unknown[0].source}: all {count} labels in {language!r} contain {tokenizer.unk_token}: the tokenizer "
                "does not know their letters; leave the language out (--languages), or give another model"
            )
    for fact, tokens, masks, label in too_long(facts, reader, labels):
        raise DataError(
            f"{fact.source}: {fact.key} in {fact.language!r} comes to {tokens} tokens with the {masks} masks of the "
            f"longest label ({label.source}), and the model reads at most {reader.longest}; shorten or remove one"
        )
    parts, lengths = split(facts), _lengths(labels)
    shared = _pool(facts, labels) if rulings.label_pool == "all" else None
    return {
        name: FactTask(part, tokenizer, shared or _pool(part, labels), lengths, rulings.subject)
        for name, part in parts.items()
    }


def _pool(facts: Facts, labels: Labels) -> dict[tuple[str, str], tuple[tuple[int, ...], ...]]:
    """The labels of these facts' entities (D4), in an order that is independent of the files (D9)."""
    found: dict[tuple[str, str], set[tuple[int, ...]]] = {}
    for fact in facts.facts:
        key = (fact.language, fact.relation)
        found.setdefault(key, set()).add(labels[key][fact.obj_uri])
    return {key: tuple(sorted(ids)) for key, ids in found.items()}


def misfits(facts: Facts, reader: Reader, predict: Predict | None = None, key: str = "") -> list[str]:
    """Problems of the tokenizer: in each language the number of labels that have unknown tokens, or equal tokens."""
    tokenizer, found = reader.tokenizer, []
    for language, (count, unknown, merged) in _spelling(facts, tokenizer, _labels(facts, tokenizer)).items():
        apart = any(normalize("NFC", fact.obj_label) != fact.obj_label for fact in unknown)
        if unknown or merged:
            found.append(
                f"{len(unknown)} of {count} labels in {language} contain {tokenizer.unk_token}, and {merged} have the "
                f"tokens of another{'; some are decomposed: normalise the text to NFC' if apart else ''}"
            )
    return found


def _spelling(facts: Facts, tokenizer: Any, labels: Labels) -> dict[str, tuple[int, list[Fact], int]]:
    """By language: the number of labels, a fact for each with unknown tokens, and the number with equal tokens."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    first = {(fact.language, fact.relation, fact.obj_uri): fact for fact in reversed(facts.facts)}
    lost: dict[str, dict[str, Fact | None]] = {language: {} for language in facts.languages}
    same: dict[tuple[str, str, tuple[int, ...]], set[str]] = {}
    for (language, relation, uri), fact in first.items():
        ids = labels[language, relation][uri]
        lost[language][fact.obj_label] = fact if unknown in ids else None
        same.setdefault((language, relation, ids), set()).add(fact.obj_label)
    merged: dict[str, set[str]] = {language: set() for language in lost}
    for (language, _, _), names in same.items():
        merged[language] |= names if len(names) > 1 else set()
    return {code: (len(of), [*filter(None, of.values())], len(merged[code])) for code, of in lost.items() if of}


def _labels(facts: Facts, tokenizer: Any) -> Labels:
    if tokenizer.mask_token_id is None:
        raise ModelError("the tokenizer has no mask token; facts need a masked language model's tokenizer")
    for (language, relation), template in facts.templates.items():
        if tokenizer.mask_token in template:
            raise DataError(f"the template of {relation} in {language!r} has the mask token: {template!r}; remove it")
    checks.refuse(DataError, checks.of_special(facts.facts, tokenizer))
    names = list(dict.fromkeys(fact.obj_label for fact in facts.facts))
    spelled = dict(zip(names, map(tuple, tokenizer(names, add_special_tokens=False)["input_ids"]), strict=True))
    labels: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {}
    for fact in facts.facts:
        ids = spelled[fact.obj_label]
        masked = "sub_label" if tokenizer.mask_token in fact.sub_label else "obj_label"
        if tokenizer.mask_token_id in ids or masked == "sub_label":
            raise DataError(f"{fact.source}: {masked} {getattr(fact, masked)!r} contains the mask token; remove it")
        if not ids:
            remedy = "remove the row or use a tokenizer that knows its script"
            raise DataError(f"{fact.source}: obj_label {fact.obj_label!r} tokenises to nothing; {remedy}")
        labels.setdefault((fact.language, fact.relation), {}).setdefault(fact.obj_uri, ids)
    return labels


def _lengths(labels: Labels) -> dict[str, tuple[int, ...]]:
    names: dict[str, dict[str, tuple[int, ...]]] = {}
    for (language, _), ids in labels.items():
        names.setdefault(language, {}).update(ids)
    return {language: tuple(sorted(map(len, by_uri.values()))) for language, by_uri in names.items()}


def too_long(facts: Facts, reader: Reader, labels: Labels | None = None) -> Iterator[tuple[Fact, int, int, Fact]]:
    """(fact, tokens, masks, fact with the longest label) for each sentence that can become too long with all masks."""
    labels, longest = labels or _labels(facts, reader.tokenizer), reader.longest or sys.maxsize
    widest, lengths = dict[str, int](), _lengths(labels)
    for (_, relation), ids in labels.items():
        widest[relation] = max(widest.get(relation, 0), *map(len, ids.values()))
    for fact in facts.facts:
        masks = max(widest[fact.relation], lengths[fact.language][-1])
        text = facts.text(fact, reader.tokenizer.mask_token)
        if 2 * len(text.encode()) + masks > longest:  # a cheap bound: at most two tokens per byte
            tokens = len(reader.tokenizer(text)["input_ids"]) - 1 + masks
            if tokens > longest:
                label = next(f for f in facts.facts if len(labels[f.language, f.relation][f.obj_uri]) == masks)
                yield fact, tokens, masks, label
