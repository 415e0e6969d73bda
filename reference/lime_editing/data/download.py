"""Data from an address that the user names: fetched once, resumed where it was cut off, with its checksum beside it.

    <cache>/<digest of the address>-<name>          the file
    <cache>/<digest of the address>-<name>.json     where it is from, how long it is, and its SHA-256
    <cache>/<digest of the address>-<name>.part     what has come of it so far

An address may end in #sha256=…, and is then taken for that content alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..errors import DataError

Progress = Callable[[int, int | None], None]
CHUNK = 1 << 20
#: What may hold facts in a data set of the hub; models and whatever else lie beside them stay there.
OF_FACTS = ("*.parquet", "*.jsonl", "*.zip", "*.csv", "*.tsv", "*_sub_uri_list.json")
TIMEOUT = 60.0  # seconds without a byte


def is_address(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def cache_folder() -> Path:
    """LIME_EDITING_CACHE, or a folder of the user's cache."""
    if os.environ.get("LIME_EDITING_CACHE"):
        return Path(os.environ["LIME_EDITING_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lime_editing"


def locate(source: str, offline: bool = False, progress: Progress = lambda done, total: None) -> str:
    """Where facts lie on this machine: `source` itself if it is there, else an address or a data set of the hub.

    DataError: it cannot be had.
    """
    if is_address(source):
        return str(fetch(source, offline, progress))
    if Path(source).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        return source
    from huggingface_hub import snapshot_download  # noqa: PLC0415  only those who ask the hub wait for it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return str(
            snapshot_download(source, repo_type="dataset", allow_patterns=list(OF_FACTS), local_files_only=offline)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            f"{source}: is no file or folder here, and no data set that the hub gave ({str(error).splitlines()[0]})"
        ) from error


def fetch(address: str, offline: bool = False, progress: Progress = lambda done, total: None) -> Path:
    """The file at an address, from the cache where it is there.

    DataError: not there and offline, no answer, an end before its length, or another checksum than it should have.
    """
    where, _, fragment = address.partition("#")
    wanted = fragment.removeprefix("sha256=").lower() if fragment else None
    if wanted is not None and not re.fullmatch(r"sha256=[0-9a-fA-F]{64}", fragment):
        raise DataError(f"{address}: expected nothing after '#' but sha256= and 64 hexadecimal digits")
    name = unquote(urlsplit(where).path).rpartition("/")[2] or "data"
    key = hashlib.sha256(where.encode()).hexdigest()[:16]
    path = cache_folder() / f"{key}-{re.sub(r'[^A-Za-z0-9._-]', '_', name)}"
    about, part = path.with_name(path.name + ".json"), path.with_name(path.name + ".part")
    try:
        if path.exists() and about.exists():
            _verify(path, about, wanted)
            return path
        if offline:
            raise DataError(f"{where}: is not in {cache_folder()}, and offline nothing is asked of the network")
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(where, part, progress)
        found = _sha256(part)
        if wanted not in (None, found):
            part.unlink()
            raise DataError(f"{where}: its SHA-256 is {found} and not {wanted}; it is not the file that was asked for")
        record = {"address": where, "bytes": part.stat().st_size, "sha256": found}
        about.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
        _mark(part).unlink(missing_ok=True)
    except urllib.error.HTTPError as error:
        raise DataError(f"{where}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        come = part.stat().st_size if part.exists() else 0
        reason = getattr(error, "reason", error) or type(error).__name__
        raise DataError(f"{where}: no more than {come:,} bytes came ({reason}); the same command resumes") from error
    except OSError as error:
        raise DataError(f"{path.parent}: {error.strerror}; LIME_EDITING_CACHE names another folder") from error
    return path


def _verify(path: Path, about: Path, wanted: str | None) -> None:
    found = _sha256(path)
    try:
        recorded = json.loads(about.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{about}: is not a download's record; remove it and {path.name}, and fetch again") from error
    if found != recorded:
        raise DataError(f"{path}: is not what was downloaded, by its SHA-256; remove it, and fetch again")
    if wanted not in (None, found):
        raise DataError(f"{path}: its SHA-256 is {found} and not {wanted}; remove it, and fetch again")


def _download(where: str, part: Path, progress: Progress) -> None:
    """All of a file into `part`, from where it ends on, if the server has the same file still."""
    mark = _mark(part)
    start = part.stat().st_size if part.exists() and mark.exists() else 0
    request = urllib.request.Request(where, headers={"User-Agent": "lime-editing", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", mark.read_text(encoding="utf-8"))
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        part.unlink()  # what is there already is not a beginning of it
        _download(where, part, progress)
        return
    with answer:
        if answer.status == 206 and not str(answer.headers.get("Content-Range")).startswith(f"bytes {start}-"):
            raise HTTPException(f"asked for bytes from {start}, got {answer.headers.get('Content-Range')}")
        start = start if answer.status == 206 else 0
        known = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if known and not known.startswith("W/"):
            mark.write_text(known, encoding="utf-8")
        else:
            mark.unlink(missing_ok=True)  # nothing tells whether the rest would be the same file's
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with part.open("ab" if start else "wb") as file:
            done = start
            progress(done, total)
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"{total:,} bytes were announced")


def _mark(part: Path) -> Path:
    """Where the server's name for the file's version is kept."""
    return part.with_name(part.name + ".version")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
