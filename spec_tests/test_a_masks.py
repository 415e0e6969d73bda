"""Chapter A, the algebra: masks, hard concrete gates, the penalty, masking the factors of an edit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from . import golden, oracles
from . import strategies as given_
from .assertions import close, distributed, equal, holds, rejects, same_bits
from .conformance import Implementation, clause, each_of, every_editor, every_learned, needs
from .contract import Array
from .editing import every_model, masked_editor, updates, variants
from .tiny import (
    LANGUAGES,
    assert_close,
    close_gates,
    conditioned,
    gate_values,
    make,
    make_felt,
    make_request,
    make_triple,
    masked_gradient,
    rate,
    setting,
    shifts,
    with_update,
)

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
CLOSED, OPEN = -1e3, 1e3
#: A gate is not zero with probability sigmoid(log α + this): -β log(-γ/ζ) at the defaults of A3.
_SHIFT = -BETA * math.log(-GAMMA / ZETA)


def learned(implementation: Implementation) -> bool:
    return implementation.ruling("mask_scale") == "learned"


def table(implementation: Implementation, x: Array, delta: Array) -> dict[str, Array]:
    """Mask parameters with the given log α; a learned scale is 1, so that the mask is the gate."""
    result = {"x": x, "delta": delta}
    if learned(implementation):
        result |= {"x_scale": np.ones_like(x), "delta_scale": np.ones_like(delta)}
    return result


def masks(log_alpha: Mapping[str, Array], row: int) -> tuple[Array, Array]:
    """The two masks of one language at test time."""
    found = []
    for side in ("x", "delta"):
        gates = oracles.each(oracles.deterministic_gate, log_alpha[side][row], GAMMA, ZETA)
        found.append(gates * log_alpha[f"{side}_scale"][row] if f"{side}_scale" in log_alpha else gates)
    return found[0], found[1]


def seen_masks(implementation: Implementation, log_alpha: Mapping[str, Array], seed: int | None) -> tuple[Array, Array]:
    """The masks that one edit of one token of ones shows, in the first of the languages."""
    names = [f"l{row}" for row in range(len(log_alpha["x"]))]
    ones = [np.ones((1, log_alpha[side].shape[1])) for side in ("x", "delta")]
    x, delta = implementation.mask_factors(log_alpha, names, names[0], *ones, seed=seed)
    return np.asarray(x)[0] - 1, np.asarray(delta)[0] - 1


def st_learned(implementation: Implementation, data: st.DataObject, **options: Any) -> dict[str, Any]:
    return data.draw(given_.masked_edits(learned(implementation), **options))


# A1


@clause("A1")
@given(st.data(), given_.small_shapes)
def test_mask_adds_the_masked_part(implementation: Implementation, data: st.DataObject, shape: tuple[int, ...]) -> None:
    """mask(W, m) = W + m ⊙ W, entry by entry."""
    w, m = data.draw(given_.arrays(shape, given_.entries)), data.draw(given_.arrays(shape, given_.gates))
    expected = [a + b * a for a, b in zip(w.ravel(), m.ravel(), strict=True)]
    close("A1", implementation.apply_mask(w, m), np.reshape(expected, shape), "mask(W, m)", W=w, m=m)


@clause("A1")
@given(st.data(), given_.small_shapes)
def test_mask_of_zero_is_identity_and_of_one_doubles(
    implementation: Implementation, data: st.DataObject, shape: tuple[int, ...]
) -> None:
    """mask(W, 0) = W and mask(W, 1) = 2 W, exactly."""
    w = data.draw(given_.arrays(shape, given_.entries))
    same_bits("A1", implementation.apply_mask(w, np.zeros(shape)), w, "mask(W, 0)", W=w)
    same_bits("A1", implementation.apply_mask(w, np.ones(shape)), 2 * w, "mask(W, 1)", W=w)


@clause("A1")
@given(st.data(), given_.small_shapes, st.floats(-3, 3))
def test_mask_is_linear_in_w_and_monotone_in_m(
    implementation: Implementation, data: st.DataObject, shape: tuple[int, ...], factor: float
) -> None:
    """mask(aW + V, m) = a mask(W, m) + mask(V, m); a larger gate never shrinks an entry."""
    w, v = (data.draw(given_.arrays(shape, given_.entries)) for _ in range(2))
    m = data.draw(given_.arrays(shape, given_.gates))
    left = implementation.apply_mask(factor * w + v, m)
    right = factor * np.asarray(implementation.apply_mask(w, m)) + np.asarray(implementation.apply_mask(v, m))
    close("A1", left, right, "linearity", W=w, V=v, m=m, a=factor)
    more = np.abs(implementation.apply_mask(w, (1 + m) / 2))
    less = np.abs(implementation.apply_mask(w, m))
    holds("A1", bool(np.all(more >= less - 1e-12)), "monotony", expected="no smaller entry", got=more - less, W=w, m=m)


# A2, A3


@clause("A2")
@given(st.data(), given_.small_shapes, st.booleans())
def test_gates_lie_between_zero_and_one(
    implementation: Implementation, data: st.DataObject, shape: tuple[int, ...], sampled: bool
) -> None:
    """0 ≤ gate ≤ 1 for every log α and every draw; never NaN."""
    log_alpha = data.draw(given_.arrays(shape, given_.log_odds))
    u = data.draw(given_.arrays(shape, given_.uniforms)) if sampled else None
    got = np.asarray(implementation.gate(log_alpha, u))
    inside = bool(np.all((got >= 0) & (got <= 1)))
    holds("A2", inside, "gate out of range", expected="in [0, 1]", got=got, log_alpha=log_alpha, uniforms=u)


@clause("A2")
@given(st.data(), st.one_of(st.none(), given_.seeds))
def test_the_mask_of_an_edit_is_its_gate(implementation: Implementation, data: st.DataObject, seed: int | None) -> None:
    """A mask at work stays in [0, 1]; with a learned scale, so does the mask over the scale."""
    case = st_learned(implementation, data)
    for side, mask in zip(("x", "delta"), seen_masks(implementation, case["log_alpha"], seed), strict=True):
        scale = case["log_alpha"].get(f"{side}_scale", np.ones((1, mask.size)))[0]
        bounds = np.sort([np.zeros_like(scale), scale], axis=0)
        inside = bool(np.all((mask >= bounds[0] - 1e-9) & (mask <= bounds[1] + 1e-9)))
        holds("A2", inside, f"mask of {side}", expected=f"between 0 and {scale}", got=mask, seed=seed, **case)


@clause("A3")
@given(st.data(), given_.small_shapes, st.booleans())
def test_gates_are_hard_concrete(
    implementation: Implementation, data: st.DataObject, shape: tuple[int, ...], defaults: bool
) -> None:
    """Stretch and clip of the concrete variable in training, of sigmoid(log α) at test time."""
    log_alpha = data.draw(given_.arrays(shape, given_.log_odds))
    u = data.draw(given_.arrays(shape, given_.uniforms))
    beta, gamma, zeta = (
        (BETA, GAMMA, ZETA) if defaults else data.draw(st.tuples(given_.betas, given_.gammas, given_.zetas))
    )
    named = {} if defaults else {"beta": beta, "gamma": gamma, "zeta": zeta}
    pairs = zip(log_alpha.ravel(), u.ravel(), strict=True)
    sampled = [oracles.sampled_gate(a, v, beta, gamma, zeta) for a, v in pairs]
    inputs = {"log_alpha": log_alpha, "uniforms": u} | named
    close("A3", implementation.gate(log_alpha, u, **named), np.reshape(sampled, shape), "sampled gate", **inputs)
    still = oracles.each(oracles.deterministic_gate, log_alpha, gamma, zeta)
    close("A3", implementation.gate(log_alpha, **named), still, "gate at test time", **inputs)


@clause("A3")
@given(st.data())
def test_gates_at_test_time_are_deterministic(implementation: Implementation, data: st.DataObject) -> None:
    """Without a seed an edit is masked by the deterministic gates, the same at every call."""
    case = st_learned(implementation, data)
    row = case["languages"].index(case["language"])
    m_x, m_delta = masks(case["log_alpha"], row)
    x, delta = implementation.mask_factors(**case)
    close("A3", x, case["x"] * (1 + m_x), "mask(x, m_x)", **case)
    close("A3", delta, case["delta"] * (1 + m_delta), "mask(δ, m_δ)", **case)
    for first, second in zip((x, delta), implementation.mask_factors(**case), strict=True):
        same_bits("A3", second, first, "the same edit again", **case)


@clause("A3")
def test_gates_in_training_are_stochastic(implementation: Implementation) -> None:
    """The seed fixes the draw; another seed draws other gates, for both factors."""
    parameters = table(implementation, np.zeros((2, 50)), np.zeros((2, 50)))
    first, again, other = (seen_masks(implementation, parameters, seed) for seed in (1, 1, 2))
    for side, a, b, c in zip(("x", "δ"), first, again, other, strict=True):
        same_bits("A3", b, a, f"the same seed, {side}")
        holds("A3", not np.array_equal(a, c), f"seeds 1 and 2, {side}", expected="different gates", got=(a, c))
    holds("A3", not np.array_equal(*first), "x and δ", expected="a draw for each", got=first)


@clause("A3", "A8")
@given(st.data(), given_.seeds)
def test_the_tokens_of_an_edit_share_the_draw(implementation: Implementation, data: st.DataObject, seed: int) -> None:
    """Sampled gates are the same for every token: equal rows in, equal rows out."""
    case = st_learned(implementation, data, elements=given_.moderate)
    tokens = data.draw(st.integers(2, 5))
    for side in ("x", "delta"):
        case[side] = np.repeat(case[side][:1], tokens, axis=0)
    for name, got in zip(("x", "δ"), implementation.mask_factors(**case, seed=seed), strict=True):
        close("A3", got, np.repeat(got[:1], tokens, axis=0), f"tokens of {name} differ", 1e-12, seed=seed, **case)


@clause("A3", "A4")
@pytest.mark.parametrize("log_alpha", [-2.0, 0.0, 1.5])
def test_sampled_gates_have_the_hard_concrete_distribution(implementation: Implementation, log_alpha: float) -> None:
    """80,000 gates of one edit fall into eleven bins as the law says (chi-square, false alarm 1e-6)."""
    size = 40_000
    parameters = table(implementation, np.full((1, size), log_alpha), np.full((1, size), log_alpha))
    gates = np.concatenate(seen_masks(implementation, parameters, seed=20_230_712))
    edges = np.linspace(0, 1, 10)
    counts = Counter(_bin(value, edges) for value in gates)
    below = [_below(float(edge), log_alpha) for edge in edges]
    shares = [below[0], *np.diff(below), 1 - below[-1]]
    expected = {place: float(share) * gates.size for place, share in enumerate(shares)}
    distributed("A3", counts, expected, "bins of sampled gates", log_alpha=log_alpha)


def _bin(value: float, edges: Array) -> int:
    """0 for a gate of zero, 10 for a gate of one (both up to rounding of 1 + m), the ninths between them."""
    if value < 1e-12:
        return 0
    return 10 if value > 1 - 1e-12 else int(np.searchsorted(edges, value))


def _below(value: float, log_alpha: float) -> float:
    """P(gate ≤ value) for a value in [0, 1): invert the stretch, then the concrete distribution function."""
    s = (value - GAMMA) / (ZETA - GAMMA)
    return oracles.sigmoid(BETA * (math.log(s) - math.log(1 - s)) - log_alpha)


# A4


@clause("A4")
@given(st.data(), given_.small_shapes, st.booleans())
def test_probability_of_an_open_gate_has_a_closed_form(
    implementation: Implementation, data: st.DataObject, shape: tuple[int, ...], defaults: bool
) -> None:
    """P(gate ≠ 0) = sigmoid(log α − β log(−γ/ζ))."""
    log_alpha = data.draw(given_.arrays(shape, given_.log_odds))
    numbers = (BETA, GAMMA, ZETA) if defaults else data.draw(st.tuples(given_.betas, given_.gammas, given_.zetas))
    got = implementation.gate_probability(log_alpha, *(() if defaults else numbers))
    expected = oracles.each(oracles.gate_probability, log_alpha, *numbers)
    close("A4", got, expected, "P(gate ≠ 0)", log_alpha=log_alpha, constants=numbers)


@clause("A4")
@given(given_.moderate, given_.betas, given_.gammas, given_.zetas)
def test_the_share_of_open_gates_agrees(
    implementation: Implementation, log_alpha: float, beta: float, gamma: float, zeta: float
) -> None:
    """Over evenly spaced uniforms the share of non-zero gates is the probability, to one gate in 1,000."""
    count = 1000
    u = (np.arange(count) + 0.5) / count
    open_share = np.mean(np.asarray(implementation.gate(np.full(count, log_alpha), u, beta, gamma, zeta)) > 0)
    probability = float(np.asarray(implementation.gate_probability(np.array([log_alpha]), beta, gamma, zeta))[0])
    agrees = abs(open_share - probability) <= 1.5 / count
    inputs = {"log_alpha": log_alpha, "beta": beta, "gamma": gamma, "zeta": zeta}
    holds("A4", agrees, "share of open gates", expected=probability, got=open_share, **inputs)


# A5


@clause("A5")
@given(given_.penalties(), st.floats(0, 3))
def test_penalty_is_the_expected_number_of_open_gates(
    implementation: Implementation, log_alpha: dict[str, dict[str, Array]], weight: float
) -> None:
    """λ Σ P(gate ≠ 0), or under penalty = mean its mean, with the exact gradient."""
    value, gradient = implementation.mask_penalty(log_alpha, weight)
    expected, slopes = oracles.penalty(log_alpha, weight, implementation.ruling("penalty"))
    close("A5", value, expected, "L_mask", log_alpha=log_alpha, weight=weight)
    equal(
        "A5", {k: set(v) for k, v in gradient.items()}, {k: set(v) for k, v in slopes.items()}, "gradient's structure"
    )
    for matrix, sides in slopes.items():
        for side, slope in sides.items():
            close(
                "A5", gradient[matrix][side], slope, f"gradient of {matrix}/{side}", log_alpha=log_alpha, weight=weight
            )


@clause("A5")
@given(st.data(), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_penalty_pushes_every_gate_down(
    implementation: Implementation, data: st.DataObject, count: int, n: int, m: int
) -> None:
    """Every gate's gradient is positive, and a step against it lowers every gate's probability and the penalty."""
    shapes = {"x": (count, n), "delta": (count, m)}
    log_alpha = {"w": {side: data.draw(given_.arrays(shape, given_.moderate)) for side, shape in shapes.items()}}
    value, gradient = implementation.mask_penalty(log_alpha, 1.0)
    moved: dict[str, dict[str, Array]] = {"w": {}}
    for side, slope in gradient["w"].items():
        positive = bool(np.all(np.asarray(slope) > 0))
        holds("A5", positive, f"gradient of {side}", expected="positive", got=slope, log_alpha=log_alpha)
        moved["w"][side] = log_alpha["w"][side] - np.asarray(slope)
    after, _ = implementation.mask_penalty(moved, 1.0)
    holds("A5", after < value, "a step down", expected=f"below {value}", got=after, log_alpha=log_alpha)


# A6


@clause("A6")
@given(st.data(), st.one_of(st.none(), given_.seeds))
def test_rows_of_other_languages_have_no_influence(
    implementation: Implementation, data: st.DataObject, seed: int | None
) -> None:
    """Replacing every other language's parameters leaves an edit bit for bit as it was."""
    case = st_learned(implementation, data)
    row = case["languages"].index(case["language"])
    changed = {name: np.where(np.arange(len(a))[:, None] == row, a, 7.5 - a) for name, a in case["log_alpha"].items()}
    before = implementation.mask_factors(**case, seed=seed)
    after = implementation.mask_factors(**case | {"log_alpha": changed}, seed=seed)
    for name, a, b in zip(("x", "δ"), before, after, strict=True):
        same_bits("A6", b, a, f"{name} under other masks elsewhere", seed=seed, **case)


