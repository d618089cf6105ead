"""Effective robustness: accuracy under shift minus the accuracy expected from clean accuracy (Taori
et al. 2020).

The expectation is logit(shift) = slope logit(clean) + intercept, fitted on the standard-training
models of imagenet-testbed's public table (`effective_robustness.csv`), in fractions. It holds at
ImageNet scale only.
"""

import csv
import math
from functools import cache
from importlib.resources import files
from typing import NamedTuple

# Of the standard models of that table, about, by the images that are the x of the fit.
HIGHEST_CLEAN = {"imagenet": 0.843, "imagenet-r-control": 0.96, "imagenet-a-control": 0.966}


class FitSegment(NamedTuple):
    """One published fit, valid for clean accuracies from `low` to `high`."""

    low: float
    high: float
    slope: float
    intercept: float
    highest: float  # clean accuracy at which the fitted models end, about
    r2: float  # share of the variance of logit(shift) that the fit explains
    models: int


class NotApplicable(ValueError):
    """A metric that this dataset or this clean accuracy does not have; the message gives the
    reason.
    """


@cache
def load_fit_segments(protocol: str) -> tuple[FitSegment, ...]:
    """The fits of one dataset by ascending clean accuracy; empty if none is published."""
    text = (files("densecl.evaluation") / "effective_robustness.csv").read_text(encoding="utf-8")
    return tuple(
        FitSegment(
            float(row["from_percent"]) / 100,
            float(row["to_percent"]) / 100,
            float(row["slope"]),
            float(row["intercept"]),
            float(row["to_percent"]) / 100
            if float(row["to_percent"]) < 100
            else HIGHEST_CLEAN[row["clean"]],
            float(row["r2"]),
            int(row["models"]),
        )
        for row in csv.DictReader(text.splitlines())
        if row["dataset"] == protocol
    )


def find_fit_segment(protocol: str, clean_accuracy: float) -> FitSegment:
    """The fit that is valid at this clean accuracy; raises NotApplicable."""
    segments = load_fit_segments(protocol)
    if not segments:
        raise NotApplicable(f"no published fit for {protocol}")
    for segment in segments:
        if segment.low <= clean_accuracy <= segment.high and clean_accuracy < 1:
            return segment
    raise NotApplicable(
        f"clean top-1 {100 * clean_accuracy:.1f} % lies outside {100 * segments[0].low:g} to 100 "
        f"%, where the "
        f"fit holds"
    )


def compute_expected_accuracy(protocol: str, clean_accuracy: float) -> float:
    """Expected accuracy under shift of a standard model with this clean accuracy; raises
    NotApplicable.
    """
    segment = find_fit_segment(protocol, clean_accuracy)
    return 1 / (
        1
        + math.exp(
            -(segment.slope * math.log(clean_accuracy / (1 - clean_accuracy)) + segment.intercept)
        )
    )


def compute_slope(protocol: str, clean_accuracy: float) -> float:
    """d expected / d clean, which propagates the standard error of the clean accuracy."""
    expected_accuracy = compute_expected_accuracy(protocol, clean_accuracy)
    return (
        find_fit_segment(protocol, clean_accuracy).slope
        * expected_accuracy
        * (1 - expected_accuracy)
        / (clean_accuracy * (1 - clean_accuracy))
    )


def compute_fit_error(protocol: str, clean_accuracy: float) -> float:
    """Standard error of the expected accuracy that the fit itself has, by its r2.

    The error of a line at x is that of its slope, |slope| sqrt((1 / r2 - 1) / (models - 2)), times
    the root of the mean squared distance of x from the fitted models, which are taken to lie
    evenly between the ends of the segment, in logits.
    """
    segment = find_fit_segment(protocol, clean_accuracy)
    slope_error = abs(segment.slope) * math.sqrt((1 / segment.r2 - 1) / (segment.models - 2))
    low, x, high = (
        math.log(share / (1 - share)) for share in (segment.low, clean_accuracy, segment.highest)
    )
    distance = math.sqrt(((high - x) ** 3 - (low - x) ** 3) / (3 * (high - low)))
    expected_accuracy = compute_expected_accuracy(protocol, clean_accuracy)
    return slope_error * distance * expected_accuracy * (1 - expected_accuracy)
