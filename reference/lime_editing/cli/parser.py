"""All commands, with their options and help (parser.toml). This module imports nothing heavy."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import UserError
from .options import CheckData, Edit, Edits, MakeClassifier, Many, Report, Reproduce, add

PROGRAM = "python -m lime_editing"
#: Each command, with its options.
LIST: Mapping[str, type] = {
    "reproduce": Reproduce,
    "many": Many,
    "edit": Edit,
    "edits": Edits,
    "report": Report,
    "check-data": CheckData,
    "make-classifier": MakeClassifier,
}


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)
        self._action_max_length = 4 + max(map(len, LIST))  # argparse does not count the indent of a command


def plugins_of(argv: Sequence[str]) -> list[str]:
    before = argparse.ArgumentParser(add_help=False)
    before.add_argument("--plugin", action="append", nargs="?", default=[])
    return [name for name in before.parse_known_args(argv)[0].plugin if name is not None]


def parser() -> argparse.ArgumentParser:
    """All commands and options, one line each. UserError: a plug-in's data set has an option's name."""
    told = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    result = argparse.ArgumentParser(PROGRAM, **told["all"], formatter_class=_Help)
    result.add_argument("--version", action="version", version=f"lime_editing {__version__}")
    commands = result.add_subparsers(dest="command", metavar="COMMAND", title="commands", prog=PROGRAM)
    for name, options in LIST.items():
        about = told[name]["help"]
        shown: dict[str, Any] = {**told[name], "description": f"{about[0].upper()}{about[1:]}."}
        made = commands.add_parser(name, **shown, formatter_class=_Help)
        made.set_defaults(own=made)
        try:
            add(made, options)
        except argparse.ArgumentError as error:
            raise UserError(f"a plug-in registers a data set that is named like an option: {error}") from error
    return result


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The parsed command line. An unknown option is refused with the usage of its command."""
    made = parser()
    parsed, unknown = made.parse_known_args(argv)
    if unknown:
        getattr(parsed, "own", made).error(f"unrecognized arguments: {' '.join(unknown)}")
    return parsed
