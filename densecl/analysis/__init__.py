"""Statistics of accuracies and of their differences: estimates with confidence intervals, tests.

Outcomes are arrays [images, seeds] of 0 and 1 (is the prediction correct?). `sample_difference` and
`sample_weighted_sum` give a `SampledValue`: it has the interval, the p-value and the power, alone
or in a family of tests.
"""

from densecl.analysis.paired import estimate_difference
from densecl.analysis.sampled_value import Estimate, SampledValue, compute_binomial_p
from densecl.analysis.statistics import (
    WeightedOutcomes,
    compute_wilson_interval,
    estimate_accuracy,
    estimate_weighted_sum,
    sample_difference,
    sample_weighted_sum,
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
    "sample_weighted_sum",
]
