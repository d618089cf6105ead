"""Each query's softmax over the memory, without the matrix of logits. Letters: Q queries, K memory,
D dimension, H heads.

That softmax is one attention with keys = values = memory, so a fused attention that gives its
log-sum-exp does the work where torch has one; `tiled` does it everywhere, and alone tells the
cosines themselves.
"""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

QUERY_TILE, MEMORY_TILE = 2048, 512  # logits held at a time: 4 MiB, which stay in a CPU's cache
HEADS = 16  # parts of the memory on a GPU: one alone gives too few blocks to fill it


class Attended(NamedTuple):
    """The softmax of each query over the negatives it has."""

    lse: Tensor  # [Q] of the scaled logits; -inf without negatives
    mean: Tensor  # [Q, D] softmax-weighted memory; 0 without negatives
    negatives: Tensor  # [Q] how many
    hardest: Tensor  # [Q] largest cosine, -inf without negatives; NaN where not watched
    total: Tensor  # [Q] sum of cosines; NaN where not watched


class Ids(NamedTuple):
    """A memory row whose image (or class) is the query's is no negative of it."""

    query_ids: Tensor | None = None  # [Q]
    memory_ids: Tensor | None = None  # [K]
    query_classes: Tensor | None = None  # [Q]
    memory_classes: Tensor | None = None  # [K]

    @property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """What is compared: of queries [Q], of memory rows [K]."""
        both = ((self.query_ids, self.memory_ids), (self.query_classes, self.memory_classes))
        return [(q, m) for q, m in both if q is not None and m is not None]

    def same(self, queries: slice, rows: slice) -> Tensor | None:
        """[queries, rows] bool, or None where no row is left out: then no mask need be built."""
        found = None
        for q, m in self.pairs:
            # Looking first pays on a CPU; elsewhere it would wait for the device.
            if m.is_cpu and not torch.isin(m[rows], q[queries]).any():
                continue
            same = q[queries, None] == m[None, rows]
            found = same if found is None else found | same
        return found

    def affected(self, queries: Tensor) -> Tensor:
        """[Q] bool: has the query a memory row that is left out?"""
        found = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
        for q, m in self.pairs:
            found |= torch.isin(q, m)
        return found

    def of(self, rows: Tensor) -> Ids:
        """Those of some queries, by mask [Q]."""
        return self._replace(
            query_ids=None if self.query_ids is None else self.query_ids[rows],
            query_classes=None if self.query_classes is None else self.query_classes[rows],
        )


@torch.no_grad()
def attend(
    queries: Tensor, memory: Tensor, temperature: Tensor, ids: Ids, watch: bool = True
) -> Attended:
    """Softmax of queries [Q, D] over memory [K, D]: fused where that is at hand and the cosines are
    not watched.
    """
    quick = not watch and len(queries) > 0 and len(memory) > 0
    if quick and queries.is_cuda and queries.dtype != torch.float64:
        return flex(queries, memory, temperature, ids, _compiled())
    with torch.autocast(queries.device.type, enabled=False):  # in the precision they come in
        by = fused if quick and queries.is_cpu and queries.dtype == torch.float32 else tiled
        return by(queries, memory, temperature, ids)


def tiled(queries: Tensor, memory: Tensor, temperature: Tensor, ids: Ids) -> Attended:
    """On any device, tile by tile with a running maximum (Milakov & Gimelshein 2018)."""
    tiles = [slice(start, start + QUERY_TILE) for start in range(0, len(queries), QUERY_TILE)] or [
        slice(0, 0)
    ]
    whole = memory.sum(0)
    parts = [_tile(queries[tile], memory, temperature, ids, tile, whole) for tile in tiles]
    return Attended(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _tile(
    queries: Tensor, memory: Tensor, temperature: Tensor, ids: Ids, tile: slice, whole: Tensor
) -> Attended:
    scaled = queries / temperature
    top = queries.new_full((len(queries),), -torch.inf)  # running maximum of the logits
    weight, mean = torch.zeros_like(top), torch.zeros_like(queries)
    total, count = queries @ whole, torch.full_like(top, len(memory))
    for start in range(0, len(memory), MEMORY_TILE):
        rows = slice(start, start + MEMORY_TILE)
        logits = scaled @ memory[rows].T  # [tile, rows]
        same = ids.same(tile, rows)
        if same is not None:
            total, count = total - (logits * same).sum(1) * temperature, count - same.sum(1)
            logits.masked_fill_(same, -torch.inf)
        highest = torch.maximum(top, logits.amax(1))
        # Without a negative so far the maximum is -inf: shifting by 0 instead keeps exp(-inf) = 0
        # and no NaN.
        shift = torch.where(highest.isinf(), 0, highest)
        keep = (top - shift).exp()
        logits.sub_(shift[:, None]).exp_()
        weight = weight * keep + logits.sum(1)
        mean = torch.addmm(mean * keep[:, None], logits, memory[rows])
        top = highest
    mean = mean / torch.where(weight > 0, weight, 1)[:, None]
    return Attended(top + weight.log(), mean, count, top * temperature, total)


def fused(queries: Tensor, memory: Tensor, temperature: Tensor, ids: Ids) -> Attended:
    """By torch's flash attention for CPUs, fp32; queries with rows to leave out, which it cannot,
    go tile by tile.
    """
    held = ids.affected(queries)
    if held.any():
        parts = [tiled(queries[held], memory, temperature, ids.of(held))]
        if not held.all():
            parts.append(fused(queries[~held], memory, temperature, Ids()))
        columns = zip(*parts, strict=True)
        back = torch.cat([held.nonzero()[:, 0], (~held).nonzero()[:, 0]]).argsort()
        seen = Attended(*(torch.cat(column)[back] for column in columns))
        return seen._replace(
            hardest=torch.full_like(seen.lse, torch.nan), total=torch.full_like(seen.lse, torch.nan)
        )
    scaled, rows = (queries / temperature)[None, None], memory[None, None]
    # The one operation in torch that gives the log-sum-exp on a CPU is private; a test says if it
    # goes or changes.
    mean, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        scaled, rows, rows, scale=1.0
    )
    unseen = torch.full_like(lse.flatten(), torch.nan)
    return Attended(lse.flatten(), mean[0, 0], torch.full_like(unseen, len(memory)), unseen, unseen)


