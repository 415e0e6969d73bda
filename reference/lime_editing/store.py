"""Results on disk: one folder per cell, written atomically; safetensors, json and parquet only.

<cell>/cell.json            what was run: configuration, seed, fingerprints of data, model and code, rulings
<cell>/curve.json           the validations of the training
<cell>/editor.safetensors   the best editor's parameters
<cell>/state.safetensors    a training's last checkpoint, while it runs
<cell>/rows.parquet         one row per edit, input and role, for each evaluation
<cell>/metrics.json         acc, con, succ of each evaluation; written last, so its presence means done
<cell>/.lock                who works on the cell, while somebody does
<any>/.<name>.<pid>.tmp     a file that is being written; .tmp?????? is what safetensors makes of it on its way
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
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import DataError, ModelError, UserError
from .metrics import Scores
from .training import Report, State
from .types import Outcome

STATE = "state.safetensors"
LOCK = ".lock"
SOURCES = (
    *("backbone.py", "corpus.py", "devices.py", "editing.py", "evaluation.py", "experiments.py", "losses.py"),
    *("masks.py", "metrics.py", "sampling.py", "training.py", "types.py", "data/*.py", "editors/*.py"),
)


def write_atomically(path: Path, write: Callable[[Path], object], size: int | None = None) -> None:
    """Call `write` with a temporary path beside `path`, then move the result into place.

    UserError: the disk or the folder refuses; the old file stays, and no temporary one. `size` (bytes) is told.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # a machine that loses power must not leave half a file under the final name
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, (OSError, SafetensorError)):
            raise UserError(f"{path}: cannot be written: {_refusal(path, error, size)}") from error
        raise


def _refusal(path: Path, error: OSError | SafetensorError, size: int | None) -> str:
    reason = str(getattr(error, "strerror", None) or error)
    room = []
    with suppress(OSError):
        room = [f"{shutil.disk_usage(path.parent).free:,} bytes are free"]
    if size is not None:
        room.insert(0, f"up to {size:,} bytes to write")
    shown = f" ({', '.join(room)})" if room else ""
    return f"{reason}{shown}; what was written before is kept, and the same command continues once this is mended"


