"""Mutation testing of the reference's pure modules, by mutmut: `nox -s mutation [-- 'lime_editing.core.masks.*' ...]`.

mutmut changes one operator, number, string, argument or assignment of one function at a time and runs the tests that
reach this function, in a forked process, the quickest first and until one fails. All of it happens in a temporary copy:
the working tree is never mutated. What stands outside functions is not mutated, nor what is decorated, class methods
excepted.

A mutant that no test notices has to be explained in survivors.toml, and what is explained there has to survive.
Exit codes: 0 it is so; 1 not so; 2 could not be judged.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

from .survivors import Mutation, Run, explanations, rate, report
from .targets import PACKAGE, TARGETS, TESTS

ROOT = Path(__file__).parents[2]
EXPLAINED, NOT_EXPLAINED, NOT_JUDGED = 0, 1, 2

#: Left out: what is slow and about nothing that mutmut touches: iteration over sets, long trainings, two editors.
SKIPPED = "hash_seeds or short_training or knowledge_editor or (finetuning and not (in_a_batch or steps_until))"
COPIED = ("spec_tests", "reference/tests", "reference/studies", "results", "fixtures/golden")


def mutate(folder: Path, patterns: Sequence[str], jobs: int) -> Run:
    """Run mutmut on a copy of the repository in an empty folder; its verdicts on the mutants of these names."""
    _copy(folder)
    _run_mutmut(folder, patterns, jobs)
    codes: dict[str, int | None] = {}
    for path in sorted((folder / "mutants").rglob("*.py.meta")):
        codes |= json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
    nothing = [pattern for pattern in patterns if not fnmatch.filter(codes, pattern)]
    if nothing:
        print(f"no mutant is named {', '.join(nothing)}", file=sys.stderr)
        raise SystemExit(NOT_JUDGED)
    verdicts = {name: _verdict(codes[name]) for pattern in patterns for name in fnmatch.filter(codes, pattern)}
    with contextlib.chdir(folder):
        survivors = [_mutation(name) for name, verdict in verdicts.items() if verdict == "survived"]
    return Run(Counter(verdicts.values()), frozenset(map(_function, verdicts)), tuple(survivors))


def _copy(folder: Path) -> None:
    leave = shutil.ignore_patterns("__pycache__", ".hypothesis")
    # mutmut takes src/ for a root of packages.
    shutil.copytree(ROOT / "reference" / PACKAGE, folder / "src" / PACKAGE, ignore=leave)
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=leave)
    options = [f"--implementation={PACKAGE}.conformance", "--hypothesis-profile=mutants"]
    options += ["-p", "spec_tests.mutation.selection", "-k", f"not ({SKIPPED})"]
    # Everything is imported already from the second run on.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    settings = {
        "source_paths": ["src"],
        "only_mutate": sorted({_file(pattern).as_posix() for pattern in TARGETS}),
        "also_copy": list(COPIED),
        "pytest_add_cli_args": options,
        "pytest_add_cli_args_test_selection": list(TESTS),
        "track_dependencies": False,
        "use_git_change_detection": False,
    }
    # JSON's strings, lists and booleans are TOML's too.
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(f"{project}\n[tool.mutmut]\n{lines}", encoding="utf-8")


def _run_mutmut(folder: Path, patterns: Sequence[str], jobs: int) -> None:
    print("mutmut is at work, for some minutes", flush=True)
    command = [str(Path(sys.executable).with_name("mutmut")), "run", f"--max-children={jobs}", *patterns]
    # One thread for each process; and a CUDA context would not survive a fork.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        print(done.stdout[-5000:], done.stderr[-5000:], file=sys.stderr)
        raise SystemExit(NOT_JUDGED)


def _verdict(code: int | None) -> str:
    """mutmut's word. What no test reaches survives; where the suite cannot judge (2), it has noticed something."""
    known = {"no tests": "survived", "check was interrupted by user": "killed"}
    verdict = status_by_exit_code[code]
    return known.get(verdict, verdict)


def _function(name: str) -> str:
    """The function of a mutant as Python names it."""
    module, _, mangled = name.partition("__mutmut_")[0].rpartition(".")
    return f"{module}.{mangled.removeprefix('x_').removeprefix('xǁ').replace('ǁ', '.')}"


def _file(name: str) -> Path:
    """The file of a mutant, or of a pattern of mutants."""
    return Path("src", *name.split(".")[:-1]).with_suffix(".py")


def _mutation(name: str) -> Mutation:
    lines = get_diff_for_mutant(name, path=_file(name)).splitlines()[3:]
    before, after = ("\n".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    return Mutation(_function(name), before, after)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nox -s mutation --", description=__doc__)
    parser.add_argument(
        "patterns", nargs="*", default=TARGETS, help="the mutants to try, by mutmut's names (default: all)"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants to try side by side")
    options = parser.parse_args(arguments)
    known = explanations()
    with tempfile.TemporaryDirectory() as folder:
        found = mutate(Path(folder), options.patterns, options.jobs)
    wrong = report(found, known)
    print("\n".join([*wrong, rate(found, known)]))
    return NOT_EXPLAINED if wrong else EXPLAINED


if __name__ == "__main__":
    sys.exit(main())
