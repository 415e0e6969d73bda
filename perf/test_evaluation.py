"""Evaluation: edits per second, each judged on one update and four retain inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lime_editing.editing import Editor, edit
from lime_editing.evaluation import evaluate
from lime_editing.sampling import Pair, evaluation_pairs
from lime_editing.types import EditRequest, Input
from perf import counting, setting
from perf.conftest import Machine
from spec_tests.adapters import textbook

EDITS, RETAINS = 10, 4
pytestmark = pytest.mark.filterwarnings("ignore:RNN module weights:UserWarning")


def asked(task: setting.RandomTask, pair: Pair) -> tuple[EditRequest, list[Input]]:
    """The request, and the inputs that it is judged on."""
    request = task.request(pair.edit, setting.NO_RNG)
    updates = [task.update_input(example, pair.edit, request) for example in pair.update]
    return request, updates + [task.retain_input(example, setting.NO_RNG) for example in pair.retain]


@torch.no_grad()
def check_outcomes(machine: Machine, editor: Editor, task: setting.RandomTask, pairs: list[Pair]) -> None:
    """What hits is what hits in the whole model with W + ΔW, one input at a time."""
    found = [(o.role, o.hit) for o in evaluate(editor, task, pairs, 0)]
    expected = []
    for pair in pairs:
        request, inputs = asked(task, pair)
        deltas = edit(editor, [request]).dense(0)
        for i, one in enumerate(inputs):
            after, before = (setting.dense_logits(editor.backbone, one, d).argmax(-1).tolist() for d in (deltas, {}))
            wanted = before if i else list(request.labels)
            expected.append(("retain" if i else "update", after == wanted))
    assert found == expected


@torch.no_grad()
def textbook_evaluation(editor: Any, requests: list[Any], inputs: list[list[Any]]) -> None:
    edits = textbook.edit(editor, requests)
    for i, rows in enumerate(inputs):
        textbook.edited_logits(editor, edits, i, rows)
        textbook.raw_logits(editor, rows[1:])


@pytest.mark.parametrize("way", ["reference", "textbook"])
@pytest.mark.parametrize("task_name", ["facts", "nli"])
@pytest.mark.parametrize("editor", setting.LEARNED)
def test_evaluation(
    measure: Callable[..., None], machine: Machine, editor: str, task_name: str, size_name: str, way: str
) -> None:
    """All of it: trunk, raw predictions, edits, edited predictions."""
    size, lengths = setting.size_of(size_name, task_name), setting.LENGTHS[task_name]
    edits = EDITS if machine.device == "cpu" else 256
    backbone = setting.backbone_of(size, machine.device)
    task = setting.RandomTask(size, lengths, edits)
    languages = task.corpus.languages
    pairs = evaluation_pairs(task.corpus, languages, languages, 1, RETAINS, 0, edits)
    group = f"evaluation: {editor}, {task_name}, {size_name}, {edits} edits"
    judged = [lengths[1]] + [lengths[2]] * RETAINS
    if way == "textbook":
        if machine.device != "cpu":
            pytest.skip("the textbook implementation runs on a CPU alone")
        theirs = textbook.make_editor(editor, backbone.model, backbone.edited, languages)
        plain = [asked(task, pair) for pair in pairs]
        requests = [setting.plain_request(request) for request, _ in plain]
        inputs = [[setting.plain_input(one) for one in row] for _, row in plain]
        textbook_evaluation(theirs, requests[:1], inputs[:1])
        small = setting.textbook_size(size)
        need = counting.preparing(small, lengths[0], judged) + counting.judging(editor, small, lengths[0], judged)
        measure(lambda: textbook_evaluation(theirs, requests, inputs), group, edits, need, way=way, rounds=1)
        return
    made = setting.editor_of(editor, size, backbone, languages=languages)
    if machine.precision == "fp32":  # others round other predictions to the top
        check_outcomes(machine, made, task, pairs[:3])
    need = counting.preparing(size, lengths[0], judged) + counting.judging(editor, size, lengths[0], judged)
    measure(lambda: evaluate(made, task, pairs, 0, batch=edits), group, edits, need)
