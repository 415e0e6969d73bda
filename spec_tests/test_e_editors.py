"""Chapter E: editors."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given

from .assertions import agree, assume, close, differs, equal, fail, holds, near, numbers, rejects, same_bits, width
from .conformance import clause, each_of, every_editor, every_learned, needs
from .contract import Gates, Input, Request, Triple
from .editing import (
    KINDS,
    copied,
    every_model,
    every_variant,
    masked_editor,
    other_labels,
    random_requests,
    rank,
    transformed,
    updates,
    without,
)
from .facts import Case, load_facts, raw_model
from .tiny import (
    LANGUAGES,
    Setting,
    accumulated,
    close_gates,
    conditioned,
    cross_entropy,
    finetuned,
    gradients,
    inner_rates,
    layer_norm,
    logits_of,
    make,
    make_felt,
    make_input,
    make_mend,
    make_request,
    make_triple,
    mask_places,
    masked_gradient,
    optimiser_of,
    perturb,
    rate,
    raw_weights,
    rel_after_a_step,
    rows_with_gradient,
    set_masks,
    setting,
    shifts,
    step,
    sure,
    weight_places,
    with_update,
)

#: With these Adam needs some steps of a tiny model, and rarely a hundred.
LR = {"bert": 1e-2, "square": 1e-2, "classifier": 1e-3, "roberta": 1e-2}
#: Learning rates at which a short training is tried, one after the other; which one suits depends on the editor.
TRAINING_RATES = (1e-3, 1e-4, 1e-5, 1e-6)
with_inner_rates = each_of("mend", "editable_training")


def rows(world: Setting, matrix: str, count: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random x and δ; δ is as small as gradients are."""
    n, m = world.shapes[matrix]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, n, generator=generator, dtype=torch.float64)
    return x, 1e-3 * torch.randn(count, m, generator=generator, dtype=torch.float64)


