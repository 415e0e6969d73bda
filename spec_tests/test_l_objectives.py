"""Chapter L: objectives, as functions of logits and as parts of an editor's training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from .conformance import clause, every_learned, needs
from .editing import VARIANTS, every_model
from .tiny import (
    assert_close,
    cross_entropy,
    logits_of,
    make_felt,
    make_triple,
    perturb,
    set_masks,
    setting,
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

    def select(self, rows: list[int]) -> Batch:
        return Batch(self.edited[rows], self.raw[rows], self.labels[rows], self.mask[rows], self.weight)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Batches with padding at any place; logits from nearly equal to far apart."""
    size, positions, classes = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(2, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.1, 1.0, 8.0]))
    edited, raw = spread * torch.randn(2, size, positions, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (size, positions), generator=generator)
    cells = st.lists(st.booleans(), min_size=positions, max_size=positions)
    mask = torch.tensor(draw(st.lists(cells.filter(any), min_size=size, max_size=size)))
    weight = draw(st.sampled_from([0.1, 1.0, 2.5]))
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
        logs, label = log_softmax(batch.edited[b, p].numpy()), int(batch.labels[b, p])
        return -logs[label], np.exp(logs) - np.eye(len(logs))[label]

    return spread_over(batch, cell)


def expected_loc(batch: Batch, direction: str) -> tuple[float, torch.Tensor]:
    """KL(edited ‖ raw), or KL(raw ‖ edited) as released, with the gradient of the edited logits."""

    def cell(b: int, p: int) -> tuple[float, np.ndarray]:
        edited, raw = log_softmax(batch.edited[b, p].numpy()), log_softmax(batch.raw[b, p].numpy())
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


@clause("L1")
@given(batch=batches())
def test_rel_is_the_cross_entropy_at_predicted_positions(implementation: Any, batch: Batch) -> None:
    """L_rel = λ · mean over examples of the mean over positions of -log p(y), with its gradient."""
    value, gradient = rel(implementation, batch)
    expected, slope = expected_rel(batch)
    assert value == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert_close(gradient, slope, "gradient of the logits", atol=1e-10)


@clause("L2")
@given(batch=batches())
def test_loc_is_the_divergence_in_the_stated_direction(implementation: Any, batch: Batch) -> None:
    """L_loc = λ · mean of KL(edited ‖ raw), or the declared other direction, with its gradient."""
    value, gradient = loc(implementation, batch)
    expected, slope = expected_loc(batch, implementation.ruling("kl_direction"))
    assert value == pytest.approx(expected, rel=1e-6, abs=1e-10)
    assert_close(gradient, slope, "gradient of the edited logits", atol=1e-10)


@clause("L2")
@given(batch=batches())
def test_the_raw_side_carries_no_gradient(implementation: Any, batch: Batch) -> None:
    """The raw logits are a constant of the objective."""
    _, _, gradient = implementation.loc_loss(batch.edited, batch.raw, batch.mask, batch.weight)
    assert gradient is None or not gradient.any()


@clause("L2")
@given(batch=batches())
def test_an_edit_that_changes_nothing_costs_nothing(implementation: Any, batch: Batch) -> None:
    """L_loc of a model against itself is 0 with gradient 0, and it is never negative."""
    value, _ = loc(implementation, batch)
    assert value >= -1e-12
    same = Batch(batch.raw, batch.raw, batch.labels, batch.mask, batch.weight)
    value, gradient = loc(implementation, same)
    assert value == pytest.approx(0, abs=1e-10)
    assert_close(gradient, torch.zeros_like(gradient), "gradient of the edited logits", atol=1e-10)


# --- L3 ---------------------------------------------------------------------------------------------------------------


@clause("L1", "L2", "L3")
@needs("E")
@every_model
@every_learned
def test_the_parts_of_training_are_the_objectives_of_the_edited_model(
    implementation: Any, name: str, kind: str
) -> None:
    """For the edit of x_e, rel is 0.1 · CE at x_u against y_e, loc is the KL at x_r, averaged over the batch."""
    world = setting(kind)
    editor = make_felt(implementation, name, world)
    perturb(implementation, editor)
    rng = np.random.default_rng(40)
    triples = [make_triple(kind, rng) for _ in range(3)]
    parts, _ = implementation.losses(editor, triples, seed=0)
    expected: dict[str, list[float]] = {"rel": [], "loc": []}
    for triple in triples:
        update = implementation.dense(editor, implementation.edit(editor, [triple["edit"]]), 0)
        model = with_update(world.model, update)
        with torch.no_grad():
            answer = cross_entropy(logits_of(model, triple["update"]), triple["edit"]["labels"])
            pair = [logits_of(one, triple["retain"])[None] for one in (model, world.model)]
        expected["rel"].append(0.1 * float(answer))
        everywhere = torch.ones(pair[0].shape[:2], dtype=torch.bool)
        kept = Batch(*pair, torch.zeros_like(everywhere, dtype=torch.long), everywhere, 1.0)
        expected["loc"].append(expected_loc(kept, implementation.ruling("kl_direction"))[0])
    for part, values in expected.items():
        assert parts[part] == pytest.approx(np.mean(values), rel=1e-6), part


