"""Training steps: edits per second of each editor, beside one edit at a time, and what LiME's masks cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from lime_editing.core.editing import Editor, Objective, edit_batch, training_losses, uniforms_of
from lime_editing.core.training import adam, train_step
from lime_editing.records import Triple
from perf import counting, setting
from perf.conftest import Machine
from spec_tests.adapters import textbook

#: What a cuDNN LSTM says of parameters that are kept one by one.
pytestmark = pytest.mark.filterwarnings("ignore:RNN module weights:UserWarning")
#: As many languages as the data have.
SPOKEN = {"facts": setting.LANGUAGES, "nli": setting.LANGUAGES[:15]}


def step_of(editor: Editor, triples: list[Triple]) -> Callable[[], object]:
    """One step of the real loop; the learning rates are the paper's, so that it may be repeated."""
    return partial(train_step, editor, adam(editor), triples, 0, Objective(), 1.0)


def check_step(machine: Machine, editor: Editor, triples: list[Triple]) -> None:
    """Loss and gradient of every parameter are those of the whole model with W + ΔW, one input at a time."""
    settings, live = Objective(lambda_mask=0.0), list(editor.parameters.values())
    with machine.computing():
        total = training_losses(editor, triples, 0, settings)["total"]
        gradients = torch.autograd.grad(total, live, allow_unused=True)
    requests = [triple.edit for triple in triples]
    # `edit` gives values; here the edit is differentiated as well.
    edits = edit_batch(editor, requests, uniforms=uniforms_of(editor, len(requests), 0))
    update = editor.method.update(editor.parameters, editor.settings, edits)
    dense = setting.dense_objective(editor.backbone, triples, update)
    machine.close(total, dense)
    for gradient, expected in zip(gradients, torch.autograd.grad(dense, live, allow_unused=True), strict=True):
        assert (gradient is None) == (expected is None)
        if gradient is not None and expected is not None:
            machine.close(gradient, expected, scale=10)


def measure_step(
    measure: Callable[..., None], machine: Machine, editor: str, task: str, size_name: str, batch: int, way: str
) -> None:
    size, lengths = setting.size_of(size_name, task), setting.LENGTHS[task]
    backbone = machine.backbone(size)
    triples = setting.random_triples(size, lengths, batch)
    group = f"training: {editor}, {task}, {size_name}, batch of {batch}"
    if way == "textbook":
        if machine.device != "cpu":
            pytest.skip("the textbook implementation runs on a CPU alone")
        plain = [setting.plain_triple(triple) for triple in triples]
        theirs = textbook.make_editor(editor, backbone.model, backbone.edited, setting.LANGUAGES)
        textbook.train_step(theirs, plain[:1], 0)
        need = counting.training(editor, setting.textbook_size(size), lengths)
        measure(lambda: textbook.train_step(theirs, plain, 0), group, batch, need, way=way, rounds=1)
        return
    made = setting.editor_of(editor, size, backbone)
    check_step(machine, made, triples[:2])
    trained = sum(parameter.numel() for parameter in made.parameters.values())
    traffic = counting.adam_bytes(trained)
    need = counting.training(editor, size, lengths)
    measure(step_of(made, triples), group, batch, need, traffic, paper_edits=500_000 if size_name == "mbert" else 0)


@pytest.mark.parametrize("way", ["reference", "textbook"])
@pytest.mark.parametrize("task", ["facts", "nli"])
@pytest.mark.parametrize("editor", setting.LEARNED)
def test_step(
    measure: Callable[..., None], machine: Machine, editor: str, task: str, size_name: str, batch: int, way: str
) -> None:
    """One optimiser step on a batch: edit, both losses, the gradient of the editor, Adam."""
    if way == "textbook" and batch != 10:
        pytest.skip("one edit at a time costs the same in any batch")
    measure_step(measure, machine, editor, task, size_name, batch, way)


@pytest.mark.quick
def test_step_of_mend_at_the_size_of_mbert(measure: Callable[..., None], machine: Machine) -> None:
    """Of all that --whole measures at this size, the one figure that stands for the others."""
    measure_step(measure, machine, "mend", "facts", "mbert", 10, "reference")


@pytest.mark.parametrize(
    ("size_name", "editor", "task"),
    [
        pytest.param("small", "mend", "facts", marks=pytest.mark.quick),
        *(pytest.param("mbert", editor, "facts", marks=pytest.mark.whole) for editor in setting.LEARNED),
        pytest.param("mbert", "mend", "nli", marks=pytest.mark.whole),
    ],
)
def test_masks(measure: Callable[..., None], machine: Machine, size_name: str, editor: str, task: str) -> None:
    """LiME: what masks for 53 and 15 languages add to a step, from steps with and without them in turn."""
    size, lengths = setting.size_of(size_name, task), setting.LENGTHS[task]
    backbone, batch = machine.backbone(size), 10 if machine.device == "cpu" else 512
    triples = setting.random_triples(size, lengths, batch)
    triples = [t for t in triples if t.edit.language in SPOKEN[task]]
    base = step_of(setting.editor_of(editor, size, backbone, languages=SPOKEN[task]), triples)
    lime = setting.editor_of(editor, size, backbone, "language", SPOKEN[task])
    check_step(machine, lime, triples[:2])
    masked = step_of(lime, triples)
    pairs = 31 if size_name == "small" or machine.device == "cuda" else 25 if task == "facts" else 9
    ratio, low, high = machine.paired(base, masked, pairs)
    trained = sum(parameter.numel() for parameter in lime.parameters.values())
    measure(
        masked,
        f"training with masks: {editor}, {task}, {size_name}, batch of {batch}",
        len(triples),
        counting.training(editor, size, lengths),
        counting.adam_bytes(trained),
        notes=f"masks cost {ratio - 1:+.1%} of a step, 95% of {low - 1:+.1%} to {high - 1:+.1%} ({pairs} pairs)",
        masks_cost=[ratio - 1, low - 1, high - 1],
    )


@pytest.mark.parametrize("task", ["facts", "nli"])
@pytest.mark.parametrize("editor", setting.LEARNED)
def test_a_gpus_benchmark_in_small(editor: str, task: str) -> None:
    """What is measured on a GPU, in bf16, runs at tiny size on a CPU: the check of a step, and the step."""
    asked = []

    def once(run: Callable[[], object], group: str, edits: int, *needs: float, **extra: object) -> None:
        with machine.computing():
            run()
        asked.append((group, edits))

    machine = Machine("cpu", "bf16")
    measure_step(once, machine, editor, task, "tiny", 3, "reference")
    assert asked == [(f"training: {editor}, {task}, tiny, batch of 3", 3)]
    assert machine.backbone(setting.size_of("tiny", task)).precision == "bf16"
