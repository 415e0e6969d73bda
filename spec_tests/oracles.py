"""What the clauses say, computed slowly and obviously: loops, fractions, float64. Nothing here is meant to be fast."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np

from .contract import Array, Example, FactRow, Outcome

Rates = dict[str, Fraction]


# T, S


def parallel(corpus: Iterable[Example], example: str, languages: Iterable[str] | None = None) -> set[str]:
    """Ids of I(x), within `languages` where given."""
    everything = list(corpus)
    fact = next(e["fact"] for e in everything if e["id"] == example)
    return {e["id"] for e in everything if e["fact"] == fact and (languages is None or e["language"] in languages)}


def unrelated(corpus: Iterable[Example], example: str, languages: Iterable[str]) -> set[str]:
    """Ids of the examples in `languages` outside I(x)."""
    everything = list(corpus)
    inside = parallel(everything, example)
    return {e["id"] for e in everything if e["language"] in languages and e["id"] not in inside}


# M


def mean(values: Sequence[Fraction]) -> Fraction:
    return sum(values, Fraction(0)) / len(values)


def rate(outcomes: Iterable[Outcome], role: str) -> Fraction:
    """Over the edits first, over an edit's inputs second (M4), for one editing language."""
    hits: dict[str, list[Fraction]] = {}
    for outcome in outcomes:
        if outcome["role"] == role:
            hits.setdefault(outcome["edit"], []).append(Fraction(int(outcome["hit"])))
    return mean([mean(values) for values in hits.values()])


def succ(acc: Fraction, con: Fraction) -> Fraction:
    return Fraction(0) if acc + con == 0 else 2 * acc * con / (acc + con)


def metrics(outcomes: Sequence[Outcome], languages: Iterable[str] | None = None) -> Rates:
    """Macro average over editing languages (M5), then succ (M6)."""
    chosen = sorted({o["edit_language"] for o in outcomes} if languages is None else set(languages))
    per_language = [[o for o in outcomes if o["edit_language"] == language] for language in chosen]
    acc = mean([rate(part, "update") for part in per_language])
    con = mean([rate(part, "retain") for part in per_language])
    return {"acc": acc, "con": con, "succ": succ(acc, con)}


# A


def sigmoid(value: float) -> float:
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))


def clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def sampled_gate(log_alpha: float, u: float, beta: float, gamma: float, zeta: float) -> float:
    s = sigmoid((math.log(u) - math.log(1 - u) + log_alpha) / beta)
    return clip(s * (zeta - gamma) + gamma)


def deterministic_gate(log_alpha: float, gamma: float, zeta: float) -> float:
    return clip(sigmoid(log_alpha) * (zeta - gamma) + gamma)


def gate_probability(log_alpha: float, beta: float, gamma: float, zeta: float) -> float:
    return sigmoid(log_alpha - beta * math.log(-gamma / zeta))


def each(function: object, array: Array, *rest: float) -> Array:
    """A scalar function applied to each entry."""
    flat = [function(float(value), *rest) for value in array.ravel()]  # type: ignore[operator]
    return np.array(flat, dtype=np.float64).reshape(array.shape)


def penalty(
    log_alpha: Mapping[str, Mapping[str, Array]], weight: float, normalisation: str
) -> tuple[float, dict[str, dict[str, Array]]]:
    """L_mask and its gradient at the default constants, gate by gate."""
    count = sum(array.size for sides in log_alpha.values() for array in sides.values())
    scale = weight if normalisation == "sum" else weight / count
    value, gradient = 0.0, {}
    for matrix, sides in log_alpha.items():
        gradient[matrix] = {}
        for side, array in sides.items():
            p = each(gate_probability, array, 2 / 3, -0.1, 1.1)
            value += scale * math.fsum(p.ravel())
            gradient[matrix][side] = scale * each(_slope, array)
    return value, gradient


def _slope(log_alpha: float) -> float:
    """The derivative of the sigmoid, as a product of two sigmoids so that neither tail loses digits."""
    shifted = log_alpha - 2 / 3 * math.log(0.1 / 1.1)
    return sigmoid(shifted) * sigmoid(-shifted)


# D


def boundaries(n: int) -> tuple[int, int]:
    """round(n·8/10) and round(n·9/10), exactly."""
    return round(Fraction(8 * n, 10)), round(Fraction(9 * n, 10))


def parts_in_file_order(rows: Sequence[FactRow]) -> dict[str, list[FactRow]]:
    """What each split is made of, before subjects are kept to one of them."""
    parts: dict[str, list[FactRow]] = {"train": [], "validation": [], "test": []}
    for group in {(row["language"], row["relation"]) for row in rows}:
        told = [row for row in rows if (row["language"], row["relation"]) == group]
        for place, row in enumerate(told):
            first, second = boundaries(len(told))
            parts["train" if place < first else "validation" if place < second else "test"].append(row)
    return parts


def split(rows: Sequence[FactRow]) -> dict[str, list[FactRow]]:
    """The splits of rows in file order."""
    parts = parts_in_file_order(rows)
    train = {row["sub_uri"] for row in parts["train"]}
    parts["test"] = [row for row in parts["test"] if row["sub_uri"] not in train]
    test = {row["sub_uri"] for row in parts["test"]}
    parts["validation"] = [row for row in parts["validation"] if row["sub_uri"] not in train | test]
    return parts


def labels(rows: Iterable[FactRow], language: str, relation: str | None = None) -> dict[str, str]:
    """Entities [Y] of a language, and of a relation where given, with their names."""
    told = [row for row in rows if row["language"] == language and relation in (None, row["relation"])]
    return {row["obj_uri"]: row["obj_label"] for row in told}


# R


def mean_of_edits(rows: Iterable[Outcome]) -> float:
    """The mean over edits of the harmonic mean of an edit's own acc and con, 0 where both are."""
    edits: dict[str, list[Outcome]] = {}
    for row in rows:
        edits.setdefault(row["edit"], []).append(row)
    found = []
    for own in edits.values():
        hits = [[row["hit"] for row in own if row["role"] == role] for role in ("update", "retain")]
        if all(hits):
            acc, con = (sum(told) / len(told) for told in hits)
            found.append(2 * acc * con / (acc + con) if acc + con else 0.0)
    return sum(found) / len(found)


def stopping(succ: Sequence[float], every: int, intervals: int) -> tuple[int, int]:
    """Where training stops and what is judged, patience counted in intervals between validations."""
    for last in range(len(succ)):
        seen = succ[: last + 1]
        best = seen.index(max(seen))
        if last - best >= intervals:
            break
    return (last + 1) * every, (best + 1) * every


def mask_similarity(log_alpha: Array, count: int | None = None) -> Array:
    """Cosines of every language with the row's, on the row's highest hundredth, or on so many dimensions."""
    languages, width = log_alpha.shape
    kept = width // 100 if count is None else count
    found = np.zeros((languages, languages))
    for row in range(languages):
        chosen = sorted(range(width), key=lambda place: log_alpha[row, place])[-kept:]
        for other in range(languages):
            a, b = ([float(log_alpha[who, place]) for place in chosen] for who in (row, other))
            product = math.fsum(x * y for x, y in zip(a, b, strict=True))
            found[row, other] = product / (math.hypot(*a) * math.hypot(*b))
    return found
