"""Calibration: difference between confidence and accuracy, and ranking of predictions by
confidence. B: images, at least one.

All functions take confidence [B] and correct [B] and return a fraction. Images with equal
confidence share their mean correctness, so that no metric depends on the order of the images.
"""

import numpy as np

BIN_COUNT = 15
IMAGES_PER_BIN = 100  # images per bin


def expected_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, bins: int = BIN_COUNT
) -> float:
    """Mean |accuracy - confidence| over equal-width bins [a, b), weighted by images (Guo et al.
    2017).

    The last bin holds confidence 1 too.
    """
    bin_index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_index, weights=correct.astype(float) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def equal_mass_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, bins: int = BIN_COUNT
) -> float:
    """Mean |accuracy - confidence| over bins with equal numbers of images (within one), by
    ascending confidence (Nixon et al. 2019).
    """
    confidence, accuracy = _sort_by_confidence(confidence, correct)
    gaps = [part.sum() for part in np.array_split(accuracy - confidence, bins)]
    return float(np.abs(gaps).sum() / len(confidence))


def rms_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Root mean square of (accuracy - confidence) over bins of 100 images, by ascending confidence.

    As ImageNet-A's authors define it (Hendrycks et al. 2021, calibration_tools.py), with one
    difference: the last bin, which takes the rest, is included. Their loop ends one bin early and
    omits up to 199 of the most confident predictions.
    """
    confidence, accuracy = _sort_by_confidence(confidence, correct)
    starts = np.arange(max(1, len(confidence) // IMAGES_PER_BIN)) * IMAGES_PER_BIN
    sizes = np.diff(np.append(starts, len(confidence)))
    gaps = np.add.reduceat(accuracy - confidence, starts) / sizes
    return float(np.sqrt((sizes * gaps**2).sum() / len(confidence)))


def response_rate_accuracy(confidence: np.ndarray, correct: np.ndarray) -> float:
    """AURRA, the area under the response rate accuracy curve: mean over k of the accuracy on the k
    most confident predictions.

    Hendrycks et al. 2021, calibration_tools.py.
    """
    accuracy = _sort_by_confidence(confidence, correct)[1][::-1]
    return float((np.cumsum(accuracy) / np.arange(1, len(accuracy) + 1)).mean())


def _sort_by_confidence(
    confidence: np.ndarray, correct: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and correctness by ascending confidence; tied predictions share their mean
    correctness.
    """
    levels, level_index = np.unique(confidence, return_inverse=True)
    counts = np.bincount(level_index)
    accuracy = np.bincount(level_index, weights=correct.astype(float)) / counts
    return np.repeat(levels, counts), np.repeat(accuracy, counts)
