"""Ratios measured in one run: alternating calls for time, fresh processes for memory."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

PROC_STATUS, PROC_CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEBIBYTE = 2**20
Call = Callable[[], object]


class BenchmarkRow(NamedTuple):
    """One row of docs/performance.md."""

    id: str
    measure: str
    ours: str
    peer: str
    ratio: str  # median (min to max) of the rounds
    target: str


def measure_alternating(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    """Seconds of each kind, called in turn (A B A B ...); a first round that warms up is left
    out.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            _wait_for_device()
            start = time.perf_counter()
            call()
            _wait_for_device()
            times[name].append(time.perf_counter() - start)
    return {name: seconds[1:] for name, seconds in times.items()}


def format_ratio(ours: list[float], peer: list[float]) -> str:
    """Median of the rounds' ratios, with minimum and maximum."""
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    return f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def format_seconds(seconds: list[float]) -> str:
    """The median, as people read it."""
    median_seconds = median(seconds)
    return f"{median_seconds:.3f} s" if median_seconds >= 0.1 else f"{1000 * median_seconds:.2f} ms"


def measure_peak_memory(prepare: Callable[..., Call], *args: object) -> float:
    """MiB that calling what `prepare(*given)` returns adds to the peak of a process of its own: on
    a GPU of its allocator's.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measure_memory_growth, (prepare, args))


def _measure_memory_growth(prepare: Callable[..., Call], args: tuple[object, ...]) -> float:
    call = prepare(*args)
    if torch.cuda.is_available():
        _wait_for_device()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        _wait_for_device()
        return (torch.cuda.max_memory_allocated() - before) / MEBIBYTE
    PROC_CLEAR_REFS.write_text("5", encoding="ascii")  # the peak is now what is resident
    before = _read_resident_peak()
    call()
    return (_read_resident_peak() - before) / MEBIBYTE


def _read_resident_peak() -> int:
    """Bytes. Linux's own count: a child's `ru_maxrss` begins at its parent's."""
    line = next(
        line
        for line in PROC_STATUS.read_text(encoding="ascii").splitlines()
        if line.startswith("VmHWM")
    )
    return 1024 * int(line.split()[1])


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
