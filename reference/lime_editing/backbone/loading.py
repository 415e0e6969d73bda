"""Models and tokenizers from folders and hub ids. Their own code is never run, and no pickle is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM as MaskedLM,
    AutoModelForSequenceClassification as Classifier,
    AutoTokenizer,
)

from .. import checks
from ..borders import ADAPTER, MODEL, adapted, border, damage, offline, place
from ..errors import ModelError
from ..hardware import check_device
from ..names import Precision
from .architecture import max_positions, refuse
from .model import Backbone, wrap

#: Parameters of another shape: name → its shape in the weights, and its shape by config.json.
Resized = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


def load(
    source: str | Path,
    edited: int | Sequence[str] = 3,
    device: str = "cpu",
    classifier: bool = False,
    precision: Precision = "float32",
) -> Backbone:
    """A masked language model, or a sequence classifier, from a folder or hub id, frozen, its weights in float32.

    `edited` is a number of layers from the top, or names of matrices, as of `wrap`.
    ModelError: no weights, no configuration, weights that lack a part (such as the head), do not fit config.json or are
    not finite, an unsupported architecture. UserError: no such device.
    """
    check_device(device, precision)
    kind = Classifier if classifier else MaskedLM
    model, missing, resized = _pretrained(kind, source)
    if model.config.model_type == "deberta-v2" and any(name.startswith("cls.") for name in missing):
        model, missing, resized = _pretrained(kind, source, legacy=False)  # legacy=False: DeBERTa's own head
    checks.refuse(ModelError, checks.of_head(model.config, classifier, missing), at=f"the weights in {str(source)!r}")
    named = [f"{name} is {there}, and {here} by config.json" for name, (there, here) in resized.items()]
    if resized:
        raise ModelError(f"the weights in {str(source)!r} do not fit config.json: {'; '.join(named[:3])}; restore it")
    if missing:  # transformers initialises them at random, differently in each process
        lacks, wanted = ", ".join(missing[:5]), "sequence classifier" if classifier else "masked language model"
        if classifier or any(_of_encoder(model, name) for name in missing):
            raise ModelError(f"the weights in {str(source)!r} lack a part of a {wanted}: {lacks}; give a whole model")
        raise ModelError(f"{source}: lacks a masked-language head ({lacks}); give a model with one, or use --task nli")
    return _wrapped(model, source, edited, device, precision)


def load_encoder(
    source: str | Path,
    classes: Sequence[str],
    edited: int | Sequence[str] = 3,
    device: str = "cpu",
    precision: Precision = "float32",
    seed: int = 0,
) -> Backbone:
    """An encoder with a new head for these classes, initialised with `seed`. Any old head is ignored.

    Errors: as of `load`, but weights may lack a head and its pooler.
    """
    if isinstance(classes, str) or len({*classes}) < max(2, len(classes)):
        raise ModelError(f"a classifier needs a list of at least two distinct classes; got {classes!r}")
    check_device(device, precision)
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, missing, resized = _pretrained(Classifier, source, **labels)
    lacks = [name for name in (*missing, *resized) if _of_encoder(model, name)]
    if lacks:
        raise ModelError(f"the weights in {str(source)!r} lack a part of an encoder: {', '.join(lacks[:5])}; add it")
    if not missing and not resized:
        raise ModelError(f"{str(source)!r} is a classifier of {len(classes)} classes already: give it as --raw-model")
    return _wrapped(model, source, edited, device, precision)


def _pretrained(kind: Any, source: str | Path, **options: Any) -> tuple[Any, list[str], Resized]:
    """A model, the parameters that its weights lack, and those of another shape. ModelError: it cannot be read."""
    with _reading(source, "a model", weights=True) as found:
        config = AutoConfig.from_pretrained(found, **_safe(), **options)
        refuse(config)
        if adapted(found, loaded=True):  # and from a hub, transformers would load the adapter's own base model
            raise ModelError(f"{found}: has an adapter beside its weights; merge it, or move {ADAPTER} away, in a copy")
        config.chunk_size_feed_forward = 0  # chunking only saves memory, and calls an edited matrix several times
        # The callers report mismatches.
        told: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        told |= {"dtype": torch.float32, "use_safetensors": True, **_safe()}
        model, loading = kind.from_pretrained(found, config=config, **told)
    checks.refuse(ModelError, checks.of_unused(loading, config.num_hidden_layers), at=f"the weights in {str(source)!r}")
    resized = {name: (tuple(there), tuple(here)) for name, there, here in sorted(loading["mismatched_keys"])}
    return model, sorted(loading["missing_keys"]), resized


def _wrapped(
    model: Any, source: str | Path, edited: int | Sequence[str], device: str, precision: Precision
) -> Backbone:
    with border(ModelError, f"cannot use the model in {str(source)!r} on {device}"):
        return wrap(model.to(device).eval().requires_grad_(False), edited, precision)


@contextmanager
def _reading(source: str | Path, what: str, weights: bool = False) -> Iterator[str]:
    found = place(source, ModelError, MODEL)
    here = "" if Path(found).exists() else " (no folder here, so a hub id)"
    with border(ModelError, f"cannot load {what} from {found!r}{here}", lambda: damage(found, weights, what)):
        yield found


def _safe() -> dict[str, bool]:
    return {"trust_remote_code": False, "local_files_only": offline()}


def _of_encoder(model: Any, name: str) -> bool:
    """A pooler belongs to the head."""
    prefix = f"{model.base_model_prefix}."
    return name.startswith(prefix) and not name.startswith(f"{prefix}pooler.")


def configuration(source: str | Path) -> Any:
    """A model's configuration; its weights are not read. ModelError: no such model, or one that is not supported."""
    with _reading(source, "a configuration") as found:
        config = AutoConfig.from_pretrained(found, **_safe())
        refuse(config)
        return config


def max_tokens(source: str | Path) -> int:
    """The longest input of a model in tokens; its weights are not read. ModelError: no such model."""
    config = configuration(source)
    with border(ModelError, f"cannot find the longest input of {str(source)!r}"), torch.device("meta"):
        return max_positions(AutoModel.from_config(config))


def load_tokenizer(source: str | Path) -> Any:
    """The tokenizer of a folder or hub id. ModelError: no tokenizer, or an unreadable one."""
    with _reading(source, "a tokenizer") as found:
        tokenizer = AutoTokenizer.from_pretrained(found, **_safe())
        # If there is only config.json, transformers creates an empty tokenizer without a warning.
        if len(tokenizer) <= len(tokenizer.all_special_ids):
            raise ModelError(f"no tokenizer in {found!r}: expected tokenizer.json or a vocabulary beside the model")
        checks.refuse(ModelError, checks.of_case(tokenizer), at=f"the tokenizer in {found!r}")
        tokenizer.truncation_side = "right"  # long inputs are cut at the end, whatever the folder's settings
        return tokenizer


def fingerprint(backbone: Backbone, tokenizer: Any) -> str:
    """A short digest of a model's configuration and weights and of its tokenizer."""
    config = {key: value for key, value in backbone.model.config.to_dict().items() if not key.startswith("_")}
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True, default=str).encode(), digest_size=8)
    backend = getattr(tokenizer, "backend_tokenizer", None)  # a tokenizer in pure Python has none
    digest.update((backend.to_str() if backend else json.dumps(sorted(tokenizer.get_vocab().items()))).encode())
    for name, tensor in sorted(backbone.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
