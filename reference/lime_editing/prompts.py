"""From text to what a model reads, and back: for whoever edits by hand rather than from a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from .backbone import Backbone
from .errors import ModelError, UserError
from .types import EditRequest, Input, Update

MASK = "[MASK]"  # as people write it, whatever the tokenizer calls it


def sentence(tokenizer: Any, text: str, count: int = 1) -> Input:
    """A masked sentence. A single [MASK] stands for `count` of them; several are left as they are written.

    UserError: no [MASK]. ModelError: a tokenizer without one.
    """
    mask = tokenizer.mask_token_id
    if mask is None:
        raise ModelError("the tokenizer has no mask token; a sentence needs a masked language model's tokenizer")
    ids = tuple(tokenizer(text.replace(MASK, tokenizer.mask_token))["input_ids"])
    if ids.count(mask) == 0:
        raise UserError(f"{text!r} has no {MASK}; write it where the answer goes")
    if ids.count(mask) == 1:
        at = ids.index(mask)
        ids = ids[:at] + (mask,) * count + ids[at + 1 :]
    return Input(ids, tuple(i for i, token in enumerate(ids) if token == mask))


def request(tokenizer: Any, text: str, to: str, language: str) -> EditRequest:
    """The wish that a masked sentence in `language` be answered with `to`; one [MASK] stands for the whole answer.

    UserError: no [MASK], more or fewer than the answer has tokens, or an answer that the tokenizer cannot spell.
    """
    labels = tuple(tokenizer(to, add_special_tokens=False)["input_ids"])
    if not labels or tokenizer.unk_token_id in labels or tokenizer.mask_token_id in labels:
        raise UserError(f"the tokenizer cannot spell the desired answer {to!r}; use words and letters that it knows")
    asked = sentence(tokenizer, text, len(labels))
    if len(asked.positions) != len(labels):
        raise UserError(
            f"{text!r} has {len(asked.positions)} {MASK}, and the answer {to!r} {len(labels)} "
            f"token{'s' if len(labels) > 1 else ''}; one {MASK} stands for as many as are needed"
        )
    return EditRequest(asked, labels, language)


def pair(tokenizer: Any, premise: str, hypothesis: str) -> Input:
    """Premise and hypothesis as one input of a classifier, as data/xnli.py makes them."""
    encoded = tokenizer(premise, hypothesis)
    types = encoded.get("token_type_ids", ())
    return Input(tuple(encoded["input_ids"]), (0,), tuple(types) if any(types) else ())


@torch.no_grad()
def predict(backbone: Backbone, inputs: Sequence[Input], update: Update | None = None) -> list[tuple[int, ...]]:
    """The token at each predicted position of each input, or its class: of the raw model, or under one edit."""
    if not inputs:
        return []
    best = backbone.upper(backbone.trunk(inputs), update).argmax(-1).tolist()
    ends = list(accumulate(len(i.positions) for i in inputs))
    return [tuple(best[end - len(i.positions) : end]) for i, end in zip(inputs, ends, strict=True)]


def answers(backbone: Backbone, tokenizer: Any, inputs: Sequence[Input], update: Update | None = None) -> list[str]:
    """`predict` in words."""
    return [spell(backbone, tokenizer, labels) for labels in predict(backbone, inputs, update)]


def spell(backbone: Backbone, tokenizer: Any, labels: Sequence[int]) -> str:
    """Tokens as text, or a class by its name."""
    if backbone.classifies:
        return str(backbone.model.config.id2label[labels[0]])
    return str(tokenizer.decode(list(labels)))
