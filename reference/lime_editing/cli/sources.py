"""A command's data, model and scale, and checks of its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .. import data
from ..data import Dataset
from ..editors import methods
from ..errors import UserError
from ..reproduce.scales import FIXTURES, SCALES, Scale, TaskScale, override
from .options import Sources, flag
from .output import here


def given(options: Sources, scale: Scale, dataset: Dataset) -> tuple[str, str, bool]:
    """(data, model, whether that model can be edited without fine-tuning); the defaults are the scale's."""
    raw = options.raw_model or (None if options.model or not dataset.classifies else scale.raw_classifier)
    source, model = options.data.get(dataset.name, scale.data.get(dataset.name)), raw or options.model or scale.model
    for what, value in ((dataset.name, source), ("raw-model" if dataset.classifies else "model", model)):
        if value is None:
            raise UserError(f"the scale has no data for the task {dataset.name}; give {flag(dataset.name)} SOURCE")
        if Path(value).is_relative_to(FIXTURES) and not Path(value).exists():
            told = f"{value}: the scale {scale.name} works on fixtures/ of the repository, which is not here"
            raise UserError(f"{told}; give {flag(what)} of your own, or run in a clone")
    found = here(str(source), options.offline, dataset.patterns)
    return found, model, raw is not None or not dataset.classifies


def refuse_unused(options: Sources, tasks: Sequence[str]) -> None:
    """UserError: none of these tasks uses a given data set or model."""
    kinds = {data.find(task).classifies for task in tasks}
    unused = [flag(name) for name in options.data if name not in tasks]
    unused += ["--raw-model"] if options.raw_model and True not in kinds else []
    if unused:
        raise UserError(f"{unused[0]} has no effect on the task {', '.join(tasks)}; leave it out")
    if options.model and options.raw_model and False not in kinds:
        raise UserError(f"--model has no effect on the task {', '.join(tasks)} beside --raw-model; leave it out")


def scale_of(
    name: str, changes: Sequence[tuple[str, str]] = (), edited_layers: int | tuple[str, ...] | None = None
) -> Scale:
    """A scale with changed values. An editor that it does not know has its own defaults."""
    scale, tasks = SCALES[name], dict[str, TaskScale]()
    defaults = {approach: method.Settings() for approach, method in methods().items()} if changes else {}
    for task, one in scale.tasks.items():
        changed = replace(one, settings={**defaults, **one.settings})
        for path, value in changes:
            changed = override(changed, path, value)
        tasks[task] = replace(changed, edited_layers=edited_layers or changed.edited_layers)
    return replace(scale, name=f"{name}-changed" if changes else name, tasks=tasks)
