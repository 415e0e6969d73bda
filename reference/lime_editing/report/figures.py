"""Figures 3, 4 and 5 from stored cells: as data, and drawn with matplotlib.

Labels are the languages' own names. They need, beside matplotlib's DejaVu Sans, Noto Sans Devanagari, Noto Sans Thai
and Noto Sans CJK (on Debian: fonts-noto-core, fonts-noto-cjk); where a font lacks a character, the language's code
stands in. Text in an SVG stays text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from safetensors import SafetensorError, safe_open

from .. import results
from ..core.metrics import Array, aggregate, breakdown
from ..errors import DataError
from ..names import ALL, APPROACHES, EN
from .counts import Section

FAMILIES = (
    "DejaVu Sans",
    "Noto Sans",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
)

NAMES: Mapping[str, str] = {
    "ar": "العربية",
    "bg": "Български",
    "de": "Deutsch",
    "el": "Ελληνικά",
    "en": "English",
    "es": "Español",
    "fr": "Français",
    "hi": "हिन्दी",
    "ru": "Русский",
    "sw": "Kiswahili",
    "th": "ไทย",
    "tr": "Türkçe",
    "ur": "اردو",
    "vi": "Tiếng Việt",
    "zh": "中文",
}

#: Okabe and Ito's colours, told apart with any colour vision; the axis names the training, too.
COLOURS: Mapping[str | None, str] = {
    None: "#7f7f7f",
    "en": "#E69F00",
    "all": "#0072B2",
    "lime": "#009E73",
    "shared": "#CC79A7",
}
SHORT: Mapping[str | None, str] = {
    None: "",
    "en": "English",
    "all": "all",
    "lime": "all + LiME",
    "shared": "all + shared",
}

#: Figure → evaluation, whose language, and the trainings that it shows beside Finetuning.
DISTRIBUTIONS: Mapping[str, tuple[str, Literal["edit_language", "language"], tuple[str, ...]]] = {
    "figure3": (EN, "language", ("en", "all")),
    "figure4": (ALL, "edit_language", ("all", "lime", "shared")),
}
PREFERRED = 0.01  # the share of a language's mask parameters that Figure 5 looks at


def distribution(section: Section, figure: str) -> dict[str, Any] | None:
    """acc, con and succ of every language, mean over seeds (clauses M8, M9); None where there is nothing to show."""
    evaluation, by, trainings = DISTRIBUTIONS[figure]
    groups = []
    for (approach, training), runs in section.runs.items():
        if approach == "unedited" or (training and training not in trainings):
            continue
        each = [breakdown(run.judged[evaluation], by, "skip") for run in runs.values() if evaluation in run.judged]
        shared = sorted(set.intersection(*map(set, each))) if each else []
        values = {language: aggregate([run[language] for run in each]).as_dict() for language in shared}
        if values:
            cells = [run.folder.name for run in runs.values()]
            groups.append({"approach": approach, "training": training, "cells": cells, "languages": values})
    return {"evaluation": evaluation, "by": by, "groups": groups} if groups else None


def similarity(section: Section, stored: Path) -> dict[str, Any] | None:
    """Figure 5: per row language, cosines over its own top 1% of mask parameters, from MEND + LiME's first seed.

    A checkpoint that is not there, as in a clone, is replaced by what was computed from it before, in `stored`.
    """
    runs = section.runs.get(("mend", "lime"), {})
    if not runs:
        return None
    folder = runs[min(runs)].folder
    if not (folder / "editor.safetensors").is_file():
        known = results.read_json(stored) if stored.is_file() else {}
        return known if isinstance(known, dict) and known.get("cell") == folder.name else None
    languages, parameters = mask_parameters(folder / "editor.safetensors")
    width = parameters.shape[1]
    return {
        "cell": folder.name,
        "seed": min(runs),
        "languages": languages,
        "parameters_per_language": width,
        "preferred": _preferred(width),
        "cosine": np.round(preferred_cosines(parameters), 4).tolist(),
        "cosine_over_all": np.round(cosines(parameters, parameters), 4).tolist(),
    }


def mask_parameters(path: Path) -> tuple[list[str], Array]:
    """The languages of a checkpoint, and log α of all its matrices side by side (L, Σ(n + m)), x and δ.

    DataError: a checkpoint without masks, or none at all.
    """
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


def preferred_cosines(parameters: Array) -> Array:
    """Row l: the cosine between l and every language, over l's top 1% of dimensions by value (§4.5)."""
    top = np.argsort(-parameters, axis=1, kind="stable")[:, : _preferred(parameters.shape[1])]
    return np.concatenate(
        [cosines(row[None, dims], parameters[:, dims]) for row, dims in zip(parameters, top, strict=True)]
    )


def cosines(a: Array, b: Array) -> Array:
    """Between all rows of a and all of b; 0 where one of them is 0."""
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    product: Array = a @ b.T / np.where(norms == 0, 1, norms)
    return product


def _preferred(width: int) -> int:
    return max(1, round(PREFERRED * width))


