"""The masks of all matrices, fused into one table: a row for each language, and for each matrix n + m columns."""

import math

import torch
from torch import nn

from .args import ARGS

SHIFT = -2 / 3 * math.log(0.1 / 1.1)


def gates(log_alpha, u=None, beta=2 / 3, gamma=-0.1, zeta=1.1):
    """Hard concrete: sampled where there are uniform draws."""
    s = log_alpha if u is None else (u.log() - (1 - u).log() + log_alpha) / beta
    return (torch.sigmoid(s) * (zeta - gamma) + gamma).clamp(0, 1)


def masked(rows, mask):
    return rows + mask * rows


class MaskTable(nn.Module):
    def __init__(self, shapes):
        super().__init__()
        self.columns, width = {}, 0
        for name, (m, n) in shapes.items():
            self.columns[name] = {"x": slice(width, width + n), "delta": slice(width + n, width + n + m)}
            width += n + m
        rows = len(ARGS.langs) if ARGS.masks == "language" else 1
        self.log_alpha = nn.Parameter(torch.zeros(rows, width))

    def forward(self, name, x, delta, lang, draw=False):
        """One draw for an edit."""
        row = self.log_alpha[ARGS.langs.index(lang) if ARGS.masks == "language" else 0]
        found = []
        for part, rows in (("x", x), ("delta", delta)):
            log_alpha = row[self.columns[name][part]]
            u = torch.rand_like(log_alpha).clamp(1e-6, 1 - 1e-6) if draw else None
            found.append(masked(rows, gates(log_alpha, u)))
        return found

    def penalty(self):
        """The expected number of gates that are not zero."""
        return torch.sigmoid(self.log_alpha + SHIFT).sum()
