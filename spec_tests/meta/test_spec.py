"""SPEC.md, the tests and the border belong together."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import golden, test_r_reproduction
from ..conformance import HERE, chapter_titles, clauses, version
from ..contract import CAPABILITIES, EDITORS, NAMES

SUITE = sorted(HERE.glob("test_*.py"))
ROOT = HERE.parent
REFERENCE = sorted((ROOT / "reference").rglob("*.py"))


def functions_in(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def arguments_of(test: ast.FunctionDef, decorator: str) -> list[str]:
    """The strings given to a decorator, `clause` or `golden.cases`."""
    found = []
    for node in test.decorator_list:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == decorator:
            found += [ast.literal_eval(argument) for argument in node.args]
    return found


def named_clauses(test: ast.FunctionDef) -> set[str]:
    functions = arguments_of(test, "golden.cases")
    return {*arguments_of(test, "clause"), *(c["clause"] for c in golden.all_cases() if c["function"] in functions)}


TESTS = [pytest.param(test, id=f"{path.stem}::{test.name}") for path in SUITE for test in functions_in(path)]


def test_spec_has_numbered_clauses() -> None:
    """Every chapter counts its clauses upwards; a gap is a number that no implementation can be asked about."""
    numbers: dict[str, list[int]] = {}
    for name, clause in clauses().items():
        assert clause.sentence.endswith("."), name
        numbers.setdefault(clause.chapter, []).append(int(name[1:]))
    assert set(numbers) == set(NAMES) == set(chapter_titles())
    assert all(values == sorted(values) for values in numbers.values())


def test_every_clause_says_since_when() -> None:
    """A version of the specification, which the changelog has; a clause that changed is named there."""
    changes = (HERE / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = dict(re.findall(r"^## (\d+\.\d+)\n(.*?)(?=^## |\Z)", changes, flags=re.MULTILINE | re.DOTALL))
    assert next(iter(parts)) == version(), "the newest version comes first"
    for name, clause in clauses().items():
        assert clause.since in parts, f"{name} does not say since which version it is there"
        if clause.changed:
            assert float(clause.changed) > float(clause.since)
            assert f"**{name}**" in parts[clause.changed]


def test_every_clause_has_a_test() -> None:
    """No clause is a mere wish."""
    tested = {name for path in SUITE for test in functions_in(path) for name in named_clauses(test)}
    assert set(clauses()) - tested == set()


@pytest.mark.parametrize("test", TESTS)
def test_every_test_names_existing_clauses(test: ast.FunctionDef) -> None:
    """A test outside the specification judges nobody."""
    named = named_clauses(test)
    assert named
    assert named <= set(clauses())
    assert set(arguments_of(test, "needs")) <= {*NAMES, *CAPABILITIES, *EDITORS}


@pytest.mark.parametrize("test", TESTS)
def test_every_test_states_its_law(test: ast.FunctionDef) -> None:
    """The docstring is the law, and the name states a fact."""
    assert ast.get_docstring(test)
    assert "should" not in test.name


@pytest.mark.parametrize("path", sorted(HERE.rglob("*.py")), ids=lambda path: str(path.relative_to(HERE)))
def test_the_suite_imports_no_implementation(path: Path) -> None:
    """The suite knows the contract alone; adapters are implementations, and the suite does not know them either."""
    imported = imports(path)
    assert not [name for name in imported if name.partition(".")[0] == HERE.name], "the folder may have another name"
    assert not [name for name in imported if name.partition(".")[0] in ("lime_editing", "reference")]
    if path.parent == HERE:
        assert not [name for name in imported if name.startswith((".adapters", "..adapters"))]


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_reference_imports_nothing_of_the_suite(path: Path) -> None:
    """What is judged shares no code with what judges it."""
    assert not [name for name in imports(path) if name.partition(".")[0] == "spec_tests"]


def imports(path: Path) -> set[str]:
    """All modules that a file imports, and what it takes from them; an import of its own package begins with a dot."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {module, *(f"{module}.{name.name}" for name in node.names)}
    return found


def test_the_independent_adapter_knows_no_oracle() -> None:
    """An adapter that shared code with the suite would agree with it in its errors."""
    tree = ast.parse((HERE / "adapters" / "numpy_core.py").read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}
    assert modules == {"contract"}


def test_the_preset_is_that_of_the_table() -> None:
    """R1's numbers stand in SPEC.md for readers and in the test for implementations: they are the same."""
    table = (HERE / "SPEC.md").read_text(encoding="utf-8").split("**R1**")[1].split("**R2**")[0]
    pairs = re.findall(r"\| `(\w+)` \| ([\d.,e-]+) ", table)
    assert {name: float(value.replace(",", "")) for name, value in pairs} == test_r_reproduction.PAPER
    assert len(pairs) == len(test_r_reproduction.PAPER)