@clause("A6")
@given(st.data(), st.one_of(st.none(), given_.seeds))
def test_only_the_editing_language_gets_a_gradient(
    implementation: Implementation, data: st.DataObject, seed: int | None
) -> None:
    """The editing row's gradient is the derivative of the masked factors; every other row's is exactly zero."""
    case = st_learned(implementation, data, elements=st.floats(-2, 2))
    row = case["languages"].index(case["language"])
    grads = {f"grad_{side}": data.draw(given_.arrays(case[side].shape, given_.entries)) for side in ("x", "delta")}
    got = implementation.mask_factors_gradient(**case, **grads, seed=seed)
    equal("A6", set(got), set(case["log_alpha"]), "gradient's structure", **case)
    for name, gradient in got.items():
        others = np.delete(np.asarray(gradient), row, axis=0)
        holds("A6", not others.any(), f"other rows of {name}", expected="exactly 0", got=others, seed=seed, **case)
    for side, gates in zip(("x", "delta"), _gates(implementation, case, seed), strict=True):
        expected = _slopes(case, side, gates, sampled=seed is not None)
        reached = np.sum(grads[f"grad_{side}"] * case[side], axis=0)
        for name, slope in expected.items():
            close("A6", got[name][row], reached * slope, f"gradient of {name}", 1e-6, seed=seed, **case, **grads)


