"""The training objectives (§2, §3.2, chapter L): reliability, locality, and their sum with the mask penalty."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Direction = Literal["paper", "released"]


def per_example(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over an example's predicted positions: values (B, P), mask (B, P) with False for padding → (B,)."""
    return (values * mask).sum(-1) / mask.sum(-1)


def rel_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """L_rel without λ: cross entropy of logits (B, P, V) against labels (B, P) per example → (B,) (clause L1)."""
    return per_example(F.cross_entropy(logits.movedim(-1, 1), labels, reduction="none"), mask)


def loc_loss(edited: Tensor, raw: Tensor, mask: Tensor, direction: Direction = "paper") -> Tensor:
    """L_loc without λ: KL(edited ‖ raw) of logits (B, P, V) per example → (B,) (clause L2).

    "released" is KL(raw ‖ edited), as in the released code and MEND. The raw side carries no gradient.
    """
    log_edited, log_raw = F.log_softmax(edited, -1), F.log_softmax(raw.detach(), -1)
    first, second = (log_edited, log_raw) if direction == "paper" else (log_raw, log_edited)
    return per_example((first.exp() * (first - second)).sum(-1), mask)


def total_loss(
    rel: Tensor, loc: Tensor, mask: Tensor, lambda_rel: float, lambda_loc: float, lambda_mask: float
) -> dict[str, Tensor]:
    """{"rel", "loc", "mask", "total"}: weighted, averaged over the batch; rel and loc are (B,), mask a scalar (L3)."""
    parts = {"rel": lambda_rel * rel.mean(), "loc": lambda_loc * loc.mean(), "mask": lambda_mask * mask}
    return parts | {"total": torch.stack(tuple(parts.values())).sum()}
