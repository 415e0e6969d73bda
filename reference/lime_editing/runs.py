"""Finished cells read back as counts: what the tables, the intervals and the figures are computed from.

Shapes: N edits of an evaluation, 2 roles (update, retain), L languages of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from . import store
from .errors import DataError
from .metrics import Scores, succ

Array = NDArray[np.float64]
Key = tuple[str, str | None]  # approach, training

EN, ALL = "en → all", "all → all"

#: The paper's order, with the raw model first: it shows what an edit has to beat.
APPROACHES: Mapping[str, str] = {
    "unedited": "no edit",
    "finetuning": "Finetuning",
    "editable_training": "Editable Training",
    "knowledge_editor": "KnowledgeEditor",
    "mend": "MEND",
}
TRAININGS: Mapping[str | None, str] = {
    None: "",
    "en": "English only",
    "all": "all languages",
    "lime": "all languages + LiME",
    "shared": "all languages + one shared mask",
}
TASKS: Mapping[str, str] = {"facts": "Facts", "nli": "NLI"}

#: Cells that differ in any of these, in the preset's name or in how they were judged, are never put into one table.
_SCOPE = ("protocol", "rulings", "languages", "data", "model", "parameters", "items")
#: What all cells had in common before it was recorded.
_ONCE: Mapping[str, str] = {"precision": "float32", "split": "test"}
_REQUIRED = {*_SCOPE, "cell", "preset", "code", "device", "machine"}
#: The part of a preset that all cells have; the rest depends on the approach and its training.
_PRESET = ("name", "about", "edited_layers", "test")


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcomes of one evaluation of one cell, counted; edits in a fixed order, so that cells can be paired."""

    edits: tuple[tuple[str, str], ...]  # (editing language, edit), sorted
    inputs: tuple[str, ...]  # the L languages, sorted
    hits: Array  # (N, 2, L)
    asked: Array  # (N, 2, L)


@dataclass(frozen=True, slots=True)
class Run:
    """One finished cell: its folder, what cell.json says, and its evaluations."""

    folder: Path
    record: Mapping[str, Any]
    judged: Mapping[str, Judged]


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
        scopes.setdefault(store.digest(_scope(run.record)), []).append(run)
    sections: list[Section] = []
    for digest, runs in sorted(scopes.items(), key=lambda item: (-len(item[1]), item[0])):
        scope = _scope(runs[0].record)
        task, protocol = scope["task"], scope["protocol"]
        slug = task if protocol == "paper" else f"{task}-{protocol}"
        title = f"{TASKS.get(task, task)}, protocol “{protocol}”"
        if any(section.slug == slug for section in sections):
            slug, title = f"{slug}-{digest[:6]}", f"{title}, other settings ({digest[:6]})"
        sections.append(Section(slug, title, scope, _arrange(runs)))
    return sorted(sections, key=lambda s: (_rank(TASKS, s.task), _rank(("paper", "released"), s.protocol), s.slug))