def _gates(implementation: Implementation, case: dict[str, Any], seed: int | None) -> list[Array]:
    """The gates that the edit used, seen through tokens of ones and (if learned) scales of one."""
    shapes = {side: case[side].shape for side in ("x", "delta")}
    parameters = table(implementation, case["log_alpha"]["x"], case["log_alpha"]["delta"])
    seen = implementation.mask_factors(
        parameters, case["languages"], case["language"], np.ones(shapes["x"]), np.ones(shapes["delta"]), seed=seed
    )
    return [np.asarray(factor)[0] - 1 for factor in seen]


def _slopes(case: dict[str, Any], side: str, gates: Array, sampled: bool) -> dict[str, Array]:
    """d mask / d parameter: (ζ − γ) s (1 − s), over β in training, and 0 where the gate is clipped."""
    s = (gates - GAMMA) / (ZETA - GAMMA)
    inside = (gates > 1e-9) & (gates < 1 - 1e-9)
    slope = np.where(inside, (ZETA - GAMMA) * s * (1 - s) / (BETA if sampled else 1.0), 0.0)
    row = case["languages"].index(case["language"])
    scale = case["log_alpha"].get(f"{side}_scale")
    return {side: slope} if scale is None else {side: slope * scale[row], f"{side}_scale": gates}


