"""A pytest plugin for mutmut's runs: which tests reach which function, and in which order they judge a mutant of it."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from mutmut.state import state

#: mutmut's own record; tests run in the folder where it keeps it.
STATS = Path("mutmut-stats.json")
REACHED: dict[str, set[str]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, Any, Any]:
    """Keep which functions a fixture reaches: mutmut sees only the first of the tests that share it."""
    so_far = set(state()._stats)
    state()._stats.clear()
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function":
            REACHED[fixturedef.argname] = set(state()._stats)
        state()._stats.update(so_far)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    for name in getattr(item, "fixturenames", ()):
        state()._stats.update(REACHED.get(name, ()))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quickest first, and those of chapter S that draw 45,000 times last."""
    if STATS.exists():
        seconds = json.loads(STATS.read_text(encoding="utf-8"))["duration_by_test"]
        items.sort(key=lambda item: (_is_statistical(item), seconds.get(item.nodeid, 0.0)))


def _is_statistical(item: pytest.Item) -> bool:
    return any("S10" in mark.args for mark in item.iter_markers("clause"))
