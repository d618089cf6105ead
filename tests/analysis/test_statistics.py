"""Intervals, tests and power against closed forms, hand calculations, redraws and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from densecl.analysis import statistics
from densecl.analysis.sampled_value import FEW_DISCORDANT, SampledValue, compute_binomial_p
from densecl.analysis.statistics import WeightedOutcomes, sample_difference, sample_weighted_sum

Z = 1.959963984540054


def column(right: int, n: int) -> np.ndarray:
    """[n] outcomes with `right` ones first."""
    return (np.arange(n) < right).astype(float)


def gap(first: int, second: int, n: int) -> np.ndarray:
    """[n, 1] paired differences of two models, of which only one is right on some images."""
    return np.repeat([1.0, -1.0, 0.0], [first, second, n - first - second])[:, None]


@pytest.mark.parametrize(("right", "n"), [(0, 30), (7, 30), (30, 30), (612, 1000)])
def test_wilson_equals_its_closed_form(right: int, n: int) -> None:
    p = right / n
    centre, half = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    found = statistics.compute_wilson_interval(column(right, n), 0.95)
    assert found.value == p
    assert found.low == pytest.approx(max(0, (centre - half) / (1 + Z * Z / n)), abs=1e-12)
    assert found.high == pytest.approx(min(1, (centre + half) / (1 + Z * Z / n)), abs=1e-12)


def test_newcombe_reproduces_the_published_example() -> None:
    """56/70 - 48/80: Newcombe (1998), table II, method 10 gives 0.0524 to 0.3339."""
    found = statistics.estimate_independent_difference(
        statistics.compute_wilson_interval(column(56, 70), 0.95),
        statistics.compute_wilson_interval(column(48, 80), 0.95),
    )
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_one_seed_is_bonett_and_price_with_two_more_images() -> None:
    """(b - c)/n -/+ z sqrt((b + c + 2 - (b - c)^2 (n - 2)/n^2) / (n + 2)^2)."""
    b, c, n = 80, 50, 1000
    found = sample_difference([gap(b, c, n)]).compute_interval(0.95)
    half = Z * math.sqrt(b + c + 2 - (b - c) ** 2 * (n - 2) / n**2) / (n + 2)
    assert (found.low, found.value, found.high) == pytest.approx((0.03 - half, 0.03, 0.03 + half))


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_interval_is_that_of_images_drawn_again(seeds: int) -> None:
    """Of two sets that share half of their photographs: both images of one are drawn together."""
    rng, n, draws = np.random.default_rng(2), 1200, 4000
    common = rng.normal(size=(n, 1))
    gaps = [np.sign(common + rng.normal(size=(n, seeds))).round() for _ in range(2)]
    names = [np.array([f"{s if i % 2 else ''}{i}" for i in range(n)], object) for s in "ab"]
    found = sample_difference(gaps, names).compute_interval(0.95)
    pairs, lone = np.arange(0, n, 2), np.arange(1, n, 2)
    means = [g.mean(axis=1) for g in gaps]
    redrawn = []
    for _ in range(draws):
        together = rng.choice(pairs, len(pairs))
        sums = [g[together].sum() + g[rng.choice(lone, len(lone))].sum() for g in means]
        redrawn.append(sum(sums) / (2 * n))
    assert found.value == pytest.approx(np.mean(means))
    assert (found.low, found.high) == pytest.approx(
        np.quantile(redrawn, [0.025, 0.975]), abs=0.06 * (found.high - found.low)
    )


def test_fifteen_copies_of_a_set_are_one_set() -> None:
    one = gap(60, 40, 1000)
    names = np.array([f"photograph {i}" for i in range(1000)], object)
    alone = sample_difference([one]).image_variance
    copies = sample_difference([one] * 15, [names] * 15).image_variance
    apart = sample_difference([one] * 15).image_variance
    assert copies == pytest.approx(alone, rel=0.03)
    assert apart == pytest.approx(alone / 15, rel=1e-9)


def test_copies_inside_one_set_count_once_and_are_no_case_for_mcnemar() -> None:
    names = np.array([str(i) for i in range(100)], object)
    one, five = gap(6, 2, 100), np.repeat(gap(6, 2, 100), 5, axis=0)
    found = sample_difference([five], [np.repeat(names, 5)])
    assert found.discordant is None
    assert found.image_variance == pytest.approx(
        sample_difference([one]).image_variance, rel=0.25
    )  # of which two images more than there are
    right = np.repeat(column(60, 100), 5)[:, None]
    wide = statistics.estimate_accuracy(right, 0.95, np.repeat(names, 5))
    narrow = statistics.estimate_accuracy(right, 0.95)
    assert wide.high - wide.low == pytest.approx(
        math.sqrt(5) * (narrow.high - narrow.low), rel=0.05
    )


@pytest.mark.slow
def test_seeds_without_image_effect_give_students_t() -> None:
    """Every image of a seed alike: only the spread of the seeds is left, and the two images more
    that no data excludes.
    """
    per_seed = np.array([0.02, 0.05, 0.03])
    sampled = sample_weighted_sum([WeightedOutcomes(1.0, np.tile(per_seed, (10**7, 1)))])
    test = stats.ttest_1samp(per_seed, 0.0)
    interval = test.confidence_interval(0.95)
    found = sampled.compute_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-5)
    assert found.p == pytest.approx(test.pvalue, rel=1e-3)


def test_seeds_alike_keep_the_images_share() -> None:
    """Three copies of one seed: the error is that of the images, not zero and not divided by
    three.
    """
    values = np.tile(column(300, 900)[:, None], (1, 3))
    found = sample_weighted_sum([WeightedOutcomes(1.0, values)])
    assert found.seed_variance == pytest.approx(0, abs=1e-12)
    assert found.image_variance == pytest.approx(values[:, 0].var() / 900, rel=0.01)


def test_the_half_width_adds_the_seeds_by_t_and_the_images_by_z() -> None:
    found = SampledValue(0.0, 4e-4, 9e-4, seeds=3, images=100).compute_interval(0.95, 6)
    level = 1 - 0.05 / 12
    half = math.sqrt(stats.t.ppf(level, 2) ** 2 * 4e-4 + stats.norm.ppf(level) ** 2 * 9e-4)
    assert (found.low, found.high) == pytest.approx((-half, half))


def test_no_interval_leaves_what_is_possible() -> None:
    """Three seeds that differ much: Student's t of two degrees of freedom is wider than the
    scale.
    """
    gaps = np.stack([column(n, 100) for n in (0, 40, 90)], axis=1)
    difference = sample_difference([gaps]).compute_interval(0.95, 12)
    assert (difference.low, difference.high) == (-1.0, 1.0)
    assert difference.p == 1.0
    errors = sample_difference([1.5 * gaps]).compute_interval(0.95, 12)  # have no greatest value
    assert errors.high > 1.5


@pytest.mark.parametrize("tests", [1, 3, 18])
@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_star_p_and_interval_never_disagree(seeds: int, tests: int) -> None:
    rng = np.random.default_rng(seeds)
    for _ in range(150):
        effect, n = rng.uniform(-0.2, 0.2), int(rng.integers(20, 400))
        gaps = np.sign(rng.normal(effect, 1, (n, seeds))) * (
            rng.random((n, seeds)) < rng.choice([0.03, 0.1, 0.5])
        )
        sampled = sample_difference([gaps])
        found = sampled.compute_interval(0.95, tests)
        assert (found.low > 0 or found.high < 0) == (found.p < 0.05)
        assert found.p == pytest.approx(min(1, tests * sampled.compute_p()))
        plain = sampled.compute_interval(0.95)
        assert found.low <= plain.low <= plain.value <= plain.high <= found.high


def test_few_discordant_images_get_the_exact_test() -> None:
    tail = sum(math.comb(11, k) for k in range(3)) / 2**11
    assert compute_binomial_p(9, 2) == pytest.approx(2 * tail)
    found = sample_difference([gap(9, 2, 100)])
    assert found.compute_p() >= 2 * tail
    share = stats.binomtest(9, 11).proportion_ci(0.95, "exact")
    interval = found.compute_interval(0.95)
    assert interval.low <= 0.11 * (2 * share.low - 1)
    assert interval.high >= 0.11 * (2 * share.high - 1)
    many = sample_difference([gap(FEW_DISCORDANT, 0, 100)])
    assert many.compute_p() < 1e-6


def test_two_models_equal_on_every_image_do_not_differ() -> None:
    found = sample_difference([gap(0, 0, 100)]).compute_interval(0.95)
    assert (found.value, found.p) == (0.0, 1.0)
    # With a true share `bound` of differing images, seeing none among 100 has a chance of 2.5 %.
    bound = 1 - 0.025 ** (1 / 100)
    assert found.high >= bound
    assert found.low == -found.high


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_no_difference_seen_is_not_no_doubt(seeds: int) -> None:
    gaps = [np.zeros((n, seeds)) for n in (400, 900)]
    sampled = sample_difference(gaps)
    found = sampled.compute_interval(0.95)
    assert found.low == -found.high < -0.002
    assert found.p == 1.0
    assert sampled.compute_detectable(0.95) > found.high
    assert statistics.estimate_accuracy(
        np.ones((400, seeds)), 0.95
    ) == statistics.compute_wilson_interval(np.ones(400), 0.95)


def test_accuracy_uses_wilson_for_one_seed_and_stays_in_bounds() -> None:
    one = column(0, 40)[:, None]
    assert statistics.estimate_accuracy(one, 0.95) == statistics.compute_wilson_interval(
        one[:, 0], 0.95
    )
    near = np.ones((30, 3))
    near[0, 0] = near[1, 1] = 0
    assert statistics.estimate_accuracy(near, 0.95).high == 1.0


@pytest.mark.parametrize(
    ("seed_variance", "image_variance", "seeds"), [(0.0, 1e-4, 1), (1e-4, 1e-4, 3), (1e-4, 0.0, 5)]
)
def test_power_is_that_of_redrawn_means_and_variances(
    seed_variance: float, image_variance: float, seeds: int
) -> None:
    sampled = SampledValue(0.0, seed_variance, image_variance, seeds, 1000)
    truth = sampled.compute_detectable(0.95, 3)
    assert sampled.compute_power(truth, 0.95, 3) == pytest.approx(0.8, abs=1e-6)
    rng, trials = np.random.default_rng(4), 40_000
    freedom = max(seeds - 1, 1)
    values = rng.normal(truth, math.sqrt(seed_variance + image_variance), trials)
    drawn = seed_variance * rng.chisquare(freedom, trials) / freedom
    level = 1 - 0.05 / 6
    half = np.sqrt(
        stats.t.ppf(level, freedom) ** 2 * drawn + stats.norm.ppf(level) ** 2 * image_variance
    )
    assert (values > half).mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "discordant"), [(1000, 0), (1000, 12), (304, 20), (2000, 200)])
def test_a_detectable_difference_is_found_four_times_in_five(n: int, discordant: int) -> None:
    half = discordant // 2
    truth = sample_difference([gap(half, half, n)]).compute_detectable(0.95)
    share = max(discordant / n, truth)
    rng, trials = np.random.default_rng(17), 1000
    shares = [(share + truth) / 2, (share - truth) / 2, 1 - share]
    found = [
        sample_difference([gap(first, second, n)]).compute_interval(0.95).low > 0
        for first, second, _ in rng.multinomial(n, shares, trials)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("n", [1000, 10_000])
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_wilson_covers_95_percent(n: int, rate: float) -> None:
    """Exactly: the chance of every count whose interval holds the rate."""
    half = int(6 * math.sqrt(n * rate * (1 - rate)))
    counts = np.arange(int(n * rate) - half, int(n * rate) + half)
    held = [
        (found := statistics.compute_wilson_interval(column(int(k), n), 0.95)).low
        <= rate
        <= found.high
        for k in counts
    ]
    assert 0.93 <= stats.binom.pmf(counts, n, rate)[held].sum() <= 0.97


@pytest.mark.parametrize("level", [0.95, 0.9917, 0.9958])
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.9, 1.0])
def test_t_for_the_seeds_and_z_for_the_images_never_miss_more_than_the_level_says(
    share: float, seeds: int, level: float
) -> None:
    """Of normal means with a known variance b and an estimated variance a, by quadrature."""
    ratios = stats.chi2.ppf((np.arange(20_000) + 0.5) / 20_000, seeds - 1) / (seeds - 1)
    t, z = stats.t.ppf((1 + level) / 2, seeds - 1), stats.norm.ppf((1 + level) / 2)
    half = np.sqrt(t**2 * share * ratios + z**2 * (1 - share))
    assert (1 - 2 * stats.norm.sf(half)).mean() >= level - 1e-4


@pytest.mark.parametrize(
    ("first", "second"),
    [(0.08, 0.08), pytest.param(0.02, 0.02, marks=pytest.mark.slow), (0.09, 0.06)],
)
def test_the_paired_interval_covers_95_percent(first: float, second: float) -> None:
    rng, trials = np.random.default_rng(11), 1500
    tables = rng.multinomial(350, [first, second, 1 - first - second], trials)
    held = [
        (found := sample_difference([gap(up, down, 350)]).compute_interval(0.95)).low
        <= first - second
        <= found.high
        for up, down, _ in tables
    ]
    assert np.mean(held) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / trials)


def test_real_values_have_no_exact_test() -> None:
    """McNemar's counts are those of images that one of two models has right: areas under curves and
    linearised ratios have none, however few images differ.
    """
    gaps = gap(3, 1, 200) * 0.37
    found = sample_difference([gaps])
    assert found.discordant is None
    assert sample_difference([gap(3, 1, 200)]).discordant == (3, 1)
    n, mean = 200, float(gaps.mean())
    squares = ((gaps - mean) ** 2).sum() + (1 - mean) ** 2 + (1 + mean) ** 2
    half = Z * math.sqrt(squares) / (n + 2)
    interval = found.compute_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((mean - half, mean + half))


def test_a_mean_of_real_values_may_lie_outside_of_0_and_1() -> None:
    values = np.random.default_rng(0).normal(-0.02, 0.3, (400, 1))
    found = statistics.estimate_mean(values, 0.95)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * Z * values.std() / 20, rel=0.02)
    assert found.low < 0
    binary = column(7, 30)[:, None]
    assert statistics.estimate_mean(binary, 0.95) == statistics.estimate_accuracy(binary, 0.95)
