"""Chapter A, the algebra: masks, hard concrete gates, the penalty, masking the factors of an edit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from . import golden, oracles, strategies as given_
from .assertions import EPS, close, differs, distributed, equal, fail, holds, near, rejects, same_bits, width
from .border import Handed
from .conformance import Implementation, clause, each_of, every_learned, needs
from .contract import Array
from .editing import copied, every_model, masked_editor, transformed, updates
from .tiny import (
    LANGUAGES,
    close_gates,
    conditioned,
    gate_values,
    make,
    make_felt,
    make_input,
    make_request,
    make_triple,
    mask_places,
    masked_gradient,
    rate,
    raw_weights,
    set_masks,
    setting,
    shifts,
    with_update,
)

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
#: A gate so near to 0 or 1 may be one of them, seen as 1 + gate in float32.
ROUNDED = 1e-6
#: At these log α every gate of test time is closed or open, and an implementation may hold log α between them.
CLOSED, OPEN = -given_.BOUND, given_.BOUND
#: A gate is not zero with probability sigmoid(log α + this): -β log(-γ/ζ) at the defaults of A3.
_SHIFT = -BETA * math.log(-GAMMA / ZETA)
#: A seed, and others that share its last bits or digits, as hashes and clocks give them.
SEED, LIKE_IT = 1, (1 + 2**8, 1 + 2**16, 1 + 10**6)
#: Languages of which one name begins as another does.
ALIKE = ("be", "zh", "be-tarask", "zh-classical")
#: As many as mLAMA has, and some more.
MANY = tuple(f"l{number}" for number in range(60))


def learned(implementation: Implementation) -> bool:
    return implementation.ruling("mask_scale") == "learned"


def table(implementation: Implementation, x: Array, delta: Array) -> dict[str, Array]:
    """Mask parameters with the given log α; a learned scale is 1, so that the mask is the gate."""
    result = {"x": Handed.out(x), "delta": Handed.out(delta)}
    if learned(implementation):
        result |= {f"{side}_scale": np.ones_like(log_alpha) for side, log_alpha in result.items()}
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
    ones = [Handed.out(np.ones((1, log_alpha[side].shape[1]))) for side in ("x", "delta")]
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
    close(
        "A1",
        implementation.apply_mask(w, m),
        np.reshape(expected, shape),
        "mask(W, m) is not W + m ⊙ W",
        "arrays",
        W=w,
        m=m,
    )


@clause("A1")
@given(st.data(), given_.small_shapes)
def test_mask_of_zero_is_identity_and_of_one_doubles(
    implementation: Implementation, data: st.DataObject, shape: tuple[int, ...]
) -> None:
    """mask(W, 0) = W and mask(W, 1) = 2 W, exactly."""
    w = data.draw(given_.arrays(shape, given_.entries))
    zeros, ones = (np.full(shape, value, dtype=w.dtype) for value in (0, 1))
    same_bits("A1", implementation.apply_mask(w, zeros), w, "mask(W, 0) is not W", W=w)
    same_bits("A1", implementation.apply_mask(w, ones), 2 * w, "mask(W, 1) is not 2 W", W=w)


@clause("A1")
@given(st.data(), given_.small_shapes, st.floats(-3, 3))
def test_mask_is_linear_in_w_and_monotone_in_m(
    implementation: Implementation, data: st.DataObject, shape: tuple[int, ...], factor: float
) -> None:
    """mask(aW + V, m) = a mask(W, m) + mask(V, m); a larger gate never shrinks an entry."""
    w, v = (data.draw(given_.arrays(shape, given_.entries)) for _ in range(2))
    m = data.draw(given_.arrays(shape, given_.gates))
    factor = w.dtype.type(factor)
    left = implementation.apply_mask(factor * w + v, m)
    right = factor * np.asarray(implementation.apply_mask(w, m)) + np.asarray(implementation.apply_mask(v, m))
    close("A1", left, right, "mask(W, m) is not linear in W", "arrays", W=w, V=v, m=m, a=factor)
    more = np.abs(implementation.apply_mask(w, (1 + m) / 2))
    less = np.abs(implementation.apply_mask(w, m))
    room = 1e-12 if width(more, less) == "float64" else 1e-5
    what = "a larger gate makes an entry smaller"
    holds("A1", bool(np.all(more >= less - room)), what, expected="no smaller entry", got=more - less, W=w, m=m)


# A2, A3


@clause("A2")
@given(st.data(), given_.small_shapes, st.booleans())
def test_gates_lie_between_zero_and_one(
    implementation: Implementation, data: st.DataObject, shape: tuple[int, ...], sampled: bool
) -> None:
    """0 ≤ gate ≤ 1 for every log α and every draw; never NaN."""
    log_alpha = data.draw(given_.arrays(shape, given_.any_log_odds))
    u = data.draw(given_.arrays(shape, given_.uniforms)) if sampled else None
    got = np.asarray(implementation.gate(log_alpha, u))
    inside = bool(np.all((got >= 0) & (got <= 1)))
    holds("A2", inside, "a gate is outside of [0, 1]", expected="in [0, 1]", got=got, log_alpha=log_alpha, uniforms=u)


@clause("A2")
@given(st.data(), st.one_of(st.none(), given_.seeds))
def test_the_mask_of_an_edit_is_its_gate(implementation: Implementation, data: st.DataObject, seed: int | None) -> None:
    """A mask at work stays in [0, 1]; with a learned scale, so does the mask over the scale."""
    case = st_learned(implementation, data)
    for side, mask in zip(("x", "delta"), seen_masks(implementation, case["log_alpha"], seed), strict=True):
        scale = case["log_alpha"].get(f"{side}_scale", np.ones((1, mask.size)))[0]
        bounds = np.sort([np.zeros_like(scale), scale], axis=0)
        room = 1e-9 if width(mask) == "float64" else 1e-5
        inside = bool(np.all((mask >= bounds[0] - room) & (mask <= bounds[1] + room)))
        what = f"the mask of {side} is outside of [0, 1]"
        holds("A2", inside, what, expected=f"between 0 and {scale}", got=mask, seed=seed, **case)


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
    what = "a sampled gate is not hard concrete"
    close("A3", implementation.gate(log_alpha, u, **named), np.reshape(sampled, shape), what, "gates", **inputs)
    still = oracles.each(oracles.deterministic_gate, log_alpha, gamma, zeta)
    what = "a gate of test time is not the deterministic one"
    close("A3", implementation.gate(log_alpha, **named), still, what, "gates", **inputs)


@clause("A3")
@given(st.data())
def test_gates_at_test_time_are_deterministic(implementation: Implementation, data: st.DataObject) -> None:
    """Without a seed an edit is masked by the deterministic gates, the same at every call.

    Which language's masks these are is A6's matter, and whether x and δ get their own is A8's: there is one language,
    and where the widths are the same the masks are, too.
    """
    case = _of_one_language(st_learned(implementation, data))
    m_x, m_delta = masks(case["log_alpha"], 0)
    x, delta = implementation.mask_factors(**case)
    close("A3", x, case["x"] * (1 + m_x), "x is not masked by the gates of test time", "gates", **case)
    close("A3", delta, case["delta"] * (1 + m_delta), "δ is not masked by the gates of test time", "gates", **case)
    for first, second in zip((x, delta), implementation.mask_factors(**case), strict=True):
        same_bits("A3", second, first, "the same edit, made again, has other masks", **case)


def _of_one_language(case: dict[str, Any]) -> dict[str, Any]:
    """The same edit where no other language has masks, and x and δ of one width have the same."""
    row = case["languages"].index(case["language"])
    own = {name: rows[[row]] for name, rows in case["log_alpha"].items()}
    if own["x"].shape == own["delta"].shape:
        own |= {name.replace("x", "delta", 1): rows for name, rows in own.items() if name.startswith("x")}
    return {**case, "log_alpha": own, "languages": [case["language"]]}


@clause("A3")
def test_a_seed_of_zero_is_a_seed(implementation: Implementation) -> None:
    """Under it gates are drawn, as under any other, and they are not those of test time."""
    parameters = table(implementation, np.zeros((1, 60)), np.zeros((1, 40)))
    x, delta = Handed.out(np.ones((1, 60))), Handed.out(np.ones((1, 40)))
    drawn, fixed = (implementation.mask_factors(parameters, ["en"], "en", x, delta, seed=s) for s in (0, None))
    for factor, one, other in zip(("x", "δ"), drawn, fixed, strict=True):
        differs("A3", one, other, f"the gates of {factor} under seed 0 are those without a seed", expected="a draw")


@clause("A3")
def test_gates_in_training_are_stochastic(implementation: Implementation) -> None:
    """The seed fixes the draw; another seed draws other gates, for both factors."""
    parameters = table(implementation, np.zeros((2, 50)), np.zeros((2, 50)))
    first, again = (seen_masks(implementation, parameters, SEED) for _ in range(2))
    for side, a, b in zip(("x", "δ"), first, again, strict=True):
        same_bits("A3", b, a, f"the same seed draws other gates for {side}")
    for seed in (2, *LIKE_IT):
        for side, a, c in zip(("x", "δ"), first, seen_masks(implementation, parameters, seed), strict=True):
            what, seeds = f"two seeds draw the same gates for {side}", (SEED, seed)
            holds("A3", not np.array_equal(a, c), what, expected="different gates", got=(a, c), seeds=seeds)
    holds("A3", not np.array_equal(*first), "x and δ share a draw", expected="different gates of x and δ", got=first)


@clause("A3")
@given(st.data(), given_.seeds)
def test_the_tokens_of_an_edit_share_the_draw(implementation: Implementation, data: st.DataObject, seed: int) -> None:
    """Sampled gates are the same for every token: equal rows in, equal rows out."""
    case = st_learned(implementation, data, elements=given_.moderate)
    tokens = data.draw(st.integers(2, 5))
    for side in ("x", "delta"):
        case[side] = np.repeat(case[side][:1], tokens, axis=0)
    for name, got in zip(("x", "δ"), implementation.mask_factors(**case, seed=seed), strict=True):
        what = f"the tokens of an edit do not share the gates of {name}"
        close("A3", got, np.repeat(got[:1], tokens, axis=0), what, "arrays", seed=seed, **case)


@clause("A3")
@pytest.mark.parametrize("log_alpha", [-4.0, -2.0, 0.0, 1.5, 4.0])
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
    distributed("A3", counts, expected, "sampled gates are not hard concrete", log_alpha=log_alpha)


def _bin(value: float, edges: Array) -> int:
    """0 for a gate of zero, 10 for a gate of one (both up to rounding of 1 + m), the ninths between them."""
    if value < ROUNDED:
        return 0
    return 10 if value > 1 - ROUNDED else int(np.searchsorted(edges, value))


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
    close("A4", got, expected, "P(gate ≠ 0) is another", "arrays", log_alpha=log_alpha, constants=numbers)


@clause("A4")
@given(given_.moderate, given_.betas, given_.gammas, given_.zetas)
def test_the_share_of_open_gates_agrees(
    implementation: Implementation, log_alpha: float, beta: float, gamma: float, zeta: float
) -> None:
    """Over evenly spaced uniforms the share of non-zero gates is the probability, to one gate in 1,000."""
    count = 1000
    u, odds = (Handed.out(array) for array in ((np.arange(count) + 0.5) / count, np.full(count, log_alpha)))
    open_share = np.mean(np.asarray(implementation.gate(odds, u, beta, gamma, zeta)) > 0)
    probability = float(np.asarray(implementation.gate_probability(odds[:1], beta, gamma, zeta))[0])
    agrees = abs(open_share - probability) <= 1.5 / count
    inputs = {"log_alpha": log_alpha, "beta": beta, "gamma": gamma, "zeta": zeta}
    holds("A4", agrees, "another share of the sampled gates is open", expected=probability, got=open_share, **inputs)


# A9


@clause("A9")
@pytest.mark.parametrize("seed", [None, 0, 5])
def test_a_draw_knows_nothing_of_the_order_of_languages(implementation: Implementation, seed: int | None) -> None:
    """With languages and rows in another order an edit has the masks that it had, those that a seed draws, too."""
    names, order = ["en", "de", "zh", "fr"], [2, 3, 1, 0]
    rng = np.random.default_rng(47)
    parameters = table(implementation, rng.normal(size=(4, 30)), rng.normal(size=(4, 20)))
    turned = {key: value[order] for key, value in parameters.items()}
    ones = [Handed.out(np.ones((1, width))) for width in (30, 20)]
    for language in names:
        before = implementation.mask_factors(parameters, names, language, *ones, seed=seed)
        after = implementation.mask_factors(turned, [names[i] for i in order], language, *ones, seed=seed)
        for factor, one, other in zip(("x", "δ"), before, after, strict=True):
            what = f"the order of the languages changes the masks of {factor}"
            close("A9", other, one, what, "gates", language=language, seed=seed)


# A5


@clause("A5")
@given(given_.penalties(), st.floats(0, 3))
def test_penalty_is_the_expected_number_of_open_gates(
    implementation: Implementation, log_alpha: dict[str, dict[str, Array]], weight: float
) -> None:
    """λ Σ P(gate ≠ 0), or under penalty = mean its mean, with the exact gradient."""
    value, gradient = implementation.mask_penalty(log_alpha, weight)
    expected, slopes = oracles.penalty(log_alpha, weight, implementation.ruling("penalty"))
    what = "L_mask is not the expected number of open gates"
    close("A5", value, expected, what, "arrays", log_alpha=log_alpha, weight=weight)
    parts = ({matrix: sorted(sides) for matrix, sides in found.items()} for found in (gradient, slopes))
    equal("A5", *parts, "the gradient of L_mask is not for all masks")
    for matrix, sides in slopes.items():
        for side, slope in sides.items():
            about = {"matrix": matrix, "factor": side, "log_alpha": log_alpha, "weight": weight}
            close("A5", gradient[matrix][side], slope, "L_mask has another gradient", "arrays", **about)


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
        what = "the gradient of L_mask does not push every gate down"
        holds("A5", positive, what, expected="positive", got=slope, factor=side, log_alpha=log_alpha)
        moved["w"][side] = log_alpha["w"][side] - np.asarray(slope, dtype=log_alpha["w"][side].dtype)
    after, _ = implementation.mask_penalty(moved, 1.0)
    what = "a step down the gradient of L_mask does not lower it"
    holds("A5", after < value, what, expected=f"below {value}", got=after, log_alpha=log_alpha)


# A6


@clause("A6")
@given(st.data(), st.one_of(st.none(), given_.seeds))
def test_rows_of_other_languages_have_no_influence(
    implementation: Implementation, data: st.DataObject, seed: int | None
) -> None:
    """Replacing every other language's parameters leaves an edit bit for bit as it was."""
    case = st_learned(implementation, data)
    row = case["languages"].index(case["language"])
    changed = {
        name: np.where(np.arange(len(a))[:, None] == row, a, np.roll(a, 1, axis=1) + a.dtype.type(0.5))
        for name, a in case["log_alpha"].items()
    }
    before = implementation.mask_factors(**case, seed=seed)
    after = implementation.mask_factors(**case | {"log_alpha": changed}, seed=seed)
    for name, a, b in zip(("x", "δ"), before, after, strict=True):
        same_bits("A6", b, a, f"masks of other languages change {name}", seed=seed, **case)


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
    equal("A6", sorted(got), sorted(case["log_alpha"]), "the gradient of an edit is not for all masks", **case)
    for name, gradient in got.items():
        others = np.delete(np.asarray(gradient), row, axis=0)
        what = "an edit has a gradient for the masks of other languages"
        holds("A6", not others.any(), what, expected="exactly 0", got=others, mask=name, seed=seed, **case)
    for side, gates in zip(("x", "delta"), _gates(implementation, case, seed), strict=True):
        expected = _slopes(case, side, gates, sampled=seed is not None)
        reached = np.sum(grads[f"grad_{side}"].astype(np.float64) * case[side], axis=0)
        for name, slope in expected.items():
            what, about = f"the gradient of the mask {name} is another", {"seed": seed, **case, **grads}
            close("A6", got[name][row], reached * slope, what, "slopes of gates", **about)


