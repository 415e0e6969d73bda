"""Many cells in parallel: in worker processes of one thread each, or as jobs of a cluster.

A job is the command line of one cell (`reproduce … --cell NAME`). Results are on a disk that all machines share.
submitit stores the command line as a pickle in <results>/jobs and loads it in the job. This is the only pickle: plain
strings, written and read by submitit in the user's own folder.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
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
import submitit
import torch
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import Checkpointable
from transformers import logging

from .. import results
from ..borders import explain
from ..errors import UserError
from ..hardware import Processes
from ..plugins import Loaded
from . import many
from .cells import Cell, Experiment, Status, cell_folder, status_at_the_end
from .run import run_cell

RENEWALS = 100  # how often a job that reached its time limit may be queued again
PAUSE = 1.0  # seconds between two looks at the jobs


Place = str | None  # the CUDA name of a GPU, or None for the whole machine


@dataclass(frozen=True, slots=True)
class Job:
    """A cell, its folder, and the options that its command line adds to the run's."""

    cell: Cell
    folder: Path
    more: tuple[str, ...] = ()


Start = Callable[[Job, Place], tuple[Any, str]]  # returns a running job and its name
News = Iterator[tuple[Job, Status | None]]  # None: the job has ended
Stop = Callable[[Sequence[Any]], None]  # ends running jobs


def scheduled(
    jobs: Sequence[Job], places: Sequence[Place], start: Start, news: Callable[[Mapping[Job, Any]], News], stop: Stop
) -> Iterator[Status]:
    """Run every cell, one per place at a time. They run as their statuses are read. `news` waits for statuses."""
    free, waiting, running, at = list(places), list(jobs), dict[Job, Any](), dict[Job, Place]()
    try:
        while waiting or running:
            while waiting and free:
                job = waiting.pop(0)
                if results.is_done(job.folder):
                    results.clean(job.folder)
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
    cells: Sequence[Cell], experiments: Mapping[str, Experiment], root: Path, where: Sequence[Place]
) -> Iterator[Status]:
    """Run all cells in worker processes, one per place of `where` at a time. UserError: one failed; the others stop."""
    context = multiprocessing.get_context("spawn")

    def start(job: Job, place: Place) -> tuple[Any, str]:
        messages, end = context.Pipe(duplex=False)
        experiment = experiments[job.cell.task]
        # Plug-ins first: the experiment may hold objects of their classes.
        arguments = (Loaded(experiment.plugins), job.cell, experiment, root, place, end)
        process = context.Process(target=_work, args=arguments, daemon=True)
        with _without_interrupts() if hasattr(signal, "pthread_sigmask") else nullcontext():
            process.start()
        end.close()  # otherwise the reader sees no end of the pipe
        return (process, messages), "starts"

    def news(running: Mapping[Job, Any]) -> News:
        ready = wait([messages for _, messages in running.values()])
        for job, (process, messages) in [(job, one) for job, one in running.items() if one[1] in ready]:
            try:
                message = messages.recv()
            except (EOFError, OSError):  # the worker has ended, perhaps during a message
                process.join()
                ended = f"cell {job.cell.name} ended with exit code {process.exitcode}; run the same command to resume"
                message = ended if process.exitcode else None
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


def places(device: str, jobs: int | None) -> list[Place]:
    gpus, visible = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return assign(device, jobs, os.cpu_count() or 1, gpus, visible)


def assign(device: str, jobs: int | None, cores: int, gpus: int, visible: str | None) -> list[Place]:
    """`jobs` places; by default one per core, or one per GPU.

    If there are more cells than GPUs, they share GPUs evenly: a small cell uses a small part of one. `visible` is
    CUDA_VISIBLE_DEVICES: numbers or other names; the first `gpus` can be used.
    """
    if device != "cuda":
        return [None] * (jobs or (cores if device == "cpu" else 1))
    names = [name.strip() for name in visible.split(",")] if visible else [str(i) for i in range(gpus)]
    return list(islice(cycle(names[:gpus]), jobs or gpus))


def on_one_device(places: Sequence[Place]) -> int:
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