def draw_distribution(data: Mapping[str, Any], title: str) -> Figure:
    """Per approach and training a box over languages, and every language as a labelled point."""
    families, groups = installed(FAMILIES), data["groups"]
    with mpl.rc_context(_style(families)):
        figure = Figure(figsize=(1.5 + 1.15 * len(groups), 7), layout="constrained")
        ax = figure.add_subplot()
        values = [[100 * s["succ"] for s in group["languages"].values()] for group in groups]
        low, high = min(map(min, values)), max(map(max, values))
        # As much height as the most crowded labels need.
        span = max(high - low, 5.0) * 1.1
        gap = span / 56
        for i, (group, points) in enumerate(zip(groups, values, strict=True)):
            colour = COLOURS.get(group["training"], "#000000")
            box = ax.boxplot([points], positions=[i], widths=0.26, showfliers=False, patch_artist=True)
            box["boxes"][0].set(facecolor=colour, alpha=0.45, edgecolor=colour)
            for line in (*box["whiskers"], *box["caps"], *box["medians"]):
                line.set(color=colour, linewidth=1.2)
            _label(ax, i, list(group["languages"]), points, gap, colour, families)
        ax.set_xticks(
            range(len(groups)), [f"{APPROACHES[g['approach']]}\n{SHORT.get(g['training'], '')}" for g in groups]
        )
        ax.set_xlim(-0.4, len(groups) - 0.25)
        ax.set_ylabel("succ (%)")
        ax.set_title(title, fontsize=10, loc="left")
        ax.grid(axis="y", color="#dddddd", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        used = [v for v in COLOURS if v and any(g["training"] == v for g in groups)]
        if used:
            handles = [Patch(color=COLOURS[v], alpha=0.6, label=SHORT[v]) for v in used]
            figure.legend(
                handles=handles, title="trained on", loc="outside lower center", ncols=len(used), frameon=False
            )
        _settle(figure)
    return figure


def draw_similarity(data: Mapping[str, Any], title: str) -> Figure:
    """A heatmap; every cell carries its number, so that no colour has to be read."""
    families, languages = installed(FAMILIES), data["languages"]
    matrix = np.array(data["cosine"])
    with mpl.rc_context(_style(families)):
        side = 2.2 + 0.36 * len(languages)
        figure = Figure(figsize=(side + 0.6, side), layout="constrained")
        ax = figure.add_subplot()
        lowest = min(0.0, float(matrix.min()))
        mesh = ax.pcolormesh(
            matrix, cmap=mpl.colormaps["cividis"].resampled(40), vmin=lowest, vmax=1, edgecolors="white", lw=0.3
        )
        threshold = lowest * 0.45 + 0.55
        for (i, j), value in np.ndenumerate(matrix):
            text = (
                "1" if value > 0.995 else f"{value:.2f}".replace("-0.00", "0.00").replace("0.", ".").replace("-", "−")
            )
            ax.text(
                j + 0.5,
                i + 0.5,
                text,
                ha="center",
                va="center",
                size=6,
                in_layout=False,
                color="black" if value > threshold else "white",
            )
        labels = [label(language, families) for language in languages]
        at = np.arange(len(languages)) + 0.5
        ax.set_xticks(at, labels, rotation=60, ha="right", rotation_mode="anchor")
        ax.set_yticks(at, labels)
        ax.invert_yaxis()
        ax.tick_params(length=0)
        ax.set_xlabel("compared with")
        ax.set_ylabel("on the preferred dimensions of")
        ax.set_title(title, fontsize=10, loc="left")
        ax.set_aspect("equal")
        figure.colorbar(mesh, ax=ax, shrink=0.75, label="cosine similarity")
        _settle(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write `path`.svg and .png, the same bytes whenever the same fonts are installed."""
    with mpl.rc_context(_style(installed(FAMILIES))):
        for kind, about in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
            target = path.with_name(f"{path.name}.{kind}")
            results.write_atomically(target, lambda t, k=kind, a=about: figure.savefig(t, format=k, metadata=a))  # type: ignore[misc]


@cache
def installed(families: Sequence[str]) -> tuple[str, ...]:
    """Those font families that this machine has."""
    known = set(font_manager.get_font_names())
    return tuple(family for family in families if family in known)


@cache
def label(language: str, families: tuple[str, ...]) -> str:
    """The language's own name, or its code where the fonts lack one of its characters."""
    name = NAMES.get(language, language)
    fonts = [font_manager.get_font(font_manager.findfont(family)) for family in families]
    return name if all(any(font.get_char_index(ord(c)) for font in fonts) for c in name) else language


def spaced(values: Sequence[float], gap: float) -> list[float]:
    """The nearest positions in the same order that are at least `gap` apart (isotonic regression)."""
    order = np.argsort(values, kind="stable")
    blocks: list[tuple[float, int]] = []  # mean and size
    for i, at in enumerate(order):
        blocks.append((values[at] - i * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [((a * n + b * m) / (n + m), n + m)]
    level = [mean for mean, size in blocks for _ in range(size)]
    result = [0.0] * len(values)
    for i, at in enumerate(order):
        result[at] = level[i] + i * gap
    return result


def _label(
    ax: Axes,
    x: int,
    languages: Sequence[str],
    points: Sequence[float],
    gap: float,
    colour: str,
    families: tuple[str, ...],
) -> None:
    """Points beside a box, each with a thin line to its name."""
    names = spaced(points, gap)
    lines = [[(x + 0.2, y), (x + 0.25, y), (x + 0.31, at)] for y, at in zip(points, names, strict=True)]
    ax.add_collection(LineCollection(lines, colors="#999999", linewidths=0.5), autolim=False)
    ax.scatter([x + 0.2] * len(points), points, s=9, color=colour, edgecolors="white", linewidths=0.3, zorder=3)
    for language, at in zip(languages, names, strict=True):
        ax.text(x + 0.325, at, label(language, families), size=6.5, va="center", in_layout=False)
    ax.update_datalim([(x, min(names) - gap / 2), (x, max(names) + gap / 2)])


def _settle(figure: Figure) -> None:
    """Lay out once; every later drawing of the figure is then quick, and the same."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _style(families: Sequence[str]) -> dict[Any, Any]:
    return {
        "font.family": [*families, "sans-serif"],
        "font.size": 8,
        "svg.fonttype": "none",
        "svg.hashsalt": "lime-editing",
        "savefig.dpi": 150,
    }
