"""Checks of what a user gives to the Python API: each returns the first fault as a sentence, or None.

They only raise errors, so they are no part of the code digest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache, wraps
from inspect import signature
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from reprlib import repr as shown
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import UserError

#: Numbers of settings and schedules that must be above 0. Others may be 0; only a layer may be negative.
POSITIVE = ("lr", "inner_lr", "rank", "lstm", "hidden", "max_scale", "steps", "series", "largest", "ridge", "clip")
_GENERIC = (Sequence, Mapping, Callable)
_NUMBERS: Mapping[Any, str] = {float: "a finite number", int: "a whole number"}


def checked(function: Any) -> Any:
    """The function with a check of its arguments. UserError: one does not have the type of its annotation."""
    parameters = signature(function)

    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        if fault := of_types(function, parameters.bind(*args, **named).arguments):
            raise UserError(f"{function.__name__}: {fault}")
        return function(*args, **named)

    call.__module__ = str(__package__)  # where pickle looks for it
    return call


def of_types(annotated: Any, values: Mapping[str, Any]) -> str | None:
    """Values that do not have the types of a function's or record's annotations."""
    for name, kind in _kinds(annotated).items():
        if name in values and name != "device" and not _fits(values[name], kind):  # a torch.device is a device, too
            known = f"one of {', '.join(get_args(kind))}" if get_origin(kind) is Literal else None
            expected = known or _NUMBERS.get(kind) or annotated.__annotations__[name]
            return f"{name} must be {expected}; got {' '.join(shown(values[name]).split())}"
    return None


def of_record(record: Any) -> str | None:
    """Fields of a record that do not have their types, or are numbers out of range."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    own = type(record).__module__.startswith(f"{__package__}.")  # what a plug-in's numbers mean is not known
    for name, value in values.items() if own and not of_types(type(record), values) else ():
        if isinstance(value, Real) and name != "layer" and (value < 0 or (value == 0 and name in POSITIVE)):
            return f"{name} must be {'above 0' if name in POSITIVE else '0 or more'}; got {value}"
    return of_types(type(record), values)


def of_inputs(inputs: Sequence[Any]) -> str | None:
    """Inputs that no model can read."""
    for i, one in enumerate(inputs):
        if not one.ids or not one.positions:
            return f"input {i} has no {'predicted positions' if one.ids else 'tokens'}"
        if min(one.positions) < 0 or len(one.types) not in (0, len(one.ids)):
            return f"input {i} has a negative position, or another number of token types than of tokens: {shown(one)}"
    return None if inputs else "there are no inputs; give at least one"


def of_requests(requests: Sequence[Any], backbone: Any) -> str | None:
    """Requests whose labels, positions and parallels do not belong together."""
    model, classifies = backbone.model, backbone.classifies
    answers = model.config.num_labels if classifies else model.get_input_embeddings().num_embeddings
    for i, one in enumerate(requests):
        positions = (0,) if classifies else one.input.positions
        if len(one.labels) != len(positions) or any(label not in range(answers) for label in one.labels):
            has = f"the labels {shown(one.labels)} and {len(positions)} predicted positions"
            return f"request {i} has {has}; give one number below {answers} for each position"
        if any(place not in range(len(one.input.ids)) for place in positions):
            return f"request {i} has the positions {shown(positions)}, but only {len(one.input.ids)} tokens"
        if not classifies and any(len(parallel.positions) != len(positions) for parallel in one.parallels):
            return f"request {i} has a parallel with another number of predicted positions than its input"
    return None


def of_update(update: Any, raw: Mapping[str, Any], inputs: int) -> str | None:
    """An update that does not belong to the edited matrices, or does not fit the number of inputs."""
    sizes = [(name, (v.shape[-1], u.shape[-1]), u.device) for name, (u, v) in update.factors.items()]
    sizes += [(name, (*t.shape[-2:],), t.device) for name, t in (*update.deltas.items(), *update.weights.items())]
    for name, *there in sizes:
        here = [tuple(raw[name].shape), raw[name].device] if name in raw else None
        if there != here:
            told = f"{here[0]} on {here[1]}" if here else f"not edited; edited are {', '.join(raw)}"
            return f"the update of {name} is {there[0]} on {there[1]}, but in the model this matrix is {told}"
    if update.edits and inputs % update.edits:
        return f"the update has {update.edits} edits, and there are {inputs} inputs; each edit needs equally many"
    return None


@cache
def _kinds(annotated: Any) -> Mapping[str, Any]:
    try:
        return get_type_hints(annotated)
    except (NameError, TypeError):  # of a plug-in: a name that is imported for type checkers alone
        return {}


def _fits(value: Any, kind: Any) -> bool:
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        fits = any(_fits(value, part) for part in parts)
    elif origin is Literal:
        fits = value in parts
    elif origin in _NUMBERS:
        number = isinstance(value, Real if origin is float else Integral) and not isinstance(value, bool)
        fits = number and math.isfinite(value)
    elif origin is Sequence and isinstance(value, (str, list, tuple)):
        fits = not isinstance(value, str) and all(_fits(one, parts[0]) for one in value)
    elif getattr(kind, "_is_protocol", False):  # `register` itself says what a Method lacks
        members = [name for name in vars(kind) if not name.startswith("_") and kind.__name__ != "Method"]
        fits = all(hasattr(type(value), name) or hasattr(value, name) for name in members)
    elif origin in _GENERIC or (isinstance(kind, type) and kind is not Any):
        fits = isinstance(value, PathLike if kind is Path else origin)
    else:
        fits = True
    return fits
