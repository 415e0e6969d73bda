"""`report`: write the report of stored cells again."""

from __future__ import annotations

from .. import results
from ..report import write
from .options import Report


def report(options: Report) -> None:
    """The command. UserError: no cells, or cells that cannot be read."""
    folders = results.read_index(options.results)
    if not folders:
        write.write(options.results, folders)  # says what is missing, and makes no folder
    results.check_place(options.results)
    with results.held(options.results):
        print(write.write(options.results, folders))
