"""Which of the paper's findings hold in the stored cells, by fixed rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..core.metrics import Array, Select, by_input, in_all
from ..names import ALL, APPROACHES, EN
from .bootstrap import Interval, centred, interval, resample_edits, resample_seeds, succ_of
from .counts import Key, Section, own_and_other

Verdict = Literal["holds", "does not hold", "not shown here: interval includes 0"]

#: Better, worse, and what the difference of the two says.
COMPARISONS: Sequence[tuple[str, str, str]] = (
    ("all", "en", "all languages against English only"),
    ("lime", "all", "LiME against its base"),
    ("lime", "shared", "LiME against one shared mask"),
)

#: What is judged, in the order of the page; the paper's claims, and one about our control.
CLAIMS = (
    UNDERFITS := "Finetuning underfits across languages",
    LOWEST := "Finetuning has the lowest acc",
    PARTIAL := "Training on English alone transfers in part",
    PARALLEL := "Training on parallel sentences transfers",
    LIME := "LiME improves its base editor",
    CONTROL := "LiME improves on one shared mask (our control)",
    NARROWS := "Training on all languages narrows the spread over languages",
    LIME_NARROWS := "LiME narrows the spread over languages",
)

#: On NLI, MEND has to gain this much succ from parallel training before the page takes it for more than plumbing.
PIPELINE_CHECK = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """succ of one training minus succ of another, of one editor in one evaluation."""

    approach: str
    ours: str
    theirs: str
    evaluation: str
    seeds: int  # that both have
    interval: Interval


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim of the paper (or of our control), judged on one approach."""

    claim: str
    approach: str
    verdict: Verdict
    sentence: str
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """All that is said of a section's differences."""

    differences: tuple[Difference, ...]
    findings: tuple[Finding, ...]
    pipeline_check: bool  # NLI whose parallel training gains too little to tell anything


Statistics = Mapping[Key, Mapping[int, Array]]  # (approach, training) → seed → (1 + B, L, K)


def verdict(intervals: Sequence[Interval]) -> Verdict:
    """Holds: all intervals above 0. Does not hold: one of them below 0. Else an interval includes 0."""
    if all(i.low > 0 for i in intervals):
        return "holds"
    if any(i.high < 0 for i in intervals):
        return "does not hold"
    return "not shown here: interval includes 0"


def points(i: Interval) -> str:
    """+1.23 points [0.34, 2.12], of fractions."""
    return f"{100 * i.value:+.2f} points [{100 * i.low:.2f}, {100 * i.high:.2f}]".replace("-", "−")


def judge(section: Section) -> Judgement:
    """The paired differences of a section, and the findings; what lacks a cell is left out."""
    statistics = {name: _statistics(section, name, in_all) for name in (EN, ALL)}
    differences = tuple(
        Difference(approach, ours, theirs, name, len(_common(runs, (approach, ours), (approach, theirs))), found)
        for approach in APPROACHES
        for ours, theirs, _ in COMPARISONS
        for name, runs in statistics.items()
        if (found := _difference(runs, (approach, ours), (approach, theirs), _succ))
    )
    findings = (
        *_underfits(section, statistics[EN]),
        *_transfers_partially(section),
        *_found(differences, EN, ("all", "en"), PARALLEL),
        *_found(differences, ALL, ("lime", "all"), LIME),
        *_found(differences, ALL, ("lime", "shared"), CONTROL),
        *_narrows(section, EN, ("all", "en"), NARROWS),
        *_narrows(section, ALL, ("lime", "all"), LIME_NARROWS),
    )
    gain = [d.interval for d in differences if (d.approach, d.ours, d.evaluation) == ("mend", "all", EN)]
    weak = not gain or gain[0].value < PIPELINE_CHECK or verdict(gain) != "holds"
    return Judgement(differences, findings, section.task == "nli" and weak)


def _statistics(section: Section, evaluation: str, select: Select) -> Statistics:
    """Resampled means of every run of an evaluation, all on the same resampled edits."""
    there = [
        (key, seed, run.judged[evaluation])
        for key, runs in section.runs.items()
        for seed, run in runs.items()
        if evaluation in run.judged
    ]
    if not there:
        return {}
    means = resample_edits([judged for _, _, judged in there], select)
    result: dict[Key, dict[int, Array]] = {}
    for i, (key, seed, _) in enumerate(there):
        result.setdefault(key, {})[seed] = means[:, i]
    return result


Measure = Callable[[Array], Array]  # (1 + B, L, K), a mean over seeds, → (1 + B,)


def _succ(means: Array) -> Array:
    return succ_of(means.mean(1))


def _acc(means: Array) -> Array:
    accuracy: Array = means.mean(1)[:, 0]
    return accuracy


def _spread_of_inputs(means: Array) -> Array:
    """The standard deviation over input languages of succ (Figure 3)."""
    columns = means.mean(1)
    return _spread(succ_of(columns.reshape(len(columns), 2, -1).swapaxes(1, 2)))


def _spread_of_edits(means: Array) -> Array:
    """The standard deviation over editing languages of succ (Figure 4)."""
    return _spread(succ_of(means))


