"""A step in few operations: the same numbers as in many, in any shape, read by nobody until they are asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from lime_editing.core import graphs, masks, training
from lime_editing.core.backbone import Backbone, Sent, capture, quick, states_at, wrap
from lime_editing.core.backbone.arrays import Bucket, places_of, rows_of
from lime_editing.core.editing import Editor, Objective, batch_of, make_editor, uniforms_of
from lime_editing.core.editors import knowledge_editor, mend
from lime_editing.core.losses import rel_loss
from lime_editing.core.records import EditRequest, Input, Triple
from lime_editing.core.training import Layout, computed, gradients, train_step

SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
MODELS: dict[str, Callable[[], Any]] = {
    "bert": lambda: BertForMaskedLM(BertConfig(**SMALL)),
    "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**SMALL, pad_token_id=1)),
    "bert-classes": lambda: BertForSequenceClassification(BertConfig(**SMALL, num_labels=3)),
    "xlm-r-classes": lambda: XLMRobertaForSequenceClassification(
        XLMRobertaConfig(**SMALL, pad_token_id=1, num_labels=3)
    ),
}
LEARNED = ("mend", "editable_training", "knowledge_editor")
LANGUAGES = ("de", "en", "fr")
SETTINGS = {
    "mend": mend.Settings(rank=8, inner_lr=0.1),
    "knowledge_editor": knowledge_editor.Settings(lstm=6, hidden=5),
}


@cache
def backbone(model: str, layers: int = 2) -> Backbone:
    torch.manual_seed(0)
    made = MODELS[model]()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    return wrap(made.eval().requires_grad_(False), layers)


def editor(name: str, model: str, kind: Any = "language") -> Editor:
    made = make_editor(name, backbone(model), LANGUAGES, kind, settings=SETTINGS.get(name))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in made.parameters.values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return made


def one_input(rng: np.random.Generator, classes: bool, positions: int | None = None) -> Input:
    length = int(rng.integers(3, 20))
    ids = tuple(int(i) for i in rng.integers(5, 60, length))
    if classes:
        return Input(ids, (0,), (0,) * 2 + (1,) * (length - 2) if rng.random() < 0.5 else ())
    count = int(rng.integers(1, min(5, length))) if positions is None else positions
    chosen = rng.choice(max(length, count), count, replace=False)
    ids += (7,) * (max(length, count) - length)
    return Input(ids, tuple(int(i) for i in sorted(chosen)))


def triples(model: str, count: int, seed: int = 0) -> list[Triple]:
    """Inputs of very different lengths and numbers of predicted positions."""
    rng, classes, found = np.random.default_rng(seed), "classes" in model, []
    for i in range(count):
        x = one_input(rng, classes)
        labels = tuple(int(y) for y in rng.integers(0, 3 if classes else 60, len(x.positions)))
        request = EditRequest(x, labels, LANGUAGES[i % 3])
        found.append(Triple(request, one_input(rng, classes, len(labels)), one_input(rng, classes)))
    return found


class NoReads(TorchDispatchMode):
    """An operation that would make the host wait for a GPU, or copy something there, is an error."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "lift_fresh", "_unique2", "repeat_interleave")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(i, Tensor) and i.dtype == torch.bool
            for i in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        assert name not in self.READS, name
        assert not by_mask, name
        return func(*args, **(kwargs or {}))


def close(found: Sequence[Tensor | None], expected: Sequence[Tensor | None], tolerance: float = 2e-5) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert (a - b).norm() <= tolerance * max(float(b.norm()), 1e-3), (a - b).norm() / b.norm()


@pytest.mark.parametrize("kind", ["none", "language", "shared"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", LEARNED)
def test_a_step_of_fixed_shape_gives_the_same_and_reads_nothing(
    name: str, model: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses and gradients of a filled-up batch are those of the batch; what a GPU computes never waits for the host."""
    made, batch = editor(name, model, kind), triples(model, 5)
    drawn = uniforms_of(made, 5, seed=3)
    exact = computed(made, Objective(), batch_of(made, batch, drawn).on(torch.device("cpu")))
    monkeypatch.setattr(mend, "leaves_out", lambda rows: False)
    sent = batch_of(made, batch, drawn, fixed=True)
    fixed = sent.on(torch.device("cpu"))
    with NoReads():
        found = computed(made, Objective(), fixed)
    close(found, exact)
    expected = gradients(made, batch, 3, Objective())
    assert found[0] is not None
    assert found[0].tolist() == pytest.approx(list(expected.values()), rel=1e-5, abs=1e-7)
