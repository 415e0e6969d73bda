"""Results on disk, without torch: one folder per cell, written atomically; safetensors, json and parquet only.

<cell>/cell.json            what was run: configuration, seed, fingerprints of data, model and code, rulings
<cell>/curve.json           the validations of the training
<cell>/editor.safetensors   the best editor's parameters
<cell>/state.safetensors    a training's last checkpoint, while it runs
<cell>/rows.parquet         one row per edit, input and role, for each evaluation
<cell>/metrics.json         acc, con, succ of each evaluation; written last, so its presence means done
<cell>/.lock                the process that works on the cell
<any>/.<name>.<pid>.tmp     a file that is being written; .tmp?????? is safetensors' own temporary file
<any>/.<name>.<pid>         a folder that is being written
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from .borders import RESUMES, border, explain
from .checks import refuse
from .core.metrics import ROLES, Counts, Scores, tally
from .errors import DataError, UserError
from .records import Outcome
from .turns import one_at_a_time

STATE = "state.safetensors"
EDITOR = "editor.safetensors"
LOCK = ".lock"
DESCRIBING = ("machine", "titles", "command", "specification", "remarks")  # parts of a record that change no number
#: Record fields that are equal in all cells of a table, in addition to the task and the scale's `_SCALE`.
_SCOPE = ("protocol", "rulings", "languages", "data", "model", "parameters", "items", "split", "precision")
_SCALE = ("name", "about", "edited_layers", "test")
#: Required fields of a record; a dot leads into a part.
_RECORD = (
    *("cell.task", "cell.approach", "cell.training", "cell.seed", "scale.name", "scale.about", *_SCOPE),
    *("titles.task", "titles.approach", "code", "device", "machine"),
)
#: The files that a number depends on, and exceptions among them.
SOURCES = (
    *("records.py", "updates.py", "hardware.py", "backbone/*.py", "editors/*.py", "core/*.py"),
    *("data/**/*.py", "reproduce/run.py"),
)
#: The editors that the paper does not have; only their own cells depend on them.
FURTHER = tuple(f"editors/{name}.py" for name in ("least_squares", "malmen", "memit", "rome", "slag", "ultraedit"))
NO_SOURCES = ("data/download.py", *FURTHER)


def check_place(root: Path, write: bool = True) -> None:
    """UserError: results cannot be written here. Called before a run, so that hours of work are not lost."""
    with border(UserError, f"{root}: results cannot be kept here", more="; --results or LIME_HOME names another place"):
        first = existing(root)
        if not first.is_dir():
            raise UserError(f"{first}: is a file, and results are a folder; name another --results")
        if write:
            root.mkdir(parents=True, exist_ok=True)
            NamedTemporaryFile(dir=root, prefix=".", suffix=".tmp").close()


def existing(path: Path) -> Path:
    """The path, or the nearest one above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if os.path.exists(place))  # Path.exists may raise


def write_atomically(path: Path, write: Callable[[Path], object], size: int | None = None) -> None:
    """Call `write` with a temporary path beside `path`, then move the file to `path`. `size`: bytes at most."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        if temporary.stat().st_mode != mode:  # safetensors lets nobody but the owner read its files
            temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # after a power failure no partial file has the final name
        temporary.replace(path)
    except UserError:
        raise
    except Exception as error:
        room = [f"up to {size:,} bytes to write"] if size is not None else []
        with suppress(OSError):  # of a disk that does not answer
            room.append(f"{shutil.disk_usage(existing(path.parent)).free:,} bytes are free")
        reason = f"{explain(error)} ({', '.join(room) or 'the free space is unknown'})"
        kept = f"earlier results are kept{RESUMES}"
        raise UserError(f"{path}: cannot be written: {reason}; {kept}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_folder(folder: Path, write: Callable[[Path], object], more: str = "") -> None:
    """Call `write` with a new temporary folder beside `folder`, then rename it. UserError: it cannot be written."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        with border(UserError, f"{folder}: cannot be written", more=more):
            temporary.mkdir(parents=True)
            write(temporary)
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    data = text.encode()
    write_atomically(path, lambda temporary: temporary.write_bytes(data), len(data))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """DataError: a file that cannot be read, or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise DataError(f"{path}: is {explain(error).partition(';')[0]}; {remedy(path)}") from error


def remedy(path: Path) -> str:
    """The remedy for a damaged file. Only a training's checkpoint can be removed without its cell."""
    if path.name == "index.json":
        return "remove it: the cells stay, and a run lists its own again"
    if path.name == "edits.json":
        return "remove it: the edits are in update.safetensors beside it"
    return f"remove {path if path.name == STATE else path.parent}, and the same command makes it again"


