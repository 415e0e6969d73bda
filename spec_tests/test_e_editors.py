"""Chapter E: editors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from .conformance import clause, each_of, every_learned, needs
from .contract import Gates, Input, Request
from .editing import every_model, every_variant, random_requests, rank
from .facts import Case, load_facts, raw_model
from .tiny import (
    LANGUAGES,
    Setting,
    assert_close,
    close_gates,
    conditioned,
    cross_entropy,
    finetuned,
    gradients,
    layer_norm,
    logits_of,
    make,
    make_felt,
    make_input,
    make_mend,
    make_request,
    make_triple,
    masked_gradient,
    objective_after_a_step,
    outer_sum,
    perturb,
    rate,
    set_masks,
    setting,
    shifts,
    with_update,
)

#: With these Adam needs some steps of a tiny model, and rarely a hundred.
LR = {"bert": 1e-2, "square": 1e-2, "classifier": 1e-3, "roberta": 1e-2}
with_inner_rates = each_of("mend", "editable_training")


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


@clause("E1")
@each_of("editable_training", "knowledge_editor", "finetuning")
def test_what_is_captured_is_the_raw_models(implementation: Any, name: str) -> None:
    """∇_W L = Σ_t outer(δ_t, x_t) at the raw parameters, whatever the editor, and wherever its own parameters are."""
    world = setting("bert")
    editor = make(implementation, name, world)
    perturb(implementation, editor)
    request = make_request("bert", np.random.default_rng(2))
    expected = gradients(world.model, world.edited, request)
    captured = implementation.capture(editor, request)
    assert set(captured) == set(world.edited)
    for matrix, (x, delta) in captured.items():
        assert_close(outer_sum(x, delta), expected[matrix], matrix, atol=1e-12)


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
@with_inner_rates
def test_the_rank_of_an_update_is_at_most_its_tokens_with_gradient(implementation: Any, name: str, kind: str) -> None:
    """The rank of a step is at most the number of rows with gradient; in the last layer one position makes rank 1."""
    world = setting(kind)
    editor = make_felt(implementation, name, world)
    perturb(implementation, editor)
    shift = shifts(implementation, editor, name, world)

    @given(random_requests(kind))
    def check(request: Request) -> None:
        update = implementation.dense(editor, implementation.edit(editor, [request]), 0)
        for matrix, (_, delta) in implementation.capture(editor, request).items():
            tokens = int((delta.abs().sum(-1) > 0).sum())
            found = rank(update[matrix].detach() - shift.get(matrix, 0))
            assert found <= tokens, f"{matrix} has rank {found} from {tokens} tokens"
            if matrix in world.edited[-2:]:
                assert found <= len(request["positions"]), f"{matrix}: only predicted positions have gradient there"

    check()


# --- E3, E12 ----------------------------------------------------------------------------------------------------------


def _finetuning_follows(
    implementation: Any, world: Setting, request: Request, lr: float | None, path: list[dict[str, torch.Tensor]]
) -> list[torch.Tensor]:
    """The edit is the end of this path of fine-tuning; the logits at x_e under it."""
    editor = make(implementation, "finetuning", world, lr=lr)
    edits = implementation.edit(editor, [request])
    update = implementation.dense(editor, edits, 0)
    assert set(update) == set(world.edited)
    for matrix, found in update.items():
        expected = path[-1][matrix]
        what = f"{matrix} after {len(path) - 1} steps"
        assert_close(found, expected, what, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
    return implementation.edited_logits(editor, edits, 0, [request])


@clause("E3", "E12")
@needs("finetuning")
@every_model
def test_finetuning_steps_until_the_prediction_is_the_desired_one(implementation: Any, kind: str) -> None:
    """ΔW is what Adam makes of a copy of the model in just as many steps as it takes, and then x_e is predicted so."""
    world = setting(kind)
    rng = np.random.default_rng(60)
    taken = set()
    for _ in range(4):
        request = make_request(kind, rng)
        path = finetuned(world.model, world.edited, request, lr=LR[kind])
        taken.add(len(path) - 1)
        (logits,) = _finetuning_follows(implementation, world, request, LR[kind], path)
        if len(path) <= 100:
            assert logits.argmax(-1).tolist() == request["labels"], "the last step is missing"
    assert len(taken) > 1, f"all take {taken} steps: nothing is shown"
    assert min(taken) < 100, "the desired prediction was never reached"


@clause("E3", "E12")
@needs("finetuning")
@every_model
def test_finetuning_takes_a_hundred_steps_at_most(implementation: Any, kind: str) -> None:
    """At Adam's learning rate of 5e-6, where none is asked for, a hundred steps do not suffice, and all are in ΔW."""
    world = setting(kind)
    raw = logits_of(world.model, request := make_request(kind, np.random.default_rng(61)))
    request["labels"] = raw.argmin(-1).tolist()
    path = finetuned(world.model, world.edited, request, lr=5e-6)
    assert len(path) == 101, "the desired prediction is reached too soon for this test"
    _finetuning_follows(implementation, world, request, None, path)


