"""`report`: write the report of stored cells again, in their folder or in another one."""

from __future__ import annotations

import os
from contextlib import ExitStack

from .. import results
from ..report import write
from .options import Report


def report(options: Report) -> None:
    if not (options.results / "index.json").exists():  # a run that was interrupted has written none yet
        done = (folder for folder in options.results.glob("*/") if results.is_done(folder))
        finished = sorted(done, key=lambda folder: (folder / "metrics.json").stat().st_mtime)  # the newest are kept
        if finished:
            results.check_place(options.results)
            with results.held(options.results):
                results.add_to_index(options.results, finished)
    folders = results.read_index(options.results)
    places = {place.resolve(): place for place in (options.results, options.to or options.results)}
    with ExitStack() as stack:
        # Without cells `write` raises the error, and no folder is created.
        for place in places.values() if folders else ():
            if place == options.results != options.to and options.to and not os.access(place, os.W_OK):
                continue  # another's results, which only --to copies from
            results.check_place(place)
            stack.enter_context(results.held(place))
        print(write.write(options.results, folders, options.to))
