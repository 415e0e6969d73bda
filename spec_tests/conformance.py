"""What the pytest plugin is made of: the clauses of SPEC.md, the implementation under test, and the judgement.

In process, without the command line:

    run = Injected(my_implementation, name="mutant: kl-reversed")
    code = pytest.main(["spec_tests", "--chapters", "L", "--hypothesis-profile", "mutants"], plugins=[run])
    run.outcomes     {"L1": "passed", "L2": "failed", ...}, every clause of SPEC.md in the chosen chapters
    run.results      one Result per test

A test ends as one of `verdicts.OUTCOMES`. Exit codes: 0 conforms in all that it claims, 1 does not, 2 could not be
judged.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .border import Journal, Lacking, SuiteError, guarded
from .contract import CAPABILITIES, EDITORS, LEARNED, NAMES, OF_EDITOR, RULINGS
from .remote.server import empty

if TYPE_CHECKING:
    from .verdicts import Result

HERE = Path(__file__).parent
#: The clause or clauses that a test checks: @clause("M1").
clause = pytest.mark.clause
#: Chapters, capabilities and editors that a test needs beside the chapters of its clauses: @needs("E", "finetuning").
needs = pytest.mark.needs


def each_of(*editors: str) -> pytest.MarkDecorator:
    """The test runs once for each of these editors, in its argument `name`, and is claimed by those who have it."""
    return pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in editors])


every_editor = each_of(*EDITORS)
every_learned = each_of(*LEARNED)

#: Functions that a capability asks for beside its chapter.
OPTIONAL = {"factored": ("factors",)}


@dataclass(frozen=True)
class Clause:
    id: str
    section: str
    sentence: str
    #: The version of SPEC.md that has it first, and the last one that changed what it requires.
    since: str = ""
    changed: str | None = None
    #: The rulings that have named alternatives here.
    rulings: tuple[str, ...] = ()

    @property
    def chapter(self) -> str:
        return self.id[0]

    @property
    def where(self) -> str:
        """Where to read more: the clause in SPEC.md, and the sections of the paper or the other source."""
        return f"{self.id} ({self.section}) in SPEC.md"


@functools.cache
def clauses() -> dict[str, Clause]:
    """The clauses of SPEC.md in its order: lines `**M1** (§4.1; since 1.0) sentence`, and what follows each."""
    text = (HERE / "SPEC.md").read_text(encoding="utf-8")
    found = re.findall(
        r"^\*\*([A-Z]\d+)\*\* \(([^)]+)\) (.+)\n((?:(?!\*\*[A-Z]\d+\*\* |#).*\n)*)", text, flags=re.MULTILINE
    )
    twice = [name for name, count in Counter(name for name, *_ in found).items() if count > 1]
    if twice:
        raise SuiteError(f"SPEC.md defines {', '.join(twice)} more than once")
    return {name: _clause(name, source, sentence, below) for name, source, sentence, below in found}


def _clause(name: str, source: str, sentence: str, below: str) -> Clause:
    """`source` is where it is from and since when: "§4.1; ruling; since 1.0, changed 2.0"."""
    section, _, mark = source.partition("; since ")
    since, _, changed = mark.partition(", changed ")
    rulings = tuple(re.findall(r"Named\s+alternative:\s+`(\w+) =", below))
    return Clause(name, section, sentence, since, changed or None, rulings)


@functools.cache
def chapter_titles() -> dict[str, str]:
    """The titles of SPEC.md's chapters by their letters, in its order."""
    text = (HERE / "SPEC.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^## ([A-Z])\. (.+)$", text, flags=re.MULTILINE))


