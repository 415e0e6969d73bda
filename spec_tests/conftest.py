"""The pytest plugin: options, the `implementation` fixture, what is claimed, the conformance report, the exit code."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from . import known_failures, report, skeleton, telling
from .assertions import NotShown
from .border import CALL_TIMEOUT, END, WIDTHS, Clock, Handed, Journal, Lacking, TimedOut
from .conformance import Implementation, Injected, SuiteError, Violation, clauses, load
from .contract import CAPABILITIES, EDITORS, NAMES
from .verdicts import NOT_JUDGED, OUTCOMES, WRONG, Result, by_clause, depth, exit_code, shadowed, table, verdict

HERE = Path(__file__).parent
IMPLEMENTATION = pytest.StashKey[Implementation]()
JOURNAL = pytest.StashKey[Journal]()
RESULTS = pytest.StashKey[dict[str, Result]]()
#: How many phases of tests of this folder failed.
FAILED_HERE = pytest.StashKey[int]()
#: How many examples the test that runs now has been given, under which seed, and in which width.
EXAMPLES = pytest.StashKey[int]()
SEED = pytest.StashKey[int | None]()
WIDTH = pytest.StashKey[str]()
KNOWN = pytest.StashKey[list[known_failures.Known]]()
STALE = pytest.StashKey[list[str]]()
#: Whether all tests of the chapters were run, and what is to be said where they were not.
WHOLE = pytest.StashKey[bool]()
PART = pytest.StashKey[str]()
CODE = pytest.StashKey[int]()
UNWRITTEN = pytest.StashKey[dict[Path, str]]()

_COMMON = {"deadline": None, "derandomize": True, "database": None, "report_multiple_bugs": False, "print_blob": False}
_ONCE = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
hypothesis.settings.register_profile("ci", max_examples=50, phases=[*_ONCE, hypothesis.Phase.shrink], **_COMMON)
#: For a wrong implementation any counterexample will do, however large.
hypothesis.settings.register_profile("mutants", max_examples=15, phases=_ONCE, **_COMMON)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--implementation", metavar="MODULE[:OBJECT]", help="the implementation to judge")
    group.addoption(
        "--python",
        metavar="PATH",
        help="an interpreter, or an environment's folder: the implementation runs there, in a process of its own",
    )
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
    group.addoption(
        "--dtype",
        choices=[*WIDTHS, "both"],
        default=WIDTHS[0],
        help="the width of the models and arrays that are handed out (%(default)s)",
    )
    group.addoption(
        "--call-timeout",
        metavar="SECONDS",
        type=float,
        default=CALL_TIMEOUT,
        help="how long one call of the implementation may take; 0: as long as it likes (%(default)g)",
    )
    group.addoption(
        "--leave-out", metavar="E10,TEST", help="leave out these clauses or tests, and say so in the verdict"
    )
    group.addoption("--clauses", metavar="M3,E10", help="judge these clauses only")
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
    clock = Clock(config.getoption("call_timeout"), functools.partial(_abort, config))
    clock.stderr = _real_stderr(config)
    clock.last_resort = not float(config.getini("faulthandler_timeout") or 0)
    config.stash[JOURNAL] = Journal(clock)
    if str(config.invocation_params.dir) not in sys.path:
        sys.path.append(str(config.invocation_params.dir))
    try:
        report.check(config.getoption("report"))
        if config.getoption("repeat") < 1:
            raise SuiteError(f"--repeat {config.getoption('repeat')}: expected 1 or more")
        if config.getoption("call_timeout") < 0:
            raise SuiteError(
                f"--call-timeout {config.getoption('call_timeout'):g}: expected seconds, or 0 for no limit"
            )
        mlama = config.getoption("mlama")
        if mlama is not None and not Path(mlama).is_dir():
            raise SuiteError(f"--mlama {mlama}: there is no such folder; expected that of the unpacked mLAMA")
        xfails = config.getoption("xfails")
        config.stash[KNOWN] = known_failures.concerning(
            known_failures.read(xfails) if xfails else [], _chapters(config)
        )
        _chosen_clauses(config)
        if _without_torch(config) == _chapters(config):
            raise SuiteError(f'chapters {", ".join(_chapters(config))} need torch: pip install "lime-spec[torch]"')
        found = _implementation(config)
    except SuiteError as error:
        pytest.exit(str(error), returncode=NOT_JUDGED)
    if found is not None:
        config.stash[IMPLEMENTATION] = found


def pytest_unconfigure(config: pytest.Config) -> None:
    found = config.stash.get(IMPLEMENTATION, None)
    if found is not None and found.python is not None:
        found.target.close()
    if JOURNAL in config.stash:
        config.stash[JOURNAL].clock.close()
    Handed.width = WIDTHS[0]


def _real_stderr(config: pytest.Config) -> Any:
    """Where a traceback is seen although pytest captures what a test prints."""
    try:
        from _pytest.faulthandler import fault_handler_stderr_fd_key  # noqa: PLC0415
    except ImportError:
        return None
    return config.stash.get(fault_handler_stderr_fd_key, None)


def _implementation(config: pytest.Config) -> Implementation | None:
    spelling = config.getoption("implementation")
    injected = _injected(config)
    if injected is not None:
        return Implementation(injected.target, injected.name, injected.spelling, config.stash[JOURNAL])
    if spelling is not None and not spelling.strip():
        raise SuiteError("--implementation names nothing; expected package.module[:object] or path/to/file.py")
    return load(spelling, config.stash[JOURNAL], config.getoption("python")) if spelling else None


def _injected(config: pytest.Config) -> Injected | None:
    return next((p for p in config.pluginmanager.get_plugins() if isinstance(p, Injected)), None)


def _chapters(config: pytest.Config) -> list[str]:
    chosen = config.getoption("chapters")
    known = list(dict.fromkeys(c.chapter for c in clauses().values()))
    if chosen is None:
        return known
    asked = [part.strip().upper() for part in chosen.split(",") if part.strip()]
    unknown = [part for part in asked if part not in known]
    if unknown or not asked:
        raise SuiteError(f"--chapters names {', '.join(unknown) or 'nothing'}; SPEC.md has {', '.join(known)}")
    return list(dict.fromkeys(asked))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without torch, the tests that need it cannot even be read."""
    return collection_path.name in _need_torch() or None if collection_path.parent == HERE else None


