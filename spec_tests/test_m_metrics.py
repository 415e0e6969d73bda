"""Chapter M: hits, rates, averages."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from . import golden, oracles, strategies as given_
from .assertions import agree, close, equal, finite, holds, rejects
from .conformance import Implementation, clause
from .contract import Outcome


def rows(edit: str, language: str, *, update: str = "", retain: str = "", said: str = "en") -> list[Outcome]:
    """Outcomes of one edit: one for each "1" (hit) or "0" (miss)."""
    parts = [("update", update), ("retain", retain)]
    return [given_.outcome(edit, language, role, said, mark == "1") for role, marks in parts for mark in marks]


def compare(clause_id: str, got: dict[str, float], expected: dict[str, Any], what: str, **inputs: Any) -> None:
    """acc and con are the expected ones, which may be of the implementation, too."""
    finite(clause_id, expected, **inputs)
    for name in ("acc", "con"):
        holds(clause_id, name in got, f"{name} is missing", expected=name, got=got, **inputs)
        close(clause_id, got[name], float(expected[name]), f"{name} {what}", **inputs)


def obeys(implementation: Implementation, clause_id: str, got: dict[str, float], **inputs: Any) -> None:
    """succ belongs to the acc and con beside it, by the implementation's own `succ` or by M3."""
    holds(clause_id, "succ" in got, "succ is missing", expected="succ", got=got, **inputs)
    finite(clause_id, got, **inputs)
    acc, con = got["acc"], got["con"]
    right = float(oracles.succ(Fraction(acc), Fraction(con)))
    own = implementation.succ(acc, con) if implementation.has("succ") else right
    fits = agree(got["succ"], own, "numbers") or agree(got["succ"], right, "numbers")
    # Beside a succ of float64, a rate that float32 has no number for comes back as 0.
    fits = fits or abs(got["succ"] - right) <= np.finfo(np.float32).tiny
    what = "succ does not belong to the averaged acc and con"
    holds(clause_id, fits, what, expected=right, got=got["succ"], acc=acc, con=con, **inputs)


def by_language(got: dict[str, dict[str, float]], clause_id: str, languages: set[str]) -> dict[str, dict[str, float]]:
    equal(clause_id, sorted(got), sorted(languages), "a breakdown has other languages")
    return got


@clause("M1")
@pytest.mark.parametrize(("marks", "share"), [("1", 1.0), ("0", 0.0), ("1100", 0.5), ("1000", 0.25)])
def test_acc_is_the_share_of_update_hits(implementation: Implementation, marks: str, share: float) -> None:
    """One edit: acc = hits / update inputs, whatever the retain inputs say."""
    got = implementation.metrics(rows("e", "en", update=marks, retain="010"))
    close("M1", got["acc"], share, "acc is not the share of update hits", update=marks)


@clause("M2")
@pytest.mark.parametrize(("marks", "share"), [("1", 1.0), ("0", 0.0), ("1110", 0.75), ("0001", 0.25)])
def test_con_is_the_share_of_retain_hits(implementation: Implementation, marks: str, share: float) -> None:
    """One edit: con = retained predictions / retain inputs, whatever the update inputs say."""
    got = implementation.metrics(rows("e", "en", update="01", retain=marks))
    close("M2", got["con"], share, "con is not the share of retain hits", retain=marks)


@clause("M1", "M2", "M4", "M5")
@given(given_.outcomes())
def test_metrics_follow_the_definitions(implementation: Implementation, outcomes: list[Outcome]) -> None:
    """acc and con as exact fractions: of an edit, of the edits of a language, of the languages."""

    def part(**wanted: str) -> list[Outcome]:
        return [o for o in outcomes if all(o[key] == value for key, value in wanted.items())]  # type: ignore[literal-required]

    for edit in sorted({o["edit"] for o in outcomes}):
        alone = part(edit=edit)
        if {o["role"] for o in alone} == {"update", "retain"}:
            got, expected = implementation.metrics(alone), oracles.metrics(alone)
            for clause_id, name in (("M1", "acc"), ("M2", "con")):
                what = f"{name} of one edit is not the share of its hits"
                close(clause_id, got[name], float(expected[name]), what, outcomes=alone)
    for language in sorted({o["edit_language"] for o in outcomes}):
        mine = part(edit_language=language)
        what = "over several edits is not the mean of the edits' shares"
        compare("M4", implementation.metrics(mine), oracles.metrics(mine), what, outcomes=mine)
    what = "over several languages is not the mean of the languages'"
    compare("M5", implementation.metrics(outcomes), oracles.metrics(outcomes), what, outcomes=outcomes)