@clause("E3")
@needs("finetuning")
@every_model
def test_finetuning_takes_no_step_where_the_prediction_is_desired(implementation: Any, kind: str) -> None:
    """ΔW is zero, and the logits are the raw ones."""
    world = setting(kind)
    request = make_request(kind, np.random.default_rng(62))
    raw = logits_of(world.model, request)
    request["labels"] = raw.argmax(-1).tolist()
    nothing = {matrix: torch.zeros(m, n, dtype=torch.float64) for matrix, (n, m) in world.shapes.items()}
    (logits,) = _finetuning_follows(implementation, world, request, LR[kind], [nothing])
    assert_close(logits, raw, "logits at x_e", rtol=1e-9)


@clause("E3", "E7")
@needs("finetuning")
def test_finetuning_has_nothing_to_train(implementation: Any) -> None:
    """No parameters, no masks, no optimiser of an editor; to ask for masks is an error that says so."""
    editor = make(implementation, "finetuning", setting("bert"))
    assert implementation.parameters(editor) == {}
    assert implementation.mask_parameters(editor) == {}
    assert not [name for group in implementation.optimizer_groups(editor) for name in group]
    for masks in ("language", "shared"):
        with pytest.raises((ValueError, LookupError), match="finetuning"):
            make(implementation, "finetuning", setting("bert"), masks)


# --- E4 ---------------------------------------------------------------------------------------------------------------


@clause("E4")
@needs("editable_training")
@every_variant
def test_the_trained_model_starts_as_the_raw_one(implementation: Any, masks: str) -> None:
    """Untrained, θ' is θ in every edited matrix, and the named parameters move it."""
    world = setting("bert")
    editor = make(implementation, "editable_training", world, masks)
    raw = {matrix: value.detach() for matrix, value in world.model.named_parameters()}
    trained = implementation.trained_weights(editor)
    assert set(trained) == set(world.edited)
    live = implementation.parameters(editor)
    for matrix, (parameter, value) in trained.items():
        assert torch.equal(value, raw[matrix]), matrix
        with torch.no_grad():
            live[parameter][0, 1] += 0.5
        moved = implementation.trained_weights(editor)[matrix][1].detach() - raw[matrix]
        assert moved.count_nonzero() == 1, f"{parameter} is not what trains {matrix}"
        assert float(moved[0, 1]) == pytest.approx(0.5)


@clause("E4")
@needs("editable_training")
@every_model
@pytest.mark.parametrize("inner_lr", [None, 3e-3], ids=["default", "given"])
def test_an_edit_is_one_step_from_the_trained_model(implementation: Any, kind: str, inner_lr: float | None) -> None:
    """θ_u = θ' - lr·∇L(θ') with the gradient at θ', trained or not; lr starts at 1e-4, or where it was asked to."""
    world = setting(kind)
    editor = make(implementation, "editable_training", world, inner_lr=inner_lr)
    request = make_request(kind, np.random.default_rng(63))
    for trained in (False, True):
        shift = shifts(implementation, editor, "editable_training", world)
        slopes = gradients(with_update(world.model, shift), world.edited, request)
        update = implementation.dense(editor, implementation.edit(editor, [request]), 0)
        lr = inner_lr or 1e-4
        for matrix, found in update.items():
            expected = -lr * slopes[matrix]
            size = 1e-9 * float(slopes[matrix].abs().max())
            assert_close(found - shift[matrix], expected, f"{matrix}, trained: {trained}", rtol=1e-5, atol=size)
        perturb(implementation, editor)


