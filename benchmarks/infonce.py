"""`info_nce` against cross-entropy over the concatenated logits: time, memory, error.

Q queries, K memory entries, D dimension.
"""

from __future__ import annotations

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
from densecl.contrast import info_nce, info_nce_reference
from densecl.runtime.hardware import get_device

K, D, TEMPERATURE = 65536, 128, 0.2
SIZES = (3200, 12800)  # queries of 64 and 256 images
TARGETS = {
    "cpu": ("≤ 0.20", "≤ 0.12", "≤ 0.03"),
    "cuda": ("≤ 0.15", "≤ 0.15 and ≤ 1.5 ms", "≤ 0.02"),
}
FLOAT64_QUERIES = 800  # queries compared with float64

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def compute_naive_loss(queries: Tensor, keys: Tensor, memory: Tensor) -> Tensor:
    """The definition: the matrix of logits [Q, 1 + K], then cross-entropy."""
    return info_nce_reference(queries, keys, memory, TEMPERATURE)


def compute_our_loss(queries: Tensor, keys: Tensor, memory: Tensor) -> Tensor:
    """As in an ordinary step, nine of ten."""
    return info_nce(queries, keys, memory, TEMPERATURE, diagnostics=False).loss


def compute_loss_with_diagnostics(queries: Tensor, keys: Tensor, memory: Tensor) -> Tensor:
    """As in a diagnostic step, one of ten."""
    return info_nce(queries, keys, memory, TEMPERATURE).loss


def make_inputs(rows: int, memory_size: int = K) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    queries, keys, memory = (
        F.normalize(torch.randn(n, D, generator=generator), dim=1)
        for n in (rows, rows, memory_size)
    )
    return queries.to(get_device()).requires_grad_(), keys.to(get_device()), memory.to(get_device())


def build_step(loss: Loss, rows: int, memory_size: int = K) -> Callable[[], object]:
    """Forward and backward pass of one loss; on a GPU under bf16 autocast, as in training there."""
    inputs = make_inputs(rows, memory_size)

    def run_step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=get_device().type == "cuda"):
            value = loss(*inputs)
        value.backward()

    return run_step


def build_products(rows: int, memory_size: int = K) -> Callable[[], object]:
    """The two matrix products alone, tile by tile: a lower bound for any exact method."""
    queries, _, memory = (x.detach() for x in make_inputs(rows, memory_size))
    mean = torch.zeros(2048, D, device=get_device())

    def run_products() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=get_device().type == "cuda"):
            for q in queries.split(2048):
                for m in memory.split(2048):
                    mean[: len(q)] += (q @ m.T) @ m

    return run_products


def measure_gradient_error(loss: Loss, rows: int, memory_size: int, use_bf16: bool) -> float:
    """Relative error against float64 of the queries' gradient; with `use_bf16` under autocast."""
    queries, keys, memory = make_inputs(rows, memory_size)
    with torch.autocast(get_device().type, torch.bfloat16, enabled=use_bf16):
        value = loss(queries, keys, memory)
    value.backward()
    exact = queries.detach().double().requires_grad_()
    compute_naive_loss(exact, keys.double(), memory.double()).backward()
    assert queries.grad is not None
    assert exact.grad is not None
    return float((queries.grad - exact.grad).norm() / exact.grad.norm())


def measure_rows(
    sizes: tuple[int, ...] = SIZES, memory_size: int = K, rounds: int = 5
) -> list[BenchmarkRow]:
    rows, targets = [], TARGETS[get_device().type]
    for count, target in zip(sizes, targets, strict=False):
        name = (
            f"info_nce / naive cross-entropy, forward and backward, Q = {count:,}, "
            f"K = {memory_size:,}, D = {D}"
        )
        losses = {
            "ours": compute_our_loss,
            "diagnostics": compute_loss_with_diagnostics,
            "naive": compute_naive_loss,
        }
        calls = {name: build_step(loss, count, memory_size) for name, loss in losses.items()} | {
            "floor": build_products(count, memory_size)
        }
        # The naive loss takes 20 s for the larger size.
        times = measure_alternating(calls, rounds if count < 10000 else 3)
        formatted = {kind: format_seconds(seconds) for kind, seconds in times.items()}
        floor_note = f"; its two matrix products alone {formatted['floor']}"
        rows.append(
            BenchmarkRow(
                "P1",
                name,
                formatted["ours"] + floor_note,
                formatted["naive"],
                format_ratio(times["ours"], times["naive"]),
                target,
            )
        )
        rows.append(
            BenchmarkRow(
                "P1",
                f"the same with diagnostics, Q = {count:,}",
                formatted["diagnostics"],
                formatted["naive"],
                format_ratio(times["diagnostics"], times["naive"]),
                target,
            )
        )
        peak_memory = {
            name: measure_peak_memory(partial(build_step, loss, count, memory_size))
            for name, loss in losses.items()
        }
        rows.append(
            BenchmarkRow(
                "P2",
                f"added peak memory, Q = {count:,}",
                f"{peak_memory['ours']:.0f} MiB; with diagnostics "
                f"{peak_memory['diagnostics']:.0f} MiB",
                f"{peak_memory['naive']:.0f} MiB",
                f"{peak_memory['ours'] / peak_memory['naive']:.3f}",
                targets[2],
            )
        )
    precisions = {"fp32": "≤ 1e-6"} | (
        {"bf16": "≤ naive under autocast"} if get_device().type == "cuda" else {}
    )
    for precision, target in precisions.items():
        errors = [
            measure_gradient_error(loss, FLOAT64_QUERIES, memory_size, precision == "bf16")
            for loss in (compute_our_loss, compute_naive_loss)
        ]
        rows.append(
            BenchmarkRow(
                "P3",
                f"relative error of the gradient against float64, {precision}, "
                f"Q = {FLOAT64_QUERIES}, K = {memory_size:,}",
                f"{errors[0]:.1e}",
                f"{errors[1]:.1e}",
                f"{errors[0] / errors[1]:.2f}",
                target,
            )
        )
    return rows
