"""The paper's findings, judged on the stored cells by fixed rules. A new finding is a record in CLAIMS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Literal

import numpy as np

from ..core.metrics import Array, Select, by_input, in_all
from ..names import ALL, EN, TRAININGS
from .bootstrap import Interval, centred, interval, resample_edits, resample_seeds, succ_of
from .counts import Key, Section, own_and_other

Verdict = Literal["holds", "does not hold", "not shown here: interval includes 0"]
Measure = Callable[[Array], Array]  # (1 + B, L, K), a mean over seeds, → (1 + B,)

#: Two trainings (better, worse) → the name of their difference.
COMPARISONS: Mapping[tuple[str, str], str] = {
    ("all", "en"): "all languages against English only",
    ("lime", "all"): "LiME against its base",
    ("lime", "shared"): "LiME against one shared mask",
}
#: Task → the gain of succ (en → all) that MEND must have from all languages; otherwise a section is a pipeline check.
PIPELINE_CHECK: Mapping[str, float] = {"nli": 0.05}


@dataclass(frozen=True, slots=True)
class Difference:
    """succ of one training minus succ of another, for one approach."""

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
    differences: tuple[Difference, ...]
    findings: tuple[Finding, ...]
    pipeline_check: bool  # the section is no evidence on the paper's claims


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: a measure, a training and an approach (default: the judged one)."""

    text: str
    training: str | None
    measure: Measure
    approach: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim holds if in each pair the first side is above the second. It is judged on one approach, or on each."""

    title: str
    evaluation: str
    select: Select
    pairs: Sequence[tuple[Side, Side]]
    approach: str | None = None
    adjust: Measure = np.asarray  # of a difference's resamples


def verdict(intervals: Sequence[Interval]) -> Verdict:
    """Holds: all intervals are above 0. Does not hold: one is below 0. Otherwise an interval includes 0."""
    if all(i.low > 0 for i in intervals):
        return "holds"
    if any(i.high < 0 for i in intervals):
        return "does not hold"
    return "not shown here: interval includes 0"


def judge(section: Section) -> Judgement:
    """The paired differences and the findings of a section; those with missing cells are left out."""
    differences = []
    for approach, (ours, theirs), evaluation in product(section.approaches, COMPARISONS, (EN, ALL)):
        seeds, means = _means(section, evaluation, in_all, (approach, ours), (approach, theirs))
        if seeds:
            apart = interval(_succ(means[approach, ours]) - _succ(means[approach, theirs]))
            differences.append(Difference(approach, ours, theirs, evaluation, seeds, apart))
    findings = [found for each in product(CLAIMS, section.approaches) if (found := _finding(section, *each))]
    gain = [d.interval for d in differences if (d.approach, d.ours, d.evaluation) == ("mend", "all", EN)]
    needed = PIPELINE_CHECK.get(section.scope["task"])
    passed = needed is None or (bool(gain) and gain[0].value >= needed and verdict(gain) == "holds")
    return Judgement(tuple(differences), tuple(findings), not passed)


def _finding(section: Section, claim: Claim, approach: str) -> Finding | None:
    if claim.approach not in (None, approach):
        return None
    keys = {side: (side.approach or approach, side.training) for pair in claim.pairs for side in pair}
    seeds, means = _means(section, claim.evaluation, claim.select, *keys.values())
    if not seeds:
        return None
    intervals, told = [], []
    for pair in claim.pairs:
        ours, theirs = (side.measure(means[keys[side]]) for side in pair)
        intervals.append(interval(claim.adjust(ours - theirs)))
        values = (f"{side.text} ({100 * value[0]:.1f}%)" for side, value in zip(pair, (ours, theirs), strict=True))
        told.append(f"{' minus '.join(values)}: {intervals[-1].points} points")
    about = f"{claim.evaluation}; {seeds} seeds" if seeds > 1 else f"{claim.evaluation}; one seed"
    return Finding(claim.title, approach, verdict(intervals), f"{'; '.join(told)} ({about}).", tuple(intervals))


@lru_cache(maxsize=8)
def _resampled(section: Section, evaluation: str, select: Select) -> Mapping[Key, Mapping[int, Array]]:
    """(approach, training) → seed → means (1 + B, L, K), all on the same resampled edits."""
    runs = dict(section.judged(evaluation))
    counts = [run.judged[evaluation] for seeds in runs.values() for run in seeds.values()]
    each = iter(np.moveaxis(resample_edits(counts, select), 1, 0) if counts else ())
    return {key: {seed: next(each) for seed in seeds} for key, seeds in runs.items()}


def _means(section: Section, evaluation: str, select: Select, *keys: Key) -> tuple[int, dict[Key, Array]]:
    """The common seeds, and each key's resampled means (1 + B, L, K) over them; an untrained approach has one run."""
    runs = _resampled(section, evaluation, select)
    if any(key not in runs for key in keys):
        return 0, {}
    seeds = sorted(set.intersection(*(set(runs[key]) for key in [k for k in keys if k[1]] or keys)))
    chosen = {key: [runs[key][seed] for seed in (seeds if key[1] else runs[key])] for key in keys if seeds}
    return len(seeds), {key: resample_seeds(np.stack(each, axis=1)) for key, each in chosen.items()}


