"""Confidence intervals and tests for top-1, differences between modes, and drops from a control.

n images, S seeds, G sources. An outcome is 1.0 where the model was right on the image and 0.0 where
it was wrong. Pure functions without random numbers: p-value, interval and adjusted p-value of a
number come from one distribution, so that they never contradict each other.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Outcomes = NDArray[np.float64]  # [n, S]
SEEDS_FOR_MODE = 3  # fewer say nothing about the spread between seeds
FEW_DISCORDANT = 25  # images; below, the exact test is used beside the normal approximation
POWER = 0.8  # of the smallest difference that is called detectable
LEAST_P = 1e-15


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its confidence limits; `p` is the two-sided p-value of the value being 0."""

    value: float
    low: float
    high: float
    p: float | None = None


@dataclasses.dataclass(frozen=True)
class WeightedOutcomes:
    """A term: `weight` times the mean of `outcomes` [n, S].

    `sources` [n] names the photograph that an image was made from; images of one source are not
    independent, in one term or in several. Without it, each image is a source of its own. `least`
    is the least possible outcome: -1 for differences of two models.
    """

    weight: float
    outcomes: Outcomes
    sources: NDArray[np.str_] | None = None
    least: float = 0.0


@dataclasses.dataclass(frozen=True)
class SampledValue:
    """A weighted sum of means, and where its variance comes from.

    From three seeds on it speaks of the mode: `seed_variance` is that of the mean of S seeds, and
    `image_variance` what the choice of images adds to all seeds alike (crossed random effects:
    Cornfield & Tukey 1956). With fewer seeds it speaks of these models, and `seed_variance` is 0.
    `discordant` counts the images on which only the first, and only the second of two single
    models is right.
    """

    value: float
    seed_variance: float
    image_variance: float
    seeds: int
    images: int
    discordant: tuple[int, int] | None = None

    def compute_interval(self, confidence: float, tests: int = 1) -> Estimate:
        """Value, limits and p-value; with `tests` > 1 of a family of that size, which holds as a
        whole at `confidence` (Bonferroni).

        The half-width is sqrt(t^2 a + z^2 b), with Student's quantile t of S - 1 degrees of freedom
        for the seeds' variance a and the normal quantile z for that of the images, b. It is exact
        where either makes all the error and conservative between (benchmarks/coverage.py).
        """
        error_rate = (1 - confidence) / tests
        half_width = self._compute_half_width(error_rate)
        low, high = self.value - half_width, self.value + half_width
        if self._is_exact():
            exact_low, exact_high = self._compute_exact_interval(error_rate)
            low, high = min(low, exact_low), max(high, exact_high)
        return Estimate(self.value, low, high, min(1.0, tests * self.compute_p()))

    def compute_p(self) -> float:
        """The level at which an end of the interval is 0; with few discordant images at least that
        of McNemar's exact test.
        """
        from scipy.optimize import brentq

        distance = abs(self.value)
        if distance >= self._compute_half_width(LEAST_P):
            p = LEAST_P
        elif distance == 0:
            p = 1.0
        else:
            log_p = brentq(
                lambda log_p: self._compute_half_width(math.exp(log_p)) - distance,
                math.log(LEAST_P),
                0.0,
                xtol=1e-10,
            )
            p = math.exp(log_p)
        if self.discordant is not None and self._is_exact():
            return max(p, compute_binomial_p(*self.discordant))
        return p

    def compute_detectable(self, confidence: float, tests: int = 1) -> float:
        """Smallest true value whose interval leaves out 0 with 80 % power, given these variances.

        The estimated variance of the seeds is itself random: the power is its mean over the
        quantiles of chi-squared / (S - 1).
        """
        from scipy.optimize import brentq
        from scipy.stats import chi2, norm

        t, z = self._compute_quantiles((1 - confidence) / tests)
        freedom = max(self.seeds - 1, 1)
        ratios = chi2.ppf((np.arange(400) + 0.5) / 400, freedom) / freedom
        half_widths = np.sqrt(t**2 * self.seed_variance * ratios + z**2 * self.image_variance)
        error = math.sqrt(self.seed_variance + self.image_variance)
        if error == 0:
            return 0.0

        def compute_missing_power(value: float) -> float:
            return float(norm.sf((half_widths - value) / error).mean()) - POWER

        return float(brentq(compute_missing_power, 0.0, half_widths.max() + 10 * error))

    def _compute_half_width(self, error_rate: float) -> float:
        t, z = self._compute_quantiles(error_rate)
        return math.sqrt(t**2 * self.seed_variance + z**2 * self.image_variance)

    def _compute_quantiles(self, error_rate: float) -> tuple[float, float]:
        from scipy.stats import norm, t

        freedom = max(self.seeds - 1, 1)
        return float(t.isf(error_rate / 2, freedom)), float(norm.isf(error_rate / 2))

    def _is_exact(self) -> bool:
        return self.discordant is not None and sum(self.discordant) < FEW_DISCORDANT

    def _compute_exact_interval(self, error_rate: float) -> tuple[float, float]:
        """Clopper & Pearson's (1934) limits of the share of the first among the discordant images,
        as a difference over all images; without any, the exact bound of 0 in n images.
        """
        from scipy.stats import binomtest

        first, second = self.discordant or (0, 0)
        if not first + second:
            bound = 1 - (error_rate / 2) ** (1 / self.images)
            return -bound, bound
        share = binomtest(first, first + second).proportion_ci(1 - error_rate, "exact")
        scale = (first + second) / self.images
        return scale * (2 * share.low - 1), scale * (2 * share.high - 1)


