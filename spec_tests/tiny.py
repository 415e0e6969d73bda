"""Tiny random models and requests for chapters E and L, and what the suite itself knows about them.

Every model is handed out as a fresh copy, so that an implementation that leaves traces harms its own test only. It is
handed out in the width that --dtype names; what the suite knows of it is computed in float64.
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.func import functional_call
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from .border import Handed, SuiteError
from .contract import Gates, Input, Request, Triple
from .strategies import BOUND

LANGUAGES = ("en", "de", "fr")
CLASSES = 3
_VOCABULARY, _FIRST_WORD, _MASK = 60, 5, 4
_BEGIN_END = dict.fromkeys(("bert", "square", "classifier", "wide", "long", "deep"), (2, 3)) | {"roberta": (0, 2)}


@dataclass(frozen=True)
class Setting:
    """A raw model and the matrices that are edited in it."""

    kind: str
    model: torch.nn.Module
    edited: tuple[str, ...]

    @property
    def classifies(self) -> bool:
        return self.kind == "classifier"

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(n, m) of each edited matrix."""
        weights = dict(self.model.named_parameters())
        return {matrix: (weights[matrix].shape[1], weights[matrix].shape[0]) for matrix in self.edited}


@functools.cache
def _setting(kind: str, dtype: torch.dtype) -> Setting:
    sizes_of = {"square": (16, 16, 2), "wide": (256, 512, 2), "deep": (16, 24, 12)}
    hidden, inner, layers = sizes_of.get(kind, (16, 24, 3))
    sizes = {
        "vocab_size": _VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "max_position_embeddings": 160 if kind == "long" else 40,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        # Wide enough that logits differ between inputs and an edit is felt.
        "initializer_range": 0.3 if hidden < 100 else 0.05,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20230527)
        if kind == "classifier":
            model: torch.nn.Module = BertForSequenceClassification(BertConfig(**sizes, num_labels=CLASSES))
        elif kind == "roberta":
            special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
            # Its eps is that of XLM-R, and not BERT's.
            model = XLMRobertaForMaskedLM(XLMRobertaConfig(**sizes, **special, layer_norm_eps=1e-5))
        else:
            model = BertForMaskedLM(BertConfig(**sizes))
    names = [name for name, _ in model.named_parameters()]
    edited = tuple(
        name
        for layer in ((1, 10) if kind == "deep" else range(layers - 2, layers))
        for name in names
        if f"encoder.layer.{layer}." in name and name.endswith((".output.dense.weight", ".intermediate.dense.weight"))
        if ".attention." not in name
    )
    return Setting(kind, model.eval().to(dtype), edited)


def setting(kind: str = "bert", dtype: torch.dtype | None = None) -> Setting:
    """A copy of bert, square (n = m), classifier, roberta (position ids depend on padding), wide, long or deep.

    Of deep's twelve layers two are edited, whose numbers begin alike.
    """
    made = _setting(kind, dtype or getattr(torch, Handed.width))
    return Setting(kind, copy.deepcopy(made.model), made.edited)


def sure(kind: str, request: Request, loss: float) -> Setting:
    """A bert or classifier whose prediction at the request is desired, and has a cross entropy below `loss`.

    The labels of the request become that prediction.
    """
    world = setting(kind)
    head = "classifier" if world.classifies else "cls.predictions.transform.LayerNorm"
    request["labels"] = logits_of(world.model, request).argmax(-1).tolist()
    while cross_entropy(logits_of(world.model, request), request["labels"]) >= loss:
        with torch.no_grad():
            for value in world.model.get_submodule(head).parameters():
                value.mul_(1.25)
    return world


# --- inputs -----------------------------------------------------------------------------------------------------------


