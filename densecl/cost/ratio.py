"""The ratio of two steps' times with its interval."""

from collections.abc import Sequence
from math import exp, sqrt

import numpy as np
from scipy.stats import t as student_t

from densecl.cost.result import StepRatio

CONFIDENCE = 0.992  # of each interval; six ratios, of three modes, hold together at 95 %
MIN_ROUNDS = 8  # fewer have no interval


def compute_ratio(ours: Sequence[float], peer: Sequence[float], factor: float = 1.0) -> StepRatio:
    """`factor` times the geometric mean of the per-round ratios ours_i / peer_i.

    Its interval is that of Student's t for the mean of the logarithms. What slows a whole round
    cancels in its ratio. Fewer than MIN_ROUNDS rounds have no interval.
    """
    logarithms = np.log(ours) - np.log(peer)
    rounds, mean = len(logarithms), float(logarithms.mean())
    value = factor * exp(mean)
    if rounds < MIN_ROUNDS:
        return StepRatio(value=value, low=None, high=None)
    quantile = float(student_t.isf((1 - CONFIDENCE) / 2, rounds - 1))
    half_width = quantile * float(logarithms.std(ddof=1)) / sqrt(rounds)
    return StepRatio(
        value=value, low=factor * exp(mean - half_width), high=factor * exp(mean + half_width)
    )
