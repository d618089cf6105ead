"""InfoNCE against a frozen memory, in closed form. Letters: Q queries, K memory, D dimension.

With LSE = logsumexp_j(q.m_j / t) and O = softmax(q.M / t) M (one attention with keys = values =
memory) and s+ = q.k / t:

loss = softplus(LSE - s+) dloss/dq = w (O - k) / t,   dloss/dk = -w q / t,   dloss/dt = w (q.k -
q.O) / t^2,   w = sigmoid(LSE - s+)

which equals cross-entropy over the concatenated logits [s+, q.m_1 / t, ...] (van den Oord et al.
2018; He et al. 2020).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from densecl import distributed
from densecl.contrast.memory_softmax import Ids, attend


class Contrast(NamedTuple):
    """Mean loss, and what to watch, as 0-dim tensors."""

    loss: Tensor
    positive_similarity: Tensor  # mean cosine of the positives
    negative_similarity: Tensor  # mean cosine of the negatives that count; NaN where not watched
    pretext_top1: (
        Tensor  # share of queries whose positive beats every negative; NaN where not watched
    )
    negatives: Tensor  # mean number of negatives a query has
    chance: Tensor  # mean loss of guessing: log(1 + negatives)


def info_nce(
    queries: Tensor,
    keys: Tensor,
    memory: Tensor,
    temperature: float | Tensor,
    *,
    query_ids: Tensor | None = None,
    memory_ids: Tensor | None = None,
    query_classes: Tensor | None = None,
    memory_classes: Tensor | None = None,
    watch: bool = True,
) -> Contrast:
    """Mean InfoNCE of L2-normalised fp32 queries [Q, D] with keys [Q, D] against memory [K, D].

    Memory rows whose id (or class) equals the query's are no negatives. A row without negatives has
    loss 0 and zero gradients. Keys get a gradient only if they require one; the memory never does.
    Without `watch` the cosines of the negatives are not looked at one by one, and the device's
    fused attention can do the work.
    """
    temperature = torch.as_tensor(temperature, dtype=queries.dtype, device=queries.device)
    ids = Ids(query_ids, memory_ids, query_classes, memory_classes)
    seen = attend(queries.detach(), memory.detach(), temperature.detach(), ids, watch)
    with torch.autocast(
        queries.device.type, enabled=False
    ):  # compared in the precision they come in
        loss = _Loss.apply(queries, keys, temperature, seen.lse, seen.mean)
        positive = (queries.detach() * keys.detach()).sum(-1)
    count = seen.negatives.sum()
    return Contrast(
        loss=loss.mean() if len(loss) else queries.sum() * 0,
        positive_similarity=positive.mean(),
        negative_similarity=torch.where(count > 0, seen.total.sum() / count, torch.nan),
        pretext_top1=torch.where(
            seen.hardest.isnan(), torch.nan, (positive > seen.hardest).float()
        ).mean(),
        negatives=seen.negatives.mean(),
        chance=seen.negatives.log1p().mean(),
    )


def share_of_mean(contrast: Contrast, queries: int) -> Contrast:
    """The share of this process: its mean over the processes is the mean over all their queries,
    loss and gradient alike.

    A filter leaves the processes unequal numbers of queries. With one process nothing changes.
    """
    if distributed.size() == 1:
        return contrast
    own = torch.stack(
        [contrast.negatives.new_tensor(queries), torch.nan_to_num(contrast.negatives * queries)]
    )
    queries_share, pairs_share = (
        own * distributed.size() / torch.stack(distributed.every(own)).sum(0)
    )

    def of(mean: Tensor, share: Tensor) -> Tensor:
        return torch.where(
            share == 0, 0, mean * share
        )  # the mean of nothing is NaN, here and everywhere

    return Contrast(
        loss=contrast.loss * torch.nan_to_num(queries_share),
        positive_similarity=of(contrast.positive_similarity, queries_share),
        negative_similarity=of(contrast.negative_similarity, pairs_share),
        pretext_top1=of(contrast.pretext_top1, queries_share),
        negatives=of(contrast.negatives, queries_share),
        chance=of(contrast.chance, queries_share),
    )


class _Loss(torch.autograd.Function):
    """softplus(LSE - s+) with the closed-form gradients of the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, temperature: Tensor, lse: Tensor, mean: Tensor
    ) -> Tensor:
        margin = lse - (queries * keys).sum(-1) / temperature  # [Q]
        ctx.save_for_backward(queries, keys, temperature, mean, margin.sigmoid())
        return F.softplus(margin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, temperature, mean, weight = ctx.saved_tensors
        weight = (weight * upstream[0])[:, None] / temperature  # [Q, 1]
        to_queries = weight * (mean - keys) if ctx.needs_input_grad[0] else None
        to_keys = -weight * queries if ctx.needs_input_grad[1] else None
        to_temperature = (
            (weight * queries * (keys - mean)).sum() / temperature
            if ctx.needs_input_grad[2]
            else None
        )
        return to_queries, to_keys, to_temperature, None, None
