"""The paper's two tables from stored cells: as rows, for the terminal, and in markdown, LaTeX and JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import stdev
from typing import Any

from rich.table import Table

from ..core.metrics import Scores, aggregate, scores
from ..names import ALL, APPROACHES, EN, TRAININGS
from .counts import Key, Section
from .findings import COMPARISONS, Judgement, points
from .published import DATA_SETS, TABLES, Printed

#: Name, evaluation, and the trainings that it shows; what has no training is always shown.
LAYOUT: Sequence[tuple[str, str, tuple[str, ...]]] = (
    ("table1", EN, ("en", "all")),
    ("table2", ALL, ("all", "lime", "shared")),
)
METRICS = ("acc", "con", "succ")
NOT_COMPARABLE = "another model, other data or another scale, so not comparable"


@dataclass(frozen=True, slots=True)
class Row:
    """One approach and training: its scores over seeds, beside what the paper prints."""

    key: Key
    evaluation: str
    scores: Scores  # clause M9
    deviation: Scores | None  # of the seeds; None where there is one
    runs: dict[int, str]  # seed → the cell's folder (clause R3)
    printed: Printed | None

    @property
    def labels(self) -> tuple[str, str]:
        """Approach and training; what the paper lacks is marked as ours."""
        approach, training = self.key
        ours = " (ours)" if approach == "unedited" or training == "shared" else ""
        name, trained = APPROACHES.get(approach, approach), TRAININGS[training].title if training else ""
        return (name, trained + ours) if training else (name + ours, trained)

    def cells(self) -> list[str]:
        """acc, con and succ in percent, with the deviation of the seeds where there are several."""
        values = [f"{100 * getattr(self.scores, name):.2f}" for name in METRICS]
        if self.deviation is None:
            return values
        return [f"{v} ± {100 * getattr(self.deviation, n):.2f}" for v, n in zip(values, METRICS, strict=True)]


def rows(section: Section, evaluation: str, trainings: Sequence[str] | None = None) -> list[Row]:
    """The rows of an evaluation in the paper's order; `trainings`: those to show (default: all)."""
    printed = TABLES[evaluation].get(section.task, {})
    result = []
    for key, runs in section.runs.items():
        judged = {seed: scores(run.judged[evaluation]) for seed, run in runs.items() if evaluation in run.judged}
        if not judged or (trainings is not None and key[1] is not None and key[1] not in trainings):
            continue
        each = list(judged.values())
        spread = [stdev(getattr(s, name) for s in each) for name in METRICS] if len(each) > 1 else None
        folders = {seed: runs[seed].folder.name for seed in judged}
        result.append(
            Row(key, evaluation, aggregate(each), Scores(*spread) if spread else None, folders, printed.get(key))
        )
    return result


def caption(section: Section) -> str:
    """What was run, in a sentence for below a table."""
    about, seeds = section.scope, section.seeds
    return (
        f"Raw model of {about['parameters'] / 1e6:.1f} million parameters; {about['items']:,} items in "
        f"{len(about['languages'])} languages; {seeds} seed{'s' if seeds > 1 else ''}"
        f"{', mean ± standard deviation' if seeds > 1 else ''}; percent."
    )


def reference(section: Section) -> str:
    """What the printed numbers beside a table are, and are not."""
    name, languages = DATA_SETS.get(section.task, ("its", 0))
    made = (
        "were made with the released code, whose rulings these are"
        if section.protocol == "released"
        else "were made with the released code, not under this protocol, and are a reference at most"
    )
    return f"The paper's numbers (mBERT on {name}, {languages} languages) {made}: {NOT_COMPARABLE}."


def terminal(section: Section) -> Table:
    """Both evaluations of a section, one row per approach and training."""
    result = Table(
        title=f"{section.title}, {section.scope['scale']['about']}", caption=caption(section), caption_justify="left"
    )
    result.add_column("approach")
    result.add_column("trained on")
    by = {name: {row.key: row for row in rows(section, name)} for name in (EN, ALL)}
    for name in by:
        for metric in METRICS:
            result.add_column(f"{name}\n{metric}", justify="right")
    for key in section.runs:
        there = [row for found in by.values() if (row := found.get(key))]
        if there:
            values = [v for found in by.values() for v in (found[key].cells() if key in found else ["", "", ""])]
            result.add_row(*there[0].labels, *values)
    return result


