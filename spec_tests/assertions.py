"""Assertions that explain themselves: the clause in its own words, the inputs, what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2

from .conformance import Violation, clauses

#: A statistical test fails a correct implementation with at most this probability; seeds are fixed besides.
FALSE_ALARM = 1e-6


def fail(clause_id: str, what: str, inputs: Mapping[str, Any], expected: object, got: object) -> None:
    """Raise the AssertionError that a reader sees."""
    shown = {name: _short(value) for name, value in inputs.items()}
    raise Violation(clauses()[clause_id], what, shown, _short(expected), _short(got))


def holds(clause_id: str, condition: bool, what: str, *, expected: object, got: object, **inputs: Any) -> None:
    """The condition holds."""
    if not condition:
        fail(clause_id, what, inputs, expected, got)


def equal(clause_id: str, got: object, expected: object, what: str = "not equal", /, **inputs: Any) -> None:
    """Plain data, equal by ==."""
    if type(got) is np.bool_:
        got = bool(got)
    if got != expected:
        fail(clause_id, what, inputs, expected, got)


def close(
    clause_id: str,
    got: ArrayLike,
    expected: ArrayLike,
    what: str = "numbers differ",
    tolerance: float = 1e-9,
    /,
    **inputs: Any,
) -> None:
    """Numbers or arrays of one shape, equal up to `tolerance` (relative above 1, absolute below); NaN never passes."""
    result, wanted = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if result.shape != wanted.shape:
        fail(clause_id, f"{what}: shape {result.shape} for {wanted.shape}", inputs, expected, got)
    if not np.all(np.abs(result - wanted) <= tolerance * np.maximum(1, np.abs(wanted))):
        fail(clause_id, what, inputs, expected, got)


def same_bits(clause_id: str, got: ArrayLike, expected: ArrayLike, what: str, **inputs: Any) -> None:
    """Equal numbers in every bit that counts (0.0 and -0.0 are one number)."""
    if not np.array_equal(np.asarray(got), np.asarray(expected)):
        fail(clause_id, f"{what}: not bit for bit", inputs, expected, got)


def rejects(clause_id: str, call: Callable[[], object], naming: tuple[str, ...], what: str, **inputs: Any) -> None:
    """The call raises ValueError or LookupError, and the message holds each of `naming`."""
    names = " and ".join(repr(name) for name in naming)
    try:
        result = call()
    except (ValueError, LookupError) as error:
        missing = [name for name in naming if name not in str(error)]
        if missing:
            fail(clause_id, f"{what}: the message does not name it", inputs, f"an error naming {names}", repr(error))
        return
    fail(clause_id, f"{what}: no error", inputs, f"a ValueError or LookupError naming {names}", result)


def distributed(
    clause_id: str, counts: Mapping[Any, int], expected: Mapping[Any, float], what: str, **inputs: Any
) -> None:
    """Observed counts fit the expected ones by a chi-square test at FALSE_ALARM."""
    statistic = chi_square(counts, expected)
    bound = float(chi2.isf(FALSE_ALARM, len(expected) - 1))
    if not statistic <= bound:
        note = f"{what}: chi-square {statistic:.1f} over {bound:.1f} in {sum(counts.values())} draws"
        fail(clause_id, note, inputs, {key: round(value, 1) for key, value in expected.items()}, dict(counts))


def chi_square(counts: Mapping[Any, int], expected: Mapping[Any, float]) -> float:
    """Pearson's statistic; infinite where something came that cannot come."""
    if any(count and not expected.get(key) for key, count in counts.items()):
        return float("inf")
    return float(sum((counts.get(key, 0) - value) ** 2 / value for key, value in expected.items() if value))


def _short(value: object) -> str:
    with np.printoptions(precision=6, threshold=30, edgeitems=4):
        text = repr(value)
    return text if len(text) <= 1200 else text[:1200] + " …"