def alive(x: torch.Tensor, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows that have a gradient."""
    some = delta.abs().sum(-1) > 0
    return x[some], delta[some]


# --- E1, E2 -----------------------------------------------------------------------------------------------------------


def _captures_the_gradient(implementation: Any, editor: Any, world: Setting, request: Request, /, **about: Any) -> None:
    expected = gradients(world.model, world.edited, request)
    captured = implementation.capture(editor, request)
    what = "x and δ are captured for other matrices than the edited ones"
    equal("E1", sorted(captured), sorted(world.edited), what, edit=request, **about)
    for matrix, (x, delta) in captured.items():
        what = "x and δ have different numbers of rows"
        equal("E1", len(x), len(delta), what, matrix=matrix, edit=request, **about)
        what = "the captured x and δ do not make the gradient of the loss"
        near("E1", delta.T @ x, expected[matrix], what, of=(x, delta), matrix=matrix, edit=request, **about)


@clause("E1")
@every_model
def test_captured_rows_give_autograds_gradient(implementation: Any, kind: str) -> None:
    """∇_W L = Σ_t outer(δ_t, x_t) for every edited matrix, square ones too."""
    world = setting(kind)
    editor = make_mend(implementation, world)

    @given(random_requests(kind))
    def check(request: Request) -> None:
        _captures_the_gradient(implementation, editor, world, request, model=kind)

    check()


@clause("E1")
@pytest.mark.parametrize("words", [60, 140])
def test_a_long_sentence_is_read_to_its_end(implementation: Any, words: int) -> None:
    """As long as the model reads, and with what is predicted at its end, and with an answer of nine tokens."""
    world, rng = setting("long"), np.random.default_rng(6)
    editor = make_mend(implementation, world)
    request = make_request("long", rng, positions=1, words=words)
    _captures_the_gradient(implementation, editor, world, request, words=words)
    last: Any = {**request, "input_ids": [*request["input_ids"][:-2], 4, 3], "positions": [words + 1]}
    _captures_the_gradient(implementation, editor, world, last, words=words)
    answer = make_request("long", rng, positions=9, words=words - 8)
    _captures_the_gradient(implementation, editor, world, answer, words=words)


@clause("E1")
@pytest.mark.parametrize("kind", ["bert", "classifier"])
def test_a_gradient_is_captured_however_small(implementation: Any, kind: str) -> None:
    """Where the model is sure of y_e all rows of δ are small, and none of them is taken for zero."""
    request = make_request(kind, np.random.default_rng(7), positions=1)
    x, _ = next(iter(implementation.capture(make_mend(implementation, setting(kind)), request).values()))
    # In float32, 1 - p of a probability p near 1 is rounded off.
    world = sure(kind, request, 1e-8 if width(x) == "float64" else 1e-2)
    _captures_the_gradient(implementation, make_mend(implementation, world), world, request, model=kind)


@clause("E1", "E2", "E3", "E4")
@each_of("mend", "editable_training", "finetuning")
def test_matrices_may_be_named_in_any_order(implementation: Any, name: str) -> None:
    """What is captured, and the edit before any training, belong to the matrix of that name."""
    world = setting("bert")
    turned = Setting("bert", world.model, world.edited[::-1])
    rng = np.random.default_rng(12)
    request = make_request("bert", rng)
    request["labels"] = other_labels("bert", logits_of(world.model, request).argmax(-1).tolist())
    editor, other = (make_felt(implementation, name, one) for one in (world, turned))
    _captures_the_gradient(implementation, other, turned, request, editor=name, edited=turned.edited)
    (expected,), (found,) = (updates(implementation, one, [request]) for one in (editor, other))
    clause_id = {"mend": "E2", "editable_training": "E4", "finetuning": "E3"}[name]
    for matrix, delta in expected.items():
        what = "an edit depends on the order in which the edited matrices are named"
        about = {"editor": name, "matrix": matrix, "edit": request}
        near(clause_id, found[matrix], delta, what, "training", by_norm=True, **about)


@clause("E1")
@each_of("editable_training", "knowledge_editor", "finetuning")
def test_what_is_captured_is_the_raw_models(implementation: Any, name: str) -> None:
    """∇_W L = Σ_t outer(δ_t, x_t) at the raw parameters, whatever the editor, and wherever its own parameters are."""
    world = setting("bert")
    editor = make(implementation, name, world)
    perturb(implementation, editor)
    request = make_request("bert", np.random.default_rng(2))
    _captures_the_gradient(implementation, editor, world, request, editor=name)


@clause("E2")
@every_model
@every_variant
def test_an_update_is_the_sum_of_transformed_outer_products(implementation: Any, kind: str, masks: str) -> None:
    """ΔW = c Σ_t outer(δ̃_t, x̃_t), with (x̃, δ̃) the transform of x and δ; what c is, E6 and E11 say."""
    world = setting(kind)
    editor = make_mend(implementation, world, masks, inner_lr=0.01)
    perturb(implementation, editor)
    set_masks(implementation, editor)
    request = make_request(kind, np.random.default_rng(3), language="de")
    update = implementation.dense(editor, implementation.edit(editor, [request]), 0)
    for matrix, pair in rows_with_gradient(world.model, world.edited, request).items():
        x, delta = transformed(implementation, editor, matrix, *alive(*pair), "de")
        direction, found = delta.T @ x, update[matrix]
        about = {"model": kind, "masks": masks, "edit": request, "matrix": matrix}
        what = "an edit is nothing"
        holds("E2", found.any(), what, expected="a ΔW", got=found, **about)
        what = "an edit is not the sum of outer products of the transformed rows"
        near("E2", found, -rate(found, direction) * direction, what, of=[found, x, delta], **about)


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
        for matrix, pair in rows_with_gradient(world.model, world.edited, request).items():
            tokens, found = len(alive(*pair)[1]), rank(update[matrix] - shift.get(matrix, 0), update[matrix])
            about = {"editor": name, "model": kind, "edit": request, "matrix": matrix}
            what = "the rank of an edit is larger than the number of its tokens with gradient"
            holds("E2", found <= tokens, what, expected=f"at most {tokens}", got=found, **about)
            if matrix in world.edited[-2:]:
                limit = len(request["positions"])
                what = "the rank of an edit of the last layer is larger than the number of predicted positions"
                holds("E2", found <= limit, what, expected=f"at most {limit}", got=found, **about)

    check()


# --- E3, E12 ----------------------------------------------------------------------------------------------------------


def _finetuning_follows(
    implementation: Any, world: Setting, request: Request, lr: float | None, path: list[dict[str, torch.Tensor]]
) -> list[torch.Tensor]:
    """The edit is the end of this path of fine-tuning; the logits at x_e under it."""
    editor = make(implementation, "finetuning", world, lr=lr)
    edits = implementation.edit(editor, [request])
    update = implementation.dense(editor, edits, 0)
    about = {"model": world.kind, "lr": lr, "steps": len(path) - 1, "edit": request}
    what = "fine-tuning has a ΔW for other matrices than the edited ones"
    equal("E3", sorted(update), sorted(world.edited), what, **about)
    raw = raw_weights(world)

    def follows(end: dict[str, torch.Tensor]) -> bool:
        return all(agree(update[m], end[m], "training", beside=raw[m], by_norm=True) for m in update)

    if not follows(path[-1]) and len(path) > 2 and follows(path[-2]):
        fail("E12", "the last step of fine-tuning is lost", about, path[-1], update)
    for matrix, found in update.items():
        what = f"an edit is not what {implementation.ruling('finetuning_optimiser')} makes of the edited matrices"
        beside = raw[matrix] if len(path) > 1 else None
        near("E3", found, path[-1][matrix], what, "training", by_norm=True, beside=beside, matrix=matrix, **about)
    return implementation.edited_logits(editor, edits, 0, [request])


@clause("E3", "E12")
@needs("finetuning")
@every_model
def test_finetuning_steps_until_the_prediction_is_the_desired_one(implementation: Any, kind: str) -> None:
    """ΔW is what the optimiser makes of a copy in just as many steps as it takes, and then x_e is predicted so."""
    world = setting(kind)
    rng = np.random.default_rng(60)
    taken = set()
    for positions in (None, None, None, 6):
        request = make_request(kind, rng, positions=positions)
        path = finetuned(world.model, world.edited, request, lr=LR[kind], **optimiser_of(implementation))
        taken.add(len(path) - 1)
        (logits,) = _finetuning_follows(implementation, world, request, LR[kind], path)
        if len(path) <= 100:
            got, steps = logits.argmax(-1).tolist(), len(path) - 1
            what = "fine-tuning stopped, and the edited model does not predict y_e at x_e: the last step is lost"
            equal("E12", got, request["labels"], what, model=kind, edit=request, steps=steps)
    assume(len(taken) > 1, f"all edits take {taken} steps, so nothing is shown")
    assume(min(taken) < 100, "the desired prediction was never reached")


@clause("E3", "E12")
@needs("finetuning")
@every_model
def test_finetuning_takes_a_hundred_steps_at_most(implementation: Any, kind: str) -> None:
    """At a learning rate of 5e-6, where none is asked for, a hundred steps do not suffice, and all are in ΔW."""
    world = setting(kind)
    raw = logits_of(world.model, request := make_request(kind, np.random.default_rng(61)))
    request["labels"] = raw.argmin(-1).tolist()
    path = finetuned(world.model, world.edited, request, lr=5e-6, **optimiser_of(implementation))
    assume(len(path) == 101, "the desired prediction is reached too soon for this test")
    _finetuning_follows(implementation, world, request, None, path)


@clause("E3", "E12")
@needs("finetuning")
@pytest.mark.parametrize("gap", [5e-3, 5e-4])
@pytest.mark.parametrize("kind", ["bert", "classifier"])
def test_finetuning_does_not_stop_short_of_the_desired_prediction(implementation: Any, kind: str, gap: float) -> None:
    """Where y_e comes second by little and steps are small, steps are taken until it comes first."""
    world = setting(kind)
    request = make_request(kind, np.random.default_rng(63), positions=1)
    first, second = logits_of(world.model, request)[0].topk(2).indices.tolist()
    request["labels"] = [second]
    bias = dict(world.model.named_parameters())["classifier.bias" if kind == "classifier" else "cls.predictions.bias"]
    with torch.no_grad():
        logits = logits_of(world.model, request)[0]
        bias[second] += logits[first] - logits[second] - gap
    way = optimiser_of(implementation)
    # Some steps close the gap; RMSprop's first one is ten times as long as its learning rate.
    lr = next(
        lr
        for lr in gap * 10.0 ** -np.arange(1, 7, 0.25)
        if len(finetuned(world.model, world.edited, request, lr=float(lr), **way)) > 5
    )
    path = finetuned(world.model, world.edited, request, lr=float(lr), **way)
    assume(5 < len(path) <= 100, f"the gap is closed in {len(path) - 1} steps, so nothing is shown")
    (logits,) = _finetuning_follows(implementation, world, request, float(lr), path)
    what = "fine-tuning stopped, and the edited model does not predict y_e at x_e"
    equal("E12", logits.argmax(-1).tolist(), request["labels"], what, model=kind, edit=request, gap=gap)


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
    near("E3", logits, raw, "fine-tuning took no step, and the logits are not the raw ones", model=kind, edit=request)


@clause("E3", "E7")
@needs("finetuning")
def test_finetuning_has_nothing_to_train(implementation: Any) -> None:
    """No parameters, no masks, no optimiser of an editor; to ask for masks is an error that says so."""
    editor = make(implementation, "finetuning", setting("bert"))
    equal("E3", sorted(implementation.parameters(editor)), [], "finetuning has parameters to train")
    equal("E3", sorted(implementation.mask_parameters(editor)), [], "finetuning has masks")
    owned = [name for group in implementation.optimizer_groups(editor) for name in group]
    equal("E3", owned, [], "finetuning has an optimiser of an editor")
    for masks in ("language", "shared"):
        call = functools.partial(make, implementation, "finetuning", setting("bert"), masks)
        rejects("E7", call, ("finetuning",), "finetuning is asked for masks", masks=masks)


# --- E4 ---------------------------------------------------------------------------------------------------------------


@clause("E4")
@needs("editable_training")
@every_variant
def test_the_trained_model_starts_as_the_raw_one(implementation: Any, masks: str) -> None:
    """Untrained, θ' is θ in every edited matrix, and the named parameters move it."""
    world = setting("bert")
    editor = make(implementation, "editable_training", world, masks)
    raw = raw_weights(world)
    trained = implementation.trained_weights(editor)
    equal("E4", sorted(trained), sorted(world.edited), "other matrices than the edited ones are trained", masks=masks)
    for matrix, (parameter, value) in trained.items():
        about = {"masks": masks, "matrix": matrix, "parameter": parameter}
        same_bits("E4", value, raw[matrix], "untrained, θ' is not θ", **about)
    perturb(implementation, editor)
    for matrix, (parameter, value) in implementation.trained_weights(editor).items():
        about = {"masks": masks, "matrix": matrix, "parameter": parameter}
        index = weight_places(implementation, editor, world, matrix)
        with torch.no_grad():
            implementation.parameters(editor)[parameter].view(-1)[index[0, 1]] += 0.5
        moved = implementation.trained_weights(editor)[matrix][1] - value
        what = "what is named as training a matrix does not train it"
        equal("E4", moved.nonzero().tolist(), [[0, 1]], what, **about)
        close("E4", float(moved[0, 1]), 0.5, what, "arrays", **about)


@clause("E4")
@needs("editable_training")
@every_model
@pytest.mark.parametrize("inner_lr", [None, 3e-3], ids=["default", "given"])
def test_an_edit_is_one_step_from_the_trained_model(implementation: Any, kind: str, inner_lr: float | None) -> None:
    """θ_u = θ' ∓ lr·∇L(θ') with the gradient at θ', trained or not; lr starts as ruled, or where it was asked to.

    Whether the step goes downhill, E11 asks.
    """
    world = setting(kind)
    editor = make(implementation, "editable_training", world, inner_lr=inner_lr)
    request = make_request(kind, np.random.default_rng(63))
    raw = raw_weights(world)
    for trained in (False, True):
        shift = shifts(implementation, editor, "editable_training", world)
        slopes = gradients(with_update(world.model, shift), world.edited, request)
        update = implementation.dense(editor, implementation.edit(editor, [request]), 0)
        lr = inner_lr or float(implementation.ruling("editable_training_inner_lr"))
        for matrix, found in update.items():
            taken = found - shift[matrix]
            expected = np.copysign(lr, rate(taken, slopes[matrix])) * -slopes[matrix]
            about = {"model": kind, "edit": request, "matrix": matrix, "lr": lr, "θ' was moved": trained}
            beside = torch.stack([raw[matrix].abs().max(), shift[matrix].abs().max()])
            what = "an edit is not one gradient step from θ'"
            near("E4", taken, expected, what, of=[found], beside=beside, **about)
        perturb(implementation, editor)


@clause("E4")
@needs("L", "editable_training")
@pytest.mark.parametrize(("kind", "count"), [*((kind, 1) for kind in KINDS), ("bert", 17)])
def test_the_model_is_trained_through_the_step(implementation: Any, kind: str, count: int) -> None:
    """The objective's gradient for θ' has its second order, through the inner gradient, and not the first alone.

    So it has in a batch of any size, whose gradient is the mean of its edits'.

    Asked of what another update input changes in the gradient: that is L_rel alone, whatever is wrong with L_loc.
    """
    world = setting(kind)
    editor = make(implementation, "editable_training", world, inner_lr=0.05)
    perturb(implementation, editor)
    rng = np.random.default_rng(64)
    triples = [make_triple(kind, rng) for _ in range(count)]
    others: list[Triple] = [
        {**triple, "update": make_input(kind, rng, positions=len(triple["edit"]["labels"]))} for triple in triples
    ]
    found = [implementation.losses(editor, batch, seed=0)[1] for batch in (triples, others)]
    trained = implementation.trained_weights(editor)
    weights = {matrix: value.clone().requires_grad_() for matrix, (_, value) in trained.items()}
    (update,) = updates(implementation, editor, [triples[0]["edit"]])
    shift = shifts(implementation, editor, "editable_training", world)
    inner = gradients(with_update(world.model, shift), world.edited, triples[0]["edit"])
    rates = {m: float(np.copysign(0.05, rate(update[m] - shift[m], inner[m]))) for m in weights}
    slopes = {}
    for second_order in (True, False):
        terms = [
            rel_after_a_step(world.model, weights, rates, one, second_order) * sign
            for batch, sign in ((triples, 1), (others, -1))
            for one in batch
        ]
        slopes[second_order] = torch.autograd.grad(torch.stack(terms).sum() / count, list(weights.values()))
    for number, (matrix, (parameter, _)) in enumerate(trained.items()):
        expected, first = slopes[True][number], slopes[False][number]
        size = float(expected.abs().max())
        share = float((expected - first).abs().max()) / size
        about = {"model": kind, "triples": triples, "others": [one["update"] for one in others], "matrix": matrix}
        assume(share > 1e-3, f"the second order is a share of {share:.1g} of the gradient, so nothing is shown")
        what = "no gradient of the objective reaches θ'"
        reached = all(one[parameter] is not None for one in found)
        holds("E4", reached, what, expected="a gradient", got=None, **about)
        index = weight_places(implementation, editor, world, matrix)
        got = [one[parameter].flatten()[index] for one in found]
        what = "θ' is not trained through the step"
        if agree(got[0] - got[1], first, "model", of=got):
            what = "θ' is trained by the first order alone"
        near("E4", got[0] - got[1], expected, what, of=got, beside=got[0], **about)


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
        about = {"model": kind, "edit": request}
        equal("E5", sorted(gates), sorted(world.edited), "there are gates for other matrices than are edited", **about)
        for matrix, found in update.items():
            expected = conditioned(gates[matrix], gradient[matrix])
            what = "an edit is not scale · (∇W ⊙ a + b)"
            near("E5", found, expected, what, matrix=matrix, **about)
            limit = rank(gradient[matrix]) + 1
            what = "the rank of an edit is more than one above that of its gradient"
            got = rank(found, found)
            holds("E5", got <= limit, what, expected=f"at most {limit}", got=got, matrix=matrix, **about)


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
                about = {"model": kind, "edit": request, "matrix": matrix, "parameters times": factor}
                scale = numbers(gate["scale"])
                equal("E5", scale.shape, (), "the scale of a matrix is not one number", **about)
                holds("E5", 0 <= scale <= 1, "a scale is not bounded", expected="in [0, 1]", got=scale, **about)
                for name in ("a", "b"):
                    vectors = gate[name]  # type: ignore[literal-required]
                    sizes = [list(one.shape) for one in vectors]
                    what = "an outer product is not of a vector over outputs and one over inputs"
                    equal("E5", sizes, [[m], [n]], what, product=name, **about)
                    kept = sum(map(_is_distribution, vectors))
                    what = "an outer product is not of one softmax vector and one free vector"
                    equal("E5", kept, 1, what, product=name, counted="softmax vectors", **about)


def _is_distribution(vector: torch.Tensor) -> bool:
    return bool((vector >= 0).all()) and abs(float(vector.sum()) - 1) < 1e-5


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
    for what, new in (("a word", (8, 9)), ("the order of words", (9, 7))):
        changed = list(ids)
        changed[words[0]], changed[words[1]] = new
        after = _flat(implementation.gates(editor, {**original, "input_ids": changed}))
        unseen = f"the gates do not depend on {what} of x_e"
        differs("E5", after, before, unseen, expected="other gates", model=kind, edit=original, changed=changed)


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
        about = {"model": kind, "edit": request, "changed": labels}
        if sees:
            differs("E5", after, before, "the gates do not depend on y_e", expected="other gates", **about)
        else:
            near("E5", after, before, "the gates depend on y_e, against the declared ruling", **about)


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
    near("E5", french, english, "the gates depend on the editing language", "arrays", edit=request)


def _flat(gates: dict[str, Gates]) -> torch.Tensor:
    """All gates of a request in a row."""
    parts = [part for matrix in sorted(gates) for part in (*gates[matrix]["a"], *gates[matrix]["b"])]
    return torch.cat([*parts, *(torch.as_tensor(gates[matrix]["scale"])[None] for matrix in sorted(gates))])


# --- E6 ---------------------------------------------------------------------------------------------------------------


@clause("E6")
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])
def test_the_transform_starts_as_the_identity_on_normalised_rows(implementation: Any, size: float) -> None:
    """Untrained, (x̃, δ̃) = (LayerNorm(x), LayerNorm(δ)), at whatever size gradients have."""
    world = setting("bert")
    editor = make_mend(implementation, world)
    for matrix in world.edited:
        x, delta = rows(world, matrix)
        found = transformed(implementation, editor, matrix, x, delta * size, "en")
        for which, one, before in zip(("x", "δ"), found, (x, delta), strict=True):
            what = f"untrained, the transform does not give the normalised {which}"
            close("E6", one, layer_norm(before), what, 0.01, matrix=matrix, size=size)


