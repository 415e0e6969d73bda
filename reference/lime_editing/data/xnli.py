"""XNLI (§4.3, §A.2, chapter D): parallel sentence pairs, read with `datasets` from a hub id or a folder of that schema.

premise     Translation                      {language: text}
hypothesis  TranslationVariableLanguages     {"language": [...], "translation": [...]}
label       ClassLabel(entailment, neutral, contradiction)

A corpus of one's own is read from tables (`pairs.py`) and has this schema from then on. A row may lack a language, or
have a blank text in it: it is then not said in that language, and I(x) is smaller (clause S8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..corpus import Corpus, Example, FullCorpus, ParallelCorpus
from ..errors import DataError, LanguageError, ModelError
from ..types import EditRequest, Input
from . import pairs as tables
from . import remember
from .pairs import CONFIG

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
PIVOT = "en"  # the one language in which the raw classifier has seen classes (§B.1)
SPECIAL = 4  # tokens around and between the two texts, at most
BATCH = 256  # rows that a classifier is asked about at a time, in all languages
Predict = Callable[[Sequence[Input]], Sequence[int]]
_PREDICTED = datasets.Features(predicted=datasets.List(datasets.Value("int8")))


@dataclass(frozen=True)
class Pairs:
    """The rows of each split, memory-mapped, the chosen languages, and the classes in the data's order."""

    rows: Mapping[Split, Any]
    languages: tuple[str, ...]
    classes: tuple[str, ...]
    lacking: Mapping[Split, frozenset[tuple[int, str]]] = field(default_factory=dict)  # (row, language) not said

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.rows.values())


def read(source: str, languages: Sequence[str] | None = None) -> Pairs:
    """Load sentence pairs in some languages (default: all): XNLI's `all_languages` of a folder or hub id, or tables.

    DataError: not there, of another schema, or a row without a class. LanguageError: no such language.
    """
    own = tables.found(Path(source))
    loaded = tables.read(own, source) if own else _load(source)
    for split in SPLITS:
        if split not in loaded:
            raise DataError(f"{source}: no split {split!r}; found {', '.join(loaded)}")
        if not own:
            _check_schema(loaded[split].features, f"{source}, split {split!r}")
    features = loaded["train"].features
    known = sorted(features["premise"].languages)
    for language in languages or ():
        if language not in known:
            raise LanguageError(language, known, f"in {source}")
    chosen = tuple(sorted(set(languages))) if languages else tuple(known)
    classes = tuple(features["label"].names)
    rows = {split: loaded[split] for split in SPLITS}
    lacking = {split: _lacking(rows[split], chosen, len(classes), f"{source}, split {split!r}") for split in SPLITS}
    return Pairs(rows, chosen, classes, lacking)


def _load(source: str) -> Any:
    folder = Path(source)
    where = str(folder.resolve()) if folder.is_dir() else source
    bare = {split: sorted(map(str, folder.glob(f"**/{split}*.parquet"))) for split in SPLITS if folder.is_dir()}
    try:
        if any(bare.values()) and not tables.names_configuration(folder):
            return datasets.load_dataset("parquet", data_files={name: paths for name, paths in bare.items() if paths})
        return datasets.load_dataset(where, CONFIG)
    except (OSError, ValueError, datasets.exceptions.DatasetsError, pa.ArrowException) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise DataError(
            f"cannot load {CONFIG!r} from {source!r}: {reason} Expected a hub id, a folder of parquet files whose "
            f"README.md names the configuration {CONFIG!r}, or tables of sentence pairs."
        ) from error


def _lacking(rows: Any, languages: Sequence[str], classes: int, where: str) -> frozenset[tuple[int, str]]:
    """What is not said: (row, language). Whole columns at a time, for XNLI has twelve million texts.

    DataError: a row whose class is none of the data's.
    """
    found: set[tuple[int, str]] = set()
    start = 0
    for table in rows.with_format("arrow").iter(10_000):
        for i, label in enumerate(table["label"].to_pylist()):
            if label is None or not 0 <= label < classes:
                raise DataError(
                    f"{where}, row {start + i}: field 'label' must be one of {classes} classes, got {label}"
                )
        premise, hypothesis = (table[name].combine_chunks() for name in ("premise", "hypothesis"))
        spoken, said = hypothesis.field("language"), hypothesis.field("translation")
        codes, texts = spoken.flatten(), said.flatten()
        owner = pc.list_parent_indices(spoken)
        for language in languages:
            present = np.zeros(len(table), dtype=bool)
            mine = pc.and_(pc.equal(codes, language), _told(texts))
            present[owner.filter(mine).to_numpy()] = True
            present &= _told(premise.field(language)).to_numpy(zero_copy_only=False)
            found |= {(start + int(row), language) for row in np.flatnonzero(~present)}
        start += len(table)
    return frozenset(found)


