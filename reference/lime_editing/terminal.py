"""Progress on a terminal: one bar per running cell, and a line as each one ends."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from .experiments import Progress


class Watch:
    """A listener for run_grid; a context manager that owns the bars."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}

    def __enter__(self) -> Watch:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, said: Progress) -> None:
        now = time.monotonic()
        if said.cell not in self._tasks:
            self._tasks[said.cell] = self._bars.add_task(said.cell, numbers="")
            self._started[said.cell] = now
        task = self._tasks[said.cell]
        if said.doing == "done":
            self._bars.remove_task(task)
            self._bars.console.print(f"{said.cell}: done after {now - self._started[said.cell]:.0f} s")
            return
        numbers = "" if said.loss is None else f"loss {said.loss:.3f}"
        if said.scores is not None:
            numbers += f"  acc {said.scores.acc:.2f} con {said.scores.con:.2f} succ {said.scores.succ:.2f}"
        self._bars.update(
            task, description=f"{said.cell} {said.doing}", completed=said.done, total=said.total, numbers=numbers
        )
