"""Ratios measured in one run: alternating calls for time, fresh processes for memory."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEBIBYTE = 2**20
Call = Callable[[], object]


class Row(NamedTuple):
    """One line of docs/performance.md."""

    id: str
    measure: str
    ours: str
    peer: str
    ratio: str  # median (min to max) of the rounds
    target: str


def alternate(kinds: dict[str, Call], rounds: int) -> dict[str, list[float]]:
    """Seconds of each kind, called in turn (A B A B ...); a first round that warms up is left
    out.
    """
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds + 1):
        for name, call in kinds.items():
            _wait()
            begun = time.perf_counter()
            call()
            _wait()
            times[name].append(time.perf_counter() - begun)
    return {name: seen[1:] for name, seen in times.items()}


def ratio(ours: list[float], peer: list[float]) -> str:
    """Median of the rounds' ratios, with minimum and maximum."""
    found = [a / b for a, b in zip(ours, peer, strict=True)]
    return f"{median(found):.3f} ({min(found):.3f} to {max(found):.3f})"


def shown(seconds: list[float]) -> str:
    """The median, as people read it."""
    middle = median(seconds)
    return f"{middle:.3f} s" if middle >= 0.1 else f"{1000 * middle:.2f} ms"


def peak(prepare: Callable[..., Call], *given: object) -> float:
    """MiB that calling what `prepare(*given)` returns adds to the peak of a process of its own: on
    a GPU of its allocator's.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_grown, (prepare, given))


def _grown(prepare: Callable[..., Call], given: tuple[object, ...]) -> float:
    call = prepare(*given)
    if torch.cuda.is_available():
        _wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        _wait()
        return (torch.cuda.max_memory_allocated() - before) / MEBIBYTE
    RESET.write_text("5", encoding="ascii")  # the peak is now what is resident
    before = _resident_peak()
    call()
    return (_resident_peak() - before) / MEBIBYTE


def _resident_peak() -> int:
    """Bytes. Linux's own count: a child's `ru_maxrss` begins at its parent's."""
    line = next(
        line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM")
    )
    return 1024 * int(line.split()[1])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
