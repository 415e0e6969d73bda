"""MEND with language anisotropic masks, said as plainly as possible (chapters E and L of the contract).

One edit at a time on a private copy of the raw model, full-size updates, Python loops, torch only. Nothing here is
fast; everything here is meant to be checked by eye. The suite tests it like any other implementation.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from spec_tests.contract import Input, Losses, Masks, Request, Triple

EDITORS = ("mend",)
LAMBDA_REL, LAMBDA_LOC, LAMBDA_MASK = 0.1, 1.0, 1.0
LR_TRANSFORM, LR_INNER, LR_MASKS = 1e-6, 1e-4, 1e-3
INNER_LR = 1e-4
RANK = 1920
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1


@dataclass
class Editor:
    """A frozen copy of the raw model, the trainable values by name, and the optimiser that owns them."""

    model: torch.nn.Module
    edited: list[str]
    languages: list[str]
    masks: Masks
    values: dict[str, Tensor]
    groups: list[list[str]]
    optimizer: torch.optim.Adam


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
) -> Editor:
    if name != "mend":
        raise ValueError(f"unknown editor {name!r}: this module knows mend")
    if masks not in ("none", "language", "shared"):
        raise ValueError(f"unknown kind of masks {masks!r}: none, language or shared")
    raw = copy.deepcopy(model).eval().requires_grad_(False)
    weights = dict(raw.named_parameters())
    for matrix in edited:
        if matrix not in weights:
            raise KeyError(f"the model has no parameter {matrix!r}")
    generator = torch.Generator().manual_seed(seed)
    transform: dict[str, Tensor] = {}
    inner: dict[str, Tensor] = {}
    gates: dict[str, Tensor] = {}
    for matrix in edited:
        m, n = weights[matrix].shape
        like = {"dtype": weights[matrix].dtype}
        for layer in ("first", "second"):
            shared = f"transform.{n}x{m}.{layer}"
            if f"{shared}.v" not in transform:
                rank = min(RANK, n, m)
                v = torch.randn(rank, n + m, generator=generator, **like) / math.sqrt(n + m)
                transform[f"{shared}.v"] = v
                transform[f"{shared}.u"] = torch.zeros(n + m, rank, **like)
                transform[f"{shared}.bias"] = torch.zeros(n + m, **like)
            transform[f"{shared}.scale.{matrix}"] = torch.ones(n + m, **like)
            transform[f"{shared}.shift.{matrix}"] = torch.zeros(n + m, **like)
        start = INNER_LR if inner_lr is None else inner_lr
        inner[f"log_inner_lr.{matrix}"] = torch.tensor(math.log(start), **like)
        if masks != "none":
            rows = len(languages) if masks == "language" else 1
            gates[f"masks.{matrix}.x"] = torch.zeros(rows, n, **like)
            gates[f"masks.{matrix}.delta"] = torch.zeros(rows, m, **like)
    rates = [(transform, LR_TRANSFORM if lr is None else lr), (inner, LR_INNER), (gates, LR_MASKS)]
    values = {key: value.requires_grad_() for group, _ in rates for key, value in group.items()}
    optimizer = torch.optim.Adam([{"params": list(group.values()), "lr": rate} for group, rate in rates if group])
    groups = [list(group) for group, _ in rates if group]
    return Editor(raw, list(edited), list(languages), masks, values, groups, optimizer)


def parameters(editor: Editor) -> dict[str, Tensor]:
    return dict(editor.values)


def mask_parameters(editor: Editor) -> dict[str, dict[str, Tensor]]:
    if editor.masks == "none":
        return {}
    return {
        matrix: {factor: editor.values[f"masks.{matrix}.{factor}"] for factor in ("x", "delta")}
        for matrix in editor.edited
    }


def optimizer_groups(editor: Editor) -> list[list[str]]:
    return [list(group) for group in editor.groups]


# --- the raw model and its gradient -----------------------------------------------------------------------------------


def _logits(editor: Editor, one: Input, update: Edit | None = None) -> Tensor:
    """Logits (P, V) at the input's positions, with W + ΔW in place of W; a classifier has one row for any position."""
    raw = dict(editor.model.named_parameters())
    weights = {matrix: raw[matrix] + delta for matrix, delta in (update or {}).items()}
    ids = torch.tensor([one["input_ids"]])
    output = functional_call(editor.model, weights, kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)})
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
    if language not in editor.languages:
        raise KeyError(f"unknown editing language {language!r}; known are {', '.join(editor.languages)}")
    if editor.masks == "none":
        return rows
    row = editor.languages.index(language) if editor.masks == "language" else 0
    return rows + _gates(editor.values[f"masks.{matrix}.{factor}"][row], generator) * rows


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
    """ΔW = -lr Σ_t outer(δ̃_t, x̃_t) per edited matrix."""
    update = {}
    for matrix, (x, delta) in capture(editor, request).items():
        x_new, delta_new = _transform(editor, matrix, x, delta, request["language"], generator)
        update[matrix] = -editor.values[f"log_inner_lr.{matrix}"].exp() * (delta_new.T @ x_new)
    return update


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
        loc = loc + _divergence(_logits(editor, triple["retain"], update), _logits(editor, triple["retain"]))
    for factors in mask_parameters(editor).values():
        for log_alpha in factors.values():
            mask = mask + torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA)).sum()
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
    editor.optimizer.zero_grad()
    total.backward()
    editor.optimizer.step()
    return parts


# --- chapter L --------------------------------------------------------------------------------------------------------


@torch.enable_grad()
def rel_loss(logits: Tensor, labels: Tensor, mask: Tensor, weight: float) -> tuple[float, Tensor]:
    logits = logits.detach().requires_grad_()
    examples = [F.cross_entropy(logits[b][mask[b]], labels[b][mask[b]]) for b in range(len(logits))]
    loss = weight * torch.stack(examples).mean()
    (gradient,) = torch.autograd.grad(loss, [logits])
    return loss.item(), gradient


@torch.enable_grad()
def loc_loss(edited: Tensor, raw: Tensor, mask: Tensor, weight: float) -> tuple[float, Tensor, None]:
    edited = edited.detach().requires_grad_()
    examples = [_divergence(edited[b][mask[b]], raw[b].detach()[mask[b]]) for b in range(len(edited))]
    loss = weight * torch.stack(examples).mean()
    (gradient,) = torch.autograd.grad(loss, [edited])
    return loss.item(), gradient, None
