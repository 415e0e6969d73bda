"""Right implementations that differ in what the specification leaves free: each has to conform."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from .shown import shown
from .variations import VARIATIONS

_MEND = (
    "identity_on or size_of_a_gradient or row_is or one_transform or shared_parameter or rate_starts or outer_products"
)
_TRAINED = "owner or moves or descends or base_editor or objective_of_its_own"
_SERIES = "model_so_far or sum_of_its_edits or edit_the_others"
_MASKED = "mask or gates or penalty or permuting or confirms"
#: The files and the tests in them that could notice a variation.
ASKED: dict[str, tuple[str, str]] = {
    "mend of one block": ("e", f"{_MEND} or {_TRAINED}"),
    "mend of eight blocks": ("e", f"{_MEND} or moves"),
    "mend with a number for a scale": ("e", f"{_MEND} or {_TRAINED}"),
    "mend without scale and shift": ("e", f"{_MEND} or moves"),
    "masks in one table": ("ae", f"({_MASKED} or {_TRAINED}) and not knowledge_editor"),
    "log alpha held within log 100": ("ae", f"(test_a_masks or {_MASKED} or {_TRAINED}) and not knowledge_editor"),
    "float32 throughout": (
        "tmaelrc",
        "not knowledge_editor and not tables and not preset and not shared",
    ),
    "NumPy's numbers and tuples": ("tmsdrl", "not knowledge_editor and not uniform and not drawn"),
    "an optimiser for each parameter": ("e", f"({_TRAINED}) and not knowledge_editor"),
    "a step with every fourth call": ("etl", f"{_TRAINED} or trains or raw or total"),
    "another learning rate": ("e", "descends"),
    "one vector of parameters": (
        "aelc",
        f"({_MASKED} or {_TRAINED} or {_SERIES} or trained or {_MEND} or gradient) and not knowledge_editor",
    ),
    "theta' formed once for a call": ("be", "factors or size_of_a_matrix or in_a_batch"),
    "drawn with replacement": ("s", "test_s_sampling"),
}


@dataclass(frozen=True)
class Run:
    returncode: int
    passed: int
    stdout: str


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    """All runs of this file."""
    passed = "sum(result.outcome == 'passed' for result in injected.results)"
    imports = "from spec_tests.meta.variations import VARIATIONS"
    return {name: Run(*values) for name, values in shown(ASKED, imports, "VARIATIONS[name]()", passed).items()}


def test_every_variation_is_asked() -> None:
    """One that no test is asked of shows nothing."""
    assert list(ASKED) == list(VARIATIONS)


@pytest.mark.parametrize("name", VARIATIONS)
def test_a_right_variation_conforms(runs: dict[str, Run], name: str) -> None:
    """What the specification leaves free is no violation, and some tests that could notice it passed."""
    assert runs[name].returncode == 0, runs[name].stdout[-4000:]
    assert runs[name].passed >= 2
