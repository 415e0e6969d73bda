"""The numbers that spec_tests/RULINGS.md prints are those that were measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reference.studies import rulings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "spec_tests" / "RULINGS.md").read_text(encoding="utf-8")
STORED = json.loads(rulings.PUBLISHED.read_text(encoding="utf-8"))
#: What is said of a measurement: a point of a list, or a row of a table, that names it in brackets.
SAID = [
    pytest.param(name, text, id=f"{name}-{i}")
    for i, text in enumerate(re.findall(r"^(?:- |\| ).*(?:\n  .*)*", PAGE, flags=re.MULTILINE))
    for name in re.findall(r"\(`(\w+)`\)", text)
]
#: Of clauses, sections and code nothing was measured.
NOT_MEASURED = re.compile(r"`[^`]*`|\b[A-Z]\d+\b|§\S+")
NUMBER = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def values(stored: Any) -> Iterator[float]:
    """All numbers of an entry."""
    if isinstance(stored, dict | list):
        for value in stored.values() if isinstance(stored, dict) else stored:
            yield from values(value)
    elif isinstance(stored, int | float):
        yield abs(stored)


def is_stored(number: str, stored: Any) -> bool:
    """Whether a printed number is one of these, rounded to what it shows."""
    plain = number.replace(",", "")
    if "e" in plain:
        return float(plain) in set(values(stored))
    digits = len(plain.partition(".")[2])
    return any(f"{value:.{digits}f}" == plain for value in values(stored))


@pytest.mark.parametrize(("name", "text"), SAID)
def test_every_printed_number_was_measured(name: str, text: str) -> None:
    """A number in an entry stands in the stored measurement that the entry names."""
    printed = NUMBER.findall(NOT_MEASURED.sub("", text))
    assert [number for number in printed if not is_stored(number, STORED["measurements"][name])] == []


def test_every_measurement_is_told() -> None:
    """Nothing is measured and left out: what changes nothing is a result too."""
    told = {name for param in SAID for name in param.values[:1]}
    in_table = {name for _, _, name, _ in rulings.ROWS}
    assert set(STORED["measurements"]) - told - in_table == set()


def test_the_table_is_the_stored_one() -> None:
    """The table is printed by the script that measures."""
    (table,) = re.findall(r"<!-- table -->\n+(.*?)\n+<!-- /table -->", PAGE, flags=re.DOTALL)
    assert table == rulings.table(STORED["measurements"])