def grid(section: Section, evaluation: str, trainings: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """A table's head and body as plain text, the printed numbers in its last three columns."""
    head = ["Approach", "Trained on", *METRICS, *(f"paper: {name}" for name in METRICS)]
    body = [
        [*row.labels, *row.cells(), *([f"{v:.2f}" for v in row.printed] if row.printed else ["", "", ""])]
        for row in rows(section, evaluation, trainings)
    ]
    return head, body


def differences(judgement: Judgement) -> tuple[list[str], list[list[str]]]:
    """The paired differences as head and body: one row per editor and comparison."""
    found = {(d.approach, d.ours, d.theirs, d.evaluation): points(d.interval) for d in judgement.differences}
    seeds = {(d.approach, d.ours, d.theirs): str(d.seeds) for d in judgement.differences}
    body = [
        [APPROACHES[approach], text, *(found.get((approach, ours, theirs, name), "") for name in (EN, ALL)), n]
        for approach in APPROACHES
        for ours, theirs, text in COMPARISONS
        if (n := seeds.get((approach, ours, theirs)))
    ]
    return ["Editor", "Comparison", f"succ, {EN}", f"succ, {ALL}", "seeds"], body


def markdown(sections: Sequence[Section], judgements: Sequence[Judgement]) -> str:
    """Both tables and the differences of every section."""
    parts = []
    for section, judgement in zip(sections, judgements, strict=True):
        parts.append(f"## {_md(section.title)}, {_md(section.scope['scale']['about'])}")
        parts.append(f"{_md(caption(section))} {_md(reference(section))}")
        for i, (_, evaluation, trainings) in enumerate(LAYOUT):
            head, body = grid(section, evaluation, trainings)
            if body:
                parts += [f"### Table {i + 1}: {evaluation}", _markdown(head, body, 2)]
        head, body = differences(judgement)
        if body:
            parts += ["### Differences of succ, 95% paired bootstrap over edits and seeds", _markdown(head, body, 2)]
    return "\n\n".join(parts) + "\n"


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]], text: int) -> str:
    rule = ["---"] * text + ["---:"] * (len(head) - text)
    lines = [map(_md, head), rule, *(map(_md, line) for line in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _md(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)


_TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "→": r"$\rightarrow$",
    "±": r"$\pm$",
    "−": r"$-$",
    "“": "``",
    "”": "''",
}


def tex(text: str) -> str:
    """Plain text for LaTeX."""
    return "".join(_TEX.get(c, c) for c in text)


def latex(sections: Sequence[Section], name: str) -> str:
    """One booktabs table for each section; `name`: table1 or table2."""
    _, evaluation, trainings = next(layout for layout in LAYOUT if layout[0] == name)
    parts = ["% Needs \\usepackage{booktabs}."]
    for section in sections:
        _, body = grid(section, evaluation, trainings)
        if not body:
            continue
        about = f"{section.title}, {section.scope['scale']['about']}: {evaluation}. {caption(section)} "
        parts += [
            "\\begin{table}",
            "\\centering",
            "\\begin{tabular}{llrrrrrr}",
            "\\toprule",
            " & & \\multicolumn{3}{c}{here} & \\multicolumn{3}{c}{printed in the paper} \\\\",
            "\\cmidrule(lr){3-5}\\cmidrule(lr){6-8}",
            " & ".join(["Approach", "Trained on", *METRICS, *METRICS]) + " \\\\",
            "\\midrule",
            *(" & ".join(map(tex, line)) + " \\\\" for line in body),
            "\\bottomrule",
            "\\end{tabular}",
            f"\\caption{{{tex(about + reference(section))}}}",
            f"\\label{{tab:{name}-{section.slug}}}",
            "\\end{table}",
        ]
    return "\n".join(parts) + "\n"


def as_json(sections: Sequence[Section], judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Everything in the tables, as fractions, with the stored cells that each number comes from."""
    return {
        section.slug: {
            **section.scope,
            "rows": [_row(row) for name in (EN, ALL) for row in rows(section, name)],
            "differences": [asdict(d) for d in judgement.differences],
            "findings": [asdict(f) for f in judgement.findings],
            "pipeline_check": judgement.pipeline_check,
        }
        for section, judgement in zip(sections, judgements, strict=True)
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "evaluation": row.evaluation,
        "approach": row.key[0],
        "training": row.key[1],
        "seeds": len(row.runs),
        **{name: getattr(row.scores, name) for name in METRICS},
        "deviation": row.deviation.as_dict() if row.deviation else None,
        "printed_percent": row.printed._asdict() if row.printed else None,
        "cells": row.runs,
    }
