"""The rooms of the package: who may import whom, what loads fast, and what the code digest of a cell covers."""

from __future__ import annotations

import ast
import graphlib
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import lime_editing
from lime_editing import plugins, results
from lime_editing.editors import methods
from lime_editing.names import PAPER_APPROACHES

PACKAGE = Path(lime_editing.__file__).parent
NAME = PACKAGE.name
FILES = {".".join((NAME, *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in PACKAGE.rglob("*.py")}
MODULES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}

PURE = ("records", "core.metrics")
GROUND = ("records", "updates", "hardware", "errors", "names")
#: The method: what edits a model, trains an editor and judges an edit.
METHOD = (*GROUND, "backbone", "editors", "core")
#: Room → what its modules may import beside modules of the room itself.
WALLS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "names": ("checks", "errors"),
    "borders": ("checks", "errors"),
    "records": ("names",),
    "hardware": ("borders", "checks", "errors", "names"),
    "checks": ("errors",),
    "turns": (),
    "updates": ("checks", "errors"),
    "backbone": (*GROUND, "borders", "checks", "turns"),
    "editors": GROUND,
    "core": (*GROUND, "borders", "checks", "backbone", "editors"),
    "saving": ("updates", "backbone", "checks", "hardware", "results", "borders", "errors"),
    "data": (*METHOD, "checks", "borders"),
    "results": (*PURE, "borders", "checks", "errors", "names", "turns"),
    "plugins": ("editors", "data", "results", "borders", "errors", "names"),
    "reproduce": (*METHOD, "checks", "data", "results", "plugins", "borders", ""),
    "report": (*PURE, "results", "errors", "names"),
    "cli": (*METHOD, "borders", "checks", "data", "results", "plugins", "saving", "reproduce", "report", ""),
    "conformance": (*METHOD, "data", "reproduce", "report", "results", "saving"),
    "__main__": ("cli", "borders", "errors"),
    "": (),
}


#: What has no say in how long a file is: blank lines, comments and the ends of lines.
NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def lines_of_code(path: Path) -> int:
    """The lines that hold code: no blank line, comment or docstring, as tools that count lines have it."""
    with path.open("rb") as file:
        tokens = [one for one in tokenize.tokenize(file.readline) if one.type not in (*NO_CODE, tokenize.ENCODING)]
    code = {line for one in tokens for line in range(one.start[0], one.end[0] + 1)}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and ast.get_docstring(node) is not None:
            code -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(code)


def room_of(module: str) -> str:
    """core of lime_editing.core.masks, and "" of lime_editing itself."""
    return module.partition(".")[2].partition(".")[0]


def imports_of(module: str, path: Path) -> Iterator[str]:
    """The modules of the package that a module imports, in functions too; what serves type checkers alone is left out.

    A package is imported with each of its modules, and so is not named beside them.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    skipped = {id(node) for block in typing for statement in block.body for node in ast.walk(statement)}
    base = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == NAME)
        elif isinstance(node, ast.ImportFrom):
            start = base[: len(base) - node.level + 1] if node.level else []
            source = ".".join((*start, *filter(None, [node.module])))
            if source.partition(".")[0] == NAME:
                found = {f"{source}.{alias.name}" for alias in node.names}
                yield from found & MODULES.keys()
                if found - MODULES.keys():
                    yield source


IMPORTS = {module: set(imports_of(module, path)) for module, path in MODULES.items()}


def test_every_room_is_walled() -> None:
    """A new file at the top level, or a new folder, needs a line in WALLS."""
    assert {room_of(module) for module in MODULES} == WALLS.keys()


@pytest.mark.parametrize("room", WALLS)
def test_a_room_imports_what_it_may(room: str) -> None:
    allowed = [NAME if name == "" else f"{NAME}.{name}" for name in WALLS[room]]

    def may(target: str) -> bool:
        return room_of(target) == room or any(
            target == name or (target.startswith(f"{name}.") and name != NAME) for name in allowed
        )

    wrong = {
        module: sorted(filter(lambda t: not may(t), IMPORTS[module])) for module in MODULES if room_of(module) == room
    }
    assert {module: targets for module, targets in wrong.items() if targets} == {}


def test_nothing_imports_the_entry_point_or_the_adapter() -> None:
    wanted = {f"{NAME}.__main__", f"{NAME}.conformance"}
    assert [module for module, targets in IMPORTS.items() if targets & wanted] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graphlib.TopologicalSorter(IMPORTS).prepare()  # CycleError names the circle


def test_the_walls_can_fall(tmp_path: Path) -> None:
    """An import is seen in each form that it may have; one for type checkers is not."""
    source = """
from ..report import tables
from .. import results as store, __version__
import lime_editing.cli.parser
from . import masks
from ..editors.mend import transform
if TYPE_CHECKING:
    from ..data import Dataset
def later():
    from ..reproduce.run import prepare
