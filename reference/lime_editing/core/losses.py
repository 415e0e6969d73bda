"""The training objectives (§2, §3.2, chapter L): reliability, locality, and their sum with the mask penalty."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..names import Direction


def per_example(values: Tensor, example: Tensor, examples: int | None = None) -> Tensor:
    """Means over each example's positions: values (N,), example (N,) in [0, B) and each there at least once → (B,).

    Who knows the number B of examples says it, and a device need not be waited for.
    """
    zeros = values.new_zeros(int(example.max()) + 1 if examples is None else examples)
    return zeros.index_add(0, example, values) / zeros.index_add(0, example, torch.ones_like(values))


def rel_loss(logits: Tensor, labels: Tensor, example: Tensor, examples: int | None = None) -> Tensor:
    """L_rel without λ: cross entropy of logits (N, V) against labels (N,) at the predicted positions → (B,) (L1)."""
    return per_example(F.cross_entropy(logits, labels, reduction="none"), example, examples)


def loc_loss(
    edited: Tensor, raw: Tensor, example: Tensor, direction: Direction = "paper", examples: int | None = None
) -> Tensor:
    """L_loc without λ: KL(edited ‖ raw) of logits (N, V) at the predicted positions → (B,) (clause L2).

    "released" is KL(raw ‖ edited), as in the released code and MEND. The raw side carries no gradient.
    """
    log_edited, log_raw = F.log_softmax(edited, -1), F.log_softmax(raw.detach(), -1)
    first, second = (log_edited, log_raw) if direction == "paper" else (log_raw, log_edited)
    return per_example((first.exp() * (first - second)).sum(-1), example, examples)


def total_loss(
    rel: Tensor, loc: Tensor, mask: Tensor, lambda_rel: float, lambda_loc: float, lambda_mask: float
) -> dict[str, Tensor]:
    """{"rel", "loc", "mask", "total"}: weighted, averaged over the batch; rel and loc are (B,), mask a scalar (L3)."""
    parts = {"rel": lambda_rel * rel.mean(), "loc": lambda_loc * loc.mean(), "mask": lambda_mask * mask}
    return parts | {"total": torch.stack(tuple(parts.values())).sum()}
