"""Sessions: `nox -l` lists them; plain `nox` runs spec, tests and lint. All share one environment, with one torch."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import nox

if sys.version_info < (3, 11):  # noqa: UP036  # pip would say so after half a minute, and not in these words
    sys.exit(f"Python 3.11 to 3.13 is needed, and this nox runs in {sys.version.split()[0]}: install nox in such a one")

HERE = Path(__file__).parent
#: Where environments go: LIME_HOME, for a checkout that cannot be written, or the checkout.
HOME = Path(os.environ["LIME_HOME"]).expanduser() if os.environ.get("LIME_HOME") else HERE / ".nox"
ENVIRONMENT = HOME / f"shared-{sys.version_info.major}.{sys.version_info.minor}"
REFERENCE = "lime_editing.conformance"
#: Options of the suite that name a file.
FILES = ("--report", "--xfails")
#: No test may wait for a hub.
OFFLINE = {"HF_HUB_OFFLINE": "1"}

nox.options.default_venv_backend = "none"
nox.options.envdir = str(HOME)
nox.options.sessions = ["spec", "tests", "lint"]


def python(session: nox.Session, *groups: str) -> str:
    """The shared environment's interpreter, with the package and these dependency groups installed."""
    if not os.access(next(path for path in (HOME, *HOME.parents) if path.exists()), os.W_OK):
        session.error(f"{HOME} cannot be written; set LIME_HOME to a folder for environments, caches and results")
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

    --python PATH runs it in another interpreter or environment, in a process of its own. --install
    PATH_OR_REQUIREMENT installs it first, beside the suite; a folder is installed so that changes to it count at once.
    --chapters M,S, --xfails FILE, --repeat N and a test's id choose and repeat; `start`, `compare` and `badge` are
    commands; all else is pytest's. Paths are relative to where nox was called.
    """
    interpreter, args, installed = python(session, "spec"), [], []
    given = iter(session.posargs)
    for arg in given:
        name, equals, value = arg.partition("=")
        if name in FILES:  # relative to where the user is
            args.append(f"{name}={Path(session.invoked_from, (value if equals else next(given, '')))}")
        elif arg == "--install" or arg.startswith("--install="):
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
    commands = {"start", "compare", "badge", "--help", "--version", "--where"}
    if not commands & {*args[:1]} and not any(arg.startswith("--implementation") for arg in args):
        args = ["--implementation", REFERENCE, *args]
    paths = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH", ""))))
    environment = os.environ | OFFLINE | {"PYTHONPATH": paths}
    command = [interpreter, "-m", "spec_tests", *args]
    done = subprocess.run(command, cwd=session.invoked_from, env=environment, check=False)
    if done.returncode == 1:
        session.error("the implementation does not conform")
    if done.returncode:  # nox knows 0 and 1 alone
        session.warn("the implementation could not be judged")
        raise SystemExit(2)


@nox.session
def wheels(session: nox.Session) -> None:
    """Build both wheels, install them into bare environments and try what a user would do [-- --keep FOLDER]."""
    interpreter = python(session, "spec")
    session.run(interpreter, "packaging/try_wheels.py", *session.posargs, env=OFFLINE, external=True)


@nox.session
def anywhere(session: nox.Session) -> None:
    """Judge implementations in environments of their own: NumPy 1 without torch, and Python 3.8 with torch 1.8."""
    interpreter = python(session, "spec")
    session.run(interpreter, "packaging/try_anywhere.py", *session.posargs, env=OFFLINE, external=True)


@nox.session
def reproduce(session: nox.Session) -> None:
    """The paper's tables and figures, with a page to look at: nox -s reproduce [-- --help]."""
    interpreter = python(session)
    session.chdir(session.invoked_from)  # paths are relative to where the user is
    session.run(interpreter, "-m", "lime_editing", "reproduce", *session.posargs, external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """The suite's own tests, the fixtures' scripts', and what no clause covers: store, command line, bad input.

    Every small benchmark runs once as well, without being timed.
    """
    # Whole files go to workers, since tests of one file share what is slow to make. Named tests need no workers.
    parallel = ["--numprocesses", "auto", "--dist", "loadfile", "--no-loadscope-reorder"]
    paths = session.posargs or [*parallel, "spec_tests/meta", "fixtures/tests", "reference/tests"]
    interpreter = python(session, "tests", "perf")
    session.run(interpreter, "-m", "pytest", *paths, env=OFFLINE | {"OMP_NUM_THREADS": "1"}, external=True)
    if not session.posargs:
        small = ["perf", "--benchmark-disable", "-k", "not mbert"]
        session.run(interpreter, "-m", "pytest", *small, env=OFFLINE, external=True)


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
    session.run(interpreter, "fixtures/build_editor.py", "--check", external=True)
