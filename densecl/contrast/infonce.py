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
from densecl.contrast.memory_softmax import NegativeMask, memory_softmax


class InfoNCEOutput(NamedTuple):
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
    diagnostics: bool = True,
) -> InfoNCEOutput:
    """Mean InfoNCE of L2-normalised fp32 queries [Q, D] with keys [Q, D] against memory [K, D].

    Memory rows whose id (or class) equals the query's are no negatives. A row without negatives has
    loss 0 and zero gradients. Keys get a gradient only if they require one; the memory never does.
    Without `diagnostics` the cosines of the negatives are not looked at one by one, and the
    device's fused attention can do the work.
    """
    temperature = torch.as_tensor(temperature, dtype=queries.dtype, device=queries.device)
    mask = NegativeMask(query_ids, memory_ids, query_classes, memory_classes)
    softmax = memory_softmax(
        queries.detach(), memory.detach(), temperature.detach(), mask, diagnostics
    )
    with torch.autocast(
        queries.device.type, enabled=False
    ):  # compared in the precision they come in
        loss = _InfoNCELoss.apply(queries, keys, temperature, softmax.lse, softmax.mean)
        positive = (queries.detach() * keys.detach()).sum(-1)
    negative_count = softmax.negative_count.sum()
    return InfoNCEOutput(
        loss=loss.mean() if len(loss) else queries.sum() * 0,
        positive_similarity=positive.mean(),
        negative_similarity=torch.where(
            negative_count > 0, softmax.cosine_sum.sum() / negative_count, torch.nan
        ),
        pretext_top1=torch.where(
            softmax.max_cosine.isnan(), torch.nan, (positive > softmax.max_cosine).float()
        ).mean(),
        negatives=softmax.negative_count.mean(),
        chance=softmax.negative_count.log1p().mean(),
    )


def weight_by_queries(output: InfoNCEOutput, query_count: int) -> InfoNCEOutput:
    """The share of this process: its mean over the processes is the mean over all their queries,
    loss and gradient alike.

    A filter leaves the processes unequal numbers of queries. With one process nothing changes.
    """
    if distributed.get_world_size() == 1:
        return output
    local_counts = torch.stack(
        [output.negatives.new_tensor(query_count), torch.nan_to_num(output.negatives * query_count)]
    )
    query_weight, pair_weight = (
        local_counts
        * distributed.get_world_size()
        / torch.stack(distributed.all_gather(local_counts)).sum(0)
    )

    def scale_mean(mean: Tensor, weight: Tensor) -> Tensor:
        return torch.where(
            weight == 0, 0, mean * weight
        )  # the mean of nothing is NaN, here and everywhere

    return InfoNCEOutput(
        loss=output.loss * torch.nan_to_num(query_weight),
        positive_similarity=scale_mean(output.positive_similarity, query_weight),
        negative_similarity=scale_mean(output.negative_similarity, pair_weight),
        pretext_top1=scale_mean(output.pretext_top1, query_weight),
        negatives=scale_mean(output.negatives, query_weight),
        chance=scale_mean(output.chance, query_weight),
    )


class _InfoNCELoss(torch.autograd.Function):
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
        grad_queries = weight * (mean - keys) if ctx.needs_input_grad[0] else None
        grad_keys = -weight * queries if ctx.needs_input_grad[1] else None
        grad_temperature = (
            (weight * queries * (keys - mean)).sum() / temperature
            if ctx.needs_input_grad[2]
            else None
        )
        return grad_queries, grad_keys, grad_temperature, None, None
