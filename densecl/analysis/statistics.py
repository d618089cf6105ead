"""Confidence intervals and tests for top-1, differences between modes, and drops from a control.

n images, S seeds. An outcome is 1.0 where the model was right on the image and 0.0 where it was
wrong. Pure functions: the same arguments give the same numbers, `seed` included.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Outcomes = NDArray[np.float64]  # [n, S]
SEEDS_FOR_MODE = 3  # fewer say nothing about the spread between seeds
POWER = 0.8  # of the smallest difference that is called detectable


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence limits; `p` is the two-sided p-value of the value being 0."""

    value: float
    low: float
    high: float
    p: float | None = None


@dataclass(frozen=True)
class WeightedOutcomes:
    """A term: `weight` times the mean of `outcomes` [n, S]; terms have independent images."""

    weight: float
    outcomes: Outcomes


def compute_wilson_interval(outcomes: Outcomes, confidence: float) -> Estimate:
    """Top-1 of one model [n] with Wilson's score interval (Wilson 1927; statsmodels)."""
    from statsmodels.stats.proportion import proportion_confint

    correct, n = int(outcomes.sum()), outcomes.size
    low, high = proportion_confint(correct, n, alpha=1 - confidence, method="wilson")
    return Estimate(correct / n, max(0.0, float(low)), min(1.0, float(high)))


def estimate_independent_difference(first: Estimate, second: Estimate) -> Estimate:
    """Difference of two independent samples from their intervals (Newcombe 1998, method 10: square
    and add).
    """
    value = first.value - second.value
    return Estimate(
        value,
        value - float(np.hypot(first.value - first.low, second.high - second.value)),
        value + float(np.hypot(first.high - first.value, second.value - second.low)),
    )


def estimate_by_bootstrap(
    terms: Sequence[WeightedOutcomes], confidence: float, resamples: int, seed: int
) -> Estimate:
    """Weighted sum of means with a percentile bootstrap interval over images (Efron & Tibshirani
    1993).

    Outcomes are averaged over the seeds first, so this speaks of the models at hand, not of the
    mode. The least p is 2 / (resamples + 1).
    """
    rng = np.random.default_rng(seed)
    draws = np.zeros(resamples)
    for term in terms:
        draws += term.weight * _draw_bootstrap_means(term.outcomes.mean(axis=1), resamples, rng)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Sums of equal terms may miss 0 by a rounding error.
    tail = min(int((draws <= 1e-12).sum()), int((draws >= -1e-12).sum()))
    return Estimate(
        _sum_weighted_means(terms),
        float(low),
        float(high),
        min(1.0, 2 * (tail + 1) / (resamples + 1)),
    )


def _draw_bootstrap_means(
    image_means: Outcomes, resamples: int, rng: np.random.Generator
) -> Outcomes:
    """[samples] means of n images drawn with replacement, by multinomial draws over the distinct
    values.
    """
    levels, counts = np.unique(image_means, return_counts=True)
    return np.asarray(
        rng.multinomial(image_means.size, counts / image_means.size, size=resamples)
        @ levels
        / image_means.size
    )


def estimate_over_seeds(terms: Sequence[WeightedOutcomes], confidence: float) -> Estimate:
    """Weighted sum of means with a t interval for the mode, which covers new seeds and new
    images.

    The variance is a + b: a that of the mean of S seed values, b what the choice of images adds to
    all seeds alike (crossed random effects: Cornfield & Tukey 1956). Student's t has (S - 1)(a + b)
    / a degrees of freedom: S - 1 where the seeds make all the error, many where the images do.
    Satterthwaite's (1946) square of that ratio covers 92 % at its worst for three seeds, the ratio
    itself 94 to 97 % (docs/evaluation.md).
    """
    from scipy import stats

    value, error, freedom = _sum_weighted_means(terms), *_compute_seed_error(terms)
    if error == 0:
        return Estimate(value, value, value, float(value == 0))
    half_width = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return Estimate(
        value,
        value - half_width,
        value + half_width,
        float(2 * stats.t.sf(abs(value) / error, freedom)),
    )


def _compute_seed_error(terms: Sequence[WeightedOutcomes]) -> tuple[float, float]:
    """Standard error of the weighted sum over new seeds and images, and its degrees of freedom."""
    seed_sums = np.sum([term.weight * term.outcomes.mean(axis=0) for term in terms], axis=0)  # [S]
    seed_variance = float(seed_sums.var(ddof=1)) / seed_sums.size
    variance = seed_variance + sum(
        term.weight**2 * _estimate_image_variance(term.outcomes) for term in terms
    )
    return float(np.sqrt(variance)), (
        seed_sums.size - 1
    ) * variance / seed_variance if seed_variance else float("inf")


def _estimate_image_variance(outcomes: Outcomes) -> float:
    """Variance of the mean of [n, S] due to the sampling of images shared by all seeds, without the
    noise of single predictions.
    """
    n, seeds = outcomes.shape
    if n == 1:
        return 0.0
    image_means = outcomes.mean(axis=1)
    residuals = outcomes - image_means[:, None] - outcomes.mean(axis=0) + outcomes.mean()
    noise_variance = (residuals**2).sum() / ((n - 1) * (seeds - 1)) / (n * seeds)
    return max(0.0, float(image_means.var(ddof=1) / n - noise_variance))


