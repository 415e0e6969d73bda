"""Assertions that explain themselves: the clause in its own words, the inputs, what was expected and what came.

Numbers are compared in the width in which they come back, float32 or float64, each with a tolerance of its own
(`TOLERANCES`); a message says which, and why. An array's width is the narrowest in which its numbers can be written
exactly, so that a float32 that was stored in a float64 on the way counts as what it is. A lone number does not tell
its width, and gets the tolerance of float32.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from .border import plain
from .conformance import Violation, clauses
from .showing import NUMBERS, cut, first_line, pair, said, shown

#: A statistical test fails a correct implementation with at most this probability; seeds are fixed besides.
FALSE_ALARM = 1e-6


@dataclass(frozen=True)
class Tolerance:
    """What rounding may do, relative to the numbers that are compared, in either width."""

    float64: float
    float32: float
    why: str


#: The tolerances of the suite. The messages of failures print them.
TOLERANCES: dict[str, Tolerance] = {
    "numbers": Tolerance(1e-9, 1e-6, "a few operations on numbers"),
    "arrays": Tolerance(1e-9, 1e-4, "a few operations on numbers that may cancel"),
    "gates": Tolerance(1e-9, 1e-3, "the log odds of a uniform draw, which may be near one"),
    "slopes of gates": Tolerance(1e-6, 1e-2, "the slope of a gate that was seen as 1 + gate"),
    "losses": Tolerance(1e-6, 1e-4, "a loss of a model"),
    "model": Tolerance(1e-6, 2e-3, "a pass through a model, forward and backward"),
    "training": Tolerance(1e-4, 0.1, "Adam divides by the size of a gradient, however small it is"),
    "slope": Tolerance(1e-3, 5e-2, "a finite difference of a loss"),
}
#: Of larger arrays a failure tells one place.
IN_WHOLE = 4
#: What one rounding does to a number of size 1.
EPS = {"float64": 2.0**-52, "float32": 2.0**-23}


class NotShown(Exception):
    """The case at hand shows nothing about the clause: neither that it holds nor that it does not."""


def fail(
    clause_id: str, what: str, inputs: Mapping[str, Any], expected: object, got: object, tolerance: str = ""
) -> NoReturn:
    """Raise the AssertionError that a reader sees: `expected` and `got` are values, in full and where they differ."""
    _raise(clause_id, what, inputs, (shown(expected), shown(got)), pair(expected, got), tolerance)


def _raise(
    clause_id: str,
    what: str,
    inputs: Mapping[str, Any],
    whole: tuple[str, str],
    short: tuple[str, str],
    tolerance: str = "",
) -> NoReturn:
    told = {name: shown(value) for name, value in inputs.items()}
    raise Violation(clauses()[clause_id], cut(what, 300), told, *whole, tolerance, short)


def _say(clause_id: str, what: str, inputs: Mapping[str, Any], expected: object, got: object) -> NoReturn:
    """As `fail`, where a text is what a test says in its own words."""
    if all(hasattr(value, "shape") for value in (expected, got)):
        both = tuple(numbers(value).astype(np.float64) for value in (expected, got))
        if both[0].shape == both[1].shape:
            _fail_numbers(clause_id, what, inputs, (both[1], both[0]), "")
    whole = said(expected), said(got)
    short = pair(expected, got)
    words = [isinstance(value, str) for value in (expected, got)]
    _raise(clause_id, what, inputs, whole, (whole[0] if words[0] else short[0], whole[1] if words[1] else short[1]))


def assume(condition: bool, why: str) -> None:
    """What has to be so for the test to show anything; else its clauses are not judged, for this reason."""
    if not condition:
        raise NotShown(why)


def holds(clause_id: str, condition: object, what: str, *, expected: object, got: object, **inputs: Any) -> None:
    """The condition holds."""
    if not condition:
        _say(clause_id, what, inputs, expected, got)


def finite(clause_id: str, rates: Mapping[str, Any], names: Iterable[str] = ("acc", "con"), **inputs: Any) -> None:
    """The rates of these names are there, and numbers that are neither NaN nor infinite."""
    for name in names:
        value = plain(rates.get(name))
        fits = isinstance(value, Real) and np.isfinite(float(value))
        holds(clause_id, fits, f"{name} is no finite number", expected="a finite number", got=value, **inputs)


def equal(clause_id: str, got: object, expected: object, what: str = "not equal", /, **inputs: Any) -> None:
    """Plain data, equal by ==; a tuple is a list, and NumPy's and torch's numbers are Python's."""
    if got is not expected and plain(got) != plain(expected):
        fail(clause_id, what, inputs, expected, got)


