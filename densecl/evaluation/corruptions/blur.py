"""Blurs. Image uint8 [H, W, 3] -> the same shape in [0, 255], not yet clipped; lengths are in
published pixels, of which an image has 224 on the shorter side.
"""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densecl.evaluation.corruptions.scaling import FloatArray, blur_on_finer_grid, get_scale
from densecl.evaluation.corruptions.zoom import zoom_centre

Image = NDArray[np.uint8]

ZOOM_RANGES = (  # of factors: from 1, to, step
    (1.11, 0.01),
    (1.16, 0.01),
    (1.21, 0.02),
    (1.26, 0.02),
    (1.31, 0.03),
)


def blur_by_defocus(image: Image, severity: int, _: np.random.Generator) -> FloatArray:
    """The mean over a disk with a radius of 3 to 10."""
    radius, smoothing = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]

    def blur(fine: FloatArray, scale: float) -> FloatArray:
        return np.asarray(cv2.filter2D(fine, -1, _build_disk(radius * scale, smoothing)))

    return blur_on_finer_grid(image, blur)


def _build_disk(radius: float, smoothing: float) -> FloatArray:
    """Weights of a disk, whose edge is smoothed over 3 or, if it is large, 5 pixels."""
    reach = max(8, math.ceil(radius))
    squares = np.arange(-reach, reach + 1) ** 2
    disk = (squares[:, None] + squares <= radius**2).astype(np.float32)
    side = 3 if radius <= 8 else 5
    return np.asarray(cv2.GaussianBlur(disk / disk.sum(), (side, side), smoothing))


def blur_by_glass(image: Image, severity: int, rng: np.random.Generator) -> FloatArray:
    """A slight blur, pixels replaced by near ones, and the blur again."""
    settings = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    sigma, reach, repeats = settings

    def blur(fine: FloatArray, scale: float) -> FloatArray:
        pixels = blur_by_gaussian(fine, sigma * scale).astype(np.uint8)
        for _ in range(repeats):
            pixels = scatter_pixels(pixels, round(reach * scale), rng)
        return blur_by_gaussian(pixels.astype(np.float32), sigma * scale)

    return blur_on_finer_grid(image, blur)


def scatter_pixels(image: Image, reach: int, rng: np.random.Generator) -> Image:
    """Each pixel but those at the border becomes a copy of one that is at most `reach` away,
    drawn at random, row by row from the last pixel to the first.

    The paper calls it a swap, but the authors' code, which made the images, overwrites the first
    pixel before it copies it back. A pixel whose partner has had its turn gets what the partner
    got; chains of such pixels are resolved together, by doubling the steps taken along them.
    """
    height, width = image.shape[:2]
    rows = np.arange(height - reach, reach, -1)
    columns = np.arange(width - reach, reach, -1)
    offsets = rng.integers(-reach, reach, (len(rows), len(columns), 2))
    pixels = (rows[:, None] * width + columns).ravel()  # their numbers in the flattened image
    partners = pixels + offsets[..., 1].ravel() * width + offsets[..., 0].ravel()
    count = height * width
    replaced = np.zeros(count, bool)
    replaced[pixels] = True
    had_turn = replaced[partners] & (partners > pixels)
    # Of each pixel, where it is copied from: `number` once that has become what it will be, or
    # `number + count` as it was.
    sources = np.concatenate([np.arange(count, 2 * count)] * 2)
    sources[pixels] = np.where(had_turn, partners, partners + count)
    waiting = pixels[had_turn]
    while len(waiting):
        sources[waiting] = sources[sources[waiting]]
        waiting = waiting[sources[waiting] < count]
    copies = image.reshape(count, -1)[sources[:count] - count]
    return np.asarray(copies.reshape(image.shape))


def blur_by_motion(image: Image, severity: int, rng: np.random.Generator) -> FloatArray:
    """A trail in a direction within 45 degrees of the horizontal."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    angle = rng.uniform(-45, 45)
    return blur_on_finer_grid(
        image, lambda fine, scale: blur_along(fine, radius * scale, sigma * scale, angle)
    )


def blur_along(image: FloatArray, radius: float, sigma: float, angle: float) -> FloatArray:
    """ImageMagick's motion blur of [H, W, ...]: the weighted mean over 2 radius + 1 pixels in the
    direction `angle` (degrees), by a Gaussian half that begins at the pixel itself. The border is
    repeated outwards.
    """
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    radians = math.radians(angle)
    down = np.ceil(steps * math.sin(radians) - 0.5).astype(int)
    right = np.ceil(steps * math.cos(radians) - 0.5).astype(int)
    reach, (height, width) = len(steps), image.shape[:2]
    padded = cv2.copyMakeBorder(image, *(reach,) * 4, cv2.BORDER_REPLICATE)
    blurred = np.zeros_like(image)
    for weight, y, x in zip(weights.tolist(), reach + down, reach + right, strict=True):
        cv2.scaleAdd(padded[y : y + height, x : x + width], weight, blurred, blurred)
    return blurred


def blur_by_zoom(image: Image, severity: int, _: np.random.Generator) -> FloatArray:
    """The mean of enlargements by 1 to 1.1 (severity 1) or to 1.3 (severity 5), and the image."""
    end, step = ZOOM_RANGES[severity - 1]
    factors = np.arange(1, end, step).tolist()

    def blur(fine: FloatArray, _: float) -> FloatArray:
        total = sum((zoom_centre(fine, factor) for factor in factors), start=fine)
        return np.asarray(total / (len(factors) + 1))

    return blur_on_finer_grid(image, blur)


def blur_by_gaussian(image: NDArray[Any], sigma: float) -> FloatArray:
    """A Gaussian of `sigma` pixels, cut off at 4 sigma; the border is repeated outwards."""
    side = 2 * int(4 * sigma + 0.5) + 1
    return np.asarray(
        cv2.GaussianBlur(
            image.astype(np.float32), (side, side), sigma, borderType=cv2.BORDER_REPLICATE
        )
    )


def blur_evenly(image: Image, severity: int, _: np.random.Generator) -> FloatArray:
    """A Gaussian with a sigma of 1 to 6."""
    return blur_by_gaussian(image, (1, 2, 3, 4, 6)[severity - 1] * get_scale(image.shape))
