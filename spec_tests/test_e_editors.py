"""Chapter E: editors. MEND so far; every editor that has a transform obeys the same laws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spec_tests.conformance import clause, needs
from spec_tests.contract import Input, Request
from spec_tests.facts import Case, load_facts, raw_model
from spec_tests.tiny import (
    LANGUAGES,
    Setting,
    assert_close,
    cross_entropy,
    gradients,
    layer_norm,
    logits_of,
    make_input,
    make_mend,
    make_request,
    make_triple,
    one_thread,
    outer_sum,
    perturb,
    rate,
    set_masks,
    setting,
    with_update,
)

KINDS = ("bert", "square", "classifier", "roberta")
VARIANTS = ("none", "language", "shared")
every_model = pytest.mark.parametrize("kind", KINDS)
every_variant = pytest.mark.parametrize("masks", VARIANTS)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def _light() -> Any:
    with one_thread():
        yield


def random_requests(kind: str) -> st.SearchStrategy[Request]:
    return seeds.map(lambda seed: make_request(kind, np.random.default_rng(seed)))


def rows(world: Setting, matrix: str, count: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random x and δ; δ is as small as gradients are."""
    n, m = world.shapes[matrix]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, n, generator=generator, dtype=torch.float64)
    return x, 1e-3 * torch.randn(count, m, generator=generator, dtype=torch.float64)


# --- E1, E2 -----------------------------------------------------------------------------------------------------------


@clause("E1")
@every_model
def test_captured_rows_give_autograds_gradient(implementation: Any, kind: str) -> None:
    """∇_W L = Σ_t outer(δ_t, x_t) for every edited matrix, square ones too."""
    world = setting(kind)
    editor = make_mend(implementation, world)

    @given(random_requests(kind))
    def check(request: Request) -> None:
        expected = gradients(world.model, world.edited, request)
        captured = implementation.capture(editor, request)
        assert set(captured) == set(world.edited)
        for matrix, (x, delta) in captured.items():
            assert_close(outer_sum(x, delta), expected[matrix], matrix, atol=1e-12)

    check()


@clause("E2")
@every_model
@every_variant
def test_an_update_is_the_sum_of_transformed_outer_products(implementation: Any, kind: str, masks: str) -> None:
    """ΔW = -lr Σ_t outer(δ̃_t, x̃_t), with (x̃, δ̃) the transform of what was captured; lr may have been learned."""
    world = setting(kind)
    editor = make_mend(implementation, world, masks, inner_lr=0.01)
    perturb(implementation, editor)
    request = make_request(kind, np.random.default_rng(3), language="de")
    update = implementation.dense(editor, implementation.edit(editor, [request]), 0)
    for matrix, (x, delta) in implementation.capture(editor, request).items():
        alive = delta.abs().sum(-1) > 0
        direction = outer_sum(*implementation.transform(editor, matrix, x[alive], delta[alive], "de")).detach()
        found = update[matrix].detach()
        c = rate(found, direction)
        assert c > 0, f"{matrix}: the inner learning rate is {c}"
        assert_close(found, -c * direction, matrix, atol=1e-9 * c)


@clause("E2")
@every_model
def test_the_rank_of_an_update_is_at_most_its_tokens_with_gradient(implementation: Any, kind: str) -> None:
    """rank ΔW ≤ the number of rows with gradient; in the last layer one position makes rank 1."""
    world = setting(kind)
    editor = make_mend(implementation, world)
    perturb(implementation, editor)

    @given(random_requests(kind))
    def check(request: Request) -> None:
        update = implementation.dense(editor, implementation.edit(editor, [request]), 0)
        for matrix, (_, delta) in implementation.capture(editor, request).items():
            tokens = int((delta.abs().sum(-1) > 0).sum())
            singular = torch.linalg.svdvals(update[matrix].detach())
            rank = int((singular > 1e-9 * singular[0]).sum())
            assert rank <= tokens, f"{matrix} has rank {rank} from {tokens} tokens"
            if matrix in world.edited[-2:]:
                assert rank <= len(request["positions"]), f"{matrix}: only predicted positions have gradient there"

    check()


# --- E6 ---------------------------------------------------------------------------------------------------------------