def write_json(path: Path, value: Any) -> None:
    data = (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
    write_atomically(path, lambda temporary: temporary.write_bytes(data), len(data))


def read_json(path: Path) -> Any:
    """DataError: a file that cannot be read, or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); {_mend(path)}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: is not JSON ({error.msg} at line {error.lineno}); {_mend(path)}") from error


def _mend(path: Path) -> str:
    """What to do about a damaged file: of a cell nothing can be mended alone but a training's checkpoint."""
    if path.name == "index.json":
        return "remove it: the cells stay, and a run lists its own again"
    return f"remove {path if path.name == STATE else path.parent}, and the same command makes it again"


def read_metrics(folder: Path) -> dict[str, Scores]:
    """The scores of each of a cell's evaluations. DataError: a missing or damaged file."""
    path = folder / "metrics.json"
    stored = read_json(path)
    try:
        return {name: Scores(**{key: float(v) for key, v in s.items()}) for name, s in stored.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: does not hold acc, con and succ of each evaluation; {_mend(path)}") from error


def write_rows(path: Path, evaluations: Mapping[str, Sequence[Outcome]]) -> None:
    """Outcomes of named evaluations as one parquet table."""
    rows = [{"evaluation": name, **asdict(o)} for name, outcomes in evaluations.items() for o in outcomes]
    table = pa.Table.from_pylist(rows)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"), table.nbytes)


def read_rows(path: Path) -> dict[str, list[Outcome]]:
    """The inverse of write_rows. DataError: a missing or broken file."""
    evaluations: dict[str, list[Outcome]] = {}
    try:
        for row in pq.read_table(path).to_pylist():
            evaluations.setdefault(row.pop("evaluation"), []).append(Outcome(**row))
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as a table of outcomes; {_mend(path)}") from error
    return evaluations


def save_parameters(path: Path, parameters: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Tensors with a JSON description in the file's metadata."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
    metadata = {"about": json.dumps(about, ensure_ascii=False)}
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata), size)


def load_parameters(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a checkpoint. ModelError: truncated, or of another editor than `expected`."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: is not a readable checkpoint ({error}); {_mend(path)}") from error
    wrong = sorted(
        name
        for name in tensors.keys() | expected.keys()
        if name not in tensors or name not in expected or tensors[name].shape != expected[name].shape
    )
    if wrong:
        raise ModelError(f"{path}: is a checkpoint of another editor; these parameters differ: {', '.join(wrong[:5])}")
    return tensors


def read_about(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself. ModelError: it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path}: is not a readable checkpoint ({error}); {_mend(path)}") from error
    return about if isinstance(about, dict) else {}


def save_state(path: Path, record: Mapping[str, Any], state: State) -> None:
    """A training's state as one file, with the record of the cell that it belongs to."""
    groups = {"now": state.parameters, "best": state.best, "first": state.first, "second": state.second}
    tensors = {f"{group}/{name}": t for group, named in groups.items() for name, t in named.items()}
    reports = [asdict(report) for report in state.reports]
    save_parameters(path, tensors, {"step": state.step, "sums": state.sums, "reports": reports, "record": record})


def load_state(path: Path, record: Mapping[str, Any], expected: Mapping[str, Tensor]) -> State | None:
    """The inverse of save_state; None where no file is.

    ModelError: truncated, or of another cell; the message shows what differs. A damaged state is refused and not passed
    over: a write cannot leave one, so something else damages files here, and hours of training should not go unsaid.
    """
    if not path.exists():
        return None
    about = read_about(path)
    differ = differences(about.get("record"), dict(record))
    if differ:
        raise ModelError(f"{path}: is the checkpoint of another training ({'; '.join(differ[:5])}); {_mend(path)}")
    wanted = {f"{group}/{name}": p for group in ("now", "best", "first", "second") for name, p in expected.items()}
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_parameters(path, wanted).items():
        group, name = key.split("/", 1)
        groups.setdefault(group, {})[name] = tensor.to(expected[name].device)
    named = (groups["now"], groups["best"], groups["first"], groups["second"])
    try:
        reports = [Report(**{**report, "scores": Scores(**report["scores"])}) for report in about["reports"]]
        return State(int(about["step"]), *named, dict(about["sums"]), reports)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: is not a readable checkpoint (no {error}); {_mend(path)}") from error


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """Where two records differ, as "model: 1a2b, not 3c4d"; the machine makes no difference."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [key for key in {**here, **there} if key != "machine"]
        found = (differences(there.get(key), here.get(key), f"{name}.{key}" if name else key) for key in keys)
        return [difference for differences in found for difference in differences]
    there, here = (list(value) if isinstance(value, tuple) else value for value in (there, here))
    return [] if there == here else [f"{name or 'record'}: {_shown(there)}, not {_shown(here)}"]


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def add_to_index(root: Path, folders: Iterable[Path]) -> None:
    """Note which cells the report of `root` is about; a cell that is run again under its protocol takes its place.

    Cells of the same task on other data, another model or other languages leave: no table may mix them.
    """
    cells = {folder: read_record(folder) for folder in (*read_index(root), *folders)}
    scopes = {cell["cell"]["task"]: _scope(cell) for cell in cells.values()}  # the last one's, which is new
    kept = {
        (cell["protocol"], *cell["cell"].values()): folder.name
        for folder, cell in cells.items()
        if _scope(cell) == scopes[cell["cell"]["task"]]
    }
    write_json(root / "index.json", list(kept.values()))


def read_index(root: Path) -> list[Path]:
    """The folders of the cells that the report of `root` is about, as far as they are there. DataError: no list."""
    index = root / "index.json"
    names = read_json(index) if _there(index) else []
    if not isinstance(names, list) or not all(isinstance(n, str) and n and Path(n).name == n for n in names):
        raise DataError(f"{index}: is not a list of cells' folders; {_mend(index)}")
    return [root / name for name in names if is_done(root / name)]


def read_record(folder: Path) -> dict[str, Any]:
    """A cell's cell.json. DataError: it lacks what every record has."""
    path = folder / "cell.json"
    record = read_json(path)
    try:
        for value in (record["cell"]["task"], record["protocol"]):
            str(value)
        _scope(record)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: is not the record of a cell (no {error}); {_mend(path)}") from error
    return dict(record)


def _scope(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return cell["preset"]["name"], cell["data"], cell["model"], tuple(cell["languages"])


@contextmanager
def held(folder: Path, patience: float = 10.0, name: str = LOCK) -> Iterator[None]:
    """Work on a folder alone: two runs that write the same cell would spoil it.

    The lock goes with its process, however that ends, so none is ever stale. UserError: another process has it, and
    does not let go within `patience` seconds.
    """
    lock = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = FileLock(lock)
        file.acquire(timeout=patience)
    except Timeout as error:
        holder = ""
        with suppress(OSError, UnicodeDecodeError):
            holder = lock.read_text(encoding="utf-8").strip()
        raise UserError(
            f"{folder}: another run is at work here ({holder or 'it did not say which'}); wait for it or stop it"
        ) from error
    except OSError as error:
        raise UserError(f"{lock}: cannot be written: {error.strerror or error}") from error
    try:
        with suppress(OSError):
            lock.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            lock.unlink()  # while it is held: who waits for it sees that it is gone, and makes another
        file.release()


def clean(folder: Path) -> None:
    """Remove what a process that was killed has left; nobody else may be writing into the folder."""
    leftovers = [*folder.glob(".*.tmp"), *folder.glob(".tmp??????")]
    if is_done(folder):
        leftovers += [folder / STATE, folder / LOCK]
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)


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
    """Whether a cell is finished: metrics.json is written last. DataError: a folder that cannot be looked into."""
    return all(_there(folder / name) for name in ("cell.json", "rows.parquet", "metrics.json"))


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise DataError(f"{path.parent}: cannot be looked into: {error.strerror}; mend its permissions") from error
