"""Both plain implementations as one that claims every chapter: NumPy for T M S A B D R, the textbook for E and L."""

from __future__ import annotations

from typing import Any

from ..contract import NAMES, OF_EDITOR
from . import numpy_core, textbook

CLAIMS = frozenset(NAMES)
EDITORS = textbook.EDITORS
_TEXTBOOK = {name for names in (NAMES["E"], NAMES["L"], *OF_EDITOR.values()) for name in names}


def __getattr__(name: str) -> Any:
    return getattr(textbook if name in _TEXTBOOK else numpy_core, name)
