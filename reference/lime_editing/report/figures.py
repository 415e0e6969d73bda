"""Figures 3, 4 and 5 from stored cells: as data, and drawn with matplotlib. A new figure is a record in FIGURES.

Labels are the languages' own names, or their codes where the fonts lack a character. All of mLAMA's need Noto Sans for
Bengali, Devanagari, Tamil, Thai and CJK (on Debian: fonts-noto-core, fonts-noto-cjk). Text in an SVG stays text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean, median
from textwrap import fill
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from babel import Locale, UnknownLocaleError
from matplotlib import font_manager
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from safetensors import SafetensorError, safe_open

from .. import results
from ..core.metrics import Array, aggregate, breakdown
from ..errors import DataError
from ..names import TRAININGS
from .counts import Section, named, trained
from .tables import PAPER, TABLES, Table

_SCRIPTS = ("Arabic", "Bengali", "Devanagari", "Tamil", "Thai", "CJK SC", "CJK JP", "CJK KR", "SC")
FAMILIES = ("DejaVu Sans", "Noto Sans", *(f"Noto Sans {script}" for script in _SCRIPTS))

#: Okabe and Ito's palette, for any colour vision: for trainings in the order of the tables, then for others.
COLOURS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
LINE = 0.115  # height of a language's name in inches
PREFERRED = 0.01  # the share of a language's mask parameters that Figure 5 compares

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Drawing:
    """One of the paper's figures.

    data     (section, files with its data from earlier reports) → the data to draw, or None if no cell has them
    draw     (data, title) → the figure
    tell     data → a description in words: the text alternative
    """

    name: str  # of the files
    title: str
    meaning: str
    missing: str  # the reason if it is left out
    data: Callable[[Section, Sequence[Path]], Data | None]
    draw: Callable[[Data, str], Figure]
    tell: Callable[[Data], str]


def distribution(
    section: Section, before: Sequence[Path] = (), *, table: Table, by: Literal["edit_language", "language"]
) -> Data | None:
    """acc, con and succ of every language, as means over seeds (clauses M8, M9), of the rows of a table."""
    groups = []
    for (approach, training), runs in section.judged(table.evaluation, table.omits):
        each = [breakdown(run.judged[table.evaluation], by, "skip") for run in runs.values()]
        shared = sorted(set.intersection(*map(set, each)))
        values = {language: aggregate([run[language] for run in each]).as_dict() for language in shared}
        if values and approach != "unedited":
            about = {"approach": approach, "training": training, "title": section.approaches[approach]}
            groups.append({**about, "cells": [run.folder.name for run in runs.values()], "languages": values})
    return {"evaluation": table.evaluation, "by": by, "groups": groups} if groups else None


def similarity(section: Section, before: Sequence[Path] = ()) -> Data | None:
    """Figure 5: `cosines` of MEND + LiME's first seed, or of an earlier report if its checkpoint is missing."""
    runs = section.runs.get(("mend", "lime"))
    if runs is None:
        return None
    folder = runs[min(runs)].folder
    if not (folder / results.EDITOR).is_file():
        stored = [results.read_json(path) for path in before if path.is_file()]
        return next((data for data in stored if isinstance(data, dict) and data.get("cell") == folder.name), None)
    languages, parameters = mask_parameters(folder / results.EDITOR)
    width, preferred = parameters.shape[1], _preferred(parameters.shape[1])
    cosine, over_all = (np.round(cosines(parameters, count), 4).tolist() for count in (preferred, width))
    about = {"cell": folder.name, "seed": min(runs), "languages": languages, "parameters_per_language": width}
    return {**about, "preferred": preferred, "cosine": cosine, "cosine_over_all": over_all}


