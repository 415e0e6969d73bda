"""Language-specific masks on the rank-1 factors of the gradient (§3.3, chapters A and B).

Gates are hard concrete (Louizos et al. 2018). Mask parameters are plain tensors, "mask.<matrix>.x" (L, n) and
"mask.<matrix>.delta" (L, m), one row for each language, or a single row where the mask is shared (the control).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import LanguageError
from ..names import Masks, Penalty, Scaling

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
PREFIX = "mask."  # of the parameters' names


def apply_mask(w: Tensor, m: Tensor) -> Tensor:
    """mask(W, m) = W + m ⊙ W (clause A1)."""
    return w + m * w


def gate(
    log_alpha: Tensor, uniforms: Tensor | None = None, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA
) -> Tensor:
    """Gates in [0, 1]: sampled from uniforms in (0, 1) in training, deterministic where None (clause A3)."""
    logits = log_alpha if uniforms is None else (torch.logit(uniforms) + log_alpha) / beta
    return (torch.sigmoid(logits) * (zeta - gamma) + gamma).clamp(0, 1)


def gate_probability(log_alpha: Tensor, beta: float = BETA, gamma: float = GAMMA, zeta: float = ZETA) -> Tensor:
    """The probability that a sampled gate is not zero (clause A4)."""
    return torch.sigmoid(log_alpha - beta * math.log(-gamma / zeta))


def penalty(parameters: Mapping[str, Tensor], normalisation: Penalty = "sum") -> Tensor:
    """Σ_{l,W} E‖m‖₀ over every gate of every language and matrix, or their mean; it has a gradient (clause A5)."""
    gates = [gate_probability(p) for name, p in parameters.items() if name.endswith((".x", ".delta"))]
    total = torch.stack([g.sum() for g in gates]).sum()
    return total if normalisation == "sum" else total / sum(g.numel() for g in gates)


def open_share(parameters: Mapping[str, Tensor]) -> float:
    """The share of gates that are not zero at test time: 0 says that the masks do nothing."""
    gates = torch.cat([gate(p).flatten() for name, p in parameters.items() if name.endswith((".x", ".delta"))])
    return (gates > 0).double().mean().item()


def init_masks(
    shapes: Mapping[str, tuple[int, int]], languages: int, scale: Scaling = "none", like: Tensor | None = None
) -> dict[str, Tensor]:
    """Fresh mask parameters for matrices {name: (n, m)}: log α = 0, and a scale of 1 where it is learned.

    2·Σ(n + m)·L numbers with a learned scale, Σ(n + m)·L without (clause B1).
    """
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


def draw_uniforms(parameters: Mapping[str, Tensor], edits: int, seed: int) -> dict[str, Tensor]:
    """One uniform for each edit and gate, shared by the edit's tokens (clause A3): {name: (E, width)}."""
    generator = torch.Generator().manual_seed(seed)
    draws = {}
    for name, p in parameters.items():
        if name.startswith(PREFIX) and name.endswith((".x", ".delta")):
            u = torch.rand(edits, p.shape[1], generator=generator, dtype=torch.float64)
            draws[name] = u.clamp(1e-6, 1 - 1e-6).to(p, non_blocking=True)
    return draws


def masked(
    parameters: Mapping[str, Tensor],
    name: str,
    rows: Sequence[int],
    values: Tensor,
    uniforms: Mapping[str, Tensor] | None,
) -> Tensor:
    """mask(values, m) for values (E, T, width), with the row of each edit; `name` is "mask.<matrix>.x" or ".delta".

    O(T·width) work per edit: no intermediate has n·m elements (clause B3).
    """
    # Gather before the gate: only the rows in use are computed, so the cost does not grow with the languages.
    index = torch.tensor(rows).to(values.device, non_blocking=True)
    m = gate(parameters[name][index], None if uniforms is None else uniforms[name])
    scale = parameters.get(f"{name}_scale")
    if scale is not None:
        m = m * scale[index]
    return apply_mask(values, m[:, None, :])
