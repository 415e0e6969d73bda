"""Progress of cells: bars on a terminal, lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..core.metrics import Scores
from ..reproduce.cells import Status


def lines(console: Console, statuses: Iterable[Status], every: float = 30.0) -> None:
    """Read the statuses of one cell; print a line when it begins something, and every so many seconds."""
    doing, last = "", 0.0
    for status in statuses:
        now = time.monotonic()
        if status.doing == doing and now - last < every and status.done < status.total:
            continue
        doing, last = status.doing, now
        line = f"{status.cell} {status.doing} {status.done}/{status.total} {_numbers(status)}".rstrip()
        console.print(line, highlight=False, markup=False)


def watch(console: Console, cells: int, statuses: Iterable[Status]) -> None:
    """Read the statuses of many cells: a bar for all, one for each running cell, and a printed row at its end."""
    started: dict[str, float] = {}
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[numbers]}"), console=console) as bars:
        everything = bars.add_task("cells", total=cells, numbers="")
        header = f"{'acc, con, succ in percent':<40}{'en → all':^22} {'all → all':^22}"
        bars.console.print(header, highlight=False)
        for status in statuses:
            if status.doing in ("done", "kept"):
                if status.cell in tasks:
                    bars.remove_task(tasks.pop(status.cell))
                began = started.get(status.cell, time.monotonic())
                took = f"{time.monotonic() - began:6.0f} s" if status.doing == "done" else "  kept"
                row = f"{status.cell:<40}{_row(status.scores)} {_row(status.all_scores)} {took}"
                bars.console.print(row, highlight=False)
                bars.advance(everything)
                continue
            if status.cell not in tasks:
                tasks[status.cell] = bars.add_task(status.cell, numbers="")
                started[status.cell] = time.monotonic()
            bars.update(
                tasks[status.cell],
                description=f"{status.cell} {status.doing}",
                completed=status.done,
                total=status.total,
                numbers=_numbers(status),
            )


def _numbers(status: Status) -> str:
    numbers = "" if status.loss is None else f"loss {status.loss:.3f}"
    if status.scores is not None:
        numbers += f"  acc {status.scores.acc:.2f} con {status.scores.con:.2f} succ {status.scores.succ:.2f}"
    return numbers


def _row(scores: Scores | None) -> str:
    return " " * 22 if scores is None else "".join(f"{100 * v:7.2f}" for v in scores.as_dict().values()) + " "
