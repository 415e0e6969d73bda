"""What the paper has, from paper.toml: its data sets, its printed numbers (mBERT, means of three runs), and words."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.metrics import Scores

PAPER: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("paper.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class DataSet:
    """The paper's data set for a task, its number of languages (§4.4), and a caveat on its numbers."""

    name: str
    languages: int
    caveat: str = ""


DATA_SETS: Mapping[str, DataSet] = {task: DataSet(**told) for task, told in PAPER["data_sets"].items()}
#: Task, evaluation, approach, training: the printed scores as fractions, like all scores here.
PRINTED: Mapping[tuple[str, str, str, str | None], Scores] = {
    (task, evaluation, approach, training or None): Scores(*(percent / 100 for percent in row[at : at + 3]))
    for evaluation, rows in PAPER["printed"].items()
    for approach, training, *row in rows
    for task, at in (("facts", 0), ("nli", 3))
}
#: The paper's approaches and trainings; all others are ours.
APPROACHES, TRAININGS = ({key[i] for key in PRINTED} for i in (2, 3))
