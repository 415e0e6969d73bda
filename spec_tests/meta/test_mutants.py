"""The mutants' own books."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from spec_tests import run_mutants
from spec_tests.conformance import clauses
from spec_tests.contract import CAPABILITIES, EDITORS, NAMES, OF_EDITOR
from spec_tests.mutants import MUTANTS, Mutant, Mutation

#: S10 is about the tests; no implementation can break it.
WITHOUT_MUTANT = {"S10"}


def test_ids_are_unique() -> None:
    """One id, one mutant."""
    ids = [mutant.id for mutant in MUTANTS]
    assert sorted(ids) == sorted(set(ids))


def test_there_are_at_least_twenty() -> None:
    """A handful of miniatures would prove little."""
    assert len(MUTANTS) >= 20


def test_every_clause_has_a_mutant() -> None:
    """A clause that nothing can break is not tested; a mutant of no clause breaks nothing."""
    assert {mutant.clause for mutant in MUTANTS} == set(clauses()) - WITHOUT_MUTANT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_a_mutant_differs_from_its_base_in_functions_of_the_contract(mutant: Mutant) -> None:
    """It says what is wrong in a sentence, and overrides functions that the contract names."""
    assert mutant.sentence.endswith(".")
    assert mutant.needs <= {*NAMES, *CAPABILITIES, *EDITORS}
    known = {name for names in (NAMES | OF_EDITOR).values() for name in names} | {"factors"}
    overridden = {name for kind in _kinds(mutant.build) for name in vars(kind)} & known
    assert overridden, "nothing of the contract is overridden"


def _kinds(build: type[Mutation]) -> list[type]:
    return [kind for kind in build.__mro__ if issubclass(kind, Mutation) and kind is not Mutation]


def test_an_implementation_survives_as_its_own_mutant() -> None:
    """A wrapper that changes nothing keeps the functions, claims and rulings of its base."""
    base = SimpleNamespace(CLAIMS=frozenset("M"), RULINGS={"con_positions": "all"}, succ=lambda acc, con: acc * con)
    same = Mutation(base)
    assert same.succ(0.5, 0.5) == 0.25
    assert set(same.CLAIMS) == {"M"}
    assert same.RULINGS == {"con_positions": "all"}


def test_only_mutants_of_claimed_chapters_are_chosen() -> None:
    """An implementation of chapter M alone is not judged by the mutants of the others."""
    base = run_mutants.Implementation(SimpleNamespace(CLAIMS=frozenset("M")), "base")
    assert {mutant.clause[0] for mutant in run_mutants._chosen(None, base)} == {"M"}
