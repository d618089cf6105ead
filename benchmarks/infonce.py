"""InfoNCE beside cross-entropy over the concatenated logits: time, memory, error. Letters: Q queries, K memory, D dimension."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Row, alternate, peak, ratio
from densecl.contrast import info_nce

K, D, TEMPERATURE = 65536, 128, 0.2
SIZES = ((3200, 0.20), (12800, 0.12))  # queries of 64 and 256 images, and the time aimed at


def naive(queries: Tensor, keys: Tensor, memory: Tensor) -> Tensor:
    """What InfoNCE is defined as: the matrix of logits [Q, 1 + K], then cross-entropy."""
    logits = torch.cat([(queries * keys).sum(1, keepdim=True), queries @ memory.T], 1) / TEMPERATURE
    return F.cross_entropy(logits, torch.zeros(len(queries), dtype=torch.long))


def ours(queries: Tensor, keys: Tensor, memory: Tensor) -> Tensor:
    return info_nce(queries, keys, memory, TEMPERATURE).loss


def inputs(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    queries, keys, memory = (F.normalize(torch.randn(n, D, generator=generator), dim=1) for n in (rows, rows, K))
    return queries.requires_grad_(), keys, memory


def step(loss: Callable[..., Tensor], rows: int) -> Callable[[], object]:
    """Forward and backward of one loss, ready to be called."""
    given = inputs(rows)
    return lambda: loss(*given).backward()


def error(loss: Callable[..., Tensor], rows: int) -> float:
    """Of the gradient to the queries against float64, relative."""
    queries, keys, memory = inputs(rows)
    loss(queries, keys, memory).backward()
    exact = queries.detach().double().requires_grad_()
    naive(exact, keys.double(), memory.double()).backward()
    assert queries.grad is not None
    assert exact.grad is not None
    return float((queries.grad - exact.grad).norm() / exact.grad.norm())


def products(rows: int) -> Callable[[], object]:
    """The two matrix products alone, tile by tile: the floor of any exact fp32 method."""
    queries, _, memory = (x.detach() for x in inputs(rows))
    mean = torch.zeros(1024, D)

    def multiply() -> None:
        for q in queries.split(1024):
            for m in memory.split(1024):
                mean[: len(q)].addmm_(q @ m.T, m)

    return multiply


def rows() -> list[Row]:
    found = []
    for count, target in SIZES:
        name = f"info_nce / naive cross-entropy, forward and backward, Q = {count:,}, K = {K:,}, D = {D}"
        kinds = {"ours": step(ours, count), "naive": step(naive, count), "floor": products(count)}
        times = alternate(kinds, 5 if count < 10000 else 3)
        seconds = {kind: median(seen) for kind, seen in times.items()}
        floor = f"; its two matrix products alone {seconds['floor']:.3f} s"
        found.append(
            Row("P1", name, f"{seconds['ours']:.3f} s{floor}", f"{seconds['naive']:.3f} s",
                ratio(times["ours"], times["naive"]), f"≤ {target}")
        )  # fmt: skip
        grown = {kind: peak(step, loss, count) for kind, loss in (("ours", ours), ("naive", naive))}
        found.append(
            Row("P2", f"the same, added peak memory, Q = {count:,}", f"{grown['ours']:.0f} MiB", f"{grown['naive']:.0f} MiB",
                f"{grown['ours'] / grown['naive']:.3f}", "≤ 0.03")
        )  # fmt: skip
    wrong = {kind: error(loss, 800) for kind, loss in (("ours", ours), ("naive", naive))}
    found.append(
        Row("P3", "relative error of the gradient against float64, fp32, Q = 800", f"{wrong['ours']:.1e}",
            f"{wrong['naive']:.1e}", f"{wrong['ours'] / wrong['naive']:.2f}", "≤ 1e-6")
    )  # fmt: skip
    return found
