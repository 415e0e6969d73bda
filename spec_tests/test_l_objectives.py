"""Chapter L: objectives, as functions of logits and as parts of an editor's training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from .assertions import TOLERANCES, agree, close, equal, fail, holds, is_single, near, width
from .border import Handed
from .conformance import clause, every_learned, needs
from .contract import Input, Triple
from .editing import VARIANTS, every_model
from .tiny import (
    cross_entropy,
    divergence,
    inner_rates,
    located,
    logits_of,
    make_felt,
    make_input,
    make_request,
    make_triple,
    perturb,
    set_masks,
    setting,
    step,
    with_update,
)


@dataclass(frozen=True)
class Batch:
    """Logits of two models (B, P, V), labels and mask (B, P); every example has at least one position."""

    edited: torch.Tensor
    raw: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    weight: float

    @property
    def spread(self) -> float:
        """The largest logit: what rounds there rounds in a loss."""
        return float(max(1.0, self.edited.abs().max(), self.raw.abs().max()))

    def alone(self, row: int) -> Batch:
        """One example without its padding."""
        one, there = self.select([row]), self.mask[row]
        return Batch(one.edited[:, there], one.raw[:, there], one.labels[:, there], one.mask[:, there], self.weight)

    def select(self, rows: list[int]) -> Batch:
        return Batch(self.edited[rows], self.raw[rows], self.labels[rows], self.mask[rows], self.weight)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Batches with padding at any place; logits from nearly equal to so far apart that a probability is 0."""
    size, positions = draw(st.sampled_from([1, 2, 3, 4, 9])), draw(st.sampled_from([1, 2, 3, 7]))
    classes = draw(st.integers(2, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.1, 1.0, 8.0, 400.0]))
    logits = spread * torch.randn(2, size, positions, classes, generator=generator, dtype=torch.float64)
    edited, raw = logits.to(getattr(torch, Handed.width))
    labels = torch.randint(0, classes, (size, positions), generator=generator)
    cells = st.lists(st.booleans(), min_size=positions, max_size=positions)
    mask = torch.tensor(draw(st.lists(cells.filter(any), min_size=size, max_size=size)))
    weight = draw(st.sampled_from([0.0, 0.1, 1.0, 2.5]))
    return Batch(edited, raw, labels, mask, weight)


# --- what the suite computes on its own, in NumPy ---------------------------------------------------------------------


def log_softmax(logits: Any) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def spread_over(batch: Batch, cell: Callable[[int, int], tuple[float, np.ndarray]]) -> tuple[float, torch.Tensor]:
    """The mean over examples of the mean over their positions of `cell`, which gives a value and a gradient."""
    value, gradient = 0.0, np.zeros(tuple(batch.edited.shape))
    for b, row in enumerate(batch.mask.tolist()):
        share = batch.weight / (len(batch.mask) * sum(row))
        for p in (p for p, counts in enumerate(row) if counts):
            one, slope = cell(b, p)
            value += share * one
            gradient[b, p] += share * slope
    return value, torch.from_numpy(gradient)


def expected_rel(batch: Batch) -> tuple[float, torch.Tensor]:
    def cell(b: int, p: int) -> tuple[float, np.ndarray]:
        logs, label = log_softmax(batch.edited[b, p].double().numpy()), int(batch.labels[b, p])
        return -logs[label], np.exp(logs) - np.eye(len(logs))[label]

    return spread_over(batch, cell)


def expected_loc(batch: Batch, direction: str) -> tuple[float, torch.Tensor]:
    """KL(edited ‖ raw), or KL(raw ‖ edited) as released, with the gradient of the edited logits."""

    def cell(b: int, p: int) -> tuple[float, np.ndarray]:
        edited, raw = log_softmax(batch.edited[b, p].double().numpy()), log_softmax(batch.raw[b, p].double().numpy())
        if direction == "released":
            return float((np.exp(raw) * (raw - edited)).sum()), np.exp(edited) - np.exp(raw)
        value = float((np.exp(edited) * (edited - raw)).sum())
        return value, np.exp(edited) * (edited - raw - value)

    return spread_over(batch, cell)


def rel(implementation: Any, batch: Batch) -> tuple[float, torch.Tensor]:
    value, gradient = implementation.rel_loss(batch.edited, batch.labels, batch.mask, batch.weight)
    return value, gradient


