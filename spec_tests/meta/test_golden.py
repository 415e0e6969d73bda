"""The golden files are well formed, belong to the contract, and are what their generator makes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from .. import golden
from ..conformance import clauses
from ..contract import NAMES, RULINGS

FILES = sorted(path for path in golden.FOLDER.glob("*.json") if path.name != "schema.json")
SCHEMA = json.loads((golden.FOLDER / "schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_match_the_schema(path: Path) -> None:
    """Every case says what it is about."""
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(path.read_text(encoding="utf-8")))


def test_the_schema_is_a_schema_and_refuses_strangers() -> None:
    """An unknown key is a mistake, not a comment."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    case = dict(golden.all_cases()[0]) | {"surprise": 1}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"$schema": "schema.json", "cases": [case]}, SCHEMA)


def test_names_are_unique() -> None:
    """A failing case is found by its name."""
    assert [name for name, count in Counter(c["name"] for c in golden.all_cases()).items() if count > 1] == []


def test_cases_belong_to_the_contract() -> None:
    """The function exists, the clause too, and alternatives are those of a ruling."""
    functions = {name for names in NAMES.values() for name in names}
    for case in golden.all_cases():
        assert case["function"] in functions
        assert case["clause"] in clauses()
        for spelling in [*case.get("expected_under", {}), *case.get("input_under", {})]:
            ruling, _, alternative = spelling.partition("=")
            assert alternative in RULINGS[ruling]


def test_every_case_is_run() -> None:
    """A function that no chapter asks for would leave its cases unread."""
    chapters = "".join(path.read_text(encoding="utf-8") for path in Path(golden.__file__).parent.glob("test_*.py"))
    asked = {name for part in chapters.split("@golden.cases(")[1:] for name in part.partition(")")[0].split('"')[1::2]}
    assert {case["function"] for case in golden.all_cases()} <= asked


def test_the_generator_makes_the_committed_files() -> None:
    """Nobody edits a golden value by hand."""
    command = [sys.executable, str(golden.FOLDER.parent / "build_golden.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
