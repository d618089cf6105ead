"""InfoNCE against a frozen memory, without the matrix of logits. Letters: Q queries, K memory, D dimension.

With LSE = logsumexp_j(q.m_j / t) and O = softmax(q.M / t) M (one attention with keys = values = memory) and s+ = q.k / t:

    loss = softplus(LSE - s+)
    dloss/dq = w (O - k) / t,   dloss/dk = -w q / t,   dloss/dt = w (q.k - q.O) / t^2,   w = sigmoid(LSE - s+)

which equals cross-entropy over the concatenated logits [s+, q.m_1 / t, ...] (van den Oord et al. 2018; He et al. 2020).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 1024  # queries and memory rows scored at a time: bounds the logits held, and keeps them in a CPU's cache


class Contrast(NamedTuple):
    """Mean loss, and what to watch, as 0-dim tensors."""

    loss: Tensor
    positive_similarity: Tensor  # mean cosine of the positives
    negative_similarity: Tensor  # mean cosine of the negatives that count
    pretext_top1: Tensor  # share of queries whose positive beats every negative
    negatives: Tensor  # mean number of negatives a query has


class Attended(NamedTuple):
    """The softmax of each query over the negatives it has."""

    lse: Tensor  # [Q] of the scaled logits; -inf without negatives
    mean: Tensor  # [Q, D] softmax-weighted memory; 0 without negatives
    hardest: Tensor  # [Q] largest cosine; -inf without negatives
    total: Tensor  # [Q] sum of cosines
    negatives: Tensor  # [Q] how many


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
) -> Contrast:
    """Mean InfoNCE of L2-normalised fp32 queries [Q, D] with keys [Q, D] against memory [K, D].

    Memory rows whose id (or class) equals the query's are no negatives. A row without negatives has loss 0 and zero
    gradients. Keys get a gradient only if they require one; the memory never does.
    """
    temperature = torch.as_tensor(temperature, dtype=queries.dtype, device=queries.device)
    ids = _Ids(query_ids, memory_ids, query_classes, memory_classes)
    with torch.autocast(queries.device.type, enabled=False):  # compared in the precision they come in
        seen = attend(queries.detach(), memory.detach(), temperature.detach(), ids)
        loss = _Loss.apply(queries, keys, temperature, seen.lse, seen.mean)
        positive = (queries.detach() * keys.detach()).sum(-1)
    return Contrast(
        loss=loss.mean() if len(loss) else queries.sum() * 0,
        positive_similarity=positive.mean(),
        negative_similarity=seen.total.sum() / seen.negatives.sum(),
        pretext_top1=(positive > seen.hardest).float().mean(),
        negatives=seen.negatives.mean(),
    )


class _Ids(NamedTuple):
    """A memory row whose image (or class) is the query's is no negative of it."""

    query_ids: Tensor | None
    memory_ids: Tensor | None
    query_classes: Tensor | None
    memory_classes: Tensor | None

    def same(self, queries: slice, rows: slice) -> Tensor | None:
        """[queries, rows] bool, or None where no row is left out: then no mask need be built."""
        found = None
        for q, m in ((self.query_ids, self.memory_ids), (self.query_classes, self.memory_classes)):
            if q is None or m is None:
                continue
            # Looking first pays on a CPU; elsewhere it would wait for the device.
            if m.is_cpu and not torch.isin(m[rows], q[queries]).any():
                continue
            same = q[queries, None] == m[None, rows]
            found = same if found is None else found | same
        return found


@torch.no_grad()
def attend(queries: Tensor, memory: Tensor, temperature: Tensor, ids: _Ids) -> Attended:
    """Softmax of queries [Q, D] over memory [K, D], tile by tile with a running maximum (Milakov & Gimelshein 2018)."""
    tiles = [slice(start, start + TILE) for start in range(0, len(queries), TILE)] or [slice(0, 0)]
    parts = [_attend_tile(queries[tile], memory, temperature, ids, tile) for tile in tiles]
    return Attended(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _attend_tile(queries: Tensor, memory: Tensor, temperature: Tensor, ids: _Ids, tile: slice) -> Attended:
    scaled = queries / temperature
    top = queries.new_full((len(queries),), -torch.inf)  # running maximum of the logits
    weight, mean = torch.zeros_like(top), torch.zeros_like(queries)
    total, count = queries @ memory.sum(0), torch.full_like(top, len(memory))
    for start in range(0, len(memory), TILE):
        rows = slice(start, start + TILE)
        logits = scaled @ memory[rows].T  # [tile, rows]
        same = ids.same(tile, rows)
        if same is not None:
            total, count = total - (logits * same).sum(1) * temperature, count - same.sum(1)
            logits.masked_fill_(same, -torch.inf)
        highest = torch.maximum(top, logits.amax(1))
        # Without a negative so far the maximum is -inf: shifting by 0 instead keeps exp(-inf) = 0 and no NaN.
        shift = torch.where(highest.isinf(), 0, highest)
        keep = (top - shift).exp()
        logits.sub_(shift[:, None]).exp_()
        weight = weight * keep + logits.sum(1)
        mean = torch.addmm(mean * keep[:, None], logits, memory[rows])
        top = highest
    mean = mean / torch.where(weight > 0, weight, 1)[:, None]
    return Attended(top + weight.log(), mean, top * temperature, total, count)


@torch.no_grad()
def hardest_negative(
    queries: Tensor, memory: Tensor, *,
    query_ids: Tensor | None = None, memory_ids: Tensor | None = None,
    query_classes: Tensor | None = None, memory_classes: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """[Q] largest cosine of each query with a memory row that is a negative of it, as in `info_nce`; -inf without one."""
    one = torch.ones((), dtype=queries.dtype, device=queries.device)
    with torch.autocast(queries.device.type, enabled=False):
        return attend(queries, memory, one, _Ids(query_ids, memory_ids, query_classes, memory_classes)).hardest


class _Loss(torch.autograd.Function):
    """softplus(LSE - s+) with the closed-form gradients of the module's docstring."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, temperature: Tensor, lse: Tensor, mean: Tensor) -> Tensor:
        margin = lse - (queries * keys).sum(-1) / temperature  # [Q]
        ctx.save_for_backward(queries, keys, temperature, mean, margin.sigmoid())
        return F.softplus(margin)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, temperature, mean, weight = ctx.saved_tensors
        weight = (weight * upstream[0])[:, None] / temperature  # [Q, 1]
        to_queries = weight * (mean - keys) if ctx.needs_input_grad[0] else None
        to_keys = -weight * queries if ctx.needs_input_grad[1] else None
        to_temperature = (weight * queries * (keys - mean)).sum() / temperature if ctx.needs_input_grad[2] else None
        return to_queries, to_keys, to_temperature, None, None
