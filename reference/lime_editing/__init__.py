"""Cross-lingual model editing: the public API. `__init__.pyi` lists its names.

A name is imported when it is first used, so that `import lime_editing` loads neither torch nor transformers.
"""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_FAULT = None if Path(__file__).is_file() else "lime_editing cannot be imported from an archive; unpack or install it"
if sys.version_info < (3, 11):  # noqa: UP036  # pip does not check this for a checkout
    _FAULT = f"lime_editing needs Python 3.11 or later, and this is {sys.version.split()[0]}"
if _FAULT:
    if sys.argv[:1] == ["-m"]:
        sys.exit(f"error: {_FAULT}")
    raise ImportError(_FAULT)


def _homes() -> dict[str, str]:
    """{public name: its module}."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: f".{node.module}" for node in imports for alias in node.names}


def __getattr__(name: str) -> Any:
    if name == "__all__":  # of `from lime_editing import *`
        return list(_homes())
    home = _homes().get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, getattr(import_module(home, __name__), name))


def __dir__() -> list[str]:
    return sorted([*_homes(), "__version__"])
