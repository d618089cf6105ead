"""InfoNCE against a memory of negatives: its definition, and an exact fast path.

`info_nce_reference` is the definition. `info_nce` computes the same loss and gradients without the
[Q, K] matrix of logits. With

    s+  = q . k / t                                     scaled similarity of the positive
    LSE = logsumexp_j(q . m_j / t)                      over the negatives m_j
    O   = sum_j softmax_j(q . m_j / t) m_j              their softmax-weighted mean
    w   = sigmoid(LSE - s+)                             probability of all negatives

the cross-entropy of the positive among [s+, q . m_1 / t, ...] and its gradients are

    loss     = softplus(LSE - s+)
    dloss/dq = w (O - k) / t
    dloss/dk = -w q / t
    dloss/dt = w (q . k - q . O) / t^2

so LSE and O, one attention of the queries with keys = values = memory (`memory_softmax`), suffice.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from densecl import distributed
from densecl.contrast.memory_softmax import memory_softmax
from densecl.contrast.negative_mask import NegativeMask


class InfoNCEOutput(NamedTuple):
    """Mean InfoNCE loss over the queries, and its diagnostics; all scalars.

    Everything but the loss is without gradient. A mean over nothing is NaN, except the loss, which
    is then 0 so that every rank has the same gradients.
    """

    loss: Tensor
    positive_similarity: Tensor  # mean cosine of queries and keys
    negative_similarity: Tensor  # mean cosine of queries and negatives; NaN without diagnostics
    # Of the queries with negatives, the share whose positive ranks first; NaN without diagnostics.
    pretext_top1: Tensor
    negatives: Tensor  # mean number of negatives per query
    chance: Tensor  # mean of log(1 + negatives): the loss of a uniform guess
    with_negatives: Tensor  # share of the queries that have negatives


def info_nce_reference(
    queries: Tensor,
    keys: Tensor,
    memory: Tensor,
    temperature: float | Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of the positive among [positive, negatives]: the definition of InfoNCE.

    Source: van den Oord et al. 2018, eq. 4; He et al. 2020, eq. 1.

    Args:
        queries, keys: [Q, D], L2-normalised; row i of both is a positive pair.
        memory: [K, D], L2-normalised negatives.
        temperature: scalar.
        mask: bool [Q, K], True where a memory row is not a negative of the query.

    Any float dtype; differentiable in every tensor. Holds the [Q, 1 + K] logits.
    """
    positive = (queries * keys).sum(dim=1, keepdim=True) / temperature  # [Q, 1]
    negative = queries @ memory.T / temperature  # [Q, K]
    if mask is not None:
        negative = negative.masked_fill(mask, -torch.inf)
    logits = torch.cat([positive, negative], dim=1)  # [Q, 1 + K]
    target = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    return F.cross_entropy(logits, target)


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
    """Mean InfoNCE loss of the pairs against the memory, equal to `info_nce_reference`.

    Args:
        queries, keys: [Q, D], L2-normalised fp32; row i of both is a positive pair. Keys receive a
            gradient only if they require one.
        memory: [K, D], L2-normalised fp32; never receives a gradient.
        temperature: scalar, may require a gradient.
        query_ids, memory_ids: [Q] and [K]; a memory row with the id of the query is not a negative.
        query_classes, memory_classes: [Q] and [K]; likewise for the class.
        diagnostics: also compute `negative_similarity` and `pretext_top1`. Without them the fused
            attention of the device does the work.

    A query without negatives has loss 0 and zero gradients; so has an empty batch of queries.
    """
    mask = NegativeMask(query_ids, memory_ids, query_classes, memory_classes)
    return masked_info_nce(queries, keys, memory, temperature, mask, diagnostics)


def masked_info_nce(
    queries: Tensor,
    keys: Tensor,
    memory: Tensor,
    temperature: float | Tensor,
    mask: NegativeMask,
    diagnostics: bool = True,
) -> InfoNCEOutput:
    """`info_nce` with the ids and classes in one value."""
    temperature = torch.as_tensor(temperature, dtype=queries.dtype, device=queries.device)
    softmax = memory_softmax(
        queries.detach(), memory.detach(), temperature.detach(), mask, diagnostics
    )
    with torch.autocast(queries.device.type, enabled=False):  # keeps the dtype of the inputs
        loss = _InfoNCELoss.apply(queries, keys, temperature, softmax.lse, softmax.mean)  # [Q]
        positive = (queries.detach() * keys.detach()).sum(-1)  # [Q]
    negatives = softmax.negative_count  # [Q]
    hardest = softmax.max_cosine  # [Q]
    ranks_first = torch.where(hardest.isfinite(), (positive > hardest).float(), torch.nan)  # [Q]
    return InfoNCEOutput(
        # Without queries the gradients are 0, not None: ranks must all-reduce the same tensors.
        loss=loss.mean() if len(loss) else (queries.sum() + temperature) * 0,
        positive_similarity=positive.mean(),
        negative_similarity=torch.where(
            negatives.sum() > 0, softmax.cosine_sum.sum() / negatives.sum(), torch.nan
        ),
        pretext_top1=ranks_first.nanmean(),
        negatives=negatives.mean(),
        chance=negatives.log1p().mean(),
        with_negatives=(negatives > 0).to(negatives).mean(),
    )


class _InfoNCELoss(torch.autograd.Function):
    """softplus(LSE - s+), [Q], with the closed-form gradients of the module's docstring."""

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
        needs_queries, needs_keys, needs_temperature, *_ = ctx.needs_input_grad
        grad_queries = weight * (mean - keys) if needs_queries else None
        grad_keys = -weight * queries if needs_keys else None
        grad_temperature = None
        if needs_temperature:
            grad_temperature = (weight * queries * (keys - mean)).sum() / temperature
        return grad_queries, grad_keys, grad_temperature, None, None


def weight_by_queries(output: InfoNCEOutput, query_count: int) -> InfoNCEOutput:
    """Scale the means of this rank so that their mean over ranks is the mean over all queries.

    A correspondence filter leaves the ranks unequal numbers of queries. The loss is scaled alike,
    hence its gradient too. With one process the output is returned unchanged.
    """
    world_size = distributed.get_world_size()
    if world_size == 1:
        return output
    negatives = output.negatives
    per_query = torch.stack([torch.ones_like(negatives), negatives, output.with_negatives])
    counts = per_query.nan_to_num() * query_count  # queries, pairs, queries with negatives
    totals = distributed.all_gather(counts)[0].sum(0)
    query_weight, pair_weight, ranked_weight = counts * world_size / totals

    def scale(mean: Tensor, weight: Tensor = query_weight) -> Tensor:
        return torch.where(weight == 0, 0, mean * weight)  # the mean of no query is NaN

    return InfoNCEOutput(
        loss=output.loss * torch.nan_to_num(query_weight),
        positive_similarity=scale(output.positive_similarity),
        negative_similarity=scale(output.negative_similarity, pair_weight),
        pretext_top1=scale(output.pretext_top1, ranked_weight),
        negatives=scale(output.negatives),
        chance=scale(output.chance),
        with_negatives=scale(output.with_negatives),
    )