@clause("E4")
@needs("L", "editable_training")
@every_model
def test_the_model_is_trained_through_the_step(implementation: Any, kind: str) -> None:
    """The objective's gradient for θ' has its second order, through the inner gradient, and not the first alone."""
    world = setting(kind)
    editor = make(implementation, "editable_training", world, inner_lr=0.05)
    perturb(implementation, editor)
    triple = make_triple(kind, np.random.default_rng(64))
    parts, gradient = implementation.losses(editor, [triple], seed=0)
    trained = implementation.trained_weights(editor)
    weights = {matrix: value.detach().clone().requires_grad_() for matrix, (_, value) in trained.items()}
    slopes = {}
    for second_order in (True, False):
        rates = dict.fromkeys(weights, 0.05)
        direction = implementation.ruling("kl_direction")
        total = objective_after_a_step(world.model, weights, rates, triple, direction, second_order)
        assert parts["total"] == pytest.approx(float(total.detach()), rel=1e-6)
        slopes[second_order] = dict(zip(weights, torch.autograd.grad(total, list(weights.values())), strict=True))
    for matrix, (parameter, _) in trained.items():
        found, expected, first = gradient[parameter], slopes[True][matrix], slopes[False][matrix]
        size = float(expected.abs().max())
        assert float((expected - first).abs().max()) > 1e-3 * size, "the second order hardly matters here"
        assert found is not None, f"no gradient reaches {matrix}"
        assert_close(found, expected, f"{matrix}, whose first order is {first}", rtol=1e-5, atol=1e-7 * size)


# --- E5 ---------------------------------------------------------------------------------------------------------------


def _knowledge_editor(implementation: Any, world: Setting) -> Any:
    editor = make(implementation, "knowledge_editor", world)
    perturb(implementation, editor)
    return editor


@clause("E5")
@needs("knowledge_editor")
@every_model
def test_an_update_is_a_gated_gradient_with_an_offset(implementation: Any, kind: str) -> None:
    """ΔW = scale · (∇W ⊙ a + b) with a and b outer products: its rank is at most one above that of ∇W."""
    world = setting(kind)
    for editor in (make(implementation, "knowledge_editor", world), _knowledge_editor(implementation, world)):
        request = make_request(kind, np.random.default_rng(65))
        gradient = masked_gradient(world.model, {matrix: {} for matrix in world.edited}, request, 0)
        gates = implementation.gates(editor, request)
        update = implementation.dense(editor, implementation.edit(editor, [request]), 0)
        assert set(gates) == set(update) == set(world.edited)
        for matrix, found in update.items():
            expected = conditioned(gates[matrix], gradient[matrix])
            assert_close(found, expected, matrix, atol=1e-8 * float(expected.abs().max()))
            assert rank(found) <= rank(gradient[matrix]) + 1


@clause("E5")
@needs("knowledge_editor")
@every_model
def test_gates_are_bounded_scales_and_softmax_times_free_vectors(implementation: Any, kind: str) -> None:
    """0 ≤ scale ≤ 1, however large the parameters; one vector of a and of b is a distribution, the other is none."""
    world = setting(kind)
    editor = _knowledge_editor(implementation, world)
    rng = np.random.default_rng(66)
    for factor in (1.0, 30.0):
        with torch.no_grad():
            for value in implementation.parameters(editor).values():
                value.mul_(factor)
        for request in [make_request(kind, rng) for _ in range(3)]:
            for matrix, gate in implementation.gates(editor, request).items():
                n, m = world.shapes[matrix]
                scale = gate["scale"].detach()
                assert scale.dim() == 0, f"the scale of {matrix} is a number"
                assert 0 <= scale <= 1, f"the scale of {matrix} is {scale}"
                for name, (over_outputs, over_inputs) in (("a", gate["a"]), ("b", gate["b"])):
                    assert (over_outputs.shape, over_inputs.shape) == ((m,), (n,)), f"{name} of {matrix}"
                    kept = sum(_is_distribution(one.detach()) for one in (over_outputs, over_inputs))
                    assert kept == 1, f"{name} of {matrix} has {kept} softmax vectors of two"


