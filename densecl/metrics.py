"""Metrics that training and evaluation share. B: rows, C: classes, E: dimension."""

import torch
from torch import Tensor


def is_topk_correct(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Bool [B]: True where the label [B] is among the min(k, C) largest of logits [B, C]."""
    topk_labels = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (topk_labels == labels[:, None]).any(1)


@torch.no_grad()
def compute_effective_rank(features: Tensor) -> Tensor:
    """exp(entropy of the normalised singular values) of centred features [B, E].

    1 if all rows are equal. Source: Roy & Vetterli 2007.
    """
    singular_values = torch.linalg.svdvals((features - features.mean(0)).float())
    share = singular_values / singular_values.sum().clamp_min(
        torch.finfo(singular_values.dtype).tiny
    )
    result: Tensor = torch.special.entr(share).sum().exp()
    return result


@torch.no_grad()
def compute_mean_cosine(features: Tensor) -> Tensor:
    """Mean cosine between different rows of features [B, E]; NaN for a single row."""
    rows = len(features)
    unit_rows = torch.nn.functional.normalize(features.double(), dim=1)
    cosine_sum = unit_rows.sum(0).square().sum()  # of all pairs, those of a row with itself too
    return (cosine_sum - rows) / (rows * (rows - 1)) if rows > 1 else cosine_sum * torch.nan
