"""Tiny implementations on which the plugin is tried."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

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


right = _metrics()
wrong = _metrics(succ=_half)
crashing = _metrics(succ=_crash)
once_wrong = _metrics(succ=_Tiring())
misfit = _metrics(succ=_one_argument)
deviating = _metrics(RULINGS={"con_positions": "all"}, hit=numpy_core.hit_everywhere)
without_mend = _metrics(CLAIMS={"M", "E"}, EDITORS=("finetuning",))
unknown_editor = _metrics(EDITORS=("rome",))
undecided = _metrics(RULINGS={"con_positions": "some"})
boasting = _metrics(CLAIMS={"M", "X"})
empty = SimpleNamespace()
incomplete = _metrics()
del incomplete.succ
