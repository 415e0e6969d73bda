"""What the statistical tests can see: S10's two biases, found with near certainty at the false-alarm rate used."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2, ncx2

from spec_tests import test_s_sampling as sampling
from spec_tests.assertions import FALSE_ALARM, chi_square, distributed

DRAWS = len(sampling.SEEDS) * len(sampling.CORPUS)


def shares() -> dict[str, float]:
    return {language: size / len(sampling.CORPUS) for language, size in Counter(sampling.LANGUAGE.values()).items()}


def biased(language: str, factor: float) -> dict[str, float]:
    """Shares after one language is drawn `factor` times as often."""
    raised = {name: share * (factor if name == language else 1.0) for name, share in shares().items()}
    total = sum(raised.values())
    return {name: share / total for name, share in raised.items()}


@pytest.mark.parametrize("language", sampling.LANGUAGES)
@pytest.mark.parametrize("factor", [0.9, 1.1])
@pytest.mark.parametrize("draws", [DRAWS, sampling.STEPS])
def test_a_bias_of_a_tenth_towards_one_language_is_found(language: str, factor: float, draws: int) -> None:
    """The chi-square test by language has a power above 99%."""
    fair = shares()
    distance = draws * sum((biased(language, factor)[name] - fair[name]) ** 2 / fair[name] for name in fair)
    bound = chi2.isf(FALSE_ALARM, len(fair) - 1)
    assert ncx2.sf(bound, len(fair) - 1, distance) > 0.99


def test_one_leak_in_200_is_found() -> None:
    """The chance that no leak shows in all retain draws of one of the two samplers is nil."""
    assert (1 - 1 / 200) ** min(DRAWS, sampling.STEPS) < 1e-80


def test_the_assertion_fails_for_a_biased_sample_and_passes_for_a_fair_one() -> None:
    """The bound is applied in the right direction, and what cannot come is never accepted."""
    rng = np.random.default_rng(0)
    fair, skewed = shares(), biased("de", 1.1)
    expected = {name: DRAWS * share for name, share in fair.items()}
    even = dict(zip(fair, map(int, rng.multinomial(DRAWS, list(fair.values()))), strict=True))
    uneven = dict(zip(skewed, map(int, rng.multinomial(DRAWS, list(skewed.values()))), strict=True))
    distributed("S6", even, expected, "a fair sample")
    with pytest.raises(AssertionError, match="chi-square"):
        distributed("S6", uneven, expected, "a biased sample")
    assert chi_square(even | {"xx": 1}, expected) == float("inf")
