"""Results on disk: one folder per cell, written atomically; safetensors, json and parquet only.

<cell>/cell.json            what was run: configuration, seed, fingerprints of data, model and code, rulings
<cell>/curve.json           the validations of the training
<cell>/editor.safetensors   the best editor's parameters
<cell>/state.safetensors    a training's last checkpoint, while it runs
<cell>/rows.parquet         one row per edit, input and role, for each evaluation
<cell>/metrics.json         acc, con, succ of each evaluation; written last, so its presence means done
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import DataError, ModelError
from .metrics import Scores
from .training import Report, State
from .types import Outcome

STATE = "state.safetensors"
SOURCES = (
    *("backbone.py", "corpus.py", "editing.py", "evaluation.py", "experiments.py", "losses.py", "masks.py"),
    *("metrics.py", "sampling.py", "training.py", "types.py", "data/*.py", "editors/*.py"),
)


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


def save_state(path: Path, state: State) -> None:
    """A training's state as one file."""
    groups = {"now": state.parameters, "best": state.best, "first": state.first, "second": state.second}
    tensors = {f"{group}/{name}": t for group, named in groups.items() for name, t in named.items()}
    about = {"step": state.step, "sums": state.sums, "reports": [asdict(report) for report in state.reports]}
    save_parameters(path, tensors, about)


def load_state(path: Path, expected: Mapping[str, Tensor]) -> State | None:
    """The inverse of save_state; None where no file is. ModelError: truncated, or of another editor."""
    if not path.exists():
        return None
    wanted = {f"{group}/{name}": p for group in ("now", "best", "first", "second") for name, p in expected.items()}
    tensors = load_parameters(path, wanted)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        group, name = key.split("/", 1)
        groups.setdefault(group, {})[name] = tensor.to(expected[name].device)
    reports = [Report(**{**report, "scores": Scores(**report["scores"])}) for report in about["reports"]]
    named = (groups["now"], groups["best"], groups["first"], groups["second"])
    return State(about["step"], *named, about["sums"], reports)


def add_to_index(root: Path, folders: Iterable[Path]) -> None:
    """Note which cells the report of `root` is about; a cell that is run again under its protocol takes its place.

    Cells of the same task on other data, another model or other languages leave: no table may mix them.
    """
    cells = {folder: read_json(folder / "cell.json") for folder in (*read_index(root), *folders)}
    scopes = {cell["cell"]["task"]: _scope(cell) for cell in cells.values()}  # the last one's, which is new
    kept = {
        (cell["protocol"], *cell["cell"].values()): folder.name
        for folder, cell in cells.items()
        if _scope(cell) == scopes[cell["cell"]["task"]]
    }
    write_json(root / "index.json", list(kept.values()))


def read_index(root: Path) -> list[Path]:
    """The folders of the cells that the report of `root` is about, as far as they are there."""
    index = root / "index.json"
    names = read_json(index) if index.is_file() else []
    return [root / name for name in names if is_done(root / name)]


def _scope(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return cell["preset"]["name"], cell["data"], cell["model"], tuple(cell["languages"])


def clean(folder: Path) -> None:
    """Remove what an interrupted write has left; no other process writes into the folder of a cell."""
    for leftover in folder.glob(".*"):
        leftover.unlink()


def digest(value: Any) -> str:
    """A short fingerprint of plain data."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True, ensure_ascii=False).encode(), digest_size=8).hexdigest()


def code_digest(patterns: Sequence[str] = SOURCES) -> str:
    """A short fingerprint of the code that a number depends on: not of the report's, nor of comments and layout.

    Presets are no part of it, because a cell records the values that it used.
    """
    root = Path(__file__).parent
    sources = sorted(path for pattern in patterns for path in root.glob(pattern))
    return digest({path.relative_to(root).as_posix(): _code(path.read_text(encoding="utf-8")) for path in sources})


def _code(source: str) -> str:
    """A module's syntax tree without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.dump(tree)


def is_done(folder: Path) -> bool:
    """Whether a cell is finished: metrics.json is written last."""
    return all((folder / name).is_file() for name in ("cell.json", "rows.parquet", "metrics.json"))
