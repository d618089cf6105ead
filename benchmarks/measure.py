"""Ratios measured in one run: alternating calls for time, fresh processes for memory."""

import gc
import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch.utils.benchmark import timer

from densecl.runtime.hardware import get_device, read_peak_memory, reset_peak_memory

MEBIBYTE = 2**20
TABLE_HEADER = "| id | measure | ours | peer | ratio | target |\n|---|---|---|---|---|---|\n"
Call = Callable[[], object]
Times = dict[str, list[float]]  # seconds per round, by the name of the call


class BenchmarkRow(NamedTuple):
    """One row of docs/performance.md; `raw` is what the cells were computed from."""

    id: str
    measure: str
    ours: str
    peer: str
    ratio: str  # median (min to max) of the rounds
    target: str
    raw: Mapping[str, list[float]] = MappingProxyType({})  # seconds, MiB or errors by name


def measure_alternating(
    calls: Mapping[str, Call], rounds: int, clock: Callable[[], float] = timer
) -> Times:
    """Seconds per call, called in turn (A B A B ...); the first round warms up and is left out.

    The default clock waits for the GPU.
    """
    times: Times = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return {name: seconds[1:] for name, seconds in times.items()}


def measure_peak_memory(build: Callable[..., Call], *args: object) -> float:
    """MiB that calling `build(*args)()` adds to the peak memory: on a GPU of the allocator, which
    counts exactly what this process holds there; on the CPU of a fresh process.
    """
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
        return _measure_memory_growth(build, args)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_memory_growth, (build, args))


def _measure_memory_growth(build: Callable[..., Call], args: tuple[object, ...]) -> float:
    call = build(*args)
    device = get_device()
    reset_peak_memory(device)
    before = read_peak_memory(device)  # what is in use now
    call()
    return (read_peak_memory(device) - before) / MEBIBYTE


def format_ratio(ours: list[float], peer: list[float]) -> str:
    """Median of the rounds' ratios, with minimum and maximum."""
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    return f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def format_seconds(seconds: list[float]) -> str:
    """The median in s or ms."""
    median_seconds = median(seconds)
    return f"{median_seconds:.3f} s" if median_seconds >= 0.1 else f"{1000 * median_seconds:.2f} ms"


def make_time_row(
    row_id: str, measure: str, times: Times, ours: str, peer: str, target: str, note: str = ""
) -> BenchmarkRow:
    """Time of `ours` / time of `peer`."""
    cells = format_seconds(times[ours]) + note, format_seconds(times[peer])
    ratio, raw = format_ratio(times[ours], times[peer]), {ours: times[ours], peer: times[peer]}
    return BenchmarkRow(row_id, measure, *cells, ratio, target, raw)


def make_rate_row(
    row_id: str,
    measure: str,
    times: Times,
    ours: str,
    peer: str,
    target: str,
    amount: float,
    unit: str,
) -> BenchmarkRow:
    """Throughput of `ours` / throughput of `peer`; each call processes `amount` units."""
    ratio = format_ratio(times[peer], times[ours])
    rates = {name: f"{amount / median(times[name]):,.0f} {unit}/s" for name in (ours, peer)}
    raw = {ours: times[ours], peer: times[peer]}
    return BenchmarkRow(row_id, measure, rates[ours], rates[peer], ratio, target, raw)


def make_memory_row(
    row_id: str,
    measure: str,
    memory: Mapping[str, float],
    ours: str,
    peer: str,
    target: str,
    note: str = "",
) -> BenchmarkRow:
    """Added memory in MiB of `ours` / of `peer`."""
    cells = f"{memory[ours]:.0f} MiB{note}", f"{memory[peer]:.0f} MiB"
    ratio, raw = f"{memory[ours] / memory[peer]:.3f}", {k: [memory[k]] for k in (ours, peer)}
    return BenchmarkRow(row_id, measure, *cells, ratio, target, raw)


def format_rows(rows: Iterable[BenchmarkRow]) -> str:
    """Rows of a Markdown table."""
    return "\n".join(f"| {' | '.join(row[:6])} |" for row in rows)
