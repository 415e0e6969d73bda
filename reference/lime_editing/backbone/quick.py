"""Copies of a model that compute the same with fewer operations. They share parameters where possible."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def quick(model: Any, in_bf16: bool = False, twice: bool = False) -> Any:
    """A copy that computes queries, keys and values in one product.

    `in_bf16`: its linear maps are in bf16, because autocast casts frozen weights at every use. `twice`: it is twice
    differentiable, which fused attention kernels are not.
    """
    copy = deepcopy(model, {id(p): p for p in model.parameters()})
    for module in list(copy.modules()):
        for name, child in list(module.named_children()):
            if all(isinstance(getattr(child, part, None), nn.Linear) for part in ("query", "key", "value")):
                setattr(module, name, Attention(child, twice))
            elif twice and isinstance(child, nn.LayerNorm):
                setattr(module, name, Norm(child))
    for linear in (module for module in copy.modules() if in_bf16 and isinstance(module, nn.Linear)):
        for name, p in linear.named_parameters(recurse=False):
            setattr(linear, name, nn.Parameter(p.to(torch.bfloat16), requires_grad=False))
    return copy


class Attention(nn.Module):
    def __init__(self, whole: Any, twice: bool) -> None:
        super().__init__()
        parts = (whole.query, whole.key, whole.value)
        self.heads, self.twice = whole.num_attention_heads, twice
        self.joint = nn.Linear(1, 1, device="meta")
        for name in ("weight", "bias"):
            joint = torch.cat([getattr(part, name).detach() for part in parts])
            setattr(self.joint, name, nn.Parameter(joint, requires_grad=False))

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
        b, s, h = hidden.shape
        parts = self.joint(hidden).view(b, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.twice:
            q, k, v = parts.reshape(3, b * self.heads, s, -1).unbind()
            mask = (
                q.new_zeros(1) if attention_mask is None else attention_mask.expand(b, self.heads, -1, s).flatten(0, 1)
            )
            scores = torch.baddbmm(mask, q, k.mT, alpha=q.shape[-1] ** -0.5)
            seen = (scores.softmax(-1) @ v).view(b, self.heads, s, -1)
        else:
            q, k, v = parts.unbind()
            seen = F.scaled_dot_product_attention(q, k, v, attention_mask)
        return seen.transpose(1, 2).reshape(b, s, h), None


class Norm(nn.Module):
    """LayerNorm with a cheaper second derivative with respect to its input; weight and bias are frozen."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        normal: Tensor = _Norm.apply(x.to(self.weight.dtype), self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return normal


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        normal, mean, rstd = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return normal

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _NormBack.apply(gradients[0], *ctx.saved_tensors), None, None, None  # type: ignore[no-untyped-call]


def _through_norm(gradient: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor) -> Tensor:
    back = torch.ops.aten.native_layer_norm_backward
    found: Tensor = back(gradient, x, x.shape[-1:], mean, rstd, weight, None, [True, False, False])[0]
    return found


class _NormBack(torch.autograd.Function):
    """(g, x) ↦ rstd·P(w·g) with P v = v - mean(v) - x̂·mean(x̂·v), which is symmetric, and d x̂ = rstd·P dx."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        back = _through_norm(gradient, x, weight, mean, rstd)
        ctx.save_for_backward(gradient, x, weight, mean, rstd, back)
        return back

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (u,), (gradient, x, weight, mean, rstd, back) = gradients, ctx.saved_tensors
        across, normal = _through_norm(u, x, None, mean, rstd), (x - mean) * rstd
        found = normal * (u * back).sum(-1, keepdim=True)
        found = found.addcmul(across, (normal * weight * gradient).sum(-1, keepdim=True))
        found = found.addcmul(back, (normal * u).sum(-1, keepdim=True))
        return across * weight, found * (rstd / -x.shape[-1]), None, None, None