@clause("A6")
def test_a_square_matrix_keeps_its_two_masks_apart(implementation: Implementation) -> None:
    """Where n = m, x still gets the mask of x and δ the mask of δ, in the order of the given languages."""
    x_rows, delta_rows = np.full((3, 4), CLOSED), np.full((3, 4), CLOSED)
    x_rows[1] = OPEN
    delta_rows[2] = OPEN
    parameters = table(implementation, x_rows, delta_rows)
    for language, (on_x, on_delta) in {"zu": (1.0, 1.0), "aa": (2.0, 1.0), "mm": (1.0, 2.0)}.items():
        got = implementation.mask_factors(parameters, ["zu", "aa", "mm"], language, np.ones((2, 4)), np.ones((2, 4)))
        same_bits("A6", got[0], np.full((2, 4), on_x), "x", language=language)
        same_bits("A6", got[1], np.full((2, 4), on_delta), "δ", language=language)


# A8, A9, A10


@clause("A8")
@given(st.data(), st.one_of(st.none(), given_.seeds))
def test_masked_factors_give_the_masked_gradient(
    implementation: Implementation, data: st.DataObject, seed: int | None
) -> None:
    """Token by token: outer(mask(x), mask(δ)) = ((1 + m_x)(1 + m_δ)ᵀ) ⊙ outer(x, δ); their sums agree too."""
    case = st_learned(implementation, data)
    mine = {name: rows[[case["languages"].index(case["language"])]] for name, rows in case["log_alpha"].items()}
    one = [np.ones((1, mine[side].shape[1])) for side in ("x", "delta")]
    whole = {"log_alpha": case["log_alpha"], "languages": case["languages"], "language": case["language"]}
    m_x, m_delta = (
        np.asarray(f)[0] - 1 for f in implementation.mask_factors(**whole, x=one[0], delta=one[1], seed=seed)
    )
    x, delta = (np.asarray(factor) for factor in implementation.mask_factors(**case, seed=seed))
    full = np.outer(1 + m_x, 1 + m_delta)
    total = np.zeros_like(full)
    for token in range(len(x)):
        expected = full * np.outer(case["x"][token], case["delta"][token])
        close("A8", np.outer(x[token], delta[token]), expected, f"token {token}", 1e-8, seed=seed, **case)
        total += expected
    close("A8", x.T @ delta, total, "sum over tokens", 1e-7, seed=seed, **case)


