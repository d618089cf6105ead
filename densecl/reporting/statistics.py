"""Intervals and tests for top-1, for the difference of two modes and for the drop from a control.

n images, S seeds. An outcome is 1.0 where the model was right on the image and 0.0 where it was wrong. Pure functions:
the same arguments give the same numbers, `seed` included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Outcomes = NDArray[np.float64]  # [n, S]
SEEDS_FOR_MODE = 3  # fewer say nothing about the spread between seeds


@dataclass(frozen=True)
class Estimate:
    """A value between its confidence limits; `p` is two-sided, of the value being 0."""

    value: float
    low: float
    high: float
    p: float | None = None


@dataclass(frozen=True)
class Part:
    """`weight` times the mean of `values` [n, S]; the images of different parts are independent draws."""

    weight: float
    values: Outcomes


def wilson(outcomes: Outcomes, confidence: float) -> Estimate:
    """Share of right answers of one model [n] with Wilson's score interval (Wilson 1927; statsmodels)."""
    from statsmodels.stats.proportion import proportion_confint

    right, n = int(outcomes.sum()), outcomes.size
    low, high = proportion_confint(right, n, alpha=1 - confidence, method="wilson")
    return Estimate(right / n, max(0.0, float(low)), min(1.0, float(high)))


def independent_difference(first: Estimate, second: Estimate) -> Estimate:
    """Difference first - second of two disjoint samples, from their intervals (Newcombe 1998, method 10: square and add)."""
    value = first.value - second.value
    return Estimate(
        value,
        value - float(np.hypot(first.value - first.low, second.high - second.value)),
        value + float(np.hypot(first.high - first.value, second.value - second.low)),
    )


def image_bootstrap(parts: Sequence[Part], confidence: float, samples: int, seed: int) -> Estimate:
    """Weighted sum of the parts' means with a percentile interval over redrawn images (Efron & Tibshirani 1993).

    Outcomes are averaged over the seeds first, so this speaks of the models at hand, not of the mode. The least p is
    2 / (samples + 1).
    """
    rng = np.random.default_rng(seed)
    draws = np.zeros(samples)
    for part in parts:
        draws += part.weight * _redrawn_means(part.values.mean(axis=1), samples, rng)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Sums of equal terms may miss 0 by a rounding error.
    tail = min(int((draws <= 1e-12).sum()), int((draws >= -1e-12).sum()))
    return Estimate(_value(parts), float(low), float(high), min(1.0, 2 * (tail + 1) / (samples + 1)))


def _redrawn_means(values: Outcomes, samples: int, rng: np.random.Generator) -> Outcomes:
    """[samples] means of n images drawn with replacement; a draw is a multinomial over the few levels there are."""
    levels, counts = np.unique(values, return_counts=True)
    return np.asarray(rng.multinomial(values.size, counts / values.size, size=samples) @ levels / values.size)


def over_seeds(parts: Sequence[Part], confidence: float) -> Estimate:
    """Weighted sum of the parts' means with an interval for the mode: new seeds and new images.

    Student's t over the S paired seed values, S - 1 degrees of freedom, the variance widened by what the images add to
    all seeds alike (crossed random effects: Cornfield & Tukey 1956). Seeds that lie closer together than the luck on
    single images allows are lucky: that luck bounds their spread from below. In simulations with 3 and 5 seeds it
    covered 95 to 100 % where 95 % was asked; t alone 93.4 to 95.2 %.
    """
    from scipy import stats

    each = np.sum([part.weight * part.values.mean(axis=0) for part in parts], axis=0)  # [S]
    shared, luck = np.sum([part.weight**2 * _image_variances(part.values) for part in parts], axis=0)
    error = float(np.sqrt(max(each.var(ddof=1) / each.size, luck) + shared))
    value = _value(parts)
    half = float(stats.t.ppf((1 + confidence) / 2, each.size - 1)) * error
    if error == 0:
        return Estimate(value, value, value, float(value == 0))
    return Estimate(value, value - half, value + half, float(2 * stats.t.sf(abs(value) / error, each.size - 1)))


def _image_variances(values: Outcomes) -> Outcomes:
    """[2] variances of the mean of [n, S]: from which images were drawn, the same for every seed, and from single answers."""
    n, seeds = values.shape
    if n == 1:
        return np.zeros(2)
    by_image = values.mean(axis=1)
    rest = values - by_image[:, None] - values.mean(axis=0) + values.mean()
    luck = (rest**2).sum() / ((n - 1) * (seeds - 1)) / (n * seeds)
    return np.array([max(0.0, by_image.var(ddof=1) / n - luck), luck])


def accuracy(outcomes: Outcomes, confidence: float, samples: int, seed: int) -> Estimate:
    """Mean of [n, S] in [0, 1]: Wilson for one seed, images redrawn for two, t over seeds from three on."""
    if outcomes.shape[1] == 1:
        return wilson(outcomes[:, 0], confidence)
    found = combined([Part(1.0, outcomes)], confidence, samples, seed)
    return Estimate(found.value, max(0.0, found.low), min(1.0, found.high))


def combined(parts: Sequence[Part], confidence: float, samples: int, seed: int) -> Estimate:
    """Weighted sum of the parts' means: images redrawn below three seeds, t over seeds from three on."""
    if parts[0].values.shape[1] >= SEEDS_FOR_MODE:
        return over_seeds(parts, confidence)
    return image_bootstrap(parts, confidence, samples, seed)


def paired_difference(first: Outcomes, second: Outcomes, confidence: float, samples: int, seed: int) -> Estimate:
    """Difference first - second of two modes on the same images [n, S]: a row is an image, a column a seed.

    p: exact McNemar for one seed, from redrawn images for two, t over paired seed differences from three on.
    """
    if not (first != second).any():
        # No image tells them apart: at most this share could, had other images been drawn (the exact bound for 0 of n).
        bound = 1 - ((1 - confidence) / 2) ** (1 / first.shape[0])
        return Estimate(0.0, -bound, bound, 1.0)
    found = combined([Part(1.0, first - second)], confidence, samples, seed)
    if first.shape[1] > 1:
        return found
    return Estimate(found.value, found.low, found.high, mcnemar(first[:, 0], second[:, 0]))


def mcnemar(first: Outcomes, second: Outcomes) -> float:
    """Exact two-sided p of equal top-1 of two models on the same images [n] (McNemar 1947, binomial form)."""
    from scipy.stats import binomtest

    only_first, only_second = int((first > second).sum()), int((second > first).sum())
    differing = only_first + only_second
    return float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, same order: any false call among them stays below the level (Holm 1979)."""
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def _value(parts: Sequence[Part]) -> float:
    return float(sum(part.weight * part.values.mean() for part in parts))
