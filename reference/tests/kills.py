"""kill -9 at random moments of a tiny training and of a small grid: `nox -s kills [-- --kills 50 --seed 0]`.

After each kill the same command runs again, until it ends. What it leaves must be, byte for byte, what a run leaves
that nobody disturbed, with no other file beside it, and each cell once in the index. Then all begins anew, until all
kills are spent. Every other kill waits for a file that is being written.

Processes are forked from one that has imported everything, workers of the grid too, so that a start costs nothing and
the moments fall into the run itself. The last few kills hit commands as a user gives them, the parent process alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from lime_editing import __main__
from lime_editing.reproduce import processes
from reference.tests.corpora import write_facts, write_model
from reference.tests.miniature import SETTINGS

Start = Callable[[Sequence[str], Path], int]
KEPT = ("rows.parquet", "metrics.json", "curve.json", "editor.safetensors", "cell.json")
SMALL = SETTINGS | {"all_languages.edits": 60, "all_languages.validate_every": 20, "all_languages.patience": 60}
#: Seconds after which a command with all its imports is killed.
REAL = (5.0, 25.0)
PATIENCE = 300.0


@dataclass(frozen=True)
class Plan:
    """A command, and how its kills are spread."""

    name: str
    argv: tuple[str, ...]
    start: Start
    kills: int
    latest: float  # seconds
    earliest: float = 0.0
    parent_only: bool = False


def forked(argv: Sequence[str], log: Path) -> int:
    """The command in a child of this process and a process group of its own; its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        # Workers start by forking: the grid does not ask how.
        context = multiprocessing.get_context("fork")
        processes.multiprocessing = SimpleNamespace(get_context=lambda _: context)  # type: ignore[assignment]
        code = __main__.main(list(argv))
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def started(argv: Sequence[str], log: Path) -> int:
    """The command as a user gives it; its pid."""
    with log.open("a") as out:
        command = [sys.executable, "-m", "lime_editing", *argv]
        return subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True).pid


def ended(pid: int, until: float) -> int | None:
    """The exit code of a child, negative for a signal; None where it runs on until then."""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.0005)


def writing(root: Path) -> bool:
    """Whether a file is being written below a folder."""
    return any(path.name.startswith(".tmp") or path.name.endswith(".tmp") for path in root.rglob(".*"))


