"""The store: atomic, exact, and unwilling to mix what does not belong together."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, strategies as st
from matplotlib.figure import Figure

from lime_editing import results
from lime_editing.core.metrics import ROLES, Scores, count
from lime_editing.core.training import Report, State
from lime_editing.data import download
from lime_editing.errors import DataError, ModelError, UserError
from lime_editing.records import Outcome
from lime_editing.report import figures
from lime_editing.reproduce import store

EDITS, CODES = st.sampled_from(("P1/Q1", "P1/Q2", "P2/Q1")), st.sampled_from(("de", "en", "fr"))
OUTCOMES = st.lists(st.builds(Outcome, EDITS, CODES, st.sampled_from(ROLES), CODES, st.booleans()), min_size=1)


@given(st.dictionaries(st.sampled_from(("en → all", "all → all", "mine")), OUTCOMES, min_size=1))
def test_rows_come_back_as_the_counts_of_what_was_written(rows: dict[str, list[Outcome]]) -> None:
    """In any order: results.read_rows ∘ write_rows = metrics.count."""
    with tempfile.TemporaryDirectory() as folder:
        results.write_rows(Path(folder) / "rows.parquet", rows)
        found = results.read_rows(Path(folder) / "rows.parquet")
    assert found.keys() == rows.keys()
    for name, outcomes in rows.items():
        expected = count(outcomes)
        assert (found[name].edits, found[name].languages) == (expected.edits, expected.languages)
        assert np.array_equal(found[name].hits, expected.hits)
        assert np.array_equal(found[name].asked, expected.asked)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    results.write_json(tmp_path / "a.json", {"old": 1})

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(UserError, match=r"a\.json: cannot be written: OSError: disk full"):
        results.write_atomically(tmp_path / "a.json", fail)
    assert results.read_json(tmp_path / "a.json") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_parameters_come_back_bit_for_bit(tmp_path: Path) -> None:
    parameters = {"a": torch.randn(3, 2), "b": torch.randn(4)}
    store.save_parameters(tmp_path / "e.safetensors", parameters, {"approach": "mend"})
    loaded = store.load_parameters(tmp_path / "e.safetensors", parameters)
    assert all(torch.equal(loaded[name], p) for name, p in parameters.items())


def test_a_checkpoint_of_another_editor_is_refused_by_name(tmp_path: Path) -> None:
    store.save_parameters(tmp_path / "e.safetensors", {"a": torch.zeros(2)}, {})
    with pytest.raises(ModelError, match=r"another editor.*: a"):
        store.load_parameters(tmp_path / "e.safetensors", {"a": torch.zeros(3)})


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    store.save_parameters(path, {"a": torch.zeros(200)}, {})
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        store.load_parameters(path, {"a": torch.zeros(200)})


def test_a_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "cell.json").write_text("{")
    with pytest.raises(DataError, match=r"cell\.json: is not JSON"):
        results.read_json(tmp_path / "cell.json")


def test_comments_docstrings_and_layout_are_not_code() -> None:
    plain = "def f(x):\n    return x + 1\n"
    commented = '"""A module."""\n\n\ndef f(x):\n    """f."""\n    # why\n    return (x\n            + 1)\n'
    assert results._code(plain) == results._code(commented)
    assert results._code(plain) != results._code(plain.replace("+", "-"))


SUM = "def f(x):\n{0}    return x + 1\n"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("    if x < 0: raise ValueError('low')\n", ""),
        ("    if x < 0: raise ValueError('low')\n", "    if x <= 0 or f(0): raise TypeError(f'{x} is low')\n"),
        ("    checks.refuse(ValueError, checks.of_x(x), at=x)\n", ""),
        ("    with border(OSError, 'there'): x = g(x)\n", "    with border(OSError, 'here', more=x): x = g(x)\n"),
        ("    try: x = g(x)\n    except O: raise A('a')\n", "    try: x = g(x)\n    except O: raise B('b')\n"),
    ],
)
def test_an_error_changes_no_number(one: str, other: str) -> None:
    assert results._code(SUM.format(one)) == results._code(SUM.format(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("    if x < 0: x = 0\n", "    if x < 1: x = 0\n"),
        ("    if x < 0: raise A\n    elif x > 9: x = 9\n", "    if x < 1: raise A\n    elif x > 9: x = 9\n"),
        ("    if (x := g(x)) < 0: raise A\n", "    if (x := h(x)) < 0: raise A\n"),
        ("    checks.refuse(A, x := g(x))\n", "    checks.refuse(A, x := h(x))\n"),
        ("    checks.other(x)\n", ""),
        ("    with border(OSError, 'here'): x = g(x)\n", "    with border(OSError, 'here'): x = h(x)\n"),
        (
            "    try:\n        if x < 0: raise A\n    except A: x = 0\n",
            "    try:\n        if x < 1: raise A\n    except A: x = 0\n",
        ),
    ],
)
def test_what_may_change_a_number_is_code(one: str, other: str) -> None:
    assert results._code(SUM.format(one)) != results._code(SUM.format(other))


def test_a_lock_changes_no_number() -> None:
    assert results._code("@one_at_a_time\n" + SUM.format("")) == results._code(SUM.format(""))
    assert results._code("@twice\n" + SUM.format("")) != results._code(SUM.format(""))


# Every kind of node, because ast.dump is another in each version of Python.
KINDS = r"""
import a.b as c, d
from e import f as g
@h(1)
class I(J, k=None):
    l: int = 1
    async def m(n, /, o=..., *p, q, **r) -> None:
        global s
        async with t() as u, v: await w
        async for x in y: del z[1:2, ::3], a[b]
        return None
    n = lambda: (yield), [a for b in c if d], {e: f, **g}, {h for i in j}, (k async for l in m)
