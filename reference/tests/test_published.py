"""The published numbers belong to the code that is here, or the page says that they do not."""

from __future__ import annotations

import json
from pathlib import Path

from lime_editing import results

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "results" / "tiny" / "tables.json"
STALE = "made by an earlier version of the code"


def test_published_results_belong_to_the_code_or_the_page_says_so() -> None:
    made = {digest for section in json.loads(TABLES.read_text("utf-8")).values() for digest in section["code"]}
    stale = made != {results.code_digest()}
    assert (STALE in (ROOT / "docs" / "results.md").read_text("utf-8")) == stale, (
        f"results/tiny is by code {', '.join(sorted(made))}, and this is {results.code_digest()}: make them again "
        f"(docs/results.md has the commands), or let docs/results.md say that they were {STALE!r}"
    )
