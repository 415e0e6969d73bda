"""Rows of jsonl, csv and parquet, in folders and in zip archives.

The lines are read here rather than by a library, because an error must name the file, the line and the field.
"""

from __future__ import annotations

import csv
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..errors import DataError

#: What a table may be stored as.
TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
Rows = Iterator[tuple[int, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Files:
    """Files below a folder or in a zip archive: their names below `root`, with "/", and how each is opened."""

    root: str
    openers: Mapping[str, Callable[[], IO[bytes]]]

    def where(self, name: str) -> str:
        return f"{self.root}/{name}"


def of_folder(root: Path, pattern: str) -> Files:
    """The files of a folder that match, hidden ones aside."""
    paths = sorted(path for path in root.glob(pattern) if not path.name.startswith("."))
    return Files(str(root), {path.relative_to(root).as_posix(): _opener(path) for path in paths})


@contextmanager
def of_zip(path: Path) -> Iterator[Files]:
    """The files of an archive, read in place: no entry is ever written to disk, wherever its name points.

    DataError: no zip archive, a truncated one, an encrypted entry, or one that points outside the archive.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(
            f"{path}: is not a readable zip archive ({error}); if its download was cut short, download it again"
        ) from error
    with archive:
        openers: dict[str, Callable[[], IO[bytes]]] = {}
        for entry in archive.infolist():
            name = entry.filename
            parts = PurePosixPath(name.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in str(parts):
                raise DataError(f"{path}: entry {name!r} points outside the archive; do not trust this file")
            if entry.is_dir() or name.startswith("__MACOSX/") or parts.name.startswith("."):
                continue
            if entry.flag_bits & 1:
                raise DataError(f"{path}: entry {name!r} is encrypted; unpack it with its password and name the folder")
            if name in openers:
                raise DataError(f"{path}: holds the entry {name!r} twice; only one of them can be meant")
            openers[name] = _entry_opener(archive, entry, path)
        yield Files(str(path), openers)


def _opener(path: Path) -> Callable[[], IO[bytes]]:
    return lambda: path.open("rb")


def _entry_opener(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        try:
            return archive.open(entry)
        except NotImplementedError as error:
            raise DataError(f"{path}: entry {entry.filename!r} cannot be unpacked here: {error}") from error

    return opened


@contextmanager
def text(files: Files, name: str) -> Iterator[IO[str]]:
    """The text of a file, without its byte order mark. DataError: it cannot be read or is not UTF-8."""
    where = files.where(name)
    try:
        with files.openers[name]() as binary:
            newline = (
                "" if name.endswith((".csv", ".tsv")) else None
            )  # the csv module handles line endings within quotes
            yield TextIOWrapper(binary, encoding="utf-8-sig", newline=newline)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: is not UTF-8 text (byte {error.start}); convert it to UTF-8") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{where}: is damaged in the archive ({error}); download the archive again") from error
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}") from error


def rows(files: Files, name: str, wanted: Sequence[str] | None = None) -> Rows:
    """(line, row) of a table in its file order; of parquet (row, row). `wanted` columns are enough, where given."""
    if name.endswith(".parquet"):
        return parquet_rows(Path(files.root) / name, wanted)
    return csv_rows(files, name) if name.endswith((".csv", ".tsv")) else json_rows(files, name)


def json_rows(files: Files, name: str) -> Rows:
    """(line number, object) of a file of JSON lines."""
    with text(files, name) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _object(line, f"{files.where(name)}:{number}")


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: is not a JSON object ({error.msg} at column {error.colno}); fix or remove the line"
        ) from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists in lists
        raise DataError(f"{where}: is not a JSON object of plain fields; fix or remove the line") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(row).__name__}")
    if "\\ud" in line or "\\uD" in line:
        for key, value in row.items():
            if isinstance(value, str) and not _encodable(value):
                raise DataError(f"{where}: field {key!r} holds half of a surrogate pair: {value!r}; fix the escape")
    return row


def _encodable(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def csv_rows(files: Files, name: str) -> Rows:
    """(line number, row) of a csv or tsv file with a header; an empty cell is a missing field."""
    where = files.where(name)
    with text(files, name) as lines:
        reader = csv.reader(lines, delimiter="\t" if name.endswith(".tsv") else ",", strict=True)
        try:
            header = next(reader, None)
            if header is None:
                raise DataError(f"{where}: is empty; expected a header line")
            for column in header:
                if header.count(column) > 1:
                    raise DataError(f"{where}:1: column {column!r} is there twice")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"{where}:{reader.line_num}: has {len(cells)} cells, and the header {len(header)} columns; "
                        f"quote cells that hold the delimiter"
                    )
                yield reader.line_num, {key: cell for key, cell in zip(header, cells, strict=True) if cell}
        except csv.Error as error:
            raise DataError(f"{where}:{reader.line_num}: is not csv ({error}); fix the line") from error


def parquet_rows(path: Path, wanted: Sequence[str] | None = None) -> Rows:
    """(row number, row) of a parquet file, some thousand in memory at a time."""
    with parquet(path) as file:
        columns = None if wanted is None else [name for name in file.schema_arrow.names if name in wanted]
        number = 0
        for batch in file.iter_batches(4096, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, {key: value for key, value in row.items() if value is not None}


@contextmanager
def parquet(path: Path) -> Iterator[Any]:
    """An open parquet file. DataError: it is none, or a damaged one."""
    import pyarrow as pa  # noqa: PLC0415  only those who have parquet wait for it
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0]})") from error


def columns_of(files: Files, name: str) -> tuple[str, ...]:
    """The columns of a table: those of its schema or header, or the fields of its first JSON line."""
    if name.endswith(".parquet"):
        with parquet(Path(files.root) / name) as file:
            return tuple(file.schema_arrow.names)
    if name.endswith(".jsonl"):
        return next((tuple(row) for _, row in json_rows(files, name)), ())
    with text(files, name) as lines:
        return tuple(next(csv.reader(lines, delimiter="\t" if name.endswith(".tsv") else ","), ()))


def check(row: Mapping[str, Any], fields: Sequence[str], where: str) -> None:
    """DataError: one of the fields is missing, empty, or no text."""
    for name in fields:
        value = row.get(name)
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{where}: field {name!r} must be non-empty text, got {value!r}")


def check_language(language: str, where: str) -> None:
    """DataError: what cannot be a language's code in an example's id, or between commas on a command line."""
    if any(character in ",/" or character.isspace() for character in language):
        raise DataError(f"{where}: language {language!r} must be a code without spaces, commas and slashes")
