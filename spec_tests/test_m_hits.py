"""Chapter M, hits: rows whose tokens are right, in the wrong places."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, strategies as st

from .assertions import equal
from .conformance import Implementation, clause

#: What fits into so many bits is less than a vocabulary.
BITS = (1 << 7, 1 << 8, 1 << 15, 1 << 16)
roles = pytest.mark.parametrize("role", ["update", "retain"])


@st.composite
def names(draw: st.DrawFn) -> dict[str, Any]:
    """A name of some tokens, some of them repeated, with words before, behind and between; and the places of masks."""
    before, behind, masks = draw(st.integers(0, 4)), draw(st.integers(0, 6)), draw(st.integers(1, 9))
    gaps = draw(st.lists(st.booleans(), min_size=masks, max_size=masks))
    is_mask = [False] * before
    for gap in gaps:
        is_mask += [True, *([False] if gap else [])]
    is_mask += [False] * behind
    tokens = draw(st.lists(st.integers(0, 4), min_size=len(is_mask), max_size=len(is_mask)))
    return {"expected": tokens, "is_mask": is_mask}


def filled(expected: list[int], is_mask: list[bool], tokens: list[int]) -> list[int]:
    """The row with these tokens at its masks."""
    found = iter(tokens)
    return [next(found) if counts else token for token, counts in zip(expected, is_mask, strict=True)]


def at_masks(row: dict[str, Any]) -> list[int]:
    return [token for token, counts in zip(row["expected"], row["is_mask"], strict=True) if counts]


def check(implementation: Implementation, row: dict[str, Any], tokens: list[int], role: str, expected: bool) -> None:
    predicted = filled(row["expected"], row["is_mask"], tokens)
    got = implementation.hit(predicted, row["expected"], row["is_mask"], role)
    equal("M7", got, expected, "hit", predicted=predicted, role=role, **row)


@clause("M7")
@roles
@given(names(), st.data())
def test_the_right_tokens_in_other_places_are_a_miss(
    implementation: Implementation, role: str, row: dict[str, Any], data: st.DataObject
) -> None:
    """A permutation of the expected tokens hits only where it is the same row."""
    right = at_masks(row)
    tokens = data.draw(st.permutations(right))
    check(implementation, row, tokens, role, tokens == right)


@clause("M7")
@roles
@given(names(), st.data())
def test_repeated_tokens_count_as_often_as_they_stand(
    implementation: Implementation, role: str, row: dict[str, Any], data: st.DataObject
) -> None:
    """Of two different tokens, one in the place of the other is a miss, though both are expected somewhere."""
    right = at_masks(row)
    here, there = (data.draw(st.integers(0, len(right) - 1)) for _ in range(2))
    assume(right[here] != right[there])
    wrong = [right[there] if place == here else token for place, token in enumerate(right)]
    check(implementation, row, wrong, role, expected=False)


@clause("M7")
@roles
@pytest.mark.parametrize("count", [1, 2, 3, 6, 12, 30])
def test_every_position_counts_in_rows_of_any_length(implementation: Implementation, role: str, count: int) -> None:
    """One wrong token in the first, the last or any other place of a name is a miss; none is a hit."""
    row = {"expected": [9, *range(10, 10 + count), 9, 9], "is_mask": [False, *[True] * count, False, False]}
    right = at_masks(row)
    check(implementation, row, right, role, expected=True)
    for place in range(count):
        check(implementation, row, [t + (i == place) for i, t in enumerate(right)], role, expected=False)
        # What one place lacks another one has.
        check(implementation, row, [t + (i == place) - (i == place - 1) for i, t in enumerate(right)], role, False)


@clause("M7")
@roles
@pytest.mark.parametrize(
    ("expected", "predicted"),
    [([12, 1], [1, 21]), ([1, 12], [11, 2]), *(([7, 119_000 % bits], [7, 119_000 % bits + bits]) for bits in BITS)],
)
def test_tokens_are_compared_as_whole_numbers(
    implementation: Implementation, role: str, expected: list[int], predicted: list[int]
) -> None:
    """Neither the digits of a row nor the last bits of a token make a hit; a vocabulary is large."""
    row = {"expected": expected, "is_mask": [True, True]}
    check(implementation, row, expected, role, expected=True)
    check(implementation, row, predicted, role, expected=False)


@clause("M7")
@roles
@given(names())
def test_a_row_of_one_wrong_token_everywhere_is_a_miss(
    implementation: Implementation, role: str, row: dict[str, Any]
) -> None:
    """Whatever else the row is like."""
    check(implementation, row, [7] * len(at_masks(row)), role, expected=False)


@clause("M7")
@roles
@pytest.mark.parametrize("count", [2, 3, 5])
def test_runs_of_one_token_have_their_lengths(implementation: Implementation, role: str, count: int) -> None:
    """One token some times and another behind it: a hit only where it is as many times."""
    for expected in range(count + 1):
        row = {"expected": [9, *[4] * expected, *[5] * (count - expected)], "is_mask": [False, *[True] * count]}
        for predicted in range(count + 1):
            tokens = [4] * predicted + [5] * (count - predicted)
            check(implementation, row, tokens, role, predicted == expected)
