"""What the best of n trials scores on average (Dodge et al. 2019, "Show Your Work", equation 4)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class ExpectedMaximum(NamedTuple):
    """Of the best of `trials` trials that are drawn anew."""

    trials: int
    mean: float
    deviation: float  # standard


def estimate_expected_maxima(scores: Sequence[float]) -> list[ExpectedMaximum]:
    """One per number of trials, from 1 to all of them.

    The maximum of n draws from the B scores, with replacement, is at most the i-th smallest with
    probability (i/B)^n. That is exact for draws from these scores; as an estimate for new ones it
    is too low where n is close to B (Tang et al. 2020). It holds for trials that were drawn
    independently, thus by random search.
    """
    ordered = np.sort(np.asarray(scores, dtype=float))
    steps = np.arange(len(ordered) + 1) / max(1, len(ordered))
    maxima = []
    for trials in range(1, len(ordered) + 1):
        weights = np.diff(steps**trials)  # of each score, to be the maximum
        mean = float(weights @ ordered)
        deviation = float(np.sqrt(max(0.0, weights @ ordered**2 - mean**2)))
        maxima.append(ExpectedMaximum(trials, mean, deviation))
    return maxima
