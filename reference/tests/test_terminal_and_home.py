"""Every terminal, locale and home: letters that are lacking, pipes that close, folders that cannot be written."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lime_editing import __main__
from lime_editing.__main__ import main
from lime_editing.borders import offline
from lime_editing.cli import output, progress
from lime_editing.cli.options import runs
from lime_editing.core.metrics import Scores
from lime_editing.data import download
from lime_editing.reproduce.cells import Status

ROOT = Path(__file__).resolve().parents[2]
CHECK = [sys.executable, "-m", "lime_editing", "check-data"]
REPORT = [sys.executable, "-m", "lime_editing", "report", "--results"]
EDIT = [sys.executable, "-m", "lime_editing", "edit", "--fact", "P1/Q0", "--to", "Bema"]


def environment(**changes: str | None) -> dict[str, str]:
    told = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1", **changes}
    return {name: value for name, value in told.items() if value is not None}


def run(argv: list[str], **changes: str | None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, env=environment(**changes), capture_output=True, check=False, timeout=120)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_letters_that_the_output_lacks_are_replaced(encoding: str, facts: Path, model: Path) -> None:
    """The arrow of the heading is one of them; bytes of a program's JSON are escaped and none is lost."""
    path = facts / "en" / "P1.jsonl"
    path.write_text(path.read_text().replace('"Bema"', '"Бема"'), encoding="utf-8")
    argv = [*EDIT, "--facts", str(facts), "--model", str(model), "--approach", "finetuning"]
    done = run(argv, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert b"Aton" in done.stdout
    done.stdout.decode(encoding)
    done = run([*argv, "--json"], PYTHONIOENCODING=encoding)
    assert json.loads(done.stdout.decode(encoding))["to"] == "Bema"


def test_the_json_of_an_ascii_terminal_loses_no_letter(facts: Path) -> None:
    for language in ("de", "en", "fr"):
        (facts / language).rename(facts / f"{language}-ü")
    done = run([*CHECK, str(facts), "--json"], PYTHONIOENCODING="ascii")
    assert set(json.loads(done.stdout)["languages"]) == {"de-ü", "en-ü", "fr-ü"}


@pytest.mark.parametrize(
    "terminal", [{"COLUMNS": "20"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}, {"TERM": None}, {"LC_ALL": "C", "LANG": "C"}]
)
def test_narrow_and_dumb_terminals(terminal: dict[str, str | None], facts: Path, model: Path) -> None:
    argv = [*EDIT, "--facts", str(facts), "--model", str(model), "--approach", "finetuning"]
    done = run(argv, **terminal)
    assert done.returncode == 0, done.stderr
    assert b"\x1b[" not in done.stdout


def test_a_pipe_that_closes_ends_the_command_and_says_nothing(facts: Path) -> None:
    command = f"{' '.join(CHECK)} {facts} --json | head -c 10"
    done = subprocess.run(
        ["bash", "-c", f"{command}; echo; echo ${{PIPESTATUS[0]}}"],
        env=environment(),
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("141", "0")  # 0 where all of it fitted into the pipe


def test_an_output_that_is_closed_from_the_start(facts: Path) -> None:
    """As a service or a cluster starts a command."""
    command = ["bash", "-c", f"{' '.join(CHECK)} {facts} >&- 2>&-"]
    assert run(command).returncode == 0
    assert run([*command[:2], f"{' '.join(CHECK)} {facts}/none >&- 2>&-"]).returncode == 1


def test_a_backend_of_figures_that_is_not_here_is_no_matter(tmp_path: Path) -> None:
    """As another program's: matplotlib refuses it when it is imported."""
    done = run([*REPORT, str(tmp_path)], MPLBACKEND="another")
    assert (done.returncode, done.stderr.split(b":")[1]) == (2, f" {tmp_path}".encode())


def test_bytes_that_are_no_text_are_refused_as_an_argument() -> None:
    done = run([*CHECK, b"caf\xe9"])  # type: ignore[list-item]
    assert (done.returncode, done.stderr) == (1, b"error: 'caf\\udce9': is not UTF-8 text; give it in UTF-8\n")


def test_a_console_whose_reader_has_gone_raises_what_main_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(BrokenPipeError):
        output.console().print("text")


def test_a_full_disk_behind_the_output_is_one_sentence(facts: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*CHECK, str(facts)], env=environment(), stdout=full, stderr=subprocess.PIPE, check=False, timeout=120
        )
    assert done.returncode != 0
    assert done.stderr.startswith(b"error: No space left on device")
    assert b"Traceback" not in done.stderr


def test_a_home_is_expanded_where_no_shell_does_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container's environment; and the switch for the network is read as huggingface_hub reads it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LIME_HOME", "~/here")
    assert runs() == tmp_path / "here" / "runs"
    for value, off in (("1", True), ("true", True), ("ON", True), ("0", False), ("false", False), ("", False)):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        assert offline() == off


def test_without_a_home_caches_go_to_a_folder_for_a_while(facts: Path, model: Path, tmp_path: Path) -> None:
    """HOME is not there and cannot be made; a note says where they go."""
    (tmp_path / "file").write_text("")
    no_home = str(tmp_path / "file" / "home")
    argv = [*EDIT, "--facts", str(facts), "--model", str(model), "--approach", "finetuning"]
    done = run(argv, HOME=no_home, HF_HOME=None, XDG_CACHE_HOME=None, TMPDIR=str(tmp_path), LIME_HOME=None)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        rf"note: there is no home folder to write to; caches go to {tmp_path}/lime_editing-\d+ .*\n",
        done.stderr.decode(),
    )