def _work(loaded: Loaded, cell: Cell, experiment: Experiment, root: Path, place: Place, messages: Connection) -> None:
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
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Jobs


@dataclass(frozen=True, slots=True)
class Command(Checkpointable):
    """One cell's command line; submitit calls `main(argv)`. A job stopped by the cluster is queued again."""

    main: Callable[[Sequence[str]], int]
    argv: tuple[str, ...]
    place: Place = None  # CUDA_VISIBLE_DEVICES, if no cluster assigns GPUs

    def __call__(self) -> None:
        if self.place is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.place
        code = self.main(self.argv)
        if code:
            raise RuntimeError(f"exit code {code}")


def executor(kind: str, folder: Path, hours: float, **slurm: Any) -> Any:
    """An executor of submitit that logs to `folder`, with parameters of its SlurmExecutor (None: not set)."""
    try:
        found = submitit.AutoExecutor(folder, kind, slurm_max_num_timeout=RENEWALS, local_max_num_timeout=RENEWALS)
    except RuntimeError as error:
        raise UserError(f"no Slurm here ({error}); run this where it is, or with --executor local") from error
    parameters = {f"slurm_{name}": value for name, value in slurm.items()}
    found.update_parameters(timeout_min=max(1, round(60 * hours)), **parameters)
    return found


def run_jobs(
    jobs: Sequence[Job], command: Command, submits: Any, places: Sequence[Place], grace: float = 20.0
) -> Iterator[Status]:
    """Run every cell as a job of `submits`, one per place at a time. `command` is the command of the whole run.

    Ctrl-C cancels all. UserError: jobs that ended without finishing their cell, each with its log; others go on.
    """
    failed = list[str]()

    def start(job: Job, place: Place) -> tuple[Any, str]:
        argv = (*command.argv, *job.more, "--cell", job.cell.name)
        submitted = _submit(submits, job, Command(command.main, argv, place))
        return submitted, f"is job {submitted.job_id}"

    def news(running: Mapping[Job, Any]) -> News:
        time.sleep(PAUSE)
        for job, submitted in [(job, one) for job, one in running.items() if one.done()]:
            if not _appears(job.folder, grace):
                failed.append(_failure(job, submitted))
            _forget(submitted)
            yield job, None

    yield from scheduled(jobs, places, start, news, _cancel)
    if failed:
        raise UserError("; ".join(failed) + "; the same command resumes with what is left")


def _submit(submits: Any, job: Job, command: Command) -> Any:
    submits.update_parameters(name=job.cell.name)
    try:
        # submitit's local controller prints a traceback when it is stopped.
        with _stderr_to(submits.folder / "controllers.err"):
            return submits.submit(command)
    except (FailedJobError, FailedSubmissionError) as error:
        said = (str(error).strip() or str(error.__cause__)).splitlines()
        raise UserError(f"cell {job.cell.name}: Slurm takes no such job: {said[-1]}") from error


def _cancel(jobs: Sequence[Any]) -> None:
    for submitted in jobs:
        with suppress(Exception):  # whatever the cluster raises, cancel the others too
            submitted.cancel(check=False)
    for submitted in jobs:
        if isinstance(submitted, submitit.LocalJob) and submitted._process is not None:
            submitted._process.wait()  # its controller kills the job after a second
            _forget(submitted)


@contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _appears(folder: Path, grace: float) -> bool:
    """Whether a cell is finished; files of another machine may become visible late."""
    end = time.monotonic() + grace
    while not (done := results.is_done(folder)) and time.monotonic() < end:
        time.sleep(min(0.5, grace / 10))
    return done


def _failure(job: Job, submitted: Any) -> str:
    log, reason = submitted.paths.stderr, ""
    with suppress(OSError):
        said = [line for line in log.read_text("utf-8", "replace").splitlines() if line.startswith("error: ")]
        reason = f" ({said[-1].removeprefix('error: ')})" if said else ""
    return f"cell {job.cell.name}: its job {submitted.job_id} ended without it{reason}; its log is {log}"


def _forget(submitted: Any) -> None:
    for path in (submitted.paths.submitted_pickle, submitted.paths.result_pickle):
        path.unlink(missing_ok=True)
