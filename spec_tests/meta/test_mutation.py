"""The list of survivors of the mutation testing, without mutating anything."""

from __future__ import annotations

import ast
import fnmatch
from collections import Counter
from pathlib import Path

import pytest

from ..mutation.survivors import KINDS, Explanation, Mutation, Run, explanations, rate, report
from ..mutation.targets import TARGETS, TESTS

REFERENCE = Path(__file__).parents[2] / "reference"
KNOWN = explanations()
NAMED = [pytest.param(e, id=f"{e.mutation.function}-{place}") for place, e in enumerate(KNOWN)]

FIRST, SECOND = (Mutation("package.module.f", "return x", after) for after in ("return None", "return +x"))


def source_of(function: str) -> str:
    """The text of `lime_editing.updates.Update.apply`."""
    parts = function.split(".")
    files = [REFERENCE.joinpath(*parts[:i]).with_suffix(".py") for i in range(1, len(parts))]
    (depth,) = (i for i, file in enumerate(files, 1) if file.is_file())
    text, names = files[depth - 1].read_text(encoding="utf-8"), parts[depth:]
    node: ast.AST = ast.parse(text)
    for name in names:
        node = next(n for n in ast.iter_child_nodes(node) if getattr(n, "name", None) == name)
    return ast.get_source_segment(text, node) or ""


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_names_existing_code(target: str) -> None:
    """A module, or a function of one under mutmut's name; a module or function that moved takes its target along."""
    module, _, mangled = target.rpartition(".")
    assert REFERENCE.joinpath(*module.split(".")).with_suffix(".py").is_file()
    if mangled != "*":
        assert source_of(f"{module}.{mangled.removeprefix('x_').removesuffix('__*')}")


@pytest.mark.parametrize("path", TESTS)
def test_the_tests_that_may_notice_are_there(path: str) -> None:
    """A test file that moved would leave its mutants alive."""
    assert (REFERENCE.parent / path).is_file()


@pytest.mark.parametrize("known", NAMED)
def test_an_entry_is_about_a_target(known: Explanation) -> None:
    """What is never mutated needs no explanation."""
    module, _, name = known.mutation.function.rpartition(".")
    assert any(fnmatch.fnmatch(f"{module}.x_{name}__mutmut_1", target) for target in TARGETS)


@pytest.mark.parametrize("known", NAMED)
def test_an_entry_names_existing_code(known: Explanation) -> None:
    """What was mutated is still there, line by line."""
    lines = [line.strip() for line in source_of(known.mutation.function).splitlines()]
    assert known.mutation.before
    assert [line for line in known.mutation.before.splitlines() if line not in lines] == []


@pytest.mark.parametrize("known", NAMED)
def test_an_entry_says_why(known: Explanation) -> None:
    """It has a kind and a sentence, and changes something."""
    assert known.kind in KINDS
    assert known.why.endswith(".")
    assert known.mutation.after != known.mutation.before


def test_nothing_is_explained_twice() -> None:
    """One mutation, one reason."""
    assert [mutation for mutation, times in Counter(e.mutation for e in KNOWN).items() if times > 1] == []


def run(*survivors: Mutation) -> Run:
    return Run(Counter(survived=len(survivors), killed=7, timeout=1), frozenset({"package.module.f"}), survivors)


@pytest.mark.parametrize(
    ("survivors", "listed", "lines"),
    [
        ((FIRST,), (FIRST,), []),
        ((FIRST, SECOND), (FIRST,), ["survived without an explanation", "+ return +x"]),
        ((FIRST,), (FIRST, SECOND), ["killed or gone", "+ return +x"]),
        ((), (Mutation("package.module.g", "a", "b"),), []),
    ],
    ids=["as listed", "a new one", "killed", "not tried"],
)
def test_the_list_and_the_survivors_must_agree(
    survivors: tuple[Mutation, ...], listed: tuple[Mutation, ...], lines: list[str]
) -> None:
    """A survivor that is not listed is wrong, and so is a listed one that was tried and did not survive."""
    said = "\n".join(report(run(*survivors), [Explanation(m, "equivalent", "So.") for m in listed]))
    assert bool(said) == bool(lines)
    assert all(line in said for line in lines)


def test_the_rate_counts_every_mutant() -> None:
    """Killed of all, and what became of the others."""
    said = rate(run(FIRST, SECOND), [Explanation(FIRST, "equivalent", "So.")])
    assert said == "7 of 10 mutants killed (70.0%); 1 survived, equivalent; 1 survived, unexplained; 1 timeout"
