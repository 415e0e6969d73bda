"""How cost grows: of LiME's masks with h and |L|, of a training step with batch, tokens and edited layers.

The fitted slopes stand below the tables. A slope of 1 is linear growth; in small cases what costs the same at any size
outweighs the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from lime_editing.core import masks as lime
from perf import counting, setting
from perf.conftest import Machine
from perf.counting import FACTS, Lengths, Seen, Size
from perf.test_training import check_step, step_of


@pytest.mark.parametrize("languages", [1, 15, 53, 100])
@pytest.mark.parametrize("h", [256, 512, 768, 1024])
def test_masks(measure: Callable[..., None], machine: Machine, h: int, languages: int) -> None:
    """The masks of six matrices on the factors of ten edits, their penalty, and both gradients: O(h·|L|) numbers."""
    edits, tokens = 10, FACTS[0].tokens
    shapes = {f"w{i}": (h, 4 * h) if i % 2 else (4 * h, h) for i in range(6)}
    parameters = lime.init_masks(shapes, languages, like=torch.zeros((), device=machine.device))
    for parameter in parameters.values():
        parameter.requires_grad_()
    rows = torch.tensor([i % languages for i in range(edits)], device=machine.device)
    factors = {
        name: tuple(torch.randn(edits, tokens, width, device=machine.device) for width in widths)
        for name, widths in shapes.items()
    }
    draws = lime.draw_uniforms(parameters, edits, 0).to(machine.device)

    def run() -> None:
        log_alphas = lime.side_by_side(parameters)
        masked = lime.masked(factors, lime.gate(torch.nn.functional.embedding(rows, log_alphas), draws))
        total = torch.stack([part.sum() for pair in masked.values() for part in pair]).sum() + lime.penalty(log_alphas)
        torch.autograd.grad(total, list(parameters.values()))

    # Masking the factors masks their product (clause A8).
    x, delta = lime.masked(factors, lime.gate(lime.side_by_side(parameters, rows)))["w0"]
    gates = [1 + lime.gate(parameters[f"mask.w0.{part}"][rows[0]]) for part in ("x", "delta")]
    plain = factors["w0"][1][0].mT @ factors["w0"][0][0]
    machine.close(delta[0].mT @ x[0], torch.outer(gates[1], gates[0]) * plain)
    numbers = sum(parameter.numel() for parameter in parameters.values())
    assert numbers == 30 * h * languages
    measure(run, "masks of a step", edits, axes={"h": h, "languages": languages}, numbers=numbers, seconds=0.2)


def measure_step(
    measure: Callable[..., None], machine: Machine, size: Size, lengths: Lengths, batch: int, group: str, axis: str
) -> None:
    """A training step of MEND, checked on one edit."""
    editor = setting.editor_of("mend", size, machine.backbone(size))
    triples = setting.random_triples(size, lengths, batch)
    check_step(machine, editor, triples[:1])
    values = {"edits": batch, "tokens": lengths[0].tokens, "layers": size.edited}
    traffic = counting.adam_bytes(sum(parameter.numel() for parameter in editor.parameters.values()))
    need = counting.training("mend", size, lengths)
    measure(step_of(editor, triples), group, batch, need, traffic, axes={axis: values[axis]})


@pytest.mark.parametrize("batch", [1, 4, 16, 64, pytest.param(256, marks=pytest.mark.whole)])
def test_batch(measure: Callable[..., None], machine: Machine, size_name: str, batch: int) -> None:
    """The cost per edit falls until the products are as fast as they get."""
    if size_name == "mbert" and batch > 64 and machine.device == "cpu":
        pytest.skip("a step of 256 edits at mBERT size takes a CPU about a minute")
    size = setting.size_of(size_name)
    measure_step(measure, machine, size, FACTS, batch, f"training step of MEND over the batch, {size_name}", "edits")


@pytest.mark.parametrize("tokens", [8, 32, pytest.param(128, marks=pytest.mark.whole)])
def test_tokens(measure: Callable[..., None], machine: Machine, size_name: str, tokens: int) -> None:
    """Inputs of one length; a transform's rows grow with it, a head's do not."""
    size, lengths = setting.size_of(size_name), (Seen(tokens),) * 3
    measure_step(measure, machine, size, lengths, 4, f"training step of MEND over the tokens, {size_name}", "tokens")


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_edited_layers(measure: Callable[..., None], machine: Machine, size_name: str, layers: int) -> None:
    """What is edited is run three times as often as the trunk, and has a backward pass."""
    size = replace(setting.size_of(size_name), edited=layers)
    measure_step(measure, machine, size, FACTS, 10, f"training step of MEND over edited layers, {size_name}", "layers")
