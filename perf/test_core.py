"""The rank-1 core against the full-size gradient: capture, transform, apply."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from lime_editing.core.editing import edit, edit_factors
from lime_editing.editors import mend
from perf import counting, setting
from perf.conftest import Machine
from perf.counting import FACTS

EDITS = 10


@pytest.mark.parametrize("way", ["reference", "full"])
def test_gradient(measure: Callable[..., None], machine: Machine, size_name: str, way: str) -> None:
    """x and δ of all edits from one backward pass, against one dense gradient for each edit."""
    size = setting.size_of(size_name)
    backbone = machine.backbone(size)
    editor = setting.editor_of("mend", size, backbone)
    requests = [triple.edit for triple in setting.random_triples(size, FACTS, EDITS)]
    with machine.computing():
        factors = edit_factors(editor, requests[:2])
    for i, request in enumerate(requests[:2]):
        for name, gradient in setting.dense_gradient(backbone, request).items():
            x, delta = factors[name]
            machine.close(delta[i].mT.float() @ x[i].float(), gradient)
    ways: dict[str, Callable[[], Any]] = {
        "reference": lambda: edit_factors(editor, requests),
        "full": lambda: [setting.dense_gradient(backbone, request) for request in requests],
    }
    need = counting.trunk(size, FACTS[0]) + counting.gradient(size, FACTS[0])
    measure(ways[way], f"gradient of {EDITS} edits, facts, {size_name}", EDITS, need, way=way)


@pytest.mark.parametrize("way", ["reference", "backward"])
def test_transform(measure: Callable[..., None], machine: Machine, size_name: str, way: str) -> None:
    """MEND's transform of the rows of one matrix for all edits; and with the gradient of its parameters."""
    size = setting.size_of(size_name)
    n, m, rows = size.hidden, size.inner, FACTS[0].tokens
    parameters = mend.init({"w": torch.zeros(m, n, device=machine.device)}, n, mend.Settings(size.rank), 0)
    for parameter in parameters.values():
        parameter.requires_grad_()
    x, delta = (torch.randn(EDITS * rows, width, device=machine.device) for width in (n, m))
    # It starts as the identity on normalised rows.
    with torch.no_grad(), machine.computing():
        transformed = mend.transform(parameters, 0, x, delta)
    machine.close(transformed[0], torch.nn.functional.layer_norm(x, (n,)))

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        return mend.transform(parameters, 0, x, delta)

    def backward() -> None:
        own = [parameter for name, parameter in parameters.items() if name != "mend.log_inner_lr"]
        torch.autograd.grad(torch.stack([part.sum() for part in forward()]).sum(), own)

    per_row = counting.mend_transform(size, counting.Seen(1, 0)) / (2 * (size.edited - 1))
    need = rows * per_row * (1 if way == "reference" else 3)
    run = torch.no_grad()(forward) if way == "reference" else backward
    group = f"transform, {'forward' if way == 'reference' else 'and backward'}, {EDITS} edits, {size_name}"
    measure(run, group, EDITS, need)


@pytest.mark.parametrize("way", ["reference", "full", "raw"])
def test_apply(measure: Callable[..., None], machine: Machine, size_name: str, way: str) -> None:
    """The edited layers under an update of factors, against a materialised ΔW, and against no update."""
    size = setting.size_of(size_name)
    backbone = machine.backbone(size)
    editor = setting.editor_of("mend", size, backbone)
    triples = setting.random_triples(size, FACTS, EDITS)
    with torch.no_grad(), machine.computing():
        update = edit(editor, [triple.edit for triple in triples])
        states = backbone.trunk([triple.update for triple in triples])
        under = backbone.upper(states, update)
        deltas = {name: v.mT @ u for name, (u, v) in update.factors.items()}
    for i in range(2):
        one = {name: delta[i] for name, delta in deltas.items()}
        machine.close(under[i : i + 1], setting.dense_logits(backbone, triples[i].update, one))
    dense = type(update)(deltas=deltas)
    ways = {
        "reference": partial(backbone.upper, states, update),
        "full": partial(backbone.upper, states, dense),
        "raw": partial(backbone.upper, states),
    }
    need = counting.upper(size, FACTS[1])
    if way != "raw":
        need += counting.apply(size, FACTS[0], FACTS[1])
    run = torch.no_grad()(ways[way])
    measure(run, f"edited layers, one input under each of {EDITS} edits, {size_name}", EDITS, need, way=way)
