"""The numbers that the paper prints, as data: Tables 1 and 2, in percent, mBERT, means of three runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

#: The paper's data set for each of our tasks, and the number of its languages (§4.4).
DATA_SETS: Mapping[str, tuple[str, int]] = {"facts": ("mLAMA", 53), "nli": ("XNLI", 15)}


class Printed(NamedTuple):
    """One printed row of one data set."""

    acc: float
    con: float
    succ: float


Rows = Mapping[tuple[str, str | None], Printed]

#: Evaluation → task → (approach, training) → row. Table 1 edits in English, Table 2 in every language.
TABLES: Mapping[str, Mapping[str, Rows]] = {
    "en → all": {
        "facts": {
            ("finetuning", None): Printed(21.94, 55.69, 31.48),
            ("editable_training", "en"): Printed(51.13, 17.33, 25.88),
            ("editable_training", "all"): Printed(99.78, 24.45, 39.27),
            ("knowledge_editor", "en"): Printed(37.18, 50.19, 42.72),
            ("knowledge_editor", "all"): Printed(64.69, 53.00, 58.26),
            ("mend", "en"): Printed(24.76, 61.09, 35.24),
            ("mend", "all"): Printed(99.58, 75.76, 86.05),
        },
        "nli": {
            ("finetuning", None): Printed(47.53, 98.24, 64.06),
            ("editable_training", "en"): Printed(71.02, 95.24, 81.36),
            ("editable_training", "all"): Printed(89.45, 93.04, 91.21),
            ("knowledge_editor", "en"): Printed(69.96, 96.79, 81.22),
            ("knowledge_editor", "all"): Printed(86.20, 95.08, 90.42),
            ("mend", "en"): Printed(84.90, 94.87, 89.61),
            ("mend", "all"): Printed(98.16, 97.75, 97.95),
        },
    },
    "all → all": {
        "facts": {
            ("finetuning", None): Printed(10.14, 48.68, 16.79),
            ("editable_training", "all"): Printed(97.39, 21.90, 35.75),
            ("editable_training", "lime"): Printed(97.87, 24.41, 39.08),
            ("knowledge_editor", "all"): Printed(47.30, 49.32, 48.29),
            ("knowledge_editor", "lime"): Printed(55.91, 51.00, 53.34),
            ("mend", "all"): Printed(94.83, 67.59, 78.92),
            ("mend", "lime"): Printed(96.12, 69.20, 80.47),
        },
        "nli": {
            ("finetuning", None): Printed(56.48, 98.54, 71.81),
            ("editable_training", "all"): Printed(90.02, 93.58, 91.76),
            ("editable_training", "lime"): Printed(91.79, 93.68, 92.72),
            ("knowledge_editor", "all"): Printed(83.88, 95.79, 89.44),
            ("knowledge_editor", "lime"): Printed(86.88, 95.45, 90.96),
            ("mend", "all"): Printed(98.16, 97.44, 97.80),
            ("mend", "lime"): Printed(98.42, 98.02, 98.22),
        },
    },
}
