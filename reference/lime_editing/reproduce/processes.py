"""Many cells side by side, in processes of one thread each, on GPUs where there are any."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
class Job:
    """A cell, where it is kept, and what its command line says beside that of the whole run."""

    cell: Cell
    folder: Path
    more: tuple[str, ...] = ()


def scheduled(
    jobs: Sequence[Job],
    places: Sequence[str | None],
    start: Callable[[Job, str | None], tuple[Any, str]],
    news: Callable[[Mapping[Job, Any]], Iterator[tuple[Job, Status | None]]],
    stop: Callable[[Sequence[Any]], None],
) -> Iterator[Status]:
    """Every cell, one in each of the places at a time. They run as their statuses are read.

    `start` gives what runs and how that is called, `news` waits for the next statuses (None: it has ended), and `stop`
    ends what still runs.
    """
    free, waiting, running, at = list(places), list(jobs), dict[Job, Any](), dict[Job, str | None]()
    try:
        while waiting or running:
            while waiting and free:
                job = waiting.pop(0)
                if kept(job.folder):
                    yield status_at_the_end(job.cell, job.folder, "kept")
                    continue
                at[job] = free.pop(0)
                running[job], said = start(job, at[job])
                yield Status(job.cell.name, said, 0, 1)
            for job, status in news(running) if running else ():
                if status is not None:
                    yield status
                    continue
                del running[job]
                free.append(at[job])
                if results.is_done(job.folder):
                    yield status_at_the_end(job.cell, job.folder, "done")
    finally:
        stop(list(running.values()))


def run_grid(
    cells: Sequence[Cell], experiments: Mapping[str, Experiment], root: Path, where: Sequence[str | None]
) -> Iterator[Status]:
    """All cells in processes, one in each of the places `where` at a time.

    UserError: one of them failed; the others stop.
    """
    context = multiprocessing.get_context("spawn")

    def start(job: Job, place: str | None) -> tuple[Any, str]:
        messages, end = context.Pipe(duplex=False)
        experiment = experiments[job.cell.task]
        # The plug-ins come first: the experiment may hold what they define.
        arguments = (Loaded(experiment.plugins), job.cell, experiment, root, place, end)
        process = context.Process(target=_work, args=arguments, daemon=True)
        with _without_interrupts():
            process.start()
        end.close()  # else the pipe never ends
        return (process, messages), "starts"

    def news(running: Mapping[Job, Any]) -> Iterator[tuple[Job, Status | None]]:
        ready = wait([messages for _, messages in running.values()])
        for job, (process, messages) in list(running.items()):
            if messages not in ready:
                continue
            try:
                message = messages.recv()
            except (EOFError, OSError):  # it has ended, perhaps within a message
                process.join()
                if process.exitcode:
                    said = f"cell {job.cell.name} ended with exit code {process.exitcode}"
                    raise UserError(f"{said}; run the same command to resume") from None
                message = None
            if isinstance(message, str):
                raise UserError(message)
            yield job, message

    def stop(workers: Sequence[Any]) -> None:
        for process, _ in workers:
            process.terminate()
        for process, _ in workers:
            process.join(10)
            process.kill()

    jobs = [Job(cell, cell_folder(cell, experiments[cell.task], root)) for cell in cells]
    yield from scheduled(jobs, where, start, news, stop)


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
