"""The report as one self-contained HTML file, without scripts and network access."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import product
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..names import APPROACHES, EN
from . import tables
from .bootstrap import RESAMPLES
from .counts import Section, rank
from .figures import FIGURES, Data
from .findings import CLAIMS, PIPELINE_CHECK, Finding, Judgement

#: Verdict → CSS class.
MARKS = {"holds": "holds", "does not hold": "fails", "not shown here: interval includes 0": "open"}
#: Claim → (title of an approach, its finding in each section).
Overview = dict[str, list[tuple[str, list[Finding | None]]]]
#: Figure → its data and its SVG.
Drawn = Mapping[str, tuple[Data, Path]]


def page(
    sections: Sequence[Section], judgements: Sequence[Judgement], drawn: Mapping[str, Drawn], again: Sequence[str]
) -> str:
    """The whole page. `drawn`: figures by section; `again`: the arguments that write the report again."""
    loader, scopes = FileSystemLoader(Path(__file__).parent), [section.scope for section in sections]
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.globals.update(marks=MARKS, checks=PIPELINE_CHECK, resamples=RESAMPLES, tables=tables, en=EN)
    return jinja.get_template("page.html.jinja").render(
        names=sorted({scope["scale"]["name"] for scope in scopes}),
        abouts=sorted({scope["scale"]["about"] for scope in scopes}),
        sizes=sorted({f"{scope['parameters'] / 1e6:.1f}" for scope in scopes}),
        parts=[_part(s, j, drawn.get(s.slug, {})) for s, j in zip(sections, judgements, strict=True)],
        overview=_overview(sections, judgements),
        circumstances=_circumstances(sections),
        again=typed(again),
    )


def typed(argv: Sequence[str]) -> str:
    """A command line for a shell."""
    return shlex.join(["python", "-m", "lime_editing", *argv])


def inline(svg: str, prefix: str, alternative: str) -> str:
    """An SVG file as an element of a page, with unique ids and a text alternative."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'( id="|xlink:href="#|url\(#)', lambda match: match[1] + prefix, svg).strip()
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(alternative)}"', 1)


def _part(section: Section, judgement: Judgement, drawn: Drawn) -> dict[str, Any]:
    figures = []
    for figure in FIGURES:
        told = svg = ""
        if figure.name in drawn:
            data, path = drawn[figure.name]
            told, text = figure.tell(data), path.read_text(encoding="utf-8")
            svg = inline(text, f"{section.slug}-{figure.name}-", f"{figure.title}. {told}")
        figures.append((figure, svg, told))
    commands = [record.get("command") for record in section.records]
    findings: dict[str, list[Finding]] = {}
    for finding in judgement.findings:  # in the order of the claims
        findings.setdefault(finding.claim, []).append(finding)
    return {
        "section": section,
        "judgement": judgement,
        "findings": findings,
        "figures": figures,
        "commands": list(dict.fromkeys(typed(argv) for argv in commands if argv)),
        "without": sum(not argv for argv in commands),
        "remarks": list(dict.fromkeys(r for record in section.records for r in record.get("remarks", ()))),
    }


def _overview(sections: Sequence[Section], judgements: Sequence[Judgement]) -> Overview:
    titles = {name: title for section in sections for name, title in section.approaches.items()}
    found = [{(f.claim, f.approach): f for f in judgement.findings} for judgement in judgements]
    result: Overview = {}
    for claim, approach in product(CLAIMS, sorted(titles, key=lambda name: rank(APPROACHES, name))):
        line = [by.get((claim.title, approach)) for by in found]
        if any(line):
            result.setdefault(claim.title, []).append((titles[approach], line))
    return result


def _circumstances(sections: Sequence[Section]) -> list[list[str]]:
    """The lines of the table "What was run": a name, and a value for each section."""

    def each(of: Callable[[Mapping[str, Any]], object]) -> Callable[[Section], object]:
        return lambda s: ", ".join(sorted({str(of(record)) for record in s.records}))

    rulings = dict.fromkeys(name for section in sections for name in section.scope["rulings"])
    lines: list[tuple[str, Callable[[Section], object]]] = [
        ("Cells", lambda s: len(s.records)),
        ("Seeds", lambda s: s.seeds),
        ("Items", lambda s: f"{s.scope['items']:,}"),
        ("Languages", lambda s: f"{len(s.scope['languages'])}: {' '.join(s.scope['languages'])}"),
        ("Raw model", lambda s: f"{s.scope['parameters']:,} parameters, {s.scope['model']}"),
        *((name.capitalize(), lambda s, name=name: s.scope[name]) for name in ("data", "split", "precision")),
        *((f"Ruling: {r.replace('_', ' ')}", lambda s, r=r: s.scope["rulings"].get(r, "")) for r in rulings),
        ("Machine", each(lambda record: f"{record['machine']} ({record['device']})")),
        ("Code", each(lambda record: f"{record['code'].get('lime_editing')} {record['code'].get('digest')}")),
        ("Specification", each(lambda record: record.get("specification", "before 2.0"))),
        ("torch", each(lambda record: record["code"].get("torch", ""))),
    ]
    return [[name, *(str(of(section)) for section in sections)] for name, of in lines]