@clause("A9")
@given(st.data(), st.one_of(st.none(), given_.seeds))
def test_closed_gates_leave_the_factors_alone(
    implementation: Implementation, data: st.DataObject, seed: int | None
) -> None:
    """With every gate 0, x and δ pass bit for bit."""
    case = st_learned(implementation, data, elements=st.just(CLOSED))
    for name, got in zip(("x", "delta"), implementation.mask_factors(**case, seed=seed), strict=True):
        same_bits("A9", got, case[name], f"{name} under closed gates", seed=seed, **case)


@clause("A9")
@given(st.data())
def test_permuting_languages_permutes_masks(implementation: Implementation, data: st.DataObject) -> None:
    """Languages and rows in another order: the same edit, bit for bit."""
    case = st_learned(implementation, data)
    order = data.draw(st.permutations(range(len(case["languages"]))))
    moved = case | {
        "languages": [case["languages"][place] for place in order],
        "log_alpha": {name: rows[list(order)] for name, rows in case["log_alpha"].items()},
    }
    pairs = zip(implementation.mask_factors(**case), implementation.mask_factors(**moved), strict=True)
    for name, (before, after) in zip(("x", "δ"), pairs, strict=True):
        same_bits("A9", after, before, f"{name} after a permutation", order=order, **case)


