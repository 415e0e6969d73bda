"""The command line, `python -m lime_editing`: dispatch, exit codes and signals."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .cli.options import Common, plug_in, read
from .cli.parser import LIST, parser
from .errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 1 data that cannot be read (check-data), 2 what the user can fix, 130 or 143 interrupted."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        plug_in([given[i + 1] for i, word in enumerate(given[:-1]) if word == "--plugin"])
        parsed = parser().parse_args(given)
        if parsed.command is None:
            parser().print_help()
            return 0
        with _terminable():
            _run(parsed.command, read(LIST[parsed.command].options, parsed))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if given[:1] == ["check-data"] else 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("interrupted; what is done is kept, and the same command resumes", file=sys.stderr)
        return 128 + int(stop.args[0] if stop.args else signal.SIGINT)
    return 0


def _run(command: str, options: Any) -> None:
    """Heavy imports wait until here."""
    if isinstance(options, Common) and options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read where the libraries are first imported, and by our processes
    if command == "reproduce":
        from .cli.reproduce import reproduce

        reproduce(options, main)
    elif command == "edit":
        from .cli.edit import edit

        edit(options)
    elif command == "many":
        from .cli.many import many

        many(options, main)
    elif command == "edits":
        from .cli.edit_file import edits

        edits(options)
    elif command == "report":
        from .cli.report import report

        report(options)
    elif command == "check-data":
        from .cli.check_data import check_data

        check_data(options)
    else:
        from .cli.make_classifier import make_classifier

        make_classifier(options)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, which clusters and systems send, ends a run as Ctrl-C does; not in a job, where submitit minds it."""

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
    sys.exit(main())
