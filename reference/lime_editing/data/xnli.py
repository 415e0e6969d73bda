"""XNLI (§4.3, §A.2, chapter D): parallel sentence pairs, read with `datasets` from a hub id or a folder of that schema.

premise     Translation                      {language: text}
hypothesis  TranslationVariableLanguages     {"language": [...], "translation": [...]}
label       ClassLabel(entailment, neutral, contradiction)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np

from ..corpus import Example, ParallelCorpus
from ..errors import DataError, LanguageError, ModelError
from ..types import EditRequest, Input

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
CONFIG = "all_languages"
PIVOT = "en"  # the one language in which the raw classifier has seen classes (§B.1)


@dataclass(frozen=True)
class Pairs:
    """The rows of each split, memory-mapped, the chosen languages, and the classes in the data's order."""

    rows: Mapping[Split, Any]
    languages: tuple[str, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.rows.values())


def read(source: str, languages: Sequence[str] | None = None) -> Pairs:
    """Load the configuration `all_languages` of a folder or hub id, in some languages (default: all).

    DataError: not there, or of another schema. LanguageError: no such language.
    """
    where = str(Path(source).resolve()) if Path(source).is_dir() else source
    try:
        loaded = datasets.load_dataset(where, CONFIG)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"cannot load {CONFIG!r} from {source!r}: {reason} Expected a hub id, or a folder of parquet files whose "
            f"README.md names the configuration {CONFIG!r}."
        ) from error
    for split in SPLITS:
        if split not in loaded:
            raise DataError(f"{source}: no split {split!r}; found {', '.join(loaded)}")
        _check_schema(loaded[split].features, f"{source}, split {split!r}")
    features = loaded["train"].features
    known = sorted(features["premise"].languages)
    for language in languages or ():
        if language not in known:
            raise LanguageError(language, known, f"in {source}")
    chosen = tuple(sorted(set(languages))) if languages else tuple(known)
    return Pairs({split: loaded[split] for split in SPLITS}, chosen, tuple(features["label"].names))


def fingerprint(pairs: Pairs) -> str:
    """A digest of the content, wherever it was read from."""
    digest = hashlib.blake2b(repr((pairs.languages, pairs.classes)).encode(), digest_size=8)
    for split in SPLITS:
        for batch in pairs.rows[split].iter(1000):
            digest.update(repr([_texts(row) for row in _transposed(batch)]).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class PairTask:
    """One split, tokenised. Where `wrong` is None a desired label is any class (training), else the gold one.

    `wrong` holds the ids of the inputs that the raw model gets wrong: they, and no others, are edited (clause D7).
    """

    split: Split
    rows: Any
    languages: tuple[str, ...]
    tokenizer: Any
    classes: tuple[int, ...]  # the model's number of each of the data's classes
    wrong: frozenset[str] | None = None
    _inputs: dict[str, Input] = field(default_factory=dict, repr=False)

    @cached_property
    def corpus(self) -> ParallelCorpus:
        facts = [f"{self.split}/{i}" for i in range(len(self.rows))]
        return ParallelCorpus.of(Example(f, code, f"{f}/{code}") for f in facts for code in self.languages)

    @property
    def editable(self) -> frozenset[str] | None:
        return self.wrong

    def within(self, languages: Sequence[str]) -> PairTask:
        """The split in these languages."""
        kept = tuple(language for language in self.languages if language in languages)
        return PairTask(self.split, self.rows, kept, self.tokenizer, self.classes, self.wrong, self._inputs)

    def gold(self, example: Example) -> int:
        """The gold label, as the model numbers it."""
        label: int = self.rows[_row(example)]["label"]
        return self.classes[label]

    def request(self, edit: Example, rng: np.random.Generator) -> EditRequest:
        label = self.classes[int(rng.integers(len(self.classes)))] if self.wrong is None else self.gold(edit)
        return EditRequest(self.input(edit), (label,), edit.language)

    def update_input(self, update: Example, edit: Example, request: EditRequest) -> Input:
        return self.input(update)

    def retain_input(self, retain: Example, rng: np.random.Generator) -> Input:
        return self.input(retain)

    def input(self, example: Example) -> Input:
        """Premise and hypothesis as one input; the class is predicted at [CLS]."""
        if example.id not in self._inputs:
            premise, hypothesis = _texts(self.rows[_row(example)])[example.language]
            encoded = self.tokenizer(premise, hypothesis)
            types = encoded.get("token_type_ids", ())
            self._inputs[example.id] = Input(tuple(encoded["input_ids"]), (0,), tuple(types) if any(types) else ())
        return self._inputs[example.id]


def tasks(
    pairs: Pairs, tokenizer: Any, label_ids: Mapping[str, int], wrong: Mapping[Split, frozenset[str]]
) -> dict[Split, PairTask]:
    """The three splits, tokenised; `wrong` is what `errors` found in validation and test.

    `label_ids` is the classifier's own numbering (config.label2id). ModelError: it has other classes.
    """
    numbers = {name.lower(): number for name, number in label_ids.items()}
    if set(numbers) == {f"label_{i}" for i in range(len(pairs.classes))}:  # unnamed: the data's order is meant
        numbers = {name: i for i, name in enumerate(pairs.classes)}
    if set(numbers) != set(pairs.classes):
        raise ModelError(f"the classifier's classes are {', '.join(label_ids)}; the data's {', '.join(pairs.classes)}")
    classes = tuple(numbers[name] for name in pairs.classes)
    return {
        split: PairTask(split, pairs.rows[split], pairs.languages, tokenizer, classes, wrong.get(split))
        for split in SPLITS
    }


def errors(task: PairTask, predict: Callable[[Sequence[Input]], Sequence[int]]) -> frozenset[str]:
    """The ids of the inputs on which `predict` misses the gold label."""
    examples = task.corpus.examples
    predicted = predict([task.input(example) for example in examples])
    return frozenset(e.id for e, label in zip(examples, predicted, strict=True) if label != task.gold(e))


def classifier_examples(rows: Mapping[Split, Any], tokenizer: Any) -> list[tuple[Input, int]]:
    """What one pass of a raw classifier's fine-tuning sees, with the class as the data number it (clause D8).

    The English training pairs in the data's order, each once, with the gold class.
    """
    task = PairTask("train", rows["train"], (PIVOT,), tokenizer, (0, 1, 2))
    return [(task.input(example), task.gold(example)) for example in sorted(task.corpus.examples, key=_row)]


def _row(example: Example) -> int:
    return int(example.fact.rpartition("/")[2])


def _texts(row: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """{language: (premise, hypothesis)} of one row."""
    hypothesis = dict(zip(row["hypothesis"]["language"], row["hypothesis"]["translation"], strict=True))
    return {language: (text, hypothesis[language]) for language, text in row["premise"].items()}


def _transposed(batch: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def _check_schema(features: Any, where: str) -> None:
    expected = {
        "premise": datasets.Translation,
        "hypothesis": datasets.TranslationVariableLanguages,
        "label": datasets.ClassLabel,
    }
    for name, kind in expected.items():
        if not isinstance(features.get(name), kind):
            found = type(features[name]).__name__ if name in features else "no such column"
            raise DataError(f"{where}: column {name!r} must be {kind.__name__}, found {found}")
