"""Finished cells, grouped into sections: the cells that one table may hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import results
from ..core.metrics import Array, Counts, Scores, scores
from ..errors import DataError
from ..names import APPROACHES, PROTOCOLS, TASKS, TRAININGS

Key = tuple[str, str | None]  # approach, training


@dataclass(frozen=True, slots=True)
class Run:
    """One finished cell: its folder, what cell.json says, and its evaluations."""

    folder: Path
    record: Mapping[str, Any]
    judged: Mapping[str, Counts]


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """All cells of one task, protocol and scope. Sections are compared by identity."""

    slug: str  # part of file names, and the anchor on the page
    title: str
    scope: Mapping[str, Any]  # results.scope
    runs: Mapping[Key, Mapping[int, Run]]  # (approach, training) → seed → run, in the paper's order

    @property
    def seeds(self) -> str:
        """The numbers of seeds of the trained editors, such as "3" or "3 to 5"; "1" if there is none."""
        numbers = sorted({len(runs) for (_, training), runs in self.runs.items() if training} or {1})
        return " to ".join(map(str, numbers[:1] + numbers[1:][-1:]))

    @property
    def records(self) -> list[Mapping[str, Any]]:
        return [run.record for runs in self.runs.values() for run in runs.values()]

    @property
    def approaches(self) -> dict[str, str]:
        """Each approach with the title from its cells, in the order of the tables."""
        return {name: next(iter(runs.values())).record["titles"]["approach"] for (name, _), runs in self.runs.items()}

    def judged(self, evaluation: str, omits: Sequence[str] = ()) -> Iterator[tuple[Key, dict[int, Run]]]:
        """The runs with this evaluation, by seed, of each approach and training without the omitted trainings."""
        for key, runs in self.runs.items():
            there = {seed: run for seed, run in runs.items() if evaluation in run.judged}
            if there and key[1] not in omits:
                yield key, there


def read(folders: Iterable[Path]) -> list[Section]:
    """The sections of finished cells, in the paper's order, then by name. DataError: cells that do not fit together."""
    scopes: dict[str, list[Run]] = {}
    for folder in folders:
        if not results.is_done(folder):
            raise DataError(f"{folder}: is no finished cell; it needs cell.json, rows.parquet and metrics.json")
        run = Run(folder, results.read_record(folder), results.read_rows(folder / "rows.parquet"))
        if not _agree(results.read_metrics(folder), run.judged):
            other = "its metrics.json and its rows.parquet are of different evaluations"
            raise DataError(f"{folder}: {other}; {results.remedy(folder / 'rows.parquet')}")
        scopes.setdefault(results.digest(results.scope(run.record)), []).append(run)
    sections: dict[str, Section] = {}
    # Only the largest section of a task and protocol has a name without digest.
    for digest, runs in sorted(scopes.items(), key=lambda item: (-len(item[1]), item[0])):
        scope = results.scope(runs[0].record)
        task, protocol = scope["task"], scope["protocol"]
        slug = re.sub(r"[^\w-]", "-", task if protocol == "paper" else f"{task}-{protocol}")
        title = f"{runs[0].record['titles']['task']}, protocol “{protocol}”"
        if slug in sections:
            slug, title = f"{slug}-{digest[:6]}", f"{title}, other settings ({digest[:6]})"
        sections[slug] = Section(slug, title, scope, _arrange(runs))

    def order(section: Section) -> tuple[Any, ...]:
        return rank(TASKS, section.scope["task"]), rank(PROTOCOLS, section.scope["protocol"]), section.slug

    return sorted(sections.values(), key=order)


def trained(training: str | None) -> str:
    """The title of a training in tables and figures."""
    return TRAININGS[training].title if training and training in TRAININGS else training or ""


def named(title: str, training: str | None) -> str:
    """An approach by its title, with its training if it has one."""
    return ", ".join(filter(None, (title, trained(training))))


def own_and_other(counts: Array, own: NDArray[np.bool_]) -> Array:
    """Columns acc on update inputs in the edit's own language, and in all other languages."""
    update = counts[:, 0]
    return np.stack([(update * own).sum(1), (update * ~own).sum(1)], axis=1)


def rank(known: Iterable[str | None], value: str | None) -> tuple[int, str]:
    """A sort key: known values in their order, then the others by name."""
    order = list(known)
    return (order.index(value) if value in order else len(order)), value or ""


def _agree(stored: Mapping[str, Scores], judged: Mapping[str, Counts]) -> bool:
    """Whether scores are those of the rows beside them, up to rounding."""
    if stored.keys() != judged.keys():
        return False
    return all(np.allclose(astuple(told), astuple(scores(judged[name])), 0, 1e-9) for name, told in stored.items())


def _arrange(runs: Sequence[Run]) -> dict[Key, dict[int, Run]]:
    def order(run: Run) -> tuple[Any, ...]:
        cell = run.record["cell"]
        return rank(APPROACHES, cell["approach"]), rank((None, *TRAININGS), cell["training"]), cell["seed"]

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
            alike = judged.edits == other.edits and judged.languages == other.languages
            if not alike or not np.array_equal(judged.asked, other.asked):
                raise DataError(f"{folder} and {run.folder} were asked different questions in {name!r}; remove one")
    return result
