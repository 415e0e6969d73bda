"""Sentence pairs as a task: inputs of two texts, whose class is predicted (§4.3, clauses D7 and D8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import permutations
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from ...core.corpus import Corpus, Example, FullCorpus, ParallelCorpus
from ...core.sampling import Pair
from ...core.task import pair, pairs as tokenise, remember
from ...errors import DataError, ModelError
from ...names import JUDGED, PIVOT, Rulings, Split
from ...records import EditRequest, Input
from .. import Errors, Predict, Reader
from .read import NAMES, Pairs, spelled, texts, texts_of

SPECIAL = 4  # special tokens of a pair, at most
BATCH = 256  # rows that a classifier predicts at a time, in all languages


@dataclass(frozen=True)
class PairTask:
    """One split, tokenised. If `wrong` is None, a desired label is any class (training); otherwise the gold class.

    `wrong` holds the ids of the inputs that the raw model gets wrong; only these are edited (clause D7).
    """

    split: Split
    rows: Any
    languages: tuple[str, ...]
    tokenizer: Any
    classes: tuple[int, ...]  # the model's numbers of the data's classes
    wrong: frozenset[str] | None = None
    lacking: frozenset[tuple[int, str]] = frozenset()
    longest: int | None = None  # of an input, in tokens; longer inputs are cut at the end of the longer text
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
        return replace(self, languages=tuple(language for language in self.languages if language in languages))

    @cached_property
    def golds(self) -> NDArray[np.int64]:
        """The gold label of every row, in the model's numbers."""
        return np.array([self.classes[row["label"]] for row in self.rows])

    def gold(self, example: Example) -> int:
        label: int = self.rows[_row(example)]["label"]
        return self.classes[label]

    def ready(self, pairs: Sequence[Pair]) -> None:
        """Read and tokenise all inputs of the pairs that are new."""
        asked = dict.fromkeys(x for pair in pairs for x in (pair.edit, *pair.update, *pair.retain))
        if any(x.fact.rpartition("/")[0] != self.split for x in asked):
            raise DataError(f"the inputs are of another split than {self.split}; take the pairs from its corpus")
        new = [x for x in asked if x.id not in self._inputs]
        if not new:
            return
        rows = list(dict.fromkeys(map(_row, new)))
        said = dict(zip(rows, texts_of(self._table[rows]), strict=True))
        found = tokenise(self.tokenizer, [said[_row(x)][x.language] for x in new], self.longest)
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
        """`input` of one row, without caching."""
        return pair(self.tokenizer, *texts(row)[language], self.longest)


def tasks(pairs: Pairs, reader: Reader, rulings: Rulings, errors: Errors) -> dict[Split, PairTask]:
    """The three splits, tokenised; `errors` holds the editable ids of validation and test (clause D7)."""
    numbers = class_numbers(pairs, reader.classes or {})
    return {split: _task(pairs, reader, split, numbers, errors.get(split)) for split in pairs.rows}


def _task(
    pairs: Pairs, reader: Reader, split: Split, numbers: tuple[int, ...], wrong: frozenset[str] | None = None
) -> PairTask:
    rows, lacking = pairs.rows[split], pairs.lacking.get(split, frozenset())
    return PairTask(split, rows, pairs.languages, reader.tokenizer, numbers, wrong, lacking, reader.longest)


def class_numbers(pairs: Pairs, label_ids: Mapping[str, int]) -> tuple[int, ...]:
    """The classifier's number of each of the data's classes, in any spelling. ModelError: it has others."""
    theirs, ours = ", ".join(label_ids), ", ".join(pairs.classes)
    numbers = {str(spelled(name)).casefold(): number for name, number in label_ids.items()}
    if unnamed(label_ids) and len(numbers) == len(pairs.classes):
        if pairs.classes != NAMES:
            raise ModelError(f"the classes {theirs} have no names, such as {ours}; name them in config.json (id2label)")
        numbers = {name: i for i, name in enumerate(NAMES)}
    if set(numbers) != {name.casefold() for name in pairs.classes}:
        raise ModelError(f"the classifier's classes are {theirs}, but the data's are {ours}; give one of these classes")
    return tuple(numbers[name.casefold()] for name in pairs.classes)


def unnamed(label_ids: Mapping[str, int]) -> bool:
    """Whether a classifier has the hub's default class names (LABEL_0, …)."""
    return {name.upper() for name in label_ids} == {f"LABEL_{i}" for i in range(len(label_ids))}


def misfits(pairs: Pairs, reader: Reader, predict: Predict | None, key: str) -> list[str]:
    """The raw accuracy in each language, and a warning if the classifier's classes seem not to be the data's."""
    found, known = [], reader.classes or {}
    if known and unnamed(known):
        found.append(f"the classifier's classes have no names ({', '.join(known)}): taken for these in XNLI's order")
    if predict is None or not known:
        return found
    task, table = _asked(pairs, reader, "test", predict, key)
    where = PIVOT if PIVOT in task.languages else task.languages[0]
    right, said = accuracy(task, table), table[:, task.languages.index(where)]
    told = ", ".join(f"{code} {100 * value:.1f}%" for code, value in right.items())
    found.insert(0, f"raw accuracy on {len(task.rows):,} test pairs: {told}")
    counts, gold = np.zeros((len(pairs.classes), len(known))), np.array(task.rows["label"][:])
    np.add.at(counts, (gold[said >= 0], said[said >= 0]), 1)
    total, now = max(1.0, counts.sum()), 100 * right.get(where, 1.0)
    orders = permutations(range(len(known)), len(pairs.classes)) if len(known) < 8 else ()
    best, order = max(((100 * counts[range(len(o)), o].sum() / total, o) for o in orders), default=(0.0, ()))
    most, names = 100 * counts.sum(1).max() / total, {number: name for name, number in known.items()}
    if best > max(now, most) + max(10, 150 / total**0.5):  # 10 percentage points, and three standard errors
        meant = ", ".join(f"{names[number]} meant {name}" for number, name in zip(order, pairs.classes, strict=True))
        found.append(
            f"raw accuracy in {where} is {now:.1f}%, and would be {best:.1f}% if {meant}: check the names of the "
            "classes in the classifier's config.json"
        )
    elif now < most:
        found.append(f"raw accuracy in {where} is {now:.1f}%, less than the {most:.1f}% of one answer to all")
    return found


