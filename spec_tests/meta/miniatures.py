"""Tiny implementations on which the plugin is tried."""

from __future__ import annotations

import os
import sys
import time
import unittest
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ..adapters import numpy_core


def _metrics(**changes: Any) -> SimpleNamespace:
    names = ("succ", "hit", "metrics", "breakdown", "aggregate")
    return SimpleNamespace(**{name: getattr(numpy_core, name) for name in names} | changes)


def _half(acc: float, con: float) -> float:
    return (acc + con) / 2


def _crash(acc: float, con: float) -> float:
    return {"acc": acc, "con": con}["succ"]


class _Tiring:
    """Right for the first seed's examples, and wrong from the thirtieth call on."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, acc: float, con: float) -> float:
        self.calls += 1
        return numpy_core.succ(acc, con) + (self.calls > 30)


def _one_argument(acc: float) -> float:
    return acc


def _raising(error: BaseException) -> Any:
    def succ(acc: float, con: float) -> float:
        raise error

    return succ


def _sleeping(acc: float, con: float) -> float:
    time.sleep(60)
    return numpy_core.succ(acc, con)


def _stubborn(acc: float, con: float) -> float:
    """Goes on for some seconds whatever is raised in it."""
    end = time.monotonic() + 3
    while time.monotonic() < end:
        try:
            for _ in range(1000):
                pass
        except Exception:
            continue
    return numpy_core.succ(acc, con)


def _stuck(acc: float, con: float) -> float:
    """Waits where neither a signal nor an exception gets through."""
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


def _warning(acc: float, con: float) -> float:
    warnings.warn("succ will be removed in 1.99", FutureWarning, stacklevel=2)
    return numpy_core.succ(acc, con)


def _interrupted(acc: float, con: float) -> float:
    raise KeyboardInterrupt


def _as_numpy(function: Any) -> Any:
    """Results as NumPy's numbers and tuples."""

    def strange(value: Any) -> Any:
        if isinstance(value, dict):
            return {np.str_(key): strange(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return tuple(strange(part) for part in value)
        if isinstance(value, bool):
            return np.bool_(value)
        return np.float32(value) if isinstance(value, float) else value

    return lambda *args, **kwargs: strange(function(*args, **kwargs))


right = _metrics()
wrong = _metrics(succ=_half)
crashing = _metrics(succ=_crash)
once_wrong = _metrics(succ=_Tiring())
misfit = _metrics(succ=_one_argument)
asserting = _metrics(succ=_raising(AssertionError("not in here")))
skipping = _metrics(succ=_raising(pytest.skip.Exception("not today")))
xfailing = _metrics(succ=_raising(pytest.xfail.Exception("as expected")))
unittest_skipping = _metrics(succ=_raising(unittest.SkipTest("not today")))
exiting = _metrics(succ=_raising(SystemExit(0)))
pytest_exiting = _metrics(succ=_raising(pytest.exit.Exception("enough")))
verbose = _metrics(succ=_raising(ValueError("x" * 1_000_000)))
half_told = _metrics(metrics=lambda outcomes, languages=None: {"acc": 0.0, "con": 0.0})
leaving = _metrics(succ=lambda *_: os._exit(0))
sleeping = _metrics(succ=_sleeping)
stubborn = _metrics(succ=_stubborn)
stuck = _metrics(succ=_stuck)
interrupted = _metrics(succ=_interrupted)
warning = _metrics(succ=_warning)
strange = SimpleNamespace(**{name: _as_numpy(function) for name, function in vars(right).items()})
deviating = _metrics(RULINGS={"con_positions": "all"}, hit=numpy_core.hit_everywhere)
without_mend = _metrics(CLAIMS={"M", "E"}, EDITORS=("finetuning",))
unknown_editor = _metrics(EDITORS=("rome",))
undecided = _metrics(RULINGS={"con_positions": "some"})
boasting = _metrics(CLAIMS={"M", "X"})
hasty = _metrics(ACCUMULATES=0)
pleading = _metrics(CLAIMS=5)
spelled = _metrics(EDITORS="mend")
listed = _metrics(RULINGS=["penalty"])
empty = SimpleNamespace(CLAIMS=())
incomplete = _metrics()
del incomplete.succ


def __getattr__(name: str) -> Any:
    """A plug-in that ends the process as soon as something is asked of it."""
    if name == "ending":
        sys.exit("no licence found")
    raise AttributeError(name)
