"""Parts of a benchmark that share a time budget: what does not fit is cut, by name.

A part may use what the parts before it have left: the deadlines add up.
"""

import gc
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from benchmarks.measure import BenchmarkRow

GRACE = 25.0  # s after the deadline of its part, until a running task is stopped


class Task(NamedTuple):
    """The unit that is measured whole or not at all."""

    name: str
    measure: Callable[[], list[BenchmarkRow]]


class Part(NamedTuple):
    name: str
    seconds: float
    tasks: Sequence[Task]


class PartResult(NamedTuple):
    """Rows of a part, and one line for each task without rows."""

    name: str
    budget: float  # s
    seconds: float
    rows: list[BenchmarkRow]
    cut: list[str]  # no time left, or a package is missing
    failed: list[str]


class OutOfTime(BaseException):
    """Raised in a task that is stopped. No Exception, so that no code between catches it."""


def run_parts(parts: Sequence[Part], grace: float = GRACE) -> Iterator[PartResult]:
    """Measure the parts in order; the last one ends at the sum of all seconds + grace."""
    deadline = time.monotonic()
    for part in parts:
        deadline += part.seconds
        yield run_part(part, deadline, grace)


def run_part(part: Part, deadline: float, grace: float) -> PartResult:
    """Measure the tasks that begin before the deadline (of time.monotonic)."""
    start = time.monotonic()
    result = PartResult(part.name, part.seconds, 0.0, [], [], [])
    for task in part.tasks:
        name, begun = f"{part.name}, {task.name}", time.monotonic()
        if begun >= deadline:
            result.cut.append(
                f"{name}: not measured: the budget of {part.seconds:.0f} s was used up after "
                f"{begun - start:.0f} s; run `python -m benchmarks.gpu --only {part.name}`"
            )
            continue
        try:
            with stop_after(deadline + grace - begun):
                result.rows.extend(task.measure())
        except OutOfTime:
            seconds = time.monotonic() - begun
            result.cut.append(
                f"{name}: stopped after {seconds:.0f} s, {grace:.0f} s past the budget of its part"
            )
        except ImportError as error:
            result.cut.append(f"{name}: not measured: needs the package {error.name}")
        except Exception as error:  # one failure must not cost the other rows
            reason = " ".join(str(error).split())[:200]
            result.failed.append(f"{name}: failed: {type(error).__name__}: {reason}")
        free_memory()
    return result._replace(seconds=time.monotonic() - start)


@contextmanager
def stop_after(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block when the time is over."""

    def stop(_number: int, _frame: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def free_memory() -> None:
    """Give back what the last task held on the GPU: models hold themselves in cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