@clause("A10")
def test_an_unknown_language_is_an_error_listing_the_known(implementation: Implementation) -> None:
    """Masking and its gradient both refuse a language without a row."""
    parameters = table(implementation, np.zeros((2, 3)), np.zeros((2, 2)))
    x, delta = np.ones((1, 3)), np.ones((1, 2))
    known = ("qq", "en", "zh")
    rejects("A10", lambda: implementation.mask_factors(parameters, ["en", "zh"], "qq", x, delta), known, "language qq")
    rejects(
        "A10",
        lambda: implementation.mask_factors_gradient(parameters, ["en", "zh"], "qq", x, delta, x, delta),
        known,
        "gradient for language qq",
    )


@golden.cases("apply_mask", "gate", "gate_probability", "mask_penalty", "mask_factors", "mask_factors_gradient")
def test_golden_masks(implementation: Implementation, case: golden.Case) -> None:
    """The committed values."""
    golden.check(implementation, case)


# Of editors


def penalty(implementation: Any, editor: Any) -> tuple[float, dict[tuple[str, str], torch.Tensor]]:
    """L_mask at λ 1 in closed form, with its gradient per matrix and factor, under the declared normalisation."""
    factors = {
        (matrix, factor): arrays[factor].detach()
        for matrix, arrays in implementation.mask_parameters(editor).items()
        for factor in ("x", "delta")
    }
    open_ = {key: torch.sigmoid(value + _SHIFT) for key, value in factors.items()}
    mean = implementation.ruling("penalty") == "mean"
    norm = sum(value.numel() for value in factors.values()) if mean else 1
    value = sum(float(p.sum()) for p in open_.values()) / norm
    return value, {key: p * (1 - p) / norm for key, p in open_.items()}


def mask_gradients(implementation: Any, editor: Any, gradient: dict[str, Any]) -> dict[tuple[str, str], torch.Tensor]:
    """The gradients that belong to the mask parameters: the live tensors are found by identity."""
    names = {value.data_ptr(): name for name, value in implementation.parameters(editor).items()}
    found = {}
    for matrix, arrays in implementation.mask_parameters(editor).items():
        for factor, value in arrays.items():
            assert value.data_ptr() in names, f"the mask {factor} of {matrix} is not among the parameters"
            one = gradient[names[value.data_ptr()]]
            found[matrix, factor] = torch.zeros_like(value) if one is None else one
    return found


@clause("A5")
@needs("E")
@every_learned
def test_the_penalty_is_part_of_the_training_objective(implementation: Any, name: str) -> None:
    """The mask part is Σ P(gate ≠ 0) over all languages and matrices, and pushes the gates of every language."""
    editor = masked_editor(implementation, name, setting("bert"))
    value, slopes = penalty(implementation, editor)
    parts, gradient = implementation.losses(editor, [make_triple("bert", np.random.default_rng(26), "en")], seed=0)
    assert parts["mask"] == pytest.approx(value, rel=1e-6)
    found = mask_gradients(implementation, editor, gradient)
    for (matrix, factor), slope in slopes.items():
        for row in (LANGUAGES.index("de"), LANGUAGES.index("fr")):
            what = f"{LANGUAGES[row]}, which nothing edits, {factor} of {matrix}"
            assert_close(found[matrix, factor][row], slope[row], what, atol=1e-12)


@clause("A5")
@needs("E")
@every_learned
def test_without_masks_there_is_no_penalty(implementation: Any, name: str) -> None:
    """An editor that has no mask has a mask loss of 0."""
    editor = make(implementation, name, setting("bert"))
    parts, _ = implementation.losses(editor, [make_triple("bert", np.random.default_rng(27))], seed=0)
    assert parts["mask"] == 0.0


