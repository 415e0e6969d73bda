"""The report as one self-contained HTML file, without scripts and network access."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import product
from pathlib import Path

from ..names import APPROACHES
from . import bootstrap, figures, findings, tables
from .counts import Section, rank
from .figures import Data
from .findings import CLAIMS, Finding, Judgement
from .template import render

#: Claim → (title of an approach, its finding in each section).
Overview = dict[str, list[tuple[str, list[Finding | None]]]]
Drawn = Mapping[str, tuple[Data, Path]]  # figure → its data and its SVG


def page(
    sections: Sequence[Section], judgements: Sequence[Judgement], drawn: Mapping[str, Drawn], again: Sequence[str]
) -> str:
    scopes = [section.scope for section in sections]
    sizes = sorted({f"{scope['parameters'] / 1e6:.1f}" for scope in scopes})
    rulings = dict.fromkeys(name for scope in scopes for name in scope["rulings"])
    modules = {"tables": tables, "figures": figures, "findings": findings, "bootstrap": bootstrap}
    values = {"sections": sections, "drawn": drawn, "again": again, "sizes": sizes, "rulings": rulings}
    parts, overview = list(zip(sections, judgements, strict=True)), _overview(sections, judgements)
    return render("page.html.jinja", **modules, **values, inline=inline, parts=parts, overview=overview)


def inline(svg: str, prefix: str, alternative: str) -> str:
    """An SVG file as an element of a page, with unique ids and a text alternative."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'( id="|xlink:href="#|url\(#)', lambda match: match[1] + prefix, svg).strip()
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(alternative)}"', 1)


def _overview(sections: Sequence[Section], judgements: Sequence[Judgement]) -> Overview:
    titles = {name: title for section in sections for name, title in section.approaches.items()}
    found = [{(f.claim, f.approach): f for f in judgement.findings} for judgement in judgements]
    result: Overview = {}
    for claim, approach in product(CLAIMS, sorted(titles, key=lambda name: rank(APPROACHES, name))):
        line = [by.get((claim.title, approach)) for by in found]
        if any(line):
            result.setdefault(claim.title, []).append((titles[approach], line))
    return result
