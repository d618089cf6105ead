"""Simulated coverage of intervals, errors of families and power, for docs/evaluation.md:
`python -m benchmarks.coverage`.

An image is answered correctly where easiness + taste + seed + noise + effect > 0, all normal: the
easiness of an image for every mode, the taste of a mode for an image, what a seed adds to a mode,
and the noise of a single answer.
"""

import argparse
import dataclasses
import itertools
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from densecl.analysis.sampled_value import Estimate, SampledValue
from densecl.analysis.statistics import (
    Outcomes,
    Sources,
    compute_wilson_interval,
    estimate_accuracy,
    sample_difference,
)

LEVELS = (0.95, 1 - 0.05 / 6, 1 - 0.05 / 12)  # alone, in a family of 6 and in one of 12
PAIRS = ((0, 2), (1, 2), (0, 1))  # of three modes
NOISE, TASTE = 0.5, 0.6  # standard deviations, where that of the easiness is 1


@dataclasses.dataclass(frozen=True)
class Design:
    """What is drawn; standard deviations in units of the images' easiness."""

    images: int  # of each set
    seeds: int
    sets: int = 1
    seed_noise: float = 0.0
    taste: float = TASTE
    is_shared: bool = False  # all sets are made of the same images
    effects: tuple[float, ...] = (0.0, 0.0, 0.0)  # of the modes

    @property
    def total(self) -> float:
        return math.sqrt(1 + self.taste**2 + self.seed_noise**2 + NOISE**2)

    @property
    def sources(self) -> list[Sources] | None:
        names = np.array([str(i) for i in range(self.images)], dtype=object)
        return [names] * self.sets if self.is_shared else None


def build_design(share: float, images: int, seeds: int) -> Design:
    """The design in which the seeds make about `share` of the variance of a difference."""
    rng = np.random.default_rng(0)
    easiness, first, second = rng.normal(size=(3, 200_000)) * [[1.0], [TASTE], [TASTE]]
    chances = [stats.norm.cdf((easiness + taste) / NOISE) for taste in (first, second)]
    image_variance = float((chances[0] - chances[1]).var()) / images
    design = Design(images, seeds, taste=0.0 if share == 1 else TASTE)
    seed_variance = image_variance * (share / (1 - share) if share < 1 else 3)
    slope = stats.norm.pdf(0) / design.total
    return dataclasses.replace(design, seed_noise=math.sqrt(seed_variance * seeds / 2) / slope)


def draw_outcomes(
    design: Design, rng: np.random.Generator, modes: int = 3
) -> tuple[list[list[Outcomes]], NDArray[np.float64]]:
    """Outcomes [n, S] of each mode on each set, and what its seeds add [modes, S]."""
    shape = (design.images, 1)
    seeds = rng.normal(0, design.seed_noise, (modes, design.seeds))
    outcomes: list[list[Outcomes]] = [[] for _ in range(modes)]
    for index in range(design.sets):
        if index == 0 or not design.is_shared:
            easiness = rng.normal(size=shape)
            tastes = rng.normal(0, design.taste, (modes, *shape))
        for mode in range(modes):
            noise = rng.normal(0, NOISE, (design.images, design.seeds))
            answer = easiness + tastes[mode] + seeds[mode] + noise + design.effects[mode]
            outcomes[mode].append((answer > 0).astype(float))
    return outcomes, seeds


def sample_pairs(design: Design, outcomes: list[list[Outcomes]]) -> list[SampledValue]:
    """The mean difference of each pair of modes."""
    pairs = PAIRS if len(outcomes) == 3 else ((0, 1),)
    return [
        sample_difference(
            [a - b for a, b in zip(outcomes[first], outcomes[second], strict=True)],
            design.sources,
        )
        for first, second in pairs
    ]


