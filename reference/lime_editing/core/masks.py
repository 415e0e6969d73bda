"""Language-specific masks on the rank-1 factors of the gradient (§3.3, chapters A and B).

Gates are hard concrete (Louizos et al. 2018). Mask parameters are plain tensors, "mask.<matrix>.x" (L, n) and
"mask.<matrix>.delta" (L, m), one row for each language, or a single row if the mask is shared (the control).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import LanguageError
from ..names import Masks, Penalty, Scaling
from ..updates import Factors

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
LARGEST = math.log(100)  # the bound of |log α| when it is clamped
PREFIX = "mask."  # of the parameters' names


def clamp(parameters: Mapping[str, Tensor]) -> None:
    """Clamp log α of all masks to ±log 100, in place (clause A3)."""
    with torch.no_grad():
        for log_alpha in _of_kind(parameters).values():
            log_alpha.clamp_(-LARGEST, LARGEST)


def apply_mask(w: Tensor, m: Tensor) -> Tensor:
    """mask(W, m) = W + m ⊙ W (clause A1)."""
    return w * (1 + m)


def gate(
    log_alpha: Tensor, uniforms: Tensor | None = None, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> Tensor:
    """Gates in [0, 1]: sampled with uniforms in (0, 1), as in training, or deterministic without (clause A3)."""
    logits = log_alpha if uniforms is None else (torch.logit(uniforms) + log_alpha) / beta
    return (torch.sigmoid(logits) * (zeta - gamma) + gamma).clamp(0, 1)


def gate_probability(log_alpha: Tensor, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA) -> Tensor:
    """The probability that a sampled gate is not zero (clause A4)."""
    return torch.sigmoid(log_alpha - beta * math.log(-gamma / zeta))


def penalty(log_alphas: Tensor, normalisation: Penalty = "sum") -> Tensor:
    """Σ_{l,W} E‖m‖₀ over every gate of every language and matrix, or their mean; it has a gradient (clause A5)."""
    gates = gate_probability(log_alphas)
    return gates.sum() if normalisation == "sum" else gates.mean()


def open_share(parameters: Mapping[str, Tensor]) -> float:
    """The share of gates that are not zero at test time. At 0 the masks have no effect."""
    return (gate(side_by_side(parameters)) > 0).double().mean().item()


def init_masks(
    shapes: Mapping[str, tuple[int, int]], languages: int, scale: Scaling = "none", like: Tensor | None = None
) -> dict[str, Tensor]:
    """Initial masks of matrices {name: (n, m)}: log α = 0, and a scale of 1 if it is learned (clause B1)."""
    like = torch.zeros(()) if like is None else like
    parameters = {}
    for name, (n, m) in shapes.items():
        for part, width in (("x", n), ("delta", m)):
            parameters[f"{PREFIX}{name}.{part}"] = like.new_zeros(languages, width)
            if scale == "learned":
                parameters[f"{PREFIX}{name}.{part}_scale"] = like.new_ones(languages, width)
    return parameters


def mask_rows(requests: Sequence[str], languages: Sequence[str], masks: Masks) -> list[int]:
    """The mask row of each edit: that of its editing language (clause A6). LanguageError: an unknown one (A10)."""
    for language in requests:
        if language not in languages:
            raise LanguageError(language, languages, "to this editor")
    return [0 if masks == "shared" else languages.index(language) for language in requests]


def draw_uniforms(parameters: Mapping[str, Tensor], edits: int, seed: int) -> Tensor:
    """One uniform for each edit and gate, shared by the edit's tokens (clause A3): (E, gates), on the host."""
    known, generator = list(_of_kind(parameters).values()), torch.Generator().manual_seed(seed)
    sizes = [edits * p.shape[1] for p in known]
    drawn = torch.rand(sum(sizes), generator=generator, dtype=torch.float64).clamp_(1e-6, 1 - 1e-6).to(known[0].dtype)
    # The order of the draws is part of the result: matrix by matrix, x before δ.
    parts = np.split(drawn.numpy(), np.cumsum(sizes)[:-1])
    return torch.from_numpy(np.concatenate([part.reshape(edits, -1) for part in parts], 1))


def side_by_side(parameters: Mapping[str, Tensor], rows: Tensor | None = None, kind: str = "") -> Tensor:
    """log α of all matrices (L, gates), x then δ of each, or of `rows` (E, gates). `kind` "_scale": the scales."""
    parts = _of_kind(parameters, kind).values()
    return torch.cat([p if rows is None else F.embedding(rows, p) for p in parts], 1)


def masked(factors: Factors, m: Tensor) -> Factors:
    """x (E, T, n) and δ (E, T, m) of each matrix with masks m (E, gates). No intermediate has n·m elements (B3)."""
    each = iter((1 + m[:, None]).split([t.shape[-1] for pair in factors.values() for t in pair], -1))
    return {matrix: (x * next(each), delta * next(each)) for matrix, (x, delta) in factors.items()}


def _of_kind(parameters: Mapping[str, Tensor], kind: str = "") -> dict[str, Tensor]:
    ends = (f".x{kind}", f".delta{kind}")
    return {name: p for name, p in parameters.items() if name.startswith(PREFIX) and name.endswith(ends)}