def mask_parameters(path: Path) -> tuple[list[str], Array]:
    """The languages of a checkpoint, and log α of all its matrices, concatenated (L, Σ(n + m))."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = sorted(n for n in file.keys() if n.startswith("mask.") and n.endswith((".x", ".delta")))  # noqa: SIM118
            languages = json.loads((file.metadata() or {}).get("about", "{}")).get("languages", [])
            parts = [np.asarray(file.get_tensor(name), dtype=np.float64) for name in names]
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: is not a readable checkpoint ({error}); remove the cell's folder") from error
    if not parts or any(len(part) != len(languages) for part in parts):
        raise DataError(f"{path}: holds no mask for each of its {len(languages)} languages")
    return languages, np.concatenate(parts, axis=1)


def cosines(parameters: Array, count: int | None = None) -> Array:
    """Row l: l's cosine with every language, over l's `count` (default: 1%) highest dimensions (§4.5)."""
    highest = np.argsort(-parameters, axis=1, kind="stable")[:, : count or _preferred(parameters.shape[1])]
    chosen = np.zeros_like(parameters)
    np.put_along_axis(chosen, highest, 1, axis=1)
    norms = np.linalg.norm(chosen * parameters, axis=1)[:, None] * np.sqrt(chosen @ (parameters**2).T)
    product: Array = (chosen * parameters) @ parameters.T / np.where(norms == 0, 1, norms)
    return product


def _preferred(width: int) -> int:
    return max(1, round(PREFERRED * width))


def _tell_distribution(data: Data) -> str:
    told = []
    for group in data["groups"]:
        ranked = sorted((100 * s["succ"], language) for language, s in group["languages"].items())
        (low, worst), (high, best), middle = ranked[0], ranked[-1], median(value for value, _ in ranked)
        name = named(group["title"], group["training"])
        told.append(f"{name}: from {low:.1f} ({worst}) to {high:.1f} ({best}), median {middle:.1f}")
    return f"succ in percent by language. {'. '.join(told)}."


def _tell_similarity(data: Data) -> str:
    apart = ~np.eye(len(data["languages"]), dtype=bool)
    if not apart.any():
        return ""
    over_all, preferred = (fmean(np.array(data[name])[apart]) for name in ("cosine_over_all", "cosine"))
    own = f"{preferred:.2f} over the {data['preferred']} that the row's language prefers (seed {data['seed']})"
    return f"Here two languages' masks have a mean cosine of {over_all:.2f} over all dimensions, and of {own}."


def draw_distribution(data: Data, title: str) -> Figure:
    """For each approach and training a box over languages, and every language as a labelled point."""
    groups, colours = data["groups"], _colours(data["groups"])
    values = [[100 * s["succ"] for s in group["languages"].values()] for group in groups]
    # High enough for the names of all languages, one above the other.
    height = max(7.0, 2.0 + LINE * max(map(len, values)))
    figure = Figure(figsize=(1.5 + 1.15 * len(groups), height), layout="constrained")
    ax = figure.add_subplot()
    low, high = min(map(min, values)), max(map(max, values))
    margin = max(0.04 * (high - low), 2.5 - (high - low) / 2)
    low, high = low - margin, high + margin
    gap = LINE / (height - 1.8) * (high - low)
    for i, (group, points) in enumerate(zip(groups, values, strict=True)):
        colour = colours[group["training"]]
        filled, lines = {"facecolor": colour, "alpha": 0.45, "edgecolor": colour}, {"color": colour, "linewidth": 1.2}
        parts: Data = {"boxprops": filled, "whiskerprops": lines, "capprops": lines, "medianprops": lines}
        ax.boxplot([points], positions=[i], widths=0.26, showfliers=False, patch_artist=True, **parts)
        heights = spaced(points, gap, low + gap / 2, high - gap / 2)
        leads = [[(i + 0.2, y), (i + 0.25, y), (i + 0.31, at)] for y, at in zip(points, heights, strict=True)]
        ax.add_collection(LineCollection(leads, colors="#999999", linewidths=0.5), autolim=False)
        ax.scatter([i + 0.2] * len(points), points, s=9, color=colour, edgecolors="white", linewidths=0.3, zorder=3)
        for language, at in zip(group["languages"], heights, strict=True):
            name, fonts = label(language, installed(FAMILIES))
            ax.text(i + 0.325, at, name, size=6.5, va="center", in_layout=False, family=fonts)
    editors = [f"{fill(plain(g['title']), 18)}\n{trained(g['training'])}".replace(" + ", "\n+ ") for g in groups]
    ax.set_xticks(range(len(groups)), editors)
    ax.set(xlim=(-0.4, len(groups) - 0.2), ylim=(low, high), ylabel="succ (%)")
    ax.set_title(plain(title), fontsize=10, loc="left", wrap=True)
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    used = [Patch(color=colours[name], alpha=0.6, label=trained(name)) for name in colours if name]
    if used:
        figure.legend(handles=used, title="trained on", loc="outside lower center", ncols=len(used), frameon=False)
    return figure


def draw_similarity(data: Data, title: str) -> Figure:
    matrix, languages = np.array(data["cosine"]), data["languages"]
    side = 2.2 + 0.36 * len(languages)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    ax = figure.add_subplot()
    lowest = min(0.0, float(matrix.min()))
    colours = mpl.colormaps["cividis"].resampled(40)
    mesh = ax.pcolormesh(matrix, cmap=colours, vmin=lowest, vmax=1, edgecolors="white", lw=0.3)
    place: Data = {"ha": "center", "va": "center", "size": 6, "in_layout": False, "family": "sans-serif"}
    for (i, j), value in np.ndenumerate(matrix):
        ink = "black" if value > lowest * 0.45 + 0.55 else "white"
        ax.text(j + 0.5, i + 0.5, _cosine(value), color=ink, **place)
    at, names = np.arange(len(languages)) + 0.5, [label(language, installed(FAMILIES)) for language in languages]
    ax.set_xticks(at, [name for name, _ in names], rotation=60, ha="right", rotation_mode="anchor")
    ax.set_yticks(at, [name for name, _ in names])
    for text, (_, fonts) in zip((*ax.get_xticklabels(), *ax.get_yticklabels()), names * 2, strict=True):
        text.set_fontfamily(fonts)
    ax.invert_yaxis()
    ax.tick_params(length=0)
    ax.set(xlabel="compared with", ylabel="on the preferred dimensions of", aspect="equal")
    ax.set_title(plain(title), fontsize=10, loc="left", wrap=True)
    figure.colorbar(mesh, ax=ax, shrink=0.6, aspect=30, label="cosine similarity")
    return figure


def plain(text: str) -> str:
    """A user's text, whose dollar signs are no TeX."""
    return text.replace("$", r"\$")


