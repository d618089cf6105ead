"""Time, memory and error of `info_nce` and of the dense loss, against common implementations.

Letters: B images, N patches, M sampled patches, Q queries, K queue, D projection.
"""

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import (
    BenchmarkRow,
    Call,
    format_seconds,
    make_memory_row,
    make_time_row,
    measure_alternating,
    measure_peak_memory,
)
from densecl.contrast import MemoryQueue, info_nce, info_nce_reference, match_patches
from densecl.runtime.hardware import get_device

K, D, TEMPERATURE = 65536, 128, 0.2
N, M = 196, 50
SIZES = (3200, 12800)  # queries of 64 and 256 images
TARGETS = {
    "cpu": ("≤ 0.20", "≤ 0.12", "≤ 0.03"),
    "cuda": ("≤ 0.15", "≤ 0.15 and ≤ 1.5 ms", "≤ 0.02"),
}
FLOAT64_QUERIES = 800  # queries compared with float64


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    # As in an ordinary step, nine of ten, and in a diagnostic step, one of ten.
    "ours": lambda q, k, memory: info_nce(q, k, memory, TEMPERATURE, diagnostics=False).loss,
    "diagnostics": lambda q, k, memory: info_nce(q, k, memory, TEMPERATURE).loss,
    # The definition: the matrix of logits [Q, 1 + K], then cross-entropy.
    "naive": lambda q, k, memory: info_nce_reference(q, k, memory, TEMPERATURE),
}


def make_inputs(rows: int, memory_size: int = K) -> tuple[Tensor, Tensor, Tensor]:
    """Random queries and keys [rows, D] and memory [memory_size, D], normalised."""
    generator = torch.Generator().manual_seed(0)
    queries, keys, memory = (
        F.normalize(torch.randn(n, D, generator=generator), dim=1).to(get_device())
        for n in (rows, rows, memory_size)
    )
    return queries.requires_grad_(), keys, memory


def build_step(loss: str, rows: int, memory_size: int = K) -> Call:
    """Forward and backward pass of one loss; on a GPU under bf16 autocast, as in training there."""
    inputs = make_inputs(rows, memory_size)

    def run_step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=get_device().type == "cuda"):
            value = LOSSES[loss](*inputs)
        value.backward()

    return run_step


def build_products(rows: int, memory_size: int = K) -> Call:
    """The two matrix products alone, tile by tile: a lower bound for any exact method on a CPU."""
    queries, _, memory = (x.detach() for x in make_inputs(rows, memory_size))
    mean = torch.zeros(2048, D, device=get_device())

    def run_products() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=get_device().type == "cuda"):
            for q in queries.split(2048):
                for m in memory.split(2048):
                    mean[: len(q)] += (q @ m.T) @ m

    return run_products


def measure_gradient_error(loss: str, rows: int, memory_size: int, use_bf16: bool) -> float:
    """Relative error against float64 of the queries' gradient; with `use_bf16` under autocast."""
    queries, keys, memory = make_inputs(rows, memory_size)
    with torch.autocast(get_device().type, torch.bfloat16, enabled=use_bf16):
        value = LOSSES[loss](queries, keys, memory)
    (gradient,) = torch.autograd.grad(value, queries)
    exact = queries.detach().double().requires_grad_()
    exact_loss = LOSSES["naive"](exact, keys.double(), memory.double())
    (exact_gradient,) = torch.autograd.grad(exact_loss, exact)
    return float((gradient - exact_gradient).norm() / exact_gradient.norm())