def _gates(implementation: Implementation, case: dict[str, Any], seed: int | None) -> list[Array]:
    """The gates that the edit used, seen through tokens of ones and (if learned) scales of one."""
    shapes = {side: case[side].shape for side in ("x", "delta")}
    parameters = table(implementation, case["log_alpha"]["x"], case["log_alpha"]["delta"])
    ones = [Handed.out(np.ones(shapes[side])) for side in ("x", "delta")]
    seen = implementation.mask_factors(parameters, case["languages"], case["language"], *ones, seed=seed)
    return [np.asarray(factor)[0] - 1 for factor in seen]


def _slopes(case: dict[str, Any], side: str, gates: Array, sampled: bool) -> dict[str, Array]:
    """d mask / d parameter: (ζ − γ) s (1 − s), over β in training, and 0 where the gate is clipped."""
    s = (gates - GAMMA) / (ZETA - GAMMA)
    inside = (gates > 1e-9) & (gates < 1 - 1e-9)
    slope = np.where(inside, (ZETA - GAMMA) * s * (1 - s) / (BETA if sampled else 1.0), 0.0)
    row = case["languages"].index(case["language"])
    scale = case["log_alpha"].get(f"{side}_scale")
    return {side: slope} if scale is None else {side: slope * scale[row], f"{side}_scale": gates}