@clause("E6")
@every_variant
def test_the_transform_does_not_see_the_size_of_a_gradient(implementation: Any, masks: str) -> None:
    """δ · 1e-4 leaves x̃ and δ̃ unchanged to 1%, trained or not, on gradients as they occur."""
    world = setting("bert")
    editor = make_mend(implementation, world, masks)
    request = make_request("bert", np.random.default_rng(5), language="fr")
    for trained in (False, True):
        for matrix, pair in rows_with_gradient(world.model, world.edited, request).items():
            x, delta = alive(*pair)
            whole = transformed(implementation, editor, matrix, x, delta, "fr")
            small = transformed(implementation, editor, matrix, x, delta * 1e-4, "fr")
            for which, one, other in zip(("x", "δ"), whole, small, strict=True):
                change = float((one - other).norm() / one.norm())
                what = f"the size of the gradient changes the transformed {which}: the normalisation does not reach it"
                about = {"masks": masks, "moved off its start": trained, "matrix": matrix, "edit": request}
                holds("E6", change < 0.01, what, expected="less than 1%", got=f"{change:.1%}", **about)
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
        first = [value.clone() for value in transformed(implementation, editor, matrix, x, delta, "en")]
        transformed(implementation, editor, matrix, 3 + 7 * x, delta.flip(0) - 1, "en")
        implementation.edit(editor, [make_request("bert", np.random.default_rng(0), language="en")])
        for t in range(len(x)):
            alone = transformed(implementation, editor, matrix, x[t : t + 1], delta[t : t + 1], "en")
            for which, together, one in zip(("x", "δ"), first, alone, strict=True):
                what = "what becomes of a row depends on other rows or earlier calls"
                near("E6", one[0], together[t], what, factor=which, row=t, matrix=matrix, masks=masks)