def loc(implementation: Any, batch: Batch) -> tuple[float, torch.Tensor]:
    value, gradient, _ = implementation.loc_loss(batch.edited, batch.raw, batch.mask, batch.weight)
    return value, gradient


both = pytest.mark.parametrize("loss", [rel, loc], ids=["rel", "loc"])

# --- L1, L2 -----------------------------------------------------------------------------------------------------------


@clause("L1", "L4")
@given(batch=batches())
def test_rel_is_the_cross_entropy_at_predicted_positions(implementation: Any, batch: Batch) -> None:
    """L_rel = λ · the mean over positions of -log p(y), with its gradient; of a batch, the mean over its examples."""
    for row in range(len(batch.mask)):
        one = batch.alone(row)
        value, gradient = rel(implementation, one)
        expected, slope = expected_rel(one)
        close("L1", value, expected, "L_rel is not the cross entropy at the predicted positions", "losses", batch=one)
        near("L1", gradient, slope, "L_rel has another gradient", "model", beside=batch.weight, batch=one)
    for _ in range(2):  # of the same logits, asked again
        _is_the_mean_over_its_examples(rel(implementation, batch), expected_rel(batch), batch, "L_rel")


@clause("L2", "L4")
@given(batch=batches())
def test_loc_is_the_divergence_in_the_stated_direction(implementation: Any, batch: Batch) -> None:
    """L_loc = λ · the mean of KL(edited ‖ raw), or the declared other direction; of a batch, the examples' mean."""
    direction = implementation.ruling("kl_direction")
    turned = "paper" if direction == "released" else "released"
    for row in range(len(batch.mask)):
        one = batch.alone(row)
        about, beside = {"batch": one, "direction": direction}, batch.weight * batch.spread
        value, gradient = loc(implementation, one)
        expected, slope = expected_loc(one, direction)
        what = "L_loc is not the divergence at the predicted positions"
        if agree(value, expected_loc(one, turned)[0], "losses"):
            what = "the divergence of L_loc is turned round"
        close("L2", value, expected, what, "losses", **about)
        near("L2", gradient, slope, "L_loc has another gradient", "model", beside=beside, **about)
    for _ in range(2):  # of the same logits, asked again
        _is_the_mean_over_its_examples(loc(implementation, batch), expected_loc(batch, direction), batch, "L_loc")


def _is_the_mean_over_its_examples(
    found: tuple[float, torch.Tensor], expected: tuple[float, torch.Tensor], batch: Batch, name: str
) -> None:
    what = f"{name} of a batch is not the mean of its examples', each a mean over its positions"
    close("L4", found[0], expected[0], what, "losses", batch=batch)
    near("L4", found[1], expected[1], what, "model", beside=batch.weight * batch.spread, batch=batch)


@clause("L1", "L2")
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_a_large_vocabulary_is_summed_over_whole(implementation: Any, spread: float) -> None:
    """Over 4,000 tokens, nearly equal ones and not: none is too unlikely to count, for either loss."""
    generator, classes = torch.Generator().manual_seed(45), 4000
    logits = spread * torch.randn(2, 2, 3, classes, generator=generator, dtype=torch.float64)
    edited, raw = logits.to(getattr(torch, Handed.width))
    labels = torch.randint(0, classes, (2, 3), generator=generator)
    batch = Batch(edited, raw, labels, torch.tensor([[True, True, True], [False, True, False]]), 1.0)
    direction = implementation.ruling("kl_direction")
    for clause_id, name, found, expected in (
        ("L1", "L_rel", rel(implementation, batch), expected_rel(batch)),
        ("L2", "L_loc", loc(implementation, batch), expected_loc(batch, direction)),
    ):
        close(clause_id, found[0], expected[0], f"{name} is another over {classes} tokens", "losses", spread=spread)
        what = f"{name} has another gradient over {classes} tokens"
        near(clause_id, found[1], expected[1], what, "model", spread=spread)


@clause("L2")
@given(batch=batches())
def test_the_raw_side_carries_no_gradient(implementation: Any, batch: Batch) -> None:
    """The raw logits are a constant of the objective."""
    _, _, gradient = implementation.loc_loss(batch.edited, batch.raw, batch.mask, batch.weight)
    none = gradient is None or not gradient.any()
    holds("L2", none, "the raw side of L_loc carries a gradient", expected="none", got=gradient, batch=batch)


