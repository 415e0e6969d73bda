"""What is measured on: models with random weights, random inputs, and the dense computation that must agree."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from lime_editing.backbone import Backbone, wrap
from lime_editing.core.corpus import Example, ParallelCorpus
from lime_editing.core.editing import Editor, make_editor
from lime_editing.core.losses import loc_loss, rel_loss
from lime_editing.editors import finetuning, knowledge_editor, mend
from lime_editing.names import Masks, Precision
from lime_editing.records import EditRequest, Input, Triple
from lime_editing.updates import Update
from perf.counting import FACTS, PAIRS, Lengths, Seen, Size

EDITORS = ("mend", "editable_training", "knowledge_editor", "finetuning")
LEARNED = EDITORS[:3]
#: As many as mLAMA has.
LANGUAGES = tuple(f"l{i}" for i in range(53))
#: Ids below are left to special tokens.
FIRST_WORD = 5
#: For a RandomTask, which has its own.
NO_RNG = np.random.default_rng(0)

SIZES = {
    "tiny": Size(32, 64, 4, 2, 100, rank=16, lstm=8, network=8),
    "small": Size(256, 1024, 4, 4, 8000, rank=640, lstm=128, network=64),
    "mbert": Size(768, 3072, 12, 12, 119_547),
}
LENGTHS: dict[str, Lengths] = {"facts": FACTS, "nli": PAIRS}


def size_of(name: str, task: str = "facts") -> Size:
    """A size for facts; for NLI a classifier of the same body, whose vocabulary is small: nothing depends on it."""
    size = SIZES[name]
    return size if task == "facts" else replace(size, vocabulary=min(size.vocabulary, 2000), classes=3)


def textbook_size(size: Size) -> Size:
    """The same with the editors of spec_tests/adapters/textbook.py: MEND's rank is at most the smaller width of a
    matrix, and what KnowledgeEditor reads with is too small to be counted."""
    return replace(size, rank=min(size.rank, size.hidden, size.inner), lstm=0, network=0)


@functools.lru_cache(maxsize=3)
def backbone_of(size: Size, device: str = "cpu", precision: str = "fp32") -> Backbone:
    """A BERT with random weights, frozen, in evaluation mode; training and evaluation are in bf16 where it says so."""
    settings: dict[str, Any] = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.hidden,
        "intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
    }
    # Made where it belongs: a GPU draws a model of mBERT's size in a moment, a CPU in seconds.
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        if size.classes is None:
            model: Any = BertForMaskedLM(BertConfig(**settings))
        else:
            model = BertForSequenceClassification(BertConfig(**settings, num_labels=size.classes))
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # `wrap` compares logits to float32's rounding
    try:
        kind: Precision = "bf16" if precision == "bf16" else "float32"
        return wrap(model.to(device).eval().requires_grad_(False), size.edited, kind)
    finally:
        torch.set_float32_matmul_precision(products)


def editor_of(
    name: str, size: Size, backbone: Backbone, masks: Masks = "none", languages: Sequence[str] = LANGUAGES
) -> Editor:
    """An untrained editor, as large as the size says."""
    settings = {
        "mend": mend.Settings(rank=size.rank),
        "knowledge_editor": knowledge_editor.Settings(lstm=size.lstm, hidden=size.network),
    }
    return make_editor(name, backbone, languages, masks, settings=settings.get(name))


def finetuner_of(backbone: Backbone, steps: int) -> Editor:
    """Finetuning that stops after so many steps."""
    return make_editor("finetuning", backbone, LANGUAGES, settings=finetuning.Settings(steps=steps))


def random_input(size: Size, seen: Seen, rng: np.random.Generator) -> Input:
    """Masks shortly before the end of a sentence, where there is room, or [CLS] of a pair."""
    ids = tuple(int(i) for i in rng.integers(FIRST_WORD, size.vocabulary, seen.tokens))
    if size.classes is not None:
        half = seen.tokens // 2
        return Input(ids, (0,), (0,) * half + (1,) * (seen.tokens - half))
    first = max(0, seen.tokens - 2 - seen.positions)
    return Input(ids, tuple(range(first, first + seen.positions)))


def random_request(size: Size, seen: Seen, language: str, rng: np.random.Generator) -> EditRequest:
    """A desired prediction at random: in a large vocabulary no raw prediction, even after some steps of finetuning."""
    if size.classes is None:
        labels = rng.integers(FIRST_WORD, size.vocabulary, seen.positions)
    else:
        labels = rng.integers(size.classes, size=1)
    return EditRequest(random_input(size, seen, rng), tuple(int(i) for i in labels), language)


def random_triples(size: Size, lengths: Lengths, count: int, seed: int = 0) -> list[Triple]:
    """`count` triples in different languages."""
    rng = np.random.default_rng(seed)
    edit, update, retain = lengths
    return [
        Triple(
            random_request(size, edit, LANGUAGES[i % len(LANGUAGES)], rng),
            random_input(size, update, rng),
            random_input(size, retain, rng),
        )
        for i in range(count)
    ]


class RandomTask:
    """lime_editing.data.Task over random inputs: `facts` examples in every language."""

    def __init__(self, size: Size, lengths: Lengths, facts: int, languages: Sequence[str] = LANGUAGES[:5]) -> None:
        self.size, self.lengths, self.editable = size, lengths, None
        self.corpus = ParallelCorpus.of(
            Example(f"{fact:05}", language, f"{fact:05}/{language}") for fact in range(facts) for language in languages
        )

    def within(self, languages: Sequence[str]) -> RandomTask:
        """The same task, of these languages alone."""
        only = copy(self)
        only.corpus = self.corpus.within(languages)
        return only

    def request(self, edit: Example, rng: np.random.Generator) -> EditRequest:
        return random_request(self.size, self.lengths[0], edit.language, self._rng(edit))

    def update_input(self, update: Example, edit: Example, request: EditRequest) -> Input:
        return random_input(self.size, self.lengths[1], self._rng(update))

    def retain_input(self, retain: Example, rng: np.random.Generator) -> Input:
        return random_input(self.size, self.lengths[2], self._rng(retain))

    def _rng(self, example: Example) -> np.random.Generator:
        """The example's own generator, so that one needs not know who draws what and when."""
        return np.random.default_rng(self.corpus.index[example.id])


