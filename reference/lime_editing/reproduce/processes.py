"""Many cells in parallel, in worker processes of one thread each, on GPUs if there are any."""

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
    """A cell, its folder, and the options that its command line adds to the run's."""

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
    """Run every cell, one per place at a time. They run as their statuses are read.

    `start` returns a running job and its name; `news` waits for the next statuses (None: the job has ended); `stop`
    ends the running jobs.
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
    """Run all cells in worker processes, one per place of `where` at a time.

    UserError: one of them failed; the others stop.
    """
    context = multiprocessing.get_context("spawn")

    def start(job: Job, place: str | None) -> tuple[Any, str]:
        messages, end = context.Pipe(duplex=False)
        experiment = experiments[job.cell.task]
        # Plug-ins first: the experiment may hold objects of their classes.
        arguments = (Loaded(experiment.plugins), job.cell, experiment, root, place, end)
        process = context.Process(target=_work, args=arguments, daemon=True)
        with _without_interrupts():
            process.start()
        end.close()  # otherwise the reader sees no end of the pipe
        return (process, messages), "starts"

    def news(running: Mapping[Job, Any]) -> Iterator[tuple[Job, Status | None]]:
        ready = wait([messages for _, messages in running.values()])
        for job, (process, messages) in list(running.items()):
            if messages not in ready:
                continue
            try:
                message = messages.recv()
            except (EOFError, OSError):  # the worker has ended, perhaps during a message
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
    """The places of parallel cells: each is the CUDA name of its GPU, or None for the whole machine."""
    count = torch.cuda.device_count() if device == "cuda" else 0
    return assign(device, jobs, os.cpu_count() or 1, count, os.environ.get("CUDA_VISIBLE_DEVICES"))


def assign(device: str, jobs: int | None, cores: int, gpus: int, visible: str | None) -> list[str | None]:
    """`jobs` places; by default one per core, or one per GPU.

    If there are more cells than GPUs, they share GPUs evenly: a small cell uses a small part of one. `visible` is
    CUDA_VISIBLE_DEVICES: numbers or other names; the first `gpus` can be used.
    """
    if device == "cpu":
        return [None] * (jobs or cores)
    if device != "cuda":  # the device that the user names
        return [None] * (jobs or 1)
    names = [name.strip() for name in visible.split(",")] if visible else [str(i) for i in range(gpus)]
    usable = names[:gpus]
    return list(islice(cycle(usable), jobs or len(usable)))


def on_one_device(places: Sequence[str | None]) -> int:
    """The largest number of cells that share a device."""
    return max(Counter(places).values(), default=1)


def run_one(cell: Cell, experiment: Experiment, root: Path, patience: float = 10.0) -> Iterator[Status]:
    """Run one cell in this process, with its folder locked."""
    # Two one-thread processes beat one of two threads at this size.
    torch.set_num_threads(1)
    with results.held(cell_folder(cell, experiment, root), patience):
        yield from (many.run if experiment.many else run_cell)(cell, experiment, root)


def run_together(
    cells: Sequence[Cell], experiments: Mapping[str, Experiment], root: Path, processes: Processes
) -> Iterator[Status]:
    """Run all cells one after another, each by all processes that `torchrun` has started."""
    for cell in cells:
        experiment = experiments[cell.task]
        folder = cell_folder(cell, experiment, root)
        how = "kept" if results.is_done(folder) else "done"
        with results.held(folder) if processes.first else nullcontext():
            yield from run_cell(cell, experiment, root, processes)
        yield status_at_the_end(cell, folder, how)


def quiet() -> None:
    """Turn off the libraries' progress bars and messages."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def kept(folder: Path) -> bool:
    """Whether a cell was finished before; its checkpoint and temporary files are removed."""
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
        os.environ["CUDA_VISIBLE_DEVICES"] = place  # CUDA reads it on first use
    try:
        quiet()
        for status in run_one(cell, experiment, root):
            messages.send(status)
    except (BrokenPipeError, KeyboardInterrupt):  # the parent has ended
        sys.exit(1)
    except Exception as error:  # the parent prints it as one sentence
        if "LIME_DEBUG" in os.environ:
            traceback.print_exception(error)
        with suppress(BrokenPipeError, KeyboardInterrupt):
            messages.send(f"{cell.name}: {error if isinstance(error, UserError) else explain(error)}")
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the worker is ending already


def _interrupt(signum: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal would print a traceback
    raise KeyboardInterrupt


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A context in which started processes ignore Ctrl-C: this process handles it, and ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
