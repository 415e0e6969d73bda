"""Editing accuracy, consistency and success rate (§4.1), over counted outcomes. Rates are fractions in [0, 1].

Shapes: N edits of an evaluation, 2 roles (update, retain), L languages of the inputs, K columns of a selection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..errors import UserError
from ..names import Role
from ..records import Outcome

Array = NDArray[np.float64]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Scores:
    """acc, con and succ of an evaluation."""

    acc: float
    con: float
    succ: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Counts:
    """The outcomes of one evaluation, counted. The order of edits is fixed, so that evaluations can be paired."""

    edits: tuple[tuple[str, str], ...]  # (editing language, edit), sorted
    languages: tuple[str, ...]  # of the inputs, sorted
    hits: Array  # (N, 2, L)
    asked: Array  # (N, 2, L)


#: Sums counts (N, 2, L) into columns (N, K). `own` (N, L) marks the inputs in the edit's own language.
Select = Callable[[Array, NDArray[np.bool_]], Array]


class NoOutcomes(UserError, LookupError):
    """A language or role was asked for that no outcome has (clause M10)."""


def succ(acc: Any, con: Any) -> Any:
    """The harmonic mean of acc and con, elementwise for arrays; 0 if both are 0 (clause M3)."""
    total = np.asarray(acc + con, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        mean = np.where(total == 0, 0.0, 2 * acc * con / np.where(total == 0, 1.0, total))
    return mean if mean.ndim else float(mean)


def hit(predicted: Sequence[int], expected: Sequence[int]) -> bool:
    """Whether a prediction is as expected at all its positions (clause M7)."""
    return all(p == e for p, e in zip(predicted, expected, strict=True))


def count(outcomes: Iterable[Outcome]) -> Counts:
    """Outcomes as counts."""
    if not isinstance(outcomes, Iterable):
        raise UserError(checks.of_list(outcomes, Outcome, "outcomes"))
    told = list(outcomes)
    checks.refuse(UserError, checks.of_list(told, Outcome, "outcomes"))
    if any(outcome.role not in ROLES for outcome in told):
        raise UserError(f"an outcome has an unknown role; known: {', '.join(ROLES)}")
    edits = sorted({(o.edit_language, o.edit) for o in told})
    languages = sorted({o.language for o in told})
    row, column = {edit: i for i, edit in enumerate(edits)}, {code: i for i, code in enumerate(languages)}
    at = np.array([(row[o.edit_language, o.edit], ROLES.index(o.role), column[o.language]) for o in told], dtype=int)
    return tally(edits, languages, at.reshape(-1, 3), np.array([o.hit for o in told], dtype=np.float64))


def tally(edits: Sequence[tuple[str, str]], languages: Sequence[str], at: NDArray[np.int_], hits: Array) -> Counts:
    """Counts of R outcomes. `at` (R, 3) holds the indices of the edit, the role, and the input's language."""
    shape = (len(edits), len(ROLES), len(languages))
    cell = np.ravel_multi_index(tuple(at.T), shape) if len(at) else np.zeros(0, dtype=int)
    size = int(np.prod(shape))
    summed, asked = (
        np.bincount(cell, w, minlength=size).astype(np.float64).reshape(shape) for w in (hits, np.ones(len(at)))
    )
    return Counts(tuple(edits), tuple(languages), summed, asked)


def in_all(counts: Array, own: NDArray[np.bool_]) -> Array:
    """Columns acc and con, over inputs in all languages."""
    return np.asarray(counts.sum(2))


def by_input(counts: Array, own: NDArray[np.bool_]) -> Array:
    """Columns acc for each language of the input, then con for each (→ l)."""
    return counts.reshape(len(counts), -1)


def rates(counts: Counts, select: Select) -> tuple[list[str], NDArray[np.intp], Array]:
    """The editing languages, each edit's index among them, and one rate per edit and column (NaN: no input)."""
    languages, of = np.unique([language for language, _ in counts.edits], return_inverse=True)
    own = np.array([[code == language for code in counts.languages] for language, _ in counts.edits])
    asked = select(counts.asked, own)
    with np.errstate(invalid="ignore"):
        return languages.tolist(), of, select(counts.hits, own) / asked


def scores(counts: Counts, languages: Sequence[str] | None = None) -> Scores:
    """Macro average over editing languages of the mean over edits of the mean over an edit's inputs (M1-M6).

    UserError: one of `languages` (default: those that occur) has no outcome in some role.
    """
    checks.refuse(UserError, checks.of_kind(counts, (Counts,), "counts"))
    checks.refuse(UserError, languages is not None and checks.of_names(languages, again=True))
    wanted = list(dict.fromkeys(languages if languages is not None else (language for language, _ in counts.edits)))
    checks.refuse(NoOutcomes, not wanted and "no outcomes to average: no input was judged")
    known, of, values = rates(counts, in_all) if counts.edits else ([], np.zeros(0), np.zeros((0, 2)))
    means = []
    for language in wanted:
        mean = _mean(values[of == known.index(language)]) if language in known else np.full(2, np.nan)
        for role, value in zip(ROLES, mean, strict=True):
            if np.isnan(value):
                raise NoOutcomes(f"no {role} outcomes for editing language {language!r}")
        means.append(mean)
    acc, con = np.mean(means, axis=0).tolist()
    return Scores(acc, con, succ(acc, con))


def breakdown(
    counts: Counts, by: Literal["edit_language", "language"], incomplete: Literal["refuse", "skip"] = "refuse"
) -> dict[str, Scores]:
    """Scores per editing language (l → all, Figure 4) or per language of the input (→ l, Figure 3); clause M8.

    UserError: a language has no outcome in some role, unless `incomplete` is "skip".
    """
    checks.refuse(UserError, checks.of_arguments(breakdown, locals()))
    checks.refuse(NoOutcomes, not counts.edits and "no outcomes to break down: no input was judged")
    known, of, values = rates(counts, in_all if by == "edit_language" else by_input)
    means = np.stack([_mean(values[of == i]) for i in range(len(known))])
    if by == "language":
        means, known = _mean(means).reshape(2, -1).T, list(counts.languages)
    found = {}
    for name, (acc, con) in zip(known, means.tolist(), strict=True):
        lacks = [role for role, value in zip(ROLES, (acc, con), strict=True) if np.isnan(value)]
        if lacks and incomplete == "refuse":
            raise NoOutcomes(f"no {lacks[0]} outcomes for {'editing ' * (by == 'edit_language')}language {name!r}")
        if not lacks:
            found[name] = Scores(acc, con, succ(acc, con))
    return found


def mean_of_edits(counts: Counts) -> float:
    """The mean over edits of the harmonic mean of the edit's acc and con (R5). Edits without both are excluded."""
    _, _, values = rates(counts, in_all)
    return float(_mean(succ(*values.T)[:, None])[0])


def aggregate(runs: Sequence[Scores]) -> Scores:
    """Mean acc and mean con of several runs, and succ of these means (clause M9)."""
    checks.refuse(UserError, checks.of_arguments(aggregate, locals()))
    checks.refuse(NoOutcomes, not runs and "no runs to aggregate; give at least one")
    acc, con = fmean(run.acc for run in runs), fmean(run.con for run in runs)
    return Scores(acc, con, succ(acc, con))


def _mean(values: Array) -> Array:
    """Column means over the rows that have a number; NaN where no row has one."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, values, 0).sum(0) / there.sum(0))