# The dense computation: one input at a time through the whole model, with W + ΔW in place of W


def dense_logits(backbone: Backbone, one: Input, deltas: dict[str, Tensor]) -> Tensor:
    """Logits (P, V) of the model itself."""
    device = backbone.like.device
    weights = {name: linear.weight + deltas[name] for name, linear in backbone.linears.items() if name in deltas}
    inputs = {"input_ids": torch.tensor([one.ids], device=device)}
    if one.types:
        inputs["token_type_ids"] = torch.tensor([one.types], device=device)
    logits: Tensor = functional_call(backbone.model, weights, kwargs=inputs).logits
    return logits if backbone.classifies else logits[0, list(one.positions)]


def dense_gradient(backbone: Backbone, request: EditRequest) -> dict[str, Tensor]:
    """∇_W by automatic differentiation with respect to the matrices."""
    deltas = {name: torch.zeros_like(linear.weight).requires_grad_() for name, linear in backbone.linears.items()}
    logits = dense_logits(backbone, request.input, deltas)
    loss = _mean_rel(logits, request)
    return dict(zip(deltas, torch.autograd.grad(loss, list(deltas.values())), strict=True))


def dense_objective(backbone: Backbone, triples: Sequence[Triple], update: Update) -> Tensor:
    """λ_rel·L_rel + λ_loc·L_loc under these edits (§B.2), without the penalty."""
    total = backbone.like.new_zeros(())
    for i, triple in enumerate(triples):
        deltas = update.dense(i, backbone.raw)
        total = total + 0.1 * _mean_rel(dense_logits(backbone, triple.update, deltas), triple.edit)
        raw, edited = (dense_logits(backbone, triple.retain, d) for d in ({}, deltas))
        total = total + loc_loss(edited, raw, raw.new_full((len(raw),), 1 / len(raw)))
    return total / len(triples)


def dense_finetuning(backbone: Backbone, request: EditRequest, steps: int, lr: float) -> dict[str, Tensor]:
    """ΔW after so many steps of torch's Adam."""
    deltas = {name: torch.zeros_like(linear.weight).requires_grad_() for name, linear in backbone.linears.items()}
    optimiser = torch.optim.Adam(list(deltas.values()), lr)
    for _ in range(steps):
        optimiser.zero_grad()
        _mean_rel(dense_logits(backbone, request.input, deltas), request).backward()
        optimiser.step()
    return {name: delta.detach() for name, delta in deltas.items()}


def _mean_rel(logits: Tensor, request: EditRequest) -> Tensor:
    labels = torch.tensor(request.labels, device=logits.device)
    return rel_loss(logits, labels, logits.new_full((len(labels),), 1 / len(labels)))


# The same things as plain data, for the one-edit-at-a-time implementation of the contract


def plain_input(one: Input) -> dict[str, Any]:
    return {"input_ids": list(one.ids), "positions": list(one.positions)}


def plain_request(request: EditRequest) -> dict[str, Any]:
    return {**plain_input(request.input), "labels": list(request.labels), "language": request.language}


def plain_triple(triple: Triple) -> dict[str, Any]:
    return {
        "edit": plain_request(triple.edit),
        "update": plain_input(triple.update),
        "retain": plain_input(triple.retain),
    }
