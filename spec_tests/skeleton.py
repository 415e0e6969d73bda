"""Writes the skeleton of an adapter: the functions of some chapters, each empty, with what is asked of it."""

from __future__ import annotations

import ast
import functools
import re
import shlex
import textwrap
from collections.abc import Iterable
from pathlib import Path

from .conformance import OPTIONAL, SuiteError, clauses, version
from .contract import EDITORS, NAMES, OF_EDITOR

CONTRACT = Path(__file__).parent / "contract.py"
#: How the suite is called: in a clone by a session, elsewhere by its own command.
PROGRAM = "nox -s spec --" if (CONTRACT.parents[1] / "noxfile.py").is_file() else "lime-spec"


@functools.cache
def _contract() -> ast.Module:
    return ast.parse(CONTRACT.read_text(encoding="utf-8"))


@functools.cache
def asked() -> dict[str, ast.FunctionDef]:
    """The functions of the contract."""
    kinds = [node for node in _contract().body if isinstance(node, ast.ClassDef)]
    return {node.name: node for kind in kinds for node in kind.body if isinstance(node, ast.FunctionDef)}


def what_is_asked(name: str) -> str:
    """The docstring of a function of the contract."""
    return ast.get_docstring(asked()[name]) or ""


def write(path: Path, chapters: str, editors: str | None = None) -> list[str]:
    """Write the skeleton; returns what to do next. Errors: SuiteError for what there is not, or is there already."""
    chosen = _known(chapters.upper(), list(NAMES), "--chapters")
    owned = _known(editors, list(EDITORS), "--editors") if editors is not None else list(EDITORS)
    if editors is not None and "E" not in chosen:
        raise SuiteError("--editors is for chapter E, which --chapters does not name; add E, or leave the option out")
    if path.suffix != ".py":
        raise SuiteError(f"{path}: expected a name that ends in .py")
    text = skeleton(path, chosen, owned)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise SuiteError(f"{path} is there already; name another file, or remove it") from None
    count = text.count("\ndef ")
    what = f"{count} function{'s' * (count > 1)} of chapter{'s' * (len(chosen) > 1)} {', '.join(chosen)}"
    lines = [f"{path}: {what}. An empty one counts as not claimed yet."]
    return [*lines, f"{PROGRAM} --implementation {shlex.quote(str(path))} --chapters {','.join(chosen)}"]


def _known(given: str, known: list[str], option: str) -> list[str]:
    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise SuiteError(f"{option} names {', '.join(unknown) or 'nothing'}; there are {', '.join(known)}")
    return [name for name in known if name in names]


def skeleton(path: Path, chapters: list[str], editors: list[str]) -> str:
    """The text of an adapter that claims nothing yet."""
    names = {chapter: _names(chapter, editors) for chapter in chapters}
    functions = [asked()[name] for mine in names.values() for name in mine]
    parts = [_head(path, chapters, editors), _types(functions)]
    for chapter, mine in names.items():
        ids = [name for name, clause in clauses().items() if clause.chapter == chapter]
        parts.append(f"\n\n# {chapter}: clauses {ids[0]} to {ids[-1]} of SPEC.md\n")
        parts += [_function(asked()[name]) for name in mine]
    return "".join(parts)


def _names(chapter: str, editors: list[str]) -> list[str]:
    names = list(NAMES[chapter])
    if chapter == "E":
        names += [name for editor in editors for name in OF_EDITOR.get(editor, ())]
        names += OPTIONAL["factored"]
    return names


def _head(path: Path, chapters: list[str], editors: list[str]) -> str:
    command = f"{PROGRAM} --implementation {shlex.quote(path.name)} --chapters {','.join(chapters)}"
    own = f"EDITORS = {tuple(editors)!r}\n" if "E" in chapters else ""
    return f'''"""The adapter of ... for version {version()} of the specification of cross-lingual model editing.

Fill in the functions below; one that has nothing but its docstring counts as not claimed yet. Then

    {command}
    {command} --python path/to/environment

judges it, in this interpreter or in another one (Python 3.8 or later, NumPy, and whatever the code needs). What the
words mean: SPEC.md, in the folder that `lime-spec --where` prints, with RULINGS.md and WALKTHROUGH.md.
"""

# Without CLAIMS a chapter is claimed as soon as one of its functions is there. RULINGS in contract.py has all rulings.
# CLAIMS = {{{", ".join(map(repr, chapters))}}}
# RULINGS = {{"kl_direction": "released"}}
{own}'''


def _types(functions: Iterable[ast.FunctionDef]) -> str:
    """The dictionaries that cross the border, as comments."""
    kinds = {node.name: node for node in _contract().body if isinstance(node, ast.ClassDef)}
    wanted: dict[str, None] = {}

    def want(node: ast.AST) -> None:
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and part.id in kinds and part.id not in wanted:
                wanted[part.id] = None
                want(kinds[part.id])

    for function in functions:
        want(function)
    lines = []
    for name in (name for name in kinds if name in wanted):
        fields = {
            item.target.id: ast.unparse(item.annotation)
            for base in _with_bases(kinds, name)
            for item in kinds[base].body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        }
        told = " ".join((ast.get_docstring(kinds[name]) or "").split())
        inside = ", ".join(f'"{field}": {kind}' for field, kind in fields.items())
        lines += textwrap.wrap(f"{name}: {{{inside}}}. {told}", 116, subsequent_indent="  ", break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in ["", *lines][bool(not lines) :]).replace("# \n", "\n")


def _with_bases(kinds: dict[str, ast.ClassDef], name: str) -> list[str]:
    bases = [base.id for base in kinds[name].bases if isinstance(base, ast.Name) and base.id in kinds]
    return [*(inner for base in bases for inner in _with_bases(kinds, base)), name]


def _kind(annotation: ast.expr) -> str:
    """A type in words that need no import; names of the contract for a choice of texts are written out."""
    choices = {
        node.targets[0].id: ast.unparse(node.value)
        for node in _contract().body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    text = ast.unparse(annotation)
    for name in ("Role", "Masks"):
        text = re.sub(rf"\b{name}\b", choices[name], text)
    return re.sub(r"Literal\[([^]]*)\]", lambda found: found.group(1).replace(", ", " or "), text)


def _function(function: ast.FunctionDef) -> str:
    """An empty function: plain arguments, and their types in the docstring, so that any Python can read it."""
    arguments = function.args.args[1:]
    defaults = [""] * (len(arguments) - len(function.args.defaults))
    defaults += [f"={ast.unparse(value)}" for value in function.args.defaults]
    names = ", ".join(argument.arg + default for argument, default in zip(arguments, defaults, strict=True))
    kinds = [f"{argument.arg}: {_kind(argument.annotation)}" for argument in arguments if argument.annotation]
    returns = _kind(function.returns) if function.returns else ""
    typed = textwrap.fill(
        f"Types: {'; '.join(kinds)}. Returns {returns}.", 112, subsequent_indent="  ", break_on_hyphens=False
    )
    body = textwrap.indent(f'"""{what_is_asked(function.name)}\n\n{typed}\n"""\n', "    ")
    return f"\n\ndef {function.name}({names}):\n" + "\n".join(line.rstrip() for line in body.split("\n"))