def sample_weighted_sum(terms: Sequence[WeightedOutcomes]) -> SampledValue:
    """The sum of the terms' weighted means, over the same seeds in all terms."""
    seed_values = np.sum([term.weight * term.outcomes.mean(axis=0) for term in terms], axis=0)
    seeds = seed_values.size
    return SampledValue(
        value=float(seed_values.mean()),
        seed_variance=float(seed_values.var(ddof=1)) / seeds if seeds >= SEEDS_FOR_MODE else 0.0,
        image_variance=_compute_image_variance(terms),
        seeds=seeds,
        images=sum(len(term.outcomes) for term in terms),
    )


def sample_difference(
    gaps: Sequence[Outcomes], sources: Sequence[NDArray[np.str_] | None] | None = None
) -> SampledValue:
    """Mean over datasets of the paired differences `gaps` of two modes, each [n, S]: first minus
    second on the same images and seeds.
    """
    sources = [None] * len(gaps) if sources is None else sources
    terms = [
        WeightedOutcomes(1 / len(gaps), gap, names, least=-1.0)
        for gap, names in zip(gaps, sources, strict=True)
    ]
    sampled = sample_weighted_sum(terms)
    if len(gaps) > 1 or sampled.seeds > 1:
        return sampled
    counts = int((gaps[0] > 0).sum()), int((gaps[0] < 0).sum())
    return dataclasses.replace(sampled, discordant=counts)


def estimate_weighted_sum(terms: Sequence[WeightedOutcomes], confidence: float) -> Estimate:
    """Weighted sum of means with its interval."""
    return sample_weighted_sum(terms).compute_interval(confidence)


def estimate_accuracy(outcomes: Outcomes, confidence: float) -> Estimate:
    """Mean of [n, S] in [0, 1]: Wilson interval for one seed, else that of a sampled value."""
    if outcomes.shape[1] == 1 or outcomes.all() or not outcomes.any():
        # Without any error, or any success, no variance can be estimated.
        return compute_wilson_interval(outcomes[:, 0], confidence)
    estimate = estimate_weighted_sum([WeightedOutcomes(1.0, outcomes)], confidence)
    return Estimate(estimate.value, max(0.0, estimate.low), min(1.0, estimate.high))


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


def compute_binomial_p(first: int, second: int) -> float:
    """McNemar's exact two-sided p-value for counts of images on which only one model is right
    (McNemar 1947, binomial form).
    """
    from scipy.stats import binomtest

    return float(binomtest(first, first + second, 0.5).pvalue) if first + second else 1.0


def _compute_image_variance(terms: Sequence[WeightedOutcomes]) -> float:
    """Variance of the sum of means over new images, which all seeds share.

    The influence of an image is its weighted deviation from its term's mean. Influences are summed
    per source, averaged over seeds, squared and summed. From three seeds on, the noise of single
    predictions is subtracted: it is part of the seeds' variance.
    """
    influences = _sum_by_source(terms)  # [G, S]
    seeds = influences.shape[1]
    source_means = influences.mean(axis=1)
    variance = float((source_means**2).sum())
    if seeds >= SEEDS_FOR_MODE:
        noise = ((influences - source_means[:, None]) ** 2).sum() / (seeds * (seeds - 1))
        variance -= float(noise)
    return max(0.0, variance) + sum(_compute_extra_variance(term) for term in terms)


def _sum_by_source(terms: Sequence[WeightedOutcomes]) -> Outcomes:
    """Influences [G, S]: one row per source, over all terms."""
    independent, shared, names = [], [], []
    for term in terms:
        n = len(term.outcomes) + 2
        influences = term.weight / n * (term.outcomes - term.outcomes.mean(axis=0))
        if term.sources is None:
            independent.append(influences)
        else:
            shared.append(influences)
            names.append(term.sources)
    if shared:
        unique, group = np.unique(np.concatenate(names), return_inverse=True)
        sums = np.zeros((unique.size, terms[0].outcomes.shape[1]))
        np.add.at(sums, group, np.concatenate(shared))
        independent.append(sums)
    return np.concatenate(independent)


def _compute_extra_variance(term: WeightedOutcomes) -> float:
    """The part of two pseudo-images, one of the least and one of the greatest outcome.

    With few discordant images the plain variance is too small, and 0 with none. One more image for
    either side keeps the coverage (Agresti & Min 2005; Bonett & Price 2012).
    """
    n, mean = len(term.outcomes) + 2, float(term.outcomes.mean())
    return (term.weight / n) ** 2 * ((1.0 - mean) ** 2 + (term.least - mean) ** 2)
