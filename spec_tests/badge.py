"""Makes a badge of a report: an SVG picture, or the JSON that badge services read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from .conformance import SuiteError

COLOURS = {0: "#2a7d4f", 1: "#b3261e", 2: "#757575"}
WRONG = ("failed", "crashed", "timed out", "error")


def message(report: Mapping[str, Any]) -> str:
    """What the badge says of the clauses: those that are claimed, and how many of them hold."""
    counts = Counter(row["outcome"] for row in report["clauses"])
    hold = counts["passed"] + counts["passed in part"]
    asked = hold + sum(counts[outcome] for outcome in (*WRONG, "known failure", "not judged"))
    if report["exit_code"] == 2:
        return "not judged"
    said = f"{hold} of {asked} clauses"
    return said if report["run"]["whole"] else f"{said}, run in part"


def write(report: Mapping[str, Any], path: Path) -> list[str]:
    """Write the badge in the form that the file's ending names."""
    label = f"lime-spec {report['specification']['version']}"
    said, colour = message(report), COLOURS[report["exit_code"]]
    if path.suffix == ".json":
        shown = {"schemaVersion": 1, "label": label, "message": said, "color": colour.lstrip("#")}
        path.write_text(json.dumps(shown) + "\n", encoding="utf-8")
    elif path.suffix == ".svg":
        path.write_text(_svg(label, said, colour), encoding="utf-8")
    else:
        raise SuiteError(f"{path}: expected a name that ends in .svg or .json")
    return [f"{path}: {label}, {said}"]


def _svg(label: str, said: str, colour: str) -> str:
    left, right = (round(6.6 * len(text)) + 14 for text in (label, said))
    width, title = left + right, escape(f"{label}: {said}")
    text = 'text-anchor="middle" textLength="{length}" lengthAdjust="spacingAndGlyphs"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{title}">
<title>{title}</title>
<clipPath id="r"><rect width="{width}" height="20" rx="3"/></clipPath>
<g clip-path="url(#r)"><rect width="{left}" height="20" fill="#444"/>
<rect x="{left}" width="{right}" height="20" fill="{colour}"/></g>
<g fill="#fff" font-family="Verdana, DejaVu Sans, sans-serif" font-size="11">
<text x="{left / 2}" y="14" {text.format(length=left - 12)}>{escape(label)}</text>
<text x="{left + right / 2}" y="14" {text.format(length=right - 12)}>{escape(said)}</text></g>
</svg>
"""