"""
    path = tmp_path / "losses.py"
    path.write_text(source)
    found = set(imports_of(f"{NAME}.core.losses", path))
    names = ("report.tables", "results", "cli.parser", "core.masks", "editors.mend", "reproduce.run")
    assert found == {NAME, *(f"{NAME}.{name}" for name in names)}


LIGHT = (
    *("", ".names", ".errors", ".results", ".cli.parser", ".records", ".core.metrics", ".data"),
    *(module.removeprefix(NAME) for module in MODULES if room_of(module) == "report"),
)
PROGRAM = """
import sys
{imports}
print("loaded", *sorted({{"torch", "transformers", "datasets", "submitit", "accelerate"}} & set(sys.modules)))
"""


def loaded_by(imports: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(imports=imports)], check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()[-1].split()[1:]


def test_what_reads_results_loads_no_torch() -> None:
    assert loaded_by("\n".join(f"import {NAME}{module}" for module in LIGHT)) == []


def test_help_loads_no_torch() -> None:
    lines = (
        "import runpy",
        "sys.argv[1:] = ['--help']",
        f"try: runpy.run_module({NAME!r}, run_name='__main__')",
        "except SystemExit: pass",
    )
    assert loaded_by("\n".join(lines)) == []


def test_what_loads_torch_is_seen() -> None:
    assert "torch" in loaded_by(f"import {NAME}.core.masks")


def test_the_public_face_is_there() -> None:
    """Every public name can be imported from the package, and is the one of its module."""
    for name in dir(lime_editing):
        assert getattr(lime_editing, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lime_editing.nothing  # noqa: B018


# The code digest


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package in a folder of its own."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, root / NAME, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def digest_of(root: Path) -> str:
    program = f"import sys; sys.path.insert(0, {str(root)!r}); from {NAME} import results; print(results.code_digest())"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.strip()


#: One file of each room, and whether a cell's number may depend on it.
COUNTS = {
    "core/masks.py": True,
    "records.py": True,
    "updates.py": True,
    "editors/mend.py": True,
    "editors/malmen.py": False,
    "backbone/model.py": True,
    "hardware.py": True,
    "data/files.py": True,
    "data/facts/task.py": True,
    "data/__init__.py": True,
    "reproduce/run.py": True,
    "data/download.py": False,
    "borders.py": False,
    "checks.py": False,
    "turns.py": False,
    "errors.py": False,
    "names.py": False,
    "results.py": False,
    "saving.py": False,
    "plugins.py": False,
    "reproduce/scales.py": False,
    "reproduce/cells.py": False,
    "reproduce/processes.py": False,
    "report/tables.py": False,
    "cli/options.py": False,
    "conformance.py": False,
    "__main__.py": False,
    "__init__.py": False,
}


def test_one_file_of_each_room_is_tried() -> None:
    rooms = {name.partition("/")[0].removesuffix(".py").replace("__init__", "") for name in COUNTS}
    assert rooms == WALLS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_a_changed_line_changes_the_digest_where_a_number_may_depend_on_it(name: str, copy: Path) -> None:
    path, before = copy / NAME / name, digest_of(copy)
    original = path.read_text(encoding="utf-8")
    try:
        path.write_text(f"{original}\nANOTHER_LINE = 1\n", encoding="utf-8")
        assert (digest_of(copy) != before) == COUNTS[name]
        path.write_text(f"{original}\n# another comment\n", encoding="utf-8")
        assert digest_of(copy) == before
    finally:
        path.write_text(original, encoding="utf-8")


def test_further_editors_count_for_their_own_cells_alone() -> None:
    """What their files change is no part of the digest of the paper's four, and is one of their own records."""
    for method in methods().values():
        own = {path.name for path in plugins.files(method)}
        assert own == (set() if method.NAME in PAPER_APPROACHES else {Path(name).name for name in results.FURTHER})


def test_a_file_that_moves_leaves_the_digest(copy: Path) -> None:
    """data/examination.py goes to another name in another folder, and whoever imports it follows."""
    before = digest_of(copy)
    root = copy / NAME
    moved = root / "data" / "facts" / "report_of_data.py"
    (root / "data" / "examination.py").rename(moved)
    moved.write_text(moved.read_text(encoding="utf-8").replace("from ..names", "from ...names"), encoding="utf-8")
    followed = 0
    for path in root.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        changed = re.sub(r"from (\.+)(data\.)?examination import", r"from \1\2facts.report_of_data import", text)
        followed += changed != text
        path.write_text(changed, encoding="utf-8")
    assert followed > 2
    assert digest_of(copy) == before


def test_lines_of_code_are_counted_without_docstrings_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    text = '"""Of two\nlines."""\n\nx = """no\ndocstring"""  # a comment\n\n\n'
    path.write_text(text + 'def f():\n    """Too."""\n    return [\n        x,\n    ]\n# end\n')
    assert lines_of_code(path) == 6


def test_the_package_and_its_core_do_not_grow() -> None:
    """3,000 lines of code for all that an edit's number depends on beside the data; the package is to reach 9,000.

    Lower the second number after each removal, and never raise it: what grows is paid for by what goes.
    """
    core = {path for one in results.SOURCES if not one.startswith(("data", "reproduce")) for path in PACKAGE.glob(one)}
    core -= {PACKAGE / name for name in results.NO_SOURCES}
    assert sum(map(lines_of_code, core)) < 3000
    assert sum(map(lines_of_code, MODULES.values())) <= 9690
