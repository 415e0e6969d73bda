"""The raw model, cut in two: a frozen trunk below the edited layers, run once per input, and the layers above it.

Any encoder of the BERT kind works: a stack of layers `layer(hidden, attention_mask)`, each with an MLP of two linear
layers, under a masked-language or a classification head. The stack, the MLPs and the head are found from the model's
structure, and a probe input checks that trunk and upper part together compute what the model computes.
The model is never modified: an update enters through forward hooks that live as long as one `upper` call.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.masking_utils import create_bidirectional_mask

from .devices import Precision
from .errors import ModelError
from .types import EditRequest, Factors, Input, Update

#: A group of inputs goes on growing up to so many tokens, whatever their lengths: fewer would not fill a processor.
GROUP = 256
#: Outputs of one piece of the widest linear map, on a CPU.
PIECE = 1024


@dataclass(frozen=True, slots=True)
class States:
    """B padded inputs at the entrance of the first edited layer, and their N predicted positions.

    hidden (B, S, h), attention (B, S); lengths and predicted positions stay on the host, where they are known without
    waiting for a device; example (N,) in [0, B), example by example, says whose the predicted positions are.
    """

    hidden: Tensor
    attention: Tensor
    lengths: tuple[int, ...]
    positions: tuple[tuple[int, ...], ...]
    example: Tensor

    @classmethod
    def of(
        cls, hidden: Tensor, attention: Tensor, lengths: Sequence[int], positions: Sequence[tuple[int, ...]]
    ) -> States:
        example = _on(hidden.device, [b for b, own in enumerate(positions) for _ in own])
        return cls(hidden, attention, tuple(lengths), tuple(positions), example)

    def take(self, chosen: Sequence[int]) -> States:
        """The examples at these indices, with no more padding than they need."""
        index = _on(self.hidden.device, chosen)
        lengths, positions = [self.lengths[i] for i in chosen], [self.positions[i] for i in chosen]
        # Clause M7's "all" predicts padding as well.
        width = max([*lengths, *(p + 1 for own in positions for p in own)])
        return States.of(self.hidden[index, :width], self.attention[index, :width], lengths, positions)

    def rows(self, chosen: Sequence[int]) -> Tensor:
        """The rows of these examples' predicted positions, of all N."""
        starts = [0, *accumulate(map(len, self.positions))]
        return _on(self.hidden.device, [row for b in chosen for row in range(starts[b], starts[b + 1])])