@clause("A6")
@needs("E")
@pytest.mark.parametrize("language", LANGUAGES)
@every_learned
def test_an_edit_trains_the_masks_of_its_language_only(implementation: Any, name: str, language: str) -> None:
    """Take the penalty's gradient off: rows of other languages keep exactly nothing, the editing language's do not."""
    editor = masked_editor(implementation, name, setting("bert"))
    rng = np.random.default_rng(28)
    _, slopes = penalty(implementation, editor)
    _, gradient = implementation.losses(editor, [make_triple("bert", rng, language) for _ in range(2)], seed=0)
    for (matrix, factor), found in mask_gradients(implementation, editor, gradient).items():
        from_edits = found - slopes.get((matrix, factor), torch.zeros_like(found))
        for row, other in enumerate(LANGUAGES):
            size = float(from_edits[row].abs().max())
            if other == language:
                assert size > 1e-9, f"{factor} of {matrix}: the edit in {other} does not reach its mask"
            else:
                assert size < 1e-14, f"{factor} of {matrix}: an edit in {language} moves the mask of {other} by {size}"


@clause("A6")
@needs("E")
@pytest.mark.parametrize("language", LANGUAGES)
@every_learned
def test_an_edit_uses_the_mask_of_its_language_only(implementation: Any, name: str, language: str) -> None:
    """Other values in the rows of all other languages leave an edit as it was; other values in its own row do not."""
    world = setting("bert")
    editor = masked_editor(implementation, name, world)
    request = make_request("bert", np.random.default_rng(37), language=language)
    (before,) = updates(implementation, editor, [request])
    own = LANGUAGES.index(language)
    for row in [*(r for r in range(len(LANGUAGES)) if r != own), own]:
        with torch.no_grad():
            for arrays in implementation.mask_parameters(editor).values():
                for value in arrays.values():
                    value[row] = value[row].flip(0) + 0.5
        (after,) = updates(implementation, editor, [request])
        for matrix in world.edited:
            same = torch.allclose(after[matrix], before[matrix], rtol=1e-9)
            assert same == (row != own), f"{matrix}: the mask of {LANGUAGES[row]} and an edit in {language}"


@clause("A7")
@needs("E")
@pytest.mark.parametrize("language", LANGUAGES)
def test_masks_act_before_the_transform(implementation: Any, language: str) -> None:
    """g(mask(x, m_x), mask(δ, m_δ)) with open gates is g of the masked factors with all gates closed."""
    world = setting("bert")
    editor = masked_editor(implementation, "mend", world)
    row = LANGUAGES.index(language)
    masks = implementation.mask_parameters(editor)
    captured = implementation.capture(editor, make_request("bert", np.random.default_rng(29), language=language))
    masked, found = {}, {}
    for matrix, (x, delta) in captured.items():
        alive = delta.abs().sum(-1) > 0
        x, delta = x[alive].detach(), delta[alive].detach()  # noqa: PLW2901
        found[matrix] = [v.detach().clone() for v in implementation.transform(editor, matrix, x, delta, language)]
        masked[matrix] = [
            rows * (1 + gate_values(masks[matrix], factor, row)) for factor, rows in (("x", x), ("delta", delta))
        ]
    close_gates(implementation, editor)
    for matrix, factors in masked.items():
        expected = implementation.transform(editor, matrix, *factors, language)
        for which, one, other in zip(("x̃", "δ̃"), found[matrix], expected, strict=True):
            assert_close(one, other, f"{which} of {matrix}", atol=1e-8)


@clause("A7")
@needs("E")
@pytest.mark.parametrize("language", LANGUAGES)
@each_of("editable_training", "knowledge_editor")
def test_masks_act_on_the_gradient_that_an_editor_takes(implementation: Any, name: str, language: str) -> None:
    """An inner step, or what is gated, is the sum of outer products of masked factors; nothing else is masked."""
    world = setting("bert")
    editor = masked_editor(implementation, name, world)
    masks = implementation.mask_parameters(editor)
    request = make_request("bert", np.random.default_rng(46), language=language)
    shift = shifts(implementation, editor, name, world)
    gradient = masked_gradient(with_update(world.model, shift), masks, request, LANGUAGES.index(language))
    (update,) = updates(implementation, editor, [request])
    gates = implementation.gates(editor, request) if name == "knowledge_editor" else {}
    for matrix, found in update.items():
        if name == "knowledge_editor":
            step, expected = found, conditioned(gates[matrix], gradient[matrix])
        else:
            step = found - shift[matrix]
            expected = -rate(step, gradient[matrix]) * gradient[matrix]
        assert_close(step, expected, matrix, atol=1e-8 * float(expected.abs().max()))


