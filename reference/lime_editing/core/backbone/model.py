"""The raw model, cut in two: a frozen trunk below the edited layers, run once per input, and the layers above it.

The model is never modified: an update enters through forward hooks that live as long as one `upper` call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.hooks import RemovableHandle

from ...errors import ModelError
from ...names import Precision
from ..records import EditRequest, Input
from ..updates import Factors, Update
from . import architecture
from .architecture import class_weights, is_classifier, language_head, layer_stack, mlp_names, unsupported
from .wide import InPieces

#: A group of inputs of like length grows up to so many tokens: fewer would not fill a processor.
GROUP = 256


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
        return architecture.max_positions(self.model)

    @cached_property
    def raw(self) -> dict[str, Tensor]:
        """Edited parameter name → the raw matrix (m, n) itself."""
        return {name: linear.weight.detach() for name, linear in self.linears.items()}

    @cached_property
    def closing(self) -> nn.Module | None:
        """What ends the attention block of the last layer; None where no module does."""
        return architecture.closing(self.model, self.layers)

    @cached_property
    def reads_types(self) -> bool:
        """Whether the model has token types."""
        return architecture.reads_types(self.model)

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
            if self.reads_types and any(i.types for i in inputs):
                rows = [inputs[i].types or (0,) * len(inputs[i].ids) for i in chosen]
                types["token_type_ids"] = padded(rows, 0).to(device, non_blocking=True)
            index = _on(device, chosen)
            try:
                entrance = architecture.widen(self.model, self.model.base_model.embeddings(input_ids=ids, **types))
            except IndexError as error:
                raise ModelError("a token has no embedding: tokenizer and model do not belong together") from error
            seen = None if all(lengths[i] == width for i in chosen) else attention[index, :width]
            hidden[index, :width] = self._run(self.layers[: self.first], entrance, seen)
        return States.of(hidden, attention, lengths, [i.positions for i in inputs])

    def upper(self, states: States, update: Update | None = None) -> Tensor:
        """Logits (N, V) at the predicted positions, under an update of E edits where B = E·k, or of the raw model.

        Rows e·k … (e+1)·k - 1 of the batch see edit e.
        """
        weights = {} if update is None else update.weights
        attention = None if min(states.lengths) == states.hidden.shape[1] else states.attention
        positions: Sequence[tuple[int, ...]] = states.positions
        if self.classifies:
            positions = [tuple(range(n)) if architecture.means(self.model) else (0,) for n in states.lengths]
        # Without the last layer's other rows a training step on facts at mBERT size has 7 to 12% fewer operations.
        with self._applied(update), self._narrowed(positions):
            hidden = self._run(self.layers[self.first :], states.hidden, attention, weights)
        return self.head(hidden if self.closing is not None else _narrow(hidden, positions), positions)

    def head(self, hidden: Tensor, positions: Sequence[tuple[int, ...]]) -> Tensor:
        """Logits (N, V) of hidden states (B, P, h) at the predicted positions, or one row of classes per input."""
        if self.classifies:
            return architecture.class_logits(self.model, hidden, _on(hidden.device, [len(own) for own in positions]))
        most = hidden.shape[1]
        rows = _rows(hidden, [most * b + slot for b, own in enumerate(positions) for slot in range(len(own))])
        with InPieces():
            vocabulary: Tensor = language_head(self.model)(rows)
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
        embedded = architecture.widen(self.model, words[padded(read, 0).to(device, non_blocking=True)])
        if self.classifies and labels:
            edit = _on(device, [e for e, y in enumerate(said) for _ in y])
            place = _on(device, [len(r.input.ids) + i for r in requests for i in range(len(r.labels))])
            embedded[edit, place] = class_weights(self.model)[_on(device, [label for y in said for label in y])]
        padding = torch.arange(embedded.shape[1]) >= lengths[:, None]
        return embedded.masked_fill(padding.to(device, non_blocking=True)[..., None], 0), lengths

    @property
    def classifies(self) -> bool:
        """Whether the head gives one class per input, and not one token per position."""
        return is_classifier(self.model)

    @property
    def width(self) -> int:
        """The width of the hidden states."""
        return int(self.model.config.hidden_size)

    def _run(
        self,
        layers: Iterable[nn.Module],
        hidden: Tensor,
        attention: Tensor | None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """The layers, with some of the edited matrices replaced by others. `attention` is None without padding."""
        told = architecture.inputs_of_layers(self.model, hidden, attention)
        for layer in layers:
            names = {module: path for path, module in layer.named_modules()} if weights else {}
            own = {
                f"{names[self.linears[name]]}.weight": weight
                for name, weight in (weights or {}).items()
                if self.linears[name] in names
            }
            output = functional_call(layer, own, (hidden,), told(layer)) if own else layer(hidden, **told(layer))
            hidden = output[0] if isinstance(output, tuple) else output
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

        Where no module ends its attention block, it goes on with all rows, and `upper` takes these from its output.
        """

        def narrow(_: nn.Module, __: Any, output: Any) -> Any:
            whole, *rest = output if isinstance(output, tuple) else (output,)
            kept = _narrow(whole, positions)
            return (kept, *rest) if isinstance(output, tuple) else kept

        handles = [] if self.closing is None else [self.closing.register_forward_hook(narrow)]
        try:
            yield
        finally:
            _remove(handles)


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