@clause("A6", "A8")
def test_a_square_matrix_keeps_its_two_masks_apart(implementation: Implementation) -> None:
    """Where n = m, x still gets the mask of x and δ the mask of δ, in the order of the given languages."""
    x_rows, delta_rows = np.full((3, 4), CLOSED), np.full((3, 4), CLOSED)
    x_rows[1] = OPEN
    delta_rows[2] = OPEN
    parameters = table(implementation, x_rows, delta_rows)
    for language, (on_x, on_delta) in {"zu": (1.0, 1.0), "aa": (2.0, 1.0), "mm": (1.0, 2.0)}.items():
        ones = Handed.out(np.ones((2, 4)))
        got = implementation.mask_factors(parameters, ["zu", "aa", "mm"], language, ones, ones.copy())
        factors = [float(np.asarray(factor)[0, 0]) for factor in got]
        if factors == [on_delta, on_x] and on_x != on_delta:
            what = "where n = m, x gets the mask of δ and δ that of x"
            fail("A8", what, {"language": language}, (on_x, on_delta), factors)
        for side, found, expected in zip(("x", "δ"), got, (on_x, on_delta), strict=True):
            what = f"{side} is not masked by the mask of the editing language"
            same_bits("A6", found, np.full((2, 4), expected), what, language=language)


