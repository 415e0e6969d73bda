"""Sentence pairs as a task: one input of two texts, whose class is predicted (§4.3, clauses D7 and D8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...core.corpus import Corpus, Example, FullCorpus, ParallelCorpus
from ...core.records import EditRequest, Input
from ...core.sampling import Pair
from ...core.task import pair, remember
from ...core.task import pairs as tokenise
from ...errors import ModelError
from ...names import JUDGED, PIVOT, Rulings, Split
from .. import Errors, Predict, Reader
from .read import Pairs, texts, texts_of

SPECIAL = 4  # tokens around and between the two texts, at most
BATCH = 256  # rows that a classifier is asked about at a time, in all languages
_PREDICTED = datasets.Features(predicted=datasets.List(datasets.Value("int8")))


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
    lacking: frozenset[tuple[int, str]] = frozenset()
    longest: int | None = None  # of an input, in tokens: what is longer loses its end, of the longer text first
    _inputs: dict[str, Input] = field(default_factory=dict, repr=False)

    @cached_property
    def corpus(self) -> Corpus:
        full = FullCorpus(self.split, len(self.rows), self.languages)
        if not self.lacking and len(self.rows):
            return full
        said = (full.example(i, code) for i in range(len(self.rows)) for code in self.languages)
        return ParallelCorpus.of(example for example in said if (_row(example), example.language) not in self.lacking)

    @property
    def editable(self) -> frozenset[str] | None:
        return self.wrong

    def within(self, languages: Sequence[str]) -> PairTask:
        """The split in these languages."""
        kept = tuple(language for language in self.languages if language in languages)
        return replace(self, languages=kept)

    def gold(self, example: Example) -> int:
        """The gold label, as the model numbers it."""
        label: int = self.rows[_row(example)]["label"]
        return self.classes[label]

    def ready(self, pairs: Sequence[Pair]) -> None:
        """Read and tokenise all inputs of the pairs that are new."""
        asked = dict.fromkeys(x for pair in pairs for x in (pair.edit, *pair.update, *pair.retain))
        new = [x for x in asked if x.id not in self._inputs]
        numbers = {number: i for i, number in enumerate(dict.fromkeys(_row(x) for x in new))}
        said = texts_of(self._table[list(numbers)]) if new else []
        both = [said[numbers[_row(x)]][x.language] for x in new]
        found = tokenise(self.tokenizer, both, self.longest) if new else []
        for x, one in zip(new, found, strict=True):
            remember(self._inputs, x.id, partial(lambda known: known, one))

    @cached_property
    def _table(self) -> Any:
        return self.rows.with_format("arrow")

    def request(self, edit: Example, rng: np.random.Generator) -> EditRequest:
        label = self.classes[int(rng.integers(len(self.classes)))] if self.wrong is None else self.gold(edit)
        return EditRequest(self.input(edit), (label,), edit.language)

    def update_input(self, update: Example, edit: Example, request: EditRequest) -> Input:
        return self.input(update)

    def retain_input(self, retain: Example, rng: np.random.Generator) -> Input:
        return self.input(retain)

    def input(self, example: Example) -> Input:
        """Premise and hypothesis as one input; the class is predicted at [CLS]."""
        return remember(self._inputs, example.id, lambda: self.tokenised(self.rows[_row(example)], example.language))

    def tokenised(self, row: Mapping[str, Any], language: str) -> Input:
        """`input` of one row, which is not remembered."""
        return pair(self.tokenizer, *texts(row)[language], self.longest)


def tasks(pairs: Pairs, reader: Reader, rulings: Rulings, errors: Errors) -> dict[Split, PairTask]:
    """The three splits, tokenised; `errors` holds what may be edited in validation and test (clause D7).

    ModelError: the classifier has other classes than the data.
    """
    classes, none = class_numbers(pairs, reader.classes or {}), frozenset[tuple[int, str]]()
    return {
        split: PairTask(
            *(split, rows, pairs.languages, reader.tokenizer, classes),
            *(errors.get(split), pairs.lacking.get(split, none), reader.longest),
        )
        for split, rows in pairs.rows.items()
    }


def class_numbers(pairs: Pairs, label_ids: Mapping[str, int]) -> tuple[int, ...]:
    """The number that a classifier (config.label2id) gives to each of the data's classes. ModelError: other classes."""
    numbers = {name.lower(): number for name, number in label_ids.items()}
    if set(numbers) == {f"label_{i}" for i in range(len(pairs.classes))}:  # unnamed: the data's order is meant
        numbers = {name: i for i, name in enumerate(pairs.classes)}
    if set(numbers) != set(pairs.classes):
        raise ModelError(f"the classifier's classes are {', '.join(label_ids)}; the data's {', '.join(pairs.classes)}")
    return tuple(numbers[name] for name in pairs.classes)


def too_long(pairs: Pairs, tokenizer: Any, longest: int, split: Split) -> Iterator[tuple[int, str, int]]:
    """(row, language, tokens) of what is longer than a model reads, and so is cut.

    Only pairs of very many letters are tokenised: a token has one of them at least.
    """
    start = 0
    for table in pairs.rows[split].with_format("arrow").iter(1000):
        found = [
            (start + i, code, said[code])
            for i, said in enumerate(texts_of(table))
            for code in pairs.languages
            if code in said and 2 * sum(len(text.encode()) for text in said[code]) + SPECIAL > longest
        ]
        start += len(table)
        if found:
            premises, hypotheses = zip(*(texts for _, _, texts in found), strict=True)
            for (row, code, _), ids in zip(
                found, tokenizer(list(premises), list(hypotheses), verbose=False)["input_ids"], strict=True
            ):
                if len(ids) > longest and (row, code) not in pairs.lacking[split]:
                    yield row, code, len(ids)


