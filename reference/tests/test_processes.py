"""Cells side by side: on which device, in which process, as which job, and what happens when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lime_editing import results
from lime_editing.__main__ import main
from lime_editing.errors import UserError
from lime_editing.names import Rulings
from lime_editing.reproduce import processes
from lime_editing.reproduce.cells import Cell, Experiment, Sources, Status, cell_folder
from lime_editing.reproduce.processes import Command, Job, run_grid
from lime_editing.reproduce.run import prepare
from lime_editing.reproduce.scales import TINY, override
from reference.tests.cells import write_cell
from reference.tests.kills import SMALL

posix = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
CELLS = [Cell("facts", "mend", training, 0) for training in ("all", "lime")]


def command(facts: Path, model: Path, results: Path, *more: str) -> list[str]:
    settings = [word for path, value in SMALL.items() for word in ("--set", f"{path}={value}")]
    sources = ("--facts", str(facts), "--model", str(model), "--results", str(results))
    return ["reproduce", "--task", "facts", "--approach", "mend", "--training", "all,lime", *sources, *settings, *more]


def prepared(facts: Path, model: Path, device: str = "cpu", elsewhere: bool = False) -> Experiment:
    """What `command` prepares."""
    task = TINY.tasks["facts"]
    for path, value in SMALL.items():
        task = override(task, path, str(value))
    scale = replace(TINY, name="tiny-changed", tasks={"facts": task})
    sources = Sources(str(facts), str(model), None, device)
    return prepare("facts", CELLS, scale, Rulings(), sources, elsewhere=elsewhere)


def folders(facts: Path, model: Path, root: Path) -> dict[Cell, Path]:
    experiment = prepared(facts, model)
    return {cell: cell_folder(cell, experiment, root / "tiny-changed") for cell in CELLS}


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def gone(pids: list[int], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in status(pid) for pid in pids):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "\nState:\tZ"


@pytest.mark.parametrize(
    ("device", "jobs", "cores", "gpus", "visible", "expected"),
    [
        ("cpu", None, 4, 0, None, [None] * 4),
        ("cpu", 9, 4, 8, "0,1", [None] * 9),
        ("cuda", None, 16, 2, None, ["0", "1"]),
        ("cuda", 1, 16, 2, None, ["0"]),
        ("cuda", 8, 16, 2, None, ["0", "1"] * 4),
        ("cuda", None, 16, 2, "5,3", ["5", "3"]),
        ("cuda", 8, 16, 2, "GPU-8f6e, MIG-12ab", ["GPU-8f6e", "MIG-12ab"] * 4),
        ("cuda", None, 16, 1, "2,-1,3", ["2"]),
        ("cuda:1", 4, 16, 2, None, [None] * 4),
        ("mps", None, 8, 0, None, [None]),
    ],
)
def test_each_cell_has_a_gpu_of_its_own(
    device: str, jobs: int | None, cores: int, gpus: int, visible: str | None, expected: list[str | None]
) -> None:
    assert processes.assign(device, jobs, cores, gpus, visible) == expected


def test_a_place_is_what_cuda_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(processes.torch.cuda, "device_count", lambda: 2)
    assert processes.places("cuda", None) == ["4", "6"]
    seen: list[str] = []

    def entry(argv: Sequence[str]) -> int:
        seen.append(f"{' '.join(argv)} on {os.environ['CUDA_VISIBLE_DEVICES']}")
        return len(seen) - 1

    job = Command(entry, ("reproduce", "--cell", "c"), "6")
    job()
    assert seen == ["reproduce --cell c on 6"]
    with pytest.raises(RuntimeError, match="exit code 1"):
        job()


SUBMITTED = """
import runpy, sys
from lime_editing.reproduce import processes
def run_jobs(wanted, command, *_):
    print("calls", command.main.__module__)
    sys.exit()
