"""Intervals and tests for top-1, for the difference of two modes and for the drop from a control.

n images, S seeds. An outcome is 1.0 where the model was right on the image and 0.0 where it was
wrong. Pure functions: the same arguments give the same numbers, `seed` included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Outcomes = NDArray[np.float64]  # [n, S]
SEEDS_FOR_MODE = 3  # fewer say nothing about the spread between seeds
POWER = 0.8  # of the smallest difference that is called detectable


@dataclass(frozen=True)
class Estimate:
    """A value between its confidence limits; `p` is two-sided, of the value being 0."""

    value: float
    low: float
    high: float
    p: float | None = None


@dataclass(frozen=True)
class Part:
    """`weight` times the mean of `values` [n, S]; the images of different parts are independent
    draws.
    """

    weight: float
    values: Outcomes


def wilson(outcomes: Outcomes, confidence: float) -> Estimate:
    """Share of right answers of one model [n] with Wilson's score interval (Wilson 1927;
    statsmodels).
    """
    from statsmodels.stats.proportion import proportion_confint

    right, n = int(outcomes.sum()), outcomes.size
    low, high = proportion_confint(right, n, alpha=1 - confidence, method="wilson")
    return Estimate(right / n, max(0.0, float(low)), min(1.0, float(high)))


def independent_difference(first: Estimate, second: Estimate) -> Estimate:
    """Difference first - second of two disjoint samples, from their intervals (Newcombe 1998,
    method 10: square and add).
    """
    value = first.value - second.value
    return Estimate(
        value,
        value - float(np.hypot(first.value - first.low, second.high - second.value)),
        value + float(np.hypot(first.high - first.value, second.value - second.low)),
    )


def image_bootstrap(parts: Sequence[Part], confidence: float, samples: int, seed: int) -> Estimate:
    """Weighted sum of the parts' means with a percentile interval over redrawn images (Efron &
    Tibshirani 1993).

    Outcomes are averaged over the seeds first, so this speaks of the models at hand, not of the
    mode. The least p is 2 / (samples + 1).
    """
    rng = np.random.default_rng(seed)
    draws = np.zeros(samples)
    for part in parts:
        draws += part.weight * _redrawn_means(part.values.mean(axis=1), samples, rng)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Sums of equal terms may miss 0 by a rounding error.
    tail = min(int((draws <= 1e-12).sum()), int((draws >= -1e-12).sum()))
    return Estimate(
        _value(parts), float(low), float(high), min(1.0, 2 * (tail + 1) / (samples + 1))
    )


def _redrawn_means(values: Outcomes, samples: int, rng: np.random.Generator) -> Outcomes:
    """[samples] means of n images drawn with replacement; a draw is a multinomial over the few
    levels there are.
    """
    levels, counts = np.unique(values, return_counts=True)
    return np.asarray(
        rng.multinomial(values.size, counts / values.size, size=samples) @ levels / values.size
    )


def over_seeds(parts: Sequence[Part], confidence: float) -> Estimate:
    """Weighted sum of the parts' means with an interval for the mode: new seeds and new images.

    The variance is a + b: a that of the mean of S seed values, b what the choice of images adds to
    all seeds alike (crossed random effects: Cornfield & Tukey 1956). Student's t has (S - 1)(a + b)
    / a degrees of freedom: S - 1 where the seeds make all the error, many where the images do.
    Satterthwaite's (1946) square of that ratio covers 92 % at its worst for three seeds, the ratio
    itself 94 to 97 % (docs/evaluation.md).
    """
    from scipy import stats

    value, error, freedom = _value(parts), *_seed_error(parts)
    if error == 0:
        return Estimate(value, value, value, float(value == 0))
    half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return Estimate(
        value, value - half, value + half, float(2 * stats.t.sf(abs(value) / error, freedom))
    )


def _seed_error(parts: Sequence[Part]) -> tuple[float, float]:
    """Standard error of the weighted sum over new seeds and images, and its degrees of freedom."""
    each = np.sum([part.weight * part.values.mean(axis=0) for part in parts], axis=0)  # [S]
    of_seeds = float(each.var(ddof=1)) / each.size
    variance = of_seeds + sum(part.weight**2 * _shared_variance(part.values) for part in parts)
    return float(np.sqrt(variance)), (each.size - 1) * variance / of_seeds if of_seeds else float(
        "inf"
    )


def _shared_variance(values: Outcomes) -> float:
    """Variance of the mean of [n, S] from which images were drawn, the same for every seed; luck on
    single answers is not in it.
    """
    n, seeds = values.shape
    if n == 1:
        return 0.0
    by_image = values.mean(axis=1)
    rest = values - by_image[:, None] - values.mean(axis=0) + values.mean()
    luck = (rest**2).sum() / ((n - 1) * (seeds - 1)) / (n * seeds)
    return max(0.0, float(by_image.var(ddof=1) / n - luck))


def accuracy(outcomes: Outcomes, confidence: float, samples: int, seed: int) -> Estimate:
    """Mean of [n, S] in [0, 1]: Wilson for one seed, images redrawn for two, t over seeds from
    three on.
    """
    if (
        outcomes.shape[1] == 1 or outcomes.all() or not outcomes.any()
    ):  # without spread, redraws and t would know no doubt
        return wilson(outcomes[:, 0], confidence)
    found = combined([Part(1.0, outcomes)], confidence, samples, seed)
    return Estimate(found.value, max(0.0, found.low), min(1.0, found.high))


def combined(parts: Sequence[Part], confidence: float, samples: int, seed: int) -> Estimate:
    """Weighted sum of the parts' means: images redrawn below three seeds, t over seeds from three
    on.
    """
    if parts[0].values.shape[1] >= SEEDS_FOR_MODE:
        return over_seeds(parts, confidence)
    return image_bootstrap(parts, confidence, samples, seed)


def paired_difference(
    first: Outcomes, second: Outcomes, confidence: float, samples: int, seed: int
) -> Estimate:
    """Difference first - second of two modes on the same images [n, S]: a row is an image, a column
    a seed.

    p: exact McNemar for one seed, from redrawn images for two, t over paired seed differences from
    three on.
    """
    found = mean_difference([first - second], confidence, samples, seed)
    if first.shape[1] > 1:
        return found
    return Estimate(found.value, found.low, found.high, mcnemar(first[:, 0], second[:, 0]))


def mean_difference(
    gaps: Sequence[Outcomes], confidence: float, samples: int, seed: int
) -> Estimate:
    """Mean over sets of the paired differences `gaps`, [n, S] each."""
    if not any(gap.any() for gap in gaps):
        # No image tells them apart: at most this share could, had other images been drawn (the
        # exact bound for 0 of n).
        bound = float(np.mean([1 - ((1 - confidence) / 2) ** (1 / gap.shape[0]) for gap in gaps]))
        return Estimate(0.0, -bound, bound, 1.0)
    return combined([Part(1 / len(gaps), gap) for gap in gaps], confidence, samples, seed)


def mcnemar(first: Outcomes, second: Outcomes) -> float:
    """Exact two-sided p of equal top-1 of two models on the same images [n] (McNemar 1947, binomial
    form).
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first > second).sum()), int((second > first).sum())
    differing = only_first + only_second
    return float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, same order: any false call among them stays below the level (Holm
    1979).
    """
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def detectable(parts: Sequence[Part], confidence: float, tests: int = 1) -> float:
    """Smallest true difference that the test would call with 80 % power, `tests` being Holm's
    family.

    The level is (1 - confidence) / tests, that of Holm's first step. One model a mode on one set:
    Connor's (1987) normal approximation for McNemar's test, d = (u sqrt(p) + v sqrt(p - d^2)) /
    sqrt(n) with n images of which a share p tells the models apart (at least d; else at least one
    image), u and v the quantiles of level and power; where no image of any part does, the parts'
    mean of it. Elsewhere (u + v) times the standard error, with Student's t from three seeds on.
    """
    from scipy import stats

    level, seeds = 1 - (1 - confidence) / tests / 2, parts[0].values.shape[1]
    if (seeds == 1 and len(parts) == 1) or not any(part.values.any() for part in parts):
        u, v = float(stats.norm.ppf(level)), float(stats.norm.ppf(POWER))
        each = [
            _connor(part.values.shape[0], float((part.values != 0).mean()), u, v) for part in parts
        ]
        return float(np.dot([abs(part.weight) for part in parts], each))
    if seeds < SEEDS_FOR_MODE:
        means = [(part.weight, part.values.mean(axis=1)) for part in parts]
        error, freedom = (
            float(np.sqrt(sum(w**2 * m.var(ddof=1) / m.size for w, m in means))),
            float("inf"),
        )
    else:
        error, freedom = _seed_error(parts)
    return error * float(stats.t.ppf(level, freedom) + stats.t.ppf(POWER, freedom))


def _connor(n: int, discordant: float, u: float, v: float) -> float:
    """The root of Connor's formula; a share below the difference itself is raised to it."""
    share = max(discordant, 1 / n)
    found = (
        np.sqrt(share) * (u * np.sqrt(n) + v * np.sqrt(max(0.0, n - u * u + v * v))) / (n + v * v)
    )
    if found > share:  # p = d: d n = (u + v sqrt(1 - d))^2, solved by steps that contract
        found = 1.0
        for _ in range(100):
            found = min(1.0, (u + v * np.sqrt(1 - found)) ** 2 / n)
    return float(found)


def _value(parts: Sequence[Part]) -> float:
    return float(sum(part.weight * part.values.mean() for part in parts))
