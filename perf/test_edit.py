"""How long one edit takes, and one of a batch, for each editor, beside an implementation that makes one at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from lime_editing.core.editing import Editor, edit
from lime_editing.records import EditRequest
from perf import counting, setting
from perf.conftest import Machine
from perf.counting import FACTS
from spec_tests.adapters import textbook

pytestmark = pytest.mark.filterwarnings("ignore:RNN module weights:UserWarning")
#: Of finetuning, which takes a hundred.
STEPS = 3


@pytest.mark.parametrize("way", ["reference", "textbook"])
@pytest.mark.parametrize("edits", [1, 10])
@pytest.mark.parametrize("editor", setting.EDITORS)
def test_edit(
    measure: Callable[..., None],
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    size_name: str,
    editor: str,
    edits: int,
    way: str,
) -> None:
    """From tokens to an update; finetuning takes three inner steps."""
    size = setting.size_of(size_name)
    backbone = machine.backbone(size)
    requests = [triple.edit for triple in setting.random_triples(size, FACTS, edits)]
    named = f"{editor}, {STEPS} steps" if editor == "finetuning" else editor
    group = f"edit: {named}, {'one' if edits == 1 else f'batch of {edits}'}, facts, {size_name}"
    if editor == "finetuning" and machine.precision == "bf16":
        pytest.skip("finetuning keeps its moments in float32, and bf16 autocast gives it other gradients")
    if way == "textbook":
        if machine.device != "cpu":
            pytest.skip("the textbook implementation runs on a CPU alone")
        monkeypatch.setattr(textbook, "STEPS", STEPS)
        plain = [setting.plain_request(request) for request in requests]
        theirs = textbook.make_editor(editor, backbone.model, backbone.edited, setting.LANGUAGES)
        textbook.edit(theirs, plain[:1])
        need = counting.single_edit(editor, setting.textbook_size(size), FACTS[0], STEPS)
        measure(lambda: textbook.edit(theirs, plain), group, edits, need, way=way, rounds=1)
        return
    if editor == "finetuning":
        made = setting.finetuner_of(backbone, STEPS)
        check_finetuning(machine, made, requests[0])
    else:
        made = setting.editor_of(editor, size, backbone)
        check_edit(machine, made, requests)
    need = counting.single_edit(editor, size, FACTS[0], STEPS)
    traffic = edits * counting.finetuning_bytes(size, STEPS) if editor == "finetuning" else 0
    measure(torch.no_grad()(partial(edit, made, requests)), group, edits, need, traffic)


def check_edit(machine: Machine, editor: Editor, requests: list[EditRequest]) -> None:
    """An edit of a batch equals the same edit alone, and the edited layers under it the model with W + ΔW."""
    with torch.no_grad(), machine.computing():
        raw, update, alone = editor.backbone.raw, edit(editor, requests), edit(editor, requests[-1:])
        under = editor.backbone.upper(editor.backbone.trunk([requests[-1].input]), alone)
        in_batch, deltas = update.dense(len(requests) - 1, raw), alone.dense(0, raw)
    for name, delta in deltas.items():
        machine.close(in_batch[name], delta, scale=10)
    machine.close(under, setting.dense_logits(editor.backbone, requests[-1].input, deltas))


def check_finetuning(machine: Machine, editor: Editor, request: EditRequest) -> None:
    """The change of the logits is that of torch's Adam on the matrices; entries of ΔW without gradient are noise."""
    backbone, settings = editor.backbone, editor.settings
    with torch.no_grad():
        ours = edit(editor, [request]).dense(0)
    theirs = setting.dense_finetuning(backbone, request, settings.steps, settings.lr)
    raw, one, other = (setting.dense_logits(backbone, request.input, deltas) for deltas in ({}, ours, theirs))
    machine.close(one - raw, other - raw, scale=100)
