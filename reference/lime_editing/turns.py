"""One thread at a time, where modules of a model carry hooks during a call."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
_LOCK = RLock()  # one for all models: two backbones of one model share its modules


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which other threads wait for. It changes no number, so it is no part of the code digest."""

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with _LOCK:
            return function(*args, **kwargs)

    return alone
