"""Chapters T M S A B D R, and C without editors, in NumPy, written from SPEC.md alone.

It shares no code with the oracles and none with the reference: an independent opinion by which the suite itself is
judged. `released` is the same under every named alternative of these chapters.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # at run time it needs NumPy alone, of any version
    from ..contract import (
        Array,
        Example,
        Experiment,
        FactRow,
        IdTriple,
        Input,
        Labelled,
        Outcome,
        Pair,
        PairEdit,
        PairRow,
        Place,
        Series,
        SeriesEdit,
        SeriesOutcome,
        StoredRun,
        TableRow,
        Triple,
    )


CLAIMS = frozenset("TMSABDRC")
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1

# The corpus: rows are facts, columns are languages


class Grid:
    """A corpus as {fact: {language: id}}; refuses two examples of one fact in one language (T1)."""

    def __init__(self, corpus: Iterable[Example]) -> None:
        self.cells: dict[str, dict[str, str]] = defaultdict(dict)
        self.place: dict[str, tuple[str, str]] = {}
        for e in sorted(corpus, key=lambda e: (e["fact"], e["language"], e["id"])):
            row = self.cells[e["fact"]]
            if e["language"] in row:
                raise ValueError(f"fact {e['fact']}: {row[e['language']]} and {e['id']} are both in {e['language']}")
            row[e["language"]] = e["id"]
            self.place[e["id"]] = (e["fact"], e["language"])

    def row(self, name: str) -> dict[str, str]:
        if name not in self.place:
            raise LookupError(f"no example {name!r} in the corpus")
        return self.cells[self.place[name][0]]

    def inside(self, name: str, languages: Iterable[str]) -> list[str]:
        row = self.row(name)
        return [row[language] for language in sorted(set(languages)) if language in row]

    def of(self, languages: Iterable[str]) -> list[str]:
        chosen = set(languages)
        return [name for name, (_, language) in self.place.items() if language in chosen]


# T


def parallel(corpus: Sequence[Example], example: str, languages: Sequence[str] | None = None) -> list[str]:
    grid = Grid(corpus)
    return grid.inside(example, grid.row(example) if languages is None else languages)


# M


def succ(acc: float, con: float) -> float:
    return 0.0 if not acc + con else 2 * acc * con / (acc + con)


def hit(predicted: Sequence[int], expected: Sequence[int], is_mask: Sequence[bool], role: str) -> bool:
    counts = np.asarray(is_mask, dtype=bool)
    return bool(np.all((np.asarray(predicted) == np.asarray(expected))[counts]))


def hit_everywhere(predicted: Sequence[int], expected: Sequence[int], is_mask: Sequence[bool], role: str) -> bool:
    return hit(predicted, expected, is_mask if role == "update" else [True] * len(is_mask), role)


def metrics(outcomes: Sequence[Outcome], languages: Sequence[str] | None = None) -> dict[str, float]:
    asked = sorted({o["edit_language"] for o in outcomes}) if languages is None else list(languages)
    if not asked:
        raise ValueError("no outcomes, so there is no rate")
    rates = [[_rate(outcomes, language, role) for language in asked] for role in ("update", "retain")]
    return _named(float(np.mean(rates[0])), float(np.mean(rates[1])))


def _rate(outcomes: Sequence[Outcome], language: str, role: str) -> float:
    hits: dict[str, list[bool]] = defaultdict(list)
    for o in outcomes:
        if (o["edit_language"], o["role"]) == (language, role):
            hits[o["edit"]].append(o["hit"])
    if not hits:
        raise LookupError(f"no {role} outcome for edits in {language!r}")
    return float(np.mean([np.mean(list(values)) for values in hits.values()]))


def _named(acc: float, con: float) -> dict[str, float]:
    return {"acc": acc, "con": con, "succ": succ(acc, con)}


def breakdown(outcomes: Sequence[Outcome], by: str) -> dict[str, dict[str, float]]:
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for o in outcomes:
        groups[o[by]].append(o)  # type: ignore[literal-required]
    found = {}
    for language, part in groups.items():
        try:
            found[language] = metrics(part)
        except LookupError as error:
            raise LookupError(f"breakdown at {language!r}: {error}") from error
    return found


def aggregate(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if not runs:
        raise ValueError("no runs to aggregate")
    return _named(float(np.mean([run["acc"] for run in runs])), float(np.mean([run["con"] for run in runs])))


# S


def evaluation_pairs(
    corpus: Sequence[Example],
    edit_languages: Sequence[str],
    update_languages: Sequence[str],
    n_update: int,
    n_retain: int,
    seed: int,
    limit: int | None = None,
) -> list[Pair]:
    grid = Grid(corpus)
    rng = random.Random(f"evaluation {seed}")
    edits = _limited([grid.of([language]) for language in sorted(set(edit_languages))], limit, rng)
    pool = grid.of(update_languages)
    pairs: list[Pair] = []
    for edit in edits:
        inside = grid.inside(edit, update_languages)
        outside = _outside(grid, pool, edit, n_retain, rng)
        pairs.append({"edit": edit, "update": rng.sample(inside, min(n_update, len(inside))), "retain": outside})
    return pairs


def _limited(groups: list[list[str]], limit: int | None, rng: random.Random) -> list[str]:
    """All edits, or `limit` of them: one from each language in turn, at random within it."""
    if limit is None:
        return [edit for group in groups for edit in group]
    shuffled = [rng.sample(group, len(group)) for group in groups]
    chosen: list[str] = []
    while len(chosen) < limit and any(shuffled):
        chosen += [group.pop() for group in shuffled if group]
    return chosen[:limit]


def _outside(grid: Grid, pool: list[str], edit: str, count: int, rng: random.Random) -> list[str]:
    """`count` different examples of the pool that are not parallel to the edit, or all of them."""
    parallels = set(grid.row(edit).values())
    if len(pool) <= 4 * (count + len(parallels)):
        rest = [name for name in pool if name not in parallels]
        return rng.sample(rest, min(count, len(rest)))
    found: dict[str, None] = {}
    while len(found) < count:
        name = rng.choice(pool)
        if name not in parallels:
            found[name] = None
    return list(found)


def training_triples(
    corpus: Sequence[Example], languages: Sequence[str], n: int, seed: int, validate_every: int | None = None
) -> list[IdTriple]:
    grid = Grid(corpus)
    rng = random.Random(f"training {seed}")
    pool = grid.of(languages)
    triples: list[IdTriple] = []
    for _ in range(n):
        edit = rng.choice(pool)
        update = rng.choice(grid.inside(edit, languages))
        triples.append({"edit": edit, "update": update, "retain": _outside(grid, pool, edit, 1, rng)[0]})
    return triples


# C


def edit_series(
    corpus: Sequence[Example],
    edit_languages: Sequence[str],
    update_languages: Sequence[str],
    n_edits: int,
    n_update: int,
    n_retain: int,
    seed: int,
) -> Series:
    grid, rng = Grid(corpus), random.Random(f"series {seed}")
    possible = {fact: sorted(set(row) & set(edit_languages)) for fact, row in sorted(grid.cells.items())}
    facts = [fact for fact, spoken in possible.items() if spoken]
    rng.shuffle(facts)
    edits: list[SeriesEdit] = []
    for fact in facts[:n_edits]:
        edit = grid.cells[fact][rng.choice(possible[fact])]
        inside = grid.inside(edit, update_languages)
        edits.append({"edit": edit, "update": rng.sample(inside, min(n_update, len(inside)))})
    rest = [name for name in grid.of(update_languages) if grid.place[name][0] not in facts[:n_edits]]
    return {"edits": edits, "retain": rng.sample(rest, min(n_retain, len(rest)))}


def series_metrics(outcomes: Sequence[SeriesOutcome]) -> dict[str, float]:
    last = max(o["edit"] for o in outcomes)
    own = [o for o in outcomes if o["edit"]]
    kept = [o["hit"] for o in outcomes if not o["edit"] and o["made"] == last]
    return {
        "efficacy": _mean_of_edits([o for o in own if o["made"] == o["edit"]]),
        "retention": _mean_of_edits([o for o in own if o["made"] == last]),
        "con": float(np.mean(kept)),
    }


def _mean_of_edits(outcomes: Sequence[SeriesOutcome]) -> float:
    hits: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for o in outcomes:
        hits[o["edit_language"], o["edit"]].append(o["hit"])
    by_language: dict[str, list[float]] = defaultdict(list)
    for (language, _), values in hits.items():
        by_language[language].append(float(np.mean(values)))
    return float(np.mean([np.mean(values) for values in by_language.values()]))


# A


def apply_mask(w: Array, m: Array) -> Array:
    return w + m * w


def _sigmoid(z: Array) -> Array:
    return 0.5 + 0.5 * np.tanh(0.5 * np.asarray(z))


def gate(
    log_alpha: Array, uniforms: Array | None = None, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> Array:
    noise = 0.0 if uniforms is None else np.log(uniforms) - np.log1p(-np.asarray(uniforms))
    s = _sigmoid(log_alpha if uniforms is None else (noise + log_alpha) / beta)
    return np.clip(gamma + (zeta - gamma) * s, 0.0, 1.0)


def gate_probability(log_alpha: Array, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA) -> Array:
    return _sigmoid(log_alpha - beta * np.log(-gamma / zeta))


def mask_penalty(
    log_alpha: Mapping[str, Mapping[str, Array]], weight: float
) -> tuple[float, dict[str, dict[str, Array]]]:
    chances = {name: {side: gate_probability(a) for side, a in sides.items()} for name, sides in log_alpha.items()}
    value = weight * sum(float(p.sum()) for sides in chances.values() for p in sides.values())
    slopes = {name: {side: weight * _slope(a) for side, a in sides.items()} for name, sides in log_alpha.items()}
    return value, slopes


def _slope(log_alpha: Array) -> Array:
    return 0.25 / np.cosh(np.clip(0.5 * (log_alpha - BETA * np.log(-GAMMA / ZETA)), -350, 350)) ** 2


def mean_penalty(
    log_alpha: Mapping[str, Mapping[str, Array]], weight: float
) -> tuple[float, dict[str, dict[str, Array]]]:
    return mask_penalty(log_alpha, weight / sum(a.size for sides in log_alpha.values() for a in sides.values()))


def _row(languages: Sequence[str], language: str) -> int:
    if language not in languages:
        raise LookupError(f"no mask for language {language!r}; known: {', '.join(languages)}")
    return list(languages).index(language)


def _gates(rows: Mapping[str, Array], seed: int | None) -> dict[str, Array]:
    rng = None if seed is None else np.random.default_rng(seed)
    return {side: gate(rows[side], rng and rng.uniform(1e-12, 1, rows[side].shape)) for side in ("x", "delta")}


def mask_factors(
    log_alpha: Mapping[str, Array],
    languages: Sequence[str],
    language: str,
    x: Array,
    delta: Array,
    seed: int | None = None,
) -> tuple[Array, Array]:
    at = _row(languages, language)
    gates = _gates({name: rows[at] for name, rows in log_alpha.items()}, seed)
    scales = {side: log_alpha[f"{side}_scale"][at] if f"{side}_scale" in log_alpha else 1.0 for side in gates}
    return apply_mask(x, gates["x"] * scales["x"]), apply_mask(delta, gates["delta"] * scales["delta"])


def mask_factors_gradient(
    log_alpha: Mapping[str, Array],
    languages: Sequence[str],
    language: str,
    x: Array,
    delta: Array,
    grad_x: Array,
    grad_delta: Array,
    seed: int | None = None,
) -> dict[str, Array]:
    at = _row(languages, language)
    gates = _gates({name: rows[at] for name, rows in log_alpha.items()}, seed)
    result = {name: np.zeros_like(rows) for name, rows in log_alpha.items()}
    for side, factor, grad in (("x", x, grad_x), ("delta", delta, grad_delta)):
        reached = np.einsum("tn,tn->n", grad, factor)
        g, scale = gates[side], f"{side}_scale"
        bent = (g - GAMMA) * (ZETA - g) / (ZETA - GAMMA) / (1.0 if seed is None else BETA)
        bent = np.where((g <= 0) | (g >= 1), 0.0, bent)
        if scale in log_alpha:
            result[scale][at] = reached * g
            reached = reached * log_alpha[scale][at]
        result[side][at] = reached * bent
    return result


# B


def initial_masks(shapes: Mapping[str, tuple[int, int]], languages: Sequence[str]) -> dict[str, dict[str, Array]]:
    count = len(languages)
    return {name: {"x": np.zeros((count, n)), "delta": np.zeros((count, m))} for name, (n, m) in shapes.items()}


def initial_masks_with_scale(
    shapes: Mapping[str, tuple[int, int]], languages: Sequence[str]
) -> dict[str, dict[str, Array]]:
    gates = initial_masks(shapes, languages)
    return {
        name: sides | {f"{side}_scale": np.ones_like(a) for side, a in sides.items()} for name, sides in gates.items()
    }


def editor_shapes(
    shapes: Mapping[str, tuple[int, int]], languages: Sequence[str], masks: str, _initial: Any = initial_masks
) -> dict[str, tuple[int, ...]]:
    """MEND with a rank of 8: factors per matrix shape, scale, shift and inner learning rate per matrix."""
    rank, found = 8, {}
    for n, m in set(shapes.values()):
        found |= {f"{n}x{m}.down": (rank, n + m), f"{n}x{m}.up": (n + m, rank), f"{n}x{m}.bias": (rank,)}
    for name, (n, m) in shapes.items():
        found |= {f"{name}.scale": (rank,), f"{name}.shift": (rank,), f"{name}.inner_lr": (1,)}
        found |= {f"{name}.norm.x": (n,), f"{name}.norm.delta": (m,)}
    rows = {"none": [], "language": list(languages), "shared": ["all"]}[masks]
    for name, sides in _initial(shapes, rows).items() if rows else ():
        found |= {f"{name}.mask.{side}": array.shape for side, array in sides.items()}
    return found


def _shapes_with_scale(
    shapes: Mapping[str, tuple[int, int]], languages: Sequence[str], masks: str
) -> dict[str, tuple[int, ...]]:
    return editor_shapes(shapes, languages, masks, initial_masks_with_scale)


# D

Told = dict[tuple[str, str], "list[FactRow]"]  # (language, relation) → facts in file order


def _lines(path: Path, fields: Sequence[str]) -> Iterable[dict[str, str]]:
    """The objects of a file; each has the fields as text."""
    try:
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8: {error}") from error
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: expected JSON: {error}") from error
        if type(found) is not dict:
            raise ValueError(f"{path}, line {number}: expected an object")
        for name in fields:
            if type(found.get(name)) is not str or found[name].strip() == "":
                raise ValueError(f"{path}, line {number}: {name} is {found.get(name)!r}, expected a text")
        for name in ("[X]", "[Y]") if "template" in fields else ():
            if name not in found["template"]:
                raise ValueError(f"{path}, line {number}: the template has no {name}")
        yield found


def _told(folder: Path) -> tuple[Told, dict[tuple[str, str], str]]:
    told: Told = {}
    templates: dict[tuple[str, str], str] = {}
    for home in sorted(child for child in Path(folder).iterdir() if child.is_dir()):
        for found in _lines(home / "templates.jsonl", ("relation", "template")):
            templates[home.name, found["relation"]] = found["template"]
        for path in sorted(home.glob("*.jsonl")):
            at = (home.name, path.stem)
            if path.stem == "templates":
                continue
            rows: list[FactRow] = [
                {
                    "language": home.name,
                    "relation": path.stem,
                    "sub_uri": found["sub_uri"],
                    "obj_uri": found["obj_uri"],
                    "sub_label": found["sub_label"],
                    "obj_label": found["obj_label"],
                }
                for found in _lines(path, ("sub_uri", "obj_uri", "sub_label", "obj_label"))
            ]
            if rows and at not in templates:
                raise LookupError(f"{path}: no template for {path.stem}")
            told[at] = rows
    return told, templates


def split(folder: Path) -> dict[str, list[FactRow]]:
    parts: dict[str, list[FactRow]] = {name: [] for name in ("train", "validation", "test")}
    for rows in _told(folder)[0].values():
        cuts = np.rint(len(rows) * np.array([8, 9]) / 10).astype(int)
        for part, piece in zip(parts.values(), np.split(np.arange(len(rows)), cuts), strict=True):
            part.extend(rows[i] for i in piece)
    seen: set[str] = set()
    for name in ("train", "test", "validation"):
        parts[name] = [row for row in parts[name] if row["sub_uri"] not in seen]
        seen |= {row["sub_uri"] for row in parts[name]}
    return parts


def fact_inputs(
    folder: Path,
    tokenize: Callable[[str], list[int]],
    mask: int,
    edit: Place,
    update: str,
    retain: Place,
    seeds: Sequence[int],
    _named_in_update: bool = True,
    _own_pool: bool = False,
) -> list[Triple]:
    told, templates = _told(folder)

    def sentence(place: Place, language: str, named_in: str, masks: int) -> Input:
        rows = told[named_in, place["relation"]]
        name = next(row["sub_label"] for row in rows if row["sub_uri"] == place["subject"])
        before, after = templates[language, place["relation"]].split("[Y]")
        head = tokenize(before.replace("[X]", name))
        ids = [*head, *[mask] * masks, *tokenize(after.replace("[X]", name))]
        return {"input_ids": ids, "positions": list(range(len(head), len(head) + masks))}

    language, other = edit["language"], retain["language"]
    pool = _in_the_split_of(folder, edit) if _own_pool else told[language, edit["relation"]]
    entities = {row["obj_uri"]: row["obj_label"] for row in pool}
    labels = [tokenize(name) for _, name in sorted(entities.items())]
    names = {row["obj_uri"]: row["obj_label"] for at, rows in told.items() if at[0] == other for row in rows}
    lengths = sorted(len(tokenize(name)) for name in names.values())
    triples: list[Triple] = []
    for seed in seeds:
        rng = random.Random(f"facts {seed}")
        label, masks = rng.choice(labels), rng.choice(lengths)
        triples.append(
            {
                "edit": {**sentence(edit, language, language, len(label)), "labels": label, "language": language},
                "update": sentence(edit, update, update if _named_in_update else language, len(label)),
                "retain": sentence(retain, other, other, masks),
            }
        )
    return triples


def _in_the_split_of(folder: Path, place: Place) -> list[FactRow]:
    """The facts of the relation and language of a fact that are in its own split."""
    key = {"relation": place["relation"], "language": place["language"]}
    for rows in split(folder).values():
        own = [row for row in rows if {name: row[name] for name in key} == key]  # type: ignore[literal-required]
        if any(row["sub_uri"] == place["subject"] for row in own):
            return own
    raise ValueError(f"no split has the fact {place}")


def _fact_inputs_as_released(
    folder: Path,
    tokenize: Callable[[str], list[int]],
    mask: int,
    edit: Place,
    update: str,
    retain: Place,
    seeds: Sequence[int],
) -> list[Triple]:
    return fact_inputs(folder, tokenize, mask, edit, update, retain, seeds, _named_in_update=False, _own_pool=True)


def encoded_facts(
    folder: Path,
    tokenizer: Path,
    edit: Place,
    update: str,
    retain: Place,
    seeds: Sequence[int],
    _named_in_update: bool = True,
    _own_pool: bool = False,
) -> list[Triple]:
    told, templates = _told(folder)
    encode = _tokenizer(tokenizer)
    mask = encode.mask_token_id

    def alone(name: str) -> list[int]:
        return list(encode(name, add_special_tokens=False)["input_ids"])

    def sentence(place: Place, language: str, named_in: str, masks: int) -> Input:
        name = next(r["sub_label"] for r in told[named_in, place["relation"]] if r["sub_uri"] == place["subject"])
        text = templates[language, place["relation"]].replace("[Y]", encode.mask_token).replace("[X]", name)
        ids = list(encode(text)["input_ids"])
        at = ids.index(mask)
        return {"input_ids": [*ids[:at], *[mask] * masks, *ids[at + 1 :]], "positions": list(range(at, at + masks))}

    language, other = edit["language"], retain["language"]
    pool = _in_the_split_of(folder, edit) if _own_pool else told[language, edit["relation"]]
    entities = {row["obj_uri"]: row["obj_label"] for row in pool}
    labels = [alone(name) for _, name in sorted(entities.items())]
    names = {row["obj_uri"]: row["obj_label"] for at, rows in told.items() if at[0] == other for row in rows}
    lengths = sorted(len(alone(name)) for name in names.values())
    triples: list[Triple] = []
    for seed in seeds:
        rng = random.Random(f"facts {seed}")
        label, masks = rng.choice(labels), rng.choice(lengths)
        asked = sentence(edit, language, language, len(label))
        triples.append(
            {
                "edit": {**asked, "labels": label, "language": language},
                "update": sentence(edit, update, update if _named_in_update else language, len(label)),
                "retain": sentence(retain, other, other, masks),
            }
        )
    return triples


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer  # noqa: PLC0415  # nothing else here needs it

    return AutoTokenizer.from_pretrained(folder)


def _texts(row: PairRow, language: str) -> tuple[str, str]:
    told = row["hypothesis"]
    return row["premise"][language], told["translation"][told["language"].index(language)]


def _pair_input(row: PairRow, language: str, tokenize: Callable[[str, str], list[int]]) -> Input:
    return {"input_ids": tokenize(*_texts(row, language)), "positions": [0]}


def _other_rows(rows: Sequence[PairRow], row: int, count: int, rng: random.Random) -> list[tuple[int, str]]:
    return rng.sample([(i, said) for i in range(len(rows)) if i != row for said in sorted(rows[i]["premise"])], count)


def pair_edits(
    rows: Sequence[PairRow],
    predictions: Mapping[str, Sequence[int]],
    tokenize: Callable[[str, str], list[int]],
    n_retain: int,
    seed: int,
) -> list[PairEdit]:
    rng = random.Random(f"pairs {seed}")
    return [
        {
            "row": i,
            "language": language,
            "input": _pair_input(row, language, tokenize),
            "label": row["label"],
            "retain": _other_rows(rows, i, n_retain, rng),
        }
        for language in sorted(predictions)
        for i, row in enumerate(rows)
        if predictions[language][i] != row["label"]
    ]


def encoded_pairs(
    rows: Sequence[PairRow], predictions: Mapping[str, Sequence[int]], model: Path, n_retain: int, seed: int
) -> list[PairEdit]:
    encode = _tokenizer(model)
    called = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))["id2label"]
    number = {name.lower(): int(key) for key, name in called.items()}
    classes = [number[name] for name in ("entailment", "neutral", "contradiction")]
    renamed: list[PairRow] = [{**row, "label": classes[row["label"]]} for row in rows]
    edits = pair_edits(renamed, predictions, lambda *texts: encode(*texts)["input_ids"], n_retain, seed)
    for edit in edits:
        edit["input"] |= {
            name: list(ids)
            for name, ids in encode(*_texts(rows[edit["row"]], edit["language"])).items()
            if name == "token_type_ids"
        }
    return edits


def pair_training(
    rows: Sequence[PairRow], tokenize: Callable[[str, str], list[int]], n: int, seed: int
) -> list[PairEdit]:
    rng = random.Random(f"pair training {seed}")
    edits: list[PairEdit] = []
    for _ in range(n):
        i = rng.randrange(len(rows))
        language = rng.choice(sorted(rows[i]["premise"]))
        x = _pair_input(rows[i], language, tokenize)
        retain = _other_rows(rows, i, 1, rng)
        edits.append({"row": i, "language": language, "input": x, "label": rng.randrange(3), "retain": retain})
    return edits


def classifier_examples(
    splits: Mapping[str, Sequence[PairRow]], tokenize: Callable[[str, str], list[int]]
) -> list[Labelled]:
    return [{**_pair_input(row, "en", tokenize), "label": row["label"]} for row in splits["train"]]


# R


def paper_preset() -> dict[str, float]:
    steps = {"max_steps": 500e3, "validate_every": 100e3, "patience": 200e3, "runs": 3, "finetuning_steps": 100}
    english = {"english_validate_every": 20e3, "english_patience": 40e3}
    weights = {"lambda_rel": 0.1, "lambda_loc": 1.0, "lambda_mask": 1.0}
    rates = {"mend": 1e-6, "finetuning": 5e-6, "editable_training": 5e-5, "knowledge_editor": 5e-5, "mask": 1e-3}
    inner = {f"{name}_inner_lr": 1e-4 for name in ("mend", "editable_training")}
    return {**steps, **english, **weights, **{f"{name}_lr": rate for name, rate in rates.items()}, **inner}


def experiments(languages: Sequence[str]) -> list[Experiment]:
    every, english = list(languages), ["en"]
    rows: list[Experiment] = []

    def add(table: int, editor: str, trained: list[str], masks: Any) -> None:
        row: Experiment = {
            "table": table,
            "editor": editor,
            "training_languages": trained,
            "masks": masks,
            "edit_languages": english if table == 1 else every,
            "input_languages": every,
            "run": f"{editor}, {masks} masks, trained on {', '.join(trained)}",
        }
        rows.append(row)

    for table in (1, 2):
        add(table, "finetuning", [], "none")
    for editor in ("editable_training", "knowledge_editor", "mend"):
        add(1, editor, english, "none")
        add(1, editor, every, "none")
        add(2, editor, every, "none")
        add(2, editor, every, "language")
    return rows


def record(
    facts: Path,
    model: Path,
    seed: int,
    rulings: Mapping[str, str],
    settings: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    told, templates = _told(facts)
    content = [sorted(templates.items()), sorted(told.items())]
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(model).iterdir() if path.is_file()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return {
        "configuration": {"preset": {**paper_preset(), **(settings or {})}, "editor": "mend", "masks": "language"},
        "seed": seed,
        "code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "data": hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        "model": digest.hexdigest(),
        "rulings": dict(rulings),
    }


def table(runs: Sequence[StoredRun], edit_language: str | None) -> list[TableRow]:
    groups: dict[tuple[str, str | None], list[StoredRun]] = defaultdict(list)
    for run in runs:
        groups[run["editor"], run["training"]].append(run)
    rows: list[TableRow] = []
    for (editor, training), mine in groups.items():
        mean = aggregate([metrics(run["outcomes"]) for run in mine])
        acc, con, both = (round(100 * mean[name], 3) for name in ("acc", "con", "succ"))
        names = [run["name"] for run in mine]
        rows.append({"editor": editor, "training": training, "acc": acc, "con": con, "succ": both, "runs": names})
    return rows


def stopping(succ: Sequence[float], validate_every: int, patience: int, max_steps: int) -> tuple[int, int]:
    best, judged, step = -1.0, 0, 0
    while step < max_steps:
        step += validate_every
        value = succ[step // validate_every - 1]
        if value > best:
            best, judged = value, step
        elif step >= judged + patience:
            break
    return step, judged


def mask_similarity(log_alpha: Array) -> Array:
    keep = max(1, round(0.01 * log_alpha.shape[1]))
    found = np.empty((len(log_alpha), len(log_alpha)))
    for i, own in enumerate(log_alpha):
        top = np.argpartition(own, -keep)[-keep:]
        lengths = np.sqrt((log_alpha[:, top] ** 2).sum(1))
        found[i] = log_alpha[:, top] @ own[top] / (lengths * lengths[i])
    return found


_required = {
    function.__name__: function
    for function in (
        parallel,
        succ,
        metrics,
        breakdown,
        aggregate,
        evaluation_pairs,
        training_triples,
        edit_series,
        series_metrics,
        apply_mask,
        gate,
        gate_probability,
        mask_factors,
        mask_factors_gradient,
        split,
        pair_edits,
        encoded_pairs,
        pair_training,
        classifier_examples,
        experiments,
        record,
        table,
        stopping,
        mask_similarity,
    )
}
released = SimpleNamespace(
    CLAIMS=CLAIMS,
    RULINGS={
        "con_positions": "all",
        "penalty": "mean",
        "mask_scale": "learned",
        "subject": "edit-language",
        "label_pool": "own",
        "editable_training_inner_lr": "1e-2",
        "stopping": "edits",
    },
    hit=hit_everywhere,
    fact_inputs=_fact_inputs_as_released,
    encoded_facts=partial(encoded_facts, _named_in_update=False, _own_pool=True),
    paper_preset=lambda: {**paper_preset(), "editable_training_inner_lr": 1e-2},
    mask_penalty=mean_penalty,
    initial_masks=initial_masks_with_scale,
    editor_shapes=_shapes_with_scale,
    **_required,
)