def too_long(pairs: Pairs, tokenizer: Any, longest: int, split: Split) -> Iterator[tuple[int, str, int]]:
    """(row, language, tokens) of each input that is too long for the model, and so is cut."""
    rows = pairs.rows[split].with_format("arrow")
    for start in range(0, len(rows), 1000):
        found = [
            (row, code, said[code])
            for row, said in enumerate(texts_of(rows[start : start + 1000]), start)
            for code in pairs.languages
            if (row, code) not in pairs.lacking[split]
            and 2 * sum(len(text.encode()) for text in said[code]) + SPECIAL > longest  # as in facts
        ]
        both = [[said[side] for _, _, said in found] for side in (0, 1)]
        encoded = tokenizer(*both, verbose=False)["input_ids"] if found else []
        lengths = ((row, code, len(ids)) for (row, code, _), ids in zip(found, encoded, strict=True))
        yield from (place for place in lengths if place[2] > longest)


def errors(pairs: Pairs, reader: Reader, predict: Predict | None, key: str) -> dict[Split, frozenset[str]]:
    """The inputs that evaluation edits (clause D7): those that the raw model gets wrong; without `predict`, all."""
    if predict is None:
        parts = tasks(pairs, reader, Rulings(), {})
        return {split: frozenset(e.id for e in parts[split].corpus.examples) for split in JUDGED}
    return {split: wrong(*_asked(pairs, reader, split, predict, key)) for split in JUDGED}


def accuracy_of(pairs: Pairs, reader: Reader, split: Split, predict: Predict, key: str) -> dict[str, float]:
    """The raw classifier's accuracy in each language."""
    return accuracy(*_asked(pairs, reader, split, predict, key))


def _asked(pairs: Pairs, reader: Reader, split: Split, predict: Predict, key: str) -> tuple[PairTask, NDArray[np.int8]]:
    task = tasks(pairs, reader, Rulings(), {})[split]
    return task, predicted(task, predict, f"{key}-{split}")


def predicted(task: PairTask, predict: Predict, key: str | None = None) -> NDArray[np.int8]:
    """The model's class of every input (rows, languages), -1 where a language lacks; cached by a `key`."""
    shape = (len(task.rows), len(task.languages))
    path = Path(datasets.config.HF_DATASETS_CACHE) / "lime_editing" / f"{key}.npy"
    with suppress(OSError, ValueError, EOFError):  # no file, or a damaged one
        kept: NDArray[np.int8] = np.load(path)
        if key is not None and kept.shape == shape:
            return kept
    table = np.full(shape, -1, dtype=np.int8)
    for start in range(0, len(task.rows), BATCH):
        rows = enumerate(task.rows.select(range(start, min(start + BATCH, len(task.rows)))), start)
        asked = {
            (i, j): task.tokenised(row, code)
            for i, row in rows
            for j, code in enumerate(task.languages)
            if (i, code) not in task.lacking
        }
        if asked:
            table[tuple(np.array(list(asked)).T)] = predict(list(asked.values()))
    if key is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.save(file, table)
        Path(file.name).replace(path)
    return table


def wrong(task: PairTask, table: NDArray[np.int8]) -> frozenset[str]:
    """The ids of the inputs whose class in `predicted` is not the gold label."""
    column = {code: i for i, code in enumerate(task.languages)}
    return frozenset(e.id for e in task.corpus.examples if table[_row(e), column[e.language]] != task.golds[_row(e)])


def accuracy(task: PairTask, table: NDArray[np.int8]) -> dict[str, float]:
    """The share of inputs in each language whose class in `predicted` is the gold label."""
    columns = zip(task.languages, table.T, strict=True)
    return {code: float((of == task.golds)[of >= 0].mean()) for code, of in columns if (of >= 0).any()}


@dataclass(frozen=True)
class Labelled(Sequence[tuple[Input, int]]):
    """Inputs with their classes, tokenised on access."""

    task: PairTask
    numbers: Sequence[int]  # of the rows

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        row = self.task.rows[self.numbers[place]]
        return self.task.tokenised(row, PIVOT), self.task.classes[row["label"]]


def labelled(pairs: Pairs, reader: Reader) -> Labelled:
    """The English training pairs in the data's order, each once, with the data's class numbers (clause D8)."""
    task = _task(pairs, reader, "train", tuple(range(len(pairs.classes))))
    return Labelled(task, [i for i in range(len(task.rows)) if (i, PIVOT) not in task.lacking])


def _row(example: Example) -> int:
    return int(example.fact.rpartition("/")[2])
