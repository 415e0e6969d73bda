"""Judges implementations in environments of their own, through pipes, and says how long it took.

    python packaging/try_anywhere.py [--keep FOLDER] [--only numpy1|old]

numpy1: the independent adapter of NumPy alone, under NumPy 1 and without torch. old: spec_tests/meta/old_code, written
in the habits of 2021, under Python 3.8, torch 1.8 and transformers 4.6, as it stands and with one fault. Without
Python 3.8, it gets this Python, a torch of its own and the last transformers 4. FOLDER keeps the environments for the
next time.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
OLD_CODE = ROOT / "spec_tests" / "meta" / "old_code"
#: What was current in the spring of 2021; this torch brings all that it needs, and runs on a CPU.
OLD = ("torch==1.8.1", "transformers==4.6.1", "numpy==1.20.3")
#: The same where Python 3.8 is missing.
LATER = ("torch==2.13.0", "transformers==4.57.3", "numpy<2")


def python38() -> str | None:
    """An interpreter of Python 3.8, from the search path or from pyenv."""
    known = [shutil.which("python3.8"), *sorted(Path.home().glob(".pyenv/versions/3.8.*/bin/python"))]
    for one in filter(None, known):
        asked = [str(one), "-c", "import sys; print(sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == "(3, 8)":
            return str(one)
    return None


def environment(folder: Path, interpreter: str, *wanted: str) -> Path:
    """A virtual environment with these packages, unless it is there; returns its folder."""
    made = folder / "made"
    if not made.exists():
        start = time.monotonic()
        subprocess.run([interpreter, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / SCRIPTS / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *wanted], check=True)
        made.touch()
        print(f"{time.monotonic() - start:6.1f} s  to install {', '.join(wanted)} in {interpreter}", flush=True)
    return folder


def judge(adapter: str, python: Path, code: int, *options: str) -> str:
    """What the suite says. Errors: SystemExit where the exit code is another one."""
    start = time.monotonic()
    command = [sys.executable, "-m", "spec_tests", "--implementation", adapter, "--python", str(python), *options]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    verdict = [line for line in done.stdout.splitlines() if re.match("conforms|does not conform|could not", line)]
    print(f"{time.monotonic() - start:6.1f} s  {adapter} in {python.name}: {' '.join(verdict)}", flush=True)
    if done.returncode != code:
        raise SystemExit(f"exit code {done.returncode}, expected {code}\n{said[-8000:]}")
    return said


QUICK = ("-q", "--hypothesis-profile=mutants", "--leave-out", "E10")


def numpy1(folder: Path) -> None:
    python = environment(folder / "numpy1", sys.executable, "numpy<2", "transformers>=5.17")  # for its tokenizers
    judge("spec_tests.adapters.numpy_core", python, 0, *QUICK)


def old(folder: Path) -> None:
    interpreter = python38()
    wanted = OLD if interpreter else LATER
    python = environment(folder / "old", interpreter or sys.executable, *wanted)
    judge(str(OLD_CODE / "adapter.py"), python, 0, *QUICK)
    with tempfile.TemporaryDirectory() as name:
        wrong = Path(name) / "wrong"
        shutil.copytree(OLD_CODE, wrong, ignore=shutil.ignore_patterns("__pycache__"))
        trainer = wrong / "xedit" / "trainer.py"
        text = trainer.read_text(encoding="utf-8")
        assert "-lr * delta.t() @ x" in text
        trainer.write_text(text.replace("-lr * delta.t() @ x", "lr * delta.t() @ x"), encoding="utf-8")
        said = judge(str(wrong / "adapter.py"), python, 1, *QUICK, "--clauses", "E2,E6,E11")
    violated = set(re.findall(r"^([A-Z]\d+) +FAILED ", said, flags=re.MULTILINE))
    if violated != {"E11"}:
        raise SystemExit(f"ascent for descent violates {sorted(violated)}; expected E11\n{said[-8000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="a folder for the environments")
    parser.add_argument("--only", choices=["numpy1", "old"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        for one in (numpy1, old):
            if options.only in (None, one.__name__):
                one(folder)


if __name__ == "__main__":
    main()
