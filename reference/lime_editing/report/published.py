"""The paper's printed numbers as data: Tables 1 and 2, mBERT, means of three runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.metrics import Scores
from ..names import ALL, EN


@dataclass(frozen=True, slots=True)
class DataSet:
    """The paper's data set for a task, its number of languages (§4.4), and a caveat on its numbers."""

    name: str
    languages: int
    caveat: str = ""


DATA_SETS: Mapping[str, DataSet] = {
    "facts": DataSet("mLAMA", 53),
    "nli": DataSet(
        "XNLI",
        15,
        "The released code (data_classes/xnli.py) takes the order of XNLI's languages from a Python set, which may "
        "change with every process. A text can then be edited and judged under the name of another language. Nobody "
        "can tell whether this happened to the printed XNLI numbers, so they may follow another protocol.",
    ),
}

#: Evaluation, approach, training: acc, con, succ of facts, then of NLI, in percent. Table 1 is `EN`, Table 2 is `ALL`.
_ROWS: Mapping[tuple[str, str, str | None], tuple[float, ...]] = {
    (EN, "finetuning", None): (21.94, 55.69, 31.48, 47.53, 98.24, 64.06),
    (EN, "editable_training", "en"): (51.13, 17.33, 25.88, 71.02, 95.24, 81.36),
    (EN, "editable_training", "all"): (99.78, 24.45, 39.27, 89.45, 93.04, 91.21),
    (EN, "knowledge_editor", "en"): (37.18, 50.19, 42.72, 69.96, 96.79, 81.22),
    (EN, "knowledge_editor", "all"): (64.69, 53.00, 58.26, 86.20, 95.08, 90.42),
    (EN, "mend", "en"): (24.76, 61.09, 35.24, 84.90, 94.87, 89.61),
    (EN, "mend", "all"): (99.58, 75.76, 86.05, 98.16, 97.75, 97.95),
    (ALL, "finetuning", None): (10.14, 48.68, 16.79, 56.48, 98.54, 71.81),
    (ALL, "editable_training", "all"): (97.39, 21.90, 35.75, 90.02, 93.58, 91.76),
    (ALL, "editable_training", "lime"): (97.87, 24.41, 39.08, 91.79, 93.68, 92.72),
    (ALL, "knowledge_editor", "all"): (47.30, 49.32, 48.29, 83.88, 95.79, 89.44),
    (ALL, "knowledge_editor", "lime"): (55.91, 51.00, 53.34, 86.88, 95.45, 90.96),
    (ALL, "mend", "all"): (94.83, 67.59, 78.92, 98.16, 97.44, 97.80),
    (ALL, "mend", "lime"): (96.12, 69.20, 80.47, 98.42, 98.02, 98.22),
}
#: Task, evaluation, approach, training: the printed scores as fractions, like all scores here.
PRINTED: Mapping[tuple[str, str, str, str | None], Scores] = {
    (task, *key): Scores(*(percent / 100 for percent in row[at : at + 3]))
    for key, row in _ROWS.items()
    for task, at in (("facts", 0), ("nli", 3))
}
#: The paper's approaches; all others are ours.
APPROACHES = {approach for _, approach, _ in _ROWS}
TRAININGS = {training for *_, training in _ROWS}
