"""The rank-1 core against the full-size gradient: capture, apply, and a whole training step.

    pytest perf/ --benchmark-only

Groups put the two ways of computing one thing side by side, so that the ratio is read off one table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from lime_editing.backbone import Backbone, wrap
from lime_editing.editing import Objective, edit, edit_factors, make_editor, objective
from lime_editing.editors import mend
from lime_editing.losses import rel_loss
from lime_editing.types import EditRequest, Input, Triple

EDITS, TOKENS, WIDTH, INNER = 16, 12, 256, 1024


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A random BERT between the fixture's and mBERT's size."""
    config = BertConfig(
        vocab_size=2000, hidden_size=WIDTH, num_hidden_layers=4, num_attention_heads=4, intermediate_size=INNER
    )
    model = BertForMaskedLM(config).eval().requires_grad_(False)
    return wrap(model, 3)


@pytest.fixture(scope="module")
def requests() -> list[EditRequest]:
    ids = torch.randint(5, 2000, (EDITS, TOKENS)).tolist()
    return [EditRequest(Input(tuple(row), (TOKENS - 3,)), (row[0],), "en") for row in ids]


def dense_gradients(backbone: Backbone, requests: list[EditRequest]) -> list[dict[str, Tensor]]:
    """∇_W per edit by autograd on the weights, one edit at a time: the obvious way."""
    weights = {name: linear.weight for name, linear in backbone.linears.items()}
    gradients = []
    for weight in weights.values():
        weight.requires_grad_()
    for request in requests:
        states = backbone.trunk([request.input])
        loss = rel_loss(backbone.upper(states), torch.tensor(request.labels), states.example).sum()
        gradients.append(dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True)))
    for weight in weights.values():
        weight.requires_grad_(False)
    return gradients


@pytest.mark.benchmark(group="gradient of 16 edits")
@pytest.mark.parametrize("way", ["factors", "full"])
def test_gradient(benchmark: BenchmarkFixture, backbone: Backbone, requests: list[EditRequest], way: str) -> None:
    """x and δ of all edits from one backward pass, against one dense gradient for each edit."""
    editor = make_editor("mend", backbone, ["en"], settings=mend.Settings(rank=8))
    factored: Callable[[], object] = partial(edit_factors, editor, requests)
    benchmark(factored if way == "factors" else partial(dense_gradients, backbone, requests))
    factors = edit_factors(editor, requests)
    for i, gradient in enumerate(dense_gradients(backbone, requests)):
        for name, (x, delta) in factors.items():
            torch.testing.assert_close(delta[i].mT @ x[i], gradient[name], atol=1e-6, rtol=1e-3)


@pytest.mark.benchmark(group="apply 16 updates to 24 tokens each")
@pytest.mark.parametrize("way", ["factors", "full"])
def test_apply(benchmark: BenchmarkFixture, way: str) -> None:
    """Vᵀ(U·h) in two batched products, against h times a materialised ΔW."""
    h = torch.randn(EDITS, 2 * TOKENS, WIDTH)
    u, v = torch.randn(EDITS, TOKENS, WIDTH), torch.randn(EDITS, TOKENS, INNER)

    def factored() -> Tensor:
        return h @ u.mT @ v

    def full() -> Tensor:
        return h @ (v.mT @ u).mT

    benchmark(factored if way == "factors" else full)
    torch.testing.assert_close(factored(), full(), atol=1e-2, rtol=1e-3)


@pytest.mark.benchmark(group="training step of 16 edits")
@pytest.mark.parametrize("masks", ["none", "language"])
def test_training_step(
    benchmark: BenchmarkFixture, backbone: Backbone, requests: list[EditRequest], masks: str
) -> None:
    """Edit, both losses and the gradient of the editor, without and with language-specific masks."""
    editor = make_editor("mend", backbone, ["en"], masks, settings=mend.Settings(rank=64))  # type: ignore[arg-type]
    triples = [Triple(r, r.input, Input(r.input.ids[::-1], (2,))) for r in requests]
    parameters = list(editor.parameters.values())

    def step() -> tuple[Tensor, ...]:
        total = objective(editor, triples, 0, Objective())["total"]
        return torch.autograd.grad(total, parameters)

    gradients = benchmark(step)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert len(edit(editor, requests)) == EDITS