def flex(
    queries: Tensor, memory: Tensor, temperature: Tensor, ids: Ids, attention: Any
) -> Attended:
    """By torch's flex attention, of as many heads of the memory as HEADS allows, merged by their
    log-sum-exp.

    Masks are part of the kernel. Never waits for the device. Under bf16 autocast the products are
    of bf16 numbers.
    """
    from torch.nn.attention.flex_attention import AuxRequest

    kind = queries.device.type
    lower = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else queries.dtype
    heads = math.gcd(len(memory), HEADS)
    rows, (count, dim) = len(memory) // heads, queries.shape
    pairs = ids.pairs

    def left_out(score: Tensor, _batch: Tensor, head: Tensor, query: Tensor, row: Tensor) -> Tensor:
        for q, m in pairs:
            score = torch.where(q[query] == m[head * rows + row], -torch.inf, score)
        return score

    scaled = (queries / temperature).to(lower).expand(1, heads, count, dim)
    parts = memory.to(lower).view(1, heads, rows, dim)
    with torch.autocast(kind, enabled=False):
        means, aux = attention(
            scaled,
            parts,
            parts,
            score_mod=left_out if pairs else None,
            scale=1.0,
            return_aux=AuxRequest(lse=True),
        )
    lses = aux.lse[0]  # [H, Q]
    lse = lses.logsumexp(0)
    share = torch.where(lse.isinf(), 0, (lses - lse).exp())
    mean = torch.einsum("hq,hqd->qd", share, means[0].to(share.dtype))
    unseen = torch.full_like(lse, torch.nan)
    return Attended(lse, mean, _counts(len(memory), pairs, lse), unseen, unseen)


def _counts(rows: int, pairs: list[tuple[Tensor, Tensor]], like: Tensor) -> Tensor:
    """[Q] negatives, counted by sorting: no matrix, no waiting."""
    if len(pairs) == 2:  # |A or B| = |A| + |B| - |A and B|
        every = torch.cat(pairs[1])
        width = every.max() - every.min() + 1
        both = (
            first * width + second for first, second in zip(*pairs, strict=True)
        )  # one number for image and class
        return rows - (_equal(*pairs[0]) + _equal(*pairs[1]) - _equal(*both)).to(like)
    return rows - _equal(*pairs[0]).to(like) if pairs else torch.full_like(like, rows)


def _equal(queries: Tensor, memory: Tensor) -> Tensor:
    """[Q]: rows [K] equal to each query [Q]."""
    memory = memory.sort().values
    return torch.searchsorted(memory, queries, right=True) - torch.searchsorted(memory, queries)


@cache
def _compiled() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


@torch.no_grad()
def hardest_negative(queries: Tensor, memory: Tensor, ids: Ids | None = None) -> Tensor:
    """[Q] largest cosine of each query [Q, D] with a memory row that is a negative of it; -inf
    without one.
    """
    ids, found = ids or Ids(), queries.new_full((len(queries),), -torch.inf)
    with torch.autocast(queries.device.type, enabled=False):
        for query, row in itertools.product(
            range(0, len(queries), QUERY_TILE), range(0, len(memory), MEMORY_TILE)
        ):
            tile, rows = slice(query, query + QUERY_TILE), slice(row, row + MEMORY_TILE)
            cosines, same = queries[tile] @ memory[rows].T, ids.same(tile, rows)
            if same is not None:
                cosines.masked_fill_(same, -torch.inf)
            found[tile] = torch.maximum(found[tile], cosines.amax(1))
    return found
