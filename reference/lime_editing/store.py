"""Results on disk: one folder per cell, written atomically; safetensors, json and parquet only.

<cell>/cell.json            what was run: configuration, seed, fingerprints of data, model and code, rulings
<cell>/curve.json           the validations of the training
<cell>/editor.safetensors   the best editor's parameters
<cell>/rows.parquet         one row per edit, input and role, for each evaluation
<cell>/metrics.json         acc, con, succ of each evaluation; written last, so its presence means done
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import DataError, ModelError
from .types import Outcome


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then move the result into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """DataError: a file that is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: is not JSON ({error.msg} at line {error.lineno}); remove the cell's folder"
        ) from error


def write_rows(path: Path, evaluations: Mapping[str, Sequence[Outcome]]) -> None:
    """Outcomes of named evaluations as one parquet table."""
    rows = [{"evaluation": name, **asdict(o)} for name, outcomes in evaluations.items() for o in outcomes]
    table = pa.Table.from_pylist(rows)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def read_rows(path: Path) -> dict[str, list[Outcome]]:
    """The inverse of write_rows. DataError: a missing or broken file."""
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read as a table of outcomes; remove the cell's folder") from error
    evaluations: dict[str, list[Outcome]] = {}
    for row in rows:
        evaluations.setdefault(row.pop("evaluation"), []).append(Outcome(**row))
    return evaluations


def save_parameters(path: Path, parameters: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Tensors with a JSON description in the file's metadata."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
    metadata = {"about": json.dumps(about, ensure_ascii=False)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def load_parameters(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a checkpoint. ModelError: truncated, or of another editor than `expected`."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: is not a readable checkpoint ({error}); remove it and train again") from error
    wrong = sorted(
        name
        for name in tensors.keys() | expected.keys()
        if name not in tensors or name not in expected or tensors[name].shape != expected[name].shape
    )
    if wrong:
        raise ModelError(f"{path}: is a checkpoint of another editor; these parameters differ: {', '.join(wrong[:5])}")
    return tensors


def digest(value: Any) -> str:
    """A short fingerprint of plain data."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True, ensure_ascii=False).encode(), digest_size=8).hexdigest()


def code_digest() -> str:
    """A short fingerprint of this package's sources."""
    root = Path(__file__).parent
    return digest({str(p.relative_to(root)): p.read_text(encoding="utf-8") for p in sorted(root.rglob("*.py"))})


def is_done(folder: Path) -> bool:
    """Whether a cell is finished: metrics.json is written last."""
    return all((folder / name).is_file() for name in ("cell.json", "rows.parquet", "metrics.json"))
