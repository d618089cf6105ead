"""Calibration against torchmetrics, against slow loops and by hand."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from densecl.evaluation.calibration import (
    equal_mass_calibration_error,
    expected_calibration_error,
    response_rate_accuracy,
    rms_calibration_error,
)

ALL = (
    expected_calibration_error,
    equal_mass_calibration_error,
    rms_calibration_error,
    response_rate_accuracy,
)


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    confidence = rng.random(4170)
    return confidence, rng.random(4170) < 0.8 * confidence


def test_agrees_with_torchmetrics(answers):
    confidence, correct = answers
    theirs = binary_calibration_error(
        torch.tensor(confidence), torch.tensor(correct).int(), n_bins=15
    )
    assert expected_calibration_error(confidence, correct) == pytest.approx(float(theirs), abs=1e-9)


def test_full_confidence_counts_in_the_last_bin():
    confidence, correct = np.array([1.0, 0.95]), np.array([True, False])
    assert expected_calibration_error(confidence, correct, bins=10) == pytest.approx(
        abs(1 - 1.95) / 2
    )


def test_equal_mass_by_a_slow_loop(answers):
    confidence, correct = answers
    order, total = np.argsort(confidence), 0.0
    for part in np.split(order, np.cumsum([278] * 15)[:-1]):
        total += len(part) / len(order) * abs(correct[part].mean() - confidence[part].mean())
    assert equal_mass_calibration_error(confidence, correct) == pytest.approx(total, abs=1e-12)


def test_rms_by_a_slow_loop_over_all_bins_and_without_the_last_it_is_the_authors(answers):
    """41 bins: 40 of 100 images and one of 170, which the authors' loop leaves out though its
    images count in the weights.
    """
    confidence, correct = answers
    order, squares = np.argsort(confidence), []
    for start in range(0, 4100, 100):
        part = order[start:] if start == 4000 else order[start : start + 100]
        squares.append(len(part) / 4170 * (confidence[part].mean() - correct[part].mean()) ** 2)
    assert len(squares) == 41
    assert rms_calibration_error(confidence, correct) == pytest.approx(
        sum(squares) ** 0.5, abs=1e-12
    )
    assert sum(squares) ** 0.5 > 1.02 * sum(squares[:-1]) ** 0.5
    few = rms_calibration_error(confidence[:50], correct[:50])
    assert few == pytest.approx(abs(confidence[:50].mean() - correct[:50].mean()))


def test_aurra_by_hand_and_by_a_slow_loop(answers):
    # Most confident first: right, wrong, right -> accuracies 1, 1/2, 2/3.
    assert response_rate_accuracy(
        np.array([0.2, 0.9, 0.5]), np.array([True, True, False])
    ) == pytest.approx((1 + 1 / 2 + 2 / 3) / 3)
    confidence, correct = answers
    ranked = correct[np.argsort(-confidence)]
    slow = [ranked[:k].mean() for k in range(1, len(ranked) + 1)]
    assert response_rate_accuracy(confidence, correct) == pytest.approx(np.mean(slow), abs=1e-12)


@pytest.mark.parametrize("figure", ALL)
def test_the_order_of_images_changes_nothing_also_where_many_share_a_confidence(figure, answers):
    confidence, correct = np.round(answers[0], 1), answers[1]
    mixed = np.random.default_rng(1).permutation(len(correct))
    assert figure(confidence, correct) == pytest.approx(
        figure(confidence[mixed], correct[mixed]), abs=1e-12
    )


def test_shared_confidence_counts_as_an_average_over_orders():
    """Three answers of one confidence, one right: every order of them, averaged."""
    confidence, correct = np.array([0.5, 0.5, 0.5]), np.array([True, False, False])
    orders = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    expected = np.mean([[np.mean(o[:k]) for k in (1, 2, 3)] for o in orders])
    assert response_rate_accuracy(confidence, correct) == pytest.approx(expected)
