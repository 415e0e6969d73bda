"""Models and tokenizers from folders and hub ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from ...errors import ModelError
from ...names import Precision
from .architecture import max_positions
from .model import Backbone, wrap


def load(
    source: str | Path,
    edited: int | Sequence[str] = 3,
    device: str = "cpu",
    classifier: bool = False,
    precision: Precision = "float32",
) -> Backbone:
    """A masked language model, or a sequence classifier, from a folder or hub id, frozen, its weights in float32.

    ModelError: no weights, no configuration, weights that lack a part (the head, say), an unsupported architecture.
    """
    kind = AutoModelForSequenceClassification if classifier else AutoModelForMaskedLM
    model, missing, _ = _pretrained(kind, source)
    if missing:
        # transformers fills them with random numbers, other ones in each process.
        named = ", ".join(missing[:5])
        if not classifier and not any(_of_encoder(model, name) for name in missing):
            raise ModelError(
                f"{str(source)!r} is an encoder without a masked-language head (its weights lack {named}): it cannot "
                "answer facts; give a model that has the head, or edit sentence pairs, for which a classifier is "
                "fine-tuned from it (--task nli)"
            )
        wanted = "sequence classifier" if classifier else "masked language model"
        raise ModelError(f"the weights in {str(source)!r} lack a part of a {wanted}: {named}")
    return wrap(model.to(device).eval().requires_grad_(False), edited, precision)


def load_encoder(
    source: str | Path,
    classes: Sequence[str],
    edited: int | Sequence[str] = 3,
    device: str = "cpu",
    precision: Precision = "float32",
    seed: int = 0,
) -> Backbone:
    """An encoder, whatever its head, under a new one for these classes, whose first weights are drawn with `seed`.

    ModelError: as of `load`, though weights may lack a head and the pooler below it.
    """
    names = dict(enumerate(classes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, missing, resized = _pretrained(
            AutoModelForSequenceClassification,
            source,
            id2label=names,
            label2id={name: i for i, name in names.items()},
            ignore_mismatched_sizes=True,
        )
    lacks = [name for name in (*missing, *resized) if _of_encoder(model, name)]
    if lacks:
        raise ModelError(f"the weights in {str(source)!r} lack a part of an encoder: {', '.join(lacks[:5])}")
    if not missing and not resized:
        raise ModelError(
            f"{str(source)!r} is a classifier of {len(classes)} classes already: give it as the raw model (--raw-model)"
        )
    return wrap(model.to(device).eval().requires_grad_(False), edited, precision)


def _pretrained(kind: Any, source: str | Path, **options: Any) -> tuple[Any, list[str], list[str]]:
    """A model, and the names of the parameters that its weights lack, and that are of another size in them.

    ModelError: it cannot be read.
    """
    try:
        model, loading = kind.from_pretrained(
            str(source), dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot load a model from {str(source)!r}: {reason} "
            "Expected a hub id, or a folder with config.json and model.safetensors."
        ) from error
    return model, sorted(loading["missing_keys"]), sorted(name for name, *_ in loading["mismatched_keys"])


def _of_encoder(model: Any, name: str) -> bool:
    """Whether a parameter is the encoder's, and not of a head; a pooler serves the head alone."""
    prefix = f"{model.base_model_prefix}."
    return name.startswith(prefix) and not name.startswith(f"{prefix}pooler.")


def max_tokens(source: str | Path) -> int:
    """The longest input of the model in a folder or hub id, whose weights are not read. ModelError: no such model."""
    try:
        with torch.device("meta"):
            return max_positions(AutoModel.from_config(AutoConfig.from_pretrained(str(source))))
    except (OSError, ValueError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"cannot tell how long an input of {str(source)!r} may be: {reason}") from error


def load_tokenizer(source: str | Path) -> Any:
    """The tokenizer of a folder or hub id. ModelError: none there."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"cannot load a tokenizer from {str(source)!r}: {reason}") from error
    # transformers makes an empty one, without a word, where only config.json is there.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ModelError(
            f"no tokenizer in {str(source)!r}: expected tokenizer.json or a vocabulary file beside the model"
        )
    return tokenizer


def fingerprint(backbone: Backbone, tokenizer: Any) -> str:
    """A short digest of a model's configuration and weights and of its tokenizer."""
    config = {key: value for key, value in backbone.model.config.to_dict().items() if not key.startswith("_")}
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True, default=str).encode(), digest_size=8)
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    for name, tensor in sorted(backbone.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
