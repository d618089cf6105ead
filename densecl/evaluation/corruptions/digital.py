"""Digital changes. Image uint8 [H, W, 3] -> the same shape in [0, 255], not yet clipped."""

import io
from functools import cache
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from densecl.evaluation.corruptions.scaling import get_published_shape, get_scale, resize_layer

Image = NDArray[np.uint8]

# Distances of the channels from the largest, as shares of the largest distance.
RED_DIRECTION = np.array([0, 1, 1], np.float32)

# Published pixels: largest displacement before it is smoothed, sigma, shift of three corners.
ELASTIC = (
    (488, 170.8, 24.4),
    (488, 19.52, 48.8),
    (12.2, 2.44, 4.88),
    (17.08, 2.44, 4.88),
    (29.28, 2.44, 4.88),
)


def reduce_contrast(image: Image, severity: int, _: np.random.Generator) -> NDArray[Any]:
    """The distance from the channel's mean, times 0.4 to 0.05."""
    means = image.mean((0, 1))
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    return np.asarray(means + factor * (image - means))


def deform(image: Image, severity: int, rng: np.random.Generator) -> NDArray[Any]:
    """A random affine map, then random displacements that vary smoothly."""
    strength, sigma, shift = ELASTIC[severity - 1]
    scale, (height, width) = get_scale(image.shape), image.shape[:2]
    centre, reach = np.array([width // 2, height // 2]), min(height, width) // 3
    corners = (centre + reach * np.array([[1, 1], [1, -1], [-1, -1]])).astype(np.float32)
    moved = corners + scale * rng.uniform(-shift, shift, (3, 2))
    matrix = cv2.getAffineTransform(corners, moved.astype(np.float32))
    mapped = cv2.warpAffine(
        image.astype(np.float32), matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101
    )
    right, down = (
        scale * strength * resize_layer(_draw_smooth(image.shape, sigma, rng), image.shape)
        for _ in range(2)
    )
    x = right + np.arange(width, dtype=np.float32)
    y = down + np.arange(height, dtype=np.float32)[:, None]
    return np.asarray(cv2.remap(mapped, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def _draw_smooth(
    shape: tuple[int, ...], sigma: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Uniform numbers in [-1, 1] at the published size, smoothed."""
    height, width = get_published_shape(shape)
    numbers = rng.uniform(-1, 1, (height, width))
    return build_smoothing(height, sigma) @ numbers @ build_smoothing(width, sigma).T


@cache
def build_smoothing(length: int, sigma: float) -> NDArray[np.float64]:
    """Matrix of a Gaussian along one axis, reflected at the border: a product with it costs the
    same for every sigma, where sliding along 3 sigma to both sides would take most of the time.
    """
    return np.asarray(gaussian_filter1d(np.eye(length), sigma, 0, mode="reflect", truncate=3))


def pixelate(image: Image, severity: int, _: np.random.Generator) -> Image:
    """The mean over boxes, on 0.6 to 0.25 of the side."""
    height, width = image.shape[:2]
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    box = PIL.Image.Resampling.BOX
    small = PIL.Image.fromarray(image).resize((int(share * width), int(share * height)), box)
    return np.asarray(small.resize((width, height), box))


def compress(image: Image, severity: int, _: np.random.Generator) -> Image:
    """JPEG at a quality of 25 to 7."""
    return compress_jpeg(image, (25, 18, 15, 10, 7)[severity - 1])


def compress_jpeg(image: Image, quality: int) -> Image:
    """The image as a JPEG file of Pillow's quality shows it."""
    content = io.BytesIO()
    PIL.Image.fromarray(image).save(content, "JPEG", quality=quality)
    with PIL.Image.open(content) as decoded:
        return np.asarray(decoded)


def saturate(image: Image, severity: int, _: np.random.Generator) -> NDArray[Any]:
    """HSV's saturation, scaled and shifted; hue and value stay, so every channel keeps its share
    of the distance to the largest. Grey has the hue of red.
    """
    factor, shift = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    value = get_largest(image)
    distances = value - image
    chroma = get_largest(distances)
    saturation = chroma / np.maximum(value, 1)
    changed = np.clip(saturation * factor + shift, 0, 1)
    directions = np.where(chroma > 0, distances / np.maximum(chroma, 1), RED_DIRECTION)
    return value * (1 - changed * directions)


def get_largest(image: NDArray[Any]) -> NDArray[np.float32]:
    """The largest channel, [H, W, 1]."""
    first, second, third = np.moveaxis(image, -1, 0)
    largest = np.maximum(np.maximum(first, second), third)
    return np.asarray(largest[..., None], np.float32)
