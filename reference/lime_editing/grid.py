"""Many cells side by side, in processes of one thread each, on a GPU each where there are any."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import logging

from . import store
from .devices import Processes
from .errors import UserError
from .experiments import Cell, Experiment, Listener, Progress, cell_folder, run_cell
from .metrics import Scores


@dataclass(frozen=True, slots=True)
class _Worker:
    process: Any
    hears: Connection
    place: str | None


def run_grid(
    cells: Sequence[Cell], experiments: Mapping[str, Experiment], results: Path, jobs: int, listen: Listener
) -> dict[Cell, Path]:
    """All cells, `jobs` at a time; `experiments` by task. UserError: one of them failed; the others stop."""
    context = multiprocessing.get_context("spawn")
    folders = {cell: cell_folder(cell, experiments[cell.task], results) for cell in cells}
    free = places(next(iter(experiments.values())).sources.device, jobs)
    waiting, running = list(cells), dict[Cell, _Worker]()
    try:
        while waiting or running:
            while waiting and free:
                cell = waiting.pop(0)
                if not kept(cell, folders[cell], listen):
                    hears, says = context.Pipe(duplex=False)
                    place = free.pop(0)
                    arguments = (cell, experiments[cell.task], results, place, says)
                    worker = _Worker(context.Process(target=_work, args=arguments, daemon=True), hears, place)
                    with _unheard_interrupts():
                        worker.process.start()
                    says.close()  # so that its end is heard
                    running[cell] = worker
            ready = wait([worker.hears for worker in running.values()]) if running else []  # for ever, of none
            for cell in [cell for cell, worker in running.items() if worker.hears in ready]:
                if _heard(running[cell].hears, listen):
                    continue
                worker = running[cell]
                worker.process.join()
                if worker.process.exitcode != 0:
                    code = worker.process.exitcode
                    raise UserError(f"cell {cell.name} ended with exit code {code}; run the same command to continue")
                free.append(running.pop(cell).place)
                listen(said_at_the_end(cell, folders[cell], "done"))
    finally:
        for worker in running.values():
            worker.process.terminate()
        for worker in running.values():
            worker.process.join(10)
            worker.process.kill()
    return folders


def places(device: str, jobs: int | None) -> list[str | None]:
    """Of cells side by side, what each may see of this machine: its GPU by the name that CUDA knows, None for all."""
    count = torch.cuda.device_count() if device == "cuda" else 0
    return assign(device, jobs, os.cpu_count() or 1, count, os.environ.get("CUDA_VISIBLE_DEVICES"))


def assign(device: str, jobs: int | None, cores: int, gpus: int, visible: str | None) -> list[str | None]:
    """`jobs` places, or as many as the machine has: one per core, or one per GPU, and never two cells on a GPU.

    `visible` is CUDA_VISIBLE_DEVICES: numbers or other names, of which the first `gpus` can be used.
    """
    if device == "cpu":
        return [None] * (jobs or cores)
    if device != "cuda":
        return [None]  # one device that the user names
    names = [name.strip() for name in visible.split(",")] if visible else [str(i) for i in range(gpus)]
    return list(names[:gpus][:jobs])


def run_one(cell: Cell, experiment: Experiment, results: Path, listen: Listener, patience: float = 10.0) -> Path:
    """One cell in this process, alone in its folder."""
    # Two one-thread processes beat one of two threads at this size.
    torch.set_num_threads(1)
    with store.held(cell_folder(cell, experiment, results), patience):
        return run_cell(cell, experiment, results, listen)


def run_together(
    cells: Sequence[Cell], experiments: Mapping[str, Experiment], results: Path, processes: Processes, listen: Listener
) -> dict[Cell, Path]:
    """All cells one after another, each by all of the processes that `torchrun` has started."""
    folders = {}
    for cell in cells:
        experiment = experiments[cell.task]
        folder = folders[cell] = cell_folder(cell, experiment, results)
        how = "kept" if store.is_done(folder) else "done"
        with store.held(folder) if processes.first else nullcontext():
            run_cell(cell, experiment, results, listen, processes)
        listen(said_at_the_end(cell, folder, how))
    return folders


def quiet() -> None:
    """Leave the terminal to our own bars and messages."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def kept(cell: Cell, folder: Path, listen: Listener) -> bool:
    """Whether a cell was done before; what its end has left is removed."""
    if not store.is_done(folder):
        return False
    store.clean(folder)
    listen(said_at_the_end(cell, folder, "kept"))
    return True


def said_at_the_end(cell: Cell, folder: Path, how: str) -> Progress:
    scores: dict[str, Scores] = store.read_metrics(folder)
    return Progress(cell.name, how, 1, 1, None, scores.get("en → all"), scores.get("all → all"))


def _work(cell: Cell, experiment: Experiment, results: Path, place: str | None, says: Connection) -> None:
    """The body of a worker process; what the user can mend goes back as a message."""
    signal.signal(signal.SIGTERM, _interrupt)
    if place is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place  # read when CUDA is first used
    quiet()
    try:
        run_one(cell, experiment, results, says.send)
    except (BrokenPipeError, KeyboardInterrupt):  # nobody listens any more
        sys.exit(1)
    except (UserError, OSError) as error:
        with suppress(BrokenPipeError):
            says.send(f"{cell.name}: {error}")
        sys.exit(1)


def _heard(hears: Connection, listen: Listener) -> bool:
    """Hand on what a worker said; False where it says no more. UserError: what it failed with."""
    try:
        message = hears.recv()
    except (EOFError, OSError):  # it has ended, perhaps within a word
        return False
    if isinstance(message, str):
        raise UserError(message)
    listen(message)
    return True


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _unheard_interrupts() -> Iterator[None]:
    """A process started within hears no Ctrl-C, and prints no traceback: this one hears it, and ends the others."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
