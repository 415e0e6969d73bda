"""The four editors and their masks, said as plainly as possible (chapters E and L of the contract).

One edit at a time on a private copy of the raw model, full-size updates, Python loops, torch only. Nothing here is
fast; everything here is meant to be checked by eye. The suite tests it like any other implementation.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from ..contract import Gates, Input, Losses, Masks, Request, Triple

EDITORS = ("mend", "editable_training", "knowledge_editor", "finetuning")
LAMBDA_REL, LAMBDA_LOC, LAMBDA_MASK = 0.1, 1.0, 1.0
LR = {"mend": 1e-6, "editable_training": 5e-5, "knowledge_editor": 5e-5, "finetuning": 5e-6}
LR_INNER, LR_MASKS = 1e-4, 1e-3
INNER_LR = {"mend": 1e-4, "editable_training": 1e-4}
RANK = 1920
#: Steps of fine-tuning, and the width of what KnowledgeEditor reads and thinks with.
STEPS, WIDTH = 100, 24
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


@dataclass
class Editor:
    """A frozen copy of the raw model, the trainable values by name, and the optimiser that owns them."""

    name: str
    model: torch.nn.Module
    edited: list[str]
    languages: list[str]
    masks: Masks
    values: dict[str, Tensor]
    groups: list[list[str]]
    optimizer: torch.optim.Adam | None
    #: Of the fine-tuning of one edit.
    lr: float
    #: Whether KnowledgeEditor reads the desired prediction.
    sees_label: bool
    #: Whether the divergence is KL(raw ‖ edited), and the penalty a mean, as released.
    reversed_kl: bool = False
    mean_penalty: bool = False
    #: Whether L_loc is taken at every token of a sentence, and Finetuning's steps are RMSprop's.
    loc_everywhere: bool = False
    rmsprop: bool = False


Edit = dict[str, Tensor]


# --- making an editor -------------------------------------------------------------------------------------------------


def make_editor(
    name: str,
    model: torch.nn.Module,
    edited: Sequence[str],
    languages: Sequence[str],
    masks: Masks = "none",
    seed: int = 0,
    inner_lr: float | None = None,
    lr: float | None = None,
    rank: int = RANK,
    condition: Literal["input+label", "input"] = "input+label",
    kl_direction: Literal["paper", "released"] = "paper",
    penalty: Literal["sum", "mean"] = "sum",
    mask_scale: Literal["none", "learned"] = "none",
    loc_positions: Literal["mask", "all"] = "mask",
    optimiser: Literal["adam", "rmsprop"] = "adam",
    first_inner_lr: Mapping[str, float] = INNER_LR,
) -> Editor:
    if name not in EDITORS:
        raise ValueError(f"unknown editor {name!r}: this module knows {', '.join(EDITORS)}")
    if masks not in ("none", "language", "shared"):
        raise ValueError(f"unknown kind of masks {masks!r}: none, language or shared")
    if name == "finetuning" and masks != "none":
        raise ValueError(f"finetuning has no masks, and masks={masks!r} were asked for")
    raw = copy.deepcopy(model).eval().requires_grad_(False)
    raw.set_attn_implementation("eager")  # type: ignore[operator]  # fused attention has no second derivative
    weights = dict(raw.named_parameters())
    for matrix in edited:
        if matrix not in weights:
            raise KeyError(f"the model has no parameter {matrix!r}")
    raw_weights = {matrix: weights[matrix] for matrix in edited}
    generator = torch.Generator().manual_seed(seed)
    own: dict[str, Tensor] = {}
    if name == "mend":
        own = _new_transform(raw_weights, generator, rank)
    if name == "editable_training":
        own = {f"trained.{matrix}": weight.clone() for matrix, weight in raw_weights.items()}
    if name == "knowledge_editor":
        own = _new_reader(raw_weights, raw.get_input_embeddings().weight.shape[1], generator)  # type: ignore[operator]
    inner: dict[str, Tensor] = {}
    if name in ("mend", "editable_training"):
        start = math.log(first_inner_lr[name] if inner_lr is None else inner_lr)
        inner = {f"log_inner_lr.{matrix}": weight.new_tensor(start) for matrix, weight in raw_weights.items()}
    rows = {"none": 0, "language": len(languages), "shared": 1}[masks]
    gates = _new_masks(raw_weights, rows, mask_scale == "learned") if rows else {}
    lr = LR[name] if lr is None else lr
    paired = [(group, rate) for group, rate in ((own, lr), (inner, LR_INNER), (gates, LR_MASKS)) if group]
    values = {key: value.requires_grad_() for group, _ in paired for key, value in group.items()}
    steps = [{"params": list(group.values()), "lr": rate} for group, rate in paired]
    return Editor(
        name=name,
        model=raw,
        edited=list(edited),
        languages=list(languages),
        masks=masks,
        values=values,
        groups=[list(group) for group, _ in paired],
        optimizer=torch.optim.Adam(steps) if steps else None,
        lr=lr,
        sees_label=condition == "input+label",
        reversed_kl=kl_direction == "released",
        mean_penalty=penalty == "mean",
        loc_everywhere=loc_positions == "all",
        rmsprop=optimiser == "rmsprop",
    )


def _new_masks(weights: dict[str, Tensor], rows: int, learned: bool) -> dict[str, Tensor]:
    """log α of each factor, and beside it a scale where one is learned."""
    gates: dict[str, Tensor] = {}
    for matrix, weight in weights.items():
        m, n = weight.shape
        for factor, width in (("x", n), ("delta", m)):
            gates[f"masks.{matrix}.{factor}"] = weight.new_zeros(rows, width)
            if learned:
                gates[f"masks.{matrix}.{factor}_scale"] = weight.new_ones(rows, width)
    return gates


def _new_transform(weights: dict[str, Tensor], generator: torch.Generator, most: int) -> dict[str, Tensor]:
    """MEND: per shape two low-rank layers, and per matrix a scale and a shift of each."""
    transform: dict[str, Tensor] = {}
    for matrix, weight in weights.items():
        m, n = weight.shape
        for layer in ("first", "second"):
            shared = f"transform.{n}x{m}.{layer}"
            if f"{shared}.v" not in transform:
                rank = min(most, n, m)
                v = torch.randn(rank, n + m, generator=generator, dtype=weight.dtype) / math.sqrt(n + m)
                transform[f"{shared}.v"] = v
                transform[f"{shared}.u"] = weight.new_zeros(n + m, rank)
                transform[f"{shared}.bias"] = weight.new_zeros(n + m)
            transform[f"{shared}.scale.{matrix}"] = weight.new_ones(n + m)
            transform[f"{shared}.shift.{matrix}"] = weight.new_zeros(n + m)
    return transform


def _new_reader(weights: dict[str, Tensor], width: int, generator: torch.Generator) -> dict[str, Tensor]:
    """KnowledgeEditor: a recurrent cell for each direction of reading, and per matrix a small network for the gates."""
    dtype = next(iter(weights.values())).dtype

    def linear(key: str, inputs: int, outputs: int) -> dict[str, Tensor]:
        weight = torch.randn(outputs, inputs, generator=generator, dtype=dtype) / math.sqrt(inputs)
        return {f"{key}.weight": weight, f"{key}.bias": torch.zeros(outputs, dtype=dtype)}

    reader = linear("reader.forward", width + WIDTH, 3 * WIDTH) | linear("reader.backward", width + WIDTH, 3 * WIDTH)
    for matrix, weight in weights.items():
        reader |= linear(f"hidden.{matrix}", 2 * WIDTH, WIDTH)
        reader |= linear(f"gates.{matrix}", WIDTH, 2 * sum(weight.shape) + 1)
    return reader


def parameters(editor: Editor) -> dict[str, Tensor]:
    return dict(editor.values)


def mask_parameters(editor: Editor) -> dict[str, dict[str, Tensor]]:
    if editor.masks == "none":
        return {}
    parts = ("x", "delta", "x_scale", "delta_scale")
    names = {matrix: {part: f"masks.{matrix}.{part}" for part in parts} for matrix in editor.edited}
    return {
        matrix: {part: editor.values[name] for part, name in of.items() if name in editor.values}
        for matrix, of in names.items()
    }


def optimizer_groups(editor: Editor) -> list[list[str]]:
    return [list(group) for group in editor.groups]


# --- the raw model and its gradient -----------------------------------------------------------------------------------


def _logits(editor: Editor, one: Input, update: Edit | None = None) -> Tensor:
    """Logits (P, V) at the input's positions, with W + ΔW in place of W; a classifier has one row for any position."""
    raw = dict(editor.model.named_parameters())
    return _logits_under(editor, one, {matrix: raw[matrix] + delta for matrix, delta in (update or {}).items()})


