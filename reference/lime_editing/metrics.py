"""Editing accuracy, consistency and success rate (§4.1). Pure Python over outcomes; rates are fractions in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Literal

from .errors import UserError
from .types import Outcome, Role


@dataclass(frozen=True, slots=True)
class Scores:
    """acc, con and succ of an evaluation."""

    acc: float
    con: float
    succ: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


class NoOutcomes(UserError, LookupError):
    """A language or role was asked for that no outcome has (clause M10)."""


def succ(acc: float, con: float) -> float:
    """The harmonic mean of acc and con; 0 where both are 0 (clause M3)."""
    return 2 * acc * con / (acc + con) if acc + con > 0 else 0.0


def hit(predicted: Sequence[int], expected: Sequence[int]) -> bool:
    """Whether a prediction is as expected at every one of its predicted positions (clause M7)."""
    return all(p == e for p, e in zip(predicted, expected, strict=True))


def scores(outcomes: Iterable[Outcome], languages: Sequence[str] | None = None) -> Scores:
    """Macro average over editing languages of the mean over edits of the mean over an edit's inputs (M1-M6).

    NoOutcomes: a language of `languages` (default: those that occur), or a role of it, has no outcome.
    """
    rates = _rates_per_edit(outcomes)
    wanted = list(dict.fromkeys(languages if languages is not None else (language for language, _ in rates)))
    if not wanted:
        raise NoOutcomes("no outcomes to average: neither an update nor a retain input was judged")
    acc = fmean(_language_rate(rates, language, "update") for language in wanted)
    con = fmean(_language_rate(rates, language, "retain") for language in wanted)
    return Scores(acc, con, succ(acc, con))


def breakdown(outcomes: Sequence[Outcome], by: Literal["edit_language", "language"]) -> dict[str, Scores]:
    """Scores per editing language (l → all, Figure 4) or per language of the input (→ l, Figure 3); clause M8."""
    key: Callable[[Outcome], str] = (lambda o: o.edit_language) if by == "edit_language" else (lambda o: o.language)
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(key(outcome), []).append(outcome)
    return {language: scores(groups[language]) for language in sorted(groups)}


def aggregate(runs: Sequence[Scores]) -> Scores:
    """Several runs: mean acc, mean con, and the succ of these means (clause M9)."""
    if not runs:
        raise NoOutcomes("no runs to aggregate")
    acc, con = fmean(run.acc for run in runs), fmean(run.con for run in runs)
    return Scores(acc, con, succ(acc, con))


Rates = Mapping[tuple[str, Role], list[float]]


def _rates_per_edit(outcomes: Iterable[Outcome]) -> Rates:
    """(editing language, role) → one rate per edit."""
    hits: dict[tuple[str, Role], dict[str, list[bool]]] = {}
    for o in outcomes:
        hits.setdefault((o.edit_language, o.role), {}).setdefault(o.edit, []).append(o.hit)
    return {key: [fmean(edit) for edit in edits.values()] for key, edits in hits.items()}


def _language_rate(rates: Rates, language: str, role: Role) -> float:
    if (language, role) not in rates:
        raise NoOutcomes(f"no {role} outcomes for editing language {language!r}")
    return fmean(rates[language, role])
