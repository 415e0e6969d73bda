"""`report`: write the report of stored cells again, in their folder or in another one."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

from .. import results
from ..errors import DataError
from ..report import write
from .options import Report


def report(options: Report) -> None:
    root, own = options.results, False
    places = {place.resolve(): place for place in (root, options.to or root)}
    with ExitStack() as stack:
        # Without cells `write` raises the error, and no folder is created.
        for place in places.values() if any(map(results.is_done, root.glob("*/"))) else ():
            if place == root != options.to and options.to and not os.access(place, os.W_OK):
                continue  # another's results, which only --to copies from
            results.check_place(place)
            stack.enter_context(results.held(place))
            own |= place == root
        listed = results.read_index(root)  # under the lock: a run that ends now adds to it
        folders = _chosen(root, listed)
        if own and {*folders} != {*listed}:
            results.write_json(root / "index.json", [folder.name for folder in folders])
        print(write.write(root, folders, options.to))


def _chosen(root: Path, listed: list[Path]) -> list[Path]:
    """The cells to report: those of the index, and finished ones beside it that fit. It prints what is left out.

    A cell that was run alone, or in a grid that was interrupted, is in no index.
    """
    cells = [folder for folder in root.glob("*/") if (folder / "cell.json").is_file()]
    more, left = list[Path](), dict[str, str]()
    for folder in cells:
        try:
            if folder not in listed and results.is_done(folder) and results.read_record(folder):
                more.append(folder)
        except DataError as error:
            left[folder.name] = str(error)
    # What is listed counts as newer: the last grid chose it.
    folders = results.fitting([*sorted(more, key=lambda one: (one / "metrics.json").stat().st_mtime), *listed])
    about = "has other data, model, languages or settings than later cells, or was run again later"
    left |= {folder.name: about for folder in more if folder not in folders}
    left |= {folder.name: "is not finished" for folder in cells if not results.is_done(folder)}
    for name, why in left.items():
        print(f"left out: {name}: {why}")
    return folders
