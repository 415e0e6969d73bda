"""Many cells side by side, in processes of one thread each, on GPUs where there are any."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import logging

from .. import results
from ..borders import explain
from ..errors import UserError
from ..hardware import Processes
from ..plugins import Loaded
from . import many
from .cells import Cell, Experiment, Status, cell_folder, status_at_the_end
from .run import run_cell


@dataclass(frozen=True, slots=True)
class _Worker:
    process: Any
    messages: Connection
    place: str | None


def run_grid(
    cells: Sequence[Cell], experiments: Mapping[str, Experiment], root: Path, where: Sequence[str | None]
) -> Iterator[Status]:
    """All cells, one in each of the places `where` at a time. They run as their statuses are read.

    UserError: one of them failed; the others stop.
    """
    context = multiprocessing.get_context("spawn")
    folders = {cell: cell_folder(cell, experiments[cell.task], root) for cell in cells}
    free, waiting, running = list(where), list(cells), dict[Cell, _Worker]()
    try:
        while waiting or running:
            while waiting and free:
                cell = waiting.pop(0)
                if kept(folders[cell]):
                    yield status_at_the_end(cell, folders[cell], "kept")
                else:
                    yield Status(cell.name, "starts", 0, 1)
                    running[cell] = _start(context, cell, experiments[cell.task], root, free.pop(0))
            ready = (
                wait([worker.messages for worker in running.values()]) if running else []
            )  # wait([]) would wait for ever
            for cell in [cell for cell, worker in running.items() if worker.messages in ready]:
                message = _next_status(running[cell].messages)
                if message is not None:
                    yield message
                    continue
                worker = running.pop(cell)
                worker.process.join()
                if worker.process.exitcode != 0:
                    code = worker.process.exitcode
                    raise UserError(f"cell {cell.name} ended with exit code {code}; run the same command to resume")
                free.append(worker.place)
                yield status_at_the_end(cell, folders[cell], "done")
    finally:
        for worker in running.values():
            worker.process.terminate()
        for worker in running.values():
            worker.process.join(10)
            worker.process.kill()


def _start(context: Any, cell: Cell, experiment: Experiment, root: Path, place: str | None) -> _Worker:
    messages, end = context.Pipe(duplex=False)
    # The plug-ins come first: the experiment may hold what they define.
    arguments = (Loaded(experiment.plugins), cell, experiment, root, place, end)
    worker = _Worker(context.Process(target=_work, args=arguments, daemon=True), messages, place)
    with _without_interrupts():
        worker.process.start()
    end.close()  # else the pipe never ends
    return worker


def places(device: str, jobs: int | None) -> list[str | None]:
    """Of cells side by side, what each may see of this machine: its GPU by the name that CUDA knows, None for all."""
    count = torch.cuda.device_count() if device == "cuda" else 0
    return assign(device, jobs, os.cpu_count() or 1, count, os.environ.get("CUDA_VISIBLE_DEVICES"))


def assign(device: str, jobs: int | None, cores: int, gpus: int, visible: str | None) -> list[str | None]:
    """`jobs` places, or as many as the machine has: one per core, or one per GPU.

    More cells than GPUs share them evenly: a small cell fills a small part of one. `visible` is CUDA_VISIBLE_DEVICES:
    numbers or other names, of which the first `gpus` can be used.
    """
    if device == "cpu":
        return [None] * (jobs or cores)
    if device != "cuda":  # one device that the user names
        return [None] * (jobs or 1)
    names = [name.strip() for name in visible.split(",")] if visible else [str(i) for i in range(gpus)]
    usable = names[:gpus]
    return list(islice(cycle(usable), jobs or len(usable)))


def on_one_device(places: Sequence[str | None]) -> int:
    """How many cells at most are on one device at a time."""
    return max(Counter(places).values(), default=1)


def run_one(cell: Cell, experiment: Experiment, root: Path, patience: float = 10.0) -> Iterator[Status]:
    """One cell in this process, alone in its folder."""
    # Two one-thread processes beat one of two threads at this size.
    torch.set_num_threads(1)
    with results.held(cell_folder(cell, experiment, root), patience):
        yield from (many.run if experiment.many else run_cell)(cell, experiment, root)


def run_together(
    cells: Sequence[Cell], experiments: Mapping[str, Experiment], root: Path, processes: Processes
) -> Iterator[Status]:
    """All cells one after another, each by all of the processes that `torchrun` has started."""
    for cell in cells:
        experiment = experiments[cell.task]
        folder = cell_folder(cell, experiment, root)
        how = "kept" if results.is_done(folder) else "done"
        with results.held(folder) if processes.first else nullcontext():
            yield from run_cell(cell, experiment, root, processes)
        yield status_at_the_end(cell, folder, how)


def quiet() -> None:
    """Leave the terminal to our own bars and messages."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def kept(folder: Path) -> bool:
    """Whether a cell was done before; leftovers of its end are removed."""
    if not results.is_done(folder):
        return False
    results.clean(folder)
    return True


def _work(
    loaded: Loaded, cell: Cell, experiment: Experiment, root: Path, place: str | None, messages: Connection
) -> None:
    """The body of a worker process. A UserError goes back as a message."""
    signal.signal(signal.SIGTERM, _interrupt)
    if place is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place  # read when CUDA is first used
    try:
        quiet()
        for status in run_one(cell, experiment, root):
            messages.send(status)
    except (BrokenPipeError, KeyboardInterrupt):  # the parent has ended
        sys.exit(1)
    except Exception as error:  # the parent says in one sentence what it was
        if "LIME_DEBUG" in os.environ:
            traceback.print_exception(error)
        with suppress(BrokenPipeError, KeyboardInterrupt):
            messages.send(f"{cell.name}: {error if isinstance(error, UserError) else explain(error)}")
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends by itself now


def _next_status(messages: Connection) -> Status | None:
    """The next status of a worker; None where it has ended. UserError: what it failed with."""
    try:
        message = messages.recv()
    except (EOFError, OSError):  # it has ended, perhaps within a message
        return None
    if isinstance(message, str):
        raise UserError(message)
    assert isinstance(message, Status)
    return message


def _interrupt(signum: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough, and a second would end in a traceback
    raise KeyboardInterrupt


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process started within ignores Ctrl-C: this process handles it, and ends the others."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
