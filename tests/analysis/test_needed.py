"""Numbers of seeds and images against the noncentral t and the normal distribution."""

import math

import numpy as np
import pytest
from scipy.stats import nct, norm, t

from densecl.analysis.needed import MAX_SEEDS, find_needed_images, find_needed_seeds
from densecl.analysis.sampled_value import SampledValue
from densecl.analysis.statistics import Outcomes, sample_difference
from densecl.report.verdicts import format_factor

LEVEL, TESTS = 0.95, 8


def compute_t_power(value: float, one_seed_variance: float, seeds: int) -> float:
    """Of the one-sample t-test of the seeds' differences, in the direction of the truth."""
    critical = t.isf(0.05 / TESTS / 2, seeds - 1)
    return float(nct.sf(critical, seeds - 1, value / math.sqrt(one_seed_variance / seeds)))


@pytest.mark.parametrize("value", [0.02, 0.035, 0.06, -0.035])
def test_seeds_are_those_of_the_t_test_where_seeds_make_all_the_error(value: float) -> None:
    one_seed = 0.03**2
    sampled = SampledValue(value, one_seed / 3, 0.0, 3, 1000)
    powers = {n: compute_t_power(abs(value), one_seed, n) for n in range(3, MAX_SEEDS + 1)}
    expected = next((n for n, power in powers.items() if power >= 0.8), None)
    found = find_needed_seeds(sampled, LEVEL, TESTS)
    assert (found is None) == (expected is None)
    # A mean over 400 quantiles is not the integral: the power at its end may differ by a hair.
    assert found == expected or abs(powers[found] - 0.8) < 0.005


def test_no_number_of_seeds_helps_where_images_make_the_error() -> None:
    sampled = SampledValue(0.01, 1e-8, 0.02**2, 3, 500)
    assert find_needed_seeds(sampled, LEVEL, TESTS) is None
    assert find_needed_images(sampled, LEVEL, TESTS) > 10


def test_images_are_those_of_the_normal_test_of_two_models() -> None:
    sampled = SampledValue(0.02, 0.0, 0.012**2, 1, 500)
    expected = ((norm.isf(0.05 / TESTS / 2) + norm.isf(0.2)) * 0.012 / 0.02) ** 2
    assert find_needed_images(sampled, LEVEL, TESTS) == pytest.approx(expected, abs=0.01)
    assert find_needed_seeds(sampled, LEVEL, TESTS) is None  # how seeds vary is not known


def test_no_number_of_images_helps_where_seeds_make_the_error() -> None:
    sampled = SampledValue(0.03, 0.012**2, 0.002**2, 3, 500)
    assert find_needed_images(sampled, LEVEL, TESTS) is None
    assert find_needed_seeds(sampled, LEVEL, TESTS) is not None


def draw_gaps(
    rng: np.random.Generator, images: int, gap: float, seed_spread: float = 0.0
) -> Outcomes:
    """Of two modes [images, 3 seeds], which share most of their luck; the true difference of each
    seed is `gap`, with a standard deviation of `seed_spread`.
    """
    shape = (images, 3)
    ease, is_redrawn = rng.random((images, 1)), rng.random(shape) < 0.3
    gaps = rng.normal(gap, seed_spread, 3)
    first, second = (np.where(is_redrawn, rng.random(shape), ease) for _ in range(2))
    return (first < 0.5 + gaps).astype(float) - (second < 0.5)


def average(samples: list[SampledValue], name: str) -> float:
    return float(np.mean([getattr(sampled, name) for sampled in samples]))


@pytest.mark.parametrize("seed_spread", [0.0, 0.03])
def test_more_images_lower_the_noise_of_answers_but_not_the_effect_of_seeds(seed_spread) -> None:
    rng = np.random.default_rng(0)
    few, many = (
        [sample_difference([draw_gaps(rng, n, 0.04, seed_spread)]) for _ in range(400)]
        for n in (240, 240 * 9)
    )
    noise, effect = average(few, "noise"), seed_spread**2 / 3
    assert average(many, "noise") == pytest.approx(noise / 9, rel=0.05)
    # A mean over 400 variances of 2 degrees of freedom has a relative error of 0.05.
    assert average(few, "seed_variance") == pytest.approx(effect + noise, rel=0.15)
    assert average(many, "seed_variance") == pytest.approx(effect + noise / 9, rel=0.15)


def test_so_many_images_call_four_of_five_where_seeds_have_no_effect() -> None:
    """Without a seed's effect the whole variance of seeds is noise of single answers."""
    rng = np.random.default_rng(0)
    few = [sample_difference([draw_gaps(rng, 480, 0.04)]) for _ in range(200)]
    noise, image_variance = average(few, "noise"), average(few, "image_variance")
    factor = find_needed_images(
        SampledValue(0.04, noise, image_variance, 3, 480, noise=noise), LEVEL, 1
    )
    assert factor is not None
    images = round(480 * factor)
    assert 480 < images < 20_000
    called = [
        sample_difference([draw_gaps(rng, images, 0.04)]).compute_interval(LEVEL).low > 0
        for _ in range(400)
    ]
    assert np.mean(called) == pytest.approx(0.8, abs=0.06)  # three standard errors


def test_seeds_that_differ_less_than_their_noise_have_no_effect() -> None:
    seen = SampledValue(0.03, 0.006**2, 0.002**2, 3, 500, noise=0.01**2)
    equal = SampledValue(0.03, 0.006**2, 0.002**2, 3, 500, noise=0.006**2)
    found = find_needed_images(seen, LEVEL, TESTS)
    assert found is not None
    assert found == find_needed_images(equal, LEVEL, TESTS)


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (1.0, "1"),
        (1.3, "1.3"),
        (1.301, "1.4"),
        (3.95, "4"),
        (9.9, "9.9"),
        (9.91, "10"),
        (10.0, "10"),
        (10.1, "11"),
        (120.0, "120"),
        (121.0, "121"),
        (999.5, "1000"),
    ],
)
def test_factors_are_rounded_up_to_what_is_shown(factor: float, text: str) -> None:
    assert format_factor(factor) == text


def test_nothing_calls_a_difference_of_zero() -> None:
    sampled = SampledValue(0.0, 0.01**2, 0.01**2, 3, 500)
    assert find_needed_seeds(sampled, LEVEL, TESTS) is None
    assert find_needed_images(sampled, LEVEL, TESTS) is None
