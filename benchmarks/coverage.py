"""How often 95 % intervals hold the truth, simulated: `python -m benchmarks.coverage` prints the
lines of docs/evaluation.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from densecl.analysis import statistics
from densecl.analysis.statistics import Part

RATES, NOISE = (0.1, 0.3, 0.5, 0.7, 0.9), 0.1  # noise of a seed, in logits


def wilson(n: int) -> Iterator[float]:
    """Exact coverage at each rate."""
    for rate in RATES:
        half = int(6 * math.sqrt(n * rate * (1 - rate)))
        counts = np.arange(int(n * rate) - half, int(n * rate) + half)
        found = [statistics.wilson((np.arange(n) < k).astype(float), 0.95) for k in counts]
        yield float(
            stats.binom.pmf(counts, n, rate)[[e.low <= rate <= e.high for e in found]].sum()
        )


def bootstrap(n: int, times: int, rng: np.random.Generator) -> Iterator[float]:
    """Of a difference of 0 and of 3 points, at three shares of images that tell the models
    apart.
    """
    for share in (0.05, 0.125, 0.3):
        for truth in (0.0, 0.03):
            held = 0
            for trial, counts in enumerate(
                rng.multinomial(n, [(share + truth) / 2, (share - truth) / 2, 1 - share], times)
            ):
                values = np.repeat([1.0, -1.0, 0.0], counts)[:, None]
                found = statistics.image_bootstrap([Part(1.0, values)], 0.95, 1000, trial)
                held += found.low <= truth <= found.high
            yield held / times


def seeds(
    n: int, count: int, times: int, rng: np.random.Generator
) -> Iterator[tuple[float, float]]:
    """Of a mode's accuracy and of two modes' difference, at each rate, for images alike and from
    easy to hard.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    for rate in (0.1, 0.5, 0.9):
        for spread in (0.0, 2.0, 4.0):
            wide = math.hypot(spread, NOISE)
            middle = brentq(
                lambda m, w=wide, r=rate: (
                    weights @ (1 / (1 + np.exp(-m - w * nodes))) / weights.sum() - r
                ),
                -40,
                40,
            )
            held = np.zeros(2)
            for _ in range(times):
                ease = middle + spread * rng.normal(size=(n, 1))
                chances = [
                    1 / (1 + np.exp(-ease - rng.normal(0, NOISE, (1, count)))) for _ in range(2)
                ]
                one, two = ((rng.random(p.shape) < p).astype(float) for p in chances)
                accuracy, difference = (
                    statistics.over_seeds([Part(1.0, v)], 0.95) for v in (one, one - two)
                )
                held += [
                    accuracy.low <= rate <= accuracy.high,
                    difference.low <= 0 <= difference.high,
                ]
            yield held[0] / times, held[1] / times


def freedom(
    count: int, power: float, rng: np.random.Generator, times: int = 200_000
) -> Iterator[float]:
    """Of t with (S - 1) / share^power degrees of freedom, by the true share of the variance that
    the seeds make.
    """
    for share in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0):
        of_seeds = share * rng.chisquare(count - 1, times) / (count - 1)
        variance = of_seeds + 1 - share
        half = stats.t.ppf(0.975, (count - 1) / (of_seeds / variance) ** power) * np.sqrt(variance)
        yield float((np.abs(rng.normal(size=times)) <= half).mean())


def spanned(values: Iterator[float]) -> str:
    found = [100 * value for value in values]
    return f"{min(found):.1f} to {max(found):.1f} %"


def main() -> None:
    rng = np.random.default_rng(0)
    for n in (1000, 10_000):
        print(f"| Wilson, n = {n:,}, rates 0.1 to 0.9, exact | {spanned(wilson(n))} |")
        times = 2000 if n == 1000 else 1000
        print(
            f"| paired bootstrap, n = {n:,}, {times:,} trials | "
            f"{spanned(bootstrap(n, times, rng))} |"
        )
        for count in (3, 5):
            times = 2000 if n == 1000 else 300
            pairs = list(seeds(n, count, times, rng))
            for place, what in enumerate(("a mode's accuracy", "difference of two modes")):
                print(
                    f"| {what}, {count} seeds, n = {n:,}, {times:,} trials | "
                    f"{spanned(p[place] for p in pairs)} |"
                )
    for count in (3, 5):
        print(f"| share itself, {count} seeds | {spanned(freedom(count, 1, rng))} |")
        print(f"| its square (Satterthwaite), {count} seeds | {spanned(freedom(count, 2, rng))} |")


if __name__ == "__main__":
    main()
