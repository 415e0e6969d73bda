"""Shows implementations to some of the suite's tests, one after the other in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: What no such implementation needs: other kinds of models, long trainings, other processes.
QUICK = "not square and not roberta and not classifier and not short_training and not hash_seeds"
#: The files of each chapter, by its letter.
FILES: dict[str, list[str]] = {}
for _path in sorted(Path(__file__).parents[1].glob("test_*.py")):
    FILES.setdefault(_path.name.split("_")[1], []).append(f"spec_tests/{_path.name}")
_DRIVER = """
import contextlib, io, json, sys
import pytest
from spec_tests.conformance import Injected
from spec_tests.verdicts import causes, verdicts
{imports}

found = {{}}
for name, arguments in json.load(sys.stdin).items():
    injected = Injected({made}, name)
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.redirect_stderr(text):
        code = pytest.main(arguments, plugins=[injected])
    found[name] = [int(code), {found}, text.getvalue()]
json.dump(found, sys.stdout)
"""


def shown(asked: Mapping[str, tuple[str, str]], imports: str, made: str, found: str) -> dict[str, list[Any]]:
    """[exit code, found, what was printed] by name, for {name: (chapters' letters, tests as of -k)}.

    `made` and `found` are expressions, of the implementation `name` and of what is kept of `injected`.
    """
    options = ["-q", "--hypothesis-profile=mutants", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    arguments = {
        name: [*(file for letter in letters for file in FILES[letter]), "-k", f"({tests}) and {QUICK}", *options]
        for name, (letters, tests) in asked.items()
    }
    return driven(_DRIVER.format(imports=imports, made=made, found=found), arguments)


def driven(program: str, asked: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What a Python program, in a process of its own, prints as JSON for `asked`, which it reads as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(asked),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