def make_input(kind: str, rng: np.random.Generator, positions: int | None = None, words: int | None = None) -> Input:
    """A random input; a masked language model gets `positions` adjacent [MASK] tokens, a classifier its first token."""
    begin, end = _BEGIN_END[kind]
    words = int(rng.integers(2, 7)) if words is None else words
    tokens = [int(token) for token in rng.integers(_FIRST_WORD, _VOCABULARY, size=words)]
    if kind == "classifier":
        return {"input_ids": [begin, *tokens, end], "positions": [0]}
    positions = int(rng.integers(1, 4)) if positions is None else positions
    start = int(rng.integers(0, words + 1))
    tokens[start:start] = [_MASK] * positions
    return {"input_ids": [begin, *tokens, end], "positions": list(range(start + 1, start + 1 + positions))}


def make_request(
    kind: str,
    rng: np.random.Generator,
    language: str | None = None,
    positions: int | None = None,
    words: int | None = None,
) -> Request:
    one = make_input(kind, rng, positions, words)
    low, high = (0, CLASSES) if kind == "classifier" else (_FIRST_WORD, _VOCABULARY)
    labels = [int(label) for label in rng.integers(low, high, size=len(one["positions"]))]
    return {**one, "labels": labels, "language": language or str(rng.choice(LANGUAGES))}


def make_triple(kind: str, rng: np.random.Generator, language: str | None = None) -> Triple:
    request = make_request(kind, rng, language)
    update = make_input(kind, rng, positions=len(request["labels"]))
    return {"edit": request, "update": update, "retain": make_input(kind, rng)}


# --- what the suite knows ---------------------------------------------------------------------------------------------


