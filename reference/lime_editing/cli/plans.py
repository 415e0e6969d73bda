"""The plan of `reproduce --dry-run`, printed."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Column, Table

from ..reproduce.plan import Plan


def write(console: Console, plan: Plan) -> None:
    """The plan for a person."""
    table = Table("cell", "state", *_right("edits trained", "edits judged", "time", "memory", "disk"), box=None)
    for cell in plan.cells:
        numbers = (
            f"{cell.trained:,}",
            f"{cell.judged:,}",
            span(cell.seconds),
            decimal(cell.memory),
            decimal(cell.disk),
        )
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
    """Seconds as a person reads them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
