"""Sizes other than 224 px, for which ImageNet-C is defined: its lengths scale with the side.

Images are [H, W, 3], layers [H, W]; one published pixel is `get_scale(shape)` pixels of an image.
"""

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

cv2.setNumThreads(1)  # there is one process per core; OpenCV's own threads do not survive a fork

PUBLISHED_SIDE = 224

FloatArray = NDArray[np.float32]


def get_scale(shape: tuple[int, ...]) -> float:
    """Pixels of an image per pixel of ImageNet-C, by the shorter side."""
    return min(shape[:2]) / PUBLISHED_SIDE


def get_published_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width at which the layers over an image are made: 224 px on the shorter side."""
    scale = get_scale(shape)
    return round(shape[0] / scale), round(shape[1] / scale)


def resize_layer(layer: NDArray[Any], shape: tuple[int, ...]) -> FloatArray:
    """A layer at the height and width of `shape`, by the mean over areas or linearly."""
    if layer.shape[:2] == shape[:2]:
        return layer.astype(np.float32)
    method = cv2.INTER_AREA if layer.shape[0] > shape[0] else cv2.INTER_LINEAR
    return _resize(layer.astype(np.float32), shape, method)


def blur_on_finer_grid(
    image: NDArray[np.uint8], blur: Callable[[FloatArray, float], NDArray[Any]]
) -> FloatArray:
    """`blur(fine image, its scale)`, with each pixel of a small image divided into k x k equal
    ones, so that no scaled length is below its published one; the mean over them is returned.
    """
    factor = math.ceil(1 / get_scale(image.shape))
    shape = (factor * image.shape[0], factor * image.shape[1])
    fine = _resize(image.astype(np.float32), shape, cv2.INTER_NEAREST)
    blurred = blur(fine, get_scale(shape)).astype(np.float32)
    return _resize(blurred, image.shape, cv2.INTER_AREA)


def _resize(values: FloatArray, shape: tuple[int, ...], method: int) -> FloatArray:
    return np.asarray(cv2.resize(values, (shape[1], shape[0]), interpolation=method), np.float32)