@clause("E6")
def test_layers_share_one_transform_per_shape(implementation: Any) -> None:
    """A second layer of the same shapes adds no second transform, but what is its own: scale, shift, learning rate.

    These may be one number or one for each row and block; a transform is larger than ten of each are.
    """
    world = setting("bert")
    one_layer = implementation.parameters(make_mend(implementation, Setting("bert", world.model, world.edited[:2])))
    two_layers = implementation.parameters(make_mend(implementation, world))
    added = sum(v.numel() for v in two_layers.values()) - sum(v.numel() for v in one_layer.values())
    widths = sum(sum(world.shapes[matrix]) for matrix in world.edited[2:])
    what = "layers of one shape do not share one transform"
    expected = f"at most 20 numbers for each of {widths} inputs and outputs"
    holds("E6", added <= 20 * widths, what, expected=expected, got=f"a second layer adds {added} parameters")


@clause("E6")
@pytest.mark.parametrize("kind", ["bert", "square"])
def test_a_shared_parameter_moves_all_matrices_of_its_shape_only(implementation: Any, kind: str) -> None:
    """Moving one number moves the transforms of matrices of one shape; some numbers move every one of them.

    Where all matrices are square these are one shape, whatever their place in a layer is.
    """
    world = setting(kind)
    editor = make_mend(implementation, world)
    perturb(implementation, editor)
    before = _transformed(implementation, editor, world)
    shared: set[tuple[int, int]] = set()
    for name, place, value in _some_numbers(implementation, editor):
        old = value.detach().view(-1)[place].clone()
        with torch.no_grad():
            value.view(-1)[place] += 0.5
        after = _transformed(implementation, editor, world)
        with torch.no_grad():
            value.view(-1)[place] = old
        moved = [matrix for matrix in world.edited if not torch.equal(before[matrix], after[matrix])]
        shapes = {world.shapes[matrix] for matrix in moved}
        what = "one parameter moves the transforms of matrices that differ in shape"
        holds("E6", len(shapes) <= 1, what, expected="one shape", got=moved, parameter=name, place=place)
        if moved == [matrix for matrix in world.edited if world.shapes[matrix] in shapes]:
            shared |= shapes
    what = "layers of one shape do not share a transform"
    equal("E6", sorted(shared), sorted(set(world.shapes.values())), what)


