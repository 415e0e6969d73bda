"""The strategies reach the cases at which implementations go wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, settings, strategies as st

from .. import oracles, strategies as given_

SEARCH = settings(
    max_examples=2000,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def fact_missing(corpus: Any) -> bool:
    spoken = Counter(e["fact"] for e in corpus)
    return min(spoken.values()) < len(given_.languages_of(corpus))


def out_of_order(corpus: Any) -> bool:
    return [e["id"] for e in corpus] != sorted(e["id"] for e in corpus)


def nothing_to_update(call: Any) -> bool:
    edits = [e for e in call["corpus"] if e["language"] in call["edit_languages"]]
    return any(not oracles.parallel(call["corpus"], e["id"], call["update_languages"]) for e in edits)


def disjoint_languages(call: Any) -> bool:
    return not set(call["edit_languages"]) & set(call["update_languages"])


def fewer_parallels_than_asked(call: Any) -> bool:
    edits = [e["id"] for e in call["corpus"] if e["language"] in call["edit_languages"]]
    return any(len(oracles.parallel(call["corpus"], e, call["update_languages"])) < call["n_update"] for e in edits)


def uneven_edits(rows: Any) -> bool:
    """Weighing inputs, edits or languages makes a difference."""
    micro = np.mean([o["hit"] for o in rows if o["role"] == "update"])
    per_edit = {o["edit"]: [p["hit"] for p in rows if p["edit"] == o["edit"] and p["role"] == "update"] for o in rows}
    edits = np.mean([np.mean(hits) for hits in per_edit.values() if hits])
    macro = float(oracles.metrics(rows)["acc"])
    return len({round(float(value), 9) for value in (micro, edits, macro)}) == 3


def succ_differs_from_its_average(rows: Any) -> bool:
    languages = {o["edit_language"] for o in rows}
    average = oracles.mean([oracles.metrics(rows, [language])["succ"] for language in sorted(languages)])
    return average != oracles.metrics(rows)["succ"]


def edit_with_one_role(rows: Any) -> bool:
    roles: dict[str, set[str]] = {}
    for o in rows:
        roles.setdefault(o["edit"], set()).add(o["role"])
    return any(len(found) == 1 for found in roles.values())


def only_padding_differs(row: Any) -> bool:
    places = list(zip(row["predicted"], row["expected"], row["is_mask"], strict=True))
    return any(p != e for p, e, _ in places) and all(p == e for p, e, mask in places if mask)


def one_of_several_tokens_wrong(row: Any) -> bool:
    hits = [p == e for p, e, mask in zip(row["predicted"], row["expected"], row["is_mask"], strict=True) if mask]
    return len(hits) > 1 and any(hits) and not all(hits)


def square(case: Any) -> bool:
    return case["x"].shape[1] == case["delta"].shape[1] > 1


def unsorted_languages(case: Any) -> bool:
    return case["languages"] != sorted(case["languages"])


def row_of_another(case: Any) -> bool:
    return case["languages"].index(case["language"]) > 0 and bool(np.ptp(case["log_alpha"]["x"], axis=0).any())


def several_tokens(case: Any) -> bool:
    return len(case["x"]) > 1 and bool(np.ptp(case["x"], axis=0).any())


def saturated(array: Any) -> bool:
    return bool(np.any(array < -700) and np.any(array > 700))


def closed_and_open(array: Any) -> bool:
    """Gates of test time at both ends, log α within the bound."""
    gates = np.array([oracles.deterministic_gate(float(a), -0.1, 1.1) for a in array.ravel()])
    return bool(np.any(gates == 0) and np.any(gates == 1) and np.all(abs(array) <= np.log(100) + 1e-6))


def extreme_draw(array: Any) -> bool:
    return bool(np.any(array < 1e-9) and np.any(array > 1 - 1e-9))


def all_splits_after_dropping(rows: Any) -> bool:
    parts = oracles.split(rows)
    return all(parts.values()) and sum(map(len, parts.values())) < len(rows)


def subject_of_two_languages(rows: Any) -> bool:
    return len({row["sub_uri"] for row in rows}) < len({(row["sub_uri"], row["language"]) for row in rows})


HARD: list[tuple[st.SearchStrategy[Any], Callable[[Any], bool]]] = [
    (given_.corpora(), fact_missing),
    (given_.corpora(), out_of_order),
    (given_.corpora(), lambda corpus: len(given_.languages_of(corpus)) == 1),
    (given_.evaluations(), nothing_to_update),
    (given_.evaluations(), disjoint_languages),
    (given_.evaluations(), fewer_parallels_than_asked),
    (given_.outcomes(), uneven_edits),
    (given_.outcomes(), succ_differs_from_its_average),
    (given_.outcomes(), edit_with_one_role),
    (given_.outcomes(), lambda rows: not any(o["hit"] for o in rows)),
    (given_.padded_rows(), only_padding_differs),
    (given_.padded_rows(), one_of_several_tokens_wrong),
    (given_.padded_rows(), lambda row: row["predicted"] == row["expected"]),
    (given_.masked_edits(learned=False), square),
    (given_.masked_edits(learned=False), unsorted_languages),
    (given_.masked_edits(learned=False), row_of_another),
    (given_.masked_edits(learned=False), several_tokens),
    (given_.masked_edits(learned=True), lambda case: case["log_alpha"]["x_scale"].min() < 0),
    (given_.arrays((2, 3), given_.any_log_odds), saturated),
    (given_.arrays((2, 3), given_.log_odds), closed_and_open),
    (given_.arrays((2, 3), given_.uniforms), extreme_draw),
    (given_.fact_rows(), all_splits_after_dropping),
    (given_.fact_rows(), subject_of_two_languages),
    (given_.matrices(), lambda shapes: any(n == m for n, m in shapes.values()) and len(set(shapes.values())) > 1),
]


@pytest.mark.parametrize(("strategy", "is_hard"), HARD, ids=[f"{place}" for place in range(len(HARD))])
def test_hard_cases_are_reached(strategy: st.SearchStrategy[Any], is_hard: Callable[[Any], bool]) -> None:
    """Among 2,000 examples there is one (hypothesis.find raises NoSuchExample where there is none)."""
    assert is_hard(find(strategy, is_hard, settings=SEARCH))