def workers(pid: int) -> list[int]:
    """Children of a process, by Linux's account of them."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def kill(plan: Plan, pid: int, latest: float, rng: random.Random, results: Path) -> str | None:
    """Kill at a random moment of so many seconds; how it was done, None where the run ended before."""
    moment = time.monotonic() + rng.uniform(min(plan.earliest, latest), latest)
    at_a_write, whom = rng.random() < 0.5, rng.random()
    if (code := ended(pid, moment)) is not None:
        assert code == 0, f"{plan.name}: exit code {code}"
        return None
    while at_a_write and not writing(results):
        if (code := ended(pid, 0.0)) is not None:
            assert code == 0, f"{plan.name}: exit code {code}"
            return None
    children = workers(pid) if whom < 0.3 and not plan.parent_only else []
    how = " at a write" if at_a_write else ""
    if children:
        os.kill(rng.choice(children), signal.SIGKILL)
        code = ended(pid, time.monotonic() + PATIENCE)
        assert code in (0, 2), f"{plan.name}: exit code {code} after a worker was killed"
        return f"a worker{how}"
    if plan.parent_only:
        os.kill(pid, signal.SIGKILL)
    else:
        os.killpg(pid, signal.SIGKILL)
    ended(pid, time.monotonic() + PATIENCE)
    return f"the command{how}" if plan.parent_only else f"all{how}"


def cells(results: Path) -> dict[str, bytes]:
    """All that cells hold, by its path, but for the name of the folder in the commands that they keep."""
    name = str(results).encode()
    paths = [path for path in sorted(results.rglob("*")) if path.name in KEPT]
    return {str(path.relative_to(results)): path.read_bytes().replace(name, b"") for path in paths}


def compare(name: str, whole: Path, cut: Path) -> None:
    """The disturbed run has left what the other has, and nothing else."""
    there, here = (sorted(str(path.relative_to(root)) for path in root.rglob("*")) for root in (whole, cut))
    assert here == there, f"{name}: files differ: {sorted(set(here) ^ set(there))}"
    expected, found = cells(whole), cells(cut)
    assert expected, f"{name}: nothing was made"
    for path, data in expected.items():
        assert found[path] == data, f"{name}: {path} differs"
    for index in cut.rglob("index.json"):
        names = json.loads(index.read_text())
        assert len(names) == len(set(names)) == sum(p.is_dir() for p in index.parent.glob("facts-*")), names


def disturb(plan: Plan, folder: Path, rng: random.Random) -> Counter[str]:
    """Spend the kills of a plan; how each was done."""
    whole, cut, log = folder / plan.name, folder / f"{plan.name}-cut", folder / f"{plan.name}.log"
    if not whole.exists():
        code = ended(plan.start([*plan.argv, "--results", str(whole)], log), time.monotonic() + PATIENCE)
        assert code == 0, f"{plan.name}: exit code {code}\n{log.read_text()}"
    done, runs = Counter[str](), 0
    argv, latest = [*plan.argv, "--results", str(cut)], plan.latest
    while done.total() < plan.kills:
        began, fresh = time.monotonic(), not cut.exists()
        how = kill(plan, plan.start(argv, log), latest, rng, cut)
        if how is not None:
            done[how] += 1
        else:
            if fresh:
                latest = time.monotonic() - began  # the machine is less busy than it was
            compare(plan.name, whole, cut)
            shutil.rmtree(cut)
            runs += 1
    code = ended(plan.start(argv, log), time.monotonic() + PATIENCE)
    assert code == 0, f"{plan.name}: exit code {code}\n{log.read_text()[-3000:]}"
    compare(plan.name, whole, cut)
    shutil.rmtree(cut)
    done["runs"] = runs + 1
    return done


def timed(argv: Sequence[str], folder: Path) -> float:
    """Seconds of a whole run, forked."""
    began = time.monotonic()
    code = ended(forked([*argv, "--results", str(folder)], folder.with_suffix(".log")), began + PATIENCE)
    assert code == 0, folder.with_suffix(".log").read_text()
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of the training, and of the grid (default: 50)")
    parser.add_argument("--commands", type=int, default=4, help="kills of whole commands (default: 4)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, began = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if (pid := os.fork()) == 0:  # torch computes in children alone: threads do not outlive a fork
            write_facts(folder / "mlama1.1")
            write_model(folder / "model")
            os._exit(0)
        os.waitpid(pid, 0)
        settings = [word for path, value in SMALL.items() for word in ("--set", f"{path}={value}")]
        common = ("reproduce", "--task", "facts", "--facts", str(folder / "mlama1.1"))
        common += ("--model", str(folder / "model"), "--training", "all,lime", "--jobs", "2", *settings)
        one = (*common, "--approach", "mend", "--cell", "facts-mend-lime-seed0")
        many = (*common, "--approach", "finetuning,mend")
        lasts = {name: timed(argv, folder / name) for name, argv in (("training", one), ("grid", many))}
        plans = [
            Plan("training", one, forked, options.kills, lasts["training"]),
            Plan("grid", many, forked, options.kills, lasts["grid"]),
            Plan("grid", many, started, options.commands, REAL[1], REAL[0], parent_only=True),
        ]
        for plan in [plan for plan in plans if plan.kills]:
            done = disturb(plan, folder, rng)
            runs = done.pop("runs")
            how = ", ".join(f"{count} of {what}" for what, count in sorted(done.items()))
            print(f"{plan.name}: {done.total()} kills ({how}), {runs} runs, each as if undisturbed", flush=True)
    print(f"seed {options.seed}: nothing lost, left over or counted twice, in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    import lime_editing.report  # noqa: F401  what is imported late would be imported in every child

    main()