@clause("A6")
@pytest.mark.parametrize(
    "languages", [ALIKE, ALIKE[::-1], MANY], ids=["short names first", "long names first", "many names"]
)
def test_languages_of_similar_names_have_masks_of_their_own(
    implementation: Implementation, languages: tuple[str, ...]
) -> None:
    """Where one name begins as another does, each language is masked by its own row."""
    for row, language in enumerate(languages):
        rows = np.full((len(languages), 4), CLOSED)
        rows[row] = OPEN
        ones = Handed.out(np.ones((2, 4)))
        got = implementation.mask_factors(
            table(implementation, rows, rows.copy()), languages, language, ones, ones.copy()
        )
        for side, found in zip(("x", "δ"), got, strict=True):
            what = f"{side} is masked by the mask of a language of a similar name"
            same_bits("A6", found, np.full((2, 4), 2.0), what, language=language, languages=languages)


# A8, A9, A10


@clause("A8")
@pytest.mark.parametrize("tokens", [20, 128])
def test_each_of_many_tokens_is_masked(implementation: Implementation, tokens: int) -> None:
    """Open gates double x and δ of every token, to the last digit, however many tokens an edit has."""
    factors = [Handed.out(np.linspace(start, 1.0, tokens * 4).reshape(tokens, 4)) for start in (0.1, -0.7)]
    open_rows = np.full((1, 4), OPEN)
    got = implementation.mask_factors(
        table(implementation, open_rows, open_rows.copy()), ["en"], "en", factors[0].copy(), factors[1].copy()
    )
    for side, found, factor in zip(("x", "δ"), got, factors, strict=True):
        same_bits("A8", found, 2 * factor, f"{side} of many tokens is not doubled by open gates", tokens=tokens)


