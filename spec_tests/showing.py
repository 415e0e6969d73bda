"""Values in a few words: numbers with six digits, arrays by shape and range, long texts cut, with their length."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np

from .border import arrays, plain

#: How many characters of a value are shown, and how many of one in a line with others.
LONGEST, IN_A_LINE = 1000, 120
#: Larger arrays are told by shape and range.
NUMBERS = 40


def cut(text: str, longest: int = LONGEST) -> str:
    """A text of at most `longest` characters; of a longer one the beginning, and how long it is."""
    return text if len(text) <= longest else f"{text[:longest].rstrip()} … ({len(text):,} characters)"


def first_line(text: str, longest: int = LONGEST) -> str:
    return cut(text.strip().partition("\n")[0], longest)


def shown(value: object, digits: int = 6, longest: int = LONGEST) -> str:
    """A value that may be the implementation's, whose own `__repr__` may fail."""
    if isinstance(value, list | tuple | Mapping | Set) and not value:
        return "nothing"
    try:
        return cut(_text(value, digits), longest)
    except Exception as error:
        return f"a {type(value).__name__} that cannot be shown ({type(error).__name__} in its repr)"


def said(value: object) -> str:
    """What a test says in words, as it is; any other value as it is shown."""
    words = isinstance(value, str) and value.strip() == value != "" and len(value.splitlines()) == 1
    return cut(str(value)) if words else shown(value)


def pair(expected: object, got: object) -> tuple[str, str]:
    """Two values that differ, each in a line: with as many digits as it takes; of long ones the first difference."""
    for digits in (6, 9, 12, 17):
        told = shown(expected, digits), shown(got, digits)
        if told[0] != told[1]:
            break
    if max(map(len, told)) > IN_A_LINE:
        if isinstance(expected, Set) and isinstance(got, Set):
            return _among(expected, got), _among(got, expected)
        place, one, other = _where(expected, got)
        if place:
            return f"{_clipped(one)} at {place}", _clipped(other)
    return _clipped(told[0]), _clipped(told[1])


def _among(one: Set[Any], other: Set[Any]) -> str:
    return f"{_clipped(shown(set(one) - set(other)))} among others" if set(one) - set(other) else "no more"


def _clipped(text: str) -> str:
    """As much of what is shown elsewhere in full as goes into a line."""
    return text if len(text) <= IN_A_LINE else f"{text[:IN_A_LINE].rstrip()} …"


def _where(expected: object, got: object) -> tuple[str, str, str]:
    """Nowhere, where the two are no plain data, such as counts of tuples."""
    try:
        return first_difference(plain(expected), plain(got))
    except Exception:
        return "", "", ""


def first_difference(expected: Any, got: Any, place: str = "") -> tuple[str, str, str]:
    """Where two pieces of plain data differ first, such as [3]['language'], and what is there; "" for as a whole."""
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        keys: Iterable[Any] = dict.fromkeys((*expected, *got))
    elif isinstance(expected, list) and isinstance(got, list):
        keys = range(max(len(expected), len(got)))
        expected, got = dict(enumerate(expected)), dict(enumerate(got))
    else:
        return place, shown(expected), shown(got)
    for key in keys:
        here = f"{place}[{key!r}]"
        if key not in expected or key not in got:
            return here, *(shown(one[key]) if key in one else "nothing" for one in (expected, got))
        if expected[key] != got[key]:
            one, other = shown(expected[key]), shown(got[key])
            # A few values that belong together, such as a row, are told together.
            deeper = max(len(one), len(other)) > IN_A_LINE // 2
            return first_difference(expected[key], got[key], here) if deeper else (here, one, other)
    return place, shown(expected), shown(got)


def _text(value: Any, digits: int) -> str:
    if isinstance(value, str | bytes):
        return _quoted(value)
    if isinstance(value, Mapping):
        return "{" + _joined((f"{_text(key, digits)}: {_text(value[key], digits)}" for key in value), len(value)) + "}"
    if isinstance(value, list | tuple):
        return _sequence(value, digits)
    if isinstance(value, Set):
        return "{" + _joined(sorted(_text(part, digits) for part in value), len(value)) + "}"
    return _single(arrays(value), digits)


def _single(value: Any, digits: int) -> str:
    if isinstance(value, np.ndarray):
        return _array(value, digits)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = (f"{f.name}={_text(getattr(value, f.name), digits)}" for f in dataclasses.fields(value) if f.repr)
        return f"{type(value).__name__}({_joined(parts, len(dataclasses.fields(value)))})"
    if isinstance(value, float | np.floating):
        return f"{float(value):.{digits}g}"
    text = repr(value.item() if isinstance(value, np.generic) else value)
    # What takes lines to describe, such as a model, is told by its kind.
    return text if "\n" not in text else f"a {type(value).__name__}"


def _quoted(value: str | bytes) -> str:
    most = LONGEST // 2
    return repr(value) if len(value) <= most else f"{value[:most]!r} … ({len(value):,} characters)"


def _sequence(value: list[Any] | tuple[Any, ...], digits: int) -> str:
    """Of records that have the same fields, the fields' names once."""
    if len(value) > 1 and _are_rows(value):
        rows = (f"({', '.join(_text(part, digits) for part in row.values())})" for row in value)
        return f"[({', '.join(map(str, value[0]))}) = {_joined(rows, len(value))}]"
    inside = _joined((_text(part, digits) for part in value), len(value))
    return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"


def _are_rows(value: list[Any] | tuple[Any, ...]) -> bool:
    first = value[0]
    if not isinstance(first, Mapping) or len(first) < 2 or any(isinstance(part, Mapping) for part in first.values()):
        return False
    return all(isinstance(row, Mapping) and list(row) == list(first) for row in value)


def _joined(parts: Iterable[str], count: int) -> str:
    """As many as there is room for, and of how many."""
    kept, length = [], 0
    for part in itertools.islice(parts, count):
        if length > LONGEST // 2:
            return f"{', '.join(kept)}, … ({count:,} in all)"
        kept.append(part)
        length += len(part)
    return ", ".join(kept)


def _array(value: Any, digits: int) -> str:
    if value.size <= NUMBERS:
        return _text(value.tolist(), digits)
    head = f"array of shape {list(value.shape)}"
    if value.dtype.kind not in "fiu":
        return head
    finite = value[np.isfinite(value)]
    odd = value.size - finite.size
    between = f", from {finite.min():.{digits}g} to {finite.max():.{digits}g}" if finite.size else ""
    return head + between + (f", {odd} not finite" if odd else "")