@clause("M1", "M2")
@given(given_.outcomes(), st.randoms(use_true_random=False))
def test_order_of_outcomes_means_nothing(implementation: Implementation, outcomes: list[Outcome], random: Any) -> None:
    """A share does not depend on the order of counting."""
    shuffled = random.sample(outcomes, len(outcomes))
    got, expected = implementation.metrics(shuffled), implementation.metrics(outcomes)
    for clause_id, name in (("M1", "acc"), ("M2", "con")):
        close(clause_id, got[name], expected[name], f"the order of counting changes {name}", outcomes=outcomes)


@clause("M3")
@given(given_.rates, given_.rates)
def test_succ_is_the_harmonic_mean(implementation: Implementation, acc: float, con: float) -> None:
    """succ = 2·acc·con / (acc + con), symmetric and between the smaller rate and twice it."""
    got = implementation.succ(acc, con)
    expected = 0.0 if acc + con == 0 else 2 * acc * con / (acc + con)
    close("M3", got, expected, "succ is not the harmonic mean", acc=acc, con=con)
    close("M3", implementation.succ(con, acc), got, "succ is not symmetric", acc=acc, con=con)


@clause("M3")
@pytest.mark.parametrize("con", [1.0, 0.02, 3e-5, 0.0])
@pytest.mark.parametrize("acc", [1.0, 0.02, 3e-5, 0.0])
def test_small_rates_are_rates(implementation: Implementation, acc: float, con: float) -> None:
    """One hit in thirty thousand is no zero: 2·acc·con / (acc + con) down to where both are 0."""
    expected = 2 * acc * con / (acc + con) if acc + con else 0.0
    close("M3", implementation.succ(acc, con), expected, "succ of small rates", acc=acc, con=con)


@clause("M3")
def test_both_zero_gives_zero(implementation: Implementation) -> None:
    """succ(0, 0) = 0, from metrics as from succ itself."""
    close("M3", implementation.succ(0.0, 0.0), 0.0, "succ is not 0 where acc and con are")
    nothing = implementation.metrics(rows("e", "en", update="0", retain="0"))
    close("M3", nothing["succ"], 0.0, "succ is not 0 where nothing is right")


@clause("M4")
def test_edits_weigh_the_same(implementation: Implementation) -> None:
    """An edit with four inputs does not outweigh an edit with one: (0 + 1) / 2, not 1 / 5."""
    outcomes = rows("a", "en", update="0000", retain="1") + rows("b", "en", update="1", retain="0000")
    what = "is not the mean of the edits' shares"
    compare("M4", implementation.metrics(outcomes), {"acc": 0.5, "con": 0.5}, what, outcomes=outcomes)


#: Names of edits that begin or end alike, and such as a reader of tables takes for one number or for no value.
ALIKE = [
    *(("P17/Q1/en", other) for other in ("P17/Q2/en", "P36/Q1/en", "P17/Q1", "p17/q1/en", "P17/Q1/en ", "P17/Q1/en/2")),
    *(("7", "07"), ("7", "7.0"), ("1000", "1e3"), ("nan", "None")),
]


@clause("M4")
@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_edits_of_similar_names_are_apart(implementation: Implementation, one: str, other: str) -> None:
    """An edit of one input and one of five are two, however alike they are called."""
    outcomes = rows(one, "en", update="1", retain="0") + rows(other, "en", update="00000", retain="11111")
    what = "is not that of two edits, whose names are alike"
    compare("M4", implementation.metrics(outcomes), {"acc": 0.5, "con": 0.5}, what, outcomes=outcomes)
    by_input = implementation.breakdown(outcomes, "language")["en"]
    compare("M4", by_input, {"acc": 0.5, "con": 0.5}, what, outcomes=outcomes)


