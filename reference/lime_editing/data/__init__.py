"""The data sets: a record for each, in one registry.

A new data set is a module with a `Dataset` named DATASET; `register` makes it known to `--task`, `--<name>` and the
scales. Most of what a record holds has a default: a data set needs `read`, `fingerprint` and `tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..names import TASKS, Rulings, Split
from .download import OF_FACTS

if TYPE_CHECKING:
    from ..core.task import Task
    from .examination import Examination
    from .question import Asked, Question

Errors = Mapping[Split, frozenset[str]]
#: The class of each input, by the raw model.
Predict = Callable[[Sequence[Any]], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Reader:
    """What a model reads with: its tokenizer, its longest input in tokens, and a classifier's {class: number}."""

    tokenizer: Any
    longest: int | None = None
    classes: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """One data set. `content` is what `read` returns: it has `languages`, a length, and if it `classifies` `classes`.

    about        the help of its option
    patterns     its files in a data set of the hub, where there are others
    classifies   whether the raw model is a classifier; else a masked language model
    read         (source, languages or None) → content. DataError, LanguageError
    fingerprint  a digest of the content, wherever it was read from (clause R3)
    tasks        (content, reader, rulings, errors) → the splits, tokenised
    remarks      (source, content) → sentences that a run prints: where the data are not what they are known to be
    misfits      (content, reader, predict, key) → sentences on where the data and the raw model do not fit each other
    errors       (content, reader, predict, key) → per judged split the ids of the inputs that the raw model gets wrong,
                 where these alone are edited (clause D7). Without `predict`: of all inputs. `key` names the model
    labelled     (content, reader) → (input, class) of each training pair of the raw classifier (clause D8)
    accuracy     (content, reader, split, predict, key) → the raw classifier's accuracy in each language
    question     what the `edit` command shows of one edit
    examine      (source, languages, reader or None, predict, key) → what `check-data` says
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


#: The module of each data set of the paper, and the help of its option.
_BUILT_IN: Mapping[str, tuple[str, str]] = {
    "facts": ("facts", "folder, archive, table, address or hub id of facts (default: the scale's)"),
    "nli": ("pairs", "folder or hub id in XNLI's schema, or table of sentence pairs (default: the scale's)"),
}
_REGISTERED: dict[str, Dataset] = {}


def register(dataset: Dataset) -> None:
    """Make a data set known by its name. UserError: another one has it, or it cannot be part of a file's name."""
    if not dataset.name.isidentifier():
        raise UserError(f"a data set cannot have the name {dataset.name!r}; use letters, digits and _")
    if dataset.name in TASKS or _REGISTERED.get(dataset.name, dataset) is not dataset:
        raise UserError(f"there is another data set named {dataset.name!r} already; give yours another name")
    _REGISTERED[dataset.name] = dataset


def titles() -> dict[str, str]:
    """The known data sets with their titles; none is loaded for it."""
    return {**TASKS, **{name: dataset.title for name, dataset in _REGISTERED.items()}}


def about(name: str) -> str:
    """The help of a data set's option."""
    return _REGISTERED[name].about if name in _REGISTERED else _BUILT_IN[name][1]


def find(name: str) -> Dataset:
    """The data set of this name, loaded when it is first asked for. UserError: an unknown one, with the known ones."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in _BUILT_IN:
        raise UserError(f"unknown task {name!r}; known: {', '.join(titles())}; register your own first (--plugin)")
    found: Dataset = import_module(f".{_BUILT_IN[name][0]}", __name__).DATASET
    return found
