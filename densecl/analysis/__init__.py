"""Statistics of accuracies and of their differences: estimates with confidence intervals, tests.

Outcomes are arrays [images, seeds] of 0 and 1 (is the prediction correct?).
"""

from densecl.analysis.paired import estimate_difference
from densecl.analysis.statistics import (
    Estimate,
    apply_holm_correction,
    compute_detectable_difference,
    compute_mcnemar_p,
    compute_wilson_interval,
    estimate_accuracy,
    estimate_mean_difference,
    estimate_paired_difference,
)

__all__ = [
    "Estimate",
    "apply_holm_correction",
    "compute_detectable_difference",
    "compute_mcnemar_p",
    "compute_wilson_interval",
    "estimate_accuracy",
    "estimate_difference",
    "estimate_mean_difference",
    "estimate_paired_difference",
]
