"""Write tables, figures and the page from stored cells. Nothing is trained or judged."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from html import escape
from itertools import product
from pathlib import Path

from rich.console import Group

from .. import results
from ..errors import UserError
from ..names import APPROACHES
from . import bootstrap, figures, findings, tables
from .counts import Section, rank, read
from .findings import Finding
from .tables import Part
from .template import render

KINDS = ("json", "svg", "png")  # the files of a figure
Drawn = Mapping[str, tuple[figures.Data, Path]]  # figure → its data and its SVG


def table(folders: Iterable[Path]) -> Group:
    """The terminal's tables: acc, con and succ in percent, one table for each task and protocol."""
    return Group(*(tables.terminal(section) for section in read(folders)))


def write(root: Path, folders: Sequence[Path], to: Path | None = None) -> Path:
    """Write report.html, tables and figures of finished cells to `root` or `to`. Returns the page's path."""
    if not folders:
        raise UserError(f"{root}: no finished cells to report; run `nox -s reproduce` first")
    target, sections = to or root, read(folders)
    parts = [(section, findings.judge(section)) for section in sections]
    for folder in (target, target / "figures"):
        results.clean(folder)
    drawn = draw(sections, target / "figures", root / "figures")
    argv = ["report", "--results", _shown(root), *(["--to", _shown(to)] if to else [])]
    results.write_json(target / "tables.json", tables.as_json(parts))
    results.write_text(target / "tables.md", tables.markdown(parts))
    for one in tables.TABLES:
        results.write_text(target / f"{one.name}.tex", tables.latex(sections, one))
    results.write_text(target / "report.html", page(parts, drawn, argv))
    return target / "report.html"


def draw(sections: Sequence[Section], folder: Path, before: Path | None = None) -> dict[str, Drawn]:
    """Draw the figures as SVG, PNG and JSON, and remove other ones. `before` may have an earlier report's JSON."""
    drawn: dict[str, dict[str, tuple[figures.Data, Path]]] = {section.slug: {} for section in sections}
    left = {path for one, kind in product(figures.FIGURES, KINDS) for path in folder.glob(f"{one.name}-*.{kind}")}
    for section, figure in product(sections, figures.FIGURES):
        json, svg, png = (folder / f"{figure.name}-{section.slug}.{kind}" for kind in KINDS)
        data = figure.data(section, [json, (before or folder) / json.name])
        if data is not None:
            results.write_json(json, data)
            figures.save(partial(figure.draw, data, f"{figure.title} · {section.title}"), json.with_suffix(""))
            drawn[section.slug][figure.name] = (data, svg)
            left -= {json, svg, png}
    for path in left:
        path.unlink()
    return dict(drawn)


def page(parts: Sequence[Part], drawn: Mapping[str, Drawn], again: Sequence[str]) -> str:
    """The report as one self-contained HTML file, without scripts and network access."""
    sections = [section for section, _ in parts]
    sizes = sorted({f"{section.scope['parameters'] / 1e6:.1f}" for section in sections})
    rulings = dict.fromkeys(name for section in sections for name in section.scope["rulings"])
    modules = {"tables": tables, "figures": figures, "findings": findings, "bootstrap": bootstrap}
    values = {"parts": parts, "sections": sections, "drawn": drawn, "again": again, "sizes": sizes, "rulings": rulings}
    return render("page.html.jinja", **modules, **values, inline=inline, overview=_overview(parts))


def inline(svg: str, prefix: str, alternative: str) -> str:
    """An SVG file as an element of a page, with unique ids and a text alternative."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'( id="|xlink:href="#|url\(#)', lambda match: match[1] + prefix, svg).strip()
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(alternative)}"', 1)


def _overview(parts: Sequence[Part]) -> dict[str, list[tuple[str, list[Finding | None]]]]:
    """Claim → for each approach its title, and its finding in each section."""
    titles = {name: title for section, _ in parts for name, title in section.approaches.items()}
    found = [{(f.claim, f.approach): f for f in judgement.findings} for _, judgement in parts]
    result: dict[str, list[tuple[str, list[Finding | None]]]] = {}
    for claim, approach in product(findings.CLAIMS, sorted(titles, key=partial(rank, APPROACHES))):
        line = [by.get((claim.title, approach)) for by in found]
        if any(line):
            result.setdefault(claim.title, []).append((titles[approach], line))
    return result


def _shown(folder: Path) -> str:
    """A folder relative to the working directory. The page may be published, so it should not show absolute paths."""
    here, there = Path.cwd(), Path(os.path.abspath(folder))
    return (there.relative_to(here) if there.is_relative_to(here) else there).as_posix()
