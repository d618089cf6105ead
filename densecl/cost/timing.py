"""Time steps in turn until their ratios are known well enough, or the time is over."""

import time
from collections.abc import Callable, Container, Mapping
from itertools import count

import torch

from densecl.cost.ratio import MIN_ROUNDS
from densecl.cost.steps import Step
from densecl.runtime.progress import write_progress

Times = dict[str, list[float]]  # seconds per round, by step
CHECK_EVERY = 4  # rounds: each further look at the intervals is a further chance to stop too early
RARE_EVERY = 4  # rounds, from the first on


def read_clock() -> float:
    """Seconds, once the device has done all its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def time_rounds(
    steps: Mapping[str, Step],
    rare: Container[str],
    seconds: float,
    is_precise: Callable[[Times], bool],
    clock: Callable[[], float],
) -> Times:
    """Seconds of every step in every round, all steps in turn; of `rare` ones in every fourth.

    Ends once `is_precise`, or after the round in which `seconds` are over. The first round warms
    up and is left out. `clock` waits for the device.
    """
    times: Times = {name: [] for name in steps}
    started = clock()
    for round_ in count():
        is_full = not round_ or round_ % RARE_EVERY == 1
        names = [name for name in steps if is_full or name not in rare]
        for name in order_steps(names, round_):
            start = clock()
            steps[name]()
            times[name].append(clock() - start)
        if not round_:
            times = {name: [] for name in steps}
            continue
        is_checked = round_ >= MIN_ROUNDS and not round_ % CHECK_EVERY
        elapsed = clock() - started
        write_progress(int(elapsed), int(seconds), f"s, {round_} rounds")
        if elapsed >= seconds or (is_checked and is_precise(times)):
            return times
    raise AssertionError  # count() does not end


def order_steps(names: list[str], round_: int) -> list[str]:
    """The order of a round: the start rotates every two rounds, odd rounds run backwards.

    No step always follows the same one, nor always comes first.
    """
    start = round_ // 2 % len(names)
    rotated = names[start:] + names[:start]
    return rotated[::-1] if round_ % 2 else rotated
