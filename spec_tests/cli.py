"""The command line of the specification.

lime-spec --implementation NAME [options]     judge an implementation: package.module or path/to/file.py, and after a
                                              colon an object in it
lime-spec start FILE --chapters M,S           write the skeleton of an adapter
lime-spec compare A.json B.json               what changed between two reports
lime-spec badge REPORT.json OUT.svg|OUT.json  a badge of a report

Of judging:
  --python PATH         an interpreter or an environment's folder: the implementation runs there, in its own process
  --chapters M,S        these chapters of SPEC.md only           --clauses M3,E10      these clauses only
  --leave-out E10,TEST  all but these clauses or tests           --xfails FILE         known failures, with reasons
  --report FILE         .html, .md or .json; may be repeated     --dtype float32       what is handed out; or both
  --call-timeout S      seconds that one call may take           --repeat N            under N seeds
  --mlama FOLDER        the real mLAMA, unpacked, for D2
A test's id repeats one test; all other options are pytest's. `start` also has --editors. In a clone, `nox -s spec --`
takes the place of `lime-spec`, and has --install too. Exit codes: 0 conforms in all that it claims, 1 does not, 2 could
not be judged. --version prints the specification's version, and --where the folder of SPEC.md, RULINGS.md and
WALKTHROUGH.md.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
NOT_JUDGED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  closed, as by a service
    if not given or given[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if given else NOT_JUDGED
    if given[0] == "--where":
        print(HERE)
        return 0
    if given[0] == "--version":
        from .conformance import version  # noqa: PLC0415

        print(f"specification {version()}")
        return 0
    commands = {"start": _start, "compare": _compare, "badge": _badge}
    if given[0] not in commands and not (given[0].startswith("-") or _test(given[0]) or Path(given[0]).exists()):
        known = f"commands are {', '.join(commands)}; judging begins with --implementation"
        print(f"there is no command, test or file {given[0]}; {known}; --help says more", file=sys.stderr)
        return NOT_JUDGED
    return commands.get(given[0], _judge)(given)


def _judge(given: list[str]) -> int:
    if sys.flags.optimize:
        print("Python runs without assertions (-O, PYTHONOPTIMIZE), and the tests need them", file=sys.stderr)
        return NOT_JUDGED
    import pytest  # noqa: PLC0415

    named = {argument: test for argument in given if (test := _test(argument))}
    everything = [] if named else [str(HERE), f"--ignore={HERE / 'meta'}"]
    try:
        code = pytest.main([*_configuration(), *everything, *(named.get(argument, argument) for argument in given)])
    except Exception as error:  # raised by pytest itself, such as by a full disk or a closed pipe
        print(f"could not be judged: {type(error).__name__}: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left of the output cannot be written when Python ends
        return NOT_JUDGED
    return int(code) if code in (0, 1) else NOT_JUDGED  # pytest has others for its own errors


def _test(argument: str) -> str:
    """The path of a test's id, wherever the suite lies: `test_m_metrics.py::test_x`, with a folder or without."""
    named = re.match(r"(?:.*[/\\])?(test_\w+\.py)((?:::.*)?)$", argument, flags=re.DOTALL)
    return str(HERE / named.group(1)) + named.group(2) if named and (HERE / named.group(1)).is_file() else ""


def _configuration() -> list[str]:
    """Outside of the repository the suite brings its own, so that no other project's has a say in a verdict."""
    if (HERE.parent / "noxfile.py").is_file():
        return []
    return ["-c", str(HERE / "installed.toml"), f"--rootdir={HERE.parent}"]


def _start(given: list[str]) -> int:
    from . import skeleton  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="lime-spec start", description=skeleton.__doc__)
    parser.add_argument("file", type=Path, help="the adapter to write, for example my_adapter.py")
    parser.add_argument("--chapters", required=True, metavar="M,S", help="of which chapters of SPEC.md")
    parser.add_argument("--editors", metavar="mend", help="the editors that there are (default: all)")
    options = parser.parse_args(given[1:])
    return _said(lambda: skeleton.write(options.file, options.chapters, options.editors))


def _compare(given: list[str]) -> int:
    from . import comparison  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="lime-spec compare", description=comparison.__doc__)
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")
    options = parser.parse_args(given[1:])
    return _said(lambda: comparison.compare(comparison.read(options.before), comparison.read(options.after)))


def _badge(given: list[str]) -> int:
    from . import badge, comparison  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="lime-spec badge", description=badge.__doc__)
    parser.add_argument("report", type=Path, metavar="REPORT.json")
    parser.add_argument("file", type=Path, metavar="OUT.svg|OUT.json")
    options = parser.parse_args(given[1:])
    return _said(lambda: badge.write(comparison.read(options.report), options.file))


def _said(make: object) -> int:
    from .conformance import SuiteError  # noqa: PLC0415

    try:
        lines = make()  # type: ignore[operator]
    except (SuiteError, OSError) as error:
        print(_unwritten(error) if isinstance(error, OSError) else error, file=sys.stderr)
        return NOT_JUDGED
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # whoever read it has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _unwritten(error: OSError) -> str:
    """Why a command's file cannot be written, and what to do."""
    path = Path(str(error.filename))
    if isinstance(error, FileNotFoundError):
        return f"{path}: there is no folder {path.absolute().parent}; make it, or name another file"
    return f"{path}: cannot be written: {error.strerror}; name another file"
