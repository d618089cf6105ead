"""Crops of the two views, drawn from the size of an image alone."""

import math

import numpy as np

from densecl.config.params import DataParams, ViewParams

MAX_CROP_TRIES = 10  # before the whole image is taken, as in torchvision's RandomResizedCrop
REDUCTIONS = (8, 4, 2)  # of a JPEG while it is decoded

Crop = tuple[int, int, int, int]  # top, left, height, width in px


def draw_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    """The number that `rng.uniform(low, high)` draws, in a third of the time."""
    return low + (high - low) * rng.random()


def draw_crops(
    width: int, height: int, data: DataParams, rng: np.random.Generator
) -> tuple[Crop, Crop]:
    """Draw the crops of both views; redraw that of view 2 until `min_overlap` holds, else take the
    best try.
    """
    crop1 = draw_crop(width, height, data.view1, rng)
    crop2 = draw_crop(width, height, data.view2, rng)
    for _ in range(MAX_CROP_TRIES):
        if _compute_overlap(crop1, crop2) >= data.min_overlap:
            break
        crop2 = max(
            crop2,
            draw_crop(width, height, data.view2, rng),
            key=lambda crop: _compute_overlap(crop1, crop),
        )
    return crop1, crop2


def _compute_overlap(crop1: Crop, crop2: Crop) -> float:
    """Area of the intersection as a share of the smaller crop."""
    shared = 1
    for start, length in ((0, 2), (1, 3)):
        low = max(crop1[start], crop2[start])
        shared *= max(0, min(crop1[start] + crop1[length], crop2[start] + crop2[length]) - low)
    return shared / min(crop1[2] * crop1[3], crop2[2] * crop2[3])


def draw_crop(width: int, height: int, view: ViewParams, rng: np.random.Generator) -> Crop:
    """Draw (top, left, height, width) in px; area share and log-uniform aspect ratio within the
    view's ranges (Szegedy et al. 2015).
    """
    log_ratio = (math.log(view.ratio[0]), math.log(view.ratio[1]))
    for _ in range(MAX_CROP_TRIES):
        area = width * height * draw_uniform(*view.scale, rng)
        ratio = math.exp(draw_uniform(*log_ratio, rng))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    # No such crop fits a very long image: the largest central one of an allowed ratio.
    ratio = min(max(width / height, view.ratio[0]), view.ratio[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - h) // 2, (width - w) // 2, h, w


def reduce_crops(
    crops: tuple[Crop, Crop], view_size: tuple[int, int], image_size: tuple[int, int]
) -> tuple[int, tuple[Crop, Crop]]:
    """The largest reduction of an image at which no side of a crop is shorter than that of the
    view, or 1; and the crops in px of the reduced image, moved to whole px. Sizes: (height, width).
    """
    for reduction in REDUCTIONS:
        first, second = (_reduce_crop(crop, reduction, image_size) for crop in crops)
        if all(h >= view_size[0] and w >= view_size[1] for _, _, h, w in (first, second)):
            return reduction, (first, second)
    return 1, crops


def _reduce_crop(crop: Crop, reduction: int, image_size: tuple[int, int]) -> Crop:
    """Without the last row or column of the reduced image where the image covers part of it."""
    top, left, height, width = crop
    bottom = min(round((top + height) / reduction), image_size[0] // reduction)
    right = min(round((left + width) / reduction), image_size[1] // reduction)
    top, left = round(top / reduction), round(left / reduction)
    return top, left, bottom - top, right - left