def count(path: Path) -> dict[str, Judged]:
    """Stored rows as counts, without an object per row. DataError: a missing or broken file."""
    names = ("evaluation", "edit", "edit_language", "role", "language")
    try:
        table = pq.read_table(path, columns=[*names, "hit"])
        codes, values = {}, {}
        for name in names:
            encoded = table.column(name).combine_chunks().dictionary_encode()
            values[name] = encoded.dictionary.to_pylist()
            # Codes in the values' order, so that sorting codes sorts values.
            rank = np.argsort(np.argsort(np.array(values[name], dtype=object)))
            codes[name] = rank[encoded.indices.to_numpy()]
            values[name].sort()
        hit = table.column("hit").to_numpy().astype(np.float64)
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise DataError(f"{path}: cannot be read as a table of outcomes; remove the cell's folder") from error
    evaluations = {}
    for i, name in enumerate(values["evaluation"]):
        at = np.flatnonzero(codes["evaluation"] == i)
        pairs = codes["edit_language"][at] * len(values["edit"]) + codes["edit"][at]
        edits, edit = np.unique(pairs, return_inverse=True)
        languages, language = np.unique(codes["language"][at], return_inverse=True)
        role = np.array([r == "retain" for r in values["role"]])[codes["role"][at]]
        shape = (len(edits), 2, len(languages))
        cell = np.ravel_multi_index((edit, role.astype(np.int64), language), shape)
        evaluations[name] = Judged(
            tuple(
                (values["edit_language"][e // len(values["edit"])], values["edit"][e % len(values["edit"])])
                for e in edits.tolist()
            ),
            tuple(values["language"][code] for code in languages),
            _tally(cell, hit[at], shape),
            _tally(cell, np.ones(len(at)), shape),
        )
    return evaluations


Select = Callable[[Array, NDArray[np.bool_]], Array]


def in_all(counts: Array, own: NDArray[np.bool_]) -> Array:
    """Columns acc and con over all inputs."""
    return np.asarray(counts.sum(2))


def by_input(counts: Array, own: NDArray[np.bool_]) -> Array:
    """Columns acc of each language of the input, then con of each (→ l)."""
    return counts.reshape(len(counts), -1)


def own_and_other(counts: Array, own: NDArray[np.bool_]) -> Array:
    """Columns acc on update inputs in the edit's own language, and on those in all others."""
    update = counts[:, 0]
    return np.stack([(update * own).sum(1), (update * ~own).sum(1)], axis=1)


def rates(judged: Judged, select: Select) -> tuple[list[str], NDArray[np.intp], Array]:
    """Editing languages, the one of each edit, and one rate per edit and selected column (NaN: not asked)."""
    languages, of = np.unique([language for language, _ in judged.edits], return_inverse=True)
    own = np.array([[i == language for i in judged.inputs] for language, _ in judged.edits])
    asked = select(judged.asked, own)
    with np.errstate(invalid="ignore"):
        return languages.tolist(), of, select(judged.hits, own) / asked


def scores(judged: Judged) -> Scores:
    """metrics.scores, from counts."""
    languages, of, values = rates(judged, in_all)
    acc, con = np.mean([_mean(values[of == i]) for i in range(len(languages))], axis=0).tolist()
    return Scores(acc, con, succ(acc, con))


def breakdown(judged: Judged, by: str) -> dict[str, Scores]:
    """metrics.breakdown, from counts; a language that lacks a role is left out."""
    languages, of, values = rates(judged, in_all if by == "edit_language" else by_input)
    means = np.stack([_mean(values[of == i]) for i in range(len(languages))])
    if by == "language":
        there = ~np.isnan(means)
        total = np.where(there, means, 0).sum(0) / np.maximum(there.sum(0), 1)
        means = np.where(there.any(0), total, np.nan).reshape(2, -1).T
        languages = list(judged.inputs)
    pairs = zip(languages, means.tolist(), strict=True)
    return {name: Scores(acc, con, succ(acc, con)) for name, (acc, con) in pairs if not np.isnan([acc, con]).any()}


def _tally(cell: NDArray[np.intp], weights: Array, shape: tuple[int, int, int]) -> Array:
    return np.bincount(cell, weights, minlength=int(np.prod(shape))).astype(np.float64).reshape(shape)


def _mean(values: Array) -> Array:
    """The mean over edits; NaN where no edit was asked."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, values, 0).sum(0) / there.sum(0))


def _read_run(folder: Path) -> Run:
    if not store.is_done(folder):
        raise DataError(f"{folder}: is no finished cell; it needs cell.json, rows.parquet and metrics.json")
    record = store.read_json(folder / "cell.json")
    missing = _REQUIRED - record.keys() if isinstance(record, dict) else _REQUIRED
    if missing:
        raise DataError(f"{folder / 'cell.json'}: lacks {', '.join(sorted(missing))}; remove the folder and run again")
    return Run(folder, record, count(folder / "rows.parquet"))


def _scope(record: Mapping[str, Any]) -> dict[str, Any]:
    preset = {name: record["preset"].get(name) for name in _PRESET}
    same = {name: record[name] for name in _SCOPE} | {name: record.get(name, value) for name, value in _ONCE.items()}
    return {"task": record["cell"]["task"], "preset": preset, **same}


def _arrange(runs: Sequence[Run]) -> dict[Key, dict[int, Run]]:
    """Runs by approach, training and seed, in the paper's order."""

    def order(run: Run) -> tuple[int, int, int]:
        cell = run.record["cell"]
        return _rank(APPROACHES, cell["approach"]), _rank(TRAININGS, cell["variant"]), cell["seed"]

    result: dict[Key, dict[int, Run]] = {}
    first: dict[str, tuple[Judged, Path]] = {}
    for run in sorted(runs, key=order):
        cell = run.record["cell"]
        seeds = result.setdefault((cell["approach"], cell["variant"]), {})
        twin = seeds.setdefault(cell["seed"], run)
        if twin is not run:
            raise DataError(f"{twin.folder} and {run.folder} are the same cell, run in two ways; remove one")
        sibling = next(iter(seeds.values()))
        if sibling.record["preset"] != run.record["preset"]:
            raise DataError(f"{sibling.folder} and {run.folder} differ in more than the seed; remove one")
        for name, judged in run.judged.items():
            other, folder = first.setdefault(name, (judged, run.folder))
            same = judged.edits == other.edits and judged.inputs == other.inputs
            if not same or not np.array_equal(judged.asked, other.asked):
                raise DataError(f"{folder} and {run.folder} were asked different questions in {name!r}; remove one")
    return result


def _rank(known: Iterable[Any], value: Any) -> int:
    """The position of a value in a known order; what is unknown comes last."""
    order = list(known)
    return order.index(value) if value in order else len(order)