processes.run_jobs = run_jobs
runpy.run_module("lime_editing", run_name="__main__", alter_sys=True)
"""


def test_a_job_imports_what_it_calls(facts: Path, model: Path, tmp_path: Path) -> None:
    """Of `python -m lime_editing` the code is in `__main__`, which another process would have to unpickle."""
    argv = [sys.executable, "-c", SUBMITTED, *command(facts, model, tmp_path, "--executor", "local")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "calls lime_editing.__main__\n" in done.stdout


def test_a_login_node_without_the_device_names_the_same_cells(facts: Path, model: Path, tmp_path: Path) -> None:
    there = prepared(facts, model, "cuda", elsewhere=True)
    assert there.record["device"] == "cuda"
    here = prepared(facts, model)
    same = {**here.record, "device": "cuda"}
    assert {k: v for k, v in there.record.items() if k != "machine"} == {
        k: v for k, v in same.items() if k != "machine"
    }


def test_a_cell_that_was_killed_after_its_last_file_is_kept_without_its_leftovers(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, checkpoint=False)
    done = {path.name for path in folder.iterdir()}
    for name in (results.STATE, results.LOCK, ".metrics.json.1.tmp", ".tmpAb3xY9"):
        (folder / name).write_text("")
    never = pytest.fail
    (only,) = processes.scheduled([Job(CELLS[0], folder)], [None], never, never, lambda running: None)  # type: ignore[arg-type]
    assert (only.cell, only.doing) == (CELLS[0].name, "kept")
    assert {path.name for path in folder.iterdir()} == done


@posix
def test_a_killed_worker_ends_the_grid_and_the_same_call_continues(facts: Path, model: Path, tmp_path: Path) -> None:
    ready = {"facts": prepared(facts, model)}

    def until_killed() -> None:
        for status in run_grid(CELLS[:1], ready, tmp_path, [None]):
            if status.done >= 8:
                for child in multiprocessing.active_children():
                    os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(UserError, match=r"facts-mend-all-seed0 ended with exit code -9; run the same command"):
        until_killed()
    _, first, *_, last = run_grid(CELLS[:1], ready, tmp_path, [None])
    assert first.done >= 8
    assert (last.doing, last.scores is None) == ("done", False)


@posix
@pytest.mark.parametrize(
    ("sent", "group", "executor"),
    [(signal.SIGTERM, False, "processes"), (signal.SIGINT, True, "processes"), (signal.SIGINT, True, "local")],
    ids=["SIGTERM", "Ctrl-C", "Ctrl-C-with-jobs"],
)
def test_an_interrupted_command_leaves_what_the_same_command_goes_on_from(
    sent: signal.Signals, group: bool, executor: str, facts: Path, model: Path, tmp_path: Path
) -> None:
    more = ("--executor", executor, "--jobs", "1", "--approach", "mend", "--set", "all_languages.edits=60000")
    argv = command(facts, model, tmp_path, *more)
    # A shell starts what is to run in the background with Ctrl-C ignored, and a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [sys.executable, "-m", "lime_editing", *argv], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        signal.signal(signal.SIGINT, before)
        try:
            until = time.monotonic() + 200
            while not list(tmp_path.rglob(results.STATE)):
                assert run.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
            family = [task for child in children(run.pid) for task in (child, *children(child))]
            os.killpg(run.pid, sent) if group else run.send_signal(sent)
            _, said = run.communicate(timeout=60)
        except BaseException:
            os.killpg(run.pid, signal.SIGKILL)
            raise
    assert run.returncode == 128 + sent
    assert said.strip().splitlines()[-1] == "interrupted; what is done is kept, and the same command resumes"
    assert "Traceback" not in said
    assert gone(family)
    begun = next(path.parent for path in tmp_path.rglob(results.STATE))
    # A job has a second to end. One that is killed leaves its lock's file, which the next process takes over.
    left = {"cell.json", "curve.json", results.STATE, *([results.LOCK] if executor == "local" else [])}
    assert {path.name for path in begun.iterdir()} <= left


@posix
def test_jobs_are_queued_again_after_preemption_and_a_killed_one_is_reported_with_its_log(
    facts: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cells = Command(main, tuple(command(facts, model, tmp_path))), folders(facts, model, tmp_path)
    wanted = [Job(cell, folder) for cell, folder in cells.items()]
    logs, said = tmp_path / "tiny-changed" / "jobs", list[Status]()
    sent: list[signal.Signals] = []

    def interfere(seconds: float) -> None:
        """Preempt the first cell's job and kill that of the second, each within its training."""
        time_sleep(0.02)
        tasks = [task for controller in children(os.getpid()) for task in children(controller)]
        how = {0: signal.SIGUSR2, 1: signal.SIGKILL}.get(len(sent))
        if how and tasks and (cells[CELLS[len(sent)]] / results.STATE).exists():
            os.kill(tasks[0], how)
            sent.append(how)

    time_sleep = time.sleep
    monkeypatch.setattr(processes.time, "sleep", interfere)
    submits = processes.executor("local", logs, hours=24)
    with pytest.raises(UserError) as caught:
        said.extend(processes.run_jobs(wanted, run, submits, [None], grace=0.1))
    assert sent == [signal.SIGUSR2, signal.SIGKILL]
    assert "Requeued job" in "".join(path.read_text() for path in logs.glob("*_log.out"))
    log = next(part for part in str(caught.value).split() if part.endswith("_log.err;"))[:-1]
    assert Path(log).parent == logs
    assert str(caught.value).startswith("cell facts-mend-lime-seed0: its job ")
    assert "the same command resumes" in str(caught.value)
    assert [one.doing for one in said if one.cell == CELLS[0].name][-1] == "done"
    monkeypatch.undo()
    said = list(processes.run_jobs(wanted, run, submits, [None]))
    assert [one.doing for one in said if one.scores] == ["kept", "done"]
    assert {path.suffix for path in logs.iterdir()} <= {".out", ".err"}


