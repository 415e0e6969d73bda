"""The pytest plugin: options, the `implementation` fixture, what is claimed, the conformance table, the exit code."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from spec_tests.conformance import (
    NOT_JUDGED,
    Implementation,
    Injected,
    Result,
    SuiteError,
    by_clause,
    clauses,
    exit_code,
    load,
    table,
)
from spec_tests.contract import CAPABILITIES, EDITORS, NAMES

HERE = Path(__file__).parent
IMPLEMENTATION = pytest.StashKey[Implementation]()
RESULTS = pytest.StashKey[dict[str, Result]]()
FAILED_ELSEWHERE = pytest.StashKey[bool]()

_COMMON = {"deadline": None, "derandomize": True, "database": None, "report_multiple_bugs": False, "print_blob": False}
_ONCE = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
hypothesis.settings.register_profile("ci", max_examples=50, phases=[*_ONCE, hypothesis.Phase.shrink], **_COMMON)
#: For a wrong implementation any counterexample will do, however large.
hypothesis.settings.register_profile("mutants", max_examples=15, phases=_ONCE, **_COMMON)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--implementation", metavar="MODULE[:OBJECT]", help="the implementation to judge")
    group.addoption("--chapters", metavar="M,S", help="judge these chapters of SPEC.md only (default: all)")
    group.addoption("--mlama", metavar="FOLDER", help="the real mLAMA, unpacked, for what D2 says of it")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clause(*ids): the clauses of SPEC.md that the test checks")
    config.addinivalue_line(
        "markers", "needs(*names): chapters, capabilities and editors needed beside those of the clauses"
    )
    if not config.getoption("--hypothesis-profile", default=None):
        hypothesis.settings.load_profile("ci")
    config.stash[RESULTS] = {}
    if str(config.invocation_params.dir) not in sys.path:
        sys.path.append(str(config.invocation_params.dir))
    try:
        _chapters(config)
        found = _implementation(config)
    except SuiteError as error:
        pytest.exit(str(error), returncode=NOT_JUDGED)
    if found is not None:
        config.stash[IMPLEMENTATION] = found


def _implementation(config: pytest.Config) -> Implementation | None:
    spelling = config.getoption("implementation")
    injected = _injected(config)
    if injected is not None:
        return Implementation(injected.target, injected.name)
    return load(spelling) if spelling else None


def _injected(config: pytest.Config) -> Injected | None:
    return next((p for p in config.pluginmanager.get_plugins() if isinstance(p, Injected)), None)


def _chapters(config: pytest.Config) -> list[str]:
    chosen = config.getoption("chapters")
    known = list(dict.fromkeys(c.chapter for c in clauses().values()))
    if chosen is None:
        return known
    asked = [part.strip() for part in chosen.split(",") if part.strip()]
    unknown = [part for part in asked if part not in known]
    if unknown or not asked:
        raise SuiteError(f"--chapters names {', '.join(unknown) or 'nothing'}; SPEC.md has {', '.join(known)}")
    return asked


def _is_meta(item: pytest.Item) -> bool:
    return HERE / "meta" in item.path.parents


def _is_ours(item: pytest.Item) -> bool:
    return HERE in item.path.parents


def _clauses_of(item: pytest.Item) -> tuple[str, ...]:
    return tuple(name for mark in item.iter_markers("clause") for name in mark.args)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chapters = _chapters(config)
    dropped = [
        item for item in items if _clauses_of(item) and all(name[0] not in chapters for name in _clauses_of(item))
    ]
    if dropped:
        items[:] = [item for item in items if item not in dropped]
        config.hook.pytest_deselected(items=dropped)
    if IMPLEMENTATION not in config.stash and any(_is_ours(item) and not _is_meta(item) for item in items):
        pytest.exit(
            "no implementation to judge: name one with --implementation package.module[:object]", returncode=NOT_JUDGED
        )


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not _is_ours(item) or _is_meta(item):
        return
    named = _clauses_of(item)
    unknown = [name for name in named if name not in clauses()]
    if unknown or not named:
        raise SuiteError(
            f"{item.name} names {', '.join(unknown)}, which SPEC.md lacks"
            if unknown
            else f"{item.name} names no clause"
        )
    needed = dict.fromkeys(name[0] for name in named)
    needed |= dict.fromkeys(name for mark in item.iter_markers("needs") for name in mark.args)
    bad = set(needed) - set(NAMES) - set(CAPABILITIES) - set(EDITORS)
    if bad:
        raise SuiteError(f"{item.name} needs {sorted(bad)}, which the contract lacks")
    unclaimed = item.config.stash[IMPLEMENTATION].lacks(needed)
    if unclaimed:
        pytest.skip(f"not claimed: {', '.join(unclaimed)}")


@pytest.fixture(scope="session")
def implementation(pytestconfig: pytest.Config) -> Implementation:
    """The implementation under test."""
    return pytestconfig.stash[IMPLEMENTATION]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not _is_ours(item):
        item.config.stash[FAILED_ELSEWHERE] = item.config.stash.get(FAILED_ELSEWHERE, False) or report.failed
        return report
    result = Result(item.nodeid, _clauses_of(item), _outcome(item, call, report), _message(report, call))
    report.user_properties.append(("conformance", result.outcome))
    _keep(item.config.stash[RESULTS], result)
    if report.failed and IMPLEMENTATION in item.config.stash and not _is_meta(item):
        name = item.config.stash[IMPLEMENTATION].spelling or "..."
        report.sections.append(("reproduce", f"pytest '{item.nodeid}' --implementation {name}"))
    return report


def _keep(results: dict[str, Result], result: Result) -> None:
    """Of a test's three phases the one that tells most: a skipped test passes its teardown, and has not passed."""
    order = ("passed", "not claimed", "error", "failed")
    known = results.get(result.nodeid)
    if known is None or order.index(result.outcome) > order.index(known.outcome):
        results[result.nodeid] = result


def _outcome(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> str:
    if report.skipped:
        return "not claimed"
    if call.excinfo is None:
        return "passed"
    error = call.excinfo.value
    theirs = isinstance(error, AssertionError | pytest.fail.Exception | hypothesis.errors.Flaky)
    theirs = theirs or hasattr(error, "raised_by_implementation")
    return "failed" if theirs and not _is_meta(item) else "error"


def _message(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    return "" if report.passed or call.excinfo is None else str(call.excinfo.value)


def pytest_report_teststatus(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
    outcome = dict(getattr(report, "user_properties", ())).get("conformance")
    return {
        "not claimed": ("not claimed", "n", "NOT CLAIMED"),
        "error": ("error", "E", "ERROR"),
    }.get(str(outcome))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn pytest's exit status into the three codes; failures outside the suite keep pytest's own."""
    results = list(session.config.stash[RESULTS].values())
    injected = _injected(session.config)
    if injected is not None:
        injected.results = results
        injected.outcomes = by_clause(results, _chapters(session.config))
    if results and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        elsewhere = session.config.stash.get(FAILED_ELSEWHERE, False)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED if elsewhere else exit_code(results)
    elif results:
        session.exitstatus = NOT_JUDGED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = [result for result in config.stash[RESULTS].values() if result.clauses]
    if not results:
        return
    found = config.stash[IMPLEMENTATION]
    outcomes = by_clause(results, _chapters(config))
    terminalreporter.section(f"conformance of {found.label}")
    for line in table(found, outcomes, terminalreporter._tw.fullwidth):
        terminalreporter.line(line)
