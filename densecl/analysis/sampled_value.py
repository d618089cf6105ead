"""A number with the variances of its sampling: interval, p-value and power from one distribution.

Nothing here draws random numbers, and the three can not contradict each other.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

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
class SampledValue:
    """A weighted sum of means, and where its variance comes from.

    From three seeds on it speaks of the mode: `seed_variance` is that of the mean of S seeds, and
    `image_variance` what the choice of images adds to all seeds alike (crossed random effects:
    Cornfield & Tukey 1956); `noise` is the part of `seed_variance` that comes from single answers.
    With fewer seeds it speaks of these models, and both `seed_variance` and `noise` are 0.
    `discordant` counts the images on which only the first, and only the second of two single
    models is right; None where they do not decide alone. Intervals end at `bounds`, the least and
    the greatest value that is possible.
    """

    value: float
    seed_variance: float
    image_variance: float
    seeds: int
    images: int
    discordant: tuple[int, int] | None = None
    noise: float = 0.0
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def compute_interval(self, confidence: float, tests: int = 1) -> Estimate:
        """Value, limits and p-value; with `tests` > 1 of a family of that size, which holds as a
        whole at `confidence` (Bonferroni).

        The half-width is sqrt(t^2 a + z^2 b), with Student's quantile t of S - 1 degrees of freedom
        for the seeds' variance a and the normal quantile z for that of the images, b. It is exact
        where either makes all the error and conservative between (benchmarks/coverage.py).
        """
        low, high = self.compute_limits((1 - confidence) / tests)
        return Estimate(self.value, low, high, min(1.0, tests * self.compute_p()))

    def compute_limits(self, error_rate: float) -> tuple[float, float]:
        """Limits that miss the true value in `error_rate` of cases."""
        half_width = self._compute_half_width(error_rate)
        low, high = self.value - half_width, self.value + half_width
        if self._is_exact():
            exact_low, exact_high = self._compute_exact_interval(error_rate)
            low, high = min(low, exact_low), max(high, exact_high)
        least, greatest = self.bounds
        return max(low, least), min(high, greatest)

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

    def compute_power(self, true_value: float, confidence: float, tests: int = 1) -> float:
        """Chance that the interval lies wholly above 0 where the truth is `true_value` > 0, given
        that these variances are the true ones.

        The seeds' variance is estimated each time anew, so the chance is a mean over quantiles of
        chi-squared / (S - 1). With few discordant images all counts are gone through instead.
        """
        if self._is_exact():
            return self._compute_exact_power(true_value, (1 - confidence) / tests)
        from scipy.stats import norm

        error = math.sqrt(self.seed_variance + self.image_variance)
        half_widths = self._compute_possible_half_widths((1 - confidence) / tests)
        if error == 0:
            return float(true_value > 0)
        return float(norm.sf((half_widths - true_value) / error).mean())

    def compute_detectable(self, confidence: float, tests: int = 1) -> float:
        """Smallest true value that has 80 % power, given these variances."""
        from scipy.optimize import brentq

        error = math.sqrt(self.seed_variance + self.image_variance)
        if error == 0:
            return 0.0
        largest = self._compute_possible_half_widths((1 - confidence) / tests).max() + 10 * error
        if self._is_exact():
            largest = 1.0
            if self.compute_power(largest, confidence, tests) < POWER:
                return largest
        return float(
            brentq(
                lambda value: self.compute_power(value, confidence, tests) - POWER,
                0.0,
                largest,
                xtol=1e-9,
            )
        )

    def _compute_half_width(self, error_rate: float) -> float:
        t, z = self._compute_quantiles(error_rate)
        return math.sqrt(t**2 * self.seed_variance + z**2 * self.image_variance)

    def _compute_possible_half_widths(self, error_rate: float) -> NDArray[np.float64]:
        """400 equally likely ones: each has another estimate of the seeds' variance."""
        from scipy.stats import chi2

        t, z = self._compute_quantiles(error_rate)
        freedom = max(self.seeds - 1, 1)
        ratios = chi2.ppf((np.arange(400) + 0.5) / 400, freedom) / freedom
        return np.sqrt(t**2 * self.seed_variance * ratios + z**2 * self.image_variance)

    def _compute_quantiles(self, error_rate: float) -> tuple[float, float]:
        from scipy.special import ndtri, stdtrit

        freedom = max(self.seeds - 1, 1)
        return -float(stdtrit(freedom, error_rate / 2)), -float(ndtri(error_rate / 2))

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

    def _compute_exact_power(self, true_value: float, error_rate: float) -> float:
        """Sum over all counts of discordant images; their true share is the one seen, or as many
        as the true value needs.
        """
        from scipy.stats import binom

        share = max(sum(self.discordant or ()) / self.images, true_value, 1 / self.images)
        counts = np.arange(min(self.images, 6 * FEW_DISCORDANT) + 1)
        needed = self._find_needed_counts(counts, error_rate)
        called = binom.sf(needed - 1, counts, (1 + true_value / share) / 2)
        beyond = binom.sf(counts[-1], self.images, share)  # so many that all of them tell
        return float(binom.pmf(counts, self.images, share) @ called + beyond)

    def _find_needed_counts(
        self, counts: NDArray[np.int64], error_rate: float
    ) -> NDArray[np.int64]:
        """By number of discordant images, the least number for the first that is called."""
        from scipy.stats import binom, norm

        first = counts[None, :]
        second = counts[:, None] - first
        n = self.images + 2
        gap, either = (first - second) / n, (counts[:, None] + 2) / n
        called = (first - second) / self.images > norm.isf(error_rate / 2) * np.sqrt(
            np.maximum(either - gap**2, 0) / n
        )
        exact = binom.sf(first - 1, counts[:, None], 0.5) <= error_rate / 2
        called &= exact | (counts[:, None] >= FEW_DISCORDANT)
        called &= second >= 0
        return np.where(called.any(axis=1), called.argmax(axis=1), counts + 1)


def compute_binomial_p(first: int, second: int) -> float:
    """McNemar's exact two-sided p-value for counts of images on which only one model is right
    (McNemar 1947, binomial form).
    """
    from scipy.stats import binomtest

    return float(binomtest(first, first + second, 0.5).pvalue) if first + second else 1.0