def _is_distribution(vector: torch.Tensor) -> bool:
    return bool((vector >= 0).all()) and abs(float(vector.sum()) - 1) < 1e-6


@clause("E5")
@needs("knowledge_editor")
@every_model
def test_gates_see_the_input_in_order(implementation: Any, kind: str) -> None:
    """Another word in x_e gives other gates, and so do the same words in another order: the encoder is recurrent."""
    world = setting(kind)
    editor = _knowledge_editor(implementation, world)
    request = make_request(kind, np.random.default_rng(67), words=5, positions=1)
    ids = list(request["input_ids"])
    words = [place for place in range(1, len(ids) - 1) if kind == "classifier" or place not in request["positions"]]
    ids[words[0]], ids[words[1]] = 7, 9
    original: Request = {**request, "input_ids": ids}
    before = _flat(implementation.gates(editor, original))
    for what, new in (("word", (8, 9)), ("order of words", (9, 7))):
        changed = list(ids)
        changed[words[0]], changed[words[1]] = new
        after = _flat(implementation.gates(editor, {**original, "input_ids": changed}))
        assert not torch.allclose(after, before, rtol=1e-6), f"another {what} gives the same gates"


@clause("E5")
@needs("knowledge_editor")
@every_model
def test_gates_see_the_desired_prediction(implementation: Any, kind: str) -> None:
    """Another y_e for one x_e gives other gates; under the declared ruling `input` it gives the same."""
    world = setting(kind)
    editor = _knowledge_editor(implementation, world)
    sees = implementation.ruling("knowledge_editor_condition") == "input+label"
    request = make_request(kind, np.random.default_rng(68))
    before = _flat(implementation.gates(editor, request))
    for place in range(len(request["labels"])):
        labels = list(request["labels"])
        labels[place] = (labels[place] + 1) % 3 if kind == "classifier" else 5 + (labels[place] + 1) % 50
        after = _flat(implementation.gates(editor, {**request, "labels": labels}))
        same = torch.allclose(after, before, rtol=1e-6)
        assert same != sees, f"label {place} of {len(labels)} {'leaves' if same else 'changes'} the gates"


@clause("E5")
@needs("knowledge_editor")
def test_gates_do_not_see_the_language(implementation: Any) -> None:
    """The editing language chooses the mask and nothing else."""
    world = setting("bert")
    editor = _knowledge_editor(implementation, world)
    request = make_request("bert", np.random.default_rng(69), language="en")
    english, french = (
        _flat(implementation.gates(editor, {**request, "language": language})) for language in ("en", "fr")
    )
    assert torch.equal(english, french)


def _flat(gates: dict[str, Gates]) -> torch.Tensor:
    """All gates of a request in a row."""
    parts = [part for matrix in sorted(gates) for part in (*gates[matrix]["a"], *gates[matrix]["b"])]
    return torch.cat([*parts, *(gates[matrix]["scale"][None] for matrix in sorted(gates))]).detach()


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
@pytest.mark.parametrize("inner_lr", [None, 3e-3], ids=["default", "given"])
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
@pytest.mark.parametrize("languages", [("en",), LANGUAGES], ids=["monolingual", "multilingual"])
@every_learned
def test_every_training_has_its_masks(implementation: Any, name: str, masks: str, languages: tuple[str, ...]) -> None:
    """Without masks there are none; with them each edited matrix has a row per language, or one that all share."""
    world = setting("bert")
    editor = make(implementation, name, world, masks, languages=languages)
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
@every_learned
def test_the_shared_control_costs_what_one_language_costs(implementation: Any, name: str) -> None:
    """Editors with a shared mask and with the mask of a single language have the same parameters but for names."""
    world = setting("bert")

    def sizes(masks: str, languages: tuple[str, ...]) -> list[int]:
        editor = make(implementation, name, world, masks, languages=languages)
        return sorted(value.numel() for value in implementation.parameters(editor).values())

    assert sizes("shared", LANGUAGES) == sizes("language", ("en",))


