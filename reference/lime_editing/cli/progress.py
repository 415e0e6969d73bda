"""The output of a run: its plan, bars on a terminal, lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from ..core.metrics import Scores
from ..reproduce.cells import Status
from ..reproduce.plan import Plan
from .output import beating


def lines(console: Console, statuses: Iterable[Status]) -> None:
    """Read statuses. Print a line when a cell starts something, and the progress of each every 30 seconds."""
    running: dict[str, Status] = {}

    def say(*some: Status) -> None:
        for status in some:
            console.print(f"{status.cell} {status.doing} {status.done}/{status.total} {_numbers(status)}".rstrip())

    with beating(lambda: say(*running.values())):
        for status in statuses:
            before = running.get(status.cell)
            running[status.cell] = status
            if status.doing in ("done", "kept"):
                running.pop(status.cell)
            elif before is None or before.doing != status.doing:
                say(status)


def watch(console: Console, cells: int, statuses: Iterable[Status]) -> None:
    """Read the statuses of many cells, and print a row for each finished one, with bars on a terminal, or `lines`."""
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
            shown: dict[str, Any] = {"description": f"{status.cell} {status.doing}", "numbers": _numbers(status)}
            bars.update(tasks[status.cell], completed=status.done, total=status.total, **shown)


def _numbers(status: Status) -> str:
    numbers = "" if status.loss is None else f"loss {status.loss:.3f}"
    if status.scores is not None:
        numbers += f"  acc {status.scores.acc:.2f} con {status.scores.con:.2f} succ {status.scores.succ:.2f}"
    return numbers


def _row(scores: Scores | None) -> str:
    return " " * 22 if scores is None else "".join(f"{100 * v:7.2f}" for v in scores.as_dict().values()) + " "


def show_plan(console: Console, plan: Plan) -> None:
    table = Table("cell", "state", *_right("edits trained", "edits judged", "time", "memory", "disk"), box=None)
    for cell in plan.cells:
        edits = f"{cell.trained:,}", f"{cell.judged:,}"
        numbers = (*edits, span(cell.seconds), decimal(cell.memory), decimal(cell.disk))
        done = cell.state == "done"
        table.add_row(cell.cell, cell.state, *(() if done else numbers), style="dim" if done else None)
    console.print(table)
    if plan.measured:
        per = Table("measured, per edit", *_right("trained", "judged"), box=None)
        for one in plan.measured:
            per.add_row(one.approach, f"{1e3 * one.train:.3g} ms" if one.train else "", f"{1e3 * one.judge:.3g} ms")
        console.print("", per)
    ended, total = sum(cell.state == "done" for cell in plan.cells), plan.as_dict()
    console.print(
        f"\n{len(plan.cells)} cells, {ended} of them done. The rest, {plan.jobs} at a time on {plan.device}, if no "
        f"training stops early: about {span(total['seconds'])}, {decimal(total['memory'])} of tensors on the device, "
        f"and {decimal(total['disk'])} of disk, where {decimal(plan.disk_free)} are free. Nothing was run."
    )


def _right(*names: str) -> list[Any]:
    return [Column(name, justify="right") for name in names]


def span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