def width(*values: Any) -> str:
    """ "float32" or "float64": the narrowest in which all numbers of these arrays can be written exactly.

    Of numbers alone, outside of an array, "float32".
    """
    found = "float32"
    for value in values:
        array = numbers(value)
        if _lone(value) or array.dtype != np.float64 or not array.size:
            continue
        finite = array[np.isfinite(array)]
        with np.errstate(over="ignore"):
            if not np.array_equal(finite, finite.astype(np.float32).astype(np.float64)):
                found = "float64"
    return found


def _lone(value: Any) -> bool:
    """A Python number, or some in a list: no array says in which width they were computed."""
    if isinstance(value, Mapping):
        return all(_lone(part) for part in value.values())
    return isinstance(value, int | float) or (isinstance(value, list | tuple) and all(_lone(part) for part in value))


def is_single(value: Any) -> bool:
    """Whether a number is NumPy's or a tensor of 32 bits or fewer; Python's has 64."""
    kind = getattr(value, "dtype", None)
    return kind is not None and kind.itemsize <= 4


def numbers(value: Any) -> NDArray[Any]:
    """A number, list, array or tensor as an array of its own width."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype.itemsize < 4 else value).numpy()
    if isinstance(value, list | tuple) and any(not isinstance(part, int | float) for part in value):
        value = [numbers(part) for part in value]
    return np.asarray(value)


def close(
    clause_id: str,
    got: ArrayLike,
    expected: ArrayLike,
    what: str = "numbers differ",
    tolerance: float | str = "numbers",
    /,
    **inputs: Any,
) -> None:
    """Numbers or arrays of one shape, equal up to `tolerance` (relative above 1, absolute below); NaN never passes.

    `tolerance` is one of TOLERANCES, or a number, which holds for both widths.
    """
    result, wanted = _pair(clause_id, got, expected, what, inputs)
    allowed, why = _allowed(tolerance, width(got))
    off = np.abs(result - wanted)
    if not np.all(off <= allowed * np.maximum(1, np.abs(wanted))):
        _fail_numbers(clause_id, what, inputs, (result, wanted), f"{allowed:g}, relative above 1 ({why})")


def near(
    clause_id: str,
    got: Any,
    expected: Any,
    what: str,
    tolerance: str = "model",
    /,
    *,
    of: Sequence[Any] | None = None,
    beside: Any = None,
    by_norm: bool = False,
    **inputs: Any,
) -> None:
    """Arrays of one shape, equal up to a share of the largest number that is expected; NaN never passes.

    `of` is what came back, where `got` was computed from it. `beside` are numbers from which those that are compared
    were subtracted, so that they share the rounding of these. With `by_norm` the Frobenius norms are compared.
    """
    result, wanted = _pair(clause_id, got, expected, what, inputs)
    share, why = _allowed(tolerance, width(*([got] if of is None else of)))
    off, allowed = _distance(result, wanted, share, [got] if of is None else of, beside, by_norm)
    if not off <= allowed:
        of_what = "norm" if by_norm else "largest number"
        _fail_numbers(clause_id, what, inputs, (result, wanted), f"{allowed:.3g}, {share:g} of the {of_what} ({why})")


def agree(
    got: Any,
    expected: Any,
    tolerance: str = "model",
    /,
    *,
    of: Sequence[Any] | None = None,
    beside: Any = None,
    by_norm: bool = False,
) -> bool:
    """Whether `near` would hold."""
    result, wanted = (numbers(value).astype(np.float64) for value in (got, expected))
    share, _ = _allowed(tolerance, width(*([got] if of is None else of)))
    off, allowed = _distance(result, wanted, share, [got] if of is None else of, beside, by_norm)
    return result.shape == wanted.shape and off <= allowed


def _distance(
    result: NDArray[Any], wanted: NDArray[Any], share: float, of: Sequence[Any], beside: Any, by_norm: bool
) -> tuple[float, float]:
    """How far two arrays are apart, and how far they may be."""
    size = np.linalg.norm if by_norm else (lambda array: np.max(np.abs(array), initial=0.0))
    # What float32 has no numbers for, it rounds to 0.
    smallest = float(np.finfo(width(*of)).tiny)
    allowed = share * float(size(wanted)) + (smallest * np.sqrt(wanted.size) if np.any(wanted) else 0.0)
    if beside is not None:
        lost = 8 * EPS[width(*of)] * float(np.max(np.abs(numbers(beside)), initial=0.0))
        allowed += lost * (float(np.sqrt(wanted.size)) if by_norm else 1.0)
    return (float(size(result - wanted)) if result.shape == wanted.shape else np.inf), allowed


def differs(
    clause_id: str, got: Any, other: Any, what: str, /, share: float = 1e-6, *, expected: object, **inputs: Any
) -> None:
    """Arrays of one shape that are not the same: some number is off by more than `share` of the largest."""
    one, two = (numbers(value).astype(np.float64) for value in (got, other))
    if one.shape == two.shape and np.max(np.abs(one - two), initial=0.0) <= share * np.max(np.abs(two), initial=0.0):
        _say(clause_id, what, inputs, expected, got)


def _pair(
    clause_id: str, got: Any, expected: Any, what: str, inputs: Mapping[str, Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        result = numbers(got).astype(np.float64)
    except (TypeError, ValueError):
        _say(clause_id, what, inputs, "numbers", got)
    if numbers(got).dtype == object and np.any(np.isnan(result)):  # None, which NumPy reads as NaN
        fail(clause_id, what, inputs, expected, got)
    wanted = numbers(expected).astype(np.float64)
    if result.shape != wanted.shape:
        shapes = (f"shape {list(array.shape)}" for array in (wanted, result))
        _say(clause_id, what, inputs, *shapes)
    return result, wanted


def _allowed(tolerance: float | str, found: str) -> tuple[float, str]:
    if not isinstance(tolerance, str):
        return tolerance, "given with the case"
    chosen = TOLERANCES[tolerance]
    return getattr(chosen, found), f"{found}: {chosen.why}"


def _fail_numbers(
    clause_id: str, what: str, inputs: Mapping[str, Any], both: tuple[NDArray[Any], NDArray[Any]], tolerance: str
) -> NoReturn:
    """Of a large array, where the two are farthest apart."""
    result, wanted = both
    if result.size <= IN_WHOLE:
        fail(clause_id, what, inputs, wanted, result, tolerance)
    off = np.where(np.isnan(result - wanted), np.inf, np.abs(result - wanted))
    place = np.unravel_index(int(np.argmax(off)), off.shape)
    here = pair(wanted[place], result[place])
    where = f"at {[int(i) for i in place]} of {list(off.shape)}, where they are farthest apart"
    short = here[0], f"{here[1]} {where}"
    # Of still larger ones nothing but shape and range would be shown below.
    whole = (shown(wanted), shown(result)) if result.size <= NUMBERS else short
    _raise(clause_id, what, inputs, whole, short, tolerance)


def same_bits(clause_id: str, got: ArrayLike, expected: ArrayLike, what: str, /, **inputs: Any) -> None:
    """Equal numbers in every bit that counts (0.0 and -0.0 are one number), in the width in which they come back."""
    result, wanted = numbers(got), numbers(expected)
    if width(got) == "float32" and wanted.dtype == np.float64:
        wanted = wanted.astype(np.float32)
    if not np.array_equal(result, wanted):
        if result.shape != wanted.shape:
            fail(clause_id, f"{what}, bit for bit", inputs, expected, got)
        _fail_numbers(clause_id, f"{what}, bit for bit", inputs, (result, wanted), "")


def rejects(clause_id: str, call: Callable[[], object], naming: tuple[str, ...], what: str, **inputs: Any) -> None:
    """The call raises ValueError or LookupError, and the message holds each of `naming`."""
    names = " and ".join(repr(name) for name in naming)
    try:
        result = call()
    except (ValueError, LookupError) as error:
        missing = [name for name in naming if name not in str(error)]
        if missing:
            told = f"{type(error).__name__}: {first_line(str(error), 200)}"
            _say(clause_id, f"{what}: the message does not name it", inputs, f"an error naming {names}", told)
        return
    got = f"no error, and {shown(result, longest=200)}"
    _say(clause_id, what, inputs, f"a ValueError or LookupError naming {names}", got)


def distributed(
    clause_id: str, counts: Mapping[Any, int], expected: Mapping[Any, float], what: str, **inputs: Any
) -> None:
    """Observed counts fit the expected ones by a chi-square test at FALSE_ALARM."""
    statistic = chi_square(counts, expected)
    bound = float(chi2.isf(FALSE_ALARM, len(expected) - 1))
    if not statistic <= bound:
        note = f"{what}: chi-square {statistic:.1f} over {bound:.1f} in {sum(counts.values()):,} draws"
        allowed = f"chi-square {bound:.1f}, which chance alone exceeds once in {1 / FALSE_ALARM:,.0f} times"
        rounded = {key: round(value, 1) for key, value in expected.items()}
        farthest = max({**expected, **counts}, key=lambda key: _excess(counts.get(key, 0), expected.get(key, 0.0)))
        short = f"{shown(farthest)} {rounded.get(farthest, 0.0):g} times", f"{counts.get(farthest, 0)} times"
        _raise(clause_id, note, inputs, (shown(rounded), shown(dict(counts))), short, allowed)


def chi_square(counts: Mapping[Any, int], expected: Mapping[Any, float]) -> float:
    """Pearson's statistic; infinite where something came that cannot come."""
    if any(count and not expected.get(key) for key, count in counts.items()):
        return float("inf")
    return float(sum(_excess(counts.get(key, 0), value) for key, value in expected.items()))


def _excess(count: int, expected: float) -> float:
    """What one count adds to Pearson's statistic."""
    return (count - expected) ** 2 / expected if expected else float("inf") if count else 0.0
