"""Plug-ins: a user's own modules, which register an editor or a data set when they are imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

from .errors import UserError


def load(source: str) -> Path:
    """Import a module by its name or its .py file, once in a process; the file. UserError: it cannot be imported."""
    path = Path(source).expanduser()
    try:
        if source.endswith(".py"):
            name = f"lime_editing_plugin_{path.stem}"
            if name not in sys.modules:
                if not path.is_file():
                    raise UserError(f"--plugin {source}: no such file")
                spec = importlib.util.spec_from_file_location(name, path)
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                sys.modules[name] = module
                spec.loader.exec_module(module)
            return path.resolve()
        found = importlib.import_module(source)
        return Path(str(found.__file__))
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a stranger's module raises
        sys.modules.pop(f"lime_editing_plugin_{path.stem}", None)
        raise UserError(f"--plugin {source}: cannot be imported: {type(error).__name__}: {error}") from error
