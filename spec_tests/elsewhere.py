"""What an implementation draws in other processes, under other values of PYTHONHASHSEED."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from .assertions import holds
from .conformance import Implementation, load

_CODE = "import sys; from {package} import elsewhere; elsewhere.tell(sys.argv[1])"
#: What was told already, by the spelling of an implementation, its base and a hash seed.
_KNOWN: dict[tuple[str, str, str], Any] = {}
#: The environment's name for the implementation that mutants are put around.
_BASE = "SPEC_TESTS_MUTANTS_OF"


def told(implementation: Implementation, clause_id: str, *hash_seeds: str) -> dict[str, Any]:
    """{hash seed: {chapter: what is drawn there}}, from a process for each, all at once; each is asked only once."""
    if implementation.spelling is None:
        pytest.skip("not claimed: an injected object exists in this process only")
    spelling = implementation.spelling
    key = {seed: (spelling, os.environ.get(_BASE, ""), seed) for seed in hash_seeds}
    running = {seed: _start(spelling, seed) for seed in hash_seeds if key[seed] not in _KNOWN}
    for seed, process in running.items():
        printed, complaints = process.communicate(timeout=300)
        failed = process.returncode
        holds(clause_id, not failed, f"a process under PYTHONHASHSEED={seed}", expected=0, got=complaints[-2000:])
        _KNOWN[key[seed]] = json.loads(printed.splitlines()[-1])
    return {seed: _KNOWN[key[seed]] for seed in hash_seeds}


def _start(spelling: str, hash_seed: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _CODE.format(package=__package__), spelling]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def tell(spelling: str) -> None:
    """Print what the claimed chapters draw, as JSON; the work of the other process."""
    from . import test_d_joint, test_s_sampling  # noqa: PLC0415  # they import this module

    implementation = load(spelling)
    found: dict[str, Any] = {}
    if "S" in implementation.claims:
        found["S"] = test_s_sampling.everything(implementation)
    if "D" in implementation.claims:
        found["D"] = test_d_joint.everything(implementation)
    print(json.dumps(found))
