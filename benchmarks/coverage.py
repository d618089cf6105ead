"""Simulated coverage of 95 % intervals, for docs/evaluation.md: `python -m benchmarks.coverage`."""

import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit

from densecl.analysis.statistics import (
    Estimate,
    WeightedOutcomes,
    compute_wilson_interval,
    estimate_by_bootstrap,
    estimate_over_seeds,
)

RATES, SEED_NOISE = (0.1, 0.3, 0.5, 0.7, 0.9), 0.1  # noise of a seed, in logits


def contains(interval: Estimate, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def compute_wilson_coverage(n: int) -> Iterator[float]:
    """Exact coverage at each rate."""
    for rate in RATES:
        half = int(6 * math.sqrt(n * rate * (1 - rate)))
        counts = np.arange(int(n * rate) - half, int(n * rate) + half)
        outcomes = ((np.arange(n) < count).astype(float) for count in counts)
        covered = [contains(compute_wilson_interval(row, 0.95), rate) for row in outcomes]
        yield float(stats.binom.pmf(counts, n, rate)[covered].sum())


def simulate_bootstrap(n: int, trials: int, rng: np.random.Generator) -> Iterator[float]:
    """Coverage of a difference of 0 and of 3 points, at three shares of images on which the models
    differ.
    """
    for share, truth in itertools.product((0.05, 0.125, 0.3), (0.0, 0.03)):
        shares = [(share + truth) / 2, (share - truth) / 2, 1 - share]
        covered = 0
        for trial, counts in enumerate(rng.multinomial(n, shares, trials)):
            terms = [WeightedOutcomes(1.0, np.repeat([1.0, -1.0, 0.0], counts)[:, None])]
            covered += contains(estimate_by_bootstrap(terms, 0.95, 1000, trial), truth)
        yield covered / trials


def find_mean_logit(rate: float, spread: float) -> float:
    """Mean of normal logits with standard deviation `spread` and mean probability `rate`."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    shares = weights / weights.sum()
    return float(brentq(lambda mean: shares @ expit(mean + spread * nodes) - rate, -40, 40))


def simulate_seeds(
    n: int, count: int, trials: int, rng: np.random.Generator
) -> Iterator[tuple[float, float]]:
    """Coverage of a mode's accuracy and of the difference of two modes, at each rate, for images
    that are equally hard and that range from easy to hard.
    """
    for rate, spread in itertools.product((0.1, 0.5, 0.9), (0.0, 2.0, 4.0)):
        mean = find_mean_logit(rate, math.hypot(spread, SEED_NOISE))
        covered = np.zeros(2)
        for _ in range(trials):
            easiness = mean + spread * rng.normal(size=(n, 1))
            probabilities = [
                1 / (1 + np.exp(-easiness - rng.normal(0, SEED_NOISE, (1, count))))
                for _ in range(2)
            ]
            first, second = ((rng.random(p.shape) < p).astype(float) for p in probabilities)
            covered += [
                contains(estimate_over_seeds([WeightedOutcomes(1.0, v)], 0.95), truth)
                for v, truth in ((first, rate), (first - second, 0.0))
            ]
        yield covered[0] / trials, covered[1] / trials


def simulate_degrees_of_freedom(
    count: int, power: float, rng: np.random.Generator, trials: int = 200_000
) -> Iterator[float]:
    """Coverage of t with (S - 1) / share^power degrees of freedom, by the true share of the
    variance that the seeds make.
    """
    for share in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0):
        seed_variance = share * rng.chisquare(count - 1, trials) / (count - 1)
        variance = seed_variance + 1 - share
        freedom = (count - 1) / (seed_variance / variance) ** power
        half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
        yield float((np.abs(rng.normal(size=trials)) <= half).mean())


def print_row(name: str, coverages: Iterable[float]) -> None:
    """Lowest and highest coverage of the cases."""
    percentages = [100 * coverage for coverage in coverages]
    print(f"| {name} | {min(percentages):.1f} to {max(percentages):.1f} % |")


def main() -> None:
    rng = np.random.default_rng(0)
    for n, bootstrap_trials, seed_trials in ((1000, 2000, 2000), (10_000, 1000, 300)):
        print_row(f"Wilson, n = {n:,}, rates 0.1 to 0.9, exact", compute_wilson_coverage(n))
        print_row(
            f"paired bootstrap, n = {n:,}, {bootstrap_trials:,} trials",
            simulate_bootstrap(n, bootstrap_trials, rng),
        )
        for count in (3, 5):
            columns = zip(*simulate_seeds(n, count, seed_trials, rng), strict=True)
            quantities = ("a mode's accuracy", "difference of two modes")
            for quantity, coverages in zip(quantities, columns, strict=True):
                print_row(
                    f"{quantity}, {count} seeds, n = {n:,}, {seed_trials:,} trials", coverages
                )
    for count in (3, 5):
        for power, name in ((1, "share itself"), (2, "its square (Satterthwaite)")):
            print_row(f"{name}, {count} seeds", simulate_degrees_of_freedom(count, power, rng))


if __name__ == "__main__":
    main()