@functools.cache
def version() -> str:
    """The version of SPEC.md."""
    found = re.search(r"^Version (\d+\.\d+)\b", (HERE / "SPEC.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    if not found:
        raise SuiteError("SPEC.md does not say its version")
    return found.group(1)


class Violation(AssertionError):
    """A clause does not hold: what is wrong, for which inputs, what it asks for and what came."""

    def __init__(
        self,
        clause: Clause,
        what: str,
        inputs: Mapping[str, str],
        expected: str,
        got: str,
        tolerance: str = "",
        short: tuple[str, str] | None = None,
    ) -> None:
        self.clause, self.what, self.inputs = clause, what, dict(inputs)
        self.expected, self.got, self.tolerance = expected, got, tolerance
        one, other = short or (expected, got)
        #: The whole in a line, without its inputs.
        self.told = f"{what}: expected {one}, got {other}"
        super().__init__(
            "\n".join([self.told, f"  {clause.where}: {clause.sentence}", *map("  {}".format, self.details)])
        )

    @property
    def details(self) -> list[str]:
        """What it has to say after its first line."""
        return details(self.told, self.inputs, self.expected, self.got, self.tolerance)


def details(
    what: str, inputs: Mapping[str, str], expected: str | None, got: str | None, tolerance: str | None
) -> list[str]:
    """The lines after `what`: the inputs, what was expected and what came, where `what` cuts it, and the tolerance."""
    lines = [f"{name} = {value}" for name, value in inputs.items()]
    if expected is not None and not what.endswith(f": expected {expected}, got {got}"):
        lines += [f"expected: {expected}", f"got:      {got}"]
    return [*lines, f"tolerance: {tolerance}"] if tolerance else lines


class Implementation:
    """The implementation under test. A function of the contract is called as an attribute: `implementation.succ(1, 0)`.

    What it raises passes through, marked as its own, so that a wrong implementation and a broken suite stay apart.
    """

    def __init__(self, target: Any, label: str, spelling: str | None = None, journal: Journal | None = None) -> None:
        self.target = target
        self.label = label
        #: "package.module:object" where given on the command line (another process can load it), else None.
        self.spelling = spelling
        #: What calls leave behind.
        self.journal = journal or Journal()
        #: Of the functions that were asked for, whether they have to be written yet.
        self.unwritten: dict[str, bool] = {}
        self.claims = _claims(target)
        self.rulings = _rulings(target)
        self.editors = _editors(target)
        #: The interpreter that it runs in, where that is not this process, and the versions there.
        self.python: str | None = getattr(target, "python", None)
        self.environment: Mapping[str, Any] | None = getattr(target, "environment", None) if self.python else None
        #: How many calls of train_step make an optimiser step.
        self.accumulates = _accumulates(target)

    def __repr__(self) -> str:
        return self.label

    def is_unwritten(self, name: str, function: Callable[..., Any]) -> bool:
        """Whether a function has nothing but its docstring, as in the skeleton of an adapter."""
        known: dict[str, bool] = self.__dict__["unwritten"]
        if name not in known:
            there = getattr(self.__dict__["target"], "unwritten", None) if self.python else None
            known[name] = name in there if there is not None else empty(function)
        return known[name]

    def ruling(self, name: str) -> str:
        """The alternative of a ruling that the implementation follows; by default the required one."""
        return self.rulings.get(name, RULINGS[name][0])

    def deviations(self) -> dict[str, str]:
        """The rulings of which it declares an alternative, each with what it declares."""
        return {name: value for name, value in sorted(self.rulings.items()) if value != RULINGS[name][0]}

    def has(self, name: str) -> bool:
        """Whether a function is there, claimed or not."""
        return callable(getattr(self.target, name, None))

    def lacks(self, needed: Iterable[str]) -> list[str]:
        """What it does not claim of some chapters, capabilities and editors.

        A test of chapter E that names no editor makes a MEND.
        """
        needed = dict.fromkeys(needed)
        if "E" in needed and not needed.keys() & set(EDITORS):
            needed["mend"] = None
        missing = [name for name in needed if name not in EDITORS and name not in self.claims]
        # Without chapter E there is nothing to say about its editors.
        editors = () if "E" in missing else needed.keys() & set(EDITORS)
        return missing + sorted(name for name in editors if name not in self.editors)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        owner = next((key for key, names in (NAMES | OPTIONAL | OF_EDITOR).items() if name in names), None)
        if owner is None:
            raise AttributeError(f"{name!r} is no function of the contract")
        function = getattr(self.__dict__["target"], name, None)
        if not callable(function):
            raise Lacking(self.__dict__["label"], owner, name)
        if self.is_unwritten(name, function):
            pytest.skip(f"not claimed: `{name}` has to be written yet")
        return guarded(function, name, self.__dict__["journal"])


def _declared(target: Any, name: str, default: Any, kind: type = Collection) -> Any:
    declared = getattr(target, name, default)
    if isinstance(declared, str) or not isinstance(declared, kind):
        raise SuiteError(f"{name} is {declared!r}; expected {'a dictionary' if kind is Mapping else 'a list of names'}")
    return declared


def _claims(target: Any) -> frozenset[str]:
    if getattr(target, "CLAIMS", None) is None:
        return frozenset(key for key, names in NAMES.items() if any(callable(getattr(target, n, None)) for n in names))
    declared = _declared(target, "CLAIMS", ())
    unknown = set(declared) - set(NAMES) - set(CAPABILITIES)
    if unknown:
        raise SuiteError(f"CLAIMS names {sorted(unknown)}; known are {[*NAMES, *CAPABILITIES]}")
    return frozenset(declared)


def _rulings(target: Any) -> dict[str, str]:
    declared = dict(_declared(target, "RULINGS", {}, Mapping))
    for name, value in declared.items():
        if value not in RULINGS.get(name, ()):
            known = f"its alternatives are {RULINGS[name]}" if name in RULINGS else f"known rulings are {list(RULINGS)}"
            raise SuiteError(f"RULINGS declares {name} = {value!r}; {known}")
    return declared


def _editors(target: Any) -> tuple[str, ...]:
    declared = tuple(_declared(target, "EDITORS", EDITORS))
    unknown = [name for name in declared if name not in EDITORS]
    if unknown:
        raise SuiteError(f"EDITORS names {unknown}; known are {list(EDITORS)}")
    return declared


def _accumulates(target: Any) -> int:
    declared = getattr(target, "ACCUMULATES", 1)
    if isinstance(declared, bool) or not isinstance(declared, int) or declared < 1:
        raise SuiteError(f"ACCUMULATES is {declared!r}; expected how many calls of train_step make an optimiser step")
    return declared


def load(spelling: str, journal: Journal | None = None, python: str | None = None) -> Implementation:
    """The implementation named `package.module` or `path/to/file.py`, and after a colon an object in it.

    With `python` it runs in that interpreter, in a process of its own.
    Errors: SuiteError where it cannot be imported, whatever the import raises.
    """
    journal = journal or Journal()
    file, module_name, path = _parsed(spelling)
    known = spelling if file is None else f"{file}{':' if path else ''}{path}"
    if python is not None:
        from .remote.client import Remote  # noqa: PLC0415  # it imports this module

        target = Remote(known, python, limit=journal.clock.limit)
        return _with_something(Implementation(target, spelling, known, journal))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            target: Any = importlib.import_module(module_name) if file is None else _from_file(file)
        for part in filter(None, path.split(".")):
            target = getattr(target, part)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise SuiteError(_not_imported(spelling, module_name, error)) from error
    journal.warned("import", caught)
    return _with_something(Implementation(target, spelling, known, journal))


def _with_something(found: Implementation) -> Implementation:
    """SuiteError: it has nothing that could be judged, since something else was named by mistake."""
    if found.claims or getattr(found.target, "CLAIMS", None) is not None:
        return found
    what = "" if found.python else f" ({type(found.target).__name__})"
    if callable(found.target):
        what += ", which is not called; name what it makes"
    raise SuiteError(f"{found.label}{what} has no function of the contract; name the module or object that has them")


def _parsed(spelling: str) -> tuple[Path | None, str, str]:
    """The file, where one is named; the module; and what is inside of it."""
    found = re.fullmatch(r"(.+\.py)(?::([\w.]*))?", spelling)
    if found:
        file = Path(found.group(1)).absolute()
        return file, file.stem, found.group(2) or ""
    module_name, _, path = spelling.partition(":")
    return None, module_name, path


def _from_file(file: Path) -> Any:
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    known = sys.modules.get(file.stem)
    if known is not None and getattr(known, "__file__", None) == str(file):
        return known
    name = file.stem if known is None else f"{file.stem}_from_file"
    made = importlib.util.spec_from_file_location(name, file)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    # What lies beside the file can be imported by it, as if it were run.
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    sys.modules[name] = module
    try:
        made.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _not_imported(spelling: str, module_name: str, error: BaseException) -> str:
    why = f"{type(error).__name__}: {error}"
    if isinstance(error, SystemExit):
        why = f"it ends the process when it is imported (sys.exit({error.code!r}))"
    if Path(module_name).is_dir() and ("/" in module_name or not module_name.strip(".")):
        why = f"it is a folder; name a file in it, {Path(module_name) / 'my_adapter.py'}, or a package without slashes"
    elif isinstance(error, ModuleNotFoundError) and ("/" in module_name or Path(module_name).is_file()):
        why += f"; a file is named with its ending, {Path(module_name).with_suffix('.py')}"
    return f"cannot import the implementation {spelling!r}: {why}"


class Injected:
    """A pytest plugin that hands an object to the suite and keeps what the run found."""

    def __init__(self, target: Any, name: str = "injected object", spelling: str | None = None) -> None:
        self.target = target
        self.name = name
        #: By what another process can load it, where one can.
        self.spelling = spelling
        self.results: list[Result] = []
        self.outcomes: dict[str, str] = {}
