"""Weather. Image uint8 [H, W, 3] -> the same shape in [0, 255], not yet clipped.

Layers of snow, frost, fog and drops are made for 224 px and resized to the image.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densecl.evaluation.corruptions.blur import blur_along, blur_by_gaussian
from densecl.evaluation.corruptions.digital import get_largest
from densecl.evaluation.corruptions.scaling import get_published_shape, resize_layer
from densecl.evaluation.corruptions.zoom import zoom_centre

Image = NDArray[np.uint8]

SNOW = (  # mean and deviation of noise, its zoom, threshold, radius and sigma of trails, share kept
    (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
SPATTER = (  # mean and deviation of noise, sigma of drops, threshold, strength or sigma of mud
    (0.65, 0.3, 4, 0.69, 0.6),
    (0.65, 0.3, 3, 0.68, 0.6),
    (0.65, 0.3, 2, 0.68, 0.5),
    (0.65, 0.3, 1, 0.65, 1.5),
    (0.67, 0.4, 1, 0.65, 1.5),
)
MUDDY = 4  # severity from which drops are mud
WATER_COLOUR, MUD_COLOUR = (175, 238, 238), (63, 42, 20)


def add_snow(image: Image, severity: int, rng: np.random.Generator) -> NDArray[Any]:
    """Flakes with trails, over a whitened image; each flake a second time, turned by 180
    degrees.
    """
    mean, deviation, zoom, threshold, radius, sigma, kept = SNOW[severity - 1]
    noise = rng.normal(mean, deviation, get_published_shape(image.shape)).astype(np.float32)
    noise = zoom_centre(noise, zoom)
    flakes = (255 * np.clip(np.where(noise < threshold, 0, noise), 0, 1)).astype(np.uint8)
    trails = blur_along(flakes.astype(np.float32), radius, sigma, rng.uniform(-135, -45)).round()
    grey = np.asarray(cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY))[..., None]
    whitened = kept * image + (1 - kept) * np.maximum(image, 1.5 * grey + 127.5)
    layer = resize_layer(trails + np.rot90(trails, 2), image.shape)
    return np.asarray(whitened + layer[..., None])


def add_frost(
    photographs: Sequence[Image], image: Image, severity: int, rng: np.random.Generator
) -> NDArray[Any]:
    """A random crop of one of the authors' photographs, added to the darkened image."""
    kept, added = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    photograph = photographs[int(rng.integers(len(photographs)))]
    height, width = get_published_shape(image.shape)
    top = rng.integers(photograph.shape[0] - height)
    left = rng.integers(photograph.shape[1] - width)
    crop = photograph[top : top + height, left : left + width]
    return kept * image + added * resize_layer(crop, image.shape)


def add_fog(image: Image, severity: int, rng: np.random.Generator) -> NDArray[Any]:
    """A cloud, added before the brightest value is restored."""
    strength, decay = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))[severity - 1]
    height, width = get_published_shape(image.shape)
    side = 2 ** (max(height, width) - 1).bit_length()
    cloud = resize_layer(draw_cloud(side, decay, rng)[:height, :width], image.shape)[..., None]
    brightest = float(image.max())
    return (image + 255 * strength * cloud) * (brightest / (brightest + 255 * strength))


def draw_cloud(side: int, decay: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Fractal heights in [0, 1], [side, side], of the diamond-square algorithm on a torus.

    `side` is a power of 2. The deviations are uniform to the square of a spread that begins at 100
    and is divided by `decay` at each halving, as the authors have it.
    """
    heights, spread, step = np.zeros((side, side)), 100.0, side

    def fill(places: tuple[slice, slice], sums: NDArray[np.float64]) -> None:
        heights[places] = sums / 4 + spread * rng.uniform(-spread, spread, sums.shape)

    while step > 1:
        corner, middle = slice(0, None, step), slice(step // 2, None, step)
        corners = heights[corner, corner]
        pairs = corners + np.roll(corners, -1, 0)
        fill((middle, middle), pairs + np.roll(pairs, -1, 1))
        centres = heights[middle, middle]
        above_and_below = centres + np.roll(centres, 1, 0)
        fill((corner, middle), above_and_below + corners + np.roll(corners, -1, 1))
        beside = centres + np.roll(centres, 1, 1)
        fill((middle, corner), beside + corners + np.roll(corners, -1, 0))
        step, spread = step // 2, spread / decay
    heights -= heights.min()
    return np.asarray(heights / heights.max())


def brighten(image: Image, severity: int, _: np.random.Generator) -> NDArray[Any]:
    """HSV's value (the largest channel) raised by 0.1 to 0.5, at most to 1; hue and saturation
    stay, so all channels grow by one factor.
    """
    value = get_largest(image)
    raised = np.minimum(value + 255 * (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1], 255)
    brightened = image * (raised / np.maximum(value, 1))
    return np.asarray(np.where(value > 0, brightened, raised))


def add_spatter(image: Image, severity: int, rng: np.random.Generator) -> NDArray[Any]:
    """Drops of water on the lens, or of mud."""
    mean, deviation, sigma, threshold, strength = SPATTER[severity - 1]
    noise = rng.normal(mean, deviation, get_published_shape(image.shape))
    liquid = blur_by_gaussian(noise, sigma)
    liquid[liquid < threshold] = 0
    if severity < MUDDY:
        water = resize_layer(strength * _shade_water(liquid), image.shape)[..., None]
        return image + water * WATER_COLOUR
    mud = blur_by_gaussian(liquid > threshold, strength)
    mud[mud < 0.8] = 0
    mud = resize_layer(mud, image.shape)[..., None]
    return image * (1 - mud) + mud * MUD_COLOUR


def _shade_water(liquid: NDArray[np.float32]) -> NDArray[np.float32]:
    """Brightness in [0, 1] of drops: lit from one side, brighter away from their edges."""
    levels = (255 * np.clip(liquid, 0, 1)).astype(np.uint8)
    distances = cv2.distanceTransform(255 - cv2.Canny(levels, 50, 150), cv2.DIST_L2, 5)
    relief = cv2.blur(np.minimum(distances, 20), (3, 3)).astype(np.uint8)
    light = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    lit = cv2.filter2D(cv2.equalizeHist(relief), cv2.CV_8U, light)
    shaded = levels * np.asarray(cv2.blur(lit, (3, 3)), np.float32)
    return np.asarray(shaded / max(shaded.max(), 1), np.float32)