@clause("A8")
@given(st.data(), st.one_of(st.none(), given_.seeds))
def test_masked_factors_give_the_masked_gradient(
    implementation: Implementation, data: st.DataObject, seed: int | None
) -> None:
    """Token by token: outer(mask(x), mask(δ)) = ((1 + m_x)(1 + m_δ)ᵀ) ⊙ outer(x, δ); their sums agree too."""
    case = st_learned(implementation, data)
    mine = {name: rows[[case["languages"].index(case["language"])]] for name, rows in case["log_alpha"].items()}
    one = [Handed.out(np.ones((1, mine[side].shape[1]))) for side in ("x", "delta")]
    whole = {"log_alpha": case["log_alpha"], "languages": case["languages"], "language": case["language"]}
    m_x, m_delta = (
        np.asarray(f)[0] - 1 for f in implementation.mask_factors(**whole, x=one[0], delta=one[1], seed=seed)
    )
    masked = [np.asarray(factor) for factor in implementation.mask_factors(**case, seed=seed)]
    x, delta = (factor.astype(np.float64) for factor in masked)
    full = np.outer(1 + m_x, 1 + m_delta).astype(np.float64)
    pairs = list(zip(*(case[side].astype(np.float64) for side in ("x", "delta")), strict=True))
    terms = [full * np.outer(*rows) for rows in pairs]
    # A learned scale may be negative: then a mask takes away what was there, and leaves its rounding.
    largest = max(np.abs(np.outer(*rows)).max() for rows in pairs)
    rounded = np.outer(1 + np.abs(m_x), 1 + np.abs(m_delta)) * largest
    about = {"of": masked, "beside": rounded, "seed": seed, **case}
    for token, expected in enumerate(terms):
        what = "the product of the masked factors of a token is not its masked gradient"
        near("A8", np.outer(x[token], delta[token]), expected, what, "arrays", token=token, **about)
    near("A8", x.T @ delta, sum(terms), "the masked factors do not add up to the masked gradient", "arrays", **about)


@clause("A9")
@given(st.data(), st.one_of(st.none(), given_.seeds))
def test_closed_gates_leave_the_factors_alone(
    implementation: Implementation, data: st.DataObject, seed: int | None
) -> None:
    """Where a gate is 0, x and δ pass bit for bit; at test time all gates are."""
    case = st_learned(implementation, data, elements=st.just(CLOSED))
    gates = _gates(implementation, case, seed)
    for name, gate, got in zip(("x", "delta"), gates, implementation.mask_factors(**case, seed=seed), strict=True):
        closed = np.ones_like(gate, dtype=bool) if seed is None else gate == 0
        what = f"{name} does not pass a closed gate as it is"
        same_bits("A9", np.asarray(got)[:, closed], case[name][:, closed], what, seed=seed, **case)


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
        same_bits("A9", after, before, f"the order of the languages changes {name}", order=order, **case)


#: A code of no mask: another language, a region or a part of one that has a mask, its letters in another case.
UNKNOWN = ("qq", "en-US", "zh_TW", "e", "EN")


@clause("A10")
@pytest.mark.parametrize("unknown", UNKNOWN)
def test_an_unknown_language_is_an_error_listing_the_known(implementation: Implementation, unknown: str) -> None:
    """Masking and its gradient both refuse a language without a row."""
    parameters = table(implementation, np.zeros((2, 3)), np.zeros((2, 2)))
    x, delta = Handed.out(np.ones((1, 3))), Handed.out(np.ones((1, 2)))
    known, asked = (unknown, "en", "zh"), (parameters, ["en", "zh"], unknown, x, delta)
    rejects("A10", lambda: implementation.mask_factors(*asked), known, "an unknown language is masked")
    rejects(
        "A10",
        lambda: implementation.mask_factors_gradient(*asked, x, delta),
        known,
        "a mask of an unknown language has a gradient",
    )


@golden.cases("apply_mask", "gate", "gate_probability", "mask_penalty", "mask_factors", "mask_factors_gradient")
def test_golden_masks(implementation: Implementation, case: golden.Case) -> None:
    """The committed values."""
    golden.check(implementation, case)