@clause("E7")
@every_learned
def test_a_shared_mask_edits_every_language_alike(implementation: Any, name: str) -> None:
    """Under the shared control the editing language changes nothing; under language masks it does."""
    world = setting("bert")
    request = make_request("bert", np.random.default_rng(4), language="en")
    for masks, alike in (("shared", True), ("language", False)):
        editor = make_felt(implementation, name, world, masks)
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
@every_learned
def test_edits_in_a_batch_equal_edits_alone(implementation: Any, name: str, kind: str, masks: str) -> None:
    """edit([a, b, …]) holds the edits that edit([a]), edit([b]), … hold, however long their inputs are."""
    world = setting(kind)
    editor = make_felt(implementation, name, world, masks)
    perturb(implementation, editor)
    rng = np.random.default_rng(8)
    requests = [make_request(kind, rng, words=words) for words in (2, 12, 5, 2)]
    _assert_edits_are_independent(implementation, editor, requests, [make_input(kind, rng, words=w) for w in (9, 2)])


@clause("E8")
@needs("batched", "finetuning")
@pytest.mark.parametrize("kind", ["bert", "classifier"])
def test_finetuning_in_a_batch_takes_each_edits_own_steps(implementation: Any, kind: str) -> None:
    """An edit that needs no step, one that needs few and one that needs many do not wait for each other."""
    world = setting(kind)
    rng = np.random.default_rng(9)
    requests = [make_request(kind, rng, words=words) for words in (2, 12, 5, 2, 3)]
    requests[1]["labels"] = logits_of(world.model, requests[1]).argmax(-1).tolist()
    steps = {len(finetuned(world.model, world.edited, request, lr=LR[kind])) - 1 for request in requests}
    assert len(steps) > 2, f"the edits take {steps} steps: nothing is shown"
    editor = make(implementation, "finetuning", world, lr=LR[kind])
    _assert_edits_are_independent(implementation, editor, requests, [make_input(kind, rng, words=w) for w in (9, 2)])


def _assert_edits_are_independent(
    implementation: Any, editor: Any, requests: Sequence[Request], inputs: Sequence[Input]
) -> None:
    together = implementation.edit(editor, requests)
    for index, request in enumerate(requests):
        alone = implementation.edit(editor, [request])
        expected = implementation.dense(editor, alone, 0)
        for matrix, found in implementation.dense(editor, together, index).items():
            scale = float(expected[matrix].detach().abs().max())
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
@every_learned
def test_every_parameter_has_exactly_one_owner(implementation: Any, name: str, masks: str) -> None:
    """Every trainable tensor is in exactly one parameter group of one optimiser, and nothing else is in any."""
    editor = make(implementation, name, setting("bert"), masks)
    owned = [parameter for group in implementation.optimizer_groups(editor) for parameter in group]
    assert sorted(owned) == sorted(implementation.parameters(editor))


@clause("E9")
@every_variant
@every_learned
def test_training_moves_every_parameter(implementation: Any, name: str, masks: str) -> None:
    """After three steps no tensor is where it began: no factor, scale, shift, weight, rate or mask."""
    world = setting("bert")
    editor = make(implementation, name, world, masks)
    before = {own: value.detach().clone() for own, value in implementation.parameters(editor).items()}
    rng = np.random.default_rng(10)
    for step in range(3):
        implementation.train_step(editor, [make_triple("bert", rng, language) for language in LANGUAGES], seed=step)
    still = [own for own, value in implementation.parameters(editor).items() if torch.equal(value, before[own])]
    assert not still, f"{', '.join(still)} did not move"


@clause("E9")
@with_inner_rates
def test_training_moves_the_inner_learning_rates(implementation: Any, name: str) -> None:
    """The c of an inner step -c Σ outer(δ̃, x̃) is another one after a training step, for every matrix."""
    world = setting("bert")
    editor = make(implementation, name, world)
    rng = np.random.default_rng(11)
    request = make_request("bert", rng, language="en")
    measure = _rates if name == "mend" else _rates_of_a_step
    before = measure(implementation, editor, request)
    implementation.train_step(editor, [make_triple("bert", rng) for _ in range(3)], seed=0)
    after = measure(implementation, editor, request)
    still = [matrix for matrix in world.edited if after[matrix] == pytest.approx(before[matrix], rel=1e-9)]
    assert not still, f"the inner learning rate of {', '.join(still)} did not move"