@functools.cache
def _need_torch() -> dict[str, str]:
    """The files of tests that need torch where there is none, each with the chapter that it is about."""
    if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        return {}
    imports = re.compile(r"^(import torch|from \.(tiny|editing|facts) )", flags=re.MULTILINE)
    files = [path for path in HERE.glob("test_*.py") if imports.search(path.read_text(encoding="utf-8"))]
    return {path.name: path.name.split("_")[1].upper() for path in files}


def _without_torch(config: pytest.Config) -> list[str]:
    """The chapters that cannot be judged here, for want of torch."""
    return [chapter for chapter in _chapters(config) if chapter in _need_torch().values()]


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
    _deselect(config, items, dropped)
    if IMPLEMENTATION not in config.stash and any(_is_ours(item) and not _is_meta(item) for item in items):
        pytest.exit(
            "no implementation to judge: name one with --implementation package.module[:object] or path/to/file.py",
            returncode=NOT_JUDGED,
        )
    _deselect(config, items, _not_chosen(config, items))
    left_out = _left_out(config, items)
    for item in left_out:
        config.stash[RESULTS][item.nodeid] = Result(item.nodeid, _clauses_of(item), "not run", "left out")
    _deselect(config, items, left_out)
    # What is taken for granted comes first, so that a later failure is known for what it is.
    items.sort(key=_remoteness)
    for item in items:
        if _is_ours(item) and not _is_meta(item):
            # What an implementation leaves open shows whenever Python collects it, and counts for nothing.
            for category in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"default::{category}"))
            item.add_marker(pytest.mark.filterwarnings("default::pytest.PytestUnhandledThreadExceptionWarning"))


