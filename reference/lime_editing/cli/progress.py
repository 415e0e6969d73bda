"""What a person sees while something runs: a spinner or bars on a terminal, lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..core.metrics import Scores
from ..reproduce.cells import Status
from .output import beating


def lines(console: Console, statuses: Iterable[Status]) -> None:
    """Read statuses; print a line when a cell begins something, and every 30 seconds where each of them is."""
    running: dict[str, Status] = {}

    def say(status: Status) -> None:
        console.print(f"{status.cell} {status.doing} {status.done}/{status.total} {_numbers(status)}".rstrip())

    def beat() -> None:
        for status in list(running.values()):
            say(status)

    with beating(beat):
        for status in statuses:
            before = running.get(status.cell)
            running[status.cell] = status
            if status.doing in ("done", "kept"):
                running.pop(status.cell)
            elif before is None or before.doing != status.doing:
                say(status)


def watch(console: Console, cells: int, statuses: Iterable[Status]) -> None:
    """Read the statuses of many cells, and print a row at the end of each: between bars on a terminal, or `lines`."""
    console.print(f"{'acc, con, succ in percent':<40}{'en → all':^22} {'all → all':^22}")
    started: dict[str, float] = {}

    def rows(console: Console) -> Iterator[Status]:
        for status in statuses:
            began = started.setdefault(status.cell, time.monotonic())
            if status.doing in ("done", "kept"):
                took = f"{time.monotonic() - began:6.0f} s" if status.doing == "done" else "  kept"
                console.print(f"{status.cell:<40}{_row(status.scores)} {_row(status.all_scores)} {took}")
            yield status

    if console.is_terminal:
        _bars(console, cells, rows)
    else:
        lines(console, rows(console))


def _bars(console: Console, cells: int, rows: Callable[[Console], Iterator[Status]]) -> None:
    """A bar for all cells, and one for each that runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, TextColumn("{task.fields[numbers]}"), console=console) as bars:
        everything = bars.add_task("cells", total=cells, numbers="")
        for status in rows(bars.console):
            if status.doing in ("done", "kept"):
                if status.cell in tasks:
                    bars.remove_task(tasks.pop(status.cell))
                bars.advance(everything)
                continue
            if status.cell not in tasks:
                tasks[status.cell] = bars.add_task(status.cell, numbers="")
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
