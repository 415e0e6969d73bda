"""Many edits in one model: Table 3 (all editors, one edit), Figure 6 (up to 1,000 edits), and both in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .. import results
from ..core.metrics import Array, Counts
from ..names import ALL, EN
from . import figures
from .bootstrap import Interval, interval, resample_edits, resample_seeds, succ_difference, succ_of
from .counts import Key, Section, named, read
from .tables import METRICS
from .template import render

WAYS = {"series": "In series", "at once": "At once"}
WORKS = 0.5  # an editor keeps working while its succ is at least this share of the succ of a single edit


def means(runs: Sequence[Counts]) -> dict[str, Interval]:
    """acc, con and succ over seeds, with 95% intervals of a bootstrap over edits and seeds."""
    each: Array = resample_seeds(resample_edits(runs).mean(2))
    return {"acc": interval(each[:, 0]), "con": interval(each[:, 1]), "succ": interval(succ_of(each))}


def table3(section: Section) -> list[list[str]]:
    body = []
    for (approach, training), runs in section.runs.items():
        name = named(section.approaches[approach], training)
        found = [means([run.judged[e] for run in runs.values()]) for e in (EN, ALL)]
        body.append([name, *(shown(each[metric]) for each in found for metric in METRICS)])
    return body


def shown(i: Interval) -> str:
    return f"{100 * i.value:.1f} [{100 * i.low:.1f}, {100 * i.high:.1f}]"


def data(section: Section) -> list[dict[str, Any]]:
    """Figure 6: one entry for each editor, way, languages and number of edits. acc is retention, or efficacy."""
    points = []
    for (approach, training), runs in section.runs.items():
        name = named(section.approaches[approach], training)
        for evaluation in next(iter(runs.values())).judged:
            way, languages, n = evaluation.rsplit(" ", 2)
            about = {"approach": approach, "training": training, "name": name, "seeds": len(runs)}
            about |= {"way": way, "languages": languages, "edits": int(n)}
            found = means([run.judged[evaluation] for run in runs.values()])
            points.append(about | {metric: [i.value, i.low, i.high] for metric, i in found.items()})
    return sorted(points, key=lambda point: point["edits"])


def draw(points: Sequence[Mapping[str, Any]], languages: str) -> Figure:
    """Retention (dashed: efficacy), con and succ against the number of edits, in series and at once."""
    titles = {"acc": "edits that hold", "con": "unrelated answers kept", "succ": "succ"}
    names = list(dict.fromkeys(point["name"] for point in points))
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    for (row, way), (column, metric) in product(enumerate(WAYS), enumerate(METRICS)):
        ax, kinds = axes[row, column], (way, "efficacy") if (way, metric) == ("series", "acc") else (way,)
        for (i, editor), kind in product(enumerate(names), kinds):
            own = [p for p in points if (p["name"], p["way"], p["languages"]) == (editor, kind, languages)]
            x, (value, low, high) = [p["edits"] for p in own], 100 * np.array([p[metric] for p in own]).reshape(-1, 3).T
            style = {"color": f"C{i}", "label": figures.plain(editor), "linestyle": "-" if kind == way else "--"}
            ax.plot(x, value, marker="o", markersize=3, linewidth=1.2, **style)
            ax.fill_between(x, low, high, color=f"C{i}", alpha=0.12)
        title = titles[metric] + " (dashed: right after the edit)" * (len(kinds) > 1)
        ax.set(xscale="log", title=title, xlabel="edits in the model" if way == "at once" else "")
        ax.grid(color="#dddddd", linewidth=0.6)
        if column == 0:
            ax.set_ylabel(f"{way} (%)")
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def words(section: Section, points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each way, languages and editor, by fixed rules: up to where it keeps working, and whether masks help."""
    found, groups = [], dict[tuple[str, str, Key], dict[int, Mapping[str, Any]]]()
    for p in points:
        if p["way"] in WAYS:
            groups.setdefault((p["way"], p["languages"], (p["approach"], p["training"])), {})[p["edits"]] = p
    for (way, languages, key), own in sorted(groups.items(), key=lambda group: group[0][:2]):
        works = max(n for n, p in own.items() if p["succ"][0] >= WORKS * own[min(own)]["succ"][0])
        masked, plain = section.runs.get((key[0], "lime"), {}), section.runs[key]
        seeds = sorted(set(masked) & set(plain)) if key[1] == "all" else []
        gains = {}
        for n in own if seeds else ():
            ours, theirs = ([runs[s].judged[f"{way} {languages} {n}"] for s in seeds] for runs in (masked, plain))
            gains[n] = succ_difference(ours, theirs)
        said = f"{WAYS[way]}, in {'English' if languages == 'en' else 'all languages'}"
        told = {"approach": section.approaches[key[0]], "said": said, "works": works, "gains": gains}
        found.append({**told, "first": own[min(own)], "last": own[max(own)]})
    return found


def write(root: Path, many: Sequence[Path], single: Sequence[Path]) -> Path:
    """many.md, and Figure 6 with its numbers, from the cells of `many` and those of single edits; returns many.md."""
    told = []
    for section in read(many):
        points = data(section)
        results.write_json(root / f"figure6-{section.slug}.json", points)
        for languages in dict.fromkeys(point["languages"] for point in points):
            figures.save(partial(draw, points, languages), root / f"figure6-{section.slug}-{languages}")
        told.append((section, words(section, points)))
    tables = [(section, table3(section)) for section in read(single)]
    results.write_text(root / "many.md", render("many.md.jinja", single=tables, many=told) + "\n")
    return root / "many.md"