def _rates_of_a_step(implementation: Any, editor: Any, request: Request) -> dict[str, float]:
    world = setting("bert")
    shift = shifts(implementation, editor, "editable_training", world)
    slopes = gradients(with_update(world.model, shift), world.edited, request)
    update = implementation.dense(editor, implementation.edit(editor, [request]), 0)
    return {matrix: rate(update[matrix].detach() - shift[matrix], slopes[matrix]) for matrix in world.edited}


@clause("E9")
@every_learned
def test_training_moves_the_masks_of_the_editing_languages(implementation: Any, name: str) -> None:
    """After a step on edits in en and fr, their rows of every mask have moved, for x and for δ."""
    world = setting("bert")
    editor = make(implementation, name, world, "language")
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
@every_learned
def test_a_training_step_descends(implementation: Any, name: str) -> None:
    """Twenty steps on one batch lower its objective: what is moved is moved by its gradient."""
    world = setting("bert")
    editor = make_felt(implementation, name, world, lr=1e-3)
    triples = [make_triple("bert", np.random.default_rng(13)) for _ in range(2)]
    first = implementation.losses(editor, triples, seed=0)[0]["total"]
    for step in range(20):
        implementation.train_step(editor, triples, seed=step)
    last = implementation.losses(editor, triples, seed=0)[0]["total"]
    assert last < first, f"the objective went from {first} to {last}"


# --- E11 --------------------------------------------------------------------------------------------------------------


@clause("E11")
@every_model
@with_inner_rates
def test_an_untrained_editor_edits_downhill(implementation: Any, name: str, kind: str) -> None:
    """For a small inner learning rate the desired prediction's loss at x_e falls, in nine of ten random requests."""
    world = setting(kind)
    editor = make(implementation, name, world, inner_lr=1e-5)
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


# --- E13 --------------------------------------------------------------------------------------------------------------


@clause("E13")
@pytest.mark.parametrize("masks", ["language", "shared"])
@every_learned
def test_masks_leave_the_base_editor_as_it_is(implementation: Any, name: str, masks: str) -> None:
    """Beside the masks the same parameters; with all gates closed two training steps move them as without masks."""
    world = setting("bert")
    base, masked = (make_felt(implementation, name, world, kind) for kind in ("none", masks))
    perturb(implementation, masked)
    own = implementation.parameters(base)
    shapes = {key: tuple(value.shape) for key, value in own.items()}
    found = {key: tuple(value.shape) for key, value in implementation.parameters(masked).items() if key in own}
    assert found == shapes, "a masked editor has all parameters of its base editor, in the same shapes"
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(implementation.parameters(masked)[key])
    close_gates(implementation, masked)
    before = {key: value.detach().clone() for key, value in own.items()}
    rng = np.random.default_rng(66)
    for step in range(2):
        triples = [make_triple("bert", rng) for _ in range(2)]
        for editor in (base, masked):
            implementation.train_step(editor, triples, seed=step)
    for key in own:
        moved, expected = (implementation.parameters(editor)[key].detach() - before[key] for editor in (masked, base))
        assert_close(moved, expected, f"what training did to {key}", rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


# --- E14 --------------------------------------------------------------------------------------------------------------


@clause("E14")
@every_learned
def test_a_step_is_down_the_objective_of_its_own_edits(implementation: Any, name: str) -> None:
    """Two steps of three edits each report `losses` of these, and go where they go with the edits in another order."""
    world = setting("bert")
    forwards, backwards = (make_felt(implementation, name, world) for _ in range(2))
    for editor in (forwards, backwards):
        perturb(implementation, editor)
    before = {own: value.detach().clone() for own, value in implementation.parameters(forwards).items()}
    rng = np.random.default_rng(67)
    for step in range(2):
        triples = [make_triple("bert", rng) for _ in range(3)]
        expected, _ = implementation.losses(forwards, triples, seed=step)
        found = implementation.train_step(forwards, triples, seed=step)
        implementation.train_step(backwards, triples[::-1], seed=step)
        assert dict(found) == pytest.approx(dict(expected), rel=1e-6), f"the losses that step {step} reports"
    for own, value in implementation.parameters(forwards).items():
        moved = (implementation.parameters(backwards)[own] - before[own]).detach()
        expected_move = (value - before[own]).detach()
        size = float(expected_move.abs().max())
        assert_close(moved, expected_move, f"what training did to {own}", rtol=1e-4, atol=1e-4 * size)


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