@clause("M4")
@given(given_.outcomes(), st.integers(2, 4))
def test_repeating_the_inputs_of_one_edit_changes_nothing(
    implementation: Implementation, outcomes: list[Outcome], times: int
) -> None:
    """An edit judged on the same inputs several times has the same share."""
    edit = outcomes[0]["edit"]
    repeated = outcomes + [o for o in outcomes if o["edit"] == edit] * (times - 1)
    got, expected = implementation.metrics(repeated), implementation.metrics(outcomes)
    compare("M4", got, expected, "changes with the number of an edit's inputs", outcomes=outcomes, edit=edit)


@clause("M4")
def test_an_edit_without_update_inputs_has_no_share_in_acc(implementation: Implementation) -> None:
    """An edit that has retain inputs only counts for con alone."""
    outcomes = rows("a", "en", update="1", retain="1") + rows("b", "en", retain="0")
    what = "counts an edit that has no input of its role"
    compare("M4", implementation.metrics(outcomes), {"acc": 1.0, "con": 0.5}, what, outcomes=outcomes)


@clause("M5")
def test_languages_weigh_the_same(implementation: Implementation) -> None:
    """Three wrong edits in English and one right in German: acc = (0 + 1) / 2, not 1 / 4."""
    outcomes = rows("d", "de", update="1", retain="1")
    for name in "abc":
        outcomes += rows(name, "en", update="0", retain="1")
    what = "is not the mean of the languages'"
    compare("M5", implementation.metrics(outcomes), {"acc": 0.5, "con": 1.0}, what, outcomes=outcomes)


#: What is wrong where there are too many outcomes to be shown.
OF_MANY = "of thousands of edits and inputs is not the mean of their shares"


@clause("M4")
def test_many_edits_are_averaged_at_once(implementation: Implementation) -> None:
    """3,001 edits and one of 600 inputs: they fill no batch of any usual size.

    The last seven of the edits update nothing as desired, and the last 700 retain nothing; of the 600 inputs the first
    half are hits.
    """
    edits = 3001
    outcomes = rows("one", "en", update="1" * 300 + "0" * 300, retain="1" * 300 + "0" * 300)
    for place in range(edits):
        outcomes += rows(f"f{place}", "en", update="01"[place < edits - 7], retain="01"[place < edits - 700])
    expected = {name: (edits - missed + 0.5) / (edits + 1) for name, missed in (("acc", 7), ("con", 700))}
    compare("M4", implementation.metrics(outcomes), expected, OF_MANY)


@clause("M5")
def test_many_languages_are_averaged_at_once(implementation: Implementation) -> None:
    """53 editing languages, as mLAMA has: no update input is a hit in the last 7, no retain input in the first 40."""
    outcomes = []
    for place in range(53):
        for edit in range(1 + place % 3):
            outcomes += rows(f"f{edit}", f"l{place:02}", update="01"[place < 46], retain="01"[place >= 40])
    compare(
        "M5", implementation.metrics(outcomes), {"acc": 46 / 53, "con": 13 / 53}, "is not the mean of 53 languages'"
    )


@clause("M5")
@given(given_.outcomes(), st.data())
def test_requested_languages_are_the_average(
    implementation: Implementation, outcomes: list[Outcome], data: st.DataObject
) -> None:
    """Over requested editing languages the others have no influence; all of them is the default."""
    everyone = sorted({o["edit_language"] for o in outcomes})
    chosen = data.draw(st.lists(st.sampled_from(everyone), min_size=1, unique=True))
    got = implementation.metrics(outcomes, chosen)
    alone = [implementation.metrics(outcomes, [language]) for language in chosen]
    for one in alone:
        finite("M5", one, outcomes=outcomes)
    expected = {name: float(np.mean([one[name] for one in alone])) for name in ("acc", "con")}
    what = "over some languages is not the mean of what it is over each"
    compare("M5", got, expected, what, outcomes=outcomes, languages=chosen)
    mine = [o for o in outcomes if o["edit_language"] in chosen]
    what = "over some languages depends on others"
    compare("M5", got, implementation.metrics(mine), what, outcomes=outcomes, languages=chosen)