def _remoteness(item: pytest.Item) -> tuple[int, int]:
    """How much a test takes for granted: by its clauses, and then by what else it needs, such as an editor."""
    deep = max((depth(name) for name in _clauses_of(item) if name in clauses()), default=0)
    return deep, len({name for mark in item.iter_markers("needs") for name in mark.args})


def _deselect(config: pytest.Config, items: list[pytest.Item], dropped: Sequence[pytest.Item]) -> None:
    if dropped:
        gone = set(dropped)
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=dropped)


def _not_chosen(config: pytest.Config, items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests of other clauses than those that --clauses names."""
    names = _chosen_clauses(config)
    return [item for item in items if names and _clauses_of(item) and not names & set(_clauses_of(item))]


def _chosen_clauses(config: pytest.Config) -> set[str]:
    given, chapters = config.getoption("clauses"), _chapters(config)
    if given is None:
        return set()
    names = [name.strip().upper() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if name not in clauses()]
    if unknown or not names:
        raise SuiteError(f"--clauses names {', '.join(unknown) or 'nothing'}; SPEC.md has no such clause")
    outside = [name for name in names if name[0] not in chapters]
    if outside:
        raise SuiteError(f"--clauses names {', '.join(outside)}; --chapters names {', '.join(chapters)} alone")
    return set(names)


def _left_out(config: pytest.Config, items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests that --leave-out names: by a clause, all of whose tests go, or by the end of a test's id."""
    names = [name.strip() for name in (config.getoption("leave_out") or "").split(",") if name.strip()]
    found = {
        name: [item for item in items if _is_ours(item) and _goes_by(name, item.nodeid, _clauses_of(item))]
        for name in names
    }
    unknown = [name for name, mine in found.items() if not mine and name.upper() not in clauses()]
    if unknown and items:
        pytest.exit(f"--leave-out names {', '.join(unknown)}; no clause or test has this name", returncode=NOT_JUDGED)
    return list(dict.fromkeys(item for mine in found.values() for item in mine))


def _goes_by(name: str, nodeid: str, named: Sequence[str]) -> bool:
    return name.upper() in named[:1] or known_failures.ends_with(nodeid, name)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not _is_ours(item) or _is_meta(item):
        return
    item.config.stash[JOURNAL].returned = None
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
    """Count a property test's examples, and run a test in each width and under each seed.

    pytest itself makes the last of these runs.
    """
    test, stash = pyfuncitem.obj, pyfuncitem.stash
    stash[EXAMPLES], stash[SEED], stash[WIDTH] = 0, None, WIDTHS[0]
    if not _is_ours(pyfuncitem) or _is_meta(pyfuncitem):
        stash[EXAMPLES] = 1
        return
    property_test = hypothesis.is_hypothesis_test(test)
    if property_test:
        original = getattr(test.hypothesis.inner_test, "uncounted", test.hypothesis.inner_test)
        test.hypothesis.inner_test = _counting(original, stash)
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    runs = [(width, seed) for width in _widths(pyfuncitem) for seed in (_seeds_of(pyfuncitem.config, property_test))]
    for place, (width, seed) in enumerate(runs, 1):
        Handed.width = stash[WIDTH] = width
        stash[SEED] = seed
        stash[EXAMPLES] += not property_test
        if seed is not None:
            hypothesis.seed(seed)(test)
        if place < len(runs):
            test(**arguments)


def _seeds_of(config: pytest.Config, property_test: bool) -> list[int | None]:
    return [*_seeds(config)] if property_test and _seeds(config) else [None]


def _widths(item: pytest.Item) -> list[str]:
    """In which widths a test hands out models and arrays; most chapters have none of either."""
    asked = item.config.getoption("dtype")
    if asked != "both":
        return [asked]
    needed = {name[0] for name in _clauses_of(item)} | {n for mark in item.iter_markers("needs") for n in mark.args}
    return list(WIDTHS) if needed & set("ABEL") or "R6" in _clauses_of(item) else [WIDTHS[0]]


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
    results = item.config.stash[RESULTS]
    result = _result(item, call, made)
    after = shadowed(result, results.values())
    if after:
        result = replace(result, outcome="not judged", after=after, reason="")
    quiet = {
        "known failure": result.reason,
        "not judged": f"after {result.after}" if result.after else result.message,
        "claimed in part": result.message,
    }.get(result.outcome)
    if quiet is not None:
        made.outcome = "skipped"
        made.longrepr = (str(item.path), item.location[1] or 0, f"{result.outcome}: {quiet}")
    item.config.stash[FAILED_HERE] = item.config.stash.get(FAILED_HERE, 0) + made.failed
    made.user_properties.append(("conformance", result.outcome))
    _keep(results, result, made.when)
    if made.failed and IMPLEMENTATION in item.config.stash and not _is_meta(item):
        if call.excinfo and item.config.getoption("tbstyle") == "auto":
            error = _root(call.excinfo.value)
            lines = telling.sentence(error, result.message, result.blamed, result.call, result.example)
            made.longrepr = telling.Sentence(lines, (str(item.path), (item.location[1] or 0) + 1))
        made.sections = telling.without_progress(made.sections)
        made.sections.append(("repeat it", report.command(result, item.config.stash[IMPLEMENTATION])))
    return made


def _result(item: pytest.Item, call: pytest.CallInfo[None], made: pytest.TestReport) -> Result:
    error = _root(call.excinfo.value) if call.excinfo else None
    outcome, ran = _outcome(item, error, made), made.when == "call"
    violation, journal = error if isinstance(error, Violation) else None, item.config.stash[JOURNAL]
    result = Result(
        item.nodeid,
        _clauses_of(item),
        outcome,
        "" if made.passed or error is None else telling.message(error, journal),
        examples=item.stash.get(EXAMPLES, 0) if ran else 0,
        example=telling.example(error) if error else "",
        violation=violation,
        seed=item.stash.get(SEED, None) if ran else None,
        editor=_editor(item),
        crash=_crash(error) if outcome in ("crashed", "timed out") else (),
        call=telling.call(error, journal) if error and outcome in ("crashed", "error") else "",
        dtype=width if (width := item.stash.get(WIDTH, "")) != WIDTHS[0] else "",
        seconds=call.duration,
    )
    if outcome in WRONG:
        known = known_failures.reason(item.config.stash[KNOWN], item.nodeid, result.blamed)
        return replace(result, outcome="known failure", reason=known) if known else result
    return result


def _root(error: BaseException) -> BaseException:
    """What Hypothesis found to come and go is told by the violation in it."""
    while isinstance(error, BaseExceptionGroup):
        inside = error.exceptions
        error = next((one for one in inside if isinstance(one, Violation | BaseExceptionGroup)), inside[0])
    return error


def _editor(item: pytest.Item) -> str | None:
    """The one editor that a test is about."""
    needed = {name[0] for name in _clauses_of(item)} | {n for mark in item.iter_markers("needs") for n in mark.args}
    named = needed & set(EDITORS)
    if not named and "E" in needed:
        # A test of chapter E that names no editor makes a MEND.
        return "mend"
    return named.pop() if len(named) == 1 else None


def _crash(error: BaseException | None) -> tuple[str, ...]:
    """What is the same in each test that a crash of the implementation ends."""
    name = str(getattr(error, "raised_by_implementation", ""))
    if error is None or isinstance(error, TimedOut):
        return (name,)
    if hasattr(error, "where"):  # in a process of its own
        return name, type(error).__name__, str(error.where)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return name, type(error).__name__, f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""


def _keep(results: dict[str, Result], result: Result, phase: str) -> None:
    """Of a test's three phases the one that tells most: until its call has ended, a test was not run."""
    known = results.get(result.nodeid)
    seconds = result.seconds + (known.seconds if known else 0.0)
    if phase == "setup" and result.outcome == "passed":
        result = replace(result, outcome="not run", message="the run was interrupted")
    order = ("passed", *(outcome for outcome in OUTCOMES if outcome != "passed"))
    if known is None or phase == "call" or order.index(result.outcome) > order.index(known.outcome):
        known = result
    results[result.nodeid] = replace(known, seconds=seconds)


def _outcome(item: pytest.Item, error: BaseException | None, made: pytest.TestReport) -> str:
    if made.skipped:
        return "not claimed"
    if error is None:
        return "passed"
    if _is_meta(item):
        return "error"
    kinds = {Lacking: "claimed in part", NotShown: "not judged", TimedOut: "timed out", Violation: "failed"}
    found = next((outcome for kind, outcome in kinds.items() if isinstance(error, kind)), None)
    if found:
        return found
    if hasattr(error, "raised_by_implementation"):
        return "crashed"
    failed = isinstance(error, AssertionError | pytest.fail.Exception | hypothesis.errors.Flaky)
    return "failed" if failed else "error"


def pytest_report_teststatus(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
    outcome = dict(getattr(report, "user_properties", ())).get("conformance")
    return {
        "not claimed": ("not claimed", "n", "NOT CLAIMED"),
        "claimed in part": ("claimed in part", "p", "CLAIMED IN PART"),
        "not judged": ("not judged", "j", "NOT JUDGED"),
        "known failure": ("known failure", "x", "KNOWN FAILURE"),
        "crashed": ("failed", "C", "CRASHED"),
        "timed out": ("failed", "T", "TIMED OUT"),
        "error": ("error", "E", "ERROR"),
    }.get(str(outcome))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn pytest's exit status into the three codes; failures outside the suite keep pytest's own."""
    config = session.config
    if IMPLEMENTATION in config.stash:
        _say_what_was_not_run(session)
    results = list(config.stash[RESULTS].values())
    injected = _injected(config)
    if injected is not None:
        injected.results = results
        injected.outcomes = by_clause(results, _chapters(config))
    ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    config.stash[WHOLE] = ended and _is_whole(config) and not config.getoption("leave_out")
    config.stash[PART] = _part(config, ended)
    if results and ended:
        config.stash[STALE] = known_failures.stale(config.stash[KNOWN], results, config.stash[WHOLE])
        # pytest shows this file no report of a test beside its folder.
        elsewhere = session.testsfailed > config.stash.get(FAILED_HERE, 0)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED if elsewhere else exit_code(results)
        if config.stash[STALE] and session.exitstatus == 0:
            session.exitstatus = NOT_JUDGED
    elif results or (exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and IMPLEMENTATION in config.stash):
        session.exitstatus = NOT_JUDGED
    config.stash[CODE] = int(session.exitstatus)
    config.stash[UNWRITTEN] = _write_reports(config, config.stash[CODE])
    if config.stash[UNWRITTEN]:
        session.exitstatus = NOT_JUDGED


def _say_what_was_not_run(session: pytest.Session) -> None:
    results = session.config.stash[RESULTS]
    for item in getattr(session, "items", ()):
        if _is_ours(item) and not _is_meta(item) and item.nodeid not in results:
            results[item.nodeid] = Result(item.nodeid, _clauses_of(item), "not run", "the run ended before")


def _write_reports(config: pytest.Config, code: int) -> dict[Path, str]:
    """Write what --report asks for; returns why a file could not be written."""
    unwritten = {}
    judged = [result for result in config.stash[RESULTS].values() if result.clauses]
    if config.getoption("report") and judged and IMPLEMENTATION in config.stash:
        made = report.judgement(
            config.stash[IMPLEMENTATION],
            judged,
            _chapters(config),
            exit_code=code,
            whole=config.stash[WHOLE],
            part=config.stash[PART],
            dtype=config.getoption("dtype"),
            seeds=_seeds(config),
            stale=config.stash[STALE],
        )
        for path in config.getoption("report"):
            try:
                report.write(made, path)
            except OSError as error:
                unwritten[path] = f"cannot be written: {error.strerror or error}"
    return unwritten


def _abort(config: pytest.Config, function: str) -> None:
    """End the process: a call of the implementation neither returns nor can be interrupted."""
    results = config.stash[RESULTS]
    stuck = next((r for r in results.values() if r.message == "the run was interrupted"), None)
    why = f"`{function}` did not return, and could not be interrupted: the run ended here"
    if stuck is not None:
        results[stuck.nodeid] = replace(stuck, outcome="timed out", message=why, crash=(function,))
    config.stash[WHOLE], config.stash[PART] = False, why
    try:
        _write_reports(config, NOT_JUDGED)
        capture = config.pluginmanager.getplugin("capturemanager")
        if capture is not None:
            capture.suspend_global_capture(in_=True)
        found = [result for result in results.values() if result.clauses]
        if IMPLEMENTATION in config.stash:
            print("", *table(config.stash[IMPLEMENTATION], found, _chapters(config), 100), sep="\n")
        print(f"could not be judged: {why}")
        sys.stdout.flush()
    finally:
        END(NOT_JUDGED)


def _is_whole(config: pytest.Config) -> bool:
    """Whether the run is of all tests of its chapters."""
    return _is_unchosen(config) and not _without_torch(config)


def _is_unchosen(config: pytest.Config) -> bool:
    """Whether nobody chose among the tests of the chapters."""
    named = {Path(config.invocation_params.dir, argument.partition("::")[0]).resolve() for argument in config.args}
    plain = not any("::" in argument for argument in config.args)
    chosen = [config.getoption(name) for name in ("keyword", "markexpr", "clauses")]
    return plain and HERE in named and not any(chosen)


def _part(config: pytest.Config, ended: bool) -> str:
    """What a verdict has to say where not all tests of the chapters were run."""
    said = []
    if not ended:
        said.append("the run was interrupted")
    if not _is_unchosen(config):
        results = config.stash[RESULTS].values()
        seen = {name[0] for result in results for name in result.clauses if result.outcome != "not run"}
        chapters = [chapter for chapter in _chapters(config) if chapter in seen]
        if chapters:
            said.append(f"a part of chapter{'s' if len(chapters) > 1 else ''} {', '.join(chapters)} only")
    if config.getoption("leave_out"):
        said.append(f"left out: {config.getoption('leave_out')}")
    if _without_torch(config):
        said.append(f'without chapters {", ".join(_without_torch(config))}: pip install "lime-spec[torch]" for these')
    return "; ".join(said)


def _seeds(config: pytest.Config) -> list[int]:
    """The seeds of Hypothesis; none where each test has the one that its name gives it."""
    given, times = config.getoption("hypothesis_seed", None), config.getoption("repeat")
    if given is None and times == 1:
        return []
    return list(range(int(given or 0), int(given or 0) + times))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = [result for result in config.stash[RESULTS].values() if result.clauses]
    if IMPLEMENTATION not in config.stash:
        return
    if not results:
        if config.stash.get(CODE, 0) == NOT_JUDGED:
            terminalreporter.line("could not be judged: no test was chosen")
        return
    found, chapters = config.stash[IMPLEMENTATION], _chapters(config)
    terminalreporter.section(f"conformance of {found.label}")
    for line in table(found, results, chapters, terminalreporter._tw.fullwidth):
        terminalreporter.line(line)
    if found.environment is not None:
        terminalreporter.line(f"judged in {report.where(found.environment)}, in a process of its own")
    for name, unwritten in found.unwritten.items():
        if unwritten:
            terminalreporter.line(f"not claimed yet: {name}: {' '.join(skeleton.what_is_asked(name).split())}")
    for line in config.stash[STALE]:
        terminalreporter.line(f"--xfails {config.getoption('xfails')}: {line}", red=True)
    for path in config.getoption("report"):
        why = config.stash.get(UNWRITTEN, {}).get(path)
        terminalreporter.line(f"--report {path}: {why}" if why else f"report: {path}", red=bool(why))
    stale, part = config.stash[STALE], config.stash.get(PART, "")
    code = config.stash.get(CODE, NOT_JUDGED)
    terminalreporter.line(verdict(results, chapters, code=code, part=part, stale=stale))
