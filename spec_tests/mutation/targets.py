"""What mutmut mutates, and which tests may notice."""

from __future__ import annotations

PACKAGE = "lime_editing"
CORE = f"{PACKAGE}.core"

#: What is mutated, by mutmut's names: the pure modules, and of editing.py what makes arrays and masks of plain data.
TARGETS = (
    *(f"{CORE}.{module}.*" for module in ("corpus", "losses", "masks", "metrics", "sampling")),
    f"{PACKAGE}.updates.*",
    *(f"{CORE}.editing.x_{name}__*" for name in ("asked_of", "masks_of", "shares_of")),
)
#: What may notice: the clauses about these modules, and the reference's own tests of them.
TESTS = (
    *(f"spec_tests/test_{name}.py" for name in ("t_task", "m_metrics", "s_sampling", "a_masks", "b_budget")),
    *(f"spec_tests/test_{name}.py" for name in ("e_editors", "l_objectives", "d_data", "c_composition")),
    *(f"spec_tests/test_{name}.py" for name in ("m_hits", "s_joint", "a_joint")),
    *(f"reference/tests/test_{name}.py" for name in ("pure", "many", "rulings", "checks", "fast")),
)
