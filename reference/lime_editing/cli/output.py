"""Consoles, progress messages, and downloads for commands. This module imports nothing heavy."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

from ..data import download

EVERY = 30.0  # seconds between lines of a log, at most


@contextmanager
def doing(console: Console, what: str, at_once: bool = True) -> Iterator[Callable[[str], None]]:
    """Say what starts, and again every 30 seconds in a log. Calling the yielded function sets the progress text."""
    began, far = time.monotonic(), [""]
    if console.is_terminal:
        with console.status(Text(what)) as status:
            yield lambda text: status.update(Text(f"{what}: {text}"))
        return
    if at_once:
        console.print(f"{what} …")
    with beating(lambda: console.print(f"{what}: {far[0] or 'still at it'}, {time.monotonic() - began:.0f} s")):
        yield lambda text: far.__setitem__(0, text)


@contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """Call `beat` every 30 seconds, from another thread."""
    end = threading.Event()

    def run() -> None:
        while not end.wait(EVERY):
            beat()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


class _Console(Console):
    def print(self, *things: Any, **options: Any) -> None:
        """Print without wrapping, so that a sentence is one line of a log."""
        super().print(*things, **{"soft_wrap": all(isinstance(thing, str) for thing in things), **options})

    def on_broken_pipe(self) -> None:
        """The reader has closed our output: `main` handles it."""
        raise BrokenPipeError


def console(stderr: bool = False, quiet: bool = False) -> Console:
    """A command's console: plain text, as wide as the terminal, or 120 columns in a log."""
    wide = (sys.stderr if stderr else sys.stdout).isatty()
    return _Console(width=None if wide else 120, stderr=stderr, quiet=quiet, markup=False, highlight=False)


def print_json(value: Any) -> None:
    """Print JSON. If the output is not UTF-8, other characters are escaped."""
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(value, indent=2, ensure_ascii=plain))


def here(source: str, offline: bool, patterns: Sequence[str] = download.OF_FACTS) -> str:
    """The local path of `source`, downloaded from a URL or the hub if necessary. DataError: not available."""
    with doing(console(stderr=True), f"fetching {source}", at_once=False) as say:

        def far(done: int, total: int | None) -> None:
            say(f"{done / 1e6:,.1f} MB" + (f" of {total / 1e6:,.1f}" if total else ""))

        return download.locate(source, offline, far, first=patterns)