def wrap(model: Any, edited: int | Sequence[str] = 3, precision: Precision = "float32") -> Backbone:
    """Cut a loaded model below the edited layers. The model is only looked at: its mode and its gradients stay.

    `edited` is a number of layers from the top (§B.2: the MLPs of the last three) or a list of parameter names.
    ModelError: an architecture that is not supported, a name that does not exist, weights that are not finite, or a
    model whose dropout is active or whose MLPs run in chunks.
    """
    if any(isinstance(module, nn.Dropout) and module.training and module.p > 0 for module in model.modules()):
        raise ModelError(
            "the model is in training mode, and its dropout would blur every edit; call model.eval() first"
        )
    if getattr(model.config, "chunk_size_feed_forward", 0):
        raise ModelError("the model runs its MLPs in chunks; load it with chunk_size_feed_forward=0: its answers stay")
    broken = [name for name, p in model.named_parameters() if not bool(p.isfinite().all())]
    if broken:
        raise ModelError(f"the weights are not finite (NaN or infinite in {', '.join(broken[:3])}); restore them")
    layers = layer_stack(model)
    known = [name for layer in layers for name in mlp_names(model, layer)]
    if isinstance(edited, int):
        if not 1 <= edited <= len(layers):
            raise ModelError(f"cannot edit the last {edited} layers: the model has {len(layers)}")
        names = known[-2 * edited :]
    else:
        for name in edited:
            if name not in known:
                raise ModelError(f"no editable matrix {name!r} in the model; there are: {', '.join(known)}")
        names = [name for name in known if name in edited]
    backbone = Backbone(model, layers, tuple(names), model.config.pad_token_id or 0, precision)
    try:
        same = _same(backbone)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a structure that is not looked for raises
        raise unsupported(model) from error
    if not same:
        raise unsupported(model)
    return backbone


@torch.no_grad()
def _same(backbone: Backbone) -> bool:
    """Whether trunk and upper part answer a padded batch as the model, which gives its layers no more than we do."""
    model, size, layer = backbone.model, min(backbone.model.config.vocab_size, 20), backbone.layers[-1]
    rows = [tuple((5 * i + 3) % size for i in range(length)) for length in (6, 4)]
    rows = [tuple(i if i != backbone.pad_id else i + 1 for i in row) for row in rows]
    given = list[set[str]]()

    def note(_: nn.Module, args: Any, kwargs: Any) -> None:
        told = inspect.signature(layer.forward).bind(*args, **kwargs).arguments
        told |= told.pop("kwargs", {})
        given.append({name for name, value in told.items() if isinstance(value, (Tensor, tuple))})

    handle = layer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        states = backbone.trunk([Input(row, (0, 1)) for row in rows])
        ours, ids = backbone.upper(states), padded(rows, backbone.pad_id).to(states.hidden.device)
        theirs = model(input_ids=ids, attention_mask=states.attention.long(), return_dict=True).logits
    finally:
        handle.remove()
    theirs = theirs if is_classifier(model) else theirs[states.example, _on(theirs.device, [0, 1, 0, 1])]
    return given[-1] <= given[0] and torch.allclose(ours, theirs, atol=1e-4, rtol=1e-3)


def _narrow(whole: Tensor, positions: Sequence[tuple[int, ...]]) -> Tensor:
    """(B, S, h) at the predicted positions alone: (B, P, h). An input with fewer than P repeats its first row."""
    most = max(1, *map(len, positions))
    start = range(0, len(positions) * whole.shape[1], whole.shape[1])
    rows = [b + p for b, own in zip(start, positions, strict=True) for p in (*own, *[0] * (most - len(own)))]
    return _rows(whole, rows).view(len(positions), most, whole.shape[2])


def _rows(hidden: Tensor, rows: Sequence[int]) -> Tensor:
    """These of all B·S rows of (B, S, h)."""
    return hidden.flatten(0, 1).index_select(0, _on(hidden.device, rows))


def _on(device: torch.device, values: Sequence[int]) -> Tensor:
    """Indices that the host knows, on the device, which nobody waits for."""
    return torch.tensor(values, dtype=torch.long).to(device, non_blocking=True)


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
