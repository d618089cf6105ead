"""Crop, colour jitter and blur of uint8 pixels [H, W, 3]; torchvision's definitions, several times
as fast.

torchvision's own operations on a 224 px view take longer than decoding the photograph. Factors are
those of `torchvision.transforms.v2.functional`; a test limits the mean difference to its results to
one level of 255.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from densecl.datasets.views.color_change import ColorChange, get_blur_kernel
from densecl.datasets.views.read_pixels import Pixels

cv2.setNumThreads(1)  # there is one process per core; OpenCV's own threads do not survive a fork

LEVELS = np.arange(256, dtype=np.float32)
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # weights of ITU-R 601, as in Pillow
BLUR_REACH = 4  # standard deviations: beyond them a Gaussian adds less than a hundredth of a level


def resize_crop(pixels: Pixels, crop: tuple[int, int, int, int], size: tuple[int, int]) -> Pixels:
    """Resize the crop (top, left, height, width in px) to [*size, 3], bilinear with antialiasing as
    in Pillow.
    """
    top, left, height, width = crop
    part = torch.from_numpy(pixels[top : top + height, left : left + width])
    # With these strides torch takes the batch of one for channels last, and converts nothing.
    batch = part.unsqueeze(0).permute(0, 3, 1, 2)
    resized = F.interpolate(batch, size=size, mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1)[0].numpy())


def to_planes(pixels: Pixels) -> Pixels:
    """[3, H, W]; faster here than as part of torch.stack."""
    height, width = pixels.shape[:2]
    planes = np.empty((3, height, width), np.uint8)
    cv2.split(pixels, list(planes))  # writes into them
    return planes


def adjust_brightness(pixels: Pixels, factor: float) -> Pixels:
    """Multiply every level by the factor."""
    return _apply_level_table(pixels, factor, 0.0)


def adjust_contrast(pixels: Pixels, factor: float) -> Pixels:
    """Blend with the mean grey level; a factor above 1 increases contrast."""
    return _apply_level_table(pixels, factor, float(GREY @ cv2.mean(pixels)[:3]))


def adjust_saturation(pixels: Pixels, factor: float) -> Pixels:
    """Blend with the grey level of each pixel; a factor above 1 increases saturation."""
    matrix = np.empty((3, 4), np.float32)
    matrix[:, :3] = (1 - factor) * GREY
    matrix.flat[::5] += factor  # the diagonal
    matrix[:, 3] = -0.5  # OpenCV rounds to the nearest, where torchvision rounds down
    return np.asarray(cv2.transform(pixels, matrix), np.uint8)


def adjust_hue(pixels: Pixels, factor: float) -> Pixels:
    """Rotate the hue by a share of the full circle, in [-0.5, 0.5]."""
    turned = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV_FULL)
    turned[..., 0] += np.uint8(round(factor * 256) % 256)  # wraps at the full circle
    return np.asarray(cv2.cvtColor(turned, cv2.COLOR_HSV2RGB_FULL), np.uint8)


ADJUST = [adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue]  # as ADJUSTMENTS


def apply_color_change(pixels: Pixels, change: ColorChange) -> Pixels:
    """The adjustments in their order, then the blur."""
    for index, factor in change.steps:
        pixels = ADJUST[index](pixels, factor)
    if change.sigma:
        pixels = apply_gaussian_blur(pixels, get_blur_kernel(len(pixels)), change.sigma)
    return pixels


def apply_gaussian_blur(pixels: Pixels, kernel: int, sigma: float) -> Pixels:
    """Gaussian blur with an odd kernel of at most `kernel` px and a sigma in px."""
    side = min(kernel, 2 * int(np.ceil(BLUR_REACH * sigma)) + 1)
    return np.asarray(cv2.GaussianBlur(pixels, (side, side), sigma), np.uint8)


def _apply_level_table(pixels: Pixels, factor: float, middle: float) -> Pixels:
    table = (factor * LEVELS + (1 - factor) * middle).clip(0, 255)
    return np.asarray(cv2.LUT(pixels, table.astype(np.uint8)), np.uint8)  # rounded down, as there
