"""Write tables, figures and the page from stored cells. Nothing is trained or judged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from rich.console import Group

from .. import results
from ..errors import UserError
from .counts import Section, read
from .figures import FIGURES, Data, save
from .findings import judge
from .page import Drawn, page
from .tables import TABLES, as_json, latex, markdown, terminal

KINDS = ("json", "svg", "png")  # the files of a figure


def table(folders: Iterable[Path]) -> Group:
    """The terminal's tables: acc, con and succ in percent, one table for each task and protocol."""
    return Group(*(terminal(section) for section in read(folders)))


def write(root: Path, folders: Sequence[Path], to: Path | None = None) -> Path:
    """Write report.html, tables and figures of finished cells to `root` or `to`. Returns the page's path."""
    if not folders:
        raise UserError(f"{root}: no finished cells to report; run `nox -s reproduce` first")
    target, sections = to or root, read(folders)
    judgements = [judge(section) for section in sections]
    for folder in (target, target / "figures"):
        results.clean(folder)
    drawn = draw(sections, target / "figures", root / "figures")
    argv = ["report", "--results", _shown(root), *(["--to", _shown(to)] if to else [])]
    results.write_json(target / "tables.json", as_json(sections, judgements))
    results.write_text(target / "tables.md", markdown(sections, judgements))
    for one in TABLES:
        results.write_text(target / f"{one.name}.tex", latex(sections, one))
    results.write_text(target / "report.html", page(sections, judgements, drawn, argv))
    return target / "report.html"


def draw(sections: Sequence[Section], folder: Path, before: Path | None = None) -> dict[str, Drawn]:
    """Draw the figures as SVG, PNG and JSON, and remove other ones. `before` may have an earlier report's JSON."""
    drawn: dict[str, dict[str, tuple[Data, Path]]] = {section.slug: {} for section in sections}
    kept = set[Path]()
    for section, figure in product(sections, FIGURES):
        json, svg, png = (folder / f"{figure.name}-{section.slug}.{kind}" for kind in KINDS)
        data = figure.data(section, [json, (before or folder) / json.name])
        if data is not None:
            results.write_json(json, data)
            save(partial(figure.draw, data, f"{figure.title} · {section.title}"), json.with_suffix(""))
            drawn[section.slug][figure.name] = (data, svg)
            kept |= {json, svg, png}
    for figure, kind in product(FIGURES, KINDS):
        for path in set(folder.glob(f"{figure.name}-*.{kind}")) - kept:
            path.unlink()
    return dict(drawn)


def _shown(folder: Path) -> str:
    """A folder relative to the working directory. The page may be published, so it should not show absolute paths."""
    here, there = Path.cwd(), Path(os.path.abspath(folder))
    return (there.relative_to(here) if there.is_relative_to(here) else there).as_posix()