match a:
    case None | 1 | "b" | -1.5 | c.d: pass
    case [e, *f] | {"g": h, **i} | J(k, l=m) as n if o: assert p, q
    case _: raise R from s
try: a
except B as c: d
else: e
finally: f
while a and not b or c < d <= e is not None in f: break
else:
    g += h if i else ~j; k @= l ** -m // 2; n = *o, p[...]; (q := r)
    print(f"{a!r:>{b}} {c=} é\\n" "d" u"e", b"f", 1j, 0xff, 1e100, True)
"""


def test_code_has_one_fingerprint_in_every_version_of_python() -> None:
    """The value is that of Python 3.11, 3.12 and 3.13."""
    assert hashlib.blake2b(results._code(KINDS).encode(), digest_size=8).hexdigest() == "4f6260d25e07f172"


# full disks, closed folders, and processes that die while they write

ROWS = {"en → all": [Outcome("P1/Q1/en", "en", "update", "de", True)]}
TENSORS = {"a": torch.zeros(2000)}


def a_state() -> State:
    now, best, first, second = ({name: t.clone() for name, t in TENSORS.items()} for _ in range(4))
    report = Report(2, {"total": 0.5}, Scores(0.25, 1.0, 0.4), True, 0.75, 2)
    return State(3, now, best, first, second, {"total": 1.0}, (report,))


WRITES: dict[str, Callable[[Path], None]] = {
    "cell.json": lambda path: results.write_json(path, {"text": "long" * 2000}),
    "rows.parquet": lambda path: results.write_rows(path, {"en → all": ROWS["en → all"] * 5}),
    "editor.safetensors": lambda path: store.save_parameters(path, TENSORS, {"approach": "mend"}),
    "state.safetensors": lambda path: store.save_state(path, {"cell": "x"}, a_state()),
    "report.html": lambda path: results.write_text(path, "<p>" * 2000),
    "figure.svg": lambda path: figures.save(Figure, path.with_suffix("")),
}


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes: the system itself refuses, as it does on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_does_not_say_its_room_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(path: Path) -> None:
        raise OSError("no answer")

    monkeypatch.setattr(results.shutil, "disk_usage", silent)
    with no_room(100), pytest.raises(UserError, match=r"cannot be written: .*the free space is unknown"):
        results.write_atomically(tmp_path / "a", lambda path: path.write_bytes(b"long" * 200))


def test_an_error_of_the_writer_keeps_its_words(tmp_path: Path) -> None:
    def refuses(path: Path) -> None:
        raise UserError("the reason")

    with pytest.raises(UserError, match=r"^the reason$"):
        results.write_atomically(tmp_path / "a", refuses)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", WRITES)
def test_a_disk_without_room_is_named_and_the_old_file_stays(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("old")
    with no_room(100), pytest.raises(UserError) as caught:
        WRITES[name](path)
    said = str(caught.value)
    assert said.startswith(f"{path}: cannot be written: ")
    assert "File too large" in said
    assert re.search(r"[\d,]+ bytes are free", said)
    assert "the same command resumes" in said
    if name != "figure.svg":
        assert re.search(r"up to [\d,]{3,} bytes to write", said)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("name", ["cell.json", "rows.parquet", "report.html", "figure.svg"])
def test_a_full_device_is_named(name: str, tmp_path: Path) -> None:
    """safetensors makes a file of its own beside the path, so the test above has to do for it."""
    (tmp_path / f".{name}.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(UserError, match=f"{name}: cannot be written: .*No space left on device"):
        WRITES[name](tmp_path / name)
    assert not list(tmp_path.iterdir())


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of the superuser, whom no permission stops."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that may be looked into by nobody; what leads there is open."""
    folder = Path(tempfile.mkdtemp()) / "results"
    folder.mkdir()
    folder.parent.chmod(0o755)
    results.write_json(folder / "cell.json", {})
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder.parent)