@clause("L2")
@given(batch=batches())
def test_an_edit_that_changes_nothing_costs_nothing(implementation: Any, batch: Batch) -> None:
    """L_loc of a model against itself is 0 with gradient 0, and it is never negative."""
    room = 1e-5 * batch.weight * batch.spread
    value, _ = loc(implementation, batch)
    holds("L2", value >= -room, "L_loc is negative", expected="0 at least", got=value, batch=batch)
    same = Batch(batch.raw, batch.raw, batch.labels, batch.mask, batch.weight)
    value, gradient = loc(implementation, same)
    what = "L_loc of a model against itself is not 0"
    holds("L2", abs(value) <= room, what, expected=0, got=value, batch=same)
    off = float(gradient.abs().max())
    what = "L_loc of a model against itself has a gradient"
    holds("L2", off <= room, what, expected=0, got=gradient, batch=same)


# --- L3 ---------------------------------------------------------------------------------------------------------------


@clause("L1", "L2")
@needs("E")
@every_model
@every_learned
def test_the_parts_of_training_are_the_objectives_of_the_edited_model(
    implementation: Any, name: str, kind: str
) -> None:
    """For the edit of x_e, rel is 0.1 · CE at x_u against y_e, and loc the KL at the [MASK] of x_r, or as declared."""
    world = setting(kind)
    editor = make_felt(implementation, name, world)
    perturb(implementation, editor)
    rng = np.random.default_rng(40)
    direction = implementation.ruling("kl_direction")
    for triple in [make_triple(kind, rng), _of_long_answers(kind, rng), _at_its_own_input(kind, rng)]:
        parts, _ = implementation.losses(editor, [triple], seed=0)
        update = implementation.dense(editor, implementation.edit(editor, [triple["edit"]]), 0)
        model = with_update(world.model, update)
        with torch.no_grad():
            answer = cross_entropy(logits_of(model, triple["update"]), triple["edit"]["labels"])
            asked = located(implementation, kind, triple["retain"])
            new, raw = (logits_of(one, asked) for one in (model, world.model))
        about = {"editor": name, "model": kind, "triple": triple, "direction": direction}
        about["positions"] = asked["positions"]
        what = "in training L_rel is not 0.1 · the cross entropy of the edited model at x_u"
        close("L1", parts["rel"], 0.1 * float(answer), what, "losses", **about)
        printed, turned = float(divergence(new, raw)), float(divergence(raw, new))
        if direction == "released":
            printed, turned = turned, printed
        what = "in training L_loc is not the divergence of the edited model from the raw one at these positions of x_r"
        if agree(parts["loc"], turned, "losses"):
            what = "in training the divergence of L_loc is turned round"
        close("L2", parts["loc"], printed, what, "losses", **about)


def _of_long_answers(kind: str, rng: np.random.Generator) -> Triple:
    """A masked language model predicts six and seven tokens."""
    request = make_request(kind, rng, positions=6)
    return {"edit": request, "update": make_input(kind, rng, 6), "retain": make_input(kind, rng, 7)}


def _at_its_own_input(kind: str, rng: np.random.Generator) -> Triple:
    """x_u is x_e, which is one of its parallels."""
    triple = make_triple(kind, rng)
    update: Input = {"input_ids": triple["edit"]["input_ids"], "positions": triple["edit"]["positions"]}
    return {**triple, "update": update}


@clause("L3")
@needs("E")
@pytest.mark.parametrize("masks", VARIANTS)
@every_learned
def test_the_total_is_the_sum_of_its_parts(implementation: Any, name: str, masks: str) -> None:
    """total = rel + loc + mask, in what `losses` says and in what `train_step` says."""
    editor = make_felt(implementation, name, setting("bert"), masks)
    triples = [make_triple("bert", np.random.default_rng(41))]
    for function, parts in (
        ("losses", implementation.losses(editor, triples, seed=0)[0]),
        ("train_step", step(implementation, editor, triples, seed=0)),
    ):
        about = {"editor": name, "masks": masks, "function": function}
        equal("L3", sorted(parts), ["loc", "mask", "rel", "total"], "the objective has other parts", **about)
        total = parts["rel"] + parts["loc"] + parts["mask"]
        close("L3", parts["total"], total, "the total is not the sum of its parts", "losses", parts=parts, **about)
        for part, there in (("rel", True), ("loc", True), ("mask", masks != "none")):
            what = f"the objective {'lacks' if there else 'has'} the part {part}"
            holds("L3", (parts[part] > 0) == there, what, expected=there, got=parts[part], **about)


