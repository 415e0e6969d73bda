"""RULINGS.md has an entry for each ruling of SPEC.md, and speaks of no other clauses than there are."""

from __future__ import annotations

import re

import pytest

from ..conformance import HERE, clauses
from ..contract import RULINGS

PAGE = (HERE / "RULINGS.md").read_text(encoding="utf-8")
#: An entry begins a line or a row of a table with the clauses that it is about: **D4, D5**.
ENTRIES = {
    clause: entry
    for entry in re.split(r"^(?=\*\*|\| \*\*|#)", PAGE, flags=re.MULTILINE)
    for named in re.findall(r"\A(?:\| )?\*\*((?:[A-Z]\d+(?:, )?)+)\*\*", entry)
    for clause in named.split(", ")
}


@pytest.mark.parametrize("clause", [name for name, clause in clauses().items() if "ruling" in clause.section])
def test_every_ruling_has_an_entry(clause: str) -> None:
    """Nobody has to guess why a clause was decided as it was."""
    assert clause in ENTRIES


@pytest.mark.parametrize("name", RULINGS)
def test_every_named_alternative_stands_in_the_entry_of_its_clause(name: str) -> None:
    """Whoever declares an alternative can look up what it does, by the clause that a report names."""
    (clause,) = [clause for clause, known in clauses().items() if name in known.rulings]
    assert [other for other in RULINGS[name][1:] if f'`{name} = "{other}"`' not in ENTRIES[clause]] == []


def test_the_page_names_existing_clauses() -> None:
    """A clause that was renumbered takes its mentions along."""
    chapters = "".join(sorted({clause[0] for clause in clauses()}))
    named = set(re.findall(rf"\b[{chapters}]\d+\b", PAGE))
    assert named >= set(ENTRIES)
    assert named - set(clauses()) == set()
