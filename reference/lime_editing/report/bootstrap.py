"""Paired bootstrap over edits and seeds.

Every approach is asked the same questions, so a resample draws edits once, within each editing language, and uses them
for all approaches; then it draws seeds, the same ones for approaches that were trained with the same. Index 0 of every
resampled array is the sample itself, so that a value and its interval come from the same lines.

Shapes: B resamples, S seeds, L editing languages, K columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.metrics import Array, Counts, Select, in_all, rates, succ
from ..errors import DataError

RESAMPLES = 2_000
SEED = 0
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95% percentile interval."""

    value: float
    low: float
    high: float


def resample_edits(
    runs: Sequence[Counts], select: Select = in_all, resamples: int = RESAMPLES, seed: int = SEED
) -> Array:
    """Means over resampled edits, with the same edits for all runs: (1 + B, runs, L, K).

    Within each editing language, as many edits as there are, are drawn with replacement; an edit brings all its inputs.
    DataError: runs that were asked different questions cannot be paired.
    """
    if any(run.edits != runs[0].edits or run.languages != runs[0].languages for run in runs):
        raise DataError("these runs were asked different questions; they cannot be paired")
    languages, of, first = rates(runs[0], select)
    values = np.stack([first, *(rates(run, select)[2] for run in runs[1:])], axis=1)  # (N, runs, K)
    result = np.empty((1 + resamples, len(runs), len(languages), values.shape[2]))
    for i in range(len(languages)):
        here = values[of == i]
        n, there = len(here), ~np.isnan(here)
        drawn = np.random.default_rng((seed, i)).multinomial(n, np.full(n, 1 / n), size=resamples)
        weights = np.concatenate([np.ones((1, n)), drawn])
        total = weights @ np.where(there, here, 0).reshape(n, -1)
        weight = weights @ there.reshape(n, -1).astype(np.float64)
        with np.errstate(invalid="ignore"):
            result[:, :, i] = (total / weight).reshape(1 + resamples, len(runs), -1)
    return result


def resample_seeds(values: Array, seed: int = SEED) -> Array:
    """Means over resampled seeds: (1 + B, S, …) → (1 + B, …). As many seeds as there are, drawn with replacement.

    The draw depends on S and `seed` alone: approaches with the same seeds get the same ones.
    """
    size, seeds = values.shape[:2]
    drawn = np.random.default_rng((seed, seeds, 1)).integers(seeds, size=(size, seeds))
    drawn[0] = np.arange(seeds)
    mean: Array = values[np.arange(size)[:, None], drawn].mean(1)
    return mean


def succ_of(values: Array) -> Array:
    """succ of acc and con in the last axis (clause M3)."""
    return np.asarray(succ(values[..., 0], values[..., 1]))


def interval(values: Array) -> Interval:
    """The sample's value, and the percentile interval of its resamples."""
    low, high = np.nanquantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return Interval(float(values[0]), low, high)


def centred(values: Array) -> Array:
    """Resamples shifted to have the sample's value as their mean.

    For a spread over languages: a resample adds noise to every language and so widens the spread itself.
    """
    return np.concatenate([values[:1], values[1:] - np.nanmean(values[1:]) + values[0]])


def succ_difference(
    ours: Sequence[Counts], theirs: Sequence[Counts], resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """succ of one approach minus succ of another, each given as the runs of its seeds, in the same order of seeds.

    What is resampled: edits within their editing language, and seeds. succ is computed from the resampled means of acc
    and con over editing languages and seeds (clauses M5, M6, M9).
    """
    means = resample_edits([*ours, *theirs], in_all, resamples, seed).mean(2)
    parts = means[:, : len(ours)], means[:, len(ours) :]
    a, b = (succ_of(resample_seeds(part, seed)) for part in parts)
    return interval(a - b)
