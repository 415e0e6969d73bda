"""Rows of tables: jsonl, csv, tsv and parquet, plain or .gz, in folders and zip archives; and saved `datasets`.

Lines are read here and not by a library, because an error must name the file, the line and the field.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from itertools import chain
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from .. import checks
from ..borders import POINTER, border, explain, first_line, is_pointer, pointer, recognised, sentences
from ..errors import DataError, LanguageError
from .download import OF_FACTS, locate

#: Table formats. If a table exists in two formats, the first of these is read.
TABLES = (".parquet", ".jsonl", ".tsv", ".csv")
SAVED = "state.json"  # the file that marks a folder of `save_to_disk`; it represents the table
Rows = Iterator[tuple[int, dict[str, Any]]]
Opener = Callable[[], Any]  # returns a buffered binary stream
_OTHERS = Path(__file__).with_name("recognised.toml")
#: Files that are never data: hidden files, backups, locks, and files of operating systems.
_UNMEANT = re.compile(
    r"(^|/)(\.|~\$|__MACOSX/|__pycache__/|Thumbs\.db|desktop\.ini|Icon\r)|(~|\.bak|\.old|\.orig|\.tmp)$"
)


def kind(name: str) -> str | None:
    """The suffix of a table, SAVED for a folder of `save_to_disk`, or None for other files."""
    base = PurePosixPath(name).name.lower().removesuffix(".gz")
    return SAVED if base == SAVED else next((suffix for suffix in TABLES if base.endswith(suffix)), None)


@dataclass(frozen=True, slots=True)
class Files:
    """Files below `root`: name (with "/") → opener; and notes on ignored files."""

    root: str
    openers: Mapping[str, Opener]
    notes: tuple[str, ...] = ()

    def where(self, name: str | PurePath) -> str:
        return str(PurePath(self.root, name))

    def path(self, name: str) -> Path | None:
        """The path of a file on disk; None in an archive."""
        path = Path(self.root, name)
        return path if path.is_file() else None

    @property
    def tables(self) -> list[str]:
        saved = {str(PurePath(name).parent) for name in self.openers if name.endswith(".arrow")}
        return [n for n in self.openers if kind(n) and (kind(n) != SAVED or str(PurePath(n).parent) in saved)]


@contextmanager
def located(source: str | Path, expected: str, patterns: Sequence[str] = OF_FACTS) -> Iterator[Files]:
    """The files of a source, downloaded if necessary. `expected` starts with the title of the data. DataError: none."""
    with (
        border(DataError, f"cannot read {expected.partition(':')[0]} from {str(source)!r}"),
        opened(Path(locate(str(source), expected=expected, first=patterns))) as found,
    ):
        if not found.tables:
            raise nothing(found, expected)
        checks.refuse(DataError, checks.of_files(found.tables), at=found.root)
        yield found


@contextmanager
def opened(path: Path) -> Iterator[Files]:
    """The files of a folder (of its archives, if it has no tables) or an archive, or one file. None is unpacked."""
    with ExitStack() as stack:
        if not path.is_dir():
            zipped = path.suffix.lower() == ".zip"
            yield Files(str(path), _archive(stack, path)) if zipped else _files(path.parent, [path.name])
            return
        checks.refuse(DataError, checks.of_folder(path))
        names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir())
        hidden = [n for n in names if _UNMEANT.search(n) and "/._" not in f"/{n}" and any(s in n for s in TABLES)]
        notes = (f"left out, as hidden files or backups: {', '.join(hidden[:5])}",) if hidden else ()
        found = _files(path, [name for name in names if not _UNMEANT.search(name)], notes)
        archives = [] if found.tables else [name for name in found.openers if name.lower().endswith(".zip")]
        inner = {f"{name}/{inside}": o for name in archives for inside, o in _archive(stack, path / name).items()}
        yield Files(str(path), inner, notes) if inner else found


def _files(folder: Path, names: Sequence[str], notes: tuple[str, ...] = ()) -> Files:
    return Files(str(folder), {name: partial((folder / name).open, "rb") for name in names}, notes)


def _archive(stack: ExitStack, path: Path) -> dict[str, Opener]:
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        reason = f"{path}: is not a readable zip archive ({error}); if its download was cut short, download it again"
        raise DataError(pointer(path) if is_pointer(path) else reason) from error
    openers: dict[str, Opener] = {}
    for entry in archive.infolist():
        name = entry.filename
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in str(parts):
            raise DataError(f"{path}: entry {name!r} points outside the archive; do not trust this file")
        if entry.is_dir() or _UNMEANT.search(name):
            continue
        if entry.flag_bits & 1:
            raise DataError(f"{path}: entry {name!r} is encrypted; unpack it with its password and name the folder")
        checks.refuse(DataError, name in openers and f"{path}: has the entry {name!r} twice; remove one")
        openers[name] = partial(archive.open, entry)
    return openers


def once(files: Files, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The tables without duplicates (one in two formats, or of the same bytes), and a note for each duplicate."""
    formats, contents, kept, notes = dict[str, str](), dict[str, str](), list[str](), list[str]()
    for name in sorted(names, key=lambda name: ([SAVED, *TABLES].index(str(kind(name))), name)):
        stem = name if kind(name) == SAVED else name.lower().removesuffix(".gz").rpartition(".")[0]
        same, path = formats.setdefault(stem, name), files.path(name)
        if path is not None and same == name and len(names) > 1 and kind(name) != SAVED:
            with path.open("rb") as file:
                same = contents.setdefault(hashlib.file_digest(file, "blake2b").hexdigest(), name)
        if same == name:
            kept.append(name)
        else:
            notes.append(f"left out: {name}, which is {same} again, in another format or under another name")
    return sorted(kept), notes


