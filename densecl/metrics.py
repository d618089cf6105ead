"""Figures that training and evaluation share. Letters: B rows, C classes, E dimension."""

from __future__ import annotations

import torch
from torch import Tensor


def correct_within(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """[B] bool: is the label among the k largest of logits [B, C]? (k is cut to C.)"""
    top = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (top == labels[:, None]).any(1)


@torch.no_grad()
def effective_rank(features: Tensor) -> Tensor:
    """exp(entropy of the normalised singular values) of centred features [B, E] (Roy & Vetterli
    2007); 1 where all rows agree.
    """
    values = torch.linalg.svdvals((features - features.mean(0)).float())
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return torch.special.entr(share).sum().exp()


@torch.no_grad()
def mean_cosine(features: Tensor) -> Tensor:
    """Mean cosine between different rows of features [B, E]; 1 where all point the same way, NaN
    for one row.
    """
    rows = len(features)
    alike = (
        torch.nn.functional.normalize(features.double(), dim=1).sum(0).square().sum()
    )  # of all pairs, a row with itself too
    return (alike - rows) / (rows * (rows - 1)) if rows > 1 else alike * torch.nan
