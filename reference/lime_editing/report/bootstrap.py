"""Paired bootstrap over edits and seeds.

All approaches have the same edits and inputs. So a resample draws edits once for all approaches, within each editing
language. Then it draws seeds, the same for approaches with the same number of seeds. Index 0 of every resampled array
is the sample itself.

Shapes: B resamples, S seeds, N edits, L editing languages, K columns.
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

    @property
    def points(self) -> str:
        """Percentage points, such as +1.23 [0.34, 2.12]."""
        return f"{100 * self.value:+.2f} [{100 * self.low:.2f}, {100 * self.high:.2f}]".replace("-", "−")


def resample_edits(runs: Sequence[Counts], select: Select = in_all, resamples: int = RESAMPLES) -> Array:
    """Means over resampled edits, the same for all runs: (1 + B, runs, L, K). An edit is drawn with all its inputs."""
    if any(run.edits != runs[0].edits or run.languages != runs[0].languages for run in runs):
        raise DataError("these runs were asked different questions; they cannot be paired")
    languages, of, _ = rates(runs[0], select)
    values = np.stack([rates(run, select)[2] for run in runs], axis=1)  # (N, runs, K)
    result = np.empty((1 + resamples, len(runs), len(languages), values.shape[2]))
    for i in range(len(languages)):
        here = values[of == i]
        n, there = len(here), ~np.isnan(here)
        drawn = np.random.default_rng((SEED, i)).multinomial(n, np.full(n, 1 / n), size=resamples)
        weights = np.concatenate([np.ones((1, n)), drawn])
        total = weights @ np.where(there, here, 0).reshape(n, -1)
        weight = weights @ there.reshape(n, -1).astype(np.float64)
        with np.errstate(invalid="ignore"):
            result[:, :, i] = (total / weight).reshape(1 + resamples, len(runs), -1)
    return result


def resample_seeds(values: Array) -> Array:
    """Means over resampled seeds: (1 + B, S, …) → (1 + B, …). The draw depends only on S."""
    size, seeds = values.shape[:2]
    drawn = np.random.default_rng((SEED, seeds, 1)).integers(seeds, size=(size, seeds))
    drawn[0] = np.arange(seeds)
    return np.asarray(values[np.arange(size)[:, None], drawn].mean(1))


def succ_of(values: Array) -> Array:
    """succ, from acc and con in the last axis (clause M3)."""
    return np.asarray(succ(values[..., 0], values[..., 1]))


def interval(values: Array) -> Interval:
    """The sample's value, and the percentile interval of its resamples."""
    low, high = np.nanquantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return Interval(float(values[0]), low, high)


def centred(values: Array) -> Array:
    """Resamples shifted to the sample's value: their noise in every language would widen a spread over languages."""
    return np.concatenate([values[:1], values[1:] - np.nanmean(values[1:]) + values[0]])


def succ_difference(ours: Sequence[Counts], theirs: Sequence[Counts], resamples: int = RESAMPLES) -> Interval:
    """succ of one approach's runs minus another's, of resampled means over languages and seeds (M5, M6, M9)."""
    means = resample_edits([*ours, *theirs], in_all, resamples).mean(2)
    a, b = (succ_of(resample_seeds(part)) for part in (means[:, : len(ours)], means[:, len(ours) :]))
    return interval(a - b)