def in_float64(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of the model in which the suite computes what it expects."""
    return copy.deepcopy(model).double()


#: Copies of the last models that were asked for, which are never changed; each model is kept beside its copy.
_COPIES: OrderedDict[int, tuple[torch.nn.Module, torch.nn.Module]] = OrderedDict()


def _known_copy(model: torch.nn.Module) -> torch.nn.Module:
    """A copy as the model was when it was first asked for, all of it with gradients."""
    if id(model) not in _COPIES:
        _COPIES[id(model)] = (model, in_float64(model).requires_grad_(True))
    while len(_COPIES) > 8:
        _COPIES.popitem(last=False)
    return _COPIES[id(model)][1]


def logits_of(model: torch.nn.Module, one: Input) -> torch.Tensor:
    """The model's own logits (P, V) for one unpadded input, in float64."""
    ids = torch.tensor([one["input_ids"]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    weights = dict(model.named_parameters())
    if next(iter(weights.values())).dtype == torch.float64:
        output = model(**inputs).logits[0]
    else:
        output = functional_call(model, {name: w.double() for name, w in weights.items()}, kwargs=inputs).logits[0]
    return output[None] if output.dim() == 1 else output[one["positions"]]


def cross_entropy(logits: torch.Tensor, labels: Sequence[int]) -> torch.Tensor:
    """A mean over positions."""
    return -torch.log_softmax(logits, -1)[torch.arange(len(labels)), list(labels)].mean()


def with_update(model: torch.nn.Module, update: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """A copy of the model with W + ΔW, in float64."""
    edited = in_float64(model)
    weights = dict(edited.named_parameters())
    with torch.no_grad():
        for matrix, delta in update.items():
            weights[matrix] += delta
    return edited


def gradients(model: torch.nn.Module, matrices: Sequence[str], request: Request) -> dict[str, torch.Tensor]:
    """Autograd's gradient of the request's cross entropy for each matrix, on a copy of the model."""
    own = _known_copy(model)
    weights = dict(own.named_parameters())
    loss = cross_entropy(logits_of(own, request), request["labels"])
    found = torch.autograd.grad(loss, [weights[matrix] for matrix in matrices])
    return dict(zip(matrices, found, strict=True))


def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p ‖ q) of two logits (P, V), a mean over positions."""
    p, q = p.log_softmax(-1), q.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean()


def rows_with_gradient(
    model: torch.nn.Module, matrices: Sequence[str], request: Request
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Per matrix x (T, n) and δ (T, m) of the request's cross entropy, by backward hooks on a copy of the model."""
    own = _known_copy(model)
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    entered: dict[str, torch.Tensor] = {}

    def watch(matrix: str) -> Any:
        def forward(_: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            entered[matrix] = args[0][0].detach()
            output.register_hook(lambda slope: found.update({matrix: (entered[matrix], slope[0].detach())}))

        return own.get_submodule(matrix.removesuffix(".weight")).register_forward_hook(forward)

    handles = [watch(matrix) for matrix in matrices]
    weights = dict(own.named_parameters())
    loss = cross_entropy(logits_of(own, request), request["labels"])
    torch.autograd.grad(loss, [weights[matrix] for matrix in matrices])
    for handle in handles:
        handle.remove()
    return found


def finetuned(
    model: torch.nn.Module,
    matrices: Sequence[str],
    request: Request,
    lr: float,
    limit: int = 100,
    optimizer: Any = torch.optim.Adam,
    stops: bool = True,
    clip: float | None = None,
) -> list[dict[str, torch.Tensor]]:
    """ΔW after 0, 1, … steps on a copy of the model: at most `limit`, and none once x_e is predicted as desired."""
    own = in_float64(model).requires_grad_(False)
    weights = {matrix: dict(own.named_parameters())[matrix].requires_grad_(True) for matrix in matrices}
    raw = {matrix: weight.detach().clone() for matrix, weight in weights.items()}
    stepper = optimizer(list(weights.values()), lr=lr)
    path = [{matrix: torch.zeros_like(weight) for matrix, weight in raw.items()}]
    while len(path) <= limit:
        logits = logits_of(own, request)
        if stops and logits.argmax(-1).tolist() == request["labels"]:
            break
        stepper.zero_grad()
        cross_entropy(logits, request["labels"]).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(list(weights.values()), clip)
        stepper.step()
        path.append({matrix: weight.detach() - raw[matrix] for matrix, weight in weights.items()})
    return path


def optimiser_of(implementation: Any) -> dict[str, Any]:
    """Whose steps Finetuning takes by its declared ruling, as `finetuned` takes it."""
    released = implementation.ruling("finetuning_optimiser") == "rmsprop"
    return {"optimizer": torch.optim.RMSprop, "clip": 100.0} if released else {}


def rel_after_a_step(
    model: torch.nn.Module,
    trained: Mapping[str, torch.Tensor],
    rates: Mapping[str, float],
    triple: Triple,
    second_order: bool = True,
) -> torch.Tensor:
    """0.1 · CE at x_u after a step of these rates from the trained matrices: a function of them."""
    answer = _answering(model)
    request = triple["edit"]
    loss = cross_entropy(answer(trained, request), request["labels"])
    slopes = torch.autograd.grad(loss, list(trained.values()), create_graph=second_order)
    edited = {matrix: w - rates[matrix] * slope for (matrix, w), slope in zip(trained.items(), slopes, strict=True)}
    return 0.1 * cross_entropy(answer(edited, triple["update"]), request["labels"])


def _answering(model: torch.nn.Module) -> Callable[[Mapping[str, torch.Tensor], Input], torch.Tensor]:
    """The logits of the model under other matrices, as a function that has a second derivative."""
    own = in_float64(model).requires_grad_(False)
    own.set_attn_implementation("eager")  # type: ignore[operator]  # fused attention has no second derivative

    def answer(weights: Mapping[str, torch.Tensor], one: Input) -> torch.Tensor:
        ids = torch.tensor([one["input_ids"]])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        logits = functional_call(own, dict(weights), kwargs=inputs).logits[0]
        return logits[None] if logits.dim() == 1 else logits[one["positions"]]

    return answer


def objective_after_a_step(
    model: torch.nn.Module,
    trained: Mapping[str, torch.Tensor],
    rates: Mapping[str, float],
    triple: Triple,
    direction: str,
    second_order: bool = True,
) -> torch.Tensor:
    """0.1 · CE at x_u plus KL at x_r, after a step of these rates from the trained matrices: a function of them."""
    answer = _answering(model)
    request = triple["edit"]
    loss = cross_entropy(answer(trained, request), request["labels"])
    slopes = torch.autograd.grad(loss, list(trained.values()), create_graph=second_order)
    edited = {matrix: w - rates[matrix] * slope for (matrix, w), slope in zip(trained.items(), slopes, strict=True)}
    rel = cross_entropy(answer(edited, triple["update"]), request["labels"])
    new, raw = (answer(weights, triple["retain"]) for weights in (edited, {}))
    return 0.1 * rel + (divergence(raw, new) if direction == "released" else divergence(new, raw))


def located(implementation: Any, kind: str, x: Input) -> Input:
    """A retain input with the positions at which L_loc is taken: the predicted ones, or by declared ruling all."""
    everywhere = implementation.ruling("loc_positions") == "all" and kind != "classifier"
    return {**x, "positions": list(range(len(x["input_ids"])))} if everywhere else x


def layer_norm(rows: torch.Tensor) -> torch.Tensor:
    """Rows with mean 0 and variance 1."""
    centred = rows - rows.mean(-1, keepdim=True)
    return centred / centred.square().mean(-1, keepdim=True).sqrt()


def snapshot(model: torch.nn.Module) -> dict[str, Any]:
    """Everything of a model that an edit must leave alone."""
    return {
        "tensors": {name: value.detach().clone() for name, value in model.state_dict(keep_vars=True).items()}
        | {name: value.detach().clone() for name, value in model.named_buffers()},
        "modes": [module.training for module in model.modules()],
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names of what differs between two snapshots, bit for bit."""
    changed = [name for name, old in before["tensors"].items() if not torch.equal(old, after["tensors"][name])]
    return changed + (["training flags"] if before["modes"] != after["modes"] else [])


# --- on editors -------------------------------------------------------------------------------------------------------


#: Options under which an edit of a tiny model is felt.
FELT: dict[str, dict[str, float]] = {
    "mend": {"inner_lr": 0.01},
    "editable_training": {"inner_lr": 0.01},
    "knowledge_editor": {},
    "finetuning": {"lr": 0.03},
}


#: How editors were made, by their identity; each is kept as long as it is known, so that no other has its place.
_MADE: OrderedDict[int, tuple[Any, tuple[Any, ...], dict[str, Any]]] = OrderedDict()


def make(implementation: Any, name: str, world: Setting, masks: str = "none", **options: Any) -> Any:
    languages = options.pop("languages", LANGUAGES)
    arguments = (name, world.model, world.edited, languages)
    editor = implementation.make_editor(*arguments, masks=masks, **options)
    _MADE[id(editor)] = (editor, arguments, {"masks": masks, **options})
    while len(_MADE) > 16:
        _MADE.popitem(last=False)
    return editor


def make_mend(implementation: Any, world: Setting, masks: str = "none", **options: Any) -> Any:
    return make(implementation, "mend", world, masks, **options)


def make_felt(implementation: Any, name: str, world: Setting, masks: str = "none", **options: Any) -> Any:
    strong = dict(FELT[name])
    if name == "finetuning" and implementation.ruling("finetuning_optimiser") == "rmsprop":
        # Its first step is ten times as long as its learning rate; at Adam's, steps follow from rounding.
        strong["lr"] /= 10
    return make(implementation, name, world, masks, **{**strong, **options})


def shifts(implementation: Any, editor: Any, name: str, world: Setting) -> dict[str, torch.Tensor]:
    """θ' - θ per matrix: what training did to the model itself, which only Editable Training does."""
    if name != "editable_training":
        return {}
    raw = raw_weights(world)
    return {
        matrix: value.detach() - raw[matrix] for matrix, (_, value) in implementation.trained_weights(editor).items()
    }


def raw_weights(world: Setting) -> dict[str, torch.Tensor]:
    """The edited matrices of the raw model, in float64."""
    weights = dict(world.model.named_parameters())
    return {matrix: weights[matrix].detach().double() for matrix in world.edited}


def step(implementation: Any, editor: Any, triples: Sequence[Triple], seed: int) -> Any:
    """One optimiser step down the objective of these triples, and the losses that were reported before it.

    An implementation that accumulates over several calls gets the same triples as often.
    """
    found = [implementation.train_step(editor, triples, seed=seed) for _ in range(accumulated(implementation))]
    return found[-1]


def accumulated(implementation: Any) -> int:
    """How many calls of train_step make an optimiser step."""
    return int(getattr(implementation, "accumulates", 1))


def masked_gradient(
    model: torch.nn.Module, arrays: Mapping[str, Mapping[str, torch.Tensor]], request: Request, row: int
) -> dict[str, torch.Tensor]:
    """Per matrix Σ_t outer(mask(δ_t), mask(x_t)) at the model's parameters, with the gates of one mask row."""
    found = {}
    for matrix, rows in rows_with_gradient(model, list(arrays), request).items():
        x, delta = rows
        if arrays[matrix]:
            x, delta = (
                value * (1 + gate_values(arrays[matrix], factor, row)) for factor, value in (("x", x), ("delta", delta))
            )
        found[matrix] = outer_sum(x, delta)
    return found


@torch.no_grad()
def perturb(implementation: Any, editor: Any, seed: int = 1, scale: float = 0.1) -> None:
    """Move every number of the editor off its start; inner learning rates keep their values."""
    generator = torch.Generator().manual_seed(seed)
    rates = inner_rates(implementation, editor)
    for name, value in sorted(implementation.parameters(editor).items()):
        noise = scale * torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)
        if name in rates:
            noise = noise.masked_fill(rates[name], 0)
        elif not rates and value.numel() <= 8:
            continue
        value.add_(noise)


@torch.enable_grad()
def inner_rates(implementation: Any, editor: Any) -> dict[str, torch.Tensor]:
    """Where inner learning rates are among the parameters: what differs if they start otherwise.

    {} for an editor that has none, and for one that is not made alike under one seed.
    """
    made = _MADE.get(id(editor))
    if made is None or made[1][0] not in ("mend", "editable_training"):
        return {}
    _, arguments, options = made
    asked = options.get("inner_lr") or 1e-4
    one, other = (
        implementation.parameters(implementation.make_editor(*arguments, **{**options, "inner_lr": rate}))
        for rate in (asked, 3 * asked)
    )
    found = {name: value.detach() != other[name].detach() for name, value in one.items()}
    few = 0 < sum(int(places.sum()) for places in found.values()) <= 8 * len(arguments[2])
    return found if few else {}


@torch.no_grad()
def set_masks(implementation: Any, editor: Any, seed: int = 2) -> None:
    """Spread log α within ±log 100, so that closed, open and half-open gates occur; a learned scale beside it."""
    generator = torch.Generator().manual_seed(seed)
    for _, arrays in sorted(implementation.mask_parameters(editor).items()):
        for _, value in sorted(arrays.items()):
            spread = 2 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.copy_(spread.clamp(-BOUND, BOUND).to(value.dtype))


@torch.no_grad()
def close_gates(implementation: Any, editor: Any, at: float = -BOUND) -> None:
    """Gates of test time are zero at -log 100, where an implementation may hold log α; sampled ones far below it."""
    for arrays in implementation.mask_parameters(editor).values():
        arrays["x"].fill_(at)
        arrays["delta"].fill_(at)


@torch.no_grad()
def mask_places(implementation: Any, editor: Any) -> dict[tuple[str, str], tuple[str, torch.Tensor]]:
    """Where each mask is among the parameters: the name of a tensor there, and the places in it, laid out as the mask.

    Masks may be tensors of their own, parts of one table, or of one vector of all parameters: each number of a mask is
    marked, and looked for. Errors: SuiteError where `mask_parameters` are not live parts of `parameters`.
    """
    masks = implementation.mask_parameters(editor)
    arrays = {(matrix, factor): value for matrix, factors in masks.items() for factor, value in factors.items()}
    before = {name: value.detach().clone() for name, value in implementation.parameters(editor).items()}
    kept = {key: value.detach().clone() for key, value in arrays.items()}
    count = sum(value.numel() for value in arrays.values())
    # Different numbers in any width, and within ±log 100.
    marks = (torch.arange(count, dtype=torch.float64) * 2.0**-18 - 4.123).float()
    start, wanted = 0, {}
    for key, value in arrays.items():
        wanted[key] = torch.arange(start, start + value.numel()).reshape(value.shape)
        value.copy_(marks[wanted[key]].to(value.dtype))
        start += value.numel()
    found: dict[int, tuple[str, int]] = {}
    place_of = {float(mark): place for place, mark in enumerate(marks)}
    for name, value in implementation.parameters(editor).items():
        for index in (value.detach() != before[name]).flatten().nonzero().flatten().tolist():
            mark = place_of.get(float(value.detach().flatten()[index]))
            if mark is not None:
                found[mark] = (name, index)
    for key, value in arrays.items():
        value.copy_(kept[key])
    if len(found) < count:
        raise SuiteError("`mask_parameters` gives tensors that are no live parts of those that `parameters` gives")
    places = {}
    for key, numbers in wanted.items():
        names = {found[mark][0] for mark in numbers.flatten().tolist()}
        if len(names) > 1:
            raise SuiteError(f"the mask {key} is cut up over the parameters {sorted(names)}")
        index = torch.tensor([found[mark][1] for mark in numbers.flatten().tolist()], dtype=torch.long)
        places[key] = (names.pop(), index.reshape(numbers.shape))
    return places


@torch.no_grad()
def weight_places(implementation: Any, editor: Any, world: Setting, matrix: str) -> torch.Tensor:
    """Where θ' of a matrix is in the tensor by which it is trained: flat places (m, n).

    That tensor is θ' or its difference from θ, alone or among others, once the editor was moved off its start.
    """
    name, trained = implementation.trained_weights(editor)[matrix]
    live = implementation.parameters(editor)[name].detach().double()
    if live.shape == trained.shape:
        return torch.arange(live.numel()).reshape(live.shape)
    flat = live.flatten()
    for wanted in (trained, trained - raw_weights(world)[matrix]):
        off = (flat[None, :] - wanted.flatten()[:, None]).abs()
        if float(off.min(1).values.max()) < 1e-6:
            return off.argmin(1).reshape(trained.shape)
    raise SuiteError(f"`trained_weights` says that {matrix} is trained through {name}, which does not hold it")


def gate_values(arrays: Mapping[str, torch.Tensor], factor: str, row: int) -> torch.Tensor:
    """The gates of test time (A3), times the learned scale where there is one (A2)."""
    gates = (torch.sigmoid(arrays[factor][row].detach().double()) * 1.2 - 0.1).clamp(0, 1)
    scale = arrays.get(f"{factor}_scale")
    return gates if scale is None else gates * scale[row].detach().double()


def conditioned(gates: Gates, gradient: torch.Tensor) -> torch.Tensor:
    """KnowledgeEditor's ΔW = scale · (∇W ⊙ a + b)."""
    a, b = (torch.outer(*(vector.detach() for vector in gates[which])) for which in ("a", "b"))  # type: ignore[literal-required]
    return torch.as_tensor(gates["scale"]).detach() * (gradient * a + b)


def outer_sum(x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Σ_t outer(δ_t, x_t): (m, n)."""
    total = torch.zeros(delta.shape[-1], x.shape[-1], dtype=x.dtype)
    for x_t, delta_t in zip(x, delta, strict=True):
        total = total + torch.outer(delta_t, x_t)
    return total


def rate(update: torch.Tensor, direction: torch.Tensor) -> float:
    """The c of ΔW = -c · direction, by least squares."""
    return -float((update * direction).sum() / direction.square().sum())


def assert_close(found: torch.Tensor, expected: torch.Tensor, what: str, rtol: float = 1e-6, atol: float = 0.0) -> None:
    """Equal to tolerance, with a message that begins with what is compared."""
    found, expected = found.detach().double(), expected.detach().double()
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol, msg=lambda text: f"{what}: {text}")


@contextmanager
def one_thread() -> Iterator[None]:
    """Small matrices are slower on two threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
