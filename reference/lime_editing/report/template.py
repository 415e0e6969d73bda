"""Text from the templates in this folder."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

_TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"→": r"$\rightarrow$", "±": r"$\pm$", "−": "$-$", "†": r"\dag{}"}
_TEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "“": "``", "”": "''"}


def render(template: str, **values: Any) -> str:
    """A template with these values. Values are escaped in HTML; other formats have the filters `md` and `tex`."""
    loader, escaped = FileSystemLoader(Path(__file__).parent), select_autoescape(["html.jinja"])
    jinja = Environment(loader=loader, autoescape=escaped, undefined=StrictUndefined)
    jinja.trim_blocks = jinja.lstrip_blocks = True
    jinja.filters.update(md=md, tex=tex, each=each, typed=typed)
    return jinja.get_template(template).render(values).strip()


def md(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text)


def tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in text)


def each(records: Iterable[Mapping[str, Any]], form: str) -> str:
    """The different texts that a format gives for cells' records, sorted."""
    parts = ({"specification": "before 2.0", **one, "code": defaultdict(str, one["code"])} for one in records)
    return ", ".join(sorted({form.format(**part) for part in parts}))


def typed(argv: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "lime_editing", *argv])