def errors(pairs: Pairs, reader: Reader, predict: Predict | None, key: str) -> dict[Split, frozenset[str]]:
    """What evaluation edits (clause D7): the inputs of validation and test that the raw model gets wrong.

    Without `predict` the model is not asked: then it is every input.
    """
    parts = tasks(pairs, reader, Rulings(), {})
    if predict is None:
        return {split: frozenset(e.id for e in parts[split].corpus.examples) for split in JUDGED}
    return {split: wrong(parts[split], predicted(parts[split], predict, f"{key}-{split}")) for split in JUDGED}


def accuracy_of(pairs: Pairs, reader: Reader, split: Split, predict: Predict, key: str) -> dict[str, float]:
    """The raw classifier's accuracy in each language."""
    task = tasks(pairs, reader, Rulings(), {})[split]
    return accuracy(task, predicted(task, predict, f"{key}-{split}"))


def predicted(task: PairTask, predict: Predict, key: str | None = None) -> NDArray[np.int8]:
    """The class of every input (rows, languages), as the model numbers it; -1 where a row is not said in a language.

    With a `key`, which stands for the model and the data, it is kept in the cache of `datasets` and asked for once.
    """

    def ask(rows: Mapping[str, Sequence[Any]], numbers: Sequence[int]) -> dict[str, Any]:
        said = [[(i, code) not in task.lacking for code in task.languages] for i in numbers]
        texts = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
        asked = [
            task.tokenised(row, code)
            for row, there in zip(texts, said, strict=True)
            for code, told in zip(task.languages, there, strict=True)
            if told
        ]
        classes = iter(predict(asked))
        return {"predicted": [[next(classes) if told else -1 for told in there] for there in said]}

    options: dict[str, Any] = {"with_indices": True, "batched": True, "batch_size": BATCH}
    options |= {"remove_columns": task.rows.column_names, "features": _PREDICTED}
    if key is not None:
        path = Path(datasets.config.HF_DATASETS_CACHE) / "lime_editing" / f"{key}.arrow"
        path.parent.mkdir(parents=True, exist_ok=True)
        options |= {"new_fingerprint": key, "cache_file_name": str(path)}
        try:
            found = _table(task, task.rows.map(ask, **options))
        except (pa.ArrowException, OSError):
            path.unlink(missing_ok=True)
        else:
            return found
    return _table(task, task.rows.map(ask, **options))


def _table(task: PairTask, kept: Any) -> NDArray[np.int8]:
    """OSError: not the whole of it."""
    table = np.array(kept["predicted"][:], dtype=np.int8).reshape(-1, len(task.languages))
    if len(table) != len(task.rows):
        raise OSError(f"{len(table)} rows, and not {len(task.rows)}")
    return table


def wrong(task: PairTask, table: NDArray[np.int8]) -> frozenset[str]:
    """The ids of the inputs whose class in `predicted` is not the gold label."""
    gold, column = _gold(task), {code: i for i, code in enumerate(task.languages)}
    return frozenset(e.id for e in task.corpus.examples if table[_row(e), column[e.language]] != gold[_row(e)])


def accuracy(task: PairTask, table: NDArray[np.int8]) -> dict[str, float]:
    """By language, the share of its inputs whose class in `predicted` is the gold label."""
    gold = _gold(task)
    return {
        code: float((column == gold)[column >= 0].mean())
        for code, column in zip(task.languages, table.T, strict=True)
        if (column >= 0).any()
    }


def _gold(task: PairTask) -> NDArray[np.int64]:
    """The gold label of every row, as the model numbers it."""
    return np.array([task.classes[row["label"]] for row in task.rows])


@dataclass(frozen=True)
class Labelled(Sequence[tuple[Input, int]]):
    """Inputs with their classes, tokenised when they are asked for."""

    task: PairTask
    numbers: Sequence[int]  # of the rows

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, place: int) -> tuple[Input, int]: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[tuple[Input, int]]: ...

    def __getitem__(self, place: int | slice) -> tuple[Input, int] | Sequence[tuple[Input, int]]:
        if isinstance(place, slice):
            return replace(self, numbers=self.numbers[place])
        row = self.task.rows[self.numbers[place]]
        return self.task.tokenised(row, PIVOT), self.task.classes[row["label"]]


def labelled(pairs: Pairs, reader: Reader) -> Labelled:
    """What one pass of a raw classifier's fine-tuning sees, with the class as the data number it (clause D8).

    The English training pairs in the data's order, each once, with the gold class.
    """
    lacking = pairs.lacking.get("train", frozenset())
    numbers = tuple(range(len(pairs.classes)))
    task = PairTask("train", pairs.rows["train"], (PIVOT,), reader.tokenizer, numbers, None, lacking, reader.longest)
    return Labelled(task, [i for i in range(len(task.rows)) if (i, PIVOT) not in lacking])


def _row(example: Example) -> int:
    return int(example.fact.rpartition("/")[2])