def test_lime_home_is_where_caches_and_results_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "MPLCONFIGDIR", "LIME_EDITING_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LIME_HOME", str(tmp_path))
    __main__._caches()
    assert os.environ.pop("HF_HOME") == str(tmp_path / "huggingface")
    assert os.environ.pop("MPLCONFIGDIR") == str(tmp_path / "matplotlib")
    os.environ.pop("XDG_CACHE_HOME")
    assert download.cache_folder() == tmp_path / "downloads"
    program = "from lime_editing.cli.options import Reproduce; print(Reproduce().results)"
    assert run([sys.executable, "-c", program], LIME_HOME=str(tmp_path)).stdout.decode().strip() == f"{tmp_path}/runs"
    assert run([sys.executable, "-c", program], LIME_HOME=None).stdout.decode().strip() == "runs"
    changed = {"HOME": str(tmp_path), "LIME_HOME": "~/x"}  # as a container sets it, where no shell expands it
    assert run([sys.executable, "-c", program], **changed).stdout.decode().strip() == f"{tmp_path}/x/runs"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LIME_HOME", "~/x")
    __main__._caches()
    for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME"):
        os.environ.pop(name)
    assert os.environ.pop("HF_HOME") == str(tmp_path / "x" / "huggingface")
    assert download.cache_folder() == tmp_path / "x" / "downloads"


def test_results_are_relative_to_where_one_is(
    facts: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reference.tests.miniature import set_options

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    argv = ["reproduce", "--task", "facts", "--facts", str(facts), "--model", str(model), "--approach", "finetuning"]
    assert main([*argv, *set_options(), "--jobs", "1"]) == 0
    assert (tmp_path / "here" / "runs" / "tiny-changed" / "report.html").is_file()


OLD = [path for path in (Path.home() / ".pyenv" / "versions").glob("3.*/bin/python") if path.parts[-3] < "3.11"]
OLD = [path for path in OLD if path.parts[-3].split(".")[1] in ("8", "9", "10")]


@pytest.mark.skipif(not OLD, reason="no older Python here")
def test_an_archive_is_no_place_to_run_from(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        archive.write(Path(__main__.__file__).with_name("__init__.py"), "lime_editing/__init__.py")
    done = run([sys.executable, "-m", "lime_editing"], PYTHONPATH=str(tmp_path / "own.zip"))
    assert done.stderr == b"error: lime_editing cannot be imported from an archive; unpack or install it\n"


def test_an_older_python_is_named_in_one_line(tmp_path: Path) -> None:
    """By the package, run or imported, and by the noxfile; nox itself is not needed to see that."""
    (tmp_path / "nox.py").write_text("")
    for python in OLD:
        for argv in (["-m", "lime_editing"], [str(ROOT / "noxfile.py")]):
            path = f"{ROOT / 'reference'}{os.pathsep}{tmp_path}"
            done = subprocess.run(
                [str(python), *argv], env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False
            )
            assert done.returncode != 0
            assert done.stderr.count(b"\n") == 1
            assert b"3.11" in done.stderr


# what a log shows while something lasts


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "EVERY", 0.05)


def log() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=150, markup=False, highlight=False), out


