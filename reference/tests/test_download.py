"""Downloads, from a server of this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lime_editing.data import download
from lime_editing.data.facts.read import read
from lime_editing.data.facts.task import fingerprint
from lime_editing.errors import DataError
from reference.tests.corpora import write_zip


class Server:
    """What it gives, how it behaves, and what it was asked."""

    def __init__(self) -> None:
        self.content = b""
        self.version: str | None = '"one"'
        self.cut: int | None = None  # bytes of an answer after which the connection breaks
        self.ranges = True
        self.asked: list[str | None] = []
        self.address = ""


@pytest.fixture
def server() -> Iterator[Server]:
    given = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            given.asked.append(asked)
            if self.path.startswith("/missing"):
                self.send_error(404)
                return
            same = self.headers.get("If-Range") == given.version
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and given.ranges and same else 0
            if start and start >= len(given.content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(given.content) - 1}/{len(given.content)}")
            if given.version:
                self.send_header("ETag", given.version)
            rest = given.content[start:]
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest if given.cut is None else rest[: given.cut])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        given.address = f"http://127.0.0.1:{http.server_port}/mlama%201.1.zip"
        thread = Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield given
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LIME_EDITING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_archive_is_fetched_once_and_read(server: Server, facts: Path, tmp_path: Path, cache: Path) -> None:
    source = write_zip(tmp_path / "a.zip", facts)
    server.content = source.read_bytes()
    heard: list[tuple[int, int | None]] = []
    path = download.fetch(server.address, progress=lambda done, total: heard.append((done, total)))
    assert path.parent == cache
    assert path.name.endswith("-mlama_1.1.zip")
    assert fingerprint(read(path)) == fingerprint(read(facts))
    assert heard[-1] == (len(server.content), len(server.content))
    record = json.loads((cache / f"{path.name}.json").read_text())
    digest = hashlib.sha256(server.content).hexdigest()
    assert record == {"address": server.address, "bytes": len(server.content), "sha256": digest}
    assert download.fetch(server.address, offline=True) == path
    assert download.fetch(f"{server.address}#sha256={digest.upper()}") == path
    assert download.locate(server.address) == str(path)
    assert server.asked == [None]
    assert sorted(p.name for p in cache.iterdir()) == [path.name, f"{path.name}.json"]


def test_a_broken_download_goes_on_where_it_was(server: Server) -> None:
    server.content, server.cut = bytes(range(256)) * 40, 3_000
    with pytest.raises(
        DataError, match=r"the download stopped after 3,000 bytes .*10,240 bytes were announced.*resumes"
    ):
        download.fetch(server.address)
    with pytest.raises(DataError, match=r"the download stopped after 6,000 bytes"):
        download.fetch(server.address)
    server.cut = None
    assert download.fetch(server.address).read_bytes() == server.content
    assert server.asked == [None, "bytes=3000-", "bytes=6000-"]


@pytest.mark.parametrize("change", ["another-version", "no-ranges", "shorter", "no-version"])
def test_what_is_no_beginning_of_the_file_is_fetched_again(server: Server, change: str) -> None:
    server.version = None if change == "no-version" else server.version
    server.content, server.cut = b"a" * 10_000, 6_000
    with pytest.raises(DataError, match="the download stopped after 6,000 bytes"):
        download.fetch(server.address)
    server.cut = None
    if change == "another-version":
        server.content, server.version = b"b" * 10_000, '"two"'
    elif change == "no-ranges":
        server.ranges = False
    elif change == "shorter":
        server.content = b"c" * 500
    elif change == "no-version":
        server.content = b"d" * 10_000
    assert download.fetch(server.address).read_bytes() == server.content


def test_offline_asks_nothing_of_the_network(server: Server, cache: Path) -> None:
    with pytest.raises(DataError, match=r"is not in .*cache, and offline nothing is downloaded"):
        download.fetch(server.address, offline=True)
    assert server.asked == []
    assert not cache.exists()


def test_another_checksum_is_refused_and_not_kept(server: Server, cache: Path) -> None:
    server.content = b"something else"
    with pytest.raises(DataError, match=r"its SHA-256 is [0-9a-f]{64} and not 0{64}"):
        download.fetch(f"{server.address}#sha256={'0' * 64}")
    assert not [path for path in cache.iterdir() if path.suffix in (".part", ".zip")]
    with pytest.raises(DataError, match="after '#', only sha256="):
        download.fetch(f"{server.address}#md5=1")


def test_a_file_that_changed_in_the_cache_is_refused(server: Server) -> None:
    server.content = b"one"
    path = download.fetch(server.address)
    path.write_bytes(b"two")
    with pytest.raises(DataError, match=r"has changed since its download .*; remove it"):
        download.fetch(server.address)
    path.with_name(path.name + ".json").write_text("{}")
    with pytest.raises(DataError, match=r"is not the record of a download"):
        download.fetch(server.address)


def test_no_answer_and_no_such_file_are_named(server: Server) -> None:
    with pytest.raises(DataError, match=r"/missing: the server answers 404 Not Found"):
        download.fetch(server.address.rpartition("/")[0] + "/missing")
    with pytest.raises(DataError, match=r"the download stopped after 0 bytes \(.*refused"):
        download.fetch("http://127.0.0.1:9/a.zip")


def test_a_cache_that_cannot_be_written_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIME_EDITING_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"LIME_EDITING_CACHE names another folder"):
        download.fetch(server.address)


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LIME_EDITING_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert download.cache_folder() == tmp_path / "lime_editing"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert download.cache_folder() == Path.home() / ".cache" / "lime_editing"


def test_a_data_set_of_the_hub_is_asked_for_its_facts_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked: list[dict[str, object]] = []

    def snapshot(name: str, **options: object) -> str:
        asked.append({"name": name, **options})
        if options["local_files_only"]:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache\nnor elsewhere")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert download.locate("somebody/facts") == str(tmp_path)
    assert asked[0]["allow_patterns"] == list(download.OF_FACTS)
    with pytest.raises(DataError, match=r"somebody/facts: is not a file or folder here.*not in the cache"):
        download.locate("somebody/facts", offline=True)
    assert download.locate(str(tmp_path)) == str(tmp_path)
    with pytest.raises(DataError, match="no-such-folder: no such file or folder"):
        download.locate("no-such-folder")
    assert len(asked) == 2