def _told(texts: Any) -> Any:
    return pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(texts), ""), False)


def fingerprint(pairs: Pairs) -> str:
    """A digest of the content, wherever it was read from."""
    digest = hashlib.blake2b(repr((pairs.languages, pairs.classes)).encode(), digest_size=8)
    for split in SPLITS:
        for table in pairs.rows[split].with_format("arrow").iter(1000):
            digest.update(repr(_texts_of(table)).encode())
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
        texts = _texts(row)[language]
        encoded = self.tokenizer(*texts)
        if self.longest is not None and len(encoded["input_ids"]) > self.longest:
            encoded = self.tokenizer(*texts, truncation=True, max_length=self.longest)
        types = encoded.get("token_type_ids", ())
        return Input(tuple(encoded["input_ids"]), (0,), tuple(types) if any(types) else ())


def tasks(
    pairs: Pairs,
    tokenizer: Any,
    label_ids: Mapping[str, int],
    wrong: Mapping[Split, frozenset[str]],
    longest: int | None = None,
) -> dict[Split, PairTask]:
    """The three splits, tokenised; `wrong` is what `errors` found in validation and test.

    `label_ids` is the classifier's own numbering (config.label2id), and `longest` its longest input.
    ModelError: it has other classes.
    """
    numbers = {name.lower(): number for name, number in label_ids.items()}
    if set(numbers) == {f"label_{i}" for i in range(len(pairs.classes))}:  # unnamed: the data's order is meant
        numbers = {name: i for i, name in enumerate(pairs.classes)}
    if set(numbers) != set(pairs.classes):
        raise ModelError(f"the classifier's classes are {', '.join(label_ids)}; the data's {', '.join(pairs.classes)}")
    classes, no = tuple(numbers[name] for name in pairs.classes), frozenset[tuple[int, str]]()
    return {
        split: PairTask(
            *(split, rows, pairs.languages, tokenizer, classes, wrong.get(split), pairs.lacking.get(split, no), longest)
        )
        for split, rows in pairs.rows.items()
    }


def too_long(pairs: Pairs, tokenizer: Any, longest: int, split: Split) -> Iterator[tuple[int, str, int]]:
    """(row, language, tokens) of what is longer than a model reads, and so is cut.

    Only pairs of very many letters are tokenised: a token has one of them at least.
    """
    start = 0
    for table in pairs.rows[split].with_format("arrow").iter(1000):
        found = [
            (start + i, code, said[code])
            for i, said in enumerate(_texts_of(table))
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


def errors(task: PairTask, table: NDArray[np.int8]) -> frozenset[str]:
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


def classifier_examples(
    rows: Mapping[Split, Any],
    tokenizer: Any,
    classes: int = 3,
    lacking: frozenset[tuple[int, str]] = frozenset(),
    longest: int | None = None,
) -> Labelled:
    """What one pass of a raw classifier's fine-tuning sees, with the class as the data number it (clause D8).

    The English training pairs in the data's order, each once, with the gold class.
    """
    task = PairTask("train", rows["train"], (PIVOT,), tokenizer, tuple(range(classes)), None, lacking, longest)
    return Labelled(task, [i for i in range(len(task.rows)) if (i, PIVOT) not in lacking])


def _row(example: Example) -> int:
    return int(example.fact.rpartition("/")[2])


def _texts(row: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """{language: (premise, hypothesis)} of one row, in the languages that it is said in."""
    hypothesis = dict(zip(row["hypothesis"]["language"], row["hypothesis"]["translation"], strict=True))
    both = ((language, text, hypothesis.get(language)) for language, text in row["premise"].items())
    return {language: (premise, text) for language, premise, text in both if premise is not None and text is not None}


def _texts_of(table: Any) -> list[dict[str, tuple[str, str]]]:
    """`_texts` of every row of an arrow table, column by column: twelve million texts take minutes."""
    premise, hypothesis = (table[name].combine_chunks() for name in ("premise", "hypothesis"))
    premises = {premise.type.field(i).name: premise.field(i).to_pylist() for i in range(premise.type.num_fields)}
    languages, texts = (hypothesis.field(name).to_pylist() for name in ("language", "translation"))
    rows = []
    for i, (spoken, said) in enumerate(zip(languages, texts, strict=True)):
        other = dict(zip(spoken, said, strict=True))
        both = ((language, column[i], other.get(language)) for language, column in premises.items())
        rows.append({language: (a, b) for language, a, b in both if a is not None and b is not None})
    return rows


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
