"""Plug-ins: user modules that register an editor or a data set when they are imported."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from . import data, results
from .borders import expanded
from .data import Dataset
from .editors import Method, methods
from .errors import UserError

OWN = __package__


class Loaded(tuple[str, ...]):
    """Plug-ins. Unpickling imports them, so that objects pickled later may be of their classes."""

    def __reduce__(self) -> Any:
        return load_all, (tuple(self),)


def load_all(plugins: Iterable[str]) -> Loaded:
    """Import each module by its name or its .py file, once in a process.

    UserError: a module that cannot be imported, or that registers no editor and no data set.
    """
    given = Loaded(plugins)
    for source in given:
        path = expanded(source)
        # Two files with the same name are two plug-ins.
        own = f"{path.stem}_{hashlib.blake2b(str(path.resolve()).encode(), digest_size=4).hexdigest()}"
        name = own if source.endswith(".py") else source
        if name in sys.modules:
            continue
        before = _registered()
        try:
            _import_file(name, path) if name == own else importlib.import_module(name)
            if _registered() == before:
                raise UserError(f"--plugin {source}: registers no editor and no data set; call lime_editing.register")
        except (Exception, SystemExit) as error:  # a plug-in may raise anything
            sys.modules.pop(name, None)
            if isinstance(error, UserError):
                raise
            raise UserError(f"--plugin {source}: cannot be imported: {type(error).__name__}: {error}") from error
    return given


def _registered() -> set[str]:
    return {*methods(), *data.titles()}


def _import_file(name: str, path: Path) -> None:
    if not path.is_file():
        raise UserError(f"--plugin {path}: no such file")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def files(*registered: Method | Dataset) -> set[Path]:
    """The files outside the digest on which these depend: the module of each member, with its whole package."""
    members = ("Settings", "init", "learning_rates", "update")  # of an editor
    found = (getattr(one, n) for one in registered for n in (one.__slots__ if isinstance(one, Dataset) else members))
    modules = {str(getattr(member, "__module__", "")) for member in found}
    package, own = Path(__file__).parent, {name for name in modules if name.partition(".")[0] == OWN}
    further = any(f"{name.partition('.')[2].replace('.', '/')}.py" in results.FURTHER for name in own)
    outside = {file for name in modules - own for file in _files(sys.modules.get(name))}
    return outside | {package / name for name in results.FURTHER if further}


def _files(module: ModuleType | None) -> Iterable[Path]:
    package = sys.modules.get((module.__package__ or "").partition(".")[0]) if module else None
    folders = list(getattr(package, "__path__", ()))
    if folders:
        return [file for folder in folders for file in Path(folder).rglob("*.py")]
    return [Path(module.__file__)] if module and module.__file__ else []