def _column(i: int) -> Measure:
    return lambda means: np.asarray(means.mean(1)[:, i])


def _succ(means: Array) -> Array:
    return succ_of(means.mean(1))


def _spread_of_edits(means: Array) -> Array:
    """The standard deviation of succ over the editing languages that have a number (Figure 4)."""
    return np.asarray(np.ma.masked_invalid(succ_of(means)).std(1).filled(0))


def _spread_of_inputs(means: Array) -> Array:
    """The standard deviation of succ over the languages of the inputs, the columns of `by_input` (Figure 3)."""
    return _spread_of_edits(means.mean(1).reshape(len(means), 2, -1).swapaxes(1, 2))


def _gain(better: str, worse: str, what: str = "succ", measure: Measure = _succ) -> list[tuple[Side, Side]]:
    ours, theirs = (Side(f"{what} with {TRAININGS[name].title}", name, measure) for name in (better, worse))
    return [(ours, theirs)]


_ACC = _OWN = _column(0)
_OTHER = _column(1)
_TUNED = Side("acc of Finetuning", None, _ACC, "finetuning")
_ACC_EN, _ACC_ALL = (Side("acc", training, _ACC) for training in ("en", "all"))
_TUNED_OWN, _TUNED_OTHER = Side("acc on English", None, _OWN), Side("acc on other languages", None, _OTHER)
_EN_OWN, _EN_OTHER = replace(_TUNED_OWN, training="en"), replace(_TUNED_OTHER, training="en")
_RAW_OTHER = Side("acc on these without an edit", None, _OTHER, "unedited")
_OF_EDITS, _OF_INPUTS = (("standard deviation of succ", spread) for spread in (_spread_of_edits, _spread_of_inputs))
#: The claims in the order of the page: the paper's, and one about our control.
CLAIMS = (
    Claim("Finetuning underfits across languages", EN, own_and_other, [(_TUNED_OWN, _TUNED_OTHER)], "finetuning"),
    Claim("Training on English has a higher acc than Finetuning", EN, in_all, [(_ACC_EN, _TUNED)]),
    Claim("Training on all languages has a higher acc than Finetuning", EN, in_all, [(_ACC_ALL, _TUNED)]),
    Claim("Training on English transfers in part", EN, own_and_other, [(_EN_OTHER, _RAW_OTHER), (_EN_OWN, _EN_OTHER)]),
    Claim("Training on parallel sentences transfers", EN, in_all, _gain("all", "en")),
    Claim("LiME improves its base editor", ALL, in_all, _gain("lime", "all")),
    Claim("LiME improves on one shared mask (our control)", ALL, in_all, _gain("lime", "shared")),
    Claim(
        "Training on all languages narrows the spread over languages",
        *(EN, by_input, _gain("en", "all", *_OF_INPUTS), None, centred),
    ),
    Claim("LiME narrows the spread over languages", ALL, in_all, _gain("all", "lime", *_OF_EDITS), None, centred),
)
