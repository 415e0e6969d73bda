"""The published numbers belong to the code that is here, or the page says that they do not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lime_editing import results

ROOT = Path(__file__).parents[2]
STALE = "made by an earlier version of the code"


def of_tables() -> set[str]:
    sections = json.loads((ROOT / "results" / "tiny" / "tables.json").read_text("utf-8")).values()
    return {digest for section in sections for digest in section["code"]}


def of_many() -> set[str]:
    return set(re.findall(r", code (\w+)\.", (ROOT / "results" / "many" / "many.md").read_text("utf-8")))


@pytest.mark.parametrize(("stored", "page"), [(of_tables, "results.md"), (of_many, "many-edits.md")])
def test_published_results_belong_to_the_code_or_the_page_says_so(stored: Callable[[], set[str]], page: str) -> None:
    made, now = stored(), results.code_digest()
    assert (STALE in (ROOT / "docs" / page).read_text("utf-8")) == (made != {now}), (
        f"the results of docs/{page} are by code {', '.join(sorted(made))}, and this is {now}: make them again (the "
        f"page has the commands), or let it say that they were {STALE!r}"
    )
