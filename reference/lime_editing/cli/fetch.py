"""Data at an address or on the hub, fetched before they are read. Nothing heavy is imported here."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ..data import download


def here(source: str, offline: bool, hub: bool) -> str:
    """The data at `source` on this machine, fetched first where it is an address, or (`hub`) facts of the hub."""
    if not download.is_address(source):
        return download.locate(source, offline) if hub else source
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fetching", total=None)
        return download.locate(source, offline, lambda done, total: bar.update(task, completed=done, total=total))