def estimate_accuracy(outcomes: Outcomes, confidence: float, resamples: int, seed: int) -> Estimate:
    """Mean of [n, S] in [0, 1]: Wilson interval for one seed, bootstrap for two, t over seeds for
    three or more.
    """
    if (
        outcomes.shape[1] == 1 or outcomes.all() or not outcomes.any()
    ):  # without spread, redraws and t would know no doubt
        return compute_wilson_interval(outcomes[:, 0], confidence)
    estimate = estimate_weighted_sum([WeightedOutcomes(1.0, outcomes)], confidence, resamples, seed)
    return Estimate(estimate.value, max(0.0, estimate.low), min(1.0, estimate.high))


def estimate_weighted_sum(
    terms: Sequence[WeightedOutcomes], confidence: float, resamples: int, seed: int
) -> Estimate:
    """Weighted sum of means: bootstrap for fewer than three seeds, t over seeds for three or
    more.
    """
    if terms[0].outcomes.shape[1] >= SEEDS_FOR_MODE:
        return estimate_over_seeds(terms, confidence)
    return estimate_by_bootstrap(terms, confidence, resamples, seed)


def estimate_paired_difference(
    first: Outcomes, second: Outcomes, confidence: float, resamples: int, seed: int
) -> Estimate:
    """Difference of two modes on the same images [n, S]: one row per image, one column per seed.

    p: exact McNemar for one seed, from redrawn images for two, t over paired seed differences from
    three on.
    """
    estimate = estimate_mean_difference([first - second], confidence, resamples, seed)
    if first.shape[1] > 1:
        return estimate
    return Estimate(
        estimate.value, estimate.low, estimate.high, compute_mcnemar_p(first[:, 0], second[:, 0])
    )


def estimate_mean_difference(
    gaps: Sequence[Outcomes], confidence: float, resamples: int, seed: int
) -> Estimate:
    """Mean over datasets of the paired differences `gaps`, each [n, S]."""
    if not any(gap.any() for gap in gaps):
        # The models differ on no image: at most this share could, had other images been drawn (the
        # exact bound for 0 of n).
        bound = float(np.mean([1 - ((1 - confidence) / 2) ** (1 / gap.shape[0]) for gap in gaps]))
        return Estimate(0.0, -bound, bound, 1.0)
    return estimate_weighted_sum(
        [WeightedOutcomes(1 / len(gaps), gap) for gap in gaps], confidence, resamples, seed
    )


def compute_mcnemar_p(first: Outcomes, second: Outcomes) -> float:
    """Exact two-sided McNemar p-value for equal top-1 of two models on the same images [n] (McNemar
    1947, binomial form).
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first > second).sum()), int((second > first).sum())
    differing = only_first + only_second
    return float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0


def apply_holm_correction(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values in the given order; they control the family-wise error rate (Holm
    1979).
    """
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def compute_detectable_difference(
    terms: Sequence[WeightedOutcomes], confidence: float, tests: int = 1
) -> float:
    """Smallest true difference that the test detects with 80 % power; `tests` is the size of Holm's
    family.

    The level is (1 - confidence) / tests, that of Holm's first step. One model a mode on one set:
    Connor's (1987) normal approximation for McNemar's test, d = (u sqrt(p) + v sqrt(p - d^2)) /
    sqrt(n) with n images of which a share p tells the models apart (at least d; else at least one
    image), u and v the quantiles of level and power; where no image of any term does, the parts'
    mean of it. Elsewhere (u + v) times the standard error, with Student's t from three seeds on.
    """
    from scipy import stats

    level, seeds = 1 - (1 - confidence) / tests / 2, terms[0].outcomes.shape[1]
    if (seeds == 1 and len(terms) == 1) or not any(term.outcomes.any() for term in terms):
        u, v = float(stats.norm.ppf(level)), float(stats.norm.ppf(POWER))
        differences = [
            _compute_connor_difference(
                term.outcomes.shape[0], float((term.outcomes != 0).mean()), u, v
            )
            for term in terms
        ]
        return float(np.dot([abs(term.weight) for term in terms], differences))
    if seeds < SEEDS_FOR_MODE:
        means = [(term.weight, term.outcomes.mean(axis=1)) for term in terms]
        error, freedom = (
            float(np.sqrt(sum(w**2 * m.var(ddof=1) / m.size for w, m in means))),
            float("inf"),
        )
    else:
        error, freedom = _compute_seed_error(terms)
    return error * float(stats.t.ppf(level, freedom) + stats.t.ppf(POWER, freedom))


def _compute_connor_difference(n: int, discordant: float, u: float, v: float) -> float:
    """Root of Connor's formula; a discordant share below the difference itself is raised to it."""
    share = max(discordant, 1 / n)
    difference = (
        np.sqrt(share) * (u * np.sqrt(n) + v * np.sqrt(max(0.0, n - u * u + v * v))) / (n + v * v)
    )
    if difference > share:  # p = d: d n = (u + v sqrt(1 - d))^2, solved by steps that contract
        difference = 1.0
        for _ in range(100):
            difference = min(1.0, (u + v * np.sqrt(1 - difference)) ** 2 / n)
    return float(difference)


def _sum_weighted_means(terms: Sequence[WeightedOutcomes]) -> float:
    return float(sum(term.weight * term.outcomes.mean() for term in terms))
