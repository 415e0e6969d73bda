"""mLAMA's splits, and the masked sentences that its facts become (§4.3, §A.1, chapter D)."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np

from ...core.corpus import Example, ParallelCorpus
from ...core.sampling import Pair
from ...core.task import remember, with_masks
from ...errors import DataError, ModelError
from ...names import SPLITS, Rulings, Split, Subject
from ...records import EditRequest, Input
from .. import Errors, Predict, Reader
from .read import LANGUAGES, Fact, Facts

#: The tokens of each entity's label, by its URI, in each (language, relation).
Labels = Mapping[tuple[str, str], Mapping[str, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Count:
    """Of one split."""

    subjects: int
    facts: int


#: §A.1 and the authors' lists of subjects.
PUBLISHED: Mapping[Split, Count] = {
    "train": Count(27_225, 628_612),
    "validation": Count(1_820, 23_718),
    "test": Count(3_916, 53_993),
}


def fingerprint(facts: Facts) -> str:
    """A digest of the content in file order, wherever it was read from."""
    digest = hashlib.blake2b(digest_size=8)
    for fact in facts.facts:
        digest.update(
            repr((fact.language, fact.relation, fact.sub_uri, fact.obj_uri, fact.sub_label, fact.obj_label)).encode()
        )
    told = {(fact.language, fact.relation) for fact in facts.facts}  # a table has no template without a fact
    digest.update(repr(sorted(item for item in facts.templates.items() if item[0] in told)).encode())
    return digest.hexdigest()


def counts(facts: Facts) -> dict[Split, Count]:
    """Subjects and facts of each split (clause D2)."""
    return {name: Count(len({f.sub_uri for f in part.facts}), len(part.facts)) for name, part in split(facts).items()}


def disagreements(source: str | Path, facts: Facts) -> list[str]:
    """Where facts in all their languages are not split as the paper says, or as the authors' lists beside them say.

    The paper's counts are those of the real mLAMA, which its languages give away. A part of the languages is split
    otherwise, and has nothing to agree with. DataError: a list that is none.
    """
    lists = sorted(Path(source).glob("**/sub_uri_list/*_sub_uri_list.json")) if Path(source).is_dir() else []
    real = set(facts.languages) >= LANGUAGES
    parts = split(facts) if lists or real else {}
    ours = {name: {fact.sub_uri for fact in part.facts} for name, part in parts.items()}
    found = [
        f"{name} has {len(ours[name]):,} subjects and {len(parts[name].facts):,} facts; the paper has {was.subjects:,} "
        f"and {was.facts:,}"
        for name, was in PUBLISHED.items()
        if real and Count(len(ours[name]), len(parts[name].facts)) != was
    ]
    for path in lists:
        name: Any = path.name.removesuffix("_sub_uri_list.json")
        try:
            listed = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, OSError) as error:
            raise DataError(f"{path}: is not a JSON list of subjects ({error})") from error
        if name not in SPLITS or not isinstance(listed, list) or not all(isinstance(uri, str) for uri in listed):
            raise DataError(f"{path}: expected the JSON list of the subjects of one of {', '.join(SPLITS)}")
        more, fewer = sorted(ours[name] - set(listed)), sorted(set(listed) - ours[name])
        if more or fewer:
            some = [", ".join([*names[:3], *["…"][: len(names) > 3]]) or "none" for names in (more, fewer)]
            found.append(
                f"{name}: {len(more):,} subjects are not in {path.name} ({some[0]}), and {len(fewer):,} of it are not "
                f"in the split ({some[1]})"
            )
    return found


def cuts(count: int) -> tuple[int, int]:
    """Of `count` facts of a relation in a language, where validation begins and where test begins (clause D1)."""
    return round(count * 8 / 10), round(count * 9 / 10)


def split(facts: Facts) -> dict[Split, Facts]:
    """8:1:1 per relation and language in file order (D1); then a subject stays in one split only (D2):

    train keeps all, test drops the subjects of train, validation those of train and test.
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
    """One split, tokenised. An input is a (relation, subject): facts that differ only in the known object are one.

    `candidates` holds the labels of each (language, relation), `lengths` the token counts of a language's entity names.
    """

    facts: Facts
    tokenizer: Any
    candidates: Mapping[tuple[str, str], Sequence[tuple[int, ...]]]
    lengths: Mapping[str, Sequence[int]]
    subject: Subject = "parallel"
    _prompts: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict, repr=False)

    @cached_property
    def corpus(self) -> ParallelCorpus:
        return ParallelCorpus.of(Example(fact, language, f"{fact}/{language}") for fact, language in self._inputs)

    @property
    def editable(self) -> None:
        """Every fact may be edited."""

    @cached_property
    def _inputs(self) -> dict[tuple[str, str], Fact]:
        inputs: dict[tuple[str, str], Fact] = {}
        same: dict[str, str] = {}  # one string for all languages of a fact
        for fact in self.facts.facts:
            key = _key(fact)
            inputs.setdefault((same.setdefault(key, key), fact.language), fact)
        return inputs

    def within(self, languages: Sequence[str]) -> FactTask:
        """The part of the split in these languages."""
        facts = tuple(fact for fact in self.facts.facts if fact.language in languages)
        return replace(self, facts=Facts(facts, self.facts.templates))

    def ready(self, pairs: Sequence[Pair]) -> None:
        """Tokenise all sentences of the pairs that are new."""
        asked = [(x, pair.edit) for pair in pairs for x in (pair.edit, *pair.update)]
        asked += [(x, x) for pair in pairs for x in pair.retain]
        keys = dict.fromkeys(self._key(*each) for each in asked)
        new = [key for key in keys if key not in self._prompts]
        texts = [self._text(*key) for key in new]
        for key, ids in zip(new, self.tokenizer(texts)["input_ids"] if new else (), strict=True):
            remember(self._prompts, key, partial(tuple, ids))

    def request(self, edit: Example, rng: np.random.Generator) -> EditRequest:
        """The desired prediction is uniform over the relation's entities in the editing language (clause D4)."""
        fact = self._inputs[edit.fact, edit.language]
        labels = self.candidates[fact.language, fact.relation]
        label = labels[int(rng.integers(len(labels)))]
        return EditRequest(self._masked(self._key(edit, edit), len(label)), label, edit.language)

    def update_input(self, update: Example, edit: Example, request: EditRequest) -> Input:
        """The parallel sentence; its subject is that of the updating, or by ruling D6 of the editing language."""
        return self._masked(self._key(update, edit), len(request.labels))

    def retain_input(self, retain: Example, rng: np.random.Generator) -> Input:
        """An unrelated sentence; its number of masks follows the language's entity names (clause D5)."""
        lengths = self.lengths[retain.language]
        return self._masked(self._key(retain, retain), lengths[int(rng.integers(len(lengths)))])

    def _key(self, asked: Example, edit: Example) -> tuple[str, str]:
        """The template of an example, and the label of its subject, or by ruling D6 of the edit's."""
        fact = self._inputs[asked.fact, asked.language]
        subject = self._inputs[edit.fact, edit.language] if self.subject == "edit-language" else fact
        return self.facts.templates[fact.language, fact.relation], subject.sub_label

    def _masked(self, key: tuple[str, str], count: int) -> Input:
        """The template with the label filled in and [Y] replaced by `count` masks (D3)."""
        ids = remember(self._prompts, key, lambda: tuple(self.tokenizer(self._text(*key))["input_ids"]))
        return with_masks(ids, self.tokenizer.mask_token_id, count)

    def _text(self, template: str, subject: str) -> str:
        """The sentence with one mask. [Y] is replaced first, because a label may contain it."""
        return template.replace("[Y]", self.tokenizer.mask_token).replace("[X]", subject)