@clause("L3")
@needs("E")
@pytest.mark.parametrize("masks", VARIANTS)
@every_learned
def test_gradients_reach_the_editor_and_never_the_raw_model(implementation: Any, name: str, masks: str) -> None:
    """Every parameter of the editor gets a gradient that is not zero; no parameter of the raw model gets any."""
    world = setting("bert")
    editor = make_felt(implementation, name, world, masks)
    perturb(implementation, editor)
    set_masks(implementation, editor)
    triples = [make_triple("bert", np.random.default_rng(seed)) for seed in range(4)]
    _, gradient = implementation.losses(editor, triples, seed=0)
    live = implementation.parameters(editor)
    about = {"editor": name, "masks": masks}
    equal("L3", sorted(gradient), sorted(live), "the gradient is not for the editor's parameters", **about)
    dead = [own for own, one in gradient.items() if one is None or not one.any()]
    equal("L3", dead, [], "no gradient of the objective reaches parameters of the editor", **about)
    wrong = [own for own, one in gradient.items() if one.shape != live[own].shape]
    equal("L3", wrong, [], "a gradient has another shape than its parameter", **about)
    step(implementation, editor, triples, seed=0)
    reached = [own for own, value in world.model.named_parameters() if value.grad is not None and value.grad.any()]
    equal("L3", reached, [], "training leaves gradients on the raw model", **about)


@clause("L3")
@needs("E")
@pytest.mark.parametrize("masks", ["none", "language"])
@every_learned
def test_the_gradient_is_that_of_the_total(implementation: Any, name: str, masks: str) -> None:
    """Along a random direction of all parameters, a finite difference of the total agrees with the gradient."""
    editor = make_felt(implementation, name, setting("bert"), masks)
    perturb(implementation, editor)
    triples = [make_triple("bert", np.random.default_rng(42)) for _ in range(2)]
    parts, gradient = implementation.losses(editor, triples, seed=3)
    generator = torch.Generator().manual_seed(43)
    live = implementation.parameters(editor)
    direction = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64).to(v) for n, v in live.items()}
    rates = inner_rates(implementation, editor)
    for own, places in rates.items():
        direction[own] = torch.where(places, 0.01 * direction[own], direction[own])
    # Gates have kinks at 0 and 1, which a small step rarely meets; float32 does not notice a very small one.
    single = width(*(one for one in gradient.values() if one is not None)) == "float32" or is_single(parts["total"])
    size = 1e-3 if single else 1e-6
    ends = []
    for sign in (1, -1):
        kept = {own: value.detach().clone() for own, value in live.items()}
        _move(live, direction, sign * size)
        ends.append(implementation.losses(editor, triples, seed=3)[0]["total"])
        with torch.no_grad():
            for own, value in live.items():
                value.copy_(kept[own])
    slope = (ends[0] - ends[1]) / (2 * size)
    terms = [(one * direction[own].double()).flatten() for own, one in gradient.items() if one is not None]
    expected = float(torch.cat(terms).sum())
    # Along a random direction a gradient comes to about its norm, or by chance to less.
    allowed = getattr(TOLERANCES["slope"], "float32" if single else "float64") * float(torch.cat(terms).norm())
    if not abs(slope - expected) <= allowed:
        what, inputs = "the gradient is not that of the total", {"editor": name, "masks": masks, "step": size}
        told = f"{expected:.6g} along a random direction"
        fail("L3", what, inputs, told, f"{slope:.6g}", f"{allowed:.3g}: {TOLERANCES['slope'].why}")


@torch.no_grad()
def _move(live: dict[str, torch.Tensor], direction: dict[str, torch.Tensor], size: float) -> None:
    for name, value in live.items():
        value.add_(size * direction[name])


# --- L4 ---------------------------------------------------------------------------------------------------------------


