"""Sessions: `nox -l` lists them, plain `nox` runs the quick ones. All share one environment, so torch installs once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import nox

HERE = Path(__file__).parent
ENVIRONMENT = HERE / ".nox" / f"shared-{sys.version_info.major}.{sys.version_info.minor}"
REFERENCE = "lime_editing.conformance"
#: No test may wait for a hub.
OFFLINE = {"HF_HUB_OFFLINE": "1"}

nox.options.default_venv_backend = "none"
nox.options.sessions = ["spec", "tests", "lint"]


def python(session: nox.Session, *groups: str) -> str:
    """The shared environment's interpreter, with the package and these dependency groups installed."""
    bin_folder = "Scripts" if os.name == "nt" else "bin"
    interpreter = str(ENVIRONMENT / bin_folder / "python")
    made = ENVIRONMENT / "made"  # written last: an interrupted venv has an interpreter but no pip
    if not made.exists():
        session.run(sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT), external=True)
        made.touch()
    project = nox.project.load_toml(HERE / "pyproject.toml")
    # What is installed already, under these very pins, is not asked for again.
    pins = (HERE / "constraints.txt").read_bytes() + (HERE / "pyproject.toml").read_bytes()
    for wanted in (["-e", str(HERE)], *(list(nox.project.dependency_groups(project, group)) for group in groups)):
        stamp = ENVIRONMENT / hashlib.sha256(pins + repr(wanted).encode()).hexdigest()[:16]
        if not stamp.exists():
            session.run(
                *(interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--constraint", str(HERE / "constraints.txt"), *wanted),
                external=True,
            )
            stamp.touch()
    return interpreter


@nox.session
def spec(session: nox.Session) -> None:
    """Validate an implementation: nox -s spec [-- --implementation package.module[:object] --report out.html].

    --install PATH_OR_REQUIREMENT installs it first, beside the suite; a folder is installed so that changes to it count
    at once. --chapters M,S, --xfails FILE, --repeat N and a test's id choose and repeat; all else is pytest's.
    """
    interpreter, args, installed = python(session, "spec"), [], []
    given = iter(session.posargs)
    for arg in given:
        if arg == "--install" or arg.startswith("--install="):
            installed.append(arg.partition("=")[2] or next(given, ""))
        else:
            args.append(arg)
    for wanted in installed:
        if not wanted:
            session.error("--install: expected a folder or a requirement after it")
        folder = Path(session.invoked_from, wanted)
        what = ["--editable", str(folder)] if folder.is_dir() else [wanted]
        pins = ("--constraint", str(HERE / "constraints.txt"))
        session.run(interpreter, "-m", "pip", "install", "--quiet", *pins, *what, external=True)
    if not any(arg.startswith("--implementation") for arg in args):
        args = ["--implementation", REFERENCE, *args]
    if not any(arg.startswith("spec_tests") for arg in args):
        args = ["spec_tests", "--ignore=spec_tests/meta", *args]
    done = subprocess.run([interpreter, "-m", "pytest", *args], cwd=HERE, env=os.environ | OFFLINE, check=False)
    if done.returncode == 1:
        session.error("the implementation does not conform")
    if done.returncode:  # nox knows 0 and 1 alone
        session.warn("the implementation could not be judged")
        raise SystemExit(2)


@nox.session
def reproduce(session: nox.Session) -> None:
    """The paper's tables and figures, with a page to look at: nox -s reproduce [-- --help]."""
    session.run(python(session), "-m", "lime_editing", "reproduce", *session.posargs, external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """The suite's own tests, the fixtures' scripts', and what no clause covers: store, command line, bad input."""
    paths = session.posargs or ["spec_tests/meta", "fixtures/tests", "reference/tests"]
    interpreter = python(session, "tests")
    session.run(interpreter, "-m", "pytest", *paths, env=OFFLINE, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, ruff format, and mypy strict on the reference and the contract."""
    interpreter = python(session, "lint")
    session.run(interpreter, "-m", "ruff", "check", external=True)
    session.run(interpreter, "-m", "ruff", "format", "--check", external=True)
    session.run(interpreter, "-m", "mypy", external=True)


@nox.session
def mutants(session: nox.Session) -> None:
    """Wrong implementations: each must be killed by a test of its own chapter."""
    args = session.posargs or ["--implementation", REFERENCE]
    session.run(python(session, "spec"), "-m", "spec_tests.run_mutants", *args, external=True)


@nox.session
def mutation(session: nox.Session) -> None:
    """mutmut on the pure modules, in a copy: every survivor is explained in spec_tests/mutation/survivors.toml."""
    if os.name == "nt":
        session.skip("mutmut forks its processes, and Windows cannot")
    interpreter = python(session, "mutation")
    session.run(interpreter, "-m", "spec_tests.mutation.run", *session.posargs, env=OFFLINE, external=True)


@nox.session
def kills(session: nox.Session) -> None:
    """kill -9 at random moments of a training and a grid: nothing is lost [-- --kills 50 --seed 0]."""
    if os.name == "nt":
        session.skip("it forks its processes, and Windows cannot")
    session.run(python(session, "spec"), "-m", "reference.tests.kills", *session.posargs, env=OFFLINE, external=True)


@nox.session
def perf(session: nox.Session) -> None:
    """The benchmarks, with a table in perf/local: nox -s perf [-- --whole] [--device cuda] [-k training].

    --publish writes it into perf/results instead, which is under version control.
    """
    args = [arg for arg in session.posargs if arg != "--publish"]
    folder = "perf/results" if "--publish" in session.posargs else "perf/local"
    interpreter, raw = python(session, "perf"), Path(session.create_tmp()) / "raw.json"
    raw.unlink(missing_ok=True)
    command = ["pytest", "perf", "--benchmark-only", *args]
    session.run(interpreter, "-m", *command, "--benchmark-quiet", f"--benchmark-json={raw}", env=OFFLINE, external=True)
    if not raw.exists():
        session.skip("nothing was measured")
    session.run(interpreter, "-m", "perf.report", str(raw), folder, " ".join(command), external=True)


@nox.session
def fixtures(session: nox.Session) -> None:
    """Rebuild the facts (needs npm), the sentence pairs and the golden values, and compare them."""
    interpreter = python(session)
    session.run(interpreter, "fixtures/build_facts.py", "--check", external=True)
    session.run(interpreter, "fixtures/build_nli.py", "--check", external=True)
    session.run(interpreter, "fixtures/build_golden.py", "--check", external=True)