# Of editors


def penalty(implementation: Any, editor: Any) -> tuple[float, dict[tuple[str, str], torch.Tensor]]:
    """L_mask at λ 1 in closed form, with its gradient per matrix and factor, under the declared normalisation."""
    factors = {
        (matrix, factor): arrays[factor].detach().double()
        for matrix, arrays in implementation.mask_parameters(editor).items()
        for factor in ("x", "delta")
    }
    open_ = {key: torch.sigmoid(value + _SHIFT) for key, value in factors.items()}
    mean = implementation.ruling("penalty") == "mean"
    norm = sum(value.numel() for value in factors.values()) if mean else 1
    value = sum(float(p.sum()) for p in open_.values()) / norm
    return value, {key: p * (1 - p) / norm for key, p in open_.items()}


def mask_gradients(implementation: Any, editor: Any, gradient: dict[str, Any]) -> dict[tuple[str, str], torch.Tensor]:
    """The gradients that belong to the mask parameters, wherever among the parameters these lie."""
    found = {}
    for key, (name, index) in mask_places(implementation, editor).items():
        one = gradient[name]
        found[key] = torch.zeros(index.shape, dtype=torch.float64) if one is None else one.flatten()[index]
    return found


@clause("A5")
@needs("E")
@every_learned
def test_a_shared_mask_is_counted_once(implementation: Any, name: str) -> None:
    """Of one mask for all languages the mask part has one row of gates, however many languages there are."""
    editor = make(implementation, name, setting("bert"), "shared")
    set_masks(implementation, editor)
    value, _ = penalty(implementation, editor)
    parts, _ = implementation.losses(editor, [make_triple("bert", np.random.default_rng(28), "en")], seed=0)
    close("A5", parts["mask"], value, "the mask part of an editor with one mask for all", "losses", editor=name)


@clause("A5")
@needs("E")
@pytest.mark.parametrize("count", [1, 3])
@every_learned
def test_the_penalty_is_part_of_the_training_objective(implementation: Any, name: str, count: int) -> None:
    """The mask part is Σ P(gate ≠ 0) over all languages and matrices, and pushes the gates of every language.

    So it is for a batch of any size: the penalty is the editor's, and no edit's.
    """
    editor = masked_editor(implementation, name, setting("bert"))
    value, slopes = penalty(implementation, editor)
    rng = np.random.default_rng(26)
    triples = [make_triple("bert", rng, "en") for _ in range(count)]
    parts, gradient = implementation.losses(editor, triples, seed=0)
    what = "the mask part of the training objective is not the expected number of open gates"
    close("A5", parts["mask"], value, what, "losses", editor=name, triples=triples)
    found = mask_gradients(implementation, editor, gradient)
    for (matrix, factor), slope in slopes.items():
        for row in (LANGUAGES.index("de"), LANGUAGES.index("fr")):
            what = "the penalty does not push the gates of languages that nothing edits"
            about = {"editor": name, "matrix": matrix, "factor": factor, "language": LANGUAGES[row], "edits": count}
            near("A5", found[matrix, factor][row], slope[row], what, "model", **about)


@clause("A5")
@needs("E")
@every_learned
def test_without_masks_there_is_no_penalty(implementation: Any, name: str) -> None:
    """An editor that has no mask has a mask loss of 0."""
    editor = make(implementation, name, setting("bert"))
    parts, _ = implementation.losses(editor, [make_triple("bert", np.random.default_rng(27))], seed=0)
    equal("A5", parts["mask"], 0.0, "an editor without masks pays a penalty", editor=name)


@clause("A6")
@needs("E")
@pytest.mark.parametrize("language", LANGUAGES)
@every_learned
def test_an_edit_trains_the_masks_of_its_language_only(implementation: Any, name: str, language: str) -> None:
    """Other edits in a language leave the gradient of all other languages' masks as it was, and change its own."""
    editor = masked_editor(implementation, name, setting("bert"))
    rng = np.random.default_rng(28)
    first, second = (
        mask_gradients(implementation, editor, implementation.losses(editor, triples, seed=0)[1])
        for triples in [[make_triple("bert", rng, language) for _ in range(2)] for _ in range(2)]
    )
    for (matrix, factor), one in first.items():
        other = second[matrix, factor]
        for row, said in enumerate(LANGUAGES):
            change, size = float((one[row] - other[row]).abs().max()), float(other[row].abs().max())
            about = {"editor": name, "matrix": matrix, "factor": factor, "edits in": language, "mask of": said}
            if said == language:
                what = "edits do not reach the mask of their own language"
                holds("A6", change > 1e-9, what, expected="another gradient", got=change, **about)
            else:
                what = "edits move the masks of other languages"
                none = change <= 8 * EPS[width(one, other)] * size
                holds("A6", none, what, expected="the same gradient", got=f"another by {change}", **about)


