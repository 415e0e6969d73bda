"""The pytest plugin: options, the `implementation` fixture, what is claimed, the conformance report, the exit code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from . import known_failures, report
from .conformance import (
    NOT_JUDGED,
    OUTCOMES,
    WRONG,
    Implementation,
    Injected,
    Result,
    SuiteError,
    Violation,
    by_clause,
    clauses,
    exit_code,
    load,
    table,
)
from .contract import CAPABILITIES, EDITORS, NAMES

HERE = Path(__file__).parent
IMPLEMENTATION = pytest.StashKey[Implementation]()
RESULTS = pytest.StashKey[dict[str, Result]]()
#: How many phases of tests of this folder failed.
FAILED_HERE = pytest.StashKey[int]()
#: How many examples the test that runs now has been given, and under which seed.
EXAMPLES = pytest.StashKey[int]()
SEED = pytest.StashKey[int | None]()
KNOWN = pytest.StashKey[list[known_failures.Known]]()
STALE = pytest.StashKey[list[str]]()

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
    group.addoption(
        "--report",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="write the conformance report to out.html, out.md or out.json; may be given more than once",
    )
    group.addoption("--xfails", metavar="FILE", type=Path, help="known failures, each with its reason (TOML)")
    group.addoption(
        "--repeat",
        metavar="N",
        type=int,
        default=1,
        help="run each property test under N seeds of Hypothesis, from --hypothesis-seed (0) on",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clause(*ids): the clauses of SPEC.md that the test checks")
    config.addinivalue_line(
        "markers", "needs(*names): chapters, capabilities and editors needed beside those of the clauses"
    )
    if not config.getoption("--hypothesis-profile", default=None):
        hypothesis.settings.load_profile("ci")
    config.stash[RESULTS] = {}
    config.stash[STALE] = []
    if str(config.invocation_params.dir) not in sys.path:
        sys.path.append(str(config.invocation_params.dir))
    try:
        report.check(config.getoption("report"))
        if config.getoption("repeat") < 1:
            raise SuiteError(f"--repeat {config.getoption('repeat')}: expected 1 or more")
        xfails = config.getoption("xfails")
        config.stash[KNOWN] = known_failures.concerning(
            known_failures.read(xfails) if xfails else [], _chapters(config)
        )
        found = _implementation(config)
    except SuiteError as error:
        pytest.exit(str(error), returncode=NOT_JUDGED)
    if found is not None:
        config.stash[IMPLEMENTATION] = found


def _implementation(config: pytest.Config) -> Implementation | None:
    spelling = config.getoption("implementation")
    injected = _injected(config)
    if injected is not None:
        return Implementation(injected.target, injected.name, injected.spelling)
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


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small matrices are slower on two threads than on one."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def implementation(pytestconfig: pytest.Config) -> Implementation:
    """The implementation under test."""
    return pytestconfig.stash[IMPLEMENTATION]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Count a property test's examples, and run it under each seed but the last: pytest itself runs that one."""
    test = pyfuncitem.obj
    item_stash = pyfuncitem.stash
    item_stash[EXAMPLES], item_stash[SEED] = 0, None
    if not _is_ours(pyfuncitem) or not hypothesis.is_hypothesis_test(test):
        item_stash[EXAMPLES] = 1
        return
    original = getattr(test.hypothesis.inner_test, "uncounted", test.hypothesis.inner_test)
    test.hypothesis.inner_test = _counting(original, item_stash)
    given, times = pyfuncitem.config.getoption("hypothesis_seed", None), pyfuncitem.config.getoption("repeat")
    if given is None and times == 1:
        return
    first = int(given or 0)
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    for seed in range(first, first + times):
        item_stash[SEED] = seed
        hypothesis.seed(seed)(test)
        if seed < first + times - 1:
            test(**arguments)


def _counting(inner: Callable[..., Any], stash: pytest.Stash) -> Callable[..., Any]:
    @functools.wraps(inner)
    def count(*args: Any, **kwargs: Any) -> Any:
        stash[EXAMPLES] += 1
        return inner(*args, **kwargs)

    count.uncounted = inner  # type: ignore[attr-defined]
    return count


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    made = yield
    if not _is_ours(item):
        return made
    result = _result(item, call, made)
    if result.reason:
        made.outcome = "skipped"
        made.longrepr = (str(item.path), item.location[1] or 0, f"known failure: {result.reason}")
    item.config.stash[FAILED_HERE] = item.config.stash.get(FAILED_HERE, 0) + made.failed
    made.user_properties.append(("conformance", result.outcome))
    _keep(item.config.stash[RESULTS], result)
    if made.failed and IMPLEMENTATION in item.config.stash and not _is_meta(item):
        made.sections.append(("repeat it", report.command(result, item.config.stash[IMPLEMENTATION])))
    return made


