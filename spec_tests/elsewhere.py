"""What an implementation draws in other processes, under other values of PYTHONHASHSEED."""

from __future__ import annotations

import os
from typing import Any

import pytest

from . import probes
from .conformance import Implementation

#: What was told already, by the implementation, the base of a mutant, its interpreter and a hash seed.
_KNOWN: dict[tuple[str, str, str, str], Any] = {}
#: The environment's name for the implementation that mutants are put around.
_BASE = "SPEC_TESTS_MUTANTS_OF"


def told(implementation: Implementation, clause_id: str, *hash_seeds: str) -> dict[str, Any]:
    """{hash seed: {chapter: what is drawn there}}, from a process for each; each is asked only once."""
    from . import test_d_joint, test_s_sampling  # noqa: PLC0415  # they import this module

    if implementation.spelling is None:
        pytest.skip("not claimed: an injected object exists in this process only")
    found = {}
    for seed in hash_seeds:
        key = implementation.spelling, os.environ.get(_BASE, ""), implementation.python or "", seed
        if key not in _KNOWN:
            with probes.elsewhere(implementation, PYTHONHASHSEED=seed) as other:
                draws = {"S": test_s_sampling.everything, "D": test_d_joint.everything}
                _KNOWN[key] = {chapter: draw(other) for chapter, draw in draws.items() if chapter in other.claims}
        found[seed] = _KNOWN[key]
    return found