@clause("A6")
@needs("E")
@pytest.mark.parametrize(
    ("language", "known"),
    [*((one, LANGUAGES) for one in LANGUAGES), ("zh-classical", ALIKE), ("zh", ALIKE[::-1]), ("l18", MANY[:20])],
)
@every_learned
def test_an_edit_uses_the_mask_of_its_language_only(
    implementation: Any, name: str, language: str, known: tuple[str, ...]
) -> None:
    """Other values in the rows of all other languages leave an edit as it was; other values in its own row do not."""
    world = setting("bert")
    editor = masked_editor(implementation, name, world, known)
    request = make_request("bert", np.random.default_rng(37), language=language)
    (before,) = updates(implementation, editor, [request])
    own = known.index(language)
    for row in [*(r for r in range(len(known)) if r != own), own]:
        with torch.no_grad():
            for arrays in implementation.mask_parameters(editor).values():
                for value in arrays.values():
                    value[row] = value[row].flip(0) + 0.5
        (after,) = updates(implementation, editor, [request])
        for matrix in world.edited:
            about = {"editor": name, "edit": request, "mask of": known[row], "matrix": matrix}
            if row == own:
                what = "the mask of its language does not change an edit"
                differs("A6", after[matrix], before[matrix], what, expected="another ΔW", **about)
            else:
                what = "the mask of another language changes an edit"
                near("A6", after[matrix], before[matrix], what, "arrays", **about)


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
        rows = {"x": x[alive], "delta": delta[alive]}
        found[matrix] = transformed(implementation, editor, matrix, *rows.values(), language)
        masked[matrix] = [value * (1 + gate_values(masks[matrix], factor, row)) for factor, value in rows.items()]
    close_gates(implementation, editor)
    for matrix, factors in masked.items():
        expected = transformed(implementation, editor, matrix, *factors, language)
        for which, one, other in zip(("x", "δ"), found[matrix], expected, strict=True):
            what = "masks do not act on x and δ before the transform"
            near("A7", one, other, what, factor=which, matrix=matrix, language=language)


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
    raw = raw_weights(world)
    for matrix, found in update.items():
        if name == "knowledge_editor":
            taken, expected, beside = found, conditioned(gates[matrix], gradient[matrix]), None
        else:
            taken, beside = found - shift[matrix], raw[matrix]
            expected = -rate(taken, gradient[matrix]) * gradient[matrix]
        what = "the gradient that an edit takes is not that of masked factors"
        near("A7", taken, expected, what, of=[found], beside=beside, editor=name, edit=request, matrix=matrix)


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
    first, again, *others = (
        implementation.losses(editor, [triple], seed=seed)[0]["rel"] for seed in (SEED, SEED, 2, *LIKE_IT)
    )
    equal("A3", again, first, "one seed gives two objectives", editor=name, triple=triple)
    what = f"the gates of {drawn} are not drawn in training"
    holds("A3", first not in others, what, expected="another L_rel under every other seed", got=others, editor=name)
    once, twice = updates(implementation, editor, [request, request])
    for matrix in once:
        what = "two edits with one request differ: gates are drawn at test time"
        same_bits("A3", twice[matrix], once[matrix], what, editor=name, edit=request, matrix=matrix)


@clause("A3")
@needs("E")
@every_learned
def test_draws_do_not_depend_on_update_and_retain_inputs(implementation: Any, name: str) -> None:
    """Longer update inputs leave L_loc as it was under one seed, and longer retain inputs L_rel."""
    world, rng = setting("bert"), np.random.default_rng(38)
    editor = masked_editor(implementation, name, world)
    triples = [make_triple("bert", rng) for _ in range(3)]
    first = implementation.losses(editor, triples, seed=5)[0]
    for role, part in (("update", "loc"), ("retain", "rel")):
        changed: list[Any] = [
            {**triple, role: make_input("bert", rng, positions=len(triple[role]["positions"]), words=8 + place)}  # type: ignore[literal-required]
            for place, triple in enumerate(triples)
        ]
        found = implementation.losses(editor, changed, seed=5)[0]
        what = f"{part} depends on the {role} inputs, as if these drew the gates"
        close("A3", found[part], first[part], what, "losses", editor=name, triples=triples, changed=changed)


@clause("A3", "E16")
@needs("E")
@each_of("mend", "editable_training")
def test_draws_know_nothing_of_the_steps_before(implementation: Any, name: str) -> None:
    """An editor that was trained, and a new one with its numbers, have one objective under one seed."""
    world, rng = setting("bert"), np.random.default_rng(35)
    trained, fresh = (masked_editor(implementation, name, world) for _ in range(2))
    for seed in range(3):
        implementation.train_step(trained, [make_triple("bert", rng) for _ in range(10)], seed=seed)
    copied(implementation, trained, fresh, "A3")
    triples = [make_triple("bert", rng) for _ in range(3)]
    expected, found = (implementation.losses(one, triples, seed=7)[0] for one in (fresh, trained))
    for part in ("rel", "loc"):
        close("A3", found[part], expected[part], f"{part} of a trained editor, by that of one like it", "losses")


