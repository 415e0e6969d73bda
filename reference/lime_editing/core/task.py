"""The interface between core and data: a parallel corpus, its examples as inputs, and text as inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np

from .. import checks
from ..errors import ModelError, UserError
from ..records import EditRequest, Input
from .corpus import Corpus, Example
from .sampling import Pair

Key = TypeVar("Key")
Value = TypeVar("Value")
REMEMBERED = 100_000  # tokenised inputs that a task keeps: enough for a test set; a training set may be larger
MASK = "[MASK]"  # as users write it; the tokenizer's mask token may differ


class Task(Protocol):
    """One split of a dataset, tokenised. It may have a method `ready` (see the function `ready`)."""

    @property
    def corpus(self) -> Corpus: ...

    @property
    def editable(self) -> frozenset[str] | None:
        """D_edit: the ids of the examples that may be edited; None for all."""

    def within(self, languages: Sequence[str]) -> Task:
        """The part of the split in these languages."""

    def request(self, edit: Example, rng: np.random.Generator) -> EditRequest:
        """x_e with a desired prediction y_e."""

    def update_input(self, update: Example, edit: Example, request: EditRequest) -> Input:
        """x_u, with as many predicted positions as y_e has labels."""

    def retain_input(self, retain: Example, rng: np.random.Generator) -> Input:
        """x_r."""


def ready(task: Task, pairs: Sequence[Pair]) -> None:
    """Tokenise all inputs of these pairs at once, if the task can. This changes no result."""
    own = getattr(task, "ready", None)
    if own is not None:
        own(pairs)


def with_parallels(task: Task, edit: Example, request: EditRequest) -> EditRequest:
    """The request with x_e in the task's other languages, for an editor that sees them."""
    others = [x for x in task.corpus.parallel(edit.id) if x.language != edit.language]
    return replace(request, parallels=tuple(task.update_input(x, edit, request) for x in others))


def remember(known: dict[Key, Value], key: Key, make: Callable[[], Value]) -> Value:
    """The cached value of a key. When the cache is full, the oldest entry is dropped."""
    if key not in known:
        if len(known) >= REMEMBERED:
            del known[next(iter(known))]
        known[key] = make()
    return known[key]


def tokens_of(tokenizer: Any, text: str) -> tuple[int, ...]:
    """The token ids of a sentence with [MASK]. ModelError: a tokenizer without a mask token."""
    checks.refuse(UserError, checks.of_tokenizer(tokenizer), checks.of_texts(text=text))
    if tokenizer.mask_token_id is None:
        raise ModelError("the tokenizer has no mask token; a sentence needs a masked language model's tokenizer")
    return tuple(tokenizer(text.replace(MASK, tokenizer.mask_token))["input_ids"])


def with_masks(ids: tuple[int, ...], mask: int, count: int) -> Input:
    """A sentence whose one mask is replaced by `count` masks, the predicted positions (clause D3)."""
    at = ids.index(mask)
    return Input(ids[:at] + (mask,) * count + ids[at + 1 :], tuple(range(at, at + count)))


def sentence(tokenizer: Any, text: str, count: int = 1) -> Input:
    """A masked sentence. A single [MASK] becomes `count` masks; several stay unchanged.

    UserError: no [MASK]. ModelError: a tokenizer without a mask token.
    """
    checks.refuse(UserError, checks.of_number("count", count, whole=True, above=True))
    ids, mask = tokens_of(tokenizer, text), tokenizer.mask_token_id
    checks.refuse(UserError, mask not in ids and f"{text!r} has no {MASK}; write it where the answer goes")
    if ids.count(mask) == 1:
        return with_masks(ids, mask, count)
    return Input(ids, tuple(i for i, token in enumerate(ids) if token == mask))


def request(tokenizer: Any, text: str, to: str, language: str) -> EditRequest:
    """A masked sentence in `language`, and its desired answer `to`. One [MASK] stands for the whole answer.

    UserError: no [MASK], more or fewer than the answer has tokens, or an answer that the tokenizer cannot spell.
    """
    checks.refuse(UserError, checks.of_tokenizer(tokenizer), checks.of_texts(text=text, to=to, language=language))
    checks.refuse(UserError, checks.of_plain(checks.special(tokenizer), text=text, to=to))
    labels = tuple(tokenizer(to, add_special_tokens=False)["input_ids"])
    if not labels or tokenizer.unk_token_id in labels or tokenizer.mask_token_id in labels:
        raise UserError(f"the tokenizer cannot spell the desired answer {to!r}{checks.spellable(tokenizer, to)}")
    asked = sentence(tokenizer, text, len(labels))
    if len(asked.positions) != len(labels):
        raise UserError(f"{text!r} has {len(asked.positions)} {MASK}; write one, which stands for all tokens of {to!r}")
    return EditRequest(asked, labels, language)


def pair(tokenizer: Any, premise: str, hypothesis: str, longest: int | None = None) -> Input:
    """Premise and hypothesis as one input; the class is predicted at its first token.

    An input of more than `longest` tokens is cut at the end of the longer text.
    """
    checks.refuse(UserError, checks.of_tokenizer(tokenizer), checks.of_arguments(pair, locals()))
    return pairs(tokenizer, [(premise, hypothesis)], longest)[0]


def pairs(tokenizer: Any, texts: Sequence[tuple[str, str]], longest: int | None = None) -> list[Input]:
    """`pair` for many texts, much faster."""
    if longest is not None and longest <= tokenizer.num_special_tokens_to_add(pair=True):
        raise UserError(f"an input of at most {longest} tokens has no room for two texts; give a larger `longest`")
    encoded = tokenizer([premise for premise, _ in texts], [hypothesis for _, hypothesis in texts])

    def one(i: int) -> Input:
        own = {key: encoded[key][i] for key in ("input_ids", "token_type_ids") if key in encoded}
        if longest is not None and len(own["input_ids"]) > longest:
            own = tokenizer(*texts[i], truncation=True, max_length=longest)
        types = own.get("token_type_ids", ())
        return Input(tuple(own["input_ids"]), (0,), tuple(types) if any(types) else ())

    return [one(i) for i in range(len(texts))]