def _some_numbers(implementation: Any, editor: Any) -> list[tuple[str, int, torch.Tensor]]:
    """Numbers of each parameter: three of each of many, a hundred of one that holds everything."""
    live = implementation.parameters(editor)
    each = max(3, 100 // len(live))
    rng = np.random.default_rng(71)
    return [
        (name, int(place), value)
        for name, value in sorted(live.items())
        for place in rng.choice(value.numel(), size=min(each, value.numel()), replace=False)
    ]


def _transformed(implementation: Any, editor: Any, world: Setting) -> dict[str, torch.Tensor]:
    found = {}
    for matrix in world.edited:
        found[matrix] = torch.cat(transformed(implementation, editor, matrix, *rows(world, matrix), "en"), -1)
    return found


@clause("E6")
@every_model
@pytest.mark.parametrize("inner_lr", [None, 3e-3, 30.0], ids=["default", "given", "large"])
def test_the_inner_learning_rate_starts_as_stated(implementation: Any, kind: str, inner_lr: float | None) -> None:
    """ΔW = ∓1e-4 Σ_t outer(δ̃_t, x̃_t) for every matrix before training, or with the rate that was asked for.

    A large one makes ΔW larger than the matrix.
    """
    world = setting(kind)
    editor = make_mend(implementation, world, inner_lr=inner_lr)
    request = make_request(kind, np.random.default_rng(1), language="en")
    wanted = inner_lr or 1e-4
    for matrix, found in _rates(implementation, editor, world, request).items():
        what = f"the inner learning rate does not start at {'what was asked for' if inner_lr else '1e-4'}"
        close("E6", abs(found) / wanted, 1, what, "model", model=kind, matrix=matrix, wanted=wanted, found=abs(found))


def _rates(implementation: Any, editor: Any, world: Setting, request: Request) -> dict[str, float]:
    """The c of MEND's ΔW = -c Σ outer(δ̃, x̃)."""
    update = implementation.dense(editor, implementation.edit(editor, [request]), 0)
    found = {}
    for matrix, pair in rows_with_gradient(world.model, world.edited, request).items():
        x, delta = transformed(implementation, editor, matrix, *alive(*pair), request["language"])
        found[matrix] = rate(update[matrix], delta.T @ x)
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
    count = {"none": 0, "language": len(languages), "shared": 1}[masks]
    expected = {
        matrix: {"x": [count, n], "delta": [count, m]} for matrix, (n, m) in world.shapes.items() if masks != "none"
    }
    got = {m: {f: list(factors[f].shape) for f in ("x", "delta") if f in factors} for m, factors in found.items()}
    about = {"editor": name, "masks": masks, "languages": languages}
    equal("E7", got, expected, "an editor does not have the masks that were asked for", **about)
    edits = implementation.edit(editor, [make_request("bert", np.random.default_rng(0), language=languages[-1])])
    what = "an editor with these masks does not edit the edited matrices"
    equal("E7", sorted(implementation.dense(editor, edits, 0)), sorted(world.edited), what, **about)


@clause("E7")
@every_learned
def test_the_shared_control_costs_what_one_language_costs(implementation: Any, name: str) -> None:
    """Editors with a shared mask and with the mask of a single language have as many parameters."""
    world = setting("bert")

    def size(masks: str, languages: tuple[str, ...]) -> int:
        editor = make(implementation, name, world, masks, languages=languages)
        return sum(value.numel() for value in implementation.parameters(editor).values())

    what = "the shared mask does not cost what the mask of one language costs"
    equal("E7", size("shared", LANGUAGES), size("language", ("en",)), what, editor=name)


@clause("E7")
@every_learned
def test_a_shared_mask_edits_every_language_alike(implementation: Any, name: str) -> None:
    """Under the shared control the editing language changes nothing; under language masks it does."""
    world = setting("bert")
    request = make_request("bert", np.random.default_rng(4), language="en")
    for masks in ("shared", "language"):
        editor = make_felt(implementation, name, world, masks)
        set_masks(implementation, editor)
        english, german = (
            implementation.dense(editor, implementation.edit(editor, [{**request, "language": language}]), 0)
            for language in ("en", "de")
        )
        for matrix in world.edited:
            about = {"editor": name, "masks": masks, "edit": request, "matrix": matrix}
            if masks == "shared":
                near("E7", german[matrix], english[matrix], "under a shared mask edits differ by language", **about)
            else:
                what = "under language masks edits do not differ by language"
                differs("E7", german[matrix], english[matrix], what, expected="another ΔW in de", **about)


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
    inputs = [make_input(kind, rng, words=w) for w in (9, 2)]
    _assert_edits_are_independent(implementation, editor, requests, inputs, editor=name, model=kind, masks=masks)


@clause("E8")
@needs("batched")
@pytest.mark.parametrize("kind", ["bert", "classifier"])
@every_learned
def test_requests_that_agree_in_part_are_edits_of_their_own(implementation: Any, name: str, kind: str) -> None:
    """One input in two languages, with two answers, at two places, and once more as it was, in one batch."""
    world = setting(kind)
    editor = masked_editor(implementation, name, world)
    request = make_request(kind, np.random.default_rng(11), language="en", positions=1, words=4)
    turned: Request = {**request, "labels": other_labels(kind, request["labels"])}
    requests = [request, {**request, "language": "de"}, turned, {**turned, "language": "fr"}, {**request}]
    if kind != "classifier":
        # Another token is predicted, and the [MASK] stands where it stood.
        requests.append({**request, "positions": [1 + request["positions"][0] % 4]})
    _assert_edits_are_independent(
        implementation, editor, requests, requests[:1], editor=name, model=kind, masks="language"
    )


@clause("E8")
@needs("batched")
@pytest.mark.parametrize("count", [9, 33])
@every_editor
def test_edits_of_a_large_batch_are_in_their_places(implementation: Any, name: str, count: int) -> None:
    """Long and short ones by turns, and more than an implementation may make at a time."""
    world = setting("bert")
    learned = name != "finetuning"
    editor = make_felt(implementation, name, world, "language" if learned else "none")
    rng = np.random.default_rng(10)
    requests = [make_request("bert", rng, words=2 + 5 * place % 12) for place in range(count)]
    together = implementation.edit(editor, requests)
    for index in sorted({0, 1, count // 2, count - 2, count - 1}):
        (alone,) = updates(implementation, editor, [requests[index]])
        for matrix, found in implementation.dense(editor, together, index).items():
            about = {"editor": name, "matrix": matrix, "edit": requests[index], "place": f"{index} of {count}"}
            what = "an edit in a large batch is not the edit that it is alone"
            near("E8", found, alone[matrix], what, "model" if learned else "training", by_norm=not learned, **about)


@clause("E8")
@needs("batched", "finetuning")
@pytest.mark.parametrize("kind", ["bert", "classifier"])
def test_finetuning_in_a_batch_takes_each_edits_own_steps(implementation: Any, kind: str) -> None:
    """An edit that needs no step, one that needs few and one that needs many do not wait for each other."""
    world = setting(kind)
    rng = np.random.default_rng(9)
    requests = [make_request(kind, rng, words=words) for words in (2, 12, 5, 2, 3)]
    requests[1]["labels"] = logits_of(world.model, requests[1]).argmax(-1).tolist()
    way = optimiser_of(implementation)
    # RMSprop's first step is ten times its learning rate.
    lr = LR[kind] / 10 if way else LR[kind]
    steps = {len(finetuned(world.model, world.edited, request, lr=lr, **way)) - 1 for request in requests}
    assume(len(steps) > 2, f"the edits take {steps} steps, so nothing is shown")
    editor = make(implementation, "finetuning", world, lr=lr)
    inputs = [make_input(kind, rng, words=w) for w in (9, 2)]
    about = {"editor": "finetuning", "model": kind}
    _assert_edits_are_independent(implementation, editor, requests, inputs, "training", **about)


def _assert_edits_are_independent(
    implementation: Any,
    editor: Any,
    requests: Sequence[Request],
    inputs: Sequence[Input],
    tolerance: str = "model",
    /,
    **about: Any,
) -> None:
    together = implementation.edit(editor, requests)
    for index, request in enumerate(requests):
        alone = implementation.edit(editor, [request])
        expected, by_norm = implementation.dense(editor, alone, 0), tolerance == "training"
        about |= {"edit": request, "place": f"{index} of {len(requests)}"}
        what = "an edit in a batch is not the edit that it is alone"
        for matrix, found in implementation.dense(editor, together, index).items():
            near("E8", found, expected[matrix], what, tolerance, by_norm=by_norm, matrix=matrix, **about)
        pairs = zip(
            implementation.edited_logits(editor, together, index, inputs),
            implementation.edited_logits(editor, alone, 0, inputs),
            strict=True,
        )
        for one, (found, wanted) in zip(inputs, pairs, strict=True):
            what = "the model under an edit of a batch is not the one under the edit alone"
            near("E8", found, wanted, what, tolerance, by_norm=by_norm, input=one, **about)


# --- E9 ---------------------------------------------------------------------------------------------------------------


@clause("E9")
@every_variant
@every_learned
def test_every_parameter_has_exactly_one_owner(implementation: Any, name: str, masks: str) -> None:
    """Every trainable tensor is in exactly one parameter group of one optimiser, and nothing else is in any."""
    editor = make(implementation, name, setting("bert"), masks)
    owned = [parameter for group in implementation.optimizer_groups(editor) for parameter in group]
    live = sorted(implementation.parameters(editor))
    twice = sorted({own for own in owned if owned.count(own) > 1})
    unowned = [own for own in live if own not in owned]
    about = {"editor": name, "masks": masks}
    once = "each parameter in one group"
    what = f"{_called(implementation, editor, twice)} owned by two optimisers"
    holds("E9", not twice, what, expected=once, got=twice, **about)
    what = f"{_called(implementation, editor, unowned)} owned by no optimiser"
    holds("E9", not unowned, what, expected=once, got=unowned, **about)
    equal("E9", sorted(owned), live, "an optimiser owns what is no parameter", **about)


def _called(implementation: Any, editor: Any, names: Sequence[str]) -> str:
    """What these parameters are, and that they are more than one."""
    if not names:
        return ""
    rates = set(inner_rates(implementation, editor))
    masks = implementation.mask_parameters(editor)
    tables = {name for name, _ in mask_places(implementation, editor).values()} if masks else set()
    if set(names) <= rates:
        return "the inner learning rates are"
    return "the masks are" if set(names) <= tables else "parameters are"


@clause("E9")
@every_variant
@every_learned
def test_training_moves_every_parameter(implementation: Any, name: str, masks: str) -> None:
    """After three steps no tensor is where it began: no factor, scale, shift, weight, rate or mask."""
    world = setting("bert")
    editor = make_felt(implementation, name, world, masks)
    before = {own: value.detach().clone() for own, value in implementation.parameters(editor).items()}
    rng = np.random.default_rng(10)
    for number in range(3):
        step(implementation, editor, [make_triple("bert", rng, language) for language in LANGUAGES], seed=number)
    still = [own for own, value in implementation.parameters(editor).items() if torch.equal(value, before[own])]
    what = f"{_called(implementation, editor, still)} not moved by training"
    equal("E9", still, [], what, editor=name, masks=masks, steps=3)


@clause("E9")
@with_inner_rates
def test_training_moves_the_inner_learning_rates(implementation: Any, name: str) -> None:
    """The c of an inner step -c Σ outer(δ̃, x̃) is another one after a training step, for every matrix."""
    world = setting("bert")
    editor = make_felt(implementation, name, world)
    rng = np.random.default_rng(11)
    request = make_request("bert", rng, language="en")
    measure = _rates if name == "mend" else _rates_of_a_step
    places = inner_rates(implementation, editor)
    kept = {own: implementation.parameters(editor)[own].detach().clone() for own in places}
    before, (first,) = measure(implementation, editor, world, request), updates(implementation, editor, [request])
    step(implementation, editor, [make_triple("bert", rng) for _ in range(3)], seed=0)
    after = measure(implementation, editor, world, request)
    still = [matrix for matrix in world.edited if abs(after[matrix] / before[matrix] - 1) < 1e-9]
    if width(*first.values()) == "float32" and places:
        # What is measured of a step in float32 is rougher than what a step changes.
        live = implementation.parameters(editor)
        still = [own for own, at in places.items() if (live[own][at] == kept[own][at]).any()]
    equal("E9", still, [], "the inner learning rates are not moved by training", editor=name, steps=1)


def _rates_of_a_step(implementation: Any, editor: Any, world: Setting, request: Request) -> dict[str, float]:
    """The c of Editable Training's step -c ∇L(θ')."""
    shift = shifts(implementation, editor, "editable_training", world)
    slopes = gradients(with_update(world.model, shift), world.edited, request)
    update = implementation.dense(editor, implementation.edit(editor, [request]), 0)
    return {matrix: rate(update[matrix] - shift[matrix], slopes[matrix]) for matrix in world.edited}


@clause("E9")
@every_learned
def test_training_moves_the_masks_of_the_editing_languages(implementation: Any, name: str) -> None:
    """After a step on edits in en and fr, their rows of every mask have moved, for x and for δ."""
    world = setting("bert")
    editor = make(implementation, name, world, "language")
    masks = implementation.mask_parameters(editor)
    before = {(matrix, factor): masks[matrix][factor].detach().clone() for matrix in masks for factor in ("x", "delta")}
    rng = np.random.default_rng(12)
    step(implementation, editor, [make_triple("bert", rng, language) for language in ("en", "fr")], seed=0)
    after = implementation.mask_parameters(editor)
    for (matrix, factor), old in before.items():
        for language in ("en", "fr"):
            row = LANGUAGES.index(language)
            moved = float((after[matrix][factor][row] != old[row]).double().mean())
            about = {"editor": name, "matrix": matrix, "factor": factor, "language": language}
            what = "the masks of an editing language are not moved by training"
            holds("E9", moved > 0.9, what, expected="nearly all gates", got=f"{moved:.0%} of them", **about)


@clause("E9")
@every_learned
def test_a_training_step_descends(implementation: Any, name: str) -> None:
    """Twenty steps on one batch lower its objective, at some learning rate: what is moved is moved by its gradient."""
    world = setting("bert")
    triples = [make_triple("bert", np.random.default_rng(13)) for _ in range(2)]
    went = {}
    for lr in TRAINING_RATES:
        editor = make_felt(implementation, name, world, lr=lr)
        first = implementation.losses(editor, triples, seed=0)[0]["total"]
        for number in range(20):
            step(implementation, editor, triples, seed=number)
        went[lr] = first, implementation.losses(editor, triples, seed=0)[0]["total"]
        if went[lr][1] < first:
            return
    what = "training does not lower its own objective"
    fail("E9", what, {"editor": name, "steps": 20, "triples": triples}, "less than before at some rate", went)


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
    what = "edits go uphill" if fell < 0.5 * len(requests) else "edits do not go downhill"
    expected = f"the loss of y_e at x_e falls in nine of ten of {len(requests)} edits"
    got = f"it falls in {fell}"
    holds("E11", fell >= 0.9 * len(requests), what, expected=expected, got=got, editor=name, model=kind, inner_lr=1e-5)


@torch.no_grad()
def _loss(model: torch.nn.Module, request: Input) -> float:
    return float(cross_entropy(logits_of(model, request), request["labels"]))  # type: ignore[typeddict-item]


# --- E13 --------------------------------------------------------------------------------------------------------------


@clause("E13")
@pytest.mark.parametrize("masks", ["language", "shared"])
@every_learned
def test_masks_leave_the_base_editor_as_it_is(implementation: Any, name: str, masks: str) -> None:
    """Beside the masks the same parameters; with all gates closed two training steps move them as without masks.

    Where log α is held within ±log 100, no value closes the gates that are drawn in training: then it is only asked
    whether they are moved as far, which with Adam says the learning rate.
    """
    world = setting("bert")
    base, masked = (make_felt(implementation, name, world, kind) for kind in ("none", masks))
    perturb(implementation, masked)
    copied(implementation, masked, base, "E13")
    close_gates(implementation, masked, at=-40.0)
    rng = np.random.default_rng(66)
    batches = [[make_triple("bert", rng) for _ in range(2)] for _ in range(2)]
    losses = [implementation.losses(editor, batches[0], seed=0)[0]["rel"] for editor in (base, masked)]
    closed = agree(*losses, "losses")
    before = _beside_masks(implementation, masked)
    for number, triples in enumerate(batches):
        for editor in (base, masked):
            step(implementation, editor, triples, seed=number)
    # Some hold log α with a step alone.
    sides = [value for own in implementation.mask_parameters(masked).values() for value in (own["x"], own["delta"])]
    closed = closed and all(float(value.detach().max()) < -30 for value in sides)
    after, expected = (_beside_masks(implementation, editor) for editor in (masked, base))
    for key, start in before.items():
        moved, wanted = after[key] - start, expected[key] - start
        about = {"editor": name, "masks": masks, "parameter": key, "beside": start}
        what = "with masks an editor is not trained as its base editor is"
        if closed:
            near("E13", moved, wanted, what, "training", by_norm=True, of=[after[key]], **about)
        else:
            far = [float(one.abs().median()) for one in (moved, wanted)]
            holds("E13", far[0] > 0.3 * far[1] and far[1] > 0.3 * far[0], what, expected=far[1], got=far[0], **about)


def _beside_masks(implementation: Any, editor: Any) -> dict[str, torch.Tensor]:
    """The parameters of an editor in rows, without its masks."""
    masks = implementation.mask_parameters(editor)
    places = mask_places(implementation, editor) if masks else {}
    found = {}
    for name, value in implementation.parameters(editor).items():
        kept = without(value, [index for at, index in places.values() if at == name]).double().clone()
        if kept.numel():
            found[name] = kept
    return found


# --- E14 --------------------------------------------------------------------------------------------------------------


@clause("E14")
@every_learned
def test_a_step_is_down_the_objective_of_its_own_edits(implementation: Any, name: str) -> None:
    """Two steps of three edits each report `losses` of these, and go where they go with the edits in another order."""
    world = setting("bert")
    forwards, backwards = (make_felt(implementation, name, world) for _ in range(2))
    for editor in (forwards, backwards):
        perturb(implementation, editor)
    before = {own: value.detach().double().clone() for own, value in implementation.parameters(forwards).items()}
    rng = np.random.default_rng(67)
    for number in range(2):
        triples = [make_triple("bert", rng) for _ in range(3)]
        expected, _ = implementation.losses(forwards, triples, seed=number)
        found = step(implementation, forwards, triples, seed=number)
        step(implementation, backwards, triples[::-1], seed=number)
        for part in ("rel", "loc", "mask", "total"):
            what = "a training step reports other losses than those of the edits that it was given"
            about = {"editor": name, "step": number, "part": part, "triples": triples}
            close("E14", found[part], expected[part], what, "losses", **about)
    for own, value in implementation.parameters(forwards).items():
        start = before[own]
        moved, wanted = (end.detach().double() - start for end in (implementation.parameters(backwards)[own], value))
        what = "the order of the edits of a batch changes the step"
        about = {"editor": name, "parameter": own, "of": [value], "beside": start}
        near("E14", moved, wanted, what, "training", by_norm=True, **about)


@clause("E14")
@every_learned
def test_a_step_is_on_what_its_list_holds_now(implementation: Any, name: str) -> None:
    """A list of edits that was changed in place is another batch: its objective is reported, and stepped down."""
    world = setting("bert")
    editor, other = (make_felt(implementation, name, world) for _ in range(2))
    perturb(implementation, editor)
    copied(implementation, editor, other, "E14")
    rng = np.random.default_rng(68)
    first, second = ([make_triple("bert", rng) for _ in range(3)] for _ in range(2))
    held = list(first)
    step(implementation, editor, held, seed=0)
    step(implementation, other, first, seed=0)
    held[:] = second
    before = {own: value.detach().double().clone() for own, value in implementation.parameters(editor).items()}
    expected, _ = implementation.losses(other, second, seed=1)
    what = "of a list that was changed in place, other losses are reported than those of its edits"
    for function in ("losses", "train_step"):
        losses = implementation.losses(editor, held, seed=1)[0] if function == "losses" else None
        found = losses or step(implementation, editor, held, seed=1)
        for part in ("rel", "loc", "total"):
            close("E14", found[part], expected[part], what, "losses", editor=name, part=part, function=function)
    step(implementation, other, second, seed=1)
    for own, value in implementation.parameters(editor).items():
        start = before[own]
        wanted = implementation.parameters(other)[own].detach().double() - start
        about = {"editor": name, "parameter": own, "of": [value], "beside": start}
        what = "a step on a list that was changed in place is not that of its edits"
        near("E14", value.detach().double() - start, wanted, what, "training", by_norm=True, **about)


# --- E10 --------------------------------------------------------------------------------------------------------------


@clause("E10")
def test_a_short_training_makes_edits_succeed(implementation: Any) -> None:
    """Sixty steps of sixteen edits raise succ on a hundred held-out edits by half and by 0.1, at some learning rate."""
    languages = ("en", "de", "fr", "es")
    facts = load_facts(languages)
    model, edited = raw_model()
    judged = facts.part("judged").cases(np.random.default_rng(50), 100, 2)
    calls = accumulated(implementation)
    went = {}
    for lr in TRAINING_RATES:
        editor = implementation.make_editor("mend", model, edited, languages, inner_lr=5e-4, lr=lr)
        before = _succ(implementation, editor, judged)
        training, rng = facts.part("train"), np.random.default_rng(51)
        for number in range(60):
            triples = training.triples(rng, 16)
            for part in np.array_split(np.arange(16), min(calls, 16)):
                implementation.train_step(editor, [triples[i] for i in part], seed=number)
            for _ in range(16, calls):
                implementation.train_step(editor, triples[:1], seed=number)
        went[lr] = before, _succ(implementation, editor, judged)
        if went[lr][1] >= max(before + 0.1, 1.5 * before):
            return
    what = "a short training does not make edits succeed"
    expected = "succ rises by half and by 0.1 at one of these learning rates"
    got = {lr: f"from {first:.3f} to {last:.3f}" for lr, (first, last) in went.items()}
    fail("E10", what, {"steps": 60, "edits per step": 16, "inner_lr": 5e-4}, expected, got)


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