def _result(item: pytest.Item, call: pytest.CallInfo[None], made: pytest.TestReport) -> Result:
    outcome, error = _outcome(item, call, made), call.excinfo.value if call.excinfo else None
    ran = made.when == "call"
    known = known_failures.reason(item.config.stash[KNOWN], item.nodeid, _clauses_of(item)) if outcome in WRONG else ""
    return Result(
        item.nodeid,
        _clauses_of(item),
        "known failure" if known else outcome,
        "" if made.passed or error is None else _message(error),
        examples=item.stash.get(EXAMPLES, 0) if ran else 0,
        example="\n".join(note for note in getattr(error, "__notes__", []) if "test case" in note or "example" in note),
        violation=error if isinstance(error, Violation) else None,
        seed=item.stash.get(SEED, None) if ran else None,
        reason=known,
    )


def _message(error: BaseException) -> str:
    if isinstance(error, AssertionError | pytest.fail.Exception | SuiteError):
        return str(error)
    raised = getattr(error, "raised_by_implementation", None)
    return f"{type(error).__name__}: {error}" + (f" (raised by the implementation's `{raised}`)" if raised else "")


def _keep(results: dict[str, Result], result: Result) -> None:
    """Of a test's three phases the one that tells most: a skipped test passes its teardown, and has not passed."""
    order = ("passed", *(outcome for outcome in OUTCOMES if outcome != "passed"))
    known = results.get(result.nodeid)
    if known is None or order.index(result.outcome) > order.index(known.outcome) or result.examples:
        results[result.nodeid] = result


def _outcome(item: pytest.Item, call: pytest.CallInfo[None], made: pytest.TestReport) -> str:
    if made.skipped:
        return "not claimed"
    if call.excinfo is None:
        return "passed"
    error = call.excinfo.value
    if _is_meta(item):
        return "error"
    if isinstance(error, AssertionError | pytest.fail.Exception | hypothesis.errors.Flaky):
        return "failed"
    return "crashed" if hasattr(error, "raised_by_implementation") else "error"


def pytest_report_teststatus(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
    outcome = dict(getattr(report, "user_properties", ())).get("conformance")
    return {
        "not claimed": ("not claimed", "n", "NOT CLAIMED"),
        "known failure": ("known failure", "x", "KNOWN FAILURE"),
        "crashed": ("failed", "C", "CRASHED"),
        "error": ("error", "E", "ERROR"),
    }.get(str(outcome))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn pytest's exit status into the three codes; failures outside the suite keep pytest's own."""
    config = session.config
    results = list(config.stash[RESULTS].values())
    injected = _injected(config)
    if injected is not None:
        injected.results = results
        injected.outcomes = by_clause(results, _chapters(config))
    ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    if results and ended:
        config.stash[STALE] = known_failures.stale(config.stash[KNOWN], results, _is_whole(config))
        # pytest shows this file no report of a test beside its folder.
        elsewhere = session.testsfailed > config.stash.get(FAILED_HERE, 0)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED if elsewhere else exit_code(results)
        if config.stash[STALE] and session.exitstatus == 0:
            session.exitstatus = NOT_JUDGED
    elif results:
        session.exitstatus = NOT_JUDGED
    judged = [result for result in results if result.clauses]
    if config.getoption("report") and judged and IMPLEMENTATION in config.stash:
        made = report.judgement(
            config.stash[IMPLEMENTATION],
            judged,
            _chapters(config),
            exit_code=int(session.exitstatus),
            whole=ended and _is_whole(config),
            seeds=_seeds(config),
            stale=config.stash[STALE],
        )
        for path in config.getoption("report"):
            report.write(made, path)


def _is_whole(config: pytest.Config) -> bool:
    """Whether the run is of all tests of its chapters."""
    named = {Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args}
    plain = not any("::" in argument for argument in config.args)
    return plain and HERE in named and not config.getoption("keyword") and not config.getoption("markexpr")


def _seeds(config: pytest.Config) -> list[int]:
    """The seeds of Hypothesis; none where each test has the one that its name gives it."""
    given, times = config.getoption("hypothesis_seed", None), config.getoption("repeat")
    if given is None and times == 1:
        return []
    return list(range(int(given or 0), int(given or 0) + times))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = [result for result in config.stash[RESULTS].values() if result.clauses]
    if not results:
        return
    found = config.stash[IMPLEMENTATION]
    terminalreporter.section(f"conformance of {found.label}")
    for line in table(found, results, _chapters(config), terminalreporter._tw.fullwidth):
        terminalreporter.line(line)
    for line in config.stash[STALE]:
        terminalreporter.line(f"--xfails {config.getoption('xfails')}: {line}", red=True)
    for path in config.getoption("report"):
        terminalreporter.line(f"report: {path}")
