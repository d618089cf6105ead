"""The dense loss against the same loss built from lightly's parts.

B images, N patches, M sampled patches, D dimension, K memory entries.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import (
    BenchmarkRow,
    format_ratio,
    format_seconds,
    measure_alternating,
    measure_peak_memory,
)
from densecl.contrast import MemoryQueue, info_nce, match_patches

N, M, D, K, TEMPERATURE = 196, 50, 128, 65536, 0.2


def make_features(images: int) -> tuple[Tensor, Tensor, Tensor]:
    """Dense features [B, N, D] of two views, and sampled patches [B, M] of the first."""
    generator = torch.Generator().manual_seed(0)
    first, second = (
        F.normalize(torch.randn(images, N, D, generator=generator), dim=-1) for _ in range(2)
    )
    picks = torch.rand(images, N, generator=generator).topk(M).indices
    return first.requires_grad_(), second, picks


def build_our_step(images: int) -> Callable[[], object]:
    first, second, picks = make_features(images)
    memory, ids = MemoryQueue(K, D), torch.arange(images).repeat_interleave(M)
    noise = F.normalize(torch.randn(K, D, generator=torch.Generator().manual_seed(1)), dim=1)
    memory.write(noise, torch.arange(K) + images, torch.zeros(K, dtype=torch.long), 0)

    def run_step() -> None:
        queries = torch.take_along_dim(first, picks[..., None], dim=1)
        index = match_patches(queries, second)
        keys = torch.take_along_dim(second, index[..., None], dim=1).flatten(0, 1)
        info_nce(
            queries.flatten(0, 1), keys, memory.buffer, TEMPERATURE, diagnostics=False
        ).loss.backward()
        memory.write(keys, ids, ids, 1)

    return run_step


def build_lightly_step(images: int) -> Callable[[], object]:
    """The same loss from lightly's parts.

    Its matching needs the same number of patches in both views: match first, then sample.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly.loss import NTXentLoss
        from lightly.models.utils import select_most_similar

    first, second, picks = make_features(images)
    loss = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=(K, D))

    def run_step() -> None:
        matched = select_most_similar(first.detach(), second, second)
        queries, keys = (
            torch.take_along_dim(x, picks[..., None], dim=1).flatten(0, 1) for x in (first, matched)
        )
        loss(queries, keys).backward()

    return run_step


def measure_rows(counts: tuple[int, ...] = (16, 64), rounds: int = 5) -> list[BenchmarkRow]:
    rows = []
    for images in counts:
        times = measure_alternating(
            {"ours": build_our_step(images), "lightly": build_lightly_step(images)}, rounds
        )
        peak_memory = [
            measure_peak_memory(partial(build_step, images))
            for build_step in (build_our_step, build_lightly_step)
        ]
        name = (
            f"dense loss / lightly's NTXentLoss with memory bank and "
            f"select_most_similar, {images} images of {M} queries"
        )
        rows += [
            BenchmarkRow(
                "P8",
                name,
                format_seconds(times["ours"]),
                format_seconds(times["lightly"]),
                format_ratio(times["ours"], times["lightly"]),
                "≤ 0.25",
            ),
            BenchmarkRow(
                "P8",
                f"the same, added peak memory, {images} images",
                f"{peak_memory[0]:.0f} MiB",
                f"{peak_memory[1]:.0f} MiB",
                f"{peak_memory[0] / peak_memory[1]:.3f}",
                "≤ 0.1",
            ),
        ]
    return rows
