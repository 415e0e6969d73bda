"""What every command does before it loads anything: data on this machine, the model that is meant, options that fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from .. import data
from ..data import Dataset, download
from ..errors import UserError
from ..reproduce.scales import SCALES, Scale, TaskScale, override
from .options import Sources


def here(source: str, offline: bool, hub: bool) -> str:
    """The data at `source` on this machine, fetched first where it is an address, or (`hub`) facts of the hub."""
    if not download.is_address(source):
        return download.locate(source, offline) if hub else source
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fetching", total=None)
        return download.locate(source, offline, lambda done, total: bar.update(task, completed=done, total=total))


def given(options: Sources, scale: Scale, dataset: Dataset) -> tuple[str, str, bool]:
    """(data, model, whether that model can be edited as it is): what was named, or else the scale's own.

    UserError: the scale has no data for this task.
    """
    source = options.data.get(dataset.name, scale.data.get(dataset.name))
    if source is None:
        raise UserError(f"the scale has no data for the task {dataset.name}; give --{dataset.name} SOURCE")
    found = here(source, options.offline, hub=not dataset.classifies)
    if not dataset.classifies:
        return found, options.model or scale.model, True
    raw = options.raw_model or (None if options.model else scale.raw_classifier)
    return found, raw or options.model or scale.model, raw is not None


def refuse_unused(options: Sources, tasks: Sequence[str]) -> None:
    """UserError: data or a model that none of these tasks uses."""
    kinds = {data.find(task).classifies for task in tasks}
    unused = [f"--{name}" for name in options.data if name not in tasks]
    unused += ["--raw-model"] if options.raw_model and True not in kinds else []
    if unused:
        raise UserError(f"{unused[0]} has no effect on the task {', '.join(tasks)}; leave it out")
    if options.model and options.raw_model and False not in kinds:
        raise UserError(f"--model has no effect on the task {', '.join(tasks)} beside --raw-model; leave it out")


def scale_of(
    name: str, changes: Sequence[tuple[str, str]] = (), edited_layers: int | tuple[str, ...] | None = None
) -> Scale:
    """A scale with what was changed of it. UserError: no such value."""
    scale = SCALES[name]
    for path, value in changes:
        tasks: dict[str, TaskScale] = {task: override(one, path, value) for task, one in scale.tasks.items()}
        scale = replace(scale, name=f"{name}-changed", tasks=tasks)
    if edited_layers:
        tasks = {task: replace(one, edited_layers=edited_layers) for task, one in scale.tasks.items()}
        scale = replace(scale, tasks=tasks)
    return scale
