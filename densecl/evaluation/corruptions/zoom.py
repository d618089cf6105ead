"""Linear enlargement about the centre."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def zoom_centre(image: FloatArray, factor: float) -> FloatArray:
    """The central 1 / factor of [H, W, ...], enlarged linearly to the same size.

    The crop is rounded up to whole pixels, enlarged corner to corner, and trimmed, as ImageNet-C
    does by `scipy.ndimage.zoom`, which gives the same to rounding and takes longer. Of fp64 OpenCV
    would round places to 1/32 px.
    """
    height, width = image.shape[:2]
    (step_y, start_y), (step_x, start_x) = (_find_places(n, factor) for n in (height, width))
    matrix = np.array([[step_x, 0, start_x], [0, step_y, start_y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    )


def _find_places(length: int, factor: float) -> tuple[float, float]:
    """Step, and place of the first pixel, of an axis of the enlarged image in the original."""
    crop = math.ceil(length / factor)
    enlarged = round(crop * factor)
    step = (crop - 1) / (enlarged - 1)
    return step, (length - crop) // 2 + (enlarged - length) // 2 * step