def contains(interval: Estimate, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def simulate_coverage(design: Design, trials: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Coverage of a difference at each level, and of a mode's accuracy at the first.

    The truth is that of new seeds and images; with fewer than three seeds that of these models.
    """
    covered = np.zeros(len(LEVELS) + 1)
    fixed = math.sqrt(1 + design.taste**2 + NOISE**2)
    for _ in range(trials):
        outcomes, seeds = draw_outcomes(design, rng, modes=2)
        truths = np.array([0.5, 0.5])
        if design.seeds < 3:
            truths = stats.norm.cdf(seeds / fixed).mean(axis=1)
        difference = sample_pairs(design, outcomes)[0]
        covered[:-1] += [
            contains(difference.compute_interval(level), truths[0] - truths[1]) for level in LEVELS
        ]
        covered[-1] += contains(estimate_accuracy(outcomes[0][0], LEVELS[0]), truths[0])
    return covered / trials


def simulate_family(design: Design, trials: int, rng: np.random.Generator) -> float:
    """Share of pages on which some pair of three equal modes is called different."""
    pages = (sample_pairs(design, draw_outcomes(design, rng)[0]) for _ in range(trials))
    return sum(any(is_called(pair) for pair in page) for page in pages) / trials


def is_called(pair: SampledValue) -> bool:
    return not contains(pair.compute_interval(0.95, len(PAIRS)), 0.0)


def simulate_power(
    design: Design, trials: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """True difference of the first pair, its computed power, and the share of trials in which the
    difference is called.
    """
    pairs = [sample_pairs(design, draw_outcomes(design, rng)[0])[0] for _ in range(trials)]
    rates = stats.norm.cdf(np.array(design.effects) / design.total)
    truth = float(rates[0] - rates[2])
    seed_variance, image_variance = np.mean(
        [(pair.seed_variance, pair.image_variance) for pair in pairs], axis=0
    )
    typical = dataclasses.replace(
        pairs[0], seed_variance=float(seed_variance), image_variance=float(image_variance)
    )
    called = sum(is_called(pair) and pair.value > 0 for pair in pairs) / trials
    return truth, typical.compute_power(truth, 0.95, len(PAIRS)), called


def compute_wilson_coverage(n: int) -> list[float]:
    """Exact coverage at each rate."""
    coverages = []
    for rate in (0.1, 0.3, 0.5, 0.7, 0.9):
        half = int(6 * math.sqrt(n * rate * (1 - rate)))
        counts = np.arange(int(n * rate) - half, int(n * rate) + half)
        outcomes = ((np.arange(n) < count).astype(float) for count in counts)
        covered = [contains(compute_wilson_interval(row, 0.95), rate) for row in outcomes]
        coverages.append(float(stats.binom.pmf(counts, n, rate)[covered].sum()))
    return coverages


def print_row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def format_range(coverages: Iterable[float]) -> str:
    """Lowest and highest of the cases."""
    percentages = [100 * coverage for coverage in coverages]
    return f"{min(percentages):.1f} to {max(percentages):.1f}"


def measure_intervals(rng: np.random.Generator) -> None:
    print_row("one model", "n", "95 %, exact")
    for n in (350, 1000, 10_000):
        print_row("Wilson, rates 0.1 to 0.9", f"{n:,}", format_range(compute_wilson_coverage(n)))
    print_row("seeds", "n", "trials", *(f"{100 * x:.4g} %" for x in LEVELS), "accuracy, 95 %")
    for seeds, (n, trials) in itertools.product(
        (2, 3, 4, 5), ((350, 4000), (1000, 3000), (10_000, 1000))
    ):
        shares = (0.0, 0.2, 0.5, 0.8, 1.0)
        rows = [simulate_coverage(build_design(x, n, seeds), trials, rng) for x in shares]
        print_row(seeds, f"{n:,}", f"{trials:,}", *map(format_range, zip(*rows, strict=True)))


def measure_families(rng: np.random.Generator) -> None:
    print_row("seeds", "images", "seed noise", "pages that call a difference, %")
    for seeds, is_shared, noise in itertools.product((3, 5), (False, True), (0.0, 0.05, 0.3)):
        rate = simulate_family(Design(200, seeds, 6, noise, is_shared=is_shared), 10_000, rng)
        print_row(seeds, "shared" if is_shared else "their own", noise, f"{100 * rate:.1f}")


def measure_power(rng: np.random.Generator) -> None:
    print_row("seeds", "seed noise", "true difference, points", "computed power, %", "called, %")
    for seeds, noise, effect in itertools.product((1, 3, 5), (0.0, 0.1), (0.1, 0.2, 0.4)):
        if seeds > 1 or not noise:
            design = Design(480, seeds, 6, noise, effects=(effect, 0.0, 0.0))
            results = simulate_power(design, 2000, rng)
            print_row(seeds, noise, *(f"{100 * x:.1f}" for x in results))


PARTS = {"intervals": measure_intervals, "families": measure_families, "power": measure_power}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    for part in parser.parse_args().parts or PARTS:
        PARTS[part](np.random.default_rng(0))


if __name__ == "__main__":
    main()
