"""InfoNCE beside cross-entropy over the concatenated logits: time, memory, error. Letters: Q
queries, K memory, D dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Row, alternate, peak, ratio, shown
from densecl.contrast import info_nce
from densecl.runtime.hardware import device

K, D, TEMPERATURE = 65536, 128, 0.2
SIZES = (3200, 12800)  # queries of 64 and 256 images
TARGETS = {
    "cpu": ("≤ 0.20", "≤ 0.12", "≤ 0.03"),
    "cuda": ("≤ 0.15", "≤ 0.15 and ≤ 1.5 ms", "≤ 0.02"),
}
EXACT = 800  # queries compared with float64

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def naive(queries: Tensor, keys: Tensor, memory: Tensor) -> Tensor:
    """What InfoNCE is defined as: the matrix of logits [Q, 1 + K], then cross-entropy."""
    logits = torch.cat([(queries * keys).sum(1, keepdim=True), queries @ memory.T], 1) / TEMPERATURE
    return F.cross_entropy(
        logits, torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    )


def ours(queries: Tensor, keys: Tensor, memory: Tensor) -> Tensor:
    """As nine steps in ten call it."""
    return info_nce(queries, keys, memory, TEMPERATURE, watch=False).loss


def watched(queries: Tensor, keys: Tensor, memory: Tensor) -> Tensor:
    """With the cosines of the negatives too, as every tenth step does."""
    return info_nce(queries, keys, memory, TEMPERATURE).loss


def inputs(rows: int, held: int = K) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    queries, keys, memory = (
        F.normalize(torch.randn(n, D, generator=generator), dim=1) for n in (rows, rows, held)
    )
    return queries.to(device()).requires_grad_(), keys.to(device()), memory.to(device())


def step(loss: Loss, rows: int, held: int = K) -> Callable[[], object]:
    """Forward and backward of one loss, ready to be called; on a GPU under bf16 autocast, as
    trainings there run.
    """
    given = inputs(rows, held)

    def take() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=device().type == "cuda"):
            value = loss(*given)
        value.backward()

    return take


def products(rows: int, held: int = K) -> Callable[[], object]:
    """The two matrix products alone, tile by tile: the floor of any exact method."""
    queries, _, memory = (x.detach() for x in inputs(rows, held))
    mean = torch.zeros(2048, D, device=device())

    def multiply() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=device().type == "cuda"):
            for q in queries.split(2048):
                for m in memory.split(2048):
                    mean[: len(q)] += (q @ m.T) @ m

    return multiply


def error(loss: Loss, rows: int, held: int, lower: bool) -> float:
    """Of the gradient to the queries against float64, relative; with `lower` under bf16
    autocast.
    """
    queries, keys, memory = inputs(rows, held)
    with torch.autocast(device().type, torch.bfloat16, enabled=lower):
        value = loss(queries, keys, memory)
    value.backward()
    exact = queries.detach().double().requires_grad_()
    naive(exact, keys.double(), memory.double()).backward()
    assert queries.grad is not None
    assert exact.grad is not None
    return float((queries.grad - exact.grad).norm() / exact.grad.norm())


def rows(sizes: tuple[int, ...] = SIZES, held: int = K, rounds: int = 5) -> list[Row]:
    found, targets = [], TARGETS[device().type]
    for count, target in zip(sizes, targets, strict=False):
        name = (
            f"info_nce / naive cross-entropy, forward and "
            f"backward, Q = {count:,}, K = {held:,}, D = {D}"
        )
        losses = {"ours": ours, "watched": watched, "naive": naive}
        kinds = {name: step(loss, count, held) for name, loss in losses.items()} | {
            "floor": products(count, held)
        }
        times = alternate(kinds, rounds if count < 10000 else 3)  # the peer takes 20 s there
        seen = {kind: shown(seconds) for kind, seconds in times.items()}
        also = f"; its two matrix products alone {seen['floor']}"
        found.append(
            Row(
                "P1",
                name,
                seen["ours"] + also,
                seen["naive"],
                ratio(times["ours"], times["naive"]),
                target,
            )
        )
        found.append(
            Row(
                "P1",
                f"the same with the negatives watched, Q = {count:,}",
                seen["watched"],
                seen["naive"],
                ratio(times["watched"], times["naive"]),
                target,
            )
        )
        grown = {name: peak(partial(step, loss, count, held)) for name, loss in losses.items()}
        found.append(
            Row(
                "P2",
                f"added peak memory, Q = {count:,}",
                f"{grown['ours']:.0f} MiB; watched {grown['watched']:.0f} MiB",
                f"{grown['naive']:.0f} MiB",
                f"{grown['ours'] / grown['naive']:.3f}",
                targets[2],
            )
        )
    precisions = {"fp32": "≤ 1e-6"} | (
        {"bf16": "≤ naive under autocast"} if device().type == "cuda" else {}
    )
    for precision, target in precisions.items():
        wrong = [error(loss, EXACT, held, precision == "bf16") for loss in (ours, naive)]
        found.append(
            Row(
                "P3",
                f"relative error of the gradient against float64, {precision}, Q = {EXACT}, K = "
                f"{held:,}",
                f"{wrong[0]:.1e}",
                f"{wrong[1]:.1e}",
                f"{wrong[0] / wrong[1]:.2f}",
                target,
            )
        )
    return found
