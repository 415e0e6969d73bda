"""Plug-ins: user modules that register an editor or a data set when they are imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import data, results
from .borders import expanded
from .data import Dataset
from .editors import Method, methods
from .errors import UserError
from .names import APPROACHES, TASKS

_LOADED = set[str]()  # plug-ins of this process


class Loaded(tuple[str, ...]):
    """Plug-ins. Unpickling imports them, so that objects pickled later may be of their classes."""

    def __reduce__(self) -> Any:
        return load_all, (tuple(self),)


def load_all(plugins: Iterable[str]) -> Loaded:
    """Import each module by its name or its .py file, once in a process. UserError: it registers nothing, or fails."""
    given = Loaded(plugins)
    for source in given:
        path = expanded(source)
        own = f"{path.stem}_{results.digest(str(path.resolve()))}"  # two files with the same name are two plug-ins
        name = own if source.endswith(".py") else source
        if name in _LOADED:
            continue
        before, there = len(_further()), {*sys.modules}
        try:
            _import_file(name, path) if name == own else importlib.import_module(name)
            earlier = name in there and before > 0  # imported by other code of the process
            if len(_further()) == before and not earlier:
                remedy = "call lime_editing.register, or lime_editing.data.register"
                raise UserError(f"--plugin {source}: registers no editor and no data set; {remedy}")
        except (Exception, SystemExit) as error:  # a plug-in may raise anything
            if name not in there:
                sys.modules.pop(name, None)
            if isinstance(error, UserError):
                raise
            raise UserError(f"--plugin {source}: cannot be imported: {type(error).__name__}: {error}") from error
        _LOADED.add(name)
    return given


def _further() -> list[Method | Dataset]:
    editors = [one for name, one in methods().items() if name not in APPROACHES]
    return [*editors, *(data.find(name) for name in data.titles() if name not in TASKS)]


def _import_file(name: str, path: Path) -> None:
    if not path.is_file():
        raise UserError(f"--plugin {path}: no such file")
    spec: Any = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def files(*registered: Method | Dataset) -> set[Path]:
    """The files outside the digest on which these depend: the module of each member, with its whole package."""
    editor, package, found = ("Settings", "init", "learning_rates", "update"), Path(__file__).parent, set[Path]()
    members = [getattr(one, n) for one in registered for n in (one.__slots__ if isinstance(one, Dataset) else editor)]
    for module in {str(getattr(member, "__module__", "")) for member in members}:
        root, _, inside = module.partition(".")
        if root != __package__:
            found |= {*_files(root)}
        elif f"{inside.replace('.', '/')}.py" in results.FURTHER:
            found |= {package / name for name in results.FURTHER}
    return found


def _files(root: str) -> Iterable[Path]:
    module = sys.modules.get(root)
    own = getattr(module, "__file__", None)
    package = [file for folder in getattr(module, "__path__", ()) for file in Path(folder).rglob("*.py")]
    return package or ([Path(own)] if own else [])
