"""Wrong implementations, each wrong in one way: small wrappers around any implementation of the contract.

A mutant states the clause that it breaks. `run_mutants` hands it to the tests of that clause's chapter, which have to
notice. Most are defects that released code of this field really had. Each chapter has a module of its own; `base` says
what a mutant is, and `editing` what mutants of editors share.
"""

from ..contract import NAMES
from . import (  # noqa: F401  # each module registers its mutants
    a_masks,
    b_budget,
    composition,
    d_data,
    declared,
    e_editors,
    hits,
    joint,
    l_objectives,
    m_metrics,
    preset,
    r_reproduction,
    records,
    runs,
    s_sampling,
    structure,
    surroundings,
    t_task,
    texts,
    training,
)
from .base import MUTANTS, Mutant, Mutation

#: In the order of the chapters.
MUTANTS.sort(key=lambda one: list(NAMES).index(one.clause[0]))
#: Every mutant by its id.
BY_ID = {one.id: one for one in MUTANTS}

__all__ = ["BY_ID", "MUTANTS", "Mutant", "Mutation"]
