"""Candidates tried on the same validation images, and how much better the best of them looks than
it is.
"""

from densecl.analysis.sampled_value import Estimate
from densecl.pages.formatting import format_count, format_percent
from pipelines.schemas import GateVerdict


def compute_expected_maximum(count: int) -> float:
    """Expected maximum of `count` independent standard normal values: the integral of
    1 - F(x)^count above 0 minus that of F(x)^count below.
    """
    from scipy.integrate import quad
    from scipy.stats import norm

    above, _ = quad(lambda x: 1 - norm.cdf(x) ** count, 0, 12)
    below, _ = quad(lambda x: norm.cdf(x) ** count, -12, 0)
    return max(0.0, float(above - below))


def estimate_winner_bias(difference: Estimate, confidence: float, candidates: int) -> float:
    """Winner's bias in top-1: how far, on average, the best of `candidates` equally good models is
    above its true value on these images.

    The noise that two models do not share is that of their difference; half its variance is each
    model's own.
    """
    from scipy.stats import norm

    quantile = float(norm.ppf((1 + confidence) / 2))
    standard_error = (difference.high - difference.low) / (2 * quantile)
    return compute_expected_maximum(candidates) * standard_error / 2**0.5


def describe_trials(verdict: GateVerdict) -> str:
    """One or two sentences; "" where nothing was counted."""
    if verdict.validation is None:
        return ""
    if verdict.candidates == 1:
        return "The first candidate that is tried on these validation images."
    tried = (
        f"{format_count(verdict.candidates, 'candidate')} were tried on these validation images, "
        "with this one"
    )
    if verdict.winner_bias is None or format_percent(verdict.winner_bias) == "0.0":
        return f"{tried}: the best of them looks better there than it is."
    return (
        f"{tried}. The best of as many equally good ones looks "
        f"{format_percent(verdict.winner_bias)} points better there than it is (winner's bias)."
    )
