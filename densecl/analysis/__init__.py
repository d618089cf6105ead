"""Statistics of accuracies and of their differences: estimates with confidence intervals, tests.

Outcomes are arrays [images, seeds] of 0 and 1 (is the prediction correct?).
"""

from densecl.analysis.paired import estimate_difference
from densecl.analysis.sampled_value import Estimate, SampledValue, compute_binomial_p
from densecl.analysis.statistics import (
    WeightedOutcomes,
    compute_wilson_interval,
    estimate_accuracy,
    estimate_weighted_sum,
    sample_difference,
)

__all__ = [
    "Estimate",
    "SampledValue",
    "WeightedOutcomes",
    "compute_binomial_p",
    "compute_wilson_interval",
    "estimate_accuracy",
    "estimate_difference",
    "estimate_weighted_sum",
    "sample_difference",
]