def _logits_under(editor: Editor, one: Input, weights: Edit) -> Tensor:
    ids = torch.tensor([one["input_ids"]])
    read = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "token_type_ids" in one:
        read["token_type_ids"] = torch.tensor([one["token_type_ids"]])
    output = functional_call(editor.model, weights, kwargs=read)
    logits = output.logits[0]
    return logits[None] if logits.dim() == 1 else logits[one["positions"]]


def _cross_entropy(logits: Tensor, labels: Sequence[int]) -> Tensor:
    return F.cross_entropy(logits, torch.tensor(labels, dtype=torch.long))


def _divergence(edited: Tensor, raw: Tensor) -> Tensor:
    """KL(edited ‖ raw), a mean over positions."""
    p, q = F.log_softmax(edited, -1), F.log_softmax(raw, -1)
    return (p.exp() * (p - q)).sum(-1).mean()


def capture(editor: Editor, request: Request) -> dict[str, tuple[Tensor, Tensor]]:
    inputs: dict[str, Tensor] = {}
    probes: dict[str, Tensor] = {}

    def watch(matrix: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            inputs[matrix] = args[0][0].detach()
            # The gradient at a zero that is added to the output is the gradient at the output.
            probes[matrix] = torch.zeros_like(output, requires_grad=True)
            return output + probes[matrix]

        return editor.model.get_submodule(matrix.removesuffix(".weight")).register_forward_hook(hook)

    handles = [watch(matrix) for matrix in editor.edited]
    try:
        with torch.enable_grad():
            loss = _cross_entropy(_logits(editor, request), request["labels"])
            deltas = torch.autograd.grad(loss, [probes[matrix] for matrix in editor.edited])
    finally:
        for handle in handles:
            handle.remove()
    rows = {matrix: delta[0] for matrix, delta in zip(editor.edited, deltas, strict=True)}
    alive = {matrix: delta.abs().sum(-1) > 0 for matrix, delta in rows.items()}
    return {matrix: (inputs[matrix][alive[matrix]], rows[matrix][alive[matrix]]) for matrix in editor.edited}


# --- masks and the transform ------------------------------------------------------------------------------------------


def _gates(log_alpha: Tensor, generator: torch.Generator | None) -> Tensor:
    """Hard concrete gates: drawn once from the generator in training, deterministic without one."""
    logit = log_alpha
    if generator is not None:
        u = torch.rand(log_alpha.shape, generator=generator, dtype=log_alpha.dtype).clamp(1e-6, 1 - 1e-6)
        logit = (u.log() - (1 - u).log() + log_alpha) / BETA
    return (torch.sigmoid(logit) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def _mask(editor: Editor, matrix: str, factor: str, rows: Tensor, language: str, generator: Any) -> Tensor:
    if editor.masks == "none":
        return rows
    row = editor.languages.index(language) if editor.masks == "language" else 0
    mask = _gates(editor.values[f"masks.{matrix}.{factor}"][row], generator)
    if f"masks.{matrix}.{factor}_scale" in editor.values:
        mask = mask * editor.values[f"masks.{matrix}.{factor}_scale"][row]
    return rows + mask * rows


def _normalise(rows: Tensor) -> Tensor:
    """LayerNorm of each row, which is first brought to size one: its eps would swallow a gradient."""
    size = rows.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    return F.layer_norm(rows / size, rows.shape[-1:])


def _transform(
    editor: Editor, matrix: str, x: Tensor, delta: Tensor, language: str, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """g(mask(x), mask(δ)): two low-rank residual layers on the normalised rows (x, δ)."""
    x = _normalise(_mask(editor, matrix, "x", x, language, generator))
    delta = _normalise(_mask(editor, matrix, "delta", delta, language, generator))
    n, m = x.shape[-1], delta.shape[-1]
    z = torch.cat([x, delta], -1)
    for layer in ("first", "second"):
        key = f"transform.{n}x{m}.{layer}"
        u, v, bias = (editor.values[f"{key}.{part}"] for part in ("u", "v", "bias"))
        scale, shift = (editor.values[f"{key}.{part}.{matrix}"] for part in ("scale", "shift"))
        step = scale * (z @ v.T @ u.T + bias) + shift
        # A clamp lets the gradient through at 0, where every unit starts; relu would keep the layer there for ever.
        z = z + (step.clamp(min=0) if layer == "first" else step)
    return z[..., :n], z[..., n:]


def _update(editor: Editor, request: Request, generator: torch.Generator | None) -> Edit:
    """ΔW per edited matrix; a generator draws the gates in training."""
    if request["language"] not in editor.languages:
        known = ", ".join(editor.languages)
        raise KeyError(f"unknown editing language {request['language']!r}; known are {known}")
    update = {
        "mend": _mend,
        "editable_training": _editable_training,
        "knowledge_editor": _knowledge_editor,
        "finetuning": _finetuning,
    }[editor.name]
    return update(editor, request, generator)


def _mend(editor: Editor, request: Request, generator: torch.Generator | None) -> Edit:
    """ΔW = -lr Σ_t outer(δ̃_t, x̃_t)."""
    update = {}
    for matrix, (x, delta) in capture(editor, request).items():
        x_new, delta_new = _transform(editor, matrix, x, delta, request["language"], generator)
        update[matrix] = -editor.values[f"log_inner_lr.{matrix}"].exp() * (delta_new.T @ x_new)
    return update


def _masked_gradient(
    editor: Editor, request: Request, weights: Edit, generator: torch.Generator | None, create_graph: bool = False
) -> Edit:
    """∇_W of the request's cross entropy at these weights, times the full mask (1 + m_δ)(1 + m_x)ᵀ."""
    with torch.enable_grad():
        leaves = {matrix: weight.requires_grad_() for matrix, weight in weights.items()}
        loss = _cross_entropy(_logits_under(editor, request, leaves), request["labels"])
        slopes = torch.autograd.grad(loss, list(leaves.values()), create_graph=create_graph)
    gradient = {}
    for matrix, slope in zip(leaves, slopes, strict=True):
        m, n = slope.shape
        ones = {"x": slope.new_ones(n), "delta": slope.new_ones(m)}
        by = {key: _mask(editor, matrix, key, one, request["language"], generator) for key, one in ones.items()}
        gradient[matrix] = by["delta"][:, None] * by["x"][None, :] * slope
    return gradient


def _raw_weights(editor: Editor) -> Edit:
    weights = dict(editor.model.named_parameters())
    return {matrix: weights[matrix].detach().clone() for matrix in editor.edited}


def _editable_training(editor: Editor, request: Request, generator: torch.Generator | None) -> Edit:
    """θ' - lr ∇L(θ'), from θ; in training the step keeps its graph, so that its own derivative is there."""
    raw = _raw_weights(editor)
    trained = {matrix: editor.values[f"trained.{matrix}"] for matrix in editor.edited}
    training = generator is not None
    slopes = _masked_gradient(editor, request, trained, generator, create_graph=training)
    rates = {matrix: editor.values[f"log_inner_lr.{matrix}"].exp() for matrix in editor.edited}
    return {matrix: trained[matrix] - rates[matrix] * slopes[matrix] - raw[matrix] for matrix in editor.edited}


def trained_weights(editor: Editor) -> dict[str, tuple[str, Tensor]]:
    return {matrix: (f"trained.{matrix}", editor.values[f"trained.{matrix}"].detach()) for matrix in editor.edited}


def _knowledge_editor(editor: Editor, request: Request, generator: torch.Generator | None) -> Edit:
    """scale · (∇W ⊙ a + b)."""
    slopes = _masked_gradient(editor, request, _raw_weights(editor), generator)
    update = {}
    for matrix, gate in _read_gates(editor, request).items():
        a, b = torch.outer(*gate["a"]), torch.outer(*gate["b"])
        update[matrix] = gate["scale"] * (slopes[matrix] * a + b)
    return update


def _read_gates(editor: Editor, request: Request) -> dict[str, Gates]:
    """The words of x_e and y_e, read forwards and backwards by a gated recurrent unit (Cho et al. 2014)."""
    words = editor.model.get_input_embeddings().weight.detach()  # type: ignore[operator]
    read = [words[token] for token in request["input_ids"]]
    if editor.sees_label:
        head = getattr(editor.model, "classifier", None)
        # A class is no word; the row of the output layer that speaks for it stands in its place.
        table = words if head is None else [m for m in head.modules() if hasattr(m, "weight")][-1].weight.detach()
        read = read + [table[label] for label in request["labels"]]
    ends = []
    for direction, sequence in (("forward", read), ("backward", read[::-1])):
        weight, bias = (editor.values[f"reader.{direction}.{part}"] for part in ("weight", "bias"))
        state = weight.new_zeros(WIDTH)
        for word in sequence:
            gates = torch.cat([word, state]) @ weight[: 2 * WIDTH].T + bias[: 2 * WIDTH]
            update, reset = torch.sigmoid(gates).split(WIDTH)
            new = torch.tanh(torch.cat([word, reset * state]) @ weight[2 * WIDTH :].T + bias[2 * WIDTH :])
            state = update * state + (1 - update) * new
        ends.append(state)
    found: dict[str, Gates] = {}
    for matrix, raw in _raw_weights(editor).items():
        m, n = raw.shape
        hidden = torch.tanh(F.linear(torch.cat(ends), *(editor.values[f"hidden.{matrix}.{p}"] for p in _LINEAR)))
        out = F.linear(hidden, *(editor.values[f"gates.{matrix}.{p}"] for p in _LINEAR))
        scale, a_free, a_soft, b_free, b_soft = out.split([1, m, n, m, n])
        a, b = (a_free, a_soft.softmax(-1)), (b_free, b_soft.softmax(-1))
        found[matrix] = {"scale": torch.sigmoid(scale[0]), "a": a, "b": b}
    return found


_LINEAR = ("weight", "bias")


@torch.no_grad()
def gates(editor: Editor, request: Request) -> dict[str, Gates]:
    return _read_gates(editor, request)


def _finetuning(editor: Editor, request: Request, _: torch.Generator | None) -> Edit:
    """Adam (Kingma and Ba 2015, algorithm 1), or RMSprop, until the prediction is the desired one."""
    raw = _raw_weights(editor)
    weights = {matrix: weight.clone() for matrix, weight in raw.items()}
    first = {matrix: torch.zeros_like(weight) for matrix, weight in raw.items()}
    second = {matrix: torch.zeros_like(weight) for matrix, weight in raw.items()}
    for t in range(1, STEPS + 1):
        if _logits_under(editor, request, weights).argmax(-1).tolist() == request["labels"]:
            break
        slopes = _masked_gradient(editor, request, weights, None)
        if editor.rmsprop:
            norm = torch.stack([g.square().sum() for g in slopes.values()]).sum().sqrt()
            for matrix, g in slopes.items():
                clipped = g * min(1.0, 100 / norm.item()) if norm else g
                second[matrix] = 0.99 * second[matrix] + 0.01 * clipped**2
                weights[matrix] = (weights[matrix] - editor.lr * clipped / (second[matrix].sqrt() + 1e-8)).detach()
            continue
        for matrix, g in slopes.items():
            first[matrix] = 0.9 * first[matrix] + 0.1 * g
            second[matrix] = 0.999 * second[matrix] + 0.001 * g**2
            m_hat, v_hat = first[matrix] / (1 - 0.9**t), second[matrix] / (1 - 0.999**t)
            weights[matrix] = (weights[matrix] - editor.lr * m_hat / (v_hat.sqrt() + 1e-8)).detach()
    return {matrix: (weights[matrix] - raw[matrix]).detach() for matrix in raw}


@torch.no_grad()
def transform(editor: Editor, matrix: str, x: Tensor, delta: Tensor, language: str) -> tuple[Tensor, Tensor]:
    return _transform(editor, matrix, x, delta, language, None)


# --- editing ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def edit(editor: Editor, requests: Sequence[Request]) -> list[Edit]:
    return [_update(editor, request, None) for request in requests]


def dense(editor: Editor, edits: list[Edit], index: int) -> Edit:
    return dict(edits[index])


@torch.no_grad()
def raw_logits(editor: Editor, inputs: Sequence[Input]) -> list[Tensor]:
    return [_logits(editor, one) for one in inputs]


@torch.no_grad()
def edited_logits(editor: Editor, edits: list[Edit], index: int, inputs: Sequence[Input]) -> list[Tensor]:
    return [_logits(editor, one, edits[index]) for one in inputs]


# --- training ---------------------------------------------------------------------------------------------------------


def _objective(editor: Editor, triples: Sequence[Triple], seed: int) -> tuple[Losses, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rel, loc, mask = torch.zeros(()), torch.zeros(()), torch.zeros(())
    for triple in triples:
        update = _update(editor, triple["edit"], generator)
        rel = rel + _cross_entropy(_logits(editor, triple["update"], update), triple["edit"]["labels"])
        retain = triple["retain"]
        if editor.loc_everywhere and editor.model.get_output_embeddings() is not None:
            retain = {**retain, "positions": list(range(len(retain["input_ids"])))}
        pair = _logits(editor, retain, update), _logits(editor, retain)
        loc = loc + _divergence(*(pair[::-1] if editor.reversed_kl else pair))
    gates = [factors[side] for factors in mask_parameters(editor).values() for side in ("x", "delta")]
    for log_alpha in gates:
        mask = mask + torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA)).sum()
    if editor.mean_penalty and gates:
        mask = mask / sum(log_alpha.numel() for log_alpha in gates)
    rel, loc, mask = LAMBDA_REL * rel / len(triples), LAMBDA_LOC * loc / len(triples), LAMBDA_MASK * mask
    total = rel + loc + mask
    return {"rel": rel.item(), "loc": loc.item(), "mask": mask.item(), "total": total.item()}, total


@torch.enable_grad()
def losses(editor: Editor, triples: Sequence[Triple], seed: int) -> tuple[Losses, dict[str, Tensor | None]]:
    parts, total = _objective(editor, triples, seed)
    gradients = torch.autograd.grad(total, list(editor.values.values()), allow_unused=True)
    return parts, dict(zip(editor.values, gradients, strict=True))


@torch.enable_grad()
def train_step(editor: Editor, triples: Sequence[Triple], seed: int) -> Losses:
    parts, total = _objective(editor, triples, seed)
    assert editor.optimizer is not None, "finetuning trains nothing"
    editor.optimizer.zero_grad()
    total.backward()
    editor.optimizer.step()
    return parts


# --- chapter C --------------------------------------------------------------------------------------------------------


def _trained_shift(editor: Editor) -> Edit:
    """θ' - θ per matrix, which every ΔW of Editable Training holds."""
    if editor.name != "editable_training":
        return {}
    raw = _raw_weights(editor)
    return {matrix: editor.values[f"trained.{matrix}"].detach() - weight for matrix, weight in raw.items()}


def _own(edit_: Edit, shift: Edit) -> Edit:
    return {matrix: delta - shift[matrix] if matrix in shift else delta for matrix, delta in edit_.items()}


@torch.no_grad()
def compose_edits(editor: Editor, edits: Sequence[list[Edit]]) -> list[Edit]:
    shift = _trained_shift(editor)
    total: Edit = {matrix: shift.get(matrix, torch.zeros_like(w)) for matrix, w in _raw_weights(editor).items()}
    for made in edits:
        for one in made:
            for matrix, delta in _own(one, shift).items():
                total[matrix] = total[matrix] + delta
    return [total]


@torch.no_grad()
def edit_after(editor: Editor, before: list[Edit], requests: Sequence[Request]) -> list[Edit]:
    """The same editor on a model whose edited matrices, and θ' with them, have moved."""
    moved = copy.copy(editor)
    moved.model, moved.values = copy.deepcopy(editor.model), dict(editor.values)
    weights = dict(moved.model.named_parameters())
    for matrix, delta in _own(before[0], _trained_shift(editor)).items():
        weights[matrix].data.add_(delta)
        if editor.name == "editable_training":
            moved.values[f"trained.{matrix}"] = editor.values[f"trained.{matrix}"] + delta
    return edit(moved, requests)


def drop_edit(editor: Editor, edits: list[Edit], index: int) -> list[Edit]:
    return compose_edits(editor, [edits[:index] + edits[index + 1 :]])


@torch.no_grad()
def save_edited(editor: Editor, edits: list[Edit], index: int, folder: Path) -> None:
    model = copy.deepcopy(editor.model)
    weights = dict(model.named_parameters())
    for matrix, delta in edits[index].items():
        weights[matrix] += delta
    model.save_pretrained(folder)  # type: ignore[operator]


# --- chapter L --------------------------------------------------------------------------------------------------------


@torch.enable_grad()
def rel_loss(logits: Tensor, labels: Tensor, mask: Tensor, weight: float) -> tuple[float, Tensor]:
    logits = logits.detach().requires_grad_()
    examples = [F.cross_entropy(logits[b][mask[b]], labels[b][mask[b]]) for b in range(len(logits))]
    loss = weight * torch.stack(examples).mean()
    (gradient,) = torch.autograd.grad(loss, [logits])
    return loss.item(), gradient


@torch.enable_grad()
def loc_loss(
    edited: Tensor, raw: Tensor, mask: Tensor, weight: float, reversed_kl: bool = False
) -> tuple[float, Tensor, None]:
    edited = edited.detach().requires_grad_()
    pairs = [(edited[b][mask[b]], raw[b].detach()[mask[b]]) for b in range(len(edited))]
    examples = [_divergence(*(pair[::-1] if reversed_kl else pair)) for pair in pairs]
    loss = weight * torch.stack(examples).mean()
    (gradient,) = torch.autograd.grad(loss, [edited])
    return loss.item(), gradient, None


#: The reading of KnowledgeEditor's released code, declared as such.
blind = SimpleNamespace(**{name: value for name, value in list(globals().items()) if callable(value)})
blind.EDITORS, blind.RULINGS = EDITORS, {"knowledge_editor_condition": "input"}
blind.make_editor = functools.partial(make_editor, condition="input")

#: All alternatives of these chapters at once.
released = SimpleNamespace(**vars(blind))
released.RULINGS = {**blind.RULINGS, "kl_direction": "released", "penalty": "mean", "mask_scale": "learned"}
released.RULINGS |= {"loc_positions": "all", "finetuning_optimiser": "rmsprop", "editable_training_inner_lr": "1e-2"}
released.make_editor = functools.partial(
    make_editor,
    condition="input",
    kl_direction="released",
    penalty="mean",
    mask_scale="learned",
    loc_positions="all",
    optimiser="rmsprop",
    first_inner_lr={**INNER_LR, "editable_training": 1e-2},
)
released.loc_loss = functools.partial(loc_loss, reversed_kl=True)
