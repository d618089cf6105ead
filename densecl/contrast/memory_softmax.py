"""Each query's softmax over the memory, without the matrix of logits. Letters: Q queries, K memory,
D dimension, H heads.

That softmax is one attention with keys = values = memory, so a fused attention that gives its
log-sum-exp does the work where torch has one; `compute_tiled` does it everywhere, and alone tells
the cosines themselves.
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


class MemorySoftmax(NamedTuple):
    """The softmax of each query over the negatives it has."""

    lse: Tensor  # [Q] of the scaled logits; -inf without negatives
    mean: Tensor  # [Q, D] softmax-weighted memory; 0 without negatives
    negative_count: Tensor  # [Q] how many
    max_cosine: Tensor  # [Q] largest cosine, -inf without negatives; NaN where not watched
    cosine_sum: Tensor  # [Q] sum of cosines; NaN where not watched


class NegativeMask(NamedTuple):
    """A memory row whose image (or class) is the query's is no negative of it."""

    query_ids: Tensor | None = None  # [Q]
    memory_ids: Tensor | None = None  # [K]
    query_classes: Tensor | None = None  # [Q]
    memory_classes: Tensor | None = None  # [K]

    @property
    def id_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """What is compared: of queries [Q], of memory rows [K]."""
        both = ((self.query_ids, self.memory_ids), (self.query_classes, self.memory_classes))
        return [(q, m) for q, m in both if q is not None and m is not None]

    def build_mask(self, query_slice: slice, memory_slice: slice) -> Tensor | None:
        """[queries, rows] bool, or None where no row is left out: then no mask need be built."""
        mask = None
        for q, m in self.id_pairs:
            # Looking first pays on a CPU; elsewhere it would wait for the device.
            if m.is_cpu and not torch.isin(m[memory_slice], q[query_slice]).any():
                continue
            is_same = q[query_slice, None] == m[None, memory_slice]
            mask = is_same if mask is None else mask | is_same
        return mask

    def has_masked(self, queries: Tensor) -> Tensor:
        """[Q] bool: has the query a memory row that is left out?"""
        masked = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
        for q, m in self.id_pairs:
            masked |= torch.isin(q, m)
        return masked

    def select_queries(self, selected: Tensor) -> NegativeMask:
        """Those of some queries, by mask [Q]."""
        return self._replace(
            query_ids=None if self.query_ids is None else self.query_ids[selected],
            query_classes=None if self.query_classes is None else self.query_classes[selected],
        )


@torch.no_grad()
def memory_softmax(
    queries: Tensor,
    memory: Tensor,
    temperature: Tensor,
    mask: NegativeMask,
    diagnostics: bool = True,
) -> MemorySoftmax:
    """Softmax of queries [Q, D] over memory [K, D]: fused where that is at hand and the cosines are
    not watched.
    """
    can_fuse = not diagnostics and len(queries) > 0 and len(memory) > 0
    if can_fuse and queries.is_cuda and queries.dtype != torch.float64:
        return compute_flex(queries, memory, temperature, mask, _build_flex_attention())
    with torch.autocast(queries.device.type, enabled=False):  # in the precision they come in
        compute = (
            compute_flash_cpu
            if can_fuse and queries.is_cpu and queries.dtype == torch.float32
            else compute_tiled
        )
        return compute(queries, memory, temperature, mask)


def compute_tiled(
    queries: Tensor, memory: Tensor, temperature: Tensor, mask: NegativeMask
) -> MemorySoftmax:
    """On any device, tile by tile with a running maximum (Milakov & Gimelshein 2018)."""
    tiles = [slice(start, start + QUERY_TILE) for start in range(0, len(queries), QUERY_TILE)] or [
        slice(0, 0)
    ]
    memory_sum = memory.sum(0)
    parts = [
        _compute_tile(queries[tile], memory, temperature, mask, tile, memory_sum) for tile in tiles
    ]
    return MemorySoftmax(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _compute_tile(
    queries: Tensor,
    memory: Tensor,
    temperature: Tensor,
    mask: NegativeMask,
    tile: slice,
    memory_sum: Tensor,
) -> MemorySoftmax:
    scaled = queries / temperature
    running_max = queries.new_full((len(queries),), -torch.inf)  # running maximum of the logits
    exp_sum, mean = torch.zeros_like(running_max), torch.zeros_like(queries)
    cosine_sum, negative_count = queries @ memory_sum, torch.full_like(running_max, len(memory))
    for start in range(0, len(memory), MEMORY_TILE):
        rows = slice(start, start + MEMORY_TILE)
        logits = scaled @ memory[rows].T  # [tile, rows]
        masked = mask.build_mask(tile, rows)
        if masked is not None:
            cosine_sum, negative_count = (
                cosine_sum - (logits * masked).sum(1) * temperature,
                negative_count - masked.sum(1),
            )
            logits.masked_fill_(masked, -torch.inf)
        new_max = torch.maximum(running_max, logits.amax(1))
        # Without a negative so far the maximum is -inf: shifting by 0 instead keeps exp(-inf) = 0
        # and no NaN.
        shift = torch.where(new_max.isinf(), 0, new_max)
        rescale = (running_max - shift).exp()
        logits.sub_(shift[:, None]).exp_()
        exp_sum = exp_sum * rescale + logits.sum(1)
        mean = torch.addmm(mean * rescale[:, None], logits, memory[rows])
        running_max = new_max
    mean = mean / torch.where(exp_sum > 0, exp_sum, 1)[:, None]
    return MemorySoftmax(
        running_max + exp_sum.log(), mean, negative_count, running_max * temperature, cosine_sum
    )


def compute_flash_cpu(
    queries: Tensor, memory: Tensor, temperature: Tensor, mask: NegativeMask
) -> MemorySoftmax:
    """By torch's flash attention for CPUs, fp32; queries with rows to leave out, which it cannot,
    go tile by tile.
    """
    masked = mask.has_masked(queries)
    if masked.any():
        parts = [compute_tiled(queries[masked], memory, temperature, mask.select_queries(masked))]
        if not masked.all():
            parts.append(compute_flash_cpu(queries[~masked], memory, temperature, NegativeMask()))
        columns = zip(*parts, strict=True)
        original_order = torch.cat([masked.nonzero()[:, 0], (~masked).nonzero()[:, 0]]).argsort()
        result = MemorySoftmax(*(torch.cat(column)[original_order] for column in columns))
        return result._replace(
            max_cosine=torch.full_like(result.lse, torch.nan),
            cosine_sum=torch.full_like(result.lse, torch.nan),
        )
    scaled, rows = (queries / temperature)[None, None], memory[None, None]
    # The one operation in torch that gives the log-sum-exp on a CPU is private; a test says if it
    # goes or changes.
    mean, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        scaled, rows, rows, scale=1.0
    )
    nan = torch.full_like(lse.flatten(), torch.nan)
    return MemorySoftmax(lse.flatten(), mean[0, 0], torch.full_like(nan, len(memory)), nan, nan)


