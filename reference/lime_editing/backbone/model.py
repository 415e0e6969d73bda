"""The raw model in two parts: a frozen trunk below the edited layers, run once per input, and the layers above.

The model is never modified: an update is applied by forward hooks, for the duration of one `upper` call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.hooks import RemovableHandle

from .. import checks
from ..errors import ModelError, UserError
from ..names import Precision
from ..records import Input
from ..turns import one_at_a_time
from ..updates import Factors, Update
from . import architecture
from .architecture import class_weights, is_classifier, language_head, layer_stack, mlp_names, unsupported
from .arrays import Bucket, Integers, Places, Rows, Sent, padded, places_of, rows_of
from .quick import Attention, quick
from .wide import InPieces


@dataclass(frozen=True, slots=True)
class States:
    """B padded inputs at the input of the first edited layer, hidden (B, S, h), and their places."""

    hidden: Tensor
    places: Places


@dataclass(frozen=True)
class Backbone:
    """A frozen model, its encoder layers, and the names of the edited matrices."""

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
        """The index of the first edited layer; all layers below are the trunk."""
        edited = set(self.linears.values())
        return next(i for i, layer in enumerate(self.layers) if edited & set(layer.modules()))

    @property
    def like(self) -> Tensor:
        """A tensor of the model's dtype and device."""
        return next(iter(self.raw.values()))

    def autocast(self) -> torch.autocast:
        """A context with matrix products in bf16, if the precision is bf16. Parameters and losses stay float32."""
        return torch.autocast(self.like.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def max_tokens(self) -> int:
        return architecture.max_positions(self.model)

    @cached_property
    def raw(self) -> dict[str, Tensor]:
        """Edited parameter name → the raw matrix (m, n), not a copy."""
        return {name: linear.weight.detach() for name, linear in self.linears.items()}

    @cached_property
    def closing(self) -> nn.Module | None:
        return architecture.closing(self.model, self.layers)

    @cached_property
    def _copies(self) -> dict[tuple[bool, bool], Backbone]:
        return {}

    def copy(self, twice: bool = False) -> Backbone:
        """A faster copy for computation, in bf16 under `autocast`. With `twice` it is twice differentiable."""
        key = (self.precision == "bf16" and torch.is_autocast_enabled(self.like.device.type), twice)
        checks.refuse(UserError, key not in self._copies and checks.of_mode(), at="the first use of a model")
        if key not in self._copies:
            model = quick(self.model, *key)
            self._copies[key] = replace(self, model=model, layers=layer_stack(model))
        return self._copies[key]

    def rows(self, inputs: Sequence[Input], bucket: Bucket | None = None) -> tuple[Rows, Integers]:
        """The inputs in rows for `read`, and the start of each. ModelError: an input that is too long."""
        checks.refuse(UserError, checks.of_inputs(inputs, padded=True))
        longest = max(len(i.ids) for i in inputs)
        if longest > self.max_tokens:
            raise ModelError(f"an input has {longest} tokens, and the model reads only {self.max_tokens}; shorten it")
        shared = architecture.shares_rows(self.model)
        return rows_of(inputs, self.pad_id, architecture.first_place(self.model), shared, bucket)

    @torch.no_grad()
    def read(self, rows: Rows) -> Tensor:
        """Run the trunk: its output (R·C, h) at every token."""
        here, mask = self.copy(), None
        try:
            hidden = architecture.entrance(here.model, rows.ids, rows.types, rows.places)
        except IndexError as error:
            raise ModelError("a token has no embedding: tokenizer and model do not belong together") from error
        if rows.asking is not None and rows.answering is not None:
            apart = rows.answering[:, None, None] < 0
            if architecture.shares_rows(self.model):
                apart = rows.asking[:, None, :, None] != rows.answering[:, None, None]
            mask = hidden.new_zeros(apart.shape).masked_fill_(apart, -torch.inf)
        return here._run(here.layers[: here.first], hidden, mask).flatten(0, 1)

    def predicted(self, inputs: Sequence[Input]) -> list[Input]:
        """The inputs with the positions that the head reads: a classifier reads the first token."""
        return [replace(i, positions=(0,)) for i in inputs] if self.classifies else list(inputs)

    def trunk(self, inputs: Sequence[Input]) -> States:
        """The trunk states of these inputs. ModelError: an input that is too long."""
        inputs = self.predicted(inputs)
        rows, starts = self.rows(inputs)
        sent, places = Sent.of((rows, places_of(inputs, starts)), self.like).on(self.like.device)
        return states_at(self.read(sent), places)

    def taken(self, states: States, kept: Sequence[int], inputs: Sequence[Input]) -> States:
        """The states at the indices `kept`; `inputs` are the inputs there."""
        starts = states.hidden.shape[1] * np.array(kept)
        (places,) = Sent.of((places_of(inputs, starts),), self.like).on(states.hidden.device)
        return states_at(states.hidden.flatten(0, 1), places)

    @one_at_a_time
    def upper(self, states: States, update: Update | None = None, twice: bool = False) -> Tensor:
        """Logits (N, V) at the predicted positions, of the raw model or under an update of E edits, where B = E·k.

        Edit e applies to the rows e·k … (e+1)·k - 1. A classifier gives one row of classes per input. With `twice` the
        logits are twice differentiable.
        """
        checks.refuse(UserError, update is not None and checks.of_update(update, self.raw, len(states.hidden)))
        here, places = self.copy(twice), states.places
        weights = {} if update is None else update.weights
        # Dropping the last layer's other rows saves 7 to 12% of the operations of a training step on facts (mBERT
        # size).
        kernel = sdpa_kernel(SDPBackend.MATH) if twice and here.has_fused else nullcontext()
        with here._applied(update), here._narrowed(places.slots), kernel:
            hidden = here._run(here.layers[here.first :], states.hidden, places.padding, weights)
        if architecture.means(here.model):
            return architecture.class_logits(here.model, hidden, places.padding)
        chosen = places.predicted if here.closing is not None else places.slots.flatten()[places.predicted]
        rows = F.embedding(chosen, hidden.flatten(0, 1))
        if self.classifies:
            return architecture.class_logits(here.model, rows[:, None], None)
        with InPieces():
            vocabulary: Tensor = language_head(here.model)(rows)
        return vocabulary

    @torch.no_grad()
    def embedded(self, words: Tensor, lengths: Tensor, classes: Tensor | None = None) -> Tensor:
        """The model's embeddings (E, S, h) of tokens `words` (E, S); 0 after each row's length (E,).

        A class has no token embedding: the output layer's row of `classes` (E,) replaces a row's last token (E5).
        """
        found = architecture.widen(self.model, self.model.get_input_embeddings()(words))
        column = torch.arange(words.shape[1], device=words.device)
        ends = lengths[:, None]
        if classes is not None:
            rows = F.embedding(classes, class_weights(self.model))
            found = torch.where((column == ends - 1)[..., None], rows[:, None], found)
        embedded: Tensor = found.masked_fill((column >= ends)[..., None], 0)
        return embedded

    @cached_property
    def has_fused(self) -> bool:
        """Whether some attention module is the model's own, and may use a kernel without a second derivative."""
        return not any(isinstance(module, Attention) for module in self.layers[-1].modules())

    @property
    def reads_types(self) -> bool:
        return architecture.reads_types(self.model)

    @property
    def classifies(self) -> bool:
        """Whether the head predicts one class per input, not one token per position."""
        return is_classifier(self.model)

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    def _run(
        self,
        layers: Iterable[nn.Module],
        hidden: Tensor,
        mask: Tensor | None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Run the layers, with `weights` in place of some edited matrices. `mask` is added to the attention scores."""
        told = architecture.inputs_of_layers(self.model, hidden, mask)
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
        """A context in which each edited linear computes W·h + ΔW·h (clause B4)."""

        def add(update: Update, name: str) -> Any:
            return lambda _, inputs, output: update.apply(name, inputs[0], output)

        names = () if update is None else dict.fromkeys((*update.factors, *update.deltas))
        handles = [self.linears[name].register_forward_hook(add(update, name)) for name in names if update is not None]
        try:
            yield
        finally:
            _remove(handles)

    @contextmanager
    def _narrowed(self, slots: Tensor) -> Iterator[None]:
        """A context in which the last layer, after its attention, has only these (B, P) of its B·S tokens: (B, P, h).

        An input with fewer than P repeats its first token. Where no module ends the attention block, all are computed.
        """

        def narrow(_: nn.Module, __: Any, output: Any) -> Any:
            whole, *rest = output if isinstance(output, tuple) else (output,)
            kept = F.embedding(slots, whole.flatten(0, 1))
            return (kept, *rest) if isinstance(output, tuple) else kept

        handles = [] if self.closing is None else [self.closing.register_forward_hook(narrow)]
        try:
            yield
        finally:
            _remove(handles)


def states_at(output: Tensor, places: Places) -> States:
    return States(F.embedding(places.tokens, output), places)


@one_at_a_time
def capture(
    backbone: Backbone,
    states: States,
    loss_of: Callable[[Tensor], Tensor],
    at: Update | None = None,
    differentiable: bool = False,
) -> tuple[Factors, Tensor]:
    """For each edited matrix its input x (B, T, n), and δ (B, T, m), the loss gradient at its output (§3.3, clause E1).

    T is S, but P in the last layer. Padding rows have δ = 0. `loss_of` maps logits (N, V) to the sum of one loss per
    example. x and δ have a graph only if `differentiable`. Also returns the logits; no `.grad` is set.
    """
    checks.refuse(UserError, checks.of_mode())
    taken: dict[str, tuple[Tensor, Tensor]] = {}
    linears = backbone.copy(differentiable).linears

    def keep(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            output = output if output.requires_grad else output.detach().requires_grad_()
            taken[name] = (inputs[0] if differentiable else inputs[0].detach(), output)
            return output

        return hook

    handles = [linear.register_forward_hook(keep(name)) for name, linear in linears.items()]
    try:
        with torch.enable_grad():
            logits = backbone.upper(states, at, differentiable)
            outputs = [taken[name][1] for name in linears]
            deltas = torch.autograd.grad(loss_of(logits), outputs, create_graph=differentiable)
    finally:
        _remove(handles)
    return {name: (taken[name][0], delta) for name, delta in zip(linears, deltas, strict=True)}, logits


def wrap(model: Any, edited: int | Sequence[str] = 3, precision: Precision = "float32") -> Backbone:
    """Cut a loaded model below the edited layers. The model's mode and gradients do not change.

    `edited` is a number of layers from the top (§B.2: the MLPs of the last three) or a list of parameter names.
    ModelError: an architecture that is not supported, a name that does not exist, weights that are not finite, or a
    model whose dropout is active or whose MLPs run in chunks.
    """
    checks.refuse(ModelError, checks.of_wrapping(model, edited, precision, Precision))
    if any(isinstance(module, nn.Dropout) and module.training and module.p > 0 for module in model.modules()):
        raise ModelError("the model is in training mode: dropout changes its answers; call model.eval() first")
    checks.refuse(ModelError, checks.of_model(model))
    broken = [name for name, p in model.named_parameters() if not bool(p.isfinite().all())]
    checks.refuse(ModelError, bool(broken) and f"not finite (NaN or infinite in {broken[0]}); restore the weights")
    layers = layer_stack(model)
    known = [name for layer in layers for name in mlp_names(model, layer)]
    if isinstance(edited, int):
        if not 1 <= edited <= len(layers):
            raise ModelError(f"cannot edit the last {edited} layers: the model has {len(layers)}; give at most that")
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
    except Exception as error:  # an unknown structure may raise anything
        raise unsupported(model) from error
    if not same:
        raise unsupported(model)
    return backbone


@torch.no_grad()
def _same(backbone: Backbone) -> bool:
    model, size, layer = backbone.model, min(backbone.model.config.vocab_size, 20), backbone.layers[-1]
    rows = [tuple((5 * i + 3) % size for i in range(length)) for length in (6, 4)]
    rows = [tuple(i if i != backbone.pad_id else i + 1 for i in row) for row in rows]
    given = list[set[str]]()

    def note(_: nn.Module, args: Any, kwargs: Any) -> None:
        told = inspect.signature(layer.forward).bind(*args, **kwargs).arguments
        told |= told.pop("kwargs", {})
        given.append({name for name, value in told.items() if isinstance(value, (Tensor, tuple))})

    handles = [one.register_forward_pre_hook(note, with_kwargs=True) for one in (backbone.copy().layers[-1], layer)]
    try:
        ours = backbone.upper(backbone.trunk([Input(row, (0, 1)) for row in rows]))
        ids, told = (padded(part, value).to(ours.device) for part, value in ((rows, backbone.pad_id), (_ones(rows), 0)))
        theirs = model(input_ids=ids, attention_mask=told, return_dict=True).logits
    finally:
        _remove(handles)
    theirs = theirs if is_classifier(model) else theirs[:, :2].flatten(0, 1)
    return given[-1] <= given[0] and torch.allclose(ours, theirs, atol=1e-4, rtol=1e-3)


def _ones(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[1] * len(row) for row in rows]


def _remove(handles: Sequence[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