@clause("A9")
@needs("E")
@every_model
@every_learned
def test_with_all_gates_closed_a_masked_editor_is_its_base_editor(implementation: Any, name: str, kind: str) -> None:
    """All gates 0: for every language the edit of the editor without masks that has the same other parameters."""
    world = setting(kind)
    base = make_felt(implementation, name, world)
    masked = masked_editor(implementation, name, world)
    copied(implementation, masked, base, "A9")
    close_gates(implementation, masked)
    rng = np.random.default_rng(31)
    for language in LANGUAGES:
        request = make_request(kind, rng, language=language)
        (expected,), (found,) = (updates(implementation, editor, [request]) for editor in (base, masked))
        for matrix in world.edited:
            what = "with all gates closed an editor with masks is not its base editor"
            about = {"editor": name, "model": kind, "edit": request, "matrix": matrix}
            near("A9", found[matrix], expected[matrix], what, "arrays", **about)


@clause("A9")
@needs("E")
@every_learned
def test_permuting_the_languages_permutes_the_masks(implementation: Any, name: str) -> None:
    """An editor whose languages are listed in another order, with its rows in that order, makes the same edits.

    And it has the same objective, with the gates that a seed draws.
    """
    world = setting("bert")
    order = (2, 0, 1)
    editor = masked_editor(implementation, name, world)
    permuted = masked_editor(implementation, name, world, [LANGUAGES[i] for i in order])
    copied(implementation, editor, permuted, "A9")
    with torch.no_grad():
        masks = implementation.mask_parameters(editor)
        for matrix, arrays in implementation.mask_parameters(permuted).items():
            for factor, value in arrays.items():
                value.copy_(masks[matrix][factor][list(order)])
    for language in LANGUAGES:
        request = make_request("bert", np.random.default_rng(32), language=language)
        (expected,), (found,) = (updates(implementation, one, [request]) for one in (editor, permuted))
        for matrix in world.edited:
            what = "the order of the languages is not that of the mask rows"
            near("A9", found[matrix], expected[matrix], what, "arrays", editor=name, edit=request, matrix=matrix)
    triples = [make_triple("bert", np.random.default_rng(36), language) for language in LANGUAGES]
    objectives = [implementation.losses(one, triples, seed=5)[0] for one in (editor, permuted)]
    for part, value in objectives[0].items():
        what = f"the order of the languages changes {part} of the objective under a seed"
        close("A9", objectives[1][part], value, what, "losses", editor=name, triples=triples)


#: As many as mLAMA has.
MANY = (*LANGUAGES, *(f"q{number:02}" for number in range(50)))


@clause("A10")
@needs("E")
@pytest.mark.parametrize(
    ("unknown", "known"), [("xx", LANGUAGES), ("en-US", LANGUAGES), ("DE", LANGUAGES), ("xx", MANY)]
)
@every_learned
def test_an_edit_in_an_unknown_language_is_an_error_that_lists_the_known(
    implementation: Any, name: str, unknown: str, known: tuple[str, ...]
) -> None:
    """An editing language that has no mask is refused, by name and with the known ones, however many these are."""
    request = make_request("bert", np.random.default_rng(33), language=unknown)
    editor = make(implementation, name, setting("bert"), "language", languages=known)
    what = "an edit in a language without a mask"
    rejects("A10", lambda: implementation.edit(editor, [request]), (unknown, *known), what, editor=name, edit=request)
    beside = [{**request, "language": known[0]}, request]
    what = "an edit in a language without a mask, behind one in a known language"
    rejects("A10", lambda: implementation.edit(editor, beside), (unknown, *known), what, editor=name, edit=request)


@clause("A10")
@needs("E", "C")
@every_learned
def test_the_next_edit_of_a_series_in_an_unknown_language_is_an_error(implementation: Any, name: str) -> None:
    """After other edits as without them: no other language's mask stands in."""
    rng = np.random.default_rng(45)
    editor = make(implementation, name, setting("bert"), "language")
    first, next_ = make_request("bert", rng, "en"), make_request("bert", rng, "xx")
    before = implementation.compose_edits(editor, [implementation.edit(editor, [first])])
    what = "an edit after others in a language without a mask"
    call = lambda: implementation.edit_after(editor, before, [next_])  # noqa: E731
    rejects("A10", call, ("xx", *LANGUAGES), what, editor=name, edit=next_)


@clause("A10")
@needs("E")
@pytest.mark.parametrize("function", ["losses", "train_step"])
@every_learned
def test_a_training_edit_in_an_unknown_language_is_an_error(implementation: Any, name: str, function: str) -> None:
    """As in an edit: no other language's mask is trained in its place."""
    rng = np.random.default_rng(34)
    triples = [make_triple("bert", rng, "en"), make_triple("bert", rng, "xx")]
    editor = make(implementation, name, setting("bert"), "language")
    call = lambda: getattr(implementation, function)(editor, triples, seed=0)  # noqa: E731
    rejects("A10", call, ("xx", *LANGUAGES), "training on an edit in a language without a mask", editor=name)
