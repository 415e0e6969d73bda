"""Tables from stored rows; nothing here trains or judges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from . import store
from .config import Preset
from .experiments import EVALUATIONS, Cell, Variant
from .metrics import Scores, aggregate, scores

LABELS = {None: "", "en": "en only", "all": "all", "lime": "all + LiME", "shared": "all + one shared mask"}


def summarise(cells: Mapping[Cell, Path]) -> dict[tuple[str, Variant | None], dict[str, Scores]]:
    """(approach, variant) → evaluation → scores over its seeds (clause M9), from the stored rows."""
    runs: dict[tuple[str, Variant | None], dict[str, list[Scores]]] = {}
    for cell, folder in cells.items():
        for name, outcomes in store.read_rows(folder / "rows.parquet").items():
            runs.setdefault((cell.approach, cell.variant), {}).setdefault(name, []).append(scores(outcomes))
    return {key: {name: aggregate(s) for name, s in by.items()} for key, by in runs.items()}


def table(cells: Mapping[Cell, Path], preset: Preset, record: Mapping[str, Any]) -> Table:
    """acc, con and succ in percent, en → all and all → all, one row per approach and training."""
    seeds = len({cell.seed for cell in cells if cell.variant})
    result = Table(
        title=f"Editing facts {preset.about}",
        caption=f"Raw model of {record['parameters'] / 1e6:.1f} million parameters; {record['facts']:,} facts in "
        f"{len(record['languages'])} languages; {seeds} seed{'s' if seeds > 1 else ''}; test facts; percent.",
        caption_justify="left",
    )
    result.add_column("approach")
    result.add_column("trained on")
    for name in EVALUATIONS:
        for metric in ("acc", "con", "succ"):
            result.add_column(f"{name}\n{metric}", justify="right")
    for (approach, variant), by in summarise(cells).items():
        values = [f"{100 * v:.2f}" for name in EVALUATIONS for v in by[name].as_dict().values()]
        result.add_row(approach, LABELS[variant], *values)
    return result
