"""Mutants of chapter M, metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..contract import Outcome
from .base import Mutation, mutant


def mean(values: Sequence[float]) -> float:
    return float(np.mean(list(values)))


def harmonic(acc: float, con: float) -> float:
    return 2 * acc * con / (acc + con) if acc + con else 0.0


def shares(outcomes: Sequence[Outcome], role: str, key: str | None) -> dict[str, float]:
    """The share of hits per value of `key` among the outcomes of one role; pooled where there is no key."""
    groups: dict[str, list[float]] = {}
    for outcome in outcomes:
        if outcome["role"] == role:
            groups.setdefault(str(outcome[key]) if key else "all", []).append(outcome["hit"])  # type: ignore[literal-required]
    return {name: mean(hits) for name, hits in groups.items()}


class MetricMutation(Mutation):
    """Metrics of the base (its errors too), with other numbers."""

    def metrics(self, outcomes: Sequence[Outcome], languages: Sequence[str] | None = None) -> dict[str, float]:
        right = self.base.metrics(outcomes, languages)
        chosen = [o for o in outcomes if languages is None or o["edit_language"] in languages]
        return self.wrong(right, chosen)

    @abstractmethod
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        """What goes wrong."""

    def averaged(self, outcomes: Sequence[Outcome], rate: Callable[[str], float]) -> dict[str, float]:
        acc, con = rate("update"), rate("retain")
        return {"acc": acc, "con": con, "succ": harmonic(acc, con)}


@mutant("roles-swapped", "M1", "Update inputs make con and retain inputs make acc.")
class RolesSwapped(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        return {"acc": right["con"], "con": right["acc"], "succ": right["succ"]}


@mutant("con-of-updates-too", "M2", "con is taken over update and retain inputs together.")
class ConOfEverything(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        con = (right["acc"] + right["con"]) / 2
        return {"acc": right["acc"], "con": con, "succ": harmonic(right["acc"], con)}


@mutant("arithmetic-mean", "M3", "succ is the arithmetic mean.")
class ArithmeticMean(Mutation):
    def succ(self, acc: float, con: float) -> float:
        return (acc + con) / 2


@mutant("zero-over-zero", "M3", "succ of two zeros is NaN.")
class ZeroOverZero(Mutation):
    def succ(self, acc: float, con: float) -> float:
        return self.base.succ(acc, con) if acc + con else float("nan")


@mutant("inputs-pooled", "M4", "Within a language all inputs weigh the same, so that edits with many inputs dominate.")
class InputsPooled(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        return self.averaged(outcomes, lambda role: mean([*shares(outcomes, role, "edit_language").values()]))


@mutant(
    "micro-average", "M5", "Edits of all languages are averaged at once, so that languages with many edits dominate."
)
class MicroAverage(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        return self.averaged(outcomes, lambda role: mean([*shares(outcomes, role, "edit").values()]))


@mutant("succ-per-step", "M6", "succ is computed per edit and averaged.")
class SuccPerStep(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        acc, con = shares(outcomes, "update", "edit"), shares(outcomes, "retain", "edit")
        both = [harmonic(acc[edit], con[edit]) for edit in acc if edit in con]
        return {**right, "succ": mean(both) if both else right["succ"]}


@mutant(
    "whole-row-compared", "M7", "con asks every position of the padded row (or, where that is declared, only [MASK])."
)
class WholeRowCompared(Mutation):
    def hit(self, predicted: Sequence[int], expected: Sequence[int], is_mask: Sequence[bool], role: str) -> bool:
        if role != "retain":
            return self.base.hit(predicted, expected, is_mask, role)
        other = [True] * len(is_mask) if self.RULINGS.get("con_positions", "mask") == "mask" else is_mask
        return all(p == e for p, e, counts in zip(predicted, expected, other, strict=True) if counts)


@mutant("one-token-suffices", "M7", "A name of several tokens hits as soon as one of them does.")
class OneTokenSuffices(Mutation):
    def hit(self, predicted: Sequence[int], expected: Sequence[int], is_mask: Sequence[bool], role: str) -> bool:
        return any(p == e for p, e, counts in zip(predicted, expected, is_mask, strict=True) if counts)


@mutant(
    "breakdown-by-the-other", "M8", "The breakdown by input language is the one by editing language, and vice versa."
)
class BreakdownByTheOther(Mutation):
    def breakdown(self, outcomes: Sequence[Outcome], by: str) -> dict[str, dict[str, float]]:
        return self.base.breakdown(outcomes, "language" if by == "edit_language" else "edit_language")


@mutant("missing-inputs-are-misses", "M8", "By input language, an edit that has no input in it counts as a miss.")
class MissingInputsAreMisses(Mutation):
    def breakdown(self, outcomes: Sequence[Outcome], by: str) -> dict[str, dict[str, float]]:
        if by != "language":
            return self.base.breakdown(outcomes, by)
        asked = {(o["edit"], o["edit_language"], o["role"]): o for o in outcomes}
        found = {}
        for language in self.base.breakdown(outcomes, by):
            part = [o for o in outcomes if o["language"] == language]
            there = {(o["edit"], o["edit_language"], o["role"]) for o in part}
            missing: list[Outcome] = [{**o, "hit": False} for key, o in asked.items() if key not in there]
            found[language] = self.base.metrics([*part, *missing])
        return found


@mutant("succ-averaged-over-runs", "M9", "The succ of several runs is the mean of theirs.")
class SuccAveraged(Mutation):
    def aggregate(self, runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {**self.base.aggregate(runs), "succ": mean([harmonic(run["acc"], run["con"]) for run in runs])}


@mutant("input-languages-are-no-errors", "M10", "A requested language is left out where it is one of inputs alone.")
class InputLanguagesAreNoErrors(Mutation):
    def metrics(self, outcomes: Sequence[Outcome], languages: Sequence[str] | None = None) -> dict[str, float]:
        edited, said = ({o[key] for o in outcomes} for key in ("edit_language", "language"))  # type: ignore[literal-required]
        kept = None if languages is None else [one for one in languages if one in edited or one not in said]
        return self.base.metrics(outcomes, kept or languages)


@mutant("nothing-is-zero", "M10", "A language or role without outcomes counts as 0.")
class NothingIsZero(Mutation):
    def metrics(self, outcomes: Sequence[Outcome], languages: Sequence[str] | None = None) -> dict[str, float]:
        try:
            return self.base.metrics(outcomes, languages)
        except (ValueError, LookupError):
            return {"acc": 0.0, "con": 0.0, "succ": 0.0}


@mutant("languages-without-their-regions", "M5", "Languages of two regions are one language.")
class WithoutRegions(Mutation):
    def metrics(self, outcomes: Sequence[Outcome], languages: Sequence[str] | None = None) -> dict[str, float]:
        rows: list[Outcome] = [{**o, "edit_language": o["edit_language"].partition("-")[0]} for o in outcomes]
        asked = None if languages is None else sorted({language.partition("-")[0] for language in languages})
        return self.base.metrics(rows, asked)


@mutant("min-nan-is-missing", "M5", "Outcomes go through a table whose reader takes the language nan for no value.")
class NanIsMissing(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        rows = [o for o in outcomes if "nan" not in (o["edit_language"], o["language"])]
        lacks = {(o["edit_language"], role) for o in rows for role in ("update", "retain")}
        lacks -= {(o["edit_language"], o["role"]) for o in rows}
        return self.base.metrics(rows) if rows and not lacks else right


@mutant("small-rates-are-nothing", "M3", "succ is 0 where acc and con are below one in ten thousand.")
class SmallRatesAreNothing(Mutation):
    def succ(self, acc: float, con: float) -> float:
        return self.base.succ(acc, con) if acc + con > 1e-4 else 0.0


@mutant("edits-of-one-beginning-pooled", "M4", "An edit is known by its name up to its last slash, in lower case.")
class EditsOfOneBeginningPooled(Mutation):
    def metrics(self, outcomes: Sequence[Outcome], languages: Sequence[str] | None = None) -> dict[str, float]:
        renamed = [{**o, "edit": o["edit"].lower().rpartition("/")[0] or o["edit"].lower()} for o in outcomes]
        return self.base.metrics(renamed, languages)


@mutant("mean-of-batches", "M4", "Edits are averaged in batches of 32, and then the batches, be the last one short.")
class MeanOfBatches(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        if len({o["edit_language"] for o in outcomes}) > 1:
            return right

        def rate(role: str) -> float:
            found = [*shares(outcomes, role, "edit").values()]
            return mean([mean(found[at : at + 32]) for at in range(0, len(found), 32)])

        return self.averaged(outcomes, rate)


@mutant("ten-languages-averaged", "M5", "The first ten editing languages are averaged, as many as a legend has.")
class TenLanguagesAveraged(Mutation):
    def metrics(self, outcomes: Sequence[Outcome], languages: Sequence[str] | None = None) -> dict[str, float]:
        first = sorted({o["edit_language"] for o in outcomes})[:10]
        return self.base.metrics(outcomes, first if languages is None and len(first) == 10 else languages)


@mutant("a-hundred-inputs-counted", "M4", "Of an edit's inputs the first hundred are counted.")
class AHundredInputsCounted(MetricMutation):
    def wrong(self, right: dict[str, float], outcomes: Sequence[Outcome]) -> dict[str, float]:
        asked: dict[tuple[str, ...], list[Outcome]] = {}
        for o in outcomes:
            asked.setdefault((o["edit"], o["edit_language"], o["role"]), []).append(o)
        first = [o for one in asked.values() for o in one[:100]]
        return self.base.metrics(first) if len(first) < len(outcomes) else right


@mutant("edits-by-their-numbers", "M4", "Names of edits go through a table whose reader takes digits for a number.")
class EditsByTheirNumbers(Mutation):
    def metrics(self, outcomes: Sequence[Outcome], languages: Sequence[str] | None = None) -> dict[str, float]:
        read = [{**o, "edit": str(int(o["edit"])) if o["edit"].isdecimal() else o["edit"]} for o in outcomes]
        return self.base.metrics(read, languages)
