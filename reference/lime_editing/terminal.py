"""Progress on a terminal: a bar over the cells and one in each running cell, and a row of scores as a cell ends."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from .experiments import Listener, Progress
from .metrics import Scores


def lines(console: Console, every: float = 30.0) -> Listener:
    """A listener for one cell that writes to a log: a line when it begins something, and every so many seconds."""
    doing, last = "", 0.0

    def listen(said: Progress) -> None:
        nonlocal doing, last
        now = time.monotonic()
        if said.doing == doing and now - last < every and said.done < said.total:
            return
        doing, last = said.doing, now
        line = f"{said.cell} {said.doing} {said.done}/{said.total} {_numbers(said)}".rstrip()
        console.print(line, highlight=False, markup=False)

    return listen


class Watch:
    """A listener for run_grid; a context manager that owns the bars."""

    def __init__(self, console: Console, cells: int) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
        )
        self._all = self._bars.add_task("cells", total=cells, numbers="")
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}

    def __enter__(self) -> Watch:
        self._bars.start()
        header = f"{'acc, con, succ in percent':<40}{'en → all':^22} {'all → all':^22}"
        self._bars.console.print(header, highlight=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, said: Progress) -> None:
        now = time.monotonic()
        if said.doing in ("done", "kept"):
            task = self._tasks.pop(said.cell, None)
            if task is not None:
                self._bars.remove_task(task)
            took = f"{now - self._started[said.cell]:6.0f} s" if said.doing == "done" else "  kept"
            row = f"{said.cell:<40}{_row(said.scores)} {_row(said.all_scores)} {took}"
            self._bars.console.print(row, highlight=False)
            self._bars.advance(self._all)
            return
        if said.cell not in self._tasks:
            self._tasks[said.cell] = self._bars.add_task(said.cell, numbers="")
            self._started[said.cell] = now
        self._bars.update(
            self._tasks[said.cell],
            description=f"{said.cell} {said.doing}",
            completed=said.done,
            total=said.total,
            numbers=_numbers(said),
        )


def _numbers(said: Progress) -> str:
    numbers = "" if said.loss is None else f"loss {said.loss:.3f}"
    if said.scores is not None:
        numbers += f"  acc {said.scores.acc:.2f} con {said.scores.con:.2f} succ {said.scores.succ:.2f}"
    return numbers


def _row(scores: Scores | None) -> str:
    return " " * 22 if scores is None else "".join(f"{100 * v:7.2f}" for v in scores.as_dict().values()) + " "