def nothing(files: Files, expected: str) -> DataError:
    """The error for a source without tables; it says which files are there."""
    there = ", ".join([*files.openers][:3]) or "no files"
    known = (
        f"{files.where(name)} is {about}; " for name in files.openers for about in recognised(_OTHERS, "files", name)
    )
    title = expected.partition(":")[0]
    return DataError(f"{files.root}: no {title} here ({there}); {next(known, '')}expected {expected}")


def lacking(columns: Sequence[str], wanted: Iterable[Sequence[str]]) -> list[str]:
    """The missing columns of a table, each by its first name; `wanted` lists the names of each."""
    return [names[0] for names in wanted if not any(name in columns for name in names)]


def lacks(where: str, lacking: Sequence[str], title: str, columns: Sequence[str], own: str) -> DataError:
    """The error for missing columns; if the table is of a known other kind than `own`, it says which."""
    others = (about for some, about in sentences(_OTHERS)["columns"].items() if {*some.split()} <= {*columns})
    other = next((about for about in others if not about.startswith(own)), None)
    missing = f"lacks {', '.join(map(repr, lacking))} of {title}"
    return DataError(f"{where}: {f'is {other}' if other else missing}; it has {', '.join(columns)}")


@contextmanager
def text(files: Files, name: str, newline: str | None = None, raw: bool = False) -> Iterator[Any]:
    """The text of a file without its byte order mark, or its `raw` bytes. DataError: damaged, or not UTF-8."""
    where = files.where(name)
    try:
        with files.openers[name]() as stream:
            checks.refuse(DataError, stream.peek(len(POINTER)).startswith(POINTER) and pointer(where))
            checks.refuse(DataError, checks.of_content(name, stream.peek(4)), at=where)
            unpacked: Any = gzip.open(stream) if name.lower().endswith(".gz") else stream  # noqa: SIM115
            yield unpacked if raw else TextIOWrapper(unpacked, encoding="utf-8-sig", newline=newline)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: is {explain(error)}") from error
    except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{where}: is damaged ({error}); download it again") from error
    except NotImplementedError as error:
        raise DataError(f"{where}: cannot be unpacked: {error}") from error
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}") from error


def rows(files: Files, name: str, wanted: Sequence[str] | None = None) -> Rows:
    """(line, row) of a table in file order; for parquet (row number, row). With `wanted`, only these columns."""
    if kind(name) == ".jsonl":
        yield from json_rows(files, name)
    elif kind(name) in (".csv", ".tsv"):
        yield from _delimited(files, name)
    else:
        with columnar(files, name) as (schema, batches):
            known = [column for column in schema.names if wanted is None or column in wanted]
            found = (row for batch in batches(known) for row in batch.to_pylist())  # in batches of some thousand rows
            yield from ((i, {k: v for k, v in row.items() if v is not None}) for i, row in enumerate(found, 1))


def json_rows(files: Files, name: str) -> Rows:
    """(line number, object) of a file of JSON lines."""
    where = files.where(name)
    with text(files, name) as lines:
        yield from ((i, _object(line, f"{where}:{i}")) for i, line in enumerate(lines, 1) if line.strip())


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # RecursionError: deeply nested lists
        what = (
            f"({error.msg} at column {error.colno})" if isinstance(error, json.JSONDecodeError) else "of plain fields"
        )
        raise DataError(f"{where}: is not a JSON object {what}; correct or remove the line") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(row).__name__}")
    for key, value in row.items() if "\\ud" in line.lower() else ():
        if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
            raise DataError(f"{where}: field {key!r} has half of a surrogate pair: {value!r}; correct the escape")
    return row


def _delimited(files: Files, name: str) -> Rows:
    where, cells = files.where(name), _cells(files, name, quoted=not _unquoted(files, name))
    _, header = next(cells, (0, list[str]()))
    for column, count in Counter(header).items():
        checks.refuse(DataError, count > 1 and f"{where}:1: column {column!r} occurs twice; rename one")
    checks.refuse(DataError, not header and f"{where}: is empty; expected a header line")
    for number, row in cells:
        if len(row) != len(header):
            sizes = f"has {len(row)} cells, and the header {len(header)} columns"
            raise DataError(f"{where}:{number}: {sizes}; quote cells that hold the delimiter")
        yield number, {key: cell for key, cell in zip(header, row, strict=True) if cell}


