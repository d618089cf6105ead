"""The ratio of two steps' times with a distribution-free interval."""

from collections.abc import Sequence
from statistics import median

from scipy.stats import binom

from densecl.cost.result import StepRatio

CONFIDENCE = 0.99  # of each interval; five ratios then hold together at 95 % (Bonferroni)


def compute_ratio(ours: Sequence[float], peer: Sequence[float]) -> StepRatio:
    """Median of the per-round ratios r_i = ours_i / peer_i, with an interval for the true median.

    The interval is [r_(k), r_(n+1-k)] of the n sorted ratios, with the largest k for which
    P(Binomial(n, 1/2) < k) <= (1 - CONFIDENCE) / 2 (Conover 1999, section 3.2). It assumes
    independent rounds and nothing about the distribution of times. Fewer than 8 rounds have none.
    """
    ratios = sorted(a / b for a, b in zip(ours, peer, strict=True))
    k = int(binom.ppf((1 - CONFIDENCE) / 2, len(ratios), 0.5))
    low, high = (ratios[k - 1], ratios[-k]) if k else (None, None)
    return StepRatio(value=median(ratios), low=low, high=high)
