"""Tables, figures and the page, from stored cells; nothing here trains or judges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Group

from .. import results
from ..errors import UserError
from . import figures
from .counts import Section, read
from .findings import judge
from .page import FIGURES, page
from .tables import LAYOUT, as_json, latex, markdown, terminal


def table(folders: Iterable[Path]) -> Group:
    """For the terminal: acc, con and succ in percent, a table for each task and protocol."""
    return Group(*(terminal(section) for section in read(folders)))


def write(root: Path, folders: Sequence[Path]) -> Path:
    """Write report.html, the tables and the figures of finished cells under `root`; returns the page.

    UserError: no cells, a folder that is no finished cell, or cells that cannot stand in one table.
    """
    if not folders:
        raise UserError(f"{root}: no finished cells to report; run `nox -s reproduce` first")
    sections = read(folders)
    judgements = [judge(section) for section in sections]
    for folder in (root, root / "figures"):
        results.clean(folder)
    drawn = {section.slug: draw(section, root / "figures") for section in sections}
    results.write_json(root / "tables.json", as_json(sections, judgements))
    _write(root / "tables.md", markdown(sections, judgements))
    for name, _, _ in LAYOUT:
        _write(root / f"{name}.tex", latex(sections, name))
    _write(root / "report.html", page(sections, judgements, drawn, root))
    return root / "report.html"


def draw(section: Section, folder: Path) -> dict[str, Path]:
    """Figure → SVG, for each figure that the section has cells for; PNG and JSON lie beside it."""
    drawn = {}
    for name, (title, _) in FIGURES.items():
        path = folder / f"{name}-{section.slug}"
        stored = path.with_name(f"{path.name}.json")
        data: dict[str, Any] | None
        render: Callable[..., Figure]
        if name == "figure5":
            data, render = figures.similarity(section, stored), figures.draw_similarity
        else:
            data, render = figures.distribution(section, name), figures.draw_distribution
        if data is None:
            for kind in ("json", "svg", "png"):
                path.with_name(f"{path.name}.{kind}").unlink(missing_ok=True)
            continue
        results.write_json(stored, data)
        figures.save(render(data, f"{title} · {section.title}"), path)
        drawn[name] = path.with_name(f"{path.name}.svg")
    return drawn


def _write(path: Path, text: str) -> None:
    data = text.encode()
    results.write_atomically(path, lambda temporary: temporary.write_bytes(data), len(data))
