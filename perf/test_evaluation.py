"""Evaluation: edits per second, each judged on one update and four retain inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from lime_editing.backbone import Backbone
from lime_editing.core.editing import Editor, edit
from lime_editing.core.evaluation import batches, evaluate, judge
from lime_editing.core.sampling import Pair, evaluation_pairs
from lime_editing.records import EditRequest, Input
from perf import counting, setting
from perf.conftest import Machine
from perf.counting import Seen, Size
from spec_tests.adapters import textbook

RETAINS = 4
pytestmark = pytest.mark.filterwarnings("ignore:RNN module weights:UserWarning")


def asked(task: setting.RandomTask, pair: Pair) -> tuple[EditRequest, list[Input]]:
    """The request, and the inputs that it is judged on."""
    request = task.request(pair.edit, setting.NO_RNG)
    updates = [task.update_input(example, pair.edit, request) for example in pair.update]
    return request, updates + [task.retain_input(example, setting.NO_RNG) for example in pair.retain]


@torch.no_grad()
def check_outcomes(machine: Machine, editor: Editor, task: setting.RandomTask, pairs: list[Pair]) -> None:
    """What hits is what hits in the whole model with W + ΔW, one input at a time; the edits are made to show."""
    rates = [parameter for name, parameter in editor.parameters.items() if name.endswith("log_inner_lr")]
    for rate in rates:
        rate.add_(7.0)
    found = [(o.role, o.hit) for o in evaluate(editor, task, pairs, 0)]
    expected = []
    for pair in pairs:
        request, inputs = asked(task, pair)
        deltas = edit(editor, [request]).dense(0, editor.backbone.raw)
        for i, one in enumerate(inputs):
            after, before = (setting.dense_logits(editor.backbone, one, d).argmax(-1).tolist() for d in (deltas, {}))
            wanted = before if i else list(request.labels)
            expected.append(("retain" if i else "update", after == wanted))
    assert found == expected
    assert not rates or ("retain", False) in found
    for rate in rates:
        rate.sub_(7.0)


@torch.no_grad()
def textbook_evaluation(editor: Any, requests: list[Any], inputs: list[list[Any]]) -> None:
    edits = textbook.edit(editor, requests)
    for i, rows in enumerate(inputs):
        textbook.edited_logits(editor, edits, i, rows)
        textbook.raw_logits(editor, rows[1:])


@dataclass(frozen=True)
class World:
    """An evaluation to be made: what is asked of how large a model."""

    size: Size
    backbone: Backbone
    task: setting.RandomTask
    pairs: list[Pair]
    edit: Seen
    judged: list[Seen]


def world(machine: Machine, size_name: str, task_name: str, edits: int) -> World:
    size, lengths = setting.size_of(size_name, task_name), setting.LENGTHS[task_name]
    task = setting.RandomTask(size, lengths, edits)
    languages = task.corpus.languages
    pairs = evaluation_pairs(task.corpus, languages, languages, 1, RETAINS, 0, edits)
    judged = [lengths[1], *[lengths[2]] * RETAINS]
    return World(size, machine.backbone(size), task, pairs, lengths[0], judged)


@pytest.mark.parametrize("way", ["reference", "textbook"])
@pytest.mark.parametrize("task_name", ["facts", "nli"])
@pytest.mark.parametrize("editor", setting.LEARNED)
def test_evaluation(
    measure: Callable[..., None], machine: Machine, editor: str, task_name: str, size_name: str, batch: int, way: str
) -> None:
    """All of it: trunk, raw predictions, edits, edited predictions."""
    w = world(machine, size_name, task_name, batch)
    edits, languages = len(w.pairs), w.task.corpus.languages
    size = w.size if way == "reference" else setting.textbook_size(w.size)
    need = counting.preparing(size, w.edit, w.judged) + counting.judging(editor, size, w.edit, w.judged)
    group = f"evaluation: {editor}, {task_name}, {size_name}, {edits} edits"
    if way == "textbook":
        if machine.device != "cpu":
            pytest.skip("the textbook implementation runs on a CPU alone")
        if batch != 10:
            pytest.skip("one edit at a time costs the same in any batch")
        theirs = textbook.make_editor(editor, w.backbone.model, w.backbone.edited, languages)
        plain = [asked(w.task, pair) for pair in w.pairs]
        requests = [setting.plain_request(request) for request, _ in plain]
        inputs = [[setting.plain_input(one) for one in row] for _, row in plain]
        textbook_evaluation(theirs, requests[:1], inputs[:1])
        measure(lambda: textbook_evaluation(theirs, requests, inputs), group, edits, need, way=way, rounds=1)
        return
    made = setting.editor_of(editor, size, w.backbone, languages=languages)
    if machine.precision == "fp32":  # others round other predictions to the top
        check_outcomes(machine, made, w.task, w.pairs[:3])
    measure(lambda: evaluate(made, w.task, w.pairs, 0, batch=edits), group, edits, need)


@pytest.mark.parametrize("task_name", ["facts", pytest.param("nli", marks=pytest.mark.whole)])
@pytest.mark.parametrize("editor", setting.LEARNED)
def test_judging(
    measure: Callable[..., None], machine: Machine, editor: str, task_name: str, size_name: str, batch: int
) -> None:
    """What is left of it where trunk states and raw predictions are kept, as between the validations of a training."""
    w = world(machine, size_name, task_name, batch)
    edits = len(w.pairs)
    made = setting.editor_of(editor, w.size, w.backbone, languages=w.task.corpus.languages)
    with machine.computing():
        (prepared,) = batches(w.backbone, w.task, w.pairs, 0, edits)
        assert judge(made, prepared) == evaluate(made, w.task, w.pairs, 0, edits)
    need = counting.judging(editor, w.size, w.edit, w.judged)
    group = f"judging: {editor}, {task_name}, {size_name}, {edits} edits"
    measure(lambda: judge(made, prepared), group, edits, need)
