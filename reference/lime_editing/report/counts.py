"""Finished cells read back: what the tables, the intervals and the figures are computed from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import results
from ..core.metrics import Array, Counts
from ..errors import DataError
from ..names import APPROACHES, PROTOCOLS, TASKS, TRAININGS

Key = tuple[str, str | None]  # approach, training

#: Cells that differ in any of these, in the scale's name or in how they were judged, are never put into one table.
_SCOPE = ("protocol", "rulings", "languages", "data", "model", "parameters", "items", "split", "precision")
_REQUIRED = {*_SCOPE, "cell", "scale", "code", "device", "machine", "titles"}
#: The part of a scale's record that all cells have; the rest depends on the approach and its training.
_SCALE = ("name", "about", "edited_layers", "test")


@dataclass(frozen=True, slots=True)
class Run:
    """One finished cell: its folder, what cell.json says, and its evaluations."""

    folder: Path
    record: Mapping[str, Any]
    judged: Mapping[str, Counts]


@dataclass(frozen=True, slots=True)
class Section:
    """All cells of one task under one protocol and one scope: what may stand in one table."""

    slug: str  # part of file names
    title: str
    scope: Mapping[str, Any]
    runs: Mapping[Key, Mapping[int, Run]]  # (approach, training) → seed → run, in the paper's order

    @property
    def task(self) -> str:
        return str(self.scope["task"])

    @property
    def protocol(self) -> str:
        return str(self.scope["protocol"])

    @property
    def seeds(self) -> int:
        """The most seeds that a trained editor has; 1 where there is none."""
        return max((len(runs) for (_, training), runs in self.runs.items() if training), default=1)


def read(folders: Iterable[Path]) -> list[Section]:
    """Sections of finished cells, the task's largest first.

    DataError: a folder that is no finished cell, a cell that is there twice, or cells that were asked other questions.
    """
    scopes: dict[str, list[Run]] = {}
    for folder in folders:
        run = _read_run(folder)
        scopes.setdefault(results.digest(_scope(run.record)), []).append(run)
    sections: list[Section] = []
    for digest, runs in sorted(scopes.items(), key=lambda item: (-len(item[1]), item[0])):
        scope = _scope(runs[0].record)
        task, protocol = scope["task"], scope["protocol"]
        slug = task if protocol == "paper" else f"{task}-{protocol}"
        title = f"{TASKS.get(task, task)}, protocol “{protocol}”"
        if any(section.slug == slug for section in sections):
            slug, title = f"{slug}-{digest[:6]}", f"{title}, other settings ({digest[:6]})"
        sections.append(Section(slug, title, scope, _arrange(runs)))
    return sorted(sections, key=lambda s: (_rank(TASKS, s.task), _rank(PROTOCOLS, s.protocol), s.slug))


def own_and_other(counts: Array, own: NDArray[np.bool_]) -> Array:
    """Columns acc on update inputs in the edit's own language, and on those in all others."""
    update = counts[:, 0]
    return np.stack([(update * own).sum(1), (update * ~own).sum(1)], axis=1)


def _read_run(folder: Path) -> Run:
    if not results.is_done(folder):
        raise DataError(f"{folder}: is no finished cell; it needs cell.json, rows.parquet and metrics.json")
    record = results.read_json(folder / "cell.json")
    missing = _REQUIRED - record.keys() if isinstance(record, dict) else _REQUIRED
    if missing:
        raise DataError(f"{folder / 'cell.json'}: lacks {', '.join(sorted(missing))}; remove the folder and run again")
    return Run(folder, record, results.read_rows(folder / "rows.parquet"))


def _scope(record: Mapping[str, Any]) -> dict[str, Any]:
    scale = {name: record["scale"].get(name) for name in _SCALE}
    return {"task": record["cell"]["task"], "scale": scale, **{name: record[name] for name in _SCOPE}}


def _arrange(runs: Sequence[Run]) -> dict[Key, dict[int, Run]]:
    """Runs by approach, training and seed, in the paper's order."""

    def order(run: Run) -> tuple[int, int, int]:
        cell = run.record["cell"]
        return _rank(APPROACHES, cell["approach"]), _rank((None, *TRAININGS), cell["training"]), cell["seed"]

    result: dict[Key, dict[int, Run]] = {}
    first: dict[str, tuple[Counts, Path]] = {}
    for run in sorted(runs, key=order):
        cell = run.record["cell"]
        seeds = result.setdefault((cell["approach"], cell["training"]), {})
        twin = seeds.setdefault(cell["seed"], run)
        if twin is not run:
            raise DataError(f"{twin.folder} and {run.folder} are the same cell, run in two ways; remove one")
        sibling = next(iter(seeds.values()))
        if sibling.record["scale"] != run.record["scale"]:
            raise DataError(f"{sibling.folder} and {run.folder} differ in more than the seed; remove one")
        for name, judged in run.judged.items():
            other, folder = first.setdefault(name, (judged, run.folder))
            same = judged.edits == other.edits and judged.languages == other.languages
            if not same or not np.array_equal(judged.asked, other.asked):
                raise DataError(f"{folder} and {run.folder} were asked different questions in {name!r}; remove one")
    return result


def _rank(known: Iterable[Any], value: Any) -> int:
    """The position of a value in a known order; what is unknown comes last."""
    order = list(known)
    return order.index(value) if value in order else len(order)
