"""Golden cases: fixtures/golden/*.json as parametrised tests. The files are made by fixtures/build_golden.py."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import numpy as np
import pytest

from .assertions import close, equal, holds, rejects
from .border import Handed
from .conformance import Implementation, clause
from .fixtures import FIXTURES

FOLDER = FIXTURES / "golden"
ARRAYS = {"w", "m", "log_alpha", "uniforms", "x", "delta", "grad_x", "grad_delta"}


class Case(TypedDict, total=False):
    name: str
    clause: str
    reason: str
    function: str
    input: dict[str, Any]
    expected: Any
    tolerance: float
    #: Other inputs or results under a declared alternative, by "ruling=alternative".
    input_under: dict[str, dict[str, Any]]
    expected_under: dict[str, Any]


@functools.cache
def all_cases() -> tuple[Case, ...]:
    files = sorted(path for path in FOLDER.glob("*.json") if path.name != "schema.json")
    return tuple(case for path in files for case in json.loads(path.read_text(encoding="utf-8"))["cases"])


def slug(text: str) -> str:
    """A text as a part of a test's id."""
    return re.sub(r"[^\w.]+", "-", text).strip("-")


def cases(*functions: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Parametrise a test by the cases of some functions, each under its own clause."""
    chosen = [case for case in all_cases() if case["function"] in functions]
    return pytest.mark.parametrize(
        "case", [pytest.param(c, id=slug(c["name"]), marks=clause(c["clause"])) for c in chosen]
    )


def check(implementation: Implementation, case: Case) -> None:
    """Call the case's function and compare with what is expected under the implementation's rulings."""
    arguments = _arguments(_under(implementation, case, "input"))
    expected = _under(implementation, case, "expected")
    function = getattr(implementation, case["function"])
    context = {"name": case["name"], "reason": case["reason"], "input": arguments}
    if isinstance(expected, dict) and "error" in expected:
        names = tuple(expected["error"])
        what = f"golden case {case['name']!r}"
        rejects(case["clause"], lambda: function(**arguments), names, what, case=context)
        return
    got = _named(case["function"], function(**arguments))
    where = f"golden case {case['name']!r}: {case['function']}"
    if isinstance(expected, dict) and "edits" in expected:
        _compare_pairs(case["clause"], got, expected, context)
    else:
        _compare(case, got, expected, where, context)


def _under(implementation: Implementation, case: Case, key: str) -> Any:
    for spelling, value in case.get(f"{key}_under", {}).items():  # type: ignore[attr-defined]
        ruling, _, alternative = spelling.partition("=")
        if implementation.ruling(ruling) == alternative:
            return value
    return case[key]  # type: ignore[literal-required]


def _arguments(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _arrays(value) if name in ARRAYS else value for name, value in raw.items()}


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _arrays(part) for key, part in value.items()}
    return None if value is None else Handed.out(np.array(value, dtype=np.float64))


def _named(function: str, result: Any) -> Any:
    """Results that are pairs, as dictionaries."""
    names = {"mask_penalty": ("value", "gradient"), "mask_factors": ("x", "delta")}
    return dict(zip(names[function], result, strict=True)) if function in names else result


def _compare(case: Case, got: Any, expected: Any, where: str, context: dict[str, Any]) -> None:
    """Numbers and arrays within the tolerance, dictionaries by their expected keys, ids as sets."""
    clause_id = case["clause"]
    if isinstance(expected, dict):
        for key, value in expected.items():
            if key == "succ" and clause_id in ("M1", "M2", "M4", "M5"):
                continue  # M6 has cases of its own
            holds(clause_id, key in got, f"{where} lacks {key}", expected=key, got=got, case=context)
            # What makes succ of the right acc and con is a matter of its own.
            owner = ("M9" if case["function"] == "aggregate" else "M6") if key == "succ" else clause_id
            _compare({**case, "clause": owner}, got[key], value, f"{where}[{key!r}]", context)
    elif isinstance(expected, bool):
        equal(clause_id, got, expected, where, case=context)
    elif isinstance(expected, list) and expected and isinstance(expected[0], str):
        equal(clause_id, sorted(got), sorted(expected), where, case=context)
    else:
        kind = "gates" if case["function"].startswith("gate") else "arrays"
        close(clause_id, got, expected, where, case.get("tolerance", kind), case=context)


def _compare_pairs(clause_id: str, got: Any, expected: Any, context: dict[str, Any]) -> None:
    """The edits of an evaluation as a set, and each edit's inputs by where they may come from and how many they are."""
    edits = sorted(pair["edit"] for pair in got)
    equal(clause_id, edits, sorted(expected["edits"]), "an evaluation has other edits", case=context)
    for pair in got:
        for role in ("update", "retain"):
            allowed = expected[role][pair["edit"]]
            stray = [name for name in pair[role] if name not in allowed["from"]]
            about = {"edit": pair["edit"], "case": context}
            equal(clause_id, stray, [], f"{role} inputs come from elsewhere", **about)
            fits = len(pair[role]) in allowed["counts"]
            what = f"an edit has another number of {role} inputs"
            holds(clause_id, fits, what, expected=allowed["counts"], got=len(pair[role]), **about)