def _spread(values: Array) -> Array:
    there = ~np.isnan(values)
    n = np.maximum(there.sum(1, keepdims=True), 1)
    mean = np.where(there, values, 0).sum(1, keepdims=True) / n
    spread: Array = np.sqrt((np.where(there, values - mean, 0) ** 2).sum(1) / n[:, 0])
    return spread


def _mean(runs: Statistics, key: Key, seeds: Sequence[int]) -> Array:
    return resample_seeds(np.stack([runs[key][seed] for seed in seeds], axis=1))


def _common(runs: Statistics, *keys: Key) -> list[int]:
    """The seeds that all of these have."""
    return sorted(set.intersection(*(set(runs.get(key, ())) for key in keys)))


def _difference(runs: Statistics, ours: Key, theirs: Key, measure: Measure) -> Interval | None:
    """The measure of ours minus that of theirs, over the seeds that both have; None where there are none.

    What is not trained has a single run, which stands beside any seeds.
    """
    seeds = _common(runs, *[key for key in (ours, theirs) if key[1]] or (ours, theirs))
    if not seeds or ours not in runs or theirs not in runs:
        return None
    a, b = (measure(_mean(runs, key, seeds if key[1] else sorted(runs[key]))) for key in (ours, theirs))
    return interval(a - b)


def _found(differences: Sequence[Difference], evaluation: str, pair: tuple[str, str], claim: str) -> list[Finding]:
    """One finding for each editor that has the difference."""
    what = next(text for ours, theirs, text in COMPARISONS if (ours, theirs) == pair)
    return [
        Finding(claim, d.approach, verdict([d.interval]), _sentence(d, what), (d.interval,))
        for d in differences
        if d.evaluation == evaluation and (d.ours, d.theirs) == pair
    ]


def _sentence(d: Difference, what: str) -> str:
    runs = "one seed, so the interval is over edits alone" if d.seeds == 1 else f"{d.seeds} seeds"
    return f"{what}: succ {points(d.interval)} ({d.evaluation}; {runs})."


def _underfits(section: Section, totals: Statistics) -> list[Finding]:
    """Finetuning: acc in the edit's own language against the others, and against the next lowest acc."""
    key: Key = ("finetuning", None)
    runs = _statistics(section, EN, own_and_other)
    result = []
    if key in runs:
        means = _mean(runs, key, sorted(runs[key])).mean(1)
        own, other = (f"{100 * v:.1f}%" for v in means[0])
        gap = interval(means[:, 0] - means[:, 1])
        sentence = f"acc is {own} in the edit's own language and {other} in the others: {points(gap)} ({EN})."
        result.append(Finding(UNDERFITS, key[0], verdict([gap]), sentence, (gap,)))
    editors = {k: _mean(totals, k, sorted(totals[k]))[0].mean(0)[0] for k in totals if k[1] in ("en", "all")}
    if key in totals and editors:
        lowest = min(editors, key=lambda k: editors[k])
        above = _difference(totals, lowest, key, _acc)
        assert above is not None
        name = f"{APPROACHES[lowest[0]]} trained on {'English' if lowest[1] == 'en' else 'all languages'}"
        sentence = f"the lowest acc of an editor, that of {name}, minus Finetuning's: {points(above)} ({EN})."
        result.append(Finding(LOWEST, key[0], verdict([above]), sentence, (above,)))
    return result


def _transfers_partially(section: Section) -> list[Finding]:
    """English-only editors: acc on other languages is above the unedited model's and below that on English."""
    runs = _statistics(section, EN, own_and_other)
    result = []
    for approach in APPROACHES:
        key: Key = (approach, "en")
        above = _difference(runs, key, ("unedited", None), lambda means: means.mean(1)[:, 1])
        if above is None:
            continue
        means = _mean(runs, key, sorted(runs[key])).mean(1)
        below = interval(means[:, 0] - means[:, 1])
        sentence = (
            f"acc is {100 * means[0, 0]:.1f}% on English inputs and {100 * means[0, 1]:.1f}% on others. Others against "
            f"no edit: {points(above)}; English against others: {points(below)} ({EN})."
        )
        result.append(Finding(PARTIAL, approach, verdict([above, below]), sentence, (above, below)))
    return result


def _narrows(section: Section, evaluation: str, pair: tuple[str, str], claim: str) -> list[Finding]:
    """The standard deviation of succ over languages falls from the second training to the first."""
    select, measure = (by_input, _spread_of_inputs) if evaluation == EN else (in_all, _spread_of_edits)
    runs = _statistics(section, evaluation, select)
    arrow = "en → l" if evaluation == EN else "l → all"
    result = []
    for approach in APPROACHES:
        keys: list[Key] = [(approach, training) for training in pair]
        seeds = _common(runs, *keys)
        if not seeds:
            continue
        narrow, wide = (measure(_mean(runs, key, seeds)) for key in keys)
        fall = interval(centred(wide - narrow))
        sentence = (
            f"the standard deviation of succ over languages goes from {100 * wide[0]:.2f} to {100 * narrow[0]:.2f}; "
            f"fall: {points(fall)} ({arrow})."
        )
        result.append(Finding(claim, approach, verdict([fall]), sentence, (fall,)))
    return result
