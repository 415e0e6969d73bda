"""The data sets: one record each, in one registry.

A new data set is a module with a `Dataset` named DATASET; `register` adds it for `--task`, `--<name>` and the scales.
It must have `read`, `fingerprint` and `tasks`; all other fields have defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import checks
from ..errors import UserError
from ..names import TASKS, Rulings, Split
from .download import OF_FACTS

if TYPE_CHECKING:
    from ..core.task import Task
    from .examination import Examination
    from .question import Asked, Question

Errors = Mapping[Split, frozenset[str]]
Predict = Callable[[Sequence[Any]], Sequence[int]]  # maps inputs to the raw model's classes


@dataclass(frozen=True, slots=True)
class Reader:
    """A model's tokenizer, its longest input in tokens, and a classifier's {class: number}."""

    tokenizer: Any
    longest: int | None = None
    classes: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """One data set. `read` returns its `content`, with `languages`, a length, and for a classifier `classes`.

    about        the help of its option
    patterns     its files in a data set of the hub that has other files too
    classifies   whether the raw model is a classifier; otherwise it is a masked language model
    read         (source, languages or None) → content. DataError, LanguageError
    fingerprint  a digest of the content, independent of its source (clause R3)
    tasks        (content, reader, rulings, errors) → the splits, tokenised
    remarks      (source, content) → sentences that a run prints: differences from the published data
    misfits      (content, reader, predict, key) → sentences on mismatches of the data and the raw model
    errors       (content, reader, predict, key) → per judged split the ids of the inputs that the raw model gets wrong,
                     if only these are edited (clause D7). Without `predict`: of all inputs. `key` names the model
    labelled     (content, reader) → (input, class) of each training pair of the raw classifier (clause D8)
    accuracy     (content, reader, split, predict, key) → the raw classifier's accuracy in each language
    question     (content, reader, asked) → the edit that the `edit` command shows, with its inputs
    examine      (source, languages, reader or None, predict, key) → the report of `check-data`
    """

    name: str
    title: str
    classifies: bool
    read: Callable[[str, Sequence[str] | None], Any]
    fingerprint: Callable[[Any], str]
    tasks: Callable[[Any, Reader, Rulings, Errors], Mapping[Split, Task]]
    about: str = "where its data are"
    patterns: tuple[str, ...] = OF_FACTS
    remarks: Callable[[str, Any], list[str]] = lambda source, content: []
    misfits: Callable[[Any, Reader, Predict | None, str], list[str]] = lambda content, reader, predict, key: []
    errors: Callable[[Any, Reader, Predict | None, str], Errors] = lambda content, reader, predict, key: {}
    labelled: Callable[[Any, Reader], Sequence[tuple[Any, int]]] | None = None
    accuracy: Callable[[Any, Reader, Split, Predict, str], dict[str, float]] | None = None
    question: Callable[[Any, Reader, Asked], Question] | None = None
    examine: Callable[..., Examination] | None = None


#: The paper's data sets: the module of each, and the help of its option.
_BUILT_IN: Mapping[str, tuple[str, str]] = {
    "facts": ("facts", "folder, archive, table, address or hub id of facts (default: the scale's)"),
    "nli": ("pairs", "folder or hub id in XNLI's schema, or table of sentence pairs (default: the scale's)"),
}
_REGISTERED: dict[str, Dataset] = {}


def register(dataset: Dataset) -> None:
    """Register a data set under its name. UserError: the name is taken, or cannot be part of a file name."""
    checks.refuse(UserError, checks.of_texts(name=dataset.name, title=dataset.title), at="a data set")
    if not dataset.name.isidentifier():
        raise UserError(f"a data set cannot have the name {dataset.name!r}; use letters, digits and _")
    if dataset.name in TASKS or _REGISTERED.get(dataset.name, dataset) is not dataset:
        raise UserError(f"a data set named {dataset.name!r} exists already; give yours another name")
    _REGISTERED[dataset.name] = dataset


def titles() -> dict[str, str]:
    """The titles of all known data sets; none is loaded."""
    return {**TASKS, **{name: dataset.title for name, dataset in _REGISTERED.items()}}


def about(name: str) -> str:
    """The help of a data set's option."""
    return _REGISTERED[name].about if name in _REGISTERED else _BUILT_IN[name][1]


def find(name: str) -> Dataset:
    """The data set with this name, loaded on first use. UserError: an unknown one; the known ones are listed."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in _BUILT_IN:
        raise UserError(f"unknown task {name!r}; known: {', '.join(titles())}; register your own first (--plugin)")
    found: Dataset = import_module(f".{_BUILT_IN[name][0]}", __name__).DATASET
    return found