def _cosine(value: float) -> str:
    text = f"{value:.2f}".replace("-0.00", "0.00")
    return "1" if text == "1.00" else text.replace("0.", ".").replace("-", "−")


def save(draw: Callable[[], Figure], path: Path) -> None:
    """Draw a figure in our style, and write `path`.svg and .png; with the same fonts the bytes are the same."""
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "lime-editing", "savefig.dpi": 150, "font.size": 8}
    with mpl.rc_context():
        mpl.rcdefaults()  # not what the user's matplotlibrc says
        mpl.rcParams.update({**style, "font.family": [*installed(FAMILIES), "sans-serif"]})
        figure = draw()
        figure.draw_without_rendering()  # lay out once: each file is then written fast, and from the same layout
        figure.set_layout_engine("none")
        for kind, about in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            target = path.with_name(f"{path.name}.{kind}")
            results.write_atomically(target, partial(figure.savefig, format=kind, metadata=about))


@cache
def installed(families: Sequence[str]) -> tuple[str, ...]:
    """The font families that this machine has."""
    known = set(font_manager.get_font_names())
    return tuple(family for family in families if family in known)


@cache
def label(language: str, families: tuple[str, ...]) -> tuple[str, list[str]]:
    """The language's own name, with the first of these fonts that has all its characters; otherwise its code."""
    with suppress(UnknownLocaleError, ValueError):
        name = Locale.parse(language, sep="-").get_display_name() or language
        name = name[0].title() + name[1:]  # not upper(), which would give Georgian capitals
        for family in families:
            font = font_manager.get_font(font_manager.findfont(family))
            if all(font.get_char_index(ord(c)) for c in name):
                return name, [family, "sans-serif"]
    return language, ["sans-serif"]


def spaced(values: Sequence[float], gap: float, low: float = -np.inf, high: float = np.inf) -> list[float]:
    """The nearest positions in the same order, at least `gap` apart (isotonic regression); `low` has priority."""
    n, order = len(values), np.argsort(values, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(np.asarray(values)[order] - gap * np.arange(n))])
    ends, result = np.arange(1, n + 1), np.empty(n)
    for i in range(n):  # min-max formula: max over starts of min over ends of the mean
        level = max(((total[i + 1 :] - total[j]) / (ends[i:] - j)).min() for j in range(i + 1))
        result[order[i]] = max(low, min(level, high - (n - 1) * gap)) + i * gap
    return [float(position) for position in result]


def _colours(groups: Sequence[Data]) -> dict[str | None, str]:
    shown = {group["training"] for group in groups}
    order = [*TRAININGS, *sorted(shown - {None, *TRAININGS})]
    return {None: "#7f7f7f", **{n: COLOURS[i % len(COLOURS)] for i, n in enumerate(order) if n in shown}}


FIGURES = tuple(
    Drawing(name, **PAPER["figures"][name], data=data, draw=draw, tell=tell)
    for name, data, draw, tell in (
        ("figure3", partial(distribution, table=TABLES[0], by="language"), draw_distribution, _tell_distribution),
        ("figure4", partial(distribution, table=TABLES[1], by="edit_language"), draw_distribution, _tell_distribution),
        ("figure5", similarity, draw_similarity, _tell_similarity),
    )
)