@pytest.mark.skipif(os.name == "nt", reason="permissions are others there")
@pytest.mark.parametrize(
    "use",
    [
        lambda folder: results.write_json(folder / "cell.json", {}),
        lambda folder: results.read_json(folder / "cell.json"),
        results.is_done,
        results.read_index,
        lambda folder: results.held(folder).__enter__(),
    ],
    ids=["write", "read", "done", "index", "hold"],
)
def test_a_folder_without_permission_is_named(use: Callable[[Path], object], closed: Path) -> None:
    with as_nobody(), pytest.raises(UserError, match=rf"{closed}.*Permission denied"):
        use(closed)


@pytest.mark.skipif(os.name == "nt", reason="permissions are others there")
def test_a_download_s_cache_without_permission_is_named(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIME_EDITING_CACHE", str(closed))
    said = rf"{closed}: Permission denied; LIME_EDITING_CACHE names another folder"
    with as_nobody(), pytest.raises(DataError, match=said):
        download.fetch("http://localhost:9/facts.zip", offline=True)


#: Dies after each number of lines of Python in turn, and says what it found each time; 0 is a write that was not ended.
DYING = """
import os, sys
from pathlib import Path
from lime_editing import results

def die_after(lines):
    left = lines
    def trace(frame, event, _):
        nonlocal left
        left -= event == "line"
        if left < 0:
            os._exit(9)
        return trace
    sys.settrace(trace)
    try:
        results.write_json(path, "new")
    finally:
        os._exit(0)

path = Path(sys.argv[1], "cell.json")
for lines in range(1, 2000):
    results.write_json(path, "old")
    pid = os.fork()
    if pid == 0:
        die_after(lines)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = any(p != path for p in path.parent.iterdir())
    print(code, results.read_json(path), left)
    results.clean(path.parent)
    assert [p.name for p in path.parent.iterdir()] == ["cell.json"]
    if code == 0:
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_that_dies_at_any_line_of_a_write_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    """In a process without threads: a fork of this one may hang."""
    argv = [sys.executable, "-c", DYING, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300)
    *died, ended = done.stdout.splitlines()
    assert ended == "0 new False"
    assert set(died) == {"9 old False", "9 old True", "9 new False"}


# damaged files, and whose they are

RECORD = {"cell": {"task": "facts", "seed": 0}, "model": "m1", "languages": ["en", "de"], "protocol": "paper"}


def state_at(path: Path, record: Mapping[str, object] = RECORD) -> Path:
    store.save_state(path, record, a_state())
    return path


def test_a_training_s_state_comes_back(tmp_path: Path) -> None:
    path = state_at(tmp_path / "state.safetensors", {**RECORD, "machine": "here"})
    state = store.load_state(path, {**RECORD, "machine": "there"}, TENSORS)
    assert state is not None
    assert (state.step, state.sums, state.reports) == (3, {"total": 1.0}, a_state().reports)
    assert all(torch.equal(t, torch.zeros(2000)) for t in (state.parameters["a"], state.second["a"]))
    assert store.load_state(tmp_path / "none.safetensors", RECORD, TENSORS) is None


@pytest.mark.parametrize("keep", [0, 5, 200, 9000])
def test_a_state_that_is_cut_short_is_refused_with_what_to_remove(keep: int, tmp_path: Path) -> None:
    path = state_at(tmp_path / "state.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=rf"{path}: is not a readable checkpoint .*; remove {path}, and the same"):
        store.load_state(path, RECORD, TENSORS)
    assert path.exists()


def test_a_state_that_says_nothing_of_itself_is_refused(tmp_path: Path) -> None:
    groups = ("now", "best", "first", "second")
    store.save_parameters(tmp_path / "s", {f"{g}/a": TENSORS["a"].clone() for g in groups}, {"record": RECORD})
    with pytest.raises(ModelError, match=r"not a readable checkpoint.*'reports'"):
        store.load_state(tmp_path / "s", RECORD, TENSORS)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"model": "m2"}, "model: m1, not m2"),
        ({"languages": ["en", "fr"]}, "languages: en,de, not en,fr"),
        ({"protocol": "released"}, "protocol: paper, not released"),
        ({"cell": {"task": "facts", "seed": 1}}, "cell.seed: 0, not 1"),
    ],
)
def test_a_state_of_another_training_is_refused_with_the_difference(
    other: dict[str, object], said: str, tmp_path: Path
) -> None:
    path = state_at(tmp_path / "state.safetensors")
    with pytest.raises(ModelError, match=rf"another training \({re.escape(said)}\); remove {path}"):
        store.load_state(path, {**RECORD, **other}, TENSORS)


DAMAGED: dict[str, tuple[str, bytes, Callable[[Path], object], str]] = {
    "index-cut": ("index.json", b'["a', results.read_index, "is not JSON.*remove it: the cells stay"),
    "index-of-objects": ("index.json", b'{"a": 1}', results.read_index, "not a list of cells' folders.*remove it"),
    "index-outside": ("index.json", b'["../../elsewhere"]', results.read_index, "not a list of cells' folders"),
    "metrics-cut": ("metrics.json", b'{"en', results.read_metrics, "is not JSON.*remove {folder}, and"),
    "metrics-binary": (
        "metrics.json",
        b"\xff\xfe\x00",
        results.read_metrics,
        "is not UTF-8 text.*remove {folder},",
    ),
    "metrics-of-a-list": ("metrics.json", b"[]", results.read_metrics, "does not hold acc, con"),
    "metrics-of-others": (
        "metrics.json",
        b'{"en": {"f1": 1}}',
        results.read_metrics,
        "does not hold acc, con",
    ),
    "metrics-of-text": (
        "metrics.json",
        b'{"en": {"acc": "high", "con": 1, "succ": 1}}',
        results.read_metrics,
        "does not hold acc, con",
    ),
    "record-cut": ("cell.json", b"{", results.read_record, "is not JSON.*remove {folder}, and"),
    "record-of-nothing": ("cell.json", b"{}", results.read_record, "is not the record of a cell.*'cell.task'"),
    "record-of-a-list": ("cell.json", b"[]", results.read_record, "is not the record of a cell"),
    "rows-cut": ("rows.parquet", b"PAR1", lambda f: results.read_rows(f / "rows.parquet"), "as a table of outcomes"),
}


@pytest.mark.parametrize(("name", "data", "read", "said"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_of_the_results_is_named(
    name: str, data: bytes, read: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{tmp_path / name}: .*" + said.replace("{folder}", str(tmp_path))):
        read(tmp_path)


def test_rows_with_other_columns_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"edit": ["a"]}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="as a table of outcomes"):
        results.read_rows(tmp_path / "rows.parquet")


# two runs at once

HOLD = """
import sys, time
from pathlib import Path
from lime_editing import results
with results.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_process_and_freed_when_that_is_killed(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        said = rf"{tmp_path}: another run is at work here \(process {other.pid} on .+\); wait for it or stop it"
        with pytest.raises(UserError, match=said), results.held(tmp_path, 0.1):
            pass
        other.kill()
    with results.held(tmp_path, 5):
        assert (tmp_path / results.LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert not list(tmp_path.iterdir())


def test_a_finished_cell_keeps_nothing_of_its_making(tmp_path: Path) -> None:
    done = ["cell.json", "metrics.json", "rows.parquet"]
    for name in (*done, results.STATE, results.LOCK, ".rows.parquet.1.tmp"):
        (tmp_path / name).write_text("")
    results.clean(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == done


def test_an_unfinished_cell_keeps_its_checkpoint_and_its_lock(tmp_path: Path) -> None:
    for name in (results.STATE, results.LOCK, ".rows.parquet.1.tmp", ".gitignore"):
        (tmp_path / name).write_text("")
    results.clean(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".gitignore", results.LOCK, results.STATE]