@clause("M6")
def test_succ_is_taken_after_averaging(implementation: Implementation) -> None:
    """Rates (1, 0) and (0, 1) average to (½, ½) and succ ½; averaging succ would give 0."""
    two_languages = rows("a", "en", update="1", retain="0") + rows("b", "de", update="0", retain="1")
    two_edits = rows("a", "en", update="1", retain="0") + rows("b", "en", update="0", retain="1")
    for outcomes in (two_languages, two_edits):
        obeys(implementation, "M6", implementation.metrics(outcomes), outcomes=outcomes)


@clause("M6")
@given(given_.outcomes())
def test_succ_belongs_to_the_averages(implementation: Implementation, outcomes: list[Outcome]) -> None:
    """Whatever was averaged: succ is that of the acc and con beside it."""
    obeys(implementation, "M6", implementation.metrics(outcomes), outcomes=outcomes)


@clause("M7")
@pytest.mark.parametrize("role", ["update", "retain"])
@given(row=given_.padded_rows())
def test_every_mask_position_and_no_other_counts(implementation: Implementation, role: str, row: Any) -> None:
    """A row hits iff prediction and expectation agree at all positions that count."""
    everywhere = role == "retain" and implementation.ruling("con_positions") == "all"
    pairs = zip(row["predicted"], row["expected"], row["is_mask"], strict=True)
    expected = all(p == e for p, e, mask in pairs if mask or everywhere)
    what = "a hit is not an agreement at every [MASK] and nowhere else"
    equal("M7", implementation.hit(**row, role=role), expected, what, role=role, **row)


@clause("M7")
@pytest.mark.parametrize("role", ["update", "retain"])
def test_one_wrong_token_of_three_is_a_miss(implementation: Implementation, role: str) -> None:
    """A name that is right but for one token is wrong."""
    got = implementation.hit([5, 7, 8, 9, 0], [5, 7, 8, 1, 0], [False, True, True, True, False], role)
    equal("M7", got, False, "a name with one wrong token of three hits", role=role)


@clause("M7")
@pytest.mark.parametrize("role", ["update", "retain"])
def test_padding_and_context_do_not_count(implementation: Implementation, role: str) -> None:
    """A row that agrees at its [MASK] alone is a hit; under con_positions = all it is a miss for con."""
    got = implementation.hit([1, 7, 3, 3], [2, 7, 0, 0], [False, True, False, False], role)
    everywhere = role == "retain" and implementation.ruling("con_positions") == "all"
    what = f"a row that agrees at its [MASK] alone is a {'hit' if everywhere else 'miss'}"
    equal("M7", got, not everywhere, what, role=role)


@clause("M8")
@given(given_.outcomes())
def test_breakdown_by_editing_language_is_each_alone(implementation: Implementation, outcomes: list[Outcome]) -> None:
    """l → all: the rates of the edits in l."""
    everyone = {o["edit_language"] for o in outcomes}
    got = by_language(implementation.breakdown(outcomes, "edit_language"), "M8", everyone)
    for language, rates in got.items():
        mine = [o for o in outcomes if o["edit_language"] == language]
        _is_of(implementation, rates, mine, "the edits in the language", outcomes=outcomes, language=language)


@clause("M8")
@given(given_.outcomes(complete_inputs=True))
def test_breakdown_by_input_language_restricts_the_inputs(
    implementation: Implementation, outcomes: list[Outcome]
) -> None:
    """→ l: the rates over the inputs in l, averaged over edits and editing languages as ever."""
    everyone = {o["language"] for o in outcomes}
    got = by_language(implementation.breakdown(outcomes, "language"), "M8", everyone)
    for language, rates in got.items():
        part = [o for o in outcomes if o["language"] == language]
        _is_of(implementation, rates, part, "the inputs in the language", outcomes=outcomes, language=language)