def tasks(facts: Facts, reader: Reader, rulings: Rulings, errors: Errors) -> dict[Split, FactTask]:
    """The three splits, tokenised; labels [Y] are shared by all of them (clause D2). Every fact may be edited.

    DataError: a label that tokenises to nothing, or holds the mask token; a language of which the tokenizer knows no
    label; a sentence that can become longer than the longest input of the model. ModelError: no mask token.
    """
    tokenizer, labels = reader.tokenizer, _labels(facts, reader.tokenizer)
    for language, (count, unknown, _) in _spelling(facts, tokenizer, labels).items():
        if count == len(unknown):
            raise DataError(
                f"{unknown[0].source}: all {count} labels in {language!r} contain {tokenizer.unk_token}: the tokenizer "
                "does not know their letters; leave the language out (--languages), or give another model"
            )
    for fact, tokens, masks, label in too_long(facts, tokenizer, reader.longest, labels):
        raise DataError(
            f"{fact.source}: {_key(fact)} in {fact.language!r} comes to {tokens} tokens with the {masks} masks of the "
            f"longest label ({label.source}), and the model reads at most {reader.longest}; shorten or remove the "
            "longer of the two"
        )
    parts, lengths = split(facts), _lengths(labels)
    pools = {name: _pool(labels, part.facts if rulings.label_pool == "own" else None) for name, part in parts.items()}
    return {name: FactTask(part, tokenizer, pools[name], lengths, rulings.subject) for name, part in parts.items()}