@clause("E6")
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])
def test_the_transform_starts_as_the_identity_on_normalised_rows(implementation: Any, size: float) -> None:
    """Untrained, (x̃, δ̃) = (LayerNorm(x), LayerNorm(δ)), at whatever size gradients have."""
    world = setting("bert")
    editor = make_mend(implementation, world)
    for matrix in world.edited:
        x, delta = rows(world, matrix)
        x_new, delta_new = implementation.transform(editor, matrix, x, delta * size, "en")
        assert_close(x_new, layer_norm(x), f"x of {matrix}", rtol=0, atol=0.01)
        assert_close(delta_new, layer_norm(delta), f"δ of {matrix}", rtol=0, atol=0.01)


@clause("E6")
@every_variant
def test_the_transform_does_not_see_the_size_of_a_gradient(implementation: Any, masks: str) -> None:
    """δ · 1e-4 leaves x̃ and δ̃ unchanged to 1%, trained or not, on gradients as they occur."""
    world = setting("bert")
    editor = make_mend(implementation, world, masks)
    request = make_request("bert", np.random.default_rng(5), language="fr")
    for _ in range(2):
        for matrix, (x, delta) in implementation.capture(editor, request).items():
            alive = delta.abs().sum(-1) > 0
            whole = implementation.transform(editor, matrix, x[alive], delta[alive], "fr")
            small = implementation.transform(editor, matrix, x[alive], delta[alive] * 1e-4, "fr")
            for name, one, other in zip(("x̃", "δ̃"), whole, small, strict=True):
                change = float((one - other).norm() / one.norm())
                assert change < 0.01, f"{name} of {matrix} moves by {change:.1%}"
        perturb(implementation, editor)


@clause("E6")
@every_variant
def test_a_row_is_transformed_alone(implementation: Any, masks: str) -> None:
    """LayerNorm knows one row: neither the other rows of a call nor earlier calls change what becomes of it."""
    world = setting("bert")
    editor = make_mend(implementation, world, masks)
    perturb(implementation, editor)
    for matrix in world.edited:
        x, delta = rows(world, matrix)
        first = [value.detach().clone() for value in implementation.transform(editor, matrix, x, delta, "en")]
        implementation.transform(editor, matrix, 3 + 7 * x, delta.flip(0) - 1, "en")
        implementation.edit(editor, [make_request("bert", np.random.default_rng(0), language="en")])
        for t in range(len(x)):
            alone = implementation.transform(editor, matrix, x[t : t + 1], delta[t : t + 1], "en")
            for name, together, one in zip(("x̃", "δ̃"), first, alone, strict=True):
                assert_close(one[0], together[t], f"{name} of {matrix}", rtol=1e-7, atol=1e-9)


@clause("E6")
def test_layers_share_one_transform_per_shape(implementation: Any) -> None:
    """A second layer with the same shapes adds a scale and a shift per matrix, no second transform."""
    world = setting("bert")
    one_layer = implementation.parameters(make_mend(implementation, Setting("bert", world.model, world.edited[:2])))
    two_layers = implementation.parameters(make_mend(implementation, world))
    added = sum(v.numel() for v in two_layers.values()) - sum(v.numel() for v in one_layer.values())
    widths = sum(sum(world.shapes[matrix]) for matrix in world.edited[2:])
    assert 2 * widths <= added <= 10 * widths, f"the layer adds {added} parameters for a total width of {widths}"


@clause("E6")
def test_a_shared_parameter_moves_all_matrices_of_its_shape_only(implementation: Any) -> None:
    """Moving one parameter tensor moves the transforms of matrices of one shape; some move every one of them."""
    world = setting("bert")
    editor = make_mend(implementation, world)
    perturb(implementation, editor)
    before = _transformed(implementation, editor, world)
    shared: set[tuple[int, int]] = set()
    for name, value in implementation.parameters(editor).items():
        old = value.detach().clone()
        with torch.no_grad():
            value.mul_(1.5)
        after = _transformed(implementation, editor, world)
        with torch.no_grad():
            value.copy_(old)
        moved = [matrix for matrix in world.edited if not torch.equal(before[matrix], after[matrix])]
        shapes = {world.shapes[matrix] for matrix in moved}
        assert len(shapes) <= 1, f"{name} moves the transforms of {moved}, which differ in shape"
        if len(moved) == 2:
            shared |= shapes
    assert shared == set(world.shapes.values()), f"only the shapes {shared} have a transform that layers share"


