"""Intervals and tests against closed forms, hand calculations and simulation."""

import math

import numpy as np
import pytest

from densecl.analysis import statistics
from densecl.analysis.statistics import Estimate, WeightedOutcomes


def column(right: int, n: int) -> np.ndarray:
    """[n] outcomes with `right` ones first."""
    return (np.arange(n) < right).astype(float)


def pair(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two models [n, 1] with a given 2 x 2 table."""
    one = np.repeat([1.0, 1, 0, 0], [both, first, second, neither])
    two = np.repeat([1.0, 0, 1, 0], [both, first, second, neither])
    return one[:, None], two[:, None]


@pytest.mark.parametrize(("right", "n"), [(0, 30), (7, 30), (30, 30), (612, 1000)])
def test_wilson_equals_its_closed_form(right: int, n: int) -> None:
    z, p = 1.959963984540054, right / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = statistics.compute_wilson_interval(column(right, n), 0.95)
    assert found.value == p
    assert found.low == pytest.approx(max(0, (centre - half) / (1 + z * z / n)), abs=1e-12)
    assert found.high == pytest.approx(min(1, (centre + half) / (1 + z * z / n)), abs=1e-12)


def test_newcombe_reproduces_the_published_example() -> None:
    """56/70 - 48/80: Newcombe (1998), table II, method 10 gives 0.0524 to 0.3339."""
    found = statistics.estimate_independent_difference(
        statistics.compute_wilson_interval(column(56, 70), 0.95),
        statistics.compute_wilson_interval(column(48, 80), 0.95),
    )
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == (
        pytest.approx(0.0524, abs=5e-5),
        pytest.approx(0.3339, abs=5e-5),
    )


def test_bootstrap_equals_redrawing_rows_one_by_one() -> None:
    values = np.random.default_rng(1).choice([-1.0, 0, 1], size=200, p=[0.1, 0.7, 0.2])[:, None]
    found = statistics.estimate_by_bootstrap([WeightedOutcomes(1.0, values)], 0.95, 20000, seed=5)
    rng = np.random.default_rng(2)
    slow = [values[rng.integers(0, 200, 200)].mean() for _ in range(20000)]
    assert found.low == pytest.approx(np.quantile(slow, 0.025), abs=0.006)
    assert found.high == pytest.approx(np.quantile(slow, 0.975), abs=0.006)
    assert found.value == pytest.approx(values.mean())


def test_bootstrap_is_repeatable_and_weighs_its_parts() -> None:
    parts = [WeightedOutcomes(0.5, np.ones((10, 1))), WeightedOutcomes(-0.25, np.ones((7, 1)))]
    assert statistics.estimate_by_bootstrap(parts, 0.95, 100, 0) == Estimate(
        0.25, 0.25, 0.25, pytest.approx(2 / 101)
    )
    noisy = [WeightedOutcomes(1.0, np.random.default_rng(0).random((40, 1)))]
    assert statistics.estimate_by_bootstrap(noisy, 0.9, 500, 3) == statistics.estimate_by_bootstrap(
        noisy, 0.9, 500, 3
    )
    assert statistics.estimate_by_bootstrap(noisy, 0.9, 500, 3) != statistics.estimate_by_bootstrap(
        noisy, 0.9, 500, 4
    )


def test_bootstrap_width_is_the_standard_error() -> None:
    one, two = pair(300, 80, 50, 570)
    found = statistics.estimate_paired_difference(one, two, 0.95, 20000, 0)
    error = (one - two).std(ddof=1) / math.sqrt(1000)
    assert found.value == pytest.approx(0.03)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.03)


def test_mcnemar_is_the_binomial_tail() -> None:
    one, two = pair(50, 9, 2, 40)
    tail = sum(math.comb(11, k) for k in range(3)) / 2**11
    assert statistics.compute_mcnemar_p(one[:, 0], two[:, 0]) == pytest.approx(2 * tail)
    assert statistics.estimate_paired_difference(one, two, 0.95, 200, 0).p == pytest.approx(
        2 * tail
    )
    assert statistics.compute_mcnemar_p(one[:, 0], one[:, 0]) == 1.0


def test_holm_by_hand_and_in_order() -> None:
    # Sorted 0.01 0.02 0.03 0.04: times 4 3 2 1 gives 0.04 0.06 0.06 0.04, made monotone 0.04 0.06
    # 0.06 0.06.
    assert statistics.apply_holm_correction([0.04, 0.01, 0.03, 0.02]) == pytest.approx(
        [0.06, 0.04, 0.06, 0.06]
    )
    assert statistics.apply_holm_correction([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.apply_holm_correction([]) == []


def test_two_models_equal_on_every_image_do_not_differ() -> None:
    right = column(30, 100)[:, None]
    found = statistics.estimate_paired_difference(right, right, 0.95, 200, 0)
    assert (found.value, found.p) == (0.0, 1.0)
    # With a true share `high` of differing images, seeing none among 100 has a chance of 2.5 %.
    assert (1 - found.high) ** 100 == pytest.approx(0.025)
    assert found.low == -found.high


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_no_difference_seen_is_not_no_doubt(seeds: int) -> None:
    """Neither on the mean of several sets nor with several seeds, where redraws and t have no
    spread to go by.
    """
    gaps = [np.zeros((n, seeds)) for n in (400, 900)]
    found = statistics.estimate_mean_difference(gaps, 0.95, 1000, 1)
    bound = np.mean([1 - 0.025 ** (1 / n) for n in (400, 900)])
    assert (found.low, found.value, found.high, found.p) == pytest.approx((-bound, 0.0, bound, 1.0))
    assert (
        statistics.compute_detectable_difference([WeightedOutcomes(0.5, gap) for gap in gaps], 0.95)
        > bound
    )
    assert statistics.estimate_accuracy(
        np.ones((400, seeds)), 0.95, 1000, 1
    ) == statistics.compute_wilson_interval(np.ones(400), 0.95)


def test_seeds_without_image_effect_give_students_t() -> None:
    """Every image of a seed alike: only the spread of the seeds is left."""
    from scipy import stats

    per_seed = np.array([0.02, 0.05, 0.03])
    found = statistics.estimate_over_seeds(
        [WeightedOutcomes(1.0, np.tile(per_seed, (50, 1)))], 0.95
    )
    test = stats.ttest_1samp(per_seed, 0.0)
    interval = test.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.p == pytest.approx(test.pvalue)


def test_seeds_alike_keep_the_images_share() -> None:
    """Three copies of one seed: the error is that of the images, not zero and not divided by
    three.
    """
    values = np.tile(column(30, 90)[:, None], (1, 3))
    found = statistics.estimate_over_seeds([WeightedOutcomes(1.0, values)], 0.95)
    error = math.sqrt(values[:, 0].var(ddof=1) / 90)
    assert (found.high - found.low) / 2 == pytest.approx(1.959963984540054 * error)


def test_interval_for_the_mode_covers() -> None:
    rng, covered, times = np.random.default_rng(7), 0, 400
    for _ in range(times):
        truth = 0.04
        chance = np.clip(truth + rng.normal(0, 0.15, (200, 1)) + rng.normal(0, 0.03, (1, 3)), -1, 1)
        values = np.sign(chance) * (rng.random((200, 3)) < np.abs(chance))
        found = statistics.estimate_over_seeds([WeightedOutcomes(1.0, values)], 0.95)
        covered += found.low <= truth <= found.high
    # Three standard errors of a coverage of 0.95 in 400 trials are 0.033.
    assert covered / times >= 0.95 - 0.033


def test_planted_difference_is_found_and_planted_null_is_not() -> None:
    rng, found_effect, found_null = np.random.default_rng(3), 0, 0
    for trial in range(60):
        base = rng.random(1500) < 0.5
        flip = rng.random(1500)
        better = np.where(base, flip > 0.04, flip < 0.14)  # 0.14 / 2 - 0.04 / 2: 5 points
        alike = np.where(base, flip > 0.09, flip < 0.09)
        for other, effect in ((better, True), (alike, False)):
            got = statistics.estimate_paired_difference(
                other[:, None].astype(float), base[:, None].astype(float), 0.95, 300, trial
            )
            sure = got.p is not None and got.p <= 0.05 and not got.low <= 0 <= got.high
            found_effect += effect and sure
            found_null += not effect and sure
    assert found_effect >= 58
    assert found_null <= 8  # 5 % of 60 is 3; more than 8 has a chance of 0.3 %


def test_accuracy_uses_wilson_for_one_seed_and_stays_in_bounds() -> None:
    one = column(0, 40)[:, None]
    assert statistics.estimate_accuracy(one, 0.95, 200, 0) == statistics.compute_wilson_interval(
        one[:, 0], 0.95
    )
    near = np.ones((30, 3))
    near[0, 0] = near[1, 1] = 0
    assert statistics.estimate_accuracy(near, 0.95, 200, 0).high == 1.0


@pytest.mark.parametrize("n", [1000, 10_000])
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_wilson_covers_95_percent(n: int, rate: float) -> None:
    """Exactly: the chance of every count whose interval holds the rate."""
    from scipy.stats import binom

    half = int(6 * math.sqrt(n * rate * (1 - rate)))
    counts = np.arange(int(n * rate) - half, int(n * rate) + half)
    held = [
        (found := statistics.compute_wilson_interval(column(int(k), n), 0.95)).low
        <= rate
        <= found.high
        for k in counts
    ]
    assert 0.93 <= binom.pmf(counts, n, rate)[held].sum() <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("difference", [0.0, 0.03])
def test_the_paired_bootstrap_covers_95_percent(rate: float, difference: float) -> None:
    """1,000 images of which one in eight tells the models apart; the truth is that of fresh
    images.
    """
    rng, times, held = np.random.default_rng(11), 1500, 0
    first, second = 0.0625 + difference / 2, 0.0625 - difference / 2
    both = rate - first  # the first model is right at `rate`
    if both < 0 or both + first + second > 1:
        both = 0.85
    tables = rng.multinomial(1000, [both, first, second, 1 - both - first - second], size=times)
    for trial, counts in enumerate(tables):
        one, two = pair(*counts)
        found = statistics.estimate_paired_difference(one, two, 0.95, 1000, trial)
        held += found.low <= difference <= found.high
    assert 0.93 <= held / times <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("discordant", [0.05, 0.2])
def test_mcnemar_has_its_size_where_nothing_differs(discordant: float) -> None:
    """Exact, so at most 5 %, and not far below."""
    rng, times = np.random.default_rng(5), 3000
    tables = rng.multinomial(
        2000, [0.5, discordant / 2, discordant / 2, 0.5 - discordant], size=times
    )
    p = [
        statistics.compute_mcnemar_p(one[:, 0], two[:, 0])
        for one, two in (pair(*counts) for counts in tables)
    ]
    assert 0.03 <= np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / times)


def seeds_of_a_mode(rng: np.random.Generator, ease: np.ndarray, seeds: int) -> np.ndarray:
    """Outcomes [n, S]: each seed shifts every image's logit [n] by noise of 0.1."""
    logits = ease[:, None] + rng.normal(0, 0.1, (1, seeds))
    return (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)


def centre(rate: float, spread: float) -> float:
    """The mean logit at which images of that spread, with the seeds' noise, are right at `rate` (by
    quadrature).
    """
    from scipy.optimize import brentq

    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    wide = math.hypot(spread, 0.1)
    return float(
        brentq(
            lambda m: weights @ (1 / (1 + np.exp(-m - wide * nodes))) / weights.sum() - rate,
            -40,
            40,
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 3.0])
@pytest.mark.parametrize(("seeds", "rate"), [(3, 0.1), (3, 0.5), (5, 0.5)])
def test_the_interval_over_seeds_covers_95_percent(seeds: int, rate: float, spread: float) -> None:
    """Seed noise of 0.1 logit, 1,000 fresh images that are alike (spread 0) or from easy to hard;
    accuracy and difference, and the test's size where nothing differs.
    """
    rng, times, middle = np.random.default_rng(13), 2500, centre(rate, spread)
    held, called = np.zeros(2), 0
    for _ in range(times):
        ease = middle + spread * rng.normal(size=1000)
        one, two = (seeds_of_a_mode(rng, ease, seeds) for _ in range(2))
        accuracy, difference = (
            statistics.estimate_over_seeds([WeightedOutcomes(1.0, v)], 0.95)
            for v in (one, one - two)
        )
        held += [accuracy.low <= rate <= accuracy.high, difference.low <= 0 <= difference.high]
        called += difference.p is not None and difference.p <= 0.05
    assert 0.93 <= held.min() / times <= held.max() / times <= 0.97
    assert 0.03 <= called / times <= 0.07


def test_detectable_solves_connor_s_formula_and_falls_with_n() -> None:
    one, two = pair(500, 60, 40, 400)
    found = statistics.compute_detectable_difference([WeightedOutcomes(1.0, one - two)], 0.95)
    u, v, share = 1.959963984540054, 0.8416212335729143, 0.1
    assert (
        u * math.sqrt(share) + v * math.sqrt(share - found**2)
    ) ** 2 / found**2 == pytest.approx(1000, rel=1e-9)
    more = [np.tile(values, (9, 1)) for values in (one, two)]
    assert statistics.compute_detectable_difference(
        [WeightedOutcomes(1.0, more[0] - more[1])], 0.95
    ) == pytest.approx(found / 3, rel=0.01)
    assert (
        statistics.compute_detectable_difference([WeightedOutcomes(1.0, one - two)], 0.95, tests=6)
        > found
    )
    # Nothing differs on 1,000 images: a difference d needs at least d of them, d n = (u + v sqrt(1
    # - d))^2.
    least = statistics.compute_detectable_difference([WeightedOutcomes(1.0, one - one)], 0.95)
    assert least * 1000 == pytest.approx((u + v * math.sqrt(1 - least)) ** 2, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "discordant"), [(1000, 0.1), (304, 0.2), (5000, 0.02)])