def _pool(labels: Labels, told: Sequence[Fact] | None) -> dict[tuple[str, str], tuple[tuple[int, ...], ...]]:
    """The labels that may be desired in each (language, relation): of all entities, or of those in some facts (D4).

    In a canonical order, so that a draw does not depend on how the files were read (clause D9).
    """
    if told is None:
        return {key: tuple(sorted(set(ids.values()))) for key, ids in labels.items()}
    found: dict[tuple[str, str], set[tuple[int, ...]]] = {}
    for fact in told:
        key = (fact.language, fact.relation)
        found.setdefault(key, set()).add(labels[key][fact.obj_uri])
    return {key: tuple(sorted(ids)) for key, ids in found.items()}


def misfits(facts: Facts, reader: Reader, predict: Predict | None = None, key: str = "") -> list[str]:
    """Where the tokenizer cannot say the labels: in which languages how many have unknown tokens, or merge."""
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
    """Of each language: its labels, a fact of each that has unknown tokens, and how many merge within a relation."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    first = {(fact.language, fact.relation, fact.obj_uri): fact for fact in reversed(facts.facts)}
    lost: dict[str, dict[str, Fact | None]] = {language: {} for language in facts.languages}
    same: dict[tuple[str, str, tuple[int, ...]], set[str]] = {}
    for (language, relation, uri), fact in first.items():
        ids = labels[language, relation][uri]
        lost[language][fact.obj_label] = fact if unknown in ids else None
        same.setdefault((language, relation, ids), set()).add(fact.obj_label)
    merged: dict[str, set[str]] = {}
    for (language, _, _), names in same.items():
        merged.setdefault(language, set()).update(names if len(names) > 1 else ())
    return {code: (len(of), [f for f in of.values() if f], len(merged[code])) for code, of in lost.items() if of}


def _labels(facts: Facts, tokenizer: Any) -> Labels:
    """The tokens of the label of each entity, by its URI, in each (language, relation)."""
    if tokenizer.mask_token_id is None:
        raise ModelError("the tokenizer has no mask token; facts need a masked language model's tokenizer")
    for (language, relation), template in facts.templates.items():
        if tokenizer.mask_token in template:
            raise DataError(f"the template of {relation} in {language!r} contains the mask token: {template!r}")
    names = list(dict.fromkeys(fact.obj_label for fact in facts.facts))
    spelled = dict(zip(names, map(tuple, tokenizer(names, add_special_tokens=False)["input_ids"]), strict=True))
    labels: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {}
    for fact in facts.facts:
        ids = spelled[fact.obj_label]
        masked = "sub_label" if tokenizer.mask_token in fact.sub_label else "obj_label"
        if tokenizer.mask_token_id in ids or masked == "sub_label":
            raise DataError(f"{fact.source}: {masked} {getattr(fact, masked)!r} contains the mask token; remove it")
        if not ids:
            raise DataError(
                f"{fact.source}: obj_label {fact.obj_label!r} tokenises to nothing; remove the row or use a tokenizer "
                f"that knows its script"
            )
        labels.setdefault((fact.language, fact.relation), {}).setdefault(fact.obj_uri, ids)
    return labels


def _lengths(labels: Labels) -> dict[str, tuple[int, ...]]:
    """The token counts of a language's entity names, ascending."""
    names: dict[str, dict[str, int]] = {}
    for (language, _), ids in labels.items():
        names.setdefault(language, {}).update({uri: len(label) for uri, label in ids.items()})
    return {language: tuple(sorted(by_uri.values())) for language, by_uri in names.items()}


def too_long(
    facts: Facts, tokenizer: Any, longest: int | None, known: Labels | None = None
) -> Iterator[tuple[Fact, int, int, Fact]]:
    """(fact, its tokens, masks among them, whose label is so long) of each sentence that can become too long.

    An update input has as many masks as a label of its relation in any language, a retain input as one of its own.
    Only sentences of very many letters are tokenised: a token has one of them at least.
    """
    labels = known or _labels(facts, tokenizer)
    widest, lengths, longest = dict[str, int](), _lengths(labels), longest or sys.maxsize
    for (_, relation), ids in labels.items():
        widest[relation] = max(widest.get(relation, 0), *map(len, ids.values()))
    for fact in facts.facts:
        masks = max(widest[fact.relation], lengths[fact.language][-1])
        text = facts.templates[fact.language, fact.relation].replace("[X]", fact.sub_label)
        if 2 * len(text.encode()) + masks > longest:  # twice, lest a tokenizer take some letters apart
            told = len(tokenizer(text.replace("[Y]", tokenizer.mask_token))["input_ids"]) - 1 + masks
            if told > longest:
                label = next(f for f in facts.facts if len(labels[f.language, f.relation][f.obj_uri]) == masks)
                yield fact, told, masks, label


def _key(fact: Fact) -> str:
    return f"{fact.relation}/{fact.sub_uri}"