def waited(out: io.StringIO, text: str, count: int) -> None:
    """Until a text was said so often; a test must not hang."""
    for _ in range(400):
        if out.getvalue().count(text) >= count:
            return
        time.sleep(0.01)
    pytest.fail(f"{text!r} was said {out.getvalue().count(text)} times: {out.getvalue()}")


@pytest.mark.usefixtures("quick")
def test_what_begins_is_said_before_it_is_done_and_then_again_and_again() -> None:
    console, out = log()
    with output.doing(console, "reading [/] it") as say:
        assert out.getvalue() == "reading [/] it …\n"
        waited(out, "reading [/] it: still at it, 0 s", 2)
        say("3 of 7")
        waited(out, "reading [/] it: 3 of 7, 0 s", 2)
    before = out.getvalue()
    time.sleep(0.2)
    assert out.getvalue() == before


@pytest.mark.usefixtures("quick")
def test_what_is_short_says_nothing() -> None:
    console, out = log()
    with output.doing(console, "reading it", at_once=False):
        pass
    assert out.getvalue() == ""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("many", [True, False])
def test_a_cell_that_says_nothing_for_long_is_named_with_how_far_it_is(many: bool) -> None:
    console, out = log()

    def statuses() -> Iterator[Status]:
        yield Status("facts-mend-all-seed0", "starts", 0, 1)
        yield Status("facts-mend-all-seed0", "train", 16, 320, 0.5)
        waited(out, "facts-mend-all-seed0 train 16/320 loss 0.500", 3)
        yield Status("facts-mend-all-seed0", "done", 1, 1, None, Scores(0.5, 0.75, 0.6), Scores(0.25, 1.0, 0.4))

    progress.watch(console, 1, statuses()) if many else progress.lines(console, statuses())
    assert "facts-mend-all-seed0 starts 0/1" in out.getvalue()


@pytest.mark.usefixtures("quick", "cache")
def test_fine_tuning_into_a_log_says_what_it_does_and_how_far_it_is(
    facts: Path,
    model: Path,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from lime_editing.reproduce import classifier

    def slow(*_: Any) -> Any:
        time.sleep(0.3)
        return train(*_)

    train = classifier._train
    monkeypatch.setattr(classifier, "_train", slow)
    argv = ["make-classifier", "--model", str(model), "--nli", str(pairs), "--results", str(tmp_path / "runs")]
    assert main([*argv, "--set", "classifier.epochs=1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"reading {pairs} and {model}")
    assert any(line.startswith("Fine-tuning ") and "steps" in line for line in said)
    assert sum(line.startswith("fine-tuning: ") for line in said) >= 2


@pytest.mark.filterwarnings("ignore:The session .* has already been registered:FutureWarning")
@pytest.mark.parametrize("home", [None, "elsewhere"])
def test_nox_keeps_its_environments_in_lime_home_and_reads_paths_from_where_one_is(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sessions with a stand-in for nox's own: what they would call, and where."""
    nox = pytest.importorskip("nox")
    monkeypatch.setenv("LIME_HOME", str(tmp_path / home)) if home else monkeypatch.delenv("LIME_HOME", raising=False)
    told = runpy.run_path(str(ROOT / "noxfile.py"))
    assert told["ENVIRONMENT"].parent == (tmp_path / home if home else ROOT / ".nox")
    assert nox.options.envdir == str(told["HOME"])
    calls: list[tuple[Any, ...]] = []

    class Session:
        posargs = ("--report", "out.html", "--xfails=mine.toml", "--repeat", "2")
        invoked_from = str(tmp_path)

        def run(self, *argv: Any, **_: Any) -> None:
            calls.append(argv)

        def chdir(self, folder: str) -> None:
            calls.append(("chdir", folder))

    def asked(argv: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        calls.append(tuple(argv))
        return subprocess.CompletedProcess(argv, 0)

    python = {"python": lambda session, *groups: "python"}
    monkeypatch.setattr(told["subprocess"], "run", asked)
    for name in ("spec", "reproduce"):
        session = told[name]
        getattr(session, "func", session).__globals__.update(python)
        getattr(session, "func", session)(Session())
    assert f"--report={tmp_path}/out.html" in calls[0]
    assert f"--xfails={tmp_path}/mine.toml" in calls[0]
    assert calls[1] == ("chdir", str(tmp_path))
    assert calls[2][:4] == ("python", "-m", "lime_editing", "reproduce")
