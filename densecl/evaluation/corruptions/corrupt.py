"""One image, one corruption, one severity: the same pixels in every process and batch."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densecl.evaluation.corruptions import blur, digital, noise, weather
from densecl.evaluation.corruptions.digital import compress_jpeg
from densecl.seeding import derive_seed

Image = NDArray[np.uint8]
# (uint8 [H, W, 3], severity, random numbers) -> the same shape; if not uint8, still to be clipped
# to [0, 255] and truncated.
Corruption = Callable[[Image, int, np.random.Generator], NDArray[Any]]

SAVED_QUALITY = 85  # of the authors' JPEG files

# Those that need no photographs.
CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": noise.add_gaussian_noise,
    "shot_noise": noise.add_shot_noise,
    "impulse_noise": noise.add_impulse_noise,
    "defocus_blur": blur.blur_by_defocus,
    "glass_blur": blur.blur_by_glass,
    "motion_blur": blur.blur_by_motion,
    "zoom_blur": blur.blur_by_zoom,
    "snow": weather.add_snow,
    "fog": weather.add_fog,
    "brightness": weather.brighten,
    "contrast": digital.reduce_contrast,
    "elastic_transform": digital.deform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.compress,
    "gaussian_blur": blur.blur_evenly,
    "saturate": digital.saturate,
    "spatter": weather.add_spatter,
    "speckle_noise": noise.add_speckle_noise,
}


def corrupt_image(
    image: Image, name: str, severity: int, image_id: str, corruption: Corruption
) -> Image:
    """A corrupted copy, as the authors' JPEG file of it would show it.

    The random numbers depend on the image and the corruption only: all severities of an image
    share them.
    """
    pixels = corruption(image, severity, create_random(name, image_id))
    return compress_jpeg(truncate_pixels(pixels), SAVED_QUALITY)


def create_random(name: str, image_id: str) -> np.random.Generator:
    return np.random.default_rng(derive_seed(0, "corruptions", name, image_id))


def truncate_pixels(pixels: NDArray[Any]) -> Image:
    """Clipped to [0, 255], without the fraction, as the authors save them."""
    return pixels if pixels.dtype == np.uint8 else np.clip(pixels, 0, 255).astype(np.uint8)