def measure_info_nce(
    sizes: tuple[int, ...] = SIZES, memory_size: int = K, rounds: int = 5
) -> list[BenchmarkRow]:
    """`info_nce` against cross-entropy over the concatenated logits."""
    rows, targets = [], TARGETS[get_device().type]
    is_cpu = get_device().type == "cpu"
    for count, target in zip(sizes, targets, strict=False):
        name = (
            f"info_nce / naive cross-entropy, forward and backward, Q = {count:,}, "
            f"K = {memory_size:,}, D = {D}"
        )
        calls = {loss: build_step(loss, count, memory_size) for loss in LOSSES}
        if is_cpu:  # on a GPU it would measure the launches of many small kernels
            calls["floor"] = build_products(count, memory_size)
        # The naive loss takes 20 s for the larger size.
        times = measure_alternating(calls, rounds if count < 10000 else 3)
        memory = {
            loss: measure_peak_memory(build_step, loss, count, memory_size) for loss in LOSSES
        }
        floor = ""
        if is_cpu:
            floor = f"; its two matrix products alone {format_seconds(times['floor'])}"
        diagnostics = f"; with diagnostics {memory['diagnostics']:.0f} MiB"
        rows += [
            make_time_row("P1", name, times, "ours", "naive", target, floor),
            make_time_row(
                "P1",
                f"the same with diagnostics, Q = {count:,}",
                times,
                "diagnostics",
                "naive",
                target,
            ),
            make_memory_row(
                "P2",
                f"added peak memory, Q = {count:,}",
                memory,
                "ours",
                "naive",
                targets[2],
                diagnostics,
            ),
        ]
    precisions = {"fp32": "≤ 1e-6"}
    if get_device().type == "cuda":
        precisions["bf16"] = "≤ naive under autocast"
    for precision, target in precisions.items():
        ours, naive = (
            measure_gradient_error(loss, FLOAT64_QUERIES, memory_size, precision == "bf16")
            for loss in ("ours", "naive")
        )
        name = (
            f"relative error of the gradient against float64, {precision}, "
            f"Q = {FLOAT64_QUERIES}, K = {memory_size:,}"
        )
        cells = f"{ours:.1e}", f"{naive:.1e}", f"{ours / naive:.2f}"
        rows.append(BenchmarkRow("P3", name, *cells, target))
    return rows


def make_features(images: int) -> tuple[Tensor, Tensor, Tensor]:
    """Dense features [B, N, D] of two views, and sampled patches [B, M] of the first."""
    generator = torch.Generator().manual_seed(0)
    first, second = (
        F.normalize(torch.randn(images, N, D, generator=generator), dim=-1) for _ in range(2)
    )
    picks = torch.rand(images, N, generator=generator).topk(M).indices
    return first.requires_grad_(), second, picks


def build_our_step(images: int) -> Call:
    """Sample, match, score and write the queue, as a training step does."""
    first, second, picks = make_features(images)
    memory, ids = MemoryQueue(K, D), torch.arange(images).repeat_interleave(M)
    noise = F.normalize(torch.randn(K, D, generator=torch.Generator().manual_seed(1)), dim=1)
    memory.write(noise, torch.arange(K) + images, torch.zeros(K, dtype=torch.long), 0)

    def run_step() -> None:
        queries = torch.take_along_dim(first, picks[..., None], dim=1)
        index = match_patches(queries, second)
        keys = torch.take_along_dim(second, index[..., None], dim=1).flatten(0, 1)
        LOSSES["ours"](queries.flatten(0, 1), keys, memory.buffer).backward()
        memory.write(keys, ids, ids, 1)

    return run_step


def build_lightly_step(images: int) -> Call:
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


def measure_dense_loss(counts: tuple[int, ...] = (16, 64), rounds: int = 5) -> list[BenchmarkRow]:
    """The dense loss against the same loss built from lightly's parts."""
    rows = []
    for images in counts:
        builders = {"ours": build_our_step, "lightly": build_lightly_step}
        times = measure_alternating({kind: b(images) for kind, b in builders.items()}, rounds)
        memory = {kind: measure_peak_memory(build, images) for kind, build in builders.items()}
        name = (
            f"dense loss / lightly's NTXentLoss with memory bank and "
            f"select_most_similar, {images} images of {M} queries"
        )
        added = f"the same, added peak memory, {images} images"
        rows += [
            make_time_row("P8", name, times, "ours", "lightly", "≤ 0.25"),
            make_memory_row("P8", added, memory, "ours", "lightly", "≤ 0.1"),
        ]
    return rows
