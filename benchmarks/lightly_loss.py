"""Our dense loss beside the same built from lightly's parts. Letters: B images, N patches, M
sampled, D dimension.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Row, alternate, peak, ratio, shown
from densecl.contrast import Memory, info_nce, match_patches

N, M, D, K, TEMPERATURE = 196, 50, 128, 65536, 0.2


def features(images: int) -> tuple[Tensor, Tensor, Tensor]:
    """Dense features [B, N, D] of two views, and sampled patches [B, M] of the first."""
    generator = torch.Generator().manual_seed(0)
    first, second = (
        F.normalize(torch.randn(images, N, D, generator=generator), dim=-1) for _ in range(2)
    )
    picks = torch.rand(images, N, generator=generator).topk(M).indices
    return first.requires_grad_(), second, picks


def ours(images: int) -> Callable[[], object]:
    first, second, picks = features(images)
    memory, ids = Memory(K, D), torch.arange(images).repeat_interleave(M)
    noise = F.normalize(torch.randn(K, D, generator=torch.Generator().manual_seed(1)), dim=1)
    memory.write(noise, torch.arange(K) + images, torch.zeros(K, dtype=torch.long), 0)

    def take() -> None:
        queries = torch.take_along_dim(first, picks[..., None], dim=1)
        index = match_patches(queries, second)
        keys = torch.take_along_dim(second, index[..., None], dim=1).flatten(0, 1)
        info_nce(queries.flatten(0, 1), keys, memory.ring, TEMPERATURE, watch=False).loss.backward()
        memory.write(keys, ids, ids, 1)

    return take


def lightly(images: int) -> Callable[[], object]:
    """Its loss takes pairs, and its matching wants as many patches on both sides: matched first,
    sampled then.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly.loss import NTXentLoss
        from lightly.models.utils import select_most_similar

    first, second, picks = features(images)
    loss = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=(K, D))

    def take() -> None:
        matched = select_most_similar(first.detach(), second, second)
        queries, keys = (
            torch.take_along_dim(x, picks[..., None], dim=1).flatten(0, 1) for x in (first, matched)
        )
        loss(queries, keys).backward()

    return take


def rows(counts: tuple[int, ...] = (16, 64), rounds: int = 5) -> list[Row]:
    found = []
    for images in counts:
        times = alternate({"ours": ours(images), "lightly": lightly(images)}, rounds)
        grown = [peak(partial(kind, images)) for kind in (ours, lightly)]
        name = (
            f"dense loss / lightly's NTXentLoss with memory bank and "
            f"select_most_similar, {images} images of {M} queries"
        )
        found += [
            Row(
                "P8",
                name,
                shown(times["ours"]),
                shown(times["lightly"]),
                ratio(times["ours"], times["lightly"]),
                "≤ 0.25",
            ),
            Row(
                "P8",
                f"the same, added peak memory, {images} images",
                f"{grown[0]:.0f} MiB",
                f"{grown[1]:.0f} MiB",
                f"{grown[0] / grown[1]:.3f}",
                "≤ 0.1",
            ),
        ]
    return found
