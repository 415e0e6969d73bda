"""The command line, `python -m lime_editing`: dispatch, exit codes, signals, and the terminal."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from .borders import RESUMES, expanded, explain
from .cli.options import Common, plug_in, read
from .cli.parser import LIST, parse, parser, plugins_of
from .errors import UserError

RESUMED = {"reproduce", "many", "make-classifier"}  # commands that keep what is done


def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 1 data that cannot be read (check-data), 2 an error, 130, 141 or 143 interrupted."""
    given = list(sys.argv[1:] if argv is None else argv)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by a service
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        if hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="replace")  # a letter that the terminal cannot show must not end a run
    os.environ.pop("LIME_DEBUG", None)
    os.environ.pop("MPLBACKEND", None)  # figures need none, and matplotlib refuses one that it does not know
    if "--debug" in given:
        os.environ["LIME_DEBUG"] = "1"  # worker processes read it too
    try:
        for text in given:
            if re.search("[\ud800-\udfff]", text):  # bytes that are no text in the terminal's encoding
                raise UserError(f"{text!r}: is not UTF-8 text; give it in UTF-8")
        _caches()
        plug_in(plugins_of(given))  # before the parser is built: a registered editor or data set adds options
        parsed = parse(given)
        if parsed.command is None:
            parser().print_help()
        else:
            with _terminable():
                _run(parsed.command, read(LIST[parsed.command], parsed))
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        print(f"interrupted; what is done is kept{RESUMES if {*given} & RESUMED else ''}", file=sys.stderr)
        return 128 + int(stop.args[0] if stop.args else signal.SIGINT)
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except Exception as error:
        if "--debug" in given:
            traceback.print_exception(error)
        said = str(error) if isinstance(error, UserError) else explain(error)
        print(f"error: {said if {*given} & RESUMED else said.replace(RESUMES, '')}", file=sys.stderr)
        return 1 if given[:1] == ["check-data"] else 2
    return 0


def _run(command: str, options: Any) -> None:
    if isinstance(options, Common) and options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # the libraries read it when they are imported; worker processes inherit it
    file = {"many": "reproduce", "make-classifier": "reproduce", "edits": "edit"}.get(command, command)
    name = command.replace("-", "_")
    run = getattr(import_module(f".cli.{file.replace('-', '_')}", __package__), name)
    run(options, main) if command in ("reproduce", "many") else run(options)


def _caches() -> None:
    """Set the libraries' caches: under LIME_HOME, or in a temporary folder if the home folder is not writable."""
    home = os.environ.get("LIME_HOME")
    if not home and "HF_HOME" not in os.environ:
        with suppress(RuntimeError, OSError):  # no home folder
            if any(os.access(path, os.W_OK) for path in (Path.home() / ".cache" / "huggingface", Path.home())):
                return
        home = str(Path(tempfile.gettempdir()) / f"lime_editing-{os.getuid() if hasattr(os, 'getuid') else 0}")
        note = f"note: there is no home folder to write to; caches go to {home} (LIME_HOME names another)"
        print(note, file=sys.stderr)
    if home:
        for name, folder in (("HF_HOME", "huggingface"), ("MPLCONFIGDIR", "matplotlib"), ("XDG_CACHE_HOME", "cache")):
            os.environ.setdefault(name, str(expanded(home) / folder))


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does, except in a cluster job, where submitit handles it."""

    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt(signum)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    # Import by name: a cluster job then imports the entry point and unpickles no code.
    sys.exit(import_module(f"{__package__}.__main__").main())
