"""Data from a URL or the hub. A URL is downloaded once, with resuming, and its checksum is stored beside it.

    <cache>/<digest of the URL>-<name>          the file
    <cache>/<digest of the URL>-<name>.json     its URL, size and SHA-256
    <cache>/<digest of the URL>-<name>.part     the bytes received so far

A URL may end in #sha256=…; then only that content is accepted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..borders import border, expanded, explain, place
from ..errors import DataError

Progress = Callable[[int, int | None], None]
CHUNK = 1 << 20
#: The files of a hub data set that may hold data; other files are not downloaded.
OF_FACTS = ("*.parquet", "*.jsonl", "*.zip", "*.csv", "*.tsv", "*_sub_uri_list.json")
TIMEOUT = 60.0  # seconds without a byte


def cache_folder() -> Path:
    """LIME_EDITING_CACHE, or a folder of LIME_HOME or of the user's cache."""
    if own := os.environ.get("LIME_EDITING_CACHE"):
        return expanded(own)
    if home := os.environ.get("LIME_HOME"):
        return expanded(home) / "downloads"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "lime_editing")


def locate(
    source: str,
    offline: bool = False,
    progress: Progress = lambda done, total: None,
    expected: str = "a file, a folder, an address, or a data set of the hub (owner/name)",
    first: Sequence[str] = OF_FACTS,
) -> str:
    """A path, or the download of a URL or a hub data set: its files that match `first`; if none match, all tables."""
    if source.startswith(("http://", "https://")):
        return str(fetch(source, offline, progress))
    found = place(source, DataError, expected, owner=True)
    if Path(found).exists():
        return found
    from huggingface_hub import snapshot_download  # noqa: PLC0415  slow to import

    with border(DataError, f"{source}: is not a file or folder here, and not a data set that the hub gives"):
        for patterns in dict.fromkeys((tuple(first), OF_FACTS)):
            told: Any = {"repo_type": "dataset", "allow_patterns": list(patterns), "local_files_only": offline}
            folder = Path(snapshot_download(source, **told))
            if next(folder.glob("**/*.*"), None):
                break
    return str(folder)


def fetch(address: str, offline: bool = False, progress: Progress = lambda done, total: None) -> Path:
    """The file at a URL, from the cache if it is there. DataError: it cannot be downloaded whole."""
    where, _, fragment = address.partition("#")
    if fragment and not re.fullmatch(r"sha256=[0-9a-fA-F]{64}", fragment):
        raise DataError(f"{address}: after '#', only sha256= and 64 hexadecimal digits may follow")
    wanted = fragment.removeprefix("sha256=").lower()
    name = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(urlsplit(where).path).rpartition("/")[2] or "data")
    path = cache_folder() / f"{hashlib.sha256(where.encode()).hexdigest()[:16]}-{name}"
    about, part = _beside(path, ".json"), _beside(path, ".part")
    try:
        if path.exists() and about.exists():
            _verify(path, about, wanted)
            return path
        if offline:
            raise DataError(f"{where}: is not in {cache_folder()}, and offline nothing is downloaded; go online")
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(where, part, progress)
        found = _sha256(part)
        if wanted not in ("", found):
            part.unlink()
            raise DataError(f"{where}: its SHA-256 is {found} and not {wanted}; it is not the file that was asked for")
        record = {"address": where, "bytes": part.stat().st_size, "sha256": found}
        about.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
        _beside(part, ".version").unlink(missing_ok=True)
    except urllib.error.HTTPError as error:
        raise DataError(f"{where}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        come, reason = part.stat().st_size if part.exists() else 0, getattr(error, "reason", error)
        stopped = f"{where}: the download stopped after {come:,} bytes ({reason})"
        raise DataError(f"{stopped}; the same command resumes it") from error
    except OSError as error:
        reason = error.strerror or explain(error)
        raise DataError(f"{path.parent}: {reason}; LIME_EDITING_CACHE names another folder") from error
    return path


def _verify(path: Path, about: Path, wanted: str) -> None:
    found = _sha256(path)
    try:
        recorded = json.loads(about.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{about}: is not the record of a download; remove it and {path.name}") from error
    if found != recorded:
        raise DataError(f"{path}: has changed since its download (another SHA-256); remove it, and download it again")
    if wanted not in ("", found):
        raise DataError(f"{path}: its SHA-256 is {found} and not {wanted}; remove it, and download it again")


def _download(where: str, part: Path, progress: Progress) -> None:
    version = _beside(part, ".version")  # the server's ETag or date
    start = part.stat().st_size if part.exists() and version.exists() else 0
    request = urllib.request.Request(where, headers={"User-Agent": "lime-editing", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version.read_text(encoding="utf-8"))
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        part.unlink()  # the existing part belongs to another file
        _download(where, part, progress)
        return
    with answer:
        headers, done = answer.headers, start if answer.status == 206 else 0
        if answer.status == 206 and not str(headers.get("Content-Range")).startswith(f"bytes {start}-"):
            raise HTTPException(f"asked for bytes from {start}, got {headers.get('Content-Range')}")
        known, length = headers.get("ETag") or headers.get("Last-Modified"), headers.get("Content-Length")
        if known and not known.startswith("W/"):
            version.write_text(known, encoding="utf-8")
        else:
            version.unlink(missing_ok=True)  # without a version, a later resume could mix two files
        total = None if length is None else done + int(length)
        with part.open("ab" if done else "wb") as file:
            progress(done, total)
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"{total:,} bytes were announced")


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