@clause("L3")
@needs("E")
@pytest.mark.parametrize("masks", VARIANTS)
@every_learned
def test_the_total_is_the_sum_of_its_parts(implementation: Any, name: str, masks: str) -> None:
    """total = rel + loc + mask, in what `losses` says and in what `train_step` says."""
    editor = make_felt(implementation, name, setting("bert"), masks)
    triples = [make_triple("bert", np.random.default_rng(41))]
    for parts in (
        implementation.losses(editor, triples, seed=0)[0],
        implementation.train_step(editor, triples, seed=0),
    ):
        assert set(parts) == {"rel", "loc", "mask", "total"}
        assert parts["total"] == pytest.approx(parts["rel"] + parts["loc"] + parts["mask"], rel=1e-6)
        assert parts["rel"] > 0
        assert parts["loc"] > 0
        assert (parts["mask"] > 0) == (masks != "none")


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
    assert set(gradient) == set(live)
    dead = [own for own, one in gradient.items() if one is None or not one.any()]
    assert not dead, f"no gradient reaches {', '.join(dead)}"
    wrong = [own for own, one in gradient.items() if one.shape != live[own].shape]
    assert not wrong, f"the gradient of {', '.join(wrong)} has another shape than its parameter"
    implementation.train_step(editor, triples, seed=0)
    reached = [own for own, value in world.model.named_parameters() if value.grad is not None and value.grad.any()]
    assert not reached, f"training left gradients on the raw model's {', '.join(reached)}"


@clause("L3")
@needs("E")
@pytest.mark.parametrize("masks", ["none", "language"])
@every_learned
def test_the_gradient_is_that_of_the_total(implementation: Any, name: str, masks: str) -> None:
    """Along a random direction of all parameters, a finite difference of the total agrees with the gradient."""
    editor = make_felt(implementation, name, setting("bert"), masks)
    perturb(implementation, editor)
    triples = [make_triple("bert", np.random.default_rng(42)) for _ in range(2)]
    _, gradient = implementation.losses(editor, triples, seed=3)
    generator = torch.Generator().manual_seed(43)
    live = implementation.parameters(editor)
    direction = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64).to(v) for n, v in live.items()}
    # Gates have kinks at 0 and 1, which a small step rarely meets.
    step = 1e-6
    ends = []
    for sign in (1, -1):
        _move(live, direction, sign * step)
        ends.append(implementation.losses(editor, triples, seed=3)[0]["total"])
        _move(live, direction, -sign * step)
    slope = (ends[0] - ends[1]) / (2 * step)
    expected = sum(float((one * direction[own]).sum()) for own, one in gradient.items() if one is not None)
    assert slope == pytest.approx(expected, rel=1e-3)


@torch.no_grad()
def _move(live: dict[str, torch.Tensor], direction: dict[str, torch.Tensor], step: float) -> None:
    for name, value in live.items():
        value.add_(step * direction[name])


# --- L4 ---------------------------------------------------------------------------------------------------------------


@clause("L4")
@both
@given(batch=batches(), columns=st.integers(1, 3), filler=st.sampled_from([0.0, -50.0, 50.0]))
def test_padding_does_not_change_a_loss(
    implementation: Any, loss: Callable[..., Any], batch: Batch, columns: int, filler: float
) -> None:
    """Further positions that the mask leaves out change neither a loss nor a gradient, and have gradient 0."""
    size, _, classes = batch.edited.shape
    extra = torch.full((size, columns, classes), filler, dtype=torch.float64)
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
    assert found == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert_close(padded_gradient[:, :-columns], gradient, "gradient", rtol=1e-9, atol=1e-12)
    assert not padded_gradient[:, -columns:].any(), "a padded position has a gradient"


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
    assert value == pytest.approx(np.mean([one for one, _ in alone]), rel=1e-9, abs=1e-12)
    expected = torch.cat([slope for _, slope in alone]) / len(rows)
    assert_close(gradient, expected, "gradient", rtol=1e-9, atol=1e-12)


@clause("L4")
@needs("E")
@every_model
@every_learned
def test_a_batch_trains_as_its_examples_do(implementation: Any, name: str, kind: str) -> None:
    """Without gates to draw, the objective of a batch and its gradient are the means over its examples."""
    editor = make_felt(implementation, name, setting(kind))
    perturb(implementation, editor)
    rng = np.random.default_rng(44)
    triples = [make_triple(kind, rng) for _ in range(4)]
    parts, gradient = implementation.losses(editor, triples, seed=0)
    alone = [implementation.losses(editor, [triple], seed=0) for triple in triples]
    for part in ("rel", "loc", "total"):
        assert parts[part] == pytest.approx(np.mean([one[part] for one, _ in alone]), rel=1e-6), part
    for own, found in gradient.items():
        expected = torch.stack([slopes[own] for _, slopes in alone]).mean(0)
        assert_close(found, expected, own, rtol=1e-5, atol=1e-7 * float(expected.abs().max()))
