"""Builds both wheels, installs each into a bare environment, and does there what a user would do.

    python packaging/try_wheels.py [--keep FOLDER]

The environment of the specification has no torch, and that of the reference has everything. Each step says how long
it took. FOLDER gets the wheels.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
PINS = ["--constraint", str(ROOT / "constraints.txt")]
#: A test suite of somebody's own, with one failure that is known and one that is not.
OWN_SUITE = """
from lime_spec import clauses

test_clause = clauses("half_right", chapters="M", known_failures={"M3": "the mean is not harmonic yet"})
"""
HALF_RIGHT = """
from lime_spec.adapters.numpy_core import aggregate, breakdown, hit, metrics


def succ(acc, con):
    return (acc + con) / 2
"""


def run(*command: str | Path, code: int = 0, folder: Path | None = None) -> str:
    """Run a command outside of the repository. Errors: SystemExit with what it printed, for another exit code."""
    start = time.monotonic()
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    shown = " ".join(Path(part).name if os.sep in str(part) else str(part) for part in command)
    print(f"{time.monotonic() - start:6.1f} s  {shown[:110]}", flush=True)
    said = done.stdout + done.stderr
    if done.returncode != code:
        raise SystemExit(f"exit code {done.returncode}, expected {code}\n{said[-6000:]}")
    return said


def environment(folder: Path, *wanted: str | Path) -> Path:
    """A new virtual environment with these packages; returns the folder of its programs."""
    run(sys.executable, "-m", "venv", folder)
    programs = folder / SCRIPTS
    run(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS, *wanted)
    return programs


def expect(text: str, *words: str) -> None:
    missing = [word for word in words if word not in text]
    if missing:
        raise SystemExit(f"expected {missing} in\n{text[-6000:]}")


def build(folder: Path) -> tuple[Path, Path]:
    """The wheels of the specification and of the reference."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run(*build, "--wheel-dir", folder, ROOT / "spec_tests", ROOT)
    (specification,), (reference,) = folder.glob("lime_spec-*.whl"), folder.glob("lime_editing-*.whl")
    for wheel, owner in ((specification, "lime_spec"), (reference, "lime_editing")):
        with zipfile.ZipFile(wheel) as opened:
            names = opened.namelist()
        tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
        if tops != {owner}:
            raise SystemExit(f"{wheel.name} has {tops}")
        print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.1f} MB")
    return specification, reference


def try_specification(wheel: Path, folder: Path) -> None:
    """Without torch and without the reference: the command, a skeleton, one's own test suite, reports, a badge."""
    programs, work = environment(folder / "bare", wheel), folder / "work"
    work.mkdir()
    spec, quick = programs / "lime-spec", ["--hypothesis-profile=mutants", "-q"]
    expect(run(spec, "--version", folder=work), "specification ")
    said = run(
        *(spec, "--implementation", "lime_spec.adapters.numpy_core", "--report", "whole.json", *quick), folder=work
    )
    expect(said, "conforms in all that it claims", 'pip install "lime-spec[torch]" for these')
    run(spec, "start", "my_adapter.py", "--chapters", "M,S", folder=work)
    mine = [spec, "--implementation", "my_adapter.py", "--chapters", "M,S", *quick]
    expect(run(*mine, code=2, folder=work), "`succ` has to be written yet", "not claimed yet: succ: The harmonic mean")
    (work / "half_right.py").write_text(HALF_RIGHT, encoding="utf-8")
    (work / "test_mine.py").write_text(OWN_SUITE, encoding="utf-8")
    said = run(programs / "python", "-m", "pytest", "-rA", "--conformance-report", "m.json", folder=work)
    expect(said, "9 passed, 1 xfailed" if "known failures" not in said else "10 passed, 1 xfailed", "clause[M3]")
    judged = ["--python", programs / "python", "--chapters", "M", "--report", "there.json"]
    said = run(spec, "--implementation", "half_right.py", *judged, *quick, code=1, folder=work)
    expect(said, "does not conform", "lime-spec test_m_metrics.py::", "--python")
    expect(run(spec, "compare", "m.json", "there.json", folder=work), "M3: known failure → failed")
    expect(run(spec, "badge", "there.json", "badge.svg", folder=work), "9 of 10 clauses")
    digest = run(
        *(programs / "python", "-c", "from lime_spec.fixtures import digest; print(digest())"), folder=work
    ).strip()
    own = subprocess.run(
        [sys.executable, "-c", "from spec_tests.fixtures import digest; print(digest())"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    if digest != own:
        raise SystemExit(f"the wheel has another suite ({digest}) than the repository ({own})")


def try_reference(specification: Path, reference: Path, folder: Path) -> None:
    """Both in one environment: the reference is judged in it, and its own command starts."""
    programs = environment(folder / "full", f"lime-spec[torch] @ {specification.as_uri()}", reference)
    work = folder / "beside"
    work.mkdir()
    run(programs / "lime-editing", "--help", folder=work)
    judged = ["--implementation", "lime_editing.conformance", "--chapters", "T,L", "-k", "bert or not E"]
    said = run(programs / "lime-spec", *judged, "--hypothesis-profile=mutants", "-q", folder=work)
    expect(said, "conforms in all that it claims")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="a folder for the wheels")
    parser.add_argument("--without-reference", action="store_true", help="leave out the environment with torch")
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        specification, reference = build(folder)
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for wheel in (specification, reference):
                shutil.copy(wheel, options.keep)
        try_specification(specification, folder)
        if not options.without_reference:
            try_reference(specification, reference, folder)
    print(f"{time.monotonic() - start:6.1f} s in all")


if __name__ == "__main__":
    main()
