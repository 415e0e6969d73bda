"""The parts of a model that the core needs: layers, the two matrices of each MLP, head. Found by structure.

Differences from BERT are in `HEADS`, `CLOSING`, `inputs_of_layers` and `class_logits`.

A gated MLP is Wo(act(W₁h) * W₂h). Both its matrices are edited: Wi, W₁ stacked on W₂ (2f, h), and Wo (h, f). So an edit
changes values and gates together, and has one x and one δ per matrix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask, create_bidirectional_sliding_window_mask

from ..borders import SUPPORTED
from ..errors import ModelError

#: `model_type` → the modules of the masked-language head, in order; other models have one head module.
HEADS: Mapping[str, tuple[str, ...]] = {
    "distilbert": ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
    "electra": ("generator_predictions", "generator_lm_head"),
    "modernbert": ("model.final_norm", "head", "decoder"),
}
#: `model_type` → the module that ends a layer's attention block, residual included (None: no module does). Default:
#: "attention".
CLOSING: Mapping[str, str | None] = {"distilbert": "sa_layer_norm", "modernbert": None}
RELATIVE = ("modernbert", "deberta-v2")  # families with relative positions: their layers use a token's index in its row


def refuse(config: Any) -> None:
    """ModelError: a model of this configuration cannot be edited, with the reason."""
    reasons = {
        "its layers share one set of weights, so that an edit of one changes all": config.model_type == "albert",
        "its layers have adapters of each language between them": config.model_type == "xmod",
        "its weights are quantised; give the model that it was made from": getattr(config, "quantization_config", None),
        "it is a decoder, which does not read to the right": getattr(config, "is_decoder", False),
        "it is an encoder and a decoder": getattr(config, "is_encoder_decoder", False),
        "it has a convolution beside its first layer": getattr(config, "conv_kernel_size", 0),
    }
    for reason in (reason for reason, true in reasons.items() if true):
        raise ModelError(f"the {config.model_type} model is not supported: {reason}; supported are {SUPPORTED}")


def unsupported(model: Any) -> ModelError:
    return ModelError(
        f"{re.sub(r'[^A-Za-z0-9_]', '', type(model).__name__)} is not supported: looked for an encoder of layers with "
        "one MLP of two matrices each, under a masked-language head or a classifier, and the model's own answers from "
        f"these parts; supported are {SUPPORTED}"
    )


def layer_stack(model: Any) -> nn.ModuleList:
    """The encoder layers: the base model's only module list of the config's number of layers."""
    refuse(model.config)
    depth = getattr(model.config, "num_hidden_layers", None)
    stacks = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    stacks = [stack for stack in stacks if all(len(mlp_names(model, layer)) == 2 for layer in stack)]
    if len(stacks) != 1 or not hasattr(model.base_model, "embeddings"):
        raise unsupported(model)
    return stacks[0]


def mlp_names(model: Any, layer: nn.Module) -> list[str]:
    """The weights of a layer's MLP: its last two linear maps, h → f (2f if it is gated) and f → h."""
    prefixes = {id(module): name for name, module in model.named_modules()}
    linears, h = [m for m in layer.modules() if isinstance(m, nn.Linear)][-2:], model.config.hidden_size
    wide = [(m.in_features, m.out_features) for m in linears]
    fits = len(wide) == 2 and wide[0][0] == wide[1][1] == h and wide[0][1] in (wide[1][0], 2 * wide[1][0])
    return [f"{prefixes[id(m)]}.weight" for m in linears] if fits else []


def is_classifier(model: Any) -> bool:
    return hasattr(model, "classifier")


def reads_types(model: Any) -> bool:
    """Whether the embeddings have token types. DistilBERT and ModernBERT have none, XLM-R has one."""
    types = getattr(model.base_model.embeddings, "token_type_embeddings", None)
    return types is not None and types.num_embeddings > 1


def widen(model: Any, embedded: Tensor) -> Tensor:
    """Embeddings (…, e) in the encoder's width (…, h). ELECTRA and RemBERT project theirs."""
    shape = (embedded.shape[-1], model.config.hidden_size)
    if shape[0] == shape[1]:
        return embedded
    linears = [m for m in model.base_model.modules() if isinstance(m, nn.Linear)]
    projected: Tensor = next(m for m in linears if (m.in_features, m.out_features) == shape)(embedded)
    return projected


def shares_rows(model: Any) -> bool:
    """Whether a row may hold several inputs: the model takes position ids, and the mask separates the inputs."""
    return model.config.model_type not in RELATIVE


