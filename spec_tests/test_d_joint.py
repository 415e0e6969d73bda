"""Chapter D, joint draws and other processes: what pairs and facts are drawn together, and under any hash seed."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from . import elsewhere, strategies as given_
from .assertions import assume, distributed, equal, holds
from .conformance import Implementation, clause, needs
from .contract import PairEdit, PairRow
from .test_d_data import (
    EDIT,
    MASK,
    PAIRS,
    RAW,
    RETAIN,
    WORLD,
    canonical,
    folder_of,
    plain,
    tokenize,
    tokenize_pair,
    written as written_,
)
from .test_s_joint import mixtures

TRAINED = 12_000
#: More languages than a set keeps in order by chance.
MANY = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw")


@pytest.fixture(scope="module")
def trained(implementation: Implementation) -> list[PairEdit]:
    """12,000 training edits of pairs."""
    return implementation.pair_training(PAIRS, tokenize_pair, TRAINED, 6)


def independent(what: str, pairs: list[tuple[Any, Any]]) -> None:
    """One value tells nothing of the other."""
    first, second = (Counter(values) for values in zip(*pairs, strict=True))
    expected = {(a, b): first[a] * second[b] / len(pairs) for a in first for b in second}
    distributed("D7", Counter(pairs), expected, what)


@clause("D7", "S10")
def test_what_a_training_edit_draws_is_drawn_apart(trained: list[PairEdit]) -> None:
    """Language, desired class, retained language and row say nothing of each other, nor of the step before."""
    retained = [edit["retain"][0] for edit in trained]
    classes, said = [edit["label"] for edit in trained], [edit["language"] for edit in trained]
    independent("language and desired class", list(zip(said, classes, strict=True)))
    triples = [(edit["language"], edit["row"] % 3) for edit in trained]
    independent("language and row, and desired class", list(zip(triples, classes, strict=True)))
    independent("row and desired class", [(edit["row"], edit["label"]) for edit in trained])
    independent("language of the edit and of x_r", [(a, b) for a, (_, b) in zip(said, retained, strict=True)])
    independent("desired class and language of x_r", [(a, b) for a, (_, b) in zip(classes, retained, strict=True)])
    independent("desired classes of neighbouring steps", list(itertools.pairwise(classes))[::2])
    independent("languages of neighbouring steps", list(itertools.pairwise(said))[::2])
    again = sum(a["row"] == b["row"] and a["language"] == b["language"] for a, b in itertools.pairwise(trained))
    steps, places = len(trained) - 1, len(PAIRS) * len(RAW)
    expected = {True: steps / places, False: steps * (1 - 1 / places)}
    distributed("D7", {True: again, False: steps - again}, expected, "pairs that are edited twice in a row")


@clause("S7")
@needs("D")
def test_what_is_drawn_for_pairs_follows_the_seed(implementation: Implementation) -> None:
    """Each draw of a training of pairs for itself, also where two seeds happen to edit one pair at one step."""
    seeds, steps = (0, 1, 2, 3, 7, 7 + 2**8, 7 + 2**16), 400
    made = {seed: implementation.pair_training(PAIRS, tokenize_pair, steps, seed) for seed in seeds}
    kinds: dict[str, Callable[[PairEdit], Any]] = {
        "row": lambda edit: edit["row"],
        "language": lambda edit: edit["language"],
        "desired class": lambda edit: edit["label"],
        "retained pair": lambda edit: tuple(edit["retain"][0]),
    }
    couples = {
        both: list(zip(*(made[seed] for seed in both), strict=True)) for both in itertools.combinations(seeds, 2)
    }
    for (both, pairs), (what, of) in itertools.product(couples.items(), kinds.items()):
        same = sum(of(a) == of(b) for a, b in pairs)
        told = f"steps at which two seeds draw one {what}"
        # A third by chance.
        holds("S7", same < 0.6 * steps, told, expected=f"less than 60% of {steps}", got=same, seeds=both)
    again: dict[Any, set[int]] = {}
    for edit in made[0]:
        again.setdefault((edit["row"], edit["language"]), set()).add(edit["label"])
    assume(any(len(classes) > 1 for classes in again.values()), "the class of a training follows from the pair (D7)")
    met = [(a, b) for pairs in couples.values() for a, b in pairs if kinds["row"](a) == kinds["row"](b)]
    met = [(a, b) for a, b in met if kinds["language"](a) == kinds["language"](b)]
    assume(len(met) >= 50, f"only {len(met)} pairs are edited at one step under two seeds")
    for what in ("desired class", "retained pair"):
        same = sum(kinds[what](a) == kinds[what](b) for a, b in met)
        told = f"pairs that two seeds edit at one step with one {what}"
        holds("S7", same < 0.8 * len(met), told, expected=f"less than 80% of {len(met)}", got=same)


@clause("D7", "S10")
def test_retained_pairs_of_an_edit_mix_languages_and_rows(implementation: Implementation) -> None:
    """Three retain inputs of each of 6,200 edits: their languages are those of any three other pairs."""
    edits = [e for seed in range(200) for e in implementation.pair_edits(PAIRS, RAW, tokenize_pair, 3, seed)]
    kept = [edit for edit in edits if len(set(map(tuple, edit["retain"]))) == 3]
    sizes = tuple((said, len(PAIRS) - 1) for said in sorted(RAW))
    expected = {kinds: len(kept) * share for kinds, share in mixtures(sizes, 3).items()}
    found = Counter(tuple(sorted(said for _, said in edit["retain"])) for edit in kept)
    distributed("D7", found, expected, "languages of an edit's three retain inputs")
    rows = Counter(len({row for row, _ in edit["retain"]}) == 3 for edit in kept)
    others = (len(PAIRS) - 1) * len(RAW)
    alone = (others - len(RAW)) * (others - 2 * len(RAW)) / ((others - 1) * (others - 2))
    distributed("D7", rows, {True: alone * len(kept), False: (1 - alone) * len(kept)}, "edits with three other rows")


# Other processes


def many_rows() -> list[PairRow]:
    """Rows in ten languages."""
    return [
        {
            "premise": {said: f"{said} premise {row}" for said in MANY},
            "hypothesis": {"language": list(MANY), "translation": [f"{said} claim {row}" for said in MANY]},
            "label": row % 3,
        }
        for row in range(6)
    ]


def everything(implementation: Any) -> Any:
    """What the functions of this chapter draw and read, as JSON has it."""
    rows = many_rows()
    predictions = {said: [(row["label"] + (len(said) + i) % 2) % 3 for i, row in enumerate(rows)] for said in MANY}
    with folder_of(written_(WORLD)) as folder:
        parts = canonical(implementation.split(folder))
        triples = implementation.fact_inputs(folder, tokenize, MASK, EDIT, "de", RETAIN, range(20))
    drawn = [[list(t["edit"]["labels"]), *(plain(t[role]) for role in ("edit", "update", "retain"))] for t in triples]
    evaluated = implementation.pair_edits(rows, predictions, tokenize_pair, 2, 3)
    english = implementation.pair_edits(rows, {"en": predictions["en"]}, tokenize_pair, 2, 3)
    trained_on = implementation.pair_training(rows, tokenize_pair, 60, 3)
    learned = implementation.classifier_examples({"train": rows, "validation": [], "test": []}, tokenize_pair)
    told = {
        "splits": parts,
        "facts": drawn,
        "edits": sorted(_said(edit) for edit in evaluated),
        "English edits": sorted(_said(edit) for edit in english),
        "training": [_said(edit) for edit in trained_on],
        "classifier": sorted([list(x["input_ids"]), int(x["label"])] for x in learned),
    }
    return json.loads(json.dumps(told))


def _said(edit: PairEdit) -> list[Any]:
    retained = sorted([int(row), said] for row, said in edit["retain"])
    return [int(edit["row"]), edit["language"], int(edit["label"]), list(edit["input"]["input_ids"]), retained]


@clause("D7", "D9", "S7")
def test_data_are_the_same_under_any_hash_seed(implementation: Implementation) -> None:
    """Another process under another PYTHONHASHSEED reads the same splits and draws the same facts and pairs."""
    expected = everything(implementation)
    (found,) = (told["D"] for told in elsewhere.told(implementation, "D9", "4242").values())
    for what, wanted in expected.items():
        where = "D7" if "edits" in what or what == "training" else "D9"
        equal(where, found[what], wanted, f"{what} in another process")


@clause("D7")
def test_every_pair_is_told_in_its_language(implementation: Implementation) -> None:
    """In ten languages: premise and hypothesis are those of the edit's language, in evaluation and in training."""
    rows = many_rows()
    predictions = {said: [(row["label"] + 1) % 3 for row in rows] for said in MANY}
    edits = [
        *implementation.pair_edits(rows, predictions, tokenize_pair, 1, 0),
        *implementation.pair_edits(rows, {"en": predictions["en"]}, tokenize_pair, 1, 0),
        *implementation.pair_training(rows, tokenize_pair, 100, 0),
    ]
    for edit in edits:
        said, row = edit["language"], edit["row"]
        expected = tokenize_pair(f"{said} premise {row}", f"{said} claim {row}")
        equal("D7", list(edit["input"]["input_ids"]), expected, "input of a pair", row=row, language=said)


@clause("D9", "D2")
def test_equal_content_of_another_language_order_is_the_same(implementation: Implementation) -> None:
    """Folders of languages that are written in another order: the same splits and the same draws."""
    files = written_([given_.fact_row(said, "P17", n, n) for said in ("sw", "de", "en") for n in range(12)])
    found = []
    for chosen in (files, dict(sorted(files.items())), dict(sorted(files.items(), reverse=True))):
        with folder_of(chosen) as folder:
            place = {"relation": "P17", "subject": "Q1", "language": "en"}
            triples = implementation.fact_inputs(folder, tokenize, MASK, place, "sw", place | {"subject": "Q2"}, [0, 1])
            found.append((canonical(implementation.split(folder)), [list(t["edit"]["labels"]) for t in triples]))
    equal("D9", found[1:], [found[0]] * 2, "splits and labels of a folder that was written in another order")