@dataclass(frozen=True)
class Backbone:
    """A frozen model, its encoder layers, and the parameter names of the matrices that may be edited."""

    model: Any
    layers: nn.ModuleList
    edited: tuple[str, ...]
    pad_id: int
    precision: Precision = "float32"

    @cached_property
    def linears(self) -> dict[str, nn.Linear]:
        """Edited parameter name → the linear layer that holds it."""
        return {name: self.model.get_submodule(name.removesuffix(".weight")) for name in self.edited}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Edited parameter name → (n, m), input and output width."""
        return {name: (linear.in_features, linear.out_features) for name, linear in self.linears.items()}

    @cached_property
    def first(self) -> int:
        """The first edited layer: all below is trunk."""
        edited = set(self.linears.values())
        return next(i for i, layer in enumerate(self.layers) if edited & set(layer.modules()))

    @property
    def like(self) -> Tensor:
        """A tensor of the model's dtype and device."""
        return next(iter(self.raw.values()))

    def autocast(self) -> torch.autocast:
        """While open, matrix products are in bf16 where the precision says so; parameters and losses stay float32."""
        return torch.autocast(self.like.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def max_tokens(self) -> int:
        """The longest input."""
        return _max_tokens(self.model)

    @cached_property
    def raw(self) -> dict[str, Tensor]:
        """Edited parameter name → the raw matrix (m, n) itself."""
        return {name: linear.weight.detach() for name, linear in self.linears.items()}

    @cached_property
    def last_attention(self) -> nn.Module:
        """What stands before the MLP in the last layer. ModelError: not one module."""
        layer, names = self.layers[-1], _mlp_names(self.model, self.layers[-1])
        mlp = {self.model.get_submodule(name.removesuffix(".weight")) for name in names}
        parts = [set(child.modules()) for child in layer.children()]
        before = [
            child
            for child, part in zip(layer.children(), parts, strict=True)
            if not part & mlp and any(isinstance(module, nn.Linear) for module in part)
        ]
        if len(before) != 1:
            raise _unsupported(self.model)
        return before[0]

    @torch.no_grad()
    def trunk(self, inputs: Sequence[Input]) -> States:
        """Pad the inputs and run the frozen part of the encoder on them. ModelError: an input that is too long."""
        longest = max(len(i.ids) for i in inputs)
        if longest > self.max_tokens:
            raise ModelError(f"an input has {longest} tokens, and the model reads at most {self.max_tokens}")
        like = self.like
        device = like.device
        lengths = [len(i.ids) for i in inputs]
        attention = torch.arange(longest, device=device)[None] < _on(device, lengths)[:, None]
        hidden = like.new_zeros(len(inputs), longest, self.width)
        # Inputs of like length go together: of a shuffled batch of facts a third and more would be padding.
        for chosen in _alike(lengths):
            width = max(lengths[i] for i in chosen)
            ids = padded([inputs[i].ids for i in chosen], self.pad_id).to(device, non_blocking=True)
            types = {}
            if any(i.types for i in inputs):
                rows = [inputs[i].types or (0,) * len(inputs[i].ids) for i in chosen]
                types["token_type_ids"] = padded(rows, 0).to(device, non_blocking=True)
            index = _on(device, chosen)
            entrance = self.model.base_model.embeddings(input_ids=ids, **types)
            seen = None if all(lengths[i] == width for i in chosen) else attention[index, :width]
            hidden[index, :width] = self._run(self.layers[: self.first], entrance, seen)
        return States.of(hidden, attention, lengths, [i.positions for i in inputs])

    def upper(self, states: States, update: Update | None = None) -> Tensor:
        """Logits (N, V) at the predicted positions, under an update of E edits where B = E·k, or of the raw model.

        Rows e·k … (e+1)·k - 1 of the batch see edit e.
        """
        weights = {} if update is None else update.weights
        attention = None if min(states.lengths) == states.hidden.shape[1] else states.attention
        positions = [(0,)] * len(states.lengths) if self.classifies else states.positions
        # Without the last layer's other rows a training step on facts at mBERT size has 7 to 12% fewer operations.
        with self._applied(update), self._narrowed(positions):
            hidden = self._run(self.layers[self.first :], states.hidden, attention, weights)
        return self.head(hidden, positions)

    def head(self, hidden: Tensor, positions: Sequence[tuple[int, ...]]) -> Tensor:
        """Logits (N, V) of hidden states (B, P, h) at the predicted positions, or one row of classes per input."""
        if self.classifies:
            pooler = getattr(self.model.base_model, "pooler", None)
            classes: Tensor = self.model.classifier(hidden if pooler is None else pooler(hidden))
            return classes
        most = hidden.shape[1]
        rows = _rows(hidden, [most * b + slot for b, own in enumerate(positions) for slot in range(len(own))])
        with _InPieces():
            vocabulary: Tensor = _language_head(self.model)(rows)
        return vocabulary

    @torch.no_grad()
    def condition(self, requests: Sequence[EditRequest], labels: bool) -> tuple[Tensor, Tensor]:
        """The model's own embeddings of each x_e, followed by those of y_e with `labels`; (B, S, h) and lengths (B,).

        A class has no word embedding: the output layer's row stands for it (clause E5).
        """
        # A class stands behind all words until its own row comes in.
        said = [r.labels if labels else () for r in requests]
        read = [(*r.input.ids, *((0,) * len(y) if self.classifies else y)) for r, y in zip(requests, said, strict=True)]
        words = self.model.get_input_embeddings().weight
        device, lengths = words.device, torch.tensor([len(row) for row in read])
        embedded: Tensor = words[padded(read, 0).to(device, non_blocking=True)]
        if self.classifies and labels:
            edit = _on(device, [e for e, y in enumerate(said) for _ in y])
            place = _on(device, [len(r.input.ids) + i for r in requests for i in range(len(r.labels))])
            embedded[edit, place] = _class_weights(self.model)[_on(device, [label for y in said for label in y])]
        padding = torch.arange(embedded.shape[1]) >= lengths[:, None]
        return embedded.masked_fill(padding.to(device, non_blocking=True)[..., None], 0), lengths

    @property
    def classifies(self) -> bool:
        """Whether the head gives one class per input, and not one token per position."""
        return _is_classifier(self.model)

    @property
    def width(self) -> int:
        """The width of the embeddings."""
        return int(self.model.get_input_embeddings().embedding_dim)

    def _run(
        self,
        layers: Iterable[nn.Module],
        hidden: Tensor,
        attention: Tensor | None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The layers, with some of the edited matrices replaced by others. `attention` is None without padding."""
        # Whether anything is padded, the host knows: the device is not asked.
        mask = create_bidirectional_mask(
            config=self.model.config,
            inputs_embeds=hidden,
            attention_mask=attention,
            allow_is_bidirectional_skip=attention is None,
        )
        for layer in layers:
            names = {module: path for path, module in layer.named_modules()} if weights else {}
            own = {
                f"{names[self.linears[name]]}.weight": weight
                for name, weight in (weights or {}).items()
                if self.linears[name] in names
            }
            hidden = functional_call(layer, own, (hidden, mask)) if own else layer(hidden, mask)
        return hidden

    @contextmanager
    def _applied(self, update: Update | None) -> Iterator[None]:
        """While open, each edited linear computes W·h + ΔW·h (clause B4)."""

        def add(update: Update, name: str) -> Any:
            return lambda _, inputs, output: output + update.apply(name, inputs[0])

        names = () if update is None else dict.fromkeys((*update.factors, *update.deltas))
        handles = [self.linears[name].register_forward_hook(add(update, name)) for name in names if update is not None]
        try:
            yield
        finally:
            _remove(handles)

    @contextmanager
    def _narrowed(self, positions: Sequence[tuple[int, ...]]) -> Iterator[None]:
        """While open, the last layer goes on from its attention with the predicted positions alone: (B, P, h).

        An input with fewer than P repeats its first row; nobody reads what becomes of it.
        """
        most = max(1, *map(len, positions))

        def narrow(_: nn.Module, __: Any, output: Any) -> Any:
            whole, *rest = output if isinstance(output, tuple) else (output,)
            start = range(0, len(positions) * whole.shape[1], whole.shape[1])
            rows = [b + p for b, own in zip(start, positions, strict=True) for p in (*own, *[0] * (most - len(own)))]
            kept = _rows(whole, rows).view(len(positions), most, whole.shape[2])
            return (kept, *rest) if isinstance(output, tuple) else kept

        handle = self.last_attention.register_forward_hook(narrow)
        try:
            yield
        finally:
            handle.remove()


def capture(
    backbone: Backbone,
    states: States,
    loss_of: Callable[[Tensor], Tensor],
    at: Update | None = None,
    differentiable: bool = False,
) -> tuple[Factors, Tensor]:
    """Per edited matrix the input x (B, T, n) and δ (B, T, m), the loss gradient at the output (§3.3, clause E1).

    T is S, and in the last layer P: no other row has a gradient there. Rows beyond an input's own have δ = 0.

    `loss_of` maps logits (N, V) to one loss per example (B,). The losses are summed, so that each row's δ is its own
    gradient whatever the batch. No `.grad` is filled. x and δ carry no gradient, unless they are to be
    `differentiable` with respect to the update that they are taken `at`. The logits come along.
    """
    taken: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            output = output if output.requires_grad else output.detach().requires_grad_()
            taken[name] = (inputs[0] if differentiable else inputs[0].detach(), output)
            return output

        return hook

    handles = [linear.register_forward_hook(keep(name)) for name, linear in backbone.linears.items()]
    # The fused attention kernels have no second derivative.
    kernel = sdpa_kernel(SDPBackend.MATH) if differentiable else nullcontext()
    try:
        with torch.enable_grad(), kernel:
            logits = backbone.upper(states, at)
            names = list(backbone.linears)
            outputs = [taken[name][1] for name in names]
            deltas = torch.autograd.grad(loss_of(logits).sum(), outputs, create_graph=differentiable)
    finally:
        _remove(handles)
    return {name: (taken[name][0], delta) for name, delta in zip(names, deltas, strict=True)}, logits


class _InPieces(TorchFunctionMode):
    """While open, a linear map to very many outputs is computed piece by piece on a CPU.

    As one product a vocabulary of 120,000 runs at 23 to 46 GFLOP/s for 10 to 128 rows, in pieces at 31 to 64.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs:
            hidden, weight, bias = (*args, None)[:3]
            if len(weight) >= 8 * PIECE and hidden.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
                return _Wide.apply(hidden, weight, bias)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


class _Wide(torch.autograd.Function):
    """h (…, n) ↦ h·Wᵀ + b for a frozen W (m, n)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        pieces = zip(weight.split(PIECE), *([] if bias is None else [bias.split(PIECE)]), strict=True)
        return torch.cat([F.linear(hidden, *piece) for piece in pieces], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _WideBack.apply(gradients[0], *ctx.saved_tensors), None, None  # type: ignore[no-untyped-call]


class _WideBack(torch.autograd.Function):
    """g (…, m) ↦ g·W, whose gradient is a wide product again."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return gradient @ weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Wide.apply(gradients[0], *ctx.saved_tensors, None), None  # type: ignore[no-untyped-call]


def _rows(hidden: Tensor, rows: Sequence[int]) -> Tensor:
    """These of all B·S rows of (B, S, h)."""
    return hidden.flatten(0, 1).index_select(0, _on(hidden.device, rows))


def _on(device: torch.device, values: Sequence[int]) -> Tensor:
    """Indices that the host knows, on the device, which nobody waits for."""
    return torch.tensor(values, dtype=torch.long).to(device, non_blocking=True)


def wrap(model: Any, edited: int | Sequence[str] = 3, precision: Precision = "float32") -> Backbone:
    """Cut a loaded model below the edited layers. The model is only looked at: its mode and its gradients stay.

    `edited` is a number of layers from the top (§B.2: the MLPs of the last three) or a list of parameter names.
    ModelError: an architecture that is not supported, a name that does not exist, or a model whose dropout is active.
    """
    if any(isinstance(module, nn.Dropout) and module.training and module.p > 0 for module in model.modules()):
        raise ModelError(
            "the model is in training mode, and its dropout would blur every edit; call model.eval() first"
        )
    layers = _layer_stack(model)
    known = [name for i in range(len(layers)) for name in _mlp_names(model, layers[i])]
    if isinstance(edited, int):
        if not 1 <= edited <= len(layers):
            raise ModelError(f"cannot edit the last {edited} layers: the model has {len(layers)}")
        names = [name for layer in layers[-edited:] for name in _mlp_names(model, layer)]
    else:
        for name in edited:
            if name not in known:
                raise ModelError(f"no editable matrix {name!r} in the model; there are: {', '.join(known)}")
        names = [name for name in known if name in edited]
    pad_id = model.config.pad_token_id
    backbone = Backbone(model, layers, tuple(names), 0 if pad_id is None else pad_id, precision)
    _check(backbone)
    return backbone


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
            return _max_tokens(AutoModel.from_config(AutoConfig.from_pretrained(str(source))))
    except (OSError, ValueError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"cannot tell how long an input of {str(source)!r} may be: {reason}") from error


def _max_tokens(model: Any) -> int:
    """RoBERTa-like models start counting positions behind their padding index."""
    positions = model.base_model.embeddings.position_embeddings
    return int(positions.num_embeddings) - (0 if positions.padding_idx is None else positions.padding_idx + 1)


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


def _layer_stack(model: Any) -> nn.ModuleList:
    """The encoder: the one list of the base model that has as many members as the config has layers."""
    depth = getattr(model.config, "num_hidden_layers", None)
    stacks = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    stacks = [stack for stack in stacks if all(len(_mlp_names(model, layer)) == 2 for layer in stack)]
    if len(stacks) != 1 or not hasattr(model.base_model, "embeddings"):
        raise _unsupported(model)
    return stacks[0]


def _mlp_names(model: Any, layer: nn.Module) -> list[str]:
    """The weights of a layer's MLP: linear maps h → intermediate and intermediate → h, in this order."""
    h, f = getattr(model.config, "hidden_size", 0), getattr(model.config, "intermediate_size", 0)
    prefixes = {id(module): name for name, module in model.named_modules()}
    linears = [m for m in layer.modules() if isinstance(m, nn.Linear)]
    up = [m for m in linears if (m.in_features, m.out_features) == (h, f)]
    down = [m for m in linears if (m.in_features, m.out_features) == (f, h)]
    if h == f:  # square matrices cannot be told apart by shape: the MLP comes last in a layer
        up, down = linears[-2:-1], linears[-1:]
    return [f"{prefixes[id(m)]}.weight" for m in (*up, *down)]


def _is_classifier(model: Any) -> bool:
    return hasattr(model, "classifier")


def _class_weights(model: Any) -> Tensor:
    """The rows (C, h) of the last linear map of a classifier."""
    head = model.classifier
    linears = [head] if isinstance(head, nn.Linear) else [m for m in head.modules() if isinstance(m, nn.Linear)]
    weight: Tensor = linears[-1].weight
    return weight


def _language_head(model: Any) -> nn.Module:
    """The child of the model that holds the output embeddings."""
    decoder = model.get_output_embeddings()
    for child in model.children():
        if decoder is not None and child is not model.base_model and decoder in set(child.modules()):
            head: nn.Module = child
            return head
    raise _unsupported(model)


def _check(backbone: Backbone) -> None:
    """Compare trunk and upper part with the model on one padded batch. ModelError: they differ, or do not run."""
    model = backbone.model
    size = min(model.config.vocab_size, 20)
    rows = [Input(tuple((5 * i + 3) % size for i in range(length)), (0, 1)) for length in (6, 4)]
    rows = [Input(tuple(i if i != backbone.pad_id else i + 1 for i in row.ids), row.positions) for row in rows]
    try:
        with torch.no_grad():
            states = backbone.trunk(rows)
            ours = backbone.upper(states)
            ids = padded([row.ids for row in rows], backbone.pad_id).to(states.hidden.device)
            theirs = model(input_ids=ids, attention_mask=states.attention.long()).logits
    except (RuntimeError, TypeError, AttributeError) as error:
        raise _unsupported(model) from error
    theirs = theirs if _is_classifier(model) else theirs[states.example, _on(theirs.device, [0, 1, 0, 1])]
    if not torch.allclose(ours, theirs, atol=1e-4, rtol=1e-3):
        raise _unsupported(model)


def _unsupported(model: Any) -> ModelError:
    name = re.sub(r"\W", "", type(model).__name__)
    return ModelError(
        f"{name} is not supported: looked for an encoder of layers called as layer(hidden, mask), each with one MLP of "
        "two linear maps (hidden_size → intermediate_size → hidden_size), under a masked-language head or a "
        "classifier; BERT, XLM-R and RoBERTa models have it"
    )


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of any lengths as one tensor (B, S), filled up with a value."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Indices in groups of like length, the longest first, each of a few hundred tokens at least."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[groups[-1][0]] if groups else 0
        if groups and (longest * len(groups[-1]) < GROUP or lengths[i] > 0.9 * longest):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _remove(handles: Sequence[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def fingerprint(backbone: Backbone, tokenizer: Any) -> str:
    """A short digest of a model's configuration and weights and of its tokenizer."""
    config = {key: value for key, value in backbone.model.config.to_dict().items() if not key.startswith("_")}
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True, default=str).encode(), digest_size=8)
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    for name, tensor in sorted(backbone.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