def entrance(model: Any, ids: Tensor, types: Tensor, places: Tensor) -> Tensor:
    told = {"token_type_ids": types} if reads_types(model) else {}
    told |= {"position_ids": places} if shares_rows(model) else {}
    return widen(model, model.base_model.embeddings(input_ids=ids, **told))


def inputs_of_layers(model: Any, hidden: Tensor, mask: Tensor | None) -> Callable[[nn.Module], dict[str, Any]]:
    """Each layer's keyword arguments for hidden states (B, S, h). `mask` is added to the scores, 0 or -inf."""
    if shares_rows(model):
        return lambda layer: {"attention_mask": mask}
    config, base, attention = model.config, model.base_model, None if mask is None else mask[:, 0, 0] == 0
    told = {"config": config, "inputs_embeds": hidden, "attention_mask": attention}
    told["allow_is_bidirectional_skip"] = attention is None
    if config.model_type == "modernbert":
        at = torch.arange(hidden.shape[1], device=hidden.device)[None]
        makers = {"full_attention": create_bidirectional_mask}
        makers["sliding_attention"] = create_bidirectional_sliding_window_mask
        kinds = {
            kind: {"attention_mask": makers[kind](**told), "position_embeddings": base.rotary_emb(hidden, at, kind)}
            for kind in dict.fromkeys(config.layer_types)
        }
        return lambda layer: kinds[layer.attention_type]
    encoder, seen = base.encoder, hidden.new_ones(hidden.shape[:2]) if attention is None else attention.long()
    same = {"attention_mask": encoder.get_attention_mask(seen), "relative_pos": encoder.get_rel_pos(hidden)}
    same["rel_embeddings"] = encoder.get_rel_embedding()
    return lambda layer: same


def class_weights(model: Any) -> Tensor:
    """The rows (C, h) of the last linear map of a classifier."""
    weight: Tensor = [m for m in model.classifier.modules() if isinstance(m, nn.Linear)][-1].weight
    return weight


def means(model: Any) -> bool:
    """Whether a classifier reads the mean of all hidden states (ModernBERT may), not only the first."""
    return is_classifier(model) and getattr(model.config, "classifier_pooling", "cls") == "mean"


def class_logits(model: Any, hidden: Tensor, padding: Tensor | None) -> Tensor:
    """Logits (B, C) of the last layer's hidden states (B, P, h). `padding` (B, 1, 1, P) is 0 or -inf; None means 0."""
    if model.config.model_type == "modernbert":
        own = hidden.new_ones(hidden.shape[:2]) if padding is None else (padding[:, 0, 0] == 0).to(hidden.dtype)
        hidden = (model.base_model.final_norm(hidden) * own[..., None]).sum(1) / own.sum(1)[:, None]
    for name in ("pooler", "pre_classifier", "head"):
        part = getattr(model, name, None) or getattr(model.base_model, name, None)
        if part is not None:
            hidden = part(hidden[:, 0]).relu() if name == "pre_classifier" else part(hidden)
    classes: Tensor = model.classifier(hidden)
    return classes


def language_head(model: Any) -> Callable[[Tensor], Tensor]:
    """The map from hidden states to vocabulary logits. ModelError: a model without output embeddings."""
    if hasattr(model, "lm_predictions"):  # DeBERTa's head takes the embeddings as an argument
        return lambda hidden: model.lm_predictions(hidden, model.get_input_embeddings())
    decoder, parts = model.get_output_embeddings(), HEADS.get(model.config.model_type, ())
    found = [c for c in model.children() if decoder in set(c.modules()) and c is not model.base_model]
    if decoder is None or not found:
        raise unsupported(model)
    return nn.Sequential(*(model.get_submodule(part) for part in parts)) if parts else found[0]


def closing(model: Any, layers: nn.ModuleList) -> nn.Module | None:
    """The module that ends the last layer's attention block; after it rows are independent. None: no such module."""
    name = CLOSING.get(model.config.model_type, "attention")
    if name is not None and not hasattr(layers[-1], name):
        raise unsupported(model)
    return None if name is None else layers[-1].get_submodule(name)


def first_place(model: Any) -> int:
    """The position id of an input's first token: RoBERTa-like models start after their padding id."""
    padding = getattr(getattr(model.base_model.embeddings, "position_embeddings", None), "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


def max_positions(model: Any) -> int:
    """The longest input in tokens; with relative positions, the config's limit."""
    positions = getattr(model.base_model.embeddings, "position_embeddings", None)
    if positions is None:
        return int(model.config.max_position_embeddings)
    return int(positions.num_embeddings) - first_place(model)