def compute_flex(
    queries: Tensor, memory: Tensor, temperature: Tensor, mask: NegativeMask, attention: Any
) -> MemorySoftmax:
    """By torch's flex attention, of as many heads of the memory as HEADS allows, merged by their
    log-sum-exp.

    Masks are part of the kernel. Never waits for the device. Under bf16 autocast the products are
    of bf16 numbers.
    """
    from torch.nn.attention.flex_attention import AuxRequest

    device_type = queries.device.type
    dtype = (
        torch.get_autocast_dtype(device_type)
        if torch.is_autocast_enabled(device_type)
        else queries.dtype
    )
    heads = math.gcd(len(memory), HEADS)
    rows, (count, dim) = len(memory) // heads, queries.shape
    id_pairs = mask.id_pairs

    def mask_score(
        score: Tensor, _batch: Tensor, head: Tensor, query: Tensor, row: Tensor
    ) -> Tensor:
        for q, m in id_pairs:
            score = torch.where(q[query] == m[head * rows + row], -torch.inf, score)
        return score

    scaled = (queries / temperature).to(dtype).expand(1, heads, count, dim)
    parts = memory.to(dtype).view(1, heads, rows, dim)
    with torch.autocast(device_type, enabled=False):
        means, aux = attention(
            scaled,
            parts,
            parts,
            score_mod=mask_score if id_pairs else None,
            scale=1.0,
            return_aux=AuxRequest(lse=True),
        )
    lses = aux.lse[0]  # [H, Q]
    lse = lses.logsumexp(0)
    weights = torch.where(lse.isinf(), 0, (lses - lse).exp())
    mean = torch.einsum("hq,hqd->qd", weights, means[0].to(weights.dtype))
    nan = torch.full_like(lse, torch.nan)
    return MemorySoftmax(lse, mean, _count_negatives(len(memory), id_pairs, lse), nan, nan)


def _count_negatives(rows: int, id_pairs: list[tuple[Tensor, Tensor]], like: Tensor) -> Tensor:
    """[Q] negatives, counted by sorting: no matrix, no waiting."""
    if len(id_pairs) == 2:  # |A or B| = |A| + |B| - |A and B|
        all_classes = torch.cat(id_pairs[1])
        class_range = all_classes.max() - all_classes.min() + 1
        combined_ids = (
            first * class_range + second for first, second in zip(*id_pairs, strict=True)
        )  # one number for image and class
        return rows - (
            _count_equal(*id_pairs[0]) + _count_equal(*id_pairs[1]) - _count_equal(*combined_ids)
        ).to(like)
    return rows - _count_equal(*id_pairs[0]).to(like) if id_pairs else torch.full_like(like, rows)


def _count_equal(queries: Tensor, memory: Tensor) -> Tensor:
    """[Q]: rows [K] equal to each query [Q]."""
    memory = memory.sort().values
    return torch.searchsorted(memory, queries, right=True) - torch.searchsorted(memory, queries)


@cache
def _build_flex_attention() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


@torch.no_grad()
def hardest_negative(queries: Tensor, memory: Tensor, mask: NegativeMask | None = None) -> Tensor:
    """[Q] largest cosine of each query [Q, D] with a memory row that is a negative of it; -inf
    without one.
    """
    mask, hardest = mask or NegativeMask(), queries.new_full((len(queries),), -torch.inf)
    with torch.autocast(queries.device.type, enabled=False):
        for query, row in itertools.product(
            range(0, len(queries), QUERY_TILE), range(0, len(memory), MEMORY_TILE)
        ):
            tile, rows = slice(query, query + QUERY_TILE), slice(row, row + MEMORY_TILE)
            cosines, masked = queries[tile] @ memory[rows].T, mask.build_mask(tile, rows)
            if masked is not None:
                cosines.masked_fill_(masked, -torch.inf)
            hardest[tile] = torch.maximum(hardest[tile], cosines.amax(1))
    return hardest
