"""The paper's tables from stored cells, for the terminal, and in markdown, LaTeX and JSON. paper.toml lists them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

import rich.table
from rich.table import Column
from rich.text import Text

from ..core.metrics import Scores, aggregate, scores
from ..names import ALL, EN
from .counts import Section, trained
from .findings import COMPARISONS, Judgement
from .template import render

#: What the paper has: its data sets, printed numbers, tables and figures, and the report's words about them.
PAPER: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("paper.toml").read_text(encoding="utf-8"))
#: Task → the paper's data set: its name, its number of languages (§4.4), and maybe a caveat on its numbers.
DATA_SETS: Mapping[str, Mapping[str, Any]] = PAPER["data_sets"]
#: Task, evaluation, approach, training: the printed scores (mBERT, means of three runs) as fractions.
PRINTED: Mapping[tuple[str, str, str, str | None], Scores] = {
    (task, evaluation, approach, training or None): Scores(*(percent / 100 for percent in row[at : at + 3]))
    for evaluation, rows in PAPER["printed"].items()
    for approach, training, *row in rows
    for task, at in (("facts", 0), ("nli", 3))
}
METRICS = ("acc", "con", "succ")
Part = tuple[Section, Judgement]
NOT_COMPARABLE = "another model, other data or another scale, so not comparable"


@dataclass(frozen=True, slots=True)
class Table:
    """One of the paper's tables: an evaluation, without the trainings of other tables."""

    name: str  # of the file
    title: str
    evaluation: str
    omits: tuple[str, ...]
    meaning: str


TABLES = tuple(Table(**told) for told in PAPER["tables"])


@dataclass(frozen=True, slots=True)
class Row:
    """One approach and training: its scores over seeds (clause M9), and the paper's scores, as fractions."""

    evaluation: str
    approach: str
    training: str | None
    seeds: int
    acc: float
    con: float
    succ: float
    deviation: Scores | None  # over seeds; None for one seed
    printed: Scores | None
    cells: Mapping[int, str]  # seed → the cell's folder (clause R3)

    def texts(self) -> list[str]:
        """acc, con and succ in percent, with the deviation if there are several seeds."""
        spread = [f" ± {text}" for text in _percent(self.deviation)] if self.deviation else ["", "", ""]
        return [value + text for value, text in zip(_percent(self), spread, strict=True)]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as plain text: two columns of words, then numbers."""

    title: str
    head: Sequence[str]
    body: Sequence[Sequence[str]]


def rows(section: Section, evaluation: str, omits: Sequence[str] = ()) -> list[Row]:
    """The rows of an evaluation without the omitted trainings, in the paper's order."""
    result = []
    for key, runs in section.judged(evaluation, omits):
        each = [scores(run.judged[evaluation]) for run in runs.values()]
        mean = aggregate(each)
        spread = Scores(*(stdev(getattr(s, name) for s in each) for name in METRICS)) if len(each) > 1 else None
        cells = {seed: run.folder.name for seed, run in runs.items()}
        printed = PRINTED.get((section.scope["task"], evaluation, *key))
        result.append(Row(evaluation, *key, len(each), mean.acc, mean.con, mean.succ, spread, printed, cells))
    return result


def scores_of(section: Section, table: Table) -> Grid:
    """One of the paper's tables; empty if no cell has this evaluation. Rows that the paper lacks are marked as ours."""
    body, (approaches, trainings) = [], ({key[i] for key in PRINTED} for i in (2, 3))
    for row in rows(section, table.evaluation, table.omits):
        title = section.approaches[row.approach] + " (ours)" * (row.approach not in approaches)
        training = trained(row.training) + " (ours)" * (row.training not in trainings)
        printed = [value + _mark(section) for value in _percent(row.printed)] if row.printed else ["", "", ""]
        body.append([title, training, *row.texts(), *printed])
    return Grid(table.title, ["Approach", "Trained on", *METRICS, *(f"paper: {name}" for name in METRICS)], body)


def _percent(scores: Scores | Row) -> list[str]:
    return [f"{100 * getattr(scores, name):.2f}" for name in METRICS]


def differences(section: Section, judgement: Judgement) -> Grid:
    found = {(d.approach, d.ours, d.theirs, d.evaluation): d for d in judgement.differences}
    body = []
    for approach, ours, theirs in dict.fromkeys(key[:3] for key in found):
        pair = [found.get((approach, ours, theirs, name)) for name in (EN, ALL)]
        seeds = str(max(d.seeds for d in pair if d))
        shown = [d.interval.points if d else "" for d in pair]
        body.append([section.approaches[approach], COMPARISONS[ours, theirs], *shown, seeds])
    head = ["Approach", "Comparison", f"succ, {EN}", f"succ, {ALL}", "seeds"]
    return Grid("Differences of succ in points, with 95% intervals", head, body)


def caption(section: Section) -> str:
    about, seeds = section.scope, section.seeds
    return (
        f"Raw model of {about['parameters'] / 1e6:.1f} million parameters; {about['items']:,} items in "
        f"{len(about['languages'])} languages; {seeds} seed{'s' if seeds != '1' else ''}"
        f"{', mean ± standard deviation' if seeds != '1' else ''}; percent. “(ours)” is not in the paper."
    )


def reference(section: Section) -> str:
    """The note on the paper's numbers beside a table."""
    data = DATA_SETS.get(section.scope["task"])
    if data is None:
        return "The paper has no numbers for this task."
    under = ", whose rulings these are" if section.scope["protocol"] == "released" else ", not under this protocol"
    return (
        f"The paper's numbers are of mBERT on {data['name']} in {data['languages']} languages: {NOT_COMPARABLE}. They "
        f"were made with the released code{under}.{_mark(section)} {data.get('caveat', '')}".strip()
    )


def note(section: Section) -> str:
    return f"{caption(section)} {reference(section)}"


def _mark(section: Section) -> str:
    return " †" if "caveat" in DATA_SETS.get(section.scope["task"], {}) else ""


def terminal(section: Section) -> rich.table.Table:
    """The tables of a section in one, without the paper's numbers."""
    title = f"{section.title}, {section.scope['scale']['about']}"
    columns: list[Column | str] = ["Approach", "Trained on", *(Column(name, justify="right") for name in METRICS)]
    result = rich.table.Table(*columns, title=Text(title), caption=caption(section), caption_justify="left")
    for grid in (scores_of(section, table) for table in TABLES):
        if grid.body:
            result.add_section()
            result.add_row(Text(grid.title, "bold"))
        for line in grid.body:
            result.add_row(*map(Text, line[:5]))  # Text: a plug-in's title is not markup
    return result


def grids(section: Section, judgement: Judgement) -> list[Grid]:
    return [*(scores_of(section, table) for table in TABLES), differences(section, judgement)]


def markdown(parts: Sequence[Part]) -> str:
    return render("tables.md.jinja", parts=parts, note=note, grids=grids) + "\n"


def latex(sections: Sequence[Section], table: Table) -> str:
    return render("table.tex.jinja", sections=sections, table=table, note=note, scores_of=scores_of) + "\n"


def as_json(parts: Sequence[Part]) -> dict[str, Any]:
    """All numbers of the tables as fractions, with the cells of each number."""
    return {
        section.slug: {
            **section.scope,
            "code": sorted({record["code"]["digest"] for record in section.records}),
            "machines": sorted({record["machine"] for record in section.records}),
            "rows": [asdict(row) for name in (EN, ALL) for row in rows(section, name)],
            **asdict(judgement),
            "reference": reference(section),
        }
        for section, judgement in parts
    }
