"""Chapter M: hits, rates, averages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import golden, oracles
from . import strategies as given_
from .assertions import close, equal, holds, rejects
from .conformance import Implementation, clause
from .contract import Outcome


def rows(edit: str, language: str, *, update: str = "", retain: str = "", said: str = "en") -> list[Outcome]:
    """Outcomes of one edit: one for each "1" (hit) or "0" (miss)."""
    parts = [("update", update), ("retain", retain)]
    return [given_.outcome(edit, language, role, said, mark == "1") for role, marks in parts for mark in marks]


def compare(clause_id: str, got: dict[str, float], expected: dict[str, Any], **inputs: Any) -> None:
    for name in ("acc", "con", "succ"):
        holds(clause_id, name in got, f"{name} is missing", expected=name, got=got, **inputs)
        close(clause_id, got[name], float(expected[name]), f"{name} differs", **inputs)


def by_language(got: dict[str, dict[str, float]], clause_id: str, languages: set[str]) -> dict[str, dict[str, float]]:
    equal(clause_id, set(got), languages, "languages of the breakdown differ")
    return got


@clause("M1")
@pytest.mark.parametrize(("marks", "share"), [("1", 1.0), ("0", 0.0), ("1100", 0.5), ("1000", 0.25)])
def test_acc_is_the_share_of_update_hits(implementation: Implementation, marks: str, share: float) -> None:
    """One edit: acc = hits / update inputs, whatever the retain inputs say."""
    got = implementation.metrics(rows("e", "en", update=marks, retain="010"))
    close("M1", got["acc"], share, "acc", update=marks)


@clause("M2")
@pytest.mark.parametrize(("marks", "share"), [("1", 1.0), ("0", 0.0), ("1110", 0.75), ("0001", 0.25)])
def test_con_is_the_share_of_retain_hits(implementation: Implementation, marks: str, share: float) -> None:
    """One edit: con = retained predictions / retain inputs, whatever the update inputs say."""
    got = implementation.metrics(rows("e", "en", update="01", retain=marks))
    close("M2", got["con"], share, "con", retain=marks)


@clause("M1", "M2", "M4", "M5", "M6")
@given(given_.outcomes())
def test_metrics_follow_the_definitions(implementation: Implementation, outcomes: list[Outcome]) -> None:
    """acc and con as exact fractions: inputs within edits within languages; succ from the two."""
    compare("M1", implementation.metrics(outcomes), oracles.metrics(outcomes), outcomes=outcomes)


@clause("M1", "M2")
@given(given_.outcomes(), st.randoms(use_true_random=False))
def test_order_of_outcomes_means_nothing(implementation: Implementation, outcomes: list[Outcome], random: Any) -> None:
    """A share does not depend on the order of counting."""
    shuffled = random.sample(outcomes, len(outcomes))
    compare("M1", implementation.metrics(shuffled), implementation.metrics(outcomes), outcomes=outcomes)


@clause("M3")
@given(given_.rates, given_.rates)
def test_succ_is_the_harmonic_mean(implementation: Implementation, acc: float, con: float) -> None:
    """succ = 2·acc·con / (acc + con), symmetric and between the smaller rate and twice it."""
    got = implementation.succ(acc, con)
    close("M3", got, 0.0 if acc + con == 0 else 2 * acc * con / (acc + con), "succ", acc=acc, con=con)
    close("M3", implementation.succ(con, acc), got, "succ is not symmetric", acc=acc, con=con)


@clause("M3")
def test_both_zero_gives_zero(implementation: Implementation) -> None:
    """succ(0, 0) = 0, from metrics as from succ itself."""
    close("M3", implementation.succ(0.0, 0.0), 0.0, "succ(0, 0)")
    close("M3", implementation.metrics(rows("e", "en", update="0", retain="0"))["succ"], 0.0, "succ of nothing right")


@clause("M4")
def test_edits_weigh_the_same(implementation: Implementation) -> None:
    """An edit with four inputs does not outweigh an edit with one: (0 + 1) / 2, not 1 / 5."""
    outcomes = rows("a", "en", update="0000", retain="1") + rows("b", "en", update="1", retain="0000")
    compare("M4", implementation.metrics(outcomes), {"acc": 0.5, "con": 0.5, "succ": 0.5}, outcomes=outcomes)


@clause("M4")
@given(given_.outcomes(), st.integers(2, 4))
def test_repeating_the_inputs_of_one_edit_changes_nothing(
    implementation: Implementation, outcomes: list[Outcome], times: int
) -> None:
    """An edit judged on the same inputs several times has the same share."""
    edit = outcomes[0]["edit"]
    repeated = outcomes + [o for o in outcomes if o["edit"] == edit] * (times - 1)
    compare("M4", implementation.metrics(repeated), implementation.metrics(outcomes), outcomes=outcomes, edit=edit)


@clause("M4")
def test_an_edit_without_update_inputs_has_no_share_in_acc(implementation: Implementation) -> None:
    """An edit that has retain inputs only counts for con alone."""
    outcomes = rows("a", "en", update="1", retain="1") + rows("b", "en", retain="0")
    compare("M4", implementation.metrics(outcomes), {"acc": 1.0, "con": 0.5, "succ": 2 / 3}, outcomes=outcomes)


@clause("M5")
def test_languages_weigh_the_same(implementation: Implementation) -> None:
    """Three wrong edits in English and one right in German: acc = (0 + 1) / 2, not 1 / 4."""
    outcomes = rows("d", "de", update="1", retain="1")
    for name in "abc":
        outcomes += rows(name, "en", update="0", retain="1")
    compare("M5", implementation.metrics(outcomes), {"acc": 0.5, "con": 1.0, "succ": 2 / 3}, outcomes=outcomes)


@clause("M5")
@given(given_.outcomes(), st.data())
def test_requested_languages_are_the_average(
    implementation: Implementation, outcomes: list[Outcome], data: st.DataObject
) -> None:
    """Over requested editing languages the others have no influence; all of them is the default."""
    everyone = sorted({o["edit_language"] for o in outcomes})
    chosen = data.draw(st.lists(st.sampled_from(everyone), min_size=1, unique=True))
    got = implementation.metrics(outcomes, chosen)
    compare("M5", got, oracles.metrics(outcomes, chosen), outcomes=outcomes, languages=chosen)


@clause("M6")
def test_succ_is_taken_after_averaging(implementation: Implementation) -> None:
    """Rates (1, 0) and (0, 1) average to (½, ½) and succ ½; averaging succ would give 0."""
    two_languages = rows("a", "en", update="1", retain="0") + rows("b", "de", update="0", retain="1")
    two_edits = rows("a", "en", update="1", retain="0") + rows("b", "en", update="0", retain="1")
    for outcomes in (two_languages, two_edits):
        close("M6", implementation.metrics(outcomes)["succ"], 0.5, "succ", outcomes=outcomes)


@clause("M7")
@pytest.mark.parametrize("role", ["update", "retain"])
@given(row=given_.padded_rows())
def test_every_mask_position_and_no_other_counts(implementation: Implementation, role: str, row: Any) -> None:
    """A row hits iff prediction and expectation agree at all positions that count."""
    everywhere = role == "retain" and implementation.ruling("con_positions") == "all"
    pairs = zip(row["predicted"], row["expected"], row["is_mask"], strict=True)
    expected = all(p == e for p, e, mask in pairs if mask or everywhere)
    equal("M7", implementation.hit(**row, role=role), expected, "hit", role=role, **row)


@clause("M7")
@pytest.mark.parametrize("role", ["update", "retain"])
def test_one_wrong_token_of_three_is_a_miss(implementation: Implementation, role: str) -> None:
    """A name that is right but for one token is wrong."""
    got = implementation.hit([5, 7, 8, 9, 0], [5, 7, 8, 1, 0], [False, True, True, True, False], role)
    equal("M7", got, False, "two of three tokens", role=role)


@clause("M7")
@pytest.mark.parametrize("role", ["update", "retain"])
def test_padding_and_context_do_not_count(implementation: Implementation, role: str) -> None:
    """A row that agrees at its [MASK] alone is a hit; under con_positions = all it is a miss for con."""
    got = implementation.hit([1, 7, 3, 3], [2, 7, 0, 0], [False, True, False, False], role)
    everywhere = role == "retain" and implementation.ruling("con_positions") == "all"
    equal("M7", got, not everywhere, "only the [MASK] agrees", role=role)


@clause("M8")
@given(given_.outcomes())
def test_breakdown_by_editing_language_is_each_alone(implementation: Implementation, outcomes: list[Outcome]) -> None:
    """l → all: the rates of the edits in l."""
    everyone = {o["edit_language"] for o in outcomes}
    got = by_language(implementation.breakdown(outcomes, "edit_language"), "M8", everyone)
    for language, rates in got.items():
        compare("M8", rates, oracles.metrics(outcomes, [language]), outcomes=outcomes, language=language)


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
        compare("M8", rates, oracles.metrics(part), outcomes=outcomes, language=language)


@clause("M9")
@given(st.lists(st.fixed_dictionaries({"acc": given_.rates, "con": given_.rates}), min_size=1, max_size=5))
def test_runs_are_averaged_before_succ(implementation: Implementation, runs: list[dict[str, float]]) -> None:
    """acc and con are means over the runs; succ belongs to the means."""
    acc, con = (sum(run[name] for run in runs) / len(runs) for name in ("acc", "con"))
    succ = 0.0 if acc + con == 0 else 2 * acc * con / (acc + con)
    compare("M9", implementation.aggregate(runs), {"acc": acc, "con": con, "succ": succ}, runs=runs)


@clause("M9")
def test_the_succ_of_a_run_is_not_averaged(implementation: Implementation) -> None:
    """Runs (1, 0) and (0, 1) with their succ of 0 aggregate to succ ½."""
    runs = [{"acc": 1.0, "con": 0.0, "succ": 0.0}, {"acc": 0.0, "con": 1.0, "succ": 0.0}]
    close("M9", implementation.aggregate(runs)["succ"], 0.5, "succ of two runs", runs=runs)


@clause("M10")
@pytest.mark.parametrize(("kept", "missing"), [("update", "retain"), ("retain", "update")])
@pytest.mark.parametrize("languages", [None, ["en", "de"], ["de"]], ids=["all", "both", "one"])
def test_a_missing_role_is_an_error(
    implementation: Implementation, kept: str, missing: str, languages: list[str] | None
) -> None:
    """German edits were judged in one role only."""
    outcomes = rows("a", "en", update="1", retain="1") + rows("b", "de", **{kept: "1"})
    call = lambda: implementation.metrics(outcomes, languages)  # noqa: E731
    rejects("M10", call, ("de", missing), f"no {missing} outcome in de", outcomes=outcomes, languages=languages)


@clause("M10")
def test_a_requested_language_without_outcomes_is_an_error(implementation: Implementation) -> None:
    """Swahili was asked for and never edited in."""
    outcomes = rows("a", "en", update="1", retain="1")
    rejects("M10", lambda: implementation.metrics(outcomes, ["en", "sw"]), ("sw",), "no edit in sw")


@clause("M10")
def test_no_outcomes_at_all_are_an_error(implementation: Implementation) -> None:
    """Nothing measured is not a rate of 0."""
    rejects("M10", lambda: implementation.metrics([]), (), "metrics of nothing")
    rejects("M10", lambda: implementation.metrics([], ["en"]), ("en",), "metrics of nothing in en")
    rejects("M10", lambda: implementation.aggregate([]), (), "no run at all")


@clause("M10")
@pytest.mark.parametrize("by", ["edit_language", "language"])
def test_a_breakdown_names_the_language_and_the_role_it_lacks(implementation: Implementation, by: str) -> None:
    """A language of the breakdown that lacks one role is named with it, not shown as 0."""
    outcomes = rows("a", "en", update="1", retain="1", said="en") + rows("b", "de", update="1", said="de")
    call = lambda: implementation.breakdown(outcomes, by)  # noqa: E731
    rejects("M10", call, ("de", "retain"), "de has no retain outcome", by=by)


@golden.cases("metrics", "succ", "hit", "breakdown", "aggregate")
def test_golden_metrics(implementation: Implementation, case: golden.Case) -> None:
    """The committed values."""
    golden.check(implementation, case)