def read_metrics(folder: Path) -> dict[str, Scores]:
    """The scores of each of a cell's evaluations. DataError: a missing or damaged file."""
    path = folder / "metrics.json"
    stored = read_json(path)
    try:
        return {name: Scores(**{key: float(v) for key, v in s.items()}) for name, s in stored.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: does not hold acc, con and succ of each evaluation; {remedy(path)}") from error


def write_rows(path: Path, evaluations: Mapping[str, Sequence[Outcome]]) -> None:
    rows = [{"evaluation": name, **asdict(o)} for name, outcomes in evaluations.items() for o in outcomes]
    table = pa.Table.from_pylist(rows)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"), table.nbytes)


def read_rows(path: Path) -> dict[str, Counts]:
    """The counts of each evaluation of stored rows, without an object per row. DataError: a missing or broken file."""
    names = ["evaluation", "edit_language", "edit", "role", "language"]
    try:
        rows = pq.read_table(path, columns=[*names, "hit"]).to_pandas(strings_to_categorical=True)
        for name in names:
            order = ROLES if name == "role" else sorted(rows[name].cat.categories)
            rows[name] = rows[name].cat.set_categories(order)
        rows["hit"] = rows["hit"].astype(np.float64)
        if rows.isna().any(axis=None) or not rows["hit"].isin((0, 1)).all():
            raise ValueError("a role that is none, a place without a value, or a hit that is neither 0 nor 1")
    except (OSError, pa.ArrowInvalid, AttributeError, KeyError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a table of outcomes; {remedy(path)}") from error
    return {str(name): _counted(part) for name, part in rows.groupby("evaluation", observed=True)}


def _counted(rows: pd.DataFrame) -> Counts:
    edit = rows.groupby(["edit_language", "edit"], observed=True)
    language, languages = pd.factorize(rows["language"], sort=True)
    at = np.stack([edit.ngroup(), rows["role"].cat.codes, language], axis=1)
    return tally(list(edit.size().index), list(languages), at, rows["hit"].to_numpy())


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """The differences of two records, as "model: 1a2b, not 3c4d", without their descriptive parts."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [key for key in {**here, **there} if key not in DESCRIBING]
        return [one for key in keys for one in differences(there.get(key), here.get(key), f"{name}.{key}".strip("."))]
    there, here = (list(value) if isinstance(value, tuple) else value for value in (there, here))
    shown = [",".join(map(str, value)) if isinstance(value, list) else value for value in (there, here)]
    return [] if there == here else [f"{name or 'record'}: {shown[0]}, not {shown[1]}"]


def add_to_index(root: Path, folders: Iterable[Path]) -> None:
    """Add cells to the index of the report of `root`."""
    write_json(root / "index.json", [folder.name for folder in fitting((*read_index(root), *folders))])


def fitting(folders: Iterable[Path]) -> list[Path]:
    """The cells that one report may hold; of several runs of a cell under one protocol the last stays.

    Left out are cells of the same task with other data, model or languages than later ones, and of the same editor with
    other settings.
    """
    records = {folder: read_record(folder) for folder in folders}
    sources = {record["cell"]["task"]: _sources(record) for record in records.values()}
    settings = {_editor(record): (record["rulings"], record["scale"]) for record in records.values()}
    kept = {
        (*_editor(record), record["cell"]["seed"]): folder
        for folder, record in records.items()
        if sources[record["cell"]["task"]] == _sources(record)
        and settings[_editor(record)] == (record["rulings"], record["scale"])
    }
    return list(kept.values())


def _sources(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return record["scale"]["name"], record["data"], record["model"], record["languages"]


def _editor(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return record["protocol"], *(record["cell"][name] for name in ("task", "approach", "training"))


def scope(record: Mapping[str, Any]) -> dict[str, Any]:
    """The values that must be equal in all cells of a table."""
    scale = {name: record["scale"].get(name) for name in _SCALE}
    return {"task": record["cell"]["task"], "scale": scale, **{name: record[name] for name in _SCOPE}}


def read_index(root: Path) -> list[Path]:
    """The existing folders of the cells in the index of `root`. DataError: the index is not a list."""
    index = root / "index.json"
    with border(DataError, f"{root}: cannot be read"):
        names = read_json(index) if index.is_file() else []
    if not isinstance(names, list) or not all(isinstance(n, str) and n and Path(n).name == n for n in names):
        raise DataError(f"{index}: is not a list of cells' folders; {remedy(index)}")
    return [root / name for name in names if is_done(root / name)]


def read_record(folder: Path) -> dict[str, Any]:
    """A cell's cell.json. DataError: it lacks what every record has."""
    path = folder / "cell.json"
    record: dict[str, Any] = read_json(path)
    for name in _RECORD:
        try:
            reduce(getitem, name.split("."), record)
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: is not the record of a cell (no {name!r}); {remedy(path)}") from error
    if type(record["cell"]["seed"]) is not int:
        raise DataError(f"{path}: the seed {record['cell']['seed']!r} is no number; {remedy(path)}")
    return record


@contextmanager
def held(folder: Path, patience: float = 10.0, name: str = LOCK) -> Iterator[None]:
    """Lock a folder while its process lives. UserError: another one still has it after `patience` seconds."""
    lock, holder = folder / name, "unknown process"
    file = FileLock(lock)
    with border(UserError, f"{lock}: cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file.acquire(timeout=patience)
        except Timeout as error:
            with suppress(OSError, UnicodeDecodeError):
                holder = lock.read_text(encoding="utf-8") or holder
            raise UserError(f"{folder}: another run is at work here ({holder}); wait for it or stop it") from error
    try:
        with suppress(OSError):
            lock.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            lock.unlink()  # before unlocking: a waiting process then sees that the file is gone, and creates a new one
        file.release()


def clean(folder: Path) -> None:
    """Remove temporary files of a killed process; no other process may be writing into the folder."""
    leftovers = [*folder.glob(".*.tmp"), *folder.glob(".tmp??????")]
    if is_done(folder):
        leftovers += [folder / STATE, folder / LOCK]
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)


def digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, ensure_ascii=False).encode(), digest_size=8).hexdigest()


