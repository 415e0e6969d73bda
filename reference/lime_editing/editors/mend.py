"""MEND (Mitchell et al. 2022; §B.1): a learned transform of each gradient's rank-1 factors.

One transform per matrix shape, shared by the layers, with a scale and a shift of its own for each matrix. It reads the
concatenated, normalised (x, δ) and is a residual MLP of two rank-limited blocks; the second factor of each block starts
at zero, so that the transform starts as the identity. ΔW = -lr_W · Σ_t outer(δ̃_t, x̃_t) with one learned lr_W.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import Edits, Update

NAME = "mend"


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyper-parameters; the defaults are the paper's (§B.2), the ranks MEND's."""

    rank: int = 1920  # of each residual block
    lr: float = 1e-6  # of the transform
    inner_lr: float = 1e-4  # where the learned inner learning rates start
    inner_lr_lr: float = 1e-4  # their own learning rate, of log lr_W


def init(
    shapes: Mapping[str, tuple[int, int]], width: int, like: Tensor, settings: Settings, seed: int
) -> dict[str, Tensor]:
    """Parameters for matrices {name: (n, m)}, with the dtype and device of `like`.

    "mend.<n>x<m>.*" holds, per shape, the norms (n,) and (m,), per block the factors (d, r) and (r, d) and a bias (d,),
    and for each matrix of the shape a scale and a shift (matrices, d); d = n + m and r = min(rank, d).
    "mend.log_inner_lr" (matrices,) follows the order of `shapes`.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters: dict[str, Tensor] = {}
    for (n, m), names in _by_shape(shapes).items():
        d, r = n + m, min(settings.rank, n + m)
        prefix = f"mend.{n}x{m}"
        parameters[f"{prefix}.norm_x.weight"], parameters[f"{prefix}.norm_x.bias"] = like.new_ones(n), like.new_zeros(n)
        parameters[f"{prefix}.norm_delta.weight"] = like.new_ones(m)
        parameters[f"{prefix}.norm_delta.bias"] = like.new_zeros(m)
        for block in ("block1", "block2"):
            down = torch.randn(d, r, generator=generator, dtype=torch.float64) / math.sqrt(d)
            parameters[f"{prefix}.{block}.down"] = down.to(like)
            parameters[f"{prefix}.{block}.up"] = like.new_zeros(r, d)
            parameters[f"{prefix}.{block}.bias"] = like.new_zeros(d)
            parameters[f"{prefix}.{block}.scale"] = like.new_ones(len(names), d)
            parameters[f"{prefix}.{block}.shift"] = like.new_zeros(len(names), d)
    parameters["mend.log_inner_lr"] = like.new_full((len(shapes),), math.log(settings.inner_lr))
    return parameters


def learning_rates(parameters: Mapping[str, Tensor], settings: Settings) -> dict[str, float]:
    """The learning rate of each parameter; every one is owned once (clause E9)."""
    return {name: settings.inner_lr_lr if name == "mend.log_inner_lr" else settings.lr for name in parameters}


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """The transformed factors of each edit's gradient at the raw parameters."""
    factors = edits.gradient().factors
    shapes = {name: (x.shape[-1], delta.shape[-1]) for name, (x, delta) in factors.items()}
    result = {}
    for i, (name, (x, delta)) in enumerate(factors.items()):
        x_tilde, delta_tilde = transform(parameters, index_in_shape(shapes, name), x, delta)
        # A row without gradient must not act: its normalised form would be the norm's bias, not zero.
        live = (delta != 0).any(-1, keepdim=True)
        lr = parameters["mend.log_inner_lr"][i].exp()
        result[name] = (x_tilde * live, -lr * delta_tilde * live)
    return Update(result)


def transform(parameters: Mapping[str, Tensor], index: int, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """(x̃, δ̃) = g(x, δ) for rows x (…, n) and δ (…, m) of the `index`-th matrix of this shape (clause E6)."""
    n, m = x.shape[-1], delta.shape[-1]
    own = {
        name.removeprefix(f"mend.{n}x{m}."): p for name, p in parameters.items() if name.startswith(f"mend.{n}x{m}.")
    }
    z = torch.cat([normalise(x, own, "norm_x"), normalise(delta, own, "norm_delta")], -1)
    for block in ("block1", "block2"):
        inner = z @ own[f"{block}.down"] @ own[f"{block}.up"] + own[f"{block}.bias"]
        inner = inner * own[f"{block}.scale"][index] + own[f"{block}.shift"][index]
        # clamp, unlike relu, passes a gradient at 0, where the first block's output starts.
        z = z + (inner.clamp(min=0) if block == "block1" else inner)
    return z[..., :n], z[..., n:]


def index_in_shape(shapes: Mapping[str, tuple[int, int]], name: str) -> int:
    """The place of a matrix among those of its shape: the row of its scale and shift."""
    return _by_shape(shapes)[shapes[name]].index(name)


def normalise(rows: Tensor, parameters: Mapping[str, Tensor], name: str) -> Tensor:
    """LayerNorm of each row, effective at any scale: rows are brought to magnitude 1 before its eps can matter."""
    largest = rows.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    return F.layer_norm(rows / largest, rows.shape[-1:], parameters[f"{name}.weight"], parameters[f"{name}.bias"])


def _by_shape(shapes: Mapping[str, tuple[int, int]]) -> dict[tuple[int, int], list[str]]:
    groups: dict[tuple[int, int], list[str]] = {}
    for name, shape in shapes.items():
        groups.setdefault(shape, []).append(name)
    return groups
