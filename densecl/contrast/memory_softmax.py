"""Softmax of queries over the memory queue, without the [Q, K] matrix of logits.

It is one attention with keys = values = memory, so a fused attention that returns its log-sum-exp
computes it: flash attention on a CPU, flex attention on a GPU. `compute_tiled` runs on any device
and sees the cosines themselves, which diagnostics need; flex attention returns the largest one, and
the sum follows from sums of the memory. All three agree up to rounding
(tests/contrast/test_infonce.py).
"""

import math
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.contrast.negative_mask import NegativeMask
from densecl.network.precision import use_fp32_products

QUERY_TILE, MEMORY_TILE = 2048, 512  # 4 MiB of logits at a time, which stay in a CPU's cache
MAX_HEADS = 16  # parts of the memory on a GPU: a single one gives too few blocks to fill it
IdPair = tuple[Tensor, Tensor]  # of queries [Q] and of memory rows [K]


class MemorySoftmax(NamedTuple):
    """The softmax of each query over its negatives."""

    lse: Tensor  # [Q] log-sum-exp of the logits; -inf without negatives
    mean: Tensor  # [Q, D] softmax-weighted mean of the negatives; 0 without negatives
    negative_count: Tensor  # [Q]
    max_cosine: Tensor  # [Q], -inf without negatives; NaN without diagnostics
    cosine_sum: Tensor  # [Q]; NaN without diagnostics


@torch.no_grad()
def memory_softmax(
    queries: Tensor,
    memory: Tensor,
    temperature: Tensor,
    mask: NegativeMask,
    diagnostics: bool = True,
) -> MemorySoftmax:
    """Softmax of queries [Q, D] over the unmasked rows of memory [K, D], logits q . m / t.

    Takes the fused path of the device; on a CPU not with `diagnostics`, which need the cosines.
    """
    can_fuse = len(queries) > 0 and len(memory) > 0
    if can_fuse and queries.is_cuda and queries.dtype != torch.float64:
        attention = _build_flex_attention()
        return compute_flex(queries, memory, temperature, mask, attention, diagnostics)
    with torch.autocast(queries.device.type, enabled=False):  # keeps the dtype of the inputs
        if can_fuse and not diagnostics and queries.is_cpu and queries.dtype == torch.float32:
            return compute_flash_cpu(queries, memory, temperature, mask)
        return compute_tiled(queries, memory, temperature, mask)


def compute_tiled(
    queries: Tensor, memory: Tensor, temperature: Tensor, mask: NegativeMask
) -> MemorySoftmax:
    """The softmax tile by tile, with a running maximum (Milakov & Gimelshein 2018)."""
    tiles = _split(len(queries), QUERY_TILE) or [slice(0, 0)]
    parts = [_compute_tile(queries[tile], memory, temperature, mask, tile) for tile in tiles]
    return _concatenate(parts)


def _compute_tile(
    queries: Tensor, memory: Tensor, temperature: Tensor, mask: NegativeMask, tile: slice
) -> MemorySoftmax:
    scaled = queries / temperature
    running_max = queries.new_full((len(queries),), -torch.inf)  # of the logits
    exp_sum, mean = torch.zeros_like(running_max), torch.zeros_like(queries)
    cosine_sum, negative_count = queries @ memory.sum(0), torch.full_like(running_max, len(memory))
    for rows, masked in mask.build_masks(tile, _split(len(memory), MEMORY_TILE)):
        logits = scaled @ memory[rows].T  # [tile, rows]
        if masked is not None:
            cosine_sum = cosine_sum - (logits * masked).sum(1) * temperature
            negative_count = negative_count - masked.sum(1)
            logits.masked_fill_(masked, -torch.inf)
        new_max = torch.maximum(running_max, logits.amax(1))
        # While there is no negative the maximum is -inf; shifting by 0 avoids -inf - (-inf) = NaN.
        shift = torch.where(new_max.isinf(), 0, new_max)
        rescale = (running_max - shift).exp()
        logits.sub_(shift[:, None]).exp_()
        exp_sum = exp_sum * rescale + logits.sum(1)
        mean = torch.addmm(mean * rescale[:, None], logits, memory[rows])
        running_max = new_max
    mean = mean / torch.where(exp_sum > 0, exp_sum, 1)[:, None]
    lse = running_max + exp_sum.log()
    return MemorySoftmax(lse, mean, negative_count, running_max * temperature, cosine_sum)


def compute_flash_cpu(
    queries: Tensor, memory: Tensor, temperature: Tensor, mask: NegativeMask
) -> MemorySoftmax:
    """The softmax by torch's flash attention for CPUs, in fp32.

    A mask per query would be a [Q, K] tensor, so queries with masked rows are computed by tiles.
    """
    masked = mask.has_masked(queries)
    if masked.any():
        parts = [compute_tiled(queries[masked], memory, temperature, mask.select_queries(masked))]
        if not masked.all():
            parts.append(compute_flash_cpu(queries[~masked], memory, temperature, NegativeMask()))
        order = torch.cat([masked.nonzero()[:, 0], (~masked).nonzero()[:, 0]]).argsort()
        result = MemorySoftmax(*(column[order] for column in _concatenate(parts)))
        nan = torch.full_like(result.lse, torch.nan)
        return result._replace(max_cosine=nan, cosine_sum=nan)
    scaled, rows = (queries / temperature)[None, None], memory[None, None]
    # The only operation of torch that returns the log-sum-exp on a CPU is private; a test fails if
    # it is removed or changed.
    mean, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        scaled, rows, rows, scale=1.0
    )
    nan = torch.full_like(lse.flatten(), torch.nan)
    return MemorySoftmax(lse.flatten(), mean[0, 0], torch.full_like(nan, len(memory)), nan, nan)