@clause("E6")
def test_layers_of_one_shape_are_told_apart(implementation: Any) -> None:
    """With its own scale and shift, each layer may transform the same rows in its own way."""
    world = setting("bert")
    editor = make_mend(implementation, world)
    perturb(implementation, editor)
    found = _transformed(implementation, editor, world)
    for low, high in zip(world.edited[:2], world.edited[2:], strict=True):
        assert world.shapes[low] == world.shapes[high]
        assert not torch.allclose(found[low], found[high], rtol=1e-3), f"{low} and {high} are transformed alike"


def _transformed(implementation: Any, editor: Any, world: Setting) -> dict[str, torch.Tensor]:
    found = {}
    for matrix in world.edited:
        found[matrix] = torch.cat(implementation.transform(editor, matrix, *rows(world, matrix), "en"), -1).detach()
    return found


@clause("E6")
@every_model
@pytest.mark.parametrize("inner_lr", [None, 3e-3])
def test_the_inner_learning_rate_starts_as_stated(implementation: Any, kind: str, inner_lr: float | None) -> None:
    """ΔW = -1e-4 Σ_t outer(δ̃_t, x̃_t) for every matrix before training, or with the rate that was asked for."""
    world = setting(kind)
    editor = make_mend(implementation, world, inner_lr=inner_lr)
    found = _rates(implementation, editor, make_request(kind, np.random.default_rng(1), language="en"))
    assert found == pytest.approx(dict.fromkeys(world.edited, inner_lr or 1e-4), rel=1e-4)


def _rates(implementation: Any, editor: Any, request: Request) -> dict[str, float]:
    update = implementation.dense(editor, implementation.edit(editor, [request]), 0)
    found = {}
    for matrix, (x, delta) in implementation.capture(editor, request).items():
        alive = delta.abs().sum(-1) > 0
        new = implementation.transform(editor, matrix, x[alive], delta[alive], request["language"])
        found[matrix] = rate(update[matrix].detach(), outer_sum(*new).detach())
    return found


# --- E7, E8 -----------------------------------------------------------------------------------------------------------


@clause("E7")
@every_variant
@pytest.mark.parametrize("languages", [("en",), LANGUAGES])
def test_every_training_has_its_masks(implementation: Any, masks: str, languages: tuple[str, ...]) -> None:
    """Without masks there are none; with them each edited matrix has a row per language, or one that all share."""
    world = setting("bert")
    editor = make_mend(implementation, world, masks, languages=languages)
    found = implementation.mask_parameters(editor)
    expected = {} if masks == "none" else world.shapes
    assert set(found) == set(expected)
    count = {"none": 0, "language": len(languages), "shared": 1}[masks]
    for matrix, (n, m) in expected.items():
        assert tuple(found[matrix]["x"].shape) == (count, n), f"x of {matrix}"
        assert tuple(found[matrix]["delta"].shape) == (count, m), f"δ of {matrix}"
    edits = implementation.edit(editor, [make_request("bert", np.random.default_rng(0), language=languages[-1])])
    assert set(implementation.dense(editor, edits, 0)) == set(world.edited)


@clause("E7")
def test_the_shared_control_costs_what_one_language_costs(implementation: Any) -> None:
    """Editors with a shared mask and with the mask of a single language have the same parameters but for names."""
    world = setting("bert")

    def sizes(masks: str, languages: tuple[str, ...]) -> list[int]:
        editor = make_mend(implementation, world, masks, languages=languages)
        return sorted(value.numel() for value in implementation.parameters(editor).values())

    assert sizes("shared", LANGUAGES) == sizes("language", ("en",))


