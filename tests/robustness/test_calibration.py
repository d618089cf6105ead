"""Calibration against torchmetrics and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from densecl.robustness.calibration import expected_calibration_error


def test_agrees_with_torchmetrics():
    rng = np.random.default_rng(0)
    confidence = rng.random(5000)
    correct = rng.random(5000) < confidence**2
    theirs = binary_calibration_error(torch.tensor(confidence), torch.tensor(correct).int(), n_bins=15)
    assert expected_calibration_error(confidence, correct) == pytest.approx(float(theirs), abs=1e-9)


def test_full_confidence_counts_in_the_last_bin_and_nothing_gives_nan():
    confidence, correct = np.array([1.0, 0.95]), np.array([True, False])
    assert expected_calibration_error(confidence, correct, bins=10) == pytest.approx(abs(1 - 1.95) / 2)
    assert np.isnan(expected_calibration_error(np.array([]), np.array([], dtype=bool)))
