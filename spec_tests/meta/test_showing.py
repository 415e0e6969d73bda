"""What a failure shows: short values, the first difference, and no more than a reader can read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from ..assertions import close, differs, distributed, equal, holds, near, rejects, same_bits
from ..conformance import Violation
from ..showing import IN_A_LINE, LONGEST, cut, pair, said, shown
from ..telling import without_progress


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@dataclass(frozen=True)
class Batch:
    hidden: Any
    labels: list[int]


ROWS = [{"edit": "a", "hit": True}, {"edit": "b", "hit": False}]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2 / 3, "0.666667"),
        (1.0, "1"),
        (np.float32(0.1), "0.1"),
        (float("nan"), "nan"),
        (True, "True"),
        (None, "None"),
        ("en", "'en'"),
        ((1,), "(1,)"),
        ([], "nothing"),
        ({"b", "a"}, "{'a', 'b'}"),
        ({"acc": 0.25}, "{'acc': 0.25}"),
        (torch.ones(2), "[1, 1]"),
        (np.arange(80.0).reshape(8, 10), "array of shape [8, 10], from 0 to 79"),
        (np.array([np.nan] * 50), "array of shape [50], 50 not finite"),
        (torch.nn.Sequential(torch.nn.Linear(1, 1)), "a Sequential"),
        (ROWS, "[(edit, hit) = ('a', True), ('b', False)]"),
        (Batch(np.arange(80.0), [1]), "Batch(hidden=array of shape [80], from 0 to 79, labels=[1])"),
        (Unshowable(), "a Unshowable that cannot be shown (RuntimeError in its repr)"),
    ],
)
def test_values_are_short(value: Any, text: str) -> None:
    """Six digits, arrays by shape and range, fields of records once; no repr of the implementation's ends a test."""
    assert shown(value) == text


@pytest.mark.parametrize(
    "value", ["x" * 10**6, list(range(10**5)), [["x" * 5000] * 50] * 50, {n: n for n in range(9999)}]
)
def test_long_values_are_cut(value: Any) -> None:
    """And say how long they are, or how many."""
    assert len(shown(value)) <= LONGEST + 40
    assert any(word in shown(value) for word in ("characters)", "in all"))
    assert cut("x" * 10**6) == "x" * LONGEST + " … (1,000,000 characters)"
    assert cut("x" * LONGEST) == "x" * LONGEST


@pytest.mark.parametrize(
    ("expected", "got", "told"),
    [
        (0.1234567, 0.1234568, ("0.1234567", "0.1234568")),
        ([1] * 100, [1] * 99 + [2], ("1 at [99]", "2")),
        ([[n, n] for n in range(99)], [[n, n % 70] for n in range(99)], ("[70, 70] at [70]", "[70, 0]")),
        ([{"a": [0] * 50 + [n]} for n in (1, 2)], [{"a": [0] * 50 + [n]} for n in (1, 3)], ("2 at [1]['a'][50]", "3")),
        ({*range(100)}, {*range(1, 100)}, ("{0} among others", "no more")),
        (list(range(50)), list(range(51)), ("nothing at [50]", "50")),
        ({"a": "x" * 200}, {"b": "x" * 200}, (f"'{'x' * 119} … at ['a']", "nothing")),
    ],
)
def test_two_values_differ_where_it_is_seen(expected: Any, got: Any, told: tuple[str, str]) -> None:
    """Digits enough, and of long ones the first place."""
    assert pair(expected, got) == told


def test_counts_of_tuples_are_no_plain_data() -> None:
    """And shown all the same."""
    counts = Counter({("sw", str(n)): n for n in range(99)})
    one, other = pair(counts, {})
    assert (one[:13], other) == ("{('sw', '0'):", "nothing")
    assert len(one) <= IN_A_LINE + 2


def test_words_are_not_quoted() -> None:
    assert [said(value) for value in ("a finite number", "", " x", 0.5)] == ["a finite number", "''", "' x'", "0.5"]


def array(last: float) -> Any:
    return np.append(np.zeros(79), last).reshape(8, 10)


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (lambda: close("L4", 0.31, 0.25, "loss of edit 0"), "loss of edit 0: expected 0.25, got 0.31"),
        (lambda: close("L4", [1, 2], [1], "losses"), "losses: expected shape [1], got shape [2]"),
        (lambda: close("L4", None, 0.5, "loss"), "loss: expected 0.5, got None"),
        (lambda: close("L4", "much", 0.5, "loss"), "loss: expected numbers, got much"),
        (
            lambda: near("E1", array(2), array(1), "ΔW"),
            "ΔW: expected 1, got 2 at [7, 9] of [8, 10], where they are farthest apart",
        ),
        (
            lambda: same_bits("E1", array(2), array(1), "ΔW"),
            "ΔW, bit for bit: expected 1, got 2 at [7, 9] of [8, 10], where they are farthest apart",
        ),
        (
            lambda: differs("E1", array(1), array(1), "gates", expected="other gates"),
            "gates: expected other gates, got array of shape [8, 10], from 0 to 1",
        ),
        (lambda: holds("S2", False, "x_u", expected="an example", got="f0/en"), "x_u: expected an example, got f0/en"),
        (
            lambda: distributed("S2", {"de": 2000, "fr": 900}, {"de": 1000.0, "fr": 1000.0, "sw": 900.0}, "languages"),
            "languages: chi-square 1910.0 over 27.6 in 2,900 draws: expected 'de' 1000 times, got 2000 times",
        ),
        (lambda: equal("S2", ["a"], ["b"], "inputs"), "inputs: expected ['b'], got ['a']"),
        (
            lambda: rejects("A10", lambda: [1], ("xx",), "a language"),
            "a language: expected a ValueError or LookupError naming 'xx', got no error, and [1]",
        ),
    ],
)
def test_each_kind_of_failure_reads_in_a_line(check: Any, line: str) -> None:
    """What, what was expected and what came; the clause comes next."""
    with pytest.raises(Violation) as caught:
        check()
    first, clause, *_ = str(caught.value).splitlines()
    assert first == caught.value.told == line
    assert clause.startswith(f"  {caught.value.clause.id} (")


def test_progress_bars_are_no_part_of_a_failure() -> None:
    """What else was printed is."""
    bars = "Loading weights:   0%|          | 0/58\rLoading weights: 100%|██████████| 58/58\n"
    assert without_progress([("stderr", bars), ("stdout", f"a line\n{bars}")]) == [("stdout", "a line\n")]


def test_what_a_line_cuts_is_shown_below() -> None:
    """In full, as far as a reader goes."""
    with pytest.raises(Violation) as caught:
        equal("S2", list(range(99)), list(range(98)), "inputs")
    lines = str(caught.value).splitlines()
    assert lines[0] == "inputs: expected nothing at [98], got 98"
    assert lines[2].startswith("  expected: [0, 1, 2, ")
    assert lines[3].startswith("  got:      [0, 1, 2, ")