@clause("E7")
def test_a_shared_mask_edits_every_language_alike(implementation: Any) -> None:
    """Under the shared control the editing language changes nothing; under language masks it does."""
    world = setting("bert")
    request = make_request("bert", np.random.default_rng(4), language="en")
    for masks, alike in (("shared", True), ("language", False)):
        editor = make_mend(implementation, world, masks, inner_lr=0.01)
        set_masks(implementation, editor)
        english, german = (
            implementation.dense(editor, implementation.edit(editor, [{**request, "language": language}]), 0)
            for language in ("en", "de")
        )
        for matrix in world.edited:
            same = torch.allclose(english[matrix], german[matrix], rtol=1e-6, atol=0)
            assert same == alike, f"masks {masks!r}, {matrix}: editing in en and in de {'differ' if alike else 'agree'}"


@clause("E8")
@needs("batched")
@every_model
@every_variant
def test_edits_in_a_batch_equal_edits_alone(implementation: Any, kind: str, masks: str) -> None:
    """edit([a, b, …]) holds the edits that edit([a]), edit([b]), … hold, however long their inputs are."""
    world = setting(kind)
    editor = make_mend(implementation, world, masks, inner_lr=0.01)
    perturb(implementation, editor)
    rng = np.random.default_rng(8)
    requests = [make_request(kind, rng, words=words) for words in (2, 12, 5, 2)]
    inputs = [make_input(kind, rng, words=words) for words in (9, 2)]
    together = implementation.edit(editor, requests)
    for index, request in enumerate(requests):
        alone = implementation.edit(editor, [request])
        expected = implementation.dense(editor, alone, 0)
        for matrix, found in implementation.dense(editor, together, index).items():
            scale = float(expected[matrix].abs().max())
            assert_close(found, expected[matrix], f"edit {index}, {matrix}", atol=1e-8 * scale)
        _assert_logits(
            implementation.edited_logits(editor, together, index, inputs),
            implementation.edited_logits(editor, alone, 0, inputs),
        )


