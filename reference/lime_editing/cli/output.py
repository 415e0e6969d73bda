"""Where commands write, what they say while they wait, and data fetched for them. Nothing heavy is imported here."""

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

#: Seconds after which a log has a line at the latest.
EVERY = 30.0


@contextmanager
def doing(console: Console, what: str, at_once: bool = True) -> Iterator[Callable[[str], None]]:
    """Say what begins, and go on while it lasts; what is called with a text adds how far it is.

    A log has a line now (unless it need not be `at_once`) and every 30 seconds.
    """
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
    """Call `beat` every 30 seconds, whatever this thread waits for."""
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
        """A sentence is one line of a log, however long."""
        super().print(*things, **{"soft_wrap": all(isinstance(thing, str) for thing in things), **options})

    def on_broken_pipe(self) -> None:
        """Whoever read our output has ended: `main` knows what to do."""
        raise BrokenPipeError


def console(stderr: bool = False, quiet: bool = False) -> Console:
    """Where a command writes: plain text, as wide as the terminal, or 120 columns in a log."""
    wide = (sys.stderr if stderr else sys.stdout).isatty()
    return _Console(width=None if wide else 120, stderr=stderr, quiet=quiet, markup=False, highlight=False)


def print_json(value: Any) -> None:
    """For a program. Where the output is not UTF-8, other letters are escaped, and none is lost."""
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(value, indent=2, ensure_ascii=plain))


def here(source: str, offline: bool, patterns: Sequence[str] = download.OF_FACTS) -> str:
    """The data at `source` on this machine, fetched first from an address or the hub. DataError: not to be had."""
    with doing(console(stderr=True), f"fetching {source}", at_once=False) as say:

        def far(done: int, total: int | None) -> None:
            say(f"{done / 1e6:,.1f} MB" + (f" of {total / 1e6:,.1f}" if total else ""))

        return download.locate(source, offline, far, first=patterns)
