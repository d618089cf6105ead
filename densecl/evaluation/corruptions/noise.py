"""Noise: of each value by itself, so the same at every size. Image uint8 [H, W, 3] -> the same
shape in [0, 255], not yet clipped.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def add_gaussian_noise(image: Image, severity: int, rng: np.random.Generator) -> NDArray[Any]:
    """Normal noise with a standard deviation of 0.08 to 0.38 of the range of values."""
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return image + rng.normal(0, 255 * deviation, image.shape)


def add_shot_noise(image: Image, severity: int, rng: np.random.Generator) -> NDArray[Any]:
    """Poisson counts of photons, of which white has 60 to 3."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return rng.poisson(image / 255 * photons) * (255 / photons)


def add_impulse_noise(image: Image, severity: int, rng: np.random.Generator) -> NDArray[Any]:
    """A share of 0.03 to 0.27 of the values, each channel by itself, become 0 or 255."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    replaced = rng.random(image.shape) <= share
    white = rng.random(image.shape) <= 0.5
    return np.where(replaced, np.where(white, 255, 0), image)


def add_speckle_noise(image: Image, severity: int, rng: np.random.Generator) -> NDArray[Any]:
    """Normal noise with a standard deviation of 0.15 to 0.6 of each value."""
    deviation = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    return image + image * rng.normal(0, deviation, image.shape)
