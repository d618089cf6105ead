"""mCE, the mean corruption error of ImageNet-C (Hendrycks and Dietterich 2019), from the top-1
errors of its folders `<corruption>/<severity>`.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from statistics import fmean

# Mean top-1 error of AlexNet over the 5 severities, as the authors publish it with their images
# (https://github.com/hendrycks/robustness). The corruptions of mCE are these 15.
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
EXTRA_CORRUPTIONS = ("gaussian_blur", "saturate", "spatter", "speckle_noise")  # not in mCE
SEVERITIES = (1, 2, 3, 4, 5)
FOLDERS = len(ALEXNET_ERRORS) * len(SEVERITIES)

# (corruption, severity) -> top-1 error in [0, 1]
CorruptionErrors = Mapping[tuple[str, int], float]


def parse_corruption(root: str) -> tuple[str, int] | None:
    """Corruption and severity of a folder of ImageNet-C, from the end of its path; None if it has
    none.
    """
    corruption, severity = ("", "", *PurePosixPath(root).parts)[-2:]
    known = corruption in ALEXNET_ERRORS or corruption in EXTRA_CORRUPTIONS
    if known and severity in map(str, SEVERITIES):
        return corruption, int(severity)
    return None


def compute_corruption_errors(errors: CorruptionErrors) -> dict[str, float]:
    """Mean error over the severities that there are, of each corruption of mCE."""
    severities = {
        corruption: [errors[corruption, n] for n in SEVERITIES if (corruption, n) in errors]
        for corruption in ALEXNET_ERRORS
    }
    return {corruption: fmean(values) for corruption, values in severities.items() if values}


def compute_mce(errors: CorruptionErrors) -> float:
    """Mean of the corruption errors, without AlexNet's."""
    return fmean(compute_corruption_errors(errors).values())


def compute_mce_to_alexnet(errors: CorruptionErrors) -> float:
    """Mean of the corruption errors, each divided by AlexNet's; for a complete set of errors."""
    return fmean(
        error / ALEXNET_ERRORS[corruption]
        for corruption, error in compute_corruption_errors(errors).items()
    )
