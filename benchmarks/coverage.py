"""Simulated coverage of 95 % intervals, for docs/evaluation.md: `python -m benchmarks.coverage`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from densecl.analysis import statistics
from densecl.analysis.statistics import WeightedOutcomes

RATES, SEED_NOISE = (0.1, 0.3, 0.5, 0.7, 0.9), 0.1  # noise of a seed, in logits


def compute_wilson_coverage(n: int) -> Iterator[float]:
    """Exact coverage at each rate."""
    for rate in RATES:
        half = int(6 * math.sqrt(n * rate * (1 - rate)))
        counts = np.arange(int(n * rate) - half, int(n * rate) + half)
        intervals = [
            statistics.compute_wilson_interval((np.arange(n) < k).astype(float), 0.95)
            for k in counts
        ]
        yield float(
            stats.binom.pmf(counts, n, rate)[[e.low <= rate <= e.high for e in intervals]].sum()
        )


def simulate_bootstrap(n: int, trials: int, rng: np.random.Generator) -> Iterator[float]:
    """Of a difference of 0 and of 3 points, at three shares of images that tell the models
    apart.
    """
    for share in (0.05, 0.125, 0.3):
        for truth in (0.0, 0.03):
            covered = 0
            for trial, counts in enumerate(
                rng.multinomial(n, [(share + truth) / 2, (share - truth) / 2, 1 - share], trials)
            ):
                differences = np.repeat([1.0, -1.0, 0.0], counts)[:, None]
                interval = statistics.estimate_by_bootstrap(
                    [WeightedOutcomes(1.0, differences)], 0.95, 1000, trial
                )
                covered += interval.low <= truth <= interval.high
            yield covered / trials


def simulate_seeds(
    n: int, count: int, trials: int, rng: np.random.Generator
) -> Iterator[tuple[float, float]]:
    """Of a mode's accuracy and of two modes' difference, at each rate, for images alike and from
    easy to hard.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    for rate in (0.1, 0.5, 0.9):
        for spread in (0.0, 2.0, 4.0):
            total_spread = math.hypot(spread, SEED_NOISE)
            middle = brentq(
                lambda m, w=total_spread, r=rate: (
                    weights @ (1 / (1 + np.exp(-m - w * nodes))) / weights.sum() - r
                ),
                -40,
                40,
            )
            covered = np.zeros(2)
            for _ in range(trials):
                easiness = middle + spread * rng.normal(size=(n, 1))
                probabilities = [
                    1 / (1 + np.exp(-easiness - rng.normal(0, SEED_NOISE, (1, count))))
                    for _ in range(2)
                ]
                correct1, correct2 = (
                    (rng.random(p.shape) < p).astype(float) for p in probabilities
                )
                accuracy, difference = (
                    statistics.estimate_over_seeds([WeightedOutcomes(1.0, v)], 0.95)
                    for v in (correct1, correct1 - correct2)
                )
                covered += [
                    accuracy.low <= rate <= accuracy.high,
                    difference.low <= 0 <= difference.high,
                ]
            yield covered[0] / trials, covered[1] / trials


def simulate_degrees_of_freedom(
    count: int, power: float, rng: np.random.Generator, trials: int = 200_000
) -> Iterator[float]:
    """Of t with (S - 1) / share^power degrees of freedom, by the true share of the variance that
    the seeds make.
    """
    for share in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0):
        seed_variance = share * rng.chisquare(count - 1, trials) / (count - 1)
        variance = seed_variance + 1 - share
        half = stats.t.ppf(0.975, (count - 1) / (seed_variance / variance) ** power) * np.sqrt(
            variance
        )
        yield float((np.abs(rng.normal(size=trials)) <= half).mean())


def format_range(fractions: Iterator[float]) -> str:
    percentages = [100 * value for value in fractions]
    return f"{min(percentages):.1f} to {max(percentages):.1f} %"


def main() -> None:
    rng = np.random.default_rng(0)
    for n in (1000, 10_000):
        print(
            f"| Wilson, n = {n:,}, rates 0.1 to 0.9, exact | "
            f"{format_range(compute_wilson_coverage(n))} |"
        )
        trials = 2000 if n == 1000 else 1000
        print(
            f"| paired bootstrap, n = {n:,}, {trials:,} trials | "
            f"{format_range(simulate_bootstrap(n, trials, rng))} |"
        )
        for count in (3, 5):
            trials = 2000 if n == 1000 else 300
            pairs = list(simulate_seeds(n, count, trials, rng))
            for index, quantity in enumerate(("a mode's accuracy", "difference of two modes")):
                print(
                    f"| {quantity}, {count} seeds, n = {n:,}, {trials:,} trials | "
                    f"{format_range(p[index] for p in pairs)} |"
                )
    for count in (3, 5):
        print(
            f"| share itself, {count} seeds | "
            f"{format_range(simulate_degrees_of_freedom(count, 1, rng))} |"
        )
        print(
            f"| its square (Satterthwaite), {count} seeds | "
            f"{format_range(simulate_degrees_of_freedom(count, 2, rng))} |"
        )


if __name__ == "__main__":
    main()