@clause("L4")
@both
@given(batch=batches(), columns=st.integers(1, 3), filler=st.sampled_from([0.0, -50.0, 50.0]))
def test_padding_does_not_change_a_loss(
    implementation: Any, loss: Callable[..., Any], batch: Batch, columns: int, filler: float
) -> None:
    """Further positions that the mask leaves out change neither a loss nor a gradient, and have gradient 0."""
    size, _, classes = batch.edited.shape
    extra = torch.full((size, columns, classes), filler, dtype=batch.edited.dtype)
    extra[..., 0] += 3.0
    padded = Batch(
        torch.cat([batch.edited, extra], 1),
        torch.cat([batch.raw, -extra], 1),
        torch.cat([batch.labels, torch.zeros(size, columns, dtype=torch.long)], 1),
        torch.cat([batch.mask, torch.zeros(size, columns, dtype=torch.bool)], 1),
        batch.weight,
    )
    value, gradient = loss(implementation, batch)
    found, padded_gradient = loss(implementation, padded)
    about = {"loss": loss.__name__, "batch": batch, "columns": columns, "filler": filler}
    close("L4", found, value, "padding changes a loss", "losses", **about)
    room = {"beside": batch.weight * batch.spread}
    near("L4", padded_gradient[:, :-columns], gradient, "padding changes the gradient of a loss", **room, **about)
    what = "a padded position has a gradient"
    holds("L4", not padded_gradient[:, -columns:].any(), what, expected=0, got=padded_gradient, **about)


@clause("L4")
@both
@given(batch=batches(), data=st.data())
def test_a_batch_is_the_mean_of_its_examples(
    implementation: Any, loss: Callable[..., Any], batch: Batch, data: st.DataObject
) -> None:
    """An example weighs the same whatever stands beside it, however many positions it has, in any order."""
    rows = data.draw(st.permutations(range(len(batch.mask))))
    value, gradient = loss(implementation, batch.select(rows))
    alone = [loss(implementation, batch.select([row])) for row in rows]
    about = {"loss": loss.__name__, "batch": batch, "order": rows}
    what = "the loss of a batch is not the mean of its examples' losses"
    close("L4", value, float(np.mean([one for one, _ in alone])), what, "losses", **about)
    expected = torch.cat([slope for _, slope in alone]) / len(rows)
    what = "the gradient of a batch is not that of the mean of its examples"
    near("L4", gradient, expected, what, beside=batch.weight * batch.spread, of=[gradient], **about)


@clause("L4")
@needs("E")
@every_model
@every_learned
def test_a_batch_trains_as_its_examples_do(implementation: Any, name: str, kind: str) -> None:
    """Without gates to draw, the objective of a batch and its gradient are the means over its examples."""
    _trains_as_its_examples(implementation, name, kind, (1, 1, 1, 1))


@clause("L4")
@needs("E")
@every_learned
def test_a_large_batch_trains_as_its_examples_do(implementation: Any, name: str) -> None:
    """More edits than an implementation may compute at a time, some of them there many times: each weighs the same."""
    _trains_as_its_examples(implementation, name, "bert", (16, 11, 6))


def _trains_as_its_examples(implementation: Any, name: str, kind: str, counts: tuple[int, ...]) -> None:
    editor = make_felt(implementation, name, setting(kind))
    perturb(implementation, editor)
    rng = np.random.default_rng(44)
    triples = [make_triple(kind, rng) for _ in counts]
    batch = [triple for triple, count in zip(triples, counts, strict=True) for _ in range(count)]
    parts, gradient = implementation.losses(editor, batch, seed=0)
    alone = [implementation.losses(editor, [triple], seed=0) for triple in triples]
    about = {"editor": name, "model": kind, "triples": triples, "each of them so often": counts}
    for part in ("rel", "loc", "total"):
        what = "in training the objective of a batch is not the mean over its examples"
        expected = float(np.average([one[part] for one, _ in alone], weights=counts))
        close("L4", parts[part], expected, what, "losses", part=part, **about)
    for own, found in gradient.items():
        slopes = [one[own] for _, one in alone]
        if found is None or any(slope is None for slope in slopes):
            continue
        beside = torch.stack(slopes)
        what = "in training the gradient of a batch is not the mean over its examples"
        expected_slope = torch.tensordot(torch.tensor(counts).to(beside) / sum(counts), beside, 1)
        near("L4", found, expected_slope, what, "model", of=[found], beside=beside, parameter=own, **about)