def _is_of(
    implementation: Implementation, rates: dict[str, float], part: list[Outcome], of: str, /, **inputs: Any
) -> None:
    """The rates are those of a part of the outcomes, by the definitions or by the implementation's own `metrics`."""
    right = {name: float(value) for name, value in oracles.metrics(part).items()}
    own = implementation.metrics(part) if implementation.has("metrics") else right
    if not all(name in rates and agree(rates[name], own[name], "numbers") for name in ("acc", "con")):
        compare("M8", rates, right, f"of a breakdown is not that of {of}", **inputs)
    if not agree(rates.get("succ", np.nan), own["succ"], "numbers"):
        obeys(implementation, "M8", rates, **inputs)


@clause("M9")
@given(st.lists(st.fixed_dictionaries({"acc": given_.rates, "con": given_.rates}), min_size=1, max_size=5))
def test_runs_are_averaged_before_succ(implementation: Implementation, runs: list[dict[str, float]]) -> None:
    """acc and con are means over the runs; succ belongs to the means."""
    expected = {name: sum(run[name] for run in runs) / len(runs) for name in ("acc", "con")}
    got = implementation.aggregate(runs)
    compare("M9", got, expected, "of several runs is not their mean", runs=runs)
    obeys(implementation, "M9", got, runs=runs)


@clause("M9")
def test_the_succ_of_a_run_is_not_averaged(implementation: Implementation) -> None:
    """Runs (1, 0) and (0, 1) with their succ of 0 aggregate to succ ½."""
    runs = [{"acc": 1.0, "con": 0.0, "succ": 0.0}, {"acc": 0.0, "con": 1.0, "succ": 0.0}]
    got = implementation.aggregate(runs)
    obeys(implementation, "M9", got, runs=runs)
    what = "succ of several runs is an average of their succ"
    holds("M9", got["succ"] != 0, what, expected="that of the means", got=got, runs=runs)


@clause("M10")
@pytest.mark.parametrize(("kept", "missing"), [("update", "retain"), ("retain", "update")])
@pytest.mark.parametrize("languages", [None, ["en", "de"], ["de"]], ids=["all", "both", "one"])
def test_a_missing_role_is_an_error(
    implementation: Implementation, kept: str, missing: str, languages: list[str] | None
) -> None:
    """German edits were judged in one role only."""
    outcomes = rows("a", "en", update="1", retain="1") + rows("b", "de", **{kept: "1"})
    call = lambda: implementation.metrics(outcomes, languages)  # noqa: E731
    rejects(
        "M10",
        call,
        ("de", missing),
        f"a language without any {missing} outcome has rates",
        outcomes=outcomes,
        languages=languages,
    )


@clause("M10")
def test_a_requested_language_without_outcomes_is_an_error(implementation: Implementation) -> None:
    """Swahili was asked for and never edited in, though inputs are in it."""
    outcomes = rows("a", "en", update="1", retain="1") + rows("a", "en", update="1", retain="1", said="sw")
    what = "a language without any outcome has rates"
    rejects("M10", lambda: implementation.metrics(outcomes, ["en", "sw"]), ("sw",), what)


@clause("M10")
def test_no_outcomes_at_all_are_an_error(implementation: Implementation) -> None:
    """Nothing measured is not a rate of 0."""
    rejects("M10", lambda: implementation.metrics([]), (), "nothing measured has rates")
    rejects("M10", lambda: implementation.metrics([], ["en"]), ("en",), "nothing measured has rates")


@clause("M10")
@pytest.mark.parametrize("by", ["edit_language", "language"])
def test_a_breakdown_names_the_language_and_the_role_it_lacks(implementation: Implementation, by: str) -> None:
    """A language of the breakdown that lacks one role is named with it, not shown as 0."""
    outcomes = rows("a", "en", update="1", retain="1", said="en") + rows("b", "de", update="1", said="de")
    call = lambda: implementation.breakdown(outcomes, by)  # noqa: E731
    rejects("M10", call, ("de", "retain"), "a breakdown shows a language that lacks a role", by=by)


@golden.cases("metrics", "succ", "hit", "breakdown", "aggregate")
def test_golden_metrics(implementation: Implementation, case: golden.Case) -> None:
    """The committed values."""
    golden.check(implementation, case)
