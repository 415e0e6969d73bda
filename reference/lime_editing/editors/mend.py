"""MEND (Mitchell et al. 2022; §B.1): a learned transform of each gradient's rank-1 factors.

There is one transform per matrix shape, shared by the layers; each matrix has its own scale and shift. The transform is
a residual MLP of two low-rank blocks on the concatenated, normalised (x, δ). The second factor of each block starts at
zero, so the transform starts as the identity. ΔW = -lr_W · Σ_t outer(δ̃_t, x̃_t) with one learned lr_W per matrix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..updates import Factors, Update

if TYPE_CHECKING:
    from . import Edits

NAME = "mend"
TITLE = "MEND"
TRAINED = True


@dataclass(frozen=True, slots=True)
class Settings:
    """Hyper-parameters; the defaults are the paper's (§B.2), the ranks MEND's."""

    rank: int = 1920  # of each residual block
    lr: float = 1e-6  # of the transform
    inner_lr: float = 1e-4  # where the learned inner learning rates start
    inner_lr_lr: float = 1e-4  # their own learning rate, of log lr_W


def init(raw: Mapping[str, Tensor], width: int, settings: Settings, seed: int) -> dict[str, Tensor]:
    """Parameters for the raw matrices {name: (m, n)}, with their dtype and device.

    "mend.<n>x<m>.*" holds, per shape, the norms (n,) and (m,), per block the factors (d, r) and (r, d) and a bias (d,),
    and for each matrix of the shape a scale and a shift (matrices, d); d = n + m and r = min(rank, d).
    "mend.log_inner_lr" (matrices,) follows the order of `raw`.
    """
    generator, like = torch.Generator().manual_seed(seed), next(iter(raw.values()))
    parameters: dict[str, Tensor] = {}
    for (n, m), names in _by_shape({name: (w.shape[1], w.shape[0]) for name, w in raw.items()}).items():
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
    parameters["mend.log_inner_lr"] = like.new_full((len(raw),), math.log(settings.inner_lr))
    return parameters


def learning_rates(parameters: Mapping[str, Tensor], settings: Any) -> dict[str, float]:
    """The learning rate of each parameter (clause E9)."""
    return {name: settings.inner_lr_lr if name == "mend.log_inner_lr" else settings.lr for name in parameters}


def update(parameters: Mapping[str, Tensor], settings: Settings, edits: Edits) -> Update:
    """The transformed factors of each edit's gradient at the raw parameters."""
    return Update(transformed(parameters, edits.gradient().factors))


def transformed(parameters: Mapping[str, Tensor], factors: Factors) -> Factors:
    """x̃ and -lr·δ̃ for the rows of each matrix; 0 for rows without gradient."""
    rates = dict(zip(factors, parameters["mend.log_inner_lr"].exp().neg().unbind(), strict=True))
    result: dict[str, tuple[Tensor, Tensor]] = {}
    for names in _by_shape({name: (x.shape[-1], d.shape[-1]) for name, (x, d) in factors.items()}).values():
        # The rows of all matrices of a shape are transformed together: the weights are large, the rows few.
        x, delta = (torch.cat([factors[name][side] for name in names], 1) for side in (0, 1))
        tokens, shape = [factors[name][0].shape[1] for name in names], x.shape[:2]
        of = torch.cat([torch.full((size,), i, device=x.device) for i, size in enumerate(tokens)])
        of, x, delta = of.expand(shape).flatten(), x.flatten(0, 1), delta.flatten(0, 1)
        rate = F.embedding(of, torch.stack([rates[name] for name in names])[:, None])
        # A row without gradient must have no effect, but its normalised form is the norm's bias, not zero.
        live = (delta != 0).any(-1)
        if leaves_out(x):
            rows = live.nonzero()[:, 0]
            x, delta = transform(parameters, of[rows], F.embedding(rows, x), F.embedding(rows, delta))
            x, delta = (part.new_zeros(len(of), part.shape[1]).index_copy(0, rows, part) for part in (x, delta))
        else:
            x, delta = transform(parameters, of, x, delta)
            rate = rate * live[:, None]
        parts = (part.view(*shape, -1).split(tokens, 1) for part in (x, rate * delta))
        result |= dict(zip(names, zip(*parts, strict=True), strict=True))
    return {name: result[name] for name in factors}


def leaves_out(rows: Tensor) -> bool:
    """Whether rows without gradient (padding) are left out. On a GPU, finding them would synchronise."""
    return rows.device.type == "cpu"


def transform(parameters: Mapping[str, Tensor], index: int | Tensor, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    """(x̃, δ̃) = g(x, δ) for rows x (…, n) and δ (…, m) of the `index`-th matrix, or each row's, of this shape (E6)."""
    n, m = x.shape[-1], delta.shape[-1]
    own = {
        name.removeprefix(f"mend.{n}x{m}."): p for name, p in parameters.items() if name.startswith(f"mend.{n}x{m}.")
    }
    z = torch.cat([normalise(x, own, "norm_x"), normalise(delta, own, "norm_delta")], -1)
    for block in ("block1", "block2"):
        scale, bias = own[f"{block}.scale"], own[f"{block}.bias"]
        shift = torch.addcmul(own[f"{block}.shift"], bias, scale)
        # Not scale[index]: on a GPU its backward pass adds the many rows of a matrix one by one.
        scale, shift = (F.embedding(index, t) if isinstance(index, Tensor) else t[index] for t in (scale, shift))
        inner = z @ own[f"{block}.down"] @ own[f"{block}.up"] * scale + shift
        # clamp, unlike relu, passes a gradient at 0, where the first block's output starts.
        z = z + (inner.clamp(min=0) if block == "block1" else inner)
    x, delta = z.split([n, m], -1)
    return x, delta


def index_in_shape(shapes: Mapping[str, tuple[int, int]], name: str) -> int:
    """The index of a matrix among those of its shape: the row of its scale and shift."""
    return _by_shape(shapes)[shapes[name]].index(name)


def normalise(rows: Tensor, parameters: Mapping[str, Tensor], name: str) -> Tensor:
    """LayerNorm of each row. Rows are scaled to magnitude 1 first, so that eps has no effect on small rows."""
    largest = rows.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    return F.layer_norm(rows / largest, rows.shape[-1:], parameters[f"{name}.weight"], parameters[f"{name}.bias"])


def _by_shape(shapes: Mapping[str, tuple[int, int]]) -> dict[tuple[int, int], list[str]]:
    groups: dict[tuple[int, int], list[str]] = {}
    for name, shape in shapes.items():
        groups.setdefault(shape, []).append(name)
    return groups
