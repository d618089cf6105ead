"""The expected best of n trials, re-derived by listing every way to draw them."""

from itertools import product
from statistics import fmean, pstdev

import pytest

from densecl.tuning.expected_maximum import estimate_expected_maxima


def test_it_is_the_mean_over_all_draws_with_replacement():
    scores = [0.3, 0.7, 0.1, 0.7, 0.5]
    for found in estimate_expected_maxima(scores):
        best = [max(drawn) for drawn in product(scores, repeat=found.trials)]
        assert found.mean == pytest.approx(fmean(best))
        assert found.deviation == pytest.approx(pstdev(best))


def test_it_begins_at_the_mean_and_grows_towards_the_best():
    maxima = [found.mean for found in estimate_expected_maxima([0.2, 0.4, 0.9])]
    assert maxima[0] == pytest.approx(0.5)
    assert maxima == sorted(maxima)
    assert maxima[-1] < 0.9


def test_of_equal_scores_and_of_none():
    assert [found.deviation for found in estimate_expected_maxima([0.5] * 3)] == [0.0] * 3
    assert estimate_expected_maxima([]) == []
