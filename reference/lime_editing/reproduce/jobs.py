"""The grid as jobs: on a Slurm cluster, or in local processes with the same interface.

A job is the command line of one cell (`reproduce … --cell NAME`). Results are on a disk that all machines share.
submitit stores the command line as a pickle in <results>/jobs and loads it in the job. This is the only pickle: plain
strings, written and read by submitit in the user's own folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError

from .. import results
from ..errors import UserError
from .cells import Status
from .processes import Job, scheduled

#: How often a job that reached its time limit may be queued again.
RENEWALS = 100


@dataclass(frozen=True, slots=True)
class Command:
    """One cell's command line; submitit calls `main(argv)`. A job stopped by the cluster is queued again."""

    main: Callable[[Sequence[str]], int]
    argv: tuple[str, ...]
    place: str | None = None  # CUDA_VISIBLE_DEVICES, if no cluster assigns GPUs

    def __call__(self) -> None:
        if self.place is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.place
        code = self.main(self.argv)
        if code:
            raise RuntimeError(f"exit code {code}")

    def checkpoint(self) -> DelayedSubmission:
        return DelayedSubmission(self)


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources of a job."""

    partition: str | None = None
    hours: float = 24.0
    gpus: int = 0
    more: Mapping[str, str] | None = None  # options of sbatch


def executor(kind: Literal["slurm", "local"], folder: Path, wanted: Resources) -> Any:
    """An executor of submitit that logs to `folder`. UserError: there is no Slurm."""
    minutes = max(1, round(60 * wanted.hours))
    try:
        kinds = {"local": submitit.LocalExecutor, "slurm": submitit.SlurmExecutor}
        found = kinds[kind](folder, max_num_timeout=RENEWALS)
    except RuntimeError as error:
        raise UserError(
            f"no Slurm here ({error}); run this where jobs are submitted, or with --executor local"
        ) from error
    if kind == "local":
        found.update_parameters(timeout_min=minutes)
        return found
    parameters: dict[str, Any] = {"partition": wanted.partition, "gpus_per_node": wanted.gpus}
    parameters = {"time": minutes, **{name: value for name, value in parameters.items() if value}}
    found.update_parameters(**parameters, additional_parameters=dict(wanted.more or {}))
    return found


def run_jobs(
    jobs: Sequence[Job],
    command: Command,
    submits: Any,
    places: Sequence[str | None],
    pause: float = 1.0,
    grace: float = 20.0,
) -> Iterator[Status]:
    """Run every cell as a job of `submits`, one per place at a time. `command` is the command of the whole run.

    A failed job does not stop others. Ctrl-C cancels all; a job that outlives this process still finishes its cell.
    UserError: jobs that ended without finishing their cell, each with its log.
    """
    failed = list[str]()

    def start(job: Job, place: str | None) -> tuple[Any, str]:
        argv = (*command.argv, *job.more, "--cell", job.cell.name)
        submitted = _submit(submits, job, Command(command.main, argv, place))
        return submitted, f"is job {submitted.job_id}"

    def news(running: Mapping[Job, Any]) -> Iterator[tuple[Job, Status | None]]:
        time.sleep(pause)
        for job, submitted in list(running.items()):
            if submitted.done():
                if not _appears(job.folder, grace):
                    failed.append(_failure(job, submitted))
                _forget(submitted)
                yield job, None

    yield from scheduled(jobs, places, start, news, _cancel)
    if failed:
        raise UserError("; ".join(failed) + "; the same command resumes with what is left")


def _submit(submits: Any, job: Job, command: Command) -> Any:
    if isinstance(submits, submitit.SlurmExecutor):
        submits.update_parameters(job_name=job.cell.name)
    local = isinstance(submits, submitit.LocalExecutor)
    try:
        # submitit's local controller prints a traceback when it is stopped.
        with _stderr_to(submits.folder / "controllers.err") if local else nullcontext():
            return submits.submit(command)
    except (FailedJobError, FailedSubmissionError) as error:
        said = (str(error).strip() or str(error.__cause__)).splitlines()
        raise UserError(f"cell {job.cell.name}: Slurm takes no such job: {said[-1]}") from error


def _cancel(jobs: Sequence[Any]) -> None:
    """Cancel all jobs; wait for local ones to end."""
    for submitted in jobs:
        with suppress(Exception):  # whatever the cluster raises, cancel the others too
            submitted.cancel(check=False)
    for submitted in jobs:
        if isinstance(submitted, submitit.LocalJob) and submitted._process is not None:
            submitted._process.wait()  # its controller kills the job after a second
            _forget(submitted)


@contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    """A context in which started processes write their standard error to a file."""
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
    while not results.is_done(folder):
        if time.monotonic() > end:
            return False
        time.sleep(min(0.5, grace / 10))
    return True


def _failure(job: Job, submitted: Any) -> str:
    log, reason = submitted.paths.stderr, ""
    with suppress(OSError):
        said = [line for line in log.read_text("utf-8", "replace").splitlines() if line.startswith("error: ")]
        reason = f" ({said[-1].removeprefix('error: ')})" if said else ""
    return f"cell {job.cell.name}: its job {submitted.job_id} ended without it{reason}; its log is {log}"


def _forget(submitted: Any) -> None:
    for path in (submitted.paths.submitted_pickle, submitted.paths.result_pickle):
        path.unlink(missing_ok=True)
