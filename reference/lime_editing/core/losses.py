"""The training objectives (§2, §3.2, chapter L): reliability, locality, and their sum with the mask penalty."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..names import Direction


def rel_loss(logits: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    """L_rel without λ, summed over examples (L1): cross entropy of logits (N, V) against labels (N,).

    An example's loss is the mean over its predicted positions: `shares` (N,) are 1 / the number of these.
    """
    return (F.cross_entropy(logits, labels, reduction="none") * shares).sum()


def loc_loss(edited: Tensor, raw: Tensor, shares: Tensor, direction: Direction = "paper") -> Tensor:
    """L_loc without λ, summed over examples (clause L2): KL(edited ‖ raw) of logits (N, V); `shares` as of `rel_loss`.

    "released" is KL(raw ‖ edited), as in the released code and MEND. The raw logits get no gradient.
    """
    log_edited, log_raw = F.log_softmax(edited, -1), F.log_softmax(raw.detach(), -1)
    first, second = (log_edited, log_raw) if direction == "paper" else (log_raw, log_edited)
    return ((first.exp() * (first - second)).sum(-1) * shares).sum()


def total_loss(
    rel: Tensor, loc: Tensor, mask: Tensor, lambda_rel: float, lambda_loc: float, lambda_mask: float
) -> dict[str, Tensor]:
    """{"rel", "loc", "mask", "total"}: weighted; rel and loc are means over the batch, all are scalars (L3)."""
    parts = {"rel": lambda_rel * rel, "loc": lambda_loc * loc, "mask": lambda_mask * mask}
    return parts | {"total": torch.stack(tuple(parts.values())).sum()}
