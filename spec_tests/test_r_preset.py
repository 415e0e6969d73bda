"""Chapter R, the preset in force: what an editor uses that was made without any value of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from .assertions import close, holds, near
from .conformance import Implementation, clause, each_of, every_learned, needs
from .editing import transformed, updates
from .stepping import Pieces, agree, batch, felt, norm, some, stands_out
from .test_a_masks import penalty
from .tiny import (
    Setting,
    cross_entropy,
    divergence,
    finetuned,
    gradients,
    located,
    logits_of,
    make,
    make_request,
    optimiser_of,
    outer_sum,
    rate,
    setting,
    step as take_step,
    with_update,
)

#: Of a mean over float64 values.
NEAR = 1e-5


@clause("R8")
@needs("E")
@pytest.mark.parametrize("masks", ["none", "language"])
@every_learned
def test_a_first_step_is_as_long_as_the_presets_learning_rate(
    implementation: Implementation, name: str, masks: str
) -> None:
    """Of the editor's own parameters and of its masks, where no learning rate is asked for."""
    preset, world = implementation.paper_preset(), setting("classifier")
    editor = felt(implementation, name, world, masks)
    pieces = Pieces(implementation, editor)
    triples, before = batch(world.kind, 95), pieces.copied(implementation, editor)
    _, gradient = implementation.losses(editor, triples, seed=1)
    take_step(implementation, editor, triples, seed=1)
    slopes = pieces.of(gradient)
    for own, value in pieces.copied(implementation, editor).items():
        slope = slopes[own]
        if slope is None or own in pieces.rates:
            continue
        seen = some(stands_out(slope, norm(gradient)))
        lr = preset["mask_lr"] if own in pieces.masks else preset[f"{name}_lr"]
        down = ((before[own] - value) * slope.sign())[seen] / lr
        if len(down):
            agree("R8", down, 1.0, f"the first step of {own}, over the preset's {lr}", editor=name, masks=masks)


@clause("R8")
@needs("E")
@each_of("mend", "editable_training")
def test_inner_rates_start_at_the_presets_value(implementation: Implementation, name: str) -> None:
    """The c of an untrained step -c Σ outer(δ̃, x̃), for each matrix."""
    wanted, world = implementation.paper_preset()[f"{name}_inner_lr"], setting("bert")
    editor = make(implementation, name, world)
    request = make_request("bert", np.random.default_rng(96), language="en")
    (update,) = updates(implementation, editor, [request])
    for matrix, found in update.items():
        close(
            "R8",
            _rate(implementation, editor, name, world, request, matrix, found) / wanted,
            1.0,
            f"inner rate of {matrix}, over the preset's {wanted}",
            1e-3,
            editor=name,
        )


def _rate(
    implementation: Any, editor: Any, name: str, world: Setting, request: Any, matrix: str, found: torch.Tensor
) -> float:
    if name == "editable_training":
        return rate(found, gradients(world.model, [matrix], request)[matrix])
    x, delta = implementation.capture(editor, request)[matrix]
    alive = delta.abs().sum(-1) > 0
    new = transformed(implementation, editor, matrix, x[alive], delta[alive], request["language"])
    return rate(found, outer_sum(*new).detach())


@clause("R8")
@needs("E")
@every_learned
def test_the_objective_weighs_its_parts_as_the_preset_does(implementation: Implementation, name: str) -> None:
    """λ_rel, λ_loc and λ_mask are what the reported parts are, over those of the predictions and of the gates."""
    preset, world = implementation.paper_preset(), setting("bert")
    triples = batch(world.kind, 97, 3)
    released = implementation.ruling("kl_direction") == "released"
    for masks in ("none", "language"):
        editor = felt(implementation, name, world, masks)
        gates = penalty(implementation, editor)[0] if masks == "language" else 0.0
        if masks == "none":
            rel, loc = [], []
            for triple, update in zip(
                triples, updates(implementation, editor, [t["edit"] for t in triples]), strict=True
            ):
                with torch.no_grad():
                    model = with_update(world.model, update)
                    answer = cross_entropy(logits_of(model, triple["update"]), triple["edit"]["labels"])
                    asked = located(implementation, world.kind, triple["retain"])
                    new, raw = (logits_of(one, asked) for one in (model, world.model))
                rel.append(float(answer))
                loc.append(float(divergence(raw, new) if released else divergence(new, raw)))
            wanted = {"rel": preset["lambda_rel"] * np.mean(rel), "loc": preset["lambda_loc"] * np.mean(loc)}
        else:
            wanted = {"mask": preset["lambda_mask"] * gates}
        reported = implementation.losses(editor, triples, seed=2)[0], implementation.train_step(editor, triples, seed=2)
        for who, parts in zip(("losses", "a training step"), reported, strict=True):
            for part, value in wanted.items():
                near = abs(parts[part] - value) <= NEAR * abs(value)
                holds("R8", near, f"{part} that {who} reports", expected=value, got=parts[part], editor=name)


@clause("R8", "E3")
@needs("E", "finetuning")
def test_finetuning_takes_the_presets_steps(implementation: Implementation) -> None:
    """At its learning rate, and as many as it has at most, where the desired prediction is far."""
    preset, world = implementation.paper_preset(), setting("classifier")
    request = make_request("classifier", np.random.default_rng(98))
    request["labels"] = logits_of(world.model, request).argmin(-1).tolist()
    limit = int(preset["finetuning_steps"])
    way = optimiser_of(implementation)
    path = finetuned(world.model, world.edited, request, lr=preset["finetuning_lr"], limit=limit, **way)
    editor = make(implementation, "finetuning", world)
    (update,) = updates(implementation, editor, [request])
    for matrix, found in update.items():
        expected = path[-1][matrix]
        near("R8", found, expected, f"{matrix} after {len(path) - 1} steps", "training")