def test_the_test_finds_a_detectable_difference_four_times_in_five(
    n: int, discordant: float
) -> None:
    half = int(n * discordant / 2)
    one, two = pair(n - 2 * half, half, half, 0)
    found = statistics.compute_detectable_difference([WeightedOutcomes(1.0, one - two)], 0.95)
    rng, times = np.random.default_rng(17), 1500
    share = [(discordant + found) / 2, (discordant - found) / 2]
    tables = rng.multinomial(n, [0.5, *share, 0.5 - discordant], size=times)
    p = [
        statistics.compute_mcnemar_p(a[:, 0], b[:, 0])
        for a, b in (pair(*counts) for counts in tables)
    ]
    # The exact test is a little less powerful than the formula's normal approximation.
    assert 0.74 <= np.mean(np.array(p) <= 0.05) <= 0.83


def test_detectable_with_seeds_is_the_quantiles_times_the_error() -> None:
    from scipy import stats

    per_seed = np.array([0.02, 0.05, 0.03])
    found = statistics.compute_detectable_difference(
        [WeightedOutcomes(1.0, np.tile(per_seed, (50, 1)))], 0.95
    )
    quantiles = stats.t.ppf(0.975, 2) + stats.t.ppf(0.8, 2)
    assert found == pytest.approx(quantiles * per_seed.std(ddof=1) / math.sqrt(3))