SBATCH = """#!{python}
import os, re, subprocess, sys
from pathlib import Path
here = Path(__file__).parent
if Path(sys.argv[0]).name == "sbatch":
    script = Path(sys.argv[1]).resolve()
    if "--partition=nowhere" in script.read_text():
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    job = str(100 + len(list(here.glob("*.pid"))))
    (here / f"{{job}}.sh").write_text(script.read_text())
    print("Submitted batch job", job)
else:  # scontrol requeue JOB
    job = sys.argv[2]
    (here / f"{{job}}.again").touch()
env = os.environ | {{"SLURM_JOB_ID": job, "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}}
run = subprocess.Popen(["bash", here / f"{{job}}.sh"], env=env, start_new_session=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
(here / f"{{job}}.pid").write_text(str(run.pid))
"""
SRUN = """#!{python}
import os, sys
args, streams = sys.argv[1:], {{}}
while args[0].startswith("--"):
    name = args.pop(0)
    if name != "--unbuffered":
        streams[name] = args.pop(0).replace("%j", os.environ["SLURM_JOB_ID"]).replace("%t", "0")
for name, number in (("--output", 1), ("--error", 2)):
    os.dup2(os.open(streams[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
os.execvp(args[0], args)
"""
SACCT = """#!{python}
from pathlib import Path
print("JobID|State|NodeList")
for path in Path(__file__).parent.glob("*.pid"):
    status = Path("/proc", path.read_text(), "status")
    alive = status.exists() and "State:\\tZ" not in status.read_text()
    print(path.stem + "|" + ("RUNNING" if alive else "COMPLETED") + "|here")
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster of one machine, as far as submitit knows Slurm."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "scontrol": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        path = folder / name
        path.write_text(text.format(python=sys.executable))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@posix
def test_slurm_runs_the_cells_and_queues_one_again_whose_time_is_over(
    slurm: Path, facts: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cells = Command(main, tuple(command(facts, model, tmp_path))), folders(facts, model, tmp_path)
    sent: list[int] = []

    def preempt(seconds: float) -> None:
        time_sleep(0.02)
        if not sent and (cells[CELLS[0]] / results.STATE).exists():
            sent.append(int((slurm / "100.pid").read_text()))
            os.killpg(sent[0], signal.SIGUSR2)

    time_sleep = time.sleep
    monkeypatch.setattr(processes.time, "sleep", preempt)
    # Of so short a job submitit takes every end for the end of its time.
    more = {"partition": "gpu", "gpus_per_node": 1, "additional_parameters": {"account": "nlp"}}
    submits = processes.executor("slurm", tmp_path / "jobs", 0.1, **more)
    job = Job(CELLS[0], cells[CELLS[0]], ("--protocol", "paper"))
    said = list(processes.run_jobs([job], run, submits, [None]))
    assert (slurm / "100.again").exists()
    assert [one.doing for one in said] == ["is job 100", "done"]
    script = (slurm / "100.sh").read_text()
    for flag in ("partition=gpu", "time=6", "gpus-per-node=1", "account=nlp", "job-name=facts-mend-all-seed0"):
        assert f"#SBATCH --{flag}\n" in script


@posix
def test_what_slurm_refuses_is_said(slurm: Path, facts: Path, model: Path, tmp_path: Path) -> None:
    submits = processes.executor("slurm", tmp_path / "jobs", 24, partition="nowhere")
    with pytest.raises(UserError, match=r"facts-mend-all-seed0: Slurm takes no such job: .*invalid partition"):
        list(processes.run_jobs([Job(CELLS[0], tmp_path / "cell")], Command(main, ()), submits, [None]))


def test_without_slurm_the_way_out_is_named(
    facts: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(command(facts, model, tmp_path / "results", "--executor", "slurm")) == 2
    assert "error: no Slurm here" in capsys.readouterr().err