def code_digest(more: Iterable[Path] = ()) -> str:
    """A short fingerprint of the code that a number depends on, and of `more` files.

    names.py and the scales are not part of it: a cell records the values that it used.
    """
    root = Path(__file__).parent
    sources = {path for pattern in SOURCES for path in root.glob(pattern)} - {root / name for name in NO_SOURCES}
    return code_of({*sources, *more})


def code_of(files: Iterable[Path]) -> str:
    return digest(sorted(_code(path.read_text(encoding="utf-8")) for path in files))


class _Numbers(ast.NodeTransformer):
    """Leaves out of a module what changes no number: docstrings, imports from this package, locks, and errors.

    Of errors it leaves out messages, borders' arguments, calls of `refuse`, and conditions under which it only raises.
    """

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [one for one in node.decorator_list if ast.unparse(one) != one_at_a_time.__name__]
        return super().visit(node)  # type: ignore[no-any-return]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.level else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        node.values = [one for one in node.values if not (isinstance(one, ast.Constant) and one.value == "")]
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        refuses = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == f"checks.{refuse.__name__}"
        return None if refuses and not _names_a_value(node) else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise()

    def visit_If(self, node: ast.If) -> ast.AST | None:
        raises = all(isinstance(one, ast.Raise) for one in node.body) and not node.orelse
        return None if raises and not _names_a_value(node.test) else self.generic_visit(node)

    def visit_Try(self, node: ast.Try) -> ast.AST:
        caught = any(not isinstance(handler.body[-1], ast.Raise) for handler in node.handlers)
        return node if caught else self.generic_visit(node)  # where an error is caught, raising it decides what follows

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == border.__name__:
            return node.func
        return self.generic_visit(node)


def _names_a_value(node: ast.AST) -> bool:
    return any(isinstance(one, ast.NamedExpr) for one in ast.walk(node))


@cache  # a grid calls it for each cell, and it takes a second
def _code(source: str) -> str:
    return _dump(_Numbers().visit(ast.parse(source)))


def _dump(node: Any) -> str:
    """The tree as text. ast.dump is not the same in all versions of Python."""
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, getattr(node, name, None)) for name in node._fields]
    # What some versions do not write: an empty type_params, an empty text in a format, and None but in a literal.
    literal = isinstance(node, (ast.Constant, ast.MatchSingleton))
    told = [f"{n}={_dump(v)}" for n, v in fields if v is not None or (literal and n == "value")]
    return f"{type(node).__name__}({', '.join(one for one in told if one != 'type_params=[]')})"


def is_done(folder: Path) -> bool:
    """Whether a cell is finished: metrics.json is written last. DataError: an unreadable folder."""
    with border(DataError, f"{folder}: cannot be read"):
        return all((folder / name).is_file() for name in ("cell.json", "rows.parquet", "metrics.json"))
