"""Many cells side by side, in processes of one thread each."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty
from typing import Any

import datasets
import torch
from transformers import logging

from . import store
from .devices import Processes
from .errors import UserError
from .experiments import Cell, Experiment, Listener, Progress, cell_folder, run_cell
from .metrics import Scores


def run_grid(
    cells: Sequence[Cell], experiments: Mapping[str, Experiment], results: Path, jobs: int, listen: Listener
) -> dict[Cell, Path]:
    """All cells, `jobs` at a time; `experiments` by task. UserError: one of them failed; the others stop."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    folders = {cell: cell_folder(cell, experiments[cell.task], results) for cell in cells}
    waiting, running = list(cells), dict[Cell, Any]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                if store.is_done(folders[cell]):
                    listen(_done(cell, folders[cell], "kept"))
                    continue
                arguments = (cell, experiments[cell.task], results, queue)
                running[cell] = context.Process(target=_work, args=arguments, daemon=True)
                running[cell].start()
            if running:
                _pass_on(queue, listen)
            for cell in [cell for cell, process in running.items() if not process.is_alive()]:
                _pass_on(queue, listen)
                code = running.pop(cell).exitcode
                if code != 0:
                    raise UserError(f"cell {cell.name} ended with exit code {code}; run the same command to continue")
                listen(_done(cell, folders[cell], "done"))
    finally:
        for process in running.values():
            process.terminate()
            process.join()
    return folders


def run_together(
    cells: Sequence[Cell], experiments: Mapping[str, Experiment], results: Path, processes: Processes, listen: Listener
) -> dict[Cell, Path]:
    """All cells one after another, each by all of the processes that `torchrun` has started."""
    folders = {}
    for cell in cells:
        how = "kept" if store.is_done(cell_folder(cell, experiments[cell.task], results)) else "done"
        folders[cell] = run_cell(cell, experiments[cell.task], results, listen, processes)
        listen(_done(cell, folders[cell], how))
    return folders


def quiet() -> None:
    """Leave the terminal to our own bars and messages."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _done(cell: Cell, folder: Path, how: str) -> Progress:
    metrics = store.read_json(folder / "metrics.json")
    return Progress(cell.name, how, 1, 1, None, Scores(**metrics["en → all"]), Scores(**metrics["all → all"]))


def _work(cell: Cell, experiment: Experiment, results: Path, queue: Any) -> None:
    """The body of a worker process; what the user can mend goes back as a message."""
    # Two one-thread processes beat one of two threads at this size.
    torch.set_num_threads(1)
    quiet()
    try:
        run_cell(cell, experiment, results, queue.put)
    except (UserError, OSError) as error:
        queue.put(f"{cell.name}: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(1)


def _pass_on(queue: Any, listen: Listener) -> None:
    """Hand on what the workers said; wait a moment where they are silent. UserError: what one of them failed with."""
    timeout = 0.2
    while True:
        try:
            message = queue.get(timeout=timeout)
        except Empty:
            return
        if isinstance(message, str):
            raise UserError(message)
        listen(message)
        timeout = 0.0
