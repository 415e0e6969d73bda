"""The reference says which version of the specification it follows, and stores it with each result."""

from __future__ import annotations

import re
from pathlib import Path

from lime_editing.names import SPECIFICATION
from lime_editing.results import DESCRIBING

SPEC = Path(__file__).parents[2] / "spec_tests" / "SPEC.md"


def test_the_version_is_that_of_the_text() -> None:
    """What `lime-spec --version` prints."""
    found = re.search(r"^Version (\d+\.\d+)\b", SPEC.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found
    assert found.group(1) == SPECIFICATION


def test_a_new_version_makes_no_stored_result_unusable() -> None:
    """It describes a result, and is no part of what the numbers depend on: the code digest is."""
    assert "specification" in DESCRIBING