@clause("A3")
@needs("E")
@pytest.mark.parametrize(("drawn", "closed"), [("x", "delta"), ("delta", "x")])
@every_learned
def test_gates_are_drawn_in_training_and_fixed_at_test(implementation: Any, name: str, drawn: str, closed: str) -> None:
    """Two seeds give two objectives, by the gates of either factor; an edit at test time is the same each time."""
    editor = masked_editor(implementation, name, setting("bert"))
    with torch.no_grad():
        for arrays in implementation.mask_parameters(editor).values():
            arrays[closed].fill_(-40.0)
    rng = np.random.default_rng(30)
    triple, request = make_triple("bert", rng), make_request("bert", rng)
    first, again, other = (implementation.losses(editor, [triple], seed=seed)[0]["rel"] for seed in (1, 1, 2))
    assert first == again, "one seed gives two objectives"
    assert first != other, f"two seeds give one objective: the gates of {drawn} are not drawn"
    once, twice = updates(implementation, editor, [request, request])
    for matrix in once:
        assert torch.equal(once[matrix], twice[matrix]), f"{matrix}: two edits with one request differ"


@clause("A9")
@needs("E")
@every_model
@every_learned
def test_with_all_gates_closed_a_masked_editor_is_its_base_editor(implementation: Any, name: str, kind: str) -> None:
    """All gates 0: for every language the edit of the editor without masks that has the same other parameters."""
    world = setting(kind)
    base = make_felt(implementation, name, world)
    masked = masked_editor(implementation, name, world)
    target = implementation.parameters(base)
    source = implementation.parameters(masked)
    assert set(target) <= set(source), "a masked editor has all parameters of its base editor, under the same names"
    with torch.no_grad():
        for own, value in target.items():
            value.copy_(source[own])
    close_gates(implementation, masked)
    rng = np.random.default_rng(31)
    for language in LANGUAGES:
        request = make_request(kind, rng, language=language)
        (expected,), (found,) = (updates(implementation, editor, [request]) for editor in (base, masked))
        for matrix in world.edited:
            scale = float(expected[matrix].abs().max())
            assert_close(found[matrix], expected[matrix], f"{matrix}, {language}", rtol=1e-9, atol=1e-12 * scale)


@clause("A9")
@needs("E")
@every_learned
def test_permuting_the_languages_permutes_the_masks(implementation: Any, name: str) -> None:
    """An editor whose languages are listed in another order, with its rows in that order, makes the same edits."""
    world = setting("bert")
    order = (2, 0, 1)
    editor = masked_editor(implementation, name, world)
    permuted = masked_editor(implementation, name, world, [LANGUAGES[i] for i in order])
    with torch.no_grad():
        source = implementation.parameters(editor)
        for own, value in implementation.parameters(permuted).items():
            value.copy_(source[own])
        masks = implementation.mask_parameters(editor)
        for matrix, arrays in implementation.mask_parameters(permuted).items():
            for factor, value in arrays.items():
                value.copy_(masks[matrix][factor][list(order)])
    for language in LANGUAGES:
        request = make_request("bert", np.random.default_rng(32), language=language)
        (expected,), (found,) = (updates(implementation, one, [request]) for one in (editor, permuted))
        for matrix in world.edited:
            scale = float(expected[matrix].abs().max())
            assert_close(found[matrix], expected[matrix], f"{matrix}, {language}", rtol=1e-9, atol=1e-12 * scale)


@clause("A10")
@needs("E")
@every_editor
def test_an_edit_in_an_unknown_language_is_an_error_that_lists_the_known(implementation: Any, name: str) -> None:
    """An editing language that the editor was not made for is refused, by name and with the known ones."""
    request = make_request("bert", np.random.default_rng(33), language="xx")
    for masks in variants(name):
        editor = make(implementation, name, setting("bert"), masks)
        with pytest.raises((ValueError, LookupError)) as error:
            implementation.edit(editor, [request])
        for language in ("xx", *LANGUAGES):
            assert language in str(error.value), f"masks {masks}: the message does not name {language}: {error.value}"
