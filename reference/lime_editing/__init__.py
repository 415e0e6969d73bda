"""Cross-lingual model editing: the public face. Names are imported when they are first used, so this costs nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .core.backbone import Backbone, load, load_encoder, load_tokenizer, wrap
    from .core.editing import Editor, Objective, edit, make_editor
    from .core.editors import Edits, Gradient, Method, register
    from .core.evaluation import answers, evaluate, predict, validator
    from .core.metrics import Counts, Scores, aggregate, breakdown, count, scores, succ
    from .core.records import EditRequest, Input, Outcome, Triple
    from .core.sampling import derived_rng, evaluation_pairs, training_triples
    from .core.task import Task, pair, request, sentence
    from .core.training import Schedule, train, train_step
    from .core.updates import Update
    from .data import Dataset, Reader
    from .errors import DataError, LanguageError, ModelError, UserError
    from .names import Rulings

_HOMES = {
    "core.backbone": ("Backbone", "load", "load_encoder", "load_tokenizer", "wrap"),
    "core.editing": ("Editor", "Objective", "edit", "make_editor"),
    "core.editors": ("Edits", "Gradient", "Method", "register"),
    "core.evaluation": ("answers", "evaluate", "predict", "validator"),
    "core.metrics": ("Counts", "Scores", "aggregate", "breakdown", "count", "scores", "succ"),
    "core.records": ("EditRequest", "Input", "Outcome", "Triple"),
    "core.sampling": ("derived_rng", "evaluation_pairs", "training_triples"),
    "core.task": ("Task", "pair", "request", "sentence"),
    "core.training": ("Schedule", "train", "train_step"),
    "core.updates": ("Update",),
    "data": ("Dataset", "Reader"),
    "errors": ("DataError", "LanguageError", "ModelError", "UserError"),
    "names": ("Rulings",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*_HOME, "__version__"])