def _assert_logits(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert_close(one, other, f"logits of input {index}", rtol=1e-7, atol=1e-8)


# --- E9 ---------------------------------------------------------------------------------------------------------------


@clause("E9")
@every_variant
def test_every_parameter_has_exactly_one_owner(implementation: Any, masks: str) -> None:
    """Every trainable tensor is in exactly one parameter group of one optimiser, and nothing else is in any."""
    editor = make_mend(implementation, setting("bert"), masks)
    owned = [name for group in implementation.optimizer_groups(editor) for name in group]
    assert sorted(owned) == sorted(implementation.parameters(editor))


@clause("E9")
@every_variant
def test_training_moves_every_parameter(implementation: Any, masks: str) -> None:
    """After three steps no tensor is where it began: neither factor of the transform, no scale, shift, rate or mask."""
    world = setting("bert")
    editor = make_mend(implementation, world, masks)
    before = {name: value.detach().clone() for name, value in implementation.parameters(editor).items()}
    rng = np.random.default_rng(10)
    for step in range(3):
        implementation.train_step(editor, [make_triple("bert", rng, language) for language in LANGUAGES], seed=step)
    still = [name for name, value in implementation.parameters(editor).items() if torch.equal(value, before[name])]
    assert not still, f"{', '.join(still)} did not move"


@clause("E9")
def test_training_moves_the_inner_learning_rates(implementation: Any) -> None:
    """The c of ΔW = -c Σ outer(δ̃, x̃) is another one after a training step, for every matrix."""
    world = setting("bert")
    editor = make_mend(implementation, world)
    rng = np.random.default_rng(11)
    request = make_request("bert", rng, language="en")
    before = _rates(implementation, editor, request)
    implementation.train_step(editor, [make_triple("bert", rng) for _ in range(3)], seed=0)
    after = _rates(implementation, editor, request)
    still = [matrix for matrix in world.edited if after[matrix] == pytest.approx(before[matrix], rel=1e-9)]
    assert not still, f"the inner learning rate of {', '.join(still)} did not move"


@clause("E9")
def test_training_moves_the_masks_of_the_editing_languages(implementation: Any) -> None:
    """After a step on edits in en and fr, their rows of every mask have moved, for x and for δ."""
    world = setting("bert")
    editor = make_mend(implementation, world, "language")
    masks = implementation.mask_parameters(editor)
    before = {(matrix, factor): masks[matrix][factor].detach().clone() for matrix in masks for factor in ("x", "delta")}
    rng = np.random.default_rng(12)
    implementation.train_step(editor, [make_triple("bert", rng, language) for language in ("en", "fr")], seed=0)
    after = implementation.mask_parameters(editor)
    for (matrix, factor), old in before.items():
        for language in ("en", "fr"):
            row = LANGUAGES.index(language)
            moved = (after[matrix][factor][row] != old[row]).float().mean()
            assert moved > 0.9, f"{factor} of {matrix}: {moved:.0%} of the gates of {language} moved"


@clause("E9")
def test_a_training_step_descends(implementation: Any) -> None:
    """Twenty steps on one batch lower its objective: what is moved is moved by its gradient."""
    world = setting("bert")
    editor = make_mend(implementation, world, inner_lr=0.01, lr=1e-3)
    triples = [make_triple("bert", np.random.default_rng(13)) for _ in range(2)]
    first = implementation.losses(editor, triples, seed=0)[0]["total"]
    for step in range(20):
        implementation.train_step(editor, triples, seed=step)
    last = implementation.losses(editor, triples, seed=0)[0]["total"]
    assert last < first, f"the objective went from {first} to {last}"


# --- E11 --------------------------------------------------------------------------------------------------------------


@clause("E11")
@every_model
def test_an_untrained_editor_edits_downhill(implementation: Any, kind: str) -> None:
    """For a small inner learning rate the desired prediction's loss at x_e falls, in nine of ten random requests."""
    world = setting(kind)
    editor = make_mend(implementation, world, inner_lr=1e-5)
    rng = np.random.default_rng(14)
    requests = [make_request(kind, rng) for _ in range(30)]
    fell = 0
    for request in requests:
        update = implementation.dense(editor, implementation.edit(editor, [request]), 0)
        before, after = (_loss(model, request) for model in (world.model, with_update(world.model, update)))
        fell += after < before
    assert fell >= 0.9 * len(requests), f"the loss fell in {fell} of {len(requests)} edits"


@torch.no_grad()
def _loss(model: torch.nn.Module, request: Input) -> float:
    return float(cross_entropy(logits_of(model, request), request["labels"]))  # type: ignore[typeddict-item]


# --- E10 --------------------------------------------------------------------------------------------------------------


@clause("E10")
def test_a_short_training_makes_edits_succeed(implementation: Any) -> None:
    """Sixty steps of sixteen edits raise succ on a hundred held-out edits by half and by 0.1 at least."""
    languages = ("en", "de", "fr", "es")
    facts = load_facts(languages)
    model, edited = raw_model()
    editor = implementation.make_editor("mend", model, edited, languages, inner_lr=5e-4, lr=1e-3)
    judged = facts.part("judged").cases(np.random.default_rng(50), 100, 2)
    before = _succ(implementation, editor, judged)
    training, rng = facts.part("train"), np.random.default_rng(51)
    for step in range(60):
        implementation.train_step(editor, training.triples(rng, 16), seed=step)
    after = _succ(implementation, editor, judged)
    assert after >= max(before + 0.1, 1.5 * before), f"succ went from {before:.3f} to {after:.3f}"


def _succ(implementation: Any, editor: Any, cases: Sequence[Case]) -> float:
    """The harmonic mean of acc and con; every case has as many inputs of each role."""
    hits: dict[str, list[bool]] = {"acc": [], "con": []}
    for case in cases:
        raw = implementation.raw_logits(editor, case.retain)
        edits = implementation.edit(editor, [case.edit])
        logits = implementation.edited_logits(editor, edits, 0, [*case.update, *case.retain])
        predicted = [one.argmax(-1).tolist() for one in logits]
        hits["acc"] += [one == case.edit["labels"] for one in predicted[: len(case.update)]]
        kept = zip(predicted[len(case.update) :], raw, strict=True)
        hits["con"] += [one == other.argmax(-1).tolist() for one, other in kept]
    acc, con = np.mean(hits["acc"]), np.mean(hits["con"])
    return float(2 * acc * con / (acc + con)) if acc + con else 0.0