def compute_flex(
    queries: Tensor,
    memory: Tensor,
    temperature: Tensor,
    mask: NegativeMask,
    attention: Any,
    diagnostics: bool = False,
) -> MemorySoftmax:
    """The softmax by flex attention, with the mask in the kernel; never waits for the GPU.

    The memory is split into up to MAX_HEADS heads (H), merged by their log-sum-exp. Under bf16
    autocast the products, and with them the largest cosine, are of bf16 numbers.
    """
    from torch.nn.attention.flex_attention import AuxRequest

    device_type = queries.device.type
    dtype = queries.dtype
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
    heads = math.gcd(len(memory), MAX_HEADS)
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
            return_aux=AuxRequest(lse=True, max_scores=diagnostics),
        )
        lses = aux.lse[0]  # [H, Q]
        lse = lses.logsumexp(0)  # [Q]
        weights = torch.where(lse.isinf(), 0, (lses - lse).exp())  # [H, Q]
        mean = torch.einsum("hq,hqd->qd", weights, means[0].to(weights.dtype))
        negative_count = _count_negatives(len(memory), id_pairs, lse)
        max_cosine = cosine_sum = torch.full_like(lse, torch.nan)
        if diagnostics:
            max_cosine = aux.max_scores[0].amax(0) * temperature
            cosine_sum = _sum_cosines(queries, memory, id_pairs)
    return MemorySoftmax(lse, mean, negative_count, max_cosine, cosine_sum)


@cache
def _build_flex_attention() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def _count_negatives(rows: int, id_pairs: list[IdPair], like: Tensor) -> Tensor:
    """[Q] negatives per query, by sorting: no [Q, K] matrix, and no waiting for the GPU."""
    masked = torch.zeros_like(like)
    for sign, (q, m) in _list_masked(id_pairs):
        first, end, _ = _find_equal(q, m)
        masked += sign * (end - first)
    return rows - masked


def _sum_cosines(queries: Tensor, memory: Tensor, id_pairs: list[IdPair]) -> Tensor:
    """[Q] sum of the cosines of each query with its negatives, from sums of the memory's rows."""
    negatives = memory.sum(0).expand(len(queries), -1)  # [Q, D]
    for sign, (q, m) in _list_masked(id_pairs):
        first, end, order = _find_equal(q, m)
        # In fp64, since the difference of two sums of many rows is one of few.
        sums = F.pad(memory[order].double().cumsum(0), (0, 0, 1, 0))  # [1 + K, D]
        negatives = negatives - sign * (sums[end] - sums[first]).to(memory)
    return (queries * negatives).sum(1)


def _list_masked(id_pairs: list[IdPair]) -> list[tuple[int, IdPair]]:
    """Ids whose equality is to be counted, with signs: |A or B| = |A| + |B| - |A and B|."""
    masked = [(1, pair) for pair in id_pairs]
    if len(id_pairs) == 2:
        images, classes = id_pairs
        all_classes = torch.cat(classes)
        class_range = all_classes.max() - all_classes.min() + 1
        # One number per (image, class).
        of_query, of_row = (
            image * class_range + class_id for image, class_id in zip(images, classes, strict=True)
        )
        masked.append((-1, (of_query, of_row)))
    return masked


def _find_equal(queries: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Begin and end [Q] of the memory ids [K] equal to each query id in their sorted order [K]."""
    ordered, order = memory.sort(stable=True)
    first = torch.searchsorted(ordered, queries)
    return first, torch.searchsorted(ordered, queries, right=True), order


def _concatenate(parts: list[MemorySoftmax]) -> MemorySoftmax:
    return MemorySoftmax(*(torch.cat(column) for column in zip(*parts, strict=True)))


@torch.no_grad()
@use_fp32_products()
def find_hardest_negative(
    queries: Tensor, memory: Tensor, mask: NegativeMask | None = None
) -> Tensor:
    """[Q] largest cosine of each query [Q, D] with a negative of memory [K, D]; -inf without."""
    mask, hardest = mask or NegativeMask(), queries.new_full((len(queries),), -torch.inf)
    with torch.autocast(queries.device.type, enabled=False):
        for tile in _split(len(queries), QUERY_TILE):
            for rows, masked in mask.build_masks(tile, _split(len(memory), MEMORY_TILE)):
                cosines = queries[tile] @ memory[rows].T
                if masked is not None:
                    cosines.masked_fill_(masked, -torch.inf)
                hardest[tile] = torch.maximum(hardest[tile], cosines.amax(1))
    return hardest


def _split(length: int, size: int) -> list[slice]:
    """Slices of `size` rows, the last of fewer."""
    return [slice(start, start + size) for start in range(0, length, size)]
