"""Where a model has what the core needs: its layers, the two maps of each MLP, its head. Found by structure."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from ...errors import ModelError


def layer_stack(model: Any) -> nn.ModuleList:
    """The encoder: the one list of the base model that has as many members as the config has layers."""
    depth = getattr(model.config, "num_hidden_layers", None)
    stacks = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    stacks = [stack for stack in stacks if all(len(mlp_names(model, layer)) == 2 for layer in stack)]
    if len(stacks) != 1 or not hasattr(model.base_model, "embeddings"):
        raise unsupported(model)
    return stacks[0]


def mlp_names(model: Any, layer: nn.Module) -> list[str]:
    """The weights of a layer's MLP: linear maps h → intermediate and intermediate → h, in this order."""
    h, f = getattr(model.config, "hidden_size", 0), getattr(model.config, "intermediate_size", 0)
    prefixes = {id(module): name for name, module in model.named_modules()}
    linears = [m for m in layer.modules() if isinstance(m, nn.Linear)]
    up = [m for m in linears if (m.in_features, m.out_features) == (h, f)]
    down = [m for m in linears if (m.in_features, m.out_features) == (f, h)]
    if h == f:  # square matrices cannot be told apart by shape: the MLP comes last in a layer
        up, down = linears[-2:-1], linears[-1:]
    return [f"{prefixes[id(m)]}.weight" for m in (*up, *down)]


def is_classifier(model: Any) -> bool:
    return hasattr(model, "classifier")


def class_weights(model: Any) -> Tensor:
    """The rows (C, h) of the last linear map of a classifier."""
    head = model.classifier
    linears = [head] if isinstance(head, nn.Linear) else [m for m in head.modules() if isinstance(m, nn.Linear)]
    weight: Tensor = linears[-1].weight
    return weight


def language_head(model: Any) -> nn.Module:
    """The child of the model that holds the output embeddings."""
    decoder = model.get_output_embeddings()
    for child in model.children():
        if decoder is not None and child is not model.base_model and decoder in set(child.modules()):
            head: nn.Module = child
            return head
    raise unsupported(model)


def last_attention(model: Any, layers: nn.ModuleList) -> nn.Module:
    """What stands before the MLP in the last layer. ModelError: not one module."""
    layer, names = layers[-1], mlp_names(model, layers[-1])
    mlp = {model.get_submodule(name.removesuffix(".weight")) for name in names}
    parts = [set(child.modules()) for child in layer.children()]
    before = [
        child
        for child, part in zip(layer.children(), parts, strict=True)
        if not part & mlp and any(isinstance(module, nn.Linear) for module in part)
    ]
    if len(before) != 1:
        raise unsupported(model)
    return before[0]


def first_place(model: Any) -> int:
    """The number of the first place in an input: RoBERTa-like models start behind their padding index."""
    padding = model.base_model.embeddings.position_embeddings.padding_idx
    return 0 if padding is None else int(padding) + 1


def max_positions(model: Any) -> int:
    """The longest input."""
    return int(model.base_model.embeddings.position_embeddings.num_embeddings) - first_place(model)


def unsupported(model: Any) -> ModelError:
    name = re.sub(r"\W", "", type(model).__name__)
    return ModelError(
        f"{name} is not supported: looked for an encoder of layers called as layer(hidden, mask), each with one MLP of "
        "two linear maps (hidden_size → intermediate_size → hidden_size), under a masked-language head or a "
        "classifier; BERT, XLM-R and RoBERTa models have it"
    )
