"""Finished cells that nobody trained: plausible rows, drawn from known rates."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from lime_editing import results as store
from lime_editing.core.metrics import count, scores
from lime_editing.names import APPROACHES, TASKS
from lime_editing.records import Outcome

LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
EDITORS = ("editable_training", "knowledge_editor", "mend")
GRID = [("unedited", None), ("finetuning", None), *((e, t) for e in EDITORS for t in ("en", "all", "lime", "shared"))]

#: acc in the edit's own language, in the others, and con.
RATES: Mapping[tuple[str, str | None], tuple[float, float, float]] = {
    ("unedited", None): (0.01, 0.01, 1.0),
    ("finetuning", None): (0.95, 0.15, 0.80),
    **{(e, "en"): (0.93, 0.30, 0.90) for e in EDITORS},
    **{(e, "all"): (0.93, 0.78, 0.90) for e in EDITORS},
    **{(e, "lime"): (0.94, 0.84, 0.90) for e in EDITORS},
    **{(e, "shared"): (0.94, 0.82, 0.90) for e in EDITORS},
}


def write_cell(
    root: Path,
    approach: str = "mend",
    training: str | None = "all",
    seed: int = 0,
    *,
    task: str = "facts",
    protocol: str = "paper",
    languages: Sequence[str] = LANGUAGES,
    edits: int = 12,
    rates: tuple[float, float, float] | None = None,
    noise: int = 0,
    checkpoint: bool = True,
    **record: Any,
) -> Path:
    """One cell's folder. The same `noise` and rates give the same rows, whatever the cell is called."""
    about = {
        "cell": {"task": task, "approach": approach, "training": training, "seed": seed},
        "titles": {"task": TASKS.get(task, task), "approach": APPROACHES.get(approach, approach)},
        "protocol": protocol,
        "rulings": {"kl_direction": protocol, "penalty": "sum" if protocol == "paper" else "mean"},
        "scale": {"name": "tiny", "about": "at TINY scale (not comparable with the paper's numbers)"},
        "languages": list(languages),
        "data": "d4ta",
        "model": "m0del",
        "parameters": 3_300_000,
        "items": 21_213,
        "code": {"lime_editing": "0.1.0", "digest": "c0de", "torch": "2.0", "transformers": "5.0"},
        "device": "cpu",
        "precision": "float32",
        "split": "test",
        "command": ["reproduce", "--task", task, "--seeds", "3"],
        "machine": "2-core x86_64 CPU",
        **record,
    }
    folder = root / f"{'-'.join(filter(None, (task, approach, training, f'seed{seed}')))}-{store.digest(about)[:8]}"
    store.write_json(folder / "cell.json", about)
    evaluations = outcomes(languages, edits, rates or RATES[approach, training], noise)
    write_outcomes(folder, evaluations)
    store.write_json(folder / "curve.json", [])
    if training in ("lime", "shared") and checkpoint:
        write_masks(folder / "editor.safetensors", languages if training == "lime" else languages[:1])
    return folder


def write_outcomes(folder: Path, evaluations: Mapping[str, Sequence[Outcome]]) -> None:
    """The rows of a cell, and their scores beside them."""
    store.write_rows(folder / "rows.parquet", evaluations)
    scored = {name: asdict(scores(count(rows))) for name, rows in evaluations.items()}
    store.write_json(folder / "metrics.json", scored)


def outcomes(
    languages: Sequence[str], edits: int, rates: tuple[float, float, float], noise: int
) -> dict[str, list[Outcome]]:
    """Two inputs of each role per edit, in languages that depend on the edit alone; English edits are `edits` × 5."""
    asked, rng = np.random.default_rng(1), np.random.default_rng(noise)
    evaluations = {}
    for name, edited in (("en → all", ("en",)), ("all → all", tuple(languages))):
        rows = evaluations[name] = list[Outcome]()
        for edit_language in edited:
            for i in range(edits * 5 if name == "en → all" else edits):
                for role in ("update", "retain"):
                    for language in asked.choice(languages, 2, replace=False):
                        rate = rates[2] if role == "retain" else rates[0] if language == edit_language else rates[1]
                        # The far languages are harder.
                        hard = (
                            0.1
                            * (languages.index(str(language)) % 3)
                            * (role == "update" and language != edit_language)
                        )
                        hit = bool(rng.random() < rate - hard * rate)
                        rows.append(Outcome(f"f{i}", edit_language, role, str(language), hit))  # type: ignore[arg-type]
    return evaluations


def write_masks(path: Path, languages: Sequence[str], width: int = 300) -> None:
    """Mask parameters that are alike except for a few dimensions of each language."""
    rng = np.random.default_rng(0)
    tensors = {}
    for matrix in ("layer.1.in", "layer.1.out"):
        for part in ("x", "delta"):
            common = rng.normal(0, 0.3, (1, width))
            own = np.zeros((len(languages), width))
            for i, row in enumerate(own):
                row[5 * i : 5 * i + 3] = rng.normal(2, 0.5, 3)
            tensors[f"mask.{matrix}.{part}"] = (common + own + rng.normal(0, 0.1, own.shape)).astype(np.float32)
            tensors[f"mask.{matrix}.{part}_scale"] = np.ones_like(own, dtype=np.float32)
    tensors["mend.other"] = np.ones(3, dtype=np.float32)
    save_file(tensors, path, {"about": json.dumps({"languages": list(languages)})})


def write_grid(
    root: Path,
    tasks: Sequence[str] = ("facts",),
    protocols: Sequence[str] = ("paper",),
    seeds: int = 3,
    **options: Any,
) -> list[Path]:
    """The whole grid with its control; what is not trained has one seed."""
    return [
        write_cell(
            root,
            approach,
            training,
            seed,
            task=task,
            protocol=protocol,
            noise=zlib.crc32(repr((task, protocol, approach, training, seed)).encode()),
            **options,
        )
        for task in tasks
        for protocol in protocols
        for approach, training in GRID
        for seed in range(seeds if training else 1)
    ]
