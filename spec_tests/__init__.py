"""The executable specification: clauses, contract, tests and the tests of the tests.

    from lime_spec import clauses

    test_clause = clauses("my_adapter", chapters="M,S")

makes each clause a test of one's own suite. Importing this package imports nothing else, so that it costs nothing where
an implementation runs in an interpreter of its own.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["clauses"]


def __getattr__(name: str) -> Any:
    if name == "clauses":
        return importlib.import_module(".own_suite", __name__).clauses
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