def _cells(files: Files, name: str, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    with text(files, name, "") as lines:
        first = next(lines, "")
        delimiter = "\t" if kind(name) == ".tsv" else max(",;\t", key=first.count)  # Excel writes ";" in many locales
        style: dict[str, Any] = {"strict": True} if quoted else {"quoting": csv.QUOTE_NONE}
        reader = csv.reader(chain([first], lines), delimiter=delimiter, **style)
        try:
            yield from ((reader.line_num, cells) for cells in reader if cells)
        except csv.Error as error:
            where = f"{files.where(name)}:{reader.line_num}"
            raise DataError(f"{where}: is not csv ({error}); correct the line") from error


def _unquoted(files: Files, name: str) -> bool:
    """Whether a tab-separated file has no quoting, as is common in NLP: then a cell may start with a quote."""
    if kind(name) != ".tsv":
        return False
    widths, whole, needed = set[int](), True, False
    for _, cells in _cells(files, name, quoted=False):
        starts = [cell for cell in cells if cell.startswith('"')]
        needed = needed or (bool(starts) and not widths) or any('""' in cell[1:-1] for cell in starts)
        whole = whole and all(re.fullmatch(r'"([^"]|"")*"', cell) for cell in starts)
        widths.add(len(cells))
    if len(widths) < 2:
        return not (whole and needed)
    with suppress(DataError):  # cells that contain tabs and line ends
        return len({len(cells) for _, cells in _cells(files, name, quoted=True)}) > 1
    return True


@contextmanager
def columnar(files: Files, name: str) -> Iterator[tuple[Any, Callable[[list[str]], Iterator[Any]]]]:
    """The Arrow schema of parquet or a saved dataset, and its batches of some columns. DataError: it is damaged."""
    import pyarrow as pa  # noqa: PLC0415  slow to import
    import pyarrow.parquet as pq  # noqa: PLC0415

    path, where, saved = files.path(name), files.where(name), kind(name) == SAVED
    if saved and path is None:
        raise DataError(f"{where}: a saved dataset is only read from a folder; unpack the archive")
    with text(files, name, raw=True) as stream:
        try:
            if saved:
                from datasets import load_from_disk  # noqa: PLC0415

                table = load_from_disk(str(Path(where).parent)).data.table
                yield table.schema, lambda columns: iter(table.select(columns).to_batches(4096))
                return
            source = path if path is not None and path.suffix != ".gz" else pa.BufferReader(stream.read())
            with pq.ParquetFile(source, memory_map=True) as file:
                checks.refuse(DataError, checks.of_columns(file.schema_arrow.names), at=where)
                yield file.schema_arrow, lambda columns: file.iter_batches(4096, columns=columns)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            what = "a saved dataset" if saved else "parquet"
            raise DataError(f"{where}: cannot be read as {what} ({first_line(error)}); copy it again") from error


def columns_of(files: Files, name: str) -> tuple[str, ...]:
    """The columns of a table: those of its schema or header, or the fields of its first JSON line."""
    if kind(name) == ".jsonl":
        return next((tuple(row) for _, row in json_rows(files, name)), ())
    if kind(name) in (".csv", ".tsv"):
        header = next((cells for _, cells in _cells(files, name, quoted=kind(name) == ".csv")), [])
        return tuple(cell.strip('"') for cell in header)
    with columnar(files, name) as (schema, _):
        return tuple(schema.names)


def texts(row: Mapping[str, Any], fields: Sequence[str], where: str, ids: Sequence[str] = ()) -> list[str]:
    """The texts of these fields; `ids` may be whole numbers. DataError: a field is missing, empty, or not text."""
    found = []
    for name in fields:
        value = row.get(name)
        value = str(value) if type(value) is int and name in ids else value
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{where}: field {name!r} must be non-empty text, got {value!r}")
        found.append(value)
    return found


def check_language(language: str, where: str) -> None:
    """DataError: a language code with a character that ids or the command line use as a separator."""
    checks.refuse(DataError, checks.of_code(language), at=where)


def chosen(languages: Sequence[str] | None, known: Sequence[str], where: str) -> tuple[list[str], list[str]]:
    """The languages to read, sorted, and a note if two differ only in case. LanguageError: an unknown one."""
    for language in languages or ():
        if language not in known:
            raise LanguageError(language, sorted(known), f"in {where}")
    taken = sorted(set(languages or known))
    twins = [f"{a!r} and {b!r}" for a in taken for b in taken if a < b and a.casefold() == b.casefold()]
    return taken, [f"languages {both} differ in case only: are they one?" for both in twins]
